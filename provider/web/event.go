package web

import (
	"context"
	"log/slog"
	"strings"
)

// maxNote bounds a text in the log, in bytes.
const maxNote = 512

// Note adds an attribute to the request's log line. Values are opaque ids,
// names from closed sets, counts and times: no personal data, no secret. A text is
// cut after 512 bytes.
func Note(ctx context.Context, key string, value any) {
	if s, ok := value.(string); ok && len(s) > maxNote {
		value = strings.ToValidUTF8(s[:maxNote], "") + "…"
	}
	if rec := recordOf(ctx); rec != nil {
		rec.mu.Lock()
		defer rec.mu.Unlock()
		rec.attrs = append(rec.attrs, slog.Any(key, value))
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
		r.Attrs(func(a slog.Attr) bool { rec.attrs = append(rec.attrs, a); return true })
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
