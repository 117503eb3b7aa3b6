package lis

import (
	"strings"
	"time"
)

// hl7 is one HL7 v2 message on its way through the reader. Only MSH, EVN, PID,
// PD1 and MRG are read, in any version from 2.1 to 2.8.
type hl7 struct {
	envelope
	d           delimiters
	decode      func([]byte) (string, bool)
	mislabelled bool
	segments    []segment
}

// segment is a segment's fields; [0] is its name, [n] field n.
type segment []string

func (s segment) field(n int) string {
	if n < len(s) {
		return s[n]
	}
	return ""
}

// trigger is what an event of ADT means here.
type trigger struct {
	kind   Kind
	weak   bool
	result Result
	reason string
}

// adt lists the events of ADT that mean something here, and those that do not.
var adt = triggers(map[string]trigger{
	"A01 A04 A05 A08 A28 A31": {kind: Upsert},
	// Visits: their PID describes the person, but it is not what they are about.
	"A02 A03 A06 A07 A09 A10 A14 A15 A16 A21 A22 A60 A61 A62": {kind: Upsert, weak: true},
	"A18 A30 A34 A39 A40": {kind: Merge},
	"A46 A47":             {kind: Rename},
	"A24":                 {kind: LinkHint},
	"A37":                 {kind: Unmerge},
	"A29":                 {kind: Delete},
	"A43":                 {result: Review, reason: "move-information"},
	// Accounts, visits and alternate numbers are merged and moved, not persons.
	"A35 A36 A41 A42 A44 A45 A48 A49 A50 A51": {result: Skip, reason: "no-identity-change"},
	// Cancellations are of visits; A23 deletes a visit. None deletes a person.
	"A11 A12 A13 A23 A25 A26 A27 A32 A33 A38 A52 A53 A54 A55": {result: Skip, reason: "visit-cancelled"},
})

func triggers(by map[string]trigger) map[string]trigger {
	out := map[string]trigger{}
	for codes, t := range by {
		for _, c := range strings.Fields(codes) {
			out[c] = t
		}
	}
	return out
}

// weakTypes are the messages that carry a PID beside what they are about.
const weakTypes = " ORM OML ORU OUL MDM VXU SIU "

// decodeHL7 reads HL7 v2 in its ER7 encoding, one message a record.
func decodeHL7(e envelope) (Message, error) {
	b := unframe(e.Value)
	switch {
	case hasPrefix(b, "FHS"), hasPrefix(b, "BHS"):
		return Message{}, quarantine("multiple")
	case hasPrefix(b, "\xff\xfe"), hasPrefix(b, "\xfe\xff"):
		return Message{}, quarantine("charset")
	case !hasPrefix(b, "MSH"):
		return Message{}, quarantine("format")
	}
	d, err := readDelimiters(b)
	if err != nil {
		return Message{}, err
	}
	m := &hl7{envelope: e, d: d}
	text, decode, mislabelled, err := toUTF8(b, charsetOf(b, d, e.params["charset"]))
	if err != nil {
		return Message{}, err
	}
	m.decode, m.mislabelled = decode, mislabelled
	if control(text) {
		return Message{}, quarantine("control-character")
	}
	if err := m.split(text); err != nil {
		return Message{}, err
	}
	msh := m.segments[0]
	out := Message{ID: m.leaf(msh.field(10))}
	if application, facility := m.sender(msh.field(3)), m.sender(msh.field(4)); application+facility != "" {
		out.Source = application + "/" + facility
	}
	out.Events, err = m.events()
	return out, err
}

func hasPrefix(b []byte, s string) bool { return strings.HasPrefix(string(b[:min(len(b), 4)]), s) }

// split takes the message into segments. CR, LF and both end one.
func (m *hl7) split(text string) error {
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\r' || r == '\n' })
	if len(lines) > maxSegments {
		return quarantine("limit")
	}
	for i, line := range lines {
		name := line[:min(len(line), 3)]
		switch name {
		case "MSH":
			if i > 0 {
				return quarantine("multiple")
			}
			// MSH-1 is the separator itself.
			line = "MSH" + string(m.d.field) + line[3:]
		case "FHS", "BHS", "BTS", "FTS":
			return quarantine("multiple")
		case "EVN", "PID", "PD1", "MRG":
			if len(line) > maxSegment {
				return quarantine("limit")
			}
		default:
			continue
		}
		m.segments = append(m.segments, strings.Split(line, string(m.d.field)))
	}
	return nil
}

