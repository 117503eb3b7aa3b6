package account

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// profileView is what the page account_profile shows.
type profileView struct {
	Email                            string
	Given, Family, BirthDate, Locale string
	Langs                            []string
	Today                            string
	Problems                         map[string]string // field → key
}

// GetProfile shows the form. GET /account/profile
func (a *Account) GetProfile(w http.ResponseWriter, r *http.Request) error {
	s, err := a.owner(w, r, 1, 0)
	if s == nil {
		return err
	}
	p, err := a.db.PatientByID(r.Context(), s.PatientID)
	if err != nil {
		return err
	}
	return a.show(w, r, "account_profile", profileView{
		Email: p.Email, Given: p.GivenName, Family: p.FamilyName, BirthDate: p.BirthDate, Locale: p.Locale,
		Langs: a.site.Pages.Langs, Today: today(),
	})
}

// PostProfile takes the form. What the lab knows about the patient is not
// touched by it. POST /account/profile
func (a *Account) PostProfile(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	s, err := a.owner(w, r, 1, 0)
	if s == nil {
		return err
	}
	form, err := web.Form(r)
	if err != nil {
		return err
	}
	p, err := a.db.PatientByID(ctx, s.PatientID)
	if err != nil {
		return err
	}
	v := profileView{
		Email: p.Email, Given: storage.NormalName(form.Get("given-name")), Family: storage.NormalName(form.Get("family-name")),
		BirthDate: form.Get("bday"), Locale: form.Get("language"),
		Langs: a.site.Pages.Langs, Today: today(), Problems: map[string]string{},
	}
	if !storage.GoodName(v.Given) {
		v.Problems["given-name"] = "register.problem.name"
	}
	if !storage.GoodName(v.Family) {
		v.Problems["family-name"] = "register.problem.name"
	}
	if !storage.GoodBirthDate(v.BirthDate, storage.Now()) {
		v.Problems["bday"] = "register.problem.bday"
	}
	if v.Locale != "" && !slices.Contains(v.Langs, v.Locale) {
		v.Problems["language"] = "account.problem.language"
	}
	if len(v.Problems) > 0 {
		return a.again(w, r, "account_profile", v)
	}
	if err := a.db.UpdateProfile(ctx, s.PatientID, v.Given, v.Family, v.BirthDate, v.Locale); err != nil {
		return fmt.Errorf("change profile: %w", err)
	}
	return web.Redirect(w, r, "/account")
}
