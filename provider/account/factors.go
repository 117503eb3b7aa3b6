package account

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/gorilla/mux"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/tasks/queue"
)

// factor is a second factor as a patient sees it.
type factor struct {
	ID, Kind, Name string
	Added          moment
	Used           *moment // nil where it never was
	Disabled       bool    // after too many wrong tries
}

// factorsView is what the page account_factors shows.
type factorsView struct {
	Factors  []factor
	Password *moment // since when it is; nil where there is none
}

// GetFactors lists how the patient signs in. GET /account/factors
func (a *Account) GetFactors(w http.ResponseWriter, r *http.Request) error {
	s, err := a.owner(w, r, 1, 0)
	if s == nil {
		return err
	}
	var v factorsView
	if v.Factors, v.Password, err = a.factors(r.Context(), s.PatientID, web.Lang(r)); err != nil {
		return err
	}
	return a.show(w, r, "account_factors", v)
}

// removeView is what the page account_factor_remove shows.
type removeView struct {
	Factor  factor
	Last    bool
	Problem string
}

// GetRemoveFactor asks once more, and says what follows.
// GET /account/factors/{id}/remove
func (a *Account) GetRemoveFactor(w http.ResponseWriter, r *http.Request) error {
	s, err := a.owner(w, r, 1, fresh)
	if s == nil {
		return err
	}
	v, err := a.removal(r, s.PatientID)
	if err != nil {
		return err
	}
	return a.show(w, r, "account_factor_remove", v)
}

// PostRemoveFactor removes a second factor and ends every other session. The
// last one goes only where the patient has ticked that this is meant.
// POST /account/factors/{id}/remove
func (a *Account) PostRemoveFactor(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	s, err := a.owner(w, r, 1, fresh)
	if s == nil {
		return err
	}
	form, err := web.Form(r)
	if err != nil {
		return err
	}
	v, err := a.removal(r, s.PatientID)
	if err != nil {
		return err
	}
	err = a.act(ctx, s, func(ctx context.Context) error {
		now := storage.Now()
		if err := a.db.RemoveFactor(ctx, s.PatientID, v.Factor.ID, form.Get("last") == "yes", now); err != nil {
			return err
		}
		if err := a.db.EndSessions(ctx, s.PatientID, s.ID, now); err != nil {
			return err
		}
		return a.db.Wish(ctx, queue.Notice{PatientID: s.PatientID, Notice: "factor_removed"})
	})
	if errors.Is(err, storage.ErrConflict) {
		v.Last, v.Problem = true, "account.factors.last.problem"
		return a.again(w, r, "account_factor_remove", v)
	}
	if err != nil {
		return fmt.Errorf("remove factor: %w", err)
	}
	web.Event(ctx, "auth.factor.removed", "factor", v.Factor.Kind, "credential", v.Factor.ID)
	return web.Redirect(w, r, "/account/factors")
}

// removal is the factor that the path names, if the patient has it.
func (a *Account) removal(r *http.Request, patientID string) (removeView, error) {
	all, _, err := a.factors(r.Context(), patientID, web.Lang(r))
	if err != nil {
		return removeView{}, err
	}
	for _, f := range all {
		if f.ID == mux.Vars(r)["id"] {
			return removeView{Factor: f, Last: len(all) == 1}, nil
		}
	}
	return removeView{}, storage.ErrNotFound
}

// factors are the patient's second factors, oldest first, and since when the
// password is.
func (a *Account) factors(ctx context.Context, patientID, lang string) (second []factor, password *moment, err error) {
	all, err := a.db.Credentials(ctx, patientID)
	for _, c := range all {
		added := at(lang, c.CreatedAt)
		if c.Kind == storage.KindPassword {
			password = &added
			continue
		}
		f := factor{ID: c.ID, Kind: c.Kind, Name: c.Name, Added: added, Disabled: c.DisabledAt != nil}
		if c.LastUsedAt != nil {
			used := at(lang, *c.LastUsedAt)
			f.Used = &used
		}
		second = append(second, f)
	}
	return second, password, err
}
