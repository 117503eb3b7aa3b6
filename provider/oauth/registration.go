package oauth

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ory/fosite"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// registration is the metadata that a client may choose (RFC 7591, Section 2;
// OpenID Connect Registration, Section 2). RFC 7591, Section 2: "The
// authorization server MUST ignore any client metadata sent by the client that
// it does not understand".
type registration struct {
	ClientName               string        `json:"client_name"`
	RedirectURIs             []string      `json:"redirect_uris,omitempty"`
	PostLogoutRedirectURIs   []string      `json:"post_logout_redirect_uris,omitempty"`
	TokenEndpointAuthMethod  string        `json:"token_endpoint_auth_method"`
	GrantTypes               storage.Words `json:"grant_types"`
	ResponseTypes            []string      `json:"response_types"`
	Scope                    string        `json:"scope"`
	IDTokenSignedResponseAlg string        `json:"id_token_signed_response_alg"`
	storage.ClientMetadata

	// Encryption is understood but not to be had, and nobody shall rely on it.
	IDTokenEncryptedResponseAlg       string `json:"id_token_encrypted_response_alg,omitempty"`
	UserinfoEncryptedResponseAlg      string `json:"userinfo_encrypted_response_alg,omitempty"`
	IntrospectionEncryptedResponseAlg string `json:"introspection_encrypted_response_alg,omitempty"`
}

// replacement is what a client sends to change its registration (RFC 7592,
// Section 2.2).
type replacement struct {
	registration
	ClientID     string  `json:"client_id"`
	ClientSecret *string `json:"client_secret"`
	// Section 2.2: the request "MUST NOT include" these.
	RegistrationAccessToken json.RawMessage `json:"registration_access_token"`
	RegistrationClientURI   json.RawMessage `json:"registration_client_uri"`
	ClientSecretExpiresAt   json.RawMessage `json:"client_secret_expires_at"`
	ClientIDIssuedAt        json.RawMessage `json:"client_id_issued_at"`
}

// information is what a client is told of its registration (RFC 7591, Section
// 3.2.1; RFC 7592, Section 3).
type information struct {
	ClientID                string `json:"client_id"`
	ClientSecret            string `json:"client_secret,omitempty"` // only when it was made
	ClientSecretExpiresAt   *int64 `json:"client_secret_expires_at,omitempty"`
	ClientIDIssuedAt        int64  `json:"client_id_issued_at"`
	RegistrationAccessToken string `json:"registration_access_token"`
	RegistrationClientURI   string `json:"registration_client_uri"`
	registration
}

// inform is the answer to the client c, which holds token.
func (o *OAuth) inform(c storage.Client, secret, token string) information {
	i := information{
		ClientID: c.ID, ClientSecret: secret, ClientIDIssuedAt: c.CreatedAt.Unix(),
		RegistrationAccessToken: token, RegistrationClientURI: o.issuer + "/oauth2/register/" + url.PathEscape(c.ID),
		registration: registration{
			ClientName: c.Name, RedirectURIs: c.RedirectURIs, PostLogoutRedirectURIs: c.PostLogoutRedirectURIs,
			TokenEndpointAuthMethod: c.AuthMethods[0], GrantTypes: c.GrantTypes, ResponseTypes: []string{},
			Scope: joined(c.Scopes), IDTokenSignedResponseAlg: c.IDTokenAlg, ClientMetadata: c.Metadata,
		},
	}
	if c.UsesSecret() {
		i.ClientSecretExpiresAt = new(int64) // 0: it does not expire
	}
	if c.GrantTypes.Has("authorization_code") {
		i.ResponseTypes = []string{"code"}
	}
	keepOurs(&i.ClientMetadata, storage.ClientMetadata{})
	return i
}

// keepOurs gives m what no client decides about itself, from another registration.
func keepOurs(m *storage.ClientMetadata, from storage.ClientMetadata) {
	m.Sector, m.AccessTokenSignedResponseAlg, m.RequireACR = from.Sector, from.AccessTokenSignedResponseAlg, from.RequireACR
	m.RequirePKCE, m.Lifetimes = from.RequirePKCE, from.Lifetimes
}

