package storage_test

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

func TestAnAuthorizationRequestIsAnsweredOnce(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		for _, answer := range []func(context.Context, storage.AuthRequest, time.Time) error{db.FinishAuthRequest, db.DenyAuthRequest} {
			a := storage.NewAuthRequest("c", url.Values{"login_hint": {"ada@example.org"}})
			a.Binding = []byte("b")
			handle := db.Handle(a)
			got, err := db.AuthRequest(ctx, handle, storage.Now())
			require.NoError(t, err)
			require.Equal(t, a, got)
			won, spent := race(t, func() error { return answer(ctx, a, storage.Now()) })
			require.Equal(t, []int{1, 49}, []int{won, spent})
			require.ErrorIs(t, db.FinishAuthRequest(ctx, a, storage.Now()), storage.ErrSpent, "whatever the answer was")
			got, err = db.AuthRequest(ctx, handle, storage.Now())
			if got.DeniedAt == nil {
				require.ErrorIs(t, err, storage.ErrSpent)
				require.NotNil(t, got.IssuedAt)
			}
			// Also under the handle that it has from then on.
			got, _ = db.AuthRequest(ctx, db.ActAuthRequest(handle, storage.Now()), storage.Now())
			require.True(t, got.IssuedAt != nil || got.DeniedAt != nil)
		}
	})
}

// A request lives as long as the patient does something about it, and a day at
// most.
func TestAnAuthorizationRequestWaits(t *testing.T) {
	db := storagetest.SQLite(t)
	ctx := context.Background()
	a := storage.NewAuthRequest("c", url.Values{"state": {"s"}})
	handle, at := db.Handle(a), a.RequestedAt
	over := func(now time.Time) bool {
		got, err := db.AuthRequest(ctx, handle, now)
		require.Equal(t, a.ID, got.ID)
		require.Equal(t, "s", got.Params.Get("state"), "it still says whose it was")
		return err != nil
	}
	require.False(t, over(at.Add(29*time.Minute)))
	require.True(t, over(at.Add(30*time.Minute)))
	for acted := time.Duration(0); acted < 24*time.Hour; acted += 25 * time.Minute {
		handle = db.ActAuthRequest(handle, at.Add(acted))
		require.False(t, over(at.Add(acted)))
	}
	require.True(t, over(at.Add(24*time.Hour)))
	require.Equal(t, handle, db.ActAuthRequest(handle, at.Add(24*time.Hour)), "over for good")
	require.ErrorIs(t, db.FinishAuthRequest(ctx, a, at.Add(time.Hour)), storage.ErrSpent, "nobody did anything about it")
}

func TestAHandleSaysNothingAndCannotBeMade(t *testing.T) {
	db, other := storagetest.SQLite(t), storagetest.SQLite(t)
	ctx := context.Background()
	a := storage.NewAuthRequest("c", url.Values{"login_hint": {"ada@example.org"}})
	handle := db.Handle(a)
	require.True(t, storage.IsHandle(handle))
	require.NotContains(t, handle, "ada")
	require.Less(t, len(handle), 400)
	flipped := []byte(handle)
	flipped[len(flipped)/2] ^= 1
	for _, bad := range []string{"", "x", ".", handle[1:], handle + "A", string(flipped), other.Handle(a), strings.Repeat("A", 26)} {
		_, err := db.AuthRequest(ctx, bad, storage.Now())
		require.ErrorIs(t, err, storage.ErrNotFound, bad)
		require.Equal(t, bad, db.ActAuthRequest(bad, storage.Now()))
	}
	for _, bad := range []string{"", ".", "..", "a", "a.b.c", "a./b", "a. b", "a.%00", "a.b\n", "a." + strings.Repeat("a", 3000)} {
		require.False(t, storage.IsHandle(bad))
	}
}

// What is too long for an address is kept in a row, sealed.
func TestALongAuthorizationRequestIsKept(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		a := storage.NewAuthRequest("c", url.Values{"claims": {strings.Repeat("x", 5000)}})
		require.False(t, db.FitsHandle(a))
		require.NoError(t, db.StoreAuthRequest(ctx, &a))
		require.True(t, db.FitsHandle(a))
		a.Binding = []byte("b")
		handle := db.Handle(a)
		require.Less(t, len(handle), 400)
		for _, open := range []func() (storage.AuthRequest, error){
			func() (storage.AuthRequest, error) { return db.OpenAuthRequest(ctx, handle) },
			func() (storage.AuthRequest, error) { return db.AuthRequest(ctx, handle, storage.Now()) },
		} {
			got, err := open()
			require.NoError(t, err)
			require.Equal(t, a, got)
		}
		won, spent := race(t, func() error { return db.FinishAuthRequest(ctx, a, storage.Now()) })
		require.Equal(t, []int{1, 49}, []int{won, spent})
		// A day and an hour later nobody needs it.
		_, err := db.DeleteExpired(ctx, "auth_request", a.RequestedAt.Add(24*time.Hour), 100)
		require.NoError(t, err)
		_, err = db.OpenAuthRequest(ctx, handle)
		require.NoError(t, err)
		_, err = db.DeleteExpired(ctx, "auth_request", a.RequestedAt.Add(26*time.Hour), 100)
		require.NoError(t, err)
		_, err = db.OpenAuthRequest(ctx, handle)
		require.ErrorIs(t, err, storage.ErrNotFound)
	})
}
