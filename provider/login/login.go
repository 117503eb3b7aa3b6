// Package login is how a patient gets in: registration with a mailbox that
// answers, the password, and a second factor that is asked for, or set up.
//
// A page proves one fact and returns to where the Flow says; none of them knows
// what comes next. A proof is counted before it is checked and spent before it
// counts. Whatever is asked anonymously is answered alike for everybody: who
// has an account here is nobody's business.
//
// The ways in: the password, alone worth one factor; the password with a code
// of an authenticator app or with a passkey, worth two; a passkey that verifies
// its holder, worth two. There is no other.
package login

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// Config is what an operator may set about signing in.
type Config struct {
	Hash HashConfig `yaml:"hash" envPrefix:"HASH_"`
	// TOTPPast is how many 30-second steps before the present one a code may be
	// of. Default 1; at most 1 by RFC 6238, Section 5.2. Each counts once.
	TOTPPast int `yaml:"totp_past" env:"TOTP_PAST"`
	// Limits bound anonymous forms for each process.
	Limits Limits `yaml:"limits" envPrefix:"LIMITS_"`
}

// Defaults are the settings that hold where nothing is configured.
func Defaults() Config { return Config{Hash: defaultHash(), TOTPPast: 1, Limits: defaultLimits()} }

// Validate refuses settings that would make signing in weak.
func (c Config) Validate() error {
	var faults []error
	if c.TOTPPast < 0 || c.TOTPPast > 1 {
		faults = append(faults, fmt.Errorf("login.totp_past: %d is not 0 or 1", c.TOTPPast))
	}
	return errors.Join(append(faults, c.Hash.validate(), c.Limits.validate())...)
}

// Login serves the pages of this package. Its methods are web.Handlers.
type Login struct {
	db       *storage.DB
	site     *web.Site
	sessions *session.Sessions
	hasher   *Hasher
	gate     *gate
	passkeys *passkeys // nil where the issuer can have none
	factors  []factor
}

// New is the login of the site that sessions belong to.
func New(sessions *session.Sessions, c Config) (*Login, error) {
	hasher, err := NewHasher(sessions.DB, c.Hash)
	if err != nil {
		return nil, err
	}
	l := &Login{
		db: sessions.DB, site: sessions.Site, sessions: sessions,
		hasher: hasher, gate: newGate(c.Limits),
	}
	if l.passkeys, err = newPasskeys(l.db, l.site); err != nil {
		return nil, err
	}
	// Every second factor, in the order in which they are offered.
	if l.passkeys != nil {
		l.factors = append(l.factors, l.passkeys)
	}
	l.factors = append(l.factors, totp{db: l.db, issuer: issuerName(l.site), past: c.TOTPPast})
	return l, nil
}

// A factor is a way to prove more than the password. Its pages are
// login_enrol_KIND.html and a part of login_second.html; its texts are
// enrol.kind.KIND, enrol.about.KIND and
// enrol.choose.KIND.
type factor interface {
	kind() string
	// ask prepares what the page shows to get a proof from one of who.creds.
	ask(ctx context.Context, who subject) (any, error)
	// verify takes the answer and returns what was proven; errWrong where it
	// proves nothing. An answer counts once.
	verify(ctx context.Context, who subject, form answer) (session.Proof, error)
	// offer prepares what the page shows to set up an authenticator. again is
	// the answer that was wrong, or nil.
	offer(ctx context.Context, who subject, again answer) (any, error)
	// enrol takes the answer and returns the credential to add, which is not
	// stored yet, and what was proven by it; errWrong where it proves nothing.
	enrol(ctx context.Context, who subject, form answer) (storage.Credential, []string, error)
}

// answer is a form.
type answer = map[string][]string

// subject is whom a factor is asked of.
type subject struct {
	patient storage.Patient
	session *storage.Session
	creds   []storage.Credential // the live ones of the factor's kind
}

// errWrong says that an answer proves nothing. The page is shown again.
var errWrong = errors.New("the answer is wrong")

// errUsed is errWrong of an answer that was right, and was given before: a second
// press, say. It counts for nothing, and is no guess either.
var errUsed = fmt.Errorf("used before: %w", errWrong)

// factor finds a factor by kind.
func (l *Login) factor(kind string) (factor, error) {
	for _, f := range l.factors {
		if f.kind() == kind {
			return f, nil
		}
	}
	return nil, storage.ErrNotFound
}

// subject is the patient of the session with the credentials of a kind.
func (l *Login) subject(ctx context.Context, s *storage.Session, kind string) (subject, error) {
	who := subject{session: s}
	var err error
	if who.patient, err = l.db.PatientByID(ctx, s.PatientID); err != nil {
		return who, err
	}
	all, err := l.db.Credentials(ctx, s.PatientID)
	for _, c := range all {
		if c.Kind == kind {
			who.creds = append(who.creds, c)
		}
	}
	return who, err
}

// PostSignout ends the session; whoever signs in next goes on with the request that
// the form names, if any. POST /signout
func (l *Login) PostSignout(w http.ResponseWriter, r *http.Request) error {
	_, flow, err := l.site.FormFlow(r)
	if err != nil && !errors.Is(err, web.ErrUnsupportedMediaType) {
		return err
	}
	if err := session.End(w, r, l.db, l.site.Issuer); err != nil {
		return err
	}
	web.Event(r.Context(), "auth.signout")
	return web.Redirect(w, r, "/login"+flow.Query())
}
