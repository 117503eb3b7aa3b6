package lis

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// lab is a database with the test's authorities, and the offset it is fed at.
type lab struct {
	*testing.T
	db     *storage.DB
	offset int64
}

func newLab(t *testing.T, db *storage.DB) *lab {
	for _, a := range testAuthorities {
		require.NoError(t, db.UpsertLabAuthority(t.Context(), a))
	}
	return &lab{T: t, db: db}
}

// feed applies messages in one batch and returns "outcome" or "outcome:reason" of each.
func (l *lab) feed(messages ...string) []string {
	l.Helper()
	var records []Record
	for _, m := range messages {
		r := hl7Record([]byte(m))
		r.Offset = l.offset
		l.offset++
		records = append(records, r)
	}
	return l.apply(records)
}

func (l *lab) apply(records []Record) []string {
	l.Helper()
	outcomes, err := ApplyRecords(l.Context(), l.db, records, Reading{})
	require.NoError(l, err)
	var out []string
	for _, o := range outcomes {
		s := o.Outcome
		if o.Reason != "" {
			s += ":" + o.Reason
		}
		out = append(out, s)
	}
	return out
}

// file feeds a sequence of the corpus, one message at a time.
func (l *lab) file(name string) []string {
	l.Helper()
	b, err := os.ReadFile("testdata/hl7v2/derived/" + name)
	require.NoError(l, err)
	var out []string
	for _, m := range bytes.Split(b, []byte{0x1e}) {
		out = append(out, l.feed(string(m))...)
	}
	return out
}

func (l *lab) record(value string) storage.LabIdentity {
	l.Helper()
	r, err := l.db.LabIdentityByKey(l.Context(), storage.LabKey{Authority: "lab1", Value: value})
	require.NoError(l, err)
	return r
}

// patient makes an account and links it to a record, as its owner does.
func (l *lab) patient(value string) (patientID string) {
	l.Helper()
	ctx := l.Context()
	p := storage.Patient{Email: storage.NewID() + "@example.org"}
	require.NoError(l, l.db.CreatePatient(ctx, &p))
	if value == "" {
		return p.ID
	}
	r := l.record(value)
	code, err := l.db.NewInvitation(ctx, r.ID, storage.Now().Add(time.Hour))
	require.NoError(l, err)
	_, err = l.db.RedeemInvitation(ctx, p.ID, code, r.BirthDate, storage.Now())
	require.NoError(l, err)
	return p.ID
}

// links is a patient's links, the newest first: "state:reason value".
func (l *lab) links(patientID string) []string {
	l.Helper()
	all, err := l.db.Links(l.Context(), patientID)
	require.NoError(l, err)
	var out []string
	for _, k := range all {
		r, err := l.db.LabIdentityByID(l.Context(), k.LabIdentityID)
		require.NoError(l, err)
		out = append(out, strings.TrimSuffix(k.State+":"+k.Reason, ":")+" "+r.Value)
	}
	return out
}

// adt is an ADT message at a second of the day.
func adtMessage(code string, second int, segments ...string) string {
	at := testNow.Add(time.Duration(second) * time.Second).Format("20060102150405")
	return fmt.Sprintf("MSH|^~\\&|LIS|LAB1|||%s||ADT^%s|%s-%d|P|2.5.1\rEVN|%s|%s\r%s\r", at, code, code, second, code, at, strings.Join(segments, "\r"))
}

const anna = "MUSTER^ANNA||19800229|F"

func pid(value, rest string) string { return "PID|1||" + value + "^^^LAB1&2.999.1&ISO^MR||" + rest }
func mrg(value string) string       { return "MRG|" + value + "^^^LAB1&2.999.1&ISO^MR" }

