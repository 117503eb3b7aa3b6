package keys_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// small keys are made faster than most tests run.
var small = keys.Config{RSABits: 2048}

func TestManyReplicasMakeOneKeyPerAlgorithm(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if _, err := keys.Open(context.Background(), db, small); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		rows, err := db.SigningKeys(context.Background())
		require.NoError(t, err)
		require.Len(t, rows, len(keys.Algorithms))
		for _, r := range rows {
			require.True(t, strings.HasPrefix(string(r.Private), "v1."), "sealed")
		}
	})
}

func TestTheSetShowsPublicPartsOnly(t *testing.T) {
	k, err := keys.Open(context.Background(), storagetest.SQLite(t), keys.Config{})
	require.NoError(t, err)
	var set struct{ Keys []map[string]any }
	require.NoError(t, json.Unmarshal(k.JWKS(), &set))
	// RFC 7518, Sections 6.2.1 and 6.3.1; RFC 8037, Section 2.
	public := map[string][]string{"EC": {"crv", "x", "y"}, "RSA": {"n", "e"}, "OKP": {"crv", "x"}}
	var algs []string
	kids := map[any]bool{}
	for _, key := range set.Keys {
		require.ElementsMatch(t, append([]string{"kty", "kid", "alg", "use"}, public[key["kty"].(string)]...), slices.Collect(maps.Keys(key)))
		require.Equal(t, "sig", key["use"])
		algs = append(algs, key["alg"].(string))
		kids[key["kid"]] = true
		if key["kty"] == "RSA" {
			n, err := base64.RawURLEncoding.DecodeString(key["n"].(string))
			require.NoError(t, err)
			require.Len(t, n, 3072/8)
		}
	}
	require.ElementsMatch(t, keys.Algorithms, algs)
	require.Len(t, kids, len(keys.Algorithms))
	require.Equal(t, []string{"ES256", "RS256", "PS256", "EdDSA"}, keys.Algorithms)
}

// The size of RSA keys is that of the next ones: nobody's key changes under it.
func TestNewRSAKeysFollowTheSetting(t *testing.T) {
	ctx, db := context.Background(), storagetest.SQLite(t)
	sizes := func(state string) (bits []int) {
		rows, err := db.SigningKeys(ctx)
		require.NoError(t, err)
		for _, r := range rows {
			var key jose.JSONWebKey
			require.NoError(t, json.Unmarshal([]byte(r.Public), &key))
			if public, ok := key.Key.(*rsa.PublicKey); ok && r.State == state {
				bits = append(bits, public.N.BitLen())
			}
		}
		return bits
	}
	k, err := keys.Open(ctx, db, small)
	require.NoError(t, err)
	require.Equal(t, []int{2048, 2048}, sizes("active"))
	old := sign(t, k, "RS256")
	k, err = keys.Open(ctx, db, keys.Defaults())
	require.NoError(t, err)
	require.Equal(t, []int{2048, 2048}, sizes("active"), "they stay")
	require.NoError(t, keys.Prepare(ctx, db, keys.Defaults(), "RS256", storage.Now()))
	require.Equal(t, []int{3072}, sizes("pending"))
	require.NoError(t, keys.Replace(ctx, db, keys.Defaults(), "PS256", storage.Now()))
	require.NoError(t, keys.Compromise(ctx, db, small, kids(t, db, "PS256", "active")[0], storage.Now()))
	require.Equal(t, []int{2048, 2048}, sizes("active"), "RS256, and PS256 made small again")
	require.NoError(t, k.Refresh(ctx))
	require.NoError(t, k.Verify(old, "JWT", &map[string]string{}))
	for _, bad := range []int{0, 1024, 2047, 4096, -1} {
		require.ErrorContains(t, keys.Config{RSABits: bad}.Validate(), "keys.rsa_bits: must be 2048 or 3072")
	}
	require.NoError(t, small.Validate())
	require.NoError(t, keys.Defaults().Validate())
}

