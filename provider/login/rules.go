package login

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ccojocar/zxcvbn-go"
	"golang.org/x/text/unicode/norm"
)

const (
	// A password that can be the only factor needs 15 characters (NIST SP
	// 800-63B-4, Section 3.1.1.2); at registration it is the only one.
	passwordMin = 15
	// The caps bound the work a stranger can ask for. Nothing is ever cut off.
	passwordMax      = 256
	passwordMaxBytes = 1024
	// guessable is the strength, in bits, below which a password counts as one
	// of those that are tried first.
	guessable = 20
	// estimated is how much of a password the estimator looks at: its work grows
	// with the square of the length.
	estimated = 64
)

// normalPassword is the form in which a password is set and compared: NFC and
// nothing else, no trimming and no folding (NIST SP 800-63B-4, Section 3.1.1.2).
func normalPassword(raw string) string { return norm.NFC.String(raw) }

// PasswordProblem says in English why a new password is refused, or "".
func PasswordProblem(password string, context ...string) string {
	switch passwordProblem(password, context...) {
	case "":
		return ""
	case "login.password.short":
		return fmt.Sprintf("it must have at least %d characters", passwordMin)
	case "login.password.long":
		return fmt.Sprintf("it must have at most %d characters", passwordMax)
	case "login.password.characters":
		return "it holds what is no character"
	case "login.password.context":
		return "it is made of the patient's own data or of our name"
	}
	return "it is one of those that are tried first"
}

// passwordProblem says, as a text key, why a password is refused, or "". There
// are no composition rules. context are words about this person and this place;
// a password made of nothing else is as good as written down.
func passwordProblem(raw string, context ...string) string {
	pw := normalPassword(raw)
	n := utf8.RuneCountInString(pw)
	switch {
	case len(raw) > passwordMaxBytes, n > passwordMax:
		return "login.password.long"
	case !utf8.ValidString(raw), strings.ContainsFunc(pw, unicode.IsControl):
		return "login.password.characters"
	case n < passwordMin:
		return "login.password.short"
	}
	words := contextWords(context)
	if ownWords(pw, words) {
		return "login.password.context"
	}
	head := pw
	if n > estimated {
		head = string([]rune(pw)[:estimated])
	}
	if zxcvbn.PasswordStrength(head, words).Entropy < guessable {
		return "login.password.common"
	}
	return ""
}

// contextWords takes names and addresses apart into words of three letters or
// more, lower case.
func contextWords(context []string) []string {
	var out []string
	for _, c := range append([]string{"patauth", "patient", "labor", "password", "passwort"}, context...) {
		c = strings.ToLower(norm.NFC.String(c))
		for _, w := range strings.FieldsFunc(c, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
			if utf8.RuneCountInString(w) >= 3 {
				out = append(out, w)
			}
		}
	}
	return out
}

// ownWords reports whether hardly a letter of pw is left once the words, and
// all that is not a letter, are taken out.
func ownWords(pw string, words []string) bool {
	pw = strings.ToLower(pw)
	hit := false
	for _, w := range words {
		if strings.Contains(pw, w) {
			hit = true
			pw = strings.ReplaceAll(pw, w, "0")
		}
	}
	left := 0
	for _, r := range pw {
		if unicode.IsLetter(r) {
			left++
		}
	}
	return hit && left < 4
}
