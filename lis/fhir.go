package lis

import (
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pat-authenticate/patauth/lis/match"
)

// fhirPatient is what is read of a Patient resource (FHIR R4, Section 8.1).
// Fields that are not here are ignored, but for modifierExtension: who does not
// know one must not read on (Section 2.4.2).
type fhirPatient struct {
	Meta struct {
		VersionID   string     `json:"versionId"`
		LastUpdated *time.Time `json:"lastUpdated"`
		Source      string     `json:"source"`
	} `json:"meta"`
	ImplicitRules     string            `json:"implicitRules"`
	ModifierExtension []json.RawMessage `json:"modifierExtension"`
	Identifier        []fhirIdentifier  `json:"identifier"`
	Active            *bool             `json:"active"`
	Name              []fhirName        `json:"name"`
	Gender            string            `json:"gender"`
	BirthDate         string            `json:"birthDate"`
	DeceasedBoolean   *bool             `json:"deceasedBoolean"`
	DeceasedDateTime  *string           `json:"deceasedDateTime"`
	Link              []struct {
		Other struct {
			Reference  string          `json:"reference"`
			Type       string          `json:"type"`
			Identifier *fhirIdentifier `json:"identifier"`
		} `json:"other"`
		Type string `json:"type"`
	} `json:"link"`
}

type fhirIdentifier struct {
	Use    string     `json:"use"`
	System string     `json:"system"`
	Value  string     `json:"value"`
	Period fhirPeriod `json:"period"`
	Type   struct {
		Coding []struct {
			Code string `json:"code"`
		} `json:"coding"`
	} `json:"type"`
}

type fhirName struct {
	Use    string     `json:"use"`
	Family string     `json:"family"`
	Given  []string   `json:"given"`
	Period fhirPeriod `json:"period"`
}

type fhirPeriod struct {
	End string `json:"end"`
}

// over reports whether the period ended before now.
func (p fhirPeriod) over(now time.Time) bool {
	return p.End != "" && p.End < now.Format(time.RFC3339)[:min(len(p.End), len(time.DateOnly))]
}

// decodeFHIR reads a Patient, or a Bundle of them.
func decodeFHIR(e envelope) (Message, error) {
	if !utf8.Valid(e.Value) {
		return Message{}, quarantine("charset")
	}
	return e.resource(e.Value, 0)
}

// resource reads a resource by its type. depth counts Bundles around it.
func (e envelope) resource(raw []byte, depth int) (Message, error) {
	var head struct {
		ResourceType string `json:"resourceType"`
	}
	if json.Unmarshal(raw, &head) != nil {
		return Message{}, quarantine("format")
	}
	switch head.ResourceType {
	case "Patient":
		return e.patient(raw)
	case "Bundle":
		return e.bundle(raw, depth)
	case "":
		return Message{}, quarantine("format")
	}
	return Message{}, skip("resource-type")
}

func (e envelope) patient(raw []byte) (Message, error) {
	var p fhirPatient
	if json.Unmarshal(raw, &p) != nil {
		return Message{}, quarantine("structure")
	}
	m := Message{Source: p.Meta.Source}
	switch {
	case len(p.ModifierExtension) > 0:
		return m, quarantine("modifier-extension")
	case p.ImplicitRules != "":
		return m, quarantine("implicit-rules")
	case p.DeceasedBoolean != nil && p.DeceasedDateTime != nil:
		return m, quarantine("choice-type-twice")
	case len(p.Identifier) > maxIdentifiers, len(p.Name) > maxNames, len(p.Link) > maxIdentifiers:
		return m, quarantine("limit")
	}
	v := PatientEvent{Kind: Upsert, RecordedAt: e.Timestamp, OccurredAt: p.Meta.LastUpdated}
	if n, err := strconv.ParseUint(p.Meta.VersionID, 10, 64); err == nil {
		v.Sequence = &n
	}
	for _, i := range p.Identifier {
		if id, ok := i.read(e.now); ok {
			v.Subject = append(v.Subject, id)
		}
	}
	if len(v.Subject) == 0 {
		return m, quarantine("no-identifier")
	}
	m.Events = e.links(p, v)
	if m.Events[0].Kind == Upsert {
		p.describe(&m.Events[0], e.now)
	}
	return m, nil
}

// read is an identifier as this package knows it.
func (i fhirIdentifier) read(now time.Time) (Identifier, bool) {
	out := Identifier{Value: match.Text(i.Value), URI: i.System, Old: i.Use == "old" || i.Period.over(now)}
	if oid, ok := strings.CutPrefix(i.System, "urn:oid:"); ok {
		out.OID, out.URI = oid, ""
	}
	if len(i.Type.Coding) > 0 {
		out.Type = i.Type.Coding[0].Code
	}
	return out, out.Value != ""
}

