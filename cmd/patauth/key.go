package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/storage"
)

func (c *command) key() *cobra.Command {
	return group("key", "Keys that sign tokens", c.keyList(), c.keyRotate(), c.keyRetire())
}

// keyView is a signing key as it is printed: never its private part.
type keyView struct {
	ID    string    `json:"id"`
	Alg   string    `json:"alg"`
	State string    `json:"state"`
	Since time.Time `json:"since"`
	// Next is what the schedule makes of it at NextAt: active, retired or gone.
	Next        string     `json:"next,omitempty"`
	NextAt      *time.Time `json:"next_at,omitempty"`
	CreatedAt   time.Time  `json:"created_at"`
	ActivatedAt *time.Time `json:"activated_at,omitempty"`
	RetiredAt   *time.Time `json:"retired_at,omitempty"`
}

func (c *command) keyList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the keys: their state, since when, and what becomes of them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				return c.printKeys(ctx, cmd, db, nil)
			})
		},
	}
}

func (c *command) keyRotate() *cobra.Command {
	var (
		algs []string
		now  bool
	)
	cmd := &cobra.Command{
		Use: "rotate", Short: "Make the next keys, or let them sign when they have been published for a day", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			slices.Sort(algs)
			algs = slices.Compact(algs) // to name one twice is no wish for two keys
			for _, alg := range algs {
				if !slices.Contains(keys.Algorithms, alg) {
					return fmt.Errorf("--alg: must be of %s", strings.Join(keys.Algorithms, ", "))
				}
			}
			rotate := keys.Prepare
			if now {
				rotate = keys.Replace
			}
			if len(algs) == 0 {
				algs = keys.Algorithms
			}
			config, err := c.load("migrate")
			if err != nil {
				return err
			}
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				for _, alg := range algs {
					if err := rotate(ctx, db, config.Keys, alg, storage.Now()); err != nil {
						return keysChanged(err)
					}
				}
				if now && !c.json {
					fmt.Fprintln(cmd.OutOrStdout(), "Every replica signs with the new keys within 30 s. Relying parties that cache the\nold set fetch it again on an unknown kid.")
				}
				return c.printKeys(ctx, cmd, db, algs)
			})
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&algs, "alg", nil, "`algorithms`; may be repeated (default: all)")
	f.BoolVar(&now, "now", false, "sign with the new keys at once, before relying parties know them")
	return cmd
}

func (c *command) keyRetire() *cobra.Command {
	compromised := false
	cmd := &cobra.Command{
		Use: "retire KID", Short: "End a key before its time", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			end := keys.Retire
			if compromised {
				end = keys.Compromise
			}
			config, err := c.load("migrate")
			if err != nil {
				return err
			}
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				err := end(ctx, db, config.Keys, args[0], storage.Now())
				if errors.Is(err, keys.ErrNoSuccessor) {
					return fmt.Errorf("%w; patauth key rotate makes one, and with --now does not wait", err)
				}
				if err != nil {
					return keysChanged(err)
				}
				return c.printKeys(ctx, cmd, db, nil)
			})
		},
	}
	cmd.Flags().BoolVar(&compromised, "compromised", false, "somebody else may hold it: trust nothing that it signed; another signs at once")
	return cmd
}

// keysChanged makes it plain when somebody else was faster.
func keysChanged(err error) error {
	if errors.Is(err, storage.ErrSpent) || errors.Is(err, storage.ErrConflict) {
		return fmt.Errorf("the keys were changed meanwhile, see patauth key list: %w", err)
	}
	return err
}

// printKeys shows the keys for algs, nil for all there are, by age.
func (c *command) printKeys(ctx context.Context, cmd *cobra.Command, db *storage.DB, algs []string) error {
	all, err := db.SigningKeys(ctx)
	if err != nil {
		return err
	}
	views := []keyView{}
	for _, k := range all {
		if algs != nil && !slices.Contains(algs, k.Alg) {
			continue
		}
		v := keyView{
			ID: k.ID, Alg: k.Alg, State: k.State, Since: keys.Since(k),
			CreatedAt: k.CreatedAt, ActivatedAt: k.ActivatedAt, RetiredAt: k.RetiredAt,
		}
		if next, at := keys.Next(all, k); next != "" {
			v.Next, v.NextAt = next, &at
		}
		views = append(views, v)
	}
	return c.print(cmd, views, func() {
		table(cmd, "ID\tALG\tSTATE\tSINCE\tNEXT", func(line func(...any)) {
			for _, v := range views {
				next := "unknown to this release"
				if v.NextAt != nil {
					next = v.Next + " " + v.NextAt.Format(time.RFC3339)
				}
				line(v.ID, v.Alg, v.State, v.Since.Format(time.RFC3339), next)
			}
		})
	})
}
