package relying

import (
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"
)

// browser is a patient's, without script. It follows redirects until one leads
// away from the provider: that is where a client listens, or nobody.
type browser struct {
	t         *testing.T
	patient   string // the account's id
	email     string
	issuer    string
	client    *http.Client
	at        *url.URL
	body      string
	seed      string // of the authenticator app
	consented int    // how often the consent page was shown
}

func newBrowser(t *testing.T, h *house, patient, email string) *browser {
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	b := &browser{t: t, patient: patient, email: email, issuer: h.Issuer}
	b.client = &http.Client{Jar: jar, Transport: h.client.Transport, Timeout: 10 * time.Second,
		CheckRedirect: func(r *http.Request, _ []*http.Request) error {
			b.at = r.URL
			if b.away() {
				return http.ErrUseLastResponse
			}
			return nil
		}}
	return b
}

// of is the same browser in another test.
func (b *browser) of(t *testing.T) *browser {
	same := *b
	same.t = t
	same.client = &http.Client{Jar: b.client.Jar, Transport: b.client.Transport, Timeout: b.client.Timeout,
		CheckRedirect: func(r *http.Request, _ []*http.Request) error {
			same.at = r.URL
			if same.away() {
				return http.ErrUseLastResponse
			}
			return nil
		}}
	return &same
}

// away reports whether the browser was sent away from the provider.
func (b *browser) away() bool { return b.at.Scheme+"://"+b.at.Host != b.issuer }

func (b *browser) took(r *http.Response, err error) {
	b.t.Helper()
	require.NoError(b.t, err)
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	require.NoError(b.t, err)
	b.body = html.UnescapeString(string(text))
	if r.Header.Get("Location") == "" {
		b.at = r.Request.URL
	}
}

func (b *browser) visit(address string) {
	b.t.Helper()
	r, err := b.client.Get(address)
	b.took(r, err)
}

var (
	forms   = regexp.MustCompile(`(?s)<form [^>]*action="([^"]*)"[^>]*>(.*?)</form>`)
	hiddens = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
)

// submit fills the form with that action and sends it.
func (b *browser) submit(action string, pairs ...string) {
	b.t.Helper()
	for _, f := range forms.FindAllStringSubmatch(b.body, -1) {
		if f[1] != action {
			continue
		}
		values := url.Values{}
		for _, h := range hiddens.FindAllStringSubmatch(f[2], -1) {
			values.Add(h[1], h[2])
		}
		for i := 0; i < len(pairs); i += 2 {
			values.Set(pairs[i], pairs[i+1])
		}
		r, err := b.client.PostForm(b.at.ResolveReference(&url.URL{Path: action}).String(), values)
		b.took(r, err)
		return
	}
	b.t.Fatalf("no form for %s at %s\n%s", action, b.at, b.body)
}

// goes opens address and does what the pages ask for, until the browser is sent
// away or a device is connected; it returns where that is.
func (b *browser) goes(address string) *url.URL {
	b.t.Helper()
	b.visit(address)
	for range 6 {
		if b.away() || strings.HasPrefix(b.at.Path, "/device/") {
			return b.at
		}
		switch b.at.Path {
		case "/login":
			b.submit("/login", "email", b.email, "current-password", password)
		case "/login/enrol":
			b.enrol()
		case "/login/second":
			b.prove()
		case "/consent":
			b.consented++
			b.submit("/consent", "decision", "allow")
		case "/logout":
			b.submit("/logout")
		case "/device":
			b.submit("/device", "user_code", b.at.Query().Get("user_code"))
		default:
			b.t.Fatalf("stuck at %s\n%s", b.at, b.body)
		}
	}
	b.t.Fatalf("no end of pages: %s\n%s", b.at, b.body)
	return nil
}

// enrol sets an authenticator app up. It tells the code of the step before, which
// is still good, so that there is one left for prove: each counts once.
func (b *browser) enrol() {
	b.t.Helper()
	b.visit(b.issuer + "/login/enrol/totp?" + b.at.RawQuery)
	seed := regexp.MustCompile(`id="totp-secret">([^<]*)`).FindStringSubmatch(b.body)
	require.NotNil(b.t, seed, b.body)
	b.seed = strings.ReplaceAll(seed[1], " ", "")
	b.submit("/login/enrol/totp", "one-time-code", b.code(time.Now().Add(-30*time.Second)))
}

// prove shows the authenticator app's code.
func (b *browser) prove() {
	b.t.Helper()
	b.submit("/login/second", "one-time-code", b.code(time.Now()))
}

func (b *browser) code(at time.Time) string {
	b.t.Helper()
	code, err := totp.GenerateCode(b.seed, at)
	require.NoError(b.t, err)
	return code
}
