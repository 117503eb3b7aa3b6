package storage_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// wins runs f n times at once and counts the calls that got nil; every other
// call must have got lost.
func wins(t testing.TB, n int, lost error, f func() error) (won int) {
	t.Helper()
	var wg sync.WaitGroup
	var wins atomic.Int64
	start := make(chan struct{})
	for range n {
		wg.Go(func() {
			<-start
			switch err := f(); {
			case err == nil:
				wins.Add(1)
			case !errors.Is(err, lost):
				t.Error(err)
			}
		})
	}
	close(start)
	wg.Wait()
	return int(wins.Load())
}

func TestATOTPStepIsAcceptedOnce(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		c := storage.Credential{PatientID: somebody(t, db, "ada@example.org").ID, Kind: storage.KindTOTP, Secret: []byte("x"), LastStep: 99}
		require.NoError(t, db.AddCredential(ctx, &c))
		require.Equal(t, 1, wins(t, 50, storage.ErrSpent, func() error { return db.UseTOTPStep(ctx, c.ID, 100) }))
		require.ErrorIs(t, db.UseTOTPStep(ctx, c.ID, 99), storage.ErrSpent, "older steps are gone with it")
		require.NoError(t, db.UseTOTPStep(ctx, c.ID, 101))
	})
}

func TestFailuresSlowDownAndDisable(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := context.Background(), storage.Now()
		p := somebody(t, db, "ada@example.org")
		c := storage.Credential{PatientID: p.ID, Kind: storage.KindPassword, Secret: []byte("x")}
		require.NoError(t, db.AddCredential(ctx, &c))
		try := func(now time.Time) error {
			_, err := db.TryCredential(ctx, c.ID, now)
			return err
		}
		fail := func() bool {
			_, err := db.TryCredential(ctx, c.ID, now)
			require.NoError(t, err)
			disabled, err := db.CredentialFailed(ctx, c.ID, now)
			require.NoError(t, err)
			return disabled
		}
		for range 5 {
			require.False(t, fail())
		}
		require.ErrorIs(t, try(now.Add(29*time.Second)), storage.ErrSpent)
		now = now.Add(30 * time.Second)
		fail()
		require.ErrorIs(t, try(now.Add(59*time.Second)), storage.ErrSpent, "the wait doubles")
		now = now.Add(time.Minute)

		require.NoError(t, try(now))
		require.NoError(t, db.CredentialSucceeded(ctx, c.ID, now))
		for range 4 {
			fail()
		}
		require.NoError(t, try(now), "success starts the count anew")
		_, err := db.CredentialFailed(ctx, c.ID, now)
		require.NoError(t, err)
		for i := 6; i <= 50; i++ {
			now = now.Add(time.Hour)
			require.Equal(t, i == 50, fail(), "failure %d", i)
		}
		now = now.Add(1000 * time.Hour)
		require.ErrorIs(t, try(now), storage.ErrSpent, "disabled until it is bound anew")
		require.NoError(t, db.SetPassword(ctx, p.ID, "y", now))
		live, err := db.Credentials(ctx, p.ID)
		require.NoError(t, err)
		require.Len(t, live, 1)
		require.True(t, live[0].Usable(now))
	})
}

// Of a burst of guesses five are answered; while those are looked at, the others
// wait, and then it rests.
func TestABurstOfGuessesIsCounted(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := context.Background(), storage.Now()
		c := storage.Credential{PatientID: somebody(t, db, "ada@example.org").ID, Kind: storage.KindPassword, Secret: []byte("x")}
		require.NoError(t, db.AddCredential(ctx, &c))
		require.Equal(t, 5, wins(t, 50, storage.ErrSpent, func() error {
			_, err := db.TryCredential(ctx, c.ID, now)
			if err == nil {
				_, err = db.CredentialFailed(ctx, c.ID, now)
			}
			return err
		}))
		all, err := db.Credentials(ctx, c.PatientID)
		require.NoError(t, err)
		require.Equal(t, 5, all[0].Failures)
		require.Nil(t, all[0].TryingUntil)
	})
}

