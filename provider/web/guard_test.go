package web_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

func ok(http.ResponseWriter, *http.Request) {}

func TestEveryAnswerHasItsSecurityHeaders(t *testing.T) {
	s := site(t)
	router := s.Router()
	router.Path("/page").Methods("GET").HandlerFunc(ok)
	for _, path := range []string{"/page", "/nowhere", "/api/v1/nowhere"} {
		w := serve(web.Chain(s, router), httptest.NewRequest("GET", path, nil))
		for k, v := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
				"form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
			"X-Content-Type-Options":       "nosniff",
			"Referrer-Policy":              "strict-origin",
			"Cross-Origin-Opener-Policy":   "same-origin",
			"Cross-Origin-Resource-Policy": "same-origin",
			"Cache-Control":                "no-store",
			"Strict-Transport-Security":    "max-age=31536000; includeSubDomains",
		} {
			require.Equal(t, v, w.Header().Get(k), "%s of %s", k, path)
		}
	}
	// The way to a client may be walked in a window that the client's page opened.
	for path, want := range map[string]string{
		"/oauth2/auth": "", "/oauth2/auth/x": "", "/login": "", "/login/second": "", "/login/enrol/totp": "", "/register": "",
		"/verify-email": "", "/consent": "", "/oauth2/logout": "", "/logout": "",
		"/": "same-origin", "/account": "same-origin", "/account/labs": "same-origin", "/device": "same-origin", "/loginx": "same-origin",
	} {
		w := serve(web.Chain(s, router), httptest.NewRequest("GET", path, nil))
		require.Equal(t, want, w.Header().Get("Cross-Origin-Opener-Policy"), path)
	}
	s.Issuer = "http://localhost:8080"
	w := serve(web.Chain(s, router), httptest.NewRequest("GET", "/page", nil))
	require.Empty(t, w.Header().Get("Strict-Transport-Security"), "not over http")
}

func TestOtherSitesCannotPost(t *testing.T) {
	s := site(t)
	router := s.Router()
	for _, p := range []string{"/login", "/oauth2/token", "/api/v1/profile"} {
		router.Path(p).HandlerFunc(ok)
	}
	h := web.Chain(s, router)
	for _, c := range []struct {
		path, fetchSite, origin string
		want                    int
	}{
		{"/login", "same-origin", issuer, 200},
		{"/login", "none", "", 200},
		{"/login", "", "", 200}, // no browser
		{"/login", "", issuer, 200},
		{"/login", "cross-site", "https://evil.example", 403},
		{"/login", "same-site", "https://other.example", 403},
		{"/login", "cross-site", "null", 403},
		{"/login", "", "https://evil.example", 403},
		{"/login", "", "null", 403}, // no page of ours sends this: its Referrer-Policy is strict-origin
		{"/api/v1/profile", "cross-site", "https://evil.example", 403},
		{"/oauth2/token", "cross-site", "https://spa.example", 200},
	} {
		r := httptest.NewRequest("POST", c.path, nil)
		r.Host = "id.example"
		if c.fetchSite != "" {
			r.Header.Set("Sec-Fetch-Site", c.fetchSite)
		}
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		w := serve(h, r)
		require.Equal(t, c.want, w.Code, "%+v", c)
		if c.want == 403 && c.path == "/login" {
			require.Contains(t, w.Body.String(), s.Pages.Text("en", "error.denied.title"))
		}
		r = r.Clone(r.Context())
		r.Method = "GET"
		require.Equal(t, 200, serve(h, r).Code, "GET may come from anywhere: %+v", c)
	}
}

