package web_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/templates"
)

// passkeyPage is a page with one passkey form, as the sign-in page has.
const passkeyPage = `{{define "title"}}x{{end}}{{define "content"}}
<form method="post" action="/done" data-passkey="{{.Do}}" data-options="{{.Options}}"{{if .Conditional}} data-conditional{{end}} hidden>
<input type="hidden" name="credential">
<p class="problem" role="alert" data-passkey-error hidden>{{t "error.internal"}}</p>
<button>Go</button>
</form>
<input name="email" autocomplete="username webauthn">
{{end}}`

// chromium is a headless browser, or the test is skipped.
func chromium(t *testing.T) context.Context {
	t.Helper()
	path := os.Getenv("PATAUTH_TEST_CHROMIUM")
	if path == "" {
		var err error
		if path, err = exec.LookPath("chromium"); err != nil {
			t.Skip("no Chromium: install it, set PATAUTH_TEST_CHROMIUM or run make test")
		}
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	return ctx
}

// The one script of the site, in a real browser with a virtual authenticator
// and behind the real content policy.
func TestPasskeyFormsInABrowser(t *testing.T) {
	ctx := chromium(t)
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "pages"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "pages/message.html"), []byte(passkeyPage), 0o644))
	pages, err := templates.New(dir)
	require.NoError(t, err)

	var view map[string]any
	answers := make(chan url.Values, 1)
	s := &web.Site{Pages: pages}
	router := s.Router()
	router.PathPrefix("/static/").Handler(pages.Static())
	router.Path("/form").Handler(s.Page(func(w http.ResponseWriter, r *http.Request) error {
		return s.Render(w, r, 200, "message", view)
	}))
	router.Path("/done").Methods("POST").Handler(s.Page(func(w http.ResponseWriter, r *http.Request) error {
		f, err := web.Form(r)
		answers <- f
		return err
	}))
	server := httptest.NewUnstartedServer(nil)
	server.Start()
	t.Cleanup(server.Close)
	s.Issuer = strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	server.Config.Handler = web.Chain(s, router)

	type response struct {
		ID, RawID, Type string
		Response        map[string]any
	}
	answer := func() (response, map[string]string) {
		t.Helper()
		select {
		case f := <-answers:
			var c response
			require.NoError(t, json.Unmarshal([]byte(f.Get("credential")), &c))
			b, err := base64.RawURLEncoding.DecodeString(c.Response["clientDataJSON"].(string))
			require.NoError(t, err)
			var data map[string]any
			require.NoError(t, json.Unmarshal(b, &data))
			require.Equal(t, s.Issuer, data["origin"])
			require.Equal(t, c.ID, c.RawID)
			require.Equal(t, "public-key", c.Type)
			return c, map[string]string{"type": data["type"].(string), "challenge": data["challenge"].(string)}
		case <-ctx.Done():
			t.Fatal("the form was not sent")
			panic("unreachable")
		}
	}
	show := func(do, options string, conditional bool) {
		t.Helper()
		view = map[string]any{"Do": do, "Options": options, "Conditional": conditional}
		var err error
		for range 5 { // the answer to the last form may still be on its way
			if err = chromedp.Do(ctx, chromedp.Navigate(s.Issuer+"/form")); err == nil {
				break
			}
		}
		require.NoError(t, err)
	}

	require.NoError(t, chromedp.Do(ctx, chromedp.Navigate("about:blank")))
	_, err = chromedp.Call(ctx, webauthn.Enable, webauthn.EnableParams{})
	require.NoError(t, err)
	_, err = chromedp.Call(ctx, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
		Protocol: "ctap2", Transport: "internal", HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
	}})
	require.NoError(t, err)

	// A challenge whose base64url differs from base64.
	challenge := base64.RawURLEncoding.EncodeToString([]byte{0xfb, 0xff, 0xfe, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14})
	user := base64.RawURLEncoding.EncodeToString([]byte{0xff, 0xfe, 1})
	create := `{"challenge":"` + challenge + `","rp":{"id":"localhost","name":"x"},"user":{"id":"` + user + `","name":"a","displayName":"a \"b\" <c>"},
		"pubKeyCredParams":[{"type":"public-key","alg":-7}],"authenticatorSelection":{"residentKey":"required","userVerification":"required"},
		"excludeCredentials":[{"type":"public-key","id":"AAAA"}]}`
	show("create", create, false)
	require.NoError(t, chromedp.Do(ctx, chromedp.Click("form button")))
	made, data := answer()
	require.Equal(t, map[string]string{"type": "webauthn.create", "challenge": challenge}, data)
	require.NotEmpty(t, made.Response["attestationObject"])
	require.Contains(t, made.Response["transports"], "internal")

	get := `{"challenge":"` + challenge + `","rpId":"localhost","userVerification":"required"}`
	show("get", get, false)
	require.NoError(t, chromedp.Do(ctx, chromedp.Click("form button")))
	used, data := answer()
	require.Equal(t, map[string]string{"type": "webauthn.get", "challenge": challenge}, data)
	require.Equal(t, made.ID, used.ID)
	require.Equal(t, user, used.Response["userHandle"])
	require.NotEmpty(t, used.Response["signature"])
	require.NotEmpty(t, used.Response["authenticatorData"])

	// With data-conditional the browser offers the passkey by itself.
	show("get", get, true)
	used, _ = answer()
	require.Equal(t, made.ID, used.ID)

	// What fails is said, and can be tried again.
	show("get", `{"challenge":"`+challenge+`","rpId":"other.example"}`, false)
	require.NoError(t, chromedp.Do(ctx, chromedp.Click("form button"), chromedp.WaitVisible("[data-passkey-error]"), chromedp.WaitEnabled("form button")))
	select {
	case <-answers:
		t.Fatal("a failure must not be sent")
	default:
	}
}
