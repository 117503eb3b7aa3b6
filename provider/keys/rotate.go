package keys

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/pat-authenticate/patauth/storage"
)

var (
	// ErrNoSuccessor says that a key cannot end yet: no other is known to the
	// relying parties for long enough to sign in its place.
	ErrNoSuccessor = errors.New("no successor")
	// ErrEnded says that a key signs no more, so that there is nothing to end.
	ErrEnded = errors.New("it has ended already")
)

// Rotate does what the schedule asks for at now: it makes the next keys, lets
// them sign, and deletes those whose time is over. It may run late, twice, and
// at many places at once.
func Rotate(ctx context.Context, db *storage.DB, c Config, now time.Time) error {
	rows, err := db.SigningKeys(ctx)
	if err != nil {
		return fmt.Errorf("rotate signing keys: %w", err)
	}
	t := turn{db, c, now}
	var faults []error
	for _, alg := range Algorithms {
		faults = append(faults, unlessLost(t.advance(ctx, lineOf(rows, alg))))
	}
	for _, r := range rows {
		if gone(r, now) {
			faults = append(faults, unlessLost(t.delete(ctx, r)))
		}
	}
	return errors.Join(faults...)
}

// Prepare makes the next key of alg for an operator who does not want to wait
// for the schedule. Where there is one already it signs, if its time has come.
func Prepare(ctx context.Context, db *storage.DB, c Config, alg string, now time.Time) error {
	t := turn{db, c, now}
	l, err := t.line(ctx, alg)
	if err != nil {
		return err
	}
	if l.active != nil && l.pending == nil {
		return unlessLost(t.prepare(ctx, alg))
	}
	return unlessLost(t.advance(ctx, l))
}

// Replace lets the next key of alg, or a new one, sign at once. Relying parties
// may not know it yet.
func Replace(ctx context.Context, db *storage.DB, c Config, alg string, now time.Time) error {
	t := turn{db, c, now}
	l, err := t.line(ctx, alg)
	if err != nil {
		return err
	}
	return t.replace(ctx, l, storage.KeyRetired)
}

// Retire ends a key before its time. What it signed stays good. An active key
// makes way for the next one; ErrNoSuccessor where there is none that relying
// parties know.
func Retire(ctx context.Context, db *storage.DB, c Config, id string, now time.Time) error {
	t := turn{db, c, now}
	k, l, err := t.find(ctx, id)
	switch {
	case err != nil:
		return err
	case ended(k):
		return fmt.Errorf("key %s is %s: %w", id, k.State, ErrEnded)
	case k.State == storage.KeyPending:
		return t.alone(ctx, k, storage.KeyRetired)
	case l.pending == nil:
		return fmt.Errorf("key %s signs: %w for %s is waiting", id, ErrNoSuccessor, k.Alg)
	case now.Before(l.published()):
		return fmt.Errorf("key %s signs: %w before %s, when relying parties know key %s",
			id, ErrNoSuccessor, l.published().Format(time.RFC3339), l.pending.ID)
	}
	return t.replace(ctx, l, storage.KeyRetired)
}

// Compromise ends a key that somebody else may hold: it leaves the JWK Set, and
// nothing that it signed is trusted any more. In place of an active one another
// signs at once.
func Compromise(ctx context.Context, db *storage.DB, c Config, id string, now time.Time) error {
	t := turn{db, c, now}
	k, l, err := t.find(ctx, id)
	switch {
	case err != nil:
		return err
	case k.State == storage.KeyCompromised:
		return fmt.Errorf("key %s is compromised: %w", id, ErrEnded)
	case k.State == storage.KeyActive:
		return t.replace(ctx, l, storage.KeyCompromised)
	}
	return t.alone(ctx, k, storage.KeyCompromised)
}

// A turn changes keys at one time. Of two turns at once the
// second loses, with ErrSpent or ErrConflict, and has changed nothing.
type turn struct {
	db     *storage.DB
	config Config
	now    time.Time
}

// unlessLost is err, but for one that says that another turn was faster.
func unlessLost(err error) error {
	if errors.Is(err, storage.ErrSpent) || errors.Is(err, storage.ErrConflict) {
		return nil
	}
	return err
}

func (t turn) line(ctx context.Context, alg string) (line, error) {
	rows, err := t.db.SigningKeys(ctx)
	if err != nil {
		return line{}, fmt.Errorf("read signing keys: %w", err)
	}
	return lineOf(rows, alg), nil
}

