package session_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
	"github.com/pat-authenticate/patauth/templates"
)

// A browser keeps the cookies it is given, as a patient's does.
type browser struct {
	t       *testing.T
	h       http.Handler
	cookies map[string]string
}

func (b *browser) do(method, path string) *http.Response {
	b.t.Helper()
	r := httptest.NewRequest(method, path, nil)
	r.Header.Set("User-Agent", "Browser\x00 1.0")
	for k, v := range b.cookies {
		r.AddCookie(&http.Cookie{Name: k, Value: v})
	}
	w := httptest.NewRecorder()
	b.h.ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		} else {
			b.cookies[c.Name] = c.Value
		}
	}
	return w.Result()
}

func (b *browser) cookie() string { return b.cookies["__Host-patauth"] }

// room is a site with doors to every call of this package.
func room(t *testing.T, db *storage.DB) (*session.Sessions, func() *browser) {
	t.Helper()
	pages, err := templates.New("")
	require.NoError(t, err)
	s := &session.Sessions{DB: db, Site: &web.Site{Issuer: "https://id.example", Pages: pages}, Config: session.Defaults()}
	router := s.Site.Router()
	router.Use(s.Middleware)
	handle := func(path string, h web.Handler) { router.Path(path).Handler(s.Site.Page(h)) }
	show := func(w http.ResponseWriter, r *http.Request) error {
		if now, ok := session.From(r.Context()); ok {
			return web.JSON(w, 200, now.ID)
		}
		return web.JSON(w, 200, "nobody")
	}
	handle("/start/{patient}", func(w http.ResponseWriter, r *http.Request) error {
		return db.Tx(r.Context(), func(ctx context.Context) error {
			patientID := strings.TrimPrefix(r.URL.Path, "/start/")
			_, err := s.Start(ctx, w, r, patientID, proof(ctx, db, patientID, session.Password))
			return err
		})
	})
	handle("/raise", func(w http.ResponseWriter, r *http.Request) error {
		by := session.Proof{Factors: []string{session.TOTP}}
		if now, ok := session.From(r.Context()); ok {
			by = proof(r.Context(), db, now.PatientID, session.TOTP)
		}
		_, err := s.Raise(r.Context(), w, r, by)
		return err
	})
	handle("/end", func(w http.ResponseWriter, r *http.Request) error { return session.End(w, r, db, s.Site.Issuer) })
	handle("/who", show)
	handle("/account", s.Require(1, 0, show))
	handle("/account/factors", s.Require(2, 5*time.Minute, show))
	handle("/account/labs", s.Require(2, 0, show))
	h := web.Chain(s.Site, router)
	return s, func() *browser { return &browser{t: t, h: h, cookies: map[string]string{}} }
}

// patient has a password.
func patient(t *testing.T, db *storage.DB, email string) *storage.Patient {
	t.Helper()
	p := &storage.Patient{Email: email}
	require.NoError(t, db.CreatePatient(context.Background(), p))
	require.NoError(t, db.SetPassword(context.Background(), p.ID, "phc", storage.Now()))
	return p
}

// proof is that of the first credential of a patient.
func proof(ctx context.Context, db *storage.DB, patientID string, factors ...string) session.Proof {
	p := session.Proof{Factors: factors}
	if all, err := db.Credentials(ctx, patientID); err == nil && len(all) > 0 {
		p.Credential = all[0].ID
	}
	return p
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	var b bytes.Buffer
	_, err := b.ReadFrom(r.Body)
	require.NoError(t, err)
	return strings.Trim(b.String(), "\"\n")
}

