package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"html"
	"io"
	"math/big"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// inProcess runs `patauth dev` inside the test until it ends or stop is called.
func inProcess(t *testing.T, data string, args ...string) (line readyLine, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, in := io.Pipe()
	cmd := newCommand(nil)
	cmd.SetArgs(append([]string{"dev", "--json", "--data", data, "--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0", "--portal-listen", "127.0.0.1:0"}, args...))
	cmd.SetOut(in)
	log := &bytes.Buffer{}
	cmd.SetErr(log)
	done := make(chan error, 1)
	go func() {
		err := cmd.ExecuteContext(ctx)
		in.CloseWithError(fmt.Errorf("dev ended: %v", err))
		done <- err
	}()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		require.NoError(t, <-done)
		if t.Failed() {
			t.Log(log.String())
		}
	}
	t.Cleanup(stop)
	require.NoError(t, json.NewDecoder(out).Decode(&line))
	go io.Copy(io.Discard, out)
	return line, stop
}

// surfer is a browser without script.
type surfer struct {
	t      *testing.T
	client *http.Client
	url    *url.URL
	body   string
}

func newSurfer(t *testing.T) *surfer {
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	s := &surfer{t: t}
	s.client = &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		s.url = r.URL
		if r.URL.Port() == "9999" { // nobody listens there; the code is in the URL
			return http.ErrUseLastResponse
		}
		return nil
	}}
	return s
}

func (s *surfer) took(r *http.Response, err error) {
	s.t.Helper()
	require.NoError(s.t, err)
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	require.NoError(s.t, err)
	s.body = html.UnescapeString(string(b))
	if r.StatusCode < 300 || r.StatusCode >= 400 {
		s.url = r.Request.URL
	}
}

func (s *surfer) visit(address string) {
	s.t.Helper()
	r, err := s.client.Get(address)
	s.took(r, err)
}

var (
	formsOf  = regexp.MustCompile(`(?s)<form [^>]*action="([^"]*)"[^>]*>(.*?)</form>`)
	hiddenOf = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
)

// submit fills the form with that action and sends it.
func (s *surfer) submit(action string, pairs ...string) {
	s.t.Helper()
	for _, f := range formsOf.FindAllStringSubmatch(s.body, -1) {
		if f[1] != action {
			continue
		}
		values := url.Values{}
		for _, h := range hiddenOf.FindAllStringSubmatch(f[2], -1) {
			values.Add(h[1], h[2])
		}
		for i := 0; i < len(pairs); i += 2 {
			values.Set(pairs[i], pairs[i+1])
		}
		target := s.url.ResolveReference(&url.URL{Path: action})
		r, err := s.client.PostForm(target.String(), values)
		s.took(r, err)
		return
	}
	s.t.Fatalf("no form for %s at %s\n%s", action, s.url, s.body)
}

func (s *surfer) find(pattern string) string {
	s.t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(s.body)
	require.NotNil(s.t, m, "%s at %s\n%s", pattern, s.url, s.body)
	return m[1]
}

const goodPassword = "blue tulip kettle moon"

// register makes an account and follows the link of its mail.
func (s *surfer) register(line readyLine, email string) {
	s.t.Helper()
	s.visit(line.Issuer + "/register")
	s.submit("/register", "email", email, "given-name", "Grace", "family-name", "Example", "bday", "1975-12-10", "new-password", goodPassword)
	s.visit(dev{Mailbox: line.Mailbox}.link(s.t, email))
	s.submit("/verify-email")
}

// enrol sets an authenticator app up, on the page that asks for it.
func (s *surfer) enrol(line readyLine) {
	s.t.Helper()
	require.Equal(s.t, "/login/enrol", s.url.Path, s.body)
	s.visit(line.Issuer + "/login/enrol/totp?" + s.url.RawQuery)
	code, err := totp.GenerateCode(strings.ReplaceAll(s.find(`id="totp-secret">([^<]*)`), " ", ""), time.Now())
	require.NoError(s.t, err)
	s.submit("/login/enrol/totp", "one-time-code", code)
}

