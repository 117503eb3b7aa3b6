package oauth

import (
	"encoding/json"
	"slices"

	"github.com/pat-authenticate/patauth/provider/keys"
)

// hint is an ID token of ours that a client sends back.
type hint struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience aud    `json:"aud"`
	SID      string `json:"sid"`
	// Expiry tells an ID token from a signed userinfo answer, which has none.
	Expiry int64 `json:"exp"`
}

func (h hint) audience(client string) bool { return slices.Contains(h.Audience, client) }

// readHint trusts token when we signed it as an ID token, expired or not.
// OpenID Connect Core, Section 3.1.2.1: the hint need not be addressed to the
// server; RP-Initiated Logout, Section 2: nor be current.
func readHint(k *keys.Keys, token, issuer string) (hint, error) {
	var h hint
	if err := k.Verify(token, "JWT", &h); err != nil {
		return hint{}, err
	}
	if h.Issuer != issuer || h.Subject == "" || h.Expiry == 0 {
		return hint{}, keys.ErrToken
	}
	return h, nil
}

// aud is an audience claim: one string or a list (RFC 7519, Section 4.1.3).
type aud []string

func (a *aud) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = aud{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}
