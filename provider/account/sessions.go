package account

import (
	"context"
	"fmt"
	"net/http"

	"github.com/gorilla/mux"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// device is a session as a patient sees it.
type device struct {
	ID              string
	Browser, System string // "" where not recognised
	Since, Seen     moment
	IP              string
	This            bool // the one that asks
}

// sessionsView is what the page account_sessions shows.
type sessionsView struct {
	Sessions []device
	Others   bool
}

// GetSessions lists where the patient is signed in. GET /account/sessions
func (a *Account) GetSessions(w http.ResponseWriter, r *http.Request) error {
	s, err := a.owner(w, r, 1, 0)
	if s == nil {
		return err
	}
	all, err := a.devices(r.Context(), s, web.Lang(r))
	if err != nil {
		return err
	}
	return a.show(w, r, "account_sessions", sessionsView{Sessions: all, Others: len(all) > 1})
}

// PostEndSession ends one session and what hangs on it; ending this one is
// signing out. POST /account/sessions/{id}/end
func (a *Account) PostEndSession(w http.ResponseWriter, r *http.Request) error {
	s, err := a.owner(w, r, 1, 0)
	if s == nil {
		return err
	}
	if _, err := web.Form(r); err != nil {
		return err
	}
	id := mux.Vars(r)["id"]
	if id == s.ID {
		if err := session.End(w, r, a.db, a.site.Issuer); err != nil {
			return err
		}
		web.Event(r.Context(), "auth.signout")
		return web.Redirect(w, r, "/login")
	}
	if err := a.db.EndSession(r.Context(), s.PatientID, id, storage.Now()); err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	web.Event(r.Context(), "auth.session.ended", "ended", id)
	return web.Redirect(w, r, "/account/sessions")
}

// PostEndOthers ends every session but this one.
// POST /account/sessions/end-others
func (a *Account) PostEndOthers(w http.ResponseWriter, r *http.Request) error {
	s, err := a.owner(w, r, 1, 0)
	if s == nil {
		return err
	}
	if _, err := web.Form(r); err != nil {
		return err
	}
	if err := a.act(r.Context(), s, func(ctx context.Context) error { return a.db.EndSessions(ctx, s.PatientID, s.ID, storage.Now()) }); err != nil {
		return fmt.Errorf("end sessions: %w", err)
	}
	web.Event(r.Context(), "auth.session.ended", "ended", "others")
	return web.Redirect(w, r, "/account/sessions")
}

// devices are the live sessions of the patient, the last used first.
func (a *Account) devices(ctx context.Context, this *storage.Session, lang string) ([]device, error) {
	all, err := a.db.SessionsOf(ctx, this.PatientID)
	var out []device
	now := storage.Now()
	for _, s := range all {
		if s.ID != this.ID && now.Sub(s.LastSeenAt) >= a.sessions.Idle {
			continue // it would not be let in any more
		}
		d := device{ID: s.ID, Since: at(lang, s.CreatedAt), Seen: at(lang, s.LastSeenAt), IP: s.IP, This: s.ID == this.ID}
		d.Browser, d.System = browserOf(s.UserAgent)
		out = append(out, d)
	}
	return out, err
}
