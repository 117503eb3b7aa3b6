package oauth

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
	"github.com/pat-authenticate/patauth/tasks/queue"
	"github.com/pat-authenticate/patauth/templates"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	os.Exit(m.Run())
}

const (
	issuer   = "https://id.example"
	callback = "https://portal.example/cb"
)

// house is a provider with a portal, a resource server and a patient.
type house struct {
	*OAuth
	http.Handler
	portal, public, server storage.Client
	secret                 string // of portal
	serverSecret           string
	patient                storage.Patient
}

// signingKeys are those that the first house has made, with their private parts
// unsealed. To make RSA keys takes longer than most tests do, so the next houses
// get the same.
var (
	signingKeys      []storage.SigningKey
	signingKeysMutex sync.Mutex
)

func openKeys(t testing.TB, db *storage.DB) *keys.Keys {
	t.Helper()
	ctx := context.Background()
	signingKeysMutex.Lock()
	defer signingKeysMutex.Unlock()
	for _, row := range signingKeys {
		row.Private = db.Seal("signing_key", "private", row.ID, row.Private)
		require.NoError(t, db.AddSigningKey(ctx, &row))
	}
	k, err := keys.Open(ctx, db, keys.Config{RSABits: 2048})
	require.NoError(t, err)
	if signingKeys == nil {
		rows, err := db.SigningKeys(ctx)
		require.NoError(t, err)
		for _, row := range rows {
			row.Private, err = db.Unseal("signing_key", "private", row.ID, row.Private)
			require.NoError(t, err)
			signingKeys = append(signingKeys, row)
		}
	}
	return k
}

func build(t testing.TB, db *storage.DB) *house {
	t.Helper()
	ctx := context.Background()
	pages, err := templates.New("")
	require.NoError(t, err)
	k := openKeys(t, db)
	site := &web.Site{Issuer: issuer, Pages: pages, DB: db}
	h := &house{OAuth: New(Config{DB: db, Keys: k, Site: site})}
	all := storage.Words{"authorization_code", "refresh_token", "client_credentials"}
	h.portal = storage.Client{
		Name: "Portal", AuthMethods: storage.Words{"client_secret_basic"}, RedirectURIs: storage.Strings{callback},
		PostLogoutRedirectURIs: storage.Strings{"https://portal.example/bye"}, GrantTypes: all, Scopes: append(Scopes, "results"),
		Audience: storage.Strings{"https://results.example"}, FirstParty: true,
	}
	h.secret = db.NewClientSecret(&h.portal)
	h.public = storage.Client{
		Name: "App", AuthMethods: storage.Words{"none"}, RedirectURIs: storage.Strings{callback}, GrantTypes: all[:2], Scopes: Scopes, FirstParty: true,
	}
	h.server = storage.Client{Name: "Results", AuthMethods: storage.Words{"client_secret_post"}, CanIntrospect: true}
	h.serverSecret = db.NewClientSecret(&h.server)
	for _, c := range []*storage.Client{&h.portal, &h.public, &h.server} {
		require.NoError(t, db.CreateClient(ctx, c))
	}
	h.patient = storage.Patient{Email: "ada@example.org", GivenName: "Ada", FamilyName: "Example", BirthDate: "1980-02-29", Locale: "en"}
	require.NoError(t, db.CreatePatient(ctx, &h.patient))

	r := site.Router()
	r.Handle("/oauth2/auth", site.Page(h.Authorize)).Methods("GET", "POST")
	r.Handle("/oauth2/auth/{id}", site.Page(h.Dispatch)).Methods("GET")
	r.Handle("/consent", site.Page(h.GetConsent)).Methods("GET")
	r.Handle("/consent", site.Page(h.PostConsent)).Methods("POST")
	r.Handle("/oauth2/logout", site.Page(h.EndSession)).Methods("GET", "POST")
	r.Handle("/logout", site.Page(h.GetLogout)).Methods("GET")
	r.Handle("/logout", site.Page(h.PostLogout)).Methods("POST")
	r.Handle("/oauth2/token", h.CrossOrigin(site.OAuth(h.Token))).Methods("POST", "OPTIONS")
	r.Handle("/oauth2/userinfo", h.CrossOrigin(site.OAuth(h.UserInfo))).Methods("GET", "POST", "OPTIONS")
	r.Handle("/oauth2/introspect", site.OAuth(h.Introspect)).Methods("POST")
	r.Handle("/oauth2/revoke", h.CrossOrigin(site.OAuth(h.Revoke))).Methods("POST", "OPTIONS")
	r.Handle("/oauth2/device", site.OAuth(h.Device)).Methods("POST")
	r.Handle("/device", site.Page(h.GetDevice)).Methods("GET")
	r.Handle("/device", site.Page(h.PostDevice)).Methods("POST")
	r.Handle("/device/{request}", site.Page(h.GetDeviceAnswer)).Methods("GET")
	r.Handle("/oauth2/register", site.OAuth(h.Register)).Methods("POST")
	r.Handle("/oauth2/register/{client}", site.OAuth(h.ReadRegistration)).Methods("GET")
	r.Handle("/oauth2/register/{client}", site.OAuth(h.ReplaceRegistration)).Methods("PUT")
	r.Handle("/oauth2/register/{client}", site.OAuth(h.DeleteRegistration)).Methods("DELETE")
	r.Handle("/.well-known/openid-configuration", h.Discovery())
	r.Handle("/.well-known/jwks.json", h.JWKS())
	sessions := &session.Sessions{DB: db, Site: site, Config: session.Defaults()}
	h.Handler = web.Chain(site, sessions.Middleware(r))
	return h
}

