// Package storagetest gives tests a fresh, migrated database: SQLite always,
// PostgreSQL where there is one.
package storagetest

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/pat-authenticate/patauth/storage"
)

// Variable names the environment variable that holds the URL of a PostgreSQL
// server whose user may create databases. `make test` sets it.
const Variable = "PATAUTH_TEST_POSTGRES"

// Each runs test on a fresh database of each kind.
func Each(t *testing.T, test func(*testing.T, *storage.DB)) {
	t.Run("sqlite", func(t *testing.T) { test(t, SQLite(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, Postgres(t)) })
}

// SQLite is a fresh SQLite database in a folder of the test.
func SQLite(t testing.TB) *storage.DB {
	t.Helper()
	return Open(t, "sqlite:"+filepath.Join(t.TempDir(), "patauth.db"))
}

// Postgres is a fresh PostgreSQL database. Without a server the test is skipped.
func Postgres(t testing.TB) *storage.DB {
	t.Helper()
	return Open(t, PostgresURL(t))
}

// PostgresURL is the URL of a fresh, empty PostgreSQL database, dropped when the
// test ends. Without a server the test is skipped.
func PostgresURL(t testing.TB) string {
	t.Helper()
	server := os.Getenv(Variable)
	if server == "" {
		t.Skip("no PostgreSQL: set " + Variable + " or run make test")
	}
	admin, err := sql.Open("pgx", server)
	if err != nil {
		t.Fatal(err)
	}
	name := "test_" + strings.ToLower(storage.NewID())
	if _, err := admin.Exec("CREATE DATABASE " + name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := admin.Exec("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			t.Error(err)
		}
		admin.Close()
	})
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

// Open opens and migrates the database of dsn, and closes it when the test ends.
func Open(t testing.TB, dsn string) *storage.DB {
	t.Helper()
	db, err := storage.Open(context.Background(), storage.Config{DSN: dsn, Keys: storage.NewKeyring()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		audited(t, dsn)
		db.Close()
	})
	if _, err := db.Migrate(context.Background()); err != nil {
		t.Fatal(fmt.Errorf("migrate: %w", err))
	}
	return db
}

// byStrangers are the events that somebody may cause who has proven nothing.
var byStrangers = []string{"patient.created", "factor.disabled", "factor.clone_suspected", "grant.revoked"}

// audited checks that the audit names who did what the test's requests did.
func audited(t testing.TB, dsn string) {
	driver := "pgx"
	if path, ok := strings.CutPrefix(dsn, "sqlite:"); ok {
		driver, dsn = "sqlite3", path
	}
	raw, err := sql.Open(driver, dsn)
	if err != nil {
		t.Error(err)
		return
	}
	defer raw.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	rows, err := raw.QueryContext(ctx, "SELECT DISTINCT event, actor FROM audit_event WHERE request_id <> ''")
	if err != nil {
		return // the test took the database away
	}
	defer rows.Close()
	for rows.Next() {
		var event, actor string
		if err := rows.Scan(&event, &actor); err != nil {
			t.Error(err)
		}
		if actor == "" || actor == storage.Anonymous && !slices.Contains(byStrangers, event) {
			t.Errorf("the audit does not say who did %s: %q", event, actor)
		}
	}
}
