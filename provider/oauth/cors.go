package oauth

import (
	"net/http"

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
		if w.Header().Get("Access-Control-Allow-Origin") != "" {
			w.Header().Set("Access-Control-Allow-Methods", "GET, POST")
			w.Header().Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
			w.Header().Set("Access-Control-Max-Age", "600")
		}
		w.WriteHeader(http.StatusNoContent)
	})
}
