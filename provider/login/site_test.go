package login

import (
	"context"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
	"github.com/pat-authenticate/patauth/templates"
)

// place is the login room behind the real chain, router and session.
type place struct {
	t     *testing.T
	db    *storage.DB
	login *Login
	site  *web.Site
	url   string
}

func newPlace(t *testing.T, db *storage.DB) *place {
	t.Helper()
	pages, err := templates.New("")
	require.NoError(t, err)
	var handler http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	site := &web.Site{Issuer: strings.Replace(server.URL, "127.0.0.1", "localhost", 1), Pages: pages, DB: db, Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	sessions := &session.Sessions{DB: db, Site: site, Config: session.Defaults()}
	c := Defaults()
	c.Hash = HashConfig{MemoryKiB: 8, Iterations: 1, Lanes: 1, Parallel: 2}
	l, err := New(sessions, c)
	require.NoError(t, err)

	router := site.Router()
	for _, route := range []struct {
		method, path string
		h            web.Handler
	}{
		{"GET", "/login", l.GetLogin}, {"POST", "/login", l.PostLogin}, {"POST", "/login/passkey", l.PostPasskey},
		{"GET", "/login/second", l.GetSecond}, {"POST", "/login/second", l.PostSecond},
		{"GET", "/login/enrol", l.GetEnrol}, {"GET", "/login/enrol/{factor}", l.GetEnrolFactor}, {"POST", "/login/enrol/{factor}", l.PostEnrolFactor},
		{"GET", "/register", l.GetRegister}, {"POST", "/register", l.PostRegister},
		{"GET", "/verify-email", l.GetVerify}, {"POST", "/verify-email", l.PostVerify},
		{"GET", "/verify-email/sent", l.GetSent}, {"GET", "/verify-email/done", l.GetVerified},
		{"GET", "/verify-email/resend", l.GetResend}, {"POST", "/verify-email/resend", l.PostResend},
		{"GET", "/login/password", l.GetPassword}, {"POST", "/login/password", l.PostPassword},
		{"POST", "/signout", l.PostSignout},
	} {
		h := site.Page(route.h)
		if route.method == "POST" {
			h = sessions.Once(h)
		}
		router.Handle(route.path, h).Methods(route.method)
	}
	handler = web.Chain(site, sessions.Middleware(router))
	return &place{t: t, db: db, login: l, site: site, url: server.URL}
}

func newSQLitePlace(t *testing.T) *place { return newPlace(t, storagetest.SQLite(t)) }

// browser keeps cookies and follows nothing.
type browser struct {
	*place
	client *http.Client
}

func (p *place) browser() *browser {
	jar, err := cookiejar.New(nil)
	require.NoError(p.t, err)
	return &browser{place: p, client: &http.Client{
		Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// begin is the handle of an authorization request that this browser has begun.
func (b *browser) begin() string {
	b.t.Helper()
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/oauth2/auth", nil)
	a := storage.NewAuthRequest("portal", url.Values{"redirect_uri": {"https://portal.example/cb"}})
	a.Binding = b.site.Bind(w, r)
	u, err := url.Parse(b.url)
	require.NoError(b.t, err)
	b.client.Jar.SetCookies(u, w.Result().Cookies())
	return b.db.Handle(a)
}

// from is b, reaching us from an address.
func (b *browser) from(address string) *browser {
	b.client.Transport = via(address)
	return b
}

type via string

func (v via) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("X-Forwarded-For", string(v))
	return http.DefaultTransport.RoundTrip(r)
}

// page is an answer.
type page struct {
	t        *testing.T
	status   int
	location string
	header   http.Header
	body     string
}

func (b *browser) get(path string) page {
	b.t.Helper()
	r, err := b.client.Get(b.url + path)
	return b.page(r, err)
}

func (b *browser) post(path string, pairs ...string) page {
	b.t.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	r, err := b.client.PostForm(b.url+path, form)
	answer := b.page(r, err)
	// What is said of the form is said on a page of its own.
	if strings.HasPrefix(answer.location, "/verify-email/") || strings.Contains(answer.location, "problem=") {
		return b.get(answer.location)
	}
	return answer
}

func (b *browser) page(r *http.Response, err error) page {
	b.t.Helper()
	require.NoError(b.t, err)
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	require.NoError(b.t, err)
	return page{t: b.t, status: r.StatusCode, location: r.Header.Get("Location"), header: r.Header, body: string(body)}
}

func (p page) is(status int, words ...string) page {
	p.t.Helper()
	require.Equal(p.t, status, p.status, p.body)
	for _, w := range words {
		require.Contains(p.t, html.UnescapeString(p.body), w)
	}
	return p
}

func (p page) to(location string) page {
	p.t.Helper()
	require.Equal(p.t, http.StatusSeeOther, p.status, p.body)
	require.Equal(p.t, location, p.location)
	return p
}

// find is the first group of pattern in the page.
func (p page) find(pattern string) string {
	p.t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(p.body)
	require.NotNil(p.t, m, "%s is not in %s", pattern, p.body)
	return html.UnescapeString(m[1])
}

func (p page) challenge() string { return p.find(`name="challenge" value="([^"]*)"`) }
func (p page) options() string   { return p.find(`data-options="([^"]*)"`) }

const goodPassword = "blue tulip kettle moon"

// register fills in the form.
func (b *browser) register(email, password string) page {
	b.t.Helper()
	return b.post("/register", "email", email, "given-name", "Ada", "family-name", "Byron", "bday", "1975-12-10", "new-password", password)
}

// token is what the newest mail to email holds.
func (p *place) token(email string) string {
	p.t.Helper()
	patient, err := p.db.PatientByEmail(context.Background(), email)
	require.NoError(p.t, err)
	c, err := p.db.LatestChallenge(context.Background(), KindVerifyEmail, patient.ID)
	require.NoError(p.t, err)
	return p.db.MailedToken(c.ID)
}

// patient registers and verifies somebody.
func (p *place) patient(email string) storage.Patient {
	p.t.Helper()
	b := p.browser()
	b.register(email, goodPassword).is(200)
	b.post("/verify-email", "token", p.token(email)).is(200, "confirmed")
	found, err := p.db.PatientByEmail(context.Background(), email)
	require.NoError(p.t, err)
	return found
}

// signedIn is a browser that has given the password.
func (p *place) signedIn(email string) *browser {
	p.t.Helper()
	b := p.browser()
	b.post("/login", "email", email, "current-password", goodPassword).to("/account")
	return b
}

// session is the session of the browser.
func (b *browser) session() storage.Session {
	b.t.Helper()
	u, _ := url.Parse(b.url)
	for _, c := range b.client.Jar.Cookies(u) {
		if c.Name == web.SessionCookie {
			s, err := b.db.SessionByDigest(context.Background(), storage.Digest(c.Value), storage.Now())
			require.NoError(b.t, err)
			return s
		}
	}
	b.t.Fatal("no session")
	return storage.Session{}
}

// cookie is the value of a cookie of the browser.
func (b *browser) cookie(name string) string {
	b.t.Helper()
	u, _ := url.Parse(b.url)
	for _, c := range b.client.Jar.Cookies(u) {
		if c.Name == name {
			return c.Value
		}
	}
	b.t.Fatal("no cookie " + name)
	return ""
}

// request is one that the browser would make.
func (b *browser) request(path string) *http.Request {
	u, _ := url.Parse(b.url)
	r := httptest.NewRequest("GET", path, nil)
	for _, c := range b.client.Jar.Cookies(u) {
		r.AddCookie(c)
	}
	return r
}
