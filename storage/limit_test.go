package storage

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

// What is not a request's may take its time, within a limit of its own; running
// into that is not the database's absence, as it is for a request.
func TestWorkHasALimitOfItsOwn(t *testing.T) {
	ctx := t.Context()
	db, _ := emptyPostgres(t)
	sleep := func(ctx context.Context, d time.Duration) error {
		return mapErr(db.g(ctx).Exec(fmt.Sprintf("SELECT pg_sleep(%f)", d.Seconds())).Error)
	}
	over := statementTimeout + 400*time.Millisecond
	require.ErrorIs(t, sleep(ctx, over), ErrUnavailable)
	require.NoError(t, db.Within(ctx, 30*time.Second, func(ctx context.Context) error { return sleep(ctx, over) }))
	err := db.Within(ctx, 100*time.Millisecond, func(ctx context.Context) error { return sleep(ctx, over) })
	require.ErrorIs(t, err, ErrTimeout)
	require.NotErrorIs(t, err, ErrUnavailable)
	require.ErrorIs(t, sleep(ctx, over), ErrUnavailable, "the connection's own limit is back")

	boom := errors.New("boom")
	require.ErrorIs(t, db.Within(ctx, time.Minute, func(context.Context) error { return boom }), boom)
	lite, err := Open(ctx, Config{DSN: "sqlite:" + t.TempDir() + "/a.db", Keys: NewKeyring()})
	require.NoError(t, err)
	defer lite.Close()
	require.ErrorIs(t, lite.Within(ctx, time.Minute, func(context.Context) error { return boom }), boom)
}

// A transaction that others made fail is not tried again for a caller who has left.
func TestNobodyWaitsForACallerWhoHasLeft(t *testing.T) {
	db, err := Open(t.Context(), Config{DSN: "sqlite:" + t.TempDir() + "/a.db", Keys: NewKeyring()})
	require.NoError(t, err)
	defer db.Close()
	ctx, leave := context.WithCancel(t.Context())
	tries := 0
	err = db.Tx(ctx, func(context.Context) error {
		tries++
		leave()
		return &pgconn.PgError{Code: "40001"}
	})
	require.ErrorIs(t, err, ErrUnavailable)
	require.Equal(t, 1, tries)
}

// What PostgreSQL says of itself is told apart from what it says of a statement.
func TestWhichErrorsMeanThatTheDatabaseIsAway(t *testing.T) {
	for code, away := range map[string]bool{
		"08006": true, "53300": true, "57P01": true, "57P02": true, "57P03": true, "57P05": true, "57014": true,
		"25006": true, "55000": true, "40001": true, "58030": true,
		"42601": false, "0A000": false, "23502": false, "55P03": false,
	} {
		err := mapErr(fmt.Errorf("find: %w", &pgconn.PgError{Code: code}))
		require.Equal(t, away, errors.Is(err, ErrUnavailable), code)
	}
	require.ErrorIs(t, mapErr(context.Canceled), ErrUnavailable)
	require.ErrorIs(t, mapErr(context.DeadlineExceeded), ErrUnavailable)
}
