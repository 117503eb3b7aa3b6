// Package web is how patauth speaks HTTP: handlers that return errors, one
// table that answers them, pages, forms, cookies and one log line per request.
//
// A route has a face: a page for people, a problem document for the JSON APIs,
// or an OAuth error for clients. The face, never the Accept header, decides the
// form of an answer; the table in answer.go decides its status and words. Chain
// stands in front of every route and guards all of them alike.
package web

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/templates"
)

// Handler answers a request, or returns an error before it has written
// anything; the error is then answered by the face of the route.
type Handler func(w http.ResponseWriter, r *http.Request) error

// Site is one issuer and how it looks.
type Site struct {
	// Issuer is the URL that everything is reached at, without a final slash.
	// Links and redirects are built from it and never from the Host header.
	Issuer string
	Pages  *templates.Set
	// Proxies are the networks whose X-Forwarded-For and X-Request-Id are believed.
	Proxies []netip.Prefix
	// DB finds the authorization request that a page belongs to, for its
	// ui_locales and for the place its forms will finally lead to. It may be nil.
	DB *storage.DB
}

// Secure reports whether the issuer is reached over https.
func (s *Site) Secure() bool { return strings.HasPrefix(s.Issuer, "https://") }

// face is the form of an error's answer.
type face func(s *Site, w http.ResponseWriter, r *http.Request, row Row, err error)

// Page is h as a handler whose errors are pages for people.
func (s *Site) Page(h Handler) http.Handler { return s.handler(h, pageFace) }

// Problem is h as a handler whose errors are problem documents (RFC 9457).
func (s *Site) Problem(h Handler) http.Handler { return s.handler(h, problemFace) }

// OAuth is h as a handler whose errors are OAuth errors (RFC 6749, Section 5.2).
func (s *Site) OAuth(h Handler) http.Handler { return s.handler(h, oauthFace) }

func (s *Site) handler(h Handler, f face) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		noteRoute(r)
		if rec := recordOf(r.Context()); rec != nil {
			rec.face = f // in case h panics
		}
		if err := h(w, r); err != nil {
			s.fail(w, r, f, err)
		}
	})
}

// Fail answers err with a page, for middleware in front of pages.
func (s *Site) Fail(w http.ResponseWriter, r *http.Request, err error) { s.fail(w, r, pageFace, err) }

func (s *Site) fail(w http.ResponseWriter, r *http.Request, f face, err error) {
	row, _ := RowOf(err)
	Note(r.Context(), "error", err.Error())
	rec := recordOf(r.Context())
	if rec != nil && rec.wrote {
		return // too late to say anything else; the log has it
	}
	if wait := retryAfter(err); wait > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(wait))
	}
	f(s, w, r, row, err)
}

// Redirect answers 303 to a path on this issuer. Anything that could lead to
// another site is refused with an error.
func Redirect(w http.ResponseWriter, r *http.Request, path string) error {
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.ContainsAny(path, "\\\r\n\t") {
		return fmt.Errorf("redirect: %q is not a path on this site", path)
	}
	http.Redirect(w, r, path, http.StatusSeeOther)
	return nil
}
