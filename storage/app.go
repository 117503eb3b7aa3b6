package storage

import (
	"context"
	"slices"
	"strings"
	"time"
)

// App is a client that may act for a patient now, by a consent, or by a grant
// that lasts.
type App struct {
	ClientID string
	Name     string
	Scopes   Words
	Since    time.Time // of the newest consent or grant
}

// AppsOf lists the apps of a patient by name. Clients whose consent is not asked
// for are here as long as they hold a grant in force.
func (db *DB) AppsOf(ctx context.Context, patientID string, now time.Time) ([]App, error) {
	var rows []App
	err := db.g(ctx).Raw(`SELECT c.id AS client_id, c.name, x.scopes, x.since FROM (
			SELECT client_id, scopes, granted_at AS since FROM consent WHERE patient_id = ? AND revoked_at IS NULL
			UNION ALL
			SELECT g.client_id, g.scopes, g.created_at AS since FROM oauth_grant g LEFT JOIN session s ON s.id = g.session_id
			WHERE g.patient_id = ? AND g.revoked_at IS NULL AND g.expires_at > ?
			AND (g.offline OR (s.ended_at IS NULL AND s.expires_at > ?))
		) x JOIN client c ON c.id = x.client_id ORDER BY c.name, c.id, x.since DESC`,
		patientID, patientID, now, now).Scan(&rows).Error
	if err != nil {
		return nil, mapErr(err)
	}
	var out []App
	for _, row := range rows {
		i := slices.IndexFunc(out, func(a App) bool { return a.ClientID == row.ClientID })
		if i < 0 {
			out, i = append(out, App{ClientID: row.ClientID, Name: row.Name, Since: row.Since}), len(out)
		}
		for _, scope := range row.Scopes {
			if !out[i].Scopes.Has(scope) {
				out[i].Scopes = append(out[i].Scopes, scope)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b App) int { return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)) })
	return out, nil
}