func TestSequencesOfTheCorpus(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		l := newLab(t, db)
		t.Run("cycle", func(t *testing.T) {
			l := newLab(t, l.db)
			require.Equal(t, []string{"applied", "applied", "applied", "review:cycle"}, l.file("seq-02-cycle.hl7"))
			require.Equal(t, storage.LabMerged, l.record("1").Status)
			require.Equal(t, storage.LabActive, l.record("2").Status)
		})
	})
	for _, c := range []struct {
		file     string
		outcomes []string
		check    func(*lab)
	}{
		{"seq-03-merge-before-create.hl7", []string{"applied", "applied", "applied"}, func(l *lab) {
			require.Equal(l, l.record("2").ID, l.record("1").MergedInto)
			require.Equal(l, "MUSTER", l.record("1").Family, "the snapshot of the record that ended is kept")
			require.Equal(l, storage.LabActive, l.record("2").Status)
		}},
		{"seq-05-stale-update.hl7", []string{"applied", "applied", "stale"}, func(l *lab) {
			require.Equal(l, "NEW NAME", l.record("1").Family+" "+l.record("1").Given)
		}},
		{"seq-07-same-control-id-other-content.hl7", []string{"applied", "review:control-id-reuse"}, func(l *lab) {
			_, err := l.db.LabIdentityByKey(l.Context(), storage.LabKey{Authority: "lab1", Value: "2"})
			require.ErrorIs(l, err, storage.ErrNotFound)
		}},
		{"seq-08-delete-then-update.hl7", []string{"applied", "applied", "review:update-after-delete"}, func(l *lab) {
			require.Equal(l, storage.LabDeleted, l.record("1").Status)
		}},
		{"seq-09-unmerge.hl7", []string{"applied", "applied", "applied", "applied"}, func(l *lab) {
			for _, v := range []string{"1", "2"} {
				require.Equal(l, storage.LabActive, l.record(v).Status)
				require.Equal(l, "unmerged", l.record(v).Hold, "no link without staff")
			}
		}},
		{"seq-10-identity-swap.hl7", []string{"applied", "review:identity-overlay"}, func(l *lab) {
			require.Equal(l, "identity-overlay", l.record("1").Hold)
		}},
		{"mrg-01-simple.hl7", []string{"applied"}, func(l *lab) {
			require.Equal(l, l.record("200").ID, l.record("100").MergedInto)
			require.Equal(l, storage.LabStub, l.record("200").Status, "a merge describes nobody")
		}},
		{"mrg-03-cross-authority.hl7", []string{"review:cross-authority-merge"}, nil},
		{"mrg-09-a47-change-id.hl7", []string{"applied"}, nil},
		{"pid-01-no-aa.hl7", []string{"review:no-assigning-authority"}, nil},
		{"enc-02-latin1-undeclared.hl7", []string{"quarantined:charset"}, nil},
		{"ctl-02-training.hl7", []string{"quarantined:non-production"}, nil},
	} {
		t.Run(strings.TrimSuffix(c.file, ".hl7"), func(t *testing.T) {
			l := newLab(t, storagetest.SQLite(t))
			require.Equal(t, c.outcomes, l.file(c.file))
			if c.check != nil {
				c.check(l)
			}
		})
	}
}

func TestUnknownAuthoritiesMakeNoRecords(t *testing.T) {
	l := newLab(t, storagetest.SQLite(t))
	require.Equal(t, []string{"review:unknown-authority"}, l.feed(adtMessage("A28", 0, "PID|1||1^^^ELSEWHERE||"+anna)))
	_, err := l.db.LabIdentityByKey(t.Context(), storage.LabKey{Authority: "ELSEWHERE", Value: "1"})
	require.ErrorIs(t, err, storage.ErrNotFound)
	held, err := l.db.LabEvents(t.Context(), storage.LabReview, 10)
	require.NoError(t, err)
	require.Len(t, held, 1)
}

func TestOnlyOwnersChangeRecords(t *testing.T) {
	l := newLab(t, storagetest.SQLite(t))
	a := testAuthorities[0]
	a.Sources = []string{"ELSEWHERE/X"}
	require.NoError(t, l.db.UpsertLabAuthority(t.Context(), a))
	require.Equal(t, []string{"review:not-owner"}, l.feed(adtMessage("A28", 0, pid("1", anna))))
}

func TestTheFeedNeverLinks(t *testing.T) {
	l := newLab(t, storagetest.SQLite(t))
	p := storage.Patient{Email: "anna@example.org", GivenName: "ANNA", FamilyName: "MUSTER", BirthDate: "1980-02-29"}
	require.NoError(t, l.db.CreatePatient(t.Context(), &p))
	l.feed(adtMessage("A28", 0, pid("1", anna)), adtMessage("A28", 1, pid("2", anna)), adtMessage("A40", 2, pid("2", anna), mrg("1")))
	require.Empty(t, l.links(p.ID))
}

