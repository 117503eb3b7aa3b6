package storage

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"gorm.io/gorm/clause"
)

// AuthRequest is one authorization request on its way through the pages,
// parsed once and bound to one browser. It holds no step: what is still missing
// is worked out from facts that carry their time.
//
// It travels as its Handle, which is sealed and holds all of it, so that a
// request that comes to nothing leaves nothing here. A row remembers what must
// happen once, the answer, and the parameters that are too long for a handle.
type AuthRequest struct {
	ID       string
	ClientID string
	// Binding is the Digest of the browser's flow cookie; nil as long as no browser
	// has taken the request up.
	Binding []byte
	// Params are the parameters as the client sent them: login_hint and the like
	// are personal.
	Params url.Values
	// DeviceID names the device that waits for the answer, where no browser does
	// (RFC 8628).
	DeviceID    string
	RequestedAt time.Time
	// ActedAt is when the patient last did something about it.
	ActedAt  time.Time
	DeniedAt *time.Time
	IssuedAt *time.Time

	stored bool // the parameters are in the row
}

const (
	// authRequestIdle is how long a request waits for a patient who does nothing,
	// and authRequestLife how long it lives at most.
	authRequestIdle = 30 * time.Minute
	authRequestLife = 24 * time.Hour
	// maxHandle keeps an answer that leads to a request within 4 KiB of header,
	// cookies and policy included: what a proxy takes by default.
	maxHandle = 2400
)

// authRequestRow is what is kept of a request.
type authRequestRow struct {
	ID          string
	Binding     []byte
	ClientID    string
	Sealed      []byte `gorm:"column:params"`
	RequestedAt time.Time
	ExpiresAt   time.Time
	DeniedAt    *time.Time
	DeviceID    string
	IssuedAt    *time.Time
}

// TableName names the table.
func (authRequestRow) TableName() string { return "auth_request" }

// sealedRequest is what a handle holds. Times are in microseconds.
type sealedRequest struct {
	ID       string `json:"i"`
	ClientID string `json:"c"`
	Binding  []byte `json:"b,omitempty"`
	Params   string `json:"p,omitempty"`
	Stored   bool   `json:"s,omitempty"` // the parameters are in the row
	Device   string `json:"d,omitempty"`
	At       int64  `json:"t"`
	Acted    int64  `json:"a"`
}

// NewAuthRequest begins a request by c: ID and times are filled in.
func NewAuthRequest(clientID string, params url.Values) AuthRequest {
	now := Now()
	return AuthRequest{ID: NewID(), ClientID: clientID, Params: params, RequestedAt: now, ActedAt: now}
}

// Handle is a as text for addresses and forms: base64url, with a dot.
func (db *DB) Handle(a AuthRequest) string {
	s := sealedRequest{
		ID: a.ID, ClientID: a.ClientID, Binding: a.Binding, Device: a.DeviceID,
		At: a.RequestedAt.UnixMicro(), Acted: a.ActedAt.UnixMicro(), Stored: a.stored,
	}
	if !a.stored {
		s.Params = a.Params.Encode()
	}
	var plain bytes.Buffer
	e := json.NewEncoder(&plain)
	e.SetEscapeHTML(false) // or each & would take six bytes
	if err := e.Encode(s); err != nil {
		panic(err) // texts and numbers
	}
	key, ct := db.sealer.seal(place("auth_request", "handle", ""), plain.Bytes())
	return base64.RawURLEncoding.EncodeToString([]byte(key)) + "." + base64.RawURLEncoding.EncodeToString(ct)
}

