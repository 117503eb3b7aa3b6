package oauth

import (
	"encoding/json"
	"net/http"

	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/provider/session"
)

// metadata is what the provider says of itself: OpenID Connect Discovery,
// Section 3, and RFC 8414, Section 2. What is listed works; what works is listed.
func (o *OAuth) metadata() map[string]any {
	confidential := []string{"client_secret_basic", "client_secret_post", "private_key_jwt"}
	return map[string]any{
		"issuer":                                         o.issuer,
		"authorization_endpoint":                         o.issuer + "/oauth2/auth",
		"token_endpoint":                                 o.issuer + "/oauth2/token",
		"userinfo_endpoint":                              o.issuer + "/oauth2/userinfo",
		"introspection_endpoint":                         o.issuer + "/oauth2/introspect",
		"revocation_endpoint":                            o.issuer + "/oauth2/revoke",
		"end_session_endpoint":                           o.issuer + "/oauth2/logout",
		"jwks_uri":                                       o.issuer + "/.well-known/jwks.json",
		"scopes_supported":                               Scopes,
		"response_types_supported":                       []string{"code"},
		"response_modes_supported":                       []string{"query", "form_post"},
		"grant_types_supported":                          grantTypes,
		"subject_types_supported":                        []string{"public", "pairwise"},
		"id_token_signing_alg_values_supported":          keys.Algorithms,
		"token_endpoint_auth_methods_supported":          append([]string{"none"}, confidential...),
		"introspection_endpoint_auth_methods_supported":  confidential,
		"revocation_endpoint_auth_methods_supported":     append([]string{"none"}, confidential...),
		"code_challenge_methods_supported":               []string{"S256"},
		"acr_values_supported":                           []string{session.ACROneFactor, session.ACRTwoFactor, session.ACRPhishingResistant},
		"prompt_values_supported":                        []string{"none", "login", "consent", "select_account", "create"},
		"claims_supported":                               claimsSupported(),
		"claims_parameter_supported":                     true,
		"claim_types_supported":                          []string{"normal"},
		"ui_locales_supported":                           o.site.Pages.Langs,
		"userinfo_signing_alg_values_supported":          keys.Algorithms,
		"introspection_signing_alg_values_supported":     keys.Algorithms,
		"request_parameter_supported":                    false,
		"request_uri_parameter_supported":                false,
		"authorization_response_iss_parameter_supported": true,

		"token_endpoint_auth_signing_alg_values_supported":         assertionAlgs,
		"introspection_endpoint_auth_signing_alg_values_supported": assertionAlgs,
		"revocation_endpoint_auth_signing_alg_values_supported":    assertionAlgs,

		"device_authorization_endpoint": o.issuer + "/oauth2/device", // RFC 8628, Section 4

		"backchannel_logout_supported":          true,
		"backchannel_logout_session_supported":  true,
		"frontchannel_logout_supported":         true,
		"frontchannel_logout_session_supported": true,
	}
}

// claimsSupported are the claims of ID tokens and those that the scopes we know
// open.
func claimsSupported() []string {
	all := []string{"iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "acr", "amr", "sid", "at_hash"}
	for _, s := range Scopes {
		all = append(all, scopeClaims[s]...)
	}
	return all
}

// Discovery handles GET /.well-known/openid-configuration and
// /.well-known/oauth-authorization-server, from memory.
func (o *OAuth) Discovery() http.Handler {
	all := o.metadata()
	if !o.registration.off() {
		all["registration_endpoint"] = o.issuer + "/oauth2/register"
	}
	b, err := json.Marshal(all)
	if err != nil {
		panic(err) // our own map
	}
	return public(func() []byte { return b })
}

// JWKS handles GET /.well-known/jwks.json, from memory.
func (o *OAuth) JWKS() http.Handler { return public(o.keys.JWKS) }

// public serves JSON that anybody may read from any origin and keep for five minutes.
func public(body func() []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "public, max-age=300")
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
		if r.Method == http.MethodOptions {
			preflight(w, r, "GET, HEAD")
			return
		}
		w.Write(body())
	})
}
