package account

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// A session that ended after the page had looked at it changes nothing.
func TestAnEndedSessionChangesNothing(t *testing.T) {
	p := newPlace(t)
	ada := p.patient("ada@example.org", "")
	b := p.signedIn(ada, 0, session.Password)
	a := &Account{db: p.db}
	require.NoError(t, a.act(t.Context(), &b.session, func(context.Context) error { return nil }))
	require.NoError(t, p.db.EndSession(t.Context(), ada.ID, b.session.ID, storage.Now()))
	err := a.act(t.Context(), &b.session, func(context.Context) error { t.Error("acted"); return nil })
	require.ErrorIs(t, err, web.ErrLogin)
}
