package account

import (
	"net/http"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// overviewView is what the page account_overview shows.
type overviewView struct {
	Given, Family, BirthDate, Email string
	Record                          *record // nil where none is linked
	Factors                         []factor
	Sessions                        []device
	Apps                            []app
}

// GetOverview shows everything at a glance. GET /account
func (a *Account) GetOverview(w http.ResponseWriter, r *http.Request) error {
	s, err := a.owner(w, r, 1, 0)
	if s == nil {
		return err
	}
	ctx, lang := r.Context(), web.Lang(r)
	p, err := a.db.PatientByID(ctx, s.PatientID)
	if err != nil {
		return err
	}
	v := overviewView{Given: p.GivenName, Family: p.FamilyName, BirthDate: day(lang, p.BirthDate), Email: p.Email}
	if v.Record, err = a.record(ctx, s.PatientID, lang); err != nil {
		return err
	}
	if v.Factors, _, err = a.factors(ctx, s.PatientID, lang); err != nil {
		return err
	}
	if v.Sessions, err = a.devices(ctx, s, lang); err != nil {
		return err
	}
	apps, err := a.db.AppsOf(ctx, s.PatientID, storage.Now())
	v.Apps = appsIn(lang, apps)
	if err != nil {
		return err
	}
	return a.show(w, r, "account_overview", v)
}
