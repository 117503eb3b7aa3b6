package storage

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"gorm.io/gorm"
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
	// Secret is a password's PHC string, a TOTP seed or a passkey's public data.
	// In the row it is sealed to row, kind and patient: a copy in another row, or
	// a row given to another patient, opens nothing.
	Secret []byte `gorm:"-"`
	Bound  []byte
	// Unbound is Secret as the previous release keeps it: a password as it is, the
	// rest sealed to the row alone. It is written for that release's pods, which
	// may serve beside this one's, and read only where nothing else is there.
	Unbound []byte `gorm:"column:secret"`
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

// owned is the place of c's secret: in this row, of this kind, of this patient.
func (c Credential) owned() string { return c.ID + ":" + c.Kind + ":" + c.PatientID }

// seal fills in what the row keeps of the secret.
func (db *DB) seal(c *Credential) {
	c.Bound = db.Seal("credential", "bound", c.owned(), c.Secret)
	c.Unbound = c.Secret
	if c.Kind != KindPassword {
		c.Unbound = db.Seal("credential", "secret", c.ID, c.Secret)
	}
}

// unseal fills in the secret of a row.
func (db *DB) unseal(c *Credential) (err error) {
	switch {
	case c.Bound != nil:
		c.Secret, err = db.Unseal("credential", "bound", c.owned(), c.Bound)
	case db.refuseUnbound:
		err = fmt.Errorf("%w: it is not bound to its patient", ErrSealed)
	case c.Kind == KindPassword:
		c.Secret = c.Unbound
	default:
		c.Secret, err = db.Unseal("credential", "secret", c.ID, c.Unbound)
	}
	return err
}

// BindCredentials seals up to limit secrets that the previous release has written
// to their patients, and returns how many it did. It does nothing where unbound
// rows are refused.
func (db *DB) BindCredentials(ctx context.Context, limit int) (int, error) {
	if db.refuseUnbound {
		return 0, nil
	}
	var rows []Credential
	if err := db.g(ctx).Where("bound IS NULL AND revoked_at IS NULL").Order("id").Limit(limit).Find(&rows).Error; err != nil {
		return 0, mapErr(err)
	}
	n := 0
	for _, c := range rows {
		if err := db.unseal(&c); err != nil {
			return n, fmt.Errorf("credential %s: %w", c.ID, err)
		}
		before := c.Unbound
		db.seal(&c)
		r := db.g(ctx).Model(&Credential{}).Where("id = ? AND bound IS NULL AND secret = ?", c.ID, before).Update("bound", c.Bound)
		if r.Error != nil {
			return n, mapErr(r.Error)
		}
		n += int(r.RowsAffected)
	}
	return n, nil
}

// CountUnbound counts the live credentials that are not sealed to their patients.
func (db *DB) CountUnbound(ctx context.Context) (int64, error) {
	var n int64
	err := db.g(ctx).Model(&Credential{}).Where("bound IS NULL AND revoked_at IS NULL").Count(&n).Error
	return n, mapErr(err)
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
	db.seal(c)
	return db.Tx(ctx, func(ctx context.Context) error {
		if err := db.g(ctx).Create(c).Error; err != nil {
			return mapErr(err)
		}
		return db.auditFactor(ctx, "factor.added", *c)
	})
}

// Credentials lists the live credentials of a patient, oldest first: confirmed
// and not revoked. Disabled ones are among them: see Usable. One whose secret was
// not sealed for this patient is none, and says so in the log.
func (db *DB) Credentials(ctx context.Context, patientID string) ([]Credential, error) {
	return db.credentials(ctx, db.g(ctx).Where("patient_id = ? AND confirmed_at IS NOT NULL AND revoked_at IS NULL", patientID).
		Order("created_at, id"))
}

func (db *DB) credentials(ctx context.Context, q *gorm.DB) ([]Credential, error) {
	var rows, out []Credential
	if err := q.Find(&rows).Error; err != nil {
		return nil, mapErr(err)
	}
	for _, c := range rows {
		if err := db.unseal(&c); err != nil {
			slog.ErrorContext(ctx, "credential refused", "event", "auth.credential.refused",
				"credential", c.ID, "patient", c.PatientID, "error", err.Error())
			continue
		}
		out = append(out, c)
	}
	return out, nil
}

// CredentialByExternalID finds a live passkey by its credential id in hex.
func (db *DB) CredentialByExternalID(ctx context.Context, externalID string) (Credential, error) {
	if externalID == "" {
		return Credential{}, ErrNotFound
	}
	found, err := db.credentials(ctx, db.g(ctx).Where("external_id = ? AND confirmed_at IS NOT NULL AND revoked_at IS NULL", externalID))
	if err != nil {
		return Credential{}, err
	}
	if len(found) == 0 {
		return Credential{}, ErrNotFound
	}
	return found[0], nil
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

// ReplaceSecret writes a new secret of c, as Credentials found it, if it still has
// the old one: a rehash, or a passkey's new sign count. ErrSpent where somebody
// was faster.
func (db *DB) ReplaceSecret(ctx context.Context, c Credential, secret []byte) error {
	before := c.Unbound
	c.Secret = secret
	db.seal(&c)
	return spentUnlessOne(db.g(ctx).Model(&Credential{}).
		Where("id = ? AND secret = ? AND revoked_at IS NULL", c.ID, before).
		Updates(map[string]any{"secret": c.Unbound, "bound": c.Bound}))
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
		Event: event, Subject: c.PatientID, Object: "credential:" + c.ID,
		Detail: JSON[map[string]string]{V: map[string]string{"kind": c.Kind}},
	})
}
