package tasks

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRedisURLs(t *testing.T) {
	for _, good := range []string{"redis://localhost:6379", "rediss://u:p@host:6379/1", "redis-sentinel://a:1,b:2?master=m", "redis://a:1,redis://b:2"} {
		_, err := ParseRedis(good)
		require.NoError(t, err, good)
	}
	for _, bad := range []string{"", "localhost:6379", "http://u:hunter2@x", "redis://a:1,http://u:hunter2@b"} {
		_, err := ParseRedis(bad)
		require.Error(t, err, bad)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

// FuzzParseRedis looks for a URL that is not refused but cannot be connected to,
// which would panic at start-up.
func FuzzParseRedis(f *testing.F) {
	for _, s := range []string{"redis://localhost:6379", "rediss://u:p@host:6379/1", "redis-sentinel://a:1,b:2?master=m", "redis://a:1,redis://b:2", "redis-socket:///x", ",", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, url string) {
		r, err := ParseRedis(url)
		if (err == nil) != (r.opt != nil) {
			t.Fatalf("%q: %v, %v", url, r.opt, err)
		}
	})
}
