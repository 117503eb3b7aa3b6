package web_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/templates"
)

const issuer = "https://id.example"

func site(t testing.TB) *web.Site {
	t.Helper()
	pages, err := templates.New("")
	require.NoError(t, err)
	return &web.Site{Issuer: issuer, Pages: pages, Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
}

// logged runs f and returns the log lines it made.
func logged(t *testing.T, f func()) []map[string]any {
	t.Helper()
	var b bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewJSONHandler(&b, nil)))
	defer slog.SetDefault(old)
	f()
	var out []map[string]any
	for _, line := range strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n") {
		if line == "" {
			continue
		}
		var m map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &m), "every line is one JSON object: %q", line)
		out = append(out, m)
	}
	return out
}

func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestEveryRowOnEveryFace(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("redeem code: %w", err) }
	for _, c := range []struct {
		err         error
		row         string
		status      int
		code        string
		oauthStatus int
	}{
		{wrap(web.ErrInvalid), "invalid", 400, "invalid_request", 400},
		{web.Invalid("redirect_uri", "not registered"), "invalid", 400, "invalid_request", 400},
		{wrap(web.ErrLogin), "login", 401, "login_required", 400},
		{wrap(web.ErrConsent), "consent", 401, "consent_required", 400},
		{wrap(web.ErrInteraction), "interaction", 401, "interaction_required", 400},
		{wrap(web.ErrDenied), "denied", 403, "access_denied", 400},
		{wrap(storage.ErrNotFound), "not_found", 404, "invalid_request", 400},
		{wrap(web.ErrMethod), "method", 405, "invalid_request", 405},
		{wrap(storage.ErrConflict), "conflict", 409, "invalid_request", 400},
		{wrap(storage.ErrSpent), "spent", 410, "invalid_grant", 400},
		{wrap(web.ErrTooLarge), "too_large", 413, "invalid_request", 413},
		{wrap(web.ErrUnsupportedMediaType), "unsupported_media_type", 415, "invalid_request", 415},
		{wrap(web.ErrSlowDown), "slow_down", 429, "", 429},
		{wrap(web.SlowDown(90 * time.Second)), "slow_down", 429, "", 429},
		{wrap(web.ErrUnavailable), "unavailable", 503, "", 503},
		{wrap(storage.ErrUnavailable), "unavailable", 503, "", 503},
		{errors.New("SELECT secret FROM patient: dial tcp db-7.internal"), "internal", 500, "server_error", 500},
	} {
		t.Run(c.err.Error(), func(t *testing.T) {
			s := site(t)
			fails := func(http.ResponseWriter, *http.Request) error { return c.err }
			get := func(h http.Handler) *httptest.ResponseRecorder {
				w := serve(web.Chain(s, h), httptest.NewRequest("GET", "/x", nil))
				require.NotContains(t, w.Body.String(), "db-7", "nothing of the cause is shown")
				require.Equal(t, c.status == 429 || c.status == 503, w.Header().Get("Retry-After") != "")
				return w
			}

			w := get(s.Page(fails))
			require.Equal(t, c.status, w.Code)
			require.Equal(t, "text/html; charset=utf-8", w.Header().Get("Content-Type"))
			require.Contains(t, w.Body.String(), s.Pages.Text("en", "error."+c.row))
			require.Contains(t, w.Body.String(), w.Header().Get("X-Request-Id"))

			w = get(s.Problem(fails))
			require.Equal(t, c.status, w.Code)
			require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
			var p web.Problem
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &p))
			require.Equal(t, issuer+"/problems/"+c.row, p.Type)
			require.Equal(t, c.status, p.Status)
			require.Equal(t, c.status == 401, w.Header().Get("WWW-Authenticate") != "")

			w = get(s.OAuth(fails))
			require.Equal(t, c.oauthStatus, w.Code)
			if c.code == "" {
				require.Empty(t, w.Body.String(), "429 and 503 are bare")
			} else {
				var e map[string]string
				require.NoError(t, json.Unmarshal(w.Body.Bytes(), &e))
				require.Equal(t, c.code, e["error"])
				require.NotEmpty(t, e["error_description"])
			}

			// The type of the problem can be read about.
			w = serve(web.Chain(s, s.Page(s.ProblemPage)), httptest.NewRequest("GET", "/problems/"+c.row, nil))
			require.Equal(t, http.StatusOK, w.Code)
			require.Contains(t, w.Body.String(), "<code>"+c.row+"</code>")
		})
	}
	w := serve(site(t).Page(site(t).ProblemPage), httptest.NewRequest("GET", "/problems/none", nil))
	require.Equal(t, http.StatusNotFound, w.Code)
}

