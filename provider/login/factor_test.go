package login

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-webauthn/webauthn/protocol/webauthncbor"
	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// app is the patient's authenticator app.
type app struct {
	seed  []byte
	first string // the code it was set up with: of the step before, so that the present one is left
}

func (a app) code(back int64) string { return totpCode(a.seed, totpStep(storage.Now())-back) }

// enrolApp sets up an authenticator app.
func (b *browser) enrolApp() app {
	b.t.Helper()
	page := b.get("/login/enrol/totp?to=factors").is(200, "data:image/png;base64,", `href="otpauth://totp/localhost:`)
	seed, err := seedText.DecodeString(page.find(`<code id="totp-secret">([A-Z2-7]+)</code>`))
	require.NoError(b.t, err)
	a := app{seed: seed}
	a.first = a.code(1)
	b.post("/login/enrol/totp", "to", "factors", "challenge", page.challenge(), "one-time-code", a.first).to("/account/factors")
	return a
}

func TestAnAppIsSetUpAndAskedFor(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) { setUpAndAsk(t, newPlace(t, db)) })
}

func setUpAndAsk(t *testing.T, p *place) {
	p.patient("ada@example.org")
	b := p.signedIn("ada@example.org")
	b.get("/login/second").to("/login/enrol")
	b.get("/login/enrol").is(200, "/login/enrol/totp", "/login/enrol/passkey")
	before := b.session()
	a := b.enrolApp()
	require.Contains(t, b.session().Factors, session.TOTP, "setting up proves it")
	require.NotEqual(t, before.Digest, b.session().Digest)

	b = p.signedIn("ada@example.org")
	b.get("/login/enrol").to("/login/second")
	b.get("/login/second?to=labs").is(200, `autocomplete="one-time-code"`, `inputmode="numeric"`)
	b.post("/login/second", "factor", "totp", "one-time-code", a.first).is(401)
	code := a.code(0)
	b.post("/login/second", "to", "labs", "factor", "totp", "one-time-code", " "+code[:3]+" "+code[3:]).to("/account/labs")
	require.Equal(t, session.ACRTwoFactor, session.ACR(new(b.session())))

	other := p.signedIn("ada@example.org")
	other.post("/login/second", "factor", "totp", "one-time-code", code).is(401)
}

func TestASeedIsConfirmedByItsOwnSession(t *testing.T) {
	p := newSQLitePlace(t)
	p.patient("ada@example.org")
	b := p.signedIn("ada@example.org")
	page := b.get("/login/enrol/totp").is(200)
	seed, err := seedText.DecodeString(page.find(`<code id="totp-secret">([A-Z2-7]+)</code>`))
	require.NoError(t, err)
	code := app{seed: seed}.code(0)
	again := b.post("/login/enrol/totp", "challenge", page.challenge(), "one-time-code", "000000000").is(422, "did not work")
	require.Equal(t, page.challenge(), again.challenge(), "the seed stays when the code was mistyped")

	other := p.signedIn("ada@example.org")
	stolen := other.post("/login/enrol/totp", "challenge", page.challenge(), "one-time-code", code).is(422)
	require.NotContains(t, stolen.body, page.find(`<code id="totp-secret">([A-Z2-7]+)</code>`))

	b.post("/login/enrol/totp", "challenge", page.challenge(), "one-time-code", code).to("/account")
	b.post("/login/enrol/totp", "challenge", page.challenge(), "one-time-code", code).is(422)
}

func TestFiveTriesAndTheSessionEnds(t *testing.T) {
	p := newSQLitePlace(t)
	patient := p.patient("ada@example.org")
	p.signedIn("ada@example.org").enrolApp()
	b := p.signedIn("ada@example.org")
	for range 5 {
		b.post("/login/second", "factor", "totp", "one-time-code", "abc").is(401)
	}
	b.post("/login/second", "to", "labs", "factor", "totp", "one-time-code", "abc").is(401, "wrong too often", `value="labs"`)
	b.get("/login/second").to("/login")
	all, err := p.db.Credentials(context.Background(), patient.ID)
	require.NoError(t, err)
	require.Equal(t, 5, all[1].Failures)
	require.NotNil(t, all[1].RetryAfter, "and the app's codes rest, whatever the session")
}

