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

// Audit appends e; ID and At are filled in.
func (db *DB) Audit(ctx context.Context, e AuditEvent) error {
	e.ID, e.At = NewID(), Now()
	return mapErr(db.g(ctx).Create(&e).Error)
}

// AuditOf lists the newest events about a patient.
func (db *DB) AuditOf(ctx context.Context, patientID string, limit int) ([]AuditEvent, error) {
	var out []AuditEvent
	err := db.g(ctx).Where("subject = ?", patientID).Order("at DESC, id").Limit(limit).Find(&out).Error
	return out, mapErr(err)
}
