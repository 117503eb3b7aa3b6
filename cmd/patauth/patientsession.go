package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pat-authenticate/patauth/storage"
)

// findPatient finds a patient by id or address.
func findPatient(ctx context.Context, db *storage.DB, who string) (storage.Patient, error) {
	find := db.PatientByID
	if strings.Contains(who, "@") {
		find = db.PatientByEmail
	}
	p, err := find(ctx, who)
	if err != nil {
		return p, fmt.Errorf("patient %s: %w", who, err)
	}
	return p, nil
}

// patientDisable makes the two commands that shut an account and open it again.
func (c *command) patientDisable(use, short string, disable bool) *cobra.Command {
	return &cobra.Command{
		Use: use + " ID|EMAIL", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				p, err := findPatient(ctx, db, args[0])
				if err != nil {
					return err
				}
				if err := db.SetPatientDisabled(ctx, p.ID, disable); err != nil {
					return fmt.Errorf("%s patient: %w", use, err)
				}
				if p, err = db.PatientByID(ctx, p.ID); err != nil {
					return err
				}
				return c.print(cmd, viewPatient(p), func() { fmt.Fprintln(cmd.OutOrStdout(), p.ID, use+"d") })
			})
		},
	}
}

// sessionView is a session as it is printed.
type sessionView struct {
	ID         string    `json:"id"`
	Factors    []string  `json:"factors"`
	AuthTime   time.Time `json:"auth_time"`
	CreatedAt  time.Time `json:"created_at"`
	LastSeenAt time.Time `json:"last_seen_at"`
	ExpiresAt  time.Time `json:"expires_at"`
	IP         string    `json:"ip"`
	UserAgent  string    `json:"user_agent"`
}

func (c *command) patientSessions() *cobra.Command {
	return &cobra.Command{
		Use: "sessions ID|EMAIL", Short: "List where a patient is signed in", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				p, err := findPatient(ctx, db, args[0])
				if err != nil {
					return err
				}
				all, err := db.SessionsOf(ctx, p.ID)
				if err != nil {
					return err
				}
				views := []sessionView{}
				for _, s := range all {
					views = append(views, sessionView{
						s.ID, slices.Sorted(maps.Keys(s.Factors)), s.AuthTime, s.CreatedAt, s.LastSeenAt, s.ExpiresAt, s.IP, s.UserAgent,
					})
				}
				return c.print(cmd, views, func() {
					table(cmd, "ID\tFACTORS\tSINCE\tLAST USED\tIP\tBROWSER", func(line func(...any)) {
						for _, v := range views {
							line(v.ID, strings.Join(v.Factors, " "), v.CreatedAt.Format(time.RFC3339), v.LastSeenAt.Format(time.RFC3339), v.IP, v.UserAgent)
						}
					})
				})
			})
		},
	}
}

func (c *command) patientRevokeSessions() *cobra.Command {
	return &cobra.Command{
		Use: "revoke-sessions ID|EMAIL", Short: "Sign a patient out everywhere", Args: cobra.ExactArgs(1),
		Long: "Sign a patient out everywhere. Access of apps that outlives a sign-out goes on; patient disable ends that, too.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				p, err := findPatient(ctx, db, args[0])
				if err != nil {
					return err
				}
				var live []storage.Session
				err = db.Tx(ctx, func(ctx context.Context) error {
					var err error
					if live, err = db.SessionsOf(ctx, p.ID); err != nil {
						return err
					}
					if err := db.EndSessions(ctx, p.ID, "", storage.Now()); err != nil {
						return err
					}
					return db.Audit(ctx, storage.AuditEvent{Event: "patient.sessions_revoked", Subject: p.ID, Object: "patient:" + p.ID})
				})
				if err != nil {
					return fmt.Errorf("revoke sessions: %w", err)
				}
				return c.print(cmd, map[string]int{"ended": len(live)}, func() { fmt.Fprintln(cmd.OutOrStdout(), len(live), "sessions ended") })
			})
		},
	}
}
