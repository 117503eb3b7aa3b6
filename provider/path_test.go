package provider_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider"
	"github.com/pat-authenticate/patauth/provider/admin"
	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/provider/login"
	"github.com/pat-authenticate/patauth/provider/oauth"
	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
	"github.com/pat-authenticate/patauth/templates"
)

// What PostgreSQL would refuse as text names nothing, wherever a path may hold
// it, and is no failure of ours.
func TestAPathThatIsNoText(t *testing.T) {
	ctx := context.Background()
	db := storagetest.Postgres(t)
	signing, err := keys.Open(ctx, storagetest.SQLite(t), keys.Config{RSABits: 2048})
	require.NoError(t, err)
	pages, err := templates.New("")
	require.NoError(t, err)
	quick := login.Defaults()
	quick.Hash.MemoryKiB, quick.Hash.Iterations = 8, 1
	site := &web.Site{Issuer: "http://localhost", Pages: pages, DB: db}
	public, err := provider.New(provider.Config{
		DB: db, Keys: signing, Session: session.Defaults(), Login: quick, Site: site, Registration: oauth.Registration{Open: true},
	})
	require.NoError(t, err)
	token := strings.Repeat("t", 32)
	inside, err := admin.New(db, site, token)
	require.NoError(t, err)

	p := storage.Patient{Email: "ada@example.org", GivenName: "Ada", FamilyName: "Byron", BirthDate: "1975-12-10"}
	require.NoError(t, db.CreatePatient(ctx, &p))
	now, handle := storage.Now(), storage.NewHandle("pas_")
	require.NoError(t, db.CreateSession(ctx, &storage.Session{
		Digest: storage.Digest(handle), PatientID: p.ID, Factors: storage.Factors{session.Password: now},
		AuthTime: now, CreatedAt: now, LastSeenAt: now, ExpiresAt: now.Add(time.Hour),
	}))
	for _, row := range []string{
		"GET /oauth2/auth/", "GET /device/", "GET /oauth2/register/", "PUT /oauth2/register/", "DELETE /oauth2/register/",
		"GET /login/enrol/", "POST /login/enrol/", "GET /account/factors/*/remove", "POST /account/factors/*/remove",
		"POST /account/sessions/*/end", "POST /account/apps/*/revoke", "GET /problems/", "GET /static/", "GET /admin/v1/patients/",
	} {
		for _, bad := range []string{"%00", "%ff", "a%00b", "%c3%28", "%ed%a0%80"} {
			method, path, _ := strings.Cut(row, " ")
			if !strings.Contains(path, "*") {
				path += "*"
			}
			r := httptest.NewRequest(method, strings.Replace(path, "*", bad, 1), nil)
			r.Header.Set("Cookie", web.SessionCookie+"="+handle)
			r.Header.Set("Authorization", "Bearer "+token)
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			w, h := httptest.NewRecorder(), public
			if strings.HasPrefix(path, "/admin/") {
				h = inside
			}
			h.ServeHTTP(w, r)
			require.Less(t, w.Code, 500, "%s %s %s", row, bad, w.Body)
			require.NotEqual(t, 200, w.Code, row)
		}
	}
}
