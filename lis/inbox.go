package lis

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"

	"github.com/pat-authenticate/patauth/storage"
)

// A letter is a record that has been read.
type letter struct {
	Record
	Message
	refusal *Refusal
	digest  []byte
	row     *storage.LabEvent // nil for a duplicate
}

func open(r Record, how Reading, now time.Time) letter {
	sum := sha256.Sum256(r.Value)
	l := letter{Record: r, digest: sum[:]}
	var err error
	l.Message, err = Decode(r, how, now)
	errors.As(err, &l.refusal)
	return l
}

// reused names a message that came under the name of another one.
func (l letter) reused() storage.LabEventKey {
	return storage.LabEventKey{Source: l.Source, EventID: l.ID + "#" + hex.EncodeToString(l.digest[:12])}
}

// sort gives a row to each letter that is not a duplicate. A name that comes
// again with another content is a sender's mistake: review.
func (b *batch) sort(letters []letter) error {
	var keys []storage.LabEventKey
	for _, l := range letters {
		keys = append(keys, storage.LabEventKey{Source: l.Source, EventID: l.ID}, l.reused())
	}
	seen, err := b.db.LabEventDigests(b.ctx, keys)
	if err != nil {
		return err
	}
	for i := range letters {
		l := &letters[i]
		l.row = nil // a transaction may run again
		key := storage.LabEventKey{Source: l.Source, EventID: l.ID}
		var outcome, reason string
		switch digest, ok := seen[key]; {
		case ok && bytes.Equal(digest, l.digest):
			continue
		case ok:
			key, outcome, reason = l.reused(), storage.LabReview, "control-id-reuse"
			if _, ok := seen[key]; ok {
				continue
			}
		case l.refusal != nil:
			outcome, reason = outcomes[l.refusal.Result], l.refusal.Reason
		}
		seen[key] = l.digest
		l.row = &storage.LabEvent{
			Source: key.Source, EventID: key.EventID, PayloadSHA256: l.digest,
			Topic: l.Topic, Part: l.Partition, Position: l.Offset,
			Kind: string(l.Kind), Outcome: outcome, Reason: reason, ReceivedAt: l.Timestamp.UTC(),
			Content: storage.LabContent{Key: l.Key, Value: l.Value, Headers: l.headers()},
		}
	}
	return nil
}

var outcomes = map[Result]string{Skip: storage.LabSkipped, Review: storage.LabReview, Quarantine: storage.LabQuarantined}

func (r Record) headers() []storage.LabHeader {
	var out []storage.LabHeader
	for _, h := range r.Headers {
		out = append(out, storage.LabHeader(h))
	}
	return out
}
