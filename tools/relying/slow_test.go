package relying

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// part is a part that .ci/testenv has ready when it is asked for relying parties.
func part(t *testing.T, name string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		t.Skip("set " + name + " or run make test-relying")
	}
	return v
}

func TestPortalsOfPython(t *testing.T) {
	t.Parallel()
	python := part(t, "PATAUTH_TEST_PYTHON")
	script, err := filepath.Abs("testdata/python/portals.py")
	require.NoError(t, err)
	h := open(t)
	b := h.patient(t, "grace@example.org")
	for library, want := range map[string]struct{ path, learned string }{
		"Authlib":             {"/callback", "sub"},
		"requests-oauthlib":   {"/callback", "sub"},
		"mozilla-django-oidc": {"/oidc/callback/", "email"},
	} {
		t.Run(library, func(t *testing.T) {
			p := h.portal(t, want.path, func(p *portalAt) *exec.Cmd {
				given, err := json.Marshal(map[string]string{"library": library, "issuer": h.Issuer, "id": p.ID, "secret": p.Secret, "at": p.at})
				require.NoError(t, err)
				cmd := exec.Command(python, script, string(given))
				cmd.Dir = t.TempDir()
				cmd.Env = append(os.Environ(), "REQUESTS_CA_BUNDLE="+h.authority)
				return cmd
			})
			user := p.learns(b.of(t), "/login")
			require.Equal(t, b.email, user["email"])
			if want.learned == "sub" {
				require.Equal(t, b.patient, user["sub"])
			}
		})
	}
}

// Spring Security as a portal, by its properties alone, and as the server of an API.
func TestSpring(t *testing.T) {
	t.Parallel()
	jars := part(t, "PATAUTH_TEST_JAVA")
	h := open(t)
	b := h.patient(t, "grace@example.org")
	const api = "https://results.example/api"
	h.register(t, "--grant", "client_credentials", "--audience", api, "--can-introspect", "--access-token-alg", "RS256")
	service := h.register(t, "--grant", "client_credentials", "--audience", api, "--scope", "results.read")
	const of = "-Dspring.security.oauth2.client."
	p := h.portal(t, "/login/oauth2/code/patauth", func(p *portalAt) *exec.Cmd {
		return h.java(t, jars, "-Dserver.port="+p.at[strings.LastIndex(p.at, ":")+1:], "-Dserver.address=localhost",
			"-Dissuer="+h.Issuer, "-Daudience="+api, "-Dservice="+service.ID,
			of+"provider.patauth.issuer-uri="+h.Issuer, of+"registration.patauth.client-id="+p.ID,
			of+"registration.patauth.client-secret="+p.Secret, of+"registration.patauth.scope=openid,profile,email",
			"relying.Portal")
	})
	user := p.learns(b, "/oauth2/authorization/patauth")
	require.Equal(t, map[string]any{"sub": b.patient, "email": b.email, "name": "Grace Example"}, user)

	token := h.credentials(t, service, api)
	for presented, want := range map[string]int{token: 200, token[:len(token)-10]: 401, "": 401} {
		r, err := http.NewRequest(http.MethodGet, p.at+"/api/", nil)
		require.NoError(t, err)
		if presented != "" {
			r.Header.Set("Authorization", "Bearer "+presented)
		}
		resp, err := http.DefaultClient.Do(r) // without the session of the portal
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, want, resp.StatusCode, resp.Header.Get("WWW-Authenticate"))
	}
}

// java prepares to run a class of testdata/java that trusts the house's authority.
func (h *house) java(t *testing.T, jars string, args ...string) *exec.Cmd {
	t.Helper()
	trust := filepath.Join(t.TempDir(), "trust")
	out, err := exec.Command("keytool", "-importcert", "-noprompt", "-alias", "house", "-file", h.authority,
		"-keystore", trust, "-storepass", "changeit").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return exec.Command("java", append([]string{"-XX:TieredStopAtLevel=1", "-Djavax.net.ssl.trustStore=" + trust,
		"-Djavax.net.ssl.trustStorePassword=changeit", "-cp", filepath.Join(jars, "classes") + ":" + filepath.Join(jars, "dependency", "*")}, args...)...)
}

