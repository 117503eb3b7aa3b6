package provider_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
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

// While the database is away, what needs it says so soon, to however many ask at
// once, and what does not is served as ever.
func TestTheDatabaseIsAway(t *testing.T) {
	ctx := context.Background()
	signing, err := keys.Open(ctx, storagetest.SQLite(t), keys.Config{RSABits: 2048})
	require.NoError(t, err)
	pages, err := templates.New("")
	require.NoError(t, err)
	frozen := storagetest.PrivateServer(t)
	storagetest.Open(t, frozen.URL()).Close()
	for name, dsn := range map[string]string{
		"it refuses":   "postgres://nobody@" + storagetest.Refusing(t) + "/none?sslmode=disable",
		"it is silent": "postgres://nobody@" + storagetest.Silent(t) + "/none?sslmode=disable",
		"it is frozen": frozen.URL(),
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
			type row struct {
				method, path, form string
				status             int
			}
			rows := []row{
				{"GET", "/.well-known/openid-configuration", "", 200},
				{"GET", "/.well-known/jwks.json", "", 200},
				{"GET", "/static/app.css", "", 200},
				{"GET", "/account", "", 503},
				{"GET", "/oauth2/auth?client_id=x", "", 503},
				{"GET", "/oauth2/auth/" + storage.NewID(), "", 503},
				{"POST", "/login", "email=ada%40example.org&current-password=x", 503},
				{"POST", "/oauth2/token", "grant_type=refresh_token&refresh_token=x&client_id=y", 503},
				{"POST", "/oauth2/introspect", "token=x&client_id=y&client_secret=z", 503},
				{"POST", "/oauth2/revoke", "token=x&client_id=y&client_secret=z", 503},
				{"POST", "/oauth2/userinfo", "access_token=pa_at_x", 503},
			}
			if name == "it is frozen" {
				var warm sync.WaitGroup
				for range 50 { // its connections were used just now
					warm.Go(func() { db.LastSlot(ctx, "x") })
				}
				warm.Wait()
				frozen.Freeze()
			}
			ask := func(row row) (*httptest.ResponseRecorder, time.Duration) {
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
				return w, time.Since(start)
			}
			var wg sync.WaitGroup
			var mu sync.Mutex
			var slowest time.Duration
			for i := range 20 * len(rows) { // twenty times a pool's connections
				wg.Go(func() {
					row := rows[i%len(rows)]
					w, took := ask(row)
					assert.Equal(t, row.status, w.Code, "%s %s: %s", row.method, row.path, w.Body)
					if row.status == 503 {
						assert.NotEmpty(t, w.Header().Get("Retry-After"), row.path)
					}
					mu.Lock()
					defer mu.Unlock()
					slowest = max(slowest, took)
				})
			}
			wg.Wait()
			t.Logf("the slowest of %d had its answer after %s", 20*len(rows), slowest)
			require.Less(t, slowest, 4*time.Second, "it is meant to be less than two")
		})
	}
}
