package tasks

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"
	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
	"github.com/pat-authenticate/patauth/tasks/queue"
	"github.com/pat-authenticate/patauth/templates"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	os.Exit(m.Run())
}

// eachRedis runs test against an embedded Redis and, where there is one,
// against a real one, which is flushed.
func eachRedis(t *testing.T, test func(*testing.T, Redis, func())) {
	t.Run("embedded", func(t *testing.T) {
		m := miniredis.RunT(t)
		r, err := ParseRedis("redis://" + m.Addr())
		require.NoError(t, err)
		test(t, r, m.FlushAll)
	})
	t.Run("real", func(t *testing.T) {
		url := os.Getenv("PATAUTH_TEST_REDIS")
		if url == "" {
			t.Skip("no Redis: set PATAUTH_TEST_REDIS or run make test")
		}
		r, err := ParseRedis(url)
		require.NoError(t, err)
		flush := func() {
			c, err := net.Dial("tcp", r.opt.(asynq.RedisClientOpt).Addr)
			require.NoError(t, err)
			defer c.Close()
			c.Write([]byte("FLUSHALL\r\n"))
			io.ReadFull(c, make([]byte, 5))
		}
		flush()
		t.Cleanup(flush)
		test(t, r, flush)
	})
}

// postbox collects mails; down makes it refuse them.
type postbox struct {
	mu    sync.Mutex
	down  bool
	mails []Message
}

func (p *postbox) send(_ context.Context, m Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		return errors.New("no mail server")
	}
	p.mails = append(p.mails, m)
	return nil
}

func (p *postbox) all() []Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Message{}, p.mails...)
}

func patient(t *testing.T, db *storage.DB, locale string) storage.Patient {
	t.Helper()
	p := storage.Patient{Email: strings.ToLower(storage.NewID()) + "@example.org", GivenName: "Ada", Locale: locale}
	require.NoError(t, db.CreatePatient(context.Background(), &p))
	return p
}

func worker(t *testing.T, db *storage.DB, r Redis, box *postbox) *Worker {
	t.Helper()
	pages, err := templates.New("")
	require.NoError(t, err)
	return NewWorker(Config{DB: db, Redis: r, Send: box.send, Issuer: "https://id.example", Pages: pages,
		DeadLetter: func(context.Context, string) error { return nil }})
}

