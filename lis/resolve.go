package lis

import (
	"slices"

	"github.com/pat-authenticate/patauth/lis/match"
	"github.com/pat-authenticate/patauth/storage"
)

// registry finds the authority that an identifier names.
type registry struct {
	byOID, byURI, byNamespace map[string]*storage.LabAuthority
}

func newRegistry(all []storage.LabAuthority) registry {
	r := registry{map[string]*storage.LabAuthority{}, map[string]*storage.LabAuthority{}, map[string]*storage.LabAuthority{}}
	for i := range all {
		a := &all[i]
		if !a.Active {
			continue
		}
		if a.OID != "" {
			r.byOID[a.OID] = a
			r.byURI["urn:oid:"+a.OID] = a
		}
		for _, u := range a.URIs {
			r.byURI[u] = a
		}
		for _, n := range a.Namespaces {
			r.byNamespace[n] = a
		}
	}
	return r
}

// authority resolves by OID, URI and namespace, in this order. Where they name
// different authorities, or a namespace comes with an OID that is not its own,
// the reason is aa-conflict.
func (r registry) authority(i Identifier) (*storage.LabAuthority, string) {
	var found *storage.LabAuthority
	for _, a := range []*storage.LabAuthority{r.byOID[i.OID], r.byURI[i.URI], r.byNamespace[i.Namespace]} {
		switch {
		case a == nil:
		case found == nil:
			found = a
		case found != a:
			return nil, "aa-conflict"
		}
	}
	switch {
	case i.OID == "" && i.URI == "" && i.Namespace == "":
		return nil, "no-assigning-authority"
	case found == nil:
		return nil, "unknown-authority"
	case i.OID != "" && found.OID != "" && i.OID != found.OID:
		return nil, "aa-conflict"
	}
	return found, ""
}

// shortcomings are the reasons for which no identifier of a record counts, the
// most telling first.
var shortcomings = []string{"not-owner", "no-current-identifier", "no-link-key", "unknown-authority", "no-assigning-authority"}

// keys finds the records that identifiers name: those of link-key authorities
// that the source owns. Without any, or where one is contradictory, the reason
// says why.
func (r registry) keys(ids []Identifier, source string, old bool) (keys []storage.LabKey, reason string) {
	missing := map[string]bool{}
	for _, i := range ids {
		a, why := r.authority(i)
		switch {
		case why == "aa-conflict":
			return nil, why
		case why != "":
			missing[why] = true
		case !a.LinkKey:
			missing["no-link-key"] = true
		case !a.Owns(source):
			missing["not-owner"] = true
		case i.Old && !old:
			missing["no-current-identifier"] = true
		case !match.CheckDigit(i.Value, i.Check, i.Scheme):
			return nil, "check-digit"
		default:
			if k := (storage.LabKey{Authority: a.ID, Value: match.Value(i.Value, a.CaseFold)}); !slices.Contains(keys, k) {
				keys = append(keys, k)
			}
		}
	}
	if len(keys) > 0 {
		return keys, ""
	}
	for _, s := range shortcomings {
		if missing[s] {
			return nil, s
		}
	}
	return nil, "no-assigning-authority"
}

// A fact is an event whose records are known by the registry's keys. One with a
// reason changes nothing beyond what the reason allows: see apply.
type fact struct {
	*PatientEvent
	subject, other storage.LabKey
	reason         string // why the subject cannot be used; "" when it can
}

// resolve finds the records an event concerns. A merge of several numbers is
// several facts.
func (r registry) resolve(e *PatientEvent, source string) []fact {
	two := e.Kind == Merge || e.Kind == Rename || e.Kind == Unmerge || e.Kind == LinkHint
	subjects, reason := r.keys(e.Subject, source, two)
	if reason != "" {
		return []fact{{PatientEvent: e, reason: reason}}
	}
	if !two {
		for _, k := range subjects[1:] {
			if k.Authority == subjects[0].Authority {
				return []fact{{PatientEvent: e, reason: "two-mrn-one-authority"}}
			}
		}
		return []fact{{PatientEvent: e, subject: subjects[0]}}
	}
	others, reason := r.keys(e.Other, source, false)
	if reason != "" {
		return []fact{{PatientEvent: e, reason: reason}}
	}
	var out []fact
	for _, s := range subjects {
		i := slices.IndexFunc(others, func(o storage.LabKey) bool { return o.Authority == s.Authority })
		switch {
		case i < 0:
			out = append(out, fact{PatientEvent: e, reason: "cross-authority-merge"})
		case others[i] == s:
			out = append(out, fact{PatientEvent: e, reason: "self-merge"})
		case slices.ContainsFunc(others[i+1:], func(o storage.LabKey) bool { return o.Authority == s.Authority }):
			out = append(out, fact{PatientEvent: e, reason: "two-mrn-one-authority"})
		default:
			out = append(out, fact{PatientEvent: e, subject: s, other: others[i]})
		}
	}
	return out
}
