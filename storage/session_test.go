package storage_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// newSession stores a session of patientID and returns it with its handle.
func newSession(t *testing.T, db *storage.DB, patientID string) (storage.Session, string) {
	t.Helper()
	now, handle := storage.Now(), storage.NewHandle("pas_")
	s := storage.Session{
		Digest: storage.Digest(handle), PatientID: patientID, Factors: storage.Factors{"pwd": now},
		AuthTime: now, CreatedAt: now, LastSeenAt: now, ExpiresAt: now.Add(time.Hour), UserAgent: "Browser", IP: "192.0.2.1",
	}
	require.NoError(t, db.CreateSession(t.Context(), &s))
	return s, handle
}

func TestSessionIsFoundByItsHandleOnly(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		s, handle := newSession(t, db, "p1")
		found, err := db.SessionByDigest(t.Context(), storage.Digest(handle), storage.Now())
		require.NoError(t, err)
		require.True(t, s.Factors["pwd"].Equal(found.Factors["pwd"]))
		require.True(t, s.AuthTime.Equal(found.AuthTime), "to the microsecond")
		require.Equal(t, []string{s.ID, "p1", "Browser", "192.0.2.1"}, []string{found.ID, found.PatientID, found.UserAgent, found.IP})

		for _, unknown := range []string{"", s.ID, handle + "x"} {
			_, err = db.SessionByDigest(t.Context(), storage.Digest(unknown), storage.Now())
			require.ErrorIs(t, err, storage.ErrNotFound)
		}
		_, err = db.SessionByDigest(t.Context(), storage.Digest(handle), s.ExpiresAt)
		require.ErrorIs(t, err, storage.ErrNotFound, "over when its time is over")
	})
}

func TestOneOfManyRisesWins(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		s, old := newSession(t, db, "p1")
		const n = 50
		var wg sync.WaitGroup
		handles, errs := make([]string, n), make([]error, n)
		for i := range n {
			handles[i] = storage.NewHandle("pas_")
			wg.Go(func() {
				raised := s
				raised.Digest = storage.Digest(handles[i])
				raised.Factors = storage.Factors{"pwd": s.AuthTime, "otp": storage.Now()}
				raised.AuthTime = storage.Now()
				errs[i] = db.ReplaceSession(t.Context(), s.Digest, &raised)
			})
		}
		wg.Wait()
		_, err := db.SessionByDigest(t.Context(), storage.Digest(old), storage.Now())
		require.ErrorIs(t, err, storage.ErrNotFound, "the old handle is dead")
		won := 0
		for i := range n {
			found, err := db.SessionByDigest(t.Context(), storage.Digest(handles[i]), storage.Now())
			if errs[i] == nil {
				won++
				require.NoError(t, err)
				require.Equal(t, s.ID, found.ID, "the id stays")
				require.Contains(t, found.Factors, "otp")
				continue
			}
			require.ErrorIs(t, errs[i], storage.ErrSpent)
			require.ErrorIs(t, err, storage.ErrNotFound)
		}
		require.Equal(t, 1, won)
		events, err := db.AuditOf(t.Context(), "p1", 100)
		require.NoError(t, err)
		require.Len(t, events, 2, "started once, raised once")
	})
}

func TestEndedSessionsStayEnded(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		a, ha := newSession(t, db, "p1")
		b, _ := newSession(t, db, "p1")
		c, _ := newSession(t, db, "p1")
		other, ho := newSession(t, db, "p2")
		now := storage.Now()

		require.ErrorIs(t, db.EndSession(t.Context(), "p2", a.ID, now), storage.ErrNotFound, "nobody else's")
		require.NoError(t, db.EndSession(t.Context(), "p1", a.ID, now))
		require.ErrorIs(t, db.EndSession(t.Context(), "p1", a.ID, now), storage.ErrNotFound)
		_, err := db.SessionByDigest(t.Context(), storage.Digest(ha), now)
		require.ErrorIs(t, err, storage.ErrNotFound)
		raised := a
		raised.Digest = storage.Digest("x")
		require.ErrorIs(t, db.ReplaceSession(t.Context(), a.Digest, &raised), storage.ErrSpent, "an ended one does not rise")

		require.NoError(t, db.EndSessions(t.Context(), "p1", b.ID, now))
		live, err := db.SessionsOf(t.Context(), "p1")
		require.NoError(t, err)
		require.Len(t, live, 1)
		require.Equal(t, b.ID, live[0].ID)
		require.NotEqual(t, c.ID, live[0].ID)
		require.NoError(t, db.EndSessions(t.Context(), "p1", "", now))
		live, err = db.SessionsOf(t.Context(), "p1")
		require.NoError(t, err)
		require.Empty(t, live)
		_, err = db.SessionByDigest(t.Context(), storage.Digest(ho), now)
		require.NoError(t, err, "%s is untouched", other.ID)
	})
}

func TestEndingRollsBackWithItsTransaction(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		s, handle := newSession(t, db, "p1")
		boom := errors.New("boom")
		err := db.Tx(t.Context(), func(ctx context.Context) error {
			require.NoError(t, db.EndSession(ctx, "p1", s.ID, storage.Now()))
			return boom
		})
		require.ErrorIs(t, err, boom)
		_, err = db.SessionByDigest(t.Context(), storage.Digest(handle), storage.Now())
		require.NoError(t, err)
	})
}

func TestTouchingAndExpiring(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		s, handle := newSession(t, db, "p1")
		seen := func() time.Time {
			found, err := db.SessionByDigest(t.Context(), storage.Digest(handle), s.CreatedAt)
			require.NoError(t, err)
			return found.LastSeenAt
		}
		later := s.LastSeenAt.Add(10 * time.Minute)
		require.NoError(t, db.TouchSession(t.Context(), s.ID, s.LastSeenAt.Add(-time.Minute), later))
		require.True(t, s.LastSeenAt.Equal(seen()), "seen lately")
		require.NoError(t, db.TouchSession(t.Context(), s.ID, later.Add(-time.Minute), later))
		require.True(t, later.Equal(seen()))

		n, err := db.ExpireSessions(t.Context(), s.ExpiresAt.Add(-time.Second), 10)
		require.NoError(t, err)
		require.Zero(t, n)
		newSession(t, db, "p1")
		newSession(t, db, "p1")
		end := s.ExpiresAt.Add(time.Hour)
		for _, want := range []int{2, 1, 0} {
			n, err = db.ExpireSessions(t.Context(), end, 2)
			require.NoError(t, err)
			require.Equal(t, want, n, "two at a time")
		}
		n, err = db.DeleteExpired(t.Context(), "session", end.Add(31*24*time.Hour), 10)
		require.NoError(t, err)
		require.Equal(t, 3, n, "a month later they go")
	})
}
