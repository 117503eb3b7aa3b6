package storage

import (
	"context"
	"encoding/hex"
	"time"
)

const (
	// freeFailures is how many wrong tries in a row cost no wait.
	freeFailures = 5
	firstWait    = 30 * time.Second
	longestWait  = time.Hour
	// failureCap ends the use of an authenticator. NIST SP 800-63B-4, Section
	// 3.2.2, allows at most 100 consecutive failures.
	failureCap = 50
)

// waitAfter is how long an authenticator rests after n failures in a row.
func waitAfter(n int) time.Duration {
	if n < freeFailures {
		return 0
	}
	if n-freeFailures > 7 {
		return longestWait
	}
	return min(firstWait<<(n-freeFailures), longestWait)
}

// TryCredential is asked before a proof is checked, and counts the try as failed
// until CredentialSucceeded says otherwise: so a burst of guesses is counted
// before the first of them is answered, and a crash forgives none. ErrSpent
// where the credential rests, is disabled or revoked.
func (db *DB) TryCredential(ctx context.Context, id string, now time.Time) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		var n int
		r := db.g(ctx).Raw(`UPDATE credential SET failures = failures + 1
			WHERE id = ? AND revoked_at IS NULL AND disabled_at IS NULL AND failures < ?
			AND (retry_after IS NULL OR retry_after <= ?) RETURNING failures`, id, failureCap, now).Scan(&n)
		if err := spentUnlessOne(r); err != nil {
			return err
		}
		wait := waitAfter(n)
		if wait == 0 {
			return nil
		}
		return mapErr(db.g(ctx).Model(&Credential{}).Where("id = ?", id).Update("retry_after", now.Add(wait)).Error)
	})
}

// CredentialSucceeded takes the count of failures back to nothing and notes the use.
func (db *DB) CredentialSucceeded(ctx context.Context, id string, now time.Time) error {
	return mapErr(db.g(ctx).Model(&Credential{}).Where("id = ?", id).
		Updates(map[string]any{"failures": 0, "retry_after": nil, "last_used_at": now}).Error)
}

// CredentialFailed records that the try was wrong. It reports whether this
// failure was the one that disabled the credential.
func (db *DB) CredentialFailed(ctx context.Context, id string, now time.Time) (disabled bool, err error) {
	err = db.Tx(ctx, func(ctx context.Context) error {
		r := db.g(ctx).Model(&Credential{}).
			Where("id = ? AND failures >= ? AND disabled_at IS NULL", id, failureCap).Update("disabled_at", now)
		if r.Error != nil || r.RowsAffected == 0 {
			return mapErr(r.Error)
		}
		disabled = true
		var c Credential
		if err := db.g(ctx).Where("id = ?", id).Take(&c).Error; err != nil {
			return mapErr(err)
		}
		return db.auditFactor(ctx, "factor.disabled", c)
	})
	return disabled, err
}

// CountAttempt counts one more doing of what by whom and returns how many there
// were since the first within window. The counter is found by a keyed digest:
// who it was is not kept.
func (db *DB) CountAttempt(ctx context.Context, what, whom string, window time.Duration, now time.Time) (int, error) {
	id := db.attemptID(what, whom)
	var n int
	err := db.g(ctx).Raw(`INSERT INTO attempt (id, tries, expires_at) VALUES (?, 1, ?)
		ON CONFLICT (id) DO UPDATE SET
			tries = CASE WHEN attempt.expires_at <= ? THEN 1 ELSE attempt.tries + 1 END,
			expires_at = CASE WHEN attempt.expires_at <= ? THEN excluded.expires_at ELSE attempt.expires_at END
		RETURNING tries`, id, now.Add(window), now, now).Scan(&n).Error
	return n, mapErr(err)
}

// ForgiveAttempt takes one counted doing back, because it was right: so callers can
// count before they look, and a burst of guesses finds nothing that it may not.
func (db *DB) ForgiveAttempt(ctx context.Context, what, whom string) error {
	return mapErr(db.g(ctx).Exec("UPDATE attempt SET tries = tries - 1 WHERE id = ? AND tries > 0", db.attemptID(what, whom)).Error)
}

func (db *DB) attemptID(what, whom string) string {
	return what + ":" + hex.EncodeToString(db.MAC("attempt", []byte(what+":"+whom)))
}

// DeleteExpiredAttempts removes counters whose window is over, up to limit.
func (db *DB) DeleteExpiredAttempts(ctx context.Context, now time.Time, limit int) (int, error) {
	r := db.g(ctx).Exec("DELETE FROM attempt WHERE id IN (SELECT id FROM attempt WHERE expires_at < ? ORDER BY expires_at LIMIT ?)", now, limit)
	return int(r.RowsAffected), mapErr(r.Error)
}
