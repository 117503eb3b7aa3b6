package storage

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"time"
)

// Session is a patient signed in with one browser. ID is public: tokens carry
// it as sid (OpenID Connect Back-Channel Logout, Section 2.1). The handle in the
// cookie is known here by its Digest only, and is replaced whenever the session
// is worth more than before.
type Session struct {
	ID        string
	Digest    []byte
	PatientID string
	Factors   Factors
	// AuthTime is when a factor was last proven.
	AuthTime   time.Time
	CreatedAt  time.Time
	LastSeenAt time.Time
	// ExpiresAt is absolute; nothing extends it.
	ExpiresAt time.Time
	EndedAt   *time.Time
	UserAgent string
	IP        string
}

// TableName names the table.
func (Session) TableName() string { return "session" }

// Factors is when each factor was last proven: "pwd", "otp", "passkey" (a key,
// touched), "passkey_uv" (a key that also verified its user).
type Factors map[string]time.Time

// Value writes the factors as JSON text.
func (f Factors) Value() (driver.Value, error) {
	if f == nil {
		return "{}", nil
	}
	b, err := json.Marshal(map[string]time.Time(f))
	return string(b), err
}

// Scan reads the factors from JSON text.
func (f *Factors) Scan(src any) error {
	s, err := text(src)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(s), (*map[string]time.Time)(f))
}

// CreateSession stores s; an empty ID is filled in.
func (db *DB) CreateSession(ctx context.Context, s *Session) error {
	if s.ID == "" {
		s.ID = NewID()
	}
	return db.Tx(ctx, func(ctx context.Context) error {
		if err := db.g(ctx).Create(s).Error; err != nil {
			return mapErr(err)
		}
		return db.auditSession(ctx, "session.started", s.PatientID, s.ID)
	})
}

// SessionByDigest finds the live session of a handle; ErrNotFound where the
// handle is unknown or replaced, or the session has ended or expired.
func (db *DB) SessionByDigest(ctx context.Context, digest []byte, now time.Time) (Session, error) {
	var s Session
	err := db.g(ctx).Where("digest = ? AND ended_at IS NULL AND expires_at > ?", digest, now).Take(&s).Error
	return s, mapErr(err)
}

// ReplaceSession writes s over the session of its ID, if oldDigest is still its
// handle: the old handle is dead from then on, the ID stays. Of several callers
// with one old handle the first wins, the rest get ErrSpent.
func (db *DB) ReplaceSession(ctx context.Context, oldDigest []byte, s *Session) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		err := spentUnlessOne(db.g(ctx).Model(&Session{}).
			Where("id = ? AND patient_id = ? AND digest = ? AND ended_at IS NULL AND expires_at > ?", s.ID, s.PatientID, oldDigest, s.AuthTime).
			Updates(map[string]any{
				"digest": s.Digest, "factors": s.Factors, "auth_time": s.AuthTime,
				"last_seen_at": s.LastSeenAt, "user_agent": s.UserAgent, "ip": s.IP,
			}))
		if err != nil {
			return err
		}
		return db.auditSession(ctx, "session.raised", s.PatientID, s.ID)
	})
}

// TouchSession records that the session is in use. A session that was seen
// after before is left alone, so that most requests write nothing.
func (db *DB) TouchSession(ctx context.Context, id string, before, now time.Time) error {
	return mapErr(db.g(ctx).Model(&Session{}).
		Where("id = ? AND ended_at IS NULL AND last_seen_at <= ?", id, before).
		Update("last_seen_at", now).Error)
}

// EndSession ends one session of this patient, and the grants that live no longer
// than it, and wishes that its clients are told; ErrNotFound where the patient
// has no such live one.
func (db *DB) EndSession(ctx context.Context, patientID, id string, now time.Time) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		r := db.g(ctx).Model(&Session{}).
			Where("id = ? AND patient_id = ? AND ended_at IS NULL", id, patientID).Update("ended_at", now)
		if err := foundOne(r); err != nil {
			return err
		}
		if err := db.RevokeSessionGrants(ctx, id, now); err != nil {
			return err
		}
		if err := db.tellSignedOut(ctx, id); err != nil {
			return err
		}
		return db.auditSession(ctx, "session.ended", patientID, id)
	})
}

// EndSessions ends every session of a patient but exceptID; "" excepts none.
func (db *DB) EndSessions(ctx context.Context, patientID, exceptID string, now time.Time) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		var live []string
		err := db.g(ctx).Model(&Session{}).
			Where("patient_id = ? AND id <> ? AND ended_at IS NULL", patientID, exceptID).Order("id").Pluck("id", &live).Error
		if err != nil {
			return mapErr(err)
		}
		for _, id := range live {
			// One that ended meanwhile is as it should be.
			if err := db.EndSession(ctx, patientID, id, now); err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
		}
		return nil
	})
}

// SessionsOf lists the live sessions of a patient, the last used first.
func (db *DB) SessionsOf(ctx context.Context, patientID string) ([]Session, error) {
	var out []Session
	err := db.g(ctx).Where("patient_id = ? AND ended_at IS NULL AND expires_at > ?", patientID, Now()).
		Order("last_seen_at DESC, id").Find(&out).Error
	return out, mapErr(err)
}

// ExpireSessions ends up to limit sessions whose time is over, and wishes that
// their clients are told. It returns how many.
func (db *DB) ExpireSessions(ctx context.Context, now time.Time, limit int) (int, error) {
	var over []string
	err := db.Within(ctx, maintenance, func(ctx context.Context) error {
		over = nil
		err := db.g(ctx).Raw("UPDATE session SET ended_at = expires_at WHERE "+
			db.some("session", "ended_at IS NULL AND expires_at <= ?", "expires_at")+" RETURNING id", now, limit).Scan(&over).Error
		if err != nil || len(over) == 0 {
			return mapErr(err)
		}
		return db.tellSignedOut(ctx, over...)
	})
	return len(over), err
}

func (db *DB) auditSession(ctx context.Context, event, patientID, id string) error {
	return db.Audit(ctx, AuditEvent{Event: event, Subject: patientID, Object: "session:" + id})
}
