package provider_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// A program serves on while the migration of its successor adds a column to every
// table: no request and no call of the storage is told of it.
func TestAMigrationBesideLoad(t *testing.T) {
	dsn := storagetest.PostgresURL(t)
	h := newHouse(t, storagetest.Open(t, dsn))
	p := newPlay(t, "migration", h)
	for line := range strings.Lines(`
		patient ada@example.org
		GET /oauth2/auth?client_id={service}&response_type=code&redirect_uri={callback}&scope=openid+profile+email+offline_access&{pkce}
		follow
		follow
		submit /login
		  form email=ada@example.org
		  form current-password={password}
		follow
		follow
		submit /consent
		  form decision=allow
		follow
		capture grant ~ code=([^&]*)
		POST /oauth2/token
		  basic {service} {secret}
		  form grant_type=authorization_code
		  form code={grant}
		  form redirect_uri={callback}
		  form code_verifier={verifier}
		status 200
		capture access ~ "access_token":"([^"]*)"
		capture refresh ~ "refresh_token":"([^"]*)"`) {
		if line = strings.TrimSpace(line); line != "" {
			p.step(line)
		}
	}
	calls := everyCall(t, p)

	admin, err := sql.Open("pgx", dsn)
	require.NoError(t, err)
	defer admin.Close()
	var tables []string
	rows, err := admin.Query("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY 1")
	require.NoError(t, err)
	for rows.Next() {
		var table string
		require.NoError(t, rows.Scan(&table))
		tables = append(tables, table)
	}
	require.NoError(t, rows.Err())
	require.Greater(t, len(tables), 20)

	var made atomic.Int64
	var mu sync.Mutex
	failures, said := 0, map[string]int{}
	round := func() {
		for what, call := range calls {
			made.Add(1)
			if err := call(context.Background()); err != nil {
				mu.Lock()
				failures++
				said[what+": "+err.Error()]++
				mu.Unlock()
			}
		}
	}
	const callers = 6 // fewer than a pool's connections: nobody waits for one
	var warm, done sync.WaitGroup
	var migrated atomic.Bool
	warm.Add(callers)
	for range callers {
		done.Go(func() {
			round()
			round()
			warm.Done()
			for !migrated.Load() {
				round()
			}
			round()
		})
	}
	warm.Wait()
	before := made.Load()
	for i, table := range tables {
		_, err := admin.Exec(fmt.Sprintf("ALTER TABLE %q ADD COLUMN zz_%d TEXT", table, i))
		assert.NoError(t, err, table)
	}
	migrated.Store(true)
	done.Wait()
	t.Logf("%d tables, %d calls of %d kinds before, %d since, %d failures", len(tables), before, len(calls), made.Load()-before, failures)
	require.Zero(t, failures, said)
	failed, err := h.db.Unfulfilled(context.Background(), true, 10)
	require.NoError(t, err)
	require.Empty(t, failed, "the worker fulfils what it is asked for")
}

