package web

import (
	"container/list"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// A Rate is how often something may be done: PerMinute in the long run, Burst at
// once. The zero Rate is no limit.
type Rate struct{ PerMinute, Burst int }

// A Pace bounds how fast strangers may ask for one kind of thing: each network
// first, then all of them together. It holds for this process and is best effort:
// what must hold exactly is counted in the database. Give cheap and dear things a
// Pace each, or whoever asks for the cheap one keeps others from the dear one.
//
// A network is an IPv4 address or an IPv6 /64. One subscriber may have many of
// the latter, so a /56 has the rate of two together, and a /48 that of four. The
// last quarter of the whole's burst is for networks that did not ask a moment
// ago, so that the few who ask all the time leave room for the others. The
// loopback network is nobody's: behind a proxy that is not trusted to say who
// asks it is everybody, so only the whole counts there.
//
// It is safe for concurrent use, and remembers paceNetworks networks at most.
type Pace struct {
	network, whole Rate

	mu     sync.Mutex
	at     time.Time // when the whole has its burst again
	nets   map[netKey]*list.Element
	recent list.List // of *paced, the one used last in front
}

// paceNetworks bounds the networks that one Pace remembers. The one that was
// heard of least recently is forgotten first.
const paceNetworks = 1 << 14

// paced is what a Pace knows of a network: when it has its burst again.
type paced struct {
	key netKey
	at  time.Time
}

// NewPace is a pace for each network and for the whole.
func NewPace(network, whole Rate) *Pace {
	return &Pace{network: network, whole: whole, nets: map[netKey]*list.Element{}}
}

// Pass takes one of what the network of r may do, and one of the whole; an
// ErrSlowDown where either has none left, which takes nothing.
func (p *Pace) Pass(r *http.Request) error {
	keys, now := netKeys(r), time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if wait := p.wait(keys, now); wait > 0 {
		httpRejected.WithLabelValues("pace").Inc()
		return SlowDown(wait)
	}
	// A network is remembered only once the whole has let it in.
	burst := p.whole.full()
	if !p.quiet(keys, now) {
		burst -= burst / 4
	}
	at, wait := p.whole.take(p.at, now, burst, 1)
	if wait > 0 {
		httpRejected.WithLabelValues("pace").Inc()
		return SlowDown(wait)
	}
	p.at = at
	if p.network.PerMinute > 0 {
		for _, k := range keys {
			n := p.know(k)
			n.at, _ = p.network.take(n.at, now, p.network.full(), k.share())
		}
	}
	return nil
}

// Spent is the ErrSlowDown that Pass would return because of r's network. It
// takes nothing, and does not ask the whole.
func (p *Pace) Spent(r *http.Request) error {
	keys, now := netKeys(r), time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if wait := p.wait(keys, now); wait > 0 {
		httpRejected.WithLabelValues("pace").Inc()
		return SlowDown(wait)
	}
	return nil
}

// Refund gives n back to the network of r.
func (p *Pace) Refund(r *http.Request, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range netKeys(r) {
		if e, ok := p.nets[k]; ok {
			b := e.Value.(*paced)
			b.at = b.at.Add(-time.Duration(n) * p.network.every(k.share()))
		}
	}
}

// wait is how long the networks of keys have to wait for their turn.
func (p *Pace) wait(keys []netKey, now time.Time) (longest time.Duration) {
	for _, k := range keys {
		if e, ok := p.nets[k]; ok {
			_, wait := p.network.take(e.Value.(*paced).at, now, p.network.full(), k.share())
			longest = max(longest, wait)
		}
	}
	return longest
}

// quiet reports whether none of keys has asked a moment ago.
func (p *Pace) quiet(keys []netKey, now time.Time) bool {
	for _, k := range keys {
		if e, ok := p.nets[k]; ok && e.Value.(*paced).at.After(now) {
			return false
		}
	}
	return true
}

// know is what is remembered of k from now on.
func (p *Pace) know(k netKey) *paced {
	e, ok := p.nets[k]
	if ok {
		p.recent.MoveToFront(e)
		return e.Value.(*paced)
	}
	if len(p.nets) >= paceNetworks {
		oldest := p.recent.Back()
		delete(p.nets, p.recent.Remove(oldest).(*paced).key)
	}
	n := &paced{key: k}
	p.nets[k] = p.recent.PushFront(n)
	return n
}

// every is the time that one takes to come back, at the rate of share together.
func (r Rate) every(share int) time.Duration {
	if r.PerMinute == 0 {
		return 0
	}
	return time.Minute / time.Duration(r.PerMinute*share)
}

// full is the time that the burst takes to come back.
func (r Rate) full() time.Duration { return r.every(1) * time.Duration(r.Burst) }

// take is when the burst will be there again after one more at now, if it will
// be there at at without; else how long to wait for that one. (The generic cell
// rate algorithm: a token bucket whose whole state is one time.)
func (r Rate) take(at, now time.Time, burst time.Duration, share int) (time.Time, time.Duration) {
	if r.PerMinute == 0 {
		return at, 0
	}
	if at.Before(now) {
		at = now
	}
	next := at.Add(r.every(share))
	if wait := next.Sub(now) - burst; wait > 0 {
		return at, wait
	}
	return next, 0
}

// A netKey is the beginning of an address: its length in bits, and its bytes.
type netKey [9]byte

// share is how many single networks k counts as.
func (k netKey) share() int {
	switch k[0] {
	case 48:
		return 4
	case 56:
		return 2
	}
	return 1
}

// netKeys are the networks that r comes from; none for the loopback network.
func netKeys(r *http.Request) []netKey {
	a := clientAddr(r)
	if !a.IsValid() || a.IsLoopback() {
		return nil
	}
	if a.Is4() {
		return []netKey{prefixKey(a, 32)}
	}
	return []netKey{prefixKey(a, 64), prefixKey(a, 56), prefixKey(a, 48)}
}

func prefixKey(a netip.Addr, bits int) netKey {
	k := netKey{byte(bits)}
	copy(k[1:], a.AsSlice()[:bits/8])
	return k
}

// clientAddr is the address that r comes from.
func clientAddr(r *http.Request) netip.Addr {
	if a, err := netip.ParseAddr(ClientIP(r.Context())); err == nil {
		return a.Unmap()
	}
	at, _ := netip.ParseAddrPort(r.RemoteAddr)
	return at.Addr().Unmap()
}

// Network names the network that r comes from, for what is counted in the
// database: an IPv4 address, or an IPv6 /64.
func Network(r *http.Request) string {
	a := clientAddr(r)
	if !a.Is6() || a.IsLoopback() {
		return a.String()
	}
	p, _ := a.Prefix(64) // which every IPv6 address has
	return p.String()
}
