package oauth

import (
	"net/url"
	"os"
	"testing"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// each runs a benchmark on SQLite and, where there is one, on PostgreSQL.
func each(b *testing.B, bench func(*testing.B, *house)) {
	run := func(name string, db func(testing.TB) *storage.DB) {
		b.Run(name, func(b *testing.B) {
			h := build(b, db(b))
			// By RS256 most of the time would be the signature's: BenchmarkSign has that.
			h.change(b, &h.portal, func(c *storage.Client) { c.IDTokenAlg = "ES256" })
			b.ReportAllocs()
			b.ResetTimer()
			bench(b, h)
		})
	}
	run("sqlite", storagetest.SQLite)
	if os.Getenv(storagetest.Variable) != "" {
		run("postgres", storagetest.Postgres)
	}
}

func (h *house) must(b *testing.B, path string, c storage.Client, secret string, form url.Values) map[string]any {
	status, body := h.post(path, c, secret, form)
	if status != 200 {
		b.Fatal(status, body)
	}
	return body
}

func BenchmarkClientCredentials(b *testing.B) {
	each(b, func(b *testing.B, h *house) {
		form := url.Values{"grant_type": {"client_credentials"}, "scope": {"results"}}
		for b.Loop() {
			h.must(b, "/oauth2/token", h.portal, h.secret, form)
		}
	})
}

// BenchmarkCodeExchange includes the sign-in's authorization request only
// outside the timer.
func BenchmarkCodeExchange(b *testing.B) {
	each(b, func(b *testing.B, h *house) {
		for b.Loop() {
			b.StopTimer()
			code, verifier := h.code(b, h.portal, nil)
			b.StartTimer()
			h.must(b, "/oauth2/token", h.portal, h.secret, redeem(code, verifier))
		}
	})
}

func BenchmarkRefresh(b *testing.B) {
	each(b, func(b *testing.B, h *house) {
		body := h.tokens(b, h.portal, h.secret, nil)
		for b.Loop() {
			body = h.must(b, "/oauth2/token", h.portal, h.secret, refresh(body["refresh_token"]))
		}
	})
}

func BenchmarkIntrospection(b *testing.B) {
	each(b, func(b *testing.B, h *house) {
		body := h.tokens(b, h.portal, h.secret, nil)
		form := url.Values{"token": {body["access_token"].(string)}}
		for b.Loop() {
			h.must(b, "/oauth2/introspect", h.server, h.serverSecret, form)
		}
	})
}

func BenchmarkUserInfo(b *testing.B) {
	each(b, func(b *testing.B, h *house) {
		body := h.tokens(b, h.portal, h.secret, nil)
		for b.Loop() {
			if status, _ := h.userinfo(body["access_token"]); status != 200 {
				b.Fatal(status)
			}
		}
	})
}
