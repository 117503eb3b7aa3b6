package main

import (
	"log/slog"
	"strings"
)

// Secret is a configured text that is never shown: whatever prints it prints
// [set], or nothing where it is empty. The text itself is string(s).
type Secret string

// String hides the text from fmt and from error messages.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "[set]"
}

// GoString hides the text from %#v.
func (s Secret) GoString() string { return s.String() }

// LogValue hides the text from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText hides the text from JSON and YAML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes the text without surrounding white space: a secret that
// comes from a file usually ends in a line break.
func (s *Secret) UnmarshalText(b []byte) error {
	*s = Secret(strings.TrimSpace(string(b)))
	return nil
}
