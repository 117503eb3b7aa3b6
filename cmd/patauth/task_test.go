package main

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/tasks/queue"
)

func TestTasksOfTheOperator(t *testing.T) {
	env := sqliteEnv(t)
	must[any](t, env, "migrate")
	require.Empty(t, must[[]taskView](t, env, "task", "list"))
	require.Empty(t, must[[]runView](t, env, "task", "runs"))

	config, err := (&command{environ: env}).configured()
	require.NoError(t, err)
	db, err := openCurrent(t.Context(), config)
	require.NoError(t, err)
	defer db.Close()
	now := storage.Now()
	for _, j := range []storage.Job{queue.DeadLetter{EventID: "waits"}, queue.BackchannelLogout{ClientID: "c-1", SessionID: "s-1"}, queue.BackchannelLogout{ClientID: "c-2", SessionID: "s-1"}} {
		require.NoError(t, db.Wish(t.Context(), j))
	}
	rows, err := db.ClaimOutbox(t.Context(), 3, now)
	require.NoError(t, err)
	for _, o := range rows[1:] {
		_, err := db.TakeOutbox(t.Context(), o.ID, now, now.Add(time.Minute))
		require.NoError(t, err)
		require.NoError(t, db.FailOutbox(t.Context(), o.ID, "refused", now))
	}
	require.NoError(t, db.ReturnOutbox(t.Context(), rows[:1]))

	all := must[[]taskView](t, env, "task", "list")
	require.Len(t, all, 3)
	require.Equal(t, "waiting", all[2].State)
	failed := must[[]taskView](t, env, "task", "list", "--failed")
	require.Len(t, failed, 2)
	require.Equal(t, []any{"backchannel_logout", "failed", 1, "refused"}, []any{failed[0].Kind, failed[0].State, failed[0].Attempts, failed[0].Reason})
	var about queue.BackchannelLogout
	require.NoError(t, json.Unmarshal(failed[0].About, &about))
	require.Equal(t, "s-1", about.SessionID)
	out, err := patauth(t, env, "task", "list", "--failed", "--limit", "1")
	require.NoError(t, err)
	require.Contains(t, out, failed[0].ID)
	require.NotContains(t, out, failed[1].ID)

	require.Equal(t, []string{failed[0].ID}, must[[]string](t, env, "task", "retry", failed[0].ID))
	out, err = patauth(t, env, "task", "retry", failed[0].ID, failed[1].ID)
	require.ErrorIs(t, err, storage.ErrNotFound, "it waits again")
	require.Contains(t, out, failed[1].ID, "what can be done is done")
	require.Empty(t, must[[]taskView](t, env, "task", "list", "--failed"))
	require.NoError(t, db.FailOutbox(t.Context(), failed[1].ID, "timeout", now))
	require.Equal(t, []string{failed[1].ID}, must[[]string](t, env, "task", "delete", failed[1].ID))
	require.Len(t, must[[]taskView](t, env, "task", "list"), 2)
	_, err = patauth(t, env, "task", "delete", all[2].ID)
	require.ErrorIs(t, err, storage.ErrNotFound, "it was not given up")

	require.NoError(t, db.TakeSlot(t.Context(), queue.SweepOutbox, now.Truncate(time.Minute)))
	require.NoError(t, db.FinishPeriodic(t.Context(), queue.SweepOutbox, "ok", now))
	runs := must[[]runView](t, env, "task", "runs")
	require.Len(t, runs, 1)
	require.Equal(t, []string{queue.SweepOutbox, "ok"}, []string{runs[0].Name, runs[0].Outcome})
	out, err = patauth(t, env, "task", "runs")
	require.NoError(t, err)
	require.Contains(t, out, "sweep_outbox")
}
