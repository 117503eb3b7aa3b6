package tasks

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// What has piled up goes in one run of its task, from whatever table, and of the
// sessions whose time is over every client is told.
func TestARunGoesOnUntilNothingIsLeft(t *testing.T) {
	for _, name := range []string{"sqlite", "postgres"} {
		t.Run(name, func(t *testing.T) {
			driver, dsn, bytes := "sqlite3", "sqlite:"+filepath.Join(t.TempDir(), "patauth.db"), "CAST('x' || i AS BLOB)"
			if name == "postgres" {
				driver, dsn, bytes = "pgx", storagetest.PostgresURL(t), "convert_to('x' || i, 'UTF8')"
			}
			db := storagetest.Open(t, dsn)
			raw, err := sql.Open(driver, strings.TrimPrefix(dsn, "sqlite:"))
			require.NoError(t, err)
			defer raw.Close()
			many := func(insert string) {
				_, err := raw.Exec("INSERT INTO " + strings.ReplaceAll(strings.ReplaceAll(insert, "PAST", "'2020-01-01 00:00:00+00:00'"), "BYTES", bytes) +
					" FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10500) SELECT i FROM n) AS n")
				require.NoError(t, err)
			}
			many("attempt (id, tries, expires_at) SELECT 'x' || i, 1, PAST")
			many("used_jti (digest, expires_at) SELECT BYTES, PAST")
			many("audit_event (id, at, event, actor, subject, object, request_id, detail) SELECT 'x' || i, PAST, 'e', '', '', '', '', '{}'")
			many(`session (id, digest, patient_id, factors, auth_time, created_at, last_seen_at, expires_at, user_agent, ip)
				SELECT 'x' || i, BYTES, 'p', '{}', PAST, PAST, PAST, PAST, '', ''`)
			many(`outbox (id, kind, name, payload, created_at, relayed_at, attempts, reason) SELECT 'x' || i, 'notice', 'x' || i, '{}', PAST, PAST, 0, ''`)
			count := func(of string) (n int) {
				require.NoError(t, raw.QueryRow("SELECT count(*) FROM "+of).Scan(&n))
				return n
			}
			w := worker(t, db, noQueue(t), &postbox{})
			left := func() []int {
				return []int{count("attempt"), count("used_jti"), count("session WHERE ended_at IS NULL"), count("outbox WHERE relayed_at IS NOT NULL"), count("audit_event")}
			}
			require.Equal(t, []int{10500, 10500, 10500, 10500, 10500}, left())
			ctx := context.Background()
			require.ErrorContains(t, w.deleteExpired(ctx), "archived tasks", "what one part cannot do keeps the others from nothing")
			require.NoError(t, w.expireSessions(ctx))
			require.NoError(t, w.sweepOutbox(ctx))
			require.Equal(t, []int{0, 0, 0, 0, 10500}, left(), "the audit is for ever where no time is set")
			w.AuditKept = 720 * time.Hour
			require.Error(t, w.deleteExpired(ctx))
			require.Equal(t, []int{0, 0, 0, 0, 0}, left(), "the sessions themselves stay a month after their end, which was long ago")
			require.Zero(t, count("session"))
		})
	}
}

// A run ends with its time, and when it is told to; the next goes on from there.
func TestARunEndsWithItsTime(t *testing.T) {
	steps := 0
	step := func(context.Context) (bool, error) {
		steps++
		time.Sleep(time.Millisecond)
		return true, nil
	}
	require.NoError(t, repeat(t.Context(), 50*time.Millisecond, step))
	require.Greater(t, steps, 1)
	require.LessOrEqual(t, steps, 26, "it rests as long as it works")
	ctx, stop := context.WithCancel(t.Context())
	steps = 0
	require.NoError(t, repeat(ctx, time.Hour, func(ctx context.Context) (bool, error) {
		stop()
		return step(ctx)
	}))
	require.LessOrEqual(t, steps, 2)
	require.ErrorIs(t, repeat(t.Context(), time.Hour, func(context.Context) (bool, error) { return true, storage.ErrSpent }), storage.ErrSpent)
}
