package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/pat-authenticate/patauth/provider/outbound"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
	"github.com/pat-authenticate/patauth/tasks/queue"
)

// listener is a client's server that is told of sign-outs.
type listener struct {
	*httptest.Server
	mu      sync.Mutex
	answer  int
	headers []http.Header
	forms   []url.Values
}

func listen(t testing.TB, answer int) *listener {
	l := &listener{answer: answer}
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.headers, l.forms = append(l.headers, r.Header), append(l.forms, r.PostForm)
		w.WriteHeader(l.answer)
	}))
	t.Cleanup(l.Close)
	return l
}

func (l *listener) tokens() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, f := range l.forms {
		out = append(out, f.Get("logout_token"))
	}
	return out
}

func (h *house) backchannel() *Backchannel {
	return &Backchannel{DB: h.db, Keys: h.keys, Issuer: issuer, Outbound: outbound.New(outbound.Config{
		Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})}
}

// listening is a client of the house whose server is at uri, and that got a
// code in session s.
func (h *house) listening(t testing.TB, uri string, s storage.Session, change func(*storage.Client, *storage.Grant)) storage.Client {
	t.Helper()
	now := storage.Now()
	c := storage.Client{
		Name: "Listener", AuthMethods: storage.Words{"none"}, RedirectURIs: storage.Strings{callback}, GrantTypes: storage.Words{"authorization_code"},
		Scopes: Scopes, FirstParty: true, Metadata: storage.ClientMetadata{BackchannelLogoutURI: uri},
	}
	g := storage.Grant{ID: storage.NewID(), PatientID: s.PatientID, SessionID: s.ID, AuthTime: now, CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
	if change != nil {
		change(&c, &g)
	}
	require.NoError(t, h.db.CreateClient(context.Background(), &c))
	g.ClientID = c.ID
	require.NoError(t, h.db.CreateCode(context.Background(), g, storage.Code{Digest: storage.Digest(g.ID), GrantID: g.ID, RequestedAt: now, ExpiresAt: now.Add(time.Minute)}))
	return c
}

// read verifies a token with the published keys, as a client does.
func (h *house) read(t testing.TB, token string) (header, claims map[string]any) {
	t.Helper()
	var set jose.JSONWebKeySet
	require.NoError(t, json.Unmarshal(h.keys.JWKS(), &set))
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256})
	require.NoError(t, err)
	p := jws.Signatures[0].Protected
	keys := set.Key(p.KeyID)
	require.Len(t, keys, 1)
	payload, err := jws.Verify(keys[0])
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(payload, &claims))
	return map[string]any{"alg": p.Algorithm, "typ": p.ExtraHeaders[jose.HeaderType]}, claims
}

func TestALogoutTokenIsWhatTheSpecificationSays(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	s := h.browser(t).signIn("pwd")
	at := listen(t, http.StatusOK)
	public := h.listening(t, at.URL+"/bye?tenant=a", s, nil)
	pairwise := h.listening(t, at.URL, s, func(c *storage.Client, g *storage.Grant) { c.IDTokenAlg, g.Subject = "ES256", "known-as" })
	b := h.backchannel()
	for _, row := range []struct {
		client   storage.Client
		alg, sub string
	}{{public, "RS256", h.patient.ID}, {pairwise, "ES256", "known-as"}} {
		before := time.Now().Unix()
		require.NoError(t, b.Tell(t.Context(), row.client.ID, s.ID))
		tokens := at.tokens()
		require.Equal(t, url.Values{"logout_token": {tokens[len(tokens)-1]}}, at.forms[len(at.forms)-1])
		require.Equal(t, "application/x-www-form-urlencoded", at.headers[len(at.headers)-1].Get("Content-Type"))
		require.Empty(t, at.headers[len(at.headers)-1].Get("Cookie"))
		header, claims := h.read(t, tokens[len(tokens)-1])
		require.Equal(t, map[string]any{"alg": row.alg, "typ": "logout+jwt"}, header)
		iat, jti := claims["iat"].(float64), claims["jti"]
		require.GreaterOrEqual(t, int64(iat), before)
		require.LessOrEqual(t, int64(iat), time.Now().Unix())
		require.NotEmpty(t, jti)
		require.Equal(t, map[string]any{
			"iss": issuer, "aud": row.client.ID, "sub": row.sub, "sid": s.ID, "iat": iat, "exp": iat + 120, "jti": jti,
			"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
		}, claims, "these and no other: no nonce")
		_, err := readHint(h.keys, tokens[len(tokens)-1], issuer)
		require.Error(t, err, "a logout token is no ID token")
	}
	require.NoError(t, b.Tell(t.Context(), public.ID, s.ID))
	tokens := at.tokens()
	_, first := h.read(t, tokens[0])
	_, again := h.read(t, tokens[2])
	require.NotEqual(t, first["jti"], again["jti"], "an attempt has a token of its own")
}

