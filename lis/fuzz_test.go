package lis

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// decodes is what holds for every record whatever its content: an event or a
// reason, nothing that a database refuses, and always a name for the inbox.
func decodes(t *testing.T, r Record) {
	m, err := Decode(r, Reading{Training: true}, testNow)
	require.NotEmpty(t, m.Source)
	require.NotEmpty(t, m.ID)
	require.LessOrEqual(t, len(m.ID), 200)
	if err != nil {
		refusal, ok := err.(*Refusal)
		require.True(t, ok)
		require.NotEmpty(t, refusal.Reason)
		return
	}
	require.NotEmpty(t, m.Events)
	for i := range m.Events {
		e := &m.Events[i]
		require.NotEmpty(t, e.Subject)
		require.NoError(t, m.sane())
		for _, f := range newRegistry(testAuthorities).resolve(e, m.Source) {
			require.False(t, strings.ContainsRune(f.subject.Value+e.Name.Value.Family+e.Name.Value.Given, 0))
			versionOf(e, r)
		}
	}
}

func FuzzHL7v2(f *testing.F) {
	files, err := filepath.Glob("testdata/hl7v2/*/*.hl7")
	require.NoError(f, err)
	for _, file := range files {
		b, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { decodes(t, hl7Record(b)) })
}

func FuzzFHIR(f *testing.F) {
	for _, s := range []string{
		`{"resourceType":"Patient","identifier":[{"system":"urn:oid:2.999.1","value":"100"}],"name":[{"family":"A","given":["B"]}],"birthDate":"1980-02-29"}`,
		`{"resourceType":"Bundle","type":"history","entry":[{"request":{"method":"DELETE","url":"Patient?identifier=urn:oid:2.999.1|200"}}]}`,
		`{"resourceType":"Patient","identifier":[{"value":"1"}],"active":false,"link":[{"type":"replaced-by","other":{"identifier":{"value":"2"}}}]}`,
		`[`, `null`, `{"resourceType":"Patient","identifier":null}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) { decodes(t, fhirRecord(b)) })
}

func FuzzJSON(f *testing.F) {
	for _, s := range []string{
		`{"identifiers":[{"system":"urn:oid:2.999.1","value":"100"}],"name":{"family":"A","given":["B"]},"birthDate":"1980-02-29","sex":null}`,
		`{"specversion":"1.0","id":"1","source":"s","type":"org.lis.patient.deleted.v1","data":{"identifiers":[{"namespace":"LAB1","value":"1"}]}}`,
		`{"identifiers":[{"value":"\u0000"}]}`, "\x00\x00\x00\x00\x01{}", `null`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		decodes(t, binary("org.lis.patient.updated.v1", string(b)))
		decodes(t, structured(string(b)))
	})
}
