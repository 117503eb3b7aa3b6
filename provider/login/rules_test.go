package login

import (
	"context"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

func TestPasswordRules(t *testing.T) {
	for _, row := range []struct{ password, problem string }{
		{"correct horse battery staple", ""},
		{"blue tulip kettle moon", ""},
		{"nur kleine buchstaben", ""},
		{"  spaces at both ends  ", ""},
		{"übermäßig große Käseglocke", ""},
		{"密码是一个很长的句子不容易猜到", ""}, // 15 code points
		{strings.Repeat("long enough ", 21), ""},
		{"fourteen chars", "login.password.short"},
		{"", "login.password.short"},
		{strings.Repeat("x y z ", 43), "login.password.long"},
		{strings.Repeat("é", 256) + "x", "login.password.long"},
		{strings.Repeat("界", 256) + strings.Repeat("x", 800), "login.password.long"},
		{"a password with\x00 in it", "login.password.characters"},
		{"not \xff text, but long", "login.password.characters"},
		{"passwordpassword", "login.password.context"},
		{"123456789012345", "login.password.common"},
		{"aaaaaaaaaaaaaaaaaaaa", "login.password.common"},
		{"abcabcabcabcabcabc", "login.password.common"},
		{"qwertyuiopasdfgh", "login.password.common"},
		{"iloveyouiloveyou", "login.password.common"},
		{"AdaByron10121815", "login.password.context"},
		{"ada.byron@example.org", "login.password.context"},
		{"patauth-patauth-1", "login.password.context"},
		{"portal.hospital.example", "login.password.context"},
	} {
		require.Equal(t, row.problem, passwordProblem(row.password, "Ada", "Byron", "ada.byron@example.org", "https://portal.hospital.example"), "%q", row.password)
	}
	// Both spellings of an accented letter are one password (NFC).
	require.Equal(t, normalPassword("cafe\u0301"), normalPassword("café"))
}

func cheap(t *testing.T) *Hasher {
	t.Helper()
	h, err := NewHasher(storagetest.SQLite(t), HashConfig{MemoryKiB: 8, Iterations: 1, Lanes: 1, Parallel: 2})
	require.NoError(t, err)
	return h
}

func TestHashes(t *testing.T) {
	ctx, h := context.Background(), cheap(t)
	phc, err := h.Hash(ctx, "cafe\u0301 au lait")
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(phc, "pep1$argon2id$v=19$m=8,t=1,p=1$"), phc)

	ok, anew, err := h.Verify(ctx, phc, "café au lait")
	require.NoError(t, err)
	require.True(t, ok)
	require.Empty(t, anew)
	ok, _, err = h.Verify(ctx, phc, "café au lait ")
	require.NoError(t, err)
	require.False(t, ok)
	ok, _, err = h.Verify(ctx, "", "nobody's password")
	require.NoError(t, err)
	require.False(t, ok, "nobody has a password")

	imported, err := bcrypt.GenerateFromPassword([]byte("imported"), bcrypt.MinCost)
	require.NoError(t, err)
	ok, anew, err = h.Verify(ctx, string(imported), "imported")
	require.NoError(t, err)
	require.True(t, ok)
	require.True(t, strings.HasPrefix(anew, h.want), "it is hashed anew")
	ok, _, err = h.Verify(ctx, anew, "imported")
	require.NoError(t, err)
	require.True(t, ok)
	ok, _, err = h.Verify(ctx, string(imported), "not the imported one")
	require.NoError(t, err)
	require.False(t, ok)

	other := cheap(t) // another keyring
	ok, _, err = other.Verify(ctx, phc, "café au lait")
	require.NoError(t, err)
	require.False(t, ok, "without the pepper the hash is of no use")
}

