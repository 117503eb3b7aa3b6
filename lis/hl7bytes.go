package lis

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
)

// charsets are the names of HL7 Table 0211 and of the charset parameter. nil is
// UTF-8, which is also what a message without a name is.
var charsets = map[string]encoding.Encoding{
	"": nil, "ASCII": nil, "ISO IR6": nil, "US-ASCII": nil, "UNICODE UTF-8": nil, "UTF-8": nil, "UNICODE": nil,
	"8859/1": charmap.ISO8859_1, "ISO-8859-1": charmap.ISO8859_1,
	"8859/2": charmap.ISO8859_2, "ISO-8859-2": charmap.ISO8859_2,
	"8859/3": charmap.ISO8859_3, "ISO-8859-3": charmap.ISO8859_3,
	"8859/4": charmap.ISO8859_4, "ISO-8859-4": charmap.ISO8859_4,
	"8859/5": charmap.ISO8859_5, "ISO-8859-5": charmap.ISO8859_5,
	"8859/6": charmap.ISO8859_6, "ISO-8859-6": charmap.ISO8859_6,
	"8859/7": charmap.ISO8859_7, "ISO-8859-7": charmap.ISO8859_7,
	"8859/8": charmap.ISO8859_8, "ISO-8859-8": charmap.ISO8859_8,
	"8859/9": charmap.ISO8859_9, "ISO-8859-9": charmap.ISO8859_9,
	"8859/15": charmap.ISO8859_15, "ISO-8859-15": charmap.ISO8859_15,
	"WINDOWS-1252":  charmap.Windows1252,
	"GB 18030-2000": simplifiedchinese.GB18030,
	"GB18030":       simplifiedchinese.GB18030,
	"KS X 1001":     korean.EUCKR,
	"BIG-5":         traditionalchinese.Big5,
	"BIG5":          traditionalchinese.Big5,
}

// unframe strips what carriers put around a message: a byte order mark, MLLP's
// block characters, blank lines before it.
func unframe(b []byte) []byte {
	b = bytes.TrimPrefix(b, []byte("\v"))
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	b = bytes.TrimLeft(b, "\r\n \t")
	b = bytes.TrimRight(b, "\r\n")
	return bytes.TrimSuffix(b, []byte("\x1c"))
}

// delimiters are the characters that take a message apart (MSH-1 and MSH-2).
type delimiters struct {
	field, component, repetition, escape, subcomponent byte
	truncation                                         byte // since 2.7; 0 without
}

func readDelimiters(b []byte) (delimiters, error) {
	if len(b) < 8 {
		return delimiters{}, quarantine("structure")
	}
	d := delimiters{field: b[3]}
	set, _, ok := bytes.Cut(b[4:min(len(b), 12)], b[3:4])
	if !ok || len(set) < 4 || len(set) > 5 {
		return d, quarantine("delimiters")
	}
	for i, c := range append([]byte{d.field}, set...) {
		letter := c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		if c <= ' ' || c > '~' || letter || bytes.IndexByte(set, c) != i-1 {
			return d, quarantine("delimiters")
		}
	}
	d.component, d.repetition, d.escape, d.subcomponent = set[0], set[1], set[2], set[3]
	if len(set) == 5 {
		d.truncation = set[4]
	}
	return d, nil
}

// charsetOf is the name in MSH-18, or else the default.
func charsetOf(b []byte, d delimiters, byDefault string) string {
	line := b
	if i := bytes.IndexAny(b, "\r\n"); i >= 0 {
		line = b[:i]
	}
	// MSH-1 is the separator itself, so field n is at n-1.
	if fields := bytes.Split(line, []byte{d.field}); len(fields) > 17 {
		first, _, _ := bytes.Cut(fields[17], []byte{d.repetition})
		if name := strings.TrimSpace(string(first)); name != "" {
			return strings.ToUpper(name)
		}
	}
	return strings.ToUpper(byDefault)
}

// toUTF8 decodes a message. mislabelled says that an 8-bit charset was named
// while the bytes are UTF-8 with letters of several bytes: one of them is wrong.
func toUTF8(b []byte, charset string) (text string, decode func([]byte) (string, bool), mislabelled bool, err error) {
	enc, known := charsets[charset]
	if !known {
		return "", nil, false, quarantine("charset")
	}
	_, single := enc.(*charmap.Charmap)
	mislabelled = single && utf8.Valid(b) && utf8.RuneCount(b) != len(b)
	decode = func(b []byte) (string, bool) {
		if enc == nil {
			return string(b), utf8.Valid(b)
		}
		out, err := enc.NewDecoder().Bytes(b)
		s := string(out)
		// In ISO 8859 these bytes are control characters; in text from Windows
		// they are letters of another charset.
		c1 := single && strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 && r < 0xa0 })
		return s, err == nil && !strings.ContainsRune(s, utf8.RuneError) && (!c1 || mislabelled)
	}
	text, ok := decode(b)
	if !ok {
		return "", nil, false, quarantine("charset")
	}
	return text, decode, mislabelled, nil
}

// control reports whether a text holds a control character other than line ends
// and tabs. PostgreSQL keeps no NUL, and logs and pages none of the others.
func control(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool {
		return r < ' ' && r != '\r' && r != '\n' && r != '\t' || r == 0x7f
	})
}
