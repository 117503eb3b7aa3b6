package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// The newcomer's path, in a real browser against the real binary: register,
// read the mail, sign in to the portal with a passkey, consent, link the lab
// record, sign out, and in again with the passkey alone.
func TestNewcomer(t *testing.T) {
	d := startDev(t)
	p := newPerson(t)
	const email, password = "grace@example.org", "a rather long pass phrase"
	lab := d.ActivationCodes[0]

	p.visit(d.Portal)
	p.shot("portal")
	p.press("#sign-in")
	p.sees("current-password")
	p.shot("login")
	p.press(`a[href^="/register"]`)
	p.waits(`/register`, `form[action="/register"] button`)
	p.fill("email", email)
	p.fill("given-name", "Grace")
	p.fill("family-name", "Example")
	p.date("bday", lab.BirthDate)
	p.fill("new-password", password)
	p.shot("register")
	p.press(`form[action="/register"] button`)
	p.waits(`/verify-email/sent`, `[role=status]`)
	p.shot("check-mail")

	link := d.link(t, email)
	p.visit(link)
	p.press(`form[action="/verify-email"] button`)
	p.waits(`/verify-email`, `a[href^="/login"]`)
	p.shot("verified")
	p.press(`main a[href^="/login"]`)
	p.fill("email", email)
	p.fill("current-password", password)
	p.press(`form[action="/login"] button`)

	// The portal asks for lab data, so a second factor is set up on the way.
	p.waits(`/login/enrol`, `a[href^="/login/enrol/passkey"]`)
	p.shot("enrol")
	p.press(`a[href^="/login/enrol/passkey"]`)
	p.waits(`/login/enrol/passkey`, `form[data-passkey=create] button`)
	p.press(`form[data-passkey=create] button`)
	p.waits(`/consent`, `button[value=allow]`)
	p.shot("consent")
	p.press(`button[value=allow]`)
	p.waits(d.Portal, `#sign-out`)
	p.shot("portal-signed-in")
	require.Contains(t, p.text(), "Grace Example")
	require.Contains(t, p.text(), email)
	require.NotContains(t, p.text(), lab.Record)

	// The record is linked with the code from the lab.
	p.visit(d.Issuer + "/account/labs")
	p.fill("activation-code", lab.Code)
	p.date("bday", lab.BirthDate)
	p.shot("labs")
	p.press(`form[action="/account/labs"] button`)
	p.waits(`/account/labs`, `form[action="/account/labs/unlink"]`)
	p.visit(d.Issuer + "/account")
	p.shot("account")
	p.visit(d.Portal)
	p.press("#sign-in-again")
	p.waits(d.Portal, `#lab code`)
	p.shot("portal-linked")
	require.Contains(t, p.text(), lab.Record)

	// Out, and in again without a password or a name.
	p.press("#sign-out")
	p.waits(d.Portal, `#sign-in`)
	p.press("#sign-in")
	// The browser offers the passkey by itself, in the field for the address
	// (conditional mediation), and this authenticator's holder is always there.
	p.waits(d.Portal, `#sign-out`)
	require.Contains(t, p.text(), "phr")
	p.visit(d.Issuer + "/account/sessions")
	p.shot("sessions")
}

// dev is a running `patauth dev`, as its --json line describes it.
type dev struct {
	Issuer, Internal, Portal, Mailbox string
	Client                            struct{ ID string }
	ConfidentialClient                struct{ ID, Secret string } `json:"confidential_client"`
	ActivationCodes                   []struct {
		Code      string
		BirthDate string `json:"birth_date"`
		Authority string
		Record    string
	} `json:"activation_codes"`
	data string
}

// binary builds patauth once for the tests of this package.
func binary(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "patauth")
	out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	return bin
}

// startDev builds patauth and runs `patauth dev` on free ports until the test ends.
func startDev(t *testing.T, args ...string) dev {
	t.Helper()
	d := dev{data: t.TempDir()}
	d.run(t, binary(t), args...)
	return d
}

func (d *dev) run(t *testing.T, bin string, args ...string) (stop func()) {
	t.Helper()
	cmd := exec.Command(bin, append([]string{"dev", "--json", "--data", d.data,
		"--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0", "--portal-listen", "127.0.0.1:0"}, args...)...)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	log, err := os.Create(filepath.Join(d.data, "test.log"))
	require.NoError(t, err)
	cmd.Stderr = log
	require.NoError(t, cmd.Start())
	stop = func() {
		if cmd.ProcessState != nil {
			return
		}
		cmd.Process.Signal(os.Interrupt)
		err := cmd.Wait()
		log.Close()
		if err != nil || t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("patauth dev: %v\n%s", err, b)
		}
	}
	t.Cleanup(stop)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		stop()
	}
	require.NoError(t, err, "no ready line")
	require.NoError(t, json.Unmarshal([]byte(line), d), line)
	return stop
}