// A standard client that knows nothing but the issuer.
func TestDevServesAStandardClient(t *testing.T) {
	line, _ := inProcess(t, t.TempDir())
	ctx := context.Background()
	op, err := oidc.NewProvider(ctx, line.Issuer)
	require.NoError(t, err)
	config := oauth2.Config{
		ClientID: line.ConfidentialClient.ID, ClientSecret: line.ConfidentialClient.Secret, Endpoint: op.Endpoint(),
		RedirectURL: "http://127.0.0.1:9999/callback", Scopes: []string{"openid", "profile", "email", "offline_access", "lab"},
	}
	s := newSurfer(t)
	s.register(line, "grace@example.org")
	verifier := oauth2.GenerateVerifier()
	s.visit(config.AuthCodeURL("st", oidc.Nonce("no"), oauth2.S256ChallengeOption(verifier)))
	s.submit("/login", "email", "grace@example.org", "current-password", goodPassword)
	s.enrol(line)
	s.submit("/consent", "decision", "allow")
	q := s.url.Query()
	require.Equal(t, "st", q.Get("state"), s.body)
	require.Equal(t, line.Issuer, q.Get("iss"))
	token, err := config.Exchange(ctx, q.Get("code"), oauth2.VerifierOption(verifier))
	require.NoError(t, err)
	id, err := op.Verifier(&oidc.Config{ClientID: config.ClientID}).Verify(ctx, token.Extra("id_token").(string))
	require.NoError(t, err)
	require.Equal(t, "no", id.Nonce)
	require.NoError(t, id.VerifyAccessToken(token.AccessToken))
	var claims struct {
		ACR string   `json:"acr"`
		AMR []string `json:"amr"`
		Lab any      `json:"lab"`
	}
	require.NoError(t, id.Claims(&claims))
	require.Equal(t, "urn:patauth:acr:two-factor", claims.ACR)
	require.Equal(t, []string{"pwd", "otp", "mfa"}, claims.AMR)
	require.Nil(t, claims.Lab)

	// The lab record is linked, and a refresh shows it.
	lab := line.ActivationCodes[0]
	s.visit(line.Issuer + "/account/labs")
	s.submit("/account/labs", "activation-code", lab.Code, "bday", lab.BirthDate)
	require.Contains(t, s.body, "Riverside Laboratory")
	fresh, err := config.TokenSource(ctx, &oauth2.Token{RefreshToken: token.RefreshToken}).Token()
	require.NoError(t, err)
	info, err := op.UserInfo(ctx, oauth2.StaticTokenSource(fresh))
	require.NoError(t, err)
	require.Equal(t, id.Subject, info.Subject)
	require.NoError(t, info.Claims(&claims))
	require.Equal(t, map[string]any{"authority": lab.Authority, "record": lab.Record}, claims.Lab)

	var endpoints struct {
		Introspect string `json:"introspection_endpoint"`
		Revoke     string `json:"revocation_endpoint"`
		EndSession string `json:"end_session_endpoint"`
	}
	require.NoError(t, op.Claims(&endpoints))
	post := func(address, token string) string {
		r, err := http.NewRequest("POST", address, strings.NewReader(url.Values{"token": {token}}.Encode()))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth(config.ClientID, config.ClientSecret)
		answer, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer answer.Body.Close()
		b, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.Equal(t, 200, answer.StatusCode, string(b))
		return string(b)
	}
	require.Contains(t, post(endpoints.Introspect, fresh.AccessToken), `"active":true`)
	post(endpoints.Revoke, fresh.RefreshToken)
	require.Contains(t, post(endpoints.Introspect, fresh.AccessToken), `"active":false`)

	s.visit(endpoints.EndSession + "?" + url.Values{"id_token_hint": {fresh.Extra("id_token").(string)}, "post_logout_redirect_uri": {config.RedirectURL}}.Encode())
	require.Equal(t, "/callback", s.url.Path, s.body)
	s.visit(line.Issuer + "/account")
	require.Equal(t, "/login", s.url.Path)

	// A service on its own behalf.
	r, err := http.PostForm(op.Endpoint().TokenURL, url.Values{
		"grant_type": {"client_credentials"}, "client_id": {config.ClientID}, "client_secret": {config.ClientSecret},
	})
	require.NoError(t, err)
	r.Body.Close()
	require.Equal(t, 200, r.StatusCode)
}

