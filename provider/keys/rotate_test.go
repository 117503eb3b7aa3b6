package keys_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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

const day = 24 * time.Hour

// The life of one key, by the schedule of docs/operations.md.
func TestTheScheduleOfAKey(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		_, err := keys.Open(ctx, db, small)
		require.NoError(t, err)
		start := storage.Now()
		first := kids(t, db, "ES256", "active")
		at := func(after time.Duration) {
			t.Helper()
			for range 2 { // once more changes nothing
				require.NoError(t, keys.Rotate(ctx, db, small, start.Add(after)))
			}
		}
		at(28*day - time.Minute)
		require.Empty(t, kids(t, db, "ES256", "pending"))
		at(28*day + time.Minute)
		next := kids(t, db, "ES256", "pending")
		require.Len(t, next, 1)
		require.Equal(t, first, kids(t, db, "ES256", "active"))
		at(30*day - time.Minute)
		require.Equal(t, first, kids(t, db, "ES256", "active"), "published for long, but the first has not ended")
		at(30*day + time.Minute)
		require.Equal(t, next, kids(t, db, "ES256", "active"))
		require.Equal(t, first, kids(t, db, "ES256", "retired"))
		require.Empty(t, kids(t, db, "ES256", "pending"))
		rows, err := db.SigningKeys(ctx)
		require.NoError(t, err)
		for _, r := range rows {
			require.Equal(t, r.State == "retired", len(r.Private) == 0, "the private part is destroyed at retirement")
		}
		at(32 * day)
		require.Equal(t, first, kids(t, db, "ES256", "retired"))
		at(32*day + 2*time.Minute)
		require.Empty(t, kids(t, db, "ES256", "retired"))
		require.Equal(t, next, kids(t, db, "ES256", "active"))
	})
}

// Tasks that stood still: the next key is published for a day all the same.
func TestALateRunCatchesUp(t *testing.T) {
	ctx, db := context.Background(), storagetest.SQLite(t)
	_, err := keys.Open(ctx, db, small)
	require.NoError(t, err)
	start, first := storage.Now(), kids(t, db, "EdDSA", "active")
	require.NoError(t, keys.Rotate(ctx, db, small, start.Add(50*day)))
	next := kids(t, db, "EdDSA", "pending")
	require.Len(t, next, 1)
	require.NoError(t, keys.Rotate(ctx, db, small, start.Add(51*day-time.Second)))
	require.Equal(t, first, kids(t, db, "EdDSA", "active"))
	require.NoError(t, keys.Rotate(ctx, db, small, start.Add(51*day)))
	require.Equal(t, next, kids(t, db, "EdDSA", "active"))
	require.NoError(t, keys.Rotate(ctx, db, small, start.Add(200*day)))
	require.Empty(t, kids(t, db, "EdDSA", "retired"))
}

func TestAnOperatorNeedNotWaitForTheSchedule(t *testing.T) {
	ctx, db := context.Background(), storagetest.SQLite(t)
	_, err := keys.Open(ctx, db, small)
	require.NoError(t, err)
	now, first := storage.Now(), kids(t, db, "ES256", "active")
	require.NoError(t, keys.Prepare(ctx, db, small, "ES256", now))
	next := kids(t, db, "ES256", "pending")
	require.Len(t, next, 1)
	require.NoError(t, keys.Prepare(ctx, db, small, "ES256", now.Add(day-time.Second)))
	require.Equal(t, next, kids(t, db, "ES256", "pending"), "it waits")
	require.ErrorIs(t, keys.Retire(ctx, db, small, first[0], now.Add(day-time.Second)), keys.ErrNoSuccessor)
	rows, err := db.SigningKeys(ctx)
	require.NoError(t, err)
	for _, r := range rows {
		state, at := keys.Next(rows, r)
		switch {
		case r.ID == next[0]:
			require.Equal(t, "active "+now.Add(day).String(), state+" "+at.String())
		case r.ID == first[0]:
			require.Equal(t, "retired "+now.Add(day).String(), state+" "+at.String())
		default:
			require.Equal(t, "retired "+r.ActivatedAt.Add(30*day).String(), state+" "+at.String())
		}
	}
	require.NoError(t, keys.Rotate(ctx, db, small, now.Add(day)))
	require.Equal(t, next, kids(t, db, "ES256", "active"), "a day is enough")
	require.Equal(t, first, kids(t, db, "ES256", "retired"))
	require.Empty(t, kids(t, db, "RS256", "pending"), "the others have their own schedule")
}

