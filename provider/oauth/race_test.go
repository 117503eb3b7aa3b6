package oauth

import (
	"context"
	"net/http"
	"net/url"
	"sync"
	"testing"

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
