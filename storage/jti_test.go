package storage_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

func TestAJTIIsSpentOncePerClient(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, expires := context.Background(), storage.Now().Add(time.Minute)
		won, spent := race(t, func() error { return db.SpendJTI(ctx, "portal", "1", expires) })
		require.Equal(t, []int{1, 49}, []int{won, spent})
		require.NoError(t, db.SpendJTI(ctx, "another", "1", expires))
		require.NoError(t, db.SpendJTI(ctx, "portal", "2", expires))
		require.NoError(t, db.SpendJTI(ctx, "portal", strings.Repeat("\xff\x00", 200), expires), "whatever it is made of")

		// RFC 7523, Section 3, Item 7: kept for as long as the assertion could be used.
		n, err := db.DeleteExpired(ctx, "used_jti", expires, 100)
		require.NoError(t, err)
		require.Zero(t, n)
		require.ErrorIs(t, db.SpendJTI(ctx, "portal", "1", expires), storage.ErrSpent)
		n, err = db.DeleteExpired(ctx, "used_jti", expires.Add(time.Hour), 100)
		require.NoError(t, err)
		require.Equal(t, 4, n)
	})
}
