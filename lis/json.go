package lis

import (
	"encoding/json"
	"mime"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pat-authenticate/patauth/lis/match"
)

// eventData is our own JSON of a PatientEvent, the data of a CloudEvent of type
// org.lis.patient.<what>.v1. A field that is absent says nothing; null clears.
type eventData struct {
	Identifiers []jsonIdentifier `json:"identifiers"`
	Other       []jsonIdentifier `json:"other"`
	Name        json.RawMessage  `json:"name"`
	BirthDate   json.RawMessage  `json:"birthDate"`
	Sex         json.RawMessage  `json:"sex"`
	Deceased    json.RawMessage  `json:"deceased"`
	Active      json.RawMessage  `json:"active"`
}

type jsonIdentifier struct {
	// System is a URI, urn:oid: for an OID; Namespace a local name. Either will do.
	System    string `json:"system"`
	Namespace string `json:"namespace"`
	Value     string `json:"value"`
	Type      string `json:"type"`
	Status    string `json:"status"` // current (the default) or old
}

type jsonName struct {
	Family string   `json:"family"`
	Given  []string `json:"given"`
}

// kinds are the words of the event type.
var kinds = map[string]Kind{
	"created": Upsert, "updated": Upsert, "deceased": Upsert, "merged": Merge, "renamed": Rename,
	"unmerged": Unmerge, "unlinked": Unmerge, "linked": LinkHint, "deleted": Delete,
}

// cloudEvent are the attributes of CloudEvents 1.0.
type cloudEvent struct {
	SpecVersion     string          `json:"specversion"`
	ID              string          `json:"id"`
	Source          string          `json:"source"`
	Type            string          `json:"type"`
	Time            string          `json:"time"`
	Sequence        string          `json:"sequence"`
	DataContentType string          `json:"datacontenttype"`
	Data            json.RawMessage `json:"data"`
}

// decodeStructured reads a CloudEvent in structured mode: attributes and data in
// one JSON document (CloudEvents Kafka binding, Section 3.3).
func decodeStructured(e envelope) (Message, error) {
	var c cloudEvent
	if err := e.json(e.Value, &c); err != nil {
		return Message{}, err
	}
	m := Message{Source: c.Source, ID: c.ID}
	if c.SpecVersion != "1.0" || c.ID == "" || c.Source == "" {
		return m, quarantine("structure")
	}
	if media, _, _ := mime.ParseMediaType(c.DataContentType); media == "application/fhir+json" {
		inner, err := e.resource(c.Data, 0)
		m.Events = inner.Events
		m.ordered(c.Time, c.Sequence)
		return m, err
	}
	v, err := e.event(c.Type, c.Data)
	if err != nil {
		return m, err
	}
	m.Events = []PatientEvent{v}
	m.ordered(c.Time, c.Sequence)
	return m, nil
}

// decodeBinary reads a CloudEvent in binary mode: the attributes are headers
// (Section 3.2). The five bytes of a schema registry before the data are skipped.
func decodeBinary(e envelope) (Message, error) {
	if e.header("ce_specversion") != "1.0" || e.header("ce_id") == "" || e.header("ce_source") == "" {
		return Message{}, quarantine("structure")
	}
	data := e.Value
	if data[0] == 0 && len(data) > 5 {
		data = data[5:]
	}
	v, err := e.event(e.header("ce_type"), data)
	return Message{Events: []PatientEvent{v}}, err
}

// json reads a document. What is not UTF-8 is refused, not mended.
func (e envelope) json(raw []byte, into any) error {
	switch {
	case !utf8.Valid(raw):
		return quarantine("charset")
	case json.Unmarshal(raw, into) != nil:
		return quarantine("format")
	}
	return nil
}

// event reads the data of a CloudEvent.
func (e envelope) event(eventType string, raw []byte) (PatientEvent, error) {
	v := PatientEvent{RecordedAt: e.Timestamp}
	word, isOurs := strings.CutPrefix(eventType, "org.lis.patient.")
	word, isV1 := strings.CutSuffix(word, ".v1")
	kind, known := kinds[word]
	if !isOurs || !isV1 || !known {
		return v, quarantine("event-type")
	}
	v.Kind = kind
	var d eventData
	if err := e.json(raw, &d); err != nil {
		return v, err
	}
	if len(d.Identifiers) > maxIdentifiers || len(d.Other) > maxIdentifiers {
		return v, quarantine("limit")
	}
	v.Subject, v.Other = read(d.Identifiers), read(d.Other)
	two := v.Kind == Merge || v.Kind == Rename || v.Kind == Unmerge || v.Kind == LinkHint
	if len(v.Subject) == 0 || two && len(v.Other) == 0 {
		return v, quarantine("no-identifier")
	}
	if v.Kind != Upsert {
		return v, nil
	}
	return v, d.describe(&v, word == "deceased", e.now)
}

func read(in []jsonIdentifier) []Identifier {
	var out []Identifier
	for _, i := range in {
		id, ok := fhirIdentifier{System: i.System, Value: i.Value}.read(time.Time{})
		if !ok {
			continue
		}
		id.Namespace, id.Type, id.Old = i.Namespace, i.Type, i.Status == "old"
		out = append(out, id)
	}
	return out
}

// describe reads what the data says about the person.
func (d eventData) describe(v *PatientEvent, deceased bool, now time.Time) error {
	var name Patch[jsonName]
	var born Patch[string]
	if !patch(d.Name, &name) || !patch(d.BirthDate, &born) || !patch(d.Sex, &v.Sex) ||
		!patch(d.Deceased, &v.Deceased) || !patch(d.Active, &v.Active) {
		return quarantine("structure")
	}
	v.Name.Said, v.Name.Clear = name.Said, name.Clear
	v.Name.Value = Name{match.Text(name.Value.Family), match.Text(strings.Join(name.Value.Given, " "))}
	if match.Placeholder(v.Name.Value.Family, v.Name.Value.Given) {
		v.flag("placeholder")
	}
	switch {
	case born.Clear:
		v.BirthDate = clearing[match.Date]()
	case born.Said:
		v.born(match.ParseDate(born.Value, now))
	}
	switch v.Sex.Value {
	case "", "male", "female", "other":
	default:
		v.Sex.Value = "unknown"
	}
	if deceased {
		v.Deceased = set(true)
	}
	return nil
}

// patch reads a field that may be absent, null or a value.
func patch[T any](raw json.RawMessage, into *Patch[T]) bool {
	switch {
	case raw == nil:
		return true
	case string(raw) == "null":
		*into = clearing[T]()
		return true
	}
	into.Said = true
	return json.Unmarshal(raw, &into.Value) == nil
}

// ordered notes the order that CloudEvents attributes give to a message's
// events, where its content gave none.
func (m *Message) ordered(at, sequence string) {
	for i := range m.Events {
		e := &m.Events[i]
		if t, err := time.Parse(time.RFC3339, at); err == nil && e.OccurredAt == nil {
			t = t.UTC()
			e.OccurredAt = &t
		}
		if n, err := strconv.ParseUint(sequence, 10, 64); err == nil && e.Sequence == nil {
			e.Sequence = &n
		}
	}
}
