package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
)

// everyClaim is a patient who told everything.
const everyClaim = `{
	"email": "Ada@Example.org", "email_verified": true, "given_name": "Ada", "middle_name": "Augusta", "family_name": "King",
	"nickname": "Lovelace", "preferred_username": "ada", "profile": "https://people.example/ada",
	"picture": "https://people.example/ada.jpg", "website": "https://ada.example/", "gender": "female", "birthdate": "1975-12-10",
	"zoneinfo": "Europe/London", "locale": "en", "phone_number": "+44 (0)20 7946 0018", "phone_number_verified": true,
	"address": {"street_address": "12 St James's Square\nFlat 3", "locality": "London", "region": "Greater London",
		"postal_code": "SW1Y 4JH", "country": "United Kingdom"}
}`

func TestAPatientOfClaims(t *testing.T) {
	env := sqliteEnv(t)
	must[any](t, env, "migrate")
	made := must[patientView](t, env, "patient", "create", "--claims", file(t, "ada.json", everyClaim), "--given-name", "Augusta Ada")
	require.True(t, made.EmailVerified)
	require.NotNil(t, made.PhoneVerifiedAt)
	shown := must[patientView](t, env, "patient", "show", "ada@example.org")
	require.Equal(t, made, shown)
	require.Equal(t, storage.PatientMore{
		MiddleName: "Augusta", Nickname: "Lovelace", PreferredUsername: "ada", Profile: "https://people.example/ada",
		Picture: "https://people.example/ada.jpg", Website: "https://ada.example/", Gender: "female", Zoneinfo: "Europe/London",
		PhoneNumber: "+442079460018", PhoneVerifiedAt: made.PhoneVerifiedAt, Address: storage.Address{
			Street: "12 St James's Square\nFlat 3", Locality: "London", Region: "Greater London", PostalCode: "SW1Y 4JH", Country: "United Kingdom",
		},
	}, shown.PatientMore)
	require.Equal(t, "Augusta Ada", shown.GivenName, "a flag goes before the file")
	require.Equal(t, []string{"King", "1975-12-10", "en"}, []string{shown.FamilyName, shown.BirthDate, shown.Locale})
	out, err := patauth(t, env, "patient", "show", made.ID)
	require.NoError(t, err)
	for _, word := range []string{"+442079460018", "12 St James's Square, Flat 3", "SW1Y 4JH", "Europe/London", "https://ada.example/", "phone verified"} {
		require.Contains(t, out, word)
	}

	b := must[patientView](t, env, "patient", "create", "--claims", file(t, "b.json", `{"nickname": null, "address": null}`), "--email", "b@example.org")
	require.False(t, b.EmailVerified)
	require.Zero(t, b.PatientMore)

	for text, want := range map[string]string{
		`[]`:                              "must be a JSON object",
		`null`:                            "must be a JSON object",
		`{} {}`:                           "must be a JSON object",
		`{"Given_Name": "Ada"}`:           `"Given_Name": is no standard claim`,
		`{"name": "Ada"}`:                 `"name": is made by patauth itself`,
		`{"given_name": 1}`:               `"given_name": must be a string`,
		`{"email_verified": "true"}`:      `"email_verified": must be true or false`,
		`{"address": "London"}`:           `"address": must be a JSON object`,
		`{"address": {"street": "x"}}`:    `"street": is no standard claim`,
		`{"phone_number": "030 1234567"}`: "phone_number: must be an international number",
		`{"phone_number_verified": true}`: "needs a phone_number",
		`{"website": "ada.example"}`:      "website: must be an https URL",
		`{"zoneinfo": "Local"}`:           "zoneinfo: must be a time zone",
		`{"address": {"country": "<b>"}}`: "country: must have at most 100",
		`{"birthdate": "10.12.1975"}`:     "--birth-date",
		`{"locale": "xx"}`:                "--locale: must be of en, de",
		`{"given_name": "\u0000"}`:        "--given-name",
		`{"email": "nobody"}`:             "--email",
	} {
		args := []string{"patient", "create", "--claims", file(t, "x.json", text)}
		if !strings.Contains(text, `"email":`) {
			args = append(args, "--email", "c@example.org")
		}
		_, err := patauth(t, env, args...)
		require.ErrorContains(t, err, want, text)
	}
	_, err = patauth(t, env, "patient", "create", "--claims", file(t, "x.json", strings.Repeat(" ", claimsMax)+"{}"))
	require.ErrorContains(t, err, "longer than")
	_, err = patauth(t, env, "patient", "create", "--claims", "no/such/file")
	require.ErrorContains(t, err, "--claims")
	require.Len(t, must[[]patientView](t, env, "patient", "list"), 2)
}

