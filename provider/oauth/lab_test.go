package oauth

import (
	"maps"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// linked makes a patient whose lab record is value, in the stead of the house's.
func (h *house) linked(t testing.TB, value string) storage.LabIdentity {
	t.Helper()
	ctx := t.Context()
	require.NoError(t, h.db.UpsertLabAuthority(ctx, storage.LabAuthority{ID: "lab1", Name: "Lab One", LinkKey: true, Active: true}))
	r := storage.LabIdentity{Authority: "lab1", Value: value, BirthDate: "1980-02-29", BirthPrecision: "day"}
	r.SetVersion("seen", "1")
	require.NoError(t, h.db.SaveLabIdentities(ctx, []*storage.LabIdentity{&r}))
	code, err := h.db.NewInvitation(ctx, r.ID, storage.Now().Add(time.Hour))
	require.NoError(t, err)
	h.patient = storage.Patient{Email: value + "@example.org", GivenName: "Ada", FamilyName: "Example", BirthDate: "1980-02-29", Locale: "en"}
	require.NoError(t, h.db.CreatePatient(ctx, &h.patient))
	_, err = h.db.RedeemInvitation(ctx, h.patient.ID, code, r.BirthDate, storage.Now())
	require.NoError(t, err)
	return r
}

// asksForLab are the ways to ask for the lab record.
var asksForLab = map[string]url.Values{
	"scope":          {"scope": {"openid lab"}},
	"userinfo claim": {"scope": {"openid"}, "claims": {`{"userinfo":{"lab":null}}`}},
	"ID token claim": {"scope": {"openid"}, "claims": {`{"id_token":{"lab":{"essential":true}}}`}},
}

// However the lab record is asked for, it needs a second factor, shows for ten minutes
// at a time, and ends with the record.
func TestTheLabRecordIsGuardedHoweverItIsAskedFor(t *testing.T) {
	ends := map[string]func(*storage.LabIdentity){
		"deleted":   func(r *storage.LabIdentity) { r.SetVersion("deleted", "2") },
		"suspended": func(r *storage.LabIdentity) { r.Hold = storage.ReasonConflict },
	}
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		h := build(t, db)
		h.change(t, &h.portal, func(c *storage.Client) { c.Metadata.Lifetimes.AccessToken = 3600 })
		h.change(t, &h.public, func(c *storage.Client) { c.Metadata.Lifetimes.AccessToken = 3600 })
		for asked, change := range asksForLab {
			for ended, end := range ends {
				t.Run(asked+" "+ended, func(t *testing.T) {
					r := h.linked(t, storage.NewID())
					b, verifier := h.browser(t), oauth2.GenerateVerifier()
					begin := "/oauth2/auth?" + askFor(h.portal, verifier, change)
					b.signIn("pwd")
					require.Contains(t, b.get(begin).Header().Get("Location"), "/login/enrol?request=")
					require.Equal(t, "interaction_required", answer(t, b.get(begin+"&prompt=none")).Get("error"))
					b.signIn("pwd", "otp")
					redeemed := func() map[string]any {
						status, body := h.post("/oauth2/token", h.portal, h.secret, redeem(answer(t, b.get(begin)).Get("code"), verifier))
						require.Equal(t, 200, status, body)
						return body
					}
					record := map[string]any{"authority": "lab1", "record": r.Value}
					shown := func(body map[string]any) {
						require.EqualValues(t, 600, body["expires_in"])
						require.InDelta(t, time.Now().Add(shortLife).Unix(), h.introspection(t, body["access_token"])["exp"], 5)
						id := claimsOf(t, body["id_token"])
						require.Equal(t, "urn:patauth:acr:two-factor", id["acr"])
						status, info := h.userinfo(body["access_token"])
						require.Equal(t, 200, status)
						if asked != "userinfo claim" {
							require.Equal(t, record, id["lab"])
						}
						if asked != "ID token claim" {
							require.Equal(t, record, info["lab"])
						}
					}
					body := redeemed()
					shown(body)
					status, next := h.post("/oauth2/token", h.portal, h.secret, refresh(body["refresh_token"]))
					require.Equal(t, 200, status, next)
					shown(next)
					pending := answer(t, b.get(begin)).Get("code")
					_, plain := h.post("/oauth2/token", h.public, "", redeem(answer(t, b.get("/oauth2/auth?"+askFor(h.public, verifier, url.Values{"scope": {"openid email"}}))).Get("code"), verifier))
					require.EqualValues(t, 3600, plain["expires_in"], plain)

					end(&r)
					require.NoError(t, db.SaveLabIdentities(t.Context(), []*storage.LabIdentity{&r}))
					settled, err := db.SettleLinks(t.Context(), []string{r.ID}, storage.Now())
					require.NoError(t, err)
					require.Equal(t, 1, settled)
					for _, token := range []any{body["access_token"], next["access_token"], next["refresh_token"]} {
						require.Equal(t, map[string]any{"active": false}, h.introspection(t, token))
					}
					status, _ = h.userinfo(next["access_token"])
					require.Equal(t, 401, status)
					for _, form := range []url.Values{refresh(next["refresh_token"]), redeem(pending, verifier)} {
						status, e := h.post("/oauth2/token", h.portal, h.secret, form)
						require.Equal(t, []any{400, "invalid_grant"}, []any{status, e["error"]}, form.Get("grant_type"))
					}
					require.Equal(t, true, h.introspection(t, plain["access_token"])["active"], "who was shown nothing keeps what it has")
					status, plain = h.post("/oauth2/token", h.public, "", refresh(plain["refresh_token"]))
					require.Equal(t, 200, status, plain)
				})
			}
		}
	})
}

