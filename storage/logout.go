package storage

import (
	"context"
	"slices"
	"time"
)

// SessionClients lists the clients that hold or held a grant of a session and
// are not disabled, by id: whoever may have a session of its own that came from
// it (OpenID Connect Back-Channel Logout, Section 2.3).
func (db *DB) SessionClients(ctx context.Context, sessionID string) ([]Client, error) {
	var out []Client
	held := db.g(ctx).Model(&Grant{}).Where("session_id = ?", sessionID).Select("client_id")
	err := db.g(ctx).Where("disabled_at IS NULL AND id IN (?)", held).Order("id").Find(&out).Error
	return out, mapErr(err)
}

// SessionGrant is the newest grant that a session gave a client, in force or
// not; ErrNotFound where it gave none.
func (db *DB) SessionGrant(ctx context.Context, clientID, sessionID string) (Grant, error) {
	var g Grant
	err := db.g(ctx).Where("session_id = ? AND client_id = ?", sessionID, clientID).
		Order("created_at DESC, id DESC").Take(&g).Error
	return g, mapErr(err)
}

// tellSignedOut wishes that the clients of sessions that ended are told. Call
// it in the transaction of the end.
func (db *DB) tellSignedOut(ctx context.Context, sessionIDs ...string) error {
	var held []Grant
	err := db.g(ctx).Distinct("session_id", "client_id").Where("session_id IN ?", sessionIDs).
		Order("session_id, client_id").Find(&held).Error
	if err != nil || len(held) == 0 {
		return mapErr(err)
	}
	var ids []string
	for _, g := range held {
		ids = append(ids, g.ClientID)
	}
	slices.Sort(ids)
	var clients []Client
	err = db.g(ctx).Where("disabled_at IS NULL AND id IN ?", slices.Compact(ids)).Find(&clients).Error
	if err != nil {
		return mapErr(err)
	}
	listens := map[string]bool{}
	for _, c := range clients {
		listens[c.ID] = c.Metadata.BackchannelLogoutURI != ""
	}
	for _, g := range held {
		if !listens[g.ClientID] {
			continue
		}
		if err := db.Wish(ctx, backchannelLogout{ClientID: g.ClientID, SessionID: g.SessionID}); err != nil {
			return err
		}
	}
	return nil
}

// backchannelLogout is queue.BackchannelLogout, which this floor cannot import.
type backchannelLogout struct {
	ClientID  string `json:"client_id"`
	SessionID string `json:"session_id"`
}

// Kind names the job.
func (backchannelLogout) Kind() string { return "backchannel_logout" }

// Name makes a second wish for the same client and session the same wish.
func (j backchannelLogout) Name() string { return j.ClientID + ":" + j.SessionID }

// toldWithin is how long a session's grants stay after its end, however short
// they live: a logout token holds the sub that its client knows.
const toldWithin = 24 * time.Hour
