package account

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// profileView is what the page account_profile shows.
type profileView struct {
	Email                            string
	Given, Family, BirthDate, Locale string
	Reach, More                      []field
	Open                             bool // More is not folded away
	Langs                            []string
	Today                            string
	Problems                         map[string]string // field → key
}

// field is an optional one of the form: an input of a type, lines or a choice.
// Label, Hint and Problem are keys; Hint and Problem may be "".
type field struct {
	Name, Kind, Autocomplete, Label, Hint, Value, Problem string
	Choices                                               []string
}

// fieldOf says how a claim is asked for, and what is said where its value cannot
// be kept. Where the browser has a word for it, the field is named by that (HTML,
// autofill field names), else Autocomplete is off.
type fieldOf struct {
	claim, name, kind, autocomplete string
	hint, problem                   string
	value                           func(*storage.PatientMore) *string
}

// reach is how a patient is reached, more the rest, in the order of the page.
var (
	reach = []fieldOf{
		{"phone_number", "tel", "tel", "tel", "account.field.tel.how", "account.problem.tel", func(m *storage.PatientMore) *string { return &m.PhoneNumber }},
		{"street_address", "street-address", "lines", "street-address", "", "account.problem.lines", func(m *storage.PatientMore) *string { return &m.Address.Street }},
		{"postal_code", "postal-code", "text", "postal-code", "", "account.problem.text", func(m *storage.PatientMore) *string { return &m.Address.PostalCode }},
		{"locality", "address-level2", "text", "address-level2", "", "account.problem.text", func(m *storage.PatientMore) *string { return &m.Address.Locality }},
		{"region", "address-level1", "text", "address-level1", "", "account.problem.text", func(m *storage.PatientMore) *string { return &m.Address.Region }},
		{"country", "country-name", "text", "country-name", "", "account.problem.text", func(m *storage.PatientMore) *string { return &m.Address.Country }},
	}
	more = []fieldOf{
		{"middle_name", "additional-name", "text", "additional-name", "", "account.problem.text", func(m *storage.PatientMore) *string { return &m.MiddleName }},
		{"nickname", "nickname", "text", "nickname", "", "account.problem.text", func(m *storage.PatientMore) *string { return &m.Nickname }},
		{"preferred_username", "preferred-username", "text", "off", "account.field.preferred-username.how", "account.problem.text", func(m *storage.PatientMore) *string { return &m.PreferredUsername }},
		{"gender", "sex", "choice", "sex", "", "account.problem.text", func(m *storage.PatientMore) *string { return &m.Gender }},
		{"zoneinfo", "time-zone", "text", "off", "account.field.time-zone.how", "account.problem.zone", func(m *storage.PatientMore) *string { return &m.Zoneinfo }},
		{"website", "url", "url", "url", "account.field.link.how", "account.problem.link", func(m *storage.PatientMore) *string { return &m.Website }},
		{"picture", "photo", "url", "photo", "account.field.link.how", "account.problem.link", func(m *storage.PatientMore) *string { return &m.Picture }},
		{"profile", "public-profile", "url", "off", "account.field.link.how", "account.problem.link", func(m *storage.PatientMore) *string { return &m.Profile }},
	}
)

// genders are those that there are words for: the two of OpenID Connect Core,
// Section 5.1, which allows others, and one for whom neither fits.
var genders = []string{"female", "male", "other"}

// fields fills in a form with what was told.
func (v *profileView) fields(of []fieldOf, told storage.PatientMore) []field {
	var out []field
	for _, f := range of {
		shown := field{
			Name: f.name, Kind: f.kind, Autocomplete: f.autocomplete,
			Label: "account.field." + f.name, Hint: f.hint, Value: *f.value(&told), Problem: v.Problems[f.name],
		}
		if f.kind == "choice" {
			shown.Choices = genders
		}
		out = append(out, shown)
	}
	return out
}

// tell shows what was told; More is open where there is something to be seen.
func (v *profileView) tell(told storage.PatientMore) {
	v.Reach, v.More = v.fields(reach, told), v.fields(more, told)
	v.Open = slices.ContainsFunc(v.More, func(f field) bool { return f.Value != "" })
}

// typed is what the form says in the place of before. What a form does not ask
// for stays: a page of an earlier release may still be open.
func typed(form url.Values, before storage.PatientMore) storage.PatientMore {
	for _, f := range slices.Concat(reach, more) {
		if form.Has(f.name) {
			*f.value(&before) = form.Get(f.name)
		}
	}
	return before
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
	v := profileView{
		Email: p.Email, Given: p.GivenName, Family: p.FamilyName, BirthDate: p.BirthDate, Locale: p.Locale,
		Langs: a.site.Pages.Langs, Today: today(),
	}
	v.tell(p.More)
	return a.show(w, r, "account_profile", v)
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
	told := typed(form, p.More)
	kept := told.Normal()
	faults := kept.Faults()
	for _, f := range slices.Concat(reach, more) {
		if slices.Contains(faults, f.claim) {
			v.Problems[f.name] = f.problem
		}
	}
	if len(v.Problems) > 0 {
		v.tell(told)
		return a.again(w, r, "account_profile", v)
	}
	if kept.PhoneNumber != p.More.PhoneNumber {
		kept.PhoneVerifiedAt = nil
	}
	p.GivenName, p.FamilyName, p.BirthDate, p.Locale, p.More = v.Given, v.Family, v.BirthDate, v.Locale, kept
	if err := a.act(ctx, s, func(ctx context.Context) error { return a.db.UpdateProfile(ctx, p) }); err != nil {
		return fmt.Errorf("change profile: %w", err)
	}
	return web.Redirect(w, r, "/account")
}
