package oauth

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// Fifty requests are being answered while what they rest on is taken away: no grant is
// in force afterwards.
func TestWhatIsTakenAwayGivesNoGrant(t *testing.T) {
	for name, take := range map[string]func(context.Context, *house, storage.Session) error{
		"consent": func(ctx context.Context, h *house, s storage.Session) error {
			return h.db.RevokeConsent(ctx, s.PatientID, h.portal.ID, storage.Now())
		},
		"session": func(ctx context.Context, h *house, s storage.Session) error {
			return h.db.EndSession(ctx, s.PatientID, s.ID, storage.Now())
		},
		"client": func(ctx context.Context, h *house, _ storage.Session) error {
			return h.db.DeleteClient(ctx, h.portal.ID, storage.Now())
		},
	} {
		t.Run(name, func(t *testing.T) {
			storagetest.Each(t, func(t *testing.T, db *storage.DB) {
				h := build(t, db)
				h.change(t, &h.portal, func(c *storage.Client) { c.FirstParty = false })
				b := h.browser(t)
				s := b.signIn("pwd")
				ctx := context.Background()
				require.NoError(t, db.SaveConsent(ctx, s.PatientID, h.portal, storage.PlaceOf(callback), storage.Words{"openid"}, storage.Now()))
				b.do(http.MethodGet, "/oauth2/auth?"+ask(h.portal, oauth2.GenerateVerifier(), url.Values{"scope": {"openid"}}).Encode(), nil) // sets the cookie of the flow
				var mu sync.Mutex
				var codes []string
				var wg sync.WaitGroup
				for i := range 50 {
					tab := h.browser(t)
					for k, v := range b.cookies {
						tab.cookies[k] = v
					}
					wg.Go(func() {
						w := tab.get("/oauth2/auth?" + ask(h.portal, oauth2.GenerateVerifier(), url.Values{"scope": {"openid"}}).Encode())
						if u, err := url.Parse(w.Header().Get("Location")); err == nil && u.Query().Get("code") != "" {
							mu.Lock()
							codes = append(codes, u.Query().Get("code"))
							mu.Unlock()
						}
					})
					if i == 25 {
						wg.Go(func() { require.NoError(t, take(ctx, h, s)) })
					}
				}
				wg.Wait()
				for _, code := range codes {
					c, err := db.Code(ctx, storage.Digest(code))
					require.NoError(t, err)
					_, err = db.Grant(ctx, c.GrantID, storage.Now())
					require.ErrorIs(t, err, storage.ErrSpent)
				}
			})
		})
	}
}

// Fifty requests for tokens are being answered while what they need is taken from the
// client: what was spent when the change was made is all that is ever spent.
func TestWhatIsTakenFromAClientGivesNoToken(t *testing.T) {
	without := func(kind string) func(*storage.Client) {
		return func(c *storage.Client) {
			c.GrantTypes = slices.DeleteFunc(slices.Clone(c.GrantTypes), func(k string) bool { return k == kind })
		}
	}
	noOffline := func(c *storage.Client) { c.Scopes = storage.Words{"openid"} }
	noSecret := func(c *storage.Client) { c.Secrets.V = nil }
	for _, row := range []struct {
		kind, taken string
		take        func(*storage.Client)
		want        []any
	}{
		{"authorization_code", "grant type", without("authorization_code"), []any{400, "unauthorized_client"}},
		{"refresh_token", "grant type", without("refresh_token"), []any{400, "unauthorized_client"}},
		{"authorization_code", "redirect URI", func(c *storage.Client) { c.RedirectURIs = storage.Strings{callback + "/other"} }, []any{400, "invalid_grant"}},
		{"authorization_code", "scope", noOffline, []any{400, "invalid_scope"}},
		{"refresh_token", "scope", noOffline, []any{400, "invalid_scope"}},
		{"authorization_code", "secret", noSecret, []any{401, "invalid_client"}},
		{"refresh_token", "secret", noSecret, []any{401, "invalid_client"}},
	} {
		t.Run(row.kind+" "+row.taken, func(t *testing.T) {
			storagetest.Each(t, func(t *testing.T, db *storage.DB) {
				h := build(t, db)
				b, verifier := h.browser(t), oauth2.GenerateVerifier()
				b.signIn("pwd")
				forms := make([]url.Values, 50)
				for i := range forms {
					forms[i] = redeem(answer(t, b.get("/oauth2/auth?"+askFor(h.portal, verifier, nil))).Get("code"), verifier)
					if row.kind == "refresh_token" {
						status, body := h.post("/oauth2/token", h.portal, h.secret, forms[i])
						require.Equal(t, 200, status, body)
						forms[i] = refresh(body["refresh_token"])
					}
				}
				spent := func(ctx context.Context) (n int) {
					for _, form := range forms {
						var at *time.Time
						if row.kind == "refresh_token" {
							token, err := db.RefreshToken(ctx, storage.Digest(form.Get("refresh_token")))
							require.NoError(t, err)
							at = token.UsedAt
						} else {
							code, err := db.Code(ctx, storage.Digest(form.Get("code")))
							if !errors.Is(err, storage.ErrSpent) {
								require.NoError(t, err)
							}
							at = code.UsedAt
						}
						if at != nil {
							n++
						}
					}
					return n
				}
				var issued atomic.Int64
				before := 0
				var all sync.WaitGroup
				for i, form := range forms {
					all.Go(func() {
						status, body := h.post("/oauth2/token", h.portal, h.secret, form)
						if status == http.StatusOK {
							issued.Add(1)
						} else if got := []any{status, body["error"]}; !slices.Equal(got, row.want) {
							t.Error(got)
						}
					})
					if i != 10 {
						continue
					}
					all.Go(func() {
						require.NoError(t, db.Tx(t.Context(), func(ctx context.Context) error {
							_, err := db.ChangeClient(ctx, h.portal.ID, row.take)
							before = spent(ctx) // nobody else can hold the client now
							return err
						}))
					})
				}
				all.Wait()
				for _, form := range forms {
					status, body := h.post("/oauth2/token", h.portal, h.secret, form)
					require.Equal(t, row.want[0], status, body)
				}
				require.EqualValues(t, before, issued.Load())
				require.Equal(t, before, spent(t.Context()))
				t.Logf("%d of %d before the change", before, len(forms))
			})
		})
	}
}

