package oauth

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	// Names are compared with their case, and none may be there twice.
	"github.com/go-jose/go-jose/v4/json"
	"golang.org/x/sync/singleflight"

	"github.com/pat-authenticate/patauth/provider/web"
)

const (
	// maxKeys bounds a client's JWK Set.
	maxKeys = 32
	minRSA  = 2048 // bits; RFC 7518, Section 3.3
)

// privateMembers are the members of a JWK that hold secrets (RFC 7518, Sections
// 6.2.2, 6.3.2 and 6.4.1; RFC 9964).
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"}

// parseJWKS reads the JWK Set of a client (RFC 7517, Section 5) and returns the
// keys in it that can verify a signature for us: RSA of 2048 bits and more,
// P-256, Ed25519. Others are left out, as Section 5 asks, so that the set may
// come out empty. A set that holds a private or a symmetric key, whatever its
// type, is refused: that key is no secret any more.
func parseJWKS(raw []byte) (jose.JSONWebKeySet, error) {
	var document struct {
		Keys []map[string]*json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(raw, &document); err != nil || document.Keys == nil {
		return jose.JSONWebKeySet{}, errors.New("not a JWK Set")
	}
	if len(document.Keys) > maxKeys {
		return jose.JSONWebKeySet{}, fmt.Errorf("more than %d keys", maxKeys)
	}
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, members := range document.Keys {
		for _, name := range privateMembers {
			if _, secret := members[name]; secret {
				return jose.JSONWebKeySet{}, errors.New("the set holds a private key")
			}
		}
		if key, ok := verificationKey(members); ok {
			set.Keys = append(set.Keys, key)
		}
	}
	return set, nil
}

// verificationKey is the key that a JWK describes, if it can verify a signature.
func verificationKey(members map[string]*json.RawMessage) (jose.JSONWebKey, bool) {
	if ops := members["key_ops"]; ops != nil && !bytes.Contains(*ops, []byte(`"verify"`)) {
		return jose.JSONWebKey{}, false
	}
	// Certificates are not what a client is known by; they are not even parsed.
	for _, name := range []string{"x5c", "x5u", "x5t", "x5t#S256"} {
		delete(members, name)
	}
	raw, err := json.Marshal(members)
	if err != nil {
		return jose.JSONWebKey{}, false
	}
	var key jose.JSONWebKey
	if err := key.UnmarshalJSON(raw); err != nil || !strong(key.Key) {
		return jose.JSONWebKey{}, false
	}
	return key, key.Use == "" || key.Use == "sig"
}

// strong reports whether key is public and of a kind and size that we trust.
func strong(key any) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return key.N.BitLen() >= minRSA && key.N.Bit(0) == 1 && key.E >= 3 && key.E%2 == 1
	case *ecdsa.PublicKey:
		return key.Curve == elliptic.P256()
	case ed25519.PublicKey:
		return true
	}
	return false
}

// fitting are the keys of set that may have made a signature by alg under kid;
// without a kid, every key that alg can be used with.
func fitting(set jose.JSONWebKeySet, alg jose.SignatureAlgorithm, kid string) []jose.JSONWebKey {
	var out []jose.JSONWebKey
	for _, key := range set.Keys {
		if (kid == "" || key.KeyID == kid) && (key.Algorithm == "" || sameAlg(key.Algorithm) == alg) && signs(key.Key, alg) {
			out = append(out, key)
		}
	}
	return out
}

// signs reports whether alg is an algorithm of key (RFC 7518, Section 3.1; RFC
// 8037, Section 3.1).
func signs(key any, alg jose.SignatureAlgorithm) bool {
	switch key.(type) {
	case *rsa.PublicKey:
		return alg == jose.RS256 || alg == jose.PS256
	case *ecdsa.PublicKey:
		return alg == jose.ES256
	case ed25519.PublicKey:
		return alg == jose.EdDSA
	}
	return false
}

const (
	// keysLife is how long a fetched set is used. After keysRefresh a new one is
	// fetched: should the client's server be away just then, there is time left
	// for one more try.
	keysLife    = 5 * time.Minute
	keysRefresh = 4 * time.Minute
	// keysCooldown lies between two fetches of one jwks_uri, whatever their
	// outcome: whoever makes up kids, which takes no key, does not make us fetch.
	keysCooldown = time.Minute
	// maxFetched bounds the sets in memory and, with the cooldown, the fetches of
	// a minute. Of these, maxUnproven are for sets that have verified nothing yet:
	// whoever names many never crowds out those that clients work with.
	maxFetched  = 512
	maxUnproven = 256
)

