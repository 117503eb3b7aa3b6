// Command patauth is an identity provider for patients.
//
// It is one binary: app, consumer, worker and cron are its workloads, dev runs
// all of them in one process, and the other commands are for its operator. Each
// workload opens what it needs (open.go), runs until it is told to stop, drains
// (run.go) and ends. What can be configured is in config.go.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pat-authenticate/patauth/provider"
)

func main() {
	limitMemory()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// Whoever says so a second time does not want to wait.
	go func() { <-ctx.Done(); stop() }()
	cmd, err := newCommand(os.Environ()).ExecuteContextC(ctx)
	if err == nil {
		return
	}
	if cmd.GroupID == workloads {
		slog.Error("stopped", "workload", cmd.Name(), "error", err.Error())
	} else {
		fmt.Fprintln(os.Stderr, "patauth:", err)
	}
	os.Exit(1)
}

const (
	workloads = "workloads"
	operator  = "operator"
)

// command is what every command is given.
type command struct {
	environ []string
	config  string // path of the file, or ""
	data    string // folder of a development installation, or ""
	json    bool
}

// newCommand lists every command.
func newCommand(environ []string) *cobra.Command {
	c := &command{environ: environ}
	root := &cobra.Command{
		Use: "patauth", Short: "An identity provider for patients",
		SilenceUsage: true, SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.PersistentFlags().StringVar(&c.config, "config", "", "configuration `file` (default: $PATAUTH_CONFIG)")
	root.AddGroup(&cobra.Group{ID: workloads, Title: "Workloads:"}, &cobra.Group{ID: operator, Title: "For the operator:"})
	for _, w := range []*cobra.Command{c.dev(), c.app(), c.consumer(), c.worker(), c.cron(), c.migrate()} {
		w.GroupID = workloads
		root.AddCommand(w)
	}
	for _, o := range []*cobra.Command{c.configure(), c.client(), c.patient(), c.lis(), c.key(), c.task(), c.version()} {
		o.GroupID = operator
		c.common(o)
		root.AddCommand(o)
	}
	return root
}

// common gives the flags of every operator's command to those below cmd.
func (c *command) common(cmd *cobra.Command) {
	if !cmd.HasSubCommands() {
		cmd.Flags().BoolVar(&c.json, "json", false, "print JSON")
		cmd.Flags().StringVar(&c.data, "data", "", "work on the patauth dev that keeps its data in `folder`")
	}
	for _, below := range cmd.Commands() {
		c.common(below)
	}
}

func (c *command) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.print(cmd, map[string]string{"version": provider.Version()}, func() {
				fmt.Fprintln(cmd.OutOrStdout(), provider.Version())
			})
		},
	}
}

// group is a command that only has others below it.
func group(use, short string, below ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use, Short: short}
	g.AddCommand(below...)
	return g
}
