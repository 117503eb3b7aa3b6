package oauth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/provider/outbound"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/tasks/queue"
)

// Backchannel tells clients that a session has ended (OpenID Connect
// Back-Channel Logout 1.0). It is safe for concurrent use.
type Backchannel struct {
	DB       *storage.DB
	Keys     *keys.Keys
	Issuer   string
	Outbound *outbound.Client

	mu   sync.Mutex
	busy map[string]int // calls under way, by client
}

const (
	// logoutTokenLife: Section 4 asks for "preferably at most two minutes in the
	// future".
	logoutTokenLife = 2 * time.Minute
	// callsPerClient leaves the other workers to the other clients where one
	// does not answer.
	callsPerClient = 2
)

// Tell posts a fresh logout token about a session to a client. A client that
// wants none, and one that the session gave nothing, need not be told.
// queue.ErrBusy where enough calls wait for this client already, queue.ErrRefused
// where it says no for good; after any other error the caller tries again.
func (b *Backchannel) Tell(ctx context.Context, clientID, sessionID string) error {
	if !b.enter(clientID) {
		return fmt.Errorf("back-channel logout: %w", queue.ErrBusy)
	}
	defer b.exit(clientID)
	outcome, err := b.tell(ctx, clientID, sessionID)
	backchannelLogouts.WithLabelValues(outcome).Inc()
	line := []any{"event", "oauth.backchannel_logout." + outcome, "client", clientID, "session", sessionID}
	if err != nil {
		slog.WarnContext(ctx, "back-channel logout", append(line, "error", err.Error())...)
		return fmt.Errorf("back-channel logout: %w", err)
	}
	slog.InfoContext(ctx, "back-channel logout", line...)
	return nil
}

func (b *Backchannel) enter(client string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.busy == nil {
		b.busy = map[string]int{}
	}
	if b.busy[client] >= callsPerClient {
		return false
	}
	b.busy[client]++
	return true
}

func (b *Backchannel) exit(client string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.busy[client]--; b.busy[client] == 0 {
		delete(b.busy, client)
	}
}

// tell is Tell, with the word that the metric counts.
func (b *Backchannel) tell(ctx context.Context, clientID, sessionID string) (outcome string, err error) {
	c, err := b.DB.Client(ctx, clientID)
	if errors.Is(err, storage.ErrNotFound) || (err == nil && c.Metadata.BackchannelLogoutURI == "") {
		return "unwanted", nil
	} else if err != nil {
		return "error", err
	}
	g, err := b.DB.SessionGrant(ctx, clientID, sessionID)
	if errors.Is(err, storage.ErrNotFound) {
		return "unwanted", nil
	} else if err != nil {
		return "error", err
	}
	token, err := b.token(c, g)
	if err != nil {
		return "error", err
	}
	// Section 2.5: "an HTTP POST with an application/x-www-form-urlencoded body".
	status, err := b.Outbound.PostForm(ctx, c.Metadata.BackchannelLogoutURI, url.Values{"logout_token": {token}})
	switch {
	case err != nil:
		return "unreachable", err
	case status == http.StatusOK, status == http.StatusNoContent:
		return "ok", nil
	case status == http.StatusBadRequest:
		// Section 2.8: "If the logout request was invalid or the logout failed, the
		// RP MUST respond with HTTP 400 Bad Request."
		return "refused", fmt.Errorf("the client answered %d: %w", status, queue.ErrRefused)
	}
	return "failed", fmt.Errorf("the client answered %d", status)
}

// token makes a logout token (Section 2.4). It holds both sid and sub, the one
// that the client knows, so that it serves clients that keep either. There is
// no nonce: "to prevent its use as an ID Token".
func (b *Backchannel) token(c storage.Client, g storage.Grant) (string, error) {
	now := time.Now()
	return b.Keys.Sign(c.IDTokenAlg, "logout+jwt", map[string]any{
		"iss": b.Issuer, "aud": c.ID, "iat": now.Unix(), "exp": now.Add(logoutTokenLife).Unix(), "jti": storage.NewID(),
		"sub": g.Sub(), "sid": g.SID(),
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": struct{}{}},
	})
}
