package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/provider/oauth"
	"github.com/pat-authenticate/patauth/storage"
)

func (c *command) client() *cobra.Command {
	return group("client", "Relying parties and resource servers", c.clientCreate(), c.clientList(), c.clientShow())
}

// clientView is a client as it is printed.
type clientView struct {
	ID                     string     `json:"id"`
	Secret                 string     `json:"secret,omitempty"` // only when it was made
	Name                   string     `json:"name"`
	Public                 bool       `json:"public"`
	AuthMethods            []string   `json:"auth_methods"`
	RedirectURIs           []string   `json:"redirect_uris"`
	PostLogoutRedirectURIs []string   `json:"post_logout_redirect_uris"`
	GrantTypes             []string   `json:"grant_types"`
	Scopes                 []string   `json:"scopes"`
	Audience               []string   `json:"audience"`
	IDTokenAlg             string     `json:"id_token_alg"`
	CanIntrospect          bool       `json:"can_introspect"`
	FirstParty             bool       `json:"first_party"`
	CreatedAt              time.Time  `json:"created_at"`
	DisabledAt             *time.Time `json:"disabled_at,omitempty"`
}

func viewClient(c storage.Client) clientView {
	list := func(s []string) []string { return append([]string{}, s...) }
	return clientView{
		ID: c.ID, Name: c.Name, Public: c.Public(), AuthMethods: list(c.AuthMethods),
		RedirectURIs: list(c.RedirectURIs), PostLogoutRedirectURIs: list(c.PostLogoutRedirectURIs),
		GrantTypes: list(c.GrantTypes), Scopes: list(c.Scopes), Audience: list(c.Audience), IDTokenAlg: c.IDTokenAlg,
		CanIntrospect: c.CanIntrospect, FirstParty: c.FirstParty, CreatedAt: c.CreatedAt, DisabledAt: c.DisabledAt,
	}
}

var (
	grants  = []string{"authorization_code", "refresh_token", "client_credentials", "urn:ietf:params:oauth:grant-type:device_code"}
	methods = []string{"none", "client_secret_basic", "client_secret_post"}
)

// checkClient says everything that is wrong with a client to be registered.
func checkClient(c storage.Client) error {
	var faults []error
	bad := func(is bool, format string, args ...any) {
		if is {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	bad(strings.TrimSpace(c.Name) == "" || len(c.Name) > 100, "--name: is required, at most 100 bytes")
	for _, m := range c.AuthMethods {
		bad(!slices.Contains(methods, m), "--auth-method: must be of %s", strings.Join(methods, ", "))
	}
	bad(c.Public() && len(c.AuthMethods) > 1, "--auth-method: a public client has none")
	for _, g := range c.GrantTypes {
		bad(!slices.Contains(grants, g), "--grant: must be of %s", strings.Join(grants, ", "))
	}
	bad(c.Public() && c.GrantTypes.Has("client_credentials"), "--grant: client_credentials needs a client with a secret")
	bad(c.GrantTypes.Has("authorization_code") && len(c.RedirectURIs) == 0, "--redirect-uri: authorization_code needs one")
	for _, uri := range c.RedirectURIs {
		bad(!oauth.RedirectAllowed(uri), "--redirect-uri: %q is neither https, nor http on a loopback address, nor of a private-use scheme", uri)
	}
	for _, uri := range append(c.PostLogoutRedirectURIs, c.Audience...) {
		u, err := url.Parse(uri)
		bad(err != nil || u.Scheme == "" || u.Host == "" || u.Fragment != "", "%q is not an absolute URL without fragment", uri)
	}
	for _, s := range c.Scopes {
		// RFC 6749, Section 3.3: scope-token.
		bad(strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }), "--scope: %q is not a scope", s)
	}
	bad(!slices.Contains(keys.Algorithms, c.IDTokenAlg), "--id-token-alg: must be of %s", strings.Join(keys.Algorithms, ", "))
	bad(c.CanIntrospect && c.Public(), "--can-introspect: needs a client with a secret")
	return errors.Join(faults...)
}