func TestLinksFollowTheirRecords(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		l := newLab(t, db)
		// Each case has records and a patient of its own: n distinguishes them.
		n := 100
		start := func(t *testing.T) (*lab, string, string, string) {
			n += 2
			l := &lab{T: t, db: db, offset: l.offset + int64(n*100)}
			one, two := fmt.Sprint(n), fmt.Sprint(n+1)
			require.Equal(t, []string{"applied"}, l.feed(adtMessage("A28", n*100, pid(one, anna))))
			return l, one, two, l.patient(one)
		}
		later := func(code string, k int, segments ...string) string { return adtMessage(code, n*100+k, segments...) }

		t.Run("a merge moves the link", func(t *testing.T) {
			l, one, two, p := start(t)
			l.feed(later("A28", 1, pid(two, anna)), later("A40", 2, pid(two, anna), mrg(one)))
			require.Equal(t, []string{"linked " + two, "moved " + one}, l.links(p))
			_, r, err := db.LinkOf(t.Context(), p)
			require.NoError(t, err)
			require.Equal(t, two, r.Value)
		})
		t.Run("a chain of merges in one batch moves it to the end", func(t *testing.T) {
			l, one, two, p := start(t)
			end := two + "9"
			l.feed(later("A28", 1, pid(two, anna)), later("A28", 2, pid(end, anna)),
				later("A40", 3, pid(two, anna), mrg(one)), later("A40", 4, pid(end, anna), mrg(two)))
			require.Equal(t, []string{"linked " + end, "moved " + one}, l.links(p))
		})
		t.Run("a merge into somebody else suspends it", func(t *testing.T) {
			l, one, two, p := start(t)
			l.feed(later("A28", 1, pid(two, "OTHER^PERSON||19551212|M")), later("A40", 2, pid(two, anna), mrg(one)))
			require.Equal(t, []string{"suspended:merge-incompatible " + one}, l.links(p))
			_, _, err := db.LinkOf(t.Context(), p)
			require.ErrorIs(t, err, storage.ErrNotFound)
		})
		t.Run("a merge into another patient's record suspends both", func(t *testing.T) {
			l, one, two, p := start(t)
			l.feed(later("A28", 1, pid(two, anna)))
			q := l.patient(two)
			l.feed(later("A40", 2, pid(two, anna), mrg(one)))
			require.Equal(t, []string{"suspended:merge-conflict " + one}, l.links(p))
			require.Equal(t, []string{"suspended:merge-conflict " + two}, l.links(q))
		})
		t.Run("a merge into a record not yet described waits for it", func(t *testing.T) {
			l, one, two, p := start(t)
			l.feed(later("A40", 2, pid(two, anna), mrg(one)))
			require.Equal(t, []string{"suspended:merge-pending " + one}, l.links(p))
			l.feed(later("A28", 1, pid(two, anna)))
			require.Equal(t, []string{"linked " + two, "moved " + one}, l.links(p))
		})
		t.Run("but not for ever", func(t *testing.T) {
			l, one, two, p := start(t)
			l.feed(later("A40", 2, pid(two, anna), mrg(one)))
			_, _, err := db.ReconcileLinks(t.Context(), storage.Now().Add(time.Hour), "", 100)
			require.NoError(t, err)
			l.feed(later("A28", 1, pid(two, anna)))
			require.Equal(t, []string{"suspended:merge-incompatible " + one}, l.links(p))
		})
		t.Run("a new number moves the link", func(t *testing.T) {
			l, one, two, p := start(t)
			require.Equal(t, []string{"applied"}, l.feed(later("A47", 1, pid(two, anna), mrg(one))))
			require.Equal(t, []string{"linked " + two, "moved " + one}, l.links(p))
		})
		t.Run("an undone merge suspends it", func(t *testing.T) {
			l, one, two, p := start(t)
			l.feed(later("A28", 1, pid(two, anna)), later("A40", 2, pid(two, anna), mrg(one)))
			l.feed(later("A37", 3, pid(one, anna), pid(two, anna)))
			require.Equal(t, []string{"suspended:unmerged " + two, "moved " + one}, l.links(p))
		})
		t.Run("a deleted record suspends it, and ends it after a month", func(t *testing.T) {
			l, one, _, p := start(t)
			l.feed(later("A29", 1, pid(one, anna)))
			require.Equal(t, []string{"suspended:record-deleted " + one}, l.links(p))
			_, _, err := db.ReconcileLinks(t.Context(), storage.Now().Add(31*24*time.Hour), "", 100)
			require.NoError(t, err)
			require.Equal(t, []string{"unlinked:record-deleted " + one}, l.links(p))
		})
		t.Run("an overlay suspends it", func(t *testing.T) {
			l, one, _, p := start(t)
			l.feed(later("A08", 1, pid(one, "OTHER^PERSON||19551212|M")))
			require.Equal(t, []string{"suspended:identity-overlay " + one}, l.links(p))
		})
		t.Run("a marriage does not", func(t *testing.T) {
			l, one, _, p := start(t)
			require.Equal(t, []string{"applied"}, l.feed(later("A08", 1, pid(one, "NEU^ANNA||19800229|F"))))
			require.Equal(t, []string{"linked " + one}, l.links(p))
		})
		t.Run("an inactive record suspends it", func(t *testing.T) {
			l, one, _, p := start(t)
			r := fhirRecord([]byte(`{"resourceType":"Patient","meta":{"versionId":"2"},"identifier":[{"system":"urn:oid:2.999.1","value":"` + one + `"}],"active":false}`))
			require.Equal(t, []string{"applied"}, l.apply([]Record{r}))
			require.Equal(t, []string{"suspended:record-inactive " + one}, l.links(p))
		})
		t.Run("a death suspends it and shuts the account without a mail", func(t *testing.T) {
			l, one, _, p := start(t)
			l.feed(later("A08", 1, pid(one, anna+strings.Repeat("|", 22)+"Y")))
			require.Equal(t, []string{"suspended:deceased " + one}, l.links(p))
			events, err := db.AuditOf(t.Context(), p, 2)
			require.NoError(t, err)
			for _, e := range events {
				require.Contains(t, []string{"link.suspended", "patient.disabled"}, e.Event)
				require.Equal(t, storage.LIS, e.Actor, "not an operator's, nor the patient's")
			}
			who, err := db.PatientByID(t.Context(), p)
			require.NoError(t, err)
			require.NotNil(t, who.DisabledAt)
		})
		t.Run("a result does neither", func(t *testing.T) {
			l, one, _, p := start(t)
			m := strings.Replace(later("A08", 1, pid(one, "X^Y||19990101|M"+strings.Repeat("|", 22)+"Y")), "ADT^A08", "ORU^R01", 1)
			require.Equal(t, []string{"stale"}, l.feed(m), "weak news never overwrite")
			require.Equal(t, []string{"linked " + one}, l.links(p))
		})
	})
}

