package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pat-authenticate/patauth/provider/login"
	"github.com/pat-authenticate/patauth/storage"
)

func (c *command) patient() *cobra.Command {
	return group("patient", "Patients' accounts", c.patientCreate(), c.patientList(), c.patientShow())
}

// patientView is a patient as it is printed.
type patientView struct {
	ID            string     `json:"id"`
	Email         string     `json:"email"`
	EmailVerified bool       `json:"email_verified"`
	GivenName     string     `json:"given_name"`
	FamilyName    string     `json:"family_name"`
	BirthDate     string     `json:"birth_date"`
	Locale        string     `json:"locale"`
	CreatedAt     time.Time  `json:"created_at"`
	DisabledAt    *time.Time `json:"disabled_at,omitempty"`
	// Only shown for one patient.
	Credentials []string `json:"credentials,omitempty"` // kinds
	Lab         *labView `json:"lab,omitempty"`
}

type labView struct {
	Authority string `json:"authority"`
	Record    string `json:"record"`
}

func viewPatient(p storage.Patient) patientView {
	return patientView{
		ID: p.ID, Email: p.Email, EmailVerified: p.EmailVerifiedAt != nil, GivenName: p.GivenName, FamilyName: p.FamilyName,
		BirthDate: p.BirthDate, Locale: p.Locale, CreatedAt: p.CreatedAt, DisabledAt: p.DisabledAt,
	}
}

func (c *command) patientCreate() *cobra.Command {
	var (
		p                storage.Patient
		verified, secret bool
	)
	cmd := &cobra.Command{
		Use: "create", Short: "Make an account; without a password the patient registers with the address", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			email, err := storage.ParseEmail(p.Email)
			if err != nil {
				return fmt.Errorf("--email: %w", err)
			}
			p.Email = email
			if _, err := time.Parse(time.DateOnly, p.BirthDate); p.BirthDate != "" && err != nil {
				return errors.New("--birth-date: must be YYYY-MM-DD")
			}
			password := ""
			if secret {
				b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 4096))
				if err != nil {
					return fmt.Errorf("--password-stdin: %w", err)
				}
				if password = strings.TrimRight(string(b), "\r\n"); len(password) < 15 {
					return errors.New("--password-stdin: the password must have at least 15 characters")
				}
			}
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				phc := ""
				if password != "" {
					hasher, err := login.NewHasher(db, login.Defaults().Hash)
					if err != nil {
						return err
					}
					if phc, err = hasher.Hash(ctx, password); err != nil {
						return err
					}
				}
				err := db.Tx(ctx, func(ctx context.Context) error {
					if err := db.CreatePatient(ctx, &p); err != nil {
						return fmt.Errorf("create patient: %w", err)
					}
					if phc != "" {
						if err := db.SetPassword(ctx, p.ID, phc, p.CreatedAt); err != nil {
							return err
						}
					}
					if verified {
						p.EmailVerifiedAt = &p.CreatedAt
						return db.MarkEmailVerified(ctx, p.ID, p.CreatedAt)
					}
					return nil
				})
				if err != nil {
					return err
				}
				return c.print(cmd, viewPatient(p), func() { fmt.Fprintln(cmd.OutOrStdout(), p.ID) })
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.Email, "email", "", "address (required)")
	f.StringVar(&p.GivenName, "given-name", "", "given name")
	f.StringVar(&p.FamilyName, "family-name", "", "family name")
	f.StringVar(&p.BirthDate, "birth-date", "", "birth date, YYYY-MM-DD")
	f.StringVar(&p.Locale, "locale", "", "language of pages and mails: en or de")
	f.BoolVar(&verified, "verified", false, "the address is known to be the patient's")
	f.BoolVar(&secret, "password-stdin", false, "read a password from standard input")
	return cmd
}

func (c *command) patientList() *cobra.Command {
	var (
		limit int
		after string
	)
	cmd := &cobra.Command{
		Use: "list", Short: "List patients in the order of their ids", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 || limit > 10000 {
				return errors.New("--limit: must be between 1 and 10000")
			}
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				all, err := db.ListPatients(ctx, limit, after)
				if err != nil {
					return err
				}
				views := []patientView{}
				for _, p := range all {
					views = append(views, viewPatient(p))
				}
				return c.print(cmd, views, func() {
					table(cmd, "ID\tE-MAIL\tVERIFIED\tDISABLED", func(line func(...any)) {
						for _, v := range views {
							line(v.ID, v.Email, v.EmailVerified, v.DisabledAt != nil)
						}
					})
				})
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 100, "how many")
	cmd.Flags().StringVar(&after, "after", "", "begin after this id")
	return cmd
}

func (c *command) patientShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID|EMAIL", Short: "Show a patient", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withDB(cmd, func(ctx context.Context, db *storage.DB) error {
				find := db.PatientByID
				if strings.Contains(args[0], "@") {
					find = db.PatientByEmail
				}
				p, err := find(ctx, args[0])
				if err != nil {
					return fmt.Errorf("patient %s: %w", args[0], err)
				}
				v := viewPatient(p)
				creds, err := db.Credentials(ctx, p.ID)
				if err != nil {
					return err
				}
				for _, x := range creds {
					v.Credentials = append(v.Credentials, x.Kind)
				}
				_, record, err := db.LinkOf(ctx, p.ID)
				if err == nil {
					v.Lab = &labView{record.Authority, record.Value}
				} else if !errors.Is(err, storage.ErrNotFound) {
					return err
				}
				return c.print(cmd, v, func() {
					table(cmd, "id\t"+v.ID, func(line func(...any)) {
						line("e-mail", v.Email)
						line("verified", v.EmailVerified)
						line("name", strings.TrimSpace(v.GivenName+" "+v.FamilyName))
						line("birth date", v.BirthDate)
						line("credentials", strings.Join(v.Credentials, " "))
						if v.Lab != nil {
							line("lab record", v.Lab.Record+" of "+v.Lab.Authority)
						}
						line("created", v.CreatedAt.Format(time.RFC3339))
						if v.DisabledAt != nil {
							line("disabled", v.DisabledAt.Format(time.RFC3339))
						}
					})
				})
			})
		},
	}
}
