package oauth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

// sized is an RSA key of so many bits and that exponent, as far as a JWK shows.
func sized(bits uint, e int) jose.JSONWebKey {
	n := new(big.Int).Lsh(big.NewInt(1), bits-1)
	return jose.JSONWebKey{Key: &rsa.PublicKey{N: n.SetBit(n, 0, 1), E: e}}
}

func TestParseJWKS(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	ec, ed := newKey(t, jose.ES256, "ec"), newKey(t, jose.EdDSA, "ed")
	public := func(change map[string]any) map[string]any {
		raw, err := json.Marshal(ec.Public())
		require.NoError(t, err)
		var members map[string]any
		require.NoError(t, json.Unmarshal(raw, &members))
		for k, v := range change {
			members[k] = v
			if v == nil {
				delete(members, k)
			}
		}
		return members
	}
	set := func(keys ...any) string {
		raw, err := json.Marshal(map[string]any{"keys": keys})
		require.NoError(t, err)
		return string(raw)
	}
	enc := ec.Public()
	enc.Use = "enc"
	type members = map[string]any
	for _, c := range []struct {
		name, raw string
		usable    int // -1 is refused
	}{
		{"every kind", set(ec.Public(), ed.Public(), sized(2048, 65537), sized(4096, 3)), 4},
		{"none", `{"keys":[]}`, 0},
		{"other members", `{"keys":[],"more":1}`, 0},
		{"without use", set(public(members{"use": nil})), 1},
		{"for encryption", set(enc, ec.Public()), 1},
		{"to encrypt only", set(public(members{"key_ops": []string{"encrypt"}})), 0},
		{"to verify", set(public(members{"key_ops": []string{"verify"}})), 1},
		{"small RSA", set(sized(2047, 65537), sized(1024, 65537), sized(1, 65537)), 0},
		{"huge RSA", set(sized(16384, 65537)), 0},
		{"even exponent", set(sized(2048, 65536), sized(2048, 1)), 0},
		{"another curve", set(jose.JSONWebKey{Key: &p384.PublicKey}), 0},
		{"a point off the curve", set(public(members{"x": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"})), 0},
		{"unknown kty", set(members{"kty": "XYZ"}, ec.Public()), 1},
		{"no kty", set(public(members{"kty": nil})), 0},
		{"kid is a number", set(public(members{"kid": 1})), 0},
		{"null", set(nil), 0},
		{"a certificate that is none", set(public(members{"x5c": []string{"x"}, "x5u": "::", "x5t": "!"})), 1},
		{"32 keys", set(many(ec, 32)...), 32},
		{"33 keys", set(many(ec, 33)...), -1},
		{"private EC", set(ed.Public(), ec), -1},
		{"private Ed25519", set(ed), -1},
		{"private RSA", set(newKey(t, jose.RS256, "")), -1},
		{"private for encryption", set(public(members{"d": "AA", "use": "enc"})), -1},
		{"private of unknown kty", set(members{"kty": "XYZ", "d": "AA"}), -1},
		{"symmetric", set(members{"kty": "oct", "k": "AAAA"}), -1},
		{"no keys", `{}`, -1},
		{"keys is null", `{"keys":null}`, -1},
		{"keys is an object", `{"keys":{}}`, -1},
		{"keys are text", `{"keys":["x"]}`, -1},
		{"keys twice", `{"keys":[],"keys":[]}`, -1},
		{"Keys", `{"Keys":[]}`, -1},
		{"a list", `[]`, -1},
		{"deep", strings.Repeat("[", 100000), -1},
		{"nothing", ``, -1},
		{"more behind", `{"keys":[]}{}`, -1},
	} {
		got, err := parseJWKS([]byte(c.raw))
		if c.usable < 0 {
			require.Error(t, err, c.name)
			require.Empty(t, got.Keys, c.name)
			continue
		}
		require.NoError(t, err, c.name)
		require.Len(t, got.Keys, c.usable, c.name)
	}
}

func many(key jose.JSONWebKey, n int) []any {
	out := make([]any, n)
	for i := range out {
		out[i] = key.Public()
	}
	return out
}

func FuzzJWKS(f *testing.F) {
	for _, alg := range assertionAlgs {
		f.Add(setOf(f, newKey(f, alg, "k1")))
	}
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AA"},{"kty":"EC","crv":"P-384"},{"kty":"OKP","crv":"X25519","x":"AA","key_ops":[]}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		set, err := parseJWKS(raw)
		if err != nil {
			require.Empty(t, set.Keys)
			return
		}
		require.LessOrEqual(t, len(set.Keys), maxKeys)
		for _, k := range set.Keys {
			switch key := k.Key.(type) {
			case *rsa.PublicKey:
				require.GreaterOrEqual(t, key.N.BitLen(), minRSA)
			case *ecdsa.PublicKey:
				require.Equal(t, elliptic.P256(), key.Curve)
			case ed25519.PublicKey:
				require.Len(t, key, ed25519.PublicKeySize)
			default:
				t.Fatalf("a key of type %T", key)
			}
			require.Contains(t, []string{"", "sig"}, k.Use)
			require.Empty(t, k.Certificates)
		}
		again, err := json.Marshal(set)
		require.NoError(t, err)
		back, err := parseJWKS(again)
		require.NoError(t, err)
		require.Len(t, back.Keys, len(set.Keys))
	})
}
