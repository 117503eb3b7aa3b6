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

// race calls f from fifty goroutines at once and counts the answers.
func race(t *testing.T, f func() error) (won, spent int) {
	t.Helper()
	var wins, losses atomic.Int64
	var start, done sync.WaitGroup
	start.Add(1)
	for range 50 {
		done.Go(func() {
			start.Wait()
			switch err := f(); {
			case err == nil:
				wins.Add(1)
			case errors.Is(err, storage.ErrSpent):
				losses.Add(1)
			default:
				t.Errorf("neither winner nor loser: %v", err)
			}
		})
	}
	start.Done()
	done.Wait()
	return int(wins.Load()), int(losses.Load())
}

// granted stores a client, a patient and a grant with one code and one refresh token.
func granted(t *testing.T, db *storage.DB) (storage.Grant, string, string) {
	t.Helper()
	ctx, now := context.Background(), storage.Now()
	c := storage.Client{Name: "Portal", AuthMethods: storage.Words{"none"}, GrantTypes: storage.Words{"authorization_code"}}
	require.NoError(t, db.CreateClient(ctx, &c))
	p := storage.Patient{Email: storage.NewID() + "@example.org"}
	require.NoError(t, db.CreatePatient(ctx, &p))
	g := storage.Grant{
		ID: storage.NewID(), ClientID: c.ID, PatientID: p.ID, Scopes: storage.Words{"openid", "offline_access"},
		Audience: storage.Strings{"https://issuer.example"}, Offline: true, AuthTime: now, CreatedAt: now, ExpiresAt: now.Add(time.Hour),
	}
	code, refresh := storage.NewHandle("pa_ac_"), storage.NewHandle("pa_rt_")
	require.NoError(t, db.CreateCode(ctx, g, storage.Code{
		Digest: storage.Digest(code), GrantID: g.ID, RequestedAt: now, ExpiresAt: now.Add(time.Minute),
	}))
	require.NoError(t, db.CreateRefreshToken(ctx, storage.RefreshToken{
		Digest: storage.Digest(refresh), GrantID: g.ID, CreatedAt: now, ExpiresAt: now.Add(time.Hour),
	}))
	return g, code, refresh
}

func TestACodeIsSpentOnce(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		_, code, _ := granted(t, db)
		won, spent := race(t, func() error {
			return db.SpendCode(context.Background(), storage.Digest(code), storage.Now())
		})
		require.Equal(t, []int{1, 49}, []int{won, spent})
		_, err := db.Code(context.Background(), storage.Digest(code))
		require.ErrorIs(t, err, storage.ErrSpent)
	})
}

func TestARefreshTokenHasOneSuccessor(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		g, _, refresh := granted(t, db)
		var winner atomic.Value
		won, spent := race(t, func() error {
			next := storage.NewHandle("pa_rt_")
			return db.Tx(ctx, func(ctx context.Context) error {
				now := storage.Now()
				if err := db.RotateRefreshToken(ctx, refresh, next, now); err != nil {
					return err
				}
				winner.Store(next)
				return db.CreateRefreshToken(ctx, storage.RefreshToken{
					Digest: storage.Digest(next), GrantID: g.ID, CreatedAt: now, ExpiresAt: now.Add(time.Hour),
				})
			})
		})
		require.Equal(t, []int{1, 49}, []int{won, spent})

		// A client that lost the answer gets the same successor, for a while.
		row, err := db.RefreshToken(ctx, storage.Digest(refresh))
		require.NoError(t, err)
		next, err := db.Successor(ctx, row, refresh, storage.Now())
		require.NoError(t, err)
		require.Equal(t, winner.Load(), next)
		_, err = db.Successor(ctx, row, refresh, storage.Now().Add(storage.RefreshOverlap+time.Second))
		require.ErrorIs(t, err, storage.ErrSpent)
		_, err = db.Successor(ctx, row, storage.NewHandle("pa_rt_"), storage.Now())
		require.ErrorIs(t, err, storage.ErrSealed, "only the presented token opens it")

		// Once the successor is used, the old one is reuse.
		require.NoError(t, db.RotateRefreshToken(ctx, next, storage.NewHandle("pa_rt_"), storage.Now()))
		_, err = db.Successor(ctx, row, refresh, storage.Now())
		require.ErrorIs(t, err, storage.ErrSpent)
	})
}

func TestAGrantEndsWithWhatItHangsOn(t *testing.T) {
	ends := map[string]func(context.Context, *storage.DB, storage.Grant) error{
		"revoked": func(ctx context.Context, db *storage.DB, g storage.Grant) error {
			return db.RevokeGrant(ctx, g.ID, "test", storage.Now())
		},
		"patient disabled": func(ctx context.Context, db *storage.DB, g storage.Grant) error {
			return db.SetPatientDisabled(ctx, g.PatientID, true)
		},
		"consent revoked": func(ctx context.Context, db *storage.DB, g storage.Grant) error {
			return db.RevokeConsent(ctx, g.PatientID, g.ClientID, storage.Now())
		},
	}
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		for name, end := range ends {
			g, _, _ := granted(t, db)
			_, err := db.Grant(ctx, g.ID, storage.Now())
			require.NoError(t, err, name)
			require.NoError(t, end(ctx, db, g), name)
			_, err = db.Grant(ctx, g.ID, storage.Now())
			require.ErrorIs(t, err, storage.ErrSpent, name)
		}
		g, _, _ := granted(t, db)
		_, err := db.Grant(ctx, g.ID, g.ExpiresAt)
		require.ErrorIs(t, err, storage.ErrSpent, "absolute end")
	})
}

func TestAGrantWithoutOfflineAccessEndsWithItsSession(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := context.Background(), storage.Now()
		g, _, _ := granted(t, db)
		s := storage.Session{
			ID: storage.NewID(), Digest: storage.Digest(storage.NewHandle("pas_")), PatientID: g.PatientID,
			AuthTime: now, CreatedAt: now, LastSeenAt: now, ExpiresAt: now.Add(time.Hour),
		}
		require.NoError(t, db.CreateSession(ctx, &s))
		g.ID, g.SessionID, g.Offline = storage.NewID(), s.ID, false
		require.NoError(t, db.CreateCode(ctx, g, storage.Code{
			Digest: storage.Digest("another"), GrantID: g.ID, RequestedAt: now, ExpiresAt: now,
		}))
		_, err := db.Grant(ctx, g.ID, now)
		require.NoError(t, err)
		require.NoError(t, db.EndSession(ctx, s.PatientID, s.ID, now))
		_, err = db.Grant(ctx, g.ID, now)
		require.ErrorIs(t, err, storage.ErrSpent)
	})
}

func TestExpiredTokensGo(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		g, code, refresh := granted(t, db)
		for _, table := range []string{"oauth_code", "oauth_refresh", "oauth_grant"} {
			n, err := db.DeleteExpired(ctx, table, storage.Now(), 100)
			require.NoError(t, err)
			require.Zero(t, n)
			n, err = db.DeleteExpired(ctx, table, g.ExpiresAt.Add(25*time.Hour), 100)
			require.NoError(t, err)
			require.Equal(t, 1, n, table)
		}
		_, err := db.Code(ctx, storage.Digest(code))
		require.ErrorIs(t, err, storage.ErrNotFound)
		_, err = db.RefreshToken(ctx, storage.Digest(refresh))
		require.ErrorIs(t, err, storage.ErrNotFound)
	})
}