// The portal is a relying party like any other.
func TestDevPortal(t *testing.T) {
	line, _ := inProcess(t, t.TempDir())
	s := newSurfer(t)
	s.register(line, "grace@example.org")
	s.visit(line.Portal)
	require.Contains(t, s.body, `id="sign-in"`)
	s.visit(line.Portal + "/sign-in")
	s.submit("/login", "email", "grace@example.org", "current-password", goodPassword)
	s.enrol(line)
	s.submit("/consent", "decision", "allow")
	require.Equal(t, "127.0.0.1", s.url.Hostname(), s.body)
	for _, want := range []string{"Grace Example", "grace@example.org", "urn:patauth:acr:two-factor", "pwd, otp, mfa", "not linked yet", line.Issuer + "/account/labs"} {
		require.Contains(t, s.body, want)
	}
	lab := line.ActivationCodes[1]
	s.visit(line.Issuer + "/account/labs")
	s.submit("/account/labs", "activation-code", lab.Code, "bday", lab.BirthDate)
	s.visit(line.Portal)
	s.submit("/refresh")
	require.Contains(t, s.body, lab.Record)
	require.Contains(t, s.body, "Creatinine")

	// An answer that was not asked for is refused.
	other := newSurfer(t)
	other.visit(line.Portal + "/callback?code=x&state=y&iss=" + url.QueryEscape(line.Issuer))
	require.Contains(t, other.body, "did not begin")
	s.visit(line.Portal + "/callback?code=x&state=y&iss=" + url.QueryEscape(line.Issuer))
	require.Contains(t, s.body, "not begun here")

	s.visit(line.Portal)
	s.submit("/sign-out")
	require.Contains(t, s.body, "Sign in with patauth")
	s.visit(line.Issuer + "/account")
	require.Equal(t, "/login", s.url.Path, "signing out of the portal is signing out here")
}

func TestDevKeepsEverythingAcrossARestart(t *testing.T) {
	data := t.TempDir()
	line, stop := inProcess(t, data)
	s := newSurfer(t)
	s.register(line, "grace@example.org")
	stop()
	start := time.Now()
	again, stop := inProcess(t, data)
	require.Less(t, time.Since(start), 2*time.Second)
	require.Equal(t, line.Client, again.Client)
	require.Equal(t, line.ConfidentialClient, again.ConfidentialClient)
	require.Equal(t, line.ActivationCodes, again.ActivationCodes)
	require.Contains(t, dev{Mailbox: again.Mailbox}.link(t, "grace@example.org"), "/verify-email?token=")
	s.visit(again.Issuer + "/login")
	s.submit("/login", "email", "grace@example.org", "current-password", goodPassword)
	require.Equal(t, "/account", s.url.Path)
	s.visit(again.Mailbox)
	require.Contains(t, s.body, `<a href="`+line.Issuer)

	_, err := patauth(t, nil, "dev", "--data", data)
	require.ErrorContains(t, err, "another patauth dev")
	for _, name := range []string{"dev.json", "keyring.json", "mail.json"} {
		i, err := os.Stat(filepath.Join(data, name))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), i.Mode().Perm(), name)
	}
	stop()
	require.NoError(t, os.Remove(filepath.Join(data, "keyring.json")))
	_, err = patauth(t, nil, "dev", "--data", data, "--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0", "--portal-listen", "127.0.0.1:0")
	require.ErrorContains(t, err, "keyring.json is lost")
}

