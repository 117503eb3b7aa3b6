package keys_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

func TestManyReplicasMakeOneKeyPerAlgorithm(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if _, err := keys.Open(context.Background(), db); err != nil {
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
	k, err := keys.Open(context.Background(), storagetest.SQLite(t))
	require.NoError(t, err)
	var set struct{ Keys []map[string]any }
	require.NoError(t, json.Unmarshal(k.JWKS(), &set))
	require.Len(t, set.Keys, len(keys.Algorithms))
	seen := map[any]bool{}
	for _, key := range set.Keys {
		for _, member := range []string{"d", "p", "q", "dp", "dq", "qi", "k"} {
			require.NotContains(t, key, member)
		}
		require.Equal(t, "sig", key["use"])
		require.NotEmpty(t, key["kid"])
		require.Contains(t, keys.Algorithms, key["alg"])
		require.False(t, seen[key["kid"]], "each its own")
		seen[key["kid"]] = true
	}
}

func TestATokenIsTrustedByKeyKindAndSignature(t *testing.T) {
	k, err := keys.Open(context.Background(), storagetest.SQLite(t))
	require.NoError(t, err)
	var got map[string]string
	for _, alg := range keys.Algorithms {
		token, err := k.Sign(alg, "JWT", map[string]string{"sub": "x"})
		require.NoError(t, err)
		require.NoError(t, k.Verify(token, "JWT", &got))
		require.Equal(t, "x", got["sub"])
		require.ErrorIs(t, k.Verify(token, "at+jwt", &got), keys.ErrToken, "another kind")
		require.ErrorIs(t, k.Verify(token[:len(token)-4]+"AAAA", "JWT", &got), keys.ErrToken, "changed signature")
	}
	other, err := keys.Open(context.Background(), storagetest.SQLite(t))
	require.NoError(t, err)
	foreign, err := other.Sign("ES256", "JWT", map[string]string{"sub": "x"})
	require.NoError(t, err)
	// alg=none, and a token signed with the public key as an HMAC secret.
	none := "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJ4In0."
	hmac, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: k.JWKS()}, (&jose.SignerOptions{}).WithType("JWT"))
	require.NoError(t, err)
	jws, err := hmac.Sign([]byte(`{"sub":"x"}`))
	require.NoError(t, err)
	confused, err := jws.CompactSerialize()
	require.NoError(t, err)
	for _, token := range []string{"", "x", none, confused, foreign, strings.Repeat("a", 20<<10)} {
		require.ErrorIs(t, k.Verify(token, "JWT", &got), keys.ErrToken)
	}
	_, err = k.Sign("HS256", "JWT", got)
	require.ErrorIs(t, err, keys.ErrNoKey)
}

func FuzzVerify(f *testing.F) {
	db := storagetest.SQLite(f)
	k, err := keys.Open(context.Background(), db)
	if err != nil {
		f.Fatal(err)
	}
	good, err := k.Sign("ES256", "JWT", map[string]string{"sub": "x"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		var claims map[string]string
		// What is trusted is what was signed, however it is spelt.
		if k.Verify(token, "JWT", &claims) == nil && claims["sub"] != "x" {
			t.Fatalf("trusted %q", token)
		}
	})
}
