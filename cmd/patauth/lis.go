package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pat-authenticate/patauth/lis"
	"github.com/pat-authenticate/patauth/storage"
)

func (c *command) lis() *cobra.Command {
	return group("lis", "The laboratory's feed",
		c.lisPublish(), c.lisCheck(), c.lisInvite(),
		group("authority", "Who assigns record numbers", c.authorityList(), c.authoritySet()),
		group("dead-letters", "Messages that were not applied", c.deadLetterList(), c.deadLetterReplay()),
	)
}

// deadLetters publishes quarantined events on the dead letter topic; close it.
// Without brokers there is no feed, and nothing that could be published.
func deadLetters(c Config, db *storage.DB) (publish func(context.Context, string) error, closed func(), err error) {
	if len(c.Kafka.Brokers) == 0 {
		return func(context.Context, string) error { return errors.New("kafka.brokers is not set") }, func() {}, nil
	}
	p, err := lis.NewPublisher(c.feed())
	if err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context, id string) error { return p.DeadLetter(ctx, db, id) }, p.Close, nil
}

func (c *command) lisPublish() *cobra.Command {
	return &cobra.Command{
		Use: "publish FILE…", Short: "Put the messages of files on the topic: .hl7, .txt, .ndjson or .json", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			config, err := c.load("lis")
			if err == nil && len(config.Kafka.Brokers) == 0 {
				err = errors.New("patauth dev does not run there now")
			}
			if err != nil {
				return err
			}
			report, err := lis.Publish(cmd.Context(), config.feed(), files...)
			if report.Records > 0 {
				shown := c.print(cmd, report, func() {
					fmt.Fprintf(cmd.OutOrStdout(), "%d of %d messages are on %s\n", report.Acknowledged, report.Records, config.LIS.Topic)
				})
				err = errors.Join(err, shown)
			}
			return err
		},
	}
}

func (c *command) lisCheck() *cobra.Command {
	return &cobra.Command{
		Use: "check FILE…", Short: "Read the messages of files as the consumer would; fail where one is broken", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			config, err := c.configured()
			if err != nil {
				return err
			}
			verdicts, err := lis.Check(config.feed().Reading, files...)
			if err != nil {
				return err
			}
			err = c.print(cmd, verdicts, func() {
				for _, v := range verdicts {
					fmt.Fprintln(cmd.OutOrStdout(), v)
				}
			})
			broken := func(v lis.Verdict) bool { return v.Result == lis.Quarantine }
			if err == nil && slices.ContainsFunc(verdicts, broken) {
				err = errors.New("there are broken messages")
			}
			return err
		},
	}
}

// invitationLife is how long an activation code from the command line can be used.
const invitationLife = 30 * 24 * time.Hour

func (c *command) lisInvite() *cobra.Command {
	life := invitationLife
	cmd := &cobra.Command{
		Use: "invite AUTHORITY RECORD", Short: "Make the activation code of a record; it is shown once", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				r, err := db.LabIdentityByKey(ctx, storage.LabKey{Authority: args[0], Value: args[1]})
				if err != nil {
					return fmt.Errorf("record: %w", err)
				}
				expires := storage.Now().Add(life)
				code, err := db.NewInvitation(ctx, r.ID, expires)
				if err != nil {
					return err
				}
				return c.print(cmd, map[string]any{"code": code, "expires_at": expires}, func() {
					fmt.Fprintln(cmd.OutOrStdout(), code)
				})
			})
		},
	}
	cmd.Flags().DurationVar(&life, "life", life, "how long it can be used")
	return cmd
}

// authorityView is an authority as it is printed.
type authorityView struct {
	ID         string   `json:"id"`
	Name       string   `json:"name"`
	OID        string   `json:"oid"`
	Namespaces []string `json:"namespaces"`
	URIs       []string `json:"uris"`
	LinkKey    bool     `json:"link_key"`
	CaseFold   bool     `json:"case_fold"`
	Sources    []string `json:"sources"`
	Active     bool     `json:"active"`
}

func viewAuthority(a storage.LabAuthority) authorityView {
	list := func(s storage.Strings) []string { return append([]string{}, s...) }
	return authorityView{a.ID, a.Name, a.OID, list(a.Namespaces), list(a.URIs), a.LinkKey, a.CaseFold, list(a.Sources), a.Active}
}

