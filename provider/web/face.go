package web

import (
	"encoding/json"
	"net/http"
	"strings"
)

// ErrorView is what the page "error" shows.
type ErrorView struct {
	Title, Text       string // keys
	Parameter, Detail string // of an error made by Invalid
	RequestID         string
}

// pageFace shows the table's message and nothing of the cause.
func pageFace(s *Site, w http.ResponseWriter, r *http.Request, row Row, err error) {
	v := ErrorView{Title: "error." + row.Name + ".title", Text: "error." + row.Name, RequestID: RequestID(r.Context())}
	v.Parameter, v.Detail = InvalidParameter(err)
	if err := s.Render(w, r, row.Status, "error", v); err != nil {
		Note(r.Context(), "render_error", err.Error())
		http.Error(w, http.StatusText(row.Status), row.Status)
	}
}

// Problem is an RFC 9457 problem document.
type Problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail,omitempty"`
	Parameter string `json:"parameter,omitempty"`
	RequestID string `json:"request_id,omitempty"`
}

func problemFace(s *Site, w http.ResponseWriter, r *http.Request, row Row, err error) {
	p := Problem{Type: s.Issuer + "/problems/" + row.Name, Title: row.title, Status: row.Status, RequestID: RequestID(r.Context())}
	p.Parameter, p.Detail = InvalidParameter(err)
	if row.Status == http.StatusUnauthorized && w.Header().Get("WWW-Authenticate") == "" {
		// RFC 9110, Section 15.5.2: a 401 must carry a challenge.
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	writeJSON(w, row.Status, "application/problem+json", p)
}

// oauthFace answers as RFC 6749, Section 5.2. That section knows no code for
// "come back later", so 429 and 503 are bare.
func oauthFace(s *Site, w http.ResponseWriter, r *http.Request, row Row, err error) {
	if row.oauthStatus == http.StatusTooManyRequests || row.oauthStatus == http.StatusServiceUnavailable {
		w.WriteHeader(row.oauthStatus)
		return
	}
	description := row.title
	if param, why := InvalidParameter(err); param != "" {
		description = param + ": " + why
	}
	writeJSON(w, row.oauthStatus, "application/json", map[string]string{
		"error": row.OAuth, "error_description": Describe(description),
	})
}

// Describe makes text fit for error_description, whose values "MUST NOT include
// characters outside the set %x20-21 / %x23-5B / %x5D-7E" (RFC 6749, Section 5.2).
func Describe(text string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == '"':
			return '\''
		case c == '\\', c < 0x20, c > 0x7e:
			return '?'
		}
		return c
	}, text)
}

// JSON answers with v as application/json.
func JSON(w http.ResponseWriter, status int, v any) error {
	return writeJSON(w, status, "application/json", v)
}

func writeJSON(w http.ResponseWriter, status int, contentType string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
	return nil
}
