package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/storage"
)

// clientFlags are what an operator can say about a client. Each flag changes one
// thing, and only where it is given.
type clientFlags struct {
	cmd     *cobra.Command
	changes []func(*storage.Client) error
}

// apply gives c what the flags say.
func (f *clientFlags) apply(c *storage.Client) error {
	c.SetRedirectURIs(c.RedirectURIs) // so that origins that follow from others follow on
	for _, change := range f.changes {
		if err := change(c); err != nil {
			return err
		}
	}
	return nil
}

// when adds what the flag name does, if it is given.
func (f *clientFlags) when(name string, do func(*storage.Client) error) {
	f.changes = append(f.changes, func(c *storage.Client) error {
		if !f.cmd.Flags().Changed(name) {
			return nil
		}
		if err := do(c); err != nil {
			return fmt.Errorf("--%s: %w", name, err)
		}
		return nil
	})
}

// field adds a flag for a text; "" takes it away.
func (f *clientFlags) field(name, usage string, of func(*storage.Client) *string) {
	v := f.cmd.Flags().String(name, "", usage)
	f.when(name, func(c *storage.Client) error { *of(c) = *v; return nil })
}

// uris adds a flag that may be repeated; "" alone empties the list.
func (f *clientFlags) uris(name, usage string, set func(*storage.Client, []string)) {
	v := f.cmd.Flags().StringArray(name, nil, usage+"; may be repeated")
	f.when(name, func(c *storage.Client) error {
		set(c, slices.DeleteFunc(slices.Clone(*v), func(s string) bool { return s == "" }))
		return nil
	})
}

// words adds a flag for words with commas or spaces between them.
func (f *clientFlags) words(name, usage string, set func(*storage.Client, []string)) {
	v := f.cmd.Flags().StringSlice(name, nil, usage)
	f.when(name, func(c *storage.Client) error { set(c, strings.Fields(strings.Join(*v, " "))); return nil })
}

func (f *clientFlags) truth(name, usage string, of func(*storage.Client) *bool) {
	v := f.cmd.Flags().Bool(name, false, usage)
	f.when(name, func(c *storage.Client) error { *of(c) = *v; return nil })
}

// seconds adds a flag for a duration that is kept in whole seconds.
func (f *clientFlags) seconds(name, usage string, set func(*storage.Client, int)) {
	v := f.cmd.Flags().Duration(name, 0, usage)
	f.when(name, func(c *storage.Client) error {
		if *v%time.Second != 0 {
			return errors.New("must be whole seconds")
		}
		set(c, int(*v/time.Second))
		return nil
	})
}

