package session_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// signIn does what a page does once a proof was checked.
func signIn(t *testing.T, s *session.Sessions, patientID string, by session.Proof) (*storage.Session, error) {
	w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/login", nil)
	got, err := s.Start(t.Context(), w, r, patientID, by)
	require.Equal(t, err == nil, len(w.Result().Cookies()) == 1, "a cookie comes with a session and only then")
	return got, err
}

// Fifty sign-ins were proven by what is taken away meanwhile: whichever come first,
// no session of theirs is left.
func TestWhatIsTakenAwaySignsNobodyIn(t *testing.T) {
	for _, c := range []struct {
		name string
		take func(context.Context, *storage.DB, *storage.Patient, string) error
	}{
		{"the password is changed", func(ctx context.Context, db *storage.DB, p *storage.Patient, _ string) error {
			return db.SetPassword(ctx, p.ID, "new", storage.Now())
		}},
		{"the credential is removed", func(ctx context.Context, db *storage.DB, p *storage.Patient, id string) error {
			return db.RevokeCredential(ctx, p.ID, id, storage.Now())
		}},
		{"the account is shut, and opened again", func(ctx context.Context, db *storage.DB, p *storage.Patient, _ string) error {
			return db.SetPatientDisabled(ctx, p.ID, true)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			storagetest.Each(t, func(t *testing.T, db *storage.DB) {
				s, _ := room(t, db)
				p := patient(t, db, "a@example.org")
				by := proof(t.Context(), db, p.ID, session.Password)
				errs := make([]error, 50)
				var wg sync.WaitGroup
				for i := range errs {
					wg.Go(func() { _, errs[i] = signIn(t, s, p.ID, by) })
					if i == 25 {
						wg.Go(func() {
							require.NoError(t, db.Tx(t.Context(), func(ctx context.Context) error {
								if err := c.take(ctx, db, p, by.Credential); err != nil {
									return err
								}
								return db.EndSessions(ctx, p.ID, "", storage.Now())
							}))
						})
					}
				}
				wg.Wait()
				require.NoError(t, db.SetPatientDisabled(t.Context(), p.ID, false))
				live, err := db.SessionsOf(t.Context(), p.ID)
				require.NoError(t, err)
				require.Empty(t, live)
				for _, err := range errs {
					if err != nil && !errors.Is(err, storage.ErrUnavailable) { // a crowded machine
						require.ErrorIs(t, err, storage.ErrNotFound)
					}
				}
				// Whoever comes afterwards is too late for certain.
				if c.name != "the account is shut, and opened again" {
					_, err = signIn(t, s, p.ID, by)
					require.ErrorIs(t, err, storage.ErrNotFound)
				}
			})
		})
	}
}

// The commit fails after the session was written: the browser keeps the cookie that
// it has, and the session of it.
func TestNoCookieForASessionThatWasNotCommitted(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		s, _ := room(t, db)
		p := patient(t, db, "a@example.org")
		w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/login", nil)
		boom := http.ErrAbortHandler
		err := db.Tx(t.Context(), func(ctx context.Context) error {
			_, err := s.Start(ctx, w, r, p.ID, proof(ctx, db, p.ID, session.Password))
			require.NoError(t, err)
			return boom
		})
		require.ErrorIs(t, err, boom)
		require.Empty(t, w.Header()["Set-Cookie"])
	})
}
