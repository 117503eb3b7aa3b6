package storage_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// somebody is a stored patient.
func somebody(t testing.TB, db *storage.DB, email string) storage.Patient {
	t.Helper()
	p := storage.Patient{Email: email, GivenName: "Ada", FamilyName: "Byron"}
	require.NoError(t, db.CreatePatient(context.Background(), &p))
	return p
}

func TestOneAccountPerAddress(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		p := somebody(t, db, " Ada@Example.ORG ")
		require.Equal(t, "ada@example.org", p.Email)
		require.Len(t, p.WebAuthnHandle, 64)
		require.ErrorIs(t, db.CreatePatient(ctx, &storage.Patient{Email: "ADA@example.org"}), storage.ErrConflict)

		found, err := db.PatientByEmail(ctx, "aDa@example.org")
		require.NoError(t, err)
		require.Equal(t, p.ID, found.ID)
		found, err = db.PatientByHandle(ctx, p.WebAuthnHandle)
		require.NoError(t, err)
		require.Equal(t, p.ID, found.ID)
		_, err = db.PatientByID(ctx, "nobody")
		require.ErrorIs(t, err, storage.ErrNotFound)
	})
}

func TestVerifyingKeepsTheFirstTime(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := context.Background(), storage.Now()
		p := somebody(t, db, "ada@example.org")
		require.NoError(t, db.MarkEmailVerified(ctx, p.ID, now))
		require.NoError(t, db.MarkEmailVerified(ctx, p.ID, now.Add(time.Hour)))
		p, err := db.PatientByID(ctx, p.ID)
		require.NoError(t, err)
		require.True(t, now.Equal(*p.EmailVerifiedAt))
	})
}

func TestADisabledPatientHasNoSessions(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := context.Background(), storage.Now()
		p := somebody(t, db, "ada@example.org")
		require.NoError(t, db.CreateSession(ctx, &storage.Session{
			Digest: storage.Digest("x"), PatientID: p.ID, AuthTime: now, CreatedAt: now, LastSeenAt: now, ExpiresAt: now.Add(time.Hour),
		}))
		require.NoError(t, db.SetPatientDisabled(ctx, p.ID, true))
		live, err := db.SessionsOf(ctx, p.ID)
		require.NoError(t, err)
		require.Empty(t, live)
		require.NoError(t, db.SetPatientDisabled(ctx, p.ID, false))
		live, err = db.SessionsOf(ctx, p.ID)
		require.NoError(t, err)
		require.Empty(t, live, "what ended stays ended")
		require.ErrorIs(t, db.SetPatientDisabled(ctx, "nobody", true), storage.ErrNotFound)
	})
}

func TestUnverifiedAccountsGo(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, later := context.Background(), storage.Now().Add(time.Hour)
		verified, asked, imported := somebody(t, db, "v@example.org"), somebody(t, db, "a@example.org"), somebody(t, db, "i@example.org")
		somebody(t, db, "gone@example.org")
		require.NoError(t, db.MarkEmailVerified(ctx, verified.ID, storage.Now()))
		require.NoError(t, db.SetPassword(ctx, imported.ID, "$x", storage.Now()))

		n, err := db.DeleteExpired(ctx, "patient", later.Add(7*24*time.Hour), 100)
		require.NoError(t, err)
		require.Equal(t, 2, n)
		_, err = db.PatientByID(ctx, asked.ID)
		require.ErrorIs(t, err, storage.ErrNotFound)
		all, err := db.ListPatients(ctx, 10, "")
		require.NoError(t, err)
		require.Len(t, all, 2)
		page, err := db.ListPatients(ctx, 10, all[0].ID)
		require.NoError(t, err)
		require.Len(t, page, 1)
	})
}

