// Package account is what patients see and decide about their own account: the
// profile, the lab record, second factors, sessions, and the apps with access.
//
// Every page is for the patient of the session alone, who has used every factor
// that the account has; what is asked for by id is looked for among what this
// patient owns. What can lock somebody out, or let somebody else in, wants a
// sign-in of the last few minutes. Forms work without script, and an accepted
// one redirects, so that going back and reloading repeat nothing.
package account

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// Account serves the pages of this package. Its methods are web.Handlers.
type Account struct {
	db       *storage.DB
	site     *web.Site
	sessions *session.Sessions
}

// New is the account of the site that sessions belong to.
func New(sessions *session.Sessions) *Account {
	return &Account{db: sessions.DB, site: sessions.Site, sessions: sessions}
}

// fresh is how long ago a factor was proven, at most, where an action can lock
// the patient out or let somebody in.
const fresh = 5 * time.Minute

// owner is the session of a patient who has proven level factors, all that the
// account has where it has two, and one of them within the given time, if it is
// not 0. It is nil where the request was answered, with the step that is
// missing, or failed.
func (a *Account) owner(w http.ResponseWriter, r *http.Request, level int, within time.Duration) (*storage.Session, error) {
	var owner *storage.Session
	if s, ok := session.From(r.Context()); ok && level < 2 {
		second, err := a.db.HasSecondFactor(r.Context(), s.PatientID)
		if err != nil {
			return nil, err
		}
		if second {
			level = 2
		}
	}
	err := a.sessions.Require(level, within, func(_ http.ResponseWriter, r *http.Request) error {
		owner, _ = session.From(r.Context())
		return nil
	})(w, r)
	return owner, err
}

// show answers with a page of the account.
func (a *Account) show(w http.ResponseWriter, r *http.Request, page string, view any) error {
	return a.site.Render(w, r, http.StatusOK, page, view)
}

// again shows a form that was not accepted.
func (a *Account) again(w http.ResponseWriter, r *http.Request, page string, view any) error {
	return a.site.Render(w, r, http.StatusUnprocessableEntity, page, view)
}

// act runs do in a transaction that nobody ends the session s, or shuts the account,
// beside: an ended session changes nothing. web.ErrLogin where it has ended.
func (a *Account) act(ctx context.Context, s *storage.Session, do func(context.Context) error) error {
	return a.db.Tx(ctx, func(ctx context.Context) error {
		err := a.db.LockPatient(ctx, s.PatientID)
		if err == nil {
			err = a.db.HoldSession(ctx, s.ID)
		}
		if errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrSpent) {
			return web.ErrLogin
		}
		if err != nil {
			return err
		}
		return do(ctx)
	})
}