// The SDK of Nimbus by itself, as portals without Spring have it.
func TestNimbus(t *testing.T) {
	t.Parallel()
	jars := part(t, "PATAUTH_TEST_JAVA")
	h := open(t)
	b := h.patient(t, "grace@example.org")
	c := h.register(t, "--redirect-uri", portal)
	cmd := h.java(t, jars, "relying.Nimbus", h.Issuer, c.ID, c.Secret, portal)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	said := &strings.Builder{}
	cmd.Stderr = said
	require.NoError(t, cmd.Start())
	defer cmd.Wait()
	defer cmd.Process.Kill()
	lines := bufio.NewScanner(stdout)
	require.True(t, lines.Scan(), "%s", said)
	_, err = stdin.Write([]byte(b.goes(lines.Text()).String() + "\n"))
	require.NoError(t, err)
	require.True(t, lines.Scan(), "%s", said)
	require.Equal(t, b.patient+" "+b.email, lines.Text())
}

// oidc-agent is a device: it shows a code, keeps a refresh token and gives out
// access tokens.
func TestOIDCAgent(t *testing.T) {
	t.Parallel()
	agent := part(t, "PATAUTH_TEST_OIDC_AGENT")
	h := open(t)
	b := h.patient(t, "grace@example.org")
	for name, flags := range map[string][]string{"with a secret": nil, "without": {"--public"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := h.register(t, append(flags, "--grant", "urn:ietf:params:oauth:grant-type:device_code,refresh_token", "--scope", "openid,email,offline_access")...)
			dir, err := os.MkdirTemp("", "patauth-agent") // a socket's path is short
			require.NoError(t, err)
			t.Cleanup(func() { os.RemoveAll(dir) })
			ctx, stop := context.WithTimeout(context.Background(), time.Minute)
			t.Cleanup(stop)
			run := func(program string, args ...string) *exec.Cmd {
				cmd := exec.CommandContext(ctx, filepath.Join(agent, program), args...)
				cmd.Env = append(os.Environ(), "HOME="+dir, "OIDC_CONFIG_DIR="+dir, "OIDC_SOCK="+filepath.Join(dir, "socket"), "OIDC_ENCRYPTION_PW=of a test")
				return cmd
			}
			daemon := run("oidc-agent", "--console", "--no-webserver", "--socket-path="+filepath.Join(dir, "socket"))
			require.NoError(t, daemon.Start())
			t.Cleanup(func() { daemon.Process.Kill(); daemon.Wait() })
			require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(dir, "socket")); return err == nil }, 20*time.Second, 20*time.Millisecond)

			said := &strings.Builder{}
			gen := run("oidc-gen", "--flow=device", "--iss="+h.Issuer, "--client-id="+c.ID, "--client-secret="+c.Secret, "--cp="+h.authority,
				"--scope=openid email offline_access", "--pw-env", "--prompt=none", "--confirm-default", "--no-url-call", "patient")
			stdout, err := gen.StdoutPipe()
			require.NoError(t, err)
			gen.Stderr = gen.Stdout
			require.NoError(t, gen.Start())
			lines := bufio.NewScanner(stdout)
			for shown := ""; shown == ""; {
				require.True(t, lines.Scan(), "no code: %s", said)
				said.WriteString(lines.Text() + "\n")
				_, shown, _ = strings.Cut(lines.Text(), "enter the code: ")
				if shown != "" {
					b.of(t).goes(h.Issuer + "/device?user_code=" + url.QueryEscape(shown))
				}
			}
			for lines.Scan() {
				said.WriteString(lines.Text() + "\n")
			}
			require.NoError(t, gen.Wait(), "%s", said)

			var before string
			for _, args := range [][]string{{"patient"}, {"--force-new", "patient"}} { // the first one's, and one of the refresh token
				out, err := run("oidc-token", args...).CombinedOutput()
				require.NoError(t, err, "%s", out)
				token := strings.TrimSpace(string(out))
				require.NotEqual(t, before, token)
				before = token
				r, err := http.NewRequest(http.MethodGet, h.Issuer+"/oauth2/userinfo", nil)
				require.NoError(t, err)
				r.Header.Set("Authorization", "Bearer "+token)
				resp, err := h.client.Do(r)
				require.NoError(t, err)
				defer resp.Body.Close()
				var user struct{ Sub, Email string }
				require.NoError(t, json.NewDecoder(resp.Body).Decode(&user))
				require.Equal(t, struct{ Sub, Email string }{b.patient, b.email}, user)
			}
		})
	}
}

