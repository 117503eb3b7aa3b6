package storage

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

// Grant is what one authorization gave a client. Codes and tokens hang on it:
// revoking it once ends them all.
type Grant struct {
	ID        string
	ClientID  string
	PatientID string
	SessionID string
	Scopes    Words
	Audience  Strings
	// Offline says that offline_access was consented to; without it the grant
	// lives no longer than its session (OpenID Connect Core, Section 11).
	Offline   bool
	AuthTime  time.Time
	ACR       string
	AMR       Words
	CreatedAt time.Time
	ExpiresAt time.Time // absolute; no rotation extends it
	RevokedAt *time.Time
	Reason    string
	// Subject is the sub that the client is told, "" for the patient's own id.
	Subject string
	// ToldSID is the sid that the client is told, "" for the session's own id.
	ToldSID string `gorm:"column:sid"`
	// Claims are those asked for one by one.
	Claims JSON[Claims]
}

// Claims names claims that a client asked for besides its scopes (OpenID
// Connect Core, Section 5.5).
type Claims struct {
	IDToken  []string `json:"id_token,omitempty"`
	UserInfo []string `json:"userinfo,omitempty"`
}

// ShowsLab reports whether g opens the lab record, by its scope or by a claim.
func (g Grant) ShowsLab() bool {
	return g.Scopes.Has("lab") || slices.Contains(g.Claims.V.IDToken, "lab") || slices.Contains(g.Claims.V.UserInfo, "lab")
}

// SID is what the client is told the session is called.
func (g Grant) SID() string {
	if g.ToldSID != "" {
		return g.ToldSID
	}
	return g.SessionID
}

// Sub is what the client calls whom the grant is about: the patient, or itself.
func (g Grant) Sub() string {
	switch {
	case g.Subject != "":
		return g.Subject
	case g.PatientID != "":
		return g.PatientID
	}
	return g.ClientID
}

// TableName names the table.
func (Grant) TableName() string { return "oauth_grant" }

// Code is an authorization code with its PKCE and OpenID Connect data: one row,
// so that nothing of it can be lost or taken apart.
type Code struct {
	Digest        []byte
	GrantID       string
	RedirectURI   string
	CodeChallenge string // S256
	Nonce         string
	RequestedAt   time.Time
	ExpiresAt     time.Time
	UsedAt        *time.Time
}

// TableName names the table.
func (Code) TableName() string { return "oauth_code" }

// RefreshToken is one link of a rotation chain.
type RefreshToken struct {
	Digest    []byte
	GrantID   string
	CreatedAt time.Time
	ExpiresAt time.Time
	UsedAt    *time.Time
	// Successor is the token that replaced this one, encrypted under this one:
	// only who presents this token can read it.
	Successor []byte
	Next      []byte // Digest of the successor
}

// TableName names the table.
func (RefreshToken) TableName() string { return "oauth_refresh" }

// AccessToken is an opaque access token. GrantID is empty where a client acts
// for itself (RFC 6749, Section 4.4).
type AccessToken struct {
	Digest    []byte
	GrantID   string
	ClientID  string
	PatientID string
	SessionID string
	Scopes    Words
	Audience  Strings
	CreatedAt time.Time
	ExpiresAt time.Time
	RevokedAt *time.Time
}

// TableName names the table.
func (AccessToken) TableName() string { return "oauth_access" }

// CreateCode stores a grant and the code that stands for it. ErrSpent where the
// grant's session has ended meanwhile: nobody would tell its client.
func (db *DB) CreateCode(ctx context.Context, g Grant, c Code) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		if err := db.HoldSession(ctx, g.SessionID); err != nil {
			return err
		}
		if err := db.g(ctx).Create(&g).Error; err != nil {
			return mapErr(err)
		}
		return mapErr(db.g(ctx).Create(&c).Error)
	})
}

// Code finds a code by digest. A used one comes together with ErrSpent.
func (db *DB) Code(ctx context.Context, digest []byte) (Code, error) {
	var c Code
	if err := db.g(ctx).Where("digest = ?", digest).Take(&c).Error; err != nil {
		return c, mapErr(err)
	}
	if c.UsedAt != nil {
		return c, ErrSpent
	}
	return c, nil
}

