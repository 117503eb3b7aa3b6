package storage

import (
	"context"
	"errors"
	"time"

	"gorm.io/gorm/clause"
)

// PeriodicRun remembers the last slot of a periodic task that was enqueued, and
// how its last run ended.
type PeriodicRun struct {
	Name       string
	Slot       time.Time
	FinishedAt *time.Time
	Outcome    string // "", "ok" or "error"
	// SucceededAt is when it last ended well.
	SucceededAt *time.Time
}

// TableName names the table.
func (PeriodicRun) TableName() string { return "periodic_run" }

// PeriodicRuns lists the periodic tasks that ever ran, by name.
func (db *DB) PeriodicRuns(ctx context.Context) ([]PeriodicRun, error) {
	var out []PeriodicRun
	return out, mapErr(db.g(ctx).Order("name").Find(&out).Error)
}

// LastSlot is the newest slot of name that was taken; zero where none was.
func (db *DB) LastSlot(ctx context.Context, name string) (time.Time, error) {
	var r PeriodicRun
	err := mapErr(db.g(ctx).Where("name = ?", name).Take(&r).Error)
	if errors.Is(err, ErrNotFound) {
		return time.Time{}, nil
	}
	return r.Slot, err
}

// TakeSlot records that slot of name was enqueued. An older or equal slot, and
// the second of two callers, get ErrSpent.
func (db *DB) TakeSlot(ctx context.Context, name string, slot time.Time) error {
	return spentUnlessOne(db.g(ctx).Clauses(clause.OnConflict{
		Columns:   []clause.Column{{Name: "name"}},
		DoUpdates: clause.AssignmentColumns([]string{"slot"}),
		Where:     clause.Where{Exprs: []clause.Expression{clause.Expr{SQL: "periodic_run.slot < excluded.slot"}}},
	}).Create(&PeriodicRun{Name: name, Slot: slot}))
}

// FinishPeriodic records how a run of name ended, also where the run was faster
// than the record of its slot.
func (db *DB) FinishPeriodic(ctx context.Context, name, outcome string, now time.Time) error {
	run := PeriodicRun{Name: name, Slot: time.Unix(0, 0).UTC(), FinishedAt: &now, Outcome: outcome}
	set := []string{"finished_at", "outcome"}
	if outcome == "ok" {
		run.SucceededAt, set = &now, append(set, "succeeded_at")
	}
	return mapErr(db.g(ctx).Clauses(clause.OnConflict{
		Columns: []clause.Column{{Name: "name"}}, DoUpdates: clause.AssignmentColumns(set),
	}).Create(&run).Error)
}
