package main

import (
	"errors"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/pat-authenticate/patauth/provider/oauth"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/tasks"
)

// Validate says everything that keeps a workload from running with c, in one
// error. The workload "" stands for all of them.
func (c Config) Validate(workload string) error {
	// need is for what only some workloads use.
	need := func(missing bool, workloads ...string) bool {
		return missing && (workload == "" || slices.Contains(workloads, workload))
	}
	prod := c.Mode != development
	dsn, redis, sec := string(c.Storage.DSN), string(c.Redis.URL), c.Kafka.Security
	queue, noQueue := tasks.ParseRedis(redis)
	open, noDSN := storage.Plaintext(dsn)
	outside, networks := web.ParseProxies(c.Outbound.Networks)
	trusted, proxies := web.ParseProxies(c.TrustedProxies)
	// clear is for what production mode refuses to reach without TLS.
	clear := func(part string, plain bool) bool { return prod && plain && !slices.Contains(c.Plaintext, part) }
	var problems []error
	for _, row := range []struct {
		bad     bool
		message string
	}{
		{c.Mode != production && c.Mode != development, "mode: must be production or development"},
		{need(c.Issuer == "", "app", "worker"), "issuer: is required"},
		{c.Issuer != "" && !isOrigin(c.Issuer), "issuer: must be https://HOST without path, query or final slash, HOST in lower case and in ASCII (xn--… for other letters)"},
		{prod && strings.HasPrefix(c.Issuer, "http://"), "issuer: must be https in production mode"},
		{!isAddress(c.Listen), "listen: must be HOST:PORT or :PORT"},
		{!isAddress(c.InternalListen), "internal_listen: must be HOST:PORT or :PORT"},
		{c.Listen == c.InternalListen && !strings.HasSuffix(c.Listen, ":0"), "internal_listen: must differ from listen"},
		{proxies != nil, "trusted_proxies: each must be a network such as 10.0.0.0/8, or an address"},
		{prod && slices.ContainsFunc(trusted, everybody), "trusted_proxies: a network of everybody lets anybody say who asks"},
		{!all(c.Plaintext, isPart), "plaintext: each must be storage, redis, kafka or smtp"},
		{c.Drain < 0 || c.Drain > time.Minute, "drain: must be between 0s and 1m"},
		{need(dsn == "", "app", "consumer", "worker", "cron", "migrate"), "storage.dsn: is required"},
		{dsn != "" && !hasScheme(dsn, "postgres://", "postgresql://", "sqlite:"), "storage.dsn: must start with postgres:// or sqlite:"},
		{hasScheme(dsn, "postgres://", "postgresql://") && noDSN != nil, "storage.dsn: is not a PostgreSQL URL: a name or password with one of :/?#[]@ is written with %XX"},
		{prod && strings.HasPrefix(dsn, "sqlite:"), "storage.dsn: SQLite is for development mode"},
		{clear("storage", open), "storage.dsn: needs sslmode=verify-full in production mode, or storage in plaintext"},
		{need(c.Storage.Keyring == "", "app", "consumer", "worker", "cron", "migrate"), "storage.keyring: is required"},
		{unreadable(c.Storage.Keyring), "storage.keyring: the file cannot be read"},
		{c.Storage.MaxConns < 1 || c.Storage.MaxConns > 1000, "storage.max_conns: must be between 1 and 1000"},
		{c.Storage.AuditKept != 0 && c.Storage.AuditKept < 30*24*time.Hour, "storage.audit_kept: must be 0s, for ever, or at least 720h"},
		{need(redis == "", "app", "worker", "cron"), "redis.url: is required"},
		{redis != "" && noQueue != nil, "redis.url: must be a redis://, rediss:// or redis-sentinel:// URL"},
		{clear("redis", noQueue == nil && redis != "" && queue.Plaintext()), "redis.url: needs rediss:// in production mode, or redis in plaintext"},
		{need(len(c.Kafka.Brokers) == 0, "consumer", "lis"), "kafka.brokers: is required"},
		{!all(c.Kafka.Brokers, isHostPort), "kafka.brokers: each must be HOST:PORT"},
		{!slices.Contains([]string{"", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}, sec.Mechanism), "kafka.security.mechanism: must be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"},
		{need(sec.Mechanism != "" && (sec.Username == "" || sec.Password == ""), "consumer", "worker", "lis"), "kafka.security: a mechanism needs username and password"},
		{need(sec.Mechanism == "" && (sec.Username != "" || sec.Password != ""), "consumer", "worker", "lis"), "kafka.security: username and password need a mechanism"},
		{need((sec.Cert == "") != (sec.Key == ""), "consumer", "worker", "lis"), "kafka.security: cert and key go together"},
		{unreadable(sec.CA), "kafka.security.ca: the file cannot be read"},
		{unreadable(sec.Cert), "kafka.security.cert: the file cannot be read"},
		{unreadable(sec.Key), "kafka.security.key: the file cannot be read"},
		{clear("kafka", !sec.encrypted() && !all(c.Kafka.Brokers, isLoopback)), "kafka.security: needs tls in production mode, or kafka in plaintext"},
		{!isName(c.LIS.Topic), "lis.topic: must be a topic's name"},
		{!isName(c.LIS.DeadLetterTopic), "lis.dead_letter_topic: must be a topic's name"},
		{c.LIS.Topic == c.LIS.DeadLetterTopic, "lis.dead_letter_topic: must differ from lis.topic"},
		{!isName(c.LIS.Group), "lis.group: must be a group's name"},
		{prod && c.LIS.Training, "lis.training: is for development mode"},
		{need(c.SMTP.Host == "", "worker"), "smtp.host: is required"},
		{c.SMTP.Port < 1 || c.SMTP.Port > 65535, "smtp.port: must be between 1 and 65535"},
		{need(c.SMTP.From == "", "worker"), "smtp.from: is required"},
		{c.SMTP.From != "" && !isMailbox(c.SMTP.From), "smtp.from: must be an address such as Clinic <id@clinic.example>"},
		{need((c.SMTP.Username == "") != (c.SMTP.Password == ""), "worker"), "smtp: username and password go together"},
		{!slices.Contains([]string{"mandatory", "none"}, c.SMTP.StartTLS), "smtp.starttls: must be mandatory or none"},
		{clear("smtp", c.SMTP.StartTLS != "mandatory"), "smtp.starttls: must be mandatory in production mode, or smtp in plaintext"},
		{prod && c.Login.Hash.Weak(), "login.hash: production mode needs at least 47104 memory_kib with 1 of iterations, 19456 with 2, 12288 with 3"},
		{prod && c.Login.Limits.Unbounded(), "login.limits: production mode needs each of them"},
		{c.Admin.Token != "" && len(c.Admin.Token) < 32, "admin.token: must have at least 32 characters"},
		{!slices.Contains(oauth.PKCEs, c.OAuth.PKCE), "oauth.pkce: must be always, nonce or public"},
		{!slices.Contains([]string{"off", "token", "open"}, c.Registration.Mode), "registration.mode: must be off, token or open"},
		{need(c.Registration.Mode == "token" && len(c.Registration.Token) < 32, "app"), "registration.token: must have at least 32 characters"},
		{networks != nil, "outbound.networks: each must be a network such as 10.0.0.0/8, or an address"},
		{prod && reaches(outside, loopback), "outbound.networks: loopback is for development mode"},
		{prod && reaches(outside, linkLocal), "outbound.networks: link-local addresses, of a cloud's metadata for one, are for nobody in production mode"},
		{c.Templates.Dir != "" && !isDir(c.Templates.Dir), "templates.dir: is not a directory"},
	} {
		if row.bad {
			problems = append(problems, errors.New(row.message))
		}
	}
	return errors.Join(append(problems, c.Session.Validate(), c.Login.Validate(), c.Keys.Validate())...)
}

