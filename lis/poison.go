package lis

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/tasks/queue"
)

// applyBatch applies records together. Where that fails for another reason than
// an absent database, one of them is poison: they are applied one by one, and
// the one that fails alone goes to quarantine. An error means that the database
// is away and nothing may be skipped.
func (c *Consumer) applyBatch(ctx context.Context, records []Record) ([]Outcome, error) {
	out, err := c.careful(ctx, records)
	if err == nil || away(ctx, err) {
		return out, err
	}
	slog.Warn("lis sync: batch failed, applying record by record", "records", len(records), "error", err)
	for _, r := range records {
		one, err := c.careful(ctx, []Record{r})
		if err != nil && !away(ctx, err) {
			slog.Error("lis sync: record failed", "partition", r.Partition, "offset", r.Offset, "error", err)
			one, err = c.poisoned(ctx, r)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, one...)
	}
	return out, nil
}

func away(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, storage.ErrUnavailable)
}

// conflictTries is how often a batch is tried that met another writer.
const conflictTries = 3

// careful is ApplyRecords that survives a panic, and another writer who made the
// same record or row in the same moment.
func (c *Consumer) careful(ctx context.Context, records []Record) (out []Outcome, err error) {
	defer func() {
		if p := recover(); p != nil {
			out, err = nil, fmt.Errorf("panic while applying: %T", p)
		}
	}()
	for range conflictTries {
		out, err = ApplyRecords(ctx, c.db, records, c.cfg.Reading)
		if !errors.Is(err, storage.ErrConflict) {
			break
		}
	}
	return out, err
}

// poisoned puts a record that cannot even be applied alone into quarantine,
// under the name of its content.
func (c *Consumer) poisoned(ctx context.Context, r Record) ([]Outcome, error) {
	sum := sha256.Sum256(r.Value)
	e := &storage.LabEvent{
		ID: storage.NewID(), Source: r.Topic, EventID: "poison:" + hex.EncodeToString(sum[:]), PayloadSHA256: sum[:],
		Topic: r.Topic, Part: r.Partition, Position: r.Offset, Outcome: storage.LabQuarantined, Reason: "internal",
		ReceivedAt: r.Timestamp.UTC(), Content: storage.LabContent{Key: r.Key, Value: r.Value, Headers: r.headers()},
	}
	err := c.db.Tx(ctx, func(ctx context.Context) error {
		if err := c.db.AddLabEvents(ctx, []*storage.LabEvent{e}); err != nil {
			return err
		}
		return c.db.Wish(ctx, queue.DeadLetter{EventID: e.ID})
	})
	if errors.Is(err, storage.ErrConflict) {
		return []Outcome{{Outcome: storage.LabDuplicate}}, nil
	}
	return []Outcome{{ID: e.ID, Outcome: e.Outcome, Reason: e.Reason}}, err
}