// credentials is an access token of a service's for a resource.
func (h *house) credentials(t *testing.T, c registered, resource string) string {
	t.Helper()
	r, err := h.client.PostForm(h.Issuer+"/oauth2/token", url.Values{"grant_type": {"client_credentials"}, "resource": {resource},
		"client_id": {c.ID}, "client_secret": {c.Secret}})
	require.NoError(t, err)
	defer r.Body.Close()
	var tokens struct {
		AccessToken string `json:"access_token"`
	}
	require.NoError(t, json.NewDecoder(r.Body).Decode(&tokens))
	require.NotEmpty(t, tokens.AccessToken)
	return tokens.AccessToken
}

func TestOAuth2Proxy(t *testing.T) {
	t.Parallel()
	binary := part(t, "PATAUTH_TEST_OAUTH2_PROXY")
	h := open(t)
	b := h.patient(t, "grace@example.org")
	p := h.portal(t, "/oauth2/callback", func(p *portalAt) *exec.Cmd {
		return exec.Command(binary, "--provider=oidc", "--oidc-issuer-url="+h.Issuer, "--client-id="+p.ID, "--client-secret="+p.Secret,
			"--provider-ca-file="+h.authority, "--redirect-url="+p.at+"/oauth2/callback", "--http-address="+strings.TrimPrefix(p.at, "http://"),
			"--email-domain=*", "--cookie-secret=0123456789abcdef0123456789abcdef", "--cookie-secure=false", "--upstream=static://202",
			"--skip-provider-button", "--code-challenge-method=S256")
	})
	resp, err := p.client.Get(p.at + "/oauth2/userinfo")
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 401, resp.StatusCode)
	p.lands = 202
	p.signIn(b, "/")
	resp, err = p.client.Get(p.at + "/oauth2/userinfo")
	require.NoError(t, err)
	defer resp.Body.Close()
	var user struct{ User, Email string }
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&user))
	require.Equal(t, b.patient, user.User)
	require.Equal(t, b.email, user.Email)
}

const apache = `
ServerRoot "DIR"
PidFile "DIR/pid"
ErrorLog "DIR/error.log"
Listen PLACE
ServerName localhost
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authn_core_module /usr/lib/apache2/modules/mod_authn_core.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule authz_user_module /usr/lib/apache2/modules/mod_authz_user.so
LoadModule headers_module /usr/lib/apache2/modules/mod_headers.so
LoadModule auth_openidc_module /usr/lib/apache2/modules/mod_auth_openidc.so
DocumentRoot "DIR/www"
OIDCProviderMetadataURL ISSUER/.well-known/openid-configuration
OIDCClientID ID
OIDCClientSecret SECRET
OIDCRedirectURI http://PLACE/callback
OIDCCryptoPassphrase passphrase-of-a-test
OIDCScope "openid email"
OIDCCABundlePath CA
<Location />
  AuthType openid-connect
  Require valid-user
  Header set X-Patient "%{OIDC_CLAIM_sub}e %{OIDC_CLAIM_email}e"
</Location>
`

func TestModAuthOpenIDC(t *testing.T) {
	t.Parallel()
	httpd := part(t, "PATAUTH_TEST_APACHE")
	h := open(t)
	b := h.patient(t, "grace@example.org")
	p := h.portal(t, "/callback", func(p *portalAt) *exec.Cmd {
		dir, err := os.MkdirTemp("", "patauth-apache")
		require.NoError(t, err)
		t.Cleanup(func() { os.RemoveAll(dir) })
		require.NoError(t, os.Chmod(dir, 0o755))
		require.NoError(t, os.Mkdir(filepath.Join(dir, "www"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "www", "index.html"), []byte("signed in"), 0o644))
		authority, err := os.ReadFile(h.authority)
		require.NoError(t, err)
		ca := filepath.Join(dir, "authority.pem")
		require.NoError(t, os.WriteFile(ca, authority, 0o644))
		config := strings.NewReplacer("DIR", dir, "PLACE", strings.TrimPrefix(p.at, "http://"), "ISSUER", h.Issuer,
			"ID\n", p.ID+"\n", "SECRET", p.Secret, "CA\n", ca+"\n").Replace(apache)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "apache.conf"), []byte(config), 0o644))
		return exec.Command(httpd, "-X", "-f", filepath.Join(dir, "apache.conf"))
	})
	require.Equal(t, "signed in", p.signIn(b, "/index.html"))
	resp, err := p.client.Get(p.at + "/index.html")
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, b.patient+" "+b.email, resp.Header.Get("X-Patient"))
}
