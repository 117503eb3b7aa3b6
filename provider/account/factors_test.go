package account

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/storage"
)

func TestRemovingAFactor(t *testing.T) {
	p := newPlace(t)
	ada, eve := p.patient("ada@example.org", ""), p.patient("eve@example.org", "")
	phone, key := p.factor(ada, storage.KindTOTP, "My phone"), p.factor(ada, storage.KindPasskey, "My key")
	foreign := p.factor(eve, storage.KindTOTP, "")
	b, other := p.signedIn(ada, 0, session.Password, session.TOTP), p.signedIn(ada, 0, session.PasskeyUV)
	hers := p.signedIn(eve, 0, session.Password, session.TOTP)
	all, err := p.db.Credentials(t.Context(), ada.ID)
	require.NoError(t, err)
	for _, id := range []string{foreign.ID, "X", all[0].ID} { // somebody else's, none, the password
		b.get("/account/factors/" + id + "/remove").is(404)
		b.post("/account/factors/"+id+"/remove", "last", "yes").is(404)
	}

	page := b.get("/account/factors/"+phone.ID+"/remove").is(200, "My phone")
	require.NotContains(t, page.body, `name="last"`)
	b.post("/account/factors/" + phone.ID + "/remove").to("/account/factors")
	require.Equal(t, []string{`{"patient_id":"` + ada.ID + `","notice":"factor_removed"}`}, p.wished())
	require.Contains(t, p.audited(ada), "factor.removed credential:"+phone.ID)
	page = b.get("/account/factors").is(200, "My key")
	require.NotContains(t, page.body, "My phone")
	other.get("/account").to("/login?to=account")
	hers.get("/account").is(200)

	// The last one wants a second word.
	b.get("/account/factors/"+key.ID+"/remove").is(200, `name="last"`, "your last second step")
	b.post("/account/factors/"+key.ID+"/remove").is(422, "tick the box", `name="last"`)
	require.Empty(t, p.wished())
	b.post("/account/factors/"+key.ID+"/remove", "last", "yes").to("/account/factors")
	b.get("/account/factors").is(200, "no second step")
	b.post("/account/factors/"+key.ID+"/remove", "last", "yes").is(404)
	require.Len(t, p.wished(), 1)
}

func TestADisabledFactorIsShown(t *testing.T) {
	p := newPlace(t)
	ada := p.patient("ada@example.org", "")
	now := storage.Now()
	require.NoError(t, p.db.AddCredential(t.Context(), &storage.Credential{PatientID: ada.ID, Kind: storage.KindTOTP, Secret: []byte("x"), DisabledAt: &now}))
	p.signedIn(ada, 0, session.Password, session.TOTP).get("/account/factors").is(200, "Switched off after too many wrong tries", "Not used yet")
}
