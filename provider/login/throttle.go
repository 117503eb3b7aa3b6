package login

import (
	"errors"
	"net/http"

	"github.com/pat-authenticate/patauth/provider/web"
)

// Limits bound how fast anonymous forms may be tried. They are best effort and
// hold per process: what guards an account is counted in the database. 0 is no
// limit. What a network is, web.Pace says.
type Limits struct {
	// NetworkPerMinute is for the tries of one network: of passwords by browsers
	// that did not sign in before, of those by browsers that did, and of what costs
	// no hash, each by itself. Looking at the page is free four times as often.
	NetworkPerMinute int `yaml:"network_per_minute" env:"NETWORK_PER_MINUTE"` // default 300
	// NetworkFailuresPerMinute is for its failed ones in the long run, ten times as
	// many at once. A patient's own are given back when the patient then signs in.
	NetworkFailuresPerMinute int `yaml:"network_failures_per_minute" env:"NETWORK_FAILURES_PER_MINUTE"` // default 30
	// TotalPerSecond is for all networks together, of each kind.
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

// gate keeps the Limits. What costs little and what costs much, who is unknown
// and who has signed in before have paces apart: none keeps another out.
type gate struct {
	strangers *web.Pace // who may make us hash a password
	known     *web.Pace // the same, from browsers that have signed in before
	cheap     *web.Pace // what costs a query or two
	looks     *web.Pace // at the page; of a network only, so nobody can use them up
	failures  *web.Pace // of a network's strangers
	mails     *web.Pace // that may be sent for a network
}

// Mails that one network may make us send, to whatever addresses, and all of them.
var (
	mailsOfNetwork = web.Rate{PerMinute: 1, Burst: 30}
	mailsOfAll     = web.Rate{PerMinute: 300, Burst: 600}
)

func newGate(l Limits) *gate {
	network := web.Rate{PerMinute: l.NetworkPerMinute, Burst: l.NetworkPerMinute}
	all := web.Rate{PerMinute: 60 * l.TotalPerSecond, Burst: 5 * l.TotalPerSecond}
	return &gate{
		strangers: web.NewPace(network, all), known: web.NewPace(network, all), cheap: web.NewPace(network, all),
		looks:    web.NewPace(web.Rate{PerMinute: 4 * l.NetworkPerMinute, Burst: 4 * l.NetworkPerMinute}, web.Rate{}),
		failures: web.NewPace(web.Rate{PerMinute: l.NetworkFailuresPerMinute, Burst: 10 * l.NetworkFailuresPerMinute}, web.Rate{}),
		mails:    web.NewPace(mailsOfNetwork, mailsOfAll),
	}
}

// stranger takes one dear try of somebody unknown; web.ErrSlowDown where the
// network has none left, or failed too often.
func (g *gate) stranger(r *http.Request) error { return g.unlessFailing(r, g.strangers) }

// guess takes one cheap try whose answer may be wrong.
func (g *gate) guess(r *http.Request) error { return g.unlessFailing(r, g.cheap) }

func (g *gate) unlessFailing(r *http.Request, p *web.Pace) error {
	err := g.failures.Spent(r)
	if err == nil {
		err = p.Pass(r)
	}
	return throttled(err)
}

// member takes one dear try of somebody who is signed in, or whose browser was.
func (g *gate) member(r *http.Request) error { return throttled(g.known.Pass(r)) }

func throttled(err error) error {
	if err != nil {
		attempts.WithLabelValues("any", "throttled").Inc()
	}
	return err
}

// failed notes that the try of r failed.
func (g *gate) failed(r *http.Request) { _ = g.failures.Pass(r) }
