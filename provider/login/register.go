package login

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/tasks/queue"
)

const (
	// KindVerifyEmail is the kind of the challenges that ask a mailbox.
	KindVerifyEmail = "verify_email"
	// verifyLife is how long a mailed link works.
	verifyLife = 30 * time.Minute
	// mailsPerHour bounds what strangers can make us send to one address.
	mailsPerHour = 3
)

// registration is what somebody said about themselves, kept sealed in the
// challenge until the mailbox answers. Only then it becomes the account: so
// nobody can prepare an account for an address that is not theirs, and whoever
// registers an address again starts from nothing.
type registration struct {
	Email     string `json:"email"` // as it was when the mail was asked for
	Given     string `json:"given"`
	Family    string `json:"family"`
	BirthDate string `json:"birth_date"`
	Locale    string `json:"locale"`
	PHC       string `json:"phc"`     // of the password
	Browser   []byte `json:"browser"` // digest of the cookie of the browser that registered
	Request   string `json:"request"`
	To        string `json:"to"`
}

// registerView is what the page login_register shows.
type registerView struct {
	Flow                            web.Flow
	Email, Given, Family, BirthDate string
	Today                           string
	Problems                        map[string]string // field → key
}

// GetRegister shows the form. GET /register
func (l *Login) GetRegister(w http.ResponseWriter, r *http.Request) error {
	_, flow, err := web.QueryFlow(r)
	if err != nil {
		return err
	}
	return l.site.Render(w, r, http.StatusOK, "login_register", registerView{Flow: flow, Today: today(), Email: l.hint(r.Context(), flow)})
}

// PostRegister takes the form. POST /register
//
// The answer is the same whether the address is new, known or disabled; only the
// mailbox learns the difference.
func (l *Login) PostRegister(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	form, flow, err := l.site.FormFlow(r)
	if err != nil {
		return err
	}
	if err := l.gate.pass(r); err != nil {
		return err
	}
	v := registerView{
		Flow: flow, Email: strings.TrimSpace(form.Get("email")), Given: storage.NormalName(form.Get("given-name")), Family: storage.NormalName(form.Get("family-name")),
		BirthDate: form.Get("bday"), Today: today(), Problems: map[string]string{},
	}
	email, err := storage.ParseEmail(v.Email)
	if err != nil {
		v.Problems["email"] = "register.problem.email"
	}
	if !storage.GoodName(v.Given) {
		v.Problems["given-name"] = "register.problem.name"
	}
	if !storage.GoodName(v.Family) {
		v.Problems["family-name"] = "register.problem.name"
	}
	if !storage.GoodBirthDate(v.BirthDate, time.Now()) {
		v.Problems["bday"] = "register.problem.bday"
	}
	password := form.Get("new-password")
	if key := passwordProblem(password, v.Given, v.Family, email, l.site.Issuer); key != "" {
		v.Problems["new-password"] = key
	}
	if len(v.Problems) > 0 {
		return l.site.Render(w, r, http.StatusUnprocessableEntity, "login_register", v)
	}
	phc, err := l.hasher.Hash(ctx, password)
	if err != nil {
		return err
	}
	browser, err := l.browser(w, r)
	if err != nil {
		return err
	}
	err = l.register(ctx, registration{
		Email: email, Given: v.Given, Family: v.Family, BirthDate: v.BirthDate, Locale: web.Lang(r),
		PHC: phc, Browser: browser, Request: flow.Request, To: flow.To,
	})
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	registrations.WithLabelValues("asked").Inc()
	web.Event(ctx, "auth.register.asked")
	return l.showCheckMail(w, r, flow)
}

// register asks the mailbox, or tells it that there is an account.
func (l *Login) register(ctx context.Context, reg registration) error {
	once := func(ctx context.Context) error {
		p, err := l.db.PatientByEmail(ctx, reg.Email)
		if errors.Is(err, storage.ErrNotFound) {
			p = storage.Patient{Email: reg.Email, Locale: reg.Locale}
			err = l.db.CreatePatient(ctx, &p)
		}
		if err != nil {
			return err
		}
		if p.DisabledAt != nil {
			return nil
		}
		if ok, err := l.mayMail(ctx, reg.Email); err != nil || !ok {
			return err
		}
		if p.EmailVerifiedAt != nil {
			return l.db.Wish(ctx, queue.AccountExists{PatientID: p.ID})
		}
		return l.askMailbox(ctx, p.ID, reg)
	}
	err := l.db.Tx(ctx, once)
	if errors.Is(err, storage.ErrConflict) { // the same address, registered at the same moment
		err = l.db.Tx(ctx, once)
	}
	return err
}

// askMailbox makes the challenge that reg waits in and wishes for its mail.
func (l *Login) askMailbox(ctx context.Context, patientID string, reg registration) error {
	data, err := json.Marshal(reg)
	if err != nil {
		return err
	}
	c := storage.Challenge{Kind: KindVerifyEmail, PatientID: patientID, Data: data, ExpiresAt: storage.Now().Add(verifyLife)}
	if err := l.db.NewMailedChallenge(ctx, &c); err != nil {
		return err
	}
	return l.db.Wish(ctx, queue.VerifyEmail{ChallengeID: c.ID})
}

// pending is the newest registration of a patient whose mailbox has not
// answered, also when its link is too old; ErrNotFound where there is none.
func (l *Login) pending(ctx context.Context, p storage.Patient) (registration, error) {
	var reg registration
	c, err := l.db.LatestChallenge(ctx, KindVerifyEmail, p.ID)
	if err != nil {
		return reg, err
	}
	if err := json.Unmarshal(c.Data, &reg); err != nil {
		return reg, fmt.Errorf("registration: %w", err)
	}
	return reg, nil
}

// remind asks the mailbox of an unverified patient again.
func (l *Login) remind(ctx context.Context, p storage.Patient) error {
	return l.db.Tx(ctx, func(ctx context.Context) error {
		reg, err := l.pending(ctx, p)
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if ok, err := l.mayMail(ctx, p.Email); err != nil || !ok {
			return err
		}
		return l.askMailbox(ctx, p.ID, reg)
	})
}

func (l *Login) mayMail(ctx context.Context, email string) (bool, error) {
	err := l.db.CountAttempt(ctx, "mail", email, mailsPerHour, time.Hour, storage.Now())
	if errors.Is(err, storage.ErrSpent) {
		return false, nil
	}
	return err == nil, err
}

// showCheckMail says that there is mail, whether there is or not.
func (l *Login) showCheckMail(w http.ResponseWriter, r *http.Request, flow web.Flow) error {
	return l.site.Render(w, r, http.StatusOK, "login_check_mail", struct{ Flow web.Flow }{flow})
}

func today() string { return time.Now().UTC().Format(time.DateOnly) }
