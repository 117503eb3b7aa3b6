package login

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/pat-authenticate/patauth/storage"
)

var (
	attempts = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "patauth_login_attempts_total",
		Help: "Proofs of a factor, by kind and outcome (ok, bad, throttled, disabled).",
	}, []string{"factor", "outcome"})
	registrationSteps = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "patauth_login_registrations_total",
		Help: "Steps of registration (asked, verified).",
	}, []string{"step"})
	hashRejected = promauto.NewCounter(prometheus.CounterOpts{
		Name: "patauth_login_hash_rejected_total",
		Help: "Password hashes refused because too many waited.",
	})
	hashSeconds = promauto.NewHistogram(prometheus.HistogramOpts{
		Name:    "patauth_login_hash_duration_seconds",
		Help:    "Time of one password hash.",
		Buckets: []float64{.01, .025, .05, .1, .15, .2, .25, .35, .5, 1, 2},
	})
)

// What is counted begins with 0, so that the first one is a rise.
func init() {
	for _, kind := range []string{storage.KindPassword, storage.KindTOTP, storage.KindPasskey} {
		for _, outcome := range []string{"ok", "bad", "throttled", "disabled"} {
			attempts.WithLabelValues(kind, outcome)
		}
	}
	attempts.WithLabelValues("any", "throttled")
	for _, step := range []string{"asked", "verified"} {
		registrationSteps.WithLabelValues(step)
	}
}
