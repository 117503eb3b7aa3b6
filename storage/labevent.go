package storage

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// What became of a message of the feed. Duplicates leave no row of their own.
const (
	LabApplied     = "applied"
	LabDuplicate   = "duplicate"
	LabStale       = "stale" // older than what is known
	LabReview      = "review"
	LabQuarantined = "quarantined"
	LabSkipped     = "skipped"
)

// LabEvent is the inbox: one row a message, so that a message seen again has no
// effect. Messages that staff must look at keep their sealed content; those in
// quarantine are the dead letters.
type LabEvent struct {
	Source        string // who sent it, with EventID the sender's name for it
	EventID       string
	ID            string // ours, opaque: for logs, jobs and headers
	PayloadSHA256 []byte `gorm:"column:payload_sha256"`
	Topic         string
	Part          int32
	Position      int64 // the offset in the partition
	Kind          string
	Outcome       string
	Reason        string // stable code, "" when applied
	RecordID      string
	Sealed        []byte
	ReceivedAt    time.Time // Kafka's timestamp
	AppliedAt     time.Time
	PublishedAt   *time.Time // to the dead letter topic
	Content       LabContent `gorm:"-"`
}

// TableName names the table.
func (LabEvent) TableName() string { return "lab_event" }

// LabContent is a message as it came, byte for byte.
type LabContent struct {
	Key     []byte
	Value   []byte
	Headers []LabHeader
}

// LabHeader is one header of a message.
type LabHeader struct {
	Key   string
	Value []byte
}

// LabEventKey is the sender's name for a message.
type LabEventKey struct{ Source, EventID string }

// Key is the sender's name for the message.
func (e LabEvent) Key() LabEventKey { return LabEventKey{e.Source, e.EventID} }

// LabEventDigests finds which of keys were seen, and the SHA-256 of what they held.
func (db *DB) LabEventDigests(ctx context.Context, keys []LabEventKey) (map[LabEventKey][]byte, error) {
	seen := map[LabEventKey][]byte{}
	if len(keys) == 0 {
		return seen, nil
	}
	args := make([]any, 0, 2*len(keys))
	for _, k := range keys {
		args = append(args, k.Source, k.EventID)
	}
	var rows []LabEvent
	err := db.g(ctx).Select("source", "event_id", "payload_sha256").
		Where("(source, event_id) IN (VALUES "+pairs(len(keys))+")", args...).Find(&rows).Error
	for _, r := range rows {
		seen[r.Key()] = r.PayloadSHA256
	}
	return seen, mapErr(err)
}

// AddLabEvents stores messages; the content of those in review and quarantine is
// sealed into the row. ErrConflict where one was stored by another writer.
func (db *DB) AddLabEvents(ctx context.Context, events []*LabEvent) error {
	if len(events) == 0 {
		return nil
	}
	for _, e := range events {
		if e.ID == "" {
			e.ID = NewID()
		}
		e.AppliedAt = Now()
		if e.Outcome != LabReview && e.Outcome != LabQuarantined {
			continue
		}
		b, err := json.Marshal(e.Content)
		if err != nil {
			return err
		}
		e.Sealed = db.Seal("lab_event", "sealed", e.ID, b)
	}
	return mapErr(db.g(ctx).CreateInBatches(events, maxRows).Error)
}

// LabEventByID finds a message with its content, where it was kept.
func (db *DB) LabEventByID(ctx context.Context, id string) (LabEvent, error) {
	var e LabEvent
	if err := db.g(ctx).Where("id = ?", id).Take(&e).Error; err != nil {
		return e, mapErr(err)
	}
	if e.Sealed == nil {
		return e, nil
	}
	b, err := db.Unseal("lab_event", "sealed", e.ID, e.Sealed)
	if err != nil {
		return e, fmt.Errorf("lab event: %w", err)
	}
	return e, json.Unmarshal(b, &e.Content)
}

// LabEvents lists the newest messages with an outcome, without their content.
func (db *DB) LabEvents(ctx context.Context, outcome string, limit int) ([]LabEvent, error) {
	var out []LabEvent
	err := db.g(ctx).Omit("sealed").Where("outcome = ?", outcome).Order("applied_at DESC, id").Limit(limit).Find(&out).Error
	return out, mapErr(err)
}

// MarkLabEventPublished records that a dead letter is on its topic.
func (db *DB) MarkLabEventPublished(ctx context.Context, id string, now time.Time) error {
	return mapErr(db.g(ctx).Model(&LabEvent{}).Where("id = ? AND published_at IS NULL", id).Update("published_at", now).Error)
}

// TakeLabEvent removes a message from review or quarantine and returns it, to be
// applied anew in the same transaction. ErrSpent where it is not waiting there.
func (db *DB) TakeLabEvent(ctx context.Context, id string) (LabEvent, error) {
	e, err := db.LabEventByID(ctx, id)
	if err != nil {
		return e, err
	}
	r := db.g(ctx).Where("id = ? AND outcome IN ?", id, []string{LabReview, LabQuarantined}).Delete(&LabEvent{})
	return e, spentUnlessOne(r)
}
