package tasks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"
	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
	"github.com/pat-authenticate/patauth/tasks/queue"
)

// promised is a relayed wish and its task.
func promised(t *testing.T, db *storage.DB, job storage.Job) (storage.Outbox, *asynq.Task) {
	t.Helper()
	require.NoError(t, db.Wish(context.Background(), job))
	rows, err := db.ClaimOutbox(context.Background(), 1, storage.Now())
	require.NoError(t, err)
	require.Len(t, rows, 1)
	return rows[0], asynq.NewTask(rows[0].Kind, encode(db, rows[0]))
}

func backlog(t *testing.T, db *storage.DB) storage.Backlog {
	t.Helper()
	b, err := db.OutboxBacklog(context.Background(), storage.Now())
	require.NoError(t, err)
	return b
}

// noQueue is a Redis that nobody asks.
func noQueue(t *testing.T) Redis {
	t.Helper()
	r, err := ParseRedis("redis://127.0.0.1:1")
	require.NoError(t, err)
	return r
}

func TestATaskInFiftyWorkersIsOneMail(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, box := context.Background(), &postbox{}
		_, task := promised(t, db, queue.Notice{PatientID: patient(t, db, "en").ID, Notice: "link_made"})
		w := worker(t, db, noQueue(t), box)
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if err := w.handle(ctx, task); err != nil && !errors.Is(err, storage.ErrHeld) {
					t.Error(err)
				}
			})
		}
		all.Wait()
		require.NoError(t, w.handle(ctx, task), "the next day")
		require.Len(t, box.all(), 1)
		require.Equal(t, storage.Backlog{}, backlog(t, db))
	})
}

func TestAWishIsTriedNineTimes(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, box := context.Background(), &postbox{down: true}
		_, task := promised(t, db, queue.Notice{PatientID: patient(t, db, "en").ID, Notice: "link_made"})
		w := worker(t, db, noQueue(t), box)
		for range maxRetry {
			err := w.handle(ctx, task)
			require.ErrorContains(t, err, "no mail server")
			require.NotErrorIs(t, err, asynq.SkipRetry)
			require.Equal(t, storage.Backlog{Waiting: 1}, storage.Backlog{Waiting: backlog(t, db).Waiting})
		}
		require.ErrorIs(t, w.handle(ctx, task), asynq.SkipRetry)
		require.Equal(t, storage.Backlog{Failed: 1}, backlog(t, db))
		require.Empty(t, box.all())
	})
}

func TestWhatCannotBeDoneIsGivenUpAtOnce(t *testing.T) {
	ctx, db := context.Background(), storagetest.SQLite(t)
	w := worker(t, db, noQueue(t), &postbox{})
	id := patient(t, db, "en").ID
	_, task := promised(t, db, queue.Notice{PatientID: id, Notice: "no such notice"})
	require.ErrorIs(t, w.handle(ctx, task), asynq.SkipRetry)
	w.Send = func(context.Context, Message) error { return fmt.Errorf("no such mailbox: %w", ErrRefused) }
	_, task = promised(t, db, queue.Notice{PatientID: id, Notice: "link_made"})
	require.ErrorIs(t, w.handle(ctx, task), asynq.SkipRetry)
	require.Equal(t, storage.Backlog{Failed: 2}, backlog(t, db))
}

func TestAPanicIsAnError(t *testing.T) {
	ctx, db := context.Background(), storagetest.SQLite(t)
	w := worker(t, db, noQueue(t), &postbox{})
	w.DeadLetter = func(context.Context, string) error { panic("out of letters") }
	_, task := promised(t, db, queue.DeadLetter{EventID: "e"})
	for range maxRetry {
		require.ErrorContains(t, w.handle(ctx, task), "out of letters")
	}
	require.ErrorIs(t, w.handle(ctx, task), asynq.SkipRetry)
	require.Equal(t, storage.Backlog{Failed: 1}, backlog(t, db))
}

func TestATaskThatKillsItsWorkerIsGivenUp(t *testing.T) {
	ctx, db, box := context.Background(), storagetest.SQLite(t), &postbox{}
	o, task := promised(t, db, queue.Notice{PatientID: patient(t, db, "en").ID, Notice: "link_made"})
	past := storage.Now().Add(-time.Hour)
	for range maxRetry + 1 { // each attempt ends without a word
		_, err := db.TakeOutbox(ctx, o.ID, past, past)
		require.NoError(t, err)
	}
	require.ErrorIs(t, worker(t, db, noQueue(t), box).handle(ctx, task), asynq.SkipRetry)
	require.Empty(t, box.all())
	require.Equal(t, storage.Backlog{Failed: 1}, backlog(t, db))
}

func TestAnAbsentDatabaseUsesUpNoRetry(t *testing.T) {
	db := storagetest.SQLite(t)
	_, task := promised(t, db, queue.Notice{PatientID: patient(t, db, "en").ID, Notice: "link_made"})
	w := worker(t, db, noQueue(t), &postbox{})
	gone, stop := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer stop()
	err := w.handle(gone, task)
	require.ErrorIs(t, err, storage.ErrUnavailable)
	require.True(t, elsewhere(err))
	require.Less(t, retryDelay(maxRetry, err, task), 5*time.Second)
}

func TestRetriesSlowDown(t *testing.T) {
	var total, last time.Duration
	task := asynq.NewTask("notice", []byte("some payload"))
	for n := range maxRetry {
		d := retryDelay(n, errors.New("no mail server"), task)
		require.Greater(t, d, last)
		require.LessOrEqual(t, d, time.Hour)
		total, last = total+d, d
	}
	require.Greater(t, total, 75*time.Minute, "a mail server may be away for an hour")
}