// find is the key and the line it belongs to.
func (t turn) find(ctx context.Context, id string) (storage.SigningKey, line, error) {
	rows, err := t.db.SigningKeys(ctx)
	if err != nil {
		return storage.SigningKey{}, line{}, fmt.Errorf("read signing keys: %w", err)
	}
	for _, r := range rows {
		if r.ID == id {
			return r, lineOf(rows, r.Alg), nil
		}
	}
	return storage.SigningKey{}, line{}, fmt.Errorf("key %s: %w", id, storage.ErrNotFound)
}

// advance takes the step of l that is due, if any. An algorithm without active
// key gets one at once.
func (t turn) advance(ctx context.Context, l line) error {
	switch {
	case l.active == nil, l.pending != nil && !t.now.Before(l.takesOver()):
		return t.replace(ctx, l, storage.KeyRetired)
	case l.pending == nil && !t.now.Before(l.due()):
		return t.prepare(ctx, l.alg)
	}
	return nil
}

// prepare makes the pending key of alg.
func (t turn) prepare(ctx context.Context, alg string) error {
	k, err := t.generate(alg)
	if err != nil {
		return err
	}
	k.State = storage.KeyPending
	if err := t.db.Tx(ctx, func(ctx context.Context) error { return t.add(ctx, k) }); err != nil {
		return fmt.Errorf("prepare %s key: %w", alg, err)
	}
	return nil
}

// replace lets the pending key of l sign, or else a new one, while the active key
// ends in the given state. Both happen or neither.
func (t turn) replace(ctx context.Context, l line, state string) error {
	var fresh storage.SigningKey
	if l.pending == nil {
		var err error
		if fresh, err = t.generate(l.alg); err != nil {
			return err
		}
		fresh.State, fresh.ActivatedAt = storage.KeyActive, &t.now
	}
	err := t.db.Tx(ctx, func(ctx context.Context) error {
		if l.active != nil {
			if err := t.end(ctx, *l.active, state); err != nil {
				return err
			}
		}
		if l.pending == nil {
			return t.add(ctx, fresh)
		}
		if err := t.db.ActivateSigningKey(ctx, l.pending.ID, t.now); err != nil {
			return err
		}
		return t.audit(ctx, "key.activated", *l.pending)
	})
	if err != nil {
		return fmt.Errorf("replace %s key: %w", l.alg, err)
	}
	return nil
}

// alone ends a key that does not sign.
func (t turn) alone(ctx context.Context, k storage.SigningKey, state string) error {
	err := t.db.Tx(ctx, func(ctx context.Context) error { return t.end(ctx, k, state) })
	if err != nil {
		return fmt.Errorf("end key %s: %w", k.ID, err)
	}
	return nil
}

func (t turn) end(ctx context.Context, k storage.SigningKey, state string) error {
	if err := t.db.EndSigningKey(ctx, k.ID, k.State, state, t.now); err != nil {
		return err
	}
	return t.audit(ctx, "key."+state, k)
}

func (t turn) add(ctx context.Context, k storage.SigningKey) error {
	if err := t.db.AddSigningKey(ctx, &k); err != nil {
		return err
	}
	return t.audit(ctx, "key.made", k)
}

func (t turn) delete(ctx context.Context, k storage.SigningKey) error {
	err := t.db.Tx(ctx, func(ctx context.Context) error {
		if err := t.db.DeleteSigningKey(ctx, k.ID); err != nil {
			return err
		}
		return t.audit(ctx, "key.deleted", k)
	})
	if err != nil {
		return fmt.Errorf("delete key %s: %w", k.ID, err)
	}
	return nil
}

// audit records what happened to k, which was in that state until now.
func (t turn) audit(ctx context.Context, event string, k storage.SigningKey) error {
	return t.db.Audit(ctx, storage.AuditEvent{Event: event, Object: "key:" + k.ID,
		Detail: storage.JSON[map[string]string]{V: map[string]string{"alg": k.Alg, "state": k.State}}})
}

// generate makes a key of alg that is in no state yet, sealed to its row.
func (t turn) generate(alg string) (storage.SigningKey, error) {
	private, err := t.config.generate(alg)
	if err != nil {
		return storage.SigningKey{}, fmt.Errorf("make %s key: %w", alg, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return storage.SigningKey{}, fmt.Errorf("make %s key: %w", alg, err)
	}
	k := storage.SigningKey{ID: storage.NewID(), Alg: alg, CreatedAt: t.now}
	public, err := json.Marshal(jose.JSONWebKey{Key: private.Public(), KeyID: k.ID, Algorithm: alg, Use: "sig"})
	if err != nil {
		return storage.SigningKey{}, fmt.Errorf("make %s key: %w", alg, err)
	}
	k.Public = string(public)
	k.Private = t.db.Seal("signing_key", "private", k.ID, der)
	return k, nil
}
