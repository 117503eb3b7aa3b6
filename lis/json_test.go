package lis

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/lis/match"
)

// binary is a CloudEvent in binary mode.
func binary(eventType, data string, more ...Header) Record {
	return Record{Topic: "lis.patient.v1", Timestamp: testNow, Value: []byte(data), Headers: append([]Header{
		{"content-type", []byte("application/json")}, {"ce_specversion", []byte("1.0")},
		{"ce_id", []byte("e1")}, {"ce_source", []byte("urn:lis:lab1")}, {"ce_type", []byte(eventType)},
	}, more...)}
}

func structured(document string) Record {
	return Record{Topic: "lis.patient.v1", Timestamp: testNow, Value: []byte(document), Headers: []Header{
		{"content-type", []byte("application/cloudevents+json; charset=UTF-8")},
	}}
}

func TestBinaryCloudEvent(t *testing.T) {
	m, err := Decode(binary("org.lis.patient.updated.v1", `{
		"identifiers": [{"system": "urn:oid:2.999.1", "value": "100"}, {"namespace": "OLD", "value": "7", "status": "old"}],
		"name": {"family": "Muster", "given": ["Anna", "Maria"]}, "birthDate": "1980-02-29", "sex": null, "deceased": false
	}`, Header{"ce_sequence", []byte("42")}, Header{"ce_time", []byte("2025-05-01T10:00:00+02:00")}), Reading{}, testNow)
	require.NoError(t, err)
	require.Equal(t, "urn:lis:lab1 e1 upsert", m.Source+" "+m.ID+" "+string(m.Kind))
	e := m.Events[0]
	require.Equal(t, []Identifier{{OID: "2.999.1", Value: "100"}, {Namespace: "OLD", Value: "7", Old: true}}, e.Subject)
	require.Equal(t, set(Name{"Muster", "Anna Maria"}), e.Name)
	require.Equal(t, set(match.Date{Text: "1980-02-29", Precision: "day"}), e.BirthDate)
	require.Equal(t, clearing[string](), e.Sex)
	require.Equal(t, set(false), e.Deceased)
	require.False(t, e.Active.Said)
	require.Equal(t, uint64(42), *e.Sequence)
	require.Equal(t, time.Date(2025, 5, 1, 8, 0, 0, 0, time.UTC), *e.OccurredAt)
}

func TestStructuredCloudEvent(t *testing.T) {
	m, err := Decode(structured(`{"specversion": "1.0", "id": "e2", "source": "urn:lis:lab1", "type": "org.lis.patient.merged.v1",
		"time": "2025-05-01T10:00:00Z", "data": {"identifiers": [{"system": "urn:oid:2.999.1", "value": "100"}], "other": [{"system": "urn:oid:2.999.1", "value": "200"}]}}`), Reading{}, testNow)
	require.NoError(t, err)
	require.Equal(t, "urn:lis:lab1 e2", m.Source+" "+m.ID)
	two(Merge)(t, m.Events[0])
	require.NotNil(t, m.Events[0].OccurredAt)

	m, err = Decode(structured(`{"specversion": "1.0", "id": "e3", "source": "urn:lis:lab1", "type": "org.lis.patient.updated.v1", "sequence": "7",
		"datacontenttype": "application/fhir+json", "data": {"resourceType": "Patient", "identifier": [{"system": "urn:oid:2.999.1", "value": "100"}]}}`), Reading{}, testNow)
	require.NoError(t, err)
	require.Equal(t, uint64(7), *m.Events[0].Sequence)
}

