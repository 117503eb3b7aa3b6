package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pat-authenticate/patauth/provider"
	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/provider/oauth"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/tasks"
)

// worker does what was wished for: mails, dead letters, sign-outs at clients and
// the periodic tasks.
func (c *command) worker() *cobra.Command {
	return c.workload("worker", "Send mails and do the periodic tasks", func(ctx context.Context, config Config, db *storage.DB) error {
		site, err := openSite(config, db)
		if err != nil {
			return err
		}
		redis, err := tasks.ParseRedis(string(config.Redis.URL))
		if err != nil {
			return err
		}
		send, err := tasks.SMTP{
			Host: config.SMTP.Host, Port: config.SMTP.Port, Username: config.SMTP.Username, Password: string(config.SMTP.Password),
			From: config.SMTP.From, Plain: config.SMTP.StartTLS == "none", Issuer: config.Issuer,
		}.Sender()
		if err != nil {
			return err
		}
		deadLetter, closed, err := deadLetters(config, db)
		if err != nil {
			return err
		}
		defer closed()
		signing, err := keys.Open(ctx, db, config.Keys)
		if err != nil {
			return err
		}
		work := tasks.NewWorker(tasks.Config{
			DB: db, Redis: redis, Send: send, Issuer: config.Issuer, Pages: site.Pages,
			DeadLetter: deadLetter, Logout: logouts(config, db, signing), Checks: checks(db), AuditKept: config.Storage.AuditKept, Keys: config.Keys,
		})
		health := &provider.Health{DB: db, Fresh: signing.Fresh, Watch: work}
		internal, err := internalJob(config, health)
		if err != nil {
			return err
		}
		return run(ctx, health, config.Drain, internal, work.Run, tasks.NewRelay(db, redis).Run, signing.Run)
	})
}

// logouts tells clients that a session has ended.
func logouts(config Config, db *storage.DB, signing *keys.Keys) func(ctx context.Context, clientID, sessionID string) error {
	b := &oauth.Backchannel{DB: db, Keys: signing, Issuer: config.Issuer, Outbound: config.outbound()}
	return b.Tell
}

// checks are what the task health_check asks of the parts around.
func checks(db *storage.DB) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"database": db.Ping,
		"schema": func(ctx context.Context) error {
			s, err := db.SchemaStatus(ctx)
			if err == nil && s.Old() {
				err = fmt.Errorf("version %d of %d", s.Version, s.Wanted)
			}
			return err
		},
	}
}
