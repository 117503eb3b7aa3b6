package lis

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
)

// testNow is when the messages of the corpus are read.
var testNow = time.Date(2025, 6, 1, 12, 0, 0, 0, time.UTC)

// testAuthorities are those of the derived messages.
var testAuthorities = []storage.LabAuthority{
	{ID: "lab1", Name: "Lab One", OID: "2.999.1", Namespaces: []string{"LAB1"}, LinkKey: true, Active: true},
	{ID: "other", Name: "Other Lab", OID: "2.999.2", Namespaces: []string{"OTHER"}, LinkKey: true, Active: true},
}

func hl7Record(value []byte) Record {
	return Record{Topic: "lis.patient.v1", Value: value, Timestamp: testNow, Headers: []Header{{"content-type", []byte("application/hl7-v2")}}}
}

func fhirRecord(value []byte) Record {
	return Record{Topic: "lis.patient.v1", Value: value, Timestamp: testNow, Headers: []Header{{"content-type", []byte("application/fhir+json; fhirVersion=4.0")}}}
}

// verdict is what a record alone, with the registry, comes to: "apply",
// "review:reason", …
func verdict(t *testing.T, r Record, how Reading) (string, Message) {
	t.Helper()
	m, err := Decode(r, how, testNow)
	if err != nil {
		refusal, ok := err.(*Refusal)
		require.True(t, ok, "every error is a refusal: %v", err)
		require.NotEmpty(t, refusal.Reason)
		return string(refusal.Result) + ":" + refusal.Reason, m
	}
	out := string(Apply)
	for i := range m.Events {
		e := &m.Events[i]
		if len(e.Flags) > 0 {
			out = string(Review) + ":" + e.Flags[0]
		}
		for _, f := range newRegistry(testAuthorities).resolve(e, m.Source) {
			if f.reason != "" {
				out = string(Review) + ":" + f.reason
			}
		}
	}
	return out, m
}

// meanings spells out the words of EXPECTED.csv that are not a verdict, and
// says how an open choice was decided.
var meanings = map[string]struct {
	verdict string
	check   func(*testing.T, PatientEvent)
}{
	"dlq:batch-or-split":          {"quarantine:multiple", nil},
	"apply-or-dlq:charset":        {"apply", func(t *testing.T, e PatientEvent) { require.Equal(t, Name{"李", "小龙"}, e.Name.Value) }},
	"apply:NFC-equal-to-enc-03":   {"apply", func(t *testing.T, e PatientEvent) { require.Equal(t, Name{"MÜLLER", "JOSÉ"}, e.Name.Value) }},
	"apply:name-delete-or-review": {"apply", func(t *testing.T, e PatientEvent) { require.True(t, e.Name.Clear) }},
	"apply:not-equal-12345":       {"apply", func(t *testing.T, e PatientEvent) { require.Equal(t, "0012345", e.Subject[0].Value) }},
	"apply:mapped-or-unknown": {"apply", func(t *testing.T, e PatientEvent) {
		require.Contains(t, []string{"male", "female", "other", "unknown"}, e.Sex.Value)
	}},
	`apply:family=O&B^R~I|E\N;given=ANNA`: {"apply", func(t *testing.T, e PatientEvent) {
		require.Equal(t, Name{`O&B^R~I|E\N`, "ANNA"}, e.Name.Value)
	}},
	`apply:family=O\T\BRIEN`: {"apply", func(t *testing.T, e PatientEvent) { require.Equal(t, `O\T\BRIEN`, e.Name.Value.Family) }},
	"dob:delete":             {"apply", func(t *testing.T, e PatientEvent) { require.True(t, e.BirthDate.Clear) }},
	"dob:1980 precision=year": {"apply", func(t *testing.T, e PatientEvent) {
		require.Equal(t, "1980 year", e.BirthDate.Value.Text+" "+e.BirthDate.Value.Precision)
	}},
	"dob:1980-02 precision=month": {"apply", func(t *testing.T, e PatientEvent) {
		require.Equal(t, "1980-02 month", e.BirthDate.Value.Text+" "+e.BirthDate.Value.Precision)
	}},
	"dob:1980-02-29": {"apply", func(t *testing.T, e PatientEvent) { require.Equal(t, "1980-02-29", e.BirthDate.Value.Text) }},
	"dob:1980-02-29 local date, do not shift zone": {"apply", func(t *testing.T, e PatientEvent) {
		require.Equal(t, "1980-02-29", e.BirthDate.Value.Text)
	}},
	"deceased":                {"apply", func(t *testing.T, e PatientEvent) { require.Equal(t, set(true), e.Deceased) }},
	"no change":               {"apply", func(t *testing.T, e PatientEvent) { require.False(t, e.Deceased.Said) }},
	"merge 100->200":          {"apply", two(Merge)},
	"rename 100->200":         {"apply", two(Rename)},
	"unlink 100,200":          {"apply", two(Unmerge)},
	"link 100,200 (no merge)": {"apply", two(LinkHint)},
}

func two(kind Kind) func(*testing.T, PatientEvent) {
	return func(t *testing.T, e PatientEvent) {
		require.Equal(t, kind, e.Kind)
		require.Equal(t, "100 200", e.Subject[0].Value+" "+e.Other[0].Value)
	}
}

