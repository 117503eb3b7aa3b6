package web

import (
	"net/http"
	"strings"

	"github.com/gorilla/mux"

	"github.com/pat-authenticate/patauth/storage"
)

// Router is a router that answers unknown paths (404) and wrong methods (405)
// in the face of their part of the site, and makes its routes known to the log.
// The variables of a path are text, as the parameters of a Form are.
func (s *Site) Router() *mux.Router {
	router := mux.NewRouter()
	router.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A client that gets this has a wrong address, which no OAuth error says.
		f := faceOf(r.URL.Path)
		if strings.HasPrefix(r.URL.Path, "/oauth2/") {
			f = pageFace
		}
		s.fail(w, r, f, storage.ErrNotFound)
	})
	router.Use(Route, onlyText)
	router.MethodNotAllowedHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// RFC 9110, Section 15.5.6: the answer names what is allowed.
		var allowed []string
		for _, m := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
			probe := r.Clone(r.Context())
			probe.Method = m
			var match mux.RouteMatch
			if router.Match(probe, &match) && match.MatchErr == nil {
				allowed = append(allowed, m)
			}
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		httpRejected.WithLabelValues("method").Inc()
		s.fail(w, r, faceOf(r.URL.Path), ErrMethod)
	})
	return router
}

// onlyText empties the variables of the path that a database would not take as
// text: they name nothing, and each handler answers as for what is not there.
func onlyText(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		vars := mux.Vars(r)
		for name, v := range vars {
			if !text(v) {
				vars[name] = ""
			}
		}
		next.ServeHTTP(w, mux.SetURLVars(r, vars))
	})
}