func TestAKeyThatSignsNeedsASuccessor(t *testing.T) {
	ctx, db := context.Background(), storagetest.SQLite(t)
	_, err := keys.Open(ctx, db, small)
	require.NoError(t, err)
	now, first := storage.Now(), kids(t, db, "ES256", "active")[0]
	require.ErrorIs(t, keys.Retire(ctx, db, small, first, now), keys.ErrNoSuccessor)
	require.ErrorIs(t, keys.Retire(ctx, db, small, "nobody", now), storage.ErrNotFound)
	require.NoError(t, keys.Prepare(ctx, db, small, "ES256", now))
	next := kids(t, db, "ES256", "pending")
	require.NoError(t, keys.Retire(ctx, db, small, first, now.Add(day)))
	require.Equal(t, next, kids(t, db, "ES256", "active"))
	require.ErrorIs(t, keys.Retire(ctx, db, small, first, now), keys.ErrEnded)
	require.NoError(t, keys.Compromise(ctx, db, small, first, now), "also what has retired may be lost")
	require.ErrorIs(t, keys.Compromise(ctx, db, small, first, now), keys.ErrEnded)
	// A key that is only waiting ends alone.
	require.NoError(t, keys.Prepare(ctx, db, small, "ES256", now))
	require.NoError(t, keys.Retire(ctx, db, small, kids(t, db, "ES256", "pending")[0], now))
	require.Empty(t, kids(t, db, "ES256", "pending"))
	require.Equal(t, next, kids(t, db, "ES256", "active"))
}

func TestACompromisedKeyVerifiesNothing(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		k, err := keys.Open(ctx, db, small)
		require.NoError(t, err)
		for _, waiting := range []bool{false, true} {
			token, lost := sign(t, k, "EdDSA"), kids(t, db, "EdDSA", "active")[0]
			if waiting {
				require.NoError(t, keys.Prepare(ctx, db, small, "EdDSA", storage.Now()))
			}
			next := kids(t, db, "EdDSA", "pending")
			require.NoError(t, keys.Compromise(ctx, db, small, lost, storage.Now()))
			require.NoError(t, k.Refresh(ctx))
			require.NotContains(t, string(k.JWKS()), lost)
			require.ErrorIs(t, k.Verify(token, "JWT", &map[string]string{}), keys.ErrToken)
			require.NoError(t, k.Verify(sign(t, k, "EdDSA"), "JWT", &map[string]string{}), "another signs at once")
			require.Len(t, kids(t, db, "EdDSA", "active"), 1)
			if waiting {
				require.Equal(t, next, kids(t, db, "EdDSA", "active"), "the one that relying parties may know")
			}
		}
		rows, err := db.SigningKeys(ctx)
		require.NoError(t, err)
		for _, r := range rows {
			require.Equal(t, r.State == "compromised", len(r.Private) == 0)
		}
		require.NoError(t, keys.Rotate(ctx, db, small, storage.Now().Add(2*day)))
		require.Empty(t, kids(t, db, "EdDSA", "compromised"))
	})
}

