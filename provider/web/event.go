package web

import (
	"context"
	"log/slog"
	"strings"
)

// maxNoted bounds a text in the log line, in bytes: a cause may quote what was sent.
const maxNoted = 512

// noted is a as the line keeps it.
func noted(a slog.Attr) slog.Attr {
	if a.Value.Kind() != slog.KindString || len(a.Value.String()) <= maxNoted || a.Key == "stack" {
		return a
	}
	return slog.String(a.Key, strings.ToValidUTF8(a.Value.String()[:maxNoted], "")+"…")
}

// Note adds an attribute to the request's log line. Values are opaque ids,
// names from closed sets, counts and times: no personal data, no secret. A text is
// cut where it is long.
func Note(ctx context.Context, key string, value any) {
	if rec := recordOf(ctx); rec != nil {
		rec.mu.Lock()
		defer rec.mu.Unlock()
		rec.attrs = append(rec.attrs, noted(slog.Any(key, value)))
	}
}

// Event names the security event that the request was, such as
// "auth.login.failed", with attributes as slog takes them. Where a request is
// several events, their names are joined by commas.
func Event(ctx context.Context, name string, attrs ...any) {
	if rec := recordOf(ctx); rec != nil {
		rec.mu.Lock()
		defer rec.mu.Unlock()
		if rec.events != "" {
			name = rec.events + "," + name
		}
		rec.events = name
		var r slog.Record
		r.Add(attrs...)
		r.Attrs(func(a slog.Attr) bool { rec.attrs = append(rec.attrs, noted(a)); return true })
	}
}

// RequestID is the id that the log line, the answer and the audit share.
func RequestID(ctx context.Context) string {
	if rec := recordOf(ctx); rec != nil {
		return rec.id
	}
	return ""
}

// ClientIP is the address the request came from; see Site.Proxies.
func ClientIP(ctx context.Context) string {
	if rec := recordOf(ctx); rec != nil {
		return rec.ip
	}
	return ""
}
