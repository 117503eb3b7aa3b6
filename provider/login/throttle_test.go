package login

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// atOnce runs f for 0 … n-1, some at a time.
func atOnce(n int, f func(i int)) {
	var all sync.WaitGroup
	next := make(chan int)
	for range 16 {
		all.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	all.Wait()
}

const wrong = "not the right password"

// Sixty-two mistakes behind one address shut nobody out, and ten times as many shut
// out only browsers that never signed in.
func TestAHospitalBehindOneAddress(t *testing.T) {
	p := newSQLitePlace(t)
	const hospital = "198.51.100.7"
	p.patient("ada@example.org")
	p.patient("eve@example.org")
	ada := p.browser().from(hospital)
	ada.post("/login", "email", "ada@example.org", "current-password", goodPassword).to("/account")
	mistakes := func(n int) (throttled int64) {
		var count atomic.Int64
		atOnce(n, func(i int) {
			if p.browser().from(hospital).post("/login", "email", fmt.Sprintf("p%d@example.org", i), "current-password", wrong).status == 429 {
				count.Add(1)
			}
		})
		return count.Load()
	}
	require.Zero(t, mistakes(62))
	p.browser().from(hospital).post("/login", "email", "eve@example.org", "current-password", goodPassword).to("/account")

	require.NotZero(t, mistakes(620))
	p.browser().from(hospital).post("/login", "email", "eve@example.org", "current-password", goodPassword).is(429)
	ada.post("/login", "email", "ada@example.org", "current-password", goodPassword).to("/account")
	p.browser().from("203.0.113.9").post("/login", "email", "eve@example.org", "current-password", goodPassword).to("/account")
}

// Whatever strangers guess at an account, the browser of its patient gets in, and
// gives strangers their tries again. It has a count of its own.
func TestStrangersDoNotShutAKnownBrowserOut(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		p := newPlace(t, db)
		ctx := context.Background()
		ada := p.patient("ada@example.org")
		b := p.signedIn("ada@example.org")
		password := func() storage.Credential {
			all, err := db.Credentials(ctx, ada.ID)
			require.NoError(t, err)
			return all[0]
		}
		stranger := func() page {
			return p.browser().post("/login", "email", "ada@example.org", "current-password", goodPassword)
		}
		for now := storage.Now(); password().DisabledAt == nil; now = now.Add(2 * time.Hour) {
			_, err := db.TryCredential(ctx, password().ID, now)
			require.NoError(t, err)
			_, err = db.CredentialFailed(ctx, password().ID, now)
			require.NoError(t, err)
		}
		stranger().is(401)
		b.post("/signout").to("/login")
		b.post("/login", "email", "ADA@example.org", "current-password", goodPassword).to("/account")
		require.Zero(t, password().Failures)
		stranger().to("/account")

		// For other accounts it is a stranger, and for this one after ten mistakes.
		p.patient("eve@example.org")
		for range 10 {
			b.post("/login", "email", "ada@example.org", "current-password", wrong).is(401)
		}
		require.Zero(t, password().Failures)
		b.post("/login", "email", "ada@example.org", "current-password", wrong).is(401)
		require.Equal(t, 1, password().Failures)
		b.post("/login", "email", "ada@example.org", "current-password", goodPassword).to("/account")
		b.post("/login", "email", "ada@example.org", "current-password", wrong).is(401)
		require.Zero(t, password().Failures, "it is known again")
	})
}

// Who knew the password once may have collected known browsers: together they guess
// forty times in a row, and are strangers then.
func TestKnownBrowsersAreCountedTogether(t *testing.T) {
	p := newSQLitePlace(t)
	ada := p.patient("ada@example.org")
	var collected []*browser
	for range 6 {
		b := p.signedIn("ada@example.org")
		b.post("/signout").to("/login")
		collected = append(collected, b)
	}
	failures := func() int {
		all, err := p.db.Credentials(context.Background(), ada.ID)
		require.NoError(t, err)
		return all[0].Failures
	}
	for i := range knownTogether {
		collected[i/(knownTries-1)].post("/login", "email", "ada@example.org", "current-password", wrong).is(401)
	}
	require.Zero(t, failures())
	collected[5].post("/login", "email", "ada@example.org", "current-password", wrong).is(401)
	require.Equal(t, 1, failures(), "now it counts for the account")
	collected[5].post("/login", "email", "ada@example.org", "current-password", goodPassword).to("/account")
	require.Zero(t, failures())
}