func TestHandleIsNewAtEveryRiseAndTheOldOneIsDead(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		_, open := room(t, db)
		p := patient(t, db, "a@example.org")
		b := open()
		require.Equal(t, "nobody", body(t, b.do("GET", "/who")))
		require.Equal(t, 401, b.do("POST", "/raise").StatusCode, "nothing to raise")

		b.do("POST", "/start/"+p.ID)
		first, id := b.cookie(), body(t, b.do("GET", "/who"))
		require.Regexp(t, `^pas_[\w-]{43}$`, first)
		require.NotContains(t, first, p.ID)
		b.do("POST", "/raise")
		second := b.cookie()
		require.NotEqual(t, first, second)
		require.Equal(t, id, body(t, b.do("GET", "/who")), "the id stays")
		b.do("POST", "/start/"+p.ID)
		third := b.cookie()
		require.NotEqual(t, second, third)
		require.Equal(t, id, body(t, b.do("GET", "/who")), "signing in again goes on with the same session")

		for _, old := range []string{first, second} {
			thief := open()
			thief.cookies["__Host-patauth"] = old
			require.Equal(t, "nobody", body(t, thief.do("GET", "/who")))
		}
		live, err := db.SessionsOf(t.Context(), p.ID)
		require.NoError(t, err)
		require.Len(t, live, 1)
		require.NotContains(t, live[0].Factors, session.TOTP, "but proves everything again")
		require.Equal(t, "Browser 1.0", live[0].UserAgent)

		other := patient(t, db, "b@example.org")
		b.do("POST", "/start/"+other.ID)
		require.NotEqual(t, id, body(t, b.do("GET", "/who")), "somebody else is another session")
		live, err = db.SessionsOf(t.Context(), p.ID)
		require.NoError(t, err)
		require.Empty(t, live, "and the first one has ended")

		r := b.do("POST", "/end")
		require.Equal(t, `"cache", "storage"`, r.Header.Get("Clear-Site-Data"))
		require.Empty(t, b.cookie())
		require.Equal(t, 200, b.do("POST", "/end").StatusCode, "ending twice is harmless")
	})
}

func TestOneOfManyDoubleClicksRises(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		_, open := room(t, db)
		p := patient(t, db, "a@example.org")
		b := open()
		b.do("POST", "/start/"+p.ID)
		codes := make([]int, 50)
		var wg sync.WaitGroup
		for i := range codes {
			twin := open()
			twin.cookies["__Host-patauth"] = b.cookie()
			wg.Go(func() { codes[i] = twin.do("POST", "/raise").StatusCode })
		}
		wg.Wait()
		won := 0
		for _, c := range codes {
			if c == 200 {
				won++
				continue
			}
			require.Contains(t, []int{401, 410}, c, "spent, or too late to be anybody")
		}
		require.Equal(t, 1, won)
	})
}

func TestSessionsEndByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := storagetest.SQLite(t)
		_, open := room(t, db)
		p := patient(t, db, "a@example.org")
		b := open()
		b.do("POST", "/start/"+p.ID)
		id := body(t, b.do("GET", "/who"))

		time.Sleep(30*time.Minute - time.Second)
		require.Equal(t, id, body(t, b.do("GET", "/who")), "used within half an hour")
		time.Sleep(30*time.Minute - time.Second)
		require.Equal(t, id, body(t, b.do("GET", "/who")), "and again")
		time.Sleep(30 * time.Minute)
		require.Equal(t, "nobody", body(t, b.do("GET", "/who")), "idle too long")

		b.do("POST", "/start/"+p.ID)
		for range 12*4 - 1 {
			time.Sleep(15 * time.Minute)
			require.NotEqual(t, "nobody", body(t, b.do("GET", "/who")))
		}
		b.do("POST", "/raise")
		time.Sleep(15 * time.Minute)
		require.Equal(t, "nobody", body(t, b.do("GET", "/who")), "twelve hours, however much it is used or raised")
	})
}

func TestLastSeenIsWrittenOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := storagetest.SQLite(t)
		_, open := room(t, db)
		p := patient(t, db, "a@example.org")
		b := open()
		b.do("POST", "/start/"+p.ID)
		seen := func() time.Time {
			live, err := db.SessionsOf(t.Context(), p.ID)
			require.NoError(t, err)
			return live[0].LastSeenAt
		}
		start := seen()
		time.Sleep(59 * time.Second)
		b.do("GET", "/who")
		require.True(t, start.Equal(seen()))
		time.Sleep(time.Second)
		b.do("GET", "/who")
		require.Equal(t, time.Minute, seen().Sub(start))
	})
}

func TestDisabledPatientsAreNobody(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		_, open := room(t, db)
		p := patient(t, db, "a@example.org")
		b := open()
		b.do("POST", "/start/"+p.ID)
		require.NoError(t, db.SetPatientDisabled(t.Context(), p.ID, true))
		require.Equal(t, "nobody", body(t, b.do("GET", "/who")))
		require.NoError(t, db.SetPatientDisabled(t.Context(), p.ID, false))
		require.Equal(t, "nobody", body(t, b.do("GET", "/who")), "what ended stays ended")

		b = open()
		b.do("POST", "/start/no-such-patient")
		require.Equal(t, "nobody", body(t, b.do("GET", "/who")))
	})
}

func TestGuardSendsToWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := storagetest.SQLite(t)
		_, open := room(t, db)
		p := patient(t, db, "a@example.org")
		b := open()
		sent := func(path, to string) {
			t.Helper()
			r := b.do("GET", path)
			require.Equal(t, to, r.Header.Get("Location"))
			if to == "" {
				require.Equal(t, 200, r.StatusCode)
			} else {
				require.Equal(t, 303, r.StatusCode)
			}
		}
		sent("/account", "/login?to=account")
		sent("/account/labs", "/login?to=labs")
		sent("/account/factors", "/login?to=factors")
		b.do("POST", "/start/"+p.ID)
		sent("/account", "")
		sent("/account/labs", "/login/enrol?to=labs")
		now := storage.Now()
		require.NoError(t, db.AddCredential(t.Context(), &storage.Credential{PatientID: p.ID, Kind: storage.KindTOTP, ConfirmedAt: &now, Secret: []byte("x")}))
		sent("/account/labs", "/login/second?to=labs")
		b.do("POST", "/raise")
		sent("/account/labs", "")
		sent("/account/factors", "")
		time.Sleep(5*time.Minute + time.Second)
		sent("/account/labs", "")
		sent("/account/factors", "/login?to=factors")
	})
}

func TestSecondLooksForWhatIsNeeded(t *testing.T) {
	db := storagetest.SQLite(t)
	p := patient(t, db, "a@example.org")
	now := storage.Now()
	have := func(need session.Need) bool {
		ok, err := session.Second(t.Context(), db, p.ID, need)
		require.NoError(t, err)
		return ok
	}
	any, phishing := session.Need{Level: 2}, session.Need{Level: 2, Phishing: true}
	require.False(t, have(any))
	require.NoError(t, db.AddCredential(t.Context(), &storage.Credential{PatientID: p.ID, Kind: storage.KindTOTP, ConfirmedAt: &now, Secret: []byte("x")}))
	require.True(t, have(any))
	require.False(t, have(phishing), "a code can be phished")
	require.NoError(t, db.AddCredential(t.Context(), &storage.Credential{PatientID: p.ID, Kind: storage.KindPasskey, ExternalID: "aa", ConfirmedAt: &now, Secret: []byte("x")}))
	require.True(t, have(phishing))
}

func TestAnOutageSignsNobodyOut(t *testing.T) {
	db := storagetest.SQLite(t)
	_, open := room(t, db)
	p := patient(t, db, "a@example.org")
	b := open()
	b.do("POST", "/start/"+p.ID)
	require.NoError(t, db.Close())
	r := b.do("GET", "/who")
	require.GreaterOrEqual(t, r.StatusCode, 500)
	require.NotEmpty(t, b.cookie(), "the cookie stays")
	require.Equal(t, "nobody", body(t, open().do("GET", "/who")), "who has none is not held up")
}

func TestTwoCookiesAreRefused(t *testing.T) {
	db := storagetest.SQLite(t)
	_, open := room(t, db)
	r := httptest.NewRequest("GET", "/who", nil)
	r.Header.Set("Cookie", "__Host-patauth=a; __Host-patauth=b")
	w := httptest.NewRecorder()
	open().h.ServeHTTP(w, r)
	require.Equal(t, 400, w.Code)
}

func TestHandlesAreNeitherStoredNorLogged(t *testing.T) {
	db := storagetest.SQLite(t)
	_, open := room(t, db)
	p := patient(t, db, "a@example.org")
	var log bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewJSONHandler(&log, nil)))
	defer slog.SetDefault(old)
	b := open()
	b.do("POST", "/start/"+p.ID)
	b.do("GET", "/who")
	live, err := db.SessionsOf(t.Context(), p.ID)
	require.NoError(t, err)
	row, err := json.Marshal(live)
	require.NoError(t, err)
	require.NotContains(t, string(row), b.cookie())
	require.NotContains(t, log.String(), b.cookie())
	require.Contains(t, log.String(), live[0].ID)
}

func TestLimits(t *testing.T) {
	require.NoError(t, session.Defaults().Validate())
	for _, bad := range []session.Config{
		{}, {Idle: 61 * time.Minute, Absolute: 12 * time.Hour}, {Idle: 30 * time.Minute, Absolute: 25 * time.Hour}, {Idle: time.Hour, Absolute: time.Minute},
	} {
		require.Error(t, bad.Validate(), "%+v", bad)
	}
	var joined interface{ Unwrap() []error }
	require.True(t, errors.As(session.Config{}.Validate(), &joined), "all faults at once")
}
