package web

import (
	"bytes"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/pat-authenticate/patauth/storage"
)

// Render answers with a page of templates in the language of the request:
// ui_locales of the authorization request, then the patient's, then the
// browser's. Nothing is written where it returns an error.
func (s *Site) Render(w http.ResponseWriter, r *http.Request, status int, page string, view any) error {
	lang := Lang(r)
	if status == http.StatusServiceUnavailable {
		// Whoever cannot be reached is not asked again.
	} else if req, ok := s.request(r); ok {
		if req.Params.Has("redirect_uri") { // a device has none: its pages lead nowhere else
			FormsLeave(w)
		}
		if l := match(req.Params.Get("ui_locales")); l != "" {
			lang = l
		}
	}
	var b bytes.Buffer
	if err := s.Pages.Page(&b, lang, page, view); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", lang)
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		b.WriteTo(w)
	}
	return nil
}

// request is the authorization request that the page belongs to, if any. It
// only decorates the page, so a failure to read it is no failure of the page.
func (s *Site) request(r *http.Request) (storage.AuthRequest, bool) {
	if s.DB == nil {
		return storage.AuthRequest{}, false
	}
	flow, err := FlowOf(r.URL.Query())
	if err != nil || flow.Request == "" {
		if flow, err = FlowOf(r.PostForm); err != nil || flow.Request == "" {
			return storage.AuthRequest{}, false
		}
	}
	req, err := s.DB.OpenAuthRequest(r.Context(), flow.Request)
	return req, err == nil
}

// FormsLeave takes form-action off this page: its forms lead, by redirects, to a
// client. Chromium holds every redirect after a form against the page's policy, the
// client's own to wherever it goes on included, which nobody here can know (RFC 6749
// says nothing of it; CSP Level 3 leaves redirects open, and Firefox lets them pass).
// A page that leads on by itself instead would cut the chain, but also the press that
// lets a browser hand a private-use scheme over to an app.
func FormsLeave(w http.ResponseWriter) {
	csp := w.Header().Get("Content-Security-Policy")
	w.Header().Set("Content-Security-Policy", strings.Replace(csp, formAction, "", 1))
}

// FrameSources lets this page show frames of the web origins of uris, which must
// be registered, and of no other (CSP Level 3, frame-src).
func FrameSources(w http.ResponseWriter, uris ...string) {
	var sources []string
	for _, uri := range uris {
		if s := sourceOf(uri); s != "" && !slices.Contains(sources, s) {
			sources = append(sources, s)
		}
	}
	if len(sources) > 0 {
		csp := w.Header().Get("Content-Security-Policy")
		w.Header().Set("Content-Security-Policy", csp+"; frame-src "+strings.Join(sources, " "))
	}
}

// sourceOf is the web origin of uri, as a content policy names it; "" where it must
// not be named.
func sourceOf(uri string) string {
	u, err := url.Parse(uri)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || strings.ContainsAny(u.Host, " ;,'\"*") {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// Message is what the page "message" says: keys, and a link to go on with.
type Message struct {
	Title, Text string // keys without arguments
	Next        string // a path, or ""
	Action      string // the key of the link's text
}

// ProblemPage explains a row of the table. GET /problems/{row}
func (s *Site) ProblemPage(w http.ResponseWriter, r *http.Request) error {
	name := strings.TrimPrefix(r.URL.Path, "/problems/")
	i := slices.IndexFunc(table, func(row Row) bool { return row.Name == name })
	if i < 0 {
		return storage.ErrNotFound
	}
	return s.Render(w, r, http.StatusOK, "problem", problemView{Row: table[i], Title: "error." + name + ".title", Text: "error." + name})
}

type problemView struct {
	Row
	Title, Text string
}
