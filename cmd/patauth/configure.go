package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/pat-authenticate/patauth/provider/login"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/templates"
)

func (c *command) configure() *cobra.Command {
	return group("config", "Check and show the configuration",
		&cobra.Command{Use: "check", Short: "Say everything that is wrong with the configuration, and with the files it names", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				config, err := c.load("")
				if err := errors.Join(err, config.try()); err != nil {
					return err
				}
				return c.print(cmd, map[string]bool{"valid": true}, func() {
					fmt.Fprintln(cmd.OutOrStdout(), "the configuration is valid")
				})
			}},
		&cobra.Command{Use: "print", Short: "Show the values in force, secrets as [set]", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				config, err := c.configured()
				if err != nil {
					return err
				}
				b, err := yaml.Marshal(config)
				if err != nil {
					return err
				}
				var values map[string]any
				if err := yaml.Unmarshal(b, &values); err != nil {
					return err
				}
				return c.print(cmd, values, func() { cmd.OutOrStdout().Write(b) })
			}},
	)
}

// try uses what can be used without a network: the files that c names, and what is
// made of its values.
func (c Config) try() error {
	var problems []error
	if c.Storage.Keyring != "" {
		if _, err := storage.ReadKeyring(c.Storage.Keyring); err != nil {
			problems = append(problems, fmt.Errorf("storage.keyring: %w", err))
		}
	}
	if _, err := templates.New(c.Templates.Dir); err != nil {
		problems = append(problems, fmt.Errorf("templates.dir: %w", err))
	}
	if isOrigin(c.Issuer) {
		if err := login.CheckIssuer(c.Issuer); err != nil {
			problems = append(problems, fmt.Errorf("issuer: %w", err))
		}
	}
	if sec := c.Kafka.Security; sec.Cert != "" && sec.Key != "" {
		if _, err := tls.LoadX509KeyPair(sec.Cert, sec.Key); err != nil {
			problems = append(problems, fmt.Errorf("kafka.security: cert and key: %w", err))
		}
	}
	if ca := c.Kafka.Security.CA; ca != "" {
		if b, err := os.ReadFile(ca); err == nil && !x509.NewCertPool().AppendCertsFromPEM(b) {
			problems = append(problems, errors.New("kafka.security.ca: holds no certificate"))
		}
	}
	return errors.Join(problems...)
}

// configured is load without the rules: what is wrong can still be looked at.
func (c *command) configured() (Config, error) {
	if c.data != "" {
		return installed(c.data)
	}
	config, err := loadConfig(c.config, c.environ)
	if err != nil {
		return config, fmt.Errorf("configuration:\n%w", err)
	}
	return config, nil
}
