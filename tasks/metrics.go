package tasks

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/storage"
)

var (
	tasksDone = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "patauth_tasks_total", Help: "Tasks by type and outcome.",
	}, []string{"type", "outcome"})
	macFailures = promauto.NewCounter(prometheus.CounterOpts{
		Name: "patauth_task_mac_failures_total", Help: "Tasks in the queue that none of ours wrote.",
	})
	mails = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "patauth_mails_total", Help: "Mails by template and outcome.",
	}, []string{"template", "outcome"})
	cronRuns = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "patauth_cron_runs_total", Help: "Runs of periodic tasks by outcome.",
	}, []string{"job", "outcome"})
)

// What is counted begins with 0, so that the first one is a rise.
func init() {
	for kind := range (&Worker{}).jobs() {
		for _, outcome := range []string{"sent", "late", "suppressed", "error"} {
			mails.WithLabelValues(kind, outcome)
		}
	}
	kinds := slices.Collect(maps.Keys((&Worker{}).jobs()))
	for _, p := range (&Worker{}).schedule() {
		kinds = append(kinds, periodic+p.name)
		for _, outcome := range []string{"ok", "error"} {
			cronRuns.WithLabelValues(p.name, outcome)
		}
	}
	for _, kind := range append(kinds, "unknown") {
		for _, outcome := range []string{"ok", "postponed", "given_up", "error"} {
			tasksDone.WithLabelValues(kind, outcome)
		}
	}
}

const (
	// watchWithin bounds what a scrape waits for: whoever scrapes gives up sooner or
	// later, and what answered in time is shown.
	watchWithin = 2 * time.Second
	// watchAgain is how long an answer is good: many who scrape are one question.
	watchAgain = 2 * time.Second
)

func gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	outboxPending = gauge("patauth_outbox_pending", "Wishes not fulfilled yet.")
	outboxAge     = gauge("patauth_outbox_oldest_age_seconds", "Age of the oldest wish not fulfilled.")
	outboxFailed  = gauge("patauth_outbox_failed", "Wishes given up.")
	queueSize     = gauge("patauth_task_queue_size", "Tasks in the queue by state.", "queue", "state")
	queueAge      = gauge("patauth_task_oldest_age_seconds", "How long the oldest pending task has waited.", "queue")
	keyStates     = gauge("patauth_signing_keys", "Signing keys, by algorithm and state.", "alg", "state")
	keyAge        = gauge("patauth_signing_key_age_seconds", "How long the active key of an algorithm has signed.", "alg")
	cronSuccess   = gauge("patauth_cron_last_success_timestamp_seconds", "When a periodic task last succeeded.", "job")
	healthy       = gauge("patauth_dependency_up", "1 where a dependency answers this process.", "dependency")
)

// watch is what the last scrape saw.
type watch struct {
	mu   sync.Mutex
	at   time.Time
	seen []prometheus.Metric
}

// Describe says nothing: what cannot be read is not shown.
func (w *Worker) Describe(chan<- *prometheus.Desc) {}

// Collect reads what the database and the queue hold, so that every worker tells
// the same, and asks whether they answer this one.
func (w *Worker) Collect(out chan<- prometheus.Metric) {
	w.watch.mu.Lock()
	defer w.watch.mu.Unlock()
	if time.Since(w.watch.at) > watchAgain {
		w.watch.seen = w.look()
		w.watch.at = time.Now()
	}
	for _, m := range w.watch.seen {
		out <- m
	}
}

func (w *Worker) look() []prometheus.Metric {
	ctx, cancel := context.WithTimeout(storage.WithActor(context.Background(), storage.System), watchWithin)
	defer cancel()
	type answer struct {
		dependency string
		seen       []prometheus.Metric
		err        error
	}
	ask := map[string]func(context.Context) ([]prometheus.Metric, error){
		"queue": w.watchQueue, "keys": w.watchKeys, "outbox": w.watchOutbox, "cron": w.watchCron,
	}
	for name, check := range w.Checks {
		ask[name] = func(ctx context.Context) ([]prometheus.Metric, error) { return nil, check(ctx) }
	}
	answers := make(chan answer, len(ask)) // who comes too late is not waited for
	for name, do := range ask {
		go func() {
			seen, err := do(ctx)
			answers <- answer{name, seen, err}
		}()
	}
	up := map[string]float64{}
	for name := range ask {
		up[name] = 0
	}
	var seen []prometheus.Metric
wait:
	for range ask {
		select {
		case a := <-answers:
			if a.err == nil {
				up[a.dependency], seen = 1, append(seen, a.seen...)
			}
		case <-ctx.Done():
			break wait
		}
	}
	for name, is := range up {
		seen = append(seen, value(healthy, is, name))
	}
	return seen
}

func value(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (w *Worker) watchOutbox(ctx context.Context) ([]prometheus.Metric, error) {
	b, err := w.DB.OutboxBacklog(ctx, storage.Now())
	return []prometheus.Metric{
		value(outboxPending, float64(b.Waiting)), value(outboxAge, b.Oldest.Seconds()), value(outboxFailed, float64(b.Failed)),
	}, err
}

// watchCron shows 0 for a task that never succeeded.
func (w *Worker) watchCron(ctx context.Context) ([]prometheus.Metric, error) {
	runs, err := w.DB.PeriodicRuns(ctx)
	last := map[string]float64{}
	for _, r := range runs {
		if r.SucceededAt != nil {
			last[r.Name] = float64(r.SucceededAt.UnixMilli()) / 1000
		}
	}
	var out []prometheus.Metric
	for _, p := range w.schedule() {
		out = append(out, value(cronSuccess, last[p.name], p.name))
	}
	return out, err
}

// watchQueue shows how many tasks are in which state, and how long the oldest
// waits.
func (w *Worker) watchQueue(context.Context) ([]prometheus.Metric, error) {
	q := &asynq.QueueInfo{}
	there, err := w.inspector.Queues()
	if err == nil && slices.Contains(there, queueName) { // else nothing was ever enqueued
		q, err = w.inspector.GetQueueInfo(queueName)
	}
	if err != nil {
		return nil, err
	}
	out := []prometheus.Metric{value(queueAge, q.Latency.Seconds(), queueName)}
	for state, n := range map[string]int{"pending": q.Pending, "active": q.Active, "scheduled": q.Scheduled,
		"retry": q.Retry, "archived": q.Archived, "completed": q.Completed} {
		out = append(out, value(queueSize, float64(n), queueName, state))
	}
	return out, nil
}

// watchKeys shows how many keys of each algorithm are in which state, and how long
// the active one has signed.
func (w *Worker) watchKeys(ctx context.Context) ([]prometheus.Metric, error) {
	rows, err := w.DB.SigningKeys(ctx)
	var out []prometheus.Metric
	for _, alg := range keys.Algorithms {
		count := map[string]int{}
		for _, k := range rows {
			if k.Alg != alg {
				continue
			}
			count[k.State]++
			if k.State == storage.KeyActive {
				out = append(out, value(keyAge, storage.Now().Sub(keys.Since(k)).Seconds(), alg))
			}
		}
		for _, state := range keys.States {
			out = append(out, value(keyStates, float64(count[state]), alg, state))
		}
	}
	return out, err
}