// leaf is the first component of a field's first repetition, unescaped.
func (m *hl7) leaf(field string) string {
	s, _, _ := strings.Cut(field, string(m.d.repetition))
	s, _, _ = strings.Cut(s, string(m.d.component))
	s, _, _ = strings.Cut(s, string(m.d.subcomponent))
	s, _ = m.unescape(s)
	return strings.TrimSpace(s)
}

// component is component n (from 1) of a repetition, as it stands.
func (m *hl7) component(repetition string, n int) string {
	return nth(repetition, string(m.d.component), n)
}

func nth(s, sep string, n int) string {
	for ; n > 1; n-- {
		_, rest, ok := strings.Cut(s, sep)
		if !ok {
			return ""
		}
		s = rest
	}
	s, _, _ = strings.Cut(s, sep)
	return s
}

// sender is the name in an HD field: its namespace, or else its universal id.
func (m *hl7) sender(field string) string {
	if s := m.leaf(field); s != "" {
		return s
	}
	s, _ := m.unescape(m.component(field, 2))
	return strings.TrimSpace(s)
}

// find is the first segment of a name.
func (m *hl7) find(name string) (segment, bool) {
	for _, s := range m.segments {
		if s[0] == name {
			return s, true
		}
	}
	return nil, false
}

// events is what the message says has happened.
func (m *hl7) events() ([]PatientEvent, error) {
	t, err := m.trigger()
	if err != nil {
		return nil, err
	}
	switch t.kind {
	case Merge, Rename:
		return m.merges(t.kind)
	case Unmerge, LinkHint:
		return m.twoPersons(t.kind)
	}
	var out []PatientEvent
	for i, s := range m.segments {
		if s[0] != "PID" {
			continue
		}
		e, err := m.person(s, t)
		if err != nil {
			return nil, err
		}
		if i+1 < len(m.segments) && m.segments[i+1][0] == "PD1" && m.leaf(m.segments[i+1].field(12)) == "Y" {
			e.flag("protected")
		}
		out = append(out, e)
	}
	if len(out) == 0 {
		return nil, quarantine("structure")
	}
	return out, nil
}

// trigger finds what happened: MSH-9.1 and 9.2, and EVN-1 where 9.2 is empty.
// MSH-9.3, the structure, is absent as often as not and wrong at times.
func (m *hl7) trigger() (trigger, error) {
	msh := m.segments[0]
	switch p := m.leaf(msh.field(11)); {
	case p == "" || p == "P", m.Training && (p == "T" || p == "D"):
	default:
		return trigger{}, quarantine("non-production")
	}
	messageType := strings.TrimSpace(m.component(msh.field(9), 1))
	code := strings.TrimSpace(m.component(msh.field(9), 2))
	switch {
	case messageType == "":
		return trigger{}, quarantine("structure")
	case strings.Contains(weakTypes, " "+messageType+" "):
		return trigger{kind: Upsert, weak: true}, nil
	case messageType != "ADT":
		return trigger{}, skip("message-type")
	}
	if evn, ok := m.find("EVN"); ok {
		recorded := m.leaf(evn.field(1))
		if code != "" && recorded != "" && code != recorded {
			return trigger{}, quarantine("event-conflict")
		}
		if code == "" {
			code = recorded
		}
	}
	if code == "" {
		return trigger{}, quarantine("structure")
	}
	t, ok := adt[code]
	switch {
	case !ok:
		return t, skip("event-type")
	case t.reason != "":
		return t, &Refusal{t.result, t.reason}
	}
	return t, nil
}

// moment is an HL7 timestamp in UTC, nil where it is none. A time without a zone
// is read as UTC: it orders the messages of one sender, nothing else.
func moment(s string) *time.Time {
	digits := strings.IndexFunc(s+".", func(r rune) bool { return r < '0' || r > '9' })
	layout, ok := map[int]string{8: "20060102", 10: "2006010215", 12: "200601021504", 14: "20060102150405"}[digits]
	if !ok {
		return nil
	}
	if strings.ContainsAny(s[digits:], "+-") {
		layout += "-0700"
	}
	t, err := time.Parse(layout, s)
	if err != nil {
		return nil
	}
	t = t.UTC()
	return &t
}
