package storage

import (
	"context"
	"fmt"
	"time"
)

// RemoveFactor revokes a second factor of a patient. The last one goes only if
// last says that the patient knows; it is ErrConflict otherwise, also where two
// requests remove two factors at once. ErrNotFound where the patient has no such
// live second factor.
func (db *DB) RemoveFactor(ctx context.Context, patientID, id string, last bool, now time.Time) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		if err := db.LockPatient(ctx, patientID); err != nil {
			return err
		}
		all, err := db.Credentials(ctx, patientID)
		if err != nil {
			return err
		}
		found, others := false, 0
		for _, c := range all {
			switch {
			case c.Kind == KindPassword:
			case c.ID == id:
				found = true
			default:
				others++
			}
		}
		if !found {
			return ErrNotFound
		}
		if others == 0 && !last {
			return fmt.Errorf("remove the last second factor: %w", ErrConflict)
		}
		return db.RevokeCredential(ctx, patientID, id, now)
	})
}
