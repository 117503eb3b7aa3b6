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
	db        *storage.DB
	client    *asynq.Client
	inspector *asynq.Inspector
}

const (
	relayEvery = 2 * time.Second
	relayBatch = 100
	// relayFor is how long one round may take: a queue or a database that says
	// nothing ends it, and the sweep frees what it had claimed.
	relayFor = 30 * time.Second
)

// NewRelay is a relay to the queue at redis.
func NewRelay(db *storage.DB, redis Redis) *Relay {
	return &Relay{db: db, client: asynq.NewClient(redis.opt), inspector: asynq.NewInspector(redis.opt)}
}

// Run relays until ctx ends. No request waits for it.
func (r *Relay) Run(ctx context.Context) error {
	defer r.client.Close()
	defer r.inspector.Close()
	wait := relayEvery
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.db.Wished():
		case <-time.After(wait):
		}
		round, cancel := context.WithTimeout(ctx, relayFor)
		err := r.Once(round)
		cancel()
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

// enqueue puts the task of o into the queue. The same task waiting or running
// there is success. One that is over there, though o is not fulfilled, ran out
// of retries by a worker's death or its database's absence: it starts again.
func (r *Relay) enqueue(ctx context.Context, o storage.Outbox) error {
	again := func() error {
		return enqueue(ctx, r.client, asynq.NewTask(o.Kind, encode(r.db, o)), o.ID, maxRetry, retention)
	}
	err := again()
	if !errors.Is(err, asynq.ErrTaskIDConflict) {
		return err
	}
	info, err := r.inspector.GetTaskInfo(queueName, o.ID)
	switch {
	case err == nil && (info.State == asynq.TaskStateArchived || info.State == asynq.TaskStateCompleted):
		if err = r.inspector.DeleteTask(queueName, o.ID); err == nil {
			err = again()
		}
	case err == nil:
		return nil
	}
	if errors.Is(err, asynq.ErrTaskIDConflict) || errors.Is(err, asynq.ErrTaskNotFound) {
		return nil // somebody else was faster; should the task be lost, the sweep finds out
	}
	return err
}
