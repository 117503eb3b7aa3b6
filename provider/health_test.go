package provider_test

import (
	"context"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

func ask(h *provider.Health, path string) (int, string) {
	w := httptest.NewRecorder()
	h.Internal().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return w.Code, w.Body.String()
}

func TestReadinessSaysWhyNot(t *testing.T) {
	db := storagetest.SQLite(t)
	fresh := true
	h := &provider.Health{DB: db, Fresh: func() bool { return fresh }}
	status, body := ask(h, "/readyz")
	require.Equal(t, 200, status)
	require.JSONEq(t, `{"status":"ready","reasons":[]}`, body)

	fresh = false
	db.Close()
	h.Drain()
	status, body = ask(h, "/readyz")
	require.Equal(t, 503, status)
	require.JSONEq(t, `{"status":"not ready","reasons":["draining","database","keys"]}`, body)
	status, _ = ask(h, "/livez")
	require.Equal(t, 200, status, "nothing of that is mended by a restart")
}

func TestReadinessDoesNotHang(t *testing.T) {
	db, err := storage.Open(context.Background(), storage.Config{DSN: "postgres://nobody@" + storagetest.Silent(t) + "/none", Keys: storage.NewKeyring()})
	require.NoError(t, err)
	defer db.Close()
	start := time.Now()
	status, _ := ask(&provider.Health{DB: db}, "/readyz")
	require.Equal(t, 503, status)
	require.Less(t, time.Since(start), 2*time.Second)
}

func TestMetricsAndProfiles(t *testing.T) {
	h := &provider.Health{DB: storagetest.SQLite(t)}
	for range 2 { // two handlers in one process do not collide
		status, body := ask(h, "/metrics")
		require.Equal(t, 200, status)
		for _, name := range []string{"patauth_build_info{", "patauth_draining 0", "patauth_db_up 1", `patauth_db_pool_connections{state="idle"}`, "go_goroutines"} {
			require.Contains(t, body, name)
		}
	}
	status, _ := ask(h, "/debug/pprof/")
	require.Equal(t, 200, status)
	status, _ = ask(h, "/account")
	require.Equal(t, 404, status)
}