func TestErrorsNameTheParameter(t *testing.T) {
	s := site(t)
	fails := func(http.ResponseWriter, *http.Request) error {
		return fmt.Errorf("authorize: %w", web.Invalid("redirect_uri", "not \"registered\" here"))
	}
	w := serve(s.Page(fails), httptest.NewRequest("GET", "/", nil))
	require.Contains(t, w.Body.String(), "redirect_uri")
	w = serve(s.Problem(fails), httptest.NewRequest("GET", "/", nil))
	require.Contains(t, w.Body.String(), `"parameter":"redirect_uri"`)
	w = serve(s.OAuth(fails), httptest.NewRequest("GET", "/", nil))
	require.JSONEq(t, `{"error":"invalid_request","error_description":"redirect_uri: not 'registered' here"}`, w.Body.String())
}

func TestSlowDownSaysForHowLong(t *testing.T) {
	s := site(t)
	w := serve(s.Page(func(http.ResponseWriter, *http.Request) error { return web.SlowDown(1500 * time.Millisecond) }), httptest.NewRequest("GET", "/", nil))
	require.Equal(t, "2", w.Header().Get("Retry-After"), "whole seconds, never too few")
}

func TestOneLinePerRequest(t *testing.T) {
	s := site(t)
	router := s.Router()
	router.Path("/login/{step}").Methods("POST").Handler(s.Page(func(w http.ResponseWriter, r *http.Request) error {
		web.Event(r.Context(), "auth.login.failed", "factor", "pwd")
		web.Note(r.Context(), "client_id", "c1\r\nfake=1 \x1b[31mred")
		return fmt.Errorf("check: %w", web.ErrDenied)
	}))
	lines := logged(t, func() {
		r := httptest.NewRequest("POST", "/login/secret-id?token=hush", strings.NewReader("password=hush"))
		r.Header.Set("User-Agent", "x\r\n{\"msg\":\"forged\"}")
		r.RemoteAddr = "192.0.2.7:4711"
		require.Equal(t, http.StatusForbidden, serve(web.Chain(s, router), r).Code)
	})
	require.Len(t, lines, 1)
	l := lines[0]
	require.Equal(t, "request", l["msg"])
	require.Equal(t, "WARN", l["level"])
	require.Equal(t, "POST", l["method"])
	require.Equal(t, "/login/{step}", l["route"], "the template, not the path")
	require.EqualValues(t, 403, l["status"])
	require.Equal(t, "auth.login.failed", l["event"])
	require.Equal(t, "pwd", l["factor"])
	require.Equal(t, "192.0.2.7", l["ip"])
	require.Equal(t, "c1\r\nfake=1 \x1b[31mred", l["client_id"], "kept as data, not as lines")
	require.Equal(t, "check: access denied", l["error"])
	require.NotEmpty(t, l["request_id"])
	require.Contains(t, l, "duration_ms")
	require.NotContains(t, fmt.Sprint(l), "hush")
}

// What was sent may come back in a cause, and is the sender's to choose.
func TestALogLineIsBounded(t *testing.T) {
	long := strings.Repeat("ü", 30<<10)
	lines := logged(t, func() {
		s := site(t)
		serve(web.Chain(s, s.Page(func(_ http.ResponseWriter, r *http.Request) error {
			web.Note(r.Context(), "x", long)
			web.Event(r.Context(), "y", "z", long)
			return errors.New(long)
		})), httptest.NewRequest("GET", "/", nil))
	})
	require.Len(t, lines, 1)
	for _, key := range []string{"x", "z", "error"} {
		require.Regexp(t, "^ü{256}…$", lines[0][key])
	}
}

func TestLogLineCannotBeForged(t *testing.T) {
	s := site(t)
	var b bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewJSONHandler(&b, nil)))
	defer slog.SetDefault(old)
	for _, evil := range []string{"a\r\nb", "a\n{\"level\":\"INFO\"}", "\x1b[2J\x1b]0;x\a", "\u2028\u2029\u0085", "\x00\x7f"} {
		serve(web.Chain(s, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			web.Note(r.Context(), "x", evil)
			web.Event(r.Context(), evil, "y", evil)
		})), httptest.NewRequest("GET", "/", nil))
	}
	require.Equal(t, 5, strings.Count(b.String(), "\n"))
	for _, c := range b.String() {
		require.True(t, c == '\n' || c >= 0x20, "control character %q", c)
	}

	// Nor does whoever sends a lot fill it.
	b.Reset()
	serve(web.Chain(s, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		web.Note(r.Context(), "x", strings.Repeat("ü", 60<<10))
	})), httptest.NewRequest("GET", "/", nil))
	require.Less(t, b.Len(), 2<<10)
	require.NotContains(t, b.String(), "\ufffd")
}