func (c *command) clientCreate() *cobra.Command {
	var (
		n                  storage.Client
		public             bool
		scopes, auth, give []string
		redirects, after   []string
		audience           []string
	)
	cmd := &cobra.Command{
		Use: "create", Short: "Register a client; its secret is shown once", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n.RedirectURIs, n.PostLogoutRedirectURIs, n.Audience, n.GrantTypes = redirects, after, audience, give
			n.Scopes = strings.Fields(strings.Join(scopes, " "))
			n.AuthMethods = auth
			if public && !cmd.Flags().Changed("auth-method") {
				n.AuthMethods = storage.Words{"none"}
			}
			if public != n.Public() {
				return fmt.Errorf("--public goes with --auth-method none")
			}
			if err := checkClient(n); err != nil {
				return err
			}
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				view := clientView{}
				secret, err := createClient(ctx, db, &n)
				if err != nil {
					return err
				}
				view = viewClient(n)
				view.Secret = secret
				return c.print(cmd, view, func() {
					fmt.Fprintln(cmd.OutOrStdout(), "id:    ", view.ID)
					if secret != "" {
						fmt.Fprintln(cmd.OutOrStdout(), "secret:", secret, "(it is not shown again)")
					}
				})
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&n.Name, "name", "", "what patients are shown")
	f.StringArrayVar(&redirects, "redirect-uri", nil, "redirect URI; may be repeated")
	f.StringArrayVar(&after, "post-logout-redirect-uri", nil, "where sign-out may lead back to; may be repeated")
	f.StringSliceVar(&give, "grant", []string{"authorization_code", "refresh_token"}, "grant types")
	f.StringSliceVar(&scopes, "scope", []string{"openid", "profile", "email"}, "scopes that the client may ask for")
	f.StringArrayVar(&audience, "audience", nil, "resource that the client may ask tokens for; may be repeated")
	f.BoolVar(&public, "public", false, "the client cannot keep a secret (an app, a page)")
	f.StringSliceVar(&auth, "auth-method", []string{"client_secret_basic"}, "none, client_secret_basic, client_secret_post")
	f.StringVar(&n.IDTokenAlg, "id-token-alg", keys.Algorithms[0], "how ID tokens are signed")
	f.BoolVar(&n.CanIntrospect, "can-introspect", false, "the client is a resource server that may ask about tokens")
	f.BoolVar(&n.FirstParty, "first-party", false, "patients are not asked for consent")
	return cmd
}

// createClient stores n and, unless it is public, makes its secret.
func createClient(ctx context.Context, db *storage.DB, n *storage.Client) (secret string, err error) {
	if !n.Public() {
		secret = db.NewClientSecret(n)
	}
	err = db.Tx(ctx, func(ctx context.Context) error {
		if err := db.CreateClient(ctx, n); err != nil {
			return fmt.Errorf("create client: %w", err)
		}
		return db.Audit(ctx, storage.AuditEvent{Event: "client.created", Actor: "operator", Object: "client:" + n.ID})
	})
	return secret, err
}

func (c *command) clientList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List all clients", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				all, err := db.ListClients(ctx)
				if err != nil {
					return err
				}
				views := []clientView{}
				for _, x := range all {
					views = append(views, viewClient(x))
				}
				return c.print(cmd, views, func() {
					table(cmd, "ID\tNAME\tKIND\tGRANTS", func(line func(...any)) {
						for _, v := range views {
							kind := "confidential"
							if v.Public {
								kind = "public"
							}
							line(v.ID, v.Name, kind, strings.Join(v.GrantTypes, " "))
						}
					})
				})
			})
		},
	}
}

func (c *command) clientShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a client", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				all, err := db.ListClients(ctx) // also what is disabled
				if err != nil {
					return err
				}
				i := slices.IndexFunc(all, func(x storage.Client) bool { return x.ID == args[0] })
				if i < 0 {
					return fmt.Errorf("client %s: %w", args[0], storage.ErrNotFound)
				}
				v := viewClient(all[i])
				return c.print(cmd, v, func() {
					table(cmd, "id\t"+v.ID, func(line func(...any)) {
						line("name", v.Name)
						line("authentication", strings.Join(v.AuthMethods, " "))
						line("grants", strings.Join(v.GrantTypes, " "))
						line("scopes", strings.Join(v.Scopes, " "))
						line("redirect URIs", strings.Join(v.RedirectURIs, " "))
						line("after sign-out", strings.Join(v.PostLogoutRedirectURIs, " "))
						line("audience", strings.Join(v.Audience, " "))
						line("ID tokens", v.IDTokenAlg)
						line("may introspect", v.CanIntrospect)
						line("first party", v.FirstParty)
						line("created", v.CreatedAt.Format(time.RFC3339))
						if v.DisabledAt != nil {
							line("disabled", v.DisabledAt.Format(time.RFC3339))
						}
					})
				})
			})
		},
	}
}
