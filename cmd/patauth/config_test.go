package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// file writes a file into a folder of the test and returns its path.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// full is an environment that satisfies every workload in production.
func full(t *testing.T) []string {
	return []string{
		"PATAUTH_ISSUER=https://id.example.org",
		"PATAUTH_STORAGE_DSN=postgres://patauth:hunter2@db/patauth?sslmode=verify-full",
		"PATAUTH_STORAGE_KEYRING=" + file(t, "keyring.json", "[]"),
		"PATAUTH_REDIS_URL=rediss://:hunter2@redis:6379/0",
		"PATAUTH_KAFKA_BROKERS=k1:9092,k2:9092", "PATAUTH_KAFKA_SECURITY_TLS=true",
		"PATAUTH_SMTP_HOST=mail.example.org",
		"PATAUTH_SMTP_FROM=Clinic <id@example.org>",
	}
}

func TestEnvironmentComesAfterTheFile(t *testing.T) {
	path := file(t, "patauth.yaml", `
issuer: https://yaml.example.org
storage:
  dsn: postgres://yaml/patauth
  max_conns: 7
session: {idle: 20m}
trusted_proxies: [10.0.0.0/8]
log: {level: debug}
`)
	c, err := loadConfig("", append(full(t), "PATAUTH_CONFIG="+path, "HOME=/root"))
	require.NoError(t, err)
	require.NoError(t, c.Validate(""))
	require.Equal(t, "https://id.example.org", c.Issuer)
	require.Equal(t, 7, c.Storage.MaxConns)
	require.Equal(t, "20m0s", c.Session.Idle.String())
	require.Equal(t, "12h0m0s", c.Session.Absolute.String())
	require.Equal(t, []string{"k1:9092", "k2:9092"}, c.Kafka.Brokers)
	require.Equal(t, []string{"10.0.0.0/8"}, c.TrustedProxies)
	require.Equal(t, slog.LevelDebug, c.Log.Level)
	require.Equal(t, "lis.patient.v1", c.LIS.Topic)
}

func TestEverySettingMayComeFromAFile(t *testing.T) {
	c, err := loadConfig("", []string{
		"PATAUTH_STORAGE_DSN_FILE=" + file(t, "dsn", "postgres://db/patauth\n"),
		"PATAUTH_KAFKA_BROKERS_FILE=" + file(t, "brokers", "k1:9092,k2:9092\n"),
		"PATAUTH_KAFKA_SECURITY_PASSWORD_FILE=" + file(t, "password", " hunter2 \n"),
		"PATAUTH_SMTP_PORT_FILE=" + file(t, "port", "25\n"),
	})
	require.NoError(t, err)
	require.Equal(t, "postgres://db/patauth", string(c.Storage.DSN))
	require.Equal(t, []string{"k1:9092", "k2:9092"}, c.Kafka.Brokers)
	require.Equal(t, "hunter2", string(c.Kafka.Security.Password))
	require.Equal(t, 25, c.SMTP.Port)
}

func TestAllProblemsAreReportedAtOnce(t *testing.T) {
	path := file(t, "patauth.yaml", "isuer: https://x\nstorage: {max_conns: many}\n")
	_, err := loadConfig(path, []string{
		"PATAUTH_ISUER=https://x", "PATAUTH_SMTP_PORT=many", "PATAUTH_LOG_LEVEL_FILE=no/such/file",
		"PATAUTH_ISSUER=https://x", "PATAUTH_ISSUER_FILE=x",
	})
	for _, want := range []string{
		"line 1: field isuer not found", "line 2: cannot unmarshal", "PATAUTH_ISUER: there is no such setting",
		`parsing "many"`, "PATAUTH_LOG_LEVEL_FILE: open no/such/file", "PATAUTH_ISSUER and PATAUTH_ISSUER_FILE: set one of them",
	} {
		require.ErrorContains(t, err, want)
	}
	c := defaults()
	c.Issuer, c.SMTP.StartTLS, c.LIS.Topic = "http://id.example.org/path", "no", "a b"
	err = c.Validate("")
	for _, want := range []string{"issuer:", "storage.dsn: is required", "storage.keyring: is required", "redis.url", "kafka.brokers", "smtp.host", "smtp.from", "smtp.starttls", "lis.topic"} {
		require.ErrorContains(t, err, want)
	}
}

