package oauth

import (
	"net/http"
	"regexp"

	"github.com/pat-authenticate/patauth/provider/web"
)

// CrossOrigin lets scripts of the origins that clients have registered call h
// and read its answers (Fetch, CORS protocol): RFC 9700, Section 2.6, wants it at
// no endpoint that a browser is redirected to. No credentials are allowed: these
// endpoints know no cookie.
func (o *OAuth) CrossOrigin(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Origin")
		if origin := r.Header.Get("Origin"); origin != "" && len(origin) <= 300 {
			known, err := o.db.KnowsOrigin(r.Context(), origin)
			if err != nil {
				web.Note(r.Context(), "cors_error", err.Error()) // the answer itself says 503
			}
			if known {
				w.Header().Set("Access-Control-Allow-Origin", origin)
				w.Header().Set("Access-Control-Expose-Headers", "WWW-Authenticate")
			}
		}
		if r.Method != http.MethodOptions {
			h.ServeHTTP(w, r)
			return
		}
		preflight(w, r, "GET, POST")
	})
}

// preflight answers what a browser asks before a script's request (Fetch, "CORS-preflight
// fetch"), where an origin was allowed. The headers asked for are
// allowed, be they ours or those of a tracing library: none of them opens anything
// that a request without a browser could not.
func preflight(w http.ResponseWriter, r *http.Request, methods string) {
	h := w.Header()
	h.Add("Vary", "Access-Control-Request-Headers")
	if h.Get("Access-Control-Allow-Origin") != "" {
		h.Set("Access-Control-Allow-Methods", methods)
		h.Set("Access-Control-Max-Age", "600")
		asked := r.Header.Get("Access-Control-Request-Headers")
		if len(asked) > 1000 || !headerNames.MatchString(asked) {
			asked = "Authorization, Content-Type"
		}
		h.Set("Access-Control-Allow-Headers", asked)
	}
	w.WriteHeader(http.StatusNoContent)
}

// headerNames is a list of field names (RFC 9110, Sections 5.1 and 5.6.1).
var headerNames = regexp.MustCompile(`^[A-Za-z0-9-]+( ?, ?[A-Za-z0-9-]+)*$`)
