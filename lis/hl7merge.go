package lis

// merges reads the groups of PID and MRG; a message may hold several. MRG-1 is
// the record that ends, PID-3 the one that stays.
func (m *hl7) merges(kind Kind) ([]PatientEvent, error) {
	var out []PatientEvent
	var pid segment
	for _, s := range m.segments {
		switch s[0] {
		case "PID":
			if pid != nil {
				return nil, quarantine("no-mrg")
			}
			pid = s
		case "MRG":
			if pid == nil {
				return nil, quarantine("structure")
			}
			e := m.timed(kind)
			var err error
			if e.Subject, err = m.identifiers(s.field(1), &e); err != nil {
				return nil, err
			}
			if e.Other, err = m.identifiers(pid.field(3), &e); err != nil {
				return nil, err
			}
			if len(e.Subject) == 0 || len(e.Other) == 0 {
				return nil, quarantine("no-identifier")
			}
			out, pid = append(out, e), nil
		}
	}
	if pid != nil || len(out) == 0 {
		return nil, quarantine("no-mrg")
	}
	return out, nil
}

// twoPersons reads the messages that name two people by two PID segments.
func (m *hl7) twoPersons(kind Kind) ([]PatientEvent, error) {
	e := m.timed(kind)
	n := 0
	for _, s := range m.segments {
		if s[0] != "PID" {
			continue
		}
		ids, err := m.identifiers(s.field(3), &e)
		if err != nil {
			return nil, err
		}
		if len(ids) == 0 {
			return nil, quarantine("no-identifier")
		}
		if n++; n == 1 {
			e.Subject = ids
		} else {
			e.Other = ids
		}
	}
	if n != 2 {
		return nil, quarantine("structure")
	}
	return []PatientEvent{e}, nil
}
