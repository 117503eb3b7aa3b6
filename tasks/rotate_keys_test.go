package tasks

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
	"github.com/pat-authenticate/patauth/tasks/queue"
)

// gauges are the values of a metric, by the values of its labels.
func gauges(t *testing.T, w *Worker, name string) map[string]float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(w)
	all, err := r.Gather()
	require.NoError(t, err)
	out := map[string]float64{}
	for _, f := range all {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			out[strings.Join(labels, " ")] = m.GetGauge().GetValue()
		}
	}
	return out
}

func TestTheTaskKeepsOneKeyOfEachAlgorithm(t *testing.T) {
	ctx, db := context.Background(), storagetest.SQLite(t)
	r, err := ParseRedis("redis://" + miniredis.RunT(t).Addr())
	require.NoError(t, err)
	w := worker(t, db, r, &postbox{})
	require.NoError(t, w.rotateKeys(ctx))
	require.NoError(t, w.rotateKeys(ctx))
	require.NoError(t, keys.Prepare(ctx, db, keys.Config{RSABits: 2048}, "EdDSA", storage.Now()))
	require.NoError(t, db.AddSigningKey(ctx, &storage.SigningKey{ID: "x", Alg: "ML-DSA-65", State: "active", Private: []byte{}, CreatedAt: time.Now()}))
	require.Equal(t, map[string]float64{
		"ES256 active": 1, "ES256 pending": 0, "ES256 retired": 0, "ES256 compromised": 0,
		"RS256 active": 1, "RS256 pending": 0, "RS256 retired": 0, "RS256 compromised": 0,
		"PS256 active": 1, "PS256 pending": 0, "PS256 retired": 0, "PS256 compromised": 0,
		"EdDSA active": 1, "EdDSA pending": 1, "EdDSA retired": 0, "EdDSA compromised": 0,
	}, gauges(t, w, "patauth_signing_keys"))
}

func TestTheAuditSaysThatATaskWasTheSystem(t *testing.T) {
	ctx, db := context.Background(), storagetest.SQLite(t)
	w := worker(t, db, noQueue(t), &postbox{})
	require.NoError(t, w.handle(ctx, asynq.NewTask(periodic+queue.RotateKeys, nil)))
	events, err := db.AuditOf(ctx, "", 100)
	require.NoError(t, err)
	require.NotEmpty(t, events)
	for _, e := range events {
		require.Equal(t, storage.System, e.Actor, e.Event)
	}
}

// Whoever drew a task, every worker tells the same of it; a dependency that is away
// takes its own figures with it and no others.
func TestEveryWorkerTellsTheSame(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		m := miniredis.RunT(t)
		r, err := ParseRedis("redis://" + m.Addr())
		require.NoError(t, err)
		one, two := worker(t, db, r, &postbox{}), worker(t, db, r, &postbox{})
		require.NoError(t, db.Wish(ctx, queue.DeadLetter{EventID: "e"}))
		require.Zero(t, gauges(t, two, "patauth_cron_last_success_timestamp_seconds")[queue.SyncUsers], "never")
		require.NoError(t, one.runPeriodic(ctx, periodicTask{queue.SyncUsers, time.Minute, one.syncUsers}))
		require.NoError(t, db.FinishPeriodic(ctx, queue.SyncUsers, "error", storage.Now()), "a failure takes nothing back")
		for _, w := range []*Worker{one, two} {
			w.watch.at = time.Time{}
			last := gauges(t, w, "patauth_cron_last_success_timestamp_seconds")
			require.Len(t, last, len(w.schedule()))
			require.InDelta(t, time.Now().Unix(), last[queue.SyncUsers], 60)
			require.Equal(t, 1.0, gauges(t, w, "patauth_outbox_pending")[""])
			require.Equal(t, map[string]float64{"queue": 1, "keys": 1, "outbox": 1, "cron": 1}, gauges(t, w, "patauth_dependency_up"))
		}
		require.NoError(t, db.Close())
		one.watch.at = time.Time{}
		require.Equal(t, map[string]float64{"queue": 1, "keys": 0, "outbox": 0, "cron": 0}, gauges(t, one, "patauth_dependency_up"))
		require.Empty(t, gauges(t, one, "patauth_outbox_pending"), "not said rather than wrong")
	})
}
