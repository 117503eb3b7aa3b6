package storage

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/mail"
	"strings"
	"time"
	"unicode"

	"golang.org/x/text/unicode/norm"
	"gorm.io/gorm"
)

// Patient is a person with an account. ID is the person's identity here for
// ever: it is never reused and never derived from anything about them.
type Patient struct {
	ID    string
	Email string // as NormalEmail writes it; unique
	// EmailVerifiedAt is nil until the mailbox has answered. An account without
	// it holds an address and nothing else that counts.
	EmailVerifiedAt *time.Time
	GivenName       string
	FamilyName      string
	BirthDate       string // YYYY-MM-DD, or "" where it is not known
	Locale          string // "en", "de", or "" for the browser's wish
	More            PatientMore
	// WebAuthnHandle is 64 random bytes that name the account to authenticators
	// (WebAuthn, Section 14.6.1: no personal data in the user handle).
	WebAuthnHandle []byte `gorm:"column:webauthn_handle"`
	DisabledAt     *time.Time
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

// TableName names the table.
func (Patient) TableName() string { return "patient" }

// NormalEmail is the one spelling of an address that accounts are kept under:
// trimmed, NFC, lower case.
func NormalEmail(raw string) string {
	return strings.ToLower(norm.NFC.String(strings.TrimSpace(raw)))
}

// ParseEmail is NormalEmail for addresses that will be written to: it refuses
// what is not one plain address, anything that could forge a mail header, and what
// is not Legible: two addresses that look alike are one to whoever reads them.
func ParseEmail(raw string) (string, error) {
	s := NormalEmail(raw)
	a, err := mail.ParseAddress(s)
	local, domain, _ := strings.Cut(s, "@")
	switch {
	case err != nil, a.Address != s, len(s) > 254, local == "", domain == "", !Legible(s),
		strings.ContainsFunc(s, func(r rune) bool {
			return unicode.IsSpace(r) || strings.ContainsRune(`"<>,;:\()[]`, r)
		}):
		return "", fmt.Errorf("not an e-mail address")
	}
	return s, nil
}

// CreatePatient stores p; an empty ID and handle, and the times, are filled in.
// ErrConflict where the address has an account already.
func (db *DB) CreatePatient(ctx context.Context, p *Patient) error {
	if p.ID == "" {
		p.ID = NewID()
	}
	if len(p.WebAuthnHandle) == 0 {
		p.WebAuthnHandle = make([]byte, 64)
		rand.Read(p.WebAuthnHandle)
	}
	p.Email = NormalEmail(p.Email)
	p.CreatedAt = Now()
	p.UpdatedAt = p.CreatedAt
	return db.Tx(ctx, func(ctx context.Context) error {
		if err := db.g(ctx).Create(p).Error; err != nil {
			return mapErr(err)
		}
		return db.Audit(ctx, AuditEvent{Event: "patient.created", Subject: p.ID, Object: "patient:" + p.ID})
	})
}

// PatientByID finds a patient, disabled or not.
func (db *DB) PatientByID(ctx context.Context, id string) (Patient, error) {
	return db.patient(ctx, "id = ?", id)
}

// PatientByEmail finds a patient by address, in any spelling, disabled or not.
func (db *DB) PatientByEmail(ctx context.Context, email string) (Patient, error) {
	return db.patient(ctx, "email = ?", NormalEmail(email))
}

// PatientByHandle finds the patient whom an authenticator names.
func (db *DB) PatientByHandle(ctx context.Context, handle []byte) (Patient, error) {
	return db.patient(ctx, "webauthn_handle = ?", handle)
}

func (db *DB) patient(ctx context.Context, where string, arg any) (Patient, error) {
	var p Patient
	err := db.g(ctx).Where(where, arg).Take(&p).Error
	return p, mapErr(err)
}

// ListPatients lists up to limit patients in the order of their ids, from the
// one after the given id.
func (db *DB) ListPatients(ctx context.Context, limit int, after string) ([]Patient, error) {
	var out []Patient
	err := db.g(ctx).Where("id > ?", after).Order("id").Limit(limit).Find(&out).Error
	return out, mapErr(err)
}

// MarkEmailVerified records that the mailbox has answered. Doing it twice keeps
// the first time.
func (db *DB) MarkEmailVerified(ctx context.Context, id string, now time.Time) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		r := db.g(ctx).Model(&Patient{}).Where("id = ? AND email_verified_at IS NULL", id).
			Updates(map[string]any{"email_verified_at": now, "updated_at": now})
		if r.Error != nil || r.RowsAffected == 0 {
			return mapErr(r.Error)
		}
		return db.Audit(ctx, AuditEvent{Event: "patient.verified", Subject: id, Object: "patient:" + id})
	})
}

// UpdateProfile writes what a patient says about themselves: the names, birth
// date, language and More of p.
func (db *DB) UpdateProfile(ctx context.Context, p Patient) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		r := db.g(ctx).Model(&Patient{}).Where("id = ?", p.ID).Updates(map[string]any{
			"given_name": p.GivenName, "family_name": p.FamilyName, "birth_date": p.BirthDate, "locale": p.Locale,
			"more": p.More, "updated_at": Now(),
		})
		if err := foundOne(r); err != nil {
			return err
		}
		return db.Audit(ctx, AuditEvent{Event: "patient.profile_changed", Subject: p.ID, Object: "patient:" + p.ID})
	})
}

// SetPatientDisabled shuts an account or opens it again. A shut account has no
// sessions and no grants in force, and what ended stays ended when it reopens.
func (db *DB) SetPatientDisabled(ctx context.Context, id string, disabled bool) error {
	now := Now()
	return db.Tx(ctx, func(ctx context.Context) error {
		at, event := any(nil), "patient.enabled"
		if disabled {
			at, event = now, "patient.disabled"
		}
		r := db.g(ctx).Model(&Patient{}).Where("id = ?", id).Updates(map[string]any{"disabled_at": at, "updated_at": now})
		if err := foundOne(r); err != nil {
			return err
		}
		if disabled {
			if err := db.EndSessions(ctx, id, "", now); err != nil {
				return err
			}
			if err := db.RevokePatientGrants(ctx, id, "patient disabled", now); err != nil {
				return err
			}
		}
		return db.Audit(ctx, AuditEvent{Event: event, Subject: id, Object: "patient:" + id})
	})
}

// foundOne is the answer of an update that concerns one row.
func foundOne(r *gorm.DB) error {
	if r.Error != nil {
		return mapErr(r.Error)
	}
	if r.RowsAffected != 1 {
		return ErrNotFound
	}
	return nil
}
