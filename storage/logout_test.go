package storage_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
	"github.com/pat-authenticate/patauth/tasks/queue"
)

// listener is a client that wants to be told of sign-outs; uri "" does not.
func listener(t *testing.T, db *storage.DB, uri string) storage.Client {
	t.Helper()
	c := storage.Client{Name: "Portal", Metadata: storage.ClientMetadata{BackchannelLogoutURI: uri}}
	require.NoError(t, db.CreateClient(t.Context(), &c))
	return c
}

// give stores a grant of s for c, with its code.
func give(ctx context.Context, db *storage.DB, c storage.Client, s storage.Session, change func(*storage.Grant)) (storage.Grant, error) {
	now := storage.Now()
	g := storage.Grant{ID: storage.NewID(), ClientID: c.ID, PatientID: s.PatientID, SessionID: s.ID, AuthTime: now, CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
	if change != nil {
		change(&g)
	}
	return g, db.CreateCode(ctx, g, storage.Code{Digest: storage.Digest(g.ID), GrantID: g.ID, RequestedAt: now, ExpiresAt: now.Add(time.Minute)})
}

// told lists whom the outbox promises to tell of a session, by client.
func told(t *testing.T, db *storage.DB, sessionID string) []string {
	t.Helper()
	rows, err := db.Unfulfilled(t.Context(), false, 10000)
	require.NoError(t, err)
	var out []string
	for _, o := range rows {
		var j queue.BackchannelLogout
		require.Equal(t, j.Kind(), o.Kind)
		require.NoError(t, json.Unmarshal([]byte(o.Payload), &j))
		require.Equal(t, j.Kind()+":"+j.Name(), o.Name, "one wish for each client and session")
		payload, err := json.Marshal(j)
		require.NoError(t, err)
		require.JSONEq(t, string(payload), o.Payload, "ids, and nothing else")
		if j.SessionID == sessionID {
			out = append(out, j.ClientID)
		}
	}
	slices.Sort(out)
	return out
}

func sorted(ids ...string) []string {
	slices.Sort(ids)
	return ids
}

// However a session ends, every client that listens and holds or held a grant of
// it is told, and nobody else (Back-Channel Logout 1.0, Section 2.3).
func TestEveryEndOfASessionIsTold(t *testing.T) {
	for _, row := range []struct {
		end   string
		do    func(context.Context, *storage.DB, storage.Session) error
		other bool // the patient's other session ends, too
	}{
		{"signed out, or ended by the patient", func(ctx context.Context, db *storage.DB, s storage.Session) error {
			return db.EndSession(ctx, s.PatientID, s.ID, storage.Now())
		}, false},
		{"all ended by the operator or a new password", func(ctx context.Context, db *storage.DB, s storage.Session) error {
			return db.EndSessions(ctx, s.PatientID, "", storage.Now())
		}, true},
		{"patient disabled", func(ctx context.Context, db *storage.DB, s storage.Session) error {
			return db.SetPatientDisabled(ctx, s.PatientID, true)
		}, true},
		{"expired", func(ctx context.Context, db *storage.DB, s storage.Session) error {
			_, err := db.ExpireSessions(ctx, s.ExpiresAt.Add(time.Hour), 10)
			return err
		}, true},
	} {
		t.Run(row.end, func(t *testing.T) {
			storagetest.Each(t, func(t *testing.T, db *storage.DB) {
				p := storage.Patient{Email: "ada@example.org"}
				require.NoError(t, db.CreatePatient(t.Context(), &p))
				s, _ := newSession(t, db, p.ID)
				second, _ := newSession(t, db, p.ID)
				portal, offline, revoked := listener(t, db, "https://a.example/"), listener(t, db, "https://b.example/"), listener(t, db, "https://c.example/")
				deaf, gone, stranger := listener(t, db, ""), listener(t, db, "https://d.example/"), listener(t, db, "https://e.example/")
				for _, c := range []storage.Client{portal, portal, deaf, gone} {
					_, err := give(t.Context(), db, c, s, nil)
					require.NoError(t, err)
				}
				_, err := give(t.Context(), db, offline, s, func(g *storage.Grant) { g.Offline = true })
				require.NoError(t, err)
				g, err := give(t.Context(), db, revoked, s, nil)
				require.NoError(t, err)
				require.NoError(t, db.RevokeGrant(t.Context(), g.ID, "asked", storage.Now()))
				require.NoError(t, db.DeleteClient(t.Context(), gone.ID, storage.Now()))
				_, err = give(t.Context(), db, stranger, second, nil)
				require.NoError(t, err)
				require.Empty(t, told(t, db, s.ID), "nothing has ended")

				require.NoError(t, row.do(t.Context(), db, s))
				require.Equal(t, sorted(portal.ID, offline.ID, revoked.ID), told(t, db, s.ID))
				if row.other {
					require.Equal(t, []string{stranger.ID}, told(t, db, second.ID))
				} else {
					require.Empty(t, told(t, db, second.ID))
				}
				clients, err := db.SessionClients(t.Context(), s.ID)
				require.NoError(t, err)
				var ids []string
				for _, c := range clients {
					ids = append(ids, c.ID)
				}
				require.Equal(t, sorted(portal.ID, offline.ID, revoked.ID, deaf.ID), ids)
			})
		})
	}
}

func TestATransactionThatFailsTellsNobody(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		s, _ := newSession(t, db, "p1")
		_, err := give(t.Context(), db, listener(t, db, "https://a.example/"), s, nil)
		require.NoError(t, err)
		boom := errors.New("boom")
		require.ErrorIs(t, db.Tx(t.Context(), func(ctx context.Context) error {
			require.NoError(t, db.EndSession(ctx, "p1", s.ID, storage.Now()))
			return boom
		}), boom)
		require.Empty(t, told(t, db, s.ID))
	})
}

