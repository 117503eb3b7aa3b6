package storage_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// labRecord stores a record that can be linked.
func labRecord(t *testing.T, db *storage.DB, value string) *storage.LabIdentity {
	t.Helper()
	require.NoError(t, db.UpsertLabAuthority(t.Context(), storage.LabAuthority{ID: "lab1", Name: "Lab One", OID: "2.999.1", LinkKey: true, Active: true}))
	r := &storage.LabIdentity{
		Authority: "lab1", Value: value, Family: "Muster", Given: "Anna", FamilyKey: "muster", GivenKey: "anna",
		BirthDate: "1980-02-29", BirthPrecision: "day", Sex: "female",
	}
	r.SetVersion("seen", "1")
	require.NoError(t, db.SaveLabIdentities(t.Context(), []*storage.LabIdentity{r}))
	return r
}

func linkPatient(t *testing.T, db *storage.DB) string {
	t.Helper()
	p := storage.Patient{Email: storage.NewID() + "@example.org"}
	require.NoError(t, db.CreatePatient(t.Context(), &p))
	return p.ID
}

func invite(t *testing.T, db *storage.DB, r *storage.LabIdentity) string {
	t.Helper()
	code, err := db.NewInvitation(t.Context(), r.ID, storage.Now().Add(time.Hour))
	require.NoError(t, err)
	return code
}

func TestCodesAreReadAsPeopleWriteThem(t *testing.T) {
	require.Equal(t, "0011ABCDEFGH", storage.NormalCode(" oO1i-abcd efgh "))
	require.Equal(t, "1", storage.NormalCode("l"))
}

func TestRedeemingLinksOnce(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := t.Context(), storage.Now()
		r, p := labRecord(t, db, "1"), linkPatient(t, db)
		code := invite(t, db, r)
		require.Regexp(t, `^[0-9A-HJKMNP-TV-Z]{4}(-[0-9A-HJKMNP-TV-Z]{4}){2}$`, code)

		_, err := db.RedeemInvitation(ctx, p, code, "1980-02-28", now)
		require.ErrorIs(t, err, storage.ErrNotFound, "another birth date")
		_, err = db.RedeemInvitation(ctx, p, "0000-0000-0000", "1980-02-29", now)
		require.ErrorIs(t, err, storage.ErrNotFound, "another code")
		_, err = db.RedeemInvitation(ctx, p, code, "1980-02-29", now.Add(2*time.Hour))
		require.ErrorIs(t, err, storage.ErrNotFound, "too late")

		l, err := db.RedeemInvitation(ctx, p, strings.ToLower(code), "1980-02-29", now)
		require.NoError(t, err)
		got, record, err := db.LinkOf(ctx, p)
		require.NoError(t, err)
		require.Equal(t, l.ID, got.ID)
		require.Equal(t, r.ID, record.ID)
		_, err = db.RedeemInvitation(ctx, linkPatient(t, db), code, "1980-02-29", now)
		require.ErrorIs(t, err, storage.ErrNotFound, "used")
		_, err = db.NewInvitation(ctx, r.ID, now.Add(time.Hour))
		require.ErrorIs(t, err, storage.ErrConflict, "a linked record invites nobody")

		audit, err := db.AuditOf(ctx, p, 10)
		require.NoError(t, err)
		require.Equal(t, "link.made", audit[0].Event)
		wishes, err := db.ClaimOutbox(ctx, 10, now)
		require.NoError(t, err)
		require.Len(t, wishes, 1)
		require.JSONEq(t, `{"patient_id":"`+p+`","notice":"link_made"}`, wishes[0].Payload)
	})
}

func TestRedeemingIsThrottled(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := t.Context(), storage.Now()
		code := invite(t, db, labRecord(t, db, "1"))
		guesser := linkPatient(t, db)
		for range 5 {
			_, err := db.RedeemInvitation(ctx, guesser, code, "1999-01-01", now)
			require.ErrorIs(t, err, storage.ErrNotFound)
		}
		_, err := db.RedeemInvitation(ctx, guesser, code, "1980-02-29", now)
		require.ErrorIs(t, err, storage.ErrNotFound, "five tries are all a code has")

		good := invite(t, db, labRecord(t, db, "2"))
		for range 4 {
			_, err := db.RedeemInvitation(ctx, guesser, "AAAA-AAAA-AAAA", "1999-01-01", now)
			require.ErrorIs(t, err, storage.ErrNotFound)
		}
		_, err = db.RedeemInvitation(ctx, guesser, good, "1980-02-29", now)
		require.ErrorIs(t, err, storage.ErrSpent, "ten tries an hour are all an account has")
		_, err = db.RedeemInvitation(ctx, guesser, good, "1980-02-29", now.Add(59*time.Minute))
		require.ErrorIs(t, err, storage.ErrSpent)
		_, err = db.RedeemInvitation(ctx, linkPatient(t, db), good, "1980-02-29", now)
		require.NoError(t, err, "others are not concerned")
	})
}

