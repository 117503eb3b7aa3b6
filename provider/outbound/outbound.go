// Package outbound asks and tells the servers that clients have named: their
// keys, their sectors, their sign-outs. A client must not send us where it could
// not go itself, so nothing but https on public addresses is reached, no
// redirect is followed, and no answer is read beyond its limit.
package outbound

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

const (
	// wait bounds a request as a whole.
	wait = 3 * time.Second
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 256 << 10
)

// ErrFailed is every reason why an address could not be asked. Its cause is
// for the log: whoever named the address must not learn what lies behind it.
var ErrFailed = errors.New("outbound request failed")

// Config opens more than the public internet.
type Config struct {
	// Networks may be reached though they are not public, such as 10.0.0.0/8 for
	// portals in the same cluster. Loopback, for tests, is refused in production
	// mode; there http will do.
	Networks []netip.Prefix
}

// Client makes guarded requests. It is safe for concurrent use.
type Client struct {
	http     *http.Client
	loopback bool
}

// New is a client that reaches public addresses and those of c.
func New(c Config) *Client {
	// The address is checked after its name was resolved, at the moment of the
	// call: no second answer of a name server can change it.
	dialer := &net.Dialer{Timeout: wait, Control: func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil || !allowed(to.Addr().Unmap(), c.Networks) {
			return errors.New("address is not public")
		}
		return nil
	}}
	return &Client{
		loopback: allowed(netip.MustParseAddr("127.0.0.1"), c.Networks),
		http: &http.Client{
			Timeout: wait,
			Transport: &http.Transport{
				DialContext: dialer.DialContext, TLSHandshakeTimeout: wait, ResponseHeaderTimeout: wait,
				MaxIdleConnsPerHost: 2, MaxConnsPerHost: 8, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 16 << 10,
				ForceAttemptHTTP2: true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// notPublic are networks for special purposes that netip does not tell (IANA
// special-purpose address registries).
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"),
}

func allowed(to netip.Addr, more []netip.Prefix) bool {
	in := func(all []netip.Prefix) bool {
		for _, p := range all {
			if p.Contains(to) {
				return true
			}
		}
		return false
	}
	return in(more) || (to.IsGlobalUnicast() && !to.IsPrivate() && !in(notPublic))
}

// Allowed reports whether rawURL may be named by a client at all: https with a
// host, without user information and fragment; http only where loopback is
// reached, and only there.
func (c *Client) Allowed(rawURL string) bool {
	u, err := url.Parse(rawURL)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "" || strings.Contains(u.Host, "*") {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	local := u.Hostname() == "localhost" || (err == nil && ip.IsLoopback())
	return u.Scheme == "https" || (u.Scheme == "http" && local && c.loopback)
}

// Get reads the JSON document at rawURL. Every failure, a status other than 200
// among them, is ErrFailed.
func (c *Client) Get(ctx context.Context, rawURL string) ([]byte, error) {
	status, body, err := c.do(ctx, http.MethodGet, rawURL, "", nil)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%w: status %d", ErrFailed, status)
	}
	return body, err
}

// PostForm sends form to rawURL and returns the status; ErrFailed where there
// was no answer.
func (c *Client) PostForm(ctx context.Context, rawURL string, form url.Values) (status int, err error) {
	status, _, err = c.do(ctx, http.MethodPost, rawURL, "application/x-www-form-urlencoded", strings.NewReader(form.Encode()))
	return status, err
}

func (c *Client) do(ctx context.Context, method, rawURL, contentType string, body io.Reader) (int, []byte, error) {
	if !c.Allowed(rawURL) {
		return 0, nil, fmt.Errorf("%w: the address is not allowed", ErrFailed)
	}
	r, err := http.NewRequestWithContext(ctx, method, rawURL, body)
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", ErrFailed, err)
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "patauth")
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", ErrFailed, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil || len(b) > maxAnswer {
		return 0, nil, fmt.Errorf("%w: the answer is too long or broke off", ErrFailed)
	}
	return resp.StatusCode, b, nil
}
