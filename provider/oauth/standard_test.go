package oauth

import (
	"encoding/json"
	"maps"
	"net/http/httptest"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// talkative is a patient who told everything.
func talkative() storage.Patient {
	at := time.Unix(1700000000, 0)
	return storage.Patient{
		ID: "p1", Email: "ada@example.org", EmailVerifiedAt: &at, GivenName: "Ada", FamilyName: "King", BirthDate: "1975-12-10",
		Locale: "en", UpdatedAt: at.Add(999 * time.Millisecond), More: storage.PatientMore{
			MiddleName: "Augusta", Nickname: "Lovelace", PreferredUsername: "ada", Profile: "https://people.example/ada",
			Picture: "https://people.example/ada.jpg", Website: "https://ada.example/", Gender: "female", Zoneinfo: "Europe/London",
			PhoneNumber: "+442079460018", PhoneVerifiedAt: &at, Address: storage.Address{
				Street: "12 St James's Square\nFlat 3", Locality: "London", Region: "Greater London", PostalCode: "SW1Y 4JH", Country: "United Kingdom",
			},
		},
	}
}

func TestStandardClaims(t *testing.T) {
	taciturn := storage.Patient{ID: "p2", Email: "b@example.org", UpdatedAt: time.Unix(1700000000, 0)}
	some := taciturn
	some.GivenName, some.More.PhoneNumber, some.More.Address = "Bea", "+4930123456", storage.Address{Locality: "Berlin", Country: "DE"}
	got, err := json.MarshalIndent(map[string]any{
		"everything": standard(talkative()), "some": standard(some), "nothing": standard(taciturn),
	}, "", "  ")
	require.NoError(t, err)
	want, err := os.ReadFile("testdata/standard.json")
	require.NoError(t, err)
	require.JSONEq(t, string(want), string(got))
}

// What a scope is known to open is what it opens.
func TestEveryStandardClaimIsOpened(t *testing.T) {
	told := standard(talkative())
	for scope, names := range scopeClaims {
		if scope == "lab" {
			continue
		}
		require.ElementsMatch(t, names, slices.Collect(maps.Keys(told[scope])), scope)
		require.True(t, Scopes.Has(scope))
	}
}

func TestUserInfoTellsWhatScopesOpen(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	p := talkative()
	p.ID = h.patient.ID
	require.NoError(t, h.db.UpdateProfile(t.Context(), p))
	for scope, has := range map[string][]string{
		"openid profile": {"name", "zoneinfo", "updated_at"}, "openid email": {"email", "email_verified"},
		"openid address": {"address"}, "openid phone": {"phone_number", "phone_number_verified"},
		"openid profile email address phone": {"name", "email", "address", "phone_number"},
	} {
		code, verifier := h.code(t, h.portal, map[string][]string{"scope": {scope}})
		status, body := h.post("/oauth2/token", h.portal, h.secret, redeem(code, verifier))
		require.Equal(t, 200, status, body)
		_, info := h.userinfo(body["access_token"])
		for _, name := range has {
			require.Contains(t, info, name, scope)
		}
		if scope == "openid phone" {
			require.Len(t, info, 3, "sub and what the scope opens")
		}
	}
	_, meta := h.send(httptest.NewRequest("GET", "/.well-known/openid-configuration", nil))
	for _, scope := range []string{"profile", "email", "address", "phone"} {
		require.Contains(t, meta["scopes_supported"], scope)
		for _, claim := range scopeClaims[scope] {
			require.Contains(t, meta["claims_supported"], claim)
		}
	}
}
