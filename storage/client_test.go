package storage_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

func TestOriginsFollowFromRedirectURIs(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		none, basic := storage.Words{"none"}, storage.Words{"client_secret_basic"}
		for name, row := range map[string]struct {
			made storage.Client
			want storage.Strings
		}{
			"a page": {storage.Client{AuthMethods: none, RedirectURIs: storage.Strings{
				"https://app.example/cb", "https://app.example/other", "http://127.0.0.1:8000/cb", "com.example.app:/cb", "://"}},
				storage.Strings{"https://app.example", "http://127.0.0.1:8000"}},
			"a page that names others": {storage.Client{AuthMethods: none, RedirectURIs: storage.Strings{"https://app.example/cb"},
				Origins: storage.Strings{"https://other.example"}}, storage.Strings{"https://other.example"}},
			"a server":                 {storage.Client{AuthMethods: basic, RedirectURIs: storage.Strings{"https://app.example/cb"}}, nil},
			"a server that names them": {storage.Client{AuthMethods: basic, Origins: storage.Strings{"https://page.example"}}, storage.Strings{"https://page.example"}},
		} {
			c := row.made
			require.NoError(t, db.CreateClient(ctx, &c), name)
			found, err := db.Client(ctx, c.ID)
			require.NoError(t, err)
			require.ElementsMatch(t, row.want, found.Origins, name)
			require.Equal(t, "RS256", found.IDTokenAlg, "filled in")
		}
		for origin, want := range map[string]bool{
			"https://app.example": true, "http://127.0.0.1:8000": true, "https://other.example": true, "https://page.example": true,
			"https://app.exampl": false, "https://app.example.evil.test": false, "app.example": false, "com.example.app:": false, "": false, `","`: false,
			"null": false, "https://%": false, "https://app_example": false,
		} {
			known, err := db.KnowsOrigin(ctx, origin)
			require.NoError(t, err)
			require.Equal(t, want, known, origin)
		}
		all, err := db.ListClients(ctx)
		require.NoError(t, err)
		for _, c := range all {
			require.NoError(t, db.DeleteClient(ctx, c.ID, storage.Now()))
		}
		known, err := db.KnowsOrigin(ctx, "https://app.example")
		require.NoError(t, err)
		require.False(t, known, "of a client that is gone")
	})
}

func TestOtherRedirectURIsBringOtherOrigins(t *testing.T) {
	db := storagetest.SQLite(t)
	change := func(c storage.Client, uris ...string) storage.Strings {
		require.NoError(t, db.CreateClient(t.Context(), &c))
		changed, err := db.ChangeClient(t.Context(), c.ID, func(c *storage.Client) { c.SetRedirectURIs(uris) })
		require.NoError(t, err)
		return changed.Origins
	}
	page := storage.Client{AuthMethods: storage.Words{"none"}, RedirectURIs: storage.Strings{"https://old.example/cb"}}
	require.Equal(t, storage.Strings{"https://new.example"}, change(page, "https://new.example/cb"))
	page.Origins = storage.Strings{"https://chosen.example"}
	require.Equal(t, page.Origins, change(page, "https://new.example/cb"), "what was named stays")
	page.AuthMethods, page.Origins = storage.Words{"client_secret_basic"}, storage.Strings{"https://old.example"}
	require.Equal(t, page.Origins, change(page, "https://new.example/cb"))
}

func TestAClientIsWrittenAsAWhole(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := t.Context()
		age := 600
		c := storage.Client{Name: "Portal", AuthMethods: storage.Words{"client_secret_basic"}, Registration: storage.Digest("a")}
		require.NotEmpty(t, db.SettleClientSecret(&c))
		require.NoError(t, db.CreateClient(ctx, &c))
		made := c.CreatedAt
		c.Name, c.FirstParty, c.Audience, c.IDTokenAlg = "Renamed", true, storage.Strings{"https://api.example"}, "RS256"
		c.RedirectURIs, c.Scopes = storage.Strings{"https://a.example/"}, storage.Words{"openid"}
		c.Metadata = storage.ClientMetadata{
			SubjectType: "pairwise", Sector: "a.example", DefaultMaxAge: &age, JWKS: []byte(`{"keys":[]}`),
			Contacts: storage.Strings{"a"}, Lifetimes: storage.Lifetimes{Grant: 7},
		}
		c.CreatedAt = made.Add(time.Hour) // is not written
		require.NoError(t, db.UpdateClient(ctx, &c))
		c.CreatedAt = made
		found, err := db.Client(ctx, c.ID)
		require.NoError(t, err)
		c.Origins, c.PostLogoutRedirectURIs = storage.Strings{}, storage.Strings{}
		c.GrantTypes, found.CreatedAt = storage.Words{}, found.CreatedAt.UTC()
		require.Equal(t, c, found)

		// And back to nothing.
		c.FirstParty, c.Metadata, c.Registration = false, storage.ClientMetadata{}, nil
		require.NoError(t, db.UpdateClient(ctx, &c))
		found, err = db.Client(ctx, c.ID)
		require.NoError(t, err)
		found.CreatedAt = found.CreatedAt.UTC()
		require.Equal(t, c, found)

		c.ID = "c-NOBODY"
		require.ErrorIs(t, db.UpdateClient(ctx, &c), storage.ErrNotFound)
		_, err = db.ChangeClient(ctx, c.ID, func(*storage.Client) { t.Error("there is nothing to change") })
		require.ErrorIs(t, err, storage.ErrNotFound)
	})
}

