package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/pat-authenticate/patauth/lis"
	"github.com/pat-authenticate/patauth/provider"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/tasks"
)

// consumer follows the laboratory's topic.
func (c *command) consumer() *cobra.Command {
	return c.workload("consumer", "Follow the laboratory's patient topic", func(ctx context.Context, config Config, db *storage.DB) error {
		feed := lis.NewConsumer(config.feed(), db)
		health := &provider.Health{DB: db, Feed: feed.Ready}
		internal, err := internalJob(config, health)
		if err != nil {
			return err
		}
		jobs := []job{internal, feed.Run}
		if config.Redis.URL != "" { // elsewhere the relay of app or worker carries what this one wishes for
			redis, err := tasks.ParseRedis(string(config.Redis.URL))
			if err != nil {
				return err
			}
			jobs = append(jobs, tasks.NewRelay(db, redis).Run)
		}
		// Nobody is sent here, so there is nobody to wait for.
		return run(ctx, health, 0, jobs...)
	})
}

// feed is where the laboratory speaks.
func (c Config) feed() lis.Config {
	s := c.Kafka.Security
	return lis.Config{
		Brokers: c.Kafka.Brokers, Topic: c.LIS.Topic, DeadLetterTopic: c.LIS.DeadLetterTopic, Group: c.LIS.Group,
		Reading:   lis.Reading{ContentType: c.LIS.ContentType, Training: c.LIS.Training},
		Mechanism: s.Mechanism, Username: s.Username, Password: string(s.Password),
		TLS: s.TLS, CA: s.CA, Cert: s.Cert, Key: s.Key,
	}
}
