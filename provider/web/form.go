package web

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxBody bounds every request body in bytes.
const maxBody = 64 << 10

// Form reads the body of a POST: application/x-www-form-urlencoded and nothing
// else (ErrUnsupportedMediaType), at most 64 KiB (ErrTooLarge), each parameter
// once. A parameter sent twice is an ErrInvalid that names it, unless it is one
// of repeatable (RFC 6749, Section 3.1: "Request and response parameters MUST
// NOT be included more than once."). Values are valid UTF-8 without NUL. A
// parameter without a value is left out: RFC 6749, Sections 3.1 and 3.2, has it
// "treated as if [it] were omitted from the request".
func Form(r *http.Request, repeatable ...string) (url.Values, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		httpRejected.WithLabelValues("content_type").Inc()
		return nil, ErrUnsupportedMediaType
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) || len(b) > maxBody {
		httpRejected.WithLabelValues("body").Inc()
		return nil, ErrTooLarge
	}
	if err != nil {
		return nil, Invalid("body", "could not be read")
	}
	v, err := parse(string(b), repeatable)
	if err == nil {
		r.PostForm = v
	}
	return v, err
}

// Query reads the query under the same rules as Form.
func Query(r *http.Request, repeatable ...string) (url.Values, error) {
	return parse(r.URL.RawQuery, repeatable)
}

func parse(raw string, repeatable []string) (url.Values, error) {
	v, err := url.ParseQuery(raw)
	if err != nil {
		return nil, Invalid("parameters", "not well-formed")
	}
	for name, values := range v {
		if len(values) > 1 && !slices.Contains(repeatable, name) {
			httpRejected.WithLabelValues("duplicate_param").Inc()
			return nil, Invalid(plain(name), "sent more than once")
		}
		for _, x := range append(values, name) {
			if !text(x) {
				return nil, Invalid(plain(name), "not valid text")
			}
		}
		if values = slices.DeleteFunc(values, func(x string) bool { return x == "" }); len(values) == 0 {
			delete(v, name)
		} else {
			v[name] = values
		}
	}
	return v, nil
}

// text reports whether s is what a database takes as text: UTF-8 without NUL.
func text(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// plain is a parameter's name as it may be repeated in an answer: short and of
// harmless letters.
func plain(name string) string {
	name = strings.Map(func(c rune) rune {
		if c == '_' || c == '-' || c == '.' || ('0' <= c && c <= '9') || ('a' <= c && c <= 'z') || ('A' <= c && c <= 'Z') {
			return c
		}
		return '?'
	}, name)
	return name[:min(len(name), 40)]
}
