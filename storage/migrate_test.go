package storage

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A step of a migration may run longer than a request's statement, and gives up
// waiting for a lock rather than holding everybody up.
func TestAStepTakesItsTimeButNotOthers(t *testing.T) {
	ctx := context.Background()
	db, _ := emptyPostgres(t)
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

// An index is built while others write, and a try that was broken off is made good.
func TestAnIndexIsBuiltBesideWriters(t *testing.T) {
	ctx := t.Context()
	db, dsn := emptyPostgres(t)
	run := func(index string) error {
		p, err := db.goose([]migration{{1, "0001", "CREATE TABLE a (id TEXT); INSERT INTO a VALUES ('x'), ('x')"}, {2, "0002", index}})
		require.NoError(t, err)
		_, err = p.Up(ctx)
		return err
	}
	const index = "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS a_id ON a (id);\nCREATE INDEX CONCURRENTLY IF NOT EXISTS a_x ON a (id) WHERE id = 'x';"
	require.ErrorContains(t, run(index), "could not create unique index")
	_, err := db.sql.Exec("DELETE FROM a")
	require.NoError(t, err)

	writers, err := Open(ctx, Config{DSN: dsn, Keys: NewKeyring()})
	require.NoError(t, err)
	defer writers.Close()
	busy, err := writers.sql.Begin()
	require.NoError(t, err)
	defer busy.Rollback()
	_, err = busy.Exec("INSERT INTO a VALUES ('long')")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- run(index) }()
	require.Eventually(t, func() bool {
		var n int
		err := writers.sql.QueryRow("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&n)
		return err == nil && n == 1
	}, 10*time.Second, 10*time.Millisecond, "it waits for the writer")
	_, err = writers.sql.Exec("SET lock_timeout = '1s'; INSERT INTO a VALUES ('other'); RESET lock_timeout")
	require.NoError(t, err, "and nobody waits for it")
	require.NoError(t, busy.Commit())
	require.NoError(t, <-done)
	var valid int
	require.NoError(t, db.sql.QueryRow("SELECT count(*) FROM pg_index WHERE indexrelid IN ('a_id'::regclass, 'a_x'::regclass) AND indisvalid").Scan(&valid))
	require.Equal(t, 2, valid)
}

// A step that builds indexes does nothing else, for its statements run one by one.
func TestStepsThatBuildIndexesDoNothingElse(t *testing.T) {
	all, err := steps("postgres")
	require.NoError(t, err)
	for _, m := range all {
		if strings.Contains(m.sql, "CONCURRENTLY") {
			rest := besides.ReplaceAllString(regexp.MustCompile(`(?m)^--.*$`).ReplaceAllString(m.sql, ""), "")
			require.Empty(t, strings.TrimSpace(rest), m.name)
		}
	}
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
