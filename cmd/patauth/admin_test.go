package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/storage"
)

// patauth runs a command and returns what it printed.
func patauth(t *testing.T, environ []string, args ...string) (string, error) {
	t.Helper()
	return patauthIn(t, environ, "", args...)
}

func patauthIn(t *testing.T, environ []string, stdin string, args ...string) (string, error) {
	t.Helper()
	cmd := newCommand(environ)
	var out bytes.Buffer
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&bytes.Buffer{})
	cmd.SetIn(strings.NewReader(stdin))
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// must is patauth for commands that print JSON and succeed.
func must[T any](t *testing.T, environ []string, args ...string) T {
	t.Helper()
	out, err := patauth(t, environ, append(args, "--json")...)
	require.NoError(t, err)
	var v T
	require.NoError(t, json.Unmarshal([]byte(out), &v), out)
	return v
}

// sqliteEnv is a development environment with an empty database.
func sqliteEnv(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	keyring := filepath.Join(dir, "keyring.json")
	require.NoError(t, writeJSON(keyring, storage.NewKeyring()))
	return []string{
		"PATAUTH_MODE=development", "PATAUTH_STORAGE_DSN=sqlite:" + filepath.Join(dir, "patauth.db"), "PATAUTH_STORAGE_KEYRING=" + keyring,
		"PATAUTH_ISSUER=http://localhost:8080", "PATAUTH_REDIS_URL=redis://127.0.0.1:1",
	}
}

func TestMigrateComesBeforeEverything(t *testing.T) {
	env := sqliteEnv(t)
	_, err := patauth(t, env, "migrate", "status")
	require.ErrorContains(t, err, "too old")
	for _, args := range [][]string{{"app"}, {"cron"}, {"client", "list"}} {
		_, err := patauth(t, env, args...)
		require.ErrorContains(t, err, "run patauth migrate", args)
	}
	first := must[map[string]any](t, env, "migrate")
	require.NotEmpty(t, first["applied"])
	again := must[map[string]any](t, env, "migrate", "up")
	require.Empty(t, again["applied"])
	status := must[storage.Schema](t, env, "migrate", "status")
	require.Equal(t, status.Wanted, status.Version)
}

func TestAWorkloadThatCannotStartSaysWhy(t *testing.T) {
	env := sqliteEnv(t)
	_, err := patauth(t, append(env, "PATAUTH_STORAGE_KEYRING=no/such/file"), "app")
	require.ErrorContains(t, err, "storage.keyring: the file cannot be read")
	_, err = patauth(t, append(env, "PATAUTH_STORAGE_KEYRING="+file(t, "keyring.json", `[]`)), "app")
	require.ErrorContains(t, err, "storage.keyring: keyring: at least one key is needed")
	_, err = patauth(t, append(env, "PATAUTH_STORAGE_DSN=postgres://nobody:hunter2@127.0.0.1:1/none"), "app")
	require.ErrorContains(t, err, "schema status")
	require.NotContains(t, err.Error(), "hunter2")
}

func TestClientsOfTheOperator(t *testing.T) {
	env := sqliteEnv(t)
	must[any](t, env, "migrate")
	made := must[clientView](t, env, "client", "create", "--name", "Portal", "--redirect-uri", "https://portal.example.org/cb",
		"--redirect-uri", "http://127.0.0.1:9999/callback", "--post-logout-redirect-uri", "https://portal.example.org/",
		"--scope", "openid", "--scope", "lab", "--grant", "authorization_code", "--grant", "client_credentials", "--can-introspect")
	require.NotEmpty(t, made.ID)
	require.NotEmpty(t, made.Secret)
	require.Equal(t, []string{"https://portal.example.org/cb", "http://127.0.0.1:9999/callback"}, made.RedirectURIs)
	require.Equal(t, []string{"openid", "lab"}, made.Scopes)

	shown := must[clientView](t, env, "client", "show", made.ID)
	require.Empty(t, shown.Secret, "a secret is shown once")
	made.Secret = ""
	require.Equal(t, made, shown)

	app := must[clientView](t, env, "client", "create", "--name", "App", "--public", "--redirect-uri", "org.example.app:/cb")
	require.True(t, app.Public)
	require.Empty(t, app.Secret)
	require.Len(t, must[[]clientView](t, env, "client", "list"), 2)
	_, err := patauth(t, env, "client", "show", "nobody")
	require.ErrorIs(t, err, storage.ErrNotFound)
}