var handleForm = regexp.MustCompile(`^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)

// IsHandle reports whether s looks like a Handle.
func IsHandle(s string) bool { return len(s) <= maxHandle && handleForm.MatchString(s) }

// FitsHandle reports whether a goes into a handle whole. Otherwise
// StoreAuthRequest must keep its parameters first.
func (db *DB) FitsHandle(a AuthRequest) bool { return len(db.Handle(a)) <= maxHandle }

// StoreAuthRequest keeps the parameters of a in its row.
func (db *DB) StoreAuthRequest(ctx context.Context, a *AuthRequest) error {
	row := a.row()
	row.Sealed = db.Seal("auth_request", "params", a.ID, []byte(a.Params.Encode()))
	if err := mapErr(db.g(ctx).Create(&row).Error); err != nil {
		return err
	}
	a.stored = true
	return nil
}

func (a AuthRequest) row() authRequestRow {
	return authRequestRow{
		ID: a.ID, Binding: append([]byte{}, a.Binding...), ClientID: a.ClientID, Sealed: []byte{}, DeviceID: a.DeviceID,
		RequestedAt: a.RequestedAt,
		// A browser may take it up when it is almost over, and then it lives anew.
		ExpiresAt: a.RequestedAt.Add(authRequestLife + authRequestIdle),
	}
}

// OpenAuthRequest reads a handle, whether the request is over or not, and without
// what has become of it. ErrNotFound where it is no handle of ours.
func (db *DB) OpenAuthRequest(ctx context.Context, handle string) (AuthRequest, error) {
	a, err := db.unsealRequest(handle)
	if err != nil || !a.stored {
		return a, err
	}
	return a, db.readRequestRow(ctx, &a)
}

// AuthRequest reads a handle and what has become of the request: ErrNotFound
// where it is no handle of ours, ErrSpent, with the request, where it has been
// answered or nothing was done about it for too long.
func (db *DB) AuthRequest(ctx context.Context, handle string, now time.Time) (AuthRequest, error) {
	a, err := db.unsealRequest(handle)
	if err != nil {
		return a, err
	}
	if err := db.readRequestRow(ctx, &a); err != nil {
		return a, err
	}
	if a.IssuedAt != nil || a.Over(now) {
		return a, ErrSpent
	}
	return a, nil
}

// Over reports whether a has waited for too long.
func (a AuthRequest) Over(now time.Time) bool {
	return now.Sub(a.ActedAt) >= authRequestIdle || now.Sub(a.RequestedAt) >= authRequestLife
}

// ActAuthRequest is handle for a request that the patient has just done something
// about: it waits anew. What is no handle, or over for good, stays as it is.
func (db *DB) ActAuthRequest(handle string, now time.Time) string {
	a, err := db.unsealRequest(handle)
	if err != nil || now.Sub(a.RequestedAt) >= authRequestLife {
		return handle
	}
	a.ActedAt = now
	return db.Handle(a)
}

func (db *DB) unsealRequest(handle string) (AuthRequest, error) {
	var s sealedRequest
	key, ct, _ := strings.Cut(handle, ".")
	id, err1 := base64.RawURLEncoding.Strict().DecodeString(key)
	raw, err2 := base64.RawURLEncoding.Strict().DecodeString(ct)
	if err1 != nil || err2 != nil {
		return AuthRequest{}, ErrNotFound
	}
	plain, err := db.sealer.unseal(place("auth_request", "handle", ""), string(id), raw)
	if err != nil {
		return AuthRequest{}, ErrNotFound
	}
	if err := json.Unmarshal(plain, &s); err != nil {
		return AuthRequest{}, fmt.Errorf("auth request: %w", err)
	}
	params, err := url.ParseQuery(s.Params)
	if err != nil {
		return AuthRequest{}, fmt.Errorf("auth request: %w", err)
	}
	return AuthRequest{
		ID: s.ID, ClientID: s.ClientID, Binding: s.Binding, DeviceID: s.Device, Params: params, stored: s.Stored,
		RequestedAt: time.UnixMicro(s.At).UTC(), ActedAt: time.UnixMicro(s.Acted).UTC(),
	}, nil
}

// readRequestRow adds to a what its row says, if there is one.
func (db *DB) readRequestRow(ctx context.Context, a *AuthRequest) error {
	var row authRequestRow
	err := mapErr(db.g(ctx).Select("id", "params", "denied_at", "issued_at").Where("id = ?", a.ID).Take(&row).Error)
	if errors.Is(err, ErrNotFound) && !a.stored {
		return nil
	}
	if err != nil {
		return err
	}
	a.DeniedAt, a.IssuedAt = row.DeniedAt, row.IssuedAt
	if !a.stored {
		return nil
	}
	plain, err := db.Unseal("auth_request", "params", a.ID, row.Sealed)
	if err == nil {
		a.Params, err = url.ParseQuery(string(plain))
	}
	if err != nil {
		return fmt.Errorf("auth request: %w", err)
	}
	return nil
}

// FinishAuthRequest marks a answered. Only one caller gets nil, the rest ErrSpent.
func (db *DB) FinishAuthRequest(ctx context.Context, a AuthRequest, now time.Time) error {
	return db.markAuthRequest(ctx, a, "issued_at", now)
}

// DenyAuthRequest records that the patient said no, which is an answer, too.
func (db *DB) DenyAuthRequest(ctx context.Context, a AuthRequest, now time.Time) error {
	return db.markAuthRequest(ctx, a, "denied_at", now)
}

// markAuthRequest sets column in the row of a, which is made where there is none.
func (db *DB) markAuthRequest(ctx context.Context, a AuthRequest, column string, now time.Time) error {
	if a.Over(now) {
		return ErrSpent
	}
	row := a.row()
	if err := db.g(ctx).Clauses(clause.OnConflict{DoNothing: true}).Create(&row).Error; err != nil {
		return mapErr(err)
	}
	return spentUnlessOne(db.g(ctx).Model(&authRequestRow{}).
		Where("id = ? AND issued_at IS NULL AND denied_at IS NULL", a.ID).Update(column, now))
}
