package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// portal is a small patient portal: a relying party that knows nothing of the
// provider but its issuer. It serves `patauth dev`, and shows what integrating
// takes. Who is signed in is kept in memory only.
type portal struct {
	url, issuer string
	id, secret  string       // of the client
	http        *http.Client // trusts the issuer's certificate
	mu          sync.Mutex
	provider    *oidc.Provider       // after discovery
	visits      map[string]*visit    // signed in, by cookie
	attempts    map[string]attempt   // on their way, by cookie
	signedOut   map[string]time.Time // logout tokens that were taken, and their ends, by jti
	crossOrigin *http.CrossOriginProtection
	order       []string // cookies of attempts, oldest first
}

// An attempt is a sign-in that has left for the provider.
type attempt struct{ state, nonce, verifier string }

// A visit is somebody signed in.
type visit struct {
	Claims
	AuthTime time.Time
	idToken  string
	token    *oauth2.Token
}

// Claims are what the portal reads of the ID token and of userinfo.
type Claims struct {
	Subject       string   `json:"sub"`
	Name          string   `json:"name"`
	Email         string   `json:"email"`
	EmailVerified bool     `json:"email_verified"`
	SID           string   `json:"sid"`
	ACR           string   `json:"acr"`
	AMR           []string `json:"amr"`
	AuthTime      int64    `json:"auth_time"`
	Lab           *struct {
		Authority string `json:"authority"`
		Record    string `json:"record"`
	} `json:"lab"`
}

const (
	portalCookie = "portal"
	maxVisits    = 1000 // and as many attempts: memory is not for sale
)

var (
	//go:embed portal.html
	portalHTML string
	//go:embed portal.css
	portalCSS  []byte
	portalPage = template.Must(template.New("portal").Parse(portalHTML))
)

func newPortal(address, issuer, id, secret string, client *http.Client) *portal {
	return &portal{
		url: address, issuer: issuer, id: id, secret: secret, http: client,
		visits: map[string]*visit{}, attempts: map[string]attempt{}, signedOut: map[string]time.Time{}, crossOrigin: http.NewCrossOriginProtection(),
	}
}

func (p *portal) handler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /{$}", p.home)
	m.HandleFunc("GET /sign-in", p.answer(p.signIn))
	m.HandleFunc("GET /callback", p.answer(p.callback))
	m.HandleFunc("POST /refresh", p.answer(p.refresh))
	m.HandleFunc("POST /sign-out", p.answer(p.signOut))
	m.HandleFunc("POST /backchannel-logout", p.backchannelLogout)
	m.HandleFunc("GET /portal.css", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		w.Write(portalCSS)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		// A browser applies form-action to redirects, too: signing out leads to
		// the issuer and back.
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; form-action 'self' "+p.issuer+"; frame-ancestors 'none'; base-uri 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
		p.crossOrigin.Handler(m).ServeHTTP(w, r)
	})
}

// answer shows what went wrong, in words that repeat nothing of the request.
func (p *portal) answer(h func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if err == nil {
			return
		}
		slog.WarnContext(r.Context(), "portal", "error", err.Error())
		problem := "Signing in did not work. Please try again."
		var said said
		if errors.As(err, &said) {
			problem = string(said)
		}
		p.render(w, http.StatusBadRequest, view{Problem: problem})
	}
}

// said is an error that is shown as it is.
type said string

func (s said) Error() string { return string(s) }

type view struct {
	Issuer, Problem string
	Visit           *visit
}

func (p *portal) render(w http.ResponseWriter, status int, v view) {
	v.Issuer = p.issuer
	var b bytes.Buffer
	if err := portalPage.Execute(&b, v); err != nil {
		http.Error(w, "page", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	b.WriteTo(w)
}

// home shows who is signed in. GET /
func (p *portal) home(w http.ResponseWriter, r *http.Request) {
	p.render(w, http.StatusOK, view{Visit: p.visit(r)})
}

func (p *portal) visit(r *http.Request) *visit {
	c, err := r.Cookie(portalCookie)
	if err != nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.visits[c.Value]
}

// discover reads the provider's metadata once (OpenID Connect Discovery,
// Section 4).
func (p *portal) discover(ctx context.Context) (*oidc.Provider, *oauth2.Config, error) {
	p.mu.Lock()
	provider := p.provider
	p.mu.Unlock()
	if provider == nil {
		// The provider keeps this context for its key set.
		found, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), p.http), p.issuer)
		if err != nil {
			return nil, nil, fmt.Errorf("discovery: %w", err)
		}
		provider = found
		p.mu.Lock()
		p.provider = found
		p.mu.Unlock()
	}
	return provider, &oauth2.Config{
		ClientID: p.id, ClientSecret: p.secret, Endpoint: provider.Endpoint(), RedirectURL: p.url + "/callback",
		Scopes: []string{oidc.ScopeOpenID, "profile", "email", oidc.ScopeOfflineAccess, "lab"},
	}, nil
}

// signIn leaves for the provider. GET /sign-in
func (p *portal) signIn(w http.ResponseWriter, r *http.Request) error {
	_, config, err := p.discover(r.Context())
	if err != nil {
		return err
	}
	a := attempt{state: rand.Text(), nonce: rand.Text(), verifier: oauth2.GenerateVerifier()}
	key := rand.Text()
	p.mu.Lock()
	if c, err := r.Cookie(portalCookie); err == nil {
		delete(p.visits, c.Value)
	}
	p.attempts[key] = a
	p.order = append(p.order, key)
	if len(p.order) > maxVisits {
		delete(p.attempts, p.order[0])
		p.order = p.order[1:]
	}
	p.mu.Unlock()
	p.cookie(w, key)
	http.Redirect(w, r, config.AuthCodeURL(a.state, oidc.Nonce(a.nonce), oauth2.S256ChallengeOption(a.verifier),
		oauth2.SetAuthURLParam("acr_values", "urn:patauth:acr:two-factor")), http.StatusSeeOther)
	return nil
}

