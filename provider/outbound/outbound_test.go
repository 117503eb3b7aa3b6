package outbound

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var loopback = Config{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}

func TestOnlyPublicAddressesAreReached(t *testing.T) {
	for address, want := range map[string]bool{
		"8.8.8.8": true, "2a00:1450:4001::1": true,
		"127.0.0.1": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false, "169.254.169.254": false,
		"100.64.0.1": false, "0.0.0.0": false, "224.0.0.1": false, "255.255.255.255": false, "192.0.2.1": false,
		"::1": false, "::": false, "fe80::1": false, "fc00::1": false, "ff02::1": false, "::ffff:127.0.0.1": false,
		"64:ff9b::7f00:1": false, "2002:7f00:1::": false,
	} {
		require.Equal(t, want, allowed(netip.MustParseAddr(address).Unmap(), nil), address)
	}
	require.True(t, allowed(netip.MustParseAddr("10.1.2.3"), []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}))
}

func TestWhatAClientMayName(t *testing.T) {
	c := New(Config{})
	for raw, want := range map[string]bool{
		"https://portal.example/keys": true, "http://portal.example/keys": false, "http://127.0.0.1/keys": false,
		"https://user@portal.example/": false, "https://portal.example/#f": false, "https:///x": false, "file:///etc/passwd": false,
		"gopher://portal.example/": false, "https://*.example/": false, "": false, "\x00": false,
	} {
		require.Equal(t, want, c.Allowed(raw), raw)
	}
	require.True(t, New(loopback).Allowed("http://127.0.0.1:1/keys"))
	require.False(t, New(loopback).Allowed("http://portal.example/keys"))
}

func TestTheAddressBehindANameIsWhatCounts(t *testing.T) {
	reached := false
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	defer s.Close()
	u, err := url.Parse(s.URL)
	require.NoError(t, err)
	for _, host := range []string{"127.0.0.1", "localhost"} {
		_, err := New(Config{}).Get(context.Background(), "https://"+host+":"+u.Port())
		require.ErrorIs(t, err, ErrFailed)
	}
	require.False(t, reached)
}

func TestAnswersAreBounded(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/good", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("{}")) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/good", http.StatusFound) })
	mux.HandleFunc("/long", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(strings.Repeat("x", maxAnswer+1))) })
	mux.HandleFunc("/missing", http.NotFound)
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(2 * wait):
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/form", func(w http.ResponseWriter, r *http.Request) {
		if r.PostFormValue("a") == "b" {
			w.WriteHeader(http.StatusNoContent)
		}
	})
	s := httptest.NewServer(mux)
	defer s.Close()
	c := New(loopback)
	body, err := c.Get(context.Background(), s.URL+"/good")
	require.NoError(t, err)
	require.Equal(t, "{}", string(body))
	for _, path := range []string{"/away", "/long", "/missing", "/slow"} {
		_, err := c.Get(context.Background(), s.URL+path)
		require.ErrorIs(t, err, ErrFailed, path)
	}
	status, err := c.PostForm(context.Background(), s.URL+"/form", url.Values{"a": {"b"}})
	require.NoError(t, err)
	require.Equal(t, http.StatusNoContent, status)
	_, err = c.PostForm(context.Background(), "http://127.0.0.1:1/", nil)
	require.ErrorIs(t, err, ErrFailed)
}