// describe reads what the resource says about the person.
func (p fhirPatient) describe(v *PatientEvent, now time.Time) {
	best := len(fhirUses)
	for _, n := range p.Name {
		rank, known := fhirUses[n.Use]
		name := Name{match.Text(n.Family), match.Text(strings.Join(n.Given, " "))}
		if known && rank < best && name != (Name{}) && !n.Period.over(now) {
			best, v.Name = rank, set(name)
		}
	}
	if match.Placeholder(v.Name.Value.Family, v.Name.Value.Given) {
		v.flag("placeholder")
	}
	if p.BirthDate != "" {
		v.born(match.ParseDate(p.BirthDate, now))
	}
	switch p.Gender {
	case "":
	case "male", "female", "other":
		v.Sex = set(p.Gender)
	default:
		v.Sex = set("unknown")
	}
	if p.DeceasedBoolean != nil {
		v.Deceased = set(*p.DeceasedBoolean)
	}
	if p.DeceasedDateTime != nil {
		v.Deceased = set(true)
	}
	if p.Active != nil {
		v.Active = set(*p.Active)
	}
}

// fhirUses orders the uses of names; a person is not known by the others.
var fhirUses = map[string]int{"official": 0, "usual": 1, "": 2}

// links turns the resource's links into events. Only replaces and replaced-by
// are merges; refer and seealso move nothing (FHIR R4, Section 8.1.10).
func (e envelope) links(p fhirPatient, v PatientEvent) []PatientEvent {
	out := []PatientEvent{v}
	for _, l := range p.Link {
		if l.Type != "replaced-by" && l.Type != "replaces" ||
			l.Other.Type == "RelatedPerson" || strings.Contains(l.Other.Reference, "RelatedPerson/") {
			continue
		}
		var other Identifier
		ok := false
		if l.Other.Identifier != nil {
			other, ok = l.Other.Identifier.read(e.now)
		}
		switch {
		case !ok:
			out[0].flag("link-reference")
		case l.Type == "replaces":
			merge := PatientEvent{Kind: Merge, Subject: []Identifier{other}, Other: v.Subject,
				OccurredAt: v.OccurredAt, RecordedAt: v.RecordedAt, Sequence: v.Sequence}
			out = append(out, merge)
		case p.Active != nil && *p.Active:
			out[0].flag("active-replaced-by")
		default:
			v.Kind, v.Other = Merge, []Identifier{other}
			return []PatientEvent{v}
		}
	}
	return out
}

// fhirBundle is what is read of a Bundle.
type fhirBundle struct {
	ID    string `json:"id"`
	Type  string `json:"type"`
	Entry []struct {
		Resource json.RawMessage `json:"resource"`
		Request  struct {
			Method string `json:"method"`
			URL    string `json:"url"`
		} `json:"request"`
	} `json:"entry"`
}

// bundle reads the Patients of a message, of a history or of a transaction, in
// order, as one message: it is applied as a whole or not at all.
func (e envelope) bundle(raw []byte, depth int) (Message, error) {
	var b fhirBundle
	if json.Unmarshal(raw, &b) != nil {
		return Message{}, quarantine("structure")
	}
	m := Message{ID: b.ID}
	switch {
	case depth > 1, len(b.Entry) > maxEntries:
		return m, quarantine("limit")
	case !strings.Contains(" message history transaction batch collection ", " "+b.Type+" ") || b.Type == "":
		return m, quarantine("bundle-type")
	}
	for _, entry := range b.Entry {
		if entry.Request.Method == "DELETE" {
			v, err := e.deletion(entry.Request.URL)
			if err != nil {
				return m, err
			}
			m.Events = append(m.Events, v)
			continue
		}
		inner, err := e.resource(entry.Resource, depth+1)
		if r, ok := err.(*Refusal); ok && r.Result == Skip {
			continue
		}
		if err != nil {
			return m, err
		}
		if m.Source == "" {
			m.Source = inner.Source
		}
		m.Events = append(m.Events, inner.Events...)
	}
	return m, nil
}

// deletion reads the URL of a DELETE. Only a conditional one names a record in a
// way that means something here: Patient?identifier=system|value.
func (e envelope) deletion(raw string) (PatientEvent, error) {
	u, err := url.Parse(raw)
	if err != nil || !strings.HasSuffix("/"+u.Path, "/Patient") {
		return PatientEvent{}, &Refusal{Review, "delete-by-id"}
	}
	system, value, ok := strings.Cut(u.Query().Get("identifier"), "|")
	id, named := fhirIdentifier{System: system, Value: value}.read(e.now)
	if !ok || !named {
		return PatientEvent{}, quarantine("no-identifier")
	}
	return PatientEvent{Kind: Delete, Subject: []Identifier{id}, RecordedAt: e.Timestamp}, nil
}
