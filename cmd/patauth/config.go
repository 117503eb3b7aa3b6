package main

import (
	"log/slog"
	"time"

	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/provider/login"
	"github.com/pat-authenticate/patauth/provider/oauth"
	"github.com/pat-authenticate/patauth/provider/session"
)

// Config is everything that can be configured; the comments are the manual. A
// YAML file (--config or PATAUTH_CONFIG) is read first, then the environment:
// storage.dsn is PATAUTH_STORAGE_DSN, and PATAUTH_STORAGE_DSN_FILE names a file
// that holds it. Lists are separated by commas there.
type Config struct {
	// Mode is production, which is the default, or development. Production
	// refuses an issuer without https, SQLite and mail without TLS.
	Mode string `yaml:"mode" env:"MODE"`
	// Issuer is the URL that everything is reached at: scheme and host, no path.
	// Tokens and links are made from it, never from what a request says.
	Issuer string `yaml:"issuer" env:"ISSUER"`
	// Listen is the address of the public listener. Default :8080.
	Listen string `yaml:"listen" env:"LISTEN"`
	// InternalListen is the address of health, metrics and profiles, which must
	// not be reached from outside. Default 127.0.0.1:9090.
	InternalListen string `yaml:"internal_listen" env:"INTERNAL_LISTEN"`
	// TrustedProxies are the networks whose X-Forwarded-For is believed.
	TrustedProxies []string `yaml:"trusted_proxies" env:"TRUSTED_PROXIES"`
	// Drain is how long a stopping process still answers after /readyz has said
	// no, so that nobody is sent here who would not be served. Default 5s.
	Drain time.Duration `yaml:"drain" env:"DRAIN"`
	// Plaintext names what production mode may reach without TLS, of storage, redis,
	// kafka and smtp: what travels there is then anybody's on that network. This
	// machine's own loopback and sockets need no such word.
	Plaintext []string `yaml:"plaintext" env:"PLAINTEXT"`

	Storage      StorageConfig      `yaml:"storage" envPrefix:"STORAGE_"`
	Redis        RedisConfig        `yaml:"redis" envPrefix:"REDIS_"`
	Kafka        KafkaConfig        `yaml:"kafka" envPrefix:"KAFKA_"`
	LIS          LISConfig          `yaml:"lis" envPrefix:"LIS_"`
	SMTP         SMTPConfig         `yaml:"smtp" envPrefix:"SMTP_"`
	Session      session.Config     `yaml:"session" envPrefix:"SESSION_"`
	Login        login.Config       `yaml:"login" envPrefix:"LOGIN_"`
	Keys         keys.Config        `yaml:"keys" envPrefix:"KEYS_"`
	OAuth        OAuthConfig        `yaml:"oauth" envPrefix:"OAUTH_"`
	Registration RegistrationConfig `yaml:"registration" envPrefix:"REGISTRATION_"`
	Outbound     OutboundConfig     `yaml:"outbound" envPrefix:"OUTBOUND_"`
	Admin        AdminConfig        `yaml:"admin" envPrefix:"ADMIN_"`
	Templates    TemplatesConfig    `yaml:"templates" envPrefix:"TEMPLATES_"`
	Log          LogConfig          `yaml:"log" envPrefix:"LOG_"`
}

// StorageConfig says where the data is.
type StorageConfig struct {
	// DSN is postgres://user:password@host/database, or in development sqlite:PATH.
	DSN Secret `yaml:"dsn" env:"DSN"`
	// Keyring is the path of the keys that seal secrets at rest: a JSON list of
	// {"id", "key"} with 32 bytes in base64. The first seals, all open.
	Keyring string `yaml:"keyring" env:"KEYRING"`
	// MaxConns bounds the connections of one process. Default 10.
	MaxConns int `yaml:"max_conns" env:"MAX_CONNS"`
	// PgBouncer says that dsn leads to a PgBouncer in transaction mode. `migrate` then
	// needs a DSN of PostgreSQL itself.
	PgBouncer bool `yaml:"pgbouncer" env:"PGBOUNCER"`
	// AuditKept is how long rows of audit_event stay; 0 keeps them for ever.
	// Default 52608h, six years.
	AuditKept time.Duration `yaml:"audit_kept" env:"AUDIT_KEPT"`
	// RefuseUnbound refuses passwords, second factors and client secrets that were
	// written by releases which did not seal them to their owners. Until then the
	// worker seals those it finds. See docs/operations.md before setting it.
	RefuseUnbound bool `yaml:"refuse_unbound" env:"REFUSE_UNBOUND"`
}

// RedisConfig says where tasks are queued. Signing in works without it.
type RedisConfig struct {
	// URL is redis://…, rediss://… for TLS, or redis-sentinel://…; several redis://
	// URLs separated by commas are a cluster.
	URL Secret `yaml:"url" env:"URL"`
}

