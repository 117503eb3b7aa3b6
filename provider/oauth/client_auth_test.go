package oauth

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// FuzzProof checks that a request has one proof or none, whatever its header and its
// body are: what has no value is none (RFC 6749, Section 3.2), and the header of the
// scheme Basic may be spelt as RFC 9110, Section 11.4, lets it.
func FuzzProof(f *testing.F) {
	f.Add("Basic YTpi", "client_id=a&client_secret=")
	f.Add("basic   YTo=", "client_id=a")
	f.Add("BASIC !", "client_secret=x")
	f.Add("Bearer x", "client_assertion=a.b.c&client_assertion_type=")
	f.Add("", "client_id=a&client_secret=b")
	f.Add("Basic", "")
	f.Fuzz(func(t *testing.T, header, body string) {
		r := httptest.NewRequest(http.MethodPost, "/oauth2/token", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Authorization", header)
		form, err := (&OAuth{}).clientForm(r)
		if err != nil {
			return
		}
		p, err := proofOf(r, form)
		if err != nil {
			require.Equal(t, 400, protocol(err).Status)
			return
		}
		switch p.method {
		case "none":
			require.Empty(t, p.secret)
		case "client_secret_basic":
			require.False(t, form.Has("client_secret"), "two methods")
			require.True(t, p.flaw != "" || p.secret != "", "an empty secret")
		case "client_secret_post":
			require.Empty(t, header, "two methods")
			require.NotEmpty(t, p.secret)
		case "private_key_jwt":
			require.False(t, header != "" || form.Has("client_secret"), "two methods")
		default:
			t.Fatalf("unknown method %q", p.method)
		}
		if id := form.Get("client_id"); p.flaw == "" && id != "" && p.method != "private_key_jwt" {
			require.Equal(t, id, p.id)
		}
	})
}

// What oidc-agent and others send of a client without a secret.
func TestADeviceWithoutASecretMaySaySo(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	c := h.player(t)
	for name, change := range map[string]func(*http.Request, url.Values){
		"nothing":         func(_ *http.Request, form url.Values) { form.Set("client_id", c.ID) },
		"an empty secret": func(_ *http.Request, form url.Values) { form.Set("client_id", c.ID); form.Set("client_secret", "") },
		"Basic":           func(r *http.Request, _ url.Values) { r.SetBasicAuth(c.ID, "") },
		"all of them": func(r *http.Request, form url.Values) {
			r.SetBasicAuth(c.ID, "")
			form.Set("client_id", c.ID)
			form.Set("client_secret", "")
		},
	} {
		send := func(path string, form url.Values) (int, map[string]any) {
			r := httptest.NewRequest(http.MethodPost, path, nil)
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			change(r, form)
			body := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
			body.Header = r.Header
			return h.send(body)
		}
		status, codes := send("/oauth2/device", url.Values{"scope": {"openid"}})
		require.Equal(t, 200, status, "%s: %v", name, codes)
		_, answer := send("/oauth2/token", url.Values{"grant_type": {grantDevice}, "device_code": {codes["device_code"].(string)}})
		require.Equal(t, "authorization_pending", answer["error"], name)
	}
}
