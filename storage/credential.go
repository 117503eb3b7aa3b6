package storage

import (
	"context"
	"time"
)

// The kinds of credential.
const (
	KindPassword = "password"
	KindTOTP     = "totp"
	KindPasskey  = "passkey"
)

// Credential is one authenticator of a patient. Rows stay when they are revoked:
// they are the history of the account.
type Credential struct {
	ID        string
	PatientID string
	Kind      string
	Name      string // what the patient calls it
	// ExternalID is a passkey's credential id in hex, unique among all patients
	// (WebAuthn, Section 7.1), and "" for the other kinds.
	ExternalID string
	// Secret is a password's PHC string, a TOTP seed sealed to this row, or a
	// passkey's public data sealed to this row.
	Secret []byte
	// LastStep is the newest time step a TOTP code was accepted for.
	LastStep int64
	// Failures counts consecutive wrong tries; nothing is accepted before RetryAfter.
	Failures   int
	RetryAfter *time.Time
	// TryingUntil is when a try that is under way is given up; nil where none is.
	TryingUntil *time.Time
	ConfirmedAt *time.Time
	LastUsedAt  *time.Time
	RevokedAt   *time.Time
	// DisabledAt is when too many failures ended its use, until it is bound anew.
	DisabledAt *time.Time
	CreatedAt  time.Time
}

// TableName names the table.
func (Credential) TableName() string { return "credential" }

// Usable reports whether a proof with c may be accepted at now.
func (c Credential) Usable(now time.Time) bool {
	return c.ConfirmedAt != nil && c.RevokedAt == nil && c.DisabledAt == nil &&
		(c.RetryAfter == nil || !now.Before(*c.RetryAfter))
}

// SealSecret sets the secret, sealed to the row; an empty ID is filled in.
func (db *DB) SealSecret(c *Credential, plain []byte) {
	if c.ID == "" {
		c.ID = NewID()
	}
	c.Secret = db.Seal("credential", "secret", c.ID, plain)
}

// UnsealSecret opens what SealSecret closed.
func (db *DB) UnsealSecret(c Credential) ([]byte, error) {
	return db.Unseal("credential", "secret", c.ID, c.Secret)
}

// AddCredential binds c to its patient; an empty ID and the times are filled
// in. ErrConflict where the passkey is known, or a password is there already.
func (db *DB) AddCredential(ctx context.Context, c *Credential) error {
	if c.ID == "" {
		c.ID = NewID()
	}
	c.CreatedAt = Now()
	if c.ConfirmedAt == nil {
		c.ConfirmedAt = &c.CreatedAt
	}
	return db.Tx(ctx, func(ctx context.Context) error {
		if err := db.g(ctx).Create(c).Error; err != nil {
			return mapErr(err)
		}
		return db.auditFactor(ctx, "factor.added", *c)
	})
}

// Credentials lists the live credentials of a patient, oldest first: confirmed
// and not revoked. Disabled ones are among them: see Usable.
func (db *DB) Credentials(ctx context.Context, patientID string) ([]Credential, error) {
	var out []Credential
	err := db.g(ctx).Where("patient_id = ? AND confirmed_at IS NOT NULL AND revoked_at IS NULL", patientID).
		Order("created_at, id").Find(&out).Error
	return out, mapErr(err)
}

// CredentialByExternalID finds a live passkey by its credential id in hex.
func (db *DB) CredentialByExternalID(ctx context.Context, externalID string) (Credential, error) {
	if externalID == "" {
		return Credential{}, ErrNotFound
	}
	var c Credential
	err := db.g(ctx).Where("external_id = ? AND confirmed_at IS NOT NULL AND revoked_at IS NULL", externalID).Take(&c).Error
	return c, mapErr(err)
}

// HasSecondFactor reports whether a patient has a live authenticator beyond the
// password. One that failures have disabled still counts: guessing wrongly often
// enough must not take a lock off the door.
func (db *DB) HasSecondFactor(ctx context.Context, patientID string) (bool, error) {
	var n int64
	err := db.g(ctx).Model(&Credential{}).
		Where("patient_id = ? AND kind IN ? AND confirmed_at IS NOT NULL AND revoked_at IS NULL", patientID, []string{KindTOTP, KindPasskey}).
		Count(&n).Error
	return n > 0, mapErr(err)
}

// RevokeCredential ends a credential of this patient; ErrNotFound where the
// patient has no such live one.
func (db *DB) RevokeCredential(ctx context.Context, patientID, id string, now time.Time) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		var c Credential
		if err := db.g(ctx).Where("id = ? AND patient_id = ?", id, patientID).Take(&c).Error; err != nil {
			return mapErr(err)
		}
		r := db.g(ctx).Model(&Credential{}).
			Where("id = ? AND patient_id = ? AND revoked_at IS NULL", id, patientID).Update("revoked_at", now)
		if err := foundOne(r); err != nil {
			return err
		}
		return db.auditFactor(ctx, "factor.removed", c)
	})
}

// SetPassword makes phc the one password of a patient and revokes the one before.
func (db *DB) SetPassword(ctx context.Context, patientID, phc string, now time.Time) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		err := db.g(ctx).Model(&Credential{}).
			Where("patient_id = ? AND kind = ? AND revoked_at IS NULL", patientID, KindPassword).Update("revoked_at", now).Error
		if err != nil {
			return mapErr(err)
		}
		return db.AddCredential(ctx, &Credential{PatientID: patientID, Kind: KindPassword, Secret: []byte(phc)})
	})
}

// ReplaceSecret writes a credential's new secret if it still has the old one:
// a rehash, or a passkey's new sign count. ErrSpent where somebody was faster.
func (db *DB) ReplaceSecret(ctx context.Context, id string, old, secret []byte) error {
	return spentUnlessOne(db.g(ctx).Model(&Credential{}).
		Where("id = ? AND secret = ? AND revoked_at IS NULL", id, old).Update("secret", secret))
}

// UseTOTPStep takes a time step for good: it and every older one are never
// accepted again, on any replica and in any race. ErrSpent for the others.
// RFC 6238, Section 5.2: "The verifier MUST NOT accept the second attempt of the
// OTP after the successful validation has been issued for the first OTP".
func (db *DB) UseTOTPStep(ctx context.Context, id string, step int64) error {
	return spentUnlessOne(db.g(ctx).Model(&Credential{}).
		Where("id = ? AND last_step < ? AND revoked_at IS NULL", id, step).Update("last_step", step))
}

func (db *DB) auditFactor(ctx context.Context, event string, c Credential) error {
	return db.Audit(ctx, AuditEvent{
		Event: event, Actor: "patient:" + c.PatientID, Subject: c.PatientID, Object: "credential:" + c.ID,
		Detail: JSON[map[string]string]{V: map[string]string{"kind": c.Kind}},
	})
}