func TestFiftySignOutsOfOneSessionAreOneWishForEachClient(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		s, _ := newSession(t, db, "p1")
		a, b := listener(t, db, "https://a.example/"), listener(t, db, "https://b.example/")
		for _, c := range []storage.Client{a, b, a} {
			_, err := give(t.Context(), db, c, s, nil)
			require.NoError(t, err)
		}
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				var err error
				switch i % 3 {
				case 0:
					err = db.EndSession(t.Context(), "p1", s.ID, storage.Now())
				case 1:
					err = db.EndSessions(t.Context(), "p1", "", storage.Now())
				case 2:
					_, err = db.ExpireSessions(t.Context(), s.ExpiresAt.Add(time.Second), 10)
				}
				if err != nil && !errors.Is(err, storage.ErrNotFound) {
					t.Error(err)
				}
			})
		}
		all.Wait()
		require.Equal(t, sorted(a.ID, b.ID), told(t, db, s.ID))
	})
}

// A code is issued at the moment the session ends: either its client is told, or
// it gets no code.
func TestNoCodeEscapesTheEndOfItsSession(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		c := listener(t, db, "https://a.example/")
		for range 25 {
			s, _ := newSession(t, db, "p1")
			var gave, ended error
			var both sync.WaitGroup
			both.Go(func() { _, gave = give(t.Context(), db, c, s, func(g *storage.Grant) { g.Offline = true }) })
			both.Go(func() { ended = db.EndSession(t.Context(), "p1", s.ID, storage.Now()) })
			both.Wait()
			require.NoError(t, ended)
			if gave == nil {
				require.Equal(t, []string{c.ID}, told(t, db, s.ID))
			} else {
				require.ErrorIs(t, gave, storage.ErrSpent)
				require.Empty(t, told(t, db, s.ID))
			}
		}
	})
}