func TestProtectionsSurviveMerges(t *testing.T) {
	l := newLab(t, storagetest.SQLite(t))
	l.feed(adtMessage("A28", 0, pid("1", anna)), adtMessage("A28", 1, pid("2", anna)))
	p := l.patient("2")
	l.feed(adtMessage("A08", 2, pid("1", anna+strings.Repeat("|", 22)+"Y")), adtMessage("A40", 3, pid("2", anna), mrg("1")))
	require.Equal(t, []string{"suspended:merge-protected 2"}, l.links(p))
}

func TestWhatIsFlaggedCannotBeLinked(t *testing.T) {
	l := newLab(t, storagetest.SQLite(t))
	invite := func(value string) error {
		_, err := l.db.NewInvitation(t.Context(), l.record(value).ID, storage.Now().Add(time.Hour))
		return err
	}
	require.Equal(t, []string{"review:dob-invalid"}, l.feed(adtMessage("A28", 0, pid("1", "MUSTER^ANNA||19810229|F"))))
	require.ErrorIs(t, invite("1"), storage.ErrConflict)
	require.Equal(t, []string{"applied"}, l.feed(adtMessage("A08", 1, pid("1", anna))))
	require.NoError(t, invite("1"), "a clean message clears the flag")
	require.Equal(t, []string{"review:placeholder"}, l.feed(adtMessage("A28", 2, pid("2", "DOE^JANE||19800229|F"))))
	require.ErrorIs(t, invite("2"), storage.ErrConflict)
	l.feed(adtMessage("A28", 3, pid("3", "MUSTER^ANNA||1980|F")))
	require.ErrorIs(t, invite("3"), storage.ErrConflict, "the birth date must be known to the day")
	l.feed(adtMessage("A28", 4, pid("4", "MUSTER^KIND||20200101|F")))
	require.ErrorIs(t, invite("4"), storage.ErrConflict, "minors are not linked by themselves")
}