func TestAPasskeyIsSetUpAndAskedFor(t *testing.T) {
	p := newSQLitePlace(t)
	p.patient("ada@example.org")
	b := p.signedIn("ada@example.org")
	key := newKey(p.site.Issuer)
	page := b.get("/login/enrol/passkey?to=factors").is(200)
	answer := key.create(t, page.options())
	b.post("/login/enrol/passkey", "to", "factors", "challenge", page.challenge(), "credential", answer).to("/account/factors")
	require.Equal(t, session.ACRPhishingResistant, session.ACR(new(b.session())))
	b.post("/login/enrol/passkey", "challenge", page.challenge(), "credential", answer).is(422)
	require.Contains(t, b.get("/login/enrol/passkey").options(), "excludeCredentials")

	b = p.signedIn("ada@example.org")
	page = b.get("/login/second").is(200)
	answer = key.get(t, page.options())
	other := p.signedIn("ada@example.org")
	other.get("/login/second").is(200)
	other.post("/login/second", "factor", "passkey", "challenge", page.challenge(), "credential", answer).is(401)
	b.post("/login/second", "factor", "passkey", "challenge", page.challenge(), "credential", answer).to("/account")
	require.Equal(t, session.ACRPhishingResistant, session.ACR(new(b.session())))

	// By itself, in a browser that knows nobody.
	b = p.browser()
	page = b.get("/login").is(200)
	require.NotContains(t, page.options(), "allowCredentials")
	answer = key.get(t, page.options())
	p.browser().post("/login/passkey", "challenge", page.challenge(), "credential", answer).is(401)
	page = b.get("/login").is(200)
	answer = key.get(t, page.options())
	b.post("/login/passkey", "to", "labs", "challenge", page.challenge(), "credential", answer).to("/account/labs")
	require.Equal(t, []string{"swk", "user", "mfa"}, session.AMR(new(b.session())))
	b.post("/login/passkey", "challenge", page.challenge(), "credential", answer).is(401, "could not be accepted")
}

func TestForgedPasskeyAnswersAreRefused(t *testing.T) {
	p := newSQLitePlace(t)
	p.patient("ada@example.org")
	b := p.signedIn("ada@example.org")
	key := newKey(p.site.Issuer)
	page := b.get("/login/enrol/passkey").is(200)
	b.post("/login/enrol/passkey", "challenge", page.challenge(), "credential", key.create(t, page.options())).to("/account")

	for name, forge := range map[string]func(k *softKey){
		"another origin":         func(k *softKey) { k.origin = "https://evil.example" },
		"another relying party":  func(k *softKey) { k.rpID = "evil.example" },
		"user not verified":      func(k *softKey) { k.flags &^= flagUV },
		"user not present":       func(k *softKey) { k.flags &^= flagUP },
		"another key":            func(k *softKey) { k.private = newKey("http://localhost").private },
		"another user handle":    func(k *softKey) { k.handle = []byte(strings.Repeat("x", 64)) },
		"backup eligible now":    func(k *softKey) { k.flags |= flagBE },
		"backed up, not allowed": func(k *softKey) { k.flags |= flagBS },
		"a count gone back":      func(k *softKey) { k.count = 0; k.step = 0 },
		"another type":           func(k *softKey) { k.kind = "webauthn.create" },
		"cross origin":           func(k *softKey) { k.cross = true },
	} {
		t.Run(name, func(t *testing.T) {
			forged := *key
			forged.count += 10
			forge(&forged)
			b := p.browser()
			page := b.get("/login")
			b.post("/login/passkey", "challenge", page.challenge(), "credential", forged.get(t, page.options())).is(401)
		})
	}
	b = p.browser()
	page = b.get("/login")
	b.post("/login/passkey", "challenge", page.challenge(), "credential", "{").is(401)
	page = b.get("/login")
	key.count += 20
	b.post("/login/passkey", "challenge", page.challenge(), "credential", key.get(t, page.options())).to("/account")

	// One credential id belongs to one patient.
	p.patient("eve@example.org")
	eve := p.signedIn("eve@example.org")
	page = eve.get("/login/enrol/passkey")
	eve.post("/login/enrol/passkey", "challenge", page.challenge(), "credential", key.create(t, page.options())).is(422)
}

