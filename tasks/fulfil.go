package tasks

import (
	"context"
	"crypto/hmac"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hibiken/asynq"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/tasks/queue"
)

// hold is how long a worker keeps a wish to itself: longer than a task may take,
// shorter than the queue waits before it gives a dead worker's task to another.
const hold = 60 * time.Second

// payload is what a task carries.
type payload struct {
	OutboxID string `json:"outbox_id"`
	// MAC shows that one of ours wrote the task: whoever can write to the queue
	// cannot make up work.
	MAC []byte `json:"mac"`
}

const purposeTask = "task"

func encode(db *storage.DB, o storage.Outbox) []byte {
	b, err := json.Marshal(payload{o.ID, db.MAC(purposeTask, []byte(o.Kind+":"+o.ID))})
	if err != nil {
		panic(err) // strings and bytes
	}
	return b
}

// decode is the id of the outbox row that a task stands for.
func decode(db *storage.DB, kind string, b []byte) (id string, ok bool) {
	var p payload
	if err := json.Unmarshal(b, &p); err != nil {
		return "", false
	}
	return p.OutboxID, hmac.Equal(p.MAC, db.MAC(purposeTask, []byte(kind+":"+p.OutboxID)))
}

// fulfil does the job of a task's outbox row, once, however often and in
// however many workers the task runs. A kill between the effect and its record
// repeats the effect; what it leaves behind must tell the repetition.
func (w *Worker) fulfil(do func(context.Context, storage.Outbox) error) asynq.HandlerFunc {
	return func(ctx context.Context, t *asynq.Task) error {
		id, ok := decode(w.DB, t.Type(), t.Payload())
		if !ok {
			macFailures.Inc()
			return fmt.Errorf("task not written by us: %w", asynq.SkipRetry)
		}
		now := storage.Now()
		o, err := w.DB.TakeOutbox(ctx, id, now, now.Add(hold))
		if errors.Is(err, storage.ErrSpent) || errors.Is(err, storage.ErrNotFound) {
			return nil // done, and perhaps tidied away
		} else if err != nil {
			return err
		}
		if o.Attempts > maxRetry+1 {
			return w.failed(ctx, o, errors.New("the worker died of it")) // in its last attempt
		}
		err = safely(ctx, func(ctx context.Context) error { return do(ctx, o) })
		if errors.Is(err, queue.ErrBusy) {
			return errors.Join(err, w.DB.PostponeOutbox(ctx, o))
		} else if err != nil {
			return w.failed(ctx, o, err)
		}
		// What is done is recorded also where the task's time is over.
		ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer stop()
		if err := w.DB.FinishOutbox(ctx, o.ID, storage.Now()); err != nil && !errors.Is(err, storage.ErrSpent) {
			return err
		}
		return nil
	}
}

// failed lets a wish go after a failed attempt, and gives it up after the last.
// The row counts the attempts: the queue may forget.
func (w *Worker) failed(ctx context.Context, o storage.Outbox, cause error) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer stop()
	if o.Attempts <= maxRetry && !errors.Is(cause, asynq.SkipRetry) {
		return errors.Join(cause, w.DB.ReleaseOutbox(ctx, o, word(cause)))
	}
	if err := w.DB.FailOutbox(ctx, o.ID, word(cause), storage.Now()); err != nil {
		return errors.Join(cause, err) // the sweep starts it again, for the record
	}
	return fmt.Errorf("%w (%w)", cause, asynq.SkipRetry)
}

// word is what the row says about a failed attempt. The cause itself is in the
// log line.
func word(cause error) string {
	switch {
	case errors.Is(cause, ErrRefused), errors.Is(cause, queue.ErrRefused):
		return "refused"
	case errors.Is(cause, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(cause, storage.ErrUnavailable):
		return "database"
	}
	return "error"
}

// deadLetter publishes a quarantined lab event.
func (w *Worker) deadLetter(ctx context.Context, o storage.Outbox) error {
	var j queue.DeadLetter
	if err := json.Unmarshal([]byte(o.Payload), &j); err != nil {
		return fmt.Errorf("dead letter: %w", err)
	}
	return w.DeadLetter(ctx, j.EventID)
}
