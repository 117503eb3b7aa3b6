package lis

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/pat-authenticate/patauth/storage"
)

// DeadLetter publishes a quarantined message on the dead letter topic, key and
// value byte for byte, and marks it. It may be called again: a message that was
// published, or taken out of quarantine, is left alone; a kill between the two
// steps publishes it twice.
func (p *Publisher) DeadLetter(ctx context.Context, db *storage.DB, eventID string) error {
	e, err := db.LabEventByID(ctx, eventID)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("dead letter: %w", err)
	case e.PublishedAt != nil || e.Outcome != storage.LabQuarantined:
		return nil
	}
	r := stored(e)
	r.Topic = p.cfg.DeadLetterTopic
	key := sha256.Sum256(e.Content.Key)
	for _, h := range [][2]string{
		{"dlq.event.id", e.ID},
		{"dlq.reason", e.Reason},
		{"dlq.original.topic", e.Topic},
		{"dlq.original.partition", strconv.Itoa(int(e.Part))},
		{"dlq.original.offset", strconv.FormatInt(e.Position, 10)},
		{"dlq.original.timestamp", e.ReceivedAt.UTC().Format(time.RFC3339Nano)},
		{"dlq.original.key-sha256", hex.EncodeToString(key[:])},
		{"dlq.consumer.group", p.cfg.Group},
		{"dlq.first.failed.at", e.AppliedAt.UTC().Format(time.RFC3339Nano)},
	} {
		r.Headers = append(r.Headers, Header{h[0], []byte(h[1])})
	}
	if _, err := p.Publish(ctx, []Record{r}); err != nil {
		return fmt.Errorf("dead letter %s: %w", e.ID, err)
	}
	return db.MarkLabEventPublished(ctx, e.ID, storage.Now())
}

// stored is the record that an inbox row keeps.
func stored(e storage.LabEvent) Record {
	r := Record{
		Topic: e.Topic, Partition: e.Part, Offset: e.Position, Timestamp: e.ReceivedAt.UTC(),
		Key: e.Content.Key, Value: e.Content.Value,
	}
	for _, h := range e.Content.Headers {
		r.Headers = append(r.Headers, Header(h))
	}
	return r
}

// Replay applies a message of review or quarantine anew, after its cause was
// mended: its place in the order of events is the one it had. storage.ErrSpent
// where it does not wait there any more.
func Replay(ctx context.Context, db *storage.DB, eventID string, how Reading) (Outcome, error) {
	var out Outcome
	err := db.Tx(ctx, func(ctx context.Context) error {
		e, err := db.TakeLabEvent(ctx, eventID)
		if err != nil {
			return err
		}
		outcomes, err := ApplyRecords(ctx, db, []Record{stored(e)}, how)
		if err != nil {
			return err
		}
		out = outcomes[0]
		return db.Audit(ctx, storage.AuditEvent{
			Event: "lab_event.replayed", Object: "lab_event:" + eventID, Detail: storage.Reason(out.Reason),
		})
	})
	if err != nil {
		return Outcome{}, fmt.Errorf("replay %s: %w", eventID, err)
	}
	return out, nil
}
