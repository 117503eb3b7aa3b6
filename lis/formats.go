package lis

import (
	"crypto/sha256"
	"encoding/hex"
	"mime"
	"slices"
	"time"
	"unicode/utf8"
)

// A format is one way to write messages. Growing: a file with its decoder and a
// line here.
type format struct {
	mediaType string
	decode    func(envelope) (Message, error)
}

// formats are found by the content-type header; nothing is ever guessed.
var formats = []format{
	{"application/hl7-v2", decodeHL7},
	{"x-application/hl7-v2+er7", decodeHL7},
	{"application/fhir+json", decodeFHIR},
	{"application/cloudevents+json", decodeStructured},
	{"application/json", decodeBinary},
}

// Record is one Kafka record.
type Record struct {
	Topic     string
	Partition int32
	Offset    int64
	Timestamp time.Time
	Key       []byte
	Value     []byte
	Headers   []Header
}

// Header is one header of a record.
type Header struct {
	Key   string
	Value []byte
}

// header is the first header of a name, "" where there is none.
func (r Record) header(key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// Reading says how messages are read where they leave it open.
type Reading struct {
	// ContentType is for records without the header; empty quarantines them.
	ContentType string
	// Training accepts HL7 messages that are marked as training or debugging
	// (MSH-11), which must never reach production accounts.
	Training bool
}

// An envelope is a record on its way through a decoder.
type envelope struct {
	Record
	params map[string]string // of the content type
	Reading
	now time.Time
}

// Decode reads a record. Errors are of type *Refusal. Also then the message has
// a source and an ID, under which the record is known.
func Decode(r Record, how Reading, now time.Time) (Message, error) {
	m, err := decode(r, how, now)
	// The CloudEvents attributes name the event whatever its content is; without
	// them the content's own name counts, and at last its hash. The offset would
	// not do: the same message comes again under another one.
	if s := r.header("ce_source"); s != "" {
		m.Source = s
	}
	if id := r.header("ce_id"); id != "" {
		m.ID = id
	}
	if m.Source == "" {
		m.Source = r.Topic
	}
	if m.ID == "" {
		sum := sha256.Sum256(r.Value)
		m.ID = "sha256:" + hex.EncodeToString(sum[:])
	}
	m.Source, m.ID = column(m.Source), column(m.ID)
	return m, err
}

func decode(r Record, how Reading, now time.Time) (Message, error) {
	if len(r.Value) == 0 {
		return Message{}, skip("tombstone")
	}
	if len(r.Value) > maxMessage {
		return Message{}, quarantine("limit")
	}
	contentType := r.header("content-type")
	if contentType == "" {
		contentType = how.ContentType
	}
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return Message{}, quarantine("content-type")
	}
	for _, f := range formats {
		if f.mediaType != media {
			continue
		}
		m, err := f.decode(envelope{r, params, how, now})
		if err != nil {
			m.Events = nil
			return m, err
		}
		if len(m.Events) == 0 {
			return m, skip("no-event")
		}
		m.Kind = m.Events[0].Kind
		m.ordered(r.header("ce_time"), r.header("ce_sequence"))
		return m, m.sane()
	}
	return Message{}, quarantine("content-type")
}

// sane is the last look at what will be kept, whatever the format: no control
// characters, and lengths that a database column and a page can bear.
func (m Message) sane() error {
	for _, e := range m.Events {
		for _, i := range slices.Concat(e.Subject, e.Other) {
			if control(i.Value + i.Namespace + i.OID + i.URI) {
				return quarantine("control-character")
			}
			if len(i.Value) > maxValue || len(i.Namespace+i.OID+i.URI) > maxSegment {
				return quarantine("limit")
			}
		}
		n := e.Name.Value
		if control(n.Family + n.Given) {
			return quarantine("control-character")
		}
		if utf8.RuneCountInString(n.Family) > maxNamePart || utf8.RuneCountInString(n.Given) > maxNamePart {
			return quarantine("limit")
		}
	}
	return nil
}

// column makes a sender's text fit to name a row: short, and without what a
// database or a terminal would stumble over.
func column(s string) string {
	if !utf8.ValidString(s) || len(s) > 200 || control(s) {
		sum := sha256.Sum256([]byte(s))
		return "sha256:" + hex.EncodeToString(sum[:])
	}
	return s
}
