package keys_test

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// states counts the keys of alg by state.
func states(t *testing.T, db *storage.DB, alg string) map[string]int {
	t.Helper()
	rows, err := db.SigningKeys(context.Background())
	require.NoError(t, err)
	out := map[string]int{}
	for _, r := range rows {
		if r.Alg == alg {
			out[r.State]++
			if r.State == storage.KeyRetired || r.State == storage.KeyCompromised {
				require.Empty(t, r.Private, "destroyed")
			}
		}
	}
	return out
}

// A relying party is what verifies tokens with the set that it fetched last.
type relyingParty struct {
	every   time.Duration
	fetched time.Time
	set     jose.JSONWebKeySet
}

func (p *relyingParty) verify(t *testing.T, k *keys.Keys, token string) {
	t.Helper()
	if time.Since(p.fetched) >= p.every {
		p.set, p.fetched = jose.JSONWebKeySet{}, time.Now()
		require.NoError(t, json.Unmarshal(k.JWKS(), &p.set))
	}
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{"ES256", "EdDSA", "RS256", "PS256"})
	require.NoError(t, err)
	found := p.set.Key(jws.Signatures[0].Header.KeyID)
	require.Len(t, found, 1, "a party that fetches every %s does not know the key", p.every)
	_, err = jws.Verify(found[0])
	require.NoError(t, err)
}

// In a hundred days no party that keeps the set for up to a day meets a key it
// does not know, neither in a new token nor in one of three hours ago, although the
// replica reads the keys half a minute late and the rotation comes when it may.
func TestNobodyMeetsAnUnknownKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		db := storagetest.SQLite(t)
		k, err := keys.Open(ctx, db)
		require.NoError(t, err)
		parties := []*relyingParty{{every: 0}, {every: 5 * time.Minute}, {every: 12 * time.Hour}, {every: 23 * time.Hour}}
		used := map[string]bool{}
		var before string
		for step := range 100 * 8 {
			if step%2 == 0 { // late
				require.NoError(t, keys.Rotate(ctx, db, storage.Now()))
			}
			time.Sleep(30 * time.Second)
			require.NoError(t, k.Refresh(ctx))
			token, err := k.Sign("ES256", "JWT", map[string]int{"step": step})
			require.NoError(t, err)
			for _, p := range parties {
				p.verify(t, k, token)
				if before != "" {
					p.verify(t, k, before)
				}
			}
			require.NoError(t, k.Verify(token, "JWT", &struct{}{}))
			before = token
			jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{"ES256"})
			require.NoError(t, err)
			used[jws.Signatures[0].Header.KeyID] = true
			time.Sleep(3*time.Hour - 30*time.Second)
		}
		require.Len(t, used, 4, "a key signs for thirty days")
		require.LessOrEqual(t, states(t, db, "ES256")[storage.KeyRetired], 1, "old ones go")
	})
}

func TestFiftyRotate(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		_, err := keys.Open(ctx, db)
		require.NoError(t, err)
		rotate := func(at time.Time) {
			var all sync.WaitGroup
			for range 50 {
				all.Go(func() {
					if err := keys.Rotate(ctx, db, at); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
		}
		now := storage.Now()
		for _, alg := range keys.Algorithms {
			require.NoError(t, keys.Prepare(ctx, db, alg))
			require.NoError(t, keys.Prepare(ctx, db, alg), "one waits already")
			require.Equal(t, map[string]int{"active": 1, "pending": 1}, states(t, db, alg))
		}
		rotate(now.Add(keys.PublishBefore - time.Minute))
		require.Equal(t, map[string]int{"active": 1, "pending": 1}, states(t, db, "ES256"), "too early")
		rotate(now.Add(keys.PublishBefore + time.Minute))
		for _, alg := range keys.Algorithms {
			require.Equal(t, map[string]int{"active": 1, "retired": 1}, states(t, db, alg))
		}
		rotate(now.Add(keys.PublishBefore + keys.KeepAfter + 2*time.Minute))
		require.Equal(t, map[string]int{"active": 1}, states(t, db, "ES256"))
	})
}

func TestAKeyOnCommand(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		k, err := keys.Open(ctx, db)
		require.NoError(t, err)
		old, err := k.Sign("RS256", "JWT", map[string]string{"sub": "x"})
		require.NoError(t, err)
		kid := func(token string) string {
			jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{"RS256"})
			require.NoError(t, err)
			return jws.Signatures[0].Header.KeyID
		}
		require.NoError(t, keys.RotateNow(ctx, db, "RS256", storage.Now()))
		require.NoError(t, k.Refresh(ctx))
		fresh, err := k.Sign("RS256", "JWT", map[string]string{"sub": "x"})
		require.NoError(t, err)
		require.NotEqual(t, kid(old), kid(fresh))
		require.NoError(t, k.Verify(old, "JWT", &struct{}{}), "what the old one signed is good")

		require.ErrorIs(t, keys.Retire(ctx, db, kid(fresh), false, storage.Now()), keys.ErrInUse)
		require.ErrorIs(t, keys.Retire(ctx, db, "unknown", false, storage.Now()), storage.ErrNotFound)
		require.NoError(t, keys.Retire(ctx, db, kid(old), true, storage.Now()))
		require.NoError(t, keys.Retire(ctx, db, kid(fresh), true, storage.Now()))
		require.NoError(t, k.Refresh(ctx))
		for _, token := range []string{old, fresh} {
			require.ErrorIs(t, k.Verify(token, "JWT", &struct{}{}), keys.ErrToken, "compromised")
			require.NotContains(t, string(k.JWKS()), kid(token))
		}
		third, err := k.Sign("RS256", "JWT", map[string]string{"sub": "x"})
		require.NoError(t, err)
		require.NoError(t, k.Verify(third, "JWT", &struct{}{}))
	})
}

// A newer release may have left what this one does not know.
func TestAnUnknownAlgorithmIsNoObstacle(t *testing.T) {
	ctx := context.Background()
	db := storagetest.SQLite(t)
	require.NoError(t, db.AddSigningKey(ctx, &storage.SigningKey{ID: "x", Alg: "ML-DSA-44", State: storage.KeyActive, Public: "?", Private: []byte{}}))
	k, err := keys.Open(ctx, db)
	require.NoError(t, err)
	require.NotContains(t, string(k.JWKS()), "ML-DSA-44")
}
