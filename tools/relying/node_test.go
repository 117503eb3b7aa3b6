package relying

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// node prepares to run a script of testdata/node beside the packages of npm that
// .ci/testenv installs.
func node(t *testing.T, script string, args ...string) *exec.Cmd {
	t.Helper()
	packages := os.Getenv("PATAUTH_TEST_NODE")
	if packages == "" {
		t.Skip("no packages of npm: set PATAUTH_TEST_NODE to a folder where `npm ci` installed testdata/node, or run make test")
	}
	dir := t.TempDir()
	require.NoError(t, os.Symlink(filepath.Join(packages, "node_modules"), filepath.Join(dir, "node_modules")))
	text, err := os.ReadFile(filepath.Join("testdata", "node", script))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, script), text, 0o600))
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(stop)
	return exec.CommandContext(ctx, "node", append([]string{filepath.Join(dir, script)}, args...)...)
}

// openid-client checks what the specifications let a client check, and says no
// to what they forbid.
func TestOpenIDClient(t *testing.T) {
	t.Parallel()
	h := open(t, "PATAUTH_REGISTRATION_MODE=open")
	b := h.patient(t, "grace@example.org")
	key, keyID, jwks := keys(t)
	given, err := json.Marshal(map[string]any{
		"issuer": h.Issuer,
		"portal": h.register(t, "--redirect-uri", portal, "--scope", "openid,profile,email,offline_access",
			"--post-logout-redirect-uri", "https://portal.example/bye", "--audience", resource),
		"server":   h.register(t, "--grant", "client_credentials", "--can-introspect", "--audience", resource, "--access-token-alg", "ES256"),
		"service":  h.register(t, "--grant", "client_credentials", "--audience", resource, "--scope", "results.read", "--auth-method", "private_key_jwt", "--jwks", jwks),
		"key":      map[string]string{"id": keyID, "pem": string(key)},
		"resource": resource,
		"patient":  map[string]string{"id": b.patient, "email": b.email},
	})
	require.NoError(t, err)

	cmd := node(t, "portal.mjs", string(given))
	cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+h.authority)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	stderr := &bytes.Buffer{}
	cmd.Stderr = stderr
	require.NoError(t, cmd.Start())
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		address, err := url.Parse(lines.Text())
		require.NoError(t, err)
		require.Equal(t, h.Issuer, address.Scheme+"://"+address.Host)
		_, err = stdin.Write([]byte(b.goes(address.String()).String() + "\n"))
		require.NoError(t, err)
	}
	require.NoError(t, cmd.Wait(), stderr.String())
}
