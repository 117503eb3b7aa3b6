package lis

import (
	"errors"
	"fmt"

	"github.com/pat-authenticate/patauth/storage"
)

// Verdict is what a message comes to when it is read alone, without the registry
// of authorities and the records that are known. It holds nothing of the message.
type Verdict struct {
	File   string `json:"file"`
	Record int    `json:"record"` // from 1
	Kind   Kind   `json:"kind,omitempty"`
	Result Result `json:"result"`
	Reason string `json:"reason,omitempty"`
}

// String is the verdict on one line.
func (v Verdict) String() string {
	s := fmt.Sprintf("%s:%d %s", v.File, v.Record, v.Result)
	if v.Kind != "" {
		s += " " + string(v.Kind)
	}
	if v.Reason != "" {
		s += " " + v.Reason
	}
	return s
}

// Check reads the messages of files as the consumer would, and applies none.
func Check(how Reading, files ...string) ([]Verdict, error) {
	var out []Verdict
	for _, f := range files {
		records, err := ReadFile(f)
		if err != nil {
			return out, err
		}
		for i, r := range records {
			v := Verdict{File: f, Record: i + 1, Result: Apply}
			m, err := Decode(r, how, storage.Now())
			var refusal *Refusal
			if errors.As(err, &refusal) {
				v.Result, v.Reason = refusal.Result, refusal.Reason
				out = append(out, v)
				continue
			}
			v.Kind = m.Kind
			for _, e := range m.Events {
				if len(e.Flags) > 0 && v.Reason == "" {
					v.Result, v.Reason = Review, e.Flags[0]
				}
			}
			out = append(out, v)
		}
	}
	return out, nil
}
