package storage_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// errand is a job.
type errand struct {
	What string `json:"what"`
}

func (errand) Kind() string   { return "errand" }
func (e errand) Name() string { return e.What }

// fifty calls do fifty times at once and counts the answers by sentinel.
func fifty(t *testing.T, do func(i int) error) (won, lost int) {
	t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			err := do(i)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won++
			case errors.Is(err, storage.ErrSpent), errors.Is(err, storage.ErrHeld):
				lost++
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	return won, lost
}

func TestAWishComesWithItsFact(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		told := func() bool {
			select {
			case <-db.Wished():
				return true
			default:
				return false
			}
		}
		require.NoError(t, db.Tx(ctx, func(ctx context.Context) error {
			require.Error(t, db.Tx(ctx, func(ctx context.Context) error {
				require.NoError(t, db.Wish(ctx, errand{"undone by its savepoint"}))
				return errors.New("no")
			}))
			return nil
		}))
		require.False(t, told(), "nothing was promised")
		require.NoError(t, db.Tx(ctx, func(ctx context.Context) error {
			require.NoError(t, db.Wish(ctx, errand{"bread"}))
			require.False(t, told(), "before the commit")
			return nil
		}))
		require.True(t, told())
		rows, err := db.ClaimOutbox(ctx, 10, storage.Now())
		require.NoError(t, err)
		require.Len(t, rows, 1)
		require.Equal(t, "errand", rows[0].Kind)
		require.JSONEq(t, `{"what":"bread"}`, rows[0].Payload)
	})
}

func TestWishesOfOneNameAreOne(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		won, _ := fifty(t, func(int) error { return db.Wish(ctx, errand{"milk"}) })
		require.Equal(t, 50, won, "nobody is told that the wish was there")
		won, _ = fifty(t, func(int) error { return db.Wish(ctx, errand{}) })
		require.Equal(t, 50, won)
		b, err := db.OutboxBacklog(ctx, storage.Now())
		require.NoError(t, err)
		require.EqualValues(t, 51, b.Waiting, "and each without a name is its own")
	})
}

func TestAWishGoesToOneRelay(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		for i := range 20 {
			require.NoError(t, db.Wish(ctx, errand{strconv.Itoa(i)}))
		}
		var mu sync.Mutex
		seen := map[string]int{}
		fifty(t, func(int) error {
			rows, err := db.ClaimOutbox(ctx, 1, storage.Now())
			mu.Lock()
			defer mu.Unlock()
			for _, o := range rows {
				seen[o.ID]++
			}
			return err
		})
		require.Len(t, seen, 20)
		for _, n := range seen {
			require.Equal(t, 1, n)
		}
	})
}

// claimed is a wish that was relayed.
func claimed(t *testing.T, db *storage.DB, what string) storage.Outbox {
	t.Helper()
	require.NoError(t, db.Wish(context.Background(), errand{what}))
	rows, err := db.ClaimOutbox(context.Background(), 1, storage.Now())
	require.NoError(t, err)
	require.Len(t, rows, 1)
	return rows[0]
}

func TestAWishIsInOneWorkersHands(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := context.Background(), storage.Now()
		id := claimed(t, db, "bread").ID
		take := func(now time.Time) (storage.Outbox, error) { return db.TakeOutbox(ctx, id, now, now.Add(time.Minute)) }
		var o storage.Outbox
		won, lost := fifty(t, func(int) error {
			got, err := take(now)
			if err == nil {
				o = got
			}
			return err
		})
		require.Equal(t, [2]int{1, 49}, [2]int{won, lost})
		require.Equal(t, 1, o.Attempts, "who was turned away made no attempt")

		later, err := take(now.Add(time.Minute))
		require.NoError(t, err, "the hold of somebody who was killed runs out")
		require.Equal(t, 2, later.Attempts)
		require.NoError(t, db.ReleaseOutbox(ctx, o, "error"))
		_, err = take(now.Add(time.Minute))
		require.ErrorIs(t, err, storage.ErrHeld, "somebody's old hold cannot end a new one")
		require.NoError(t, db.ReleaseOutbox(ctx, later, "error"))
		_, err = take(now.Add(time.Minute))
		require.NoError(t, err)

		won, lost = fifty(t, func(int) error { return db.FinishOutbox(ctx, id, now) })
		require.Equal(t, [2]int{1, 49}, [2]int{won, lost})
		_, err = take(now.Add(time.Hour))
		require.ErrorIs(t, err, storage.ErrSpent)
		_, err = db.TakeOutbox(ctx, storage.NewID(), now, now)
		require.ErrorIs(t, err, storage.ErrNotFound)
	})
}

func TestTheSweepFreesWhatTheQueueLost(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := context.Background(), storage.Now()
		lost, done, failed := claimed(t, db, "lost"), claimed(t, db, "done"), claimed(t, db, "failed")
		require.NoError(t, db.FinishOutbox(ctx, done.ID, now))
		require.NoError(t, db.FailOutbox(ctx, failed.ID, "refused", now))
		n, err := db.SweepOutbox(ctx, now.Add(-time.Minute), 10)
		require.NoError(t, err)
		require.Zero(t, n, "relayed just now")
		n, err = db.SweepOutbox(ctx, now.Add(time.Minute), 10)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		rows, err := db.ClaimOutbox(ctx, 10, now)
		require.NoError(t, err)
		require.Len(t, rows, 1)
		require.Equal(t, lost.ID, rows[0].ID)

		b, err := db.OutboxBacklog(ctx, lost.CreatedAt.Add(time.Minute))
		require.NoError(t, err)
		require.Equal(t, storage.Backlog{Waiting: 1, Oldest: time.Minute, Failed: 1}, b)
		gone, err := db.DeleteExpired(ctx, "outbox", now.Add(8*24*time.Hour), 10)
		require.NoError(t, err)
		require.Equal(t, 2, gone)
		b, err = db.OutboxBacklog(ctx, lost.CreatedAt.Add(time.Minute))
		require.NoError(t, err)
		require.Equal(t, storage.Backlog{Waiting: 1, Oldest: time.Minute}, b)
	})
}
