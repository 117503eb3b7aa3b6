package storage

import (
	"crypto/rand"
	"crypto/sha256"
	"database/sql/driver"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// NewID is a random public row id: 26 characters of base32, 130 bits.
func NewID() string { return rand.Text() }

// NewHandle is a secret of 256 random bits that a client will present, as
// prefix and 43 characters of base64url. Only its Digest is stored.
func NewHandle(prefix string) string {
	var b [32]byte
	rand.Read(b[:])
	return prefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// Digest is the key under which a presented handle is looked up. A handle has
// 256 bits of entropy, so a plain SHA-256 needs no salt and no pepper, and the
// lookup by digest leaves no comparison to time.
func Digest(handle string) []byte {
	d := sha256.Sum256([]byte(handle))
	return d[:]
}

// Words is a set of space-free words kept as one space-separated text, as
// OAuth writes scopes (RFC 6749, Section 3.3).
type Words []string

// Has reports whether every one of words is in the set.
func (w Words) Has(words ...string) bool {
	for _, x := range words {
		if !slices.Contains(w, x) {
			return false
		}
	}
	return true
}

// Value writes the set as text.
func (w Words) Value() (driver.Value, error) { return strings.Join(w, " "), nil }

// Scan reads the set from text.
func (w *Words) Scan(src any) error {
	s, err := text(src)
	*w = strings.Fields(s)
	return err
}

// JSON keeps any value as one JSON text column.
type JSON[T any] struct{ V T }

// Value writes the value as JSON text.
func (j JSON[T]) Value() (driver.Value, error) {
	b, err := json.Marshal(j.V)
	return string(b), err
}

// Scan reads the value from JSON text.
func (j *JSON[T]) Scan(src any) error {
	s, err := text(src)
	if err != nil || s == "" {
		return err
	}
	return json.Unmarshal([]byte(s), &j.V)
}

func text(src any) (string, error) {
	switch v := src.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case []byte:
		return string(v), nil
	}
	return "", fmt.Errorf("cannot read %T as text", src)
}
