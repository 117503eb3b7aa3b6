package main

import (
	"cmp"
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
	return group("patient", "Patients' accounts", c.patientCreate(), c.patientList(), c.patientShow(),
		c.patientDisable("disable", "Shut an account: no sign-in, no sessions, no access of apps", true),
		c.patientDisable("enable", "Open a shut account again; what ended stays ended", false),
		c.patientSessions(), c.patientRevokeSessions())
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
	storage.PatientMore
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
		PatientMore: p.More,
	}
}

func (c *command) patientCreate() *cobra.Command {
	var (
		p                storage.Patient
		verified, secret bool
		file             string
	)
	cmd := &cobra.Command{
		Use: "create", Short: "Make an account; without a password the patient registers with the address", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			now := storage.Now()
			if file != "" {
				told, err := readClaims(file, now)
				if err != nil {
					return fmt.Errorf("--claims: %w", err)
				}
				p.Email, p.Locale = cmp.Or(p.Email, told.Email), cmp.Or(p.Locale, told.Locale)
				p.GivenName, p.FamilyName = cmp.Or(p.GivenName, told.GivenName), cmp.Or(p.FamilyName, told.FamilyName)
				p.BirthDate, p.More = cmp.Or(p.BirthDate, told.BirthDate), told.More
				verified = verified || told.EmailVerifiedAt != nil
			}
			if err := checkPatient(&p, now); err != nil {
				return err
			}
			password := ""
			if secret {
				b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 4096))
				if err != nil {
					return fmt.Errorf("--password-stdin: %w", err)
				}
				password = strings.TrimRight(string(b), "\r\n")
			}
			return c.withConfig(cmd, func(ctx context.Context, config Config, db *storage.DB) error {
				phc := ""
				if secret {
					if problem := login.PasswordProblem(password, p.GivenName, p.FamilyName, p.Email, config.Issuer); problem != "" {
						return fmt.Errorf("--password-stdin: the password is refused: %s", problem)
					}
					hasher, err := login.NewHasher(db, config.Login.Hash)
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
	f.StringVar(&file, "claims", "", "`file` of a JSON object of standard claims (OpenID Connect Core, Section 5.1); the other flags go before it")
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
				p, err := findPatient(ctx, db, args[0])
				if err != nil {
					return err
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
						line("locale", v.Locale)
						v.more(line)
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

// more prints what the patient told besides.
func (v patientView) more(line func(...any)) {
	for _, x := range [][2]string{
		{"middle name", v.MiddleName}, {"nickname", v.Nickname}, {"user name", v.PreferredUsername}, {"gender", v.Gender},
		{"time zone", v.Zoneinfo}, {"website", v.Website}, {"picture", v.Picture}, {"profile", v.Profile}, {"phone", v.PhoneNumber},
		{"street", strings.ReplaceAll(v.Address.Street, "\n", ", ")}, {"postal code", v.Address.PostalCode}, {"town", v.Address.Locality},
		{"region", v.Address.Region}, {"country", v.Address.Country},
	} {
		if x[1] != "" {
			line(x[0], x[1])
		}
	}
	if v.PhoneVerifiedAt != nil {
		line("phone verified", v.PhoneVerifiedAt.Format(time.RFC3339))
	}
}