func TestRefusalsNameTheirReason(t *testing.T) {
	hl7 := func(s string) Record { return hl7Record([]byte(s)) }
	for _, c := range []struct {
		name   string
		record Record
		want   string
	}{
		{"no content type", Record{Value: []byte("MSH|^~\\&|")}, "quarantine: content-type"},
		{"an unknown content type", Record{Value: []byte("x"), Headers: []Header{{"content-type", []byte("text/plain")}}}, "quarantine: content-type"},
		{"nothing", Record{}, "skip: tombstone"},
		{"too much", hl7(string(make([]byte, maxMessage+1))), "quarantine: limit"},
		{"a NUL in HL7", hl7("MSH|^~\\&|A|B|||20250101||ADT^A08|1|P|2.5\rPID|1||1^^^LAB1||A\x00B"), "quarantine: control-character"},
		{"a NUL in JSON", binary("org.lis.patient.updated.v1", `{"identifiers":[{"namespace":"LAB1","value":"1"}],"name":{"family":"A\u0000B"}}`), "quarantine: control-character"},
		{"a NUL in FHIR", fhirRecord([]byte(`{"resourceType":"Patient","identifier":[{"system":"urn:oid:2.999.1","value":"1\u0000"}]}`)), "quarantine: control-character"},
		{"an unknown charset", hl7("MSH|^~\\&|A|B|||20250101||ADT^A08|1|P|2.5||||||ISO IR87\rPID|1||1^^^LAB1"), "quarantine: charset"},
		{"UTF-16", hl7("\xff\xfeM\x00S\x00H\x00"), "quarantine: charset"},
		{"broken UTF-8 in JSON", binary("org.lis.patient.updated.v1", "{\"identifiers\":[{\"value\":\"\xff\"}]}"), "quarantine: charset"},
		{"no JSON", binary("org.lis.patient.updated.v1", `{`), "quarantine: format"},
		{"an unknown event type", binary("org.lis.patient.sneezed.v1", `{}`), "quarantine: event-type"},
		{"another version", binary("org.lis.patient.updated.v2", `{}`), "quarantine: event-type"},
		{"somebody else's event", binary("updated.v1", `{}`), "quarantine: event-type"},
		{"no identifier", binary("org.lis.patient.updated.v1", `{}`), "quarantine: no-identifier"},
		{"a merge into nothing", binary("org.lis.patient.merged.v1", `{"identifiers":[{"namespace":"LAB1","value":"1"}]}`), "quarantine: no-identifier"},
		{"a value of the wrong type", binary("org.lis.patient.updated.v1", `{"identifiers":[{"namespace":"LAB1","value":"1"}],"deceased":"yes"}`), "quarantine: structure"},
		{"attributes missing", structured(`{"specversion":"1.0","data":{}}`), "quarantine: structure"},
		{"a resource of another type", fhirRecord([]byte(`{"resourceType":"Observation"}`)), "skip: resource-type"},
		{"no resource", fhirRecord([]byte(`{}`)), "quarantine: format"},
		{"implicit rules", fhirRecord([]byte(`{"resourceType":"Patient","implicitRules":"http://x"}`)), "quarantine: implicit-rules"},
		{"a search result", fhirRecord([]byte(`{"resourceType":"Bundle","type":"searchset"}`)), "quarantine: bundle-type"},
		{"a Bundle without patients", fhirRecord([]byte(`{"resourceType":"Bundle","type":"transaction","entry":[{"resource":{"resourceType":"Observation"}}]}`)), "skip: no-event"},
		{"a deletion by id", fhirRecord([]byte(`{"resourceType":"Bundle","type":"history","entry":[{"request":{"method":"DELETE","url":"Patient/7"}}]}`)), "review: delete-by-id"},
		{"a message for nobody", hl7("MSH|^~\\&|A|B|||20250101||ACK|1|P|2.5"), "skip: message-type"},
		{"the cancellation of a visit", hl7("MSH|^~\\&|A|B|||20250101||ADT^A11|1|P|2.5\rPID|1||1^^^LAB1"), "skip: visit-cancelled"},
		{"the deletion of a visit", hl7("MSH|^~\\&|A|B|||20250101||ADT^A23|1|P|2.5\rPID|1||1^^^LAB1"), "skip: visit-cancelled"},
		{"moved information", hl7("MSH|^~\\&|A|B|||20250101||ADT^A43|1|P|2.5\rPID|1||1^^^LAB1"), "review: move-information"},
		{"a doubled backslash", hl7("MSH|^~\\\\&|A|B|||20250101||ADT^A08|1|P|2.5\rPID|1||1^^^LAB1"), "quarantine: delimiters"},
	} {
		_, err := Decode(c.record, Reading{}, testNow)
		require.EqualError(t, err, c.want, c.name)
	}
}

