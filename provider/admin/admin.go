// Package admin is the operators' HTTP API, below /admin/v1/ on the internal
// listener: JSON for tools that watch, each request with the bearer token that
// the operator has set. It reads and changes nothing, and says of patients how
// their accounts stand, not who they are.
package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// tokenMin is the shortest token in characters: 32 of base64 hold 192 bits.
const tokenMin = 32

// Admin answers the requests of operators' tools.
type Admin struct {
	db   *storage.DB
	want [sha256.Size]byte
}

// New is the handler of everything below /admin/v1/. token is the content of a
// file or an environment variable; a shorter one than 32 characters is refused.
func New(db *storage.DB, site *web.Site, token string) (http.Handler, error) {
	token = strings.TrimSpace(token)
	if len(token) < tokenMin {
		return nil, fmt.Errorf("admin token: shorter than %d characters", tokenMin)
	}
	a := &Admin{db: db, want: sha256.Sum256([]byte(token))}
	router := site.Router()
	for path, h := range map[string]web.Handler{
		"/admin/v1/patients/{id}": a.GetPatient,
		"/admin/v1/clients":       a.GetClients,
	} {
		router.Handle(path, site.Problem(a.require(h))).Methods(http.MethodGet, http.MethodHead)
	}
	return web.Chain(site, router), nil
}

// require is h for whoever presents the token (RFC 6750, Section 2.1).
func (a *Admin) require(h web.Handler) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(token))
		if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(got[:], a.want[:]) != 1 {
			web.Event(r.Context(), "auth.admin.failed")
			return web.ErrLogin
		}
		return h(w, r)
	}
}

// Patient is how an account stands.
type Patient struct {
	ID            string    `json:"id"`
	CreatedAt     time.Time `json:"created_at"`
	EmailVerified bool      `json:"email_verified"`
	Disabled      bool      `json:"disabled"`
	SecondFactor  bool      `json:"second_factor"`
	Sessions      int       `json:"sessions"`
	Linked        bool      `json:"linked"`
}

// GetPatient tells how an account stands. GET /admin/v1/patients/{id}
func (a *Admin) GetPatient(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	p, err := a.db.PatientByID(ctx, mux.Vars(r)["id"])
	if err != nil {
		return err
	}
	web.Note(ctx, "patient", p.ID)
	out := Patient{ID: p.ID, CreatedAt: p.CreatedAt, EmailVerified: p.EmailVerifiedAt != nil, Disabled: p.DisabledAt != nil}
	if out.SecondFactor, err = a.db.HasSecondFactor(ctx, p.ID); err != nil {
		return err
	}
	live, err := a.db.SessionsOf(ctx, p.ID)
	if err != nil {
		return err
	}
	out.Sessions = len(live)
	_, _, err = a.db.LinkOf(ctx, p.ID)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	out.Linked = err == nil
	return web.JSON(w, http.StatusOK, out)
}

// Client is a relying party without its secrets.
type Client struct {
	ID           string   `json:"id"`
	Name         string   `json:"name"`
	AuthMethods  []string `json:"auth_methods"`
	RedirectURIs []string `json:"redirect_uris"`
	GrantTypes   []string `json:"grant_types"`
	Scopes       []string `json:"scopes"`
	FirstParty   bool     `json:"first_party"`
	Disabled     bool     `json:"disabled"`
}

// GetClients lists every relying party. GET /admin/v1/clients
func (a *Admin) GetClients(w http.ResponseWriter, r *http.Request) error {
	all, err := a.db.ListClients(r.Context())
	if err != nil {
		return err
	}
	out := []Client{}
	for _, c := range all {
		out = append(out, Client{
			ID: c.ID, Name: c.Name, AuthMethods: c.AuthMethods, RedirectURIs: c.RedirectURIs,
			GrantTypes: c.GrantTypes, Scopes: c.Scopes, FirstParty: c.FirstParty, Disabled: c.DisabledAt != nil,
		})
	}
	return web.JSON(w, http.StatusOK, map[string]any{"clients": out})
}
