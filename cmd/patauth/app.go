package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/pat-authenticate/patauth/provider"
	"github.com/pat-authenticate/patauth/provider/admin"
	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/provider/oauth"
	"github.com/pat-authenticate/patauth/provider/outbound"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/tasks"
)

// workload is a command that loads its configuration, sets the log up, opens the
// database and runs until it is told to stop.
func (c *command) workload(name, short string, do func(context.Context, Config, *storage.DB) error) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			logTo(cmd.ErrOrStderr(), 0)
			config, err := c.load(name)
			if err != nil {
				return err
			}
			logTo(cmd.ErrOrStderr(), config.Log.Level)
			db, err := openCurrent(cmd.Context(), config)
			if err != nil {
				return err
			}
			defer db.Close()
			return do(storage.WithActor(cmd.Context(), storage.System), config, db)
		},
	}
}

// app answers patients and relying parties.
func (c *command) app() *cobra.Command {
	return c.workload("app", "Answer patients and relying parties", func(ctx context.Context, config Config, db *storage.DB) error {
		signing, err := keys.Open(ctx, db, config.Keys)
		if err != nil {
			return err
		}
		site, err := openSite(config, db)
		if err != nil {
			return err
		}
		public, err := provider.New(config.provider(db, signing, site))
		if err != nil {
			return err
		}
		redis, err := tasks.ParseRedis(string(config.Redis.URL))
		if err != nil {
			return err
		}
		open, err := listen("listen", config.Listen)
		if err != nil {
			return err
		}
		health := &provider.Health{DB: db, Fresh: signing.Fresh}
		if config.Admin.Token != "" {
			if health.Admin, err = admin.New(db, site, string(config.Admin.Token)); err != nil {
				return err
			}
		}
		internal, err := internalJob(config, health)
		if err != nil {
			return err
		}
		return run(ctx, health, config.Drain,
			serve(open, public, nil), internal, signing.Run, tasks.NewRelay(db, redis).Run)
	})
}

// provider is what the public listener is put together from.
func (c Config) provider(db *storage.DB, signing *keys.Keys, site *web.Site) provider.Config {
	p := provider.Config{
		DB: db, Keys: signing, Site: site, Session: c.Session, Login: c.Login, Outbound: c.outbound(),
		PKCE: c.OAuth.PKCE, Registration: oauth.Registration{Open: c.Registration.Mode == "open"},
	}
	if c.Registration.Mode == "token" {
		p.Registration.Token = string(c.Registration.Token)
	}
	return p
}

// outbound reaches the servers of clients. Validate has seen the networks.
func (c Config) outbound() *outbound.Client {
	networks, _ := web.ParseProxies(c.Outbound.Networks)
	return outbound.New(outbound.Config{Networks: networks})
}

// internalJob answers for the process's health on the internal listener.
func internalJob(c Config, health *provider.Health) (job, error) {
	l, err := listen("internal_listen", c.InternalListen)
	if err != nil {
		return nil, err
	}
	return serveInternal(l, health.Internal()), nil
}