func TestATouchedKeyIsOneFactor(t *testing.T) {
	p := newSQLitePlace(t)
	p.patient("ada@example.org")
	b := p.signedIn("ada@example.org")
	key := newKey(p.site.Issuer)
	key.flags &^= flagUV
	page := b.get("/login/enrol/passkey")
	b.post("/login/enrol/passkey", "challenge", page.challenge(), "credential", key.create(t, page.options())).to("/account")
	require.NotContains(t, b.session().Factors, session.PasskeyUV)
	require.Equal(t, session.ACRPhishingResistant, session.ACR(new(b.session())), "with the password it is two")
}

func TestACodeIsAcceptedOnceByMany(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		p := newPlace(t, db)
		p.patient("ada@example.org")
		a := p.signedIn("ada@example.org").enrolApp()
		var browsers []*browser
		for range 10 {
			browsers = append(browsers, p.signedIn("ada@example.org"))
		}
		code := a.code(0)
		var all sync.WaitGroup
		var accepted atomic.Int64
		for _, b := range browsers {
			all.Go(func() {
				if b.post("/login/second", "factor", "totp", "one-time-code", code).status == 303 {
					accepted.Add(1)
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 1, accepted.Load())
	})
}

// Fifty forms of one patient, with one code: it is accepted once, the session
// does not end, and nothing is left counted against the app.
func TestManyRightCodesAtOnce(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		p := newPlace(t, db)
		ada := p.patient("ada@example.org")
		a := p.signedIn("ada@example.org").enrolApp()
		b := p.signedIn("ada@example.org")
		code := a.code(0)
		var all sync.WaitGroup
		var accepted atomic.Int64
		for i := range 50 {
			all.Go(func() {
				// Each another one: the same form would be answered as one press.
				switch answer := b.post("/login/second", "factor", "totp", "one-time-code", code, "n", strconv.Itoa(i)); answer.status {
				case 303:
					if answer.location == "/account" {
						accepted.Add(1)
					}
				case 401, 429:
				default:
					t.Errorf("status %d", answer.status)
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 1, accepted.Load())
		creds, err := db.Credentials(context.Background(), ada.ID)
		require.NoError(t, err)
		for _, c := range creds {
			require.Zero(t, c.Failures, c.Kind)
		}
		live, err := db.SessionsOf(context.Background(), ada.ID)
		require.NoError(t, err)
		require.Len(t, live, 2)
	})
}

// A key that cannot sign with the algorithm it names is not kept.
func TestAKeyIsOfItsAlgorithmsType(t *testing.T) {
	x := make([]byte, 32)
	for _, row := range []struct {
		key  map[int]any
		good bool
	}{
		{map[int]any{1: 2, 3: -7, -1: 1, -2: x, -3: x}, false}, // a point that is not on the curve
		{map[int]any{1: 1, 3: -8, -1: 6, -2: x}, true},
		{map[int]any{1: 1, 3: -7, -1: 6, -2: x}, false},
		{map[int]any{1: 3, 3: -257, -1: bytes.Repeat([]byte{0xfd}, 256), -2: []byte{1, 0, 1}}, true},
		{map[int]any{1: 3, 3: -7, -1: bytes.Repeat([]byte{0xfd}, 256), -2: []byte{1, 0, 1}}, false},
	} {
		cose, err := webauthncbor.Marshal(row.key)
		require.NoError(t, err)
		require.Equal(t, row.good, usableKey(cose), row.key)
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	point, err := k.PublicKey.Bytes()
	require.NoError(t, err)
	for alg, good := range map[int]bool{-7: true, -257: false, -8: false} {
		cose, err := webauthncbor.Marshal(map[int]any{1: 2, 3: alg, -1: 1, -2: point[1:33], -3: point[33:]})
		require.NoError(t, err)
		require.Equal(t, good, usableKey(cose), alg)
	}
}
