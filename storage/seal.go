package storage

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

// A Keyring holds the key-encryption keys that seal secrets at rest. The first
// seals; all unseal. Keys live outside the database, in a file of this shape:
//
//	[{"id": "2026-11", "key": "<32 bytes, base64>"}]
type Keyring []Key

// Key is one key-encryption key.
type Key struct {
	ID  string `json:"id"`
	Key []byte `json:"key"`
}

// ErrSealed is every failure to unseal: wrong key, wrong row, changed bytes.
var ErrSealed = errors.New("cannot unseal")

// NewKeyring is a keyring with one fresh key. Production keyrings are made by
// the operator; this serves development and tests.
func NewKeyring() Keyring {
	k := make([]byte, chacha20poly1305.KeySize)
	rand.Read(k)
	return Keyring{{ID: "k1", Key: k}}
}

// ReadKeyring reads a keyring file.
func ReadKeyring(path string) (Keyring, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read keyring: %w", err)
	}
	var k Keyring
	if err := json.Unmarshal(b, &k); err != nil {
		return nil, fmt.Errorf("read keyring %s: not a JSON list of {id, key}", path)
	}
	return k, k.check()
}

func (k Keyring) check() error {
	if len(k) == 0 {
		return errors.New("keyring: at least one key is needed")
	}
	var ids []string
	for _, x := range k {
		switch {
		case x.ID == "" || strings.ContainsAny(x.ID, ". "):
			return errors.New("keyring: an id is empty or holds a dot or blank")
		case len(x.Key) != chacha20poly1305.KeySize:
			return fmt.Errorf("keyring: key %s: %d bytes are needed", x.ID, chacha20poly1305.KeySize)
		case slices.Contains(ids, x.ID):
			return fmt.Errorf("keyring: id %s is there twice", x.ID)
		}
		ids = append(ids, x.ID)
	}
	return nil
}

// A sealer derives one key per purpose from each key of the ring, so that no
// secret serves two purposes (HKDF-SHA-256, RFC 5869).
type sealer struct {
	ring Keyring
	aead map[string]cipher.AEAD
}

func newSealer(k Keyring) (sealer, error) {
	if err := k.check(); err != nil {
		return sealer{}, err
	}
	s := sealer{ring: k, aead: map[string]cipher.AEAD{}}
	for _, x := range k {
		a, err := chacha20poly1305.NewX(derive(x.Key, "seal"))
		if err != nil {
			return sealer{}, err
		}
		s.aead[x.ID] = a
	}
	return s, nil
}

func derive(key []byte, purpose string) []byte {
	d, err := hkdf.Key(sha256.New, key, nil, "patauth/v1/"+purpose, 32)
	if err != nil {
		panic(err) // only for lengths beyond 255 hashes
	}
	return d
}

// seal encrypts plain for one place, and names the key that did.
func (s sealer) seal(place, plain []byte) (key string, ct []byte) {
	k := s.ring[0]
	nonce := make([]byte, chacha20poly1305.NonceSizeX)
	rand.Read(nonce)
	return k.ID, s.aead[k.ID].Seal(nonce, nonce, plain, place)
}

func (s sealer) unseal(place []byte, key string, ct []byte) ([]byte, error) {
	const n = chacha20poly1305.NonceSizeX
	aead, ok := s.aead[key]
	if !ok || len(ct) < n {
		return nil, ErrSealed
	}
	plain, err := aead.Open(nil, ct[:n], ct[n:], place)
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}

// Seal encrypts plain for exactly one place: table, column and row. Sealed
// bytes moved to another row do not open. The form is v1.<key id>.<nonce|ct>.
func (db *DB) Seal(table, column, row string, plain []byte) []byte {
	key, ct := db.sealer.seal(place(table, column, row), plain)
	return []byte("v1." + key + "." + base64.RawStdEncoding.EncodeToString(ct))
}

// Unseal opens what Seal closed for the same place. Every failure is ErrSealed.
func (db *DB) Unseal(table, column, row string, sealed []byte) ([]byte, error) {
	parts := strings.SplitN(string(sealed), ".", 3)
	if len(parts) != 3 || parts[0] != "v1" {
		return nil, ErrSealed
	}
	ct, err := base64.RawStdEncoding.Strict().DecodeString(parts[2])
	if err != nil {
		return nil, ErrSealed
	}
	return db.sealer.unseal(place(table, column, row), parts[1], ct)
}

func place(table, column, row string) []byte {
	return []byte("patauth:" + table + ":" + column + ":" + row)
}

// Derive is a 32-byte key for one purpose.
func (db *DB) Derive(purpose string) []byte {
	return derive(db.sealer.ring[len(db.sealer.ring)-1].Key, purpose)
}

// MAC is the keyed digest of data for one purpose: the pepper of passwords,
// client secrets and activation codes. It is keyed by the oldest key of the
// ring, so that adding a key changes nothing that was stored.
func (db *DB) MAC(purpose string, data []byte) []byte {
	m := hmac.New(sha256.New, db.Derive(purpose))
	m.Write(data)
	return m.Sum(nil)
}
