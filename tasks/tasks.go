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
	"crypto/hmac"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/hibiken/asynq"

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
	// Checks are asked every minute, by name, and shown in the metrics.
	Checks map[string]func(context.Context) error
	// Concurrency is how many tasks run at once; 0 means 10.
	Concurrency int
}

// Worker takes tasks from the queue.
type Worker struct {
	Config
	server *asynq.Server
}

// NewWorker is a worker that has not started.
func NewWorker(c Config) *Worker {
	if c.Concurrency == 0 {
		c.Concurrency = 10
	}
	w := &Worker{Config: c}
	w.server = asynq.NewServer(c.Redis.opt, asynq.Config{
		Concurrency: c.Concurrency, Logger: quiet{}, LogLevel: asynq.WarnLevel,
		DelayedTaskCheckInterval: time.Second, TaskCheckInterval: 500 * time.Millisecond, ShutdownTimeout: 20 * time.Second,
		// 2, 4, 8, … seconds, and nobody in step with anybody.
		RetryDelayFunc: func(n int, _ error, t *asynq.Task) time.Duration {
			return time.Duration(1<<min(n+1, 8))*time.Second + time.Duration(len(t.Payload())%7)*100*time.Millisecond
		},
	})
	return w
}

// jobs is every kind of job and who does it.
func (w *Worker) jobs() map[string]func(context.Context, storage.Outbox) error {
	return map[string]func(context.Context, storage.Outbox) error{
		queue.VerifyEmail{}.Kind():   w.verifyEmail,
		queue.AccountExists{}.Kind(): w.accountExists,
		queue.Notice{}.Kind():        w.notice,
		queue.DeadLetter{}.Kind():    w.deadLetter,
	}
}

// Run works until ctx ends, then lets running tasks finish.
func (w *Worker) Run(ctx context.Context) error {
	mux := asynq.NewServeMux()
	mux.Use(w.watched)
	for kind, do := range w.jobs() {
		mux.Handle(kind, w.fulfil(do))
	}
	for _, p := range w.schedule() {
		mux.HandleFunc(periodic+p.name, func(ctx context.Context, _ *asynq.Task) error { return w.runPeriodic(ctx, p) })
	}
	if err := w.server.Start(mux); err != nil {
		return fmt.Errorf("start worker: %w", err)
	}
	<-ctx.Done()
	w.server.Shutdown()
	return nil
}

// Ping reports whether the queue answers.
func (w *Worker) Ping() error { return w.server.Ping() }

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

// fulfil does the job of a task's outbox row, once.
func (w *Worker) fulfil(do func(context.Context, storage.Outbox) error) asynq.Handler {
	return asynq.HandlerFunc(func(ctx context.Context, t *asynq.Task) error {
		var p payload
		if err := json.Unmarshal(t.Payload(), &p); err != nil ||
			!hmac.Equal(p.MAC, w.DB.MAC(purposeTask, []byte(t.Type()+":"+p.OutboxID))) {
			macFailures.Inc()
			return fmt.Errorf("task not written by us: %w", asynq.SkipRetry)
		}
		o, err := w.DB.OutboxByID(ctx, p.OutboxID)
		if errors.Is(err, storage.ErrSpent) || errors.Is(err, storage.ErrNotFound) {
			return nil // done, and perhaps tidied away
		} else if err != nil {
			return err
		}
		if err := do(ctx, o); err != nil {
			return w.failed(ctx, o, err)
		}
		if err := w.DB.FinishOutbox(ctx, o.ID, storage.Now()); err != nil && !errors.Is(err, storage.ErrSpent) {
			return err
		}
		return nil
	})
}

// failed gives a wish up when its last try is over.
func (w *Worker) failed(ctx context.Context, o storage.Outbox, cause error) error {
	n, _ := asynq.GetRetryCount(ctx)
	last, _ := asynq.GetMaxRetry(ctx)
	if n < last && !errors.Is(cause, asynq.SkipRetry) {
		return cause
	}
	if err := w.DB.FailOutbox(context.WithoutCancel(ctx), o.ID, "retries used up", storage.Now()); err != nil {
		return errors.Join(cause, err)
	}
	return cause
}

// watched counts a task and writes its one log line; a panic is an error.
func (w *Worker) watched(next asynq.Handler) asynq.Handler {
	return asynq.HandlerFunc(func(ctx context.Context, t *asynq.Task) (err error) {
		start := time.Now()
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
				slog.ErrorContext(ctx, "task panic", "stack", string(debug.Stack()))
			}
			id, _ := asynq.GetTaskID(ctx)
			retry, _ := asynq.GetRetryCount(ctx)
			line := []any{"task", t.Type(), "task_id", id, "retry", retry, "duration_ms", time.Since(start).Milliseconds()}
			if err != nil {
				tasksDone.WithLabelValues(t.Type(), "error").Inc()
				slog.ErrorContext(ctx, "task failed", append(line, "event", "task.failed", "error", err.Error())...)
				return
			}
			tasksDone.WithLabelValues(t.Type(), "ok").Inc()
			slog.InfoContext(ctx, "task", line...)
		}()
		return next.ProcessTask(ctx, t)
	})
}

// deadLetter publishes a quarantined lab event.
func (w *Worker) deadLetter(ctx context.Context, o storage.Outbox) error {
	var j queue.DeadLetter
	if err := json.Unmarshal([]byte(o.Payload), &j); err != nil {
		return fmt.Errorf("dead letter: %w", err)
	}
	return w.DeadLetter(ctx, j.EventID)
}

// quiet is asynq's logger: its words go to slog, where they are warnings.
type quiet struct{}

func (quiet) Debug(...any)      {}
func (quiet) Info(...any)       {}
func (quiet) Warn(args ...any)  { slog.Warn("queue", "said", fmt.Sprint(args...)) }
func (quiet) Error(args ...any) { slog.Error("queue", "said", fmt.Sprint(args...)) }
func (quiet) Fatal(args ...any) { slog.Error("queue", "said", fmt.Sprint(args...)) }

// Redis says where the queue is.
type Redis struct{ opt asynq.RedisConnOpt }

// ParseRedis reads redis://, rediss://, redis-socket:// and redis-sentinel://
// URLs; several redis:// URLs separated by commas are a cluster.
func ParseRedis(url string) (Redis, error) {
	if strings.Contains(url, ",") && !strings.HasPrefix(url, "redis-sentinel:") {
		var c asynq.RedisClusterClientOpt
		for _, u := range strings.Split(url, ",") {
			opt, err := asynq.ParseRedisURI(strings.TrimSpace(u))
			one, ok := opt.(asynq.RedisClientOpt)
			if err != nil || !ok {
				return Redis{}, errRedis
			}
			c.Addrs = append(c.Addrs, one.Addr)
			c.Username, c.Password, c.TLSConfig = one.Username, one.Password, one.TLSConfig
		}
		return Redis{c}, nil
	}
	opt, err := asynq.ParseRedisURI(url)
	if err != nil {
		return Redis{}, errRedis // the parser's error repeats the URL and its password
	}
	return Redis{opt}, nil
}

var errRedis = errors.New("not a redis://, rediss:// or redis-sentinel:// URL")