func TestUnknownPathsAndWrongMethods(t *testing.T) {
	s := site(t)
	router := s.Router()
	router.Path("/login").Methods("GET", "POST").HandlerFunc(ok)
	router.Path("/api/v1/profile").Methods("GET").HandlerFunc(ok)
	h := web.Chain(s, router)

	w := serve(h, httptest.NewRequest("GET", "/nowhere", nil))
	require.Equal(t, 404, w.Code)
	require.Contains(t, w.Body.String(), "<h1>")
	w = serve(h, httptest.NewRequest("GET", "/api/v1/nowhere", nil))
	require.Equal(t, 404, w.Code)
	require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
	w = serve(h, httptest.NewRequest("DELETE", "/login", nil))
	require.Equal(t, 405, w.Code)
	require.Equal(t, "GET, POST", w.Header().Get("Allow"))
	require.Contains(t, w.Body.String(), "<h1>")
	w = serve(h, httptest.NewRequest("POST", "/api/v1/profile", nil))
	require.Equal(t, 405, w.Code)
	require.Equal(t, "GET", w.Header().Get("Allow"))
}

func TestBodiesAreLimited(t *testing.T) {
	s := site(t)
	h := web.Chain(s, s.Page(func(w http.ResponseWriter, r *http.Request) error {
		_, err := web.Form(r)
		return err
	}))
	post := func(kind string, body io.Reader) int {
		r := httptest.NewRequest("POST", "/login", body)
		r.Header.Set("Content-Type", kind)
		return serve(h, r).Code
	}
	const form = "application/x-www-form-urlencoded"
	require.Equal(t, 200, post(form, strings.NewReader("a=b&c=")))
	require.Equal(t, 200, post(form+"; charset=UTF-8", strings.NewReader("a=b")))
	require.Equal(t, 415, post("multipart/form-data; boundary=x", strings.NewReader("--x--")))
	require.Equal(t, 415, post("application/json", strings.NewReader("{}")))
	require.Equal(t, 415, post("", strings.NewReader("a=b")))
	big := "a=" + strings.Repeat("x", 65<<10)
	require.Equal(t, 413, post(form, strings.NewReader(big)))
	require.Equal(t, 413, post(form, struct{ io.Reader }{strings.NewReader(big)}), "also when the length is not announced")
	require.Equal(t, 400, post(form, strings.NewReader("a=%zz")))
	require.Equal(t, 400, post(form, strings.NewReader("a=%00")))
	require.Equal(t, 400, post(form, strings.NewReader("a=%ff")))

	// Who asks says so once.
	twice := httptest.NewRequest("POST", "/login", strings.NewReader("a=b"))
	twice.Header.Set("Content-Type", form)
	twice.Header["Authorization"] = []string{"Basic eDp5", "Basic eDp6"}
	require.Equal(t, 400, serve(h, twice).Code)

	// No route parses multipart, not even one that would.
	parses := web.Chain(s, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { r.ParseMultipartForm(1) }))
	r := httptest.NewRequest("POST", "/oauth2/token", strings.NewReader("--x--"))
	r.Header.Set("Content-Type", "Multipart/Form-Data; boundary=x")
	require.Equal(t, 415, serve(parses, r).Code)
}

// RFC 9110, Section 5.3: a field that is no list is sent once.
func TestAHeaderThatSaysTwoThingsSaysNothing(t *testing.T) {
	h := web.Chain(site(t), http.HandlerFunc(ok))
	for _, name := range []string{"Authorization", "Content-Type", "Origin"} {
		r := httptest.NewRequest("POST", "/oauth2/token", nil)
		r.Header[name] = []string{"https://id.example"}
		require.Equal(t, 200, serve(h, r).Code)
		r.Header[name] = append(r.Header[name], "https://id.example")
		w := serve(h, r)
		require.Equal(t, 400, w.Code, name)
		require.Contains(t, w.Body.String(), name+": is there twice")
	}
}

func TestServerRefusesLargeHeaders(t *testing.T) {
	s := site(t)
	server := web.NewServer(web.Chain(s, http.HandlerFunc(ok)))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go server.Serve(l)
	defer server.Close()
	for size, want := range map[int]int{8 << 10: 200, 20 << 10: 431} {
		r, _ := http.NewRequest("GET", "http://"+l.Addr().String(), nil)
		r.Header.Set("Cookie", strings.Repeat("x", size))
		res, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		res.Body.Close()
		require.Equal(t, want, res.StatusCode)
	}
}

