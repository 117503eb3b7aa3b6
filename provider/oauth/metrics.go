package oauth

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var backchannelLogouts = promauto.NewCounterVec(prometheus.CounterOpts{
	Name: "patauth_backchannel_logout_total", Help: "Attempts to tell a client that a session has ended, by outcome.",
}, []string{"outcome"})