// SpendCode marks a code used. The second caller gets ErrSpent.
// RFC 6749, Section 4.1.2: "The client MUST NOT use the authorization code more
// than once."
func (db *DB) SpendCode(ctx context.Context, digest []byte, now time.Time) error {
	return spentUnlessOne(db.g(ctx).Model(&Code{}).
		Where("digest = ? AND used_at IS NULL", digest).Update("used_at", now))
}

// CreateAccessToken stores t.
func (db *DB) CreateAccessToken(ctx context.Context, t AccessToken) error {
	return mapErr(db.g(ctx).Create(&t).Error)
}

// CreateRefreshToken stores t.
func (db *DB) CreateRefreshToken(ctx context.Context, t RefreshToken) error {
	return mapErr(db.g(ctx).Create(&t).Error)
}

// Grant finds a grant that is in force at now: not revoked, not past its end,
// its patient, its client, its consent and, unless it is offline, its session alive.
// ErrSpent otherwise; ErrNotFound where there is no such grant.
func (db *DB) Grant(ctx context.Context, id string, now time.Time) (Grant, error) {
	var row struct {
		Grant
		Alive bool
	}
	err := db.g(ctx).Raw(`SELECT g.id, g.client_id, g.patient_id, g.session_id, g.scopes, g.audience, g.offline,
			g.auth_time, g.acr, g.amr, g.created_at, g.expires_at, g.revoked_at, g.reason, g.subject, g.sid, g.claims,
			coalesce(g.revoked_at IS NULL AND g.expires_at > ? AND p.disabled_at IS NULL AND c.disabled_at IS NULL
			 AND (k.revoked_at IS NULL OR k.revoked_at < g.created_at)
			 AND (g.offline OR (s.ended_at IS NULL AND s.expires_at > ?)), FALSE) AS alive
		FROM oauth_grant g
		JOIN patient p ON p.id = g.patient_id
		JOIN client c ON c.id = g.client_id
		LEFT JOIN session s ON s.id = g.session_id
		LEFT JOIN consent k ON k.patient_id = g.patient_id AND k.client_id = g.client_id
		WHERE g.id = ?`, now, now, id).Take(&row).Error
	if err != nil {
		return Grant{}, mapErr(err)
	}
	if !row.Alive {
		return row.Grant, ErrSpent
	}
	return row.Grant, nil
}

// AccessToken finds a live access token by digest; ErrNotFound where there is
// none, ErrSpent where it has expired, was revoked or its grant has ended.
func (db *DB) AccessToken(ctx context.Context, digest []byte, now time.Time) (AccessToken, Grant, error) {
	var t AccessToken
	if err := db.g(ctx).Where("digest = ?", digest).Take(&t).Error; err != nil {
		return t, Grant{}, mapErr(err)
	}
	if t.RevokedAt != nil || !now.Before(t.ExpiresAt) {
		return t, Grant{}, ErrSpent
	}
	if t.GrantID == "" {
		_, err := db.Client(ctx, t.ClientID)
		if errors.Is(err, ErrNotFound) {
			err = ErrSpent
		}
		return t, Grant{ClientID: t.ClientID}, err
	}
	g, err := db.Grant(ctx, t.GrantID, now)
	return t, g, err
}

// RefreshToken finds a refresh token by digest, used or not.
func (db *DB) RefreshToken(ctx context.Context, digest []byte) (RefreshToken, error) {
	var t RefreshToken
	err := db.g(ctx).Where("digest = ?", digest).Take(&t).Error
	return t, mapErr(err)
}

// RotateRefreshToken replaces the presented token by successor. Of several
// callers one wins, the rest get ErrSpent. The successor is kept for a retry,
// encrypted under the presented token, which the database does not know.
func (db *DB) RotateRefreshToken(ctx context.Context, presented, successor string, now time.Time) error {
	return spentUnlessOne(db.g(ctx).Model(&RefreshToken{}).
		Where("digest = ? AND used_at IS NULL AND expires_at > ?", Digest(presented), now).
		Updates(map[string]any{
			"used_at": now, "next": Digest(successor), "successor": envelop(presented, successor),
		}))
}