// What is taken back was no failure; what nobody takes back stays one.
func TestATryIsTakenBack(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := context.Background(), storage.Now()
		c := storage.Credential{PatientID: somebody(t, db, "ada@example.org").ID, Kind: storage.KindPassword, Secret: []byte("x")}
		require.NoError(t, db.AddCredential(ctx, &c))
		is := func(failures int, rests bool) {
			t.Helper()
			all, err := db.Credentials(ctx, c.PatientID)
			require.NoError(t, err)
			require.Equal(t, failures, all[0].Failures)
			require.Equal(t, rests, all[0].RetryAfter != nil)
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		for range 100 {
			try, err := db.TryCredential(ctx, c.ID, now)
			require.NoError(t, err)
			require.NoError(t, db.TakeBack(gone, try), "also of a caller who has hung up")
		}
		is(0, false)
		for range 5 { // a crash, each time
			now = now.Add(10 * time.Second)
			_, err := db.TryCredential(ctx, c.ID, now)
			require.NoError(t, err)
		}
		is(5, true)
		_, err := db.TryCredential(ctx, c.ID, now.Add(20*time.Second))
		require.ErrorIs(t, err, storage.ErrSpent)
		now = now.Add(30 * time.Second)
		try, err := db.TryCredential(ctx, c.ID, now)
		require.NoError(t, err)
		is(6, true)
		require.NoError(t, db.TakeBack(ctx, try))
		is(5, false)
	})
}

// Fifty that are right, while one failure more would make the credential rest.
func TestRightTriesWaitForOneAnother(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := context.Background(), storage.Now()
		c := storage.Credential{PatientID: somebody(t, db, "ada@example.org").ID, Kind: storage.KindPassword, Secret: []byte("x")}
		require.NoError(t, db.AddCredential(ctx, &c))
		for range 4 {
			_, err := db.TryCredential(ctx, c.ID, now)
			require.NoError(t, err)
			_, err = db.CredentialFailed(ctx, c.ID, now)
			require.NoError(t, err)
		}
		wins(t, 50, storage.ErrUnavailable, func() error {
			_, err := db.TryCredential(ctx, c.ID, now)
			if err == nil {
				err = db.CredentialSucceeded(ctx, c.ID, now)
			}
			return err
		})
		all, err := db.Credentials(ctx, c.PatientID)
		require.NoError(t, err)
		require.Zero(t, all[0].Failures)
		require.Nil(t, all[0].RetryAfter)
	})
}

func TestCredentialsBelongToOnePatient(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := context.Background(), storage.Now()
		a, b := somebody(t, db, "a@example.org"), somebody(t, db, "b@example.org")
		key := storage.Credential{PatientID: a.ID, Kind: storage.KindPasskey, ExternalID: "c0ffee", Secret: []byte("public")}
		require.NoError(t, db.AddCredential(ctx, &key))
		require.ErrorIs(t, db.AddCredential(ctx, &storage.Credential{PatientID: b.ID, Kind: storage.KindPasskey, ExternalID: "c0ffee", Secret: []byte("x")}), storage.ErrConflict)

		has, err := db.HasSecondFactor(ctx, a.ID)
		require.NoError(t, err)
		require.True(t, has)
		require.ErrorIs(t, db.RevokeCredential(ctx, b.ID, key.ID, now), storage.ErrNotFound)

		found, err := db.CredentialByExternalID(ctx, "c0ffee")
		require.NoError(t, err)
		require.Equal(t, "public", string(found.Secret))

		require.NoError(t, db.RevokeCredential(ctx, a.ID, key.ID, now))
		require.ErrorIs(t, db.RevokeCredential(ctx, a.ID, key.ID, now), storage.ErrNotFound)
		_, err = db.CredentialByExternalID(ctx, "c0ffee")
		require.ErrorIs(t, err, storage.ErrNotFound)
		has, err = db.HasSecondFactor(ctx, a.ID)
		require.NoError(t, err)
		require.False(t, has)
	})
}

func TestASecretIsReplacedByOne(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		c := storage.Credential{PatientID: somebody(t, db, "ada@example.org").ID, Kind: storage.KindPasskey, Secret: []byte("count 1")}
		require.NoError(t, db.AddCredential(ctx, &c))
		require.Equal(t, 1, wins(t, 50, storage.ErrSpent, func() error {
			return db.ReplaceSecret(ctx, c, []byte("count 2"))
		}))
	})
}
