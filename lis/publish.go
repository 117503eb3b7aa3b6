package lis

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pat-authenticate/patauth/storage"
)

const (
	typeHL7        = "application/hl7-v2"
	typeFHIR       = "application/fhir+json; fhirVersion=4.0"
	typeCloudEvent = "application/cloudevents+json"
)

// Report is what became of published files.
type Report struct {
	Records      int `json:"records"`
	Acknowledged int `json:"acknowledged"`
	Failed       int `json:"failed"`
}

// Publish writes the messages of files to the feed's topic, byte for byte, and
// waits for the brokers. See ReadFile for what files may be.
func Publish(ctx context.Context, cfg Config, files ...string) (Report, error) {
	var records []Record
	for _, f := range files {
		r, err := ReadFile(f)
		if err != nil {
			return Report{}, err
		}
		records = append(records, r...)
	}
	for i := range records {
		records[i].Topic = cfg.Topic
	}
	p, err := NewPublisher(cfg)
	if err != nil {
		return Report{}, err
	}
	defer p.Close()
	n, err := p.Publish(ctx, records)
	return Report{Records: len(records), Acknowledged: n, Failed: len(records) - n}, err
}

// ReadFile reads the records of a file. Its name says what it holds:
//
//	.hl7 .txt   HL7 v2; several messages are separated by the byte 0x1E
//	.ndjson     FHIR resources, one a line, also as {"resource": …}
//	.json       one FHIR resource or one structured CloudEvent
//
// The key is the authority and the number of the record concerned, where they
// can be read.
func ReadFile(path string) ([]Record, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []Record
	switch filepath.Ext(path) {
	case ".hl7", ".txt":
		for m := range bytes.SplitSeq(b, []byte{0x1e}) {
			out = append(out, newRecord(typeHL7, m))
		}
	case ".ndjson":
		for line := range bytes.Lines(b) {
			line = bytes.TrimSpace(line)
			if len(line) == 0 {
				continue
			}
			var wrapped struct{ Resource json.RawMessage }
			if json.Unmarshal(line, &wrapped) == nil && wrapped.Resource != nil {
				line = wrapped.Resource
			}
			out = append(out, newRecord(typeFHIR, line))
		}
	case ".json":
		var head struct {
			SpecVersion  string `json:"specversion"`
			ResourceType string `json:"resourceType"`
		}
		_ = json.Unmarshal(b, &head)
		switch {
		case head.SpecVersion != "":
			out = append(out, newRecord(typeCloudEvent, b))
		case head.ResourceType != "":
			out = append(out, newRecord(typeFHIR, b))
		default:
			return nil, fmt.Errorf("%s: neither a FHIR resource nor a CloudEvent", path)
		}
	default:
		return nil, fmt.Errorf("%s: the name must end in .hl7, .txt, .ndjson or .json", path)
	}
	return out, nil
}

func newRecord(contentType string, value []byte) Record {
	r := Record{Value: value, Timestamp: storage.Now(), Headers: []Header{{"content-type", []byte(contentType)}}}
	r.Key = keyOf(r)
	return r
}

// keyOf is "authority|value" of the record that a message is about, nil where it
// cannot be read. Of a merge it is the record that ends.
func keyOf(r Record) []byte {
	m, err := Decode(r, Reading{Training: true}, r.Timestamp)
	if err != nil {
		return nil
	}
	i := m.Events[0].Subject[0]
	authority := i.OID
	if authority == "" {
		authority = i.URI
	}
	if authority == "" {
		authority = i.Namespace
	}
	return []byte(authority + "|" + i.Value)
}