// Without TLS sign-outs can be tried on one's own machine, and nowhere else.
func TestClientsOfDevAreToldOnThisMachine(t *testing.T) {
	data := t.TempDir()
	inProcess(t, data)
	create := func(back, front string) error {
		_, err := patauth(t, nil, "client", "create", "--data", data, "--name", "x", "--redirect-uri", "http://localhost:4000/cb",
			"--backchannel-logout-uri", back, "--frontchannel-logout-uri", front)
		return err
	}
	require.NoError(t, create("http://localhost:4000/back", "http://localhost:4000/front"))
	require.NoError(t, create("http://127.0.0.1:4000/back", ""))
	require.ErrorContains(t, create("http://portal.example/back", ""), "--backchannel-logout-uri: must be https")
	_, err := patauth(t, sqliteEnv(t), "client", "create", "--name", "x", "--redirect-uri", "http://localhost:4000/cb",
		"--backchannel-logout-uri", "http://localhost:4000/back")
	require.ErrorContains(t, err, "--backchannel-logout-uri: must be https")
}

func TestDevRefusesWhatCannotBe(t *testing.T) {
	_, err := patauth(t, []string{"PATAUTH_OAUTH_PKCE=pubic", "PATAUTH_KEYS_RSA_BITS=1024"}, "dev", "--data", t.TempDir(),
		"--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0", "--portal-listen", "127.0.0.1:0")
	require.ErrorContains(t, err, "oauth.pkce: must be always, nonce or public")
	require.ErrorContains(t, err, "keys.rsa_bits: must be 2048 or 3072")
}

func TestDevIsRefusedInProduction(t *testing.T) {
	_, err := patauth(t, []string{"PATAUTH_MODE=production"}, "dev", "--data", t.TempDir())
	require.ErrorContains(t, err, "refused in production mode")
}

func TestDevServesItsHealth(t *testing.T) {
	data := t.TempDir()
	line, _ := inProcess(t, data)
	for path, want := range map[string]string{"/livez": "alive", "/readyz": `"ready"`, "/metrics": "patauth_http_requests_total"} {
		if path == "/metrics" {
			newSurfer(t).visit(line.Issuer + "/login")
		}
		r, err := http.Get(line.Internal + path)
		require.NoError(t, err)
		b, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		r.Body.Close()
		require.Equal(t, 200, r.StatusCode)
		require.Contains(t, string(b), want)
	}
	i, err := readInstallation(data)
	require.NoError(t, err)
	r, err := http.NewRequest("GET", line.Internal+"/admin/v1/clients", nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+i.AdminToken)
	answer, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	answer.Body.Close()
	require.Equal(t, 200, answer.StatusCode)
}

// An https issuer, with a certificate that only the portal is told to trust.
func TestDevOverTLS(t *testing.T) {
	cert, key := selfSigned(t)
	line, _ := inProcess(t, t.TempDir(), "--tls-cert", cert, "--tls-key", key)
	require.True(t, strings.HasPrefix(line.Issuer, "https://localhost:"), line.Issuer)
	pool := x509.NewCertPool()
	trusted, err := os.ReadFile(cert)
	require.NoError(t, err)
	require.True(t, pool.AppendCertsFromPEM(trusted))
	s := newSurfer(t)
	s.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	s.visit(line.Portal + "/sign-in")
	require.Equal(t, "/login", s.url.Path, s.body)
	r, err := s.client.Get(line.Issuer + "/login")
	require.NoError(t, err)
	r.Body.Close()
	require.NotEmpty(t, r.Header.Get("Strict-Transport-Security"))

	_, err = patauth(t, nil, "dev", "--data", t.TempDir(), "--tls-cert", "no/such/file", "--tls-key", key)
	require.ErrorContains(t, err, "--tls-cert and --tls-key")
	for _, issuer := range []string{"http://id.example.org", "https://id.example.org/", "id.example.org"} {
		_, err = patauth(t, nil, "dev", "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0", "--portal-listen", "127.0.0.1:0",
			"--tls-cert", cert, "--tls-key", key, "--issuer", issuer)
		require.ErrorContains(t, err, "--issuer", issuer)
	}
}

// selfSigned makes a certificate for localhost.
func selfSigned(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return file(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		file(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
}