func TestWhatValidateRefuses(t *testing.T) {
	for _, row := range []struct {
		set  string // NAME=VALUE,…
		want string // "" is fine
	}{
		{"", ""},
		{"MODE=test", "mode: must be"},
		{"ISSUER=http://id.example.org", "issuer: must be https in production"},
		{"MODE=development;ISSUER=http://localhost:8080", ""},
		{"ISSUER=https://id.example.org/", "issuer: must be https://HOST"},
		{"ISSUER=https://id.example.org/a", "issuer: must be https://HOST"},
		{"ISSUER=https://user@id.example.org", "issuer: must be https://HOST"},
		{"ISSUER=https://", "issuer: must be https://HOST"},
		{"LISTEN=8080", "listen: must be"},
		{"LISTEN=:99999", "listen: must be"},
		{"LISTEN=127.0.0.1:9090", "internal_listen: must differ"},
		{"ISSUER=https://ID.example.org", "issuer: must be https://HOST"},
		{"ISSUER=https://bücher.example", "issuer: must be https://HOST"},
		{"ISSUER=https://xn--bcher-kva.example", ""},
		{"TRUSTED_PROXIES=0.0.0.0/0", "trusted_proxies: a network of everybody"},
		{"TRUSTED_PROXIES=::/0", "trusted_proxies: a network of everybody"},
		{"TRUSTED_PROXIES=0.0.0.0/1,128.0.0.0/1", "trusted_proxies: a network of everybody"},
		{"TRUSTED_PROXIES=fc00::/7,10.0.0.0/8", ""},
		{"TRUSTED_PROXIES=10.0.0.0/33", "trusted_proxies"},
		{"TRUSTED_PROXIES=10.0.0.0/8,::1", ""},
		{"DRAIN=2m", "drain: must be"},
		{"STORAGE_DSN=mysql://x", "storage.dsn: must start"},
		{"STORAGE_DSN=sqlite:x.db", "storage.dsn: SQLite is for development"},
		{"MODE=development;STORAGE_DSN=sqlite:x.db", ""},
		{"STORAGE_DSN=postgres://u:p#a/ss@db/patauth", "storage.dsn: is not a PostgreSQL URL"},
		{"STORAGE_DSN=postgres://u@db/patauth", "storage.dsn: needs sslmode=verify-full"},
		{"STORAGE_DSN=postgres://u@db/patauth?sslmode=disable", "storage.dsn: needs sslmode=verify-full"},
		{"STORAGE_DSN=postgres://u@db/patauth?sslmode=prefer", "storage.dsn: needs sslmode=verify-full"},
		{"STORAGE_DSN=postgres://u@db/patauth?sslmode=require", "storage.dsn: needs sslmode=verify-full"},
		{"STORAGE_DSN=postgres://u@127.0.0.1,db/patauth?sslmode=disable", "storage.dsn: needs sslmode=verify-full"},
		{"STORAGE_DSN=postgres://u@db/patauth?sslmode=disable;PLAINTEXT=storage", ""},
		{"STORAGE_DSN=postgres://u@db/patauth?sslmode=disable;PLAINTEXT=redis,kafka,smtp", "storage.dsn: needs sslmode=verify-full"},
		{"STORAGE_DSN=postgres://u@127.0.0.1/patauth?sslmode=disable", ""},
		{"STORAGE_DSN=postgres:///patauth?host=/var/run/postgresql", ""},
		{"STORAGE_DSN=postgres://u@db/patauth?sslmode=disable;MODE=development", ""},
		{"PLAINTEXT=everything", "plaintext: each must be"},
		{"REDIS_URL=redis://:x@redis:6379/0", "redis.url: needs rediss://"},
		{"REDIS_URL=rediss://r1:1,redis://r2:1", "redis.url: needs rediss://"},
		{"REDIS_URL=redis-sentinel://s1:26379?master=m", "redis.url: needs rediss://"},
		{"REDIS_URL=redis://:x@redis:6379/0;PLAINTEXT=redis", ""},
		{"REDIS_URL=redis://127.0.0.1:6379/0", ""},
		{"KAFKA_SECURITY_TLS=false", "kafka.security: needs tls"},
		{"KAFKA_SECURITY_TLS=false;PLAINTEXT=kafka", ""},
		{"KAFKA_SECURITY_TLS=false;KAFKA_BROKERS=localhost:9092", ""},
		{"SMTP_STARTTLS=none;PLAINTEXT=smtp", ""},
		{"LOGIN_HASH_MEMORY_KIB=8;LOGIN_HASH_ITERATIONS=1", "login.hash: production mode needs"},
		{"LOGIN_HASH_MEMORY_KIB=19456", ""},
		{"LOGIN_HASH_MEMORY_KIB=19456;LOGIN_HASH_ITERATIONS=1", "login.hash: production mode needs"},
		{"LOGIN_LIMITS_NETWORK_PER_MINUTE=0", "login.limits: production mode needs"},
		{"STORAGE_KEYRING=no/such/file", "storage.keyring: the file cannot be read"},
		{"STORAGE_MAX_CONNS=0", "storage.max_conns"},
		{"REDIS_URL=http://x", "redis.url: must be"},
		{"KAFKA_BROKERS=k1", "kafka.brokers: each"},
		{"KAFKA_SECURITY_MECHANISM=GSSAPI", "kafka.security.mechanism"},
		{"KAFKA_SECURITY_MECHANISM=SCRAM-SHA-512", "needs username and password"},
		{"KAFKA_SECURITY_USERNAME=x", "need a mechanism"},
		{"KAFKA_SECURITY_MECHANISM=PLAIN;KAFKA_SECURITY_USERNAME=x;KAFKA_SECURITY_PASSWORD=y;KAFKA_SECURITY_TLS=false", "kafka.security: needs tls"},
		{"KAFKA_SECURITY_MECHANISM=PLAIN;KAFKA_SECURITY_USERNAME=x;KAFKA_SECURITY_PASSWORD=y;KAFKA_SECURITY_TLS=true", ""},
		{"KAFKA_SECURITY_CERT=no/such/file", "cert and key go together"},
		{"KAFKA_SECURITY_CA=no/such/file", "kafka.security.ca: the file cannot be read"},
		{"LIS_TOPIC=lis.patient.v1.dlq", "lis.dead_letter_topic: must differ"},
		{"LIS_GROUP=a b", "lis.group"},
		{"LIS_TRAINING=true", "lis.training"},
		{"SMTP_FROM=nobody", "smtp.from"},
		{"SMTP_USERNAME=x", "smtp: username and password"},
		{"SMTP_STARTTLS=none", "smtp.starttls: must be mandatory in production"},
		{"ADMIN_TOKEN=short", "admin.token"},
		{"KEYS_RSA_BITS=2048", ""},
		{"KEYS_RSA_BITS=1024", "keys.rsa_bits: must be 2048 or 3072"},
		{"KEYS_RSA_BITS=0", "keys.rsa_bits: must be"},
		{"OAUTH_PKCE=always", ""},
		{"OAUTH_PKCE=public", ""},
		{"OAUTH_PKCE=off", "oauth.pkce: must be always, nonce or public"},
		{"REGISTRATION_MODE=perhaps", "registration.mode"},
		{"REGISTRATION_MODE=token", "registration.token"},
		{"OUTBOUND_NETWORKS=10.0.0.0/8,192.168.0.0/16", ""},
		{"OUTBOUND_NETWORKS=everywhere", "outbound.networks: each"},
		{"OUTBOUND_NETWORKS=127.0.0.1/32", "outbound.networks: loopback"},
		{"OUTBOUND_NETWORKS=169.254.0.0/16", "outbound.networks: link-local"},
		{"OUTBOUND_NETWORKS=0.0.0.0/0", "outbound.networks: loopback"},
		{"TEMPLATES_DIR=no/such/dir", "templates.dir"},
		{"SESSION_IDLE=2h", "session.idle"},
	} {
		t.Run(row.set, func(t *testing.T) {
			environ := full(t)
			for _, s := range strings.Split(row.set, ";") {
				environ = append(environ, "PATAUTH_"+s)
			}
			if row.set == "" {
				environ = full(t)
			}
			c, err := loadConfig("", environ)
			require.NoError(t, err)
			if err := c.Validate(""); row.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, row.want)
			}
		})
	}
}

