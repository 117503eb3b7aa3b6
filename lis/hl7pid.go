package lis

import (
	"errors"
	"strings"

	"github.com/pat-authenticate/patauth/lis/match"
)

// null is HL7's way to say that a value is to be deleted. An empty field says
// nothing (HL7 v2, Section 2.5.3).
const null = `""`

// timed is an event with the message's times.
func (m *hl7) timed(kind Kind) PatientEvent {
	e := PatientEvent{Kind: kind, RecordedAt: m.Timestamp}
	if t := moment(m.leaf(m.segments[0].field(7))); t != nil {
		e.RecordedAt = *t
	}
	if evn, ok := m.find("EVN"); ok {
		if e.OccurredAt = moment(m.leaf(evn.field(6))); e.OccurredAt == nil {
			e.OccurredAt = moment(m.leaf(evn.field(2)))
		}
	}
	return e
}

// person reads a PID segment.
func (m *hl7) person(pid segment, t trigger) (PatientEvent, error) {
	e := m.timed(t.kind)
	e.Weak = t.weak
	if strings.TrimSpace(pid.field(35)) != "" {
		return e, skip("animal")
	}
	var err error
	if e.Subject, err = m.identifiers(pid.field(3), &e); err != nil {
		return e, err
	}
	if len(e.Subject) == 0 {
		return e, quarantine("no-identifier")
	}
	if t.kind == Delete {
		return e, nil
	}
	if err := m.name(pid.field(5), &e); err != nil {
		return e, err
	}
	m.birthDate(pid.field(7), &e)
	m.sex(pid.field(8), &e)
	if !t.weak {
		m.death(pid.field(29), pid.field(30), &e)
	}
	m.reliability(pid.field(31), pid.field(32), &e)
	return e, nil
}

// text is a leaf of a repetition, in one spelling. What cannot be unescaped
// flags the event, and so does a charset that cannot be right.
func (m *hl7) text(s string, e *PatientEvent) (string, bool) {
	s, clean := m.unescape(s)
	if !clean {
		e.flag("escape")
	}
	return match.Text(s), clean
}

// identifiers reads a field of CX or HD-less CK repetitions: PID-3, MRG-1.
func (m *hl7) identifiers(field string, e *PatientEvent) ([]Identifier, error) {
	var out []Identifier
	repetitions := strings.Split(field, string(m.d.repetition))
	if len(repetitions) > maxIdentifiers {
		return nil, quarantine("limit")
	}
	for _, r := range repetitions {
		value, _ := m.text(nth(m.component(r, 1), string(m.d.subcomponent), 1), e)
		if value == "" || value == null {
			continue
		}
		i := Identifier{
			Value: value, Check: m.leaf(m.component(r, 2)), Scheme: m.leaf(m.component(r, 3)),
			Type: m.leaf(m.component(r, 5)),
		}
		authority := m.component(r, 4)
		sub := func(n int) string {
			s, _ := m.text(nth(authority, string(m.d.subcomponent), n), e)
			return s
		}
		i.Namespace = sub(1)
		if universal, kind := sub(2), sub(3); kind == "ISO" || kind == "" {
			i.OID = universal
		} else {
			i.URI = universal
		}
		if end := moment(m.leaf(m.component(r, 8))); end != nil && end.Before(m.now) {
			i.Old = true
		}
		out = append(out, i)
	}
	return out, nil
}

// ranks orders the type codes of names (XPN.7). What is missing here is no name
// to know a person by: maiden names, pseudonyms, aliases.
var ranks = map[string]int{"L": 0, "": 1, "CURRENT": 1, "D": 2}

