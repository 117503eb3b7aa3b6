package storage

import (
	"context"
	"time"
)

// SigningKey is a key that signs tokens. Its private part is sealed to the row.
type SigningKey struct {
	ID          string // kid
	Alg         string // ES256, RS256
	State       string // pending, active, retired
	Public      string // JWK
	Private     []byte // sealed PKCS #8
	CreatedAt   time.Time
	ActivatedAt *time.Time
	RetiredAt   *time.Time
}

// TableName names the table.
func (SigningKey) TableName() string { return "signing_key" }

// SigningKeys lists the keys by age.
func (db *DB) SigningKeys(ctx context.Context) ([]SigningKey, error) {
	var out []SigningKey
	return out, mapErr(db.g(ctx).Order("created_at, id").Find(&out).Error)
}

// AddSigningKey stores k. Two active keys for one algorithm are an ErrConflict,
// so that of many replicas starting at once one makes the key.
func (db *DB) AddSigningKey(ctx context.Context, k *SigningKey) error {
	return mapErr(db.g(ctx).Create(k).Error)
}
