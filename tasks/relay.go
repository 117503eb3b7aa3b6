package tasks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hibiken/asynq"

	"github.com/pat-authenticate/patauth/storage"
)

// Relay carries wishes from the outbox to the queue: right after the commit that
// made them, and every few seconds whatever others left behind.
type Relay struct {
	db     *storage.DB
	client *asynq.Client
}

const (
	relayEvery = 2 * time.Second
	relayBatch = 100
)

// NewRelay is a relay to the queue at redis.
func NewRelay(db *storage.DB, redis Redis) *Relay {
	return &Relay{db: db, client: asynq.NewClient(redis.opt)}
}

// Run relays until ctx ends. No request waits for it.
func (r *Relay) Run(ctx context.Context) error {
	defer r.client.Close()
	wait := relayEvery
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.db.Wished():
		case <-time.After(wait):
		}
		err := r.Once(ctx)
		switch {
		case err == nil:
			wait = relayEvery
		case ctx.Err() == nil:
			wait = min(2*wait, 30*time.Second)
			slog.WarnContext(ctx, "relay tasks", "event", "task.relay.failed", "error", err.Error())
		}
	}
}

// Once relays what is there now.
func (r *Relay) Once(ctx context.Context) error {
	for {
		rows, err := r.db.ClaimOutbox(ctx, relayBatch, storage.Now())
		if err != nil {
			return fmt.Errorf("claim outbox: %w", err)
		}
		for i, o := range rows {
			if err := r.enqueue(ctx, o); err != nil {
				// The rest goes back, also where ctx has ended meanwhile.
				if back := r.db.ReturnOutbox(context.WithoutCancel(ctx), rows[i:]); back != nil {
					err = errors.Join(err, back) // the sweep frees them
				}
				return err
			}
		}
		if len(rows) < relayBatch {
			return nil
		}
	}
}

func (r *Relay) enqueue(ctx context.Context, o storage.Outbox) error {
	return enqueue(ctx, r.client, asynq.NewTask(o.Kind, encode(r.db, o)), o.ID, retention)
}

// enqueue puts a task into the queue under a name. A name that is taken, by the
// same task waiting or done, is success.
func enqueue(ctx context.Context, c *asynq.Client, t *asynq.Task, name string, keep time.Duration) error {
	ctx, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	_, err := c.EnqueueContext(ctx, t, asynq.TaskID(name), asynq.MaxRetry(maxRetry), asynq.Timeout(taskTimeout), asynq.Retention(keep))
	if err != nil && !errors.Is(err, asynq.ErrTaskIDConflict) {
		return fmt.Errorf("enqueue %s: %w", t.Type(), err)
	}
	return nil
}