func TestHowManyHashesRunAtOnce(t *testing.T) {
	const pod = 512 << 20 / 100 * 85
	for _, c := range []struct {
		set, processors int
		limit           int64
		slots           int
	}{
		{0, 1, math.MaxInt64, 1}, {0, 2, math.MaxInt64, 1}, {0, 8, math.MaxInt64, 7},
		{0, 2, pod, 1}, {0, 64, pod, 2}, {0, 64, 64 << 20, 1},
		{4, 2, math.MaxInt64, 4}, {4, 2, pod, 3}, {64, 2, pod, 3}, {1, 64, pod, 1},
	} {
		require.Equal(t, c.slots, HashConfig{MemoryKiB: 64 << 10, Parallel: c.set}.slots(c.processors, c.limit), "%+v", c)
	}
}

func TestRehashOnSignIn(t *testing.T) {
	p := newSQLitePlace(t)
	patient := p.patient("ada@example.org")
	ctx := context.Background()
	dear, err := NewHasher(p.db, HashConfig{MemoryKiB: 16, Iterations: 1, Lanes: 1, Parallel: 1})
	require.NoError(t, err)
	p.login.hasher = dear
	p.signedIn("ada@example.org")
	all, err := p.db.Credentials(ctx, patient.ID)
	require.NoError(t, err)
	require.Contains(t, string(all[0].Secret), "$m=16,")
	p.signedIn("ada@example.org")
}

func TestABurstOfHashesIsRefusedNotServedLate(t *testing.T) {
	h := cheap(t)
	hold := make(chan struct{})
	var started sync.WaitGroup
	for range cap(h.slots) {
		started.Add(1)
		go h.turn(context.Background(), func() { started.Done(); <-hold })
	}
	started.Wait()
	var refused atomic.Int64
	var all sync.WaitGroup
	begin := time.Now()
	for range 3 * cap(h.line) {
		all.Go(func() {
			if err := h.turn(context.Background(), func() {}); err != nil {
				require.ErrorIs(t, err, web.ErrUnavailable)
				refused.Add(1)
			}
		})
	}
	all.Wait()
	close(hold)
	require.EqualValues(t, 3*cap(h.line), refused.Load())
	require.Less(t, time.Since(begin), 2*hashWait)
	require.NoError(t, h.turn(context.Background(), func() {}))
}

func TestTheGateCountsByNetwork(t *testing.T) {
	g := newGate(Limits{NetworkPerMinute: 50, NetworkFailuresPerMinute: 1, TotalPerSecond: 100})
	from := func(addr string) *http.Request {
		r := httptest.NewRequest("POST", "/login", nil)
		r.RemoteAddr = addr
		return r
	}
	passed := 0
	for range 500 {
		if g.stranger(from("[2001:db8:1:2::1]:1234")) == nil {
			passed++
		}
	}
	require.InDelta(t, 50, passed, 2)
	require.ErrorIs(t, g.stranger(from("[2001:db8:1:2:ffff::9]:1")), web.ErrSlowDown, "one subscriber")
	require.NoError(t, g.member(from("[2001:db8:1:2::1]:1234")), "who was here before has another pace")
	require.NoError(t, g.guess(from("[2001:db8:1:2::1]:1234")), "and so has what costs little")
	require.NoError(t, g.stranger(from("[2001:db8:1:3::1]:1")))
	for range 100 {
		g.failed(from("198.51.100.1:2"))
	}
	require.ErrorIs(t, g.stranger(from("198.51.100.1:4")), web.ErrSlowDown)
	require.ErrorIs(t, g.guess(from("198.51.100.1:4")), web.ErrSlowDown)
	require.NoError(t, g.member(from("198.51.100.1:4")))
	g.failures.Refund(from("198.51.100.1:4"), 1)
	require.NoError(t, g.stranger(from("198.51.100.1:4")))
	require.NoError(t, g.stranger(from("198.51.100.2:1")))
	for range 300 {
		require.NoError(t, g.stranger(from("127.0.0.1:1")))
	}
}

func TestConfig(t *testing.T) {
	require.NoError(t, Defaults().Validate())
	c := Defaults()
	c.TOTPPast, c.Hash.Iterations, c.Limits.TotalPerSecond = 2, 0, -1
	err := c.Validate()
	for _, word := range []string{"login.totp_past", "login.hash", "login.limits"} {
		require.ErrorContains(t, err, word)
	}
}