// run runs parts until the test ends.
func run(t *testing.T, parts ...func(context.Context) error) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, p := range parts {
		all.Go(func() {
			if err := p(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { stop(); all.Wait() })
}

func TestAPromisedMailIsSent(t *testing.T) {
	eachRedis(t, func(t *testing.T, r Redis, _ func()) {
		ctx, db, box := context.Background(), storagetest.SQLite(t), &postbox{}
		run(t, worker(t, db, r, box).Run, NewRelay(db, r).Run)
		p := patient(t, db, "de")
		c := storage.Challenge{Kind: "verify_email", PatientID: p.ID, ExpiresAt: storage.Now().Add(time.Minute)}
		require.NoError(t, db.Tx(ctx, func(ctx context.Context) error {
			if err := db.NewMailedChallenge(ctx, &c); err != nil {
				return err
			}
			if err := db.Wish(ctx, queue.VerifyEmail{ChallengeID: c.ID}); err != nil {
				return err
			}
			return db.Wish(ctx, queue.VerifyEmail{ChallengeID: c.ID}) // the same wish
		}))
		require.ErrorContains(t, db.Tx(ctx, func(ctx context.Context) error {
			if err := db.Wish(ctx, queue.Notice{PatientID: p.ID, Notice: "factor_added"}); err != nil {
				return err
			}
			return errors.New("rolled back")
		}), "rolled back")
		require.Eventually(t, func() bool { return len(box.all()) == 1 }, 10*time.Second, 10*time.Millisecond)
		m := box.all()[0]
		require.Equal(t, p.Email, m.To)
		require.Equal(t, "Bitte bestätigen Sie Ihre E-Mail-Adresse", m.Subject)
		require.Contains(t, m.Text, "https://id.example/verify-email?token="+db.MailedToken(c.ID))
		require.Contains(t, m.HTML, "/verify-email?token=")
		require.Eventually(t, func() bool {
			b, err := db.OutboxBacklog(ctx, storage.Now())
			return err == nil && b == storage.Backlog{}
		}, 5*time.Second, 10*time.Millisecond)
		time.Sleep(50 * time.Millisecond)
		require.Len(t, box.all(), 1)
	})
}

func TestNothingIsLostWhenTheQueueIs(t *testing.T) {
	eachRedis(t, func(t *testing.T, r Redis, flush func()) {
		ctx, db, box := context.Background(), storagetest.SQLite(t), &postbox{}
		p := patient(t, db, "en")
		require.NoError(t, db.Wish(ctx, queue.Notice{PatientID: p.ID, Notice: "link_made"}))
		relay := NewRelay(db, r)
		require.NoError(t, relay.Once(ctx))
		flush() // the queue forgets before a worker looked
		w := worker(t, db, r, box)
		run(t, w.Run)
		time.Sleep(200 * time.Millisecond)
		require.Empty(t, box.all())
		n, err := db.SweepOutbox(ctx, storage.Now(), 10)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.NoError(t, relay.Once(ctx))
		require.Eventually(t, func() bool { return len(box.all()) == 1 }, 10*time.Second, 10*time.Millisecond)
		// Relayed once more, it is not mailed once more.
		flush()
		_, err = db.SweepOutbox(ctx, storage.Now().Add(time.Minute), 10)
		require.NoError(t, err)
		require.NoError(t, relay.Once(ctx))
		time.Sleep(300 * time.Millisecond)
		require.Len(t, box.all(), 1)
	})
}

func TestAnAbsentQueueLosesNothing(t *testing.T) {
	ctx, db := context.Background(), storagetest.SQLite(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l.Close()
	r, err := ParseRedis("redis://" + l.Addr().String())
	require.NoError(t, err)
	require.NoError(t, db.Wish(ctx, queue.Notice{PatientID: "p", Notice: "link_made"}), "no request meets the queue")
	require.Error(t, NewRelay(db, r).Once(ctx))
	rows, err := db.ClaimOutbox(ctx, 10, storage.Now())
	require.NoError(t, err)
	require.Len(t, rows, 1, "given back")
	require.Error(t, worker(t, db, r, &postbox{}).Ping())
	_, err = EnqueueDue(ctx, db, r, time.Now())
	require.Error(t, err)
	runs, err := db.PeriodicRuns(ctx)
	require.NoError(t, err)
	require.Empty(t, runs, "a slot that was not enqueued is not taken")
}

func TestAForgedTaskDoesNothing(t *testing.T) {
	eachRedis(t, func(t *testing.T, r Redis, _ func()) {
		ctx, db, box := context.Background(), storagetest.SQLite(t), &postbox{}
		p := patient(t, db, "en")
		require.NoError(t, db.Wish(ctx, queue.Notice{PatientID: p.ID, Notice: "link_made"}))
		rows, err := db.ClaimOutbox(ctx, 1, storage.Now())
		require.NoError(t, err)
		client := asynq.NewClient(r.opt)
		defer client.Close()
		_, err = client.Enqueue(asynq.NewTask("notice", []byte(`{"outbox_id":"`+rows[0].ID+`","mac":"AAAA"}`)))
		require.NoError(t, err)
		_, err = client.Enqueue(asynq.NewTask("notice_of_mine", nil))
		require.NoError(t, err)
		w := worker(t, db, r, box)
		run(t, w.Run)
		require.Eventually(t, func() bool {
			q, err := w.inspector.GetQueueInfo(queueName)
			return err == nil && q.Archived == 2
		}, 10*time.Second, 10*time.Millisecond)
		require.Empty(t, box.all())
		n, err := w.deleteArchived(ctx, time.Now().Add(time.Hour), 10)
		require.NoError(t, err)
		require.Zero(t, n)
		n, err = w.deleteArchived(ctx, time.Now().Add(archivedKept+time.Minute), 10)
		require.NoError(t, err)
		require.Equal(t, 2, n)
	})
}

func TestARelayKilledOverAWishLosesNothing(t *testing.T) {
	eachRedis(t, func(t *testing.T, r Redis, _ func()) {
		ctx, db, box := context.Background(), storagetest.SQLite(t), &postbox{}
		require.NoError(t, db.Wish(ctx, queue.Notice{PatientID: patient(t, db, "en").ID, Notice: "link_made"}))
		rows, err := db.ClaimOutbox(ctx, 1, storage.Now().Add(-lostAfter-time.Second))
		require.NoError(t, err)
		require.Len(t, rows, 1, "claimed, and then killed")
		w := worker(t, db, r, box)
		run(t, w.Run, NewRelay(db, r).Run)
		require.NoError(t, w.sweepOutbox(ctx))
		require.Eventually(t, func() bool { return len(box.all()) == 1 }, 10*time.Second, 10*time.Millisecond)
	})
}

func TestAQueueThatComesBackGetsTheWishes(t *testing.T) {
	ctx, db, box := context.Background(), storagetest.SQLite(t), &postbox{}
	m := miniredis.RunT(t)
	r, err := ParseRedis("redis://" + m.Addr())
	require.NoError(t, err)
	run(t, worker(t, db, r, box).Run, NewRelay(db, r).Run)
	m.Close()
	require.NoError(t, db.Wish(ctx, queue.Notice{PatientID: patient(t, db, "en").ID, Notice: "link_made"}))
	time.Sleep(500 * time.Millisecond)
	require.NoError(t, m.Restart())
	require.Eventually(t, func() bool { return len(box.all()) == 1 }, 20*time.Second, 10*time.Millisecond)
}

func TestADoubledTickIsOneTask(t *testing.T) {
	eachRedis(t, func(t *testing.T, r Redis, flush func()) {
		storagetest.Each(t, func(t *testing.T, db *storage.DB) {
			flush()
			ctx, now := context.Background(), time.Now().Truncate(time.Hour)
			i := asynq.NewInspector(r.opt)
			defer i.Close()
			var mu sync.Mutex
			took := map[string]int{}
			tick := func(now time.Time) {
				var all sync.WaitGroup
				for range 50 {
					all.Go(func() {
						names, err := EnqueueDue(ctx, db, r, now)
						if err != nil {
							t.Error(err)
						}
						mu.Lock()
						defer mu.Unlock()
						for _, n := range names {
							took[n]++
						}
					})
				}
				all.Wait()
			}
			queued := func() int {
				info, err := i.GetQueueInfo("default")
				require.NoError(t, err)
				return info.Pending
			}
			tick(now)
			require.Equal(t, len((&Worker{}).schedule()), queued(), "each task once")
			require.Len(t, took, len((&Worker{}).schedule()))
			for name, n := range took {
				require.Equal(t, 1, n, name)
			}
			tick(now.Add(20 * time.Second))
			require.Equal(t, len((&Worker{}).schedule()), queued(), "the same slot")
			tick(now.Add(4 * time.Minute))
			const minutely = 4
			require.Equal(t, len((&Worker{}).schedule())+minutely, queued(), "three missed ticks are caught up once")
			tick(now.Add(2 * time.Minute))
			require.Equal(t, len((&Worker{}).schedule())+minutely, queued(), "a clock that went back starts nothing")
		})
	})
}

func TestEveryPeriodicTaskRuns(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		m := miniredis.RunT(t)
		r, err := ParseRedis("redis://" + m.Addr())
		require.NoError(t, err)
		w := worker(t, db, r, &postbox{})
		w.Checks = map[string]func(context.Context) error{"database": db.Ping}
		require.NoError(t, w.rotateKeys(ctx), "the first keys take their time")
		run(t, w.Run)
		names, err := EnqueueDue(ctx, db, r, time.Now())
		require.NoError(t, err)
		require.Len(t, names, len((&Worker{}).schedule()))
		require.Eventually(t, func() bool {
			runs, err := db.PeriodicRuns(ctx)
			for _, p := range runs {
				if p.Outcome == "error" {
					t.Fatal(p.Name + " failed")
				}
				if p.Outcome == "" {
					return false
				}
			}
			return err == nil && len(runs) == len((&Worker{}).schedule())
		}, 15*time.Second, 20*time.Millisecond)
	})
}

func TestOnlyTheLastOfManySlotsIsRun(t *testing.T) {
	ctx, db := context.Background(), storagetest.SQLite(t)
	m := miniredis.RunT(t)
	r, err := ParseRedis("redis://" + m.Addr())
	require.NoError(t, err)
	w := worker(t, db, r, &postbox{})
	require.NoError(t, w.rotateKeys(ctx), "the first keys take their time")
	ran := make(chan struct{}, 10)
	w.Checks = map[string]func(context.Context) error{"count": func(context.Context) error { ran <- struct{}{}; return nil }}
	now := time.Now().Add(-10 * time.Minute)
	for i := range 3 { // nobody works meanwhile
		_, err := EnqueueDue(ctx, db, r, now.Add(time.Duration(i)*time.Minute))
		require.NoError(t, err)
	}
	run(t, w.Run)
	require.Eventually(t, func() bool {
		q, err := w.inspector.GetQueueInfo(queueName)
		return err == nil && q.Pending+q.Active == 0
	}, 10*time.Second, 10*time.Millisecond)
	require.Len(t, ran, 1)
}