func TestOnlyTheNewestCodeCounts(t *testing.T) {
	db := storagetest.SQLite(t)
	r, p := labRecord(t, db, "1"), linkPatient(t, db)
	old, fresh := invite(t, db, r), invite(t, db, r)
	_, err := db.RedeemInvitation(t.Context(), p, old, "1980-02-29", storage.Now())
	require.ErrorIs(t, err, storage.ErrNotFound)
	_, err = db.RedeemInvitation(t.Context(), p, fresh, "1980-02-29", storage.Now())
	require.NoError(t, err)
}

func TestWhatCannotBeLinked(t *testing.T) {
	now := storage.Now()
	db := storagetest.SQLite(t)
	for i, c := range []struct {
		name   string
		change func(*storage.LabIdentity)
	}{
		{"a stub", func(r *storage.LabIdentity) { r.Versions.V = nil }},
		{"a deleted record", func(r *storage.LabIdentity) { r.SetVersion("deleted", "2") }},
		{"a merged record", func(r *storage.LabIdentity) { r.MergedInto = "x" }},
		{"somebody who died", func(r *storage.LabIdentity) { r.Deceased = true }},
		{"an inactive record", func(r *storage.LabIdentity) { r.Inactive = true }},
		{"a held record", func(r *storage.LabIdentity) { r.Hold = "identity-overlay" }},
		{"a flagged record", func(r *storage.LabIdentity) { r.Flag = "dob-invalid" }},
		{"a birth year alone", func(r *storage.LabIdentity) { r.BirthDate, r.BirthPrecision = "1980", "year" }},
		{"no birth date", func(r *storage.LabIdentity) { r.BirthDate, r.BirthPrecision = "", "" }},
		{"a minor", func(r *storage.LabIdentity) { r.BirthDate = now.AddDate(-18, 0, 1).Format(time.DateOnly) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := labRecord(t, db, fmt.Sprint(i))
			code := invite(t, db, r)
			c.change(r)
			born := r.BirthDate
			require.NoError(t, db.SaveLabIdentities(t.Context(), []*storage.LabIdentity{r}))
			_, err := db.RedeemInvitation(t.Context(), linkPatient(t, db), code, born, now)
			require.Error(t, err)
			_, err = db.NewInvitation(t.Context(), r.ID, now.Add(time.Hour))
			require.ErrorIs(t, err, storage.ErrConflict)
		})
	}
}

// crowd runs f fifty times at once and counts the successes; every failure must
// be one of the sentinels.
func crowd(t *testing.T, f func(i int) error, sentinels ...error) int {
	t.Helper()
	var won atomic.Int64
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			err := f(i)
			if err == nil {
				won.Add(1)
				return
			}
			for _, s := range sentinels {
				if errors.Is(err, s) {
					return
				}
			}
			t.Errorf("unexpected: %v", err)
		})
	}
	wg.Wait()
	return int(won.Load())
}

func TestOfFiftyOneRedeems(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := t.Context(), storage.Now()
		var patients [50]string
		for i := range patients {
			patients[i] = linkPatient(t, db)
		}
		t.Run("fifty patients, one code", func(t *testing.T) {
			code := invite(t, db, labRecord(t, db, "1"))
			won := crowd(t, func(i int) error {
				_, err := db.RedeemInvitation(ctx, patients[i], code, "1980-02-29", now)
				return err
			}, storage.ErrNotFound, storage.ErrSpent)
			require.Equal(t, 1, won)
		})
		t.Run("one patient, one code, fifty times", func(t *testing.T) {
			p, code := linkPatient(t, db), invite(t, db, labRecord(t, db, "2"))
			won := crowd(t, func(int) error {
				_, err := db.RedeemInvitation(ctx, p, code, "1980-02-29", now)
				return err
			}, storage.ErrNotFound, storage.ErrSpent)
			require.Equal(t, 1, won)
		})
		t.Run("one patient, many codes", func(t *testing.T) {
			p := linkPatient(t, db)
			var codes [50]string
			for i := range codes {
				codes[i] = invite(t, db, labRecord(t, db, fmt.Sprint("many", i)))
			}
			won := crowd(t, func(i int) error {
				_, err := db.RedeemInvitation(ctx, p, codes[i], "1980-02-29", now)
				return err
			}, storage.ErrConflict, storage.ErrSpent)
			require.Equal(t, 1, won, "one live link a patient")
			links, err := db.Links(ctx, p)
			require.NoError(t, err)
			require.Len(t, links, 1)
		})
	})
}

