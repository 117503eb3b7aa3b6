package web

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/mux"
)

// record is what one request gathers for its one log line.
type record struct {
	id, ip     string
	unreadable bool // what a trusted proxy said of the address
	start      time.Time
	client     context.Context // ends when the client hangs up
	face       face

	http.ResponseWriter
	status int
	wrote  bool

	mu     sync.Mutex
	route  string
	events string
	attrs  []slog.Attr
}

type recordKey struct{}

func recordOf(ctx context.Context) *record {
	rec, _ := ctx.Value(recordKey{}).(*record)
	return rec
}

// noteRoute remembers the template of the route, which is known only inside
// the router.
func noteRoute(r *http.Request) {
	rec, route := recordOf(r.Context()), mux.CurrentRoute(r)
	if rec == nil || route == nil {
		return
	}
	if t, err := route.GetPathTemplate(); err == nil {
		rec.mu.Lock()
		defer rec.mu.Unlock()
		rec.route = t
	}
}

// Route is a middleware of the router that makes its routes known to the log
// and the metrics.
func Route(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		noteRoute(r)
		next.ServeHTTP(w, r)
	})
}

// statusHungUp is what the log and the metrics say of a request whose client did not
// wait for an answer that could not be given; nobody is sent it.
const statusHungUp = 499

// finish counts the request and writes its line.
func (rec *record) finish(ctx context.Context, method string) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	took := time.Since(rec.start)
	route := rec.route
	if route == "" {
		route = "none"
	}
	if !rec.wrote {
		rec.status = http.StatusOK
	}
	if rec.status == http.StatusServiceUnavailable && rec.client.Err() != nil {
		rec.status = statusHungUp
	}
	switch method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
	default:
		method = "OTHER"
	}
	httpRequests.WithLabelValues(route, method, strconv.Itoa(rec.status)).Inc()
	httpDuration.WithLabelValues(route, method).Observe(took.Seconds())

	level := slog.LevelInfo
	switch {
	case rec.status >= 500:
		level = slog.LevelError
	case rec.status == 401, rec.status == 403, rec.status == 429, rec.unreadable:
		level = slog.LevelWarn
	}
	line := []slog.Attr{
		slog.String("method", method), slog.String("route", route), slog.Int("status", rec.status),
		slog.Float64("duration_ms", float64(took.Microseconds())/1000), slog.String("request_id", rec.id),
	}
	if rec.events != "" {
		line = append(line, slog.String("event", rec.events))
	}
	if rec.unreadable {
		line = append(line, slog.String("x_forwarded_for", "unreadable"))
	}
	if rec.events != "" || rec.status >= 400 || rec.unreadable {
		line = append(line, slog.String("ip", rec.ip))
	}
	slog.LogAttrs(ctx, level, "request", append(line, rec.attrs...)...)
}

// WriteHeader remembers the status.
func (rec *record) WriteHeader(status int) {
	if !rec.wrote && status >= 200 {
		rec.status, rec.wrote = status, true
	}
	rec.ResponseWriter.WriteHeader(status)
}

// Write remembers that there was an answer.
func (rec *record) Write(b []byte) (int, error) {
	if !rec.wrote {
		rec.status, rec.wrote = http.StatusOK, true
	}
	return rec.ResponseWriter.Write(b)
}

// Unwrap serves http.ResponseController.
func (rec *record) Unwrap() http.ResponseWriter { return rec.ResponseWriter }