// newSetsOfNetwork is how often one network may make us look at a jwks_uri that is
// not at hand, so that there is room for the next who comes.
var newSetsOfNetwork = web.Rate{PerMinute: 60, Burst: 60}

// keySets are the JWK Sets that clients have at their jwks_uri, as fetched lately
// by this replica. It is safe for concurrent use.
type keySets struct {
	get     func(ctx context.Context, uri string) ([]byte, error)
	pace    *web.Pace // of sets that are not at hand
	flights singleflight.Group

	mu   sync.Mutex
	sets map[string]*keySet // by jwks_uri; guarded by mu, and so is what they hold
}

// A keySet is the outcome of the last fetch, and the last good set.
type keySet struct {
	set  jose.JSONWebKeySet
	read time.Time // when set was fetched
	// err is why the last fetch, tried at that time, brought none.
	err   error
	tried time.Time
	// proved is when a key of it last verified a signature.
	proved time.Time
}

func newKeySets(get func(ctx context.Context, uri string) ([]byte, error)) *keySets {
	return &keySets{get: get, pace: web.NewPace(newSetsOfNetwork, web.Rate{}), sets: map[string]*keySet{}}
}

var errCrowded = errors.New("too many jwks_uris in use")

// find is fitting of the set at uri, which is fetched where it is not at hand or
// holds no such key: the client may have a new one (OpenID Connect Core, Section
// 10.1.1). An error says that there is no set to look into, and why.
func (k *keySets) find(ctx context.Context, uri string, alg jose.SignatureAlgorithm, kid string, now time.Time) ([]jose.JSONWebKey, error) {
	if keys, fresh, _ := k.cached(uri, alg, kid, now); fresh && len(keys) > 0 {
		return keys, nil
	}
	k.flights.Do(uri, func() (any, error) {
		// The answer is for everybody: it must not depend on the patience of who
		// happened to ask first. The fetch has a limit of its own.
		k.fetch(context.WithoutCancel(ctx), uri, now)
		return nil, nil
	})
	keys, _, err := k.cached(uri, alg, kid, now)
	return keys, err
}

// cached looks into the set at hand, and reports whether it is fresh.
func (k *keySets) cached(uri string, alg jose.SignatureAlgorithm, kid string, now time.Time) (keys []jose.JSONWebKey, fresh bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, ok := k.sets[uri]
	switch {
	case !ok:
		return nil, false, errCrowded
	case now.Sub(s.read) < keysLife:
		return fitting(s.set, alg, kid), now.Sub(s.read) < keysRefresh, nil
	}
	return nil, false, s.err
}

// fetch fetches the set at uri, unless that was tried a moment ago or others
// have taken all the room.
func (k *keySets) fetch(ctx context.Context, uri string, now time.Time) {
	s := k.due(ctx, uri, now)
	if s == nil {
		return
	}
	var set jose.JSONWebKeySet
	raw, err := k.get(ctx, uri)
	if err == nil {
		set, err = parseJWKS(raw)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s.err = err
	if err == nil {
		s.set, s.read = set, now
	}
}

// proved notes that a key of the set at uri has verified a signature.
func (k *keySets) proved(uri string, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s, ok := k.sets[uri]; ok {
		s.proved = now
	}
}

// due notes that uri is fetched now; nil where it must not be.
func (k *keySets) due(ctx context.Context, uri string, now time.Time) *keySet {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, ok := k.sets[uri]
	if ok && now.Sub(s.tried) < keysCooldown {
		return nil
	}
	if !ok && (k.pace.Pass(new(http.Request).WithContext(ctx)) != nil || !k.room(now)) {
		return nil
	}
	if !ok {
		s = &keySet{}
		k.sets[uri] = s
	}
	s.tried = now
	return s
}

// room makes room for one set. Of the unproven ones the one goes that was fetched
// longest ago; where those have not yet their share, the proven one that was of use
// longest ago. Its cooldown must be over, or to forget it would be a way around.
// Callers hold mu.
func (k *keySets) room(now time.Time) bool {
	unproven, idle, useless := 0, "", ""
	for uri, s := range k.sets {
		if s.proved.IsZero() {
			unproven++
			if useless == "" || s.tried.Before(k.sets[useless].tried) {
				useless = uri
			}
		} else if idle == "" || s.proved.Before(k.sets[idle].proved) {
			idle = uri
		}
	}
	goes := idle
	if unproven >= maxUnproven {
		goes = useless
	} else if len(k.sets) < maxFetched {
		return true
	}
	if now.Sub(k.sets[goes].tried) < keysCooldown {
		return false
	}
	delete(k.sets, goes)
	return true
}
