package login

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/tasks/queue"
)

// signinView is what the page login_signin shows.
type signinView struct {
	Flow    web.Flow
	Email   string
	Problem string
	Passkey *ceremony // nil where none can be used
}

// GetLogin asks who it is. GET /login
func (l *Login) GetLogin(w http.ResponseWriter, r *http.Request) error {
	flow, err := l.site.PageFlow(r)
	if err != nil {
		return err
	}
	// One visitor must not keep those who were here before from the page.
	if len(l.knownBrowser(r)) == 0 {
		if err := l.gate.looks.Pass(r); err != nil {
			return err
		}
	}
	v := signinView{Flow: flow, Email: flow.Typed, Problem: flow.Problem}
	if v.Email == "" {
		v.Email = l.hint(r.Context(), flow)
	}
	return l.showLogin(w, r, flow.Status(), v)
}

// hint is the address that the client believes the patient to sign in with, ""
// where it gave none (OpenID Connect Core, Section 3.1.2.1, login_hint). It only
// fills the field in, so a request that cannot be read is no failure.
func (l *Login) hint(ctx context.Context, flow web.Flow) string {
	if flow.Request == "" {
		return ""
	}
	a, err := l.db.OpenAuthRequest(ctx, flow.Request)
	if err != nil {
		return ""
	}
	email, err := storage.ParseEmail(a.Params.Get("login_hint"))
	if err != nil {
		return ""
	}
	return email
}

func (l *Login) showLogin(w http.ResponseWriter, r *http.Request, status int, v signinView) error {
	if l.passkeys != nil {
		browser, err := l.browser(w, r)
		if err != nil {
			return err
		}
		if v.Passkey, err = l.passkeys.invite(browser); err != nil {
			return err
		}
	}
	return l.site.Render(w, r, status, "login_signin", v)
}

// PostLogin checks the password. POST /login
//
// An address without an account, a disabled account, a wrong password and one
// that rests after failures get one answer, after the same work.
func (l *Login) PostLogin(w http.ResponseWriter, r *http.Request) error {
	ctx, begin := r.Context(), time.Now()
	form, flow, err := l.site.FormFlow(r)
	if err != nil {
		return err
	}
	pass := l.gate.stranger
	if l.knownFor(r, form.Get("email")) != "" {
		pass = l.gate.member
	}
	if err := pass(r); err != nil {
		web.Event(ctx, "auth.login.throttled")
		return err
	}
	who, err := l.candidate(r, form.Get("email"))
	if err != nil {
		return err
	}
	password := form.Get("current-password")
	ok, err := l.proves(ctx, &who, password)
	if err != nil {
		return err
	}
	if !ok {
		if who.known == "" {
			l.gate.failed(r)
		}
		web.Event(ctx, "auth.login.failed", "factor", session.Password)
		evenly(ctx, begin)
		return l.site.Again(w, r, "/login", flow, "login.wrong", form.Get("email"))
	}
	if who.patient.EmailVerifiedAt == nil {
		if err := l.gate.mails.Pass(r); err != nil {
			return err
		}
		if err := l.remind(ctx, who.patient); err != nil {
			return err
		}
		web.Event(ctx, "auth.login.unverified")
		return web.Redirect(w, r, "/verify-email/sent"+flow.Query())
	}
	storage.ActAs(ctx, storage.ActorPatient(who.patient.ID))
	err = l.db.Tx(ctx, func(ctx context.Context) error {
		if err := l.db.HoldPatient(ctx, who.patient.ID); err != nil {
			return err
		}
		if err := l.db.CredentialSucceeded(ctx, who.credential.ID, storage.Now()); err != nil {
			return err
		}
		if who.credential.DisabledAt != nil {
			if err := l.db.EnableCredential(ctx, who.credential); err != nil {
				return err
			}
		}
		_, err := l.sessions.Start(ctx, w, r, who.patient.ID, session.Proof{Credential: who.credential.ID, Factors: []string{session.Password}})
		return err
	})
	if errors.Is(err, storage.ErrNotFound) {
		// Changed, or the account shut, while the hash was made: as if it had been before.
		attempts.WithLabelValues(storage.KindPassword, "bad").Inc()
		web.Event(ctx, "auth.login.failed", "factor", session.Password)
		return l.showLogin(w, r, http.StatusUnauthorized, signinView{Flow: flow, Email: form.Get("email"), Problem: "login.wrong"})
	}
	if err != nil {
		return l.takeBack(ctx, who, fmt.Errorf("sign in: %w", err))
	}
	if err := l.remember(w, r, who.patient.Email); err != nil {
		return err
	}
	// A mistake that the patient has mended is none of the network's.
	l.gate.failures.Refund(r, who.credential.Failures)
	l.rehash(ctx, who)
	attempts.WithLabelValues(storage.KindPassword, "ok").Inc()
	web.Note(ctx, "patient", who.patient.ID)
	web.Event(ctx, "auth.login.ok", "factor", session.Password)
	return web.Redirect(w, r, flow.Done())
}