// A page of consent answers for whom it was shown to.
func TestAConsentPageIsNotAnsweredForSomebodyElse(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	h.change(t, &h.portal, func(c *storage.Client) { c.FirstParty = false })
	b := h.browser(t)
	first := b.signIn("pwd")
	page := b.get("/oauth2/auth?" + ask(h.portal, oauth2.GenerateVerifier(), nil).Encode())
	request := asked(t, page)
	require.Contains(t, page.Body.String(), h.patient.Email, "it says whose account it is")
	require.Contains(t, page.Body.String(), `action="/signout"`)
	a, err := h.db.OpenAuthRequest(t.Context(), request)
	require.NoError(t, err)
	seen := h.mark(&first, a)
	require.Contains(t, page.Body.String(), seen)

	other := storage.Patient{Email: "bert@example.org"}
	require.NoError(t, h.db.CreatePatient(t.Context(), &other))
	h.patient = other
	b.signIn("pwd")
	w := b.do(http.MethodPost, "/consent", url.Values{"request": {request}, "decision": {"allow"}, "mark": {seen}})
	require.Equal(t, http.StatusSeeOther, w.Code)
	_, err = h.db.Consent(t.Context(), other.ID, h.portal.ID)
	require.ErrorIs(t, err, storage.ErrNotFound)
	require.Contains(t, b.get(w.Header().Get("Location")).Body.String(), "bert@example.org", "who is signed in is asked")
}

// The lab record is bound alike whether its scope or its claim was asked for.
func TestTheLabByClaimIsBoundAsByScope(t *testing.T) {
	g := storage.Grant{Scopes: storage.Words{"openid", "offline_access"}}
	g.Claims.V.UserInfo = []string{"email", "lab"}
	require.True(t, g.ShowsLab())
	require.False(t, storage.Grant{Scopes: storage.Words{"openid"}}.ShowsLab())
	require.Equal(t, []string{"email", "lab"}, open(g, g.Scopes, g.Claims.V.UserInfo))
	require.Empty(t, open(g, storage.Words{"openid"}, g.Claims.V.UserInfo), "narrowed")
}

// Clients of two sectors cannot tell that they have the same patient by the sid.
func TestPairwiseClientsKnowTheSessionByNamesOfTheirOwn(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	sid := func(sector string) (string, storage.Session) {
		h.change(t, &h.portal, func(c *storage.Client) {
			c.FirstParty, c.Metadata.SubjectType, c.Metadata.Sector = true, "pairwise", sector
		})
		b := h.browser(t)
		s := b.signIn("pwd")
		q := request{client: h.portal}
		f, err := h.factsOf(t.Context(), q, &s)
		require.NoError(t, err)
		g := q.grant(f, storage.Now())
		return g.SID(), s
	}
	one, s := sid("a.example")
	require.NotEqual(t, s.ID, one)
	again := storage.Grant{SessionID: s.ID}
	require.Equal(t, s.ID, again.SID(), "a grant of before keeps what its client was told")
	q := request{client: h.portal}
	q.client.Metadata.Sector = "b.example"
	f, err := h.factsOf(t.Context(), q, &s)
	require.NoError(t, err)
	require.NotEqual(t, one, q.grant(f, storage.Now()).SID())
}
