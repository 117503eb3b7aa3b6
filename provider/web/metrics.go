package web

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Labels come from closed sets: route templates, never paths.
var (
	httpRequests = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "patauth_http_requests_total", Help: "Requests answered.",
	}, []string{"route", "method", "code"})
	httpDuration = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Name: "patauth_http_request_duration_seconds", Help: "Time to answer a request.",
		Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 1.5, 2.5, 5, 10},
	}, []string{"route", "method"})
	httpInflight = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "patauth_http_inflight_requests", Help: "Requests being answered.",
	})
	httpRejected = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "patauth_http_rejected_total", Help: "Requests refused by their form.",
	}, []string{"reason"})
	csrfRejections = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "patauth_csrf_rejections_total", Help: "Requests refused because another site made them.",
	}, []string{"reason"})
	panics = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "patauth_panics_total", Help: "Panics that were caught.",
	}, []string{"component"})
)

// What is counted begins with 0, so that the first one is a rise.
func init() {
	panics.WithLabelValues("http")
	for _, reason := range []string{"content_type", "header", "body", "duplicate_param", "pace", "method"} {
		httpRejected.WithLabelValues(reason)
	}
	for _, reason := range []string{"cross-site", "same-site", "origin"} {
		csrfRejections.WithLabelValues(reason)
	}
}
