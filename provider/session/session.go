// Package session is the cookie, and whom it belongs to. A session remembers
// which factors were proven and when; from that alone follows what it is worth
// (ACR, AMR) and what a page or a client still has to ask for (Missing). No step
// of a sign-in is stored anywhere: every guard asks Missing again.
package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// The factors that a session can remember.
const (
	Password  = "pwd"
	TOTP      = "otp"
	Passkey   = "passkey"    // a key whose holder touched it
	PasskeyUV = "passkey_uv" // a key that verified its holder by PIN or biometrics
)

// Sessions opens, raises and guards the sessions of one issuer.
type Sessions struct {
	DB   *storage.DB
	Site *web.Site
	Config
}

// Config bounds the life of a session.
type Config struct {
	// Idle ends a session that was not used for so long. Default 30m, at most 1h.
	Idle time.Duration `yaml:"idle" env:"IDLE"`
	// Absolute ends a session however much it is used. Default 12h, at most 24h.
	Absolute time.Duration `yaml:"absolute" env:"ABSOLUTE"`
}

// Defaults are the limits that hold where nothing is configured.
func Defaults() Config { return Config{Idle: 30 * time.Minute, Absolute: 12 * time.Hour} }

// Validate refuses limits beyond those of NIST SP 800-63B-4, Section 2.2.3.
func (c Config) Validate() error {
	var faults []error
	if c.Idle < time.Minute || c.Idle > time.Hour {
		faults = append(faults, fmt.Errorf("session.idle: %s is not between 1m and 1h", c.Idle))
	}
	if c.Absolute < c.Idle || c.Absolute > 24*time.Hour {
		faults = append(faults, fmt.Errorf("session.absolute: %s is not between session.idle and 24h", c.Absolute))
	}
	return errors.Join(faults...)
}

// A Proof is what somebody has just shown: which factors, and by which credential.
type Proof struct {
	Credential string // its id
	Factors    []string
}

// Start signs a patient in by a proof, and sets the cookie once that is committed.
// Where the browser already has a session of this patient, that one goes on
// under its id, so that tokens stay tied to it, but what was proven before no
// longer counts: who is asked to sign in again proves everything again. A
// session of anybody else ends. ctx may carry the transaction that the proof was
// spent in. storage.ErrNotFound where the account was shut, or the credential
// revoked or disabled, while the proof was checked.
func (s *Sessions) Start(ctx context.Context, w http.ResponseWriter, r *http.Request, patientID string, by Proof) (*storage.Session, error) {
	storage.ActAs(ctx, storage.ActorPatient(patientID))
	old, ok := From(ctx)
	if ok && old.PatientID == patientID {
		return s.replace(ctx, w, r, old, nil, by)
	}
	now := storage.Now()
	handle := storage.NewHandle(handlePrefix)
	fresh := &storage.Session{
		ID: storage.NewID(), Digest: storage.Digest(handle), PatientID: patientID, Factors: proven(nil, by.Factors, now),
		AuthTime: now, CreatedAt: now, LastSeenAt: now, ExpiresAt: now.Add(s.Absolute),
		UserAgent: userAgent(r), IP: web.ClientIP(r.Context()),
	}
	err := s.DB.Tx(ctx, func(ctx context.Context) error {
		if err := s.DB.HoldProof(ctx, patientID, by.Credential); err != nil {
			return err
		}
		if ok {
			err := s.DB.EndSession(ctx, old.PatientID, old.ID, now)
			if err != nil && !errors.Is(err, storage.ErrNotFound) {
				return err
			}
		}
		return s.DB.CreateSession(ctx, fresh)
	})
	if err != nil {
		return nil, fmt.Errorf("start session: %w", err)
	}
	s.hand(ctx, w, handle)
	web.Note(ctx, "session", fresh.ID)
	return fresh, nil
}

// Raise adds a proof to the session of ctx. The session keeps its id and gets a new
// handle; the old one is dead. Without a session it is web.ErrLogin; where another
// request has raised or ended it meanwhile, storage.ErrSpent; where the account was
// shut, or the credential revoked or disabled, storage.ErrNotFound.
func (s *Sessions) Raise(ctx context.Context, w http.ResponseWriter, r *http.Request, by Proof) (*storage.Session, error) {
	old, ok := From(ctx)
	if !ok {
		return nil, web.ErrLogin
	}
	return s.replace(ctx, w, r, old, old.Factors, by)
}

// replace gives the session old a new handle; it proves kept and by from now on.
func (s *Sessions) replace(ctx context.Context, w http.ResponseWriter, r *http.Request, old *storage.Session, kept storage.Factors, by Proof) (*storage.Session, error) {
	now := storage.Now()
	handle := storage.NewHandle(handlePrefix)
	raised := *old
	raised.Digest, raised.Factors = storage.Digest(handle), proven(kept, by.Factors, now)
	raised.AuthTime, raised.LastSeenAt = now, now
	raised.UserAgent, raised.IP = userAgent(r), web.ClientIP(r.Context())
	err := s.DB.Tx(ctx, func(ctx context.Context) error {
		if err := s.DB.HoldProof(ctx, old.PatientID, by.Credential); err != nil {
			return err
		}
		return s.DB.ReplaceSession(ctx, old.Digest, &raised)
	})
	if err != nil {
		return nil, fmt.Errorf("raise session: %w", err)
	}
	s.hand(ctx, w, handle)
	return &raised, nil
}

// hand gives the browser its handle once the session of it is committed: one that
// is told of a session that never was has lost the one it had.
func (s *Sessions) hand(ctx context.Context, w http.ResponseWriter, handle string) {
	s.DB.AfterCommit(ctx, func() { http.SetCookie(w, web.Cookie(s.Site.Issuer, web.SessionCookie, handle, 0)) })
}

// End signs the browser out: the session of the request ends, the cookie goes,
// and the browser is asked to forget what it kept of these pages. Without a
// session only the browser forgets.
func End(w http.ResponseWriter, r *http.Request, db *storage.DB, issuer string) error {
	if s, ok := From(r.Context()); ok {
		err := db.EndSession(r.Context(), s.PatientID, s.ID, storage.Now())
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return fmt.Errorf("end session: %w", err)
		}
	}
	http.SetCookie(w, web.Cookie(issuer, web.SessionCookie, "", -1))
	// Not "cookies": that would reach the cookies of every host of the domain.
	w.Header().Set("Clear-Site-Data", `"cache", "storage"`)
	return nil
}

// handlePrefix lets a secret scanner recognise a handle.
const handlePrefix = "pas_"

func proven(old storage.Factors, factors []string, now time.Time) storage.Factors {
	all := maps.Clone(old)
	if all == nil {
		all = storage.Factors{}
	}
	for _, f := range factors {
		all[f] = now
	}
	return all
}

// userAgent is what the browser calls itself, for the patient's list of
// sessions: valid text and not long.
func userAgent(r *http.Request) string {
	ua := strings.Map(func(c rune) rune {
		if c < 0x20 || c > 0x7e {
			return -1
		}
		return c
	}, r.UserAgent())
	return ua[:min(len(ua), 200)]
}