func BenchmarkSign(b *testing.B) {
	for _, bits := range []int{2048, 3072} {
		k, err := keys.Open(context.Background(), storagetest.SQLite(b), keys.Config{RSABits: bits})
		if err != nil {
			b.Fatal(err)
		}
		for _, alg := range keys.Algorithms {
			b.Run(fmt.Sprintf("%s/%d", alg, bits), func(b *testing.B) {
				for b.Loop() {
					if _, err := k.Sign(alg, "JWT", map[string]string{"sub": "p"}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// An upgrade brings algorithms: what the previous release made goes on signing.
func TestAnAlgorithmWithoutKeyGetsOneAtOnce(t *testing.T) {
	ctx, db := context.Background(), storagetest.SQLite(t)
	k, err := keys.Open(ctx, db, small)
	require.NoError(t, err)
	token := sign(t, k, "ES256")
	require.NoError(t, keys.Compromise(ctx, db, small, kids(t, db, "EdDSA", "active")[0], storage.Now()))
	require.NoError(t, db.EndSigningKey(ctx, kids(t, db, "EdDSA", "active")[0], "active", "retired", storage.Now()))
	require.NoError(t, k.Refresh(ctx))
	require.NoError(t, k.Verify(sign(t, k, "EdDSA"), "JWT", &map[string]string{}))
	require.NoError(t, k.Verify(token, "JWT", &map[string]string{}))
}

// What a later release may have written stops no start, and is said once.
func TestUnknownRowsAreSkipped(t *testing.T) {
	ctx, db := context.Background(), storagetest.SQLite(t)
	_, err := keys.Open(ctx, db, small)
	require.NoError(t, err)
	for _, row := range []storage.SigningKey{
		{ID: "new-alg", Alg: "ML-DSA-65", State: "active", Public: "?", Private: []byte{}, CreatedAt: storage.Now()},
		{ID: "new-state", Alg: "ES256", State: "suspended", Public: "?", Private: []byte{}, CreatedAt: storage.Now()},
	} {
		require.NoError(t, db.AddSigningKey(ctx, &row))
	}
	var log bytes.Buffer
	was := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(was)
	k, err := keys.Open(ctx, db, small)
	require.NoError(t, err)
	require.NoError(t, k.Refresh(ctx))
	require.NoError(t, keys.Rotate(ctx, db, small, storage.Now()))
	require.Equal(t, 1, strings.Count(log.String(), "kid=new-alg"))
	require.Equal(t, 1, strings.Count(log.String(), "kid=new-state"))
	require.NotContains(t, string(k.JWKS()), "new-")
	require.NoError(t, k.Verify(sign(t, k, "ES256"), "JWT", &map[string]string{}))
}

func TestATokenIsTrustedByKeyKindAndSignature(t *testing.T) {
	db := storagetest.SQLite(t)
	k, err := keys.Open(context.Background(), db, small)
	require.NoError(t, err)
	var got map[string]string
	for _, alg := range keys.Algorithms {
		token := sign(t, k, alg)
		require.NoError(t, k.Verify(token, "JWT", &got))
		require.Equal(t, "x", got["sub"])
		require.ErrorIs(t, k.Verify(token, "at+jwt", &got), keys.ErrToken, "another kind")
		require.ErrorIs(t, k.Verify(token[:len(token)-8]+"AAAAAAAA", "JWT", &got), keys.ErrToken, "changed signature")
	}
	other, err := keys.Open(context.Background(), storagetest.SQLite(t), small)
	require.NoError(t, err)
	require.ErrorIs(t, k.Verify(sign(t, other, "ES256"), "JWT", &got), keys.ErrToken, "foreign")
	for name, token := range forgeries(t, db, k) {
		require.ErrorIs(t, k.Verify(token, "JWT", &got), keys.ErrToken, name)
	}
	for _, alg := range []string{"HS256", "none", "RS384", ""} {
		_, err = k.Sign(alg, "JWT", got)
		require.ErrorIs(t, err, keys.ErrNoKey)
	}
}

// forgeries are tokens that some verifier has trusted (RFC 8725, Section 2).
func forgeries(t testing.TB, db *storage.DB, k *keys.Keys) map[string]string {
	t.Helper()
	out := map[string]string{
		"empty": "", "no token": "x", "large": strings.Repeat("a", 20<<10),
		"none": "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJ5In0.",
	}
	forge := func(name string, key jose.SigningKey, more *jose.SignerOptions) {
		signer, err := jose.NewSigner(key, more.WithType("JWT"))
		require.NoError(t, err)
		jws, err := signer.Sign([]byte(`{"sub":"y"}`))
		require.NoError(t, err)
		out[name], err = jws.CompactSerialize()
		require.NoError(t, err)
	}
	rows, err := db.SigningKeys(context.Background())
	require.NoError(t, err)
	_, mine, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	for _, r := range rows {
		der, err := db.Unseal("signing_key", "private", r.ID, r.Private)
		require.NoError(t, err)
		private, err := x509.ParsePKCS8PrivateKey(der)
		require.NoError(t, err)
		under := func(key any) jose.JSONWebKey { return jose.JSONWebKey{Key: key, KeyID: r.ID} }
		// Our own key, with an algorithm that it is not for.
		for _, alg := range []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.PS256, jose.PS512} {
			if _, isRSA := private.(*rsa.PrivateKey); isRSA && string(alg) != r.Alg {
				forge(r.Alg+" key, "+string(alg), jose.SigningKey{Algorithm: alg, Key: under(private)}, &jose.SignerOptions{})
			}
		}
		forge(r.Alg+" public key as a secret", jose.SigningKey{Algorithm: jose.HS256, Key: under([]byte(r.Public))}, &jose.SignerOptions{})
		forge(r.Alg+" kid, another's EdDSA key", jose.SigningKey{Algorithm: jose.EdDSA, Key: under(mine)}, &jose.SignerOptions{})
		embedded := (&jose.SignerOptions{EmbedJWK: true}).WithHeader("kid", r.ID)
		forge(r.Alg+" kid, another's key embedded", jose.SigningKey{Algorithm: jose.EdDSA, Key: mine}, embedded)
	}
	forge("another's key embedded", jose.SigningKey{Algorithm: jose.EdDSA, Key: mine}, &jose.SignerOptions{EmbedJWK: true})
	forge("another's key at a URL", jose.SigningKey{Algorithm: jose.EdDSA, Key: mine}, (&jose.SignerOptions{}).WithHeader("jku", "https://attacker.example/jwks"))
	return out
}

func FuzzVerify(f *testing.F) {
	db := storagetest.SQLite(f)
	k, err := keys.Open(context.Background(), db, small)
	require.NoError(f, err)
	for _, alg := range keys.Algorithms {
		f.Add(sign(f, k, alg))
	}
	for _, token := range forgeries(f, db, k) {
		f.Add(token)
	}
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		var claims map[string]string
		// What is trusted is what was signed, however it is spelt.
		if k.Verify(token, "JWT", &claims) == nil && claims["sub"] != "x" {
			t.Fatalf("trusted %q", token)
		}
	})
}

func sign(t testing.TB, k *keys.Keys, alg string) string {
	t.Helper()
	token, err := k.Sign(alg, "JWT", map[string]string{"sub": "x"})
	require.NoError(t, err)
	return token
}

// kids lists the keys of alg in a state, by age.
func kids(t testing.TB, db *storage.DB, alg, state string) []string {
	t.Helper()
	rows, err := db.SigningKeys(context.Background())
	require.NoError(t, err)
	out := []string{}
	for _, r := range rows {
		if r.Alg == alg && r.State == state {
			out = append(out, r.ID)
		}
	}
	return out
}
