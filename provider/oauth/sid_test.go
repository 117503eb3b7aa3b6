package oauth

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// Two clients of two sectors share a session and no name of it: each hears its own sid
// wherever it hears one, and signs the patient out by it.
func TestASessionHasOneNamePerSector(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		h := build(t, db)
		at := listen(t, http.StatusOK)
		for sector, c := range map[string]*storage.Client{"a.example": &h.portal, "b.example": &h.public} {
			h.change(t, c, func(c *storage.Client) {
				c.Metadata.SubjectType, c.Metadata.Sector = "pairwise", sector
				c.Metadata.AccessTokenSignedResponseAlg = "ES256"
				c.Metadata.BackchannelLogoutURI, c.Metadata.FrontchannelLogoutURI = at.URL, "https://"+sector+"/out"
			})
		}
		for _, leaving := range []string{h.portal.ID, h.public.ID} {
			b, verifier := h.browser(t), oauth2.GenerateVerifier()
			s := b.signIn("pwd")
			sids, subs, hints := map[string]any{}, map[string]any{}, map[string]string{}
			for _, who := range []struct {
				client storage.Client
				secret string
			}{{h.portal, h.secret}, {h.public, ""}} {
				id := who.client.ID
				status, body := h.post("/oauth2/token", who.client, who.secret, redeem(answer(t, b.get("/oauth2/auth?"+askFor(who.client, verifier, nil))).Get("code"), verifier))
				require.Equal(t, 200, status, body)
				claims := claimsOf(t, body["id_token"])
				sids[id], subs[id] = claims["sid"], claims["sub"]
				require.Len(t, sids[id], 43)
				for _, token := range []any{body["access_token"], body["refresh_token"]} {
					require.Equal(t, sids[id], h.introspection(t, token)["sid"])
				}
				status, next := h.post("/oauth2/token", who.client, who.secret, refresh(body["refresh_token"]))
				require.Equal(t, 200, status, next)
				hints[id] = next["id_token"].(string)
				require.Equal(t, sids[id], claimsOf(t, hints[id])["sid"], "as before the refresh")
				require.Equal(t, sids[id], h.introspection(t, next["access_token"])["sid"])
				// RFC 9068, Section 2.2, has no sid; the session is not named otherwise either.
				jwt := claimsOf(t, body["access_token"])
				require.Equal(t, subs[id], jwt["sub"])
				require.NotContains(t, jwt, "sid")
				for _, claims := range []map[string]any{claims, jwt, claimsOf(t, hints[id]), h.introspection(t, next["access_token"])} {
					for name, value := range claims {
						require.NotEqual(t, s.ID, value, name)
						require.NotEqual(t, h.patient.ID, value, name)
					}
				}
			}
			require.NotEqual(t, sids[h.portal.ID], sids[h.public.ID])
			require.NotEqual(t, subs[h.portal.ID], subs[h.public.ID])

			w := b.do(http.MethodGet, "/oauth2/logout?"+url.Values{"id_token_hint": {hints[leaving]}}.Encode(), nil)
			require.Equal(t, 200, w.Code)
			require.NotContains(t, w.Body.String(), `action="/logout"`, "the hint is believed, nobody is asked")
			require.NotContains(t, w.Body.String(), s.ID)
			told := map[string]string{}
			for _, f := range regexp.MustCompile(`<iframe src="([^"]*)"`).FindAllStringSubmatch(w.Body.String(), -1) {
				u, err := url.Parse(html.UnescapeString(f[1]))
				require.NoError(t, err)
				told[u.Host] = u.Query().Get("sid")
			}
			require.Equal(t, map[string]string{"a.example": sids[h.portal.ID].(string), "b.example": sids[h.public.ID].(string)}, told)
			again := answer(t, b.get("/oauth2/auth?"+askFor(h.portal, verifier, url.Values{"prompt": {"none"}})))
			require.Equal(t, "login_required", again.Get("error"))
			for id := range sids {
				require.NoError(t, h.backchannel().Tell(t.Context(), id, s.ID))
				tokens := at.tokens()
				_, out := h.read(t, tokens[len(tokens)-1])
				require.Equal(t, []any{id, sids[id], subs[id]}, []any{out["aud"], out["sid"], out["sub"]})
			}
		}
	})
}
