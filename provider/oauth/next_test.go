package oauth

import (
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// The decision table. t0 is when the request came; the patient is "ada".
func TestNext(t *testing.T) {
	t0 := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	before, after := t0.Add(-10*time.Minute), t0.Add(time.Second)
	signedIn := func(at time.Time, factors ...string) *storage.Session {
		s := &storage.Session{ID: "s", PatientID: "ada", AuthTime: at, ExpiresAt: t0.Add(time.Hour), Factors: map[string]time.Time{}}
		for _, f := range factors {
			s.Factors[f] = at
		}
		return s
	}
	allowed := func(at time.Time, scopes ...string) *storage.Consent {
		return &storage.Consent{PatientID: "ada", Scopes: scopes, GrantedAt: at}
	}
	portal := func(change ...func(*request)) request {
		q := request{
			client: storage.Client{ID: "portal", AuthMethods: storage.Words{"client_secret_basic"}},
			scopes: storage.Words{"openid"}, maxAge: -1, level: 1, requestedAt: t0,
		}
		q.redirect, _ = url.Parse("https://portal.example/cb")
		for _, c := range change {
			c(&q)
		}
		return q
	}
	prompt := func(p ...string) func(*request) { return func(q *request) { q.prompt = p } }
	maxAge := func(d time.Duration) func(*request) { return func(q *request) { q.maxAge = d } }
	lab := func(q *request) { q.scopes, q.level = storage.Words{"openid", "lab"}, 2 }
	firstParty := func(q *request) { q.client.FirstParty = true }
	public := func(q *request) { q.client.AuthMethods = storage.Words{"none"} }
	loopback := func(q *request) { q.redirect, _ = url.Parse("http://127.0.0.1:9/cb") }
	claim := func(name string) func(*request) {
		return func(q *request) { q.claims.UserInfo = append(q.claims.UserInfo, name) }
	}
	device := func(q *request) { q.device, q.redirect = "WDJB-MJHT", new(url.URL) }
	phishing := func(q *request) { q.level, q.phishing = 2, true }
	hint := func(sub string) func(*request) { return func(q *request) { q.subjects = append(q.subjects, sub) } }

	for _, c := range []struct {
		name string
		q    request
		f    facts
		want step
		err  error
	}{
		{"nobody is signed in", portal(), facts{}, stepLogin, nil},
		{"nobody is signed in, quietly", portal(prompt("none")), facts{}, 0, web.ErrLogin},
		{"signed in, nothing allowed", portal(), facts{session: signedIn(before, "pwd")}, stepConsent, nil},
		{"signed in, nothing allowed, quietly", portal(prompt("none")), facts{session: signedIn(before, "pwd")}, 0, web.ErrConsent},
		{"signed in and allowed", portal(), facts{session: signedIn(before, "pwd"), consent: allowed(before, "openid")}, stepIssue, nil},
		{"signed in and allowed, quietly", portal(prompt("none")), facts{session: signedIn(before, "pwd"), consent: allowed(before, "openid")}, stepIssue, nil},
		{"a first party needs no consent", portal(firstParty), facts{session: signedIn(before, "pwd")}, stepIssue, nil},
		{"a scope that was not allowed", portal(lab), facts{session: signedIn(before, "pwd", "otp"), second: true, consent: allowed(before, "openid")}, stepConsent, nil},

		{"a patient with a second factor uses it", portal(), facts{session: signedIn(before, "pwd"), second: true}, stepSecond, nil},
		{"likewise, quietly", portal(prompt("none")), facts{session: signedIn(before, "pwd"), second: true}, 0, web.ErrInteraction},
		{"lab data without a second factor", portal(lab), facts{session: signedIn(before, "pwd")}, stepEnrol, nil},
		{"likewise, quietly", portal(lab, prompt("none")), facts{session: signedIn(before, "pwd")}, 0, web.ErrInteraction},
		{"lab data with two factors", portal(lab, firstParty), facts{session: signedIn(before, "pwd", "otp"), second: true}, stepIssue, nil},

		{"prompt=login with an old sign-in", portal(prompt("login")), facts{session: signedIn(before, "pwd")}, stepLogin, nil},
		{"prompt=login with a new one", portal(prompt("login"), firstParty), facts{session: signedIn(after, "pwd")}, stepIssue, nil},
		{"prompt=select_account with an old sign-in", portal(prompt("select_account")), facts{session: signedIn(before, "pwd")}, stepLogin, nil},
		{"prompt=create while signed in", portal(prompt("create")), facts{session: signedIn(before, "pwd")}, stepLogin, nil},
		{"max_age exceeded", portal(maxAge(time.Minute)), facts{session: signedIn(before, "pwd")}, stepLogin, nil},
		{"max_age kept", portal(maxAge(time.Hour), firstParty), facts{session: signedIn(before, "pwd")}, stepIssue, nil},
		{"max_age=0 with a sign-in a moment before", portal(maxAge(0)), facts{session: signedIn(t0.Add(-time.Microsecond), "pwd")}, stepLogin, nil},
		{"max_age=0 with a new sign-in", portal(maxAge(0), firstParty), facts{session: signedIn(after, "pwd")}, stepIssue, nil},
		{"max_age exceeded, quietly", portal(maxAge(0), prompt("none")), facts{session: signedIn(before, "pwd")}, 0, web.ErrLogin},

		{"prompt=consent with an old consent", portal(prompt("consent"), firstParty), facts{session: signedIn(before, "pwd"), consent: allowed(before, "openid")}, stepConsent, nil},
		{"prompt=consent with a new one", portal(prompt("consent")), facts{session: signedIn(before, "pwd"), consent: allowed(after, "openid")}, stepIssue, nil},
		{"anybody could be this client: ask every time", portal(public, loopback), facts{session: signedIn(before, "pwd"), consent: allowed(before, "openid")}, stepConsent, nil},
		{"likewise, asked now", portal(public, loopback), facts{session: signedIn(before, "pwd"), consent: allowed(after, "openid")}, stepIssue, nil},
		{"a public client whose redirect is https is remembered", portal(public), facts{session: signedIn(before, "pwd"), consent: allowed(before, "openid")}, stepIssue, nil},

		{"a device, and nobody is signed in", portal(device), facts{}, stepLogin, nil},
		{"a device that wants lab data, without a second factor", portal(device, lab), facts{session: signedIn(before, "pwd")}, stepEnrol, nil},
		{"a device is asked about, whatever was allowed", portal(device), facts{session: signedIn(before, "pwd"), consent: allowed(before, "openid")}, stepConsent, nil},
		{"likewise, allowed since in another tab", portal(device), facts{session: signedIn(before, "pwd"), consent: allowed(after, "openid")}, stepConsent, nil},
		{"likewise, of a first party", portal(device, firstParty), facts{session: signedIn(before, "pwd"), consent: allowed(after, "openid")}, stepConsent, nil},
		{"likewise, of a public client", portal(device, public), facts{session: signedIn(before, "pwd"), consent: allowed(after, "openid")}, stepConsent, nil},

		{"the hint is about the patient", portal(hint("ada"), firstParty), facts{session: signedIn(before, "pwd"), subject: "ada"}, stepIssue, nil},
		{"the hint is about somebody else", portal(hint("eve"), firstParty), facts{session: signedIn(before, "pwd"), subject: "ada"}, 0, web.ErrLogin},
		{"hint and claims differ", portal(hint("ada"), hint("eve"), firstParty), facts{session: signedIn(before, "pwd"), subject: "ada"}, 0, web.ErrLogin},
		{"the hint is what the sector calls the patient", portal(hint("p-1"), firstParty), facts{session: signedIn(before, "pwd"), subject: "p-1"}, stepIssue, nil},
		{"nobody is signed in yet: sign in first", portal(hint("ada"), firstParty), facts{}, stepLogin, nil},

		{"a claim of a scope that was not allowed", portal(claim("email")), facts{session: signedIn(before, "pwd"), consent: allowed(before, "openid")}, stepConsent, nil},
		{"a claim of a scope that was allowed", portal(claim("email")), facts{session: signedIn(before, "pwd"), consent: allowed(before, "openid", "email")}, stepIssue, nil},
		{"phishing-resistant, with a passkey", portal(phishing, firstParty), facts{session: signedIn(before, "passkey_uv"), second: true}, stepIssue, nil},
		{"phishing-resistant, with a code so far", portal(phishing, firstParty), facts{session: signedIn(before, "pwd", "otp"), second: true}, stepSecond, nil},
		{"phishing-resistant, without a passkey to use", portal(phishing, firstParty), facts{session: signedIn(before, "pwd", "otp")}, stepEnrol, nil},
		{"what was good when it came no longer is", portal(func(q *request) { q.fault = errTarget }), facts{session: signedIn(before, "pwd")}, 0, errTarget},
		{"the patient said no", portal(func(q *request) { q.denied = true }), facts{session: signedIn(before, "pwd")}, 0, web.ErrDenied},
	} {
		got, err := next(c.q, c.f, after)
		if c.err != nil {
			require.ErrorIs(t, err, c.err, c.name)
			continue
		}
		require.NoError(t, err, c.name)
		require.Equal(t, c.want, got, c.name)
	}
}
