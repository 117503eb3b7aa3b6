package storage

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"gorm.io/gorm"
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

const (
	// tryLife is how long a try may be under way; longer than any request.
	tryLife = 10 * time.Second
	// tryPatience is how long one waits for the outcome of another.
	tryPatience = 2 * time.Second
)

// A Try is one proof that is being checked, counted as failed meanwhile: so a
// burst of guesses is counted before the first of them is answered, and a crash
// forgives none. It ends with CredentialSucceeded, CredentialFailed or TakeBack.
type Try struct {
	Credential string
	failures   int // with this one
}

// TryCredential is asked before a proof is checked. ErrSpent where the credential
// rests, is disabled or revoked. Where one more failure would make it rest, tries
// wait for one another, so that several right ones at once are all right;
// ErrUnavailable where that takes too long.
func (db *DB) TryCredential(ctx context.Context, id string, now time.Time) (Try, error) {
	late := time.NewTimer(tryPatience)
	defer late.Stop()
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 320*time.Millisecond) {
		t, err := db.tryCredential(ctx, id, now)
		if !errors.Is(err, ErrSpent) {
			return t, err
		}
		// Refused for good, or for what another try may still, or did just now, mend?
		var hope int64
		err = db.g(ctx).Model(&Credential{}).Where(`id = ? AND revoked_at IS NULL AND disabled_at IS NULL
			AND (trying_until > ? OR failures < ? AND (retry_after IS NULL OR retry_after <= ?))`, id, now, failureCap, now).Count(&hope).Error
		if err != nil {
			return t, mapErr(err)
		}
		if hope == 0 {
			return t, ErrSpent
		}
		next := time.NewTimer(pause)
		select {
		case <-next.C:
		case <-late.C:
			return t, fmt.Errorf("another try is under way: %w", ErrUnavailable)
		case <-ctx.Done():
			return t, fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(ctx))
		}
	}
}

func (db *DB) tryCredential(ctx context.Context, id string, now time.Time) (Try, error) {
	t := Try{Credential: id}
	err := db.Tx(ctx, func(ctx context.Context) error {
		r := db.g(ctx).Raw(`UPDATE credential SET failures = failures + 1, trying_until = ?
			WHERE id = ? AND revoked_at IS NULL AND disabled_at IS NULL AND failures < ?
			AND (retry_after IS NULL OR retry_after <= ?)
			AND (failures < ? OR trying_until IS NULL OR trying_until <= ?) RETURNING failures`,
			now.Add(tryLife), id, failureCap, now, freeFailures-1, now).Scan(&t.failures)
		if err := spentUnlessOne(r); err != nil {
			return err
		}
		wait := waitAfter(t.failures)
		if wait == 0 {
			return nil
		}
		return mapErr(db.g(ctx).Model(&Credential{}).Where("id = ?", id).Update("retry_after", now.Add(wait)).Error)
	})
	return t, err
}

// TakeBack ends a try whose proof was not checked, or was right: it is not a
// failure. It is done even where ctx is over.
func (db *DB) TakeBack(ctx context.Context, t Try) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tryPatience)
	defer cancel()
	set := map[string]any{"failures": gorm.Expr("failures - 1"), "trying_until": nil}
	if waitAfter(t.failures) > 0 {
		set["retry_after"] = nil // which this try has set
	}
	return mapErr(db.g(ctx).Model(&Credential{}).Where("id = ? AND failures > 0", t.Credential).Updates(set).Error)
}

// CredentialSucceeded takes the count of failures back to nothing and notes the use.
// ErrNotFound where the credential was revoked while it was checked: the
// proof is worth nothing then.
func (db *DB) CredentialSucceeded(ctx context.Context, id string, now time.Time) error {
	return foundOne(db.g(ctx).Model(&Credential{}).Where("id = ? AND revoked_at IS NULL", id).
		Updates(map[string]any{"failures": 0, "retry_after": nil, "trying_until": nil, "last_used_at": now}))
}

// CredentialFailed records that the try was wrong. It reports whether this
// failure was the one that disabled the credential.
func (db *DB) CredentialFailed(ctx context.Context, id string, now time.Time) (disabled bool, err error) {
	err = db.Tx(ctx, func(ctx context.Context) error {
		if err := db.g(ctx).Model(&Credential{}).Where("id = ?", id).Update("trying_until", nil).Error; err != nil {
			return mapErr(err)
		}
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

// EnableCredential takes back that too many failures have disabled c: its patient
// has proven it in a way that strangers cannot try.
func (db *DB) EnableCredential(ctx context.Context, c Credential) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		r := db.g(ctx).Model(&Credential{}).Where("id = ? AND revoked_at IS NULL AND disabled_at IS NOT NULL", c.ID).Update("disabled_at", nil)
		if r.Error != nil || r.RowsAffected == 0 {
			return mapErr(r.Error)
		}
		return db.auditFactor(ctx, "factor.enabled", c)
	})
}

// CountAttempt counts one more doing of what by whom, of which there may be most
// within window of the first. ErrSpent where there were as many; that one is not
// counted. The counter is found by a keyed digest: who it was is not kept.
func (db *DB) CountAttempt(ctx context.Context, what, whom string, most int, window time.Duration, now time.Time) error {
	var n int
	r := db.g(ctx).Raw(`INSERT INTO attempt (id, tries, expires_at) VALUES (?, 1, ?)
		ON CONFLICT (id) DO UPDATE SET
			tries = CASE WHEN attempt.expires_at <= ? THEN 1 ELSE attempt.tries + 1 END,
			expires_at = CASE WHEN attempt.expires_at <= ? THEN excluded.expires_at ELSE attempt.expires_at END
		WHERE attempt.tries < ? OR attempt.expires_at <= ?
		RETURNING tries`, db.attemptID(what, whom), now.Add(window), now, now, most, now).Scan(&n)
	return spentUnlessOne(r)
}

// ForgiveAttempt takes one counted doing back, because it was right or came to
// nothing: so callers can count before they look, and a burst of guesses finds
// nothing that it may not. It is done even where ctx is over.
func (db *DB) ForgiveAttempt(ctx context.Context, what, whom string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tryPatience)
	defer cancel()
	return mapErr(db.g(ctx).Exec("UPDATE attempt SET tries = tries - 1 WHERE id = ? AND tries > 0", db.attemptID(what, whom)).Error)
}

// ForgetAttempts begins a count anew.
func (db *DB) ForgetAttempts(ctx context.Context, what, whom string) error {
	return mapErr(db.g(ctx).Exec("DELETE FROM attempt WHERE id = ?", db.attemptID(what, whom)).Error)
}

// Attempts is how many doings of what by whom are counted now.
func (db *DB) Attempts(ctx context.Context, what, whom string, now time.Time) (int, error) {
	var n int
	err := db.g(ctx).Raw("SELECT tries FROM attempt WHERE id = ? AND expires_at > ?", db.attemptID(what, whom), now).Scan(&n).Error
	return n, mapErr(err)
}

func (db *DB) attemptID(what, whom string) string {
	return what + ":" + hex.EncodeToString(db.MAC("attempt", []byte(what+":"+whom)))
}