// browser is a patient's browser: it keeps cookies and follows redirects here.
type browser struct {
	t       testing.TB
	h       *house
	cookies map[string]string
}

func (h *house) browser(t testing.TB) *browser { return &browser{t, h, map[string]string{}} }

func (b *browser) do(method, target string, form url.Values) *httptest.ResponseRecorder {
	b.t.Helper()
	if method == http.MethodPost && target == "/consent" && !form.Has("mark") {
		// The form of the page, as it was shown to whoever is signed in now.
		s, err1 := b.h.db.SessionByDigest(context.Background(), storage.Digest(b.cookies[web.Cookie(issuer, web.SessionCookie, "", 0).Name]), storage.Now())
		a, err2 := b.h.db.OpenAuthRequest(context.Background(), form.Get("request"))
		if err1 == nil && err2 == nil {
			form.Set("mark", b.h.mark(&s, a))
		}
	}
	r := httptest.NewRequest(method, target, strings.NewReader(form.Encode()))
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for k, v := range b.cookies {
		r.AddCookie(&http.Cookie{Name: k, Value: v})
	}
	w := httptest.NewRecorder()
	b.h.ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		b.cookies[c.Name] = c.Value
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		}
	}
	return w
}

// get follows redirects until one leads to another site or a page answers.
func (b *browser) get(target string) *httptest.ResponseRecorder {
	b.t.Helper()
	for range 10 {
		w := b.do(http.MethodGet, target, nil)
		target = w.Header().Get("Location")
		if !strings.HasPrefix(target, "/") || strings.HasPrefix(target, "/login") || strings.HasPrefix(target, "/register") {
			return w
		}
	}
	b.t.Fatal("too many redirects")
	return nil
}

// signIn gives the browser a session that proves factors.
func (b *browser) signIn(factors ...string) storage.Session {
	b.t.Helper()
	now := storage.Now()
	handle := storage.NewHandle("pas_")
	s := storage.Session{
		Digest: storage.Digest(handle), PatientID: b.h.patient.ID, Factors: storage.Factors{},
		AuthTime: now, CreatedAt: now, LastSeenAt: now, ExpiresAt: now.Add(time.Hour),
	}
	for _, f := range factors {
		s.Factors[f] = now
	}
	require.NoError(b.t, b.h.db.CreateSession(context.Background(), &s))
	b.cookies[web.Cookie(issuer, web.SessionCookie, "", 0).Name] = handle
	return s
}

// request is a good authorization request of c, with changes: an empty value
// takes a parameter away.
func ask(c storage.Client, verifier string, change url.Values) url.Values {
	p := url.Values{
		"client_id": {c.ID}, "redirect_uri": {callback}, "response_type": {"code"}, "scope": {"openid offline_access"},
		"state": {"s t/a+te"}, "nonce": {"n"}, "code_challenge": {oauth2.S256ChallengeFromVerifier(verifier)}, "code_challenge_method": {"S256"},
	}
	for k, v := range change {
		p[k] = v
		if v[0] == "" {
			delete(p, k)
		}
	}
	return p
}

// answer is the query that the client's redirect URI is called with.
func answer(t testing.TB, w *httptest.ResponseRecorder) url.Values {
	t.Helper()
	u, err := url.Parse(w.Header().Get("Location"))
	require.NoError(t, err)
	require.Equal(t, http.StatusSeeOther, w.Code, w.Body)
	require.Equal(t, callback, u.Scheme+"://"+u.Host+u.Path)
	require.Equal(t, issuer, u.Query().Get("iss"), "RFC 9207, Section 2")
	return u.Query()
}

// code is a fresh code for c, and its verifier.
func (h *house) code(t testing.TB, c storage.Client, change url.Values) (string, string) {
	t.Helper()
	b, verifier := h.browser(t), oauth2.GenerateVerifier()
	b.signIn("pwd")
	code := answer(t, b.get("/oauth2/auth?"+ask(c, verifier, change).Encode())).Get("code")
	require.NotEmpty(t, code, "no code")
	return code, verifier
}

