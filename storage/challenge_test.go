package storage_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

func TestAChallengeIsSpentOnce(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := context.Background(), storage.Now()
		c := storage.Challenge{Kind: "verify_email", PatientID: "p", Data: []byte(`{"a":1}`), ExpiresAt: now.Add(time.Hour)}
		require.NoError(t, db.NewMailedChallenge(ctx, &c))
		id, secret, ok := storage.ParseMailedToken(db.MailedToken(c.ID))
		require.True(t, ok)
		digest := storage.Digest(secret)

		_, err := db.SpendChallenge(ctx, c.Kind, id, storage.Digest("guess"), now)
		require.ErrorIs(t, err, storage.ErrNotFound)
		_, err = db.SpendChallenge(ctx, "recover", id, digest, now)
		require.ErrorIs(t, err, storage.ErrNotFound, "a secret serves its own purpose only")
		_, err = db.SpendChallenge(ctx, c.Kind, id, digest, c.ExpiresAt)
		require.ErrorIs(t, err, storage.ErrSpent, "expired")

		require.Equal(t, 1, wins(t, 50, storage.ErrSpent, func() error {
			got, err := db.SpendChallenge(ctx, c.Kind, id, digest, now)
			if err == nil {
				require.JSONEq(t, `{"a":1}`, string(got.Data))
			}
			return err
		}))
	})
}

func TestTheNewestMailCounts(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := context.Background(), storage.Now()
		older := storage.Challenge{Kind: "verify_email", PatientID: "p", ExpiresAt: now.Add(time.Hour)}
		other := storage.Challenge{Kind: "verify_email", PatientID: "q", ExpiresAt: now.Add(time.Hour)}
		newer := storage.Challenge{Kind: "verify_email", PatientID: "p", ExpiresAt: now.Add(time.Hour)}
		for _, c := range []*storage.Challenge{&older, &other, &newer} {
			require.NoError(t, db.NewMailedChallenge(ctx, c))
		}
		_, err := db.SpendChallenge(ctx, older.Kind, older.ID, older.Digest, now)
		require.ErrorIs(t, err, storage.ErrSpent)
		latest, err := db.LatestChallenge(ctx, "verify_email", "p")
		require.NoError(t, err)
		require.Equal(t, newer.ID, latest.ID)
		for _, c := range []storage.Challenge{other, newer} {
			_, err = db.SpendChallenge(ctx, c.Kind, c.ID, c.Digest, now)
			require.NoError(t, err)
		}
	})
}

func TestTriesAreCounted(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := context.Background(), storage.Now()
		c := storage.Challenge{Kind: "totp_enrol", Digest: storage.Digest("x"), ExpiresAt: now.Add(time.Hour)}
		require.NoError(t, db.NewChallenge(ctx, &c))
		again := storage.Challenge{Kind: "totp_enrol", Digest: storage.Digest("y"), ExpiresAt: now.Add(time.Hour)}
		require.NoError(t, db.NewChallenge(ctx, &again))
		require.Equal(t, 5, wins(t, 50, storage.ErrSpent, func() error {
			_, err := db.TryChallenge(ctx, c.Kind, c.ID, c.Digest, 5, now)
			return err
		}))
		_, err := db.SpendChallenge(ctx, c.Kind, c.ID, c.Digest, now)
		require.NoError(t, err, "the last try may have been the right one")

		count := func() error { return db.CountAttempt(ctx, "mail", "ada@example.org", 3, time.Hour, now) }
		require.Equal(t, 3, wins(t, 50, storage.ErrSpent, count))
		require.NoError(t, db.ForgiveAttempt(ctx, "mail", "ada@example.org"))
		require.NoError(t, count(), "those that were refused are not counted")
		require.ErrorIs(t, count(), storage.ErrSpent)
		require.NoError(t, db.CountAttempt(ctx, "mail", "ada@example.org", 3, time.Hour, now.Add(time.Hour)), "a new window")

		require.Equal(t, 3, wins(t, 50, storage.ErrSpent, func() error {
			_, err := db.TryChallenge(ctx, c.Kind, again.ID, again.Digest, 3, now)
			return err
		}))
		require.NoError(t, db.UntryChallenge(ctx, c.Kind, again.ID))
		_, err = db.TryChallenge(ctx, c.Kind, again.ID, again.Digest, 3, now)
		require.NoError(t, err, "one was not checked")

		gone, err := db.DeleteExpired(ctx, "attempt", now.Add(3*time.Hour), 10)
		require.NoError(t, err)
		require.Equal(t, 1, gone)
		gone, err = db.DeleteExpired(ctx, "challenge", now.Add(27*time.Hour), 10)
		require.NoError(t, err)
		require.Equal(t, 2, gone)
	})
}

func FuzzParseMailedToken(f *testing.F) {
	f.Add("ABCDEFGHIJKLMNOPQRSTUVWXYZ.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ")
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		id, secret, ok := storage.ParseMailedToken(token)
		if ok {
			require.Equal(t, token, id+"."+secret)
			require.Len(t, id, 26)
			require.Len(t, secret, 43)
		}
	})
}
