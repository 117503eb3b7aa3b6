package login

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/gorilla/mux"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/tasks/queue"
)

// enrolView is what the pages login_enrol and login_enrol_KIND show.
type enrolView struct {
	Flow    web.Flow
	Account string   // whose factor is set up
	Kinds   []string // the factors that can be set up
	Offer   any      // what the factor offers
	Problem string
}

// GetEnrol lists the factors that can be set up. GET /login/enrol
func (l *Login) GetEnrol(w http.ResponseWriter, r *http.Request) error {
	_, flow, err := web.QueryFlow(r)
	if err != nil {
		return err
	}
	s, ok, err := l.mayEnrol(w, r, flow)
	if !ok {
		return err
	}
	p, err := l.db.PatientByID(r.Context(), s.PatientID)
	if err != nil {
		return err
	}
	v := enrolView{Flow: flow, Account: p.Email}
	for _, f := range l.factors {
		v.Kinds = append(v.Kinds, f.kind())
	}
	return l.site.Render(w, r, http.StatusOK, "login_enrol", v)
}

// GetEnrolFactor offers one factor. GET /login/enrol/{factor}
func (l *Login) GetEnrolFactor(w http.ResponseWriter, r *http.Request) error {
	_, flow, err := web.QueryFlow(r)
	if err != nil {
		return err
	}
	f, err := l.factor(mux.Vars(r)["factor"])
	if err != nil {
		return err
	}
	s, ok, err := l.mayEnrol(w, r, flow)
	if !ok {
		return err
	}
	return l.showOffer(w, r, http.StatusOK, f, s, enrolView{Flow: flow}, nil)
}

func (l *Login) showOffer(w http.ResponseWriter, r *http.Request, status int, f factor, s *storage.Session, v enrolView, again answer) error {
	who, err := l.subject(r.Context(), s, f.kind())
	if err != nil {
		return err
	}
	v.Account = who.patient.Email
	if v.Offer, err = f.offer(r.Context(), who, again); err != nil {
		return err
	}
	return l.site.Render(w, r, status, "login_enrol_"+f.kind(), v)
}

// PostEnrolFactor binds an authenticator to the patient. It proves that factor,
// too. POST /login/enrol/{factor}
func (l *Login) PostEnrolFactor(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	form, flow, err := l.site.FormFlow(r)
	if err != nil {
		return err
	}
	f, err := l.factor(mux.Vars(r)["factor"])
	if err != nil {
		return err
	}
	s, ok, err := l.mayEnrol(w, r, flow)
	if !ok {
		return err
	}
	who, err := l.subject(ctx, s, f.kind())
	if err != nil {
		return err
	}
	added, proven, err := f.enrol(ctx, who, form)
	if err == nil {
		added.PatientID, added.Kind = who.patient.ID, f.kind()
		err = l.db.Tx(ctx, func(ctx context.Context) error {
			if err := l.stillEnrols(ctx, s); err != nil {
				return err
			}
			if err := l.db.AddCredential(ctx, &added); err != nil {
				return err
			}
			if err := l.db.Wish(ctx, queue.Notice{PatientID: who.patient.ID, Notice: "factor_added"}); err != nil {
				return err
			}
			_, err := l.sessions.Raise(ctx, w, r, session.Proof{Credential: added.ID, Factors: proven})
			return err
		})
	}
	if errors.Is(err, web.ErrLogin) {
		return web.Redirect(w, r, "/login"+flow.Query())
	}
	if errors.Is(err, errWrong) || errors.Is(err, storage.ErrConflict) {
		web.Event(ctx, "auth.enrol.failed", "factor", f.kind())
		return l.showOffer(w, r, http.StatusUnprocessableEntity, f, s, enrolView{Flow: flow, Problem: "enrol.wrong"}, form)
	}
	if err != nil {
		return fmt.Errorf("add factor: %w", err)
	}
	web.Event(ctx, "auth.factor.added", "factor", f.kind(), "credential", added.ID)
	return web.Redirect(w, r, flow.Done())
}

// mayEnrol guards the setting up of factors. ok is false where the request was
// answered already, or failed.
// NIST SP 800-63B-4, Section 4.1.2.1: an authenticator is bound only by who has
// just signed in at the highest level the account has. Missing asks for the
// second factor wherever there is one.
func (l *Login) mayEnrol(w http.ResponseWriter, r *http.Request, flow web.Flow) (s *storage.Session, ok bool, err error) {
	s, _ = session.From(r.Context())
	switch step, err := l.enrolStep(r.Context(), s); {
	case err != nil:
		return nil, false, err
	case step == session.StepNone:
		return s, true, nil
	case step == session.StepSecond:
		return nil, false, web.Redirect(w, r, "/login/second"+flow.Query())
	}
	return nil, false, web.Redirect(w, r, "/login"+flow.Query())
}

// enrolStep is what s lacks for the setting up of factors.
func (l *Login) enrolStep(ctx context.Context, s *storage.Session) (session.Step, error) {
	now := storage.Now()
	need := session.Need{Level: 1, After: now.Add(-fresh)}
	second := false
	if s != nil {
		var err error
		if second, err = l.db.HasSecondFactor(ctx, s.PatientID); err != nil {
			return 0, err
		}
	}
	return session.Missing(s, second, need, now), nil
}

// stillEnrols asks mayEnrol's question again, inside the transaction that binds:
// another browser may have set the first second factor up meanwhile, which this one
// has not proven. web.ErrLogin where it has.
func (l *Login) stillEnrols(ctx context.Context, s *storage.Session) error {
	if err := l.db.LockPatient(ctx, s.PatientID); err != nil {
		return err
	}
	step, err := l.enrolStep(ctx, s)
	if err == nil && step != session.StepNone {
		err = web.ErrLogin
	}
	return err
}