func TestWorkloadsNeedOnlyWhatTheyUse(t *testing.T) {
	c := defaults()
	c.Storage.DSN, c.Storage.Keyring = "postgres://db/patauth?sslmode=verify-full", file(t, "keyring.json", "[]")
	require.NoError(t, c.Validate("migrate"))
	require.ErrorContains(t, c.Validate("app"), "issuer: is required")
	require.ErrorContains(t, c.Validate("consumer"), "kafka.brokers: is required")
	require.ErrorContains(t, c.Validate("worker"), "smtp.host: is required")
	require.ErrorContains(t, c.Validate("cron"), "redis.url: is required")
}

// One round tells everything: what the environment holds that is no setting, what
// the file misspells, what the rules refuse, and what the named files hold.
func TestConfigCheckTellsAllInOneRound(t *testing.T) {
	environ := append(full(t), "PATAUTH_ISUER=https://x", "PATAUTH_STORAGE_DSN=postgres://u:p#a/ss@db/x",
		"PATAUTH_CONFIG="+file(t, "patauth.yaml", "lis: {topik: x}\n"), "PATAUTH_KAFKA_SECURITY_CA="+file(t, "ca.pem", "none"))
	_, err := patauth(t, environ, "config", "check")
	for _, want := range []string{
		"PATAUTH_ISUER: there is no such setting", "field topik not found", "storage.dsn: is not a PostgreSQL URL",
		"storage.keyring: keyring: at least one key is needed", "kafka.security.ca: holds no certificate",
	} {
		require.ErrorContains(t, err, want)
	}
	require.NotContains(t, err.Error(), "p#a")

	_, err = patauth(t, append(full(t), "PATAUTH_CONFIG=no/such/file"), "config", "check")
	require.ErrorContains(t, err, "no/such/file")
	require.NotContains(t, err.Error(), "required", "what is missing may stand in the file")
	_, err = patauth(t, append(full(t), "PATAUTH_ISSUER=https://a_b"), "config", "check")
	require.ErrorContains(t, err, "issuer: passkeys")
}