// Each change has its row in the audit trail, and says on whose behalf.
func TestChangesOfKeysAreAudited(t *testing.T) {
	ctx, db := storage.WithActor(context.Background(), storage.System), storagetest.SQLite(t)
	_, err := keys.Open(ctx, db, small)
	require.NoError(t, err)
	start, first := storage.Now(), kids(t, db, "ES256", "active")[0]
	require.NoError(t, keys.Rotate(ctx, db, small, start.Add(29*day)))
	next := kids(t, db, "ES256", "pending")[0]
	require.NoError(t, keys.Rotate(ctx, db, small, start.Add(30*day)))
	require.NoError(t, keys.Rotate(ctx, db, small, start.Add(33*day)))
	require.NoError(t, keys.Compromise(storage.WithActor(ctx, storage.Operator), db, small, next, start.Add(33*day)))
	events, err := db.AuditOf(ctx, "", 100)
	require.NoError(t, err)
	got := map[string][]string{}
	for _, e := range events {
		got[e.Object] = append([]string{e.Event + " by " + e.Actor}, got[e.Object]...)
	}
	require.ElementsMatch(t, []string{"key.made by system", "key.retired by system", "key.deleted by system"}, got["key:"+first])
	require.ElementsMatch(t, []string{"key.made by system", "key.activated by system", "key.compromised by operator"}, got["key:"+next])
}

// many calls do fifty times at once. Each must succeed, or else lose.
func many(t *testing.T, do func() error, lost ...error) {
	t.Helper()
	var all sync.WaitGroup
	gate := make(chan bool)
	for range 50 {
		all.Go(func() {
			<-gate
			err := do()
			if err != nil && !slices.ContainsFunc(lost, func(l error) bool { return errors.Is(err, l) }) {
				t.Error(err)
			}
		})
	}
	close(gate)
	all.Wait()
}

func TestManyAtOnceAreOne(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		_, err := keys.Open(ctx, db, small)
		require.NoError(t, err)
		start := storage.Now()
		one := func(pending int) {
			t.Helper()
			require.Len(t, kids(t, db, "EdDSA", "active"), 1)
			require.Len(t, kids(t, db, "EdDSA", "pending"), pending)
		}
		many(t, func() error { return keys.Prepare(ctx, db, small, "EdDSA", start) })
		one(1)
		next := kids(t, db, "EdDSA", "pending")
		many(t, func() error { return keys.Rotate(ctx, db, small, start.Add(day)) })
		one(0)
		require.Equal(t, next, kids(t, db, "EdDSA", "active"))
		require.Len(t, kids(t, db, "EdDSA", "retired"), 1)
		many(t, func() error { return keys.Rotate(ctx, db, small, start.Add(3*day)) })
		require.Empty(t, kids(t, db, "EdDSA", "retired"))
		lost := kids(t, db, "EdDSA", "active")[0]
		many(t, func() error { return keys.Compromise(ctx, db, small, lost, start) }, storage.ErrSpent, keys.ErrEnded)
		one(0)
		require.Equal(t, []string{lost}, kids(t, db, "EdDSA", "compromised"))
		many(t, func() error { return keys.Replace(ctx, db, small, "EdDSA", start) }, storage.ErrSpent)
		one(0)
		// Everything at once.
		many(t, func() error {
			return errors.Join(keys.Prepare(ctx, db, small, "EdDSA", start), keys.Replace(ctx, db, small, "EdDSA", start), keys.Prepare(ctx, db, small, "EdDSA", start.Add(day)))
		}, storage.ErrSpent, storage.ErrConflict)
		require.Len(t, kids(t, db, "EdDSA", "active"), 1)
		require.LessOrEqual(t, len(kids(t, db, "EdDSA", "pending")), 1)
	})
}

// A running replica signs with a key that was activated elsewhere within 30 s,
// and publishes it.
func TestARunningReplicaPicksAKeyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		db := storagetest.SQLite(t)
		k, err := keys.Open(ctx, db, small)
		require.NoError(t, err)
		go k.Run(ctx)
		time.Sleep(time.Second)
		require.NoError(t, keys.Replace(ctx, db, small, "ES256", storage.Now()))
		next := kids(t, db, "ES256", "active")[0]
		old := sign(t, k, "ES256")
		require.NotEqual(t, next, kidOf(t, old))
		time.Sleep(30 * time.Second)
		synctest.Wait()
		require.Equal(t, next, kidOf(t, sign(t, k, "ES256")))
		require.Contains(t, string(k.JWKS()), next)
		require.NoError(t, k.Verify(old, "JWT", &map[string]string{}), "what the retired key signed is good")
		stop()
		synctest.Wait()
	})
}

