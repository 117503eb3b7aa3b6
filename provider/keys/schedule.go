package keys

import (
	"slices"
	"time"

	"github.com/pat-authenticate/patauth/storage"
)

// States lists the states of a key.
var States = []string{storage.KeyPending, storage.KeyActive, storage.KeyRetired, storage.KeyCompromised}

// The schedule of a key. It is pending, active, retired and gone; or compromised
// at any time, and gone as late as one that retired.
const (
	// publishFirst is how long a key is in the JWK Set before it signs, so that
	// no relying party meets a kid it does not know: ours may be cached for five
	// minutes, and libraries that do not look keep it for half a day at most.
	publishFirst = 24 * time.Hour
	// slack is how much earlier than that the next key is made, so that tasks
	// may stand still for a day and the active key still ends in time.
	slack = 24 * time.Hour
	// signFor bounds what the loss of one key gives away.
	signFor = 30 * 24 * time.Hour
	// longestToken is how long anything signed may be good: no client is given
	// tokens that last longer.
	longestToken = 24 * time.Hour
	// publishAfter is how long a retired key is still in the JWK Set: while
	// anything that it signed may be good, and a day more, because no session
	// lasts longer, and at its end the client shows an ID token of it, expired
	// or not (OpenID Connect RP-Initiated Logout, Section 2).
	publishAfter = longestToken + 24*time.Hour
)

// A line is the succession of keys for one algorithm.
type line struct {
	alg             string
	active, pending *storage.SigningKey // nil where there is none
}

func lineOf(rows []storage.SigningKey, alg string) line {
	l := line{alg: alg}
	for _, r := range rows {
		switch {
		case r.Alg != alg:
		case r.State == storage.KeyActive:
			l.active = &r
		case r.State == storage.KeyPending:
			l.pending = &r
		}
	}
	return l
}

// ends is when the active key has signed for long enough.
func (l line) ends() time.Time { return Since(*l.active).Add(signFor) }

// due is when the next key must be made.
func (l line) due() time.Time { return l.ends().Add(-publishFirst - slack) }

// published is when the pending key may sign: everybody has it by then.
func (l line) published() time.Time { return l.pending.CreatedAt.Add(publishFirst) }

// takesOver is when the pending key will sign. One that was made before it was
// due is somebody's wish, and does not wait for the end of the active key.
func (l line) takesOver() time.Time {
	at := l.published()
	if l.active == nil || l.pending.CreatedAt.Before(l.due()) || at.After(l.ends()) {
		return at
	}
	return l.ends()
}

// gone reports whether nobody can need the key any more, not even to look at.
func gone(k storage.SigningKey, now time.Time) bool {
	return ended(k) && !now.Before(Since(k).Add(publishAfter))
}

func ended(k storage.SigningKey) bool {
	return k.State == storage.KeyRetired || k.State == storage.KeyCompromised
}

// Since is when the key came into its state.
func Since(k storage.SigningKey) time.Time {
	switch {
	case ended(k) && k.RetiredAt != nil:
		return *k.RetiredAt
	case k.State == storage.KeyActive && k.ActivatedAt != nil:
		return *k.ActivatedAt
	}
	return k.CreatedAt
}

// Next is what the schedule makes of k, one of rows, and when: "active",
// "retired" or "gone"; "" for a key that this release does not know.
func Next(rows []storage.SigningKey, k storage.SigningKey) (state string, at time.Time) {
	l := lineOf(rows, k.Alg)
	switch {
	case ended(k):
		return "gone", Since(k).Add(publishAfter)
	case !slices.Contains(Algorithms, k.Alg):
		return "", time.Time{}
	case k.State == storage.KeyPending:
		return "active", l.takesOver()
	case k.State == storage.KeyActive && l.pending != nil:
		return "retired", l.takesOver()
	case k.State == storage.KeyActive:
		return "retired", l.ends()
	}
	return "", time.Time{}
}
