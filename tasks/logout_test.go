package tasks

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"
	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/provider/oauth"
	"github.com/pat-authenticate/patauth/provider/outbound"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
	"github.com/pat-authenticate/patauth/tasks/queue"
)

// site is a client's server: it collects logout tokens, or answers with answer.
type site struct {
	*httptest.Server
	client storage.Client
	answer atomic.Int32
	mu     sync.Mutex
	tokens []string
}

func newSite(t *testing.T, db *storage.DB) *site {
	t.Helper()
	s := &site{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status := s.answer.Load(); status != 0 {
			w.WriteHeader(int(status))
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.tokens = append(s.tokens, r.PostFormValue("logout_token"))
	}))
	t.Cleanup(s.Close)
	s.client = storage.Client{Name: "Portal", Metadata: storage.ClientMetadata{BackchannelLogoutURI: s.URL}}
	require.NoError(t, db.CreateClient(t.Context(), &s.client))
	return s
}

// told is how often the site was told.
func (s *site) told() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.tokens)
}

// sessionAt is a session of p that gave each site a grant.
func sessionAt(t *testing.T, db *storage.DB, p storage.Patient, sites ...*site) storage.Session {
	t.Helper()
	now := storage.Now()
	s := storage.Session{Digest: storage.Digest(storage.NewHandle("pas_")), PatientID: p.ID, Factors: storage.Factors{"pwd": now}, AuthTime: now, CreatedAt: now, LastSeenAt: now, ExpiresAt: now.Add(time.Hour)}
	require.NoError(t, db.CreateSession(t.Context(), &s))
	for _, at := range sites {
		g := storage.Grant{ID: storage.NewID(), ClientID: at.client.ID, PatientID: p.ID, SessionID: s.ID, AuthTime: now, CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
		require.NoError(t, db.CreateCode(t.Context(), g, storage.Code{Digest: storage.Digest(g.ID), GrantID: g.ID, RequestedAt: now, ExpiresAt: now.Add(time.Minute)}))
	}
	return s
}

// telling is a worker that tells clients on this machine.
func telling(t *testing.T, db *storage.DB, r Redis) *Worker {
	t.Helper()
	k, err := keys.Open(t.Context(), db, keys.Config{RSABits: 2048})
	require.NoError(t, err)
	b := &oauth.Backchannel{DB: db, Keys: k, Issuer: "https://id.example", Outbound: outbound.New(outbound.Config{
		Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})}
	w := worker(t, db, r, &postbox{})
	w.Logout = b.Tell
	return w
}

func embedded(t *testing.T) Redis {
	t.Helper()
	r, err := ParseRedis("redis://" + miniredis.RunT(t).Addr())
	require.NoError(t, err)
	return r
}

func settled(t *testing.T, db *storage.DB) {
	t.Helper()
	require.Eventually(t, func() bool {
		b, err := db.OutboxBacklog(context.Background(), storage.Now())
		return err == nil && b == storage.Backlog{}
	}, 20*time.Second, 20*time.Millisecond)
}

// From the end of a session, however it came, to the client's server.
func TestClientsAreToldOfEveryEnd(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, r := t.Context(), embedded(t)
		w := telling(t, db, r)
		run(t, w.Run, NewRelay(db, r).Run)
		at := newSite(t, db)
		n := 0
		for _, row := range []struct {
			end string
			do  func(storage.Session) error
		}{
			{"signed out", func(s storage.Session) error { return db.EndSession(ctx, s.PatientID, s.ID, storage.Now()) }},
			{"all ended", func(s storage.Session) error { return db.EndSessions(ctx, s.PatientID, "", storage.Now()) }},
			{"disabled", func(s storage.Session) error { return db.SetPatientDisabled(ctx, s.PatientID, true) }},
			{"expired", func(s storage.Session) error {
				_, err := db.ExpireSessions(ctx, s.ExpiresAt.Add(time.Second), batch)
				return err
			}},
		} {
			s := sessionAt(t, db, patient(t, db, "en"), at)
			began := time.Now()
			require.NoError(t, row.do(s))
			require.Less(t, time.Since(began), 2*time.Second, "nobody waits for a client")
			n++
			require.Eventually(t, func() bool { return at.told() == n }, 20*time.Second, 10*time.Millisecond, row.end)
			settled(t, db)
		}
	})
}

