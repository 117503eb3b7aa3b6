// Package storage is what is so: patients, credentials, sessions, clients,
// grants, lab records and links, one file per table with its struct, its
// queries and its small rules. PostgreSQL is the only truth; SQLite serves
// development and tests through the same code.
//
// Transactions travel in the context (Tx). Anything usable once is spent by a
// conditional update, never by check-then-act. Nothing a client presents is
// stored: handles are kept as SHA-256 digests, seeds and keys are sealed to
// their row. Every method answers with the sentinels of errors.go.
package storage

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/driver/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

// Config says where the data is and which key seals it.
type Config struct {
	// DSN is "sqlite:PATH" or "postgres://…".
	DSN string
	// Keys seals secrets at rest; see ReadKeyring.
	Keys Keyring
	// RefuseUnbound refuses the credentials and client secrets that the previous
	// release has written, which are not bound to their owners. See BindCredentials.
	RefuseUnbound bool
	// MaxConns bounds the PostgreSQL pool; 0 means 10.
	MaxConns int
	// PgBouncer says that a PgBouncer in transaction mode stands before PostgreSQL.
	PgBouncer bool
}

// DB is the database. It is safe for concurrent use.
type DB struct {
	gorm          *gorm.DB
	sql           *sql.DB
	dialect       string // "sqlite" or "postgres"
	path          string // of the SQLite file
	pool          *pool  // of PostgreSQL
	sealer        sealer
	refuseUnbound bool
	wished        chan struct{}
}

// Open connects to the database of c. It does not migrate and, for PostgreSQL,
// does not wait for the server: see Ping.
func Open(_ context.Context, c Config) (*DB, error) {
	sealer, err := newSealer(c.Keys)
	if err != nil {
		return nil, err
	}
	db := &DB{sealer: sealer, refuseUnbound: c.RefuseUnbound, wished: make(chan struct{}, 1)}
	var dial gorm.Dialector
	switch {
	case strings.HasPrefix(c.DSN, "sqlite:"):
		db.dialect, db.path = "sqlite", strings.TrimPrefix(c.DSN, "sqlite:")
		if db.path == "" {
			return nil, fmt.Errorf("storage dsn: sqlite: needs a path")
		}
		q := url.Values{
			"_journal_mode": {"WAL"}, "_foreign_keys": {"on"}, "_busy_timeout": {"5000"},
			"_synchronous": {"NORMAL"}, "_txlock": {"immediate"},
		}
		dial = sqlite.Open("file:" + (&url.URL{Path: db.path}).EscapedPath() + "?" + q.Encode())
	case strings.HasPrefix(c.DSN, "postgres://"), strings.HasPrefix(c.DSN, "postgresql://"):
		db.dialect = "postgres"
		if db.pool, err = openPool(c); err != nil {
			return nil, err
		}
		dial = postgres.New(postgres.Config{Conn: db.pool.sql()})
	default:
		return nil, fmt.Errorf("storage dsn: must start with sqlite: or postgres://")
	}
	db.gorm, err = gorm.Open(dial, &gorm.Config{
		SkipDefaultTransaction: true,
		DisableAutomaticPing:   true,
		TranslateError:         true,
		// Columns by name: a program may serve on the schema of its successor, where
		// "SELECT *" is another answer than the one a prepared statement promised.
		QueryFields: true,
		NowFunc:     Now,
		// The log shows placeholders, never values; what fails is answered and
		// logged once, at the edge.
		Logger: logger.NewSlogLogger(slog.Default(), logger.Config{
			ParameterizedQueries: true, IgnoreRecordNotFoundError: true, LogLevel: logger.Silent,
		}),
	})
	if err != nil {
		return nil, fmt.Errorf("open %s database: %w", db.dialect, err)
	}
	if db.sql, err = db.gorm.DB(); err != nil {
		return nil, fmt.Errorf("open %s database: %w", db.dialect, err)
	}
	return db, nil
}

// Ping reports whether the database answers and takes writes, within about a
// second.
func (db *DB) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, acquireTimeout*2)
	defer cancel()
	if db.dialect != "postgres" {
		return mapErr(db.sql.PingContext(ctx))
	}
	var answer string
	if err := db.sql.QueryRowContext(ctx, "SHOW transaction_read_only").Scan(&answer); err != nil {
		return mapErr(err)
	}
	if answer == "on" {
		db.pool.Reset()
		return fmt.Errorf("%w: it takes no writes", ErrUnavailable)
	}
	return nil
}

// Stats are the pool's figures.
func (db *DB) Stats() Stats {
	if db.pool == nil {
		s := db.sql.Stats()
		return Stats{s.InUse, s.Idle, s.WaitDuration}
	}
	s := db.pool.Stat()
	return Stats{int(s.AcquiredConns()), int(s.IdleConns()), time.Duration(db.pool.waited.Load())}
}

// Close closes the pool.
func (db *DB) Close() error { return db.sql.Close() }

// Now is the time as both databases keep it: UTC, whole microseconds.
func Now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }
