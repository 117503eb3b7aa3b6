package lis

import (
	"maps"
	"slices"

	"github.com/pat-authenticate/patauth/storage"
)

// walk lists a record and the records it was merged into, one after another.
func (b *batch) walk(r *storage.LabIdentity) ([]*storage.LabIdentity, error) {
	path := []*storage.LabIdentity{r}
	for r.MergedInto != "" && len(path) <= storage.MergeSteps {
		next := b.byID[r.MergedInto]
		if next == nil {
			stored, err := b.db.LockLabIdentity(b.ctx, r.MergedInto)
			if err != nil {
				return nil, err
			}
			next = b.remember(&stored)
		}
		path, r = append(path, next), next
	}
	return path, nil
}

// merge ends a record in favour of another one. Records that are not known yet
// become stubs, so a merge may come before its records do. The link moves with
// it, or is suspended (SettleLinks).
func (b *batch) merge(f fact, version string) (outcome, reason string, err error) {
	ends, stays := b.record(f.subject), b.record(f.other)
	ahead, err := b.walk(stays)
	if err != nil {
		return "", "", err
	}
	past, err := b.walk(ends)
	if err != nil {
		return "", "", err
	}
	root := ahead[len(ahead)-1]
	switch {
	case len(ahead)+len(past) > storage.MergeSteps:
		return storage.LabReview, "merge-depth", nil
	case slices.Contains(ahead, ends):
		return storage.LabReview, "cycle", nil
	case past[len(past)-1] == root:
		return storage.LabDuplicate, "", nil
	case version <= ends.Version("merged"):
		return storage.LabStale, "", nil
	case ends.MergedInto != "":
		return storage.LabReview, "merged-elsewhere", nil
	}
	// A merge lowers no protection: what stopped the record that ends stops the
	// one that stays.
	suspended, err := b.db.SuspendedOn(b.ctx, ends.ID)
	if err != nil {
		return "", "", err
	}
	if ends.Hold != "" || ends.Deceased || ends.Flag == "protected" || ends.Version("deleted") != "" || suspended {
		b.hold(root, "merge-protected")
	}
	b.touch(ends).MergedInto = stays.ID
	ends.SetVersion("merged", version)
	b.audit("record.merged", ends, map[string]string{"into": stays.ID})
	return storage.LabApplied, "", nil
}

// rename gives a record another number: the new record takes over all that was
// known of the old one, which is merged into it. A number that has a record
// already is a merge in disguise, for staff.
func (b *batch) rename(f fact, version string) (outcome, reason string, err error) {
	old := b.record(f.subject)
	if taken := b.byKey[f.other]; taken != nil {
		if old.MergedInto == taken.ID {
			return storage.LabDuplicate, "", nil
		}
		return storage.LabReview, "rename-taken", nil
	}
	if old.MergedInto != "" || old.Version("deleted") != "" {
		return storage.LabReview, "rename-ended", nil
	}
	renamed := b.record(f.other)
	id, value := renamed.ID, renamed.Value
	*renamed = *old
	renamed.ID, renamed.Value = id, value
	renamed.Versions.V = maps.Clone(old.Versions.V)
	b.touch(old).MergedInto = renamed.ID
	old.SetVersion("merged", version)
	b.audit("record.renamed", old, map[string]string{"into": renamed.ID})
	return storage.LabApplied, "", nil
}

// unmerge says that two records are two people. Both are held, and with them
// every link that may have come through the merge: who is who, staff decide.
func (b *batch) unmerge(f fact, version string) (outcome, reason string) {
	one, two := b.record(f.subject), b.record(f.other)
	if version <= max(one.Version("merged"), two.Version("merged")) {
		return storage.LabStale, ""
	}
	for _, r := range []*storage.LabIdentity{one, two} {
		other := two
		if r == two {
			other = one
		}
		if r.MergedInto == other.ID {
			r.MergedInto = ""
			b.audit("record.unmerged", r, map[string]string{"from": other.ID})
		}
		// An older merge that comes late must not undo this.
		b.touch(r).SetVersion("merged", version)
		b.hold(r, "unmerged")
	}
	return storage.LabApplied, ""
}

// hint notes that two records may be one person. Nothing follows from it.
func (b *batch) hint(f fact) {
	one, two := b.byKey[f.subject], b.byKey[f.other]
	if one != nil && two != nil {
		b.audit("record.hinted", one, map[string]string{"same_as": two.ID})
	}
}
