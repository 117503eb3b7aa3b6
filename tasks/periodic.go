package tasks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/hibiken/asynq"

	"github.com/pat-authenticate/patauth/storage"
)

const (
	// batch bounds the rows that one transaction of a task touches, so that its
	// locks are short; a task goes on until a batch is not full.
	batch = 1000
	// lostAfter is when a task that was relayed and not done counts as lost.
	lostAfter = 2 * time.Minute
	// archivedKept is how long the queue remembers what failed for good.
	archivedKept = 7 * 24 * time.Hour
)

// expireSessions ends the sessions whose time is over.
func (w *Worker) expireSessions(ctx context.Context) error {
	total := 0
	err := repeat(ctx, runFor, func(ctx context.Context) (more bool, err error) {
		n, err := w.DB.ExpireSessions(ctx, storage.Now(), batch/5) // each with the clients that are to be told
		total += n
		return n == batch/5, err
	})
	note(ctx, "expire sessions", total)
	return err
}

// deleteExpired removes what has expired and no request can need any more, from
// all tables by turns: a flood in one does not keep the others waiting.
func (w *Worker) deleteExpired(ctx context.Context) error {
	now := storage.Now()
	type removal func(context.Context, time.Time, int) (int, error)
	left := map[string]removal{"archived tasks": w.deleteArchived}
	tables, _ := storage.Expiring()
	for _, table := range tables {
		left[table] = func(ctx context.Context, now time.Time, limit int) (int, error) {
			return w.DB.DeleteExpired(ctx, table, now, limit)
		}
	}
	if w.AuditKept > 0 {
		left["audit_event"] = func(ctx context.Context, now time.Time, limit int) (int, error) {
			return w.DB.DeleteAudit(ctx, now.Add(-w.AuditKept), limit)
		}
	}
	gone, faults := map[string]int{}, map[string]error{}
	repeat(ctx, runFor, func(ctx context.Context) (more bool, err error) {
		for _, what := range slices.Sorted(maps.Keys(left)) {
			n, err := left[what](ctx, now, batch)
			gone[what] += n
			if err != nil {
				faults[what] = fmt.Errorf("delete expired %s: %w", what, err)
			}
			if err != nil || n < batch {
				delete(left, what)
			}
		}
		return len(left) > 0, nil
	})
	for _, what := range slices.Sorted(maps.Keys(gone)) {
		note(ctx, "delete expired "+what, gone[what])
	}
	return errors.Join(slices.Collect(maps.Values(faults))...)
}

// sweepOutbox relays anew what the queue has lost.
func (w *Worker) sweepOutbox(ctx context.Context) error {
	now, total := storage.Now(), 0
	err := repeat(ctx, runFor, func(ctx context.Context) (more bool, err error) {
		n, err := w.DB.SweepOutbox(ctx, now.Add(-lostAfter), batch)
		total += n
		return n == batch, err
	})
	note(ctx, "sweep outbox", total)
	return err
}

// deleteArchived makes the queue forget tasks that failed for good long ago.
func (w *Worker) deleteArchived(_ context.Context, now time.Time, limit int) (int, error) {
	before := now.Add(-archivedKept)
	tasks, err := w.inspector.ListArchivedTasks(queueName, asynq.PageSize(limit))
	n := 0
	for _, t := range tasks {
		if !t.LastFailedAt.Before(before) {
			continue
		}
		if err := w.inspector.DeleteTask(queueName, t.ID); err != nil && !errors.Is(err, asynq.ErrTaskNotFound) {
			return n, err
		}
		n++
	}
	return n, err
}

// syncUsers brings every account's link in line with its lab record, should an
// event have been missed.
func (w *Worker) syncUsers(ctx context.Context) error {
	w.syncing.Lock()
	defer w.syncing.Unlock()
	total := 0
	err := repeat(ctx, runFor, func(ctx context.Context) (more bool, err error) {
		n, last, err := w.DB.ReconcileLinks(ctx, storage.Now(), w.synced, batch)
		total += n
		if !errors.Is(err, storage.ErrUnavailable) {
			w.synced = last // also past what fails: the rest is not kept waiting by it
		}
		return last != "" || n >= batch, err
	})
	note(ctx, "sync users with lis records", total)
	return err
}

// bindRows seals to their owners what releases that did not have left in the
// database; with storage.refuse_unbound there is nothing to do.
func (w *Worker) bindRows(ctx context.Context) error {
	total := 0
	err := repeat(ctx, runFor, func(ctx context.Context) (more bool, err error) {
		n, err := w.DB.BindCredentials(ctx, batch)
		total += n
		return n == batch, err
	})
	n, clients := w.DB.BindClients(ctx)
	note(ctx, "bind secrets to their owners", total+n)
	return errors.Join(err, clients)
}

// runFor is how long one run of a periodic task goes on: it must end before
// taskTimeout.
const runFor = 20 * time.Second

// repeat does step until it has no more to do or the time is over; the next run
// goes on from there. Between two steps it rests for as long as the first took:
// the database is never more than half busy with it.
func repeat(ctx context.Context, within time.Duration, step func(context.Context) (more bool, err error)) error {
	end := time.Now().Add(within)
	for {
		start := time.Now()
		more, err := step(ctx)
		took := time.Since(start)
		if err != nil || !more || time.Now().Add(took).After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(took):
		}
	}
}

// healthCheck asks every dependency: the worker that draws it has reached them all.
// Each process shows its own answers when it is scraped (Collect).
func (w *Worker) healthCheck(ctx context.Context) error {
	checks := map[string]func(context.Context) error{"queue": func(ctx context.Context) error {
		_, err := w.watchQueue(ctx)
		return err
	}}
	maps.Copy(checks, w.Checks)
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(checks)) {
		if err := checks[name](ctx); err != nil {
			faults = append(faults, fmt.Errorf("health of %s: %w", name, err))
		}
	}
	return errors.Join(faults...)
}

func note(ctx context.Context, what string, n int) {
	if n > 0 {
		slog.InfoContext(ctx, what, "rows", n)
	}
}
