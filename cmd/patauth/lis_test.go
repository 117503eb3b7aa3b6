package main

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Messages go from files over the broker to the records, and broken ones to the
// dead letter topic, in a running `patauth dev`.
func TestTheLabSpeaks(t *testing.T) {
	bin, d := binary(t), dev{data: t.TempDir()}
	d.run(t, bin)
	broken := filepath.Join(t.TempDir(), "broken.hl7")
	require.NoError(t, os.WriteFile(broken, []byte("PID|this is no message"), 0o600))
	folder := "../../lis/testdata/"
	out, err := exec.Command(bin, "lis", "publish", "--data", d.data,
		folder+"hl7v2/derived/pid-02-namespace-only.hl7", folder+"hl7v2/derived/mrg-01-simple.hl7",
		folder+"fhir/derived/patient-cases.ndjson", broken).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Regexp(t, `^(\d+) of \d+ messages are on lis\.patient\.v1\n$`, string(out))

	metric := func(text, name string) string {
		m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\d+)$`).FindStringSubmatch(text)
		if m == nil {
			return "0"
		}
		return m[1]
	}
	var text string
	require.Eventually(t, func() bool {
		resp, err := http.Get(d.Internal + "/metrics")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		text = string(b)
		quarantined := metric(text, `patauth_lis_events_total{outcome="quarantined"}`)
		return err == nil && quarantined != "0" && metric(text, `patauth_tasks_total{outcome="ok",type="dead_letter"}`) == quarantined
	}, 30*time.Second, 100*time.Millisecond)
	require.NotEqual(t, "0", metric(text, `patauth_lis_events_total{outcome="applied"}`))

	log, err := os.ReadFile(filepath.Join(d.data, "test.log"))
	require.NoError(t, err)
	require.Contains(t, string(log), "lis sync: batch applied")
	for _, word := range []string{"MUSTER", "ANNA", "1980-02-29", "19800229"} {
		require.NotContains(t, strings.ToUpper(string(log)), word, "nothing of a message is logged")
	}
}