func TestADeletedClientIsGoneForGood(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := t.Context(), storage.Now()
		c := storage.Client{Name: "Portal", AuthMethods: storage.Words{"client_secret_basic"}, Registration: storage.Digest("token"), CanIntrospect: true}
		secret := db.SettleClientSecret(&c)
		require.NoError(t, db.CreateClient(ctx, &c))
		p := storage.Patient{Email: "ada@example.org"}
		require.NoError(t, db.CreatePatient(ctx, &p))
		g := storage.Grant{ID: storage.NewID(), ClientID: c.ID, PatientID: p.ID, Offline: true, CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
		require.NoError(t, db.CreateCode(ctx, g, storage.Code{Digest: storage.Digest("code"), GrantID: g.ID, ExpiresAt: now.Add(time.Minute)}))
		own := storage.AccessToken{Digest: storage.Digest("own"), ClientID: c.ID, CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
		require.NoError(t, db.CreateAccessToken(ctx, own))
		found, err := db.RegisteredClient(ctx, c.ID, storage.Digest("token"))
		require.NoError(t, err)
		require.Equal(t, c.ID, found.ID)
		for _, wrong := range [][]byte{storage.Digest("other"), {}, nil} {
			_, err = db.RegisteredClient(ctx, c.ID, wrong)
			require.ErrorIs(t, err, storage.ErrNotFound)
		}

		require.NoError(t, db.DeleteClient(ctx, c.ID, now))
		_, err = db.Client(ctx, c.ID)
		require.ErrorIs(t, err, storage.ErrNotFound)
		_, err = db.RegisteredClient(ctx, c.ID, storage.Digest("token"))
		require.ErrorIs(t, err, storage.ErrNotFound)
		_, err = db.Grant(ctx, g.ID, now)
		require.ErrorIs(t, err, storage.ErrSpent)
		_, _, err = db.AccessToken(ctx, own.Digest, now)
		require.ErrorIs(t, err, storage.ErrSpent, "that of the client itself, too")
		servers, err := db.ResourceServers(ctx)
		require.NoError(t, err)
		require.Empty(t, servers)
		require.ErrorIs(t, db.UpdateClient(ctx, &c), storage.ErrNotFound)
		require.ErrorIs(t, db.DeleteClient(ctx, c.ID, now), storage.ErrNotFound)
		all, err := db.ListClients(ctx)
		require.NoError(t, err)
		require.Len(t, all, 1, "the row stays")
		require.NotNil(t, all[0].DisabledAt)
		require.False(t, db.ClientSecretValid(&all[0], secret))
	})
}

// Whoever changes a client changes what the one before has left.
func TestFiftyChangeOneClient(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		c := storage.Client{Name: "Portal", AuthMethods: storage.Words{"none"}}
		require.NoError(t, db.CreateClient(t.Context(), &c))
		won, lost := race(t, func() error {
			_, err := db.ChangeClient(t.Context(), c.ID, func(c *storage.Client) {
				c.Metadata.Contacts = append(c.Metadata.Contacts, fmt.Sprint(len(c.Metadata.Contacts)))
			})
			return err
		})
		require.Equal(t, []int{50, 0}, []int{won, lost})
		found, err := db.Client(t.Context(), c.ID)
		require.NoError(t, err)
		require.Len(t, slices.Compact(slices.Sorted(slices.Values(found.Metadata.Contacts))), 50)
	})
}

// Two secrets are live at most, and only with a client that uses one.
func TestSecretsOfAClient(t *testing.T) {
	db := storagetest.SQLite(t)
	c := storage.Client{AuthMethods: storage.Words{"client_secret_post"}}
	first := db.SettleClientSecret(&c)
	require.Empty(t, db.SettleClientSecret(&c), "it has one")
	second := db.NewClientSecret(&c)
	require.True(t, db.ClientSecretValid(&c, first) && db.ClientSecretValid(&c, second))
	third := db.NewClientSecret(&c)
	require.False(t, db.ClientSecretValid(&c, first))
	require.True(t, db.ClientSecretValid(&c, second) && db.ClientSecretValid(&c, third))
	c.AuthMethods = storage.Words{"private_key_jwt"}
	require.Empty(t, db.SettleClientSecret(&c))
	require.False(t, db.ClientSecretValid(&c, third))
	require.False(t, db.ClientSecretValid(&c, ""))
}