func TestSecretsAreNeverShown(t *testing.T) {
	c, err := loadConfig("", append(full(t), "PATAUTH_SMTP_PASSWORD=hunter2", "PATAUTH_SMTP_USERNAME=u"))
	require.NoError(t, err)
	var shown bytes.Buffer
	y, err := yaml.Marshal(c)
	require.NoError(t, err)
	j, err := json.Marshal(c)
	require.NoError(t, err)
	slog.New(slog.NewJSONHandler(&shown, nil)).Info("x", "config", c, "dsn", c.Storage.DSN)
	fmt.Fprintf(&shown, "%s %s %v %+v %#v %q %x", y, j, c, c, c, c.Storage.DSN, c.Storage.DSN)
	require.NotContains(t, shown.String(), "hunter2")
	require.NotContains(t, shown.String(), "68756e74657232")
	require.Contains(t, string(y), "dsn: '[set]'")
}

func FuzzReadYAML(f *testing.F) {
	f.Add([]byte("issuer: https://id.example.org\nsession: {idle: 20m}\n"))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("issuer: 1\n---\nissuer: 2\n"))
	f.Add([]byte("log: {level: loud}\ntrusted_proxies: {}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := defaults()
		if readYAML(b, &c) != nil {
			return
		}
		c.Validate("")
		shown, err := yaml.Marshal(c)
		require.NoError(t, err)
		again := defaults()
		require.NoError(t, readYAML(shown, &again))
	})
}