// RefreshOverlap is how long a token that was just replaced may be presented
// again, by a client that lost the answer.
const RefreshOverlap = 60 * time.Second

// Successor answers a retry: the token that replaced the presented one, as long
// as the overlap runs and the successor has not been used. ErrSpent otherwise;
// that is reuse.
func (db *DB) Successor(ctx context.Context, t RefreshToken, presented string, now time.Time) (string, error) {
	if t.UsedAt == nil || now.After(t.UsedAt.Add(RefreshOverlap)) || t.Successor == nil {
		return "", ErrSpent
	}
	next, err := db.RefreshToken(ctx, t.Next)
	if errors.Is(err, ErrNotFound) || (err == nil && next.UsedAt != nil) {
		return "", ErrSpent
	}
	if err != nil {
		return "", err
	}
	return unenvelop(presented, t.Successor)
}

// envelop encrypts successor under a key derived from presented.
func envelop(presented, successor string) []byte {
	aead, err := chacha20poly1305.NewX(derive([]byte(presented), "refresh-successor"))
	if err != nil {
		panic(err) // the key has the right length
	}
	nonce := make([]byte, chacha20poly1305.NonceSizeX)
	rand.Read(nonce)
	return aead.Seal(nonce, nonce, []byte(successor), Digest(presented))
}

func unenvelop(presented string, sealed []byte) (string, error) {
	aead, err := chacha20poly1305.NewX(derive([]byte(presented), "refresh-successor"))
	if err != nil {
		panic(err) // the key has the right length
	}
	if len(sealed) < chacha20poly1305.NonceSizeX {
		return "", ErrSealed
	}
	nonce, ct := sealed[:chacha20poly1305.NonceSizeX], sealed[chacha20poly1305.NonceSizeX:]
	plain, err := aead.Open(nil, bytes.Clone(nonce), ct, Digest(presented))
	if err != nil {
		return "", ErrSealed
	}
	return string(plain), nil
}

// RevokeGrant ends a grant and all that hangs on it, with the reason for the
// audit. Revoking twice changes nothing.
func (db *DB) RevokeGrant(ctx context.Context, id, reason string, now time.Time) error {
	return db.revokeGrants(ctx, now, reason, "id = ?", id)
}

// RevokeAccessToken ends one access token that has no grant.
func (db *DB) RevokeAccessToken(ctx context.Context, digest []byte, now time.Time) error {
	return mapErr(db.g(ctx).Model(&AccessToken{}).
		Where("digest = ? AND revoked_at IS NULL", digest).Update("revoked_at", now).Error)
}

// RevokePatientGrants ends every grant of a patient.
func (db *DB) RevokePatientGrants(ctx context.Context, patientID, reason string, now time.Time) error {
	return db.revokeGrants(ctx, now, reason, "patient_id = ?", patientID)
}

// RevokeSessionGrants ends the grants that live no longer than a session.
func (db *DB) RevokeSessionGrants(ctx context.Context, sessionID string, now time.Time) error {
	return db.revokeGrants(ctx, now, "session ended", "session_id = ? AND NOT offline", sessionID)
}

func (db *DB) revokeGrants(ctx context.Context, now time.Time, reason, where string, args ...any) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		var live []Grant
		if err := db.g(ctx).Where(where, args...).Where("revoked_at IS NULL").Find(&live).Error; err != nil {
			return mapErr(err)
		}
		for _, g := range live {
			r := db.g(ctx).Model(&Grant{}).Where("id = ? AND revoked_at IS NULL", g.ID).
				Updates(map[string]any{"revoked_at": now, "reason": reason})
			if r.Error != nil {
				return mapErr(r.Error)
			}
			if r.RowsAffected == 0 {
				continue
			}
			err := db.Audit(ctx, AuditEvent{
				Event: "grant.revoked", Subject: g.PatientID, Object: "grant:" + g.ID,
				Detail: JSON[map[string]string]{V: map[string]string{"reason": reason, "client": g.ClientID}},
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}