// counted is how often the metric has counted an outcome.
func counted(t *testing.T, outcome string) float64 {
	t.Helper()
	all, err := prometheus.DefaultGatherer.Gather()
	require.NoError(t, err)
	for _, family := range all {
		for _, m := range family.Metric {
			if family.GetName() == "patauth_backchannel_logout_total" && m.Label[0].GetValue() == outcome {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func TestWhatAClientAnswersDecides(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	s := h.browser(t).signIn("pwd")
	for _, row := range []struct {
		answer  int
		outcome string
		again   bool
	}{
		{200, "ok", false}, {204, "ok", false}, {400, "refused", false},
		{201, "failed", true}, {302, "failed", true}, {401, "failed", true}, {404, "failed", true}, {429, "failed", true}, {500, "failed", true}, {503, "failed", true},
	} {
		c := h.listening(t, listen(t, row.answer).URL, s, nil)
		count := counted(t, row.outcome)
		err := h.backchannel().Tell(t.Context(), c.ID, s.ID)
		require.Equal(t, row.outcome == "ok", err == nil, "%d: %v", row.answer, err)
		require.Equal(t, row.outcome == "refused", errors.Is(err, queue.ErrRefused), row.answer)
		require.Equal(t, count+1, counted(t, row.outcome))
	}
	down := listen(t, 200)
	c := h.listening(t, down.URL, s, nil)
	down.Close()
	err := h.backchannel().Tell(t.Context(), c.ID, s.ID)
	require.ErrorIs(t, err, outbound.ErrFailed)
	require.NotErrorIs(t, err, queue.ErrRefused)
}

func TestWhoNeedNotBeToldIsNot(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	at := listen(t, 200)
	s, other := h.browser(t).signIn("pwd"), h.browser(t).signIn("pwd")
	silent, gone := h.listening(t, "", s, nil), h.listening(t, at.URL, s, nil)
	elsewhere := h.listening(t, at.URL, other, nil)
	require.NoError(t, h.db.DeleteClient(t.Context(), gone.ID, storage.Now()))
	for _, id := range []string{silent.ID, gone.ID, elsewhere.ID, "nobody"} {
		require.NoError(t, h.backchannel().Tell(t.Context(), id, s.ID))
	}
	require.Empty(t, at.tokens())
}

func TestAnAddressThatIsNotPublicIsNotTold(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	at := listen(t, 200)
	s := h.browser(t).signIn("pwd")
	c := h.listening(t, at.URL, s, nil)
	b := h.backchannel()
	b.Outbound = outbound.New(outbound.Config{})
	require.ErrorIs(t, b.Tell(t.Context(), c.ID, s.ID), outbound.ErrFailed)
	require.Empty(t, at.tokens())
}

// A client that does not answer has two callers at most, and three seconds.
func TestAClientThatHangsHoldsUpItselfOnly(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	s := h.browser(t).signIn("pwd")
	release, calls := make(chan struct{}), make(chan struct{}, 10)
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		calls <- struct{}{}
		<-release
	}))
	defer hanging.Close()
	defer close(release)
	slow, quick := h.listening(t, hanging.URL, s, nil), h.listening(t, listen(t, 200).URL, s, nil)
	b := h.backchannel()
	var all sync.WaitGroup
	defer all.Wait()
	for range callsPerClient {
		all.Go(func() {
			began := time.Now()
			if err := b.Tell(context.Background(), slow.ID, s.ID); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			if d := time.Since(began); d > 6*time.Second {
				t.Error("it waited for", d)
			}
		})
	}
	for range callsPerClient {
		<-calls
	}
	require.ErrorIs(t, b.Tell(t.Context(), slow.ID, s.ID), queue.ErrBusy)
	require.NoError(t, b.Tell(t.Context(), quick.ID, s.ID))
	all.Wait()
	require.Empty(t, b.busy)
}

// What a client was told of a session before is what its logout token says.
func TestALogoutTokenFitsTheIDToken(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	at := listen(t, 200)
	h.portal.Metadata.BackchannelLogoutURI = at.URL
	require.NoError(t, h.db.UpdateClient(t.Context(), &h.portal))
	b, verifier := h.browser(t), oauth2.GenerateVerifier()
	s := b.signIn("pwd")
	code := answer(t, b.get("/oauth2/auth?"+ask(h.portal, verifier, nil).Encode())).Get("code")
	_, body := h.post("/oauth2/token", h.portal, h.secret, redeem(code, verifier))
	_, id := h.read(t, body["id_token"].(string))
	require.NoError(t, h.backchannel().Tell(t.Context(), h.portal.ID, s.ID))
	_, out := h.read(t, at.tokens()[0])
	for _, claim := range []string{"iss", "sub", "aud", "sid"} {
		require.Equal(t, id[claim], out[claim], claim)
	}
}
