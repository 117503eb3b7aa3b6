package account

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/storage"
)

// invite makes a lab record and its activation code.
func (p *place) invite(value string) string {
	p.t.Helper()
	ctx := p.t.Context()
	require.NoError(p.t, p.db.UpsertLabAuthority(ctx, storage.LabAuthority{ID: "lab1", Name: "City Lab", LinkKey: true, Active: true}))
	r := storage.LabIdentity{Authority: "lab1", Value: value, Family: "Byron", Given: "Ada", BirthDate: "1975-12-10", BirthPrecision: "day"}
	r.SetVersion("seen", "1")
	require.NoError(p.t, p.db.SaveLabIdentities(ctx, []*storage.LabIdentity{&r}))
	code, err := p.db.NewInvitation(ctx, r.ID, storage.Now().Add(time.Hour))
	require.NoError(p.t, err)
	return code
}

// link gives a patient the record AB123456.
func (p *place) link(patient storage.Patient) storage.Link {
	p.t.Helper()
	l, err := p.db.RedeemInvitation(p.t.Context(), patient.ID, p.invite("AB123456"), "1975-12-10", storage.Now())
	require.NoError(p.t, err)
	return l
}

// grant gives a client a grant of a patient, bound to sid unless offline.
func (p *place) grant(patient storage.Patient, client, sid string, offline bool, scopes ...string) storage.Grant {
	p.t.Helper()
	now := storage.Now()
	g := storage.Grant{
		ID: storage.NewID(), ClientID: client, PatientID: patient.ID, SessionID: sid, Offline: offline, Scopes: scopes,
		AuthTime: now, CreatedAt: now, ExpiresAt: now.Add(time.Hour),
	}
	code := storage.Code{Digest: []byte(g.ID), GrantID: g.ID, RequestedAt: now, ExpiresAt: now.Add(time.Minute)}
	require.NoError(p.t, p.db.CreateCode(p.t.Context(), g, code))
	return g
}

func TestARecordIsLinkedByItsCode(t *testing.T) {
	p := newPlace(t)
	ada := p.patient("ada@example.org", "")
	p.factor(ada, storage.KindTOTP, "")
	b := p.signedIn(ada, 0, session.Password, session.TOTP)
	b.get("/account/labs").is(200, `name="activation-code"`, `autocomplete="off"`, `autocomplete="bday"`)
	code := strings.ToLower(strings.ReplaceAll(p.invite("AB123456"), "-", " "))
	b.post("/account/labs", "activation-code", code, "bday", "1975-12-10").to("/account/labs")
	b.get("/account/labs").is(200, "City Lab", "••••3456")
	b.get("/account").is(200, "••••3456")
}

// Nobody learns from the answer which codes, records or links there are.
func TestEveryRefusalReadsTheSame(t *testing.T) {
	p := newPlace(t)
	ada, eve := p.patient("ada@example.org", ""), p.patient("eve@example.org", "")
	p.factor(ada, storage.KindTOTP, "")
	p.factor(eve, storage.KindTOTP, "")
	b, e := p.signedIn(ada, 0, session.Password, session.TOTP), p.signedIn(eve, 0, session.Password, session.TOTP)
	spent, code := p.invite("AB1"), p.invite("AB2")
	b.post("/account/labs", "activation-code", spent, "bday", "1975-12-10").to("/account/labs")

	want := e.post("/account/labs", "activation-code", "0000-0000-0000", "bday", "1975-12-10").is(422, "could not be linked").body
	for name, form := range map[string][2]string{
		"wrong birth date": {code, "1975-12-11"},
		"no birth date":    {code, ""},
		"spent code":       {spent, "1975-12-10"},
		"no code":          {"", ""},
		"no text of ours":  {strings.Repeat("ü", 5000), "x"},
	} {
		got := e.post("/account/labs", "activation-code", form[0], "bday", form[1]).is(422)
		require.Equal(t, want, got.body, name)
	}
	for range 10 { // the account's hour is used up, and the right code changes nothing
		e.post("/account/labs", "activation-code", "1111-1111-1111", "bday", "1975-12-10")
	}
	got := e.post("/account/labs", "activation-code", code, "bday", "1975-12-10").is(422)
	require.Equal(t, want, got.body)
}

