package storage_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

func TestTheLastSecondFactorGoesOnlyOnPurpose(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		p := storage.Patient{Email: "ada@example.org"}
		require.NoError(t, db.CreatePatient(t.Context(), &p))
		require.NoError(t, db.SetPassword(t.Context(), p.ID, "phc", storage.Now()))
		const n = 50
		var ids []string
		for range n {
			c := storage.Credential{PatientID: p.ID, Kind: storage.KindTOTP, Secret: []byte("x")}
			require.NoError(t, db.AddCredential(t.Context(), &c))
			ids = append(ids, c.ID)
		}
		var removed, kept atomic.Int32
		var wg sync.WaitGroup
		for _, id := range ids {
			wg.Go(func() {
				switch err := db.RemoveFactor(t.Context(), p.ID, id, false, storage.Now()); {
				case err == nil:
					removed.Add(1)
				case errors.Is(err, storage.ErrConflict):
					kept.Add(1)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, n-1, removed.Load())
		require.EqualValues(t, 1, kept.Load(), "fifty at once leave one")
		has, err := db.HasSecondFactor(t.Context(), p.ID)
		require.NoError(t, err)
		require.True(t, has)

		all, err := db.Credentials(t.Context(), p.ID)
		require.NoError(t, err)
		require.Len(t, all, 2)
		require.ErrorIs(t, db.RemoveFactor(t.Context(), p.ID, all[0].ID, true, storage.Now()), storage.ErrNotFound, "the password is no second factor")
		require.ErrorIs(t, db.RemoveFactor(t.Context(), "other", all[1].ID, true, storage.Now()), storage.ErrNotFound)
		require.NoError(t, db.RemoveFactor(t.Context(), p.ID, all[1].ID, true, storage.Now()))
	})
}
