package storage

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"time"
)

// AuthRequest is one authorization request on its way through the pages,
// parsed once and bound to one browser. It holds no step: what is still missing
// is worked out from facts that carry their time.
type AuthRequest struct {
	ID       string
	Binding  []byte // Digest of the browser's flow cookie
	ClientID string
	// Params are the parameters as the client sent them, sealed in the row:
	// login_hint and the like are personal.
	Params      url.Values `gorm:"-"`
	Sealed      []byte     `gorm:"column:params"`
	RequestedAt time.Time
	ExpiresAt   time.Time
	DeniedAt    *time.Time
	// DeviceID names the device that waits for the answer, where no browser does
	// (RFC 8628).
	DeviceID string
	IssuedAt *time.Time
}

// TableName names the table.
func (AuthRequest) TableName() string { return "auth_request" }

// authRequestLife is how long a patient may take from portal to portal.
const authRequestLife = 30 * time.Minute

// CreateAuthRequest stores a; ID and times are filled in.
func (db *DB) CreateAuthRequest(ctx context.Context, a *AuthRequest) error {
	a.ID, a.RequestedAt = NewID(), Now()
	a.ExpiresAt = a.RequestedAt.Add(authRequestLife)
	plain, err := json.Marshal(a.Params)
	if err != nil {
		return err
	}
	a.Sealed = db.Seal("auth_request", "params", a.ID, plain)
	return mapErr(db.g(ctx).Create(a).Error)
}

// AuthRequest finds a request that has neither expired nor been answered:
// ErrNotFound where there is none, ErrSpent where it is over.
func (db *DB) AuthRequest(ctx context.Context, id string, now time.Time) (AuthRequest, error) {
	var a AuthRequest
	if err := db.g(ctx).Where("id = ?", id).Take(&a).Error; err != nil {
		return a, mapErr(err)
	}
	if a.IssuedAt != nil || !now.Before(a.ExpiresAt) {
		return a, ErrSpent
	}
	plain, err := db.Unseal("auth_request", "params", a.ID, a.Sealed)
	if err != nil {
		return a, fmt.Errorf("auth request: %w", err)
	}
	return a, json.Unmarshal(plain, &a.Params)
}

// FinishAuthRequest marks a answered. Only one caller gets nil, the rest ErrSpent.
func (db *DB) FinishAuthRequest(ctx context.Context, id string, now time.Time) error {
	return spentUnlessOne(db.g(ctx).Model(&AuthRequest{}).
		Where("id = ? AND issued_at IS NULL AND expires_at > ?", id, now).
		Update("issued_at", now))
}

// DenyAuthRequest records that the patient said no.
func (db *DB) DenyAuthRequest(ctx context.Context, id string, now time.Time) error {
	return spentUnlessOne(db.g(ctx).Model(&AuthRequest{}).
		Where("id = ? AND issued_at IS NULL AND expires_at > ?", id, now).
		Update("denied_at", now))
}