func TestAKnownBrowserIsWhatWeSealed(t *testing.T) {
	p := newSQLitePlace(t)
	p.patient("ada@example.org")
	p.patient("eve@example.org")
	b := p.signedIn("ada@example.org")
	known := func(email string) bool {
		r := b.request("/login")
		return p.login.knownFor(r, email) != ""
	}
	require.True(t, known("ada@example.org"))
	require.False(t, known("eve@example.org"))
	b.post("/login", "email", "eve@example.org", "current-password", goodPassword).to("/account")
	require.True(t, known("ada@example.org"), "a family has one computer")
	require.True(t, known("eve@example.org"))
	require.NotContains(t, b.request("/login").Header.Get("Cookie"), "ada")

	r := b.request("/login")
	r.Header.Set("Cookie", knownCookie+"=AAAA")
	require.Empty(t, p.login.knownBrowser(r))
}

// Who only looks leaves nothing behind, and takes no passkey from anybody.
func TestLookingAtThePage(t *testing.T) {
	p := newSQLitePlace(t)
	p.login.gate = newGate(Limits{NetworkPerMinute: 5, NetworkFailuresPerMinute: 5, TotalPerSecond: 5})
	var offered, refused atomic.Int64
	atOnce(200, func(int) {
		switch answer := p.browser().from("198.51.100.7").get("/login"); answer.status {
		case 200:
			answer.challenge()
			offered.Add(1)
		case 429:
			refused.Add(1)
		}
	})
	require.InDelta(t, 20, offered.Load(), 2)
	require.EqualValues(t, 200, offered.Load()+refused.Load())
	for i := range 20 {
		p.browser().from(fmt.Sprintf("203.0.113.%d", i)).get("/login").is(200).challenge()
	}
	n, err := p.db.DeleteExpired(context.Background(), "challenge", storage.Now().Add(time.Hour).Add(24*time.Hour), 1000)
	require.NoError(t, err)
	require.Zero(t, n)
}

// An invitation is good once, in its time, in its browser.
func TestAnInvitationIsSpentOnce(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		p := newPlace(t, db)
		p.patient("ada@example.org")
		b := p.signedIn("ada@example.org")
		key := newKey(p.site.Issuer)
		page := b.get("/login/enrol/passkey")
		b.post("/login/enrol/passkey", "challenge", page.challenge(), "credential", key.create(t, page.options())).to("/account")

		b = p.browser()
		page = b.get("/login")
		answer := key.get(t, page.options())
		p.browser().post("/login/passkey", "challenge", page.challenge(), "credential", answer).is(401)
		for _, junk := range []string{"", "v1.k1.AAAA", page.challenge()[1:], storage.NewID()} {
			b.post("/login/passkey", "challenge", junk, "credential", answer).is(401)
		}
		var in atomic.Int64
		atOnce(50, func(int) {
			if b.post("/login/passkey", "challenge", page.challenge(), "credential", answer).status == 303 {
				in.Add(1)
			}
		})
		require.EqualValues(t, 1, in.Load())

		b = p.browser()
		page = b.get("/login")
		row := hex.EncodeToString(storage.Digest(b.cookie(browserCookie)))
		plain, err := db.Unseal(kindPasskeyLogin, "challenge", row, []byte(page.challenge()))
		require.NoError(t, err)
		var i invitation
		require.NoError(t, json.Unmarshal(plain, &i))
		i.Until = storage.Now()
		plain, err = json.Marshal(i)
		require.NoError(t, err)
		late := string(db.Seal(kindPasskeyLogin, "challenge", row, plain))
		b.post("/login/passkey", "challenge", late, "credential", key.get(t, page.options())).is(401)
		b.post("/login/passkey", "challenge", page.challenge(), "credential", key.get(t, page.options())).to("/account")
	})
}

