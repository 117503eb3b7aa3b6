package oauth

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Labels come from closed sets: grant types we serve, and codes of errors.
var (
	tokenRequests = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "patauth_oauth_token_requests_total",
		Help: "Token requests, by grant type and outcome (ok, or the error's code).",
	}, []string{"grant", "outcome"})
	authorizations = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "patauth_oauth_authorizations_total",
		Help: "Authorization responses, by outcome (ok, or the error's code).",
	}, []string{"outcome"})
	replays = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "patauth_oauth_replays_total",
		Help: "Codes and refresh tokens presented again, by kind; each ended its grant.",
	}, []string{"kind"})
	backchannelLogouts = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "patauth_backchannel_logout_total", Help: "Attempts to tell a client that a session has ended, by outcome.",
	}, []string{"outcome"})
)

// What is counted begins with 0, so that the first one is a rise; the codes of
// errors come as they are met.
func init() {
	for _, kind := range grantTypes {
		tokenRequests.WithLabelValues(kind, "ok")
	}
	authorizations.WithLabelValues("ok")
	for _, kind := range []string{"code", "refresh", "device"} {
		replays.WithLabelValues(kind)
	}
	for _, outcome := range []string{"ok", "refused", "failed", "unreachable", "error", "unwanted"} {
		backchannelLogouts.WithLabelValues(outcome)
	}
}
