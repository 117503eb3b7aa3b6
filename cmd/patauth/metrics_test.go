package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// A counter that is there only after the first event hides that event from an alarm
// that looks for a rise. Those whose labels come with a request have no series
// before it.
func TestCountersBeginWithZero(t *testing.T) {
	later := map[string]bool{
		"patauth_http_requests_total": true, "patauth_http_request_duration_seconds": true, // by route
		"patauth_kafka_lag": true, // by partition
	}
	families, err := prometheus.DefaultGatherer.Gather()
	require.NoError(t, err)
	there := map[string]bool{}
	for _, f := range families {
		there[f.GetName()] = true
	}
	found := 0
	err = filepath.WalkDir("../..", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Base(p) != "metrics.go" {
			return err
		}
		b, err := os.ReadFile(p)
		for _, m := range regexp.MustCompile(`promauto\.New\w+\(prometheus\.\w+Opts\{\s*Name:\s+"(\w+)"`).FindAllStringSubmatch(string(b), -1) {
			found++
			require.True(t, there[m[1]] || later[m[1]], "%s: %s", strings.TrimPrefix(p, "../../"), m[1])
		}
		return err
	})
	require.NoError(t, err)
	require.Greater(t, found, 15)
}
