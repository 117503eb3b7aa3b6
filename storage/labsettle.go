package storage

import (
	"context"
	"time"
)

// Why a link was suspended, beside the reasons of a record's Hold.
const (
	ReasonDeceased     = "deceased"
	ReasonDeleted      = "record-deleted"
	ReasonInactive     = "record-inactive"
	ReasonPending      = "merge-pending" // the survivor is not described yet
	ReasonIncompatible = "merge-incompatible"
	ReasonConflict     = "merge-conflict" // the survivor is linked to another patient
)

const (
	// pendingFor is how long a link waits for the description of a survivor
	// before staff must decide.
	pendingFor = 15 * time.Minute
	// deletedFor is how long the link of a deleted record stays suspended.
	deletedFor = 30 * 24 * time.Hour
)

// SettleLinks brings the live links of records, and those that wait for a
// survivor's description, in line with what the records now say, in the
// transaction of that change. It returns how many links changed.
func (db *DB) SettleLinks(ctx context.Context, recordIDs []string, actor string, now time.Time) (int, error) {
	if len(recordIDs) == 0 {
		return 0, nil
	}
	var links []Link
	err := db.g(ctx).Where("ended_at IS NULL AND (lab_identity_id IN ? OR reason = ?)", recordIDs, ReasonPending).
		Order("id").Find(&links).Error
	if err != nil {
		return 0, mapErr(err)
	}
	return db.settleAll(ctx, links, actor, now)
}

// ReconcileLinks does the same for whatever was left behind: every link in force
// points at an active, unmerged record. Up to limit links are looked at.
func (db *DB) ReconcileLinks(ctx context.Context, now time.Time, limit int) (int, error) {
	changed := 0
	err := db.Tx(ctx, func(ctx context.Context) error {
		var links []Link
		err := db.g(ctx).Raw(`SELECT l.* FROM link l JOIN lab_identity r ON r.id = l.lab_identity_id
			WHERE l.ended_at IS NULL AND (
				(l.state = ? AND (r.status <> ? OR r.inactive OR r.hold <> ''))
				OR l.reason = ?
				OR (l.reason = ? AND l.suspended_at < ?))
			ORDER BY l.id LIMIT ?`,
			LinkLinked, LabActive, ReasonPending, ReasonDeleted, now.Add(-deletedFor), limit).Scan(&links).Error
		if err != nil {
			return mapErr(err)
		}
		changed, err = db.settleAll(ctx, links, "system", now)
		return err
	})
	return changed, err
}

func (db *DB) settleAll(ctx context.Context, links []Link, actor string, now time.Time) (int, error) {
	changed := 0
	for _, l := range links {
		ok, err := db.settle(ctx, l, actor, now)
		if err != nil {
			return changed, err
		}
		if ok {
			changed++
		}
	}
	return changed, nil
}

// settle is the rule for one live link. A suspended link stays so until staff
// decide, but for one that waits for a survivor and one whose record is long gone.
func (db *DB) settle(ctx context.Context, l Link, actor string, now time.Time) (bool, error) {
	if l.State == LinkSuspended && l.Reason == ReasonDeleted && l.SuspendedAt != nil && now.Sub(*l.SuspendedAt) > deletedFor {
		return true, db.Unlink(ctx, l.PatientID, l.ID, actor, now)
	}
	if l.State == LinkSuspended && l.Reason != ReasonPending {
		return false, nil
	}
	record, err := db.LockLabIdentity(ctx, l.LabIdentityID)
	if err != nil {
		return false, err
	}
	root, err := db.LabRoot(ctx, record)
	if err != nil {
		return false, err
	}
	switch reason := fate(record, root); {
	case reason == "" && root.ID == record.ID && l.State == LinkLinked:
		return false, nil
	case reason == "" && root.ID == record.ID:
		// Its merge was undone while it waited.
		return true, db.giveUp(ctx, l, "unmerged", actor, now)
	case reason == "":
		return true, db.moveLink(ctx, l, root, actor, now)
	case reason == ReasonPending && l.State == LinkSuspended:
		if now.Sub(*l.SuspendedAt) <= pendingFor {
			return false, nil
		}
		return true, db.giveUp(ctx, l, ReasonIncompatible, actor, now)
	case l.State == LinkSuspended:
		return true, db.giveUp(ctx, l, reason, actor, now)
	case reason == ReasonDeceased:
		return true, db.suspendDeceased(ctx, l, actor, now)
	default:
		return true, db.Suspend(ctx, l.ID, reason, actor, now)
	}
}

// fate says why a link on record, whose merges lead to root, cannot be in force
// on root; "" when it can.
func fate(record, root LabIdentity) string {
	switch {
	case record.Hold != "":
		return record.Hold
	case root.Hold != "":
		return root.Hold
	case record.Deceased, root.Deceased:
		return ReasonDeceased
	case root.Status == LabDeleted:
		return ReasonDeleted
	case root.Inactive:
		return ReasonInactive
	case root.ID == record.ID:
		return ""
	case root.BirthDate == "" || root.FamilyKey == "" && root.GivenKey == "":
		return ReasonPending
	case !record.SamePerson(root) || root.Flag != "":
		return ReasonIncompatible
	}
	return ""
}

// moveLink ends a link and makes its successor on the survivor of a merge. Where
// the survivor has a live link of its own, both wait for staff.
func (db *DB) moveLink(ctx context.Context, l Link, root LabIdentity, actor string, now time.Time) error {
	other, err := db.linkOn(ctx, root.ID)
	if err != nil {
		return err
	}
	if other != nil {
		if err := db.Suspend(ctx, other.ID, ReasonConflict, actor, now); err != nil {
			return err
		}
		if l.State == LinkSuspended {
			return db.giveUp(ctx, l, ReasonConflict, actor, now)
		}
		return db.Suspend(ctx, l.ID, ReasonConflict, actor, now)
	}
	r := db.g(ctx).Model(&Link{}).Where("id = ? AND ended_at IS NULL", l.ID).
		Updates(map[string]any{"state": LinkMoved, "reason": "", "ended_at": now})
	if err := spentUnlessOne(r); err != nil {
		return err
	}
	_, err = db.addLink(ctx, Link{PatientID: l.PatientID, LabIdentityID: root.ID, Replaces: l.ID, MadeAt: now}, actor)
	return err
}

// giveUp leaves a waiting link suspended, for staff to decide.
func (db *DB) giveUp(ctx context.Context, l Link, reason, actor string, now time.Time) error {
	r := db.g(ctx).Model(&Link{}).Where("id = ? AND state = ? AND ended_at IS NULL", l.ID, LinkSuspended).
		Updates(map[string]any{"reason": reason, "suspended_at": now})
	if r.Error != nil || r.RowsAffected == 0 {
		return mapErr(r.Error)
	}
	return db.Audit(ctx, AuditEvent{Event: "link.suspended", Actor: actor, Subject: l.PatientID, Object: "link:" + l.ID, Detail: Reason(reason)})
}

// suspendDeceased suspends the link of somebody who has died and shuts the
// account: NIST SP 800-63A-4 asks for it promptly on an authoritative notice.
// Staff open it again where the notice was wrong.
func (db *DB) suspendDeceased(ctx context.Context, l Link, actor string, now time.Time) error {
	if err := db.Suspend(ctx, l.ID, ReasonDeceased, actor, now); err != nil {
		return err
	}
	return db.SetPatientDisabled(ctx, l.PatientID, true)
}
