package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/storage"
)

// keysIn are the keys of a list in a state, by algorithm.
func keysIn(all []keyView, state string) map[string]keyView {
	out := map[string]keyView{}
	for _, k := range all {
		if k.State == state {
			out[k.Alg] = k
		}
	}
	return out
}

func TestKeysOfTheOperator(t *testing.T) {
	env := sqliteEnv(t)
	must[any](t, env, "migrate")
	require.Empty(t, must[[]keyView](t, env, "key", "list"))
	made := keysIn(must[[]keyView](t, env, "key", "rotate"), "active")
	require.Len(t, made, len(keys.Algorithms), "what is missing signs at once")
	for _, k := range made {
		require.Equal(t, "retired", k.Next)
		require.Equal(t, k.Since.Add(30*24*time.Hour), *k.NextAt)
	}

	waiting := must[[]keyView](t, env, "key", "rotate", "--alg", "ES256", "--alg", "EdDSA", "--alg", "ES256")
	require.Len(t, waiting, 4, "of two algorithms")
	next := keysIn(waiting, "pending")
	require.Len(t, next, 2)
	require.Equal(t, "active", next["ES256"].Next)
	require.Equal(t, next["ES256"].Since.Add(24*time.Hour), *next["ES256"].NextAt)
	require.Equal(t, waiting, must[[]keyView](t, env, "key", "rotate", "--alg", "ES256", "--alg", "EdDSA"), "it is waiting already")
	out, err := patauth(t, env, "key", "list")
	require.NoError(t, err)
	require.Regexp(t, next["ES256"].ID+` +ES256 +pending +\S+ +active 2\d{3}-`, out)

	_, err = patauth(t, env, "key", "retire", made["ES256"].ID)
	require.ErrorContains(t, err, "signs: no successor before "+next["ES256"].NextAt.Format(time.RFC3339))
	_, err = patauth(t, env, "key", "retire", made["PS256"].ID)
	require.ErrorContains(t, err, "no successor for PS256 is waiting; patauth key rotate makes one")

	now := must[[]keyView](t, env, "key", "rotate", "--alg", "ES256", "--now")
	require.Equal(t, next["ES256"].ID, keysIn(now, "active")["ES256"].ID, "the one that relying parties may know")
	require.Equal(t, made["ES256"].ID, keysIn(now, "retired")["ES256"].ID)
	require.Equal(t, "gone", keysIn(now, "retired")["ES256"].Next)
	out, err = patauth(t, env, "key", "rotate", "--alg", "ES256", "--now")
	require.NoError(t, err)
	require.Contains(t, out, "fetch it again on an unknown kid")

	all := must[[]keyView](t, env, "key", "retire", made["RS256"].ID, "--compromised")
	require.Equal(t, made["RS256"].ID, keysIn(all, "compromised")["RS256"].ID)
	require.NotEqual(t, made["RS256"].ID, keysIn(all, "active")["RS256"].ID)
	all = must[[]keyView](t, env, "key", "retire", next["EdDSA"].ID)
	require.Equal(t, next["EdDSA"].ID, keysIn(all, "retired")["EdDSA"].ID)
	_, err = patauth(t, env, "key", "retire", next["EdDSA"].ID)
	require.ErrorIs(t, err, keys.ErrEnded)
	_, err = patauth(t, env, "key", "retire", "nobody")
	require.ErrorIs(t, err, storage.ErrNotFound)
	_, err = patauth(t, env, "key", "retire")
	require.Error(t, err)
	_, err = patauth(t, env, "key", "rotate", "--alg", "HS256")
	require.ErrorContains(t, err, "--alg: must be of ES256, RS256, PS256, EdDSA")
}

// What the operator changes is what relying parties are shown within 30 s.
func TestDevPicksARotationUp(t *testing.T) {
	data := t.TempDir()
	line, _ := inProcess(t, data)
	published := func() (kids []string) {
		r, err := http.Get(line.Issuer + "/.well-known/jwks.json")
		require.NoError(t, err)
		defer r.Body.Close()
		var set struct{ Keys []struct{ Kid string } }
		require.NoError(t, json.NewDecoder(r.Body).Decode(&set))
		for _, k := range set.Keys {
			kids = append(kids, k.Kid)
		}
		return kids
	}
	require.Len(t, published(), len(keys.Algorithms))
	was := keysIn(must[[]keyView](t, nil, "key", "list", "--data", data), "active")["ES256"].ID
	all := must[[]keyView](t, nil, "key", "retire", was, "--compromised", "--data", data)
	next := keysIn(all, "active")["ES256"].ID
	require.Eventually(t, func() bool {
		kids := published()
		return slices.Contains(kids, next) && !slices.Contains(kids, was)
	}, 35*time.Second, 500*time.Millisecond)
}
