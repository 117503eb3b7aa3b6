package storage

import (
	"context"
	"time"
)

// The states of a signing key, in the order of its life. A compromised key has
// left that order: nothing it signed counts.
const (
	KeyPending     = "pending"     // published, does not sign yet
	KeyActive      = "active"      // signs; one per algorithm
	KeyRetired     = "retired"     // published, signs no more
	KeyCompromised = "compromised" // neither
)

// SigningKey is a key that signs tokens. Its private part is sealed to the row.
type SigningKey struct {
	ID          string // kid
	Alg         string // RFC 7518, Section 3.1
	State       string
	Public      string // JWK
	Private     []byte // sealed PKCS #8; empty once the key has ended
	CreatedAt   time.Time
	ActivatedAt *time.Time
	RetiredAt   *time.Time // when it ended, retired or compromised
}

// TableName names the table.
func (SigningKey) TableName() string { return "signing_key" }

// SigningKeys lists the keys by age.
func (db *DB) SigningKeys(ctx context.Context) ([]SigningKey, error) {
	var out []SigningKey
	return out, mapErr(db.g(ctx).Order("created_at, id").Find(&out).Error)
}

// AddSigningKey stores k. Two active or two pending keys for one algorithm are
// an ErrConflict, so that of many replicas one makes the key.
func (db *DB) AddSigningKey(ctx context.Context, k *SigningKey) error {
	return mapErr(db.g(ctx).Create(k).Error)
}

// ActivateSigningKey lets a pending key sign: ErrSpent where it is pending no
// more, ErrConflict while another key of its algorithm is active.
func (db *DB) ActivateSigningKey(ctx context.Context, id string, now time.Time) error {
	return spentUnlessOne(db.g(ctx).Model(&SigningKey{}).Where("id = ? AND state = ?", id, KeyPending).
		Updates(map[string]any{"state": KeyActive, "activated_at": now}))
}

// EndSigningKey takes a key from one state to another in which it signs no more,
// and destroys its private part: ErrSpent where it is not in that state any more.
func (db *DB) EndSigningKey(ctx context.Context, id, from, to string, now time.Time) error {
	return spentUnlessOne(db.g(ctx).Model(&SigningKey{}).Where("id = ? AND state = ?", id, from).
		Updates(map[string]any{"state": to, "retired_at": now, "private": []byte{}}))
}

// DeleteSigningKey removes a key that has ended: ErrSpent where there is none.
func (db *DB) DeleteSigningKey(ctx context.Context, id string) error {
	return spentUnlessOne(db.g(ctx).Where("id = ? AND state IN ?", id, []string{KeyRetired, KeyCompromised}).Delete(&SigningKey{}))
}