func TestDerivedMessagesMeetExpectations(t *testing.T) {
	f, err := os.Open("testdata/hl7v2/derived/EXPECTED.csv")
	require.NoError(t, err)
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	require.NoError(t, err)
	seen := 0
	for _, row := range rows[1:] {
		file, expected := row[0], row[1]
		if strings.Contains(file, "/seq-") {
			continue // sequences: apply_test.go
		}
		seen++
		t.Run(strings.TrimSuffix(filepath.Base(file), ".hl7"), func(t *testing.T) {
			value, err := os.ReadFile("testdata/" + file)
			require.NoError(t, err)
			got, m := verdict(t, hl7Record(value), Reading{})
			want := strings.Replace(expected, "dlq:", "quarantine:", 1)
			if meaning, ok := meanings[expected]; ok {
				want = meaning.verdict
				if meaning.check != nil {
					require.Len(t, m.Events, 1)
					meaning.check(t, m.Events[0])
				}
			}
			require.Equal(t, want, got)
		})
	}
	require.Equal(t, 66, seen)
}

// fhirMeanings do the same for the derived Patients.
var fhirMeanings = map[string]struct {
	verdict string
	check   func(*testing.T, []PatientEvent)
}{
	"no merge": {"apply", func(t *testing.T, e []PatientEvent) { require.Len(t, e, 1); require.Equal(t, Upsert, e[0].Kind) }},
	"ignore":   {"apply", func(t *testing.T, e []PatientEvent) { require.Len(t, e, 1); require.Equal(t, Upsert, e[0].Kind) }},
	"suspend":  {"apply", func(t *testing.T, e []PatientEvent) { require.Equal(t, set(false), e[0].Active) }},
	"alive":    {"apply", func(t *testing.T, e []PatientEvent) { require.Equal(t, set(false), e[0].Deceased) }},
	"deceased": {"apply", func(t *testing.T, e []PatientEvent) { require.Equal(t, set(true), e[0].Deceased) }},
	"dob null": {"apply", func(t *testing.T, e []PatientEvent) { require.False(t, e[0].BirthDate.Said) }},
	"current=100": {"apply", func(t *testing.T, e []PatientEvent) {
		keys, _ := newRegistry(testAuthorities).keys(e[0].Subject, "x", false)
		require.Equal(t, []storage.LabKey{{Authority: "lab1", Value: "100"}}, keys)
	}},
	"apply (ignore unknown) or reject: decide once": {"apply", nil},
	"minor: no self-service link": {"apply", func(t *testing.T, e []PatientEvent) {
		r := storage.LabIdentity{Status: storage.LabActive, BirthDate: e[0].BirthDate.Value.Text, BirthPrecision: "day"}
		require.False(t, r.Linkable(testNow))
	}},
}

func TestDerivedPatientsMeetExpectations(t *testing.T) {
	n := 0
	for line := range lines(t, "testdata/fhir/derived/patient-cases.ndjson") {
		var c struct {
			Case, Expect string
			Resource     json.RawMessage
		}
		require.NoError(t, json.Unmarshal(line, &c))
		n++
		t.Run(c.Case, func(t *testing.T) {
			got, m := verdict(t, fhirRecord(c.Resource), Reading{})
			want := strings.Replace(c.Expect, "dlq:", "quarantine:", 1)
			if meaning, ok := fhirMeanings[c.Expect]; ok {
				want = meaning.verdict
				if meaning.check != nil {
					meaning.check(t, m.Events)
				}
			}
			require.Equal(t, want, got)
		})
	}
	require.Equal(t, 14, n)
}

// lines are the lines of a file.
func lines(t *testing.T, file string) func(func([]byte) bool) {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	return func(yield func([]byte) bool) {
		s := bufio.NewScanner(bytes.NewReader(b))
		s.Buffer(nil, maxMessage)
		for s.Scan() {
			if !yield(bytes.Clone(s.Bytes())) {
				return
			}
		}
	}
}

// TestPublicMessages reads what real projects publish as test messages. The
// counts are pinned: a change of any is a change of meaning.
func TestPublicMessages(t *testing.T) {
	got := map[string]int{}
	files, err := filepath.Glob("testdata/hl7v2/*/*")
	require.NoError(t, err)
	n := 0
	for _, file := range files {
		if strings.Contains(file, "/derived/") {
			continue
		}
		n++
		value, err := os.ReadFile(file)
		require.NoError(t, err)
		v, m := verdict(t, hl7Record(value), Reading{Training: true})
		got[v]++
		for _, e := range m.Events {
			got["kind "+string(e.Kind)]++
		}
	}
	require.Equal(t, 203, n)
	for line := range lines(t, "testdata/fhir/synthea-bulk/patients-100set.ndjson") {
		v, _ := verdict(t, fhirRecord(line), Reading{})
		got["fhir "+v]++
	}
	for line := range lines(t, "testdata/fhir/ms-fhir-converter/patients.ndjson") {
		v, _ := verdict(t, fhirRecord(line), Reading{})
		got["fhir "+v]++
	}
	require.Equal(t, publicCounts, got)
}

// publicCounts has no "apply": nobody registered those authorities. Many of the
// published messages were made by changing MSH-9 alone, hence the event-conflicts.
var publicCounts = map[string]int{
	"fhir review:no-assigning-authority": 2,
	"fhir review:unknown-authority":      99,
	"kind merge":                         10,
	"kind rename":                        3,
	"kind upsert":                        137,
	"quarantine:delimiters":              3,
	"quarantine:event-conflict":          34,
	"quarantine:multiple":                1,
	"quarantine:no-identifier":           2,
	"review:no-assigning-authority":      46,
	"review:unknown-authority":           102,
	"skip:animal":                        3,
	"skip:message-type":                  12,
}
