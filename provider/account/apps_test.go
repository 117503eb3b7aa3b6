package account

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/storage"
)

// app is a client that a patient allows scopes.
func (p *place) app(patient storage.Patient, name string, scopes ...string) string {
	p.t.Helper()
	c := storage.Client{Name: name}
	require.NoError(p.t, p.db.CreateClient(p.t.Context(), &c))
	require.NoError(p.t, p.db.SaveConsent(p.t.Context(), patient.ID, c, "https://portal.example", scopes, storage.Now()))
	return c.ID
}

func TestAccessIsTakenBack(t *testing.T) {
	p := newPlace(t)
	ada, eve := p.patient("ada@example.org", ""), p.patient("eve@example.org", "")
	portal := p.app(ada, "Portal <b>", "openid", "lab", "offline_access", "unheard-of")
	foreign := p.app(eve, "Diary", "openid")
	b := p.signedIn(ada, 0, session.Password)
	g := p.grant(ada, portal, "", true, "openid", "lab")

	page := b.get("/account/apps").is(200, "Portal <b>", "Recognise you", "laboratory record", "while you are not signed in")
	require.NotContains(t, page.body, "unheard-of")
	require.NotContains(t, page.body, "Diary")
	for _, id := range []string{foreign, "X"} {
		b.post("/account/apps/" + id + "/revoke").is(404)
	}
	_, err := p.db.Consent(t.Context(), eve.ID, foreign)
	require.NoError(t, err)

	b.post("/account/apps/" + portal + "/revoke").to("/account/apps")
	b.get("/account/apps").is(200, "No app has access")
	_, err = p.db.Consent(t.Context(), ada.ID, portal)
	require.ErrorIs(t, err, storage.ErrNotFound)
	_, err = p.db.Grant(t.Context(), g.ID, storage.Now())
	require.ErrorIs(t, err, storage.ErrSpent)
	b.post("/account/apps/" + portal + "/revoke").is(404)
}
