package storage

import (
	"context"
	"slices"
	"time"

	"gorm.io/gorm/clause"
)

// Consent is what a patient allowed a client, remembered per client.
type Consent struct {
	PatientID string
	ClientID  string
	// Scopes are all that was allowed, wherever.
	Scopes    Words
	GrantedAt time.Time
	RevokedAt *time.Time
	// Seen is the client as the patient saw it. It is empty where a release before
	// 0014 has written the row.
	Seen JSON[Seen]
}

// Seen is what a page of consent said about a client: its name, and what was allowed
// at each place that the patient would be sent to.
type Seen struct {
	Name string           `json:"name,omitempty"`
	At   map[string]Words `json:"at,omitempty"`
}

// Allows are the scopes that were allowed to a client under the name that it has now,
// at a place: see PlaceOf. A nil consent allows none.
func (c *Consent) Allows(to Client, place string) Words {
	switch {
	case c == nil:
		return nil
	case c.Seen.V.At == nil:
		// To the client as it was before it first changed since that is remembered.
		if was := to.Metadata.Was; was != nil && (was.Name != to.Name || !slices.Contains(was.Places, place)) {
			return nil
		}
		return c.Scopes
	case c.Seen.V.Name != to.Name:
		return nil
	}
	return c.Seen.V.At[place]
}

// TableName names the table.
func (Consent) TableName() string { return "consent" }

// Consent finds the consent that is in force; ErrNotFound where there is none.
func (db *DB) Consent(ctx context.Context, patientID, clientID string) (Consent, error) {
	var c Consent
	err := db.g(ctx).Where("patient_id = ? AND client_id = ? AND revoked_at IS NULL", patientID, clientID).Take(&c).Error
	return c, mapErr(err)
}

// SaveConsent records that the patient allows the client, as it is now, scopes at a
// place. What was allowed to it before stays allowed, also by who does so at the same
// time; what was allowed to another name does not.
func (db *DB) SaveConsent(ctx context.Context, patientID string, to Client, place string, scopes Words, now time.Time) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		none := Consent{PatientID: patientID, ClientID: to.ID, GrantedAt: now, RevokedAt: &now}
		if err := db.g(ctx).Clauses(clause.OnConflict{DoNothing: true}).Create(&none).Error; err != nil {
			return mapErr(err)
		}
		var c Consent
		err := locked(db.g(ctx)).Where("patient_id = ? AND client_id = ?", patientID, to.ID).Take(&c).Error
		if err != nil {
			return mapErr(err)
		}
		allowed := Words{}
		if c.RevokedAt == nil {
			allowed = c.Allows(to, place)
		}
		if c.RevokedAt != nil || c.Seen.V.Name != to.Name || c.Seen.V.At == nil {
			c.Scopes, c.Seen.V = nil, Seen{Name: to.Name, At: map[string]Words{}}
		}
		c.Seen.V.At[place] = union(scopes, allowed)
		err = db.g(ctx).Model(&Consent{}).Where("patient_id = ? AND client_id = ?", patientID, to.ID).Updates(map[string]any{
			"scopes": union(union(scopes, allowed), c.Scopes), "seen": c.Seen, "granted_at": now, "revoked_at": nil,
		}).Error
		if err != nil {
			return mapErr(err)
		}
		return db.Audit(ctx, AuditEvent{Event: "consent.given", Subject: patientID, Object: "client:" + to.ID})
	})
}

// union is a with what b has more.
func union(a, b Words) Words {
	all := append(Words{}, a...)
	for _, w := range b {
		if !all.Has(w) {
			all = append(all, w)
		}
	}
	return all
}

// RevokeConsent withdraws a consent and every grant made on it.
func (db *DB) RevokeConsent(ctx context.Context, patientID, clientID string, now time.Time) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		// Also where nothing was ever asked: a grant that is being made finds the row.
		err := db.g(ctx).Exec(`INSERT INTO consent (patient_id, client_id, scopes, granted_at, revoked_at) VALUES (?, ?, '', ?, ?)
			ON CONFLICT (patient_id, client_id) DO UPDATE SET revoked_at = excluded.revoked_at
			WHERE consent.revoked_at IS NULL OR consent.revoked_at < excluded.revoked_at`, patientID, clientID, now, now).Error
		if err != nil {
			return mapErr(err)
		}
		if err := db.revokeGrants(ctx, now, "consent revoked", "patient_id = ? AND client_id = ?", patientID, clientID); err != nil {
			return err
		}
		return db.Audit(ctx, AuditEvent{Event: "consent.revoked", Subject: patientID, Object: "client:" + clientID})
	})
}
