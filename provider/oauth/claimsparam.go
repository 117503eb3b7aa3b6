package oauth

import (
	"encoding/json"
	"slices"

	"github.com/ory/fosite"

	"github.com/pat-authenticate/patauth/storage"
)

// claimsParam is the parameter claims (OpenID Connect Core, Section 5.5).
type claimsParam struct {
	IDToken  map[string]*claimWish `json:"id_token"`
	UserInfo map[string]*claimWish `json:"userinfo"`
}

// claimWish is how a claim is asked for; null asks for it without more ado
// (Section 5.5.1). Values that are no strings match nothing here.
type claimWish struct {
	Essential bool  `json:"essential"`
	Value     any   `json:"value"`
	Values    []any `json:"values"`
}

// maxClaims bounds the parameter in bytes, and maxClaimNames the claims in it.
const (
	maxClaims     = 4 << 10
	maxClaimNames = 64
)

// readClaims reads the parameter; claims that nobody here knows are ignored, as
// are members that are not understood (Section 5.5).
func readClaims(raw string) (claimsParam, error) {
	var c claimsParam
	if raw == "" {
		return c, nil
	}
	if len(raw) > maxClaims {
		return c, fosite.ErrInvalidRequest.WithHintf("claims is longer than %d bytes.", maxClaims)
	}
	if err := json.Unmarshal([]byte(raw), &c); err != nil || raw[0] == 'n' {
		return claimsParam{}, fosite.ErrInvalidRequest.WithHint("claims is not the JSON object that OpenID Connect describes.")
	}
	if len(c.IDToken)+len(c.UserInfo) > maxClaimNames {
		return claimsParam{}, fosite.ErrInvalidRequest.WithHintf("claims names more than %d claims.", maxClaimNames)
	}
	return c, nil
}

// strings are the values that a claim shall have, in order of preference.
func (w *claimWish) strings() []string {
	var out []string
	if w == nil {
		return nil
	}
	for _, v := range append([]any{w.Value}, w.Values...) {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// known are the names of wishes for claims about the patient whose scope is one
// of scopes, in alphabetical order.
func known(wishes map[string]*claimWish, scopes storage.Words) []string {
	var out []string
	for name := range wishes {
		if scope := scopeOf(name); scope != "" && scopes.Has(scope) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// scopeOf is the scope that opens a claim about the patient, "" for any other
// claim.
func scopeOf(claim string) string {
	for scope, claims := range scopeClaims {
		if slices.Contains(claims, claim) {
			return scope
		}
	}
	return ""
}

// scopeClaims are the claims that a scope opens (Section 5.4); lab is ours.
var scopeClaims = map[string][]string{
	"profile": {
		"name", "family_name", "given_name", "middle_name", "nickname", "preferred_username", "profile", "picture",
		"website", "gender", "birthdate", "zoneinfo", "locale", "updated_at",
	},
	"email":   {"email", "email_verified"},
	"address": {"address"},
	"phone":   {"phone_number", "phone_number_verified"},
	"lab":     {"lab"},
}
