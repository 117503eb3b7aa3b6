package session

import (
	"context"
	"slices"
	"time"

	"github.com/pat-authenticate/patauth/storage"
)

// The Authentication Context Class References of tokens (OpenID Connect Core,
// Section 2), from weak to strong.
const (
	ACROneFactor         = "urn:patauth:acr:one-factor"
	ACRTwoFactor         = "urn:patauth:acr:two-factor"
	ACRPhishingResistant = "phr" // OpenID Connect Extended Authentication Profile ACR Values 1.0
)

// Need is what a page or a client asks of a session.
type Need struct {
	// Level is how many factors: 0 none, 1 one, 2 two. A passkey that verifies
	// its user is two: something one has, and knows or is.
	Level int
	// Phishing asks for a factor that cannot be given away to another site.
	Phishing bool
	// After asks that all that counts was proven at this time or later: a code does
	// not make an old password new.
	After time.Time
}

// Step is what is missing.
type Step int

// The steps, in the order in which a patient takes them.
const (
	StepNone   Step = iota // nothing is missing
	StepLogin              // sign in, or sign in again
	StepSecond             // prove the second factor
	StepEnrol              // set a second factor up
)

// Missing names the first thing that s lacks for need; s is nil where nobody is
// signed in. hasSecond says that the patient has a factor to prove at
// StepSecond: see Second. Who has a second factor proves it, whatever is asked.
// It is pure, and now is only there to be compared.
func Missing(s *storage.Session, hasSecond bool, need Need, now time.Time) Step {
	if need.Level == 0 && !need.Phishing && need.After.IsZero() {
		return StepNone
	}
	if hasSecond {
		need.Level = 2
	}
	if s == nil || s.EndedAt != nil || !now.Before(s.ExpiresAt) {
		return StepLogin
	}
	s = since(s, need.After)
	if level(s) == 0 {
		return StepLogin
	}
	if level(s) >= need.Level && (!need.Phishing || phishingResistant(s)) {
		return StepNone
	}
	if level(s) < need.Level && !has(s, Password) {
		return StepLogin // two things that one owns are still one kind of factor
	}
	if !hasSecond {
		return StepEnrol
	}
	return StepSecond
}

// Second reports whether a patient has the factor that need calls for at
// StepSecond: a passkey where it must resist phishing, else any second factor.
func Second(ctx context.Context, db *storage.DB, patientID string, need Need) (bool, error) {
	if !need.Phishing {
		return db.HasSecondFactor(ctx, patientID)
	}
	all, err := db.Credentials(ctx, patientID)
	for _, c := range all {
		if c.Kind == storage.KindPasskey {
			return true, nil
		}
	}
	return false, err
}

// since is s with the factors that were proven at t or later. The resolution is a
// microsecond: what happens in the same one counts.
func since(s *storage.Session, t time.Time) *storage.Session {
	newer := *s
	newer.Factors = storage.Factors{}
	for f, at := range s.Factors {
		if !at.Before(t) {
			newer.Factors[f] = at
		}
	}
	return &newer
}

// AuthTime is when s came to be worth what it is (OpenID Connect Core, Section 2,
// auth_time): the newest time from which on the factors proven make up its level. So
// whoever was asked for max_age is told no time that is too old, and nobody one that
// only the second factor has.
func AuthTime(s *storage.Session) time.Time {
	var newest time.Time
	for _, at := range s.Factors {
		if at.After(newest) && level(since(s, at)) == level(s) {
			newest = at
		}
	}
	if newest.IsZero() {
		return s.AuthTime
	}
	return newest
}

// level is how many factors s has proven.
func level(s *storage.Session) int {
	owns := has(s, TOTP) || has(s, Passkey)
	switch {
	case has(s, PasskeyUV), owns && has(s, Password):
		return 2
	case owns, has(s, Password):
		return 1
	}
	return 0
}

func has(s *storage.Session, factor string) bool {
	_, ok := s.Factors[factor]
	return ok
}

func phishingResistant(s *storage.Session) bool { return has(s, Passkey) || has(s, PasskeyUV) }

// ACR is what s is worth: the strongest class it meets.
func ACR(s *storage.Session) string {
	switch {
	case level(s) < 2:
		return ACROneFactor
	case phishingResistant(s):
		return ACRPhishingResistant
	}
	return ACRTwoFactor
}

// Strength orders the classes: 1 for the weakest, 0 for what is not one of ours.
func Strength(acr string) int {
	return 1 + slices.Index([]string{ACROneFactor, ACRTwoFactor, ACRPhishingResistant}, acr)
}

// AMR is how s was proven, in the words of RFC 8176, Section 2. A passkey is
// "swk": without attestation nobody can vouch for hardware. "user" says that
// the holder was there.
func AMR(s *storage.Session) []string {
	var amr []string
	for _, m := range []struct {
		word string
		ok   bool
	}{
		{"pwd", has(s, Password)},
		{"otp", has(s, TOTP)},
		{"swk", phishingResistant(s)},
		{"user", phishingResistant(s)},
		{"mfa", level(s) >= 2},
	} {
		if m.ok {
			amr = append(amr, m.word)
		}
	}
	return amr
}