// post is a client's own request; secret "" sends the client_id in the body.
func (h *house) post(path string, c storage.Client, secret string, form url.Values) (int, map[string]any) {
	form = cloned(form)
	switch {
	case secret == "":
		form.Set("client_id", c.ID)
	case !c.AuthMethods.Has("client_secret_basic"):
		form.Set("client_id", c.ID)
		form.Set("client_secret", secret)
	}
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if secret != "" && c.AuthMethods.Has("client_secret_basic") {
		r.SetBasicAuth(url.QueryEscape(c.ID), url.QueryEscape(secret))
	}
	return h.send(r)
}

func (h *house) send(r *http.Request) (int, map[string]any) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var body map[string]any
	json.Unmarshal(w.Body.Bytes(), &body)
	return w.Code, body
}

func cloned(v url.Values) url.Values {
	out := url.Values{}
	for k, x := range v {
		out[k] = x
	}
	return out
}

func redeem(code, verifier string) url.Values {
	return url.Values{"grant_type": {"authorization_code"}, "code": {code}, "code_verifier": {verifier}, "redirect_uri": {callback}}
}

func refresh(token any) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token.(string)}}
}

func (h *house) introspection(t testing.TB, token any) map[string]any {
	t.Helper()
	status, body := h.post("/oauth2/introspect", h.server, h.serverSecret, url.Values{"token": {token.(string)}})
	require.Equal(t, http.StatusOK, status, body)
	return body
}

func (h *house) userinfo(token any) (int, map[string]any) {
	r := httptest.NewRequest(http.MethodGet, "/oauth2/userinfo", nil)
	r.Header.Set("Authorization", "Bearer "+token.(string))
	return h.send(r)
}

func TestFiftyRedeemOneCode(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		h := build(t, db)
		code, verifier := h.code(t, h.portal, nil)
		var mu sync.Mutex
		var good []map[string]any
		statuses := map[int]int{}
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				status, body := h.post("/oauth2/token", h.portal, h.secret, redeem(code, verifier))
				mu.Lock()
				defer mu.Unlock()
				statuses[status]++
				if status == http.StatusOK {
					good = append(good, body)
				} else if body["error"] != "invalid_grant" {
					t.Errorf("%d %v", status, body)
				}
			})
		}
		all.Wait()
		require.Equal(t, map[int]int{200: 1, 400: 49}, statuses)
		// RFC 6749, Section 4.1.2: the replays ended what the winner got.
		require.Equal(t, map[string]any{"active": false}, h.introspection(t, good[0]["access_token"]))
		status, body := h.post("/oauth2/token", h.portal, h.secret, refresh(good[0]["refresh_token"]))
		require.Equal(t, 400, status)
		require.Equal(t, "invalid_grant", body["error"])
	})
}

func TestFiftyRefreshWithOneToken(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		h := build(t, db)
		code, verifier := h.code(t, h.public, nil)
		status, first := h.post("/oauth2/token", h.public, "", redeem(code, verifier))
		require.Equal(t, 200, status, first)
		var mu sync.Mutex
		successors := map[any]int{}
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				status, body := h.post("/oauth2/token", h.public, "", refresh(first["refresh_token"]))
				mu.Lock()
				defer mu.Unlock()
				if status != http.StatusOK {
					t.Errorf("%d %v", status, body)
				}
				successors[body["refresh_token"]]++
			})
		}
		all.Wait()
		require.Len(t, successors, 1, "one chain, whoever asked")
		for next := range successors {
			status, third := h.post("/oauth2/token", h.public, "", refresh(next))
			require.Equal(t, 200, status, third)
			// Now the first is reuse, and the family dies (RFC 9700, Section 4.14.2).
			status, body := h.post("/oauth2/token", h.public, "", refresh(first["refresh_token"]))
			require.Equal(t, 400, status)
			require.Equal(t, "invalid_grant", body["error"])
			status, _ = h.post("/oauth2/token", h.public, "", refresh(third["refresh_token"]))
			require.Equal(t, 400, status)
			require.Equal(t, map[string]any{"active": false}, h.introspection(t, third["access_token"]))
		}
		wishes, err := h.db.ClaimOutbox(context.Background(), 10, storage.Now())
		require.NoError(t, err)
		require.Len(t, wishes, 1, "the patient is told once")
		require.Equal(t, queue.Notice{}.Kind(), wishes[0].Kind)
		require.Contains(t, wishes[0].Payload, "token_reused")
	})
}

// same reports whether two addresses lead to the same authorization request: its
// handle is another one after each press.
func (h *house) same(t testing.TB, one, other string) bool {
	t.Helper()
	i, j := strings.LastIndex(one, "/"), strings.LastIndex(other, "/")
	a, err := h.db.OpenAuthRequest(context.Background(), one[i+1:])
	require.NoError(t, err, one)
	b, err := h.db.OpenAuthRequest(context.Background(), other[j+1:])
	require.NoError(t, err, other)
	return one[:i] == other[:j] && a.ID == b.ID
}
