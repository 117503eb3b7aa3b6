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

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
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
	// MaxConns bounds the PostgreSQL pool; 0 means 10.
	MaxConns int
}

// DB is the database. It is safe for concurrent use.
type DB struct {
	gorm    *gorm.DB
	sql     *sql.DB
	dialect string // "sqlite" or "postgres"
	path    string // of the SQLite file
	sealer  sealer
	wished  chan struct{}
}

const (
	connectTimeout   = time.Second
	statementTimeout = 2 * time.Second
	// poolWait bounds the wait for a free connection and the dial behind it,
	// so that an absent database is an answer within about a second.
	poolWait = 1200 * time.Millisecond
)

// Open connects to the database of c. It does not migrate and, for PostgreSQL,
// does not wait for the server: see Ping.
func Open(_ context.Context, c Config) (*DB, error) {
	sealer, err := newSealer(c.Keys)
	if err != nil {
		return nil, err
	}
	db := &DB{sealer: sealer, wished: make(chan struct{}, 1)}
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
		pc, err := pgx.ParseConfig(c.DSN)
		if err != nil {
			// The parser's error repeats the DSN, and with it the password.
			return nil, fmt.Errorf("storage dsn: not a PostgreSQL URL")
		}
		pc.ConnectTimeout = connectTimeout
		if pc.RuntimeParams["statement_timeout"] == "" {
			pc.RuntimeParams["statement_timeout"] = fmt.Sprint(statementTimeout.Milliseconds())
		}
		db.sql = stdlib.OpenDB(*pc)
		n := c.MaxConns
		if n == 0 {
			n = 10
		}
		db.sql.SetMaxOpenConns(n)
		db.sql.SetMaxIdleConns(n)
		db.sql.SetConnMaxLifetime(30 * time.Minute)
		db.sql.SetConnMaxIdleTime(5 * time.Minute)
		dial = postgres.New(postgres.Config{Conn: db.sql})
	default:
		return nil, fmt.Errorf("storage dsn: must start with sqlite: or postgres://")
	}
	db.gorm, err = gorm.Open(dial, &gorm.Config{
		SkipDefaultTransaction: true,
		DisableAutomaticPing:   true,
		TranslateError:         true,
		NowFunc:                Now,
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

// Ping reports whether the database answers, within about a second.
func (db *DB) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, poolWait)
	defer cancel()
	return mapErr(db.sql.PingContext(ctx))
}

// Stats are the pool's figures for metrics.
func (db *DB) Stats() sql.DBStats { return db.sql.Stats() }

// Close closes the pool.
func (db *DB) Close() error { return db.sql.Close() }

// Now is the time as both databases keep it: UTC, whole microseconds.
func Now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }
