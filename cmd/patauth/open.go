package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/templates"
)

// load reads the configuration for a workload; with --data it is that of a
// development installation. All problems come in one error.
func (c *command) load(workload string) (Config, error) {
	if c.data != "" {
		return installed(c.data)
	}
	config, err := loadConfig(c.config, c.environ)
	if !errors.Is(err, errUnread) {
		err = errors.Join(err, config.Validate(workload))
	}
	if err != nil {
		return config, fmt.Errorf("configuration:\n%w", err)
	}
	return config, nil
}

// openDB opens the database of c with the keys of its keyring. There is no
// default key: what the keyring cannot unseal stays sealed.
func openDB(ctx context.Context, c Config) (*storage.DB, error) {
	keyring, err := storage.ReadKeyring(c.Storage.Keyring)
	if err != nil {
		return nil, fmt.Errorf("storage.keyring: %w", err)
	}
	db, err := storage.Open(ctx, storage.Config{DSN: string(c.Storage.DSN), Keys: keyring, MaxConns: c.Storage.MaxConns,
		PgBouncer: c.Storage.PgBouncer, RefuseUnbound: c.Storage.RefuseUnbound})
	if err != nil {
		return nil, fmt.Errorf("storage.dsn: %w", err)
	}
	return db, nil
}

// openCurrent is openDB for workloads: the schema must be as new as the program.
func openCurrent(ctx context.Context, c Config) (*storage.DB, error) {
	db, err := openDB(ctx, c)
	if err != nil {
		return nil, err
	}
	schema, err := db.SchemaStatus(ctx)
	if err == nil && schema.Old() {
		err = fmt.Errorf("the schema is at version %d and must be at %d: run patauth migrate", schema.Version, schema.Wanted)
	}
	if err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

// openSite reads the pages that the issuer shows.
func openSite(c Config, db *storage.DB) (*web.Site, error) {
	pages, err := templates.New(c.Templates.Dir)
	if err != nil {
		return nil, err
	}
	proxies, err := web.ParseProxies(c.TrustedProxies)
	if err != nil {
		return nil, fmt.Errorf("trusted_proxies: %w", err)
	}
	return &web.Site{Issuer: c.Issuer, Pages: pages, Proxies: proxies, DB: db}, nil
}

// withDB runs do for an operator's command on an open database.
func (c *command) withDB(cmd *cobra.Command, do func(context.Context, *storage.DB) error) error {
	return c.withConfig(cmd, func(ctx context.Context, _ Config, db *storage.DB) error { return do(ctx, db) })
}

// withConfig is withDB for what also follows the configuration.
func (c *command) withConfig(cmd *cobra.Command, do func(context.Context, Config, *storage.DB) error) error {
	config, err := c.load("migrate")
	if err != nil {
		return err
	}
	db, err := openCurrent(cmd.Context(), config)
	if err != nil {
		return err
	}
	defer db.Close()
	return do(storage.WithActor(cmd.Context(), storage.Operator), config, db)
}

// print shows v as JSON with --json, and in words otherwise.
func (c *command) print(cmd *cobra.Command, v any, words func()) error {
	if !c.json {
		words()
		return nil
	}
	return json.NewEncoder(cmd.OutOrStdout()).Encode(v)
}

// table shows rows under heads.
func table(cmd *cobra.Command, heads string, rows func(line func(cells ...any))) {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, heads)
	rows(func(cells ...any) {
		for i, x := range cells {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, x)
		}
		fmt.Fprintln(w)
	})
	w.Flush()
}