// everyCall is requests of the public routes, and calls of what runs beside them,
// by name. A request fails by an answer of 500 and more, or by another than
// it must have.
func everyCall(t *testing.T, p *play) map[string]func(context.Context) error {
	h, db := p.house, p.house.db
	ada, err := db.PatientByEmail(t.Context(), "ada@example.org")
	require.NoError(t, err)
	record, err := db.LabIdentityByKey(t.Context(), storage.LabKey{Authority: "lab1", Value: "R-1"})
	require.NoError(t, err)
	link, err := db.RedeemInvitation(t.Context(), ada.ID, h.code, "1975-12-10", storage.Now())
	require.NoError(t, err)
	sessions, err := db.SessionsOf(t.Context(), ada.ID)
	require.NoError(t, err)
	require.NotEmpty(t, sessions)

	answer := func(jar http.CookieJar, status int, method, path string, form url.Values, set func(*http.Request)) func(context.Context) error {
		client := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		return func(ctx context.Context) error {
			r, err := http.NewRequestWithContext(ctx, method, h.site.Issuer+path, strings.NewReader(form.Encode()))
			if err != nil {
				return err
			}
			if method == "POST" {
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			}
			if set != nil {
				set(r)
			}
			a, err := client.Do(r)
			if err != nil {
				return err
			}
			defer a.Body.Close()
			io.Copy(io.Discard, a.Body)
			if a.StatusCode >= 500 || status != 0 && a.StatusCode != status {
				return fmt.Errorf("status %d", a.StatusCode)
			}
			return nil
		}
	}
	service := func(r *http.Request) { r.SetBasicAuth(h.service, h.secret) }
	bearer := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+p.known["access"]) }
	calls := map[string]func(context.Context) error{
		"client credentials": answer(nil, 200, "POST", "/oauth2/token", url.Values{"grant_type": {"client_credentials"}}, service),
		"refresh":            answer(nil, 200, "POST", "/oauth2/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {p.known["refresh"]}}, service),
		"introspect":         answer(nil, 200, "POST", "/oauth2/introspect", url.Values{"token": {p.known["access"]}}, service),
		"userinfo":           answer(nil, 200, "GET", "/oauth2/userinfo", nil, bearer),
		"account":            answer(p.jars["first"], 200, "GET", "/account", nil, nil),
		"authorize":          answer(p.jars["first"], 0, "GET", "/oauth2/auth?client_id="+h.service+"&response_type=code&scope=openid&redirect_uri="+url.QueryEscape(callback)+"&"+p.known["pkce"], nil, nil),
		// Their pace may run out meanwhile.
		"sign in": answer(nil, 0, "POST", "/login", url.Values{"email": {"ada@example.org"}, "current-password": {p.known["password"]}}, nil),
		"register": answer(nil, 0, "POST", "/register", url.Values{
			"email": {"grace@example.org"}, "new-password": {p.known["password"]}, "given-name": {"Grace"}, "family-name": {"Example"}, "bday": {"1980-02-29"},
		}, nil),
		"device": answer(nil, 0, "POST", "/oauth2/device", url.Values{"client_id": {h.public}, "scope": {"openid"}}, nil),
	}
	call := func(what string, do func(context.Context) error) { calls[what] = do }
	long := storage.Now().Add(-365 * 24 * time.Hour)
	call("claim and return wishes", func(ctx context.Context) error {
		return db.Tx(ctx, func(ctx context.Context) error { // the relay must not see them taken
			rows, err := db.ClaimOutbox(ctx, 10, storage.Now())
			if err != nil || len(rows) == 0 {
				return err
			}
			return db.ReturnOutbox(ctx, rows)
		})
	})
	call("lost wishes", func(ctx context.Context) error { _, err := db.SweepOutbox(ctx, long, 10); return err })
	call("backlog", func(ctx context.Context) error { _, err := db.OutboxBacklog(ctx, storage.Now()); return err })
	call("failed wishes", func(ctx context.Context) error { _, err := db.Unfulfilled(ctx, true, 10); return err })
	call("sessions that are over", func(ctx context.Context) error { _, err := db.ExpireSessions(ctx, long, 10); return err })
	call("links left behind", func(ctx context.Context) error {
		_, _, err := db.ReconcileLinks(ctx, storage.Now(), "", 10)
		return err
	})
	call("settle links", func(ctx context.Context) error {
		_, err := db.SettleLinks(ctx, []string{record.ID}, storage.Now())
		return err
	})
	call("a batch of the laboratory", func(ctx context.Context) error {
		return db.Tx(ctx, func(ctx context.Context) error {
			if _, err := db.LabEventDigests(ctx, []storage.LabEventKey{{Source: "s", EventID: "e"}}); err != nil {
				return err
			}
			found, err := db.LockLabIdentities(ctx, []storage.LabKey{{Authority: "lab1", Value: "R-1"}})
			if err != nil {
				return err
			}
			return db.SaveLabIdentities(ctx, []*storage.LabIdentity{&found[0]})
		})
	})
	call("lab events", func(ctx context.Context) error { _, err := db.LabEvents(ctx, "", 10); return err })
	call("lab authorities", func(ctx context.Context) error { _, err := db.LabAuthorities(ctx); return err })
	call("held records", func(ctx context.Context) error { _, err := db.HeldLabIdentities(ctx, 10); return err })
	call("record", func(ctx context.Context) error { _, err := db.LabIdentityByID(ctx, record.ID); return err })
	call("link", func(ctx context.Context) error { _, err := db.LinkByID(ctx, link.ID); return err })
	call("link and record", func(ctx context.Context) error { _, _, err := db.LinkOf(ctx, ada.ID); return err })
	call("links", func(ctx context.Context) error { _, err := db.Links(ctx, ada.ID); return err })
	call("suspended links", func(ctx context.Context) error { _, err := db.SuspendedLinks(ctx, 10); return err })
	call("signing keys", func(ctx context.Context) error { _, err := db.SigningKeys(ctx); return err })
	call("clients", func(ctx context.Context) error { _, err := db.ListClients(ctx); return err })
	call("resource servers", func(ctx context.Context) error { _, err := db.ResourceServers(ctx); return err })
	call("patients", func(ctx context.Context) error { _, err := db.ListPatients(ctx, 10, ""); return err })
	call("credentials", func(ctx context.Context) error { _, err := db.Credentials(ctx, ada.ID); return err })
	call("sessions", func(ctx context.Context) error { _, err := db.SessionsOf(ctx, ada.ID); return err })
	call("clients of a session", func(ctx context.Context) error { _, err := db.SessionClients(ctx, sessions[0].ID); return err })
	call("apps", func(ctx context.Context) error { _, err := db.AppsOf(ctx, ada.ID, storage.Now()); return err })
	call("consent", func(ctx context.Context) error { _, err := db.Consent(ctx, ada.ID, h.service); return err })
	call("pairwise subject", func(ctx context.Context) error {
		_, err := db.PairwiseSubject(ctx, "sector.example", ada.ID)
		return err
	})
	call("audit", func(ctx context.Context) error { _, err := db.AuditOf(ctx, ada.ID, 10); return err })
	call("periodic runs", func(ctx context.Context) error { _, err := db.PeriodicRuns(ctx); return err })
	call("attempts", func(ctx context.Context) error {
		return db.CountAttempt(ctx, "test", "x", 1_000_000, time.Hour, storage.Now())
	})
	call("schema", func(ctx context.Context) error { _, err := db.SchemaStatus(ctx); return err })
	tables, _ := storage.Expiring()
	for _, table := range tables {
		call("clean up "+table, func(ctx context.Context) error { _, err := db.DeleteExpired(ctx, table, long, 10); return err })
	}
	return calls
}
