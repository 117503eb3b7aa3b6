package tasks

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hibiken/asynq"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/tasks/queue"
)

// A periodicTask is work that comes round. It is bounded and may run twice.
type periodicTask struct {
	name  string
	every time.Duration
	run   func(context.Context) error
}

// schedule is every periodic task.
func (w *Worker) schedule() []periodicTask {
	return []periodicTask{
		{queue.ExpireSessions, time.Minute, w.expireSessions},
		{queue.DeleteExpired, time.Minute, w.deleteExpired},
		{queue.SweepOutbox, time.Minute, w.sweepOutbox},
		{queue.SyncUsers, 5 * time.Minute, w.syncUsers},
		{queue.HealthCheck, time.Minute, w.healthCheck},
		{queue.BindRows, 5 * time.Minute, w.bindRows},
		{queue.RotateKeys, 15 * time.Minute, w.rotateKeys},
	}
}

// EnqueueDue enqueues each periodic task whose slot has come since it was last
// enqueued: once for all slots that were missed, and once however many call.
// The task's name holds its slot, so a second caller finds the name taken; the
// slot is recorded after the queue has the task, so a kill between the two
// loses nothing. It returns the names it enqueued.
func EnqueueDue(ctx context.Context, db *storage.DB, redis Redis, now time.Time) ([]string, error) {
	client := asynq.NewClient(redis.opt)
	defer client.Close()
	var names []string
	for _, p := range (&Worker{}).schedule() {
		took, err := enqueueSlot(ctx, db, client, p, now)
		if err != nil {
			return names, err // the next tick catches up
		}
		if took {
			names = append(names, p.name)
		}
	}
	return names, nil
}

func enqueueSlot(ctx context.Context, db *storage.DB, client *asynq.Client, p periodicTask, now time.Time) (bool, error) {
	slot := now.UTC().Truncate(p.every)
	last, err := db.LastSlot(ctx, p.name)
	if err != nil {
		return false, fmt.Errorf("periodic %s: %w", p.name, err)
	}
	if !slot.After(last) {
		return false, nil
	}
	name := p.name + "@" + strconv.FormatInt(slot.Unix(), 10)
	// One retry, for a worker that dies of something else.
	err = enqueue(ctx, client, asynq.NewTask(periodic+p.name, nil), name, 1, 2*p.every)
	if err != nil && !errors.Is(err, asynq.ErrTaskIDConflict) {
		return false, err
	}
	switch err := db.TakeSlot(ctx, p.name, slot); {
	case errors.Is(err, storage.ErrSpent):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("periodic %s: %w", p.name, err)
	}
	return true, nil
}

// superseded reports whether a task's name holds a slot before the last one: a
// later task does its work.
func superseded(name string, last time.Time) bool {
	_, slot, _ := strings.Cut(name, "@")
	n, err := strconv.ParseInt(slot, 10, 64)
	return err == nil && n < last.Unix()
}

// runPeriodic runs p and records how it ended. The retry of a failed run is the
// next slot's; of the runs that piled up without a worker the last one counts.
func (w *Worker) runPeriodic(ctx context.Context, p periodicTask) error {
	last, err := w.DB.LastSlot(ctx, p.name)
	if id, _ := asynq.GetTaskID(ctx); err == nil && superseded(id, last) {
		return nil
	}
	err = safely(ctx, p.run)
	outcome := "ok"
	if err != nil {
		outcome = "error"
	}
	cronRuns.WithLabelValues(p.name, outcome).Inc()
	if err := errors.Join(err, w.DB.FinishPeriodic(ctx, p.name, outcome, storage.Now())); err != nil {
		return fmt.Errorf("%w (%w)", err, asynq.RevokeTask)
	}
	return nil
}
