package lis

import (
	"context"
	"fmt"
	"time"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/tasks/queue"
)

const (
	// batchLimit is how long a batch may take, statementLimit one of its statements.
	batchLimit     = time.Minute
	statementLimit = 20 * time.Second
)

// Outcome is what became of one record.
type Outcome struct {
	ID      string // of the lab_event row; "" for duplicates
	Kind    Kind
	Outcome string // one of storage's words: applied, duplicate, stale, review, quarantined, skipped
	Reason  string
}

// ApplyRecords reads records and applies them in one transaction with everything
// that follows: the inbox rows, the lab identities, the links that move or are
// suspended, the audit and the wished-for jobs. A record that was applied before
// has no effect. It never makes a link. Outcomes are in the order of the records.
func ApplyRecords(ctx context.Context, db *storage.DB, records []Record, how Reading) ([]Outcome, error) {
	now := storage.Now()
	read := make([]letter, len(records))
	for i, r := range records {
		read[i] = open(r, how, now)
	}
	var out []Outcome
	ctx, cancel := context.WithTimeout(ctx, batchLimit)
	defer cancel()
	err := db.Within(storage.WithActor(ctx, storage.LIS), statementLimit, func(ctx context.Context) error {
		b := &batch{ctx: ctx, db: db, now: now, byKey: map[storage.LabKey]*storage.LabIdentity{}, byID: map[string]*storage.LabIdentity{}}
		var err error
		out, err = b.run(read)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("apply %d records: %w", len(records), err)
	}
	return out, nil
}

// batch is the work of one transaction: records are locked, changed in memory
// and written together.
type batch struct {
	ctx     context.Context
	db      *storage.DB
	now     time.Time
	known   registry
	byKey   map[storage.LabKey]*storage.LabIdentity
	byID    map[string]*storage.LabIdentity
	changed []*storage.LabIdentity
	audits  []audit
	source  string // of the letter in hand
}

func (b *batch) run(letters []letter) ([]Outcome, error) {
	authorities, err := b.db.LabAuthorities(b.ctx)
	if err != nil {
		return nil, err
	}
	b.known = newRegistry(authorities)
	if err := b.sort(letters); err != nil {
		return nil, err
	}
	facts, err := b.load(letters)
	if err != nil {
		return nil, err
	}
	out := make([]Outcome, len(letters))
	var rows []*storage.LabEvent
	for i, l := range letters {
		if l.row == nil {
			out[i] = Outcome{Kind: l.Kind, Outcome: storage.LabDuplicate}
			continue
		}
		if l.row.Outcome == "" {
			if err := b.letter(l, facts[i]); err != nil {
				return nil, err
			}
		}
		rows = append(rows, l.row)
	}
	if err := b.write(rows); err != nil {
		return nil, err
	}
	for i, l := range letters {
		if l.row != nil {
			out[i] = Outcome{ID: l.row.ID, Kind: l.Kind, Outcome: l.row.Outcome, Reason: l.row.Reason}
		}
	}
	return out, nil
}

// load resolves the letters' events and locks the records they name, in one
// order for every writer.
func (b *batch) load(letters []letter) ([][]fact, error) {
	facts := make([][]fact, len(letters))
	var keys []storage.LabKey
	for i, l := range letters {
		if l.row == nil || l.row.Outcome != "" {
			continue
		}
		for j := range l.Events {
			for _, f := range b.known.resolve(&l.Events[j], l.Source) {
				facts[i] = append(facts[i], f)
				if f.reason != "" {
					continue
				}
				if keys = append(keys, f.subject); f.other != (storage.LabKey{}) {
					keys = append(keys, f.other)
				}
			}
		}
	}
	records, err := b.db.LockLabIdentities(b.ctx, keys)
	if err != nil {
		return nil, err
	}
	for i := range records {
		b.remember(&records[i])
	}
	return facts, nil
}

func (b *batch) remember(r *storage.LabIdentity) *storage.LabIdentity {
	b.byKey[r.Key()], b.byID[r.ID] = r, r
	return r
}

// record is the record of a key; a new one is a stub until something is known.
func (b *batch) record(k storage.LabKey) *storage.LabIdentity {
	if r := b.byKey[k]; r != nil {
		return r
	}
	return b.touch(b.remember(&storage.LabIdentity{ID: storage.NewID(), Authority: k.Authority, Value: k.Value}))
}

// touch notes that a record must be written.
func (b *batch) touch(r *storage.LabIdentity) *storage.LabIdentity {
	for _, c := range b.changed {
		if c == r {
			return r
		}
	}
	b.changed = append(b.changed, r)
	return r
}

// letter applies the facts of one letter in order. Its row tells the worst of
// what became of them.
func (b *batch) letter(l letter, facts []fact) error {
	b.source = l.Source
	worst := -1
	for _, f := range facts {
		outcome, reason, err := b.fact(f, versionOf(f.PatientEvent, l.Record))
		if err != nil {
			return err
		}
		if n := severity[outcome]; n > worst {
			worst, l.row.Outcome, l.row.Reason = n, outcome, reason
		}
		if r := b.byKey[f.subject]; r != nil && l.row.RecordID == "" {
			l.row.RecordID = r.ID
		}
	}
	return nil
}

var severity = map[string]int{
	storage.LabDuplicate: 0, storage.LabStale: 1, storage.LabApplied: 2, storage.LabReview: 3, storage.LabQuarantined: 4,
}

// fact applies one fact at its version.
func (b *batch) fact(f fact, version string) (outcome, reason string, err error) {
	switch {
	case f.reason == "self-merge":
		return storage.LabQuarantined, f.reason, nil
	case f.reason != "":
		return storage.LabReview, f.reason, nil
	}
	switch f.Kind {
	case Upsert:
		outcome, reason = b.upsert(f, version)
		return outcome, reason, nil
	case Delete:
		outcome, reason = b.delete(f, version)
		return outcome, reason, nil
	case Merge:
		return b.merge(f, version)
	case Rename:
		return b.rename(f, version)
	case Unmerge:
		outcome, reason = b.unmerge(f, version)
		return outcome, reason, nil
	case LinkHint:
		b.hint(f)
		return storage.LabApplied, "", nil
	}
	return "", "", fmt.Errorf("no rule for events of kind %s", f.Kind)
}

// audit notes a fact about a record, to be written with it.
func (b *batch) audit(event string, r *storage.LabIdentity, detail map[string]string) {
	b.audits = append(b.audits, audit{b.source, storage.AuditEvent{
		Event: event, Object: "record:" + r.ID, Detail: storage.JSON[map[string]string]{V: detail},
	}})
}

// audit is a fact about a record, and who told it.
type audit struct {
	source string
	event  storage.AuditEvent
}

// write stores what the letters changed.
func (b *batch) write(rows []*storage.LabEvent) error {
	if err := b.db.SaveLabIdentities(b.ctx, b.changed); err != nil {
		return err
	}
	for _, a := range b.audits {
		if err := b.db.Audit(storage.WithActor(b.ctx, storage.ActorSource(a.source)), a.event); err != nil {
			return err
		}
	}
	var ids []string
	for _, r := range b.changed {
		ids = append(ids, r.ID)
	}
	if _, err := b.db.SettleLinks(b.ctx, ids, b.now); err != nil {
		return err
	}
	if err := b.db.AddLabEvents(b.ctx, rows); err != nil {
		return err
	}
	for _, r := range rows {
		if r.Outcome != storage.LabQuarantined {
			continue
		}
		if err := b.db.Wish(b.ctx, queue.DeadLetter{EventID: r.ID}); err != nil {
			return err
		}
	}
	return nil
}
