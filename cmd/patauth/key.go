package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/storage"
)

// keyView is a signing key as it is printed: never its private part.
type keyView struct {
	ID          string     `json:"id"`
	Alg         string     `json:"alg"`
	State       string     `json:"state"`
	CreatedAt   time.Time  `json:"created_at"`
	ActivatedAt *time.Time `json:"activated_at,omitempty"`
	RetiredAt   *time.Time `json:"retired_at,omitempty"`
}

func (c *command) key() *cobra.Command {
	return group("key", "Keys that sign tokens", c.keyList(), c.keyRotate(), c.keyRetire())
}

func (c *command) keyList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the keys, and what becomes of them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error { return c.printKeys(cmd, db) })
		},
	}
}

func (c *command) printKeys(cmd *cobra.Command, db *storage.DB) error {
	all, err := db.SigningKeys(cmd.Context())
	if err != nil {
		return err
	}
	views := []keyView{}
	for _, k := range all {
		views = append(views, keyView{k.ID, k.Alg, k.State, k.CreatedAt, k.ActivatedAt, k.RetiredAt})
	}
	return c.print(cmd, views, func() {
		table(cmd, "ID\tALG\tSTATE\tNEXT", func(line func(...any)) {
			for _, v := range views {
				line(v.ID, v.Alg, v.State, v.next())
			}
		})
	})
}

// next is what the schedule has in store for a key.
func (v keyView) next() string {
	switch {
	case v.State == storage.KeyPending:
		return "signs from " + v.CreatedAt.Add(keys.PublishBefore).Format(time.RFC3339)
	case v.State == storage.KeyActive && v.ActivatedAt != nil:
		return "signs until " + v.ActivatedAt.Add(keys.SignFor).Format(time.RFC3339)
	case v.State == storage.KeyRetired && v.RetiredAt != nil:
		return "published until " + v.RetiredAt.Add(keys.KeepAfter).Format(time.RFC3339)
	}
	return ""
}

func (c *command) keyRotate() *cobra.Command {
	var (
		algs []string
		now  bool
	)
	cmd := &cobra.Command{
		Use: "rotate", Short: "Make new keys that sign a day from now", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, alg := range algs {
				if !slices.Contains(keys.Algorithms, alg) {
					return fmt.Errorf("--alg: must be of %s", strings.Join(keys.Algorithms, ", "))
				}
			}
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				for _, alg := range algs {
					var err error
					if now {
						err = keys.RotateNow(ctx, db, alg, storage.Now())
					} else {
						err = keys.Prepare(ctx, db, alg)
					}
					if err != nil {
						return err
					}
				}
				return c.printKeys(cmd, db)
			})
		},
	}
	cmd.Flags().StringSliceVar(&algs, "alg", keys.Algorithms, "algorithms")
	cmd.Flags().BoolVar(&now, "now", false, "sign with the new keys at once; who keeps the old set must fetch it again")
	return cmd
}

func (c *command) keyRetire() *cobra.Command {
	compromised := false
	cmd := &cobra.Command{
		Use: "retire ID", Short: "End a key before its time", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				if err := keys.Retire(ctx, db, args[0], compromised, storage.Now()); err != nil {
					return fmt.Errorf("key %s: %w", args[0], err)
				}
				return c.printKeys(cmd, db)
			})
		},
	}
	cmd.Flags().BoolVar(&compromised, "compromised", false, "somebody else may have it: nothing that it signed counts, and a new key signs at once")
	return cmd
}
