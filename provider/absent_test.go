package provider_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider"
	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/provider/login"
	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
	"github.com/pat-authenticate/patauth/templates"
)

// mute is an address that takes connections and says nothing.
func mute(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// While the database is away, what needs it says so within about a second, and
// what does not is served as ever.
func TestTheDatabaseIsAway(t *testing.T) {
	ctx := context.Background()
	signing, err := keys.Open(ctx, storagetest.SQLite(t), keys.Config{RSABits: 2048})
	require.NoError(t, err)
	pages, err := templates.New("")
	require.NoError(t, err)
	for name, dsn := range map[string]string{
		"it refuses": "postgres://nobody@127.0.0.1:1/none",
		"it is mute": "postgres://nobody@" + mute(t) + "/none",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, err := storage.Open(ctx, storage.Config{DSN: dsn, Keys: storage.NewKeyring()})
			require.NoError(t, err)
			t.Cleanup(func() { db.Close() })
			quick := login.Defaults()
			quick.Hash.MemoryKiB, quick.Hash.Iterations = 8, 1
			h, err := provider.New(provider.Config{
				DB: db, Keys: signing, Session: session.Defaults(), Login: quick,
				Site: &web.Site{Issuer: "https://id.example.org", Pages: pages, DB: db},
			})
			require.NoError(t, err)
			for _, row := range []struct {
				method, path, form string
				status             int
			}{
				{"GET", "/.well-known/openid-configuration", "", 200},
				{"GET", "/.well-known/jwks.json", "", 200},
				{"GET", "/static/app.css", "", 200},
				{"GET", "/account", "", 503},
				{"GET", "/oauth2/auth?client_id=x", "", 503},
				{"POST", "/login", "email=ada%40example.org&current-password=x", 503},
				{"POST", "/oauth2/token", "grant_type=refresh_token&refresh_token=x&client_id=y", 503},
				{"POST", "/oauth2/introspect", "token=x&client_id=y&client_secret=z", 503},
				{"POST", "/oauth2/userinfo", "access_token=pa_at_x", 503},
			} {
				var body io.Reader
				if row.form != "" {
					body = strings.NewReader(row.form)
				}
				r := httptest.NewRequest(row.method, row.path, body)
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				r.AddCookie(&http.Cookie{Name: "__Host-patauth", Value: storage.NewHandle("pas_")})
				w := httptest.NewRecorder()
				start := time.Now()
				h.ServeHTTP(w, r)
				require.Equal(t, row.status, w.Code, "%s %s: %s", row.method, row.path, w.Body)
				require.Less(t, time.Since(start), 2*time.Second, row.path)
				if row.status == 503 {
					require.NotEmpty(t, w.Header().Get("Retry-After"), row.path)
				}
			}
		})
	}
}
