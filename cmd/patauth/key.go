package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

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
	return group("key", "Keys that sign tokens", &cobra.Command{
		Use: "list", Short: "List the keys", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				all, err := db.SigningKeys(ctx)
				if err != nil {
					return err
				}
				views := []keyView{}
				for _, k := range all {
					views = append(views, keyView{k.ID, k.Alg, k.State, k.CreatedAt, k.ActivatedAt, k.RetiredAt})
				}
				return c.print(cmd, views, func() {
					table(cmd, "ID\tALG\tSTATE\tCREATED", func(line func(...any)) {
						for _, v := range views {
							line(v.ID, v.Alg, v.State, v.CreatedAt.Format(time.RFC3339))
						}
					})
				})
			})
		},
	})
}
