package login

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// RFC 6238, Appendix B, with the last six of the eight digits.
func TestTOTPVectors(t *testing.T) {
	seed := []byte("12345678901234567890")
	for unix, code := range map[int64]string{
		59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130",
	} {
		now := time.Unix(unix, 0)
		require.Equal(t, code, totpCode(seed, totpStep(now)))
		step, ok := totpMatch(seed, code, now, 1)
		require.True(t, ok)
		require.Equal(t, totpStep(now), step)
		step, ok = totpMatch(seed, code, now.Add(30*time.Second), 1)
		require.True(t, ok, "one step late")
		require.Equal(t, totpStep(now), step, "it stands for the step it was made in")
		_, ok = totpMatch(seed, code, now.Add(30*time.Second), 0)
		require.False(t, ok)
		_, ok = totpMatch(seed, code, now.Add(60*time.Second), 1)
		require.False(t, ok)
		_, ok = totpMatch(seed, code, now.Add(-30*time.Second), 1)
		require.False(t, ok, "no code of the future")
	}
}

func TestNormalCode(t *testing.T) {
	for typed, want := range map[string]string{
		"123456": "123456", " 123 456\t": "123456", "123-456": "123456", "123–456": "123456",
		"12345": "", "1234567": "", "12345a": "", "": "", "١٢٣٤٥٦": "", "-------": "",
	} {
		code, ok := normalCode(typed)
		require.Equal(t, want != "", ok, "%q", typed)
		if ok {
			require.Equal(t, want, code)
		}
	}
}

func FuzzNormalCode(f *testing.F) {
	f.Add("123 456")
	f.Add("१२३४५६")
	f.Fuzz(func(t *testing.T, typed string) {
		code, ok := normalCode(typed)
		if !ok {
			return
		}
		require.Regexp(t, `^[0-9]{6}$`, code)
		again, ok := normalCode(code)
		require.True(t, ok)
		require.Equal(t, code, again)
	})
}
