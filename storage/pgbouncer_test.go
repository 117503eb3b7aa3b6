package storage_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// Behind a PgBouncer in transaction mode, which gives a client's next transaction
// to whichever of its server connections is free, everything works by the one
// setting, and nothing without it.
func TestBehindPgBouncer(t *testing.T) {
	url := storagetest.PostgresURL(t)
	storagetest.Open(t, url) // migrates, on a connection to PostgreSQL itself
	through := storagetest.PgBouncer(t, url)
	keys := storage.NewKeyring()
	work := func(pgbouncer bool) error {
		db, err := storage.Open(t.Context(), storage.Config{DSN: through, Keys: keys, PgBouncer: pgbouncer})
		require.NoError(t, err)
		defer db.Close()
		if err := db.Ping(t.Context()); err != nil {
			return err
		}
		var all sync.WaitGroup
		failed := make(chan error, 50)
		for i := range 50 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				p := storage.Patient{Email: fmt.Sprintf("p%d-%v@example.org", i, pgbouncer), GivenName: "A", FamilyName: "B", BirthDate: "1980-02-29"}
				err := db.Within(ctx, 10*time.Second, func(ctx context.Context) error { return db.CreatePatient(ctx, &p) })
				for range 5 {
					if err == nil {
						err = db.Tx(ctx, func(ctx context.Context) error { return db.SetPassword(ctx, p.ID, "phc", storage.Now()) })
					}
					if err == nil {
						_, err = db.Credentials(ctx, p.ID)
					}
				}
				if err == nil {
					_, err = db.PatientByEmail(ctx, p.Email)
				}
				failed <- err
			})
		}
		all.Wait()
		close(failed)
		for err := range failed {
			if err != nil {
				return err
			}
		}
		return nil
	}
	require.NoError(t, work(true))
	require.Error(t, work(false))
}
