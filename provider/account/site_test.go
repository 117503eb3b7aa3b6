package account

import (
	"encoding/hex"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
	"github.com/pat-authenticate/patauth/templates"
)

// place is the account behind the real chain, router and session.
type place struct {
	t   *testing.T
	db  *storage.DB
	url string
}

func newPlace(t *testing.T) *place {
	t.Helper()
	pages, err := templates.New("")
	require.NoError(t, err)
	var handler http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	db := storagetest.SQLite(t)
	site := &web.Site{Issuer: server.URL, Pages: pages, DB: db}
	sessions := &session.Sessions{DB: db, Site: site, Config: session.Defaults()}
	a := New(sessions)
	router := site.Router()
	for _, route := range []struct {
		method, path string
		h            web.Handler
	}{
		{"GET", "/account", a.GetOverview},
		{"GET", "/account/profile", a.GetProfile}, {"POST", "/account/profile", a.PostProfile},
		{"GET", "/account/labs", a.GetLabs}, {"POST", "/account/labs", a.PostLabs}, {"POST", "/account/labs/unlink", a.PostUnlink},
		{"GET", "/account/factors", a.GetFactors},
		{"GET", "/account/factors/{id}/remove", a.GetRemoveFactor}, {"POST", "/account/factors/{id}/remove", a.PostRemoveFactor},
		{"GET", "/account/sessions", a.GetSessions},
		{"POST", "/account/sessions/end-others", a.PostEndOthers}, {"POST", "/account/sessions/{id}/end", a.PostEndSession},
		{"GET", "/account/apps", a.GetApps}, {"POST", "/account/apps/{client}/revoke", a.PostRevokeApp},
	} {
		router.Handle(route.path, site.Page(route.h)).Methods(route.method)
	}
	handler = web.Chain(site, sessions.Middleware(router))
	return &place{t: t, db: db, url: server.URL}
}

// patient has an account with a password.
func (p *place) patient(email, locale string) storage.Patient {
	p.t.Helper()
	x := storage.Patient{Email: email, GivenName: "Ada", FamilyName: "Byron", BirthDate: "1975-12-10", Locale: locale}
	require.NoError(p.t, p.db.CreatePatient(p.t.Context(), &x))
	require.NoError(p.t, p.db.SetPassword(p.t.Context(), x.ID, "phc", storage.Now()))
	return x
}

// factor gives a patient a second factor.
func (p *place) factor(patient storage.Patient, kind, name string) storage.Credential {
	p.t.Helper()
	now := storage.Now()
	c := storage.Credential{PatientID: patient.ID, Kind: kind, Name: name, Secret: []byte("x"), LastUsedAt: &now}
	require.NoError(p.t, p.db.AddCredential(p.t.Context(), &c))
	return c
}

// browser keeps cookies and follows nothing.
type browser struct {
	*place
	client  *http.Client
	session storage.Session
}

// signedIn is a browser whose patient proved factors that long ago; none for
// nobody.
func (p *place) signedIn(patient storage.Patient, ago time.Duration, factors ...string) *browser {
	p.t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(p.t, err)
	b := &browser{place: p, client: &http.Client{
		Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if len(factors) == 0 {
		return b
	}
	now, handle := storage.Now(), storage.NewHandle("pas_")
	b.session = storage.Session{
		Digest: storage.Digest(handle), PatientID: patient.ID, Factors: storage.Factors{}, AuthTime: now.Add(-ago),
		CreatedAt: now.Add(-ago), LastSeenAt: now, ExpiresAt: now.Add(time.Hour), IP: "192.0.2.7",
		UserAgent: "Mozilla/5.0 (Windows NT 10.0; rv:140.0) Gecko/20100101 Firefox/140.0",
	}
	for _, f := range factors {
		b.session.Factors[f] = b.session.AuthTime
	}
	require.NoError(p.t, p.db.CreateSession(p.t.Context(), &b.session))
	u, err := url.Parse(p.url)
	require.NoError(p.t, err)
	jar.SetCookies(u, []*http.Cookie{{Name: web.SessionCookie, Value: handle}})
	return b
}

// page is an answer.
type page struct {
	t        *testing.T
	status   int
	location string
	header   http.Header
	body     string
}

func (b *browser) get(path string, accept ...string) page {
	b.t.Helper()
	r, err := http.NewRequest("GET", b.url+path, nil)
	require.NoError(b.t, err)
	r.Header.Set("Accept-Language", strings.Join(accept, ","))
	return b.do(r)
}

func (b *browser) post(path string, pairs ...string) page {
	b.t.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	if strings.HasPrefix(path, "/account/labs") && !form.Has("mark") {
		form.Set("mark", hex.EncodeToString(b.db.MAC("labs-page", []byte(b.session.PatientID)))) // as the page says
	}
	r, err := http.NewRequest("POST", b.url+path, strings.NewReader(form.Encode()))
	require.NoError(b.t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.do(r)
}

func (b *browser) do(r *http.Request) page {
	b.t.Helper()
	w, err := b.client.Do(r)
	require.NoError(b.t, err)
	defer w.Body.Close()
	body, err := io.ReadAll(w.Body)
	require.NoError(b.t, err)
	require.Equal(b.t, "no-store", w.Header.Get("Cache-Control"))
	return page{t: b.t, status: w.StatusCode, location: w.Header.Get("Location"), header: w.Header, body: html.UnescapeString(string(body))}
}

func (p page) is(status int, words ...string) page {
	p.t.Helper()
	require.Equal(p.t, status, p.status, p.body)
	for _, w := range words {
		require.Contains(p.t, p.body, w)
	}
	return p
}

func (p page) to(location string) page {
	p.t.Helper()
	require.Equal(p.t, http.StatusSeeOther, p.status, p.body)
	require.Equal(p.t, location, p.location)
	return p
}

// wished are the notices that wait for the patient.
func (p *place) wished() []string {
	p.t.Helper()
	rows, err := p.db.ClaimOutbox(p.t.Context(), 100, storage.Now())
	require.NoError(p.t, err)
	var out []string
	for _, row := range rows {
		out = append(out, row.Payload)
	}
	return out
}