func TestPatientsOfTheOperator(t *testing.T) {
	env := sqliteEnv(t)
	must[any](t, env, "migrate")
	made := must[patientView](t, env, "patient", "create", "--email", "Ada@Example.org", "--given-name", "Ada", "--birth-date", "1975-12-10")
	require.Equal(t, "ada@example.org", made.Email)
	require.False(t, made.EmailVerified)
	_, err := patauth(t, env, "patient", "create", "--email", "ada@example.org")
	require.ErrorIs(t, err, storage.ErrConflict)
	_, err = patauth(t, env, "patient", "create", "--email", "nobody")
	require.ErrorContains(t, err, "--email")
	_, err = patauth(t, env, "patient", "create", "--email", "b@example.org", "--birth-date", "10.12.1975")
	require.ErrorContains(t, err, "--birth-date")
	_, err = patauthIn(t, env, "short\n", "patient", "create", "--email", "b@example.org", "--password-stdin")
	require.ErrorContains(t, err, "at least 15")
	out, err := patauthIn(t, env, goodPassword+"\n", "patient", "create", "--email", "b@example.org", "--verified", "--password-stdin")
	require.NoError(t, err)
	shown := must[patientView](t, env, "patient", "show", strings.TrimSpace(out))
	require.True(t, shown.EmailVerified)
	require.Equal(t, []string{"password"}, shown.Credentials)
	require.Equal(t, shown, must[patientView](t, env, "patient", "show", "B@example.org"))
	all := must[[]patientView](t, env, "patient", "list", "--limit", "1")
	require.Len(t, all, 1)
	require.Len(t, must[[]patientView](t, env, "patient", "list", "--after", all[0].ID), 1)
}

func TestConfigCommands(t *testing.T) {
	env := sqliteEnv(t)
	out, err := patauth(t, env, "config", "print")
	require.NoError(t, err)
	require.Contains(t, out, "issuer: http://localhost:8080")
	require.Contains(t, out, "dsn: '[set]'")
	shown := must[map[string]any](t, env, "config", "print")
	require.Equal(t, "development", shown["mode"])
	_, err = patauth(t, env, "config", "check")
	require.ErrorContains(t, err, "smtp.host: is required")
	require.ErrorContains(t, err, "kafka.brokers: is required")
	env = append(env, "PATAUTH_SMTP_HOST=localhost", "PATAUTH_SMTP_FROM=id@example.org", "PATAUTH_KAFKA_BROKERS=localhost:9092")
	out, err = patauth(t, env, "config", "check")
	require.NoError(t, err)
	require.Contains(t, out, "valid")
	_, err = patauth(t, append(env, "PATAUTH_TYPO=1"), "config", "print")
	require.ErrorContains(t, err, "PATAUTH_TYPO: there is no such setting")
}

// The commands work on a running dev.
func TestOperatorAtDev(t *testing.T) {
	data := t.TempDir()
	_, err := patauth(t, nil, "client", "list", "--data", data)
	require.ErrorContains(t, err, "patauth dev has not run there")
	line, _ := inProcess(t, data)
	made := must[clientView](t, nil, "client", "create", "--data", data, "--name", "Mine", "--redirect-uri", "http://127.0.0.1:9999/callback")
	require.Len(t, must[[]clientView](t, nil, "client", "list", "--data", data), 4)
	require.Equal(t, line.Client.ID, must[clientView](t, nil, "client", "show", line.Client.ID, "--data", data).ID)
	require.NotEmpty(t, made.Secret)
	s := newSurfer(t)
	s.register(line, "grace@example.org")
	require.True(t, must[patientView](t, nil, "patient", "show", "grace@example.org", "--data", data).EmailVerified)
	require.Len(t, must[[]keyView](t, nil, "key", "list", "--data", data), len(keys.Algorithms))
	require.Equal(t, line.Issuer, must[map[string]any](t, nil, "config", "print", "--data", data)["issuer"])
}

