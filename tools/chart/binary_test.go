package chart

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// program is the patauth that the chart is for; `make test` builds it.
func program(t *testing.T) string {
	t.Helper()
	path := os.Getenv("PATAUTH_TEST_BINARY")
	if path == "" {
		t.Skip("no patauth to try the chart with: set PATAUTH_TEST_BINARY to its path or run make test")
	}
	return path
}

// inPod prepares the program to run as the pod would: its arguments, and its
// environment with the mounted files laid out in a folder of the test.
func inPod(t *testing.T, config string, p corev1.PodSpec) *exec.Cmd {
	t.Helper()
	root := t.TempDir()
	write := func(path, text string) {
		path = filepath.Join(root, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	config = strings.ReplaceAll(config, ":8080", "127.0.0.1:0")
	config = strings.ReplaceAll(config, ":9090", "127.0.0.1:0")
	write("/etc/patauth/config.yaml", config)
	for setting, text := range map[string]string{
		"storage.dsn":             "postgres://patauth:hunter2@127.0.0.1:1/patauth?sslmode=disable\n",
		"storage.keyring":         `[{"id": "k1", "key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}]`,
		"redis.url":               "redis://127.0.0.1:1/0\n",
		"smtp.password":           "hunter2\n",
		"kafka.security.password": "hunter2\n",
	} {
		mounted := slices.ContainsFunc(p.Volumes[1].Projected.Sources, func(s corev1.VolumeProjection) bool {
			return s.Secret.Items[0].Path == setting
		})
		if mounted {
			write("/etc/patauth/secrets/"+setting, text)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program(t), p.Containers[0].Args...)
	for _, e := range p.Containers[0].Env {
		cmd.Env = append(cmd.Env, e.Name+"="+root+e.Value)
	}
	return cmd
}

// Each workload takes the configuration and the files that its pod has. What
// stops it here is the absent database, and nothing else.
func TestPodsAreConfigured(t *testing.T) {
	program(t)
	all := objects(t, release, prod(t))
	config := a[*corev1.ConfigMap](t, all, "ConfigMap "+release+"--config--prod").Data["config.yaml"]
	forMigrate := a[*corev1.ConfigMap](t, all, "ConfigMap "+release+"--migrate--prod").Data["config.yaml"]
	require.Equal(t, strings.TrimSpace(config), strings.TrimSpace(forMigrate))
	for key, p := range pods(all) {
		t.Run(key, func(t *testing.T) {
			cmd := inPod(t, config, p.Spec)
			out, err := cmd.CombinedOutput()
			require.Error(t, err)
			require.NotContains(t, string(out), "configuration", "\n%s", out)
			require.Contains(t, string(out), "unavailable", "\n%s", out)
			require.NotContains(t, string(out), "hunter2")
		})
	}
}

// The schema of config has the keys that patauth has, but for those which the
// chart sets or which hold a secret.
func TestTheSchemaKnowsTheConfiguration(t *testing.T) {
	cmd := exec.Command(program(t), "config", "print")
	cmd.Env = []string{}
	out, err := cmd.Output()
	require.NoError(t, err)
	var printed map[string]any
	require.NoError(t, yaml.Unmarshal(out, &printed))
	b, err := os.ReadFile(filepath.Join(folder, "values.schema.json"))
	require.NoError(t, err)
	type node struct{ Properties map[string]*node }
	var schema node
	require.NoError(t, json.NewDecoder(bytes.NewReader(b)).Decode(&schema))

	var have, want []string
	var walkSchema func(string, *node)
	walkSchema = func(path string, n *node) {
		for name, child := range n.Properties {
			if child.Properties == nil {
				have = append(have, path+name)
			}
			walkSchema(path+name+".", child)
		}
	}
	walkSchema("", schema.Properties["config"])
	for setting := range readValues(t, filepath.Join(folder, "values.yaml"))["secrets"].(map[string]any) {
		have = append(have, setting)
	}
	have = append(have, "listen", "internal_listen")
	var walk func(string, map[string]any)
	walk = func(path string, m map[string]any) {
		for name, v := range m {
			if child, ok := v.(map[string]any); ok {
				walk(path+name+".", child)
				continue
			}
			want = append(want, path+name)
		}
	}
	walk("", printed)
	slices.Sort(have)
	slices.Sort(want)
	require.Equal(t, want, have)
}