func TestWhatClientsKnowOutlivesTheirGrants(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		s, _ := newSession(t, db, "p1")
		c := listener(t, db, "https://a.example/")
		short := func(g *storage.Grant) { g.ExpiresAt, g.Subject = storage.Now(), "pairwise" }
		_, err := give(t.Context(), db, c, s, short)
		require.NoError(t, err)
		later := storage.Now().Add(50 * time.Minute)
		_, err = db.DeleteExpired(t.Context(), "oauth_grant", later, 100)
		require.NoError(t, err)
		require.NoError(t, db.EndSession(t.Context(), "p1", s.ID, later))
		require.Equal(t, []string{c.ID}, told(t, db, s.ID), "the session was longer than the grant")
		_, err = db.DeleteExpired(t.Context(), "oauth_grant", later.Add(2*time.Hour), 100)
		require.NoError(t, err)
		g, err := db.SessionGrant(t.Context(), c.ID, s.ID)
		require.NoError(t, err)
		require.Equal(t, "pairwise", g.Sub(), "a logout token holds it")
		_, err = db.DeleteExpired(t.Context(), "oauth_grant", later.Add(25*time.Hour), 100)
		require.NoError(t, err)
		_, err = db.SessionGrant(t.Context(), c.ID, s.ID)
		require.ErrorIs(t, err, storage.ErrNotFound)
	})
}

func TestSessionsExpireInBatches(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		c := listener(t, db, "https://a.example/")
		var last storage.Session
		for range 5 {
			last, _ = newSession(t, db, "p1")
			_, err := give(t.Context(), db, c, last, nil)
			require.NoError(t, err)
		}
		for _, want := range []int{2, 4, 5, 5} {
			_, err := db.ExpireSessions(t.Context(), last.ExpiresAt.Add(time.Second), 2)
			require.NoError(t, err)
			rows, err := db.Unfulfilled(t.Context(), false, 100)
			require.NoError(t, err)
			require.Len(t, rows, want)
		}
	})
}

func TestTheOperatorDecidesWhatWasGivenUp(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := t.Context(), storage.Now()
		for _, id := range []string{"a", "b", "c"} {
			require.NoError(t, db.Wish(ctx, queue.DeadLetter{EventID: id}))
		}
		rows, err := db.ClaimOutbox(ctx, 10, now)
		require.NoError(t, err)
		require.Len(t, rows, 3)
		for _, o := range rows[:2] {
			_, err := db.TakeOutbox(ctx, o.ID, now, now)
			require.NoError(t, err)
			require.NoError(t, db.FailOutbox(ctx, o.ID, "timeout", now))
		}
		all, err := db.Unfulfilled(ctx, false, 10)
		require.NoError(t, err)
		require.Len(t, all, 3)
		failed, err := db.Unfulfilled(ctx, true, 10)
		require.NoError(t, err)
		require.Len(t, failed, 2)

		require.ErrorIs(t, db.RetryOutbox(ctx, rows[2].ID), storage.ErrNotFound, "it was not given up")
		require.ErrorIs(t, db.DeleteOutbox(ctx, rows[2].ID), storage.ErrNotFound)
		require.NoError(t, db.RetryOutbox(ctx, rows[0].ID))
		require.NoError(t, db.DeleteOutbox(ctx, rows[1].ID))
		require.ErrorIs(t, db.DeleteOutbox(ctx, rows[1].ID), storage.ErrNotFound)
		again, err := db.ClaimOutbox(ctx, 10, now)
		require.NoError(t, err)
		require.Len(t, again, 1)
		require.Equal(t, rows[0].ID, again[0].ID)
		require.Zero(t, again[0].Attempts, "counted from the start")

		// An attempt that was not made does not count.
		o, err := db.TakeOutbox(ctx, rows[0].ID, now, now.Add(time.Minute))
		require.NoError(t, err)
		require.NoError(t, db.PostponeOutbox(ctx, o))
		o, err = db.TakeOutbox(ctx, rows[0].ID, now, now.Add(time.Minute))
		require.NoError(t, err)
		require.Equal(t, 1, o.Attempts)
	})
}
