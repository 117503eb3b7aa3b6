package login

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

func TestAPatientRegistersAndSignsIn(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) { registerAndSignIn(t, newPlace(t, db)) })
}

func registerAndSignIn(t *testing.T, p *place) {
	b := p.browser()
	request := b.begin()
	b.get("/register?request="+request).is(200, `name="request" value="`+request+`"`)
	b.post("/register", "request", request, "email", " Ada@Example.org", "given-name", "Ada", "family-name", "Byron",
		"bday", "1975-12-10", "new-password", goodPassword).is(200, "Check your mail")

	token := p.token("ada@example.org")
	b.get("/verify-email?token="+token).is(200, "Yes, confirm")
	b.get("/verify-email?token="+token).is(200, "Yes, confirm")
	on := b.post("/verify-email", "token", token).is(200).find(`href="/login\?request=([^"]*)"`)
	b.post("/verify-email", "token", token).is(200, "confirmed") // pressed twice
	b.get("/verify-email?token=" + token).is(410)

	b.get("/login?request="+on).is(200, `name="request" value="`+on+`"`)
	done := b.post("/login", "request", on, "email", "ADA@example.org", "current-password", goodPassword)
	require.Contains(t, done.location, "/oauth2/auth/")
	s := b.session()
	require.Contains(t, s.Factors, session.Password)
	patient, err := p.db.PatientByID(context.Background(), s.PatientID)
	require.NoError(t, err)
	require.Equal(t, "Ada", patient.GivenName)
	require.Equal(t, "1975-12-10", patient.BirthDate)
	require.NotNil(t, patient.EmailVerifiedAt)

	b.post("/login", "to", "labs", "email", "ada@example.org", "current-password", goodPassword).to("/account/labs")
	require.NotEqual(t, s.Digest, b.session().Digest, "the handle is new after every proof")
	b.post("/signout").to("/login")
	live, err := p.db.SessionsOf(context.Background(), s.PatientID)
	require.NoError(t, err)
	require.Empty(t, live)
}

func TestNobodyLearnsWhoHasAnAccount(t *testing.T) {
	p := newSQLitePlace(t)
	p.patient("known@example.org")
	disabled := p.patient("disabled@example.org")
	require.NoError(t, p.db.SetPatientDisabled(context.Background(), disabled.ID, true))
	p.browser().register("waiting@example.org", goodPassword).is(200)

	same := func(path string, status int, form func(email string) []string) {
		t.Helper()
		var first string
		for _, email := range []string{"known@example.org", "disabled@example.org", "waiting@example.org", "unknown@example.org"} {
			answer := p.browser().post(path, form(email)...).is(status)
			body := strings.ReplaceAll(answer.body, email, "X")
			for random, end := range map[string]string{`name="challenge" value="`: `"`, `challenge&#34;:&#34;`: "&"} {
				if before, after, ok := strings.Cut(body, random); ok {
					body = before + after[strings.Index(after, end):]
				}
			}
			if first == "" {
				first = body
			}
			require.Equal(t, first, body, email)
		}
	}
	same("/login", 401, func(email string) []string {
		return []string{"email", email, "current-password", "not the password at all"}
	})
	same("/register", 200, func(email string) []string {
		return []string{"email", email, "given-name", "A", "family-name", "B", "bday", "1980-01-01", "new-password", "kettle moon tulip blue"}
	})
	same("/verify-email/resend", 200, func(email string) []string { return []string{"email", email} })

	p.browser().post("/login", "email", "disabled@example.org", "current-password", goodPassword).is(401, "E-mail or password is wrong")
}

func TestTheRightPasswordOfAWaitingAccountAsksTheMailboxAgain(t *testing.T) {
	p := newSQLitePlace(t)
	b := p.browser()
	b.register("ada@example.org", goodPassword).is(200)
	first := p.token("ada@example.org")
	b.post("/login", "email", "ada@example.org", "current-password", goodPassword).is(200, "Check your mail")
	second := p.token("ada@example.org")
	require.NotEqual(t, first, second)
	b.post("/verify-email", "token", first).is(410)
	b.post("/verify-email/resend", "email", "ada@example.org").is(200, "Check your mail")
	third := p.token("ada@example.org")
	require.NotEqual(t, second, third)
	b.post("/verify-email/resend", "email", "ada@example.org").is(200, "Check your mail")
	require.Equal(t, third, p.token("ada@example.org"), "three mails an hour are enough")
	b.post("/verify-email", "token", third).is(200)
	b.post("/login", "email", "ada@example.org", "current-password", goodPassword).to("/account")
}

