package account

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/gorilla/mux"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// app is a client with access as a patient sees it.
type app struct {
	ID, Name string
	Scopes   []string // those that there are words for
	Since    moment
}

// appsView is what the page account_apps shows.
type appsView struct{ Apps []app }

// GetApps lists who may act for the patient. GET /account/apps
func (a *Account) GetApps(w http.ResponseWriter, r *http.Request) error {
	s, err := a.owner(w, r, 1, 0)
	if s == nil {
		return err
	}
	all, err := a.db.AppsOf(r.Context(), s.PatientID, storage.Now())
	if err != nil {
		return err
	}
	return a.show(w, r, "account_apps", appsView{appsIn(web.Lang(r), all)})
}

// PostRevokeApp takes a client's access back, at once.
// POST /account/apps/{client}/revoke
func (a *Account) PostRevokeApp(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	s, err := a.owner(w, r, 1, 0)
	if s == nil {
		return err
	}
	if _, err := web.Form(r); err != nil {
		return err
	}
	client, now := mux.Vars(r)["client"], storage.Now()
	all, err := a.db.AppsOf(ctx, s.PatientID, now)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(x storage.App) bool { return x.ClientID == client }) {
		return storage.ErrNotFound
	}
	if err := a.act(ctx, s, func(ctx context.Context) error { return a.db.RevokeConsent(ctx, s.PatientID, client, now) }); err != nil {
		return fmt.Errorf("revoke access: %w", err)
	}
	web.Event(ctx, "oauth.consent.revoked", "client_id", client)
	return web.Redirect(w, r, "/account/apps")
}

// scopes are those that the pages have words for, in their order there.
var scopes = []string{"openid", "profile", "email", "address", "phone", "lab", "offline_access"}

func appsIn(lang string, all []storage.App) []app {
	var out []app
	for _, x := range all {
		shown := app{ID: x.ClientID, Name: x.Name, Since: at(lang, x.Since)}
		for _, scope := range scopes {
			if x.Scopes.Has(scope) {
				shown.Scopes = append(shown.Scopes, scope)
			}
		}
		out = append(out, shown)
	}
	return out
}
