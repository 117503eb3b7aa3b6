package storage_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

func TestConsentsGivenAtOnceLoseNothing(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		c := storage.Client{Name: "Diary", RedirectURIs: storage.Strings{"https://a.example/cb"}}
		require.NoError(t, db.CreateClient(t.Context(), &c))
		var all storage.Words
		var wg sync.WaitGroup
		for i := range 50 {
			scope := fmt.Sprintf("s%d", i)
			all = append(all, scope)
			wg.Go(func() {
				require.NoError(t, db.SaveConsent(t.Context(), "p1", c, "https://a.example", storage.Words{scope}, storage.Now()))
			})
		}
		wg.Wait()
		got, err := db.Consent(t.Context(), "p1", c.ID)
		require.NoError(t, err)
		require.True(t, got.Scopes.Has(all...))
		require.True(t, got.Allows(c, "https://a.example").Has(all...))
	})
}

// What a patient allowed was allowed to a name, at a place.
func TestAConsentIsToWhatWasSeen(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := t.Context(), storage.Now()
		c := storage.Client{Name: "Diary", RedirectURIs: storage.Strings{"https://a.example/cb"}}
		require.NoError(t, db.CreateClient(ctx, &c))
		lab := storage.Words{"lab"}
		require.NoError(t, db.SaveConsent(ctx, "p1", c, "https://a.example", lab, now))
		allows := func(c storage.Client, place string) bool {
			got, err := db.Consent(ctx, "p1", c.ID)
			require.NoError(t, err)
			return got.Allows(c, place).Has(lab...)
		}
		require.True(t, allows(c, "https://a.example"))
		require.False(t, allows(c, "https://evil.example"))
		other, err := db.ChangeClient(ctx, c.ID, func(c *storage.Client) { c.Name = "Riverside portal" })
		require.NoError(t, err)
		require.False(t, allows(other, "https://a.example"))
		require.NoError(t, db.SaveConsent(ctx, "p1", other, "https://a.example", storage.Words{"openid"}, now))
		require.False(t, allows(other, "https://a.example"), "what the other name was allowed is gone")
		require.Equal(t, "http://127.0.0.1", storage.PlaceOf("http://127.0.0.1:8123/cb"))
		require.Equal(t, "org.example.app", storage.PlaceOf("org.example.app:/cb"))
	})
}