// name reads PID-5. The order of its repetitions means nothing.
func (m *hl7) name(field string, e *PatientEvent) error {
	if field == null {
		e.Name = clearing[Name]()
		return nil
	}
	repetitions := strings.Split(field, string(m.d.repetition))
	if len(repetitions) > maxNames {
		return quarantine("limit")
	}
	best, others := len(ranks), false
	for _, r := range repetitions {
		family, ok1 := m.text(m.surname(m.component(r, 1)), e)
		first, ok2 := m.text(nth(m.component(r, 2), string(m.d.subcomponent), 1), e)
		second, ok3 := m.text(nth(m.component(r, 3), string(m.d.subcomponent), 1), e)
		n := Name{unnull(family), strings.TrimSpace(unnull(first) + " " + unnull(second))}
		if n == (Name{}) {
			continue
		}
		rank, known := ranks[strings.ToUpper(m.leaf(m.component(r, 7)))]
		switch {
		case !known:
			others = true
		case rank >= best:
		case !ok1 || !ok2 || !ok3 || m.mislabelled:
			best, e.Name = rank, Patch[Name]{}
		default:
			best, e.Name = rank, set(n)
		}
	}
	if m.mislabelled {
		e.flag("charset")
	}
	if others && best == len(ranks) {
		e.flag("no-legal-name")
	}
	if n := e.Name.Value; strings.Contains(n.Family, ",") && n.Given == "" {
		e.Name = Patch[Name]{}
		e.flag("name-shape")
	}
	if match.Placeholder(e.Name.Value.Family, e.Name.Value.Given) {
		e.flag("placeholder")
	}
	return nil
}

// surname is the family name in XPN.1, a plain text until 2.3 and an FN since.
func (m *hl7) surname(component string) string {
	if s := nth(component, string(m.d.subcomponent), 1); s != "" {
		return s
	}
	prefix, own := nth(component, string(m.d.subcomponent), 2), nth(component, string(m.d.subcomponent), 3)
	return strings.TrimSpace(prefix + " " + own)
}

func unnull(s string) string {
	if s == null {
		return ""
	}
	return s
}

func (m *hl7) birthDate(field string, e *PatientEvent) {
	switch s := m.leaf(field); s {
	case "":
	case null:
		e.BirthDate = clearing[match.Date]()
	default:
		d, err := match.ParseHL7Date(s, m.now)
		e.born(d, err)
	}
}

// born notes a birth date, or why there is none to believe.
func (e *PatientEvent) born(d match.Date, err error) {
	switch {
	case errors.Is(err, match.ErrFuture):
		e.flag("dob-future")
	case err != nil:
		e.flag("dob-invalid")
	default:
		e.BirthDate = set(d)
	}
}

var sexes = map[string]string{
	"M": "male", "MALE": "male", "F": "female", "FEMALE": "female", "O": "other", "OTHER": "other", "A": "other",
}

func (m *hl7) sex(field string, e *PatientEvent) {
	switch s := strings.ToUpper(m.leaf(field)); s {
	case "":
	case null:
		e.Sex = clearing[string]()
	default:
		if e.Sex = set(sexes[s]); e.Sex.Value == "" {
			e.Sex.Value = "unknown"
		}
	}
}

// death reads PID-29, the time, and PID-30, the indicator. Only together and
// agreeing are they believed.
func (m *hl7) death(at, indicator string, e *PatientEvent) {
	time := m.leaf(at)
	timed := time != "" && time != null
	switch strings.ToUpper(m.leaf(indicator)) {
	case "Y", "YES":
		e.Deceased = set(true)
	case "N", "NO", null:
		if timed {
			e.flag("death-contradiction")
			return
		}
		e.Deceased = set(false)
	case "":
		if timed {
			e.flag("death-date-without-indicator")
		}
	default:
		e.flag("death-indicator")
	}
}

// reliability reads PID-31, identity unknown, and PID-32, its reliability.
func (m *hl7) reliability(unknown, codes string, e *PatientEvent) {
	if m.leaf(unknown) == "Y" {
		e.flag("identity-unknown")
	}
	for _, r := range strings.Split(codes, string(m.d.repetition)) {
		switch m.leaf(r) {
		case "UD", "AL", "US":
			e.flag("identity-unreliable")
		}
	}
}