var mailLink = regexp.MustCompile(`https?://\S+/verify-email\?token=[^\s"<]+`)

// link waits for the verification mail to email and returns its link.
func (d dev) link(t *testing.T, email string) string {
	t.Helper()
	for range 100 {
		resp, err := http.Get(d.Mailbox + ".json")
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		require.NoError(t, err)
		var mails []struct{ To, Subject, Text, HTML string }
		require.NoError(t, json.Unmarshal(body, &mails))
		for _, m := range mails {
			if m.To == email {
				if l := mailLink.FindString(m.Text); l != "" {
					return l
				}
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("no mail came")
	return ""
}

// person drives a browser that has a passkey authenticator.
type person struct {
	t   *testing.T
	ctx context.Context
}

// Switches of Chromium may be added, each with its value.
func newPerson(t *testing.T, switches ...string) *person {
	t.Helper()
	chromium := os.Getenv("PATAUTH_TEST_CHROMIUM")
	if chromium == "" {
		var err error
		if chromium, err = exec.LookPath("chromium"); err != nil {
			t.Skip("no Chromium: set PATAUTH_TEST_CHROMIUM or run make test")
		}
	}
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(stop)
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(chromium), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		// A page that is kept for Back goes on to answer what is asked of its successor.
		chromedp.Flag("disable-features", "BackForwardCache"),
	}
	for i := 0; i < len(switches); i += 2 {
		options = append(options, chromedp.Flag(switches[i], switches[i+1]))
	}
	ctx, stop = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	p := &person{t: t, ctx: ctx}
	// The browser lives as long as the context of its first action.
	require.NoError(t, chromedp.Do(ctx, chromedp.Navigate("about:blank"), chromedp.EmulateViewport(480, 900)))
	_, err := chromedp.Call(ctx, webauthn.Enable, webauthn.EnableParams{})
	require.NoError(t, err)
	_, err = chromedp.Call(ctx, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{
		Options: &webauthn.VirtualAuthenticatorOptions{
			Protocol: "ctap2", Transport: "internal", HasResidentKey: true,
			HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
		},
	})
	require.NoError(t, err)
	return p
}

func (p *person) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, stop := context.WithTimeout(p.ctx, 15*time.Second)
	defer stop()
	if err := chromedp.Do(ctx, steps...); err != nil {
		where, _ := chromedp.Run(p.ctx, chromedp.Location())
		p.t.Fatalf("%v\nat %s\n%s", err, where, p.text())
	}
}

func (p *person) visit(address string) { p.t.Helper(); p.do(chromedp.Navigate(address)) }
func (p *person) press(selector string) {
	p.t.Helper()
	p.do(chromedp.WaitVisible(chromedp.CSS(selector)), chromedp.Click(chromedp.CSS(selector)))
}
func (p *person) fill(name, value string) {
	p.t.Helper()
	s := chromedp.CSS(`[name="` + name + `"]`)
	p.do(chromedp.WaitVisible(s), chromedp.SendKeys(s, value))
}

// date fills a date field, whose keys depend on the browser's language.
func (p *person) date(name, value string) {
	p.t.Helper()
	s := chromedp.CSS(`[name="` + name + `"]`)
	p.do(chromedp.WaitVisible(s), chromedp.SetValue(s, value))
}
func (p *person) sees(name string) {
	p.t.Helper()
	p.do(chromedp.WaitVisible(chromedp.CSS(`[name="` + name + `"]`)))
}

// waits until the page at an address shows selector.
func (p *person) waits(address, selector string) {
	p.t.Helper()
	p.do(chromedp.WaitVisible(chromedp.CSS(selector)))
	// What is pressed while a page still loads breaks that off.
	for range 200 {
		state, err := chromedp.Run(p.ctx, chromedp.Evaluate[string]("document.readyState"))
		if err == nil && state == "complete" {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	where, err := chromedp.Run(p.ctx, chromedp.Location())
	require.NoError(p.t, err)
	require.Contains(p.t, where, strings.TrimSuffix(address, "/"))
}

func (p *person) text() string {
	p.t.Helper()
	text, err := chromedp.Run(p.ctx, chromedp.Evaluate[string]("document.body.innerText"))
	require.NoError(p.t, err)
	return text
}

// shot keeps a picture of the page where PATAUTH_TEST_SHOTS names a folder.
func (p *person) shot(name string) {
	p.t.Helper()
	dir := os.Getenv("PATAUTH_TEST_SHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	require.NoError(p.t, err)
	require.NoError(p.t, os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600))
}