func TestParseEmail(t *testing.T) {
	for raw, want := range map[string]string{
		" Ada@Example.org ":           "ada@example.org",
		"jo+tag@mail.example":         "jo+tag@mail.example",
		"Ada <ada@example.org>":       "",
		"ada@example.org, b@x.org":    "",
		"a\r\nBcc: x@example.org@x.y": "",
		"a@b\r\n.c":                   "",
		"":                            "",
		"@example.org":                "",
		"ada@":                        "",
		"ada example@x.org":           "",
		`"a b"@x.org`:                 "",
		"\u202eada@example.org":       "",
		"a\u200bda@example.org":       "",
		"ada\u200d@example.org":       "",
		"ada@exam\u00adple.org":       "",
		"علی\u200cرضا@نامه\u200cای.example": "علی\u200cرضا@نامه\u200cای.example",
	} {
		got, err := storage.ParseEmail(raw)
		require.Equal(t, want, got, fmt.Sprintf("%q", raw))
		require.Equal(t, want == "", err != nil, "%q", raw)
	}
}

func FuzzParseEmail(f *testing.F) {
	f.Add("ada@example.org")
	f.Add("a\r\n@b")
	f.Add("a\u200b@b")
	f.Fuzz(func(t *testing.T, raw string) {
		s, err := storage.ParseEmail(raw)
		if err != nil {
			return
		}
		again, err := storage.ParseEmail(s)
		require.NoError(t, err)
		require.Equal(t, s, again)
		require.NotContains(t, s, "\n")
		require.NotContains(t, s, "\r")
	})
}

func TestProfilesChange(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		p, other := somebody(t, db, "ada@example.org"), somebody(t, db, "b@example.org")
		at := p.CreatedAt.Add(-time.Hour)
		p.FamilyName, p.BirthDate, p.Locale = "King", "1975-12-10", "de"
		p.More = storage.PatientMore{
			MiddleName: "Augusta", PhoneNumber: "+442079460018", PhoneVerifiedAt: &at,
			Address: storage.Address{Street: "12 St James's Square\nFlat 3", Country: "GB"},
		}
		p.Email = "eve@example.org" // no part of the profile
		time.Sleep(time.Millisecond)
		require.NoError(t, db.UpdateProfile(ctx, p))
		got, err := db.PatientByID(ctx, p.ID)
		require.NoError(t, err)
		require.True(t, got.UpdatedAt.After(p.UpdatedAt))
		require.True(t, at.Equal(*got.More.PhoneVerifiedAt))
		got.More.PhoneVerifiedAt, got.UpdatedAt, got.CreatedAt, p.Email = &at, p.UpdatedAt, p.CreatedAt, "ada@example.org"
		require.Equal(t, p, got)

		got.More = storage.PatientMore{}
		require.NoError(t, db.UpdateProfile(ctx, got))
		got, err = db.PatientByID(ctx, p.ID)
		require.NoError(t, err)
		require.Zero(t, got.More)
		second, err := db.PatientByID(ctx, other.ID)
		require.NoError(t, err)
		require.Equal(t, other.FamilyName, second.FamilyName, "nobody else changed")
		require.ErrorIs(t, db.UpdateProfile(ctx, storage.Patient{ID: "nobody"}), storage.ErrNotFound)
	})
}

// The previous release does not know the column more.
func TestAPatientOfThePreviousRelease(t *testing.T) {
	for driver, dsn := range map[string]func(*testing.T) string{
		"sqlite3": func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "patauth.db") },
		"pgx":     func(t *testing.T) string { return storagetest.PostgresURL(t) },
	} {
		t.Run(driver, func(t *testing.T) {
			dsn := dsn(t)
			db := storagetest.Open(t, dsn)
			raw, err := sql.Open(driver, strings.TrimPrefix(dsn, "sqlite:"))
			require.NoError(t, err)
			defer raw.Close()
			_, err = raw.Exec(`INSERT INTO patient (id, email, given_name, family_name, birth_date, locale, webauthn_handle, created_at, updated_at)
				VALUES ('p1', 'ada@example.org', 'Ada', 'Byron', '', '', $1, $2, $2)`, []byte("handle"), storage.Now())
			require.NoError(t, err)
			p, err := db.PatientByEmail(context.Background(), "ada@example.org")
			require.NoError(t, err)
			require.Zero(t, p.More)
		})
	}
}