func TestOnlyTrustedProxiesAreBelieved(t *testing.T) {
	s := site(t)
	for _, c := range []struct{ remote, forwarded, sentID, ip string }{
		{"192.0.2.1:1", "198.51.100.9", "trace-0001", "192.0.2.1"},
		{"10.1.1.1:1", "198.51.100.9", "trace-0001", "198.51.100.9"},
		{"10.1.1.1:1", "6.6.6.6, 198.51.100.9, 10.2.2.2", "", "198.51.100.9"},
		{"10.1.1.1:1", "", "", "10.1.1.1"},
		{"10.1.1.1:1", "6.6.6.6, junk", "", "10.1.1.1"},
		{"10.1.1.1:1", "6.6.6.6, 203.0.113.7:51234", "", "203.0.113.7"}, // as some proxies write it
		{"10.1.1.1:1", "198.51.100.9:1, 10.2.2.2:8443", "", "198.51.100.9"},
		{"10.1.1.1:1", "[2001:db8::7]:51234", "", "2001:db8::7"},
		{"10.1.1.1:1", "[2001:db8::7]", "", "2001:db8::7"},
		{"10.1.1.1:1", "[::ffff:198.51.100.9]:1", "", "198.51.100.9"},
		{"10.1.1.1:1", "198.51.100.9:http", "", "10.1.1.1"},
		{"10.1.1.1:1", "198.51.100.9:70000", "", "10.1.1.1"},
		{"[::ffff:10.1.1.1]:1", "2001:db8::7%eth0", "", "2001:db8::7"},
		{"pipe", "198.51.100.9", "", ""},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.remote
		r.Header.Set("X-Forwarded-For", c.forwarded)
		r.Header.Set("X-Request-Id", c.sentID)
		w := serve(web.Chain(s, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			require.Equal(t, c.ip, web.ClientIP(r.Context()), "%+v", c)
			require.Equal(t, w.Header().Get("X-Request-Id"), web.RequestID(r.Context()))
		})), r)
		believed := c.sentID != "" && strings.HasPrefix(c.remote, "10.")
		require.Equal(t, believed, w.Header().Get("X-Request-Id") == c.sentID, "%+v", c)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "10.1.1.1:1"
	r.Header["X-Request-Id"] = []string{"<script>alert(1)</script>"}
	require.NotContains(t, serve(web.Chain(s, http.HandlerFunc(ok)), r).Header().Get("X-Request-Id"), "<")

	_, err := web.ParseProxies([]string{"10.0.0.0/8", "192.0.2.1", "fd00::/8"})
	require.NoError(t, err)
	_, err = web.ParseProxies([]string{"all"})
	require.Error(t, err)
}

func TestWhatATrustedProxyGarblesIsInTheLog(t *testing.T) {
	s := site(t)
	for said, warned := range map[string]bool{
		"": false, "198.51.100.9": false, "198.51.100.9:1": false, "junk, 198.51.100.9": false, // the sender's own claim
		"unknown": true, "198.51.100.9, ": true, "198.51.100.9, 10.2.2.2:http": true,
	} {
		lines := logged(t, func() {
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = "10.1.1.1:1"
			r.Header.Set("X-Forwarded-For", said)
			serve(web.Chain(s, http.HandlerFunc(ok)), r)
		})
		require.Len(t, lines, 1)
		line := lines[0]
		if warned {
			require.Equal(t, "WARN", line["level"], said)
			require.Equal(t, "unreadable", line["x_forwarded_for"], said)
			require.Equal(t, "10.1.1.1", line["ip"], said)
		} else {
			require.Equal(t, "INFO", line["level"], said)
			require.NotContains(t, line, "x_forwarded_for", said)
		}
	}
}

