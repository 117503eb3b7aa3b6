package login

import (
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// Sign-ins by the old password are under way while the patient changes it: whichever
// comes first, the changed password's is the one session left, and who was too late is
// answered as who never knew it.
func TestOldPasswordsUnderWayLoseToTheChange(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		p := newPlace(t, db)
		ada := p.patient("ada@example.org")
		b := p.signedIn(ada.Email)
		old := goodPassword
		for round := range 5 {
			// Fewer than would make the password rest.
			thieves := make([]*browser, 3)
			var wg sync.WaitGroup
			for i := range thieves {
				thieves[i] = p.browser()
				wg.Go(func() {
					r, err := thieves[i].client.PostForm(p.url+"/login", url.Values{"email": {ada.Email}, "current-password": {old}})
					require.NoError(t, err)
					r.Body.Close()
					require.Contains(t, []int{http.StatusSeeOther, http.StatusUnauthorized}, r.StatusCode)
				})
			}
			changed := fmt.Sprintf("%s %d", goodPassword, round)
			b.post("/login/password", "current-password", old, "new-password", changed).to("/account")
			wg.Wait()
			live, err := db.SessionsOf(t.Context(), ada.ID)
			require.NoError(t, err)
			require.Len(t, live, 1)
			require.Equal(t, b.session().ID, live[0].ID)
			old = changed
		}
	})
}

// Two browsers of one patient change the password at once: the second proved itself by
// one that was a password no more.
func TestOneOfManyPasswordChangesWins(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		p := newPlace(t, db)
		ada := p.patient("ada@example.org")
		browsers := []*browser{p.signedIn(ada.Email), p.signedIn(ada.Email), p.signedIn(ada.Email)}
		status := make([]int, len(browsers))
		var wg sync.WaitGroup
		for i, b := range browsers {
			wg.Go(func() {
				r, err := b.client.PostForm(p.url+"/login/password", url.Values{"current-password": {goodPassword}, "new-password": {goodPassword + fmt.Sprint(i)}})
				require.NoError(t, err)
				r.Body.Close()
				if status[i] = r.StatusCode; r.Header.Get("Location") != "/account" {
					status[i] = -status[i] // refused, or signed out meanwhile
				}
			})
		}
		wg.Wait()
		won := 0
		for _, s := range status {
			if s == http.StatusSeeOther {
				won++
			}
		}
		require.Equal(t, 1, won, "%v", status)
		live, err := db.SessionsOf(t.Context(), ada.ID)
		require.NoError(t, err)
		require.Len(t, live, 1)
	})
}