func TestNoAccountCanBePreparedForSomebodyElse(t *testing.T) {
	p := newSQLitePlace(t)
	ctx := context.Background()
	attacker := p.browser()
	attacker.register("victim@example.org", "attackers own password").is(200)
	victim, err := p.db.PatientByEmail(ctx, "victim@example.org")
	require.NoError(t, err)
	// Whatever an unverified account may have come by is gone when it is verified.
	require.NoError(t, p.db.AddCredential(ctx, &storage.Credential{PatientID: victim.ID, Kind: storage.KindTOTP, Secret: []byte("x")}))
	now := storage.Now()
	require.NoError(t, p.db.CreateSession(ctx, &storage.Session{
		Digest: storage.Digest("x"), PatientID: victim.ID, AuthTime: now, CreatedAt: now, LastSeenAt: now, ExpiresAt: now.Add(time.Hour),
	}))

	b := p.browser()
	b.register("victim@example.org", goodPassword).is(200)
	b.post("/verify-email", "token", p.token("victim@example.org")).is(200)
	attacker.post("/login", "email", "victim@example.org", "current-password", "attackers own password").is(401)
	b.post("/login", "email", "victim@example.org", "current-password", goodPassword).to("/account")
	has, err := p.db.HasSecondFactor(ctx, victim.ID)
	require.NoError(t, err)
	require.False(t, has)
	live, err := p.db.SessionsOf(ctx, victim.ID)
	require.NoError(t, err)
	require.Len(t, live, 1)

	// Registering a verified address changes nothing about it.
	attacker.register("victim@example.org", "attackers own password").is(200, "Check your mail")
	attacker.post("/login", "email", "victim@example.org", "current-password", "attackers own password").is(401)
}

// Who registers a waiting address again does not get the account of the mailbox's
// owner, who confirms the newest mail.
func TestALinkOpenedElsewhereAsksForThePassword(t *testing.T) {
	p := newSQLitePlace(t)
	victim, attacker := p.browser(), p.browser()
	victim.register("victim@example.org", goodPassword).is(200)
	mine := p.token("victim@example.org")
	victim.get("/verify-email?token=" + mine).is(200)
	attacker.register("victim@example.org", "attackers own password").is(200)
	theirs := p.token("victim@example.org")
	victim.post("/verify-email", "token", mine).is(410)
	victim.get("/verify-email?token="+theirs).is(200, `name="current-password"`)
	victim.post("/verify-email", "token", theirs).is(422, "not the password")
	victim.post("/verify-email", "token", theirs, "current-password", goodPassword).is(422, "not the password")

	// The owner's other browser, with the password.
	victim.register("victim@example.org", goodPassword).is(200)
	again := p.token("victim@example.org")
	other := p.browser()
	other.get("/verify-email?token="+again).is(200, `name="current-password"`)
	for range 4 {
		other.post("/verify-email", "token", again, "current-password", "wrong").is(422)
	}
	other.post("/verify-email", "token", again, "current-password", goodPassword).is(200)
	attacker.post("/login", "email", "victim@example.org", "current-password", "attackers own password").is(401)
	other.post("/login", "email", "victim@example.org", "current-password", goodPassword).to("/account")
}

func TestPasswordGuessingPauses(t *testing.T) {
	p := newSQLitePlace(t)
	p.patient("ada@example.org")
	b := p.browser()
	for range 5 {
		b.post("/login", "email", "ada@example.org", "current-password", "a wrong password").is(401)
	}
	b.post("/login", "email", "ada@example.org", "current-password", goodPassword).is(401, "pauses for a while")
}

