package storage

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// What a link is. A suspended link is live: it shows nothing and keeps its place
// until it is confirmed or ended. Moved and unlinked links are history.
const (
	LinkLinked    = "linked"
	LinkSuspended = "suspended"
	LinkMoved     = "moved"
	LinkUnlinked  = "unlinked"
)

// Link says that a lab record is a patient's own. A patient has at most one live
// link and so has a record; the database refuses a second. Only a patient's act
// makes one (RedeemInvitation); the feed can move it along a merge or suspend it.
type Link struct {
	ID            string
	PatientID     string
	LabIdentityID string
	State         string
	Reason        string // why it is not linked
	Replaces      string // the link it was moved from
	MadeAt        time.Time
	SuspendedAt   *time.Time
	EndedAt       *time.Time
}

// TableName names the table.
func (Link) TableName() string { return "link" }

// LinkOf is the patient's link in force and its record. ErrNotFound where there
// is none, or where it is suspended.
func (db *DB) LinkOf(ctx context.Context, patientID string) (Link, LabIdentity, error) {
	var l Link
	err := db.g(ctx).Where("patient_id = ? AND state = ? AND ended_at IS NULL", patientID, LinkLinked).Take(&l).Error
	if err != nil {
		return l, LabIdentity{}, mapErr(err)
	}
	r, err := db.LabIdentityByID(ctx, l.LabIdentityID)
	return l, r, err
}

// Links lists a patient's links, the newest first: at most one is live.
func (db *DB) Links(ctx context.Context, patientID string) ([]Link, error) {
	var out []Link
	err := db.g(ctx).Where("patient_id = ?", patientID).Order("made_at DESC, id").Find(&out).Error
	return out, mapErr(err)
}

// LinkByID finds a link, live or not.
func (db *DB) LinkByID(ctx context.Context, id string) (Link, error) {
	var l Link
	err := db.g(ctx).Where("id = ?", id).Take(&l).Error
	return l, mapErr(err)
}

// SuspendedLinks lists links that wait for staff, the longest first.
func (db *DB) SuspendedLinks(ctx context.Context, limit int) ([]Link, error) {
	var out []Link
	err := db.g(ctx).Where("state = ? AND ended_at IS NULL", LinkSuspended).Order("suspended_at, id").Limit(limit).Find(&out).Error
	return out, mapErr(err)
}

// linkOn is the live link of a record, nil where there is none.
func (db *DB) linkOn(ctx context.Context, labIdentityID string) (*Link, error) {
	var l Link
	err := mapErr(db.g(ctx).Where("lab_identity_id = ? AND ended_at IS NULL", labIdentityID).Take(&l).Error)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return &l, err
}

// SuspendedOn reports whether a record's live link is suspended.
func (db *DB) SuspendedOn(ctx context.Context, labIdentityID string) (bool, error) {
	l, err := db.linkOn(ctx, labIdentityID)
	return l != nil && l.State == LinkSuspended, err
}

// addLink stores a link in force. ErrConflict where the patient or the record
// has a live one.
func (db *DB) addLink(ctx context.Context, l Link) (Link, error) {
	l.ID, l.State = NewID(), LinkLinked
	if err := mapErr(db.g(ctx).Create(&l).Error); err != nil {
		return l, err
	}
	event, word := "link.made", "link_made"
	if l.Replaces != "" {
		event, word = "link.moved", "link_moved"
	}
	return l, db.linkChanged(ctx, l, event, word)
}

// Suspend takes a link out of force until staff decide. Suspending one that is
// suspended changes nothing.
func (db *DB) Suspend(ctx context.Context, id, reason string, now time.Time) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		l, err := db.LinkByID(ctx, id)
		if err != nil {
			return err
		}
		r := db.g(ctx).Model(&Link{}).Where("id = ? AND state = ? AND ended_at IS NULL", id, LinkLinked).
			Updates(map[string]any{"state": LinkSuspended, "reason": reason, "suspended_at": now})
		if r.Error != nil || r.RowsAffected == 0 {
			return mapErr(r.Error)
		}
		l.Reason = reason
		return db.linkChanged(ctx, l, "link.suspended", "link_suspended")
	})
}

// ConfirmLink is the staff's word that a suspended link is right. ErrConflict
// where its record cannot be linked, ErrSpent where it is not suspended.
func (db *DB) ConfirmLink(ctx context.Context, id string, now time.Time) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		l, err := db.LinkByID(ctx, id)
		if err != nil {
			return err
		}
		record, err := db.LockLabIdentity(ctx, l.LabIdentityID)
		if err != nil {
			return err
		}
		if !record.Linkable(now) {
			return fmt.Errorf("confirm link: the record is %s: %w", record.Status, ErrConflict)
		}
		r := db.g(ctx).Model(&Link{}).Where("id = ? AND state = ? AND ended_at IS NULL", id, LinkSuspended).
			Updates(map[string]any{"state": LinkLinked, "reason": "", "suspended_at": nil})
		if err := spentUnlessOne(r); err != nil {
			return err
		}
		return db.linkChanged(ctx, l, "link.confirmed", "link_made")
	})
}

// Unlink ends a live link of a patient for good; a new one needs a new code.
// ErrNotFound where the patient has no such live link.
func (db *DB) Unlink(ctx context.Context, patientID, id string, now time.Time) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		l, err := db.LinkByID(ctx, id)
		if err != nil {
			return err
		}
		r := db.g(ctx).Model(&Link{}).Where("id = ? AND patient_id = ? AND ended_at IS NULL", id, patientID).
			Updates(map[string]any{"state": LinkUnlinked, "ended_at": now})
		if err := foundOne(r); err != nil {
			return err
		}
		return db.linkChanged(ctx, l, "link.ended", "link_ended")
	})
}

// linkChanged does what every change of a link brings: the audit row, the end of
// grants that show the link as it was, and the wish to tell the patient. Nobody
// writes to the dead.
func (db *DB) linkChanged(ctx context.Context, l Link, event, word string) error {
	e := AuditEvent{Event: event, Subject: l.PatientID, Object: "link:" + l.ID}
	e.Detail.V = map[string]string{"record": l.LabIdentityID}
	if l.Reason != "" {
		e.Detail.V["reason"] = l.Reason
	}
	if l.Replaces != "" {
		e.Detail.V["replaces"] = l.Replaces
	}
	if err := db.Audit(ctx, e); err != nil {
		return err
	}
	if event != "link.made" && event != "link.confirmed" {
		err := db.revokeGrants(ctx, Now(), event, `patient_id = ? AND (' ' || scopes || ' ' LIKE '% lab %' OR claims LIKE '%"lab"%')`, l.PatientID)
		if err != nil {
			return err
		}
	}
	if l.Reason == ReasonDeceased {
		return nil
	}
	return db.Wish(ctx, notice{PatientID: l.PatientID, Notice: word})
}

// notice is queue.Notice, which this floor cannot import.
type notice struct {
	PatientID string `json:"patient_id"`
	Notice    string `json:"notice"`
}

// Kind names the job.
func (notice) Kind() string { return "notice" }

// Name is empty: every wish counts.
func (notice) Name() string { return "" }
