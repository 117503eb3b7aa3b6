package storage

import (
	"context"
	"crypto/hmac"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"gorm.io/gorm"
)

// Challenge is a question put to somebody that can be answered once: a mailed
// link, a passkey ceremony, an authenticator app to be confirmed.
type Challenge struct {
	ID        string
	Kind      string
	PatientID string // "" where the answer says who it is
	// Digest is that of the secret the answer must present: the one in the mail,
	// or the cookie of the browser that was asked.
	Digest    []byte
	Data      []byte `gorm:"-"` // whatever the asker needs again; sealed in the row
	Sealed    []byte `gorm:"column:data"`
	Attempts  int
	ExpiresAt time.Time
	SpentAt   *time.Time
	CreatedAt time.Time
}

// TableName names the table.
func (Challenge) TableName() string { return "challenge" }

// MailedSecret is the secret of a mailed challenge. It is derived from the id,
// so it is stored nowhere and the sender can write it again.
func (db *DB) MailedSecret(id string) string {
	return base64.RawURLEncoding.EncodeToString(db.MAC("challenge-secret", []byte(id)))
}

// MailedToken is what a mailed link carries: ID.SECRET.
func (db *DB) MailedToken(id string) string { return id + "." + db.MailedSecret(id) }

// ParseMailedToken takes a mailed token apart. It says nothing about whether
// there is such a challenge.
func ParseMailedToken(token string) (id, secret string, ok bool) {
	id, secret, ok = strings.Cut(token, ".")
	if !ok || len(id) != 26 || len(secret) != 43 {
		return "", "", false
	}
	for _, r := range id {
		if (r < 'A' || r > 'Z') && (r < '2' || r > '7') {
			return "", "", false
		}
	}
	for _, r := range secret {
		if (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' {
			return "", "", false
		}
	}
	return id, secret, true
}

// NewChallenge stores c; an empty ID and CreatedAt are filled in, Data is sealed.
func (db *DB) NewChallenge(ctx context.Context, c *Challenge) error {
	if c.ID == "" {
		c.ID = NewID()
	}
	c.CreatedAt = Now()
	c.Sealed = db.Seal("challenge", "data", c.ID, c.Data)
	return mapErr(db.g(ctx).Create(c).Error)
}

// NewMailedChallenge stores c with the digest of its mailed secret, and voids
// the patient's older ones of that kind: only the newest mail counts.
func (db *DB) NewMailedChallenge(ctx context.Context, c *Challenge) error {
	c.ID = NewID()
	c.Digest = Digest(db.MailedSecret(c.ID))
	return db.Tx(ctx, func(ctx context.Context) error {
		if err := db.VoidChallenges(ctx, c.Kind, c.PatientID, Now()); err != nil {
			return err
		}
		return db.NewChallenge(ctx, c)
	})
}

// RenewChallenge makes an open or expired challenge, as it was read, hold other
// data and last until expires: its secret stays good. ErrSpent where it was spent
// or renewed meanwhile.
func (db *DB) RenewChallenge(ctx context.Context, c Challenge, data []byte, expires time.Time) error {
	return spentUnlessOne(db.g(ctx).Model(&Challenge{}).Where("id = ? AND spent_at IS NULL AND data = ?", c.ID, c.Sealed).
		Updates(map[string]any{"data": db.Seal("challenge", "data", c.ID, data), "expires_at": expires, "attempts": 0}))
}

// VoidChallenges spends every open challenge of a kind that a patient has.
func (db *DB) VoidChallenges(ctx context.Context, kind, patientID string, now time.Time) error {
	return mapErr(db.g(ctx).Model(&Challenge{}).
		Where("patient_id = ? AND kind = ? AND spent_at IS NULL", patientID, kind).Update("spent_at", now).Error)
}

// Challenge finds a challenge, open or not; see Open.
func (db *DB) Challenge(ctx context.Context, kind, id string) (Challenge, error) {
	return db.challenge(db.g(ctx).Where("id = ? AND kind = ?", id, kind))
}

// LatestChallenge finds the newest challenge of a kind that a patient has, open
// or not.
func (db *DB) LatestChallenge(ctx context.Context, kind, patientID string) (Challenge, error) {
	return db.challenge(db.g(ctx).Where("patient_id = ? AND kind = ?", patientID, kind).Order("created_at DESC, id"))
}

func (db *DB) challenge(q *gorm.DB) (Challenge, error) {
	var c Challenge
	if err := q.Take(&c).Error; err != nil {
		return c, mapErr(err)
	}
	var err error
	if c.Data, err = db.Unseal("challenge", "data", c.ID, c.Sealed); err != nil {
		return c, fmt.Errorf("challenge: %w", err)
	}
	return c, nil
}

// Open reports whether c can still be spent at now.
func (c Challenge) Open(now time.Time) bool { return c.SpentAt == nil && now.Before(c.ExpiresAt) }

// TryChallenge counts a try at an open challenge whose answer may be mistyped,
// and returns it. ErrSpent when it is closed or its tries are used up.
func (db *DB) TryChallenge(ctx context.Context, kind, id string, digest []byte, tries int, now time.Time) (Challenge, error) {
	r := db.g(ctx).Model(&Challenge{}).
		Where("id = ? AND kind = ? AND digest = ? AND spent_at IS NULL AND expires_at > ? AND attempts < ?", id, kind, digest, now, tries).
		Update("attempts", gorm.Expr("attempts + 1"))
	return db.taken(ctx, r, kind, id, digest)
}

// UntryChallenge takes one counted try back, because it was not checked. It is
// done even where ctx is over.
func (db *DB) UntryChallenge(ctx context.Context, kind, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tryPatience)
	defer cancel()
	return mapErr(db.g(ctx).Model(&Challenge{}).Where("id = ? AND kind = ? AND attempts > 0", id, kind).
		Update("attempts", gorm.Expr("attempts - 1")).Error)
}

// SpendChallenge takes an open challenge for good and returns what it held. Of
// several callers one gets it and the rest ErrSpent. ErrNotFound where there is
// none, or the presented secret is not its own.
func (db *DB) SpendChallenge(ctx context.Context, kind, id string, digest []byte, now time.Time) (Challenge, error) {
	r := db.g(ctx).Model(&Challenge{}).
		Where("id = ? AND kind = ? AND digest = ? AND spent_at IS NULL AND expires_at > ?", id, kind, digest, now).
		Update("spent_at", now)
	return db.taken(ctx, r, kind, id, digest)
}

// taken is the answer of a conditional update of a challenge.
func (db *DB) taken(ctx context.Context, r *gorm.DB, kind, id string, digest []byte) (Challenge, error) {
	if r.Error != nil {
		return Challenge{}, mapErr(r.Error)
	}
	c, err := db.Challenge(ctx, kind, id)
	switch {
	case err != nil:
		return Challenge{}, err
	case !hmac.Equal(c.Digest, digest):
		return Challenge{}, ErrNotFound
	case r.RowsAffected != 1:
		return Challenge{}, ErrSpent
	}
	return c, nil
}
