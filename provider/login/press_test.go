package login

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// pressed is the answer to one press: where it leads, and with which handle.
type pressed struct{ location, handle string }

// presses sends a form n times at once, each time with the cookies that the browser
// has now, and returns the different answers.
func (b *browser) presses(n int, path string, pairs ...string) map[pressed]int {
	b.t.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	at, err := url.Parse(b.url)
	require.NoError(b.t, err)
	cookies := b.client.Jar.Cookies(at)
	answers := map[pressed]int{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			r, _ := http.NewRequest("POST", b.url+path, strings.NewReader(form.Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			for _, c := range cookies {
				r.AddCookie(c)
			}
			w, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				b.t.Error(err)
				return
			}
			w.Body.Close()
			got := pressed{location: w.Header.Get("Location")}
			for _, c := range w.Cookies() {
				if c.Name == web.SessionCookie {
					got.handle = c.Value
				}
			}
			mu.Lock()
			answers[got]++
			mu.Unlock()
		})
	}
	all.Wait()
	return answers
}

// pressedOnce sends a form fifty times, and once more when it is over, with the old
// handle: there is one answer, which the browser takes.
func (b *browser) pressedOnce(to, path string, pairs ...string) {
	b.t.Helper()
	at, _ := url.Parse(b.url)
	old := b.client.Jar.Cookies(at)
	first := b.presses(50, path, pairs...)
	require.Len(b.t, first, 1, path)
	for got := range first {
		require.Equal(b.t, to, got.location)
		require.NotEmpty(b.t, got.handle, path)
		require.Equal(b.t, map[pressed]int{got: 1}, b.presses(1, path, pairs...), "a moment later")
		// The old handle with another form is nobody's.
		require.NotContains(b.t, b.presses(1, path, append(pairs, "more", "1")...), got)
		for _, c := range old {
			if c.Name == web.SessionCookie {
				_, err := b.db.SessionByDigest(context.Background(), storage.Digest(c.Value), storage.Now())
				require.ErrorIs(b.t, err, storage.ErrNotFound)
			}
		}
		b.client.Jar.SetCookies(at, []*http.Cookie{{Name: web.SessionCookie, Value: got.handle, Path: "/"}})
	}
	b.session()
}

func TestASecondPressGetsTheAnswerToTheFirst(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		p := newPlace(t, db)
		p.patient("ada@example.org")
		b := p.signedIn("ada@example.org")
		b.pressedOnce("/account", "/login", "email", "ada@example.org", "current-password", goodPassword)

		offer := b.get("/login/enrol/totp?to=factors").is(200)
		seed, err := seedText.DecodeString(offer.find(`id="totp-secret">([^<]*)`))
		require.NoError(t, err)
		b.pressedOnce("/account/factors", "/login/enrol/totp", "to", "factors", "challenge", offer.challenge(), "one-time-code", totpCode(seed, totpStep(time.Now())-1))

		b = p.signedIn("ada@example.org")
		b.pressedOnce("/account", "/login/second", "factor", "totp", "one-time-code", totpCode(seed, totpStep(time.Now())))

		b.pressedOnce("/account", "/login/password", "current-password", goodPassword, "new-password", "four other words entirely")
	})
}

// A handle that is nobody's begins no press, or strangers would leave rows.
func TestAStrangersPressIsNotRemembered(t *testing.T) {
	p := newSQLitePlace(t)
	b := p.browser()
	at, _ := url.Parse(p.url)
	b.client.Jar.SetCookies(at, []*http.Cookie{{Name: web.SessionCookie, Value: storage.NewHandle("pas_"), Path: "/"}})
	b.post("/login/second", "factor", "totp", "one-time-code", "123456").to("/login")
	b.client.Jar.SetCookies(at, []*http.Cookie{{Name: web.SessionCookie, Value: "x", Path: "/"}})
	n, err := p.db.DeleteExpired(context.Background(), "press", storage.Now().Add(24*time.Hour), 100)
	require.NoError(t, err)
	require.Zero(t, n)
}

// Whatever a form comes to, the answer leads to a page of its own: Back and a reload
// meet no form, and the flow stays in the address. What was typed is sealed there.
func TestWhatIsSaidOfAFormHasAPageOfItsOwn(t *testing.T) {
	p := newSQLitePlace(t)
	b := p.browser()
	request := b.begin()
	for got := range b.presses(1, "/login", "request", request, "email", "ada@example.org", "current-password", "wrong") {
		require.Contains(t, got.location, "/login?request=")
		require.Contains(t, got.location, "&problem=login.wrong&typed=")
		require.NotContains(t, got.location, "ada")
		for range 2 { // a reload
			b.get(got.location).is(401, `name="request"`, `value="ada@example.org"`, "is wrong")
		}
	}
	for got := range b.presses(1, "/register", "request", request, "email", "ada@example.org", "given-name", "Ada",
		"family-name", "Byron", "bday", "1975-12-10", "new-password", goodPassword) {
		require.Contains(t, got.location, "/verify-email/sent?request=")
		b.get(got.location).is(200, "Check your mail", `href="/login?request=`)
	}
	for got := range b.presses(1, "/verify-email", "token", p.token("ada@example.org"), "current-password", goodPassword) {
		require.Contains(t, got.location, "/verify-email/done")
		b.get(got.location).is(200, "confirmed")
	}
	b.get("/login?problem=error.internal&typed=xx").is(200)
	require.NotContains(t, b.get("/login?problem=login.wrong&typed=YWRh").is(401).body, `value="ada"`)
}