// A replica that cannot read the keys stops signing before anybody can have
// forgotten the one it would sign with.
func TestAReplicaDoesNotSignWithKeysReadLongAgo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, err := keys.Open(t.Context(), storagetest.SQLite(t), small)
		require.NoError(t, err)
		time.Sleep(5*time.Minute - time.Second)
		sign(t, k, "ES256")
		time.Sleep(time.Second)
		require.False(t, k.Fresh())
		_, err = k.Sign("ES256", "JWT", map[string]string{})
		require.ErrorIs(t, err, keys.ErrNoKey)
	})
}

func kidOf(t testing.TB, token string) string {
	t.Helper()
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.PS256, jose.EdDSA})
	require.NoError(t, err)
	return jws.Signatures[0].Protected.KeyID
}

// A relyingParty keeps the JWK Set for some time, and does not ask again when it
// meets a kid it does not know.
type relyingParty struct {
	keeps time.Duration
	read  time.Time
	set   jose.JSONWebKeySet
}

func (p *relyingParty) fetch(t *testing.T, from *keys.Keys) {
	if !p.read.IsZero() && time.Since(p.read) < p.keeps {
		return
	}
	p.read, p.set = time.Now(), jose.JSONWebKeySet{}
	require.NoError(t, json.Unmarshal(from.JWKS(), &p.set))
}

func (p *relyingParty) trust(token string) error {
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.PS256, jose.EdDSA})
	if err != nil {
		return err
	}
	h := jws.Signatures[0].Protected
	found := p.set.Key(h.KeyID)
	if len(found) != 1 || found[0].Algorithm != h.Algorithm {
		return fmt.Errorf("a party that keeps keys for %s does not know the %s key %s", p.keeps, h.Algorithm, h.KeyID)
	}
	_, err = jws.Verify(found[0])
	return err
}

// Eighty days, with two rotations of the schedule, one of them late, and one
// that an operator wanted. Two replicas sign: one reads the keys right after
// the hourly task, one right before, so that it goes on with those that were
// replaced for as long as it may. The relying parties read what the late one
// publishes, and a third what is newest, for tokens that are hours old.
func TestNoRelyingPartyMeetsAnUnknownKid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, db := t.Context(), storagetest.SQLite(t)
		early, err := keys.Open(ctx, db, small)
		require.NoError(t, err)
		late, err := keys.Open(ctx, db, small)
		require.NoError(t, err)
		parties := []*relyingParty{{keeps: 5 * time.Minute}, {keeps: 12 * time.Hour}}
		start, signers := time.Now(), map[string]bool{}
		var alive []string // signed since the task ran last
		for at := time.Duration(0); at < 80*day; at += 3 * time.Hour {
			time.Sleep(time.Until(start.Add(at)))
			require.NoError(t, late.Refresh(ctx))
			for _, p := range parties {
				p.fetch(t, late)
			}
			time.Sleep(time.Second)
			if stood := at > 68*day && at < 76*day; !stood {
				require.NoError(t, keys.Rotate(ctx, db, small, storage.Now()))
			}
			if at == 10*day {
				for _, alg := range keys.Algorithms {
					require.NoError(t, keys.Prepare(ctx, db, small, alg, storage.Now()))
				}
			}
			before := string(early.JWKS())
			require.NoError(t, early.Refresh(ctx))
			latest := &relyingParty{}
			latest.fetch(t, early)
			for _, p := range append(parties, latest) {
				for _, token := range alive {
					require.NoError(t, p.trust(token), "after %s", time.Since(start))
				}
			}
			alive = nil
			algs := keys.Algorithms
			if before == string(early.JWKS()) && at%day != 0 {
				algs = algs[:1] // the others take their time
			}
			for range 2 {
				for _, alg := range algs {
					for _, k := range []*keys.Keys{early, late} {
						token := sign(t, k, alg)
						alive = append(alive, token)
						signers[kidOf(t, token)] = true
						for _, p := range parties {
							require.NoError(t, p.trust(token), "after %s", time.Since(start))
						}
					}
				}
				time.Sleep(5*time.Minute - 3*time.Second)
			}
		}
		require.Len(t, signers, 4*len(keys.Algorithms), "how many keys signed")
	})
}
