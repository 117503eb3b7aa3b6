package storage

import (
	"context"
	"errors"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

// What a request reads, decides on and then acts upon may change between the two.
// The functions of this file lock what a decision rests on, inside the transaction
// that acts: who changes it does so before, and is seen, or waits, and finds what
// was done. Each is called before the rows that depend on it are written, and all
// take locks in one order: patient, credential, session, client, consent,
// grant.

// held locks the rows of a query against change, not against others who only hold
// them. SQLite needs no lock: it has one writer at a time.
func held(g *gorm.DB) *gorm.DB {
	return g.Clauses(clause.Locking{Strength: clause.LockingStrengthShare})
}

// HoldPatient makes sure that an account is open, and keeps it so until the
// transaction is over. ErrNotFound where it is shut or gone.
func (db *DB) HoldPatient(ctx context.Context, id string) error {
	var p Patient
	return mapErr(held(db.g(ctx)).Select("id").Where("id = ? AND disabled_at IS NULL", id).Take(&p).Error)
}

// HoldProof is HoldPatient, and holds a credential of the patient, too. ErrNotFound
// also where that was revoked or disabled since it was looked at.
func (db *DB) HoldProof(ctx context.Context, patientID, credentialID string) error {
	if err := db.HoldPatient(ctx, patientID); err != nil {
		return err
	}
	var c Credential
	return mapErr(held(db.g(ctx)).Select("id").
		Where("id = ? AND patient_id = ? AND revoked_at IS NULL AND disabled_at IS NULL", credentialID, patientID).Take(&c).Error)
}

// HoldSession makes sure that a session has not ended, and keeps it so until the
// transaction is over: whoever ends it afterwards sees what it gave. ErrSpent
// where it has ended.
func (db *DB) HoldSession(ctx context.Context, id string) error {
	var found []Session
	err := held(db.g(ctx)).Select("id", "ended_at").Where("id = ?", id).Find(&found).Error
	if err != nil {
		return mapErr(err)
	}
	for _, s := range found {
		if s.EndedAt != nil {
			return ErrSpent
		}
	}
	return nil
}

// LockPatient takes a patient for this transaction alone, so that what it counts of
// the patient's own rows stays so. ErrNotFound where the account is shut or gone.
func (db *DB) LockPatient(ctx context.Context, id string) error {
	var p Patient
	return mapErr(locked(db.g(ctx)).Select("id").Where("id = ? AND disabled_at IS NULL", id).Take(&p).Error)
}

// HoldClient makes sure that a client is not disabled, and keeps it as it is until the
// transaction is over. ErrNotFound where it is.
func (db *DB) HoldClient(ctx context.Context, id string) error {
	var c Client
	return mapErr(held(db.g(ctx)).Select("id").Where("id = ? AND disabled_at IS NULL", id).Take(&c).Error)
}

// HoldConsent keeps what a patient has allowed a client, if anything, as it is until
// the transaction is over.
func (db *DB) HoldConsent(ctx context.Context, patientID, clientID string) error {
	var found []Consent
	return mapErr(held(db.g(ctx)).Select("client_id").Where("patient_id = ? AND client_id = ?", patientID, clientID).Find(&found).Error)
}

// HoldGrant makes sure that a grant was not revoked, and keeps it so until the
// transaction is over. ErrSpent where it was.
func (db *DB) HoldGrant(ctx context.Context, id string) error {
	var g Grant
	err := mapErr(held(db.g(ctx)).Select("id").Where("id = ? AND revoked_at IS NULL", id).Take(&g).Error)
	if errors.Is(err, ErrNotFound) {
		return ErrSpent
	}
	return err
}
