package storage

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Plaintext reports whether somebody on the network could read along, or answer in
// the server's place, with this DSN: it names a host without TLS, or with TLS that
// asks for no certificate it knows. Sockets and this machine's loopback are no
// network. The error, of a DSN that cannot be read, does not repeat it.
func Plaintext(dsn string) (bool, error) {
	if !strings.HasPrefix(dsn, "postgres://") && !strings.HasPrefix(dsn, "postgresql://") {
		return false, nil
	}
	c, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return false, errors.New("not a PostgreSQL URL")
	}
	cc := c.ConnConfig
	// sslmode=verify-ca skips the library's own check and has a function for it;
	// require has neither.
	verifies := func(t *tls.Config) bool {
		return t != nil && (!t.InsecureSkipVerify || t.VerifyPeerCertificate != nil)
	}
	open := func(host string, t *tls.Config) bool {
		ip, _ := netip.ParseAddr(host)
		return !strings.HasPrefix(host, "/") && host != "localhost" && !ip.IsLoopback() && !verifies(t)
	}
	return open(cc.Host, cc.TLSConfig) || slices.ContainsFunc(cc.Fallbacks, func(f *pgconn.FallbackConfig) bool {
		return open(f.Host, f.TLSConfig)
	}), nil
}
