package session

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// with is a session that proved factors at noon.
func with(factors ...string) *storage.Session {
	s := &storage.Session{Factors: storage.Factors{}, AuthTime: noon, ExpiresAt: noon.Add(time.Hour)}
	for _, f := range factors {
		s.Factors[f] = noon
	}
	return s
}

func TestMissing(t *testing.T) {
	ended := with(Password)
	ended.EndedAt = &noon
	one, two, phishing := Need{Level: 1}, Need{Level: 2}, Need{Level: 2, Phishing: true}
	for _, c := range []struct {
		name   string
		s      *storage.Session
		second bool
		need   Need
		at     time.Duration // after noon
		want   Step
	}{
		{"nothing is asked of nobody", nil, false, Need{}, 0, StepNone},
		{"nobody is signed in", nil, false, one, 0, StepLogin},
		{"nobody is signed in, two factors", nil, true, two, 0, StepLogin},
		{"the session has ended", ended, true, one, 0, StepLogin},
		{"the session is over", with(Password), true, one, time.Hour, StepLogin},
		{"no factor at all", with(), true, one, 0, StepLogin},
		{"an unknown factor is none", with("email"), true, one, 0, StepLogin},
		{"a password is one factor", with(Password), false, one, 0, StepNone},
		{"who has a second factor proves it", with(Password), true, one, 0, StepSecond},
		{"a password is not two", with(Password), true, two, 0, StepSecond},
		{"nor where there is no second factor", with(Password), false, two, 0, StepEnrol},
		{"password and code are two", with(Password, TOTP), true, two, 0, StepNone},
		{"password and key are two", with(Password, Passkey), true, two, 0, StepNone},
		{"a key that verified its user is two", with(PasskeyUV), true, two, 0, StepNone},
		{"a touched key is one", with(Passkey), false, one, 0, StepNone},
		{"a touched key wants the password", with(Passkey), true, two, 0, StepLogin},
		{"two things one owns are one kind", with(Passkey, TOTP), true, two, 0, StepLogin},
		{"a code alone wants the password", with(TOTP), true, two, 0, StepLogin},
		{"a code can be phished", with(Password, TOTP), true, phishing, 0, StepSecond},
		{"and without a passkey one is set up", with(Password, TOTP), false, phishing, 0, StepEnrol},
		{"a key cannot be phished", with(Password, Passkey), true, phishing, 0, StepNone},
		{"nor one that verified its user", with(PasskeyUV), true, phishing, 0, StepNone},
		{"proven after", with(Password), false, Need{Level: 1, After: noon.Add(-1)}, 0, StepNone},
		{"proven at that very time", with(Password), false, Need{Level: 1, After: noon}, 0, StepNone},
		{"proven before", with(Password, TOTP), true, Need{Level: 1, After: noon.Add(time.Microsecond)}, 0, StepLogin},
		{"age alone is a need", with(Password), true, Need{After: noon.Add(time.Second)}, 0, StepLogin},
		{"a code does not make a password new", again(with(Password, TOTP), TOTP), true, Need{Level: 2, After: noon.Add(time.Second)}, time.Minute, StepLogin},
		{"nor does a password an old code", again(with(Password, TOTP), Password), true, Need{Level: 2, After: noon.Add(time.Second)}, time.Minute, StepSecond},
		{"age comes before the second factor", with(Password), true, Need{Level: 2, After: noon.Add(time.Second)}, 0, StepLogin},
	} {
		require.Equal(t, c.want, Missing(c.s, c.second, c.need, noon.Add(c.at)), c.name)
	}
}

// A patient who takes the step that is named comes closer to what is needed,
// from any session: no guard sends anybody round in circles.
func TestStepsLeadToTheEnd(t *testing.T) {
	all := []string{Password, TOTP, Passkey, PasskeyUV}
	for set := range 1 << len(all) {
		for _, need := range []Need{{Level: 1}, {Level: 2}, {Level: 2, Phishing: true}, {Level: 2, After: noon.Add(time.Minute)}} {
			for _, hasSecond := range []bool{true, false} {
				s := with()
				for i, f := range all {
					if set&(1<<i) != 0 {
						s.Factors[f] = noon
					}
				}
				now, second, steps := noon.Add(2*time.Minute), hasSecond, 0
				for ; steps < 5; steps++ {
					step := Missing(s, second, need, now)
					if step == StepNone {
						break
					}
					s.AuthTime = now
					switch step {
					case StepLogin:
						s.Factors[Password] = now
					case StepSecond, StepEnrol:
						second = true
						if need.Phishing {
							s.Factors[Passkey] = now
						} else {
							s.Factors[TOTP] = now
						}
					}
				}
				require.LessOrEqual(t, steps, 3, "%v %+v %v", s.Factors, need, hasSecond)
			}
		}
	}
}

func TestWorth(t *testing.T) {
	for _, c := range []struct {
		s   *storage.Session
		acr string
		amr []string
	}{
		{with(Password), ACROneFactor, []string{"pwd"}},
		{with(Password, TOTP), ACRTwoFactor, []string{"pwd", "otp", "mfa"}},
		{with(Passkey), ACROneFactor, []string{"swk", "user"}},
		{with(Password, Passkey), ACRPhishingResistant, []string{"pwd", "swk", "user", "mfa"}},
		{with(PasskeyUV), ACRPhishingResistant, []string{"swk", "user", "mfa"}},
		{with(TOTP, Passkey), ACROneFactor, []string{"otp", "swk", "user"}},
	} {
		require.Equal(t, c.acr, ACR(c.s), "%v", c.s.Factors)
		require.Equal(t, c.amr, AMR(c.s), "%v", c.s.Factors)
	}
}

// again is s, with factor proven once more half a minute later.
func again(s *storage.Session, factor string) *storage.Session {
	s.AuthTime = noon.Add(30 * time.Second)
	s.Factors[factor] = s.AuthTime
	return s
}

func TestAuthTimeIsThatOfWhatCounts(t *testing.T) {
	later := noon.Add(30 * time.Second)
	for _, c := range []struct {
		s    *storage.Session
		want time.Time
	}{
		{with(Password), noon},
		{again(with(Password), Password), later},
		{again(with(Password), TOTP), noon}, // an old password, raised
		{again(with(Password, TOTP), TOTP), noon},
		{again(with(Password), PasskeyUV), later}, // worth two by itself
	} {
		require.Equal(t, c.want, AuthTime(c.s), "%v", c.s.Factors)
	}
}