// Fifty tabs sign in at once, by a patient who was wrong four times before: each is
// let in or asked to wait, none is told that the password is wrong, and nothing is
// left counted.
func TestManyRightSignInsAtOnce(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		p := newPlace(t, db)
		ada := p.patient("ada@example.org")
		for range 4 {
			p.browser().post("/login", "email", "ada@example.org", "current-password", "a wrong password").is(401)
		}
		var all sync.WaitGroup
		var in, later atomic.Int64
		for range 50 {
			all.Go(func() {
				switch answer := p.browser().post("/login", "email", "ada@example.org", "current-password", goodPassword); answer.status {
				case 303:
					in.Add(1)
				case 503:
					later.Add(1)
					require.NotEmpty(t, answer.header.Get("Retry-After"))
				default:
					t.Errorf("status %d", answer.status)
				}
			})
		}
		all.Wait()
		require.NotZero(t, in.Load())
		require.EqualValues(t, 50, in.Load()+later.Load())
		creds, err := db.Credentials(context.Background(), ada.ID)
		require.NoError(t, err)
		require.Zero(t, creds[0].Failures)
		require.Nil(t, creds[0].RetryAfter)
		p.signedIn("ada@example.org")
	})
}

// Of fifty guesses at once five are checked, however they are spread.
func TestManyGuessesAtOnce(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		p := newPlace(t, db)
		ada := p.patient("ada@example.org")
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				answer := p.browser().post("/login", "email", "ada@example.org", "current-password", "a wrong password")
				if answer.status != 401 && answer.status != 503 {
					t.Errorf("status %d", answer.status)
				}
			})
		}
		all.Wait()
		creds, err := db.Credentials(context.Background(), ada.ID)
		require.NoError(t, err)
		require.LessOrEqual(t, creds[0].Failures, 5)
		require.NotZero(t, creds[0].Failures)
	})
}

// While the line of those whose password is checked is full, nobody is wrong: the
// answer is 503, and counts for nothing.
func TestAFullLineIsNoWrongPassword(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		p := newPlace(t, db)
		ada := p.patient("ada@example.org")
		other := p.browser()
		other.register("eve@example.org", goodPassword).is(200)
		token := p.token("eve@example.org")
		elsewhere := p.browser()
		h := p.login.hasher
		for range cap(h.line) {
			h.line <- struct{}{}
		}
		for range 50 {
			p.browser().post("/login", "email", "ada@example.org", "current-password", goodPassword).is(503)
			elsewhere.post("/verify-email", "token", token, "current-password", goodPassword).is(503)
		}
		for range cap(h.line) {
			<-h.line
		}
		creds, err := db.Credentials(context.Background(), ada.ID)
		require.NoError(t, err)
		require.Zero(t, creds[0].Failures)
		p.signedIn("ada@example.org")
		elsewhere.post("/verify-email", "token", token, "current-password", goodPassword).is(200)
	})
}

func TestWrongFormsAreShownAgain(t *testing.T) {
	p := newSQLitePlace(t)
	b := p.browser()
	b.post("/register", "email", "not an address", "given-name", " ", "family-name", "B<b>", "bday", "2999-01-01", "new-password", "short").
		is(422, "such as name@example.org", "at most 100 characters", "date of birth", "at least 15 characters", `value="not an address"`)
	b.post("/verify-email", "token", "junk").is(410)
	b.get("/verify-email").is(410)
	b.get("/login?request=junk").is(400)
	b.get("/login?to=https://evil.example").is(400)
	b.get("/login/enrol/sms").is(404)
	b.get("/login/second?to=labs").to("/login?to=labs")
	b.get("/login/enrol?to=factors").to("/login?to=factors")
	r, err := b.client.Post(b.url+"/login", "application/json", strings.NewReader("{}"))
	b.page(r, err).is(415)
}

func TestPagesWorkInGermanAndWithoutScript(t *testing.T) {
	p := newSQLitePlace(t)
	b := p.browser()
	page := b.get("/login").is(200, `autocomplete="username webauthn"`, `autocomplete="current-password"`, `type="password"`)
	require.Regexp(t, `(?s)<form method="post" action="/login/passkey"[^>]* hidden>`, page.body)
	require.NotContains(t, page.body, "<script>")

	for _, path := range []string{"/login", "/register", "/verify-email/resend"} {
		r, err := http.NewRequest("GET", b.url+path, nil)
		require.NoError(t, err)
		r.Header.Set("Accept-Language", "de-AT,de;q=0.9")
		answer, err := b.client.Do(r)
		b.page(answer, err).is(200, `<html lang="de">`, "E-Mail-Adresse")
	}
}

