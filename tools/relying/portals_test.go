package relying

import (
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A portal is a relying party of others, running. It was told the issuer and the
// client that `patauth client create` made of a name and a redirect URI.
type portalAt struct {
	registered
	at     string // its origin
	client *http.Client
	lands  int // the status after the sign-in; 0 for 200
}

// place is an origin on this machine that nobody listens at yet.
func place(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	require.NoError(t, err)
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	return "http://localhost:" + port
}

// portal registers a client with a redirect URI at path, and no other setting, and
// starts what the function makes of it.
func (h *house) portal(t *testing.T, path string, start func(p *portalAt) *exec.Cmd) *portalAt {
	t.Helper()
	p := &portalAt{at: place(t)}
	p.registered = h.register(t, "--redirect-uri", p.at+path)
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	p.client = &http.Client{Jar: jar, Timeout: 20 * time.Second, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if r.URL.Scheme+"://"+r.URL.Host != p.at {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	cmd := start(p)
	log := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			cmd.Process.Kill()
			<-ended
		}
		if t.Failed() {
			t.Log(log)
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if c, err := net.Dial("tcp", strings.TrimPrefix(p.at, "http://")); err == nil {
			c.Close()
			return p
		}
		select {
		case err := <-ended:
			ended <- err
			require.Fail(t, "it ended", "%v\n%s", err, log)
		default:
			require.True(t, time.Now().Before(deadline), "nobody listens\n%s", log)
		}
	}
}

// signIn has the patient open path at the portal, and returns what she sees after
// all redirects.
func (p *portalAt) signIn(b *browser, path string) string {
	b.t.Helper()
	get := func(address string) (*http.Response, string) {
		request, err := http.NewRequest(http.MethodGet, address, nil)
		require.NoError(b.t, err)
		request.Header.Set("Accept", "text/html,*/*;q=0.8") // as browsers do; some send nobody else to sign in
		r, err := p.client.Do(request)
		require.NoError(b.t, err)
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		require.NoError(b.t, err)
		return r, string(body)
	}
	r, body := get(p.at + path)
	there := r.Header.Get("Location")
	require.True(b.t, strings.HasPrefix(there, b.issuer+"/"), "%s %s\n%s", r.Status, there, body)
	back := b.goes(there)
	require.Equal(b.t, p.at, back.Scheme+"://"+back.Host, back.String())
	r, body = get(back.String())
	require.Equal(b.t, cmp.Or(p.lands, 200), r.StatusCode, "%s\n%s\n%s", back, r.Header.Get("Location"), body)
	return body
}

// learns signs in and returns the JSON that the portal shows of the patient.
func (p *portalAt) learns(b *browser, path string) map[string]any {
	b.t.Helper()
	body := p.signIn(b, path)
	var user map[string]any
	require.NoError(b.t, json.Unmarshal([]byte(body), &user), body)
	return user
}

// Libraries of npm that know no more than issuer, id and secret, and what
// docs/connect.md names.
func TestPortalsOfNode(t *testing.T) {
	t.Parallel()
	h := open(t)
	b := h.patient(t, "grace@example.org")
	for library, want := range map[string]map[string]string{
		"openid-client":          {"sub": b.patient, "email": b.email},
		"passport-openidconnect": {"sub": b.patient},
		"express-openid-connect": {"sub": b.patient, "email": b.email},
		"@auth/core":             {"name": "Grace Example", "email": b.email},
	} {
		t.Run(library, func(t *testing.T) {
			b := b.of(t)
			p := h.portal(t, "/callback", func(p *portalAt) *exec.Cmd {
				if library == "@auth/core" {
					p.registered = h.register(t, "--redirect-uri", p.at+"/auth/callback/patauth")
				}
				given, err := json.Marshal(map[string]string{"library": library, "issuer": h.Issuer, "id": p.ID, "secret": p.Secret, "at": p.at})
				require.NoError(t, err)
				cmd := node(t, "portals.mjs", string(given))
				cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+h.authority)
				return cmd
			})
			user := p.learns(b, "/login")
			for k, v := range want {
				require.Equal(t, v, user[k], "%v", user)
			}
		})
	}
}