func TestUnlinkingRevokesEveryToken(t *testing.T) {
	p := newPlace(t)
	ada, eve := p.patient("ada@example.org", ""), p.patient("eve@example.org", "")
	p.factor(ada, storage.KindTOTP, "")
	link := p.link(ada)
	client := p.app(ada, "Portal", "openid", "lab")
	b := p.signedIn(ada, 0, session.Password, session.TOTP)
	lab, plain := p.grant(ada, client, b.session.ID, true, "openid", "lab"), p.grant(ada, client, b.session.ID, false, "openid")
	others := p.grant(eve, client, "", true, "openid", "lab")
	p.wished()

	b.post("/account/labs/unlink").to("/account/labs")
	b.get("/account/labs").is(200, `name="activation-code"`)
	_, _, err := p.db.LinkOf(t.Context(), ada.ID)
	require.ErrorIs(t, err, storage.ErrNotFound)
	for _, g := range []storage.Grant{lab, plain} {
		_, err := p.db.Grant(t.Context(), g.ID, storage.Now())
		require.ErrorIs(t, err, storage.ErrSpent)
	}
	_, err = p.db.Grant(t.Context(), others.ID, storage.Now())
	require.NoError(t, err, "somebody else's")
	require.Equal(t, []string{`{"patient_id":"` + ada.ID + `","notice":"link_ended"}`}, p.wished())
	require.Contains(t, p.audited(ada), "link.ended link:"+link.ID)

	b.post("/account/labs/unlink").is(404)
	require.Empty(t, p.wished())
}

func TestASuspendedRecordShowsNothing(t *testing.T) {
	p := newPlace(t)
	ada := p.patient("ada@example.org", "")
	p.factor(ada, storage.KindTOTP, "")
	require.NoError(t, p.db.Suspend(t.Context(), p.link(ada).ID, "merged", storage.Now()))
	b := p.signedIn(ada, 0, session.Password, session.TOTP)
	for _, path := range []string{"/account", "/account/labs"} {
		page := b.get(path).is(200, "is checking this record")
		require.NotContains(t, page.body, "City Lab")
		require.NotContains(t, page.body, "3456")
	}
	b.post("/account/labs/unlink").to("/account/labs")
}

// audited are the audit events about a patient, with their objects.
func (p *place) audited(patient storage.Patient) []string {
	p.t.Helper()
	all, err := p.db.AuditOf(context.Background(), patient.ID, 100)
	require.NoError(p.t, err)
	var out []string
	for _, e := range all {
		out = append(out, e.Event+" "+e.Object)
	}
	return out
}

func TestMask(t *testing.T) {
	for number, want := range map[string]string{
		"": "••••", "1": "••••", "12": "••••2", "12345": "••••45", "AB123456": "••••3456", "ÄÖÜß": "••••Üß", " 123456789012 ": "••••9012",
	} {
		require.Equal(t, want, mask(number), number)
	}
}

func FuzzMask(f *testing.F) {
	f.Add("AB123456")
	f.Fuzz(func(t *testing.T, number string) {
		shown := len([]rune(mask(number))) - 4
		require.LessOrEqual(t, shown, 4)
		require.LessOrEqual(t, 2*shown, len([]rune(number)))
	})
}

// The page was shown to one patient, and another has signed in in the next tab.
func TestALabPageIsNotAnsweredForSomebodyElse(t *testing.T) {
	p := newPlace(t)
	ada, eve := p.patient("ada@example.org", ""), p.patient("eve@example.org", "")
	code := p.invite("AB123456")
	his := p.signedIn(ada, 0, session.Password, session.TOTP)
	mark := regexp.MustCompile(`name="mark" value="([^"]+)"`).FindStringSubmatch(his.get("/account/labs").is(200).body)[1]
	hers := p.signedIn(eve, 0, session.Password, session.TOTP)
	hers.post("/account/labs", "activation-code", code, "bday", "1975-12-10", "mark", mark).to("/account/labs")
	_, _, err := p.db.LinkOf(t.Context(), eve.ID)
	require.ErrorIs(t, err, storage.ErrNotFound)
	his.post("/account/labs", "activation-code", code, "bday", "1975-12-10", "mark", mark).to("/account/labs")
	_, _, err = p.db.LinkOf(t.Context(), ada.ID)
	require.NoError(t, err)
}
