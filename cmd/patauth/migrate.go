package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pat-authenticate/patauth/storage"
)

// migrate brings the schema up; plain `patauth migrate` is `migrate up`.
func (c *command) migrate() *cobra.Command {
	up := func(cmd *cobra.Command, _ []string) error {
		return c.migration(cmd, func(db *storage.DB) error {
			done, err := db.Migrate(cmd.Context())
			if err != nil {
				return err
			}
			s, err := db.SchemaStatus(cmd.Context())
			if err != nil {
				return err
			}
			if done == nil {
				done = []string{}
			}
			return c.print(cmd, map[string]any{"applied": done, "version": s.Version}, func() {
				for _, name := range done {
					fmt.Fprintln(cmd.OutOrStdout(), "applied", name)
				}
				fmt.Fprintln(cmd.OutOrStdout(), "the schema is at version", s.Version)
			})
		})
	}
	cmd := &cobra.Command{Use: "migrate", Short: "Bring the database's schema to the newest version", Args: cobra.NoArgs, RunE: up}
	cmd.AddCommand(
		&cobra.Command{Use: "up", Short: "Apply what is missing", Args: cobra.NoArgs, RunE: up},
		&cobra.Command{Use: "status", Short: "Say which version the schema has; fail where it is too old", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return c.migration(cmd, func(db *storage.DB) error {
					s, err := db.SchemaStatus(cmd.Context())
					if err != nil {
						return err
					}
					err = c.print(cmd, s, func() {
						fmt.Fprintf(cmd.OutOrStdout(), "the schema is at version %d of %d\n", s.Version, s.Wanted)
					})
					if err == nil && s.Old() {
						err = fmt.Errorf("the schema is too old")
					}
					return err
				})
			}})
	cmd.PersistentFlags().BoolVar(&c.json, "json", false, "print JSON")
	cmd.PersistentFlags().StringVar(&c.data, "data", "", "work on the patauth dev that keeps its data in `folder`")
	return cmd
}

func (c *command) migration(cmd *cobra.Command, do func(*storage.DB) error) error {
	config, err := c.load("migrate")
	if err != nil {
		return err
	}
	logTo(cmd.ErrOrStderr(), config.Log.Level)
	db, err := openDB(cmd.Context(), config)
	if err != nil {
		return err
	}
	defer db.Close()
	return do(db)
}
