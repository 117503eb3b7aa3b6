package storage

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

// Outbox is an effect that a commit promised: a mail, a dead letter. It is
// written with the fact and relayed to a worker afterwards, so that neither an
// absent queue nor a kill between the two loses it.
type Outbox struct {
	ID        string
	Kind      string
	Name      string // a second wish of the same name is the first one
	Payload   string // JSON; row ids only
	CreatedAt time.Time
	RelayedAt *time.Time
	DoneAt    *time.Time
	FailedAt  *time.Time // given up; Reason says why
	Reason    string
}

// TableName names the table.
func (Outbox) TableName() string { return "outbox" }

// A Job is what a worker shall do, as JSON of row ids. Name tells a repeated
// wish from a new one; "" makes every wish a new one.
type Job interface {
	Kind() string
	Name() string
}

// Wish promises job. Call it in the transaction of the fact it follows from.
func (db *DB) Wish(ctx context.Context, job Job) error {
	payload, err := json.Marshal(job)
	if err != nil {
		return fmt.Errorf("wish %s: %w", job.Kind(), err)
	}
	o := Outbox{ID: NewID(), Kind: job.Kind(), Name: job.Name(), Payload: string(payload), CreatedAt: Now()}
	if o.Name == "" {
		o.Name = o.ID
	}
	o.Name = o.Kind + ":" + o.Name
	err = db.g(ctx).Clauses(clause.OnConflict{Columns: []clause.Column{{Name: "name"}}, DoNothing: true}).Create(&o).Error
	if err != nil {
		return fmt.Errorf("wish %s: %w", o.Kind, mapErr(err))
	}
	db.afterCommit(ctx, func() {
		select {
		case db.wished <- struct{}{}:
		default: // somebody was told already
		}
	})
	return nil
}

// Wished is signalled after a commit of this process that made a wish.
func (db *DB) Wished() <-chan struct{} { return db.wished }

// ClaimOutbox takes up to limit wishes that nobody has relayed. Each goes to
// one caller; who cannot relay it gives it back with ReturnOutbox.
func (db *DB) ClaimOutbox(ctx context.Context, limit int, now time.Time) ([]Outbox, error) {
	var rows []Outbox
	err := db.Tx(ctx, func(ctx context.Context) error {
		rows = nil
		err := db.g(ctx).Clauses(clause.Locking{Strength: clause.LockingStrengthUpdate, Options: clause.LockingOptionsSkipLocked}).
			Where("relayed_at IS NULL AND failed_at IS NULL").Order("created_at, id").Limit(limit).Find(&rows).Error
		if err != nil || len(rows) == 0 {
			return mapErr(err)
		}
		return mapErr(db.g(ctx).Model(&Outbox{}).Where("id IN ?", ids(rows)).Update("relayed_at", now).Error)
	})
	return rows, err
}

// ReturnOutbox gives claimed wishes back.
func (db *DB) ReturnOutbox(ctx context.Context, rows []Outbox) error {
	return mapErr(db.g(ctx).Model(&Outbox{}).Where("id IN ?", ids(rows)).Update("relayed_at", nil).Error)
}

func ids(rows []Outbox) []string {
	var out []string
	for _, r := range rows {
		out = append(out, r.ID)
	}
	return out
}

// OutboxByID finds a wish that is still to be fulfilled: ErrSpent where it was.
func (db *DB) OutboxByID(ctx context.Context, id string) (Outbox, error) {
	var o Outbox
	if err := db.g(ctx).Where("id = ?", id).Take(&o).Error; err != nil {
		return o, mapErr(err)
	}
	if o.DoneAt != nil {
		return o, ErrSpent
	}
	return o, nil
}

// FinishOutbox marks a wish fulfilled. Only the first caller gets nil, the rest
// ErrSpent.
func (db *DB) FinishOutbox(ctx context.Context, id string, now time.Time) error {
	return spentUnlessOne(db.g(ctx).Model(&Outbox{}).Where("id = ? AND done_at IS NULL", id).
		Updates(map[string]any{"done_at": now, "failed_at": nil, "reason": ""}))
}

// FailOutbox gives a wish up, with the reason as a word for the operator.
func (db *DB) FailOutbox(ctx context.Context, id, reason string, now time.Time) error {
	return mapErr(db.g(ctx).Model(&Outbox{}).Where("id = ? AND done_at IS NULL", id).
		Updates(map[string]any{"failed_at": now, "reason": reason}).Error)
}

// SweepOutbox frees wishes that were relayed before the given time and neither
// fulfilled nor given up, for another relay: the queue may have lost them. It
// returns how many.
func (db *DB) SweepOutbox(ctx context.Context, before time.Time) (int, error) {
	r := db.g(ctx).Model(&Outbox{}).
		Where("relayed_at < ? AND done_at IS NULL AND failed_at IS NULL", before).Update("relayed_at", nil)
	return int(r.RowsAffected), mapErr(r.Error)
}

// OutboxBacklog counts the wishes not fulfilled, and the age of the oldest.
func (db *DB) OutboxBacklog(ctx context.Context, now time.Time) (n int64, oldest time.Duration, err error) {
	waiting := func() *gorm.DB {
		return db.g(ctx).Model(&Outbox{}).Where("done_at IS NULL AND failed_at IS NULL")
	}
	if err := waiting().Count(&n).Error; err != nil || n == 0 {
		return n, 0, mapErr(err)
	}
	var first Outbox
	if err := waiting().Order("created_at").Take(&first).Error; err != nil {
		return n, 0, mapErr(err)
	}
	return n, now.Sub(first.CreatedAt), nil
}

// DeleteDoneOutbox removes wishes fulfilled before the given time, up to limit.
func (db *DB) DeleteDoneOutbox(ctx context.Context, before time.Time, limit int) (int, error) {
	r := db.g(ctx).Exec(`DELETE FROM outbox WHERE id IN
		(SELECT id FROM outbox WHERE done_at < ? ORDER BY done_at LIMIT ?)`, before, limit)
	return int(r.RowsAffected), mapErr(r.Error)
}