// KafkaConfig says where the laboratory system speaks.
type KafkaConfig struct {
	// Brokers are HOST:PORT of some brokers; the others are found through them.
	Brokers  []string            `yaml:"brokers" env:"BROKERS"`
	Security KafkaSecurityConfig `yaml:"security" envPrefix:"SECURITY_"`
}

// KafkaSecurityConfig says how to prove oneself to the brokers.
type KafkaSecurityConfig struct {
	// Mechanism is PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; empty without SASL.
	Mechanism string `yaml:"mechanism" env:"MECHANISM"`
	Username  string `yaml:"username" env:"USERNAME"`
	Password  Secret `yaml:"password" env:"PASSWORD"`
	// TLS encrypts the connection; naming a CA or a certificate turns it on.
	TLS bool `yaml:"tls" env:"TLS"`
	// CA is the path of the certificates to trust; empty trusts the system's.
	CA string `yaml:"ca" env:"CA"`
	// Cert and Key are the paths of a client certificate and its key, in PEM.
	Cert string `yaml:"cert" env:"CERT"`
	Key  string `yaml:"key" env:"KEY"`
}

// LISConfig names what the consumer reads and where it puts what it cannot.
type LISConfig struct {
	// Topic holds the messages about patients. Default lis.patient.v1.
	Topic string `yaml:"topic" env:"TOPIC"`
	// DeadLetterTopic takes broken messages. Default lis.patient.v1.dlq.
	DeadLetterTopic string `yaml:"dead_letter_topic" env:"DEAD_LETTER_TOPIC"`
	// Group is the consumer group. Default consumer-lis-patient.
	Group string `yaml:"group" env:"GROUP"`
	// ContentType is for messages without that header, such as
	// application/hl7-v2; where it is empty they are quarantined.
	ContentType string `yaml:"content_type" env:"CONTENT_TYPE"`
	// Training takes messages that are marked as training or debugging (MSH-11).
	// They must never reach production.
	Training bool `yaml:"training" env:"TRAINING"`
}

// SMTPConfig says how mails leave.
type SMTPConfig struct {
	Host string `yaml:"host" env:"HOST"`
	// Port is 587 by default.
	Port     int    `yaml:"port" env:"PORT"`
	Username string `yaml:"username" env:"USERNAME"`
	Password Secret `yaml:"password" env:"PASSWORD"`
	// From is the sender: an address, with a name or without.
	From string `yaml:"from" env:"FROM"`
	// StartTLS is mandatory (the default), or none for a server on this machine.
	StartTLS string `yaml:"starttls" env:"STARTTLS"`
}

// AdminConfig opens the operators' API, /admin/v1/ on the internal listener.
type AdminConfig struct {
	// Token is what its callers present, at least 32 characters; empty shuts it.
	Token Secret `yaml:"token" env:"TOKEN"`
}

// OAuthConfig is what the protocol demands.
type OAuthConfig struct {
	// PKCE is demanded of public clients, and is enforced whenever a challenge is
	// sent. Of confidential ones it is demanded always; or, which is the default, a
	// request without it must carry a nonce; or, by public, neither is.
	PKCE oauth.PKCE `yaml:"pkce" env:"PKCE"`
}

// RegistrationConfig says who may register clients by themselves (RFC 7591).
type RegistrationConfig struct {
	// Mode is off (the default), token for who presents the initial access
	// token, or open for anybody.
	Mode string `yaml:"mode" env:"MODE"`
	// Token is the initial access token, at least 32 characters.
	Token Secret `yaml:"token" env:"TOKEN"`
}

// OutboundConfig says which servers of clients may be asked and told: their
// keys, sectors and sign-outs.
type OutboundConfig struct {
	// Networks may be reached besides public addresses, such as 10.0.0.0/8 for
	// portals of the same cluster. 127.0.0.0/8 is for tests in development mode.
	Networks []string `yaml:"networks" env:"NETWORKS"`
}

// TemplatesConfig changes how it looks.
type TemplatesConfig struct {
	// Dir is laid over the built-in pages, mails and texts, file by file.
	Dir string `yaml:"dir" env:"DIR"`
}

// LogConfig says how much is logged.
type LogConfig struct {
	// Level is debug, info (the default), warn or error.
	Level slog.Level `yaml:"level" env:"LEVEL"`
}

const (
	production  = "production"
	development = "development"
)

// defaults are the values of what nobody configured.
func defaults() Config {
	return Config{
		Mode: production, Listen: ":8080", InternalListen: "127.0.0.1:9090", Drain: 5 * time.Second,
		Storage: StorageConfig{MaxConns: 10, AuditKept: 6 * 8768 * time.Hour},
		LIS:     LISConfig{Topic: "lis.patient.v1", DeadLetterTopic: "lis.patient.v1.dlq", Group: "consumer-lis-patient"},
		SMTP:    SMTPConfig{Port: 587, StartTLS: "mandatory"},
		Session: session.Defaults(), Login: login.Defaults(), Keys: keys.Defaults(),
		OAuth: OAuthConfig{PKCE: oauth.PKCENonce}, Registration: RegistrationConfig{Mode: "off"},
	}
}
