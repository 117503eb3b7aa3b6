package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"
	"go.yaml.in/yaml/v3"
)

const envPrefix = "PATAUTH_"

// errUnread says that the file was not read, so that what is missing may be in it.
var errUnread = errors.New("cannot be read")

// loadConfig reads the configuration: defaults, then the file at path, then the
// environment. It returns what it could read together with all problems.
func loadConfig(path string, environ []string) (Config, error) {
	c := defaults()
	err := overlay(&c, path, environ)
	return c, err
}

// overlay fills c from the file and the environment.
func overlay(c *Config, path string, environ []string) error {
	vars := env.ToMap(environ)
	if path == "" {
		path = vars[envPrefix+"CONFIG"]
	}
	var problems []error
	if path != "" {
		b, err := os.ReadFile(path)
		if err != nil {
			problems = append(problems, fmt.Errorf("config file: %w: %w", errUnread, err))
		} else if err := readYAML(b, c); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", path, err))
		}
	}
	problems = append(problems, readEnv(vars, c)...)
	return errors.Join(problems...)
}

// readYAML fills c from one YAML document. Keys that c does not know are errors
// that name their line; an empty document changes nothing.
func readYAML(b []byte, c *Config) error {
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	err := d.Decode(c)
	if errors.Is(err, io.EOF) {
		return nil
	}
	var faults *yaml.TypeError
	if errors.As(err, &faults) {
		var all []error
		for _, f := range faults.Errors {
			all = append(all, errors.New(strings.Replace(f, " in type main.", " in ", 1)))
		}
		return errors.Join(all...)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errUnread, err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return errors.New("there must be one document, not several")
	}
	return nil
}

// readEnv fills c from the variables that start with PATAUTH_. For each of them
// NAME_FILE may name a file with the value instead. PATAUTH_CONFIG is ours, and
// PATAUTH_TEST_… belongs to the tests.
func readEnv(vars map[string]string, c *Config) []error {
	params, err := env.GetFieldParamsWithOptions(c, env.Options{Prefix: envPrefix})
	if err != nil {
		return []error{err}
	}
	known := func(name string) bool {
		return slices.ContainsFunc(params, func(p env.FieldParams) bool { return p.Key == name })
	}
	var problems []error
	values := map[string]string{}
	for name, value := range vars {
		of, isFile := strings.CutSuffix(name, "_FILE")
		switch {
		case !strings.HasPrefix(name, envPrefix), name == envPrefix+"CONFIG", strings.HasPrefix(name, envPrefix+"TEST_"):
		case known(name):
			values[name] = value
		case isFile && known(of):
			if _, both := vars[of]; both {
				problems = append(problems, fmt.Errorf("%s and %s: set one of them, not both", of, name))
				continue
			}
			b, err := os.ReadFile(value)
			if err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", name, err))
				continue
			}
			values[of] = strings.TrimSpace(string(b))
		default:
			problems = append(problems, fmt.Errorf("%s: there is no such setting", name))
		}
	}
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	err = env.ParseWithOptions(c, env.Options{Prefix: envPrefix, Environment: values})
	var all env.AggregateError
	if errors.As(err, &all) {
		return append(problems, all.Errors...)
	}
	if err != nil {
		problems = append(problems, err)
	}
	return problems
}
