package login

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode"
)

// The parameters every authenticator app knows (RFC 6238, Section 4; RFC 4226,
// Section 5.3). SHA-1 serves as an HMAC here and nowhere else.
const (
	totpPeriod = 30 // seconds
	totpDigits = 6
	totpSeed   = 20 // bytes; RFC 4226, Section 4: "The length of the shared secret MUST be at least 128 bits", 160 recommended
)

var seedText = base32.StdEncoding.WithPadding(base32.NoPadding)

func newSeed() []byte {
	seed := make([]byte, totpSeed)
	rand.Read(seed)
	return seed
}

// totpStep is the time step of t (RFC 6238, Section 4.2).
func totpStep(t time.Time) int64 { return t.Unix() / totpPeriod }

// totpCode is the code of one step (RFC 4226, Section 5.3).
func totpCode(seed []byte, step int64) string {
	m := hmac.New(sha1.New, seed)
	binary.Write(m, binary.BigEndian, step)
	sum := m.Sum(nil)
	n := binary.BigEndian.Uint32(sum[sum[len(sum)-1]&0xf:]) & 0x7fffffff
	return fmt.Sprintf("%06d", n%1_000_000)
}

// totpMatch finds the step that code stands for at now: the present one or up
// to past before it, for a slow hand. Every step is compared, whichever fits.
func totpMatch(seed []byte, code string, now time.Time, past int) (step int64, ok bool) {
	code, ok = normalCode(code)
	if !ok {
		return 0, false
	}
	ok = false
	for back := range int64(past) + 1 {
		s := totpStep(now) - back
		if subtle.ConstantTimeCompare([]byte(totpCode(seed, s)), []byte(code)) == 1 && !ok {
			step, ok = s, true
		}
	}
	return step, ok
}

// normalCode is a typed code as six digits: blanks and dashes between them are
// forgiven, nothing else.
func normalCode(typed string) (string, bool) {
	if len(typed) > 64 {
		return "", false
	}
	var b strings.Builder
	for _, r := range typed {
		switch {
		case unicode.IsSpace(r), unicode.Is(unicode.Pd, r):
		case r >= '0' && r <= '9':
			b.WriteRune(r)
		default:
			return "", false
		}
	}
	return b.String(), b.Len() == totpDigits
}

// totpURL is the address that authenticator apps read from a QR code.
func totpURL(issuer, account string, seed []byte) string {
	q := "secret=" + seedText.EncodeToString(seed) + "&issuer=" + url.QueryEscape(issuer) +
		fmt.Sprintf("&algorithm=SHA1&digits=%d&period=%d", totpDigits, totpPeriod)
	return "otpauth://totp/" + url.PathEscape(issuer+":"+account) + "?" + strings.ReplaceAll(q, "+", "%20")
}
