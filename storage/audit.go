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
	Actor     string // "patient:ID", "source:ID", "operator", "system"
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

// Audit appends e; ID, At and RequestID are filled in.
func (db *DB) Audit(ctx context.Context, e AuditEvent) error {
	e.ID, e.At = NewID(), Now()
	e.RequestID, _ = ctx.Value(requestKey{}).(string)
	return mapErr(db.g(ctx).Create(&e).Error)
}

// AuditOf lists the newest events about a patient.
func (db *DB) AuditOf(ctx context.Context, patientID string, limit int) ([]AuditEvent, error) {
	var out []AuditEvent
	err := db.g(ctx).Where("subject = ?", patientID).Order("at DESC, id").Limit(limit).Find(&out).Error
	return out, mapErr(err)
}