func TestAClientThatComesBackIsTold(t *testing.T) {
	db, r := storagetest.SQLite(t), embedded(t)
	run(t, telling(t, db, r).Run, NewRelay(db, r).Run)
	at := newSite(t, db)
	at.answer.Store(http.StatusServiceUnavailable)
	p := patient(t, db, "en")
	s := sessionAt(t, db, p, at)
	require.NoError(t, db.EndSession(t.Context(), p.ID, s.ID, storage.Now()))
	require.Eventually(t, func() bool {
		rows, err := db.Unfulfilled(context.Background(), false, 10)
		return err == nil && len(rows) == 1 && rows[0].Attempts > 0 && rows[0].Reason == "error"
	}, 10*time.Second, 10*time.Millisecond)
	at.answer.Store(0)
	require.Eventually(t, func() bool { return at.told() == 1 }, 20*time.Second, 10*time.Millisecond)
	settled(t, db)
}

// One client hangs for ten seconds, with many sign-outs to hear of; another hears
// of its own at once.
func TestAClientThatHangsDelaysNoOther(t *testing.T) {
	db, r := storagetest.SQLite(t), embedded(t)
	run(t, telling(t, db, r).Run, NewRelay(db, r).Run)
	release := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		select {
		case <-release:
		case <-time.After(10 * time.Second):
		}
	}))
	t.Cleanup(hanging.Close)
	t.Cleanup(func() { close(release) })
	slow, quick, p := newSite(t, db), newSite(t, db), patient(t, db, "en")
	slow.client.Metadata.BackchannelLogoutURI = hanging.URL
	require.NoError(t, db.UpdateClient(t.Context(), &slow.client))
	for range 40 {
		s := sessionAt(t, db, p, slow)
		require.NoError(t, db.EndSession(t.Context(), p.ID, s.ID, storage.Now()))
	}
	time.Sleep(200 * time.Millisecond) // they are at it
	s := sessionAt(t, db, p, quick)
	began := time.Now()
	require.NoError(t, db.EndSession(t.Context(), p.ID, s.ID, storage.Now()))
	require.Eventually(t, func() bool { return quick.told() == 1 }, 20*time.Second, 5*time.Millisecond)
	require.Less(t, time.Since(began), 3*time.Second)
}

func TestAClientThatRefusesIsNotAskedAgain(t *testing.T) {
	db := storagetest.SQLite(t)
	w := telling(t, db, noQueue(t))
	at, p := newSite(t, db), patient(t, db, "en")
	at.answer.Store(http.StatusBadRequest)
	s := sessionAt(t, db, p, at)
	_, task := promised(t, db, queue.BackchannelLogout{ClientID: at.client.ID, SessionID: s.ID})
	require.ErrorIs(t, w.handle(t.Context(), task), asynq.SkipRetry)
	failed, err := db.Unfulfilled(t.Context(), true, 10)
	require.NoError(t, err)
	require.Len(t, failed, 1)
	require.Equal(t, "refused", failed[0].Reason)
	require.Equal(t, 1, failed[0].Attempts)

	// The operator's word makes it a new wish.
	at.answer.Store(0)
	require.NoError(t, db.RetryOutbox(t.Context(), failed[0].ID))
	require.NoError(t, w.handle(t.Context(), task))
	require.Equal(t, 1, at.told())
	require.Equal(t, storage.Backlog{}, backlog(t, db))
}

func TestAClientThatNeverAnswersIsGivenUp(t *testing.T) {
	db := storagetest.SQLite(t)
	w := telling(t, db, noQueue(t))
	at, p := newSite(t, db), patient(t, db, "en")
	at.answer.Store(http.StatusInternalServerError)
	s := sessionAt(t, db, p, at)
	_, task := promised(t, db, queue.BackchannelLogout{ClientID: at.client.ID, SessionID: s.ID})
	for range maxRetry {
		require.NotErrorIs(t, w.handle(t.Context(), task), asynq.SkipRetry)
	}
	require.ErrorIs(t, w.handle(t.Context(), task), asynq.SkipRetry)
	require.Equal(t, storage.Backlog{Failed: 1}, backlog(t, db))
}

// An attempt that was not made, because the client is busy, does not count.
func TestABusyClientUsesUpNoRetry(t *testing.T) {
	db := storagetest.SQLite(t)
	w := worker(t, db, noQueue(t), &postbox{})
	w.Logout = func(context.Context, string, string) error { return queue.ErrBusy }
	_, task := promised(t, db, queue.BackchannelLogout{ClientID: "c", SessionID: "s"})
	for range 2 * maxRetry {
		err := w.handle(t.Context(), task)
		require.ErrorIs(t, err, queue.ErrBusy)
		require.True(t, elsewhere(err))
		require.Less(t, retryDelay(maxRetry, err, task), 5*time.Second)
	}
	w.Logout = func(context.Context, string, string) error { return errors.New("down") }
	require.Error(t, w.handle(t.Context(), task))
	rows, err := db.Unfulfilled(t.Context(), false, 10)
	require.NoError(t, err)
	require.Equal(t, 1, rows[0].Attempts)
}
