package lis

import (
	"fmt"
	"time"

	"github.com/pat-authenticate/patauth/lis/match"
	"github.com/pat-authenticate/patauth/storage"
)

// versionOf is the place of an event in the order of a record's events, as a
// text that sorts: sequence, time of the event, time of the message, and at last
// the place in the topic; what is missing comes before everything. All weak
// events come before all strong ones, so that they never overwrite them,
// whatever the order of arrival.
func versionOf(e *PatientEvent, r Record) string {
	strength, sequence, occurred := "1", "-", "-"
	if e.Weak {
		strength = "0"
	}
	if e.Sequence != nil {
		sequence = fmt.Sprintf("%020d", *e.Sequence)
	}
	if e.OccurredAt != nil {
		occurred = stamp(*e.OccurredAt)
	}
	return fmt.Sprintf("%s/%s/%s/%s/%05d/%019d", strength, sequence, occurred, stamp(e.RecordedAt), max(r.Partition, 0), max(r.Offset, 0))
}

func stamp(t time.Time) string {
	t = t.UTC()
	if t.Year() < 0 || t.Year() > 9999 {
		return "-"
	}
	return t.Format("20060102150405.000000")
}

// upsert writes what the feed says about a record. Each group of fields keeps
// the newest word on it, so any order of arrival ends in the same state.
func (b *batch) upsert(f fact, version string) (outcome, reason string) {
	r := b.record(f.subject)
	switch {
	case r.Version("deleted") != "" && version > r.Version("deleted"):
		b.hold(r, "update-after-delete")
		return storage.LabReview, "update-after-delete"
	case r.Version("deleted") != "":
		return storage.LabStale, ""
	case r.MergedInto != "" && !f.Weak && version > r.Version("merged"):
		return storage.LabReview, "update-after-merge"
	}
	said := match.Person{
		FamilyKey: match.Key(f.Name.Value.Family), GivenKey: match.Key(f.Name.Value.Given),
		BirthDate: f.BirthDate.Value.Text, Sex: f.Sex.Value,
	}
	overlay := !f.Weak && match.Overlay(person(r), said)
	changed := false
	group := func(name string, said bool, write func()) {
		if said && version > r.Version(name) {
			write()
			r.SetVersion(name, version)
			changed = true
		}
	}
	group("seen", true, func() {})
	group("name", f.Name.Said, func() {
		r.Family, r.Given = f.Name.Value.Family, f.Name.Value.Given
		r.FamilyKey, r.GivenKey = said.FamilyKey, said.GivenKey
	})
	group("birth", f.BirthDate.Said, func() {
		r.BirthDate, r.BirthPrecision = f.BirthDate.Value.Text, f.BirthDate.Value.Precision
	})
	group("sex", f.Sex.Said, func() { r.Sex = f.Sex.Value })
	group("death", f.Deceased.Said, func() {
		if r.Deceased != f.Deceased.Value {
			b.audit(map[bool]string{true: "record.deceased", false: "record.alive"}[f.Deceased.Value], r, nil)
		}
		r.Deceased = f.Deceased.Value
	})
	group("active", f.Active.Said, func() { r.Inactive = f.Active.Said && !f.Active.Clear && !f.Active.Value })
	group("flag", true, func() {
		r.Flag = ""
		if len(f.Flags) > 0 {
			r.Flag = f.Flags[0]
		}
	})
	if changed {
		b.touch(r)
	}
	switch {
	case overlay:
		// Two people under one number: the older word is as suspect as the newer.
		b.hold(r, "identity-overlay")
		return storage.LabReview, "identity-overlay"
	case !changed:
		return storage.LabStale, ""
	case len(f.Flags) > 0:
		return storage.LabReview, f.Flags[0]
	}
	return storage.LabApplied, ""
}

func person(r *storage.LabIdentity) match.Person {
	return match.Person{FamilyKey: r.FamilyKey, GivenKey: r.GivenKey, BirthDate: r.BirthDate, Sex: r.Sex}
}

// hold stops a record until staff have decided; the first reason stays.
func (b *batch) hold(r *storage.LabIdentity, reason string) {
	if r.Hold != "" {
		return
	}
	r.Hold = reason
	b.touch(r)
	b.audit("record.held", r, map[string]string{"reason": reason})
}

// delete ends a record. The link on it is suspended with it (SettleLinks).
func (b *batch) delete(f fact, version string) (outcome, reason string) {
	r := b.record(f.subject)
	if r.Version("deleted") != "" {
		return storage.LabDuplicate, ""
	}
	b.touch(r).SetVersion("deleted", version)
	b.audit("record.deleted", r, nil)
	if r.Version("seen") > version {
		b.hold(r, "update-after-delete")
		return storage.LabReview, "update-after-delete"
	}
	return storage.LabApplied, ""
}
