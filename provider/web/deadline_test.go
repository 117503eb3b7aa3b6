package web_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// No handler outlives the deadline of its request; whoever still waits is told
// when to come back, whatever the face.
func TestEveryRequestHasADeadline(t *testing.T) {
	s := site(t)
	waits := func(_ http.ResponseWriter, r *http.Request) error {
		<-r.Context().Done()
		return fmt.Errorf("find session: %w", r.Context().Err())
	}
	for name, h := range map[string]http.Handler{"page": s.Page(waits), "problem": s.Problem(waits), "oauth": s.OAuth(waits)} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			w := serve(web.Chain(s, h), httptest.NewRequest("GET", "/account", nil))
			require.Equal(t, 503, w.Code, name)
			require.NotEmpty(t, w.Header().Get("Retry-After"), name)
			require.Equal(t, 5*time.Second, time.Since(start), name)
		})
	}
}

// A client that hangs up is no failure of ours; a fault of ours stays one.
func TestAClientThatHangsUpIsNoFailure(t *testing.T) {
	s := site(t)
	for _, row := range []struct {
		err    error
		status float64
		level  string
	}{
		{fmt.Errorf("find session: %w", context.Canceled), 499, "INFO"},
		{fmt.Errorf("find session: %w", storage.ErrUnavailable), 499, "INFO"},
		{fmt.Errorf("boom"), 500, "ERROR"},
	} {
		ctx, hangUp := context.WithCancel(t.Context())
		lines := logged(t, func() {
			serve(web.Chain(s, s.Page(func(http.ResponseWriter, *http.Request) error {
				hangUp()
				return row.err
			})), httptest.NewRequestWithContext(ctx, "GET", "/account", nil))
		})
		require.Len(t, lines, 1)
		require.Equal(t, row.status, lines[0]["status"], row.err)
		require.Equal(t, row.level, lines[0]["level"], row.err)
	}
}