func TestAMailThatComesTooLateIsNotSent(t *testing.T) {
	ctx, db, box := context.Background(), storagetest.SQLite(t), &postbox{}
	w := worker(t, db, noQueue(t), box)
	p := patient(t, db, "en")
	for _, end := range []time.Duration{-time.Second, time.Minute} {
		c := storage.Challenge{Kind: "verify_email", PatientID: p.ID, ExpiresAt: storage.Now().Add(end)}
		require.NoError(t, db.NewMailedChallenge(ctx, &c))
		_, task := promised(t, db, queue.VerifyEmail{ChallengeID: c.ID})
		if end > 0 {
			require.NoError(t, db.SetPatientDisabled(ctx, p.ID, true))
		}
		require.NoError(t, w.handle(ctx, task))
	}
	require.Empty(t, box.all())
	require.Equal(t, storage.Backlog{}, backlog(t, db), "an expired link, a disabled patient: nothing to do")
}

func TestATaskThatIsOverWithoutItsWishStartsAgain(t *testing.T) {
	eachRedis(t, func(t *testing.T, r Redis, _ func()) {
		ctx, db, box := context.Background(), storagetest.SQLite(t), &postbox{}
		require.NoError(t, db.Wish(ctx, queue.Notice{PatientID: patient(t, db, "en").ID, Notice: "link_made"}))
		relay := NewRelay(db, r)
		require.NoError(t, relay.Once(ctx))
		tasks, err := relay.inspector.ListPendingTasks(queueName)
		require.NoError(t, err)
		require.Len(t, tasks, 1)
		sweep := func() {
			n, err := db.SweepOutbox(ctx, storage.Now().Add(time.Minute), 10)
			require.NoError(t, err)
			require.Equal(t, 1, n)
			require.NoError(t, relay.Once(ctx))
			q, err := relay.inspector.GetQueueInfo(queueName)
			require.NoError(t, err)
			require.Equal(t, [2]int{1, 0}, [2]int{q.Pending, q.Archived})
		}
		sweep() // it waits there: it is not doubled
		require.NoError(t, relay.inspector.ArchiveTask(queueName, tasks[0].ID))
		sweep()
		run(t, worker(t, db, r, box).Run)
		require.Eventually(t, func() bool { return len(box.all()) == 1 }, 10*time.Second, 10*time.Millisecond)
	})
}

func TestAMailServerThatComesBackGetsTheMail(t *testing.T) {
	ctx, db, box := context.Background(), storagetest.SQLite(t), &postbox{down: true}
	m := miniredis.RunT(t)
	r, err := ParseRedis("redis://" + m.Addr())
	require.NoError(t, err)
	w := worker(t, db, r, box)
	tried := make(chan struct{}, 10)
	w.Send = func(ctx context.Context, m Message) error {
		defer func() { tried <- struct{}{} }()
		return box.send(ctx, m)
	}
	run(t, w.Run, NewRelay(db, r).Run)
	require.NoError(t, db.Wish(ctx, queue.Notice{PatientID: patient(t, db, "en").ID, Notice: "link_made"}))
	<-tried
	box.mu.Lock()
	box.down = false
	box.mu.Unlock()
	<-tried
	require.Len(t, box.all(), 1)
}

func TestEveryMailReadsInEveryLanguage(t *testing.T) {
	ctx, db, box := context.Background(), storagetest.SQLite(t), &postbox{}
	w := worker(t, db, noQueue(t), box)
	seen := map[string]bool{}
	for _, lang := range w.Pages.Langs {
		p := patient(t, db, lang)
		jobs := []storage.Job{queue.AccountExists{PatientID: p.ID}}
		for _, n := range queue.Notices {
			jobs = append(jobs, queue.Notice{PatientID: p.ID, Notice: n})
		}
		for _, j := range jobs {
			_, task := promised(t, db, j)
			require.NoError(t, w.handle(ctx, task))
			m := box.all()[len(box.all())-1]
			require.NotContains(t, m.Subject+m.Text+m.HTML, "mail.", "a text is missing")
			require.NotContains(t, m.Text+m.HTML, p.GivenName, "nothing personal in a mail")
			require.Contains(t, m.HTML, w.Issuer)
			require.False(t, seen[m.Text], "each has words of its own")
			seen[m.Text] = true
		}
	}
}

// FuzzDecode looks for a task that is taken for ours.
func FuzzDecode(f *testing.F) {
	db, err := storage.Open(context.Background(), storage.Config{DSN: "sqlite:" + f.TempDir() + "/patauth.db", Keys: storage.NewKeyring()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { db.Close() })
	f.Add("notice", encode(db, storage.Outbox{ID: "A", Kind: "notice"}))
	f.Add("notice", []byte(`{"outbox_id":"A","mac":""}`))
	f.Add("", []byte(`null`))
	f.Fuzz(func(t *testing.T, kind string, b []byte) {
		id, ok := decode(db, kind, b)
		if !ok {
			return
		}
		var got, want payload
		if json.Unmarshal(b, &got) != nil || json.Unmarshal(encode(db, storage.Outbox{ID: id, Kind: kind}), &want) != nil || string(got.MAC) != string(want.MAC) {
			t.Fatalf("%q %q is taken for ours", kind, b)
		}
	})
}
