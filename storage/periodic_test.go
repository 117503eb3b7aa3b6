package storage_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

func TestASlotIsTakenOnce(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, slot := context.Background(), storage.Now().Truncate(time.Minute)
		last, err := db.LastSlot(ctx, "tidy")
		require.NoError(t, err)
		require.True(t, last.IsZero())
		for range 2 {
			won, lost := fifty(t, func(int) error { return db.TakeSlot(ctx, "tidy", slot) })
			require.Equal(t, [2]int{1, 49}, [2]int{won, lost})
			slot = slot.Add(time.Minute)
		}
		require.ErrorIs(t, db.TakeSlot(ctx, "tidy", slot.Add(-time.Hour)), storage.ErrSpent, "a clock that went back")
		last, err = db.LastSlot(ctx, "tidy")
		require.NoError(t, err)
		require.Equal(t, slot.Add(-time.Minute), last.UTC())
	})
}

func TestARunMayBeFasterThanItsSlot(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := context.Background(), storage.Now()
		require.NoError(t, db.FinishPeriodic(ctx, "tidy", "error", now))
		require.NoError(t, db.TakeSlot(ctx, "tidy", now.Truncate(time.Minute)))
		require.NoError(t, db.FinishPeriodic(ctx, "tidy", "ok", now))
		runs, err := db.PeriodicRuns(ctx)
		require.NoError(t, err)
		require.Len(t, runs, 1)
		require.Equal(t, now.Truncate(time.Minute), runs[0].Slot.UTC())
		require.Equal(t, "ok", runs[0].Outcome)
		require.Equal(t, now, runs[0].FinishedAt.UTC())
	})
}
