package storage

import (
	"context"
	"fmt"
	"strings"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

// What a lab record is. A stub was only ever named, by a merge for instance.
const (
	LabActive   = "active"
	LabMerged   = "merged"
	LabDeleted  = "deleted"
	LabDeceased = "deceased"
	LabStub     = "stub"
)

// adultAge is the age from which a person links their own record.
const adultAge = 18

// LabIdentity is a laboratory's record of a person, named by authority and value
// together, never by one alone.
type LabIdentity struct {
	ID        string
	Authority string
	Value     string
	Status    string
	// MergedInto is the id of the record that replaced this one directly.
	MergedInto string
	Family     string
	Given      string
	// FamilyKey and GivenKey are the names folded for comparison.
	FamilyKey      string
	GivenKey       string
	BirthDate      string // YYYY, YYYY-MM or YYYY-MM-DD; "" unknown
	BirthPrecision string // year, month, day or ""
	Sex            string // male, female, other, unknown or ""
	Deceased       bool
	Inactive       bool
	// Flag is what was wrong with the newest message about the record; a clean
	// newer one clears it. Hold is what staff must decide; only staff clear it.
	// A record with either cannot be linked.
	Flag string
	Hold string
	// Versions orders what the feed says: the version of the newest message that
	// set each group of fields, so that the order of arrival changes nothing.
	Versions  JSON[map[string]string]
	CreatedAt time.Time
	UpdatedAt time.Time
}

// TableName names the table.
func (LabIdentity) TableName() string { return "lab_identity" }

// Version is that of the newest message that set a group of fields, "" for none.
func (r LabIdentity) Version(group string) string { return r.Versions.V[group] }

// SetVersion notes the version of the message that set a group of fields.
func (r *LabIdentity) SetVersion(group, version string) {
	if r.Versions.V == nil {
		r.Versions.V = map[string]string{}
	}
	r.Versions.V[group] = version
}

// Known reports whether the feed ever described the record.
func (r LabIdentity) Known() bool { return r.Version("seen") != "" }

// SetStatus derives Status from the facts.
func (r *LabIdentity) SetStatus() {
	switch {
	case r.MergedInto != "":
		r.Status = LabMerged
	case r.Version("deleted") != "":
		r.Status = LabDeleted
	case r.Deceased:
		r.Status = LabDeceased
	case !r.Known():
		r.Status = LabStub
	default:
		r.Status = LabActive
	}
}

// Linkable reports whether a patient may link the record at now: it is live and
// undisputed, its birth date is known to the day, and the person is of age.
func (r LabIdentity) Linkable(now time.Time) bool {
	born, err := time.Parse(time.DateOnly, r.BirthDate)
	return r.Status == LabActive && !r.Inactive && !r.Deceased && r.Flag == "" && r.Hold == "" &&
		r.BirthPrecision == "day" && err == nil && !born.AddDate(adultAge, 0, 0).After(now)
}

// SamePerson reports whether two records agree on the full birth date and on one
// of the names at least.
func (r LabIdentity) SamePerson(o LabIdentity) bool {
	return r.BirthPrecision == "day" && o.BirthPrecision == "day" && r.BirthDate == o.BirthDate &&
		(r.FamilyKey != "" && r.FamilyKey == o.FamilyKey || r.GivenKey != "" && r.GivenKey == o.GivenKey)
}

// LabKey names a record as the laboratory does.
type LabKey struct{ Authority, Value string }

// Key is the record's name.
func (r LabIdentity) Key() LabKey { return LabKey{r.Authority, r.Value} }

// LabIdentityByID finds a record.
func (db *DB) LabIdentityByID(ctx context.Context, id string) (LabIdentity, error) {
	return db.labIdentity(db.g(ctx).Where("id = ?", id))
}

// LabIdentityByKey finds a record by authority and value.
func (db *DB) LabIdentityByKey(ctx context.Context, k LabKey) (LabIdentity, error) {
	return db.labIdentity(db.g(ctx).Where("authority = ? AND value = ?", k.Authority, k.Value))
}

// LockLabIdentity is LabIdentityByID for a caller that will change the record or
// what depends on it, until the end of its transaction.
func (db *DB) LockLabIdentity(ctx context.Context, id string) (LabIdentity, error) {
	return db.labIdentity(locked(db.g(ctx)).Where("id = ?", id))
}

func (db *DB) labIdentity(q *gorm.DB) (LabIdentity, error) {
	var r LabIdentity
	err := q.Take(&r).Error
	return r, mapErr(err)
}

// locked makes a query take its rows until the end of the transaction. SQLite's
// transactions are alone anyway.
func locked(g *gorm.DB) *gorm.DB { return g.Clauses(clause.Locking{Strength: "UPDATE"}) }

// LockLabIdentities finds the records of keys that exist, in the order of their
// ids, and takes them until the end of the transaction.
func (db *DB) LockLabIdentities(ctx context.Context, keys []LabKey) ([]LabIdentity, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	args := make([]any, 0, 2*len(keys))
	for _, k := range keys {
		args = append(args, k.Authority, k.Value)
	}
	var out []LabIdentity
	err := locked(db.g(ctx)).Where("(authority, value) IN (VALUES "+pairs(len(keys))+")", args...).Order("id").Find(&out).Error
	return out, mapErr(err)
}

func pairs(n int) string { return strings.TrimSuffix(strings.Repeat("(?, ?),", n), ",") }

// maxRows is how many rows one statement writes at most.
const maxRows = 500

// SaveLabIdentities writes records, new ones (an empty ID is filled in) and
// changed ones. ErrConflict where another writer has just made the same record.
func (db *DB) SaveLabIdentities(ctx context.Context, records []*LabIdentity) error {
	if len(records) == 0 {
		return nil
	}
	now := Now()
	for _, r := range records {
		if r.ID == "" {
			r.ID, r.CreatedAt = NewID(), now
		}
		r.UpdatedAt = now
		r.SetStatus()
	}
	err := db.g(ctx).Clauses(clause.OnConflict{
		Columns: []clause.Column{{Name: "id"}},
		DoUpdates: clause.AssignmentColumns([]string{
			"status", "merged_into", "family", "given", "family_key", "given_key", "birth_date", "birth_precision",
			"sex", "deceased", "inactive", "flag", "hold", "versions", "updated_at",
		}),
	}).CreateInBatches(records, maxRows).Error
	return mapErr(err)
}

// MergeSteps bounds the walk along merges.
const MergeSteps = 64

// LabRoot follows the merges of r to the record that stands for it now.
func (db *DB) LabRoot(ctx context.Context, r LabIdentity) (LabIdentity, error) {
	for range MergeSteps {
		if r.MergedInto == "" {
			return r, nil
		}
		next, err := db.LockLabIdentity(ctx, r.MergedInto)
		if err != nil {
			return r, fmt.Errorf("follow merges of record %s: %w", r.ID, err)
		}
		r = next
	}
	return r, fmt.Errorf("follow merges of record %s: more than %d", r.ID, MergeSteps)
}

// HeldLabIdentities lists records that wait for staff, the longest first.
func (db *DB) HeldLabIdentities(ctx context.Context, limit int) ([]LabIdentity, error) {
	var out []LabIdentity
	err := db.g(ctx).Where("hold <> ''").Order("updated_at, id").Limit(limit).Find(&out).Error
	return out, mapErr(err)
}

// ReleaseLabIdentity is the staff's word that a held record is in order.
func (db *DB) ReleaseLabIdentity(ctx context.Context, id string) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		r, err := db.LockLabIdentity(ctx, id)
		if err != nil {
			return err
		}
		if r.Hold == "" {
			return ErrSpent
		}
		err = mapErr(db.g(ctx).Model(&LabIdentity{}).Where("id = ?", id).
			Updates(map[string]any{"hold": "", "updated_at": Now()}).Error)
		if err != nil {
			return err
		}
		return db.Audit(ctx, AuditEvent{
			Event: "record.released", Object: "record:" + id, Detail: Reason(r.Hold),
		})
	})
}

// Reason is an audit detail that is a reason code.
func Reason(code string) JSON[map[string]string] {
	return JSON[map[string]string]{V: map[string]string{"reason": code}}
}
