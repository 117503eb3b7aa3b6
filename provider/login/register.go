package login

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
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
	Network   []byte `json:"network"` // keyed digest of where that was
	Request   string `json:"request"`
	To        string `json:"to"`
	// Others are what was said before, and is not withdrawn by this. The release
	// before this one does not read them.
	Others []registration `json:"others,omitempty"`
}

// registrationsKept is how many registrations of one address wait for its mailbox.
// Whoever answers takes the one of their own browser, or that of the password they
// know: so who registers the address of somebody else, as often as they like, does
// not keep that person from registering. One network has one.
const registrationsKept = 5

// among is all the registrations that wait, with reg as the newest.
func (reg registration) among(all []registration) registration {
	reg.Others = nil
	for _, old := range all {
		if len(reg.Others) < registrationsKept-1 && !bytes.Equal(old.Browser, reg.Browser) && !bytes.Equal(old.Network, reg.Network) {
			reg.Others = append(reg.Others, old)
		}
	}
	return reg
}

// each is reg and its Others, the newest first.
func (reg registration) each() []registration {
	others := reg.Others
	reg.Others = nil
	return append([]registration{reg}, others...)
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
	ctx, begin := r.Context(), time.Now()
	form, flow, err := l.site.FormFlow(r)
	if err != nil {
		return err
	}
	if err := l.gate.stranger(r); err != nil {
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
	if err := l.gate.mails.Pass(r); err != nil {
		return err
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
		PHC: phc, Browser: browser, Network: l.db.MAC("registration-network", []byte(subscriber(r))), Request: flow.Request, To: flow.To,
	})
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	registrationSteps.WithLabelValues("asked").Inc()
	web.Event(ctx, "auth.register.asked")
	evenly(ctx, begin)
	return web.Redirect(w, r, "/verify-email/sent"+flow.Query())
}

// subscriber is where r comes from, taken so widely that hardly anybody has many.
func subscriber(r *http.Request) string {
	p, err := netip.ParsePrefix(web.Network(r))
	if err != nil {
		return web.Network(r)
	}
	wide, _ := p.Addr().Prefix(48) // which every IPv6 address has
	return wide.String()
}

// register asks the mailbox, or tells it that there is an account. Where the
// mailbox has had mail enough, the newest mail's link is good for reg, too.
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
		may, err := l.mayMail(ctx, reg.Email)
		if err != nil {
			return err
		}
		if p.EmailVerifiedAt != nil {
			if !may {
				return nil
			}
			return l.db.Wish(ctx, queue.AccountExists{PatientID: p.ID})
		}
		c, all, err := l.pending(ctx, p)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		data, err := json.Marshal(reg.among(all))
		if err != nil {
			return err
		}
		if !may && c.ID != "" && c.SpentAt == nil {
			return l.db.RenewChallenge(ctx, c, data, storage.Now().Add(verifyLife))
		}
		return l.askMailbox(ctx, p.ID, data, may)
	}
	var err error
	for range 5 {
		// The same address, registered at the same moment, is why it is tried again.
		if err = l.db.Tx(ctx, once); !errors.Is(err, storage.ErrConflict) && !errors.Is(err, storage.ErrSpent) {
			break
		}
	}
	return err
}

// askMailbox makes the challenge that registrations wait in, and wishes for its
// mail where there may be one; else that is done when somebody asks for it.
func (l *Login) askMailbox(ctx context.Context, patientID string, data []byte, mail bool) error {
	c := storage.Challenge{Kind: KindVerifyEmail, PatientID: patientID, Data: data, ExpiresAt: storage.Now().Add(verifyLife)}
	if err := l.db.NewMailedChallenge(ctx, &c); err != nil || !mail {
		return err
	}
	return l.db.Wish(ctx, queue.VerifyEmail{ChallengeID: c.ID})
}

// pending is the challenge of a patient whose mailbox has not answered, also when
// its link is too old, with the registrations that wait in it, the newest first;
// ErrNotFound where there is none.
func (l *Login) pending(ctx context.Context, p storage.Patient) (storage.Challenge, []registration, error) {
	c, err := l.db.LatestChallenge(ctx, KindVerifyEmail, p.ID)
	if err != nil {
		return storage.Challenge{}, nil, err
	}
	all, err := registrations(c)
	return c, all, err
}

// registrations are those that wait in c, the newest first.
func registrations(c storage.Challenge) ([]registration, error) {
	var reg registration
	if err := json.Unmarshal(c.Data, &reg); err != nil {
		return nil, fmt.Errorf("registration: %w", err)
	}
	return reg.each(), nil
}

// remind asks the mailbox of an unverified patient again.
func (l *Login) remind(ctx context.Context, p storage.Patient) error {
	return l.db.Tx(ctx, func(ctx context.Context) error {
		c, _, err := l.pending(ctx, p)
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if ok, err := l.mayMail(ctx, p.Email); err != nil || !ok {
			return err
		}
		return l.askMailbox(ctx, p.ID, c.Data, true)
	})
}

// mayMail counts a mail to an address. All addresses of a mailbox that have a tag
// (ada+diary@example.org) are one, and the one without is another, so that tags
// use up nothing of it.
func (l *Login) mayMail(ctx context.Context, email string) (bool, error) {
	err := l.db.CountAttempt(ctx, "mail", mailbox(email), mailsPerHour, time.Hour, storage.Now())
	if errors.Is(err, storage.ErrSpent) {
		return false, nil
	}
	return err == nil, err
}

// mailbox is email without what its tag says (RFC 5233, Section 1).
func mailbox(email string) string {
	local, domain, _ := strings.Cut(email, "@")
	if name, _, tagged := strings.Cut(local, "+"); tagged && name != "" {
		return name + "+@" + domain
	}
	return email
}

// GetSent says that there is mail, whether there is or not. GET /verify-email/sent
func (l *Login) GetSent(w http.ResponseWriter, r *http.Request) error {
	_, flow, err := web.QueryFlow(r)
	if err != nil {
		return err
	}
	return l.site.Render(w, r, http.StatusOK, "login_check_mail", struct{ Flow web.Flow }{flow})
}

func today() string { return time.Now().UTC().Format(time.DateOnly) }
