package admin

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
	"github.com/pat-authenticate/patauth/templates"
)

func TestAdminReads(t *testing.T) {
	db := storagetest.SQLite(t)
	pages, err := templates.New("")
	require.NoError(t, err)
	token := strings.Repeat("t", tokenMin)
	h, err := New(db, &web.Site{Issuer: "https://id.example", Pages: pages}, token+"\n")
	require.NoError(t, err)
	ask := func(path, authorization string) *httptest.ResponseRecorder {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", authorization)
		h.ServeHTTP(w, r)
		return w
	}
	p := storage.Patient{Email: "ada@example.org", GivenName: "Ada"}
	require.NoError(t, db.CreatePatient(t.Context(), &p))
	c := storage.Client{Name: "Portal", RedirectURIs: storage.Strings{"https://portal.example/cb"}}
	secret := db.NewClientSecret(&c)
	require.NoError(t, db.CreateClient(t.Context(), &c))

	for _, wrong := range []string{"", "Bearer", "Bearer " + token + "x", "Basic " + token, token} {
		for _, path := range []string{"/admin/v1/patients/" + p.ID, "/admin/v1/clients"} {
			w := ask(path, wrong)
			require.Equal(t, http.StatusUnauthorized, w.Code, wrong)
			require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
			require.NotEmpty(t, w.Header().Get("WWW-Authenticate"))
		}
	}
	w := ask("/admin/v1/patients/"+p.ID, "Bearer "+token)
	require.Equal(t, http.StatusOK, w.Code)
	require.Contains(t, w.Body.String(), `"id":"`+p.ID+`"`)
	require.Contains(t, w.Body.String(), `"second_factor":false,"sessions":0,"linked":false`)
	require.NotContains(t, strings.ToLower(w.Body.String()), "ada", "how, not who")
	require.Equal(t, http.StatusNotFound, ask("/admin/v1/patients/X", "Bearer "+token).Code)
	require.Equal(t, http.StatusNotFound, ask("/admin/v1/", "Bearer "+token).Code)

	w = ask("/admin/v1/clients", "bearer "+token)
	require.Equal(t, http.StatusOK, w.Code)
	require.Contains(t, w.Body.String(), "https://portal.example/cb")
	require.NotContains(t, w.Body.String(), secret)
	require.NotContains(t, w.Body.String(), "digest")
}

func TestAShortTokenIsRefused(t *testing.T) {
	_, err := New(nil, &web.Site{}, "short")
	require.ErrorContains(t, err, "shorter than 32")
}
