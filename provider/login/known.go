package login

import (
	"context"
	"crypto/hmac"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// A browser that somebody has signed in with is known for that account: it has a
// cookie that says so, sealed, and its wrong passwords are counted by themselves.
// So strangers who guess at an account, or at others from the same network, do not
// keep its patient out. It proves nothing else, and ends no question that a
// stranger is asked. (OWASP calls it a device cookie. NIST SP 800-63B-4, Section
// 3.2.2, lets a verifier know its subscribers by such means.)
const (
	knownCookie = "patauth-known"
	knownLife   = 180 * 24 * time.Hour
	// knownTries is how many wrong passwords in a row make it a stranger.
	knownTries = 10
	// knownTogether is how many in a row all that are known for an account may have:
	// with those of strangers no more than the hundred of NIST SP 800-63B-4, Section
	// 3.2.2, whoever has collected browsers while they knew the password.
	knownTogether = 40
	// knownMost is how many accounts a browser is known for.
	knownMost = 4
	// kindKnown is what is counted and sealed.
	kindKnown = "known_browser"
)

// known is one account that a browser is known for.
type known struct {
	Account []byte    `json:"a"` // keyed digest of the address
	ID      string    `json:"i"` // whose wrong passwords are counted
	Until   time.Time `json:"u"`
}

// knownFor is the id under which the wrong passwords of r's browser for an
// address are counted; "" where the browser is not known for it.
func (l *Login) knownFor(r *http.Request, email string) string {
	account := l.db.MAC(kindKnown, []byte(storage.NormalEmail(email)))
	for _, k := range l.knownBrowser(r) {
		if hmac.Equal(k.Account, account) {
			return k.ID
		}
	}
	return ""
}

// countKnown counts a try of a browser that is known for who's account. One that has
// none left, by itself or with the others, is a stranger from here on.
func (l *Login) countKnown(ctx context.Context, who *candidate) error {
	now := storage.Now()
	err := l.db.CountAttempt(ctx, kindKnown, who.known, knownTries, knownLife, now)
	if err == nil {
		if err = l.db.CountAttempt(ctx, kindKnown, who.credential.ID, knownTogether, knownLife, now); errors.Is(err, storage.ErrSpent) {
			err = errors.Join(err, l.db.ForgiveAttempt(ctx, kindKnown, who.known))
		}
	}
	if errors.Is(err, storage.ErrSpent) {
		who.known = ""
		return nil
	}
	return err
}

// knownBrowser is what r's cookie says, the newest first; nothing where it is not
// of our making.
func (l *Login) knownBrowser(r *http.Request) []known {
	text, err := web.ReadCookie(r, l.site.Issuer, knownCookie)
	if err != nil || len(text) > 2048 {
		return nil
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil
	}
	plain, err := l.db.Unseal(kindKnown, "cookie", "", sealed)
	if err != nil {
		return nil
	}
	var all []known
	if json.Unmarshal(plain, &all) != nil {
		return nil
	}
	now := storage.Now()
	return slices.DeleteFunc(all, func(k known) bool { return !now.Before(k.Until) })
}

// remember makes the browser known for an address that somebody has just signed in
// with, with a count that begins anew.
func (l *Login) remember(w http.ResponseWriter, r *http.Request, email string) error {
	account := l.db.MAC(kindKnown, []byte(email))
	all := slices.DeleteFunc(l.knownBrowser(r), func(k known) bool { return hmac.Equal(k.Account, account) })
	all = append([]known{{Account: account, ID: storage.NewID(), Until: storage.Now().Add(knownLife)}}, all...)
	plain, err := json.Marshal(all[:min(len(all), knownMost)])
	if err != nil {
		return err
	}
	text := base64.RawURLEncoding.EncodeToString(l.db.Seal(kindKnown, "cookie", "", plain))
	http.SetCookie(w, web.Cookie(l.site.Issuer, knownCookie, text, int(knownLife/time.Second)))
	return nil
}
