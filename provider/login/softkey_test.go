package login

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

// The flags of authenticator data (WebAuthn, Section 6.1).
const (
	flagUP = 0x01
	flagUV = 0x04
	flagBE = 0x08
	flagBS = 0x10
	flagAT = 0x40
)

// softKey is an authenticator in software: one ES256 key, attestation "none".
type softKey struct {
	private      *ecdsa.PrivateKey
	id, handle   []byte
	origin, rpID string
	kind         string // of the client data; "" is the right one
	cross        bool
	flags        byte
	count, step  uint32
}

func newKey(origin string) *softKey {
	private, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	id := make([]byte, 32)
	rand.Read(id)
	u, _ := url.Parse(origin)
	return &softKey{private: private, id: id, origin: origin, rpID: u.Hostname(), flags: flagUP | flagUV, step: 1}
}

type keyOptions struct {
	Challenge string
	User      struct{ ID string }
}

func (k *softKey) clientData(t *testing.T, options, kind string) (keyOptions, []byte) {
	t.Helper()
	var o keyOptions
	require.NoError(t, json.Unmarshal([]byte(options), &o))
	if k.kind != "" {
		kind = k.kind
	}
	data, err := json.Marshal(map[string]any{"type": kind, "challenge": o.Challenge, "origin": k.origin, "crossOrigin": k.cross})
	require.NoError(t, err)
	return o, data
}

func (k *softKey) authData(flags byte) []byte {
	hash := sha256.Sum256([]byte(k.rpID))
	k.count += k.step
	return binary.BigEndian.AppendUint32(append(hash[:], flags), k.count)
}

// create answers navigator.credentials.create.
func (k *softKey) create(t *testing.T, options string) string {
	t.Helper()
	o, client := k.clientData(t, options, "webauthn.create")
	var err error
	k.handle, err = base64.RawURLEncoding.DecodeString(o.User.ID)
	require.NoError(t, err)
	point, err := k.private.PublicKey.Bytes()
	require.NoError(t, err)
	auth := append(k.authData(k.flags|flagAT), make([]byte, 16)...)
	auth = binary.BigEndian.AppendUint16(auth, uint16(len(k.id)))
	auth = append(auth, k.id...)
	// COSE_Key {1: 2 (EC2), 3: -7 (ES256), -1: 1 (P-256), -2: x, -3: y}
	auth = append(auth, 0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20)
	auth = append(auth, point[1:33]...)
	auth = append(append(auth, 0x22, 0x58, 0x20), point[33:]...)
	// {"fmt": "none", "attStmt": {}, "authData": bytes}
	object := append([]byte{0xa3, 0x63}, "fmt"...)
	object = append(append(object, 0x64), "none"...)
	object = append(append(object, 0x67), "attStmt"...)
	object = append(append(object, 0xa0, 0x68), "authData"...)
	object = append(binary.BigEndian.AppendUint16(append(object, 0x59), uint16(len(auth))), auth...)
	return k.answer(t, map[string]any{"clientDataJSON": b64(client), "attestationObject": b64(object)})
}

// get answers navigator.credentials.get.
func (k *softKey) get(t *testing.T, options string) string {
	t.Helper()
	_, client := k.clientData(t, options, "webauthn.get")
	auth := k.authData(k.flags)
	hash := sha256.Sum256(client)
	sum := sha256.Sum256(append(append([]byte{}, auth...), hash[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, k.private, sum[:])
	require.NoError(t, err)
	return k.answer(t, map[string]any{
		"clientDataJSON": b64(client), "authenticatorData": b64(auth), "signature": b64(signature), "userHandle": b64(k.handle),
	})
}

func (k *softKey) answer(t *testing.T, response map[string]any) string {
	t.Helper()
	b, err := json.Marshal(map[string]any{
		"id": b64(k.id), "rawId": b64(k.id), "type": "public-key", "response": response, "clientExtensionResults": map[string]any{},
	})
	require.NoError(t, err)
	return string(b)
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