// auditOf lists what the database of a development installation says of a patient.
func auditOf(t *testing.T, data, id string) []storage.AuditEvent {
	t.Helper()
	db, err := storage.Open(t.Context(), storage.Config{DSN: "sqlite:" + filepath.Join(data, "patauth.db"), Keys: storage.NewKeyring()})
	require.NoError(t, err)
	defer db.Close()
	events, err := db.AuditOf(t.Context(), id, 100)
	require.NoError(t, err)
	require.NotEmpty(t, events)
	return events
}

func TestTheOperatorEndsSessionsAndShutsAnAccount(t *testing.T) {
	data := t.TempDir()
	line, _ := inProcess(t, data)
	s := newSurfer(t)
	s.register(line, "grace@example.org")
	signIn := func() string {
		s.visit(line.Issuer + "/login")
		s.submit("/login", "email", "grace@example.org", "current-password", goodPassword)
		s.visit(line.Issuer + "/account")
		return s.url.Path
	}
	require.Equal(t, "/account", signIn())
	live := must[[]sessionView](t, nil, "patient", "sessions", "grace@example.org", "--data", data)
	require.Len(t, live, 1)
	require.Equal(t, []string{"pwd"}, live[0].Factors)
	require.NotZero(t, live[0].ExpiresAt)
	out, err := patauth(t, nil, "patient", "sessions", "grace@example.org", "--data", data)
	require.NoError(t, err)
	require.Contains(t, out, live[0].ID)

	ended := must[map[string]int](t, nil, "patient", "revoke-sessions", "grace@example.org", "--data", data)
	require.Equal(t, map[string]int{"ended": 1}, ended)
	require.Empty(t, must[[]sessionView](t, nil, "patient", "sessions", "grace@example.org", "--data", data))
	s.visit(line.Issuer + "/account")
	require.Equal(t, "/login", s.url.Path, "signed out at once")

	require.Equal(t, "/account", signIn())
	shut := must[patientView](t, nil, "patient", "disable", "grace@example.org", "--data", data)
	require.NotNil(t, shut.DisabledAt)
	require.Equal(t, "/login", signIn(), "nobody signs in to a shut account")
	out, err = patauth(t, nil, "patient", "enable", shut.ID, "--data", data)
	require.NoError(t, err)
	require.Equal(t, shut.ID+" enabled\n", out)
	s.visit(line.Issuer + "/account")
	require.Equal(t, "/login", s.url.Path, "what ended stays ended")
	require.Equal(t, "/account", signIn())
	require.Nil(t, must[patientView](t, nil, "patient", "show", shut.ID, "--data", data).DisabledAt)

	// The audit names who did what, at each door.
	who := map[string]string{}
	for _, e := range auditOf(t, data, shut.ID) {
		if by, seen := who[e.Event]; seen && by != e.Actor {
			e.Actor = by + ", " + e.Actor
		}
		who[e.Event] = e.Actor
	}
	patient := storage.ActorPatient(shut.ID)
	require.Equal(t, map[string]string{
		"patient.created": storage.Anonymous, "patient.verified": patient, "patient.profile_changed": patient, "factor.added": patient,
		"session.started": patient, "session.ended": storage.Operator,
		"patient.sessions_revoked": storage.Operator, "patient.disabled": storage.Operator, "patient.enabled": storage.Operator,
	}, who)

	made := must[patientView](t, nil, "patient", "create", "--email", "ida@example.org", "--verified", "--data", data)
	for _, e := range auditOf(t, data, made.ID) {
		require.Equal(t, storage.Operator, e.Actor, e.Event)
	}

	for _, command := range []string{"disable", "enable", "sessions", "revoke-sessions"} {
		_, err := patauth(t, nil, "patient", command, "nobody@example.org", "--data", data)
		require.ErrorIs(t, err, storage.ErrNotFound, command)
	}
}

func FuzzClaims(f *testing.F) {
	f.Add([]byte(everyClaim))
	f.Add([]byte(`{"address": null, "email_verified": 1, "name": "Ada"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		now := storage.Now()
		p, err := parseClaims(b, now)
		if err != nil || checkPatient(&p, now) != nil {
			return
		}
		again := p
		require.NoError(t, checkPatient(&again, now))
		require.Equal(t, p, again)
		require.Empty(t, p.More.Faults())
	})
}
