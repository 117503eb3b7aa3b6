package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pat-authenticate/patauth/provider/oauth"
	"github.com/pat-authenticate/patauth/storage"
)

func (c *command) client() *cobra.Command {
	return group("client", "Relying parties and resource servers", c.clientCreate(), c.clientList(), c.clientShow(),
		c.clientUpdate(), c.clientRotateSecret(), c.clientDelete())
}

// clientView is a client as it is printed.
type clientView struct {
	ID                     string                 `json:"id"`
	Secret                 string                 `json:"secret,omitempty"` // only when it was made
	Name                   string                 `json:"name"`
	Public                 bool                   `json:"public"`
	AuthMethods            []string               `json:"auth_methods"`
	SecretsMadeAt          []time.Time            `json:"secrets_made_at"` // of those that are live
	RedirectURIs           []string               `json:"redirect_uris"`
	PostLogoutRedirectURIs []string               `json:"post_logout_redirect_uris"`
	Origins                []string               `json:"origins"`
	GrantTypes             []string               `json:"grant_types"`
	Scopes                 []string               `json:"scopes"`
	Audience               []string               `json:"audience"`
	IDTokenAlg             string                 `json:"id_token_alg"`
	CanIntrospect          bool                   `json:"can_introspect"`
	FirstParty             bool                   `json:"first_party"`
	Metadata               storage.ClientMetadata `json:"metadata"`
	SelfRegistered         bool                   `json:"self_registered"`
	CreatedAt              time.Time              `json:"created_at"`
	DisabledAt             *time.Time             `json:"disabled_at,omitempty"`
}

func viewClient(c storage.Client) clientView {
	list := func(s []string) []string { return append([]string{}, s...) }
	c.Metadata.Was = nil // what consents of old were given to is nobody's setting
	made := []time.Time{}
	for _, s := range c.Secrets.V {
		made = append(made, s.CreatedAt)
	}
	return clientView{
		ID: c.ID, Name: c.Name, Public: c.Public(), AuthMethods: list(c.AuthMethods), SecretsMadeAt: made,
		RedirectURIs: list(c.RedirectURIs), PostLogoutRedirectURIs: list(c.PostLogoutRedirectURIs), Origins: list(c.Origins),
		GrantTypes: list(c.GrantTypes), Scopes: list(c.Scopes), Audience: list(c.Audience), IDTokenAlg: c.IDTokenAlg,
		CanIntrospect: c.CanIntrospect, FirstParty: c.FirstParty, Metadata: c.Metadata, SelfRegistered: c.Registration != nil,
		CreatedAt: c.CreatedAt.UTC(), DisabledAt: c.DisabledAt,
	}
}

// printClient shows a client that was made or changed, and its new secret.
func (c *command) printClient(cmd *cobra.Command, n storage.Client, secret string) error {
	view := viewClient(n)
	view.Secret = secret
	return c.print(cmd, view, func() {
		fmt.Fprintln(cmd.OutOrStdout(), "id:    ", view.ID)
		if secret != "" {
			fmt.Fprintln(cmd.OutOrStdout(), "secret:", secret, "(it is not shown again)")
		}
	})
}

// check says everything that is wrong with n, by the flags that say it, and
// settles its sector.
func (f *clientFlags) check(ctx context.Context, config Config, n *storage.Client) error {
	err := oauth.CheckClient(ctx, config.outbound(), n)
	var faults oauth.Faults
	if !errors.As(err, &faults) {
		return err
	}
	for i := range faults {
		faults[i].Parameter = f.flagOf(faults[i].Parameter)
	}
	return faults
}

// audited does something to a client, and writes down that the operator did.
func audited(ctx context.Context, db *storage.DB, event, id string, do func(context.Context) error) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		if err := do(ctx); err != nil {
			return fmt.Errorf("client %s: %w", id, err)
		}
		return db.Audit(ctx, storage.AuditEvent{Event: event, Object: "client:" + id})
	})
}

func (c *command) clientCreate() *cobra.Command {
	cmd := &cobra.Command{Use: "create", Short: "Register a client; its secret is shown once", Args: cobra.NoArgs}
	flags := newClientFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		config, err := c.load("migrate")
		if err != nil {
			return err
		}
		n := storage.Client{
			AuthMethods: oauth.SecretMethods, GrantTypes: storage.Words{"authorization_code", "refresh_token"},
			Scopes: storage.Words{"openid", "profile", "email"}, IDTokenAlg: storage.DefaultIDTokenAlg,
		}
		if err := flags.apply(&n); err != nil {
			return err
		}
		if err := flags.check(cmd.Context(), config, &n); err != nil {
			return err
		}
		return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
			secret, err := createClient(ctx, db, &n)
			if err != nil {
				return err
			}
			return c.printClient(cmd, n, secret)
		})
	}
	return cmd
}

