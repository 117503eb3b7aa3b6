package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// logoutEvent is what a logout token says has happened (Back-Channel Logout 1.0,
// Section 2.4).
const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// backchannelLogout ends the visits of a session that has ended at the provider.
// 400 says that the token is no good (Section 2.8), and is not said where the
// provider's keys are out of reach. POST /backchannel-logout
func (p *portal) backchannelLogout(w http.ResponseWriter, r *http.Request) {
	provider, _, err := p.discover(r.Context())
	if err != nil {
		slog.WarnContext(r.Context(), "portal logout", "error", err.Error())
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	sid, err := p.readLogout(r.Context(), provider, r.PostFormValue("logout_token"))
	if err != nil {
		slog.WarnContext(r.Context(), "portal logout", "error", err.Error())
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, v := range p.visits {
		if v.SID == sid {
			delete(p.visits, key)
		}
	}
}

// readLogout validates a logout token (Section 2.6) and returns its sid.
func (p *portal) readLogout(ctx context.Context, provider *oidc.Provider, raw string) (sid string, err error) {
	if kind := typeOf(raw); kind != "logout+jwt" {
		return "", errors.New("logout token: another kind of token")
	}
	// Signature, iss, aud and exp are as in an ID token.
	token, err := provider.VerifierContext(oidc.ClientContext(ctx, p.http), &oidc.Config{ClientID: p.id}).Verify(ctx, raw)
	if err != nil {
		return "", fmt.Errorf("logout token: %w", err)
	}
	var claims struct {
		SID    string                     `json:"sid"`
		JTI    string                     `json:"jti"`
		Nonce  *string                    `json:"nonce"`
		Events map[string]json.RawMessage `json:"events"`
	}
	if err := token.Claims(&claims); err != nil {
		return "", fmt.Errorf("logout token: %w", err)
	}
	switch {
	case claims.Events[logoutEvent] == nil:
		return "", errors.New("logout token: not about a logout")
	case claims.Nonce != nil:
		return "", errors.New("logout token: it has a nonce, as an ID token")
	case claims.SID == "", claims.JTI == "":
		return "", errors.New("logout token: sid or jti is missing")
	case !p.firstTime(claims.JTI, token.Expiry):
		return "", errors.New("logout token: taken before")
	}
	return claims.SID, nil
}

// typeOf is the typ of a token's header, which go-oidc does not look at.
func typeOf(raw string) string {
	var header struct {
		Typ string `json:"typ"`
	}
	head, _, _ := strings.Cut(raw, ".")
	b, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil || json.Unmarshal(b, &header) != nil {
		return ""
	}
	return header.Typ
}

// firstTime remembers jti until end, and reports whether it was new. What has
// expired is forgotten: the verifier knows.
func (p *portal) firstTime(jti string, end time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for old, end := range p.signedOut {
		if time.Now().After(end) {
			delete(p.signedOut, old)
		}
	}
	if _, taken := p.signedOut[jti]; taken {
		return false
	}
	p.signedOut[jti] = end
	return true
}