// newClientFlags gives cmd every flag about a client.
func newClientFlags(cmd *cobra.Command) *clientFlags {
	f := &clientFlags{cmd: cmd}

	f.field("name", "what patients are shown", func(c *storage.Client) *string { return &c.Name })
	f.field("application-type", "web or native: refuses redirect URIs of the other kind", func(c *storage.Client) *string { return &c.Metadata.ApplicationType })
	f.uris("redirect-uri", "redirect URI", func(c *storage.Client, v []string) { c.SetRedirectURIs(v) })
	f.uris("post-logout-redirect-uri", "where sign-out may lead back to", func(c *storage.Client, v []string) { c.PostLogoutRedirectURIs = v })
	f.uris("origin", "web origin whose scripts may call (default: those of a public client's redirect URIs)", func(c *storage.Client, v []string) { c.Origins = v })
	f.words("grant", "grant types (a new client's: authorization_code,refresh_token)", func(c *storage.Client, v []string) { c.GrantTypes = v })
	f.words("scope", "scopes that the client may ask for (a new client's: openid,profile,email)", func(c *storage.Client, v []string) { c.Scopes = v })
	f.uris("audience", "resource that the client may ask tokens for, or that it serves", func(c *storage.Client, v []string) { c.Audience = v })
	f.truth("can-introspect", "the client is a resource server that may ask about tokens", func(c *storage.Client) *bool { return &c.CanIntrospect })
	f.truth("first-party", "patients are not asked for consent", func(c *storage.Client) *bool { return &c.FirstParty })

	f.words("auth-method", "none, client_secret_basic, client_secret_post, private_key_jwt (a new client's: client_secret_basic,client_secret_post)", func(c *storage.Client, v []string) { c.AuthMethods = v })
	f.public()
	f.jwks()
	f.field("jwks-uri", "where the client's keys are", func(c *storage.Client) *string { return &c.Metadata.JWKSURI })
	f.field("token-auth-alg", "the one algorithm of private_key_jwt (default: any)", func(c *storage.Client) *string { return &c.Metadata.TokenEndpointAuthSigningAlg })
	f.truth("require-pkce", "owes PKCE whatever oauth.pkce demands; public clients owe it anyway", func(c *storage.Client) *bool { return &c.Metadata.RequirePKCE })

	f.field("id-token-alg", "how ID tokens are signed (a new client's: "+storage.DefaultIDTokenAlg+"; "+keys.Algorithms[0]+" costs least)", func(c *storage.Client) *string { return &c.IDTokenAlg })
	f.field("userinfo-alg", "how userinfo is signed (default: plain JSON)", func(c *storage.Client) *string { return &c.Metadata.UserinfoSignedResponseAlg })
	f.field("introspection-alg", "how introspection is signed where that is asked for (default: RS256)", func(c *storage.Client) *string { return &c.Metadata.IntrospectionSignedResponseAlg })
	f.field("access-token-alg", "makes access tokens JWTs (default: opaque)", func(c *storage.Client) *string { return &c.Metadata.AccessTokenSignedResponseAlg })
	f.seconds("access-token-life", "how long an access token lasts (default: 10m)", func(c *storage.Client, n int) { c.Metadata.Lifetimes.AccessToken = n })
	f.seconds("id-token-life", "how long an ID token lasts (default: 10m)", func(c *storage.Client, n int) { c.Metadata.Lifetimes.IDToken = n })
	f.seconds("refresh-idle", "how long a refresh token lasts unused (default: 336h)", func(c *storage.Client, n int) { c.Metadata.Lifetimes.RefreshIdle = n })
	f.seconds("grant-life", "how long a patient's sign-in serves the client (default: 2160h)", func(c *storage.Client, n int) { c.Metadata.Lifetimes.Grant = n })

	f.field("subject-type", "public or pairwise", func(c *storage.Client) *string { return &c.Metadata.SubjectType })
	f.field("sector-identifier-uri", "lists the redirect URIs that share pairwise subjects", func(c *storage.Client) *string { return &c.Metadata.SectorIdentifierURI })
	f.field("require-acr", "the weakest authentication that the client accepts", func(c *storage.Client) *string { return &c.Metadata.RequireACR })
	f.words("default-acr", "authentication that is aimed at where the client does not say", func(c *storage.Client, v []string) { c.Metadata.DefaultACRValues = v })
	f.seconds("default-max-age", "how old a sign-in may be where the client does not say; -1s for any", func(c *storage.Client, n int) {
		if c.Metadata.DefaultMaxAge = &n; n == -1 {
			c.Metadata.DefaultMaxAge = nil
		}
	})

	f.field("client-uri", "the client's home page", func(c *storage.Client) *string { return &c.Metadata.ClientURI })
	f.field("logo-uri", "its logo", func(c *storage.Client) *string { return &c.Metadata.LogoURI })
	f.field("policy-uri", "its privacy policy", func(c *storage.Client) *string { return &c.Metadata.PolicyURI })
	f.field("tos-uri", "its terms of use", func(c *storage.Client) *string { return &c.Metadata.TOSURI })
	f.uris("contact", "who answers for it", func(c *storage.Client, v []string) { c.Metadata.Contacts = v })
	f.field("initiate-login-uri", "where a sign-in can be begun", func(c *storage.Client) *string { return &c.Metadata.InitiateLoginURI })
	f.field("backchannel-logout-uri", "where the client is told of sign-outs", func(c *storage.Client) *string { return &c.Metadata.BackchannelLogoutURI })
	f.truth("backchannel-logout-session-required", "it must be told of which session", func(c *storage.Client) *bool { return &c.Metadata.BackchannelLogoutSessionRequired })
	f.field("frontchannel-logout-uri", "where the patient's browser is led at sign-out", func(c *storage.Client) *string { return &c.Metadata.FrontchannelLogoutURI })
	f.truth("frontchannel-logout-session-required", "it must be told of which session", func(c *storage.Client) *bool { return &c.Metadata.FrontchannelLogoutSessionRequired })
	return f
}

// shorter are flags that are not called as their parameter is.
var shorter = map[string]string{
	"client_name": "name", "redirect_uris": "redirect-uri", "post_logout_redirect_uris": "post-logout-redirect-uri", "origins": "origin",
	"grant_types": "grant", "token_endpoint_auth_method": "auth-method", "token_endpoint_auth_signing_alg": "token-auth-alg",
	"id_token_signed_response_alg": "id-token-alg", "userinfo_signed_response_alg": "userinfo-alg",
	"introspection_signed_response_alg": "introspection-alg", "access_token_signed_response_alg": "access-token-alg",
	"default_acr_values": "default-acr", "contacts": "contact",
}

// flagOf is the flag for a parameter of the metadata, as it is typed.
func (f *clientFlags) flagOf(parameter string) string {
	name, ok := shorter[parameter]
	if !ok {
		name = strings.ReplaceAll(parameter, "_", "-")
	}
	if f.cmd.Flags().Lookup(name) == nil {
		return parameter
	}
	return "--" + name
}

// public adds the short way to say --auth-method none.
func (f *clientFlags) public() {
	v := f.cmd.Flags().Bool("public", false, "the client cannot keep a secret (an app, a page)")
	f.when("public", func(c *storage.Client) error {
		if *v && !f.cmd.Flags().Changed("auth-method") {
			c.AuthMethods = storage.Words{"none"}
		}
		if *v != c.Public() {
			return errors.New("goes with --auth-method none")
		}
		return nil
	})
}

// jwks adds the flag that reads the client's keys; "" takes them away.
func (f *clientFlags) jwks() {
	v := f.cmd.Flags().String("jwks", "", "`file` with the client's public keys, as a JWK Set")
	f.when("jwks", func(c *storage.Client) (err error) {
		c.Metadata.JWKS = nil
		if *v != "" {
			c.Metadata.JWKS, err = os.ReadFile(*v)
		}
		return err
	})
}