// A client that may not ask for the scope lab gets nothing of the record by a claim,
// and one that loses the scope gets no more of it.
func TestOnlyClientsWithTheScopeSeeTheLabRecord(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	h.linked(t, "R-1")
	lose := func(c *storage.Client) {
		c.Scopes = slices.DeleteFunc(slices.Clone(c.Scopes), func(s string) bool { return s == "lab" })
	}
	for asked, change := range asksForLab {
		t.Run(asked, func(t *testing.T) {
			h.change(t, &h.portal, func(c *storage.Client) { c.Scopes, c.Metadata.Lifetimes.AccessToken = Scopes, 3600 })
			b, verifier := h.browser(t), oauth2.GenerateVerifier()
			begin := "/oauth2/auth?" + askFor(h.portal, verifier, change)
			b.signIn("pwd", "otp")
			code := func() string { return answer(t, b.get(begin)).Get("code") }
			status, had := h.post("/oauth2/token", h.portal, h.secret, redeem(code(), verifier))
			require.Equal(t, 200, status, had)
			pending := code()
			h.change(t, &h.portal, lose)
			for _, form := range []url.Values{refresh(had["refresh_token"]), redeem(pending, verifier)} {
				status, e := h.post("/oauth2/token", h.portal, h.secret, form)
				require.Equal(t, []any{400, "invalid_scope"}, []any{status, e["error"]}, form.Get("grant_type"))
			}

			b.signIn("pwd")
			got := answer(t, b.get(begin))
			if asked == "scope" {
				require.Equal(t, "invalid_scope", got.Get("error"))
				return
			}
			status, body := h.post("/oauth2/token", h.portal, h.secret, redeem(got.Get("code"), verifier))
			require.Equal(t, 200, status, body)
			require.EqualValues(t, 3600, body["expires_in"], "nothing to guard")
			require.NotContains(t, claimsOf(t, body["id_token"]), "lab")
			_, info := h.userinfo(body["access_token"])
			require.Equal(t, map[string]any{"sub": h.patient.ID}, info)
		})
	}
}

// RFC 6749, Section 6: a refreshed token may be narrower, and then it shows nothing of
// what it left, whether that was asked for by scope or by claim.
func TestANarrowedTokenShowsNothingOfWhatItLeft(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	h.linked(t, "R-1")
	const claims = `{"lab":null,"email":null,"given_name":{"essential":true}}`
	personal := []string{"lab", "email", "email_verified", "name", "given_name", "family_name", "birthdate", "locale", "updated_at"}
	for name, scope := range map[string]string{
		"by scope": "openid profile email lab offline_access", "by claim": "openid offline_access", "by both": "openid lab",
	} {
		t.Run(name, func(t *testing.T) {
			change := url.Values{"scope": {scope}}
			if name != "by scope" {
				change.Set("claims", `{"id_token":`+claims+`,"userinfo":`+claims+`}`)
			}
			b, verifier := h.browser(t), oauth2.GenerateVerifier()
			b.signIn("pwd", "otp")
			_, body := h.post("/oauth2/token", h.portal, h.secret, redeem(answer(t, b.get("/oauth2/auth?"+askFor(h.portal, verifier, change))).Get("code"), verifier))
			seen := func(body map[string]any) []string {
				id := claimsOf(t, body["id_token"])
				status, info := h.userinfo(body["access_token"])
				require.Equal(t, 200, status)
				require.Equal(t, h.patient.ID, info["sub"])
				maps.Copy(id, info)
				return slices.DeleteFunc(slices.Clone(personal), func(name string) bool { _, ok := id[name]; return !ok })
			}
			all := seen(body)
			require.Subset(t, all, []string{"lab", "email", "given_name"})
			form := refresh(body["refresh_token"])
			form.Set("scope", "openid")
			status, narrow := h.post("/oauth2/token", h.portal, h.secret, form)
			require.Equal(t, 200, status, narrow)
			require.Equal(t, "openid", narrow["scope"])
			require.Empty(t, seen(narrow))
			_, info := h.userinfo(narrow["access_token"])
			require.Equal(t, map[string]any{"sub": h.patient.ID}, info)
			_, wide := h.post("/oauth2/token", h.portal, h.secret, refresh(narrow["refresh_token"]))
			require.Equal(t, all, seen(wide), "the grant is what it was")
		})
	}
}
