package storage

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// usedKept is how long a used code or refresh token stays, to tell a replay
// from an unknown value.
const usedKept = 30 * time.Minute

// An expiry says when the rows of a table go: kept after what where compares with
// its arguments, which are all that time.
type expiry struct {
	table        string
	kept         time.Duration
	where, order string
}

const (
	expired = "expires_at < ?"
	day     = 24 * time.Hour
)

// expiries are the tables whose rows go by the clock; docs/operations.md says so
// of every table. The grants of a session stay a day longer than it, because a
// logout token holds the sub that its client knows. Messages of the feed stay
// longer than its broker keeps them, so that a replay is recognised.
var expiries = []expiry{
	{"oauth_access", usedKept, expired, "expires_at"},
	{"oauth_refresh", usedKept, expired, "expires_at"},
	{"oauth_code", usedKept, expired, "expires_at"},
	{"auth_request", usedKept, expired, "expires_at"},
	{"used_jti", usedKept, expired, "expires_at"},
	{"device", usedKept, expired, "expires_at"},
	{"press", usedKept, expired, "expires_at"},
	{"oauth_grant", toldWithin, expired + ` AND NOT EXISTS (SELECT 1 FROM session s
		WHERE s.id = oauth_grant.session_id AND (s.ended_at IS NULL OR s.ended_at > ?))`, "expires_at"},
	{"session", 30 * day, "ended_at < ?", "ended_at"},
	{"challenge", day, expired, "expires_at"},
	{"attempt", 0, expired, "expires_at"},
	{"patient", 7 * day, `email_verified_at IS NULL AND updated_at < ?
		AND NOT EXISTS (SELECT 1 FROM challenge c WHERE c.patient_id = patient.id AND c.created_at >= ?)
		AND NOT EXISTS (SELECT 1 FROM credential c WHERE c.patient_id = patient.id)`, "updated_at"},
	{"lab_invitation", day, expired, "expires_at"},
	{"lab_event", 60 * day, "applied_at < ?", "applied_at"},
	{"outbox", 7 * day, "COALESCE(done_at, failed_at) < ?", "COALESCE(done_at, failed_at)"},
}

// Expiring lists the tables whose rows go by the clock, and how long after their end.
func Expiring() (tables []string, kept map[string]time.Duration) {
	kept = map[string]time.Duration{}
	for _, e := range expiries {
		tables, kept[e.table] = append(tables, e.table), e.kept
	}
	return tables, kept
}

// DeleteExpired removes up to limit rows of a table of Expiring whose time is over
// at now, and returns how many went: fewer than limit where none is left.
func (db *DB) DeleteExpired(ctx context.Context, table string, now time.Time, limit int) (int, error) {
	for _, e := range expiries {
		if e.table == table {
			args := make([]any, strings.Count(e.where, "?"))
			for i := range args {
				args[i] = now.Add(-e.kept)
			}
			return db.deleteSome(ctx, limit, e.table, e.where, e.order, args...)
		}
	}
	return 0, fmt.Errorf("the rows of %s do not expire", table)
}

// DeleteAudit removes up to limit of the oldest audit rows from before the given
// time. It needs no right but to see and delete them.
func (db *DB) DeleteAudit(ctx context.Context, before time.Time, limit int) (int, error) {
	return db.deleteSome(ctx, limit, "audit_event", "at < ?", "at", before)
}

// some is a condition that holds for the first rows of a table, up to a limit,
// in the order given: the arguments of where come first, then the limit. It goes
// by where rows lie, so that the plan is the same whatever the planner believes,
// and a row that is changed meanwhile is left alone.
func (db *DB) some(table, where, order string) string {
	if db.dialect == "sqlite" {
		return "rowid IN (SELECT rowid FROM " + table + " WHERE " + where + " ORDER BY " + order + " LIMIT ?)"
	}
	return "ctid = ANY (ARRAY(SELECT ctid FROM " + table + " WHERE " + where + " ORDER BY " + order + " LIMIT ?))"
}

// maintenance is the limit of a statement that no request waits for, below the time
// of a task.
const maintenance = 10 * time.Second

// deleteSome removes the first rows of a table for which where holds.
func (db *DB) deleteSome(ctx context.Context, limit int, table, where, order string, args ...any) (int, error) {
	return db.changeSome(ctx, "DELETE FROM "+table+" WHERE "+db.some(table, where, order), append(args, limit)...)
}

// changeSome is a statement of maintenance, and how many rows it changed.
func (db *DB) changeSome(ctx context.Context, statement string, args ...any) (n int, err error) {
	err = db.Within(ctx, maintenance, func(ctx context.Context) error {
		r := db.g(ctx).Exec(statement, args...)
		n = int(r.RowsAffected)
		return mapErr(r.Error)
	})
	return n, err
}
