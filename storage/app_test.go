package storage_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

func TestAppsAreConsentsAndLastingGrants(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := t.Context(), storage.Now()
		p := storage.Patient{Email: "ada@example.org"}
		require.NoError(t, db.CreatePatient(ctx, &p))
		client := func(name string, firstParty bool) storage.Client {
			c := storage.Client{Name: name, FirstParty: firstParty}
			require.NoError(t, db.CreateClient(ctx, &c))
			return c
		}
		grant := func(c storage.Client, sid string, offline bool, scopes ...string) {
			g := storage.Grant{ID: storage.NewID(), ClientID: c.ID, PatientID: p.ID, SessionID: sid, Offline: offline,
				Scopes: scopes, AuthTime: now, CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
			require.NoError(t, db.CreateCode(ctx, g, storage.Code{Digest: []byte(g.ID), GrantID: g.ID, RequestedAt: now, ExpiresAt: now}))
		}
		names := func() []string {
			apps, err := db.AppsOf(ctx, p.ID, now)
			require.NoError(t, err)
			out := []string{}
			for _, a := range apps {
				out = append(out, a.Name)
			}
			return out
		}
		portal, mobile, house := client("portal", false), client("Mobile", false), client("House", true)
		s, _ := newSession(t, db, p.ID)
		require.NoError(t, db.SaveConsent(ctx, p.ID, portal, "https://portal.example", storage.Words{"openid", "lab"}, now))
		grant(portal, s.ID, true, "openid", "offline_access")
		grant(mobile, s.ID, false, "openid")
		grant(house, s.ID, true, "openid")
		require.Equal(t, []string{"House", "Mobile", "portal"}, names())
		apps, err := db.AppsOf(ctx, p.ID, now)
		require.NoError(t, err)
		require.ElementsMatch(t, storage.Words{"openid", "lab", "offline_access"}, apps[2].Scopes)
		require.True(t, now.Equal(apps[2].Since))

		require.NoError(t, db.EndSession(ctx, p.ID, s.ID, now))
		require.Equal(t, []string{"House", "portal"}, names(), "what hung on the session is over")
		require.NoError(t, db.RevokeConsent(ctx, p.ID, portal.ID, now))
		require.NoError(t, db.RevokeConsent(ctx, p.ID, house.ID, now))
		require.Empty(t, names())
		other, err := db.AppsOf(ctx, "other", now)
		require.NoError(t, err)
		require.Empty(t, other)
	})
}