func TestAPasswordIsChangedByWhoKnowsIt(t *testing.T) {
	p := newSQLitePlace(t)
	p.patient("ada@example.org")
	other, b := p.signedIn("ada@example.org"), p.signedIn("ada@example.org")
	b.get("/login/password?to=factors").is(200, `autocomplete="new-password"`)
	next := "kettle moon tulip blue"
	b.post("/login/password", "current-password", goodPassword, "new-password", "short").is(422, "at least 15")
	b.post("/login/password", "current-password", "not the right one", "new-password", next).is(422, "not your present password")
	b.post("/login/password", "to", "factors", "current-password", goodPassword, "new-password", next).to("/account/factors")
	b.get("/login/password").is(200)
	other.get("/login/password").to("/login")
	other.post("/login", "email", "ada@example.org", "current-password", goodPassword).is(401)
	other.post("/login", "email", "ada@example.org", "current-password", next).to("/account")

	b.enrolApp()
	p.browser().post("/login/password", "current-password", next, "new-password", goodPassword).to("/login")
	other.post("/login/password", "current-password", next, "new-password", goodPassword).to("/login/second")
}

func TestOneAddressRegisteredManyTimesAtOnce(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		p := newPlace(t, db)
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() { p.browser().register("ada@example.org", goodPassword).is(200, "Check your mail") })
		}
		all.Wait()
		list, err := db.ListPatients(context.Background(), 10, "")
		require.NoError(t, err)
		require.Len(t, list, 1)
	})
}

func TestALinkIsSpentOnceByMany(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		p := newPlace(t, db)
		b := p.browser()
		b.register("ada@example.org", goodPassword).is(200)
		token := p.token("ada@example.org")
		var all sync.WaitGroup
		var confirmed atomic.Int64
		for range 50 {
			all.Go(func() {
				if answer := b.post("/verify-email", "token", token); answer.status == 200 && strings.Contains(answer.body, "confirmed") {
					confirmed.Add(1)
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 50, confirmed.Load(), "all are told the same")
		patient, err := db.PatientByEmail(context.Background(), "ada@example.org")
		require.NoError(t, err)
		c, err := db.LatestChallenge(context.Background(), KindVerifyEmail, patient.ID)
		require.NoError(t, err)
		_, err = db.SpendChallenge(context.Background(), KindVerifyEmail, c.ID, c.Digest, storage.Now())
		require.ErrorIs(t, err, storage.ErrSpent)
	})
}

// What an operator or a stranger said of an address before its mailbox answered
// is not the account's.
func TestTheMailboxStartsWithNothingTold(t *testing.T) {
	p := newSQLitePlace(t)
	waiting := storage.Patient{Email: "ada@example.org", GivenName: "Eve", More: storage.PatientMore{PhoneNumber: "+442079460018"}}
	require.NoError(t, p.db.CreatePatient(t.Context(), &waiting))
	b := p.browser()
	b.register("ada@example.org", goodPassword).is(200)
	b.post("/verify-email", "token", p.token("ada@example.org")).is(200)
	got, err := p.db.PatientByID(t.Context(), waiting.ID)
	require.NoError(t, err)
	require.NotNil(t, got.EmailVerifiedAt)
	require.Equal(t, "Ada", got.GivenName)
	require.Zero(t, got.More)
}

func TestOnlyTheMailboxLearns(t *testing.T) {
	p := newSQLitePlace(t)
	ctx := context.Background()
	mails := func() (kinds []string) {
		rows, err := p.db.ClaimOutbox(ctx, 10, storage.Now())
		require.NoError(t, err)
		for _, o := range rows {
			require.NotContains(t, o.Payload, "@")
			kinds = append(kinds, o.Kind)
		}
		return kinds
	}
	patient := p.patient("ada@example.org")
	require.Equal(t, []string{"verify_email"}, mails())
	p.browser().register("ada@example.org", goodPassword).is(200)
	require.Equal(t, []string{"account_exists"}, mails())
	p.browser().post("/verify-email/resend", "email", "ada@example.org").is(200)
	require.Empty(t, mails())
	b := p.signedIn("ada@example.org")
	b.enrolApp()
	require.Equal(t, []string{"notice"}, mails())
	require.NoError(t, p.db.SetPatientDisabled(ctx, patient.ID, true))
	p.browser().register("ada@example.org", goodPassword).is(200)
	require.Empty(t, mails())
}