func FuzzForwarded(f *testing.F) {
	for _, said := range []string{"198.51.100.9", "203.0.113.7:1", "[2001:db8::7]:1", "[::1%eth0]", "unknown", ",,", "[", "[]:1"} {
		f.Add(said)
	}
	s := &web.Site{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	f.Fuzz(func(t *testing.T, said string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = "10.1.1.1:1"
		r.Header["X-Forwarded-For"] = []string{said}
		serve(web.Chain(s, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			ip, err := netip.ParseAddr(web.ClientIP(r.Context()))
			require.NoError(t, err)
			require.Empty(t, ip.Zone())
		})), r)
	})
}

func TestCookies(t *testing.T) {
	c := web.Cookie(issuer, "patauth", "v", 0)
	require.Equal(t, "__Host-patauth=v; Path=/; HttpOnly; Secure; SameSite=Lax", c.String())
	require.Equal(t, "patauth=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax", web.Cookie("http://localhost", "patauth", "", -1).String())

	r := httptest.NewRequest("GET", "/", nil)
	_, err := web.ReadCookie(r, issuer, "patauth")
	require.ErrorIs(t, err, http.ErrNoCookie)
	r.Header.Set("Cookie", "patauth=planted")
	_, err = web.ReadCookie(r, issuer, "patauth")
	require.ErrorIs(t, err, http.ErrNoCookie, "one without the prefix is nobody's")
	r.Header.Set("Cookie", "a=b; __Host-patauth=v")
	v, err := web.ReadCookie(r, issuer, "patauth")
	require.NoError(t, err)
	require.Equal(t, "v", v)
	r.Header.Set("Cookie", "__Host-patauth=v; __Host-patauth=w")
	_, err = web.ReadCookie(r, issuer, "patauth")
	require.ErrorIs(t, err, web.ErrInvalid, "two of one name: one was planted")
}

func TestPagesOfAFlowMayEndAtItsClient(t *testing.T) {
	s := site(t)
	s.DB = storagetest.SQLite(t)
	handle := s.DB.Handle(storage.NewAuthRequest("c", map[string][]string{
		"redirect_uri": {"https://portal.example:8443/cb?x=1"}, "ui_locales": {"fr de"},
	}))
	show := web.Chain(s, s.Page(func(w http.ResponseWriter, r *http.Request) error {
		if r.Method == "POST" {
			if _, err := web.Form(r); err != nil {
				return err
			}
		}
		return s.Render(w, r, 200, "message", web.Message{Title: "message.title", Text: "error.denied"})
	}))
	post := httptest.NewRequest("POST", "/login", strings.NewReader("request="+handle))
	post.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, r := range []*http.Request{httptest.NewRequest("GET", "/login?request="+handle, nil), post} {
		w := serve(show, r)
		require.NotContains(t, w.Header().Get("Content-Security-Policy"), "form-action")
		require.Contains(t, w.Header().Get("Content-Security-Policy"), "connect-src 'self'; frame-ancestors 'none';")
		require.Contains(t, w.Body.String(), `<html lang="de">`, "ui_locales")
	}
	device := s.DB.Handle(storage.NewAuthRequest("c", map[string][]string{"scope": {"openid"}}))
	for _, q := range []string{"", "?request=" + storage.NewID(), "?request=x", "?request=" + device} {
		w := serve(show, httptest.NewRequest("GET", "/login"+q, nil))
		require.Equal(t, 200, w.Code)
		require.Contains(t, w.Header().Get("Content-Security-Policy"), "form-action 'self';")
	}
}

func TestFramesAreOfTheNamedOriginsOnly(t *testing.T) {
	for want, uris := range map[string][]string{
		"":                              {},
		"; frame-src https://a.example": {"https://a.example/out?x=y", "https://a.example/other"},
		"; frame-src https://a.example https://b.example:8443": {"https://a.example/", "javascript:alert(1)", "data:text/html,x", "com.example.app:/out", "https://c.example;script-src *", "https://*.example/", "", "https://b.example:8443/"},
	} {
		s := site(t)
		w := serve(web.Chain(s, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { web.FrameSources(w, uris...) })), httptest.NewRequest("GET", "/", nil))
		csp := w.Header().Get("Content-Security-Policy")
		require.True(t, strings.HasSuffix(csp, "base-uri 'none'"+want), csp)
	}
}
