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

// SettleLinks brings the live links of records, and of those whose merges lead to
// them, in line with what the records now say, in the transaction of that
// change: a link that waits for its survivor's description is among them. It
// returns how many links changed.
func (db *DB) SettleLinks(ctx context.Context, recordIDs []string, now time.Time) (int, error) {
	if len(recordIDs) == 0 {
		return 0, nil
	}
	var links []Link
	err := db.g(ctx).Raw(`WITH RECURSIVE about (id) AS (
			SELECT id FROM lab_identity WHERE id IN ?
			UNION SELECT r.id FROM lab_identity r JOIN about ON r.merged_into = about.id AND r.merged_into <> '')
		SELECT `+linkColumns+` FROM about JOIN link l ON l.lab_identity_id = about.id WHERE l.ended_at IS NULL
		ORDER BY l.id`, recordIDs).Scan(&links).Error
	if err != nil {
		return 0, mapErr(err)
	}
	return db.settleAll(ctx, links, now)
}

const linkColumns = "l.id, l.patient_id, l.lab_identity_id, l.state, l.reason, l.replaces, l.made_at, l.suspended_at, l.ended_at"

// ReconcileLinks does the same for whatever was left behind: every link in force
// points at an active, unmerged record, none waits for ever. It looks at up to
// limit records that no link may be in force on, in the order of their ids from
// the one after the given id, at the links in force on them, and at up to limit
// links whose time to wait is over. It returns how many links changed, and the
// last id it looked at, "" where it came to the end.
func (db *DB) ReconcileLinks(ctx context.Context, now time.Time, after string, limit int) (changed int, last string, err error) {
	err = db.Within(ctx, maintenance, func(ctx context.Context) error {
		changed, last = 0, ""
		var records []string
		// The conditions are those of partial indexes, word for word.
		err := db.g(ctx).Raw(`SELECT id FROM lab_identity WHERE (status <> 'active' OR inactive OR hold <> '') AND id > ?
			ORDER BY id LIMIT ?`, after, limit).Scan(&records).Error
		if err != nil {
			return mapErr(err)
		}
		if len(records) == limit {
			last = records[limit-1]
		}
		var links []Link
		if len(records) > 0 {
			err = db.g(ctx).Raw(`SELECT `+linkColumns+` FROM link l
				WHERE l.lab_identity_id IN ? AND l.ended_at IS NULL AND l.state = ? ORDER BY l.id`, records, LinkLinked).Scan(&links).Error
			if err != nil {
				return mapErr(err)
			}
		}
		for _, wait := range []struct {
			reason string
			before time.Time
		}{{ReasonPending, now}, {ReasonDeleted, now.Add(-deletedFor)}} {
			var over []Link
			err := db.g(ctx).Raw(`SELECT `+linkColumns+` FROM link l WHERE l.ended_at IS NULL AND l.reason = '`+wait.reason+`'
				AND l.suspended_at < ? ORDER BY l.suspended_at, l.id LIMIT ?`, wait.before, limit).Scan(&over).Error
			if err != nil {
				return mapErr(err)
			}
			links = append(links, over...)
		}
		changed, err = db.settleAll(ctx, links, now)
		return err
	})
	return changed, last, err
}

func (db *DB) settleAll(ctx context.Context, links []Link, now time.Time) (int, error) {
	changed := 0
	for _, l := range links {
		ok, err := db.settle(ctx, l, now)
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
func (db *DB) settle(ctx context.Context, l Link, now time.Time) (bool, error) {
	if l.State == LinkSuspended && l.Reason == ReasonDeleted && l.SuspendedAt != nil && now.Sub(*l.SuspendedAt) > deletedFor {
		return true, db.Unlink(ctx, l.PatientID, l.ID, now)
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
		return true, db.giveUp(ctx, l, "unmerged", now)
	case reason == "":
		return true, db.moveLink(ctx, l, root, now)
	case reason == ReasonPending && l.State == LinkSuspended:
		if now.Sub(*l.SuspendedAt) <= pendingFor {
			return false, nil
		}
		return true, db.giveUp(ctx, l, ReasonIncompatible, now)
	case l.State == LinkSuspended:
		return true, db.giveUp(ctx, l, reason, now)
	case reason == ReasonDeceased:
		return true, db.suspendDeceased(ctx, l, now)
	default:
		return true, db.Suspend(ctx, l.ID, reason, now)
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
func (db *DB) moveLink(ctx context.Context, l Link, root LabIdentity, now time.Time) error {
	other, err := db.linkOn(ctx, root.ID)
	if err != nil {
		return err
	}
	if other != nil {
		if err := db.Suspend(ctx, other.ID, ReasonConflict, now); err != nil {
			return err
		}
		if l.State == LinkSuspended {
			return db.giveUp(ctx, l, ReasonConflict, now)
		}
		return db.Suspend(ctx, l.ID, ReasonConflict, now)
	}
	r := db.g(ctx).Model(&Link{}).Where("id = ? AND ended_at IS NULL", l.ID).
		Updates(map[string]any{"state": LinkMoved, "reason": "", "ended_at": now})
	if err := spentUnlessOne(r); err != nil {
		return err
	}
	_, err = db.addLink(ctx, Link{PatientID: l.PatientID, LabIdentityID: root.ID, Replaces: l.ID, MadeAt: now})
	return err
}

// giveUp leaves a waiting link suspended, for staff to decide.
func (db *DB) giveUp(ctx context.Context, l Link, reason string, now time.Time) error {
	r := db.g(ctx).Model(&Link{}).Where("id = ? AND state = ? AND ended_at IS NULL", l.ID, LinkSuspended).
		Updates(map[string]any{"reason": reason, "suspended_at": now})
	if r.Error != nil || r.RowsAffected == 0 {
		return mapErr(r.Error)
	}
	return db.Audit(ctx, AuditEvent{Event: "link.suspended", Subject: l.PatientID, Object: "link:" + l.ID, Detail: Reason(reason)})
}

// suspendDeceased suspends the link of somebody who has died and shuts the
// account: NIST SP 800-63A-4 asks for it promptly on an authoritative notice.
// Staff open it again where the notice was wrong.
func (db *DB) suspendDeceased(ctx context.Context, l Link, now time.Time) error {
	if err := db.Suspend(ctx, l.ID, ReasonDeceased, now); err != nil {
		return err
	}
	return db.SetPatientDisabled(ctx, l.PatientID, true)
}