// apply gives c all that in asks for; what is left out gets its default. What no
// client decides about itself stays. Who comes without an initial access token
// (open) gets no health data, does not act for itself, and begins no sign-in that
// a patient ends elsewhere (RFC 8628, Section 5.4: remote phishing).
func (in registration) apply(c *storage.Client, open bool) Faults {
	before := *c
	c.SetRedirectURIs(in.RedirectURIs)
	c.Name, c.PostLogoutRedirectURIs = cmp.Or(in.ClientName, nameOf(in.RedirectURIs)), in.PostLogoutRedirectURIs
	// What a client does that names no method is its library's choice.
	c.AuthMethods = SecretMethods
	if in.TokenEndpointAuthMethod != "" {
		c.AuthMethods = storage.Words{in.TokenEndpointAuthMethod}
	}
	c.IDTokenAlg = cmp.Or(in.IDTokenSignedResponseAlg, storage.DefaultIDTokenAlg)
	c.Scopes, c.GrantTypes, c.Metadata = in.scopes(before), in.GrantTypes, in.ClientMetadata
	if len(c.GrantTypes) == 0 {
		c.GrantTypes = storage.Words{"authorization_code"}
	}
	m := &c.Metadata
	keepOurs(m, before.Metadata)
	if string(m.JWKS) == "null" {
		m.JWKS = nil
	}
	if m.ApplicationType == "" {
		// OpenID Connect Registration, Section 2, has web by default. Where no redirect
		// URI is one of a web client that could only be refused, and programs on the
		// patient's own machine that do not know application_type send no other.
		m.ApplicationType = "native"
		if len(in.RedirectURIs) == 0 || slices.ContainsFunc(in.RedirectURIs, func(uri string) bool { return fitsType("web", uri) }) {
			m.ApplicationType = "web"
		}
	}
	if m.SubjectType == "" {
		m.SubjectType = "public"
		if m.SectorIdentifierURI != "" || soleHost(in.RedirectURIs) != "" {
			m.SubjectType = "pairwise"
		}
	}

	k := check{}
	k.bad(slices.ContainsFunc(in.ResponseTypes, func(s string) bool { return s != "code" }), "response_types", "must be code")
	// RFC 7591, Section 2.1: the two must not contradict each other.
	k.bad(len(in.ResponseTypes) > 0 && !c.GrantTypes.Has("authorization_code"), "response_types", "code goes with authorization_code")
	k.bad(in.IDTokenEncryptedResponseAlg != "", "id_token_encrypted_response_alg", "nothing is encrypted here")
	k.bad(in.UserinfoEncryptedResponseAlg != "", "userinfo_encrypted_response_alg", "nothing is encrypted here")
	k.bad(in.IntrospectionEncryptedResponseAlg != "", "introspection_encrypted_response_alg", "nothing is encrypted here")
	// A client keeps what it has by the operator's leave.
	k.bad(open && c.Scopes.Has("lab") && !before.Scopes.Has("lab"), "scope", "lab is not for clients that register by themselves")
	for _, g := range []string{"client_credentials", grantDevice} {
		k.bad(open && c.GrantTypes.Has(g) && !before.GrantTypes.Has(g), "grant_types", "%s is not for clients that register by themselves", g)
	}
	return k.faults
}

// scopes are those asked for that we know or that the client has; others are
// ignored, as in requests. By default it is all but lab, which is about health.
func (in registration) scopes(before storage.Client) storage.Words {
	var out storage.Words
	asked := strings.Fields(in.Scope)
	for _, s := range asked {
		if (Scopes.Has(s) || before.Scopes.Has(s)) && !out.Has(s) {
			out = append(out, s)
		}
	}
	for _, s := range Scopes {
		if len(asked) == 0 && s != "lab" {
			out = append(out, s)
		}
	}
	return out
}

// nameOf is what patients are shown of a client that has no name: where it leads.
func nameOf(uris []string) string {
	for _, uri := range uris {
		if u, err := url.Parse(uri); err == nil && len(u.Scheme+u.Hostname()) <= maxName {
			return cmp.Or(u.Hostname(), u.Scheme)
		}
	}
	return "App"
}

// refused are faults as RFC 7591, Section 3.2.2, tells them; nil where there are
// none.
func (f Faults) refused() error {
	if len(f) == 0 {
		return nil
	}
	e := &fosite.RFC6749Error{
		ErrorField: "invalid_client_metadata", DescriptionField: strings.ReplaceAll(f.Error(), "\n", "; "), CodeField: http.StatusBadRequest,
	}
	if f.about("redirect_uris") {
		e.ErrorField = "invalid_redirect_uri"
	}
	return e
}

func fault(parameter, why string) error { return Faults{{parameter, why}}.refused() }

// readMetadata reads the body of a registration into v: a JSON object (RFC 7591,
// Section 3.1), which the guard has bounded.
func readMetadata(r *http.Request, v any) error {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return web.ErrUnsupportedMediaType
	}
	b, err := io.ReadAll(r.Body)
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return web.ErrTooLarge
	}
	if err != nil {
		return web.Invalid("body", "could not be read")
	}
	if b = bytes.TrimSpace(b); !utf8.Valid(b) || !bytes.HasPrefix(b, []byte("{")) {
		return fault("body", "must be a JSON object")
	}
	err = json.Unmarshal(b, v)
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		return fault(wrong.Field[strings.LastIndex(wrong.Field, ".")+1:], "must be of another type")
	}
	if err != nil {
		return fault("body", "must be a JSON object")
	}
	return nil
}
