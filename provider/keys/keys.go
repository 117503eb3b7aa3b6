// Package keys keeps the keys that sign tokens: one active key per algorithm,
// made once for all replicas, sealed in the database, published in the JWK Set.
//
// Keys change on a schedule (schedule.go): the next one is published for a day
// before it signs, and the last one for a day after what it signed has expired,
// so that a relying party may cache the set and never meets a kid it does not
// know. What is due is done by Rotate, whoever calls it and however often.
//
// A replica signs only with keys it has read lately (Fresh): rather no token
// than one signed with a key that was retired meanwhile.
package keys

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/errgroup"

	"github.com/pat-authenticate/patauth/storage"
)

// Algorithms lists what the provider signs with (RFC 7518, Section 3.1; EdDSA is
// RFC 8037, Section 3.1, with Ed25519). ES256 costs least; RS256 is what every
// relying party can verify (OpenID Connect Core, Section 15.1) and what a client
// gets that asks for none. Each has keys of its own, also the two that RSA keys
// would do for.
var Algorithms = []string{"ES256", "RS256", "PS256", "EdDSA"}

const (
	refreshEvery = 30 * time.Second
	staleAfter   = 5 * time.Minute
)

// Config says how keys are made; those that exist stay as they are. The zero
// value stands for Defaults.
type Config struct {
	// RSABits is the size of new RSA keys, for RS256 and PS256: 3072, which is the
	// default, or 2048, whose signatures cost a third.
	RSABits int `yaml:"rsa_bits" env:"RSA_BITS"`
}

// Defaults are for what nobody configured.
func Defaults() Config { return Config{RSABits: 3072} }

// Validate refuses other sizes: below 2048 bits RFC 7518, Section 3.3, forbids.
func (c Config) Validate() error {
	if c.RSABits != 2048 && c.RSABits != 3072 {
		return errors.New("keys.rsa_bits: must be 2048 or 3072")
	}
	return nil
}

// ErrNoKey says that no active key for the algorithm is at hand, or that the
// keys were last read too long ago to sign with.
var ErrNoKey = errors.New("no signing key")

// Keys is the key set of one replica. It is safe for concurrent use.
type Keys struct {
	db      *storage.DB
	config  Config
	set     atomic.Pointer[set]
	skipped sync.Map // ids of rows that were logged as unknown
}

// A set is one reading of the keys; it is never changed.
type set struct {
	read   time.Time
	active map[string]jose.SigningKey // by algorithm
	public map[string]jose.JSONWebKey // by kid
	jwks   []byte
}

// Open reads the keys, making those that are missing.
func Open(ctx context.Context, db *storage.DB, c Config) (*Keys, error) {
	k := &Keys{db: db, config: c}
	if err := k.Refresh(ctx); err != nil {
		return nil, fmt.Errorf("open signing keys: %w", err)
	}
	return k, nil
}

// Refresh reads the keys anew. An algorithm without an active key, be it new in
// this release, gets one at once.
func (k *Keys) Refresh(ctx context.Context) error {
	rows, err := k.db.SigningKeys(ctx)
	if err != nil {
		return err
	}
	made := false
	var making errgroup.Group // RSA keys take their time
	for _, alg := range Algorithms {
		if l := lineOf(rows, alg); l.active == nil {
			made = true
			// Another replica may be first; its key serves.
			making.Go(func() error { return unlessLost(turn{k.db, k.config, storage.Now()}.advance(ctx, l)) })
		}
	}
	if err := making.Wait(); err != nil {
		return err
	}
	if made {
		if rows, err = k.db.SigningKeys(ctx); err != nil {
			return err
		}
	}
	s, err := k.load(ctx, rows)
	if err != nil {
		return err
	}
	k.set.Store(s)
	return nil
}

// Run refreshes the keys until ctx ends. A failure keeps the old ones; Fresh
// tells when they are too old.
func (k *Keys) Run(ctx context.Context) error {
	t := time.NewTicker(refreshEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if err := k.Refresh(ctx); err != nil && ctx.Err() == nil {
				slog.ErrorContext(ctx, "refresh signing keys", "event", "keys.refresh.failed", "error", err.Error())
			}
		}
	}
}

// Fresh reports whether the keys were read lately enough to sign with.
func (k *Keys) Fresh() bool { return time.Since(k.set.Load().read) < staleAfter }

// JWKS is the JWK Set (RFC 7517, Section 5) with the public keys, as JSON.
func (k *Keys) JWKS() []byte { return k.set.Load().jwks }

func (c Config) generate(alg string) (crypto.Signer, error) {
	switch alg {
	case "ES256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "RS256", "PS256":
		return rsa.GenerateKey(rand.Reader, cmp.Or(c.RSABits, Defaults().RSABits))
	case "EdDSA":
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	return nil, errors.New("unknown algorithm")
}

// load reads what may be signed with and verified by. A compromised key is
// neither. What a later release may have written is skipped.
func (k *Keys) load(ctx context.Context, rows []storage.SigningKey) (*set, error) {
	s := &set{read: time.Now(), active: map[string]jose.SigningKey{}, public: map[string]jose.JSONWebKey{}}
	published := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, r := range rows {
		if !slices.Contains(Algorithms, r.Alg) || !slices.Contains(States, r.State) {
			if _, again := k.skipped.LoadOrStore(r.ID, true); !again {
				slog.WarnContext(ctx, "signing key skipped: unknown algorithm or state", "event", "keys.skipped", "kid", r.ID, "alg", r.Alg, "state", r.State)
			}
			continue
		}
		if r.State == storage.KeyCompromised {
			continue
		}
		var public jose.JSONWebKey
		if err := json.Unmarshal([]byte(r.Public), &public); err != nil {
			return nil, fmt.Errorf("key %s: %w", r.ID, err)
		}
		s.public[r.ID] = public
		published.Keys = append(published.Keys, public)
		if r.State != storage.KeyActive {
			continue
		}
		der, err := k.db.Unseal("signing_key", "private", r.ID, r.Private)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", r.ID, err)
		}
		private, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			return nil, fmt.Errorf("key %s: not PKCS #8", r.ID)
		}
		s.active[r.Alg] = jose.SigningKey{
			Algorithm: jose.SignatureAlgorithm(r.Alg),
			Key:       jose.JSONWebKey{Key: private, KeyID: r.ID},
		}
	}
	var err error
	s.jwks, err = json.Marshal(published)
	return s, err
}
