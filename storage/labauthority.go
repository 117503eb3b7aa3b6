package storage

import (
	"context"
	"slices"
	"time"

	"gorm.io/gorm/clause"
)

// LabAuthority is one who assigns record numbers: a laboratory, a hospital. Only
// what an operator registered here can name a record; a number of anybody else
// goes to review.
type LabAuthority struct {
	ID   string // chosen by the operator, short and lasting: "lab1"
	Name string // shown to people
	// OID, Namespaces and URIs are the spellings under which the feed names it:
	// HD.2 with type ISO, HD.1, and FHIR systems.
	OID        string `gorm:"column:oid"`
	Namespaces Strings
	URIs       Strings `gorm:"column:uris"`
	// LinkKey says that its numbers name one person's record. Account, visit and
	// national numbers do not.
	LinkKey  bool
	CaseFold bool // "ab1" and "AB1" are one number
	// Sources are the feeds that may change its records; empty allows each feed.
	Sources   Strings
	Active    bool
	CreatedAt time.Time
	UpdatedAt time.Time
}

// TableName names the table.
func (LabAuthority) TableName() string { return "lab_authority" }

// Owns reports whether a feed may change this authority's records.
func (a LabAuthority) Owns(source string) bool {
	return len(a.Sources) == 0 || slices.Contains(a.Sources, source)
}

// UpsertLabAuthority registers an authority, or changes what is registered.
// ErrConflict where another one has its OID.
func (db *DB) UpsertLabAuthority(ctx context.Context, a LabAuthority) error {
	a.CreatedAt = Now()
	a.UpdatedAt = a.CreatedAt
	return db.Tx(ctx, func(ctx context.Context) error {
		err := db.g(ctx).Clauses(clause.OnConflict{
			Columns: []clause.Column{{Name: "id"}},
			DoUpdates: clause.AssignmentColumns([]string{
				"name", "oid", "namespaces", "uris", "link_key", "case_fold", "sources", "active", "updated_at",
			}),
		}).Create(&a).Error
		if err != nil {
			return mapErr(err)
		}
		return db.Audit(ctx, AuditEvent{Event: "authority.set", Object: "authority:" + a.ID})
	})
}

// LabAuthorities lists every authority in the order of their ids.
func (db *DB) LabAuthorities(ctx context.Context) ([]LabAuthority, error) {
	var out []LabAuthority
	err := db.g(ctx).Order("id").Find(&out).Error
	return out, mapErr(err)
}