func TestMergesComeInGroups(t *testing.T) {
	m, err := Decode(hl7Record([]byte("MSH|^~\\&|LIS|LAB1|||20250101||ADT^A40|9|P|2.5\rEVN|A40|20250101\r"+
		"PID|1||200^^^LAB1\rMRG|100^^^LAB1~101^^^LAB1\rPV1|1\rPID|1||400^^^LAB1\rMRG|300^^^LAB1\r")), Reading{}, testNow)
	require.NoError(t, err)
	require.Len(t, m.Events, 2)
	require.Equal(t, "LIS/LAB1 9", m.Source+" "+m.ID)
	r := newRegistry(testAuthorities)
	require.Len(t, r.resolve(&m.Events[0], m.Source), 2, "MRG-1 repeats")
	require.Equal(t, "400", r.resolve(&m.Events[1], m.Source)[0].other.Value)
}

func TestResultsAreWeak(t *testing.T) {
	m, err := Decode(hl7Record([]byte("MSH|^~\\&|LIS|LAB1|||20250101||ORU^R01|9|P|2.5\rPID|1||200^^^LAB1||A^B||1980|||||||||||||||||||||||20250101|Y\r")), Reading{}, testNow)
	require.NoError(t, err)
	require.True(t, m.Events[0].Weak)
	require.False(t, m.Events[0].Deceased.Said, "a result cannot say that somebody died")
}

func TestFHIRMerges(t *testing.T) {
	patient := func(active, link string) Record {
		return fhirRecord([]byte(`{"resourceType":"Patient","identifier":[{"system":"urn:oid:2.999.1","value":"100"}],"active":` + active + `,"link":[` + link + `]}`))
	}
	other := `"other":{"identifier":{"system":"urn:oid:2.999.1","value":"200"}}`
	m, err := Decode(patient("false", `{"type":"replaced-by",`+other+`}`), Reading{}, testNow)
	require.NoError(t, err)
	two(Merge)(t, m.Events[0])

	m, err = Decode(patient("true", `{"type":"replaces",`+other+`}`), Reading{}, testNow)
	require.NoError(t, err)
	require.Equal(t, []Kind{Upsert, Merge}, []Kind{m.Events[0].Kind, m.Events[1].Kind})
	require.Equal(t, "200 100", m.Events[1].Subject[0].Value+" "+m.Events[1].Other[0].Value)

	v, _ := verdict(t, patient("true", `{"type":"replaced-by",`+other+`}`), Reading{})
	require.Equal(t, "review:active-replaced-by", v)
	v, _ = verdict(t, patient("false", `{"type":"replaced-by","other":{"reference":"Patient/7"}}`), Reading{})
	require.Equal(t, "review:link-reference", v)

	m, err = Decode(fhirRecord([]byte(`{"resourceType":"Bundle","id":"b1","type":"message","entry":[
		{"resource":{"resourceType":"MessageHeader","eventUri":"urn:ihe:iti:pmir:2019:patient-feed"}},
		{"resource":{"resourceType":"Bundle","type":"history","entry":[
			{"resource":{"resourceType":"Patient","identifier":[{"system":"urn:oid:2.999.1","value":"100"}]},"request":{"method":"PUT","url":"Patient/100"}},
			{"request":{"method":"DELETE","url":"Patient?identifier=urn:oid:2.999.1|200"}}]}}]}`)), Reading{}, testNow)
	require.NoError(t, err)
	require.Equal(t, "b1", m.ID)
	require.Equal(t, []Kind{Upsert, Delete}, []Kind{m.Events[0].Kind, m.Events[1].Kind})
}
