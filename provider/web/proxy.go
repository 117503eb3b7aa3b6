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
// proxies, because everything further left is the sender's own claim. Where it
// cannot be read, the address is the last one that could.
func (s *Site) origin(r *http.Request) (id, ip string, unreadable bool) {
	id = storage.NewID()
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return id, "", false
	}
	from := at.Addr().Unmap()
	if !s.trusted(from) {
		return id, from.String(), false
	}
	if sent := r.Header.Get("X-Request-Id"); len(sent) >= 8 && len(sent) <= 64 && plain(sent) == sent {
		id = sent
	}
	said := strings.Join(r.Header.Values("X-Forwarded-For"), ",")
	hops := strings.Split(said, ",")
	for i := len(hops) - 1; i >= 0 && s.trusted(from); i-- {
		a, err := hop(strings.TrimSpace(hops[i]))
		if err != nil {
			unreadable = said != ""
			break
		}
		from = a.Unmap()
	}
	return id, from.WithZone("").String(), unreadable
}

// hop is an address as proxies write it: alone, in brackets, or with a port.
func hop(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	if err != nil {
		var at netip.AddrPort
		at, err = netip.ParseAddrPort(s)
		a = at.Addr()
	}
	return a, err
}

func (s *Site) trusted(a netip.Addr) bool {
	for _, p := range s.Proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
