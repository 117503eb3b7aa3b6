package web

import (
	"context"
	"net/http"
	"strings"

	"golang.org/x/text/language"
)

// langs are the languages of the pages; the first is spoken where none fits.
var langs = []string{"en", "de"}

var matcher = language.NewMatcher([]language.Tag{language.English, language.German})

type langKey struct{}

// WithLang is ctx with a wished language, before what the browser asks for:
// BCP 47 tags by preference, separated by spaces (ui_locales of OpenID Connect
// Core, Section 3.1.2.1). Where none is spoken here, ctx is unchanged.
func WithLang(ctx context.Context, tags string) context.Context {
	if l := match(tags); l != "" {
		return context.WithValue(ctx, langKey{}, l)
	}
	return ctx
}

// Lang is the language to answer in: WithLang, then Accept-Language, then "en".
func Lang(r *http.Request) string {
	if l, ok := r.Context().Value(langKey{}).(string); ok {
		return l
	}
	header := r.Header.Get("Accept-Language")
	if len(header) > 1000 {
		return langs[0]
	}
	tags, _, err := language.ParseAcceptLanguage(header)
	if err != nil {
		return langs[0]
	}
	// The index, not the tag: the matcher's tags carry the reader's region.
	_, i, confidence := matcher.Match(tags...)
	if confidence == language.No {
		return langs[0]
	}
	return langs[i]
}

// match is the first of the space-separated tags that is spoken here, or "".
func match(tags string) string {
	if len(tags) > 200 {
		return ""
	}
	for _, word := range strings.Fields(tags) {
		tag, err := language.Parse(word)
		if err != nil {
			continue
		}
		if _, i, confidence := matcher.Match(tag); confidence >= language.High {
			return langs[i]
		}
	}
	return ""
}