func TestPanicsAreAnsweredAndCounted(t *testing.T) {
	s := site(t)
	for name, h := range map[string]http.Handler{
		"page":    s.Page(func(http.ResponseWriter, *http.Request) error { panic("db-7") }),
		"problem": s.Problem(func(http.ResponseWriter, *http.Request) error { panic("db-7") }),
		"oauth":   s.OAuth(func(http.ResponseWriter, *http.Request) error { panic("db-7") }),
		"bare":    http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("db-7") }),
	} {
		t.Run(name, func(t *testing.T) {
			var w *httptest.ResponseRecorder
			lines := logged(t, func() { w = serve(web.Chain(s, h), httptest.NewRequest("GET", "/", nil)) })
			require.Equal(t, http.StatusInternalServerError, w.Code)
			require.NotContains(t, w.Body.String(), "db-7")
			require.Len(t, lines, 1)
			require.Equal(t, "panic: db-7", lines[0]["error"])
			require.Contains(t, lines[0]["stack"], "web_test.go")
		})
	}
	require.Panics(t, func() {
		serve(web.Chain(s, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })), httptest.NewRequest("GET", "/", nil))
	})
}

func TestErrorAfterTheAnswerBeganIsOnlyLogged(t *testing.T) {
	s := site(t)
	var w *httptest.ResponseRecorder
	lines := logged(t, func() {
		w = serve(web.Chain(s, s.Page(func(w http.ResponseWriter, _ *http.Request) error {
			io.WriteString(w, "half")
			return errors.New("too late")
		})), httptest.NewRequest("GET", "/", nil))
	})
	require.Equal(t, "half", w.Body.String())
	require.Equal(t, "too late", lines[0]["error"])
}

func TestRedirectStaysHere(t *testing.T) {
	for path, ok := range map[string]bool{
		"/account": true, "/oauth2/auth/X?y=z": true,
		"": false, "account": false, "//evil.example": false, "/\\evil.example": false, "https://evil.example": false, "/\r\nX: y": false, "/\t/evil.example": false,
	} {
		w := httptest.NewRecorder()
		err := web.Redirect(w, httptest.NewRequest("GET", "/", nil), path)
		if ok {
			require.NoError(t, err, path)
			require.Equal(t, http.StatusSeeOther, w.Code)
			require.Equal(t, path, w.Header().Get("Location"))
		} else {
			require.Error(t, err, path)
			require.Empty(t, w.Header().Get("Location"))
		}
	}
}

func TestLanguage(t *testing.T) {
	for _, c := range []struct{ wish, header, want string }{
		{"", "", "en"},
		{"", "de-CH, en;q=0.5", "de"},
		{"", "fr, de;q=0.8", "de"},
		{"", "fr", "en"},
		{"", ";;;", "en"},
		{"", strings.Repeat("de,", 1000), "en"},
		{"de", "en", "de"},
		{"fr de-AT en", "en", "de"},
		{"en-GB", "de", "en"},
		{"fr", "de", "de"},
		{"!! de", "en", "de"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept-Language", c.header)
		require.Equal(t, c.want, web.Lang(r.WithContext(web.WithLang(context.Background(), c.wish))), "%+v", c)
	}
	s := site(t)
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Accept-Language", "de")
	w := serve(s.Page(func(http.ResponseWriter, *http.Request) error { return web.ErrDenied }), r)
	require.Contains(t, w.Body.String(), `<html lang="de">`)
	require.Equal(t, "de", w.Header().Get("Content-Language"))
}

// counted is the value of a counter with exactly these labels.
func counted(t *testing.T, name string, labels map[string]string) float64 {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			have := map[string]string{}
			for _, l := range m.GetLabel() {
				have[l.GetName()] = l.GetValue()
			}
			if maps.Equal(have, labels) {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func TestRequestsAreCountedByTemplate(t *testing.T) {
	s := site(t)
	router := s.Router()
	router.Path("/things/{id}").HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	router.Path("/broken").HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("x") })
	h := web.Chain(s, router)
	panicsBefore := counted(t, "patauth_panics_total", map[string]string{"component": "http"})
	for i := range 20 {
		serve(h, httptest.NewRequest("GET", fmt.Sprintf("/things/%d", i), nil))
		serve(h, httptest.NewRequest("BREW", fmt.Sprintf("/nowhere/%d", i), nil))
	}
	serve(h, httptest.NewRequest("GET", "/broken", nil))
	require.EqualValues(t, 20, counted(t, "patauth_http_requests_total", map[string]string{"route": "/things/{id}", "method": "GET", "code": "200"}))
	require.EqualValues(t, 20, counted(t, "patauth_http_requests_total", map[string]string{"route": "none", "method": "OTHER", "code": "404"}))
	require.EqualValues(t, 1, counted(t, "patauth_panics_total", map[string]string{"component": "http"})-panicsBefore)
}
