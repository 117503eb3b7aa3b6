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

// SigningKey is a key that signs tokens. Its private part is sealed to the row,
// and empty once it signs no more.
type SigningKey struct {
	ID          string // kid
	Alg         string // one of keys.Algorithms
	State       string
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

// AddSigningKey stores k. Two active keys for one algorithm, or two pending ones,
// are an ErrConflict, so that of many replicas one makes the key.
func (db *DB) AddSigningKey(ctx context.Context, k *SigningKey) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		if err := db.g(ctx).Create(k).Error; err != nil {
			return mapErr(err)
		}
		return db.auditKey(ctx, "key.made", k.ID, k.State)
	})
}

// ActivateSigningKey makes a pending key sign, and retires the one that signed
// for its algorithm. Of several callers one gets nil, the rest ErrSpent.
func (db *DB) ActivateSigningKey(ctx context.Context, k SigningKey, now time.Time) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		var old []SigningKey
		if err := db.g(ctx).Where("alg = ? AND state = ?", k.Alg, KeyActive).Find(&old).Error; err != nil {
			return mapErr(err)
		}
		for _, o := range old {
			if err := db.RetireSigningKey(ctx, o, KeyRetired, now); err != nil {
				return err
			}
		}
		err := spentUnlessOne(db.g(ctx).Model(&SigningKey{}).Where("id = ? AND state = ?", k.ID, KeyPending).
			Updates(map[string]any{"state": KeyActive, "activated_at": now}))
		if err != nil {
			return err
		}
		return db.auditKey(ctx, "key.activated", k.ID, KeyActive)
	})
}

// RetireSigningKey ends a key's signing: state is KeyRetired, or KeyCompromised
// for one that must not be believed any more. Its private part is destroyed.
// ErrSpent where the key is in another state than k says.
func (db *DB) RetireSigningKey(ctx context.Context, k SigningKey, state string, now time.Time) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		err := spentUnlessOne(db.g(ctx).Model(&SigningKey{}).Where("id = ? AND state = ?", k.ID, k.State).
			Updates(map[string]any{"state": state, "private": []byte{}, "retired_at": now}))
		if err != nil {
			return err
		}
		return db.auditKey(ctx, "key."+state, k.ID, state)
	})
}

// DeleteSigningKeys removes keys that were retired or compromised before the
// given time, and returns how many.
func (db *DB) DeleteSigningKeys(ctx context.Context, before time.Time) (int, error) {
	r := db.g(ctx).Where("state IN ? AND retired_at < ?", []string{KeyRetired, KeyCompromised}, before).Delete(&SigningKey{})
	return int(r.RowsAffected), mapErr(r.Error)
}

func (db *DB) auditKey(ctx context.Context, event, id, state string) error {
	return db.Audit(ctx, AuditEvent{
		Event: event, Actor: "system", Object: "key:" + id, Detail: JSON[map[string]string]{V: map[string]string{"state": state}},
	})
}
