package login

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// secondView is what the page login_second shows. Factors holds, by kind, what
// each factor of the patient asks with.
type secondView struct {
	Flow    web.Flow
	Account string // whose factor is asked for
	Factors map[string]any
	Problem string
}

// GetSecond asks for a second factor. GET /login/second
func (l *Login) GetSecond(w http.ResponseWriter, r *http.Request) error {
	flow, err := l.site.PageFlow(r)
	if err != nil {
		return err
	}
	s, ok := session.From(r.Context())
	if !ok {
		return web.Redirect(w, r, "/login"+flow.Query())
	}
	return l.showSecond(w, r, flow.Status(), s, secondView{Flow: flow, Problem: flow.Problem})
}

func (l *Login) showSecond(w http.ResponseWriter, r *http.Request, status int, s *storage.Session, v secondView) error {
	v.Factors = map[string]any{}
	for _, f := range l.factors {
		who, err := l.subject(r.Context(), s, f.kind())
		if err != nil {
			return err
		}
		v.Account = who.patient.Email
		if len(who.creds) == 0 {
			continue
		}
		if v.Factors[f.kind()], err = f.ask(r.Context(), who); err != nil {
			return err
		}
	}
	if len(v.Factors) == 0 {
		return web.Redirect(w, r, "/login/enrol"+v.Flow.Query())
	}
	return l.site.Render(w, r, status, "login_second", v)
}

const (
	// flowTries is how often a second factor may be tried in one session.
	flowTries   = 5
	secondTried = "second"
	secondWrong = "second_wrong"
)

// PostSecond checks a second factor. POST /login/second
func (l *Login) PostSecond(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	form, flow, err := l.site.FormFlow(r)
	if err != nil {
		return err
	}
	s, ok := session.From(ctx)
	if !ok {
		return web.Redirect(w, r, "/login"+flow.Query())
	}
	if err := l.gate.member(r); err != nil {
		return err
	}
	f, err := l.factor(form.Get("factor"))
	if err != nil {
		return web.Invalid("factor", "not known")
	}
	who, err := l.subject(ctx, s, f.kind())
	if err != nil {
		return err
	}
	// All tries are counted before they are checked, and the wrong ones once more:
	// those that are under way do not end the session of a patient who is right. The
	// handle changes when the session rises, so a success starts the counts anew.
	whose, now := hex.EncodeToString(s.Digest), storage.Now()
	err = l.db.CountAttempt(ctx, secondTried, whose, flowTries, l.sessions.Absolute, now)
	if errors.Is(err, storage.ErrSpent) {
		wrong, err := l.db.Attempts(ctx, secondWrong, whose, now)
		if err != nil {
			return err
		}
		if wrong < flowTries {
			return web.SlowDown(time.Second)
		}
		attempts.WithLabelValues(f.kind(), "throttled").Inc()
		web.Event(ctx, "auth.second.failed", "factor", f.kind(), "reason", "tries")
		if err := session.End(w, r, l.db, l.site.Issuer); err != nil {
			return err
		}
		return l.site.Again(w, r, "/login", flow, "login.second.tries", "")
	}
	if err != nil {
		return err
	}
	proof, err := f.verify(ctx, who, form)
	if errors.Is(err, errUsed) {
		if err := l.db.ForgiveAttempt(ctx, secondTried, whose); err != nil {
			return err
		}
		web.Event(ctx, "auth.second.failed", "factor", f.kind(), "reason", "used")
		return l.site.Again(w, r, "/login/second", flow, "login.second.wrong", "")
	}
	if err == nil {
		if _, err = l.sessions.Raise(ctx, w, r, proof); errors.Is(err, storage.ErrNotFound) {
			err = errWrong // removed while it was checked
		}
	}
	if errors.Is(err, errWrong) {
		if err := l.db.CountAttempt(ctx, secondWrong, whose, flowTries, l.sessions.Absolute, now); err != nil {
			return err
		}
		attempts.WithLabelValues(f.kind(), "bad").Inc()
		web.Event(ctx, "auth.second.failed", "factor", f.kind())
		for _, c := range who.creds {
			if err := l.failed(ctx, c); err != nil {
				return err
			}
		}
		return l.site.Again(w, r, "/login/second", flow, "login.second.wrong", "")
	}
	if err != nil {
		return errors.Join(fmt.Errorf("second factor: %w", err), l.db.ForgiveAttempt(ctx, secondTried, whose))
	}
	attempts.WithLabelValues(f.kind(), "ok").Inc()
	web.Event(ctx, "auth.second.ok", "factor", f.kind())
	return web.Redirect(w, r, flow.Done())
}

// fresh is how old a proof may be for a change of factors.
const fresh = 5 * time.Minute
