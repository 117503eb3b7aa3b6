package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"gorm.io/gorm/clause"
)

// Device is a device that waits for a patient to allow it (RFC 8628). What it
// presents is known here by digests only: of the device code, which only the
// device has, and of the user code, which is short and so keyed.
type Device struct {
	ID       string
	Digest   []byte
	UserCode []byte // MAC of the user code
	ClientID string
	Scopes   Words
	Audience Strings
	// Pace is how many seconds the device must wait between two polls.
	Pace     int
	PolledAt *time.Time
	// GrantID is what the device was given, "" until a patient has allowed it.
	GrantID   string
	DeniedAt  *time.Time
	UsedAt    *time.Time // when the tokens were fetched
	CreatedAt time.Time
	ExpiresAt time.Time
}

// TableName names the table.
func (Device) TableName() string { return "device" }

const (
	// DeviceLife is how long the codes of a device are good: long enough to find
	// a phone and sign in, short for a code that is sent around (RFC 8628, Section
	// 5.4).
	DeviceLife = 10 * time.Minute
	// DevicePace is the first pace, and what each poll that came too soon adds
	// (RFC 8628, Sections 3.2 and 3.5).
	DevicePace = 5
)

const (
	// RFC 8628, Section 6.1: no vowels, so that no words come out, and no digits.
	userCodeAlphabet = "BCDFGHJKLMNPQRSTVWXZ"
	userCodeLength   = 8 // 34.5 bits
)

const (
	purposeUserCode = "user-code"
	prefixDevice    = "pa_dc_"
)

// NormalUserCode is the one spelling of a user code, WDJB-MJHT, for what
// somebody typed: letters of either case, with whatever blanks and dashes. It is
// "" where that cannot be a code.
func NormalUserCode(typed string) string {
	var code strings.Builder
	for _, c := range typed {
		if unicode.IsSpace(c) || unicode.Is(unicode.Dash, c) {
			continue
		}
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		if !strings.ContainsRune(userCodeAlphabet, c) || code.Len() == userCodeLength+1 {
			return ""
		}
		if code.Len() == userCodeLength/2 {
			code.WriteByte('-')
		}
		code.WriteRune(c)
	}
	if code.Len() != userCodeLength+1 {
		return ""
	}
	return code.String()
}

// newUserCode draws each letter with the same chance.
func newUserCode() string {
	const n = byte(len(userCodeAlphabet))
	var code []byte
	for len(code) < userCodeLength {
		var b [1]byte
		rand.Read(b[:])
		if b[0] < 255-255%n {
			code = append(code, userCodeAlphabet[b[0]%n])
		}
	}
	return string(code[:userCodeLength/2]) + "-" + string(code[userCodeLength/2:])
}

// CreateDevice stores d and returns its two codes, which cannot be had again. ID,
// pace and times are filled in. No two devices that are kept share a user code.
func (db *DB) CreateDevice(ctx context.Context, d *Device) (deviceCode, userCode string, err error) {
	d.ID, d.Pace, d.CreatedAt = NewID(), DevicePace, Now()
	d.ExpiresAt = d.CreatedAt.Add(DeviceLife)
	deviceCode = NewHandle(prefixDevice)
	d.Digest = Digest(deviceCode)
	for range 5 {
		userCode = newUserCode()
		d.UserCode = db.MAC(purposeUserCode, []byte(userCode))
		r := db.g(ctx).Clauses(clause.OnConflict{DoNothing: true}).Create(d)
		if r.Error != nil {
			return "", "", mapErr(r.Error)
		}
		if r.RowsAffected == 1 {
			return deviceCode, userCode, nil
		}
	}
	return "", "", fmt.Errorf("create device: every user code is taken: %w", ErrConflict)
}

// DeviceByCode finds a device by the digest of its device code, whatever became
// of it.
func (db *DB) DeviceByCode(ctx context.Context, digest []byte) (Device, error) {
	var d Device
	err := db.g(ctx).Where("digest = ?", digest).Take(&d).Error
	return d, mapErr(err)
}

// waiting is a device that was not answered yet, and whose time is not over at
// its argument.
const waiting = "grant_id = '' AND denied_at IS NULL AND expires_at > ?"

// DeviceByUserCode finds the device that waits under a code of NormalUserCode.
// ErrNotFound where there is none, or none that still waits: which of these is
// not told.
func (db *DB) DeviceByUserCode(ctx context.Context, code string, now time.Time) (Device, error) {
	var d Device
	err := db.g(ctx).Where("user_code = ? AND "+waiting, db.MAC(purposeUserCode, []byte(code)), now).Take(&d).Error
	return d, mapErr(err)
}

// WaitingDevice finds a device that still waits. ErrSpent where it has been
// answered, or its time is over.
func (db *DB) WaitingDevice(ctx context.Context, id string, now time.Time) (Device, error) {
	var d Device
	err := mapErr(db.g(ctx).Where("id = ? AND "+waiting, id, now).Take(&d).Error)
	if errors.Is(err, ErrNotFound) {
		err = ErrSpent
	}
	return d, err
}

// ApproveDevice gives a device that waits the grant g, which it stores. ErrSpent
// where the device was answered before, its time is over, or the session has
// ended meanwhile.
func (db *DB) ApproveDevice(ctx context.Context, id string, g Grant, now time.Time) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		if err := db.HoldSession(ctx, g.SessionID); err != nil {
			return err
		}
		if err := db.g(ctx).Create(&g).Error; err != nil {
			return mapErr(err)
		}
		return db.answerDevice(ctx, id, "device.approved", g.PatientID, map[string]any{"grant_id": g.ID}, now)
	})
}

// DenyDevice records that a patient does not allow a device. ErrSpent as for
// ApproveDevice.
func (db *DB) DenyDevice(ctx context.Context, id, patientID string, now time.Time) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		return db.answerDevice(ctx, id, "device.denied", patientID, map[string]any{"denied_at": now}, now)
	})
}

func (db *DB) answerDevice(ctx context.Context, id, event, patientID string, answer map[string]any, now time.Time) error {
	if err := spentUnlessOne(db.g(ctx).Model(&Device{}).Where("id = ? AND "+waiting, id, now).Updates(answer)); err != nil {
		return err
	}
	return db.Audit(ctx, AuditEvent{Event: event, Subject: patientID, Object: "device:" + id})
}

// PollDevice notes that d asks whether it was allowed. It reports whether d has
// kept its pace since it last asked; a device that has not must be slower from
// then on. RFC 8628, Section 3.5: "the interval MUST be increased by 5 seconds
// for this and all subsequent requests."
func (db *DB) PollDevice(ctx context.Context, d Device, now time.Time) (inTime bool, err error) {
	err = spentUnlessOne(db.g(ctx).Model(&Device{}).
		Where("id = ? AND pace = ? AND (polled_at IS NULL OR polled_at <= ?)", d.ID, d.Pace, now.Add(-time.Duration(d.Pace)*time.Second)).
		Update("polled_at", now))
	if !errors.Is(err, ErrSpent) {
		return err == nil, err
	}
	r := db.g(ctx).Exec("UPDATE device SET pace = pace + ?, polled_at = ? WHERE id = ?", DevicePace, now, d.ID)
	return false, mapErr(r.Error)
}

// RedeemDevice marks the device code of a device that was allowed used. The
// second caller gets ErrSpent.
func (db *DB) RedeemDevice(ctx context.Context, digest []byte, now time.Time) error {
	return spentUnlessOne(db.g(ctx).Model(&Device{}).
		Where("digest = ? AND grant_id <> '' AND used_at IS NULL AND expires_at > ?", digest, now).Update("used_at", now))
}
