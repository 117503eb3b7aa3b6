package web

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/pat-authenticate/patauth/storage"
)

// contentPolicy lets a page use this site's own script, style and pictures, and
// nothing else (CSP Level 3).
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
	"connect-src 'self'; " + formAction + "frame-ancestors 'none'; base-uri 'none'"

// formAction keeps the forms of a page from being sent elsewhere; see FormsLeave.
const formAction = "form-action 'self'; "

// Chain stands in front of everything: it gives the request its id, its log
// line and its limits, the answer its security headers, and refuses what
// another site's page makes a browser send.
func Chain(s *Site, next http.Handler) http.Handler {
	return s.record(s.guard(s.sameOrigin(next)))
}

// answerWithin is how long a handler may take, by the context of its request: what
// it waits for ends then, the answer is 503.
const answerWithin = 5 * time.Second

// record opens the request's record, sets its deadline, catches panics and closes
// the record.
func (s *Site) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		httpInflight.Inc()
		defer httpInflight.Dec()
		rec := &record{ResponseWriter: w, start: time.Now(), face: faceOf(r.URL.Path)}
		rec.id, rec.ip, rec.unreadable = s.origin(r)
		w.Header().Set("X-Request-Id", rec.id)
		rec.client = r.Context()
		ctx, cancel := context.WithTimeout(r.Context(), answerWithin)
		defer cancel()
		r = r.WithContext(storage.WithRequestID(storage.WithActor(context.WithValue(ctx, recordKey{}, rec), storage.Anonymous), rec.id))
		defer rec.finish(r.Context(), r.Method)
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
			panics.WithLabelValues("http").Inc()
			Note(r.Context(), "stack", string(debug.Stack()))
			s.fail(rec, r, rec.face, fmt.Errorf("panic: %v", p))
		}()
		next.ServeHTTP(rec, r)
	})
}

// guard sets the headers that every answer has and the limits of every request.
func (s *Site) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		// Of an address nothing leaves but the origin, not even to ourselves (RFC
		// 9700, Section 4.2.4). With no-referrer our own forms would be posted with
		// "Origin: null" (Fetch, "append a request Origin header"), which sameOrigin
		// refuses where the browser sends no Sec-Fetch-Site.
		h.Set("Referrer-Policy", "strict-origin")
		if !poppedUp(r.URL.Path) {
			h.Set("Cross-Origin-Opener-Policy", "same-origin")
		}
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if s.Secure() {
			h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
		}
		// RFC 9110, Section 5.3: none of these is a list, so no sender repeats it; of
		// two we would read the first and who stands before us perhaps the last.
		for _, name := range []string{"Authorization", "Content-Type", "Origin"} {
			if len(r.Header.Values(name)) > 1 {
				httpRejected.WithLabelValues("header").Inc()
				s.fail(w, r, faceOf(r.URL.Path), Invalid(name, "is there twice"))
				return
			}
		}
		// No route takes uploads, and some parsers would spool one to disk.
		if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); strings.HasPrefix(kind, "multipart/") {
			httpRejected.WithLabelValues("content_type").Inc()
			s.fail(w, r, faceOf(r.URL.Path), ErrUnsupportedMediaType)
			return
		}
		if r.ContentLength > maxBody {
			httpRejected.WithLabelValues("body").Inc()
			s.fail(w, r, faceOf(r.URL.Path), ErrTooLarge)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}

// poppedUp reports whether path is on the way to a client and back, which may be
// walked in a window that the client's page opened and waits for. One answer with
// Cross-Origin-Opener-Policy on that way, a redirect too, cuts the two apart (HTML,
// "cross-origin opener policies").
func poppedUp(path string) bool {
	for _, p := range []string{"/oauth2/auth", "/oauth2/logout", "/login", "/register", "/verify-email", "/consent", "/logout"} {
		if path == p || strings.HasPrefix(path, p+"/") {
			return true
		}
	}
	return false
}

// sameOrigin refuses state-changing requests that a page of another origin
// made, by Sec-Fetch-Site and Origin. Only POST below /oauth2/ may come from
// anywhere: clients authenticate there, and a client may POST to the
// authorization endpoint (OpenID Connect Core, Section 3.1.2.1).
func (s *Site) sameOrigin(next http.Handler) http.Handler {
	p := http.NewCrossOriginProtection()
	if u, err := url.Parse(s.Issuer); err == nil && u.Host != "" {
		p.AddTrustedOrigin(u.Scheme + "://" + u.Host) // the Host header may be a proxy's
	}
	p.AddInsecureBypassPattern("POST /oauth2/")
	p.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reason := r.Header.Get("Sec-Fetch-Site")
		if reason != "cross-site" && reason != "same-site" {
			reason = "origin"
		}
		csrfRejections.WithLabelValues(reason).Inc()
		Event(r.Context(), "http.cross_origin.refused", "reason", reason)
		s.fail(w, r, faceOf(r.URL.Path), ErrDenied)
	}))
	return p.Handler(next)
}

// faceOf is the face of a path that no route has claimed.
func faceOf(path string) face {
	switch {
	case strings.HasPrefix(path, "/api/"), strings.HasPrefix(path, "/admin/"):
		return problemFace
	case strings.HasPrefix(path, "/oauth2/") && !strings.HasPrefix(path, "/oauth2/auth"):
		return oauthFace
	}
	return pageFace
}

// NewServer is h behind limits of time and size: a header within 5 seconds and
// 16 KiB, a request within 10, an answer within 15; idle connections end after
// a minute.
func NewServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    12 << 10, // net/http adds 4 KiB
	}
}
