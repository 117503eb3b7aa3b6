// Package tasks does later what a request may not wait for: mails and dead
// letters that a commit promised, and the work of every minute.
//
// The outbox in the database is the truth; the queue in Redis only wakes a
// worker up. A task carries the id of its outbox row and nothing else, under
// that id as its name, so that a doubled relay is one task; what was fulfilled
// is not done again. Redis may be away, be flushed or be killed: the relay tries
// again, and the sweep relays what was lost.
package tasks

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hibiken/asynq"

	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/tasks/queue"
	"github.com/pat-authenticate/patauth/templates"
)

const (
	maxRetry    = 8
	taskTimeout = 30 * time.Second
	// A task's name stays taken for so long after it is done.
	retention = time.Hour
	periodic  = "periodic:" // prefix of the types of periodic tasks
)

// Config is what a worker works with.
type Config struct {
	DB    *storage.DB
	Redis Redis
	// Send hands a mail over.
	Send   Sender
	Issuer string
	Pages  *templates.Set
	// DeadLetter publishes a quarantined lab event. It may be called again for
	// the same event.
	DeadLetter func(ctx context.Context, eventID string) error
	// Logout tells a client that a session has ended. It may be called again for
	// the same two, and answers queue.ErrRefused where that would be in vain.
	Logout func(ctx context.Context, clientID, sessionID string) error
	// Keys says how the next signing keys are made.
	Keys keys.Config
	// Checks are asked every minute, by name, and shown in the metrics.
	Checks map[string]func(context.Context) error
	// AuditKept is how long audit rows stay; 0 is for ever.
	AuditKept time.Duration
	// Concurrency is how many tasks run at once; 0 means 10.
	Concurrency int
}

// Worker takes tasks from the queue.
type Worker struct {
	Config
	server    *asynq.Server
	inspector *asynq.Inspector
	handlers  map[string]asynq.HandlerFunc // by task type

	watch   watch
	syncing sync.Mutex
	synced  string // the last lab record that syncUsers looked at
}

// NewWorker is a worker that has not started.
func NewWorker(c Config) *Worker {
	if c.Concurrency == 0 {
		c.Concurrency = 10
	}
	w := &Worker{Config: c, handlers: map[string]asynq.HandlerFunc{}, inspector: asynq.NewInspector(c.Redis.opt)}
	w.server = asynq.NewServer(c.Redis.opt, asynq.Config{
		Concurrency: c.Concurrency, Queues: map[string]int{queueName: 1}, Logger: quiet{}, LogLevel: asynq.ErrorLevel,
		DelayedTaskCheckInterval: time.Second, TaskCheckInterval: 500 * time.Millisecond, ShutdownTimeout: 20 * time.Second,
		RetryDelayFunc: retryDelay, IsFailure: func(err error) bool { return !elsewhere(err) },
	})
	for kind, do := range w.jobs() {
		w.handlers[kind] = w.fulfil(do)
	}
	for _, p := range w.schedule() {
		w.handlers[periodic+p.name] = func(ctx context.Context, _ *asynq.Task) error { return w.runPeriodic(ctx, p) }
	}
	return w
}

// jobs is every kind of job and who does it.
func (w *Worker) jobs() map[string]func(context.Context, storage.Outbox) error {
	return map[string]func(context.Context, storage.Outbox) error{
		queue.VerifyEmail{}.Kind():   w.verifyEmail,
		queue.AccountExists{}.Kind(): w.accountExists,
		queue.Notice{}.Kind():        w.notice,
		queue.DeadLetter{}.Kind():    w.deadLetter,

		queue.BackchannelLogout{}.Kind(): w.backchannelLogout,
	}
}

// Run works until ctx ends, then lets running tasks finish.
func (w *Worker) Run(ctx context.Context) error {
	defer w.inspector.Close()
	if err := w.server.Start(asynq.HandlerFunc(w.handle)); err != nil {
		return fmt.Errorf("start worker: %w", err)
	}
	<-ctx.Done()
	w.server.Shutdown()
	return nil
}

// Ping reports whether the queue answers.
func (w *Worker) Ping() error { return w.server.Ping() }

// handle does a task, counts it and writes its one log line.
func (w *Worker) handle(ctx context.Context, t *asynq.Task) error {
	start, kind := time.Now(), t.Type()
	ctx = storage.WithActor(ctx, storage.System)
	do, known := w.handlers[kind]
	if !known {
		kind = "unknown" // whoever writes to the queue must not make up metrics
		do = func(context.Context, *asynq.Task) error {
			return fmt.Errorf("unknown type of task: %w", asynq.SkipRetry)
		}
	}
	err := do(ctx, t)
	id, _ := asynq.GetTaskID(ctx)
	retry, _ := asynq.GetRetryCount(ctx)
	line := []any{"task", kind, "task_id", id, "retry", retry, "duration_ms", time.Since(start).Milliseconds()}
	switch {
	case err == nil:
		tasksDone.WithLabelValues(kind, "ok").Inc()
		slog.InfoContext(ctx, "task", line...)
	case elsewhere(err):
		tasksDone.WithLabelValues(kind, "postponed").Inc()
		slog.WarnContext(ctx, "task postponed", append(line, "event", "task.postponed", "error", err.Error())...)
	case errors.Is(err, asynq.SkipRetry):
		tasksDone.WithLabelValues(kind, "given_up").Inc()
		slog.ErrorContext(ctx, "task given up", append(line, "event", "task.given_up", "error", err.Error())...)
	default:
		tasksDone.WithLabelValues(kind, "error").Inc()
		slog.ErrorContext(ctx, "task failed", append(line, "event", "task.failed", "error", err.Error())...)
	}
	return err
}

// elsewhere reports whether err says nothing about the task itself, so that it
// uses up none of its retries.
func elsewhere(err error) bool {
	return errors.Is(err, storage.ErrUnavailable) || errors.Is(err, storage.ErrHeld) || errors.Is(err, queue.ErrBusy)
}

// retryDelay is 2, 6, 18, … seconds after the first, second, third failure, up
// to an hour: eight retries outlast a mail server that is down or greylists for
// more than an hour. A task whose worker died starts again soon. No two
// tasks are in step.
func retryDelay(failures int, err error, t *asynq.Task) time.Duration {
	d := 2 * time.Second
	if !elsewhere(err) && !errors.Is(err, asynq.ErrLeaseExpired) {
		for range failures {
			d = min(3*d, 50*time.Minute)
		}
	}
	return d + d/5*time.Duration(crc32.ChecksumIEEE(t.Payload())%1000)/1000
}

// safely turns a panic of do into an error.
func safely(ctx context.Context, do func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
			slog.ErrorContext(ctx, "task panic", "event", "task.panic", "stack", string(debug.Stack()))
		}
	}()
	return do(ctx)
}