func (c *command) authorityList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List all authorities", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				all, err := db.LabAuthorities(ctx)
				if err != nil {
					return err
				}
				views := []authorityView{}
				for _, a := range all {
					views = append(views, viewAuthority(a))
				}
				return c.print(cmd, views, func() {
					table(cmd, "ID\tNAME\tOID\tNAMESPACES\tURIS\tACTIVE", func(line func(...any)) {
						for _, v := range views {
							line(v.ID, v.Name, v.OID, strings.Join(v.Namespaces, " "), strings.Join(v.URIs, " "), v.Active)
						}
					})
				})
			})
		},
	}
}

func (c *command) authoritySet() *cobra.Command {
	var (
		a                         storage.LabAuthority
		namespaces, uris, sources []string
	)
	cmd := &cobra.Command{
		Use: "set ID", Short: "Register an authority, or replace what is registered", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a.ID, a.Namespaces, a.URIs, a.Sources = args[0], namespaces, uris, sources
			if a.Name == "" || a.OID == "" && len(namespaces) == 0 && len(uris) == 0 {
				return errors.New("--name, and one of --oid, --namespace and --uri, are required")
			}
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				if err := db.UpsertLabAuthority(ctx, a); err != nil {
					return fmt.Errorf("authority: %w", err)
				}
				return c.print(cmd, viewAuthority(a), func() { fmt.Fprintln(cmd.OutOrStdout(), a.ID) })
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&a.Name, "name", "", "what people are shown")
	f.StringVar(&a.OID, "oid", "", "its object identifier")
	f.StringArrayVar(&namespaces, "namespace", nil, "HL7 namespace (HD.1) that names it; may be repeated")
	f.StringArrayVar(&uris, "uri", nil, "FHIR system that names it; may be repeated")
	f.StringArrayVar(&sources, "source", nil, "feed that may change its records, any where none is given; may be repeated")
	f.BoolVar(&a.LinkKey, "link-key", true, "its numbers name one person's record")
	f.BoolVar(&a.CaseFold, "case-fold", false, "ab1 and AB1 are one number")
	f.BoolVar(&a.Active, "active", true, "its numbers are taken")
	return cmd
}

// deadLetterView is a message that waits, as it is printed: nothing of its content.
type deadLetterView struct {
	ID          string     `json:"id"`
	Source      string     `json:"source"`
	EventID     string     `json:"event_id"`
	Kind        string     `json:"kind"`
	Outcome     string     `json:"outcome"`
	Reason      string     `json:"reason"`
	ReceivedAt  time.Time  `json:"received_at"`
	PublishedAt *time.Time `json:"published_at,omitempty"`
}

func (c *command) deadLetterList() *cobra.Command {
	var (
		review bool
		limit  int
	)
	cmd := &cobra.Command{
		Use: "list", Short: "List quarantined messages, the newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			outcome := storage.LabQuarantined
			if review {
				outcome = storage.LabReview
			}
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				all, err := db.LabEvents(ctx, outcome, limit)
				if err != nil {
					return err
				}
				views := []deadLetterView{}
				for _, e := range all {
					views = append(views, deadLetterView{e.ID, e.Source, e.EventID, e.Kind, e.Outcome, e.Reason, e.ReceivedAt, e.PublishedAt})
				}
				return c.print(cmd, views, func() {
					table(cmd, "ID\tRECEIVED\tREASON\tPUBLISHED", func(line func(...any)) {
						for _, v := range views {
							line(v.ID, v.ReceivedAt.Format(time.RFC3339), v.Reason, v.PublishedAt != nil)
						}
					})
				})
			})
		},
	}
	cmd.Flags().BoolVar(&review, "review", false, "list those that staff must look at instead")
	cmd.Flags().IntVar(&limit, "limit", 100, "how many")
	return cmd
}

func (c *command) deadLetterReplay() *cobra.Command {
	return &cobra.Command{
		Use: "replay ID…", Short: "Apply messages of quarantine or review anew, after their cause was mended", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			config, err := c.configured()
			if err != nil {
				return err
			}
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				var faults []error
				for _, id := range ids {
					o, err := lis.Replay(ctx, db, id, config.feed().Reading)
					if err != nil {
						faults = append(faults, err)
						continue
					}
					faults = append(faults, c.print(cmd, map[string]string{"id": id, "outcome": o.Outcome, "reason": o.Reason}, func() {
						fmt.Fprintln(cmd.OutOrStdout(), id, o.Outcome, o.Reason)
					}))
				}
				return errors.Join(faults...)
			})
		},
	}
}
