package storage

import (
	"context"
	"time"
)

// AuditEvent is a security fact: who did what to whom. It is written in the
// transaction of the fact, so there is no change without its row.
type AuditEvent struct {
	ID        string
	At        time.Time
	Event     string // "link.made", "factor.added"
	Actor     string // see WithActor
	Subject   string // the patient concerned, or ""
	Object    string // the row concerned
	RequestID string
	Detail    JSON[map[string]string] // reason codes and ids, nothing personal
}

// TableName names the table.
func (AuditEvent) TableName() string { return "audit_event" }

type requestKey struct{}

// WithRequestID is ctx on behalf of a request: the audit names it, so that a fact
// and the log line of its request find each other.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestKey{}, id)
}

// Who does something, where it is no patient, client or source of the feed.
const (
	Operator  = "operator"  // on the command line
	System    = "system"    // a schedule
	LIS       = "lis"       // the laboratory's word, for what follows from it
	Anonymous = "anonymous" // a request of somebody who has not proven who it is
)

// ActorPatient is the patient of an id.
func ActorPatient(id string) string { return "patient:" + id }

// ActorClient is the client of an id.
func ActorClient(id string) string { return "client:" + id }

// ActorSource is the source of the feed of an id.
func ActorSource(id string) string { return "source:" + id }

type actorKey struct{}

// WithActor is ctx on behalf of somebody: the audit names them. Every door by
// which something can be done says so: a request, a command, a task, the feed.
func WithActor(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, &actor)
}

// ActAs names whoever ctx was begun for, who has just proven it. All that is done
// with ctx from then on is theirs; it is for the one goroutine of a request.
func ActAs(ctx context.Context, actor string) {
	if a, ok := ctx.Value(actorKey{}).(*string); ok {
		*a = actor
	}
}

// Audit appends e; ID, At, Actor and RequestID are filled in.
func (db *DB) Audit(ctx context.Context, e AuditEvent) error {
	e.ID, e.At, e.Actor = NewID(), Now(), ""
	if a, ok := ctx.Value(actorKey{}).(*string); ok {
		e.Actor = *a
	}
	e.RequestID, _ = ctx.Value(requestKey{}).(string)
	return mapErr(db.g(ctx).Create(&e).Error)
}

// AuditOf lists the newest events about a patient.
func (db *DB) AuditOf(ctx context.Context, patientID string, limit int) ([]AuditEvent, error) {
	var out []AuditEvent
	err := db.g(ctx).Where("subject = ?", patientID).Order("at DESC, id").Limit(limit).Find(&out).Error
	return out, mapErr(err)
}