func (p *portal) cookie(w http.ResponseWriter, value string) {
	http.SetCookie(w, &http.Cookie{Name: portalCookie, Value: value, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: strings.HasPrefix(p.url, "https://")})
}

// callback is where the provider sends the browser back to. GET /callback
func (p *portal) callback(w http.ResponseWriter, r *http.Request) error {
	provider, config, err := p.discover(r.Context())
	if err != nil {
		return err
	}
	c, err := r.Cookie(portalCookie)
	if err != nil {
		return said("This browser did not begin to sign in here.")
	}
	p.mu.Lock()
	a, ok := p.attempts[c.Value]
	delete(p.attempts, c.Value)
	p.mu.Unlock()
	q := r.URL.Query()
	switch {
	case !ok || subtle.ConstantTimeCompare([]byte(a.state), []byte(q.Get("state"))) != 1:
		return said("This sign-in was not begun here, or is over already.")
	case q.Get("iss") != p.issuer: // RFC 9207, Section 2.4
		return said("The answer came from another provider.")
	case q.Get("error") == "access_denied":
		return said("You did not allow it, so you are not signed in.")
	case q.Get("error") != "":
		return fmt.Errorf("the provider answered %q", q.Get("error"))
	}
	ctx := oidc.ClientContext(r.Context(), p.http)
	token, err := config.Exchange(ctx, q.Get("code"), oauth2.VerifierOption(a.verifier))
	if err != nil {
		return fmt.Errorf("code: %w", err)
	}
	v, err := p.read(ctx, provider, token, a.nonce)
	if err != nil {
		return err
	}
	key := rand.Text() // a new cookie for a new privilege
	p.mu.Lock()
	for old := range p.visits {
		if len(p.visits) < maxVisits {
			break
		}
		delete(p.visits, old)
	}
	p.visits[key] = v
	p.mu.Unlock()
	p.cookie(w, key)
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return nil
}

// read validates the ID token and asks userinfo (OpenID Connect Core, Sections
// 3.1.3.7 and 5.3.2). nonce is "" after a refresh.
func (p *portal) read(ctx context.Context, provider *oidc.Provider, token *oauth2.Token, nonce string) (*visit, error) {
	raw, _ := token.Extra("id_token").(string)
	id, err := provider.VerifierContext(ctx, &oidc.Config{ClientID: p.id}).Verify(ctx, raw)
	if err != nil {
		return nil, fmt.Errorf("ID token: %w", err)
	}
	if nonce != "" && subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(nonce)) != 1 {
		return nil, errors.New("ID token: another nonce")
	}
	if err := id.VerifyAccessToken(token.AccessToken); err != nil {
		return nil, fmt.Errorf("ID token: %w", err)
	}
	v := &visit{idToken: raw, token: token}
	if err := id.Claims(&v.Claims); err != nil {
		return nil, fmt.Errorf("ID token: %w", err)
	}
	info, err := provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		return nil, fmt.Errorf("userinfo: %w", err)
	}
	if info.Subject != id.Subject {
		return nil, errors.New("userinfo is about somebody else")
	}
	if err := info.Claims(&v.Claims); err != nil {
		return nil, fmt.Errorf("userinfo: %w", err)
	}
	v.AuthTime = time.Unix(v.Claims.AuthTime, 0)
	return v, nil
}

// refresh asks for new tokens, and so for what has changed. POST /refresh
func (p *portal) refresh(w http.ResponseWriter, r *http.Request) error {
	v := p.visit(r)
	if v == nil {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return nil
	}
	provider, config, err := p.discover(r.Context())
	if err != nil {
		return err
	}
	ctx := oidc.ClientContext(r.Context(), p.http)
	token, err := config.TokenSource(ctx, &oauth2.Token{RefreshToken: v.token.RefreshToken}).Token()
	if err != nil {
		return fmt.Errorf("refresh: %w", err)
	}
	fresh, err := p.read(ctx, provider, token, "")
	if err != nil {
		return err
	}
	if fresh.Subject != v.Subject {
		return errors.New("refresh: the tokens are somebody else's")
	}
	c, err := r.Cookie(portalCookie)
	if err != nil {
		return err
	}
	p.mu.Lock()
	if p.visits[c.Value] != nil { // not signed out meanwhile
		p.visits[c.Value] = fresh
	}
	p.mu.Unlock()
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return nil
}

// signOut ends the visit here and at the provider (RP-Initiated Logout 1.0,
// Section 2). POST /sign-out
func (p *portal) signOut(w http.ResponseWriter, r *http.Request) error {
	v := p.visit(r)
	if c, err := r.Cookie(portalCookie); err == nil {
		p.mu.Lock()
		delete(p.visits, c.Value)
		p.mu.Unlock()
	}
	http.SetCookie(w, &http.Cookie{Name: portalCookie, Path: "/", MaxAge: -1})
	provider, _, err := p.discover(r.Context())
	if err != nil {
		return err
	}
	var metadata struct {
		EndSession string `json:"end_session_endpoint"`
	}
	if err := provider.Claims(&metadata); err != nil {
		return err
	}
	if v == nil || metadata.EndSession == "" {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return nil
	}
	http.Redirect(w, r, metadata.EndSession+"?"+url.Values{
		"id_token_hint": {v.idToken}, "client_id": {p.id}, "post_logout_redirect_uri": {p.url + "/"},
	}.Encode(), http.StatusSeeOther)
	return nil
}
