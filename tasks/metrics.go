package tasks

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
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
	outboxPending = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "patauth_outbox_pending", Help: "Wishes not fulfilled yet.",
	})
	outboxAge = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "patauth_outbox_oldest_age_seconds", Help: "Age of the oldest wish not fulfilled.",
	})
	outboxFailed = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "patauth_outbox_failed", Help: "Wishes given up.",
	})
	queueSize = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "patauth_task_queue_size", Help: "Tasks in the queue by state.",
	}, []string{"queue", "state"})
	queueAge = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "patauth_task_oldest_age_seconds", Help: "How long the oldest pending task has waited.",
	}, []string{"queue"})
	keyStates = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "patauth_signing_keys", Help: "Signing keys, by algorithm and state.",
	}, []string{"alg", "state"})
	keyAge = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "patauth_signing_key_age_seconds", Help: "How long the active key of an algorithm has signed.",
	}, []string{"alg"})
	cronRuns = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "patauth_cron_runs_total", Help: "Runs of periodic tasks by outcome.",
	}, []string{"job", "outcome"})
	cronSuccess = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "patauth_cron_last_success_timestamp_seconds", Help: "When a periodic task last succeeded.",
	}, []string{"job"})
	healthy = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "patauth_dependency_up", Help: "1 where a dependency answered the last health check.",
	}, []string{"dependency"})
)
