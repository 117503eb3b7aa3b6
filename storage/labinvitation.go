package storage

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	codeAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ" // Crockford's base32
	codeLength   = 12                                 // 60 bits
	codeTries    = 5
	// patientTries is how many codes an account may try within an hour.
	patientTries = 10
)

// LabInvitation lets whoever knows its code and the record's birth date link the
// record, once. NIST SP 800-63A-4 asks for codes that are single-use, bounded in
// time and throttled.
type LabInvitation struct {
	ID            string
	LabIdentityID string
	MAC           []byte `gorm:"column:mac"`
	Tries         int
	ExpiresAt     time.Time
	SpentAt       *time.Time
	CreatedAt     time.Time
}

// TableName names the table.
func (LabInvitation) TableName() string { return "lab_invitation" }

// NewInvitation makes the activation code of a record, XXXX-XXXX-XXXX. It is
// shown this once; the record's earlier code is void. ErrConflict where the
// record cannot be linked, ErrNotFound where there is none.
func (db *DB) NewInvitation(ctx context.Context, labIdentityID string, expires time.Time) (string, error) {
	now := Now()
	var raw [codeLength]byte
	rand.Read(raw[:])
	for i, b := range raw {
		raw[i] = codeAlphabet[b%32]
	}
	code := string(raw[:])
	err := db.Tx(ctx, func(ctx context.Context) error {
		r, err := db.LockLabIdentity(ctx, labIdentityID)
		if err != nil {
			return err
		}
		if !r.Linkable(now) {
			return fmt.Errorf("record cannot be linked: %w", ErrConflict)
		}
		if taken, err := db.linkOn(ctx, r.ID); err != nil || taken != nil {
			return errors.Join(err, fmt.Errorf("record is linked: %w", ErrConflict))
		}
		err = mapErr(db.g(ctx).Model(&LabInvitation{}).
			Where("lab_identity_id = ? AND spent_at IS NULL", r.ID).Update("spent_at", now).Error)
		if err != nil {
			return err
		}
		inv := LabInvitation{ID: NewID(), LabIdentityID: r.ID, MAC: db.codeMAC(code), ExpiresAt: expires.UTC().Truncate(time.Microsecond), CreatedAt: now}
		if err := mapErr(db.g(ctx).Create(&inv).Error); err != nil {
			return err
		}
		return db.Audit(ctx, AuditEvent{Event: "invitation.made", Object: "record:" + r.ID})
	})
	if err != nil {
		return "", err
	}
	return code[:4] + "-" + code[4:8] + "-" + code[8:], nil
}

// NormalCode is the one spelling of an activation code: no dashes and blanks,
// upper case, and Crockford's look-alikes read as what was meant.
func NormalCode(code string) string {
	return strings.NewReplacer("-", "", " ", "", "\t", "", "O", "0", "I", "1", "L", "1").Replace(strings.ToUpper(strings.TrimSpace(code)))
}

func (db *DB) codeMAC(code string) []byte { return db.MAC("invitation", []byte(code)) }

// RedeemInvitation links a record to a patient who knows its code and birth date
// (YYYY-MM-DD). Every try counts that was answered, right or wrong: five a code,
// ten an hour an account, so callers must not wrap it in a transaction of their own. Which of
// the two was wrong is not told: ErrNotFound either way. ErrSpent when the
// patient tried too often, or the code was used in this moment; ErrConflict when
// the patient or the record has a live link, or the record cannot be linked.
func (db *DB) RedeemInvitation(ctx context.Context, patientID, code, birthDate string, now time.Time) (Link, error) {
	if err := db.CountAttempt(ctx, "redeem", patientID, patientTries, time.Hour, now); err != nil {
		return Link{}, fmt.Errorf("redeem code: too many tries, or not counted: %w", err)
	}
	var inv LabInvitation
	l, err := db.redeem(ctx, &inv, patientID, code, birthDate, now)
	if err == nil {
		return l, nil
	}
	if !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrSpent) && !errors.Is(err, ErrConflict) {
		// Nobody was told anything: it is taken back, so far as that can be reached.
		err = errors.Join(err, db.ForgiveAttempt(ctx, "redeem", patientID), db.untryInvitation(ctx, inv.ID))
	}
	return Link{}, fmt.Errorf("redeem code: %w", err)
}

func (db *DB) untryInvitation(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tryPatience)
	defer cancel()
	return mapErr(db.g(ctx).Exec("UPDATE lab_invitation SET tries = tries - 1 WHERE id = ? AND tries > 0", id).Error)
}

// redeem is RedeemInvitation once the account's try is counted; inv is the code's
// invitation, if there is one.
func (db *DB) redeem(ctx context.Context, inv *LabInvitation, patientID, code, birthDate string, now time.Time) (Link, error) {
	r := db.g(ctx).Raw(`UPDATE lab_invitation SET tries = tries + 1
		WHERE mac = ? AND spent_at IS NULL AND expires_at > ? AND tries < ? RETURNING id, lab_identity_id`,
		db.codeMAC(NormalCode(code)), now, codeTries).Scan(inv)
	if r.Error != nil {
		return Link{}, mapErr(r.Error)
	}
	var l Link
	err := db.Tx(ctx, func(ctx context.Context) error {
		// An unknown code takes the same way as a wrong birth date.
		record, err := db.LockLabIdentity(ctx, inv.LabIdentityID)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		known := fmt.Sprintf("%-10s", record.BirthDate)
		if subtle.ConstantTimeCompare([]byte(known), []byte(birthDate)) != 1 || inv.ID == "" {
			return ErrNotFound
		}
		r := db.g(ctx).Model(&LabInvitation{}).Where("id = ? AND spent_at IS NULL", inv.ID).Update("spent_at", now)
		if err := spentUnlessOne(r); err != nil {
			return err
		}
		if !record.Linkable(now) {
			return ErrConflict
		}
		l, err = db.addLink(ctx, Link{PatientID: patientID, LabIdentityID: record.ID, MadeAt: now})
		return err
	})
	return l, err
}
