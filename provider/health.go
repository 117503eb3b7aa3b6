package provider

import (
	"context"
	"net/http"
	"net/http/pprof"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// checkWithin bounds all checks of one question, so that the answer comes
// before whoever asks gives up.
const checkWithin = time.Second

// Health tells the machines around a process how it does. The zero value is
// ready; it is safe for concurrent use once its fields are set.
type Health struct {
	// DB is asked whether it answers; nil where the process has none.
	DB *storage.DB
	// Fresh reports whether the signing keys were read lately; nil where the
	// process does not sign.
	Fresh func() bool
	// Feed is asked whether the laboratory's feed can be followed; nil where the
	// process does not follow it.
	Feed func(context.Context) error
	// Watch shows what it reads when it is scraped; nil where there is nothing.
	Watch prometheus.Collector
	// Admin serves the paths below /admin/; nil where there is no such API.
	Admin http.Handler

	draining atomic.Bool
}

// Drain makes the process not ready: it is about to stop.
func (h *Health) Drain() { h.draining.Store(true) }

// Reasons says why the process should get no work; none where it is ready.
func (h *Health) Reasons(ctx context.Context) []string {
	reasons := []string{}
	if h.draining.Load() {
		reasons = append(reasons, "draining")
	}
	if h.DB != nil {
		ctx, cancel := context.WithTimeout(ctx, checkWithin)
		defer cancel()
		if err := h.DB.Ping(ctx); err != nil {
			reasons = append(reasons, "database")
		}
	}
	if h.Fresh != nil && !h.Fresh() {
		reasons = append(reasons, "keys")
	}
	if h.Feed != nil && h.Feed(ctx) != nil {
		reasons = append(reasons, "feed")
	}
	return reasons
}

// Internal is the handler of the internal listener. Whoever can reach it is
// trusted to look: it must not be exposed.
func (h *Health) Internal() http.Handler {
	r := mux.NewRouter()
	get := []string{http.MethodGet, http.MethodHead}
	r.HandleFunc("/livez", h.livez).Methods(get...)
	r.HandleFunc("/readyz", h.readyz).Methods(get...)
	r.Handle("/metrics", h.metrics()).Methods(get...)
	r.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	r.HandleFunc("/debug/pprof/profile", pprof.Profile)
	r.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	r.HandleFunc("/debug/pprof/trace", pprof.Trace)
	if h.Admin != nil {
		r.PathPrefix("/admin/").Handler(h.Admin)
	}
	r.PathPrefix("/debug/pprof/").HandlerFunc(pprof.Index)
	return r
}

// livez is 200 as long as the process can answer at all: an absent database is
// no reason to restart it. GET /livez
func (h *Health) livez(w http.ResponseWriter, r *http.Request) {
	web.JSON(w, http.StatusOK, map[string]string{"status": "alive"})
}

type readiness struct {
	Status  string   `json:"status"`
	Reasons []string `json:"reasons"`
}

// readyz is 503 with the reasons where no work should come here. GET /readyz
func (h *Health) readyz(w http.ResponseWriter, r *http.Request) {
	reasons := h.Reasons(r.Context())
	if len(reasons) > 0 {
		web.JSON(w, http.StatusServiceUnavailable, readiness{"not ready", reasons})
		return
	}
	web.JSON(w, http.StatusOK, readiness{"ready", reasons})
}

// metrics are those that the rooms count, and the state of this process.
// GET /metrics
func (h *Health) metrics() http.Handler {
	own := prometheus.NewRegistry()
	gauge := func(name, help string, labels prometheus.Labels, value func() float64) {
		own.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value))
	}
	gauge("patauth_build_info", "Always 1; the labels say what runs.", prometheus.Labels{"version": Version()}, func() float64 { return 1 })
	gauge("patauth_draining", "1 while the process is about to stop.", nil, func() float64 { return number(h.draining.Load()) })
	if h.Fresh != nil {
		gauge("patauth_keys_fresh", "1 while the signing keys were read lately.", nil, func() float64 { return number(h.Fresh()) })
	}
	if h.Watch != nil {
		own.MustRegister(h.Watch)
	}
	if db := h.DB; db != nil {
		gauge("patauth_db_up", "1 while the database answers.", nil, func() float64 {
			ctx, cancel := context.WithTimeout(context.Background(), checkWithin)
			defer cancel()
			return number(db.Ping(ctx) == nil)
		})
		const name, help = "patauth_db_pool_connections", "Connections to the database."
		gauge(name, help, prometheus.Labels{"state": "in_use"}, func() float64 { return float64(db.Stats().InUse) })
		gauge(name, help, prometheus.Labels{"state": "idle"}, func() float64 { return float64(db.Stats().Idle) })
		gauge("patauth_db_pool_wait_seconds", "Time spent waiting for a connection, in all.", nil, func() float64 { return db.Stats().Waited.Seconds() })
	}
	return promhttp.HandlerFor(prometheus.Gatherers{prometheus.DefaultGatherer, own}, promhttp.HandlerOpts{})
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// version is set by the linker; see the Makefile.
var version string

// Version is what this program was built from: a release, or a commit.
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
