package storage

import (
	"context"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// With the rights that docs/operations.md gives, a worker takes away what has
// outlived its time, and nobody takes or rewrites anything younger.
func TestOnlyOldAuditRowsCanGo(t *testing.T) {
	ctx := t.Context()
	owner, dsn := emptyPostgres(t)
	_, err := owner.Migrate(ctx)
	require.NoError(t, err)
	text, err := os.ReadFile("../docs/operations.md")
	require.NoError(t, err)
	rights := regexp.MustCompile("(?s)```sql\n( *REVOKE UPDATE, TRUNCATE ON audit_event.*?)```").FindSubmatch(text)
	require.NotNil(t, rights, "docs/operations.md says how")
	role := "role_" + strings.ToLower(NewID())
	_, err = owner.sql.Exec("CREATE ROLE " + role + " LOGIN PASSWORD 'x'; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO " + role)
	require.NoError(t, err)
	t.Cleanup(func() { owner.sql.Exec("DROP OWNED BY " + role + "; DROP ROLE " + role) })
	_, err = owner.sql.Exec(regexp.MustCompile(`\bpatauth\b`).ReplaceAllString(string(rights[1]), role))
	require.NoError(t, err)
	_, err = owner.sql.Exec("INSERT INTO audit_event SELECT 'old' || n, now() - interval '7 years', 'e', '', '', '', '', '{}' FROM generate_series(1, 30) n")
	require.NoError(t, err)

	u, err := url.Parse(dsn)
	require.NoError(t, err)
	u.User = url.UserPassword(role, "x")
	db, err := Open(ctx, Config{DSN: u.String(), Keys: NewKeyring()})
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.Audit(WithActor(context.Background(), Operator), AuditEvent{Event: "young"}))
	for _, want := range []int{20, 10, 0} {
		n, err := db.DeleteAudit(ctx, Now().Add(-52608*time.Hour), 20)
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	n, err := db.DeleteAudit(ctx, Now().Add(time.Hour), 20)
	require.NoError(t, err)
	require.Zero(t, n, "whatever it is asked for")
	_, err = db.sql.Exec("UPDATE audit_event SET actor = 'nobody'")
	require.ErrorContains(t, err, "permission denied")
	all, err := db.AuditOf(ctx, "", 10)
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.Equal(t, []string{"young", Operator}, []string{all[0].Event, all[0].Actor})
}
