package storage

import (
	"context"
	"encoding/json"
	"errors"
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
	HeldUntil *time.Time // a worker is at it
	Attempts  int        // times a worker took it
	DoneAt    *time.Time
	FailedAt  *time.Time // given up
	Reason    string     // how the last failed attempt ended, in a word
}

// ErrHeld says that another worker is at a wish just now.
var ErrHeld = errors.New("held by another worker")

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
	db.AfterCommit(ctx, func() {
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

// TakeOutbox counts an attempt at a wish and holds it until then, against a
// second worker that has the same task. ErrHeld where another one holds it,
// ErrSpent where it was fulfilled. A hold of somebody who was killed runs out.
func (db *DB) TakeOutbox(ctx context.Context, id string, now, until time.Time) (Outbox, error) {
	r := db.g(ctx).Model(&Outbox{}).
		Where("id = ? AND done_at IS NULL AND (held_until IS NULL OR held_until <= ?)", id, now).
		Updates(map[string]any{"held_until": until, "attempts": gorm.Expr("attempts + 1")})
	if r.Error != nil {
		return Outbox{}, mapErr(r.Error)
	}
	var o Outbox
	if err := db.g(ctx).Where("id = ?", id).Take(&o).Error; err != nil {
		return o, mapErr(err)
	}
	switch {
	case o.DoneAt != nil:
		return o, ErrSpent
	case r.RowsAffected != 1:
		return o, ErrHeld
	}
	return o, nil
}

// ReleaseOutbox ends the hold that TakeOutbox gave, for another attempt.
func (db *DB) ReleaseOutbox(ctx context.Context, o Outbox, reason string) error {
	return mapErr(db.g(ctx).Model(&Outbox{}).Where("id = ? AND held_until = ?", o.ID, o.HeldUntil).
		Updates(map[string]any{"held_until": nil, "reason": reason}).Error)
}

// PostponeOutbox is ReleaseOutbox for an attempt that does not count.
func (db *DB) PostponeOutbox(ctx context.Context, o Outbox) error {
	return mapErr(db.g(ctx).Model(&Outbox{}).Where("id = ? AND held_until = ?", o.ID, o.HeldUntil).
		Updates(map[string]any{"held_until": nil, "attempts": gorm.Expr("attempts - 1")}).Error)
}

// FinishOutbox marks a wish fulfilled. Only the first caller gets nil, the rest
// ErrSpent.
func (db *DB) FinishOutbox(ctx context.Context, id string, now time.Time) error {
	return spentUnlessOne(db.g(ctx).Model(&Outbox{}).Where("id = ? AND done_at IS NULL", id).
		Updates(map[string]any{"done_at": now, "held_until": nil, "failed_at": nil, "reason": ""}))
}

// FailOutbox gives a wish up: nobody relays it again.
func (db *DB) FailOutbox(ctx context.Context, id, reason string, now time.Time) error {
	return mapErr(db.g(ctx).Model(&Outbox{}).Where("id = ? AND done_at IS NULL", id).
		Updates(map[string]any{"failed_at": now, "held_until": nil, "reason": reason}).Error)
}

// SweepOutbox frees up to limit wishes that were relayed before the given time and
// neither fulfilled nor given up, for another relay: the queue may have lost
// them. It returns how many.
func (db *DB) SweepOutbox(ctx context.Context, before time.Time, limit int) (int, error) {
	return db.changeSome(ctx, "UPDATE outbox SET relayed_at = NULL WHERE "+
		db.some("outbox", "relayed_at < ? AND done_at IS NULL AND failed_at IS NULL", "relayed_at"), before, limit)
}

// Backlog is what the outbox has not fulfilled.
type Backlog struct {
	Waiting int64
	Oldest  time.Duration // age of the oldest that waits
	Failed  int64         // given up
}

// OutboxBacklog counts the wishes that are not fulfilled.
func (db *DB) OutboxBacklog(ctx context.Context, now time.Time) (Backlog, error) {
	var b Backlog
	if err := db.g(ctx).Model(&Outbox{}).Where("failed_at IS NOT NULL").Count(&b.Failed).Error; err != nil {
		return b, mapErr(err)
	}
	waiting := func() *gorm.DB {
		return db.g(ctx).Model(&Outbox{}).Where("done_at IS NULL AND failed_at IS NULL")
	}
	if err := waiting().Count(&b.Waiting).Error; err != nil || b.Waiting == 0 {
		return b, mapErr(err)
	}
	var first []Outbox
	if err := waiting().Order("created_at").Limit(1).Find(&first).Error; err != nil {
		return b, mapErr(err)
	}
	for _, o := range first { // none where it was fulfilled meanwhile
		b.Oldest = now.Sub(o.CreatedAt)
	}
	return b, nil
}

// Unfulfilled lists wishes that are not fulfilled, the newest first: all of them,
// or only those given up.
func (db *DB) Unfulfilled(ctx context.Context, failed bool, limit int) ([]Outbox, error) {
	q := db.g(ctx).Where("done_at IS NULL")
	if failed {
		q = q.Where("failed_at IS NOT NULL")
	}
	var out []Outbox
	return out, mapErr(q.Order("created_at DESC, id DESC").Limit(limit).Find(&out).Error)
}

// RetryOutbox makes a wish that was given up a new one, whose attempts are
// counted from the start; ErrNotFound where it was not given up.
func (db *DB) RetryOutbox(ctx context.Context, id string) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		r := db.g(ctx).Model(&Outbox{}).Where("id = ? AND failed_at IS NOT NULL AND done_at IS NULL", id).
			Updates(map[string]any{"failed_at": nil, "relayed_at": nil, "held_until": nil, "attempts": 0, "reason": ""})
		if err := foundOne(r); err != nil {
			return err
		}
		return db.Audit(ctx, AuditEvent{Event: "task.retried", Object: "task:" + id})
	})
}

// DeleteOutbox forgets a wish that was given up; ErrNotFound where it was not.
func (db *DB) DeleteOutbox(ctx context.Context, id string) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		r := db.g(ctx).Where("id = ? AND failed_at IS NOT NULL AND done_at IS NULL", id).Delete(&Outbox{})
		if err := foundOne(r); err != nil {
			return err
		}
		return db.Audit(ctx, AuditEvent{Event: "task.deleted", Object: "task:" + id})
	})
}