func TestTheFeedOfTheOperator(t *testing.T) {
	env := sqliteEnv(t)
	must[any](t, env, "migrate")
	set := must[authorityView](t, env, "lis", "authority", "set", "lab1", "--name", "Laboratory", "--oid", "2.999.1", "--namespace", "LAB1")
	require.True(t, set.Active && set.LinkKey)
	set = must[authorityView](t, env, "lis", "authority", "set", "lab1", "--name", "Riverside Laboratory", "--oid", "2.999.1")
	require.Equal(t, []authorityView{set}, must[[]authorityView](t, env, "lis", "authority", "list"))
	_, err := patauth(t, env, "lis", "authority", "set", "lab2", "--name", "Nobody")
	require.ErrorContains(t, err, "are required")
	_, err = patauth(t, env, "lis", "authority", "set", "lab2", "--name", "Another", "--oid", "2.999.1")
	require.ErrorIs(t, err, storage.ErrConflict)

	good := file(t, "good.hl7", "MSH|^~\\&|LIS|LAB1|PATAUTH||20250101120000||ADT^A28^ADT_A05|1|P|2.5.1\rEVN|A28|20250101120000\rPID|1||R-1^^^LAB1&2.999.1&ISO^MR||Example^Ada||19751210\r")
	broken := file(t, "broken.hl7", "PID|this is no message")
	out, err := patauth(t, env, "lis", "check", good)
	require.NoError(t, err)
	require.Contains(t, out, "apply upsert")
	out, err = patauth(t, env, "lis", "check", good, broken, "--json")
	require.ErrorContains(t, err, "broken messages")
	require.Contains(t, out, `"result":"quarantine"`)
	_, err = patauth(t, env, "lis", "publish", good)
	require.ErrorContains(t, err, "kafka.brokers: is required")
	_, err = patauth(t, env, "lis", "invite", "lab1", "R-1")
	require.ErrorIs(t, err, storage.ErrNotFound)
	require.Empty(t, must[[]deadLetterView](t, env, "lis", "dead-letters", "list"))
	_, err = patauth(t, env, "lis", "dead-letters", "replay", "nothing")
	require.ErrorIs(t, err, storage.ErrNotFound)
}

// A message that names an unknown authority waits for review; once the authority
// is registered it is applied, and its record can be linked.
func TestTheOperatorMendsWhatWaits(t *testing.T) {
	data := t.TempDir()
	inProcess(t, data)
	message := file(t, "new.hl7", "MSH|^~\\&|LIS|LAB9|PATAUTH||20250101120000||ADT^A28^ADT_A05|1|P|2.5.1\rEVN|A28|20250101120000\rPID|1||R-9^^^LAB9&2.999.9&ISO^MR||Example^Ada||19751210\r")
	report := must[map[string]int](t, nil, "lis", "publish", message, "--data", data)
	require.Equal(t, map[string]int{"records": 1, "acknowledged": 1, "failed": 0}, report)
	var waiting []deadLetterView
	require.Eventually(t, func() bool {
		waiting = must[[]deadLetterView](t, nil, "lis", "dead-letters", "list", "--review", "--data", data)
		return len(waiting) == 1
	}, 30*time.Second, 200*time.Millisecond)
	require.Equal(t, "unknown-authority", waiting[0].Reason)
	must[any](t, nil, "lis", "authority", "set", "lab9", "--name", "New Laboratory", "--oid", "2.999.9", "--data", data)
	again := must[map[string]string](t, nil, "lis", "dead-letters", "replay", waiting[0].ID, "--data", data)
	require.Equal(t, "applied", again["outcome"])
	invited := must[map[string]any](t, nil, "lis", "invite", "lab9", "R-9", "--data", data)
	require.Regexp(t, `^[0-9A-Z]{4}-[0-9A-Z]{4}-[0-9A-Z]{4}$`, invited["code"])
}
