package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/tasks"
)

// cron enqueues the periodic tasks that are due, and ends. It runs every minute;
// a minute too many or too few does no harm.
func (c *command) cron() *cobra.Command {
	return c.workload("cron", "Enqueue the periodic tasks that are due, and end", func(ctx context.Context, config Config, db *storage.DB) error {
		redis, err := tasks.ParseRedis(string(config.Redis.URL))
		if err != nil {
			return err
		}
		// The next one comes in a minute.
		ctx, cancel := context.WithTimeout(ctx, 50*time.Second)
		defer cancel()
		names, err := tasks.EnqueueDue(ctx, db, redis, storage.Now())
		slog.InfoContext(ctx, "cron", "event", "cron.enqueued", "tasks", names)
		return err
	})
}
