package login

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/pat-authenticate/patauth/provider/web"
	"golang.org/x/time/rate"
)

// Limits bound how fast anonymous forms may be tried. They are best effort and
// hold per process: what guards an account is counted in the database. 0 is no
// limit. A network is an IPv4 address or an IPv6 /64.
type Limits struct {
	// NetworkPerMinute is for all tries of one network.
	NetworkPerMinute int `yaml:"network_per_minute" env:"NETWORK_PER_MINUTE"` // default 300
	// NetworkFailuresPerMinute is for its failed ones.
	NetworkFailuresPerMinute int `yaml:"network_failures_per_minute" env:"NETWORK_FAILURES_PER_MINUTE"` // default 30
	// TotalPerSecond is for everybody together.
	TotalPerSecond int `yaml:"total_per_second" env:"TOTAL_PER_SECOND"` // default 200
}

func defaultLimits() Limits {
	return Limits{NetworkPerMinute: 300, NetworkFailuresPerMinute: 30, TotalPerSecond: 200}
}

func (l Limits) validate() error {
	if l.NetworkPerMinute < 0 || l.NetworkFailuresPerMinute < 0 || l.TotalPerSecond < 0 {
		return errors.New("login.limits: a limit is negative")
	}
	return nil
}

// Unbounded reports whether something has no limit.
func (l Limits) Unbounded() bool {
	return l.NetworkPerMinute == 0 || l.NetworkFailuresPerMinute == 0 || l.TotalPerSecond == 0
}

// gate keeps the Limits. The loopback network is nobody's: behind a proxy that
// is not trusted to say who asks it is everybody, so only the total counts there.
type gate struct {
	limits Limits
	mu     sync.Mutex
	nets   map[netip.Prefix]*bucket
	swept  time.Time
	all    *rate.Limiter
	// invites bounds the passkey ceremonies that merely looking at a page
	// begins; apart from all, so that looking keeps nobody from signing in.
	invites *rate.Limiter
}

type bucket struct {
	tries, failures *rate.Limiter
	used            time.Time
}

// forget is when a network that was not heard of starts anew; every bucket is
// full again by then.
const forget = 5 * time.Minute

func newGate(l Limits) *gate {
	total := limiter(float64(l.TotalPerSecond), 5*l.TotalPerSecond)
	invites := limiter(float64(l.TotalPerSecond), 5*l.TotalPerSecond)
	return &gate{limits: l, nets: map[netip.Prefix]*bucket{}, all: total, invites: invites}
}

func limiter(perSecond float64, burst int) *rate.Limiter {
	if burst == 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Limit(perSecond), burst)
}

// pass takes one try of the network r comes from; web.ErrSlowDown where it has
// none left, or failed too often.
func (g *gate) pass(r *http.Request) error {
	b, now := g.bucket(r), time.Now()
	if b != nil && (b.failures.TokensAt(now) < 1 && b.failures.Limit() != rate.Inf || !b.tries.AllowN(now, 1)) || !g.all.AllowN(now, 1) {
		attempts.WithLabelValues("any", "throttled").Inc()
		return web.SlowDown(10 * time.Second)
	}
	return nil
}

// failed notes that the try of r failed.
func (g *gate) failed(r *http.Request) {
	if b := g.bucket(r); b != nil {
		b.failures.Allow()
	}
}

func (g *gate) bucket(r *http.Request) *bucket {
	addr := web.ClientIP(r.Context())
	if addr == "" {
		addr = r.RemoteAddr
	}
	net, now := network(addr), time.Now()
	if !net.IsValid() || net.Addr().IsLoopback() {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.swept) > forget {
		for p, b := range g.nets {
			if now.Sub(b.used) > forget {
				delete(g.nets, p)
			}
		}
		g.swept = now
	}
	b := g.nets[net]
	if b == nil {
		l := g.limits
		b = &bucket{
			tries:    limiter(float64(l.NetworkPerMinute)/60, l.NetworkPerMinute),
			failures: limiter(float64(l.NetworkFailuresPerMinute)/60, 2*l.NetworkFailuresPerMinute),
		}
		g.nets[net] = b
	}
	b.used = now
	return b
}

// network is the part of an address that one subscriber holds: all of an IPv4
// address, the first 64 bits of an IPv6 one.
func network(addr string) netip.Prefix {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() && !a.IsLoopback() {
		bits = 64
	} else if a.Is6() {
		bits = 128
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