func TestLinksEndAndAreConfirmed(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := t.Context(), storage.Now()
		r, p := labRecord(t, db, "1"), linkPatient(t, db)
		l, err := db.RedeemInvitation(ctx, p, invite(t, db, r), "1980-02-29", now)
		require.NoError(t, err)

		require.NoError(t, db.CreateClient(ctx, &storage.Client{ID: "portal", AuthMethods: storage.Words{"none"}}))
		grant := storage.Grant{ID: storage.NewID(), ClientID: "portal", PatientID: p, Scopes: storage.Words{"openid", "lab"}, Offline: true, AuthTime: now, CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
		plain := grant
		plain.ID, plain.Scopes = storage.NewID(), storage.Words{"openid"}
		for _, g := range []storage.Grant{grant, plain} {
			require.NoError(t, db.CreateCode(ctx, g, storage.Code{Digest: storage.Digest(g.ID), GrantID: g.ID, ExpiresAt: now.Add(time.Minute)}))
		}

		require.NoError(t, db.Suspend(ctx, l.ID, "identity-overlay", now))
		require.NoError(t, db.Suspend(ctx, l.ID, "again", now), "twice changes nothing")
		_, _, err = db.LinkOf(ctx, p)
		require.ErrorIs(t, err, storage.ErrNotFound)
		_, err = db.Grant(ctx, grant.ID, now)
		require.ErrorIs(t, err, storage.ErrSpent, "what shows lab data ends with the link")
		_, err = db.Grant(ctx, plain.ID, now)
		require.NoError(t, err)

		waiting, err := db.SuspendedLinks(ctx, 10)
		require.NoError(t, err)
		require.Len(t, waiting, 1)
		require.Equal(t, "identity-overlay", waiting[0].Reason)
		require.NoError(t, db.ConfirmLink(ctx, l.ID, now))
		require.ErrorIs(t, db.ConfirmLink(ctx, l.ID, now), storage.ErrSpent)
		_, _, err = db.LinkOf(ctx, p)
		require.NoError(t, err)

		require.ErrorIs(t, db.Unlink(ctx, linkPatient(t, db), l.ID, now), storage.ErrNotFound, "another's link")
		require.NoError(t, db.Unlink(ctx, p, l.ID, now))
		require.ErrorIs(t, db.Unlink(ctx, p, l.ID, now), storage.ErrNotFound)
		_, err = db.RedeemInvitation(ctx, p, invite(t, db, r), "1980-02-29", now)
		require.NoError(t, err, "a new code links anew")
	})
}

func TestReconcilingFindsWhatWasLeftBehind(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := t.Context(), storage.Now()
		one, two, p := labRecord(t, db, "1"), labRecord(t, db, "2"), linkPatient(t, db)
		_, err := db.RedeemInvitation(ctx, p, invite(t, db, one), "1980-02-29", now)
		require.NoError(t, err)
		n, _, err := db.ReconcileLinks(ctx, now, "", 100)
		require.NoError(t, err)
		require.Zero(t, n)

		one.MergedInto = two.ID
		require.NoError(t, db.SaveLabIdentities(ctx, []*storage.LabIdentity{one}))
		n, _, err = db.ReconcileLinks(ctx, now, "", 100)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		_, r, err := db.LinkOf(ctx, p)
		require.NoError(t, err)
		require.Equal(t, two.ID, r.ID)

		two.Hold = "identity-overlay"
		require.NoError(t, db.SaveLabIdentities(ctx, []*storage.LabIdentity{two}))
		n, _, err = db.ReconcileLinks(ctx, now, "", 100)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		_, _, err = db.LinkOf(ctx, p)
		require.ErrorIs(t, err, storage.ErrNotFound)
		held, err := db.HeldLabIdentities(ctx, 10)
		require.NoError(t, err)
		require.Len(t, held, 1)
		require.NoError(t, db.ReleaseLabIdentity(ctx, two.ID))
	})
}

func TestInboxKeepsOnlyWhatIsNeeded(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx, now := t.Context(), storage.Now()
		event := func(id, outcome string) *storage.LabEvent {
			return &storage.LabEvent{Source: "s", EventID: id, PayloadSHA256: []byte(id), Topic: "t", Kind: "upsert", Outcome: outcome, ReceivedAt: now,
				Content: storage.LabContent{Key: []byte("lab1|1"), Value: []byte("GEHEIM"), Headers: []storage.LabHeader{{Key: "k", Value: []byte("v")}}}}
		}
		applied, broken := event("1", storage.LabApplied), event("2", storage.LabQuarantined)
		require.NoError(t, db.AddLabEvents(ctx, []*storage.LabEvent{applied, broken}))
		require.ErrorIs(t, db.AddLabEvents(ctx, []*storage.LabEvent{event("1", storage.LabApplied)}), storage.ErrConflict)
		got, err := db.LabEventByID(ctx, applied.ID)
		require.NoError(t, err)
		require.Empty(t, got.Content.Value, "what was applied is not kept")
		got, err = db.LabEventByID(ctx, broken.ID)
		require.NoError(t, err)
		require.Equal(t, broken.Content, got.Content)
		require.NotContains(t, string(got.Sealed), "GEHEIM")

		seen, err := db.LabEventDigests(ctx, []storage.LabEventKey{{Source: "s", EventID: "1"}, {Source: "s", EventID: "3"}})
		require.NoError(t, err)
		require.Equal(t, map[storage.LabEventKey][]byte{{Source: "s", EventID: "1"}: []byte("1")}, seen)

		_, err = db.TakeLabEvent(ctx, applied.ID)
		require.ErrorIs(t, err, storage.ErrSpent)
		n, err := db.DeleteExpired(ctx, "lab_event", now.Add(61*24*time.Hour), 1)
		require.NoError(t, err)
		require.Equal(t, 1, n)
	})
}
