package web

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/pat-authenticate/patauth/storage"
)

// ParseProxies reads networks in CIDR form or single addresses.
func ParseProxies(list []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, x := range list {
		if a, err := netip.ParseAddr(x); err == nil {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(x)
		if err != nil {
			return nil, fmt.Errorf("%q is neither a network (10.0.0.0/8) nor an address", x)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// origin is the request's id and the address it came from. Only a trusted proxy
// may say either: X-Forwarded-For is read from the right, past the trusted
// proxies, because everything further left is the sender's own claim.
func (s *Site) origin(r *http.Request) (id, ip string) {
	id = storage.NewID()
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return id, ""
	}
	from := at.Addr().Unmap()
	if !s.trusted(from) {
		return id, from.String()
	}
	if sent := r.Header.Get("X-Request-Id"); len(sent) >= 8 && len(sent) <= 64 && plain(sent) == sent {
		id = sent
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && s.trusted(from); i-- {
		a, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		from = a.Unmap()
	}
	return id, from.WithZone("").String()
}

func (s *Site) trusted(a netip.Addr) bool {
	for _, p := range s.Proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