// evenly waits until the work since begin has taken a whole number of steps, so
// that the time of an answer does not tell how many statements it took, and with
// that who has an account.
func evenly(ctx context.Context, begin time.Time) {
	const step = 50 * time.Millisecond
	wait := time.NewTimer(step - time.Since(begin)%step)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
}

// candidate is who may be signing in. The zero candidate is nobody.
type candidate struct {
	patient    storage.Patient
	credential storage.Credential // none as long as the mailbox has not answered
	phc        string
	anew       string // the hash as it is made now, where it is made in another way
	// The try that is under way, where there is a credential; known is whose it is
	// where the browser is known for the account, and there is no other then.
	try   storage.Try
	known string
}

// candidate finds who goes by an address; nobody where there is no such
// patient, or the patient may not sign in.
func (l *Login) candidate(r *http.Request, email string) (candidate, error) {
	ctx := r.Context()
	p, err := l.db.PatientByEmail(ctx, email)
	if errors.Is(err, storage.ErrNotFound) || err == nil && p.DisabledAt != nil {
		return candidate{}, nil
	}
	if err != nil {
		return candidate{}, err
	}
	if p.EmailVerifiedAt == nil {
		_, all, err := l.pending(ctx, p)
		if errors.Is(err, storage.ErrNotFound) {
			return candidate{}, nil
		}
		if err != nil {
			return candidate{}, err
		}
		reg, here := l.madeHere(r, all)
		if !here {
			reg = all[0]
		}
		return candidate{patient: p, phc: reg.PHC}, nil
	}
	all, err := l.db.Credentials(ctx, p.ID)
	for _, c := range all {
		if c.Kind == storage.KindPassword {
			return candidate{patient: p, credential: c, phc: string(c.Secret), known: l.knownFor(r, p.Email)}, err
		}
	}
	return candidate{}, err
}

// proves reports whether password is that of who. The try is counted first, and
// stays counted until the caller has made something of a right one.
func (l *Login) proves(ctx context.Context, who *candidate, password string) (bool, error) {
	may := who.patient.ID != ""
	if who.known != "" {
		if err := l.countKnown(ctx, who); err != nil {
			return false, err
		}
	}
	if who.credential.ID != "" && who.known == "" {
		var err error
		switch who.try, err = l.db.TryCredential(ctx, who.credential.ID, storage.Now()); {
		case errors.Is(err, storage.ErrSpent):
			may = false
			attempts.WithLabelValues(storage.KindPassword, "throttled").Inc()
		case err != nil:
			return false, err
		}
	}
	if len(password) > passwordMaxBytes {
		password = "" // no password is so long, and hashing it is work for nothing
	}
	hasher := l.hasher
	if who.known != "" {
		hasher = hasher.members()
	}
	ok, anew, err := hasher.Verify(ctx, who.phc, password)
	if err != nil {
		return false, l.takeBack(ctx, *who, err)
	}
	who.anew = anew
	if ok && may {
		if who.known != "" {
			err = errors.Join(l.db.ForgiveAttempt(ctx, kindKnown, who.known), l.db.ForgetAttempts(ctx, kindKnown, who.credential.ID))
			who.known = ""
		}
		return true, err
	}
	attempts.WithLabelValues(storage.KindPassword, "bad").Inc()
	if !may || who.known != "" {
		return false, nil
	}
	return false, l.failed(ctx, who.credential)
}

// takeBack is err, after a try was taken back that came to nothing because of it:
// what was not checked is no failure.
func (l *Login) takeBack(ctx context.Context, who candidate, err error) error {
	switch {
	case who.known != "":
		return errors.Join(err, l.db.ForgiveAttempt(ctx, kindKnown, who.known), l.db.ForgiveAttempt(ctx, kindKnown, who.credential.ID))
	case who.try.Credential != "":
		return errors.Join(err, l.db.TakeBack(ctx, who.try))
	}
	return err
}

// failed records a wrong proof with c, if there is such a credential, and tells
// the patient when it was one too many.
func (l *Login) failed(ctx context.Context, c storage.Credential) error {
	if c.ID == "" {
		return nil
	}
	return l.db.Tx(ctx, func(ctx context.Context) error {
		disabled, err := l.db.CredentialFailed(ctx, c.ID, storage.Now())
		if err != nil || !disabled {
			return err
		}
		web.Event(ctx, "auth.factor.disabled", "factor", c.Kind)
		attempts.WithLabelValues(c.Kind, "disabled").Inc()
		return l.db.Wish(ctx, queue.Notice{PatientID: c.PatientID, Notice: "factor_disabled"})
	})
}

// rehash writes the hash anew where it was made at another cost, or imported.
// It is a favour to the future: no failure of it is one of the sign-in.
func (l *Login) rehash(ctx context.Context, who candidate) {
	if who.anew == "" {
		return
	}
	err := l.db.ReplaceSecret(ctx, who.credential, []byte(who.anew))
	if err != nil && !errors.Is(err, storage.ErrSpent) {
		web.Note(ctx, "rehash_error", err.Error())
	}
}
