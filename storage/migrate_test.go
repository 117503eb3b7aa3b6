package storage

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A step of a migration may run longer than a request's statement, and gives up
// waiting for a lock rather than holding everybody up.
func TestAStepTakesItsTimeButNotOthers(t *testing.T) {
	server := os.Getenv("PATAUTH_TEST_POSTGRES")
	if server == "" {
		t.Skip("no PostgreSQL: set PATAUTH_TEST_POSTGRES or run make test")
	}
	ctx := context.Background()
	open := func(dsn string) *DB {
		db, err := Open(ctx, Config{DSN: dsn, Keys: NewKeyring()})
		require.NoError(t, err)
		t.Cleanup(func() { db.Close() })
		return db
	}
	admin, name := open(server), "test_"+strings.ToLower(NewID())
	_, err := admin.sql.Exec("CREATE DATABASE " + name)
	require.NoError(t, err)
	t.Cleanup(func() { admin.sql.Exec("DROP DATABASE " + name + " WITH (FORCE)") })
	u, err := url.Parse(server)
	require.NoError(t, err)
	u.Path = "/" + name
	db := open(u.String())
	run := func(version int64, sql string) error {
		p, err := db.goose([]migration{{1, "0001_slow", "SELECT pg_sleep(2.2); CREATE TABLE a (id TEXT)"}, {version, "0002", sql}}[:version])
		require.NoError(t, err)
		_, err = p.Up(ctx)
		return err
	}
	require.NoError(t, run(1, ""), "longer than a statement may otherwise take")

	busy, err := db.sql.Begin()
	require.NoError(t, err)
	defer busy.Rollback()
	_, err = busy.Exec("LOCK TABLE a IN ACCESS SHARE MODE")
	require.NoError(t, err)
	start := time.Now()
	require.ErrorContains(t, run(2, "ALTER TABLE a ADD COLUMN b TEXT"), "lock timeout")
	require.Less(t, time.Since(start), 30*time.Second)
	require.NoError(t, busy.Rollback())
	require.NoError(t, run(2, "ALTER TABLE a ADD COLUMN b TEXT"), "the next try goes on where it stopped")
}

// What was released stays as it is: a new step is a new file, and a new line in
// testdata/migrations.sha256 (sha256sum migrations/*.sql).
func TestReleasedMigrationsNeverChange(t *testing.T) {
	sums, err := os.ReadFile("testdata/migrations.sha256")
	require.NoError(t, err)
	var have strings.Builder
	files, err := filepath.Glob("migrations/*.sql")
	require.NoError(t, err)
	for _, f := range files {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		fmt.Fprintf(&have, "%x  %s\n", sha256.Sum256(b), f)
	}
	require.Equal(t, string(sums), have.String())
}