// A stranger who registers somebody else's address all the time sends three mails
// and no more, and keeps nobody from registering.
func TestNobodyIsKeptFromRegistering(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		p := newPlace(t, db)
		ctx := context.Background()
		const theirs = "a password of the stranger"
		flood := func() {
			atOnce(30, func(i int) {
				answer := p.browser().from("198.51.100.7").register("victim@example.org", theirs)
				if answer.status != 200 && answer.status != 429 {
					t.Errorf("status %d", answer.status)
				}
			})
		}
		flood()
		victim := p.browser().from("203.0.113.9")
		victim.register("victim@example.org", "an earlier idea of hers").is(200, "Check your mail")
		victim.register("victim@example.org", goodPassword).is(200, "Check your mail")
		flood()
		token := p.token("victim@example.org")
		mails, err := db.ClaimOutbox(ctx, 100, storage.Now())
		require.NoError(t, err)
		require.Len(t, mails, mailsPerHour)
		linked := false
		for _, m := range mails {
			linked = linked || string(m.Payload) == fmt.Sprintf(`{"challenge_id":%q}`, token[:26])
		}
		require.True(t, linked, "the link that is open was mailed: %v", mails)

		// On her phone she knows her password, and the stranger's opens nothing.
		p.browser().from("203.0.113.99").post("/verify-email", "token", token, "current-password", "an earlier idea of hers").is(422)
		victim.get("/verify-email?token="+token).is(200, "Yes, confirm")
		victim.post("/verify-email", "token", token).is(200)
		victim.post("/login", "email", "victim@example.org", "current-password", goodPassword).to("/account")
		p.browser().post("/login", "email", "victim@example.org", "current-password", theirs).is(401)
	})
}

func TestAWaitingRegistrationIsFoundByItsPassword(t *testing.T) {
	p := newSQLitePlace(t)
	p.browser().from("203.0.113.9").register("victim@example.org", goodPassword).is(200)
	for i := range 3 {
		p.browser().from(fmt.Sprintf("198.51.100.%d", i)).register("victim@example.org", "a password of the stranger").is(200)
	}
	phone, token := p.browser().from("203.0.113.10"), p.token("victim@example.org")
	phone.get("/verify-email?token="+token).is(200, `name="current-password"`)
	phone.post("/verify-email", "token", token, "current-password", wrong).is(422)
	phone.post("/verify-email", "token", token, "current-password", goodPassword).is(200)
	phone.post("/login", "email", "victim@example.org", "current-password", goodPassword).to("/account")
}

// Ten times what a network may: tags are one mailbox, and the address without one
// has lost nothing by it.
func TestMailsAreBounded(t *testing.T) {
	p := newSQLitePlace(t)
	var taken, refused atomic.Int64
	atOnce(10*mailsOfNetwork.Burst, func(i int) {
		switch p.browser().from("198.51.100.7").register(fmt.Sprintf("Victim+%d@example.org", i), goodPassword).status {
		case 200:
			taken.Add(1)
		case 429:
			refused.Add(1)
		}
	})
	require.InDelta(t, mailsOfNetwork.Burst, taken.Load(), 2)
	require.EqualValues(t, 10*mailsOfNetwork.Burst, taken.Load()+refused.Load())
	p.browser().from("198.51.100.7").post("/verify-email/resend", "email", "victim+1@example.org").is(429)
	mails := func() int {
		rows, err := p.db.ClaimOutbox(context.Background(), 1000, storage.Now())
		require.NoError(t, err)
		return len(rows)
	}
	require.Equal(t, mailsPerHour, mails())
	p.browser().from("203.0.113.9").register("victim@example.org", goodPassword).is(200)
	require.Equal(t, 1, mails())
	for address, box := range map[string]string{
		"ada@x.org": "ada@x.org", "ada+a@x.org": "ada+@x.org", "ada+b+c@x.org": "ada+@x.org", "+a@x.org": "+a@x.org",
	} {
		require.Equal(t, box, mailbox(address))
	}
}

// Whatever a cookie and a challenge say, they are of our making or they say nothing.
func FuzzSealedByUs(f *testing.F) {
	db := storagetest.SQLite(f)
	l := &Login{db: db, site: &web.Site{Issuer: "http://localhost"}, passkeys: &passkeys{db: db}}
	w := httptest.NewRecorder()
	require.NoError(f, l.remember(w, httptest.NewRequest("GET", "/", nil), "ada@example.org"))
	f.Add(w.Result().Cookies()[0].Value)
	f.Add(string(db.Seal(kindPasskeyLogin, "challenge", "", []byte(`{"until": "2999-01-01T00:00:00Z"}`))))
	f.Add("AAAA")
	ours := w.Result().Cookies()[0].Value
	f.Fuzz(func(t *testing.T, text string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.AddCookie(&http.Cookie{Name: knownCookie, Value: text})
		if len(l.knownBrowser(r)) > 0 {
			require.Equal(t, ours, text)
		}
		_, err := l.passkeys.accepted(t.Context(), nil, answer{"challenge": {text}})
		require.ErrorIs(t, err, errWrong)
	})
}
