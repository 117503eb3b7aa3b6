package web

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func from(address string) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = address
	return r
}

// passes is how many of n requests pass that come from addresses made of format.
func passes(t *testing.T, p *Pace, n int, format string) (passed int) {
	t.Helper()
	for i := range n {
		address := format
		if strings.Contains(format, "%") {
			address = fmt.Sprintf(format, i)
		}
		switch err := p.Pass(from(address)); {
		case err == nil:
			passed++
		case !errors.Is(err, ErrSlowDown):
			t.Fatal(err)
		}
	}
	return passed
}

// The bounds hold for ten times as many.
func TestAPaceIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPace(Rate{PerMinute: 60, Burst: 10}, Rate{PerMinute: 600, Burst: 1000})
		require.Equal(t, 10, passes(t, p, 100, "192.0.2.1:1"))
		require.Equal(t, 10, passes(t, p, 100, "192.0.2.2:1"), "another network has its own")
		require.ErrorIs(t, p.Spent(from("192.0.2.1:1")), ErrSlowDown)
		time.Sleep(time.Second)
		require.NoError(t, p.Spent(from("192.0.2.1:1")))
		require.Equal(t, 1, passes(t, p, 10, "192.0.2.1:1"))
		time.Sleep(time.Hour)
		require.Equal(t, 10, passes(t, p, 100, "192.0.2.1:1"), "no more than the burst is saved up")
		p.Refund(from("192.0.2.1:1"), 3)
		require.Equal(t, 3, passes(t, p, 100, "192.0.2.1:1"))
		require.Equal(t, 10, passes(t, p, 100, "[2001:db8::1]:1"))
		require.Equal(t, 0, passes(t, p, 100, "[2001:db8::2]:1"), "the same /64")
		require.Equal(t, 0, passes(t, p, 10, "[::ffff:192.0.2.1]:1"), "the same address")
		require.Equal(t, 5000, passes(t, NewPace(Rate{}, Rate{}), 5000, "192.0.2.1:1"), "no limit")
	})
}

func TestOneSubscriberOfManyNetworksIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPace(Rate{PerMinute: 60, Burst: 10}, Rate{PerMinute: 600, Burst: 10000})
		require.Equal(t, 20, passes(t, p, 256, "[2001:db8:0:%x::]:1"), "a /56")
		require.Equal(t, 20, passes(t, p, 1000, "[2001:db8:0:1%02x::]:1"), "a /48, all in all twice as much")
		require.Equal(t, 10, passes(t, p, 100, "[2001:db8:1::1]:1"), "another /48")
	})
}

// Many networks, none of which is too fast, are held to the whole; a network that
// has not asked is still let in beside those that ask all the time.
func TestTheWholeHasRoomForWhoIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPace(Rate{PerMinute: 60, Burst: 10}, Rate{PerMinute: 60, Burst: 100})
		passed := 0
		for range 10 {
			passed += passes(t, p, 20, "198.51.100.%[1]d:1")
		}
		require.Equal(t, 75, passed)
		require.Equal(t, 1, passes(t, p, 10, "192.0.2.1:1"), "and then it has just asked, too")
		require.Equal(t, 24, passes(t, p, 240, "203.0.113.%[1]d:1"))
		require.Equal(t, 0, passes(t, p, 10, "192.0.2.3:1"))
		require.Len(t, p.nets, 20+1+24, "who was refused by the whole is not remembered")
	})
}

func TestANetworkHasAName(t *testing.T) {
	for address, name := range map[string]string{
		"192.0.2.1:1": "192.0.2.1", "[2001:db8:1:2:3::4]:1": "2001:db8:1:2::/64", "[::ffff:192.0.2.1]:1": "192.0.2.1", "[::1]:1": "::1", "": "invalid IP",
	} {
		require.Equal(t, name, Network(from(address)))
	}
}

func TestTheTableOfNetworksIsBounded(t *testing.T) {
	p := NewPace(Rate{PerMinute: 60, Burst: 10}, Rate{})
	for i := range 10 * paceNetworks {
		require.NoError(t, p.Pass(from(fmt.Sprintf("10.%d.%d.%d:1", i>>16&255, i>>8&255, i&255))))
		if i%100 == 0 {
			passes(t, p, 1, "192.0.2.1:1") // who comes again is not forgotten
		}
	}
	require.Len(t, p.nets, paceNetworks)
	require.Equal(t, paceNetworks, p.recent.Len())
	require.Contains(t, p.nets, prefixKey(clientAddr(from("192.0.2.1:1")), 32))
}

func TestTheLoopbackNetworkIsNobodys(t *testing.T) {
	p := NewPace(Rate{PerMinute: 60, Burst: 1}, Rate{PerMinute: 60, Burst: 100})
	require.Equal(t, 100, passes(t, p, 1000, "127.0.0.1:1")+passes(t, p, 10, "[::1]:1"))
	require.Empty(t, p.nets)
}
