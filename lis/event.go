// Package lis follows the laboratory information system. Messages come over
// Kafka as HL7 v2, FHIR or CloudEvents JSON (formats.go), are read into one shape
// (PatientEvent), and are applied, each once, in one transaction with all that
// follows from it (apply.go). The feed describes records, merges and ends them;
// it never links one to a patient.
//
// Every message ends in one of four ways: applied, in review (a person must
// look), in quarantine (it is broken, and goes to the dead letter topic) or
// skipped. What is not plainly applied carries one reason, a stable code without
// a word of the message.
package lis

import (
	"fmt"
	"slices"
	"time"

	"github.com/pat-authenticate/patauth/lis/match"
)

// Kind is what a message says has happened.
type Kind string

// The kinds of events.
const (
	Upsert   Kind = "upsert"    // this is what the record says now
	Merge    Kind = "merge"     // Subject ended, Other stands for it
	Rename   Kind = "rename"    // Subject is called Other from now on
	Unmerge  Kind = "unmerge"   // Subject and Other are two people after all
	LinkHint Kind = "link-hint" // Subject and Other may be one person
	Delete   Kind = "delete"    // the record is gone
)

// Result is how a message ends.
type Result string

// The results, from good to bad.
const (
	Apply      Result = "apply"
	Skip       Result = "skip"
	Review     Result = "review"
	Quarantine Result = "quarantine"
)

// Refusal is the error of every reader here: the message is not to be applied,
// for a reason.
type Refusal struct {
	Result Result // Skip or Quarantine
	Reason string
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s: %s", r.Result, r.Reason) }

func quarantine(reason string) error { return &Refusal{Quarantine, reason} }
func skip(reason string) error       { return &Refusal{Skip, reason} }

// PatientEvent is one fact of a message, as far as the message alone tells.
type PatientEvent struct {
	Kind Kind
	// Weak events come from orders, results and visits. They fill what no better
	// source ever said, and never say that somebody died.
	Weak       bool
	OccurredAt *time.Time
	RecordedAt time.Time
	Sequence   *uint64
	// Subject are the identifiers of the record concerned; Other those of the
	// second record of a merge, rename, unmerge or hint.
	Subject   []Identifier
	Other     []Identifier
	Name      Patch[Name]
	BirthDate Patch[match.Date]
	Sex       Patch[string] // male, female, other, unknown
	Deceased  Patch[bool]
	Active    Patch[bool]
	// Flags are reasons for review; the fields they concern are left unset.
	Flags []string
}

// Identifier is a number and who assigned it, as the message spells it.
type Identifier struct {
	Namespace, OID, URI string // HD.1; HD.2 of type ISO; a FHIR system or HD.2 of another type
	Value               string
	Type                string // of HL7 Table 0203, as it came
	Check, Scheme       string // check digit, and its HL7 scheme
	Old                 bool
}

// Name is one name of a person.
type Name struct{ Family, Given string }

// Patch is what a message says about a field: nothing, that it is empty, or a value.
type Patch[T any] struct {
	Said  bool
	Clear bool
	Value T
}

func set[T any](v T) Patch[T]   { return Patch[T]{Said: true, Value: v} }
func clearing[T any]() Patch[T] { return Patch[T]{Said: true, Clear: true} }

// flag notes a reason for review, once.
func (e *PatientEvent) flag(reason string) {
	if !slices.Contains(e.Flags, reason) {
		e.Flags = append(e.Flags, reason)
	}
}

// Message is one decoded record: who sent it, the sender's name for it, and what
// it says, in order.
type Message struct {
	Source string
	ID     string
	Kind   Kind // of the first event
	Events []PatientEvent
}

// Limits of what is read. More is a mistake or an attack, reason `limit`.
const (
	maxMessage     = 1 << 20
	maxSegment     = 64 << 10
	maxSegments    = 5000
	maxIdentifiers = 64
	maxNames       = 16
	maxNamePart    = 200 // code points
	maxValue       = 64
	maxEntries     = 100
)
