package keys

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pat-authenticate/patauth/storage"
)

// The schedule of a key. Whoever caches the JWK Set has each key before it signs
// and as long as anything it signed is good: OpenID Connect Core, Section 10.1.1,
// asks the verifier to come back for an unknown key, and not all of them do.
const (
	// PublishBefore is how long a key is published before it signs: far more than
	// the five minutes that the set may be kept, for those who keep it for a day.
	PublishBefore = 24 * time.Hour
	// SignFor is how long a key signs.
	SignFor = 30 * 24 * time.Hour
	// KeepAfter is how long a retired key stays published: a day, the longest life
	// of an ID token, and a day more.
	KeepAfter = 48 * time.Hour
)

// Rotate does what is due by now: it makes the next key of an algorithm a day
// before the present one is through, activates what was published for long
// enough, and removes what nobody needs any more. It may run twice, and anywhere.
func Rotate(ctx context.Context, db *storage.DB, now time.Time) error {
	rows, err := db.SigningKeys(ctx)
	if err != nil {
		return err
	}
	for _, alg := range Algorithms {
		active, pending := find(rows, alg, storage.KeyActive), find(rows, alg, storage.KeyPending)
		switch {
		case pending != nil && !now.Before(pending.CreatedAt.Add(PublishBefore)):
			err = db.ActivateSigningKey(ctx, *pending, now)
		case pending == nil && active != nil && !now.Before(active.ActivatedAt.Add(SignFor-PublishBefore)):
			err = makeKey(ctx, db, alg, storage.KeyPending)
		}
		if err != nil && !done(err) {
			return fmt.Errorf("rotate %s key: %w", alg, err)
		}
	}
	_, err = db.DeleteSigningKeys(ctx, now.Add(-KeepAfter))
	return err
}

// done reports whether err says that somebody else was faster.
func done(err error) bool {
	return errors.Is(err, storage.ErrSpent) || errors.Is(err, storage.ErrConflict)
}

// Prepare makes the key of alg that signs a day from now; one that waits already
// is left alone.
func Prepare(ctx context.Context, db *storage.DB, alg string) error {
	err := makeKey(ctx, db, alg, storage.KeyPending)
	if done(err) {
		return nil
	}
	return err
}

// RotateNow makes a new key of alg sign at once. Whoever has kept the JWK Set
// must fetch it again; replicas publish the key within half a minute.
func RotateNow(ctx context.Context, db *storage.DB, alg string, now time.Time) error {
	if err := Prepare(ctx, db, alg); err != nil {
		return err
	}
	rows, err := db.SigningKeys(ctx)
	if err != nil {
		return err
	}
	pending := find(rows, alg, storage.KeyPending)
	if pending == nil {
		return nil // it signs already
	}
	if err := db.ActivateSigningKey(ctx, *pending, now); err != nil && !done(err) {
		return err
	}
	return nil
}

// ErrInUse says that a key is the one that signs, and has no successor yet.
var ErrInUse = errors.New("the key signs; rotate it first")

// Retire ends a key. One that still signs is ErrInUse, unless it is compromised:
// then a new one signs at once, and nothing that the old one signed counts.
func Retire(ctx context.Context, db *storage.DB, id string, compromised bool, now time.Time) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		rows, err := db.SigningKeys(ctx)
		if err != nil {
			return err
		}
		for _, k := range rows {
			switch {
			case k.ID != id:
				continue
			case !compromised && k.State == storage.KeyActive:
				return ErrInUse
			case !compromised:
				return db.RetireSigningKey(ctx, k, storage.KeyRetired, now)
			}
			if err := db.RetireSigningKey(ctx, k, storage.KeyCompromised, now); err != nil {
				return err
			}
			if k.State != storage.KeyActive {
				return nil
			}
			return makeKey(ctx, db, k.Alg, storage.KeyActive)
		}
		return storage.ErrNotFound
	})
}

// find is the key of alg in a state, or nil.
func find(rows []storage.SigningKey, alg, state string) *storage.SigningKey {
	for i, r := range rows {
		if r.Alg == alg && r.State == state {
			return &rows[i]
		}
	}
	return nil
}
