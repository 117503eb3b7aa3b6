package storage

import (
	"context"
	"encoding/base64"
	"errors"

	"gorm.io/gorm/clause"
)

// pairwiseSubject is whom a sector knows a patient as. The value is computed,
// and kept: it must stay whatever becomes of the key.
type pairwiseSubject struct {
	Sector    string
	PatientID string
	Subject   string
}

// TableName names the table.
func (pairwiseSubject) TableName() string { return "pairwise_subject" }

// PairwiseSubject is the sub of a patient for the clients of one sector, the
// same for ever, and of no use to any other sector (OpenID Connect Core, Section
// 8.1).
func (db *DB) PairwiseSubject(ctx context.Context, sector, patientID string) (string, error) {
	row := pairwiseSubject{
		Sector: sector, PatientID: patientID,
		Subject: base64.RawURLEncoding.EncodeToString(db.MAC("pairwise-subject", []byte(sector+"\x00"+patientID))),
	}
	find := func() error {
		return mapErr(db.g(ctx).Where("sector = ? AND patient_id = ?", sector, patientID).Take(&row).Error)
	}
	if err := find(); !errors.Is(err, ErrNotFound) {
		return row.Subject, err
	}
	if err := db.g(ctx).Clauses(clause.OnConflict{DoNothing: true}).Create(&row).Error; err != nil {
		return "", mapErr(err)
	}
	return row.Subject, find()
}
