package storage_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

func TestTransactionsTravelInTheContext(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, boom := context.Background(), errors.New("boom")
		add := func(ctx context.Context, id string) error {
			return db.CreateClient(ctx, &storage.Client{ID: id, AuthMethods: storage.Words{"none"}})
		}
		has := func(id string) bool {
			_, err := db.Client(ctx, id)
			return err == nil
		}
		require.ErrorIs(t, db.Tx(ctx, func(ctx context.Context) error {
			require.NoError(t, add(ctx, "rolled back"))
			return boom
		}), boom)
		require.False(t, has("rolled back"))

		require.NoError(t, db.Tx(ctx, func(ctx context.Context) error {
			require.NoError(t, add(ctx, "outer"))
			require.ErrorIs(t, db.Tx(ctx, func(ctx context.Context) error {
				require.NoError(t, add(ctx, "inner"))
				return boom
			}), boom)
			return nil
		}), "a failed savepoint leaves the outer transaction")
		require.True(t, has("outer"))
		require.False(t, has("inner"))

		require.NoError(t, db.Tx(ctx, func(ctx context.Context) error {
			joined, err := db.Begin(ctx)
			require.NoError(t, err)
			require.NoError(t, add(joined, "joined"))
			return db.Commit(joined)
		}))
		require.True(t, has("joined"))

		alone, err := db.Begin(ctx)
		require.NoError(t, err)
		require.NoError(t, add(alone, "begun"))
		require.NoError(t, db.Rollback(alone))
		require.NoError(t, db.Rollback(alone), "rolling back twice is harmless")
		require.False(t, has("begun"))

		require.ErrorIs(t, db.Tx(ctx, func(ctx context.Context) error { return add(ctx, "outer") }), storage.ErrConflict)
	})
}

func TestSealedBytesOpenInTheirPlaceOnly(t *testing.T) {
	db := storagetest.SQLite(t)
	sealed := db.Seal("credential", "secret", "row1", []byte("seed"))
	plain, err := db.Unseal("credential", "secret", "row1", sealed)
	require.NoError(t, err)
	require.Equal(t, "seed", string(plain))
	for _, place := range [][3]string{{"credential", "secret", "row2"}, {"credential", "other", "row1"}, {"patient", "secret", "row1"}} {
		_, err := db.Unseal(place[0], place[1], place[2], sealed)
		require.ErrorIs(t, err, storage.ErrSealed, place)
	}
	sealed[len(sealed)-1] ^= 1
	_, err = db.Unseal("credential", "secret", "row1", sealed)
	require.ErrorIs(t, err, storage.ErrSealed)
	_, err = db.Unseal("credential", "secret", "row1", []byte("junk"))
	require.ErrorIs(t, err, storage.ErrSealed)
}

func TestAKeyIsAddedWithoutLosingTheOld(t *testing.T) {
	ctx, path := context.Background(), filepath.Join(t.TempDir(), "a.db")
	old := storage.NewKeyring()
	open := func(k storage.Keyring) *storage.DB {
		db, err := storage.Open(ctx, storage.Config{DSN: "sqlite:" + path, Keys: k})
		require.NoError(t, err)
		t.Cleanup(func() { db.Close() })
		return db
	}
	before := open(old)
	added := storage.NewKeyring()
	added[0].ID = "k2"
	after := open(append(added, old...))
	plain, err := after.Unseal("t", "c", "r", before.Seal("t", "c", "r", []byte("x")))
	require.NoError(t, err)
	require.Equal(t, "x", string(plain))
	require.Equal(t, before.MAC("p", []byte("x")), after.MAC("p", []byte("x")))
	_, err = before.Unseal("t", "c", "r", after.Seal("t", "c", "r", []byte("x")))
	require.ErrorIs(t, err, storage.ErrSealed, "an unknown key is refused, not guessed")
}

func TestKeyringsAreChecked(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "[]", "short key": `[{"id":"a","key":"AAAA"}]`, "no json": "x",
		"twice": `[{"id":"a","key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="},{"id":"a","key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}]`,
	} {
		path := filepath.Join(t.TempDir(), "keyring.json")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := storage.ReadKeyring(path)
		require.Error(t, err, name)
	}
}

func TestMigrationsRunOnceForManyStarters(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		s, err := db.SchemaStatus(ctx)
		require.NoError(t, err)
		require.False(t, s.Old())
		require.NotZero(t, s.Wanted)
		names, err := db.Migrate(ctx)
		require.NoError(t, err)
		require.Empty(t, names)
	})
	path := filepath.Join(t.TempDir(), "new.db")
	keys := storage.NewKeyring()
	done := make(chan int, 8)
	for range cap(done) {
		go func() {
			db, err := storage.Open(context.Background(), storage.Config{DSN: "sqlite:" + path, Keys: keys})
			if err != nil {
				t.Error(err)
			}
			defer db.Close()
			names, err := db.Migrate(context.Background())
			if err != nil {
				t.Error(err)
			}
			done <- len(names)
		}()
	}
	applied := 0
	for range cap(done) {
		if n := <-done; n > 0 {
			applied++
		}
	}
	require.Equal(t, 1, applied, "one starter applies them all")
}

func TestABadDSNDoesNotLeak(t *testing.T) {
	for _, dsn := range []string{"", "sqlite:", "mysql://x", "postgres://u:hunter2@[bad"} {
		_, err := storage.Open(context.Background(), storage.Config{DSN: dsn, Keys: storage.NewKeyring()})
		require.Error(t, err, dsn)
		require.NotContains(t, err.Error(), "hunter2")
	}
}
