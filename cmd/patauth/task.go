package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/pat-authenticate/patauth/storage"
)

// task is what an operator does about wishes that do not come true.
func (c *command) task() *cobra.Command {
	return group("task", "Mails, dead letters and sign-outs that wait or were given up, and the periodic tasks",
		c.taskList(), c.taskEach("retry", "Try what was given up again, from the start", (*storage.DB).RetryOutbox),
		c.taskEach("delete", "Forget what was given up", (*storage.DB).DeleteOutbox), c.taskRuns())
}

// taskView is a wish as it is printed.
type taskView struct {
	ID        string          `json:"id"`
	Kind      string          `json:"kind"`
	About     json.RawMessage `json:"about"` // ids
	State     string          `json:"state"` // waiting, queued, running, failed
	Attempts  int             `json:"attempts"`
	Reason    string          `json:"reason,omitempty"` // how the last attempt ended
	CreatedAt time.Time       `json:"created_at"`
	FailedAt  *time.Time      `json:"failed_at,omitempty"`
}

func viewTask(o storage.Outbox, now time.Time) taskView {
	v := taskView{o.ID, o.Kind, json.RawMessage(o.Payload), "waiting", o.Attempts, o.Reason, o.CreatedAt, o.FailedAt}
	switch {
	case o.FailedAt != nil:
		v.State = "failed"
	case o.HeldUntil != nil && o.HeldUntil.After(now):
		v.State = "running"
	case o.RelayedAt != nil:
		v.State = "queued"
	}
	return v
}

func (c *command) taskList() *cobra.Command {
	var (
		failed bool
		limit  int
	)
	cmd := &cobra.Command{
		Use: "list", Short: "List what is not done, the newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				all, err := db.Unfulfilled(ctx, failed, limit)
				if err != nil {
					return err
				}
				views := []taskView{}
				for _, o := range all {
					views = append(views, viewTask(o, storage.Now()))
				}
				return c.print(cmd, views, func() {
					table(cmd, "ID\tKIND\tSTATE\tATTEMPTS\tREASON\tCREATED\tABOUT", func(line func(...any)) {
						for _, v := range views {
							line(v.ID, v.Kind, v.State, v.Attempts, v.Reason, v.CreatedAt.Format(time.RFC3339), string(v.About))
						}
					})
				})
			})
		},
	}
	cmd.Flags().BoolVar(&failed, "failed", false, "only what was given up")
	cmd.Flags().IntVar(&limit, "limit", 100, "how many")
	return cmd
}

// taskEach is a command that does something to each of some wishes.
func (c *command) taskEach(name, short string, do func(*storage.DB, context.Context, string) error) *cobra.Command {
	return &cobra.Command{
		Use: name + " ID…", Short: short, Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				done := []string{}
				var faults []error
				for _, id := range ids {
					if err := do(db, ctx, id); err != nil {
						faults = append(faults, fmt.Errorf("task %s was not given up, or is not there: %w", id, err))
						continue
					}
					done = append(done, id)
				}
				return errors.Join(append(faults, c.print(cmd, done, func() {
					for _, id := range done {
						fmt.Fprintln(cmd.OutOrStdout(), id)
					}
				}))...)
			})
		},
	}
}

// runView is a periodic task as it is printed.
type runView struct {
	Name       string     `json:"name"`
	Slot       time.Time  `json:"slot"`
	FinishedAt *time.Time `json:"finished_at,omitempty"`
	Outcome    string     `json:"outcome"` // ok, error, or empty before the first end

	SucceededAt *time.Time `json:"succeeded_at,omitempty"`
}

func (c *command) taskRuns() *cobra.Command {
	return &cobra.Command{
		Use: "runs", Short: "Show how each periodic task last ended", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				all, err := db.PeriodicRuns(ctx)
				if err != nil {
					return err
				}
				views := []runView{}
				for _, r := range all {
					views = append(views, runView(r))
				}
				return c.print(cmd, views, func() {
					table(cmd, "NAME\tLAST SLOT\tFINISHED\tOUTCOME", func(line func(...any)) {
						for _, v := range views {
							finished := ""
							if v.FinishedAt != nil {
								finished = v.FinishedAt.Format(time.RFC3339)
							}
							line(v.Name, v.Slot.Format(time.RFC3339), finished, v.Outcome)
						}
					})
				})
			})
		},
	}
}