// state is everything the feed decides about records and links.
func (l *lab) state(values ...string) string {
	l.Helper()
	var b strings.Builder
	for _, v := range values {
		r, err := l.db.LabIdentityByKey(l.Context(), storage.LabKey{Authority: "lab1", Value: v})
		if err != nil {
			require.ErrorIs(l, err, storage.ErrNotFound)
			continue
		}
		merged := r.MergedInto
		if merged != "" {
			into, err := l.db.LabIdentityByID(l.Context(), merged)
			require.NoError(l, err)
			merged = into.Value
		}
		versions := maps.Clone(r.Versions.V)
		for k, v := range versions { // the offset differs by order; the rest may not
			versions[k] = v[:strings.LastIndex(v[:strings.LastIndex(v, "/")], "/")]
		}
		fmt.Fprintln(&b, r.Value, r.Status, merged, r.Family, r.Given, r.BirthDate, r.BirthPrecision, r.Sex, r.Deceased, r.Inactive, r.Flag, r.Hold, versions)
	}
	return b.String()
}

// TestOrderAndRepetitionDoNotCount applies logs of updates, whole and partial,
// strong and weak, clean and flagged, shuffled and with repetitions.
func TestOrderAndRepetitionDoNotCount(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		values := []string{"1", "2", "3"}
		var log []string
		for i := range 40 {
			name := []string{"MUSTER^ANNA", "NEU^ANNA", `""`, "", "MUSTER^ANNA^MARIA", `MUS\TER^ANNA`}[rng.IntN(6)]
			born := []string{"19800229", "19800228", "1980", "19810229", "", `""`}[rng.IntN(6)]
			m := adtMessage("A08", i, pid(values[rng.IntN(3)], name+"||"+born+"|F"+strings.Repeat("|", 22)+[]string{"", "N"}[rng.IntN(2)]))
			if rng.IntN(4) == 0 {
				m = strings.Replace(m, "ADT^A08", "ORU^R01", 1)
			}
			log = append(log, m)
		}
		inOrder := newLab(t, storagetest.SQLite(t))
		inOrder.feed(log...)
		want := inOrder.state(values...)

		shuffled := append(append([]string{}, log...), log[:20]...)
		rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		other := newLab(t, storagetest.SQLite(t))
		for len(shuffled) > 0 {
			n := min(1+rng.IntN(9), len(shuffled))
			other.feed(shuffled[:n]...)
			shuffled = shuffled[n:]
		}
		require.Equal(t, want, other.state(values...), "seed %d", seed)
	}
}

func TestApplyingALogTwiceIsApplyingItOnce(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		l := newLab(t, db)
		l.feed(adtMessage("A28", 0, pid("1", anna)), adtMessage("A28", 1, pid("2", anna)))
		p := l.patient("1")
		log := []string{
			adtMessage("A08", 2, pid("1", "NEU^ANNA||19800229|F")), adtMessage("A40", 3, pid("2", anna), mrg("1")),
			adtMessage("A28", 4, pid("3", anna)), adtMessage("A40", 5, pid("3", anna), mrg("2")),
			adtMessage("A40", 6, pid("1", anna), mrg("3")), "garbage", adtMessage("A29", 7, pid("3", anna)),
		}
		first := l.feed(log...)
		require.Equal(t, []string{"applied", "applied", "applied", "applied", "review:cycle", "quarantined:format", "applied"}, first)
		want, links := l.state("1", "2", "3"), l.links(p)
		audit, err := db.AuditOf(t.Context(), p, 100)
		require.NoError(t, err)
		for _, o := range l.feed(log...) {
			require.Equal(t, "duplicate", o)
		}
		require.Equal(t, want, l.state("1", "2", "3"))
		require.Equal(t, links, l.links(p))
		again, err := db.AuditOf(t.Context(), p, 100)
		require.NoError(t, err)
		require.Equal(t, audit, again)
	})
}

func TestNothingIsAppliedWhereTheTransactionFails(t *testing.T) {
	l := newLab(t, storagetest.SQLite(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := ApplyRecords(ctx, l.db, []Record{hl7Record([]byte(adtMessage("A28", 0, pid("1", anna))))}, Reading{})
	require.Error(t, err)
	require.Empty(t, l.state("1"))
}
