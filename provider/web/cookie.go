package web

import (
	"net/http"
	"strings"
)

// SessionCookie is the name of the session's cookie, before any prefix.
const SessionCookie = "patauth"

// Cookie is a cookie of the issuer that no script, no other host and no other
// site's form can use. On an https issuer its name gets the prefix __Host-,
// which browsers only accept from this very host (RFC 6265bis, Section 4.1.3.2).
// maxAge is in seconds: 0 lasts as long as the browser runs, below 0 deletes.
func Cookie(issuer, name, value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: cookieName(issuer, name), Value: value, Path: "/", MaxAge: maxAge,
		Secure: secure(issuer), HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}

// ReadCookie is the value of a cookie made by Cookie. It returns
// http.ErrNoCookie where there is none, and an ErrInvalid where there are
// several of the name: one of them was planted.
func ReadCookie(r *http.Request, issuer, name string) (string, error) {
	all := r.CookiesNamed(cookieName(issuer, name))
	switch len(all) {
	case 0:
		return "", http.ErrNoCookie
	case 1:
		return all[0].Value, nil
	}
	return "", Invalid("cookie", "sent more than once")
}

// readCookies are the cookies made by Cookie whose names begin with prefix, under
// their names without what Cookie adds; the oldest first, as browsers send them
// (RFC 6265, Section 5.4).
func readCookies(r *http.Request, issuer, prefix string) []*http.Cookie {
	var all []*http.Cookie
	for _, c := range r.Cookies() {
		if rest, ok := strings.CutPrefix(c.Name, cookieName(issuer, prefix)); ok {
			all = append(all, &http.Cookie{Name: prefix + rest, Value: c.Value})
		}
	}
	return all
}

func cookieName(issuer, name string) string {
	if secure(issuer) {
		return "__Host-" + name
	}
	return name
}

func secure(issuer string) bool { return strings.HasPrefix(issuer, "https://") }