var (
	loopback  = prefixes("127.0.0.0/8", "::1/128", "::ffff:127.0.0.0/104")
	linkLocal = prefixes("169.254.0.0/16", "fe80::/10", "::ffff:169.254.0.0/112")
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, p := range list {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// reaches reports whether networks overlap with one of those.
func reaches(networks, those []netip.Prefix) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return slices.ContainsFunc(those, p.Overlaps) })
}

// everybody reports whether a network is more of the world than anybody has: 10.0.0.0/8
// and fc00::/7 are the largest for private use.
func everybody(p netip.Prefix) bool { return p.Bits() < 7 || p.Addr().Is4() && p.Bits() < 8 }

func isPart(s string) bool { return slices.Contains([]string{"storage", "redis", "kafka", "smtp"}, s) }

// isLoopback reports whether HOST:PORT is on this machine.
func isLoopback(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	ip, _ := netip.ParseAddr(host)
	return host == "localhost" || ip.IsLoopback()
}

func (s KafkaSecurityConfig) encrypted() bool { return s.TLS || s.CA != "" || s.Cert != "" }

// isOrigin reports whether raw is an http or https URL of just scheme and host:
// the well-known addresses hang at the root (OpenID Connect Discovery, Section 4).
// The host is as browsers write it in an Origin: it is compared with that, and is
// the RP ID of passkeys.
func isOrigin(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && !strings.ContainsFunc(u.Host, func(r rune) bool { return r > unicode.MaxASCII || unicode.IsUpper(r) }) && (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != "" && raw == u.Scheme+"://"+u.Host
}

func isAddress(s string) bool {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	_, err = netip.ParseAddrPort("0.0.0.0:" + port)
	return err == nil
}

func isHostPort(s string) bool { return isAddress(s) && !strings.HasPrefix(s, ":") }

// isName holds for legal names of Kafka topics; groups follow the same rule here.
func isName(s string) bool {
	return s != "" && len(s) <= 249 && s != "." && s != ".." && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r == '.' || r == '_' || r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
	})
}

func isMailbox(s string) bool {
	_, err := mail.ParseAddress(s)
	return err == nil && !strings.ContainsAny(s, "\r\n")
}

func isDir(path string) bool {
	i, err := os.Stat(path)
	return err == nil && i.IsDir()
}

func unreadable(path string) bool {
	if path == "" {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return true
	}
	f.Close()
	return false
}

func hasScheme(s string, schemes ...string) bool {
	return slices.ContainsFunc(schemes, func(p string) bool { return strings.HasPrefix(s, p) })
}

func all(list []string, ok func(string) bool) bool {
	return !slices.ContainsFunc(list, func(s string) bool { return !ok(s) })
}
