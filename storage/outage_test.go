package storage_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// callers is twenty times the connections of a pool.
const callers = 200

// all makes so many calls at once, and returns their errors and how long the
// slowest took.
func all(n int, call func() error) (errs []error, slowest time.Duration) {
	errs = make([]error, n)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i := range n {
		wg.Go(func() {
			start := time.Now()
			errs[i] = call()
			mu.Lock()
			defer mu.Unlock()
			slowest = max(slowest, time.Since(start))
		})
	}
	wg.Wait()
	return errs, slowest
}

func unavailable(t *testing.T, call func() error) {
	t.Helper()
	errs, slowest := all(callers, call)
	for _, err := range errs {
		require.ErrorIs(t, err, storage.ErrUnavailable)
	}
	t.Logf("the slowest of %d callers had its answer after %s", callers, slowest)
	require.Less(t, slowest, 3*time.Second, "it is meant to be less than two")
}

// eventually awaits that call succeeds.
func eventually(t *testing.T, call func() error, words string) {
	t.Helper()
	start := time.Now()
	require.Eventually(t, func() bool { return call() == nil }, 20*time.Second, 50*time.Millisecond, words)
	t.Logf("%s after %s", words, time.Since(start))
}

// A database that is away is one clear error for everybody soon, however many
// ask: refused at once, or silent for ever.
func TestAnAbsentDatabaseIsUnavailable(t *testing.T) {
	for name, address := range map[string]string{"refused": storagetest.Refusing(t), "silent": storagetest.Silent(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, err := storage.Open(t.Context(), storage.Config{DSN: "postgres://u:p@" + address + "/d?sslmode=disable", Keys: storage.NewKeyring()})
			require.NoError(t, err)
			defer db.Close()
			unavailable(t, func() error { _, err := db.Client(context.Background(), "x"); return err })
			unavailable(t, func() error {
				return db.Tx(context.Background(), func(context.Context) error { return nil })
			})
			unavailable(t, func() error { _, err := db.Begin(context.Background()); return err })
			require.ErrorIs(t, db.Ping(context.Background()), storage.ErrUnavailable)
		})
	}
}

// A server that froze holds nobody, also not those in the middle of a statement
// or a transaction; when it goes on, so do we.
func TestAFrozenDatabaseHoldsNobody(t *testing.T) {
	server := storagetest.PrivateServer(t)
	db := storagetest.Open(t, server.URL())
	ctx := context.Background()
	find := func() error {
		_, err := db.LastSlot(ctx, "x")
		return err
	}
	work := func() error {
		return db.Tx(ctx, func(ctx context.Context) error { return db.TakeSlot(ctx, "x", storage.Now()) })
	}
	errs, _ := all(callers, find) // the pool is full of connections that were used just now
	for _, err := range errs {
		require.NoError(t, err)
	}
	inside, err := db.Begin(ctx)
	require.NoError(t, err)

	server.Freeze()
	unavailable(t, find)
	unavailable(t, work)
	require.ErrorIs(t, db.Ping(ctx), storage.ErrUnavailable)
	_, err = db.LastSlot(inside, "x")
	require.ErrorIs(t, err, storage.ErrUnavailable)
	db.Rollback(inside) // its connection is gone

	server.Thaw()
	eventually(t, find, "reads go on")
	eventually(t, func() error { return db.Ping(ctx) }, "ready")
	errs, _ = all(10, find)
	for _, err := range errs {
		require.NoError(t, err)
	}
	require.Zero(t, db.Stats().InUse, "no connection was lost")
}

// A failover that leaves the old primary alive and read-only: connections move
// to the new one, and the process is not ready where there is none.
func TestConnectionsLeaveAServerThatTakesNoWrites(t *testing.T) {
	old := storagetest.PrivateServer(t)
	storagetest.Open(t, old.URL()).Close()
	next := old.Copy()
	next.Exec("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
	db, err := storage.Open(t.Context(), storage.Config{
		DSN: storagetest.URLAt(t, old.URL(), next.Address(), old.Address()), Keys: storage.NewKeyring(),
	})
	require.NoError(t, err)
	defer db.Close()
	ctx := context.Background()
	slot := storage.Now()
	write := func() error {
		slot = slot.Add(time.Second)
		return db.TakeSlot(ctx, "x", slot)
	}
	read := func() error { _, err := db.LastSlot(ctx, "x"); return err }
	require.NoError(t, write(), "the one that takes no writes is passed over")
	errs, _ := all(callers, read)
	for _, err := range errs {
		require.NoError(t, err)
	}

	old.Exec("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
	require.Eventually(t, func() bool { return db.Ping(ctx) != nil }, 10*time.Second, 20*time.Millisecond, "not ready")
	require.ErrorIs(t, write(), storage.ErrUnavailable)
	next.Exec("ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")
	eventually(t, write, "writes go on")
	eventually(t, func() error { return db.Ping(ctx) }, "ready")
	for range 30 {
		require.NoError(t, write())
		require.NoError(t, read())
	}
}

// Hosts that say nothing, or are not there, before the one that is.
func TestSilentHostsArePassedOver(t *testing.T) {
	_, rest, _ := strings.Cut(storagetest.PostgresURL(t), "@")
	address, _, _ := strings.Cut(rest, "/")
	url := storagetest.PostgresURL(t)
	db := storagetest.Open(t, storagetest.URLAt(t, url, storagetest.Silent(t), storagetest.Refusing(t), storagetest.Silent(t), address))
	errs, _ := all(callers, func() error { _, err := db.LastSlot(context.Background(), "x"); return err })
	for _, err := range errs {
		require.NoError(t, err, "the host that answered is asked first from then on")
	}
}
