package storage

import (
	"context"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// emptyPostgres is an empty database of a PostgreSQL server and its URL. It is
// dropped when the test ends.
func emptyPostgres(t *testing.T) (*DB, string) {
	t.Helper()
	server := os.Getenv("PATAUTH_TEST_POSTGRES")
	if server == "" {
		t.Skip("no PostgreSQL: set PATAUTH_TEST_POSTGRES or run make test")
	}
	open := func(dsn string) *DB {
		db, err := Open(t.Context(), Config{DSN: dsn, Keys: NewKeyring()})
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
	return open(u.String()), u.String()
}

// crowd fills a migrated database with rows that no periodic task and no batch of
// the laboratory has anything to do with.
func crowd(t *testing.T, db *DB, rows int) {
	t.Helper()
	ctx := withLimit(t.Context(), 5*time.Minute)
	filling, err := db.sql.Conn(ctx)
	require.NoError(t, err)
	defer filling.Close()
	_, err = filling.ExecContext(ctx, "SET statement_timeout = '5min'")
	require.NoError(t, err)
	defer filling.ExecContext(context.Background(), "RESET statement_timeout")
	for _, fill := range []string{
		`INSERT INTO session SELECT 'live' || n, decode(md5('l' || n), 'hex'), 'p' || n, '{}', now(), now(), now(), now() + interval '1 hour', NULL, '', '' FROM generate_series(1, $1::int) n`,
		`INSERT INTO session SELECT 'over' || n, decode(md5('o' || n), 'hex'), 'p' || n, '{}', now(), now(), now(), now() - interval '1 hour', now() - interval '1 hour', '', '' FROM generate_series(1, $1::int) n`,
		`INSERT INTO patient (id, email, email_verified_at, given_name, family_name, birth_date, locale, webauthn_handle, created_at, updated_at)
			SELECT 'p' || n, n || '@example.org', now(), '', '', '', '', decode(md5('w' || n), 'hex'), now() - interval '1 year', now() - interval '1 year' FROM generate_series(1, $1::int) n`,
		`INSERT INTO lab_authority VALUES ('lab', '', '', '[]', '[]', TRUE, FALSE, '[]', TRUE, now(), now())`,
		`INSERT INTO lab_identity SELECT 'r' || n, 'lab', n::text, 'active', '', 'F', 'G', 'F', 'G', '1980-02-29', 'day', '', FALSE, FALSE, '', '', '{"seen":"1"}', now(), now() FROM generate_series(1, $1::int) n`,
		`INSERT INTO link SELECT 'l' || n, 'p' || n, 'r' || n, 'linked', '', '', now(), NULL, NULL FROM generate_series(1, $1::int) n`,
		`INSERT INTO outbox SELECT 'w' || n, 'notice', 'w' || n, '{}', now(), now(), NULL, 1, now(), NULL, '' FROM generate_series(1, $1::int) n`,
		`INSERT INTO audit_event SELECT 'a' || n, now(), 'session.started', '', 'p' || n, '', '', '{}' FROM generate_series(1, $1::int) n`,
	} {
		var args []any
		if strings.Contains(fill, "$1") {
			args = []any{rows}
		}
		_, err := filling.ExecContext(ctx, fill, args...)
		require.NoError(t, err, fill)
	}
	_, err = filling.ExecContext(ctx, "ANALYZE")
	require.NoError(t, err)
}

// rowsRead counts the rows of tables that do reads.
func rowsRead(t *testing.T, db *DB, do func(context.Context) error) (n int) {
	t.Helper()
	const count = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"
	require.NoError(t, db.Tx(t.Context(), func(ctx context.Context) error {
		var before int
		if err := db.g(ctx).Raw(count).Scan(&before).Error; err != nil {
			return err
		}
		if err := do(ctx); err != nil {
			return err
		}
		err := db.g(ctx).Raw(count).Scan(&n).Error
		n -= before
		return err
	}))
	return n
}

// What comes round, and each batch of the laboratory, reads what it is about, however
// many patients, links and sessions there are.
func TestWhatComesRoundReadsOnlyWhatIsDue(t *testing.T) {
	db, _ := emptyPostgres(t)
	_, err := db.Migrate(t.Context())
	require.NoError(t, err)
	crowd(t, db, 20000)
	now, month := Now(), 30*24*time.Hour
	// One of each kind is due.
	for _, due := range []string{
		`UPDATE session SET expires_at = now() - interval '1 minute' WHERE id = 'live1'`,
		`UPDATE session SET ended_at = now() - interval '40 days' WHERE id = 'over1'`,
		`INSERT INTO patient (id, email, given_name, family_name, birth_date, locale, webauthn_handle, created_at, updated_at)
			VALUES ('new', 'new@example.org', '', '', '', '', '\x01', now() - interval '8 days', now() - interval '8 days')`,
		`UPDATE lab_identity SET hold = 'identity-overlay' WHERE id = 'r1'`,
		`UPDATE link SET state = 'suspended', reason = 'merge-pending', suspended_at = now() - interval '1 hour' WHERE id IN ('l2', 'l3')`,
		`UPDATE link SET state = 'suspended', reason = 'record-deleted', suspended_at = now() - interval '31 days' WHERE id = 'l4'`,
		`UPDATE lab_identity SET status = 'merged', merged_into = 'r5' WHERE id = 'r2'`,
		`UPDATE outbox SET done_at = NULL, relayed_at = now() - interval '1 hour' WHERE id = 'w1'`,
	} {
		_, err := db.sql.Exec(due)
		require.NoError(t, err, due)
	}
	for _, c := range []struct {
		what string
		do   func(context.Context) (int, error)
		done int
	}{
		{"a batch of the laboratory", func(ctx context.Context) (int, error) { return db.SettleLinks(ctx, []string{"r5"}, now) }, 1},
		{"the safety net of the links", func(ctx context.Context) (int, error) {
			n, _, err := db.ReconcileLinks(ctx, now, "", 1000)
			return n, err
		}, 3},
		{"sessions whose time is over", func(ctx context.Context) (int, error) { return db.ExpireSessions(ctx, now, 1000) }, 1},
		{"what has expired", func(ctx context.Context) (done int, err error) {
			tables, _ := Expiring()
			for _, table := range tables {
				n, err := db.DeleteExpired(ctx, table, now, 1000)
				if done += n; err != nil {
					return done, err
				}
			}
			return done, nil
		}, 2},
		{"the audit of years ago", func(ctx context.Context) (int, error) { return db.DeleteAudit(ctx, now.Add(-month), 1000) }, 0},
		{"the count of wishes", func(ctx context.Context) (int, error) {
			b, err := db.OutboxBacklog(ctx, now)
			return int(b.Waiting), err
		}, 4},
		{"wishes that the queue lost", func(ctx context.Context) (int, error) { return db.SweepOutbox(ctx, now, 1000) }, 1},
	} {
		done := 0
		read := rowsRead(t, db, func(ctx context.Context) (err error) {
			done, err = c.do(ctx)
			return err
		})
		require.Equal(t, c.done, done, c.what)
		require.Less(t, read, 100, "rows read by %s", c.what)
		t.Log(c.what, "read", read, "rows")
	}
}
