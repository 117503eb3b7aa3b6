package storage

import (
	"context"
	"errors"
	"time"

	"gorm.io/gorm/clause"
)

// Consent is what a patient allowed a client, remembered per client.
type Consent struct {
	PatientID string
	ClientID  string
	Scopes    Words
	GrantedAt time.Time
	RevokedAt *time.Time
}

// TableName names the table.
func (Consent) TableName() string { return "consent" }

// Consent finds the consent that is in force; ErrNotFound where there is none.
func (db *DB) Consent(ctx context.Context, patientID, clientID string) (Consent, error) {
	var c Consent
	err := db.g(ctx).Where("patient_id = ? AND client_id = ? AND revoked_at IS NULL", patientID, clientID).Take(&c).Error
	return c, mapErr(err)
}

// SaveConsent records that the patient allows the client scopes now. Scopes
// allowed before stay allowed.
func (db *DB) SaveConsent(ctx context.Context, patientID, clientID string, scopes Words, now time.Time) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		old, err := db.Consent(ctx, patientID, clientID)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		all := append(Words{}, scopes...)
		for _, s := range old.Scopes {
			if !all.Has(s) {
				all = append(all, s)
			}
		}
		err = db.g(ctx).Clauses(clause.OnConflict{
			Columns:   []clause.Column{{Name: "patient_id"}, {Name: "client_id"}},
			DoUpdates: clause.AssignmentColumns([]string{"scopes", "granted_at", "revoked_at"}),
		}).Create(&Consent{PatientID: patientID, ClientID: clientID, Scopes: all, GrantedAt: now}).Error
		if err != nil {
			return mapErr(err)
		}
		return db.Audit(ctx, AuditEvent{Event: "consent.given", Subject: patientID, Object: "client:" + clientID})
	})
}

// RevokeConsent withdraws a consent and every grant made on it.
func (db *DB) RevokeConsent(ctx context.Context, patientID, clientID string, now time.Time) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		err := db.g(ctx).Model(&Consent{}).
			Where("patient_id = ? AND client_id = ? AND revoked_at IS NULL", patientID, clientID).
			Update("revoked_at", now).Error
		if err != nil {
			return mapErr(err)
		}
		if err := db.revokeGrants(ctx, now, "consent revoked", "patient_id = ? AND client_id = ?", patientID, clientID); err != nil {
			return err
		}
		return db.Audit(ctx, AuditEvent{Event: "consent.revoked", Subject: patientID, Object: "client:" + clientID})
	})
}
