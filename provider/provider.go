// Package provider is the public face put together: every route on one page,
// and the health that the machines around it ask for.
package provider

import (
	"fmt"
	"net/http"

	"github.com/pat-authenticate/patauth/provider/account"
	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/provider/login"
	"github.com/pat-authenticate/patauth/provider/oauth"
	"github.com/pat-authenticate/patauth/provider/outbound"
	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// Config is what the provider is put together from.
type Config struct {
	DB      *storage.DB
	Keys    *keys.Keys
	Site    *web.Site
	Session session.Config
	Login   login.Config
	// PKCE says of which clients PKCE is demanded.
	PKCE oauth.PKCE
	// Registration says who may register clients, and Outbound which of their
	// servers are reached.
	Registration oauth.Registration
	Outbound     *outbound.Client
	// Development, if any, serves the paths below /dev/.
	Development http.Handler
}

// New is the handler of the public listener.
func New(c Config) (http.Handler, error) {
	sessions := &session.Sessions{DB: c.DB, Site: c.Site, Config: c.Session}
	signin, err := login.New(sessions, c.Login)
	if err != nil {
		return nil, fmt.Errorf("open provider: %w", err)
	}
	r := rooms{
		site: c.Site, sessions: sessions, login: signin,
		oauth: oauth.New(oauth.Config{
			DB: c.DB, Keys: c.Keys, Site: c.Site, PKCE: c.PKCE, Registration: c.Registration, Outbound: c.Outbound,
		}),
		account: account.New(sessions),
	}
	return web.Chain(c.Site, r.routes(c.Development)), nil
}

// rooms are the features that answer requests.
type rooms struct {
	site     *web.Site
	sessions *session.Sessions
	oauth    *oauth.OAuth
	login    *login.Login
	account  *account.Account
}