// createClient stores n and, if it uses one, makes its secret.
func createClient(ctx context.Context, db *storage.DB, n *storage.Client) (secret string, err error) {
	secret = db.SettleClientSecret(n)
	err = db.Tx(ctx, func(ctx context.Context) error {
		if err := db.CreateClient(ctx, n); err != nil {
			return fmt.Errorf("create client: %w", err)
		}
		return db.Audit(ctx, storage.AuditEvent{Event: "client.registered", Object: "client:" + n.ID})
	})
	return secret, err
}

func (c *command) clientUpdate() *cobra.Command {
	cmd := &cobra.Command{Use: "update ID", Short: "Change what the flags say about a client, and nothing else", Args: cobra.ExactArgs(1)}
	flags := newClientFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		config, err := c.load("migrate")
		if err != nil {
			return err
		}
		return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
			// Once to see whether it can be, and once more, in case that the client
			// has changed meanwhile: nothing is asked of the network under a lock.
			n, err := db.Client(ctx, args[0])
			if err != nil {
				return fmt.Errorf("client %s: %w", args[0], err)
			}
			if err := flags.apply(&n); err != nil {
				return err
			}
			if err := flags.check(ctx, config, &n); err != nil {
				return err
			}
			secret, sector := "", n.Metadata.Sector
			err = audited(ctx, db, "client.updated", n.ID, func(ctx context.Context) (err error) {
				var refused error
				n, err = db.ChangeClient(ctx, n.ID, func(n *storage.Client) {
					refused = flags.apply(n)
					n.Metadata.Sector = sector
					secret = db.SettleClientSecret(n)
				})
				return errors.Join(err, refused)
			})
			if err != nil {
				return err
			}
			return c.printClient(cmd, n, secret)
		})
	}
	return cmd
}

func (c *command) clientRotateSecret() *cobra.Command {
	only := false
	cmd := &cobra.Command{
		Use: "rotate-secret ID", Short: "Give a client another secret; the one before stays live", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				var n storage.Client
				secret := ""
				err := audited(ctx, db, "client.secret_rotated", args[0], func(ctx context.Context) (err error) {
					n, err = db.ChangeClient(ctx, args[0], func(n *storage.Client) {
						if only {
							n.Secrets.V = nil
						}
						if n.UsesSecret() {
							secret = db.NewClientSecret(n)
						}
					})
					if err == nil && secret == "" {
						err = errors.New("does not authenticate by a secret")
					}
					return err
				})
				if err != nil {
					return err
				}
				return c.printClient(cmd, n, secret)
			})
		},
	}
	cmd.Flags().BoolVar(&only, "only", false, "no other secret stays live")
	return cmd
}

func (c *command) clientDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete ID", Short: "Shut a client for good; its tokens die at once", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				err := audited(ctx, db, "client.deleted", args[0], func(ctx context.Context) error {
					return db.DeleteClient(ctx, args[0], storage.Now())
				})
				if err != nil {
					return err
				}
				return c.print(cmd, map[string]string{"deleted": args[0]}, func() {
					fmt.Fprintln(cmd.OutOrStdout(), "deleted:", args[0])
				})
			})
		},
	}
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
					table(cmd, "ID\tNAME\tAUTHENTICATION\tGRANTS\tBY\tSTATE", func(line func(...any)) {
						for _, v := range views {
							by, state := "operator", "live"
							if v.SelfRegistered {
								by = "itself"
							}
							if v.DisabledAt != nil {
								state = "deleted"
							}
							line(v.ID, v.Name, strings.Join(v.AuthMethods, " "), strings.Join(v.GrantTypes, " "), by, state)
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
				return c.print(cmd, v, func() { showClient(cmd, v) })
			})
		},
	}
}

// showClient prints everything about a client.
func showClient(cmd *cobra.Command, v clientView) {
	table(cmd, "id\t"+v.ID, func(line func(...any)) {
		line("name", v.Name)
		line("authentication", strings.Join(v.AuthMethods, " "))
		for _, made := range v.SecretsMadeAt {
			line("secret made", made.Format(time.RFC3339))
		}
		line("grants", strings.Join(v.GrantTypes, " "))
		line("scopes", strings.Join(v.Scopes, " "))
		line("redirect URIs", strings.Join(v.RedirectURIs, " "))
		line("after sign-out", strings.Join(v.PostLogoutRedirectURIs, " "))
		line("origins", strings.Join(v.Origins, " "))
		line("audience", strings.Join(v.Audience, " "))
		line("ID tokens", v.IDTokenAlg)
		line("may introspect", v.CanIntrospect)
		line("first party", v.FirstParty)
		line("registered itself", v.SelfRegistered)
		line("created", v.CreatedAt.Format(time.RFC3339))
		if v.DisabledAt != nil {
			line("deleted", v.DisabledAt.Format(time.RFC3339))
		}
		if b, err := json.Marshal(v.Metadata); err == nil {
			line("metadata", string(b))
		}
	})
}
