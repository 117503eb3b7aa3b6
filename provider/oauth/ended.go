package oauth

import (
	"errors"
	"net/http"
	"net/url"
	"slices"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// endedView is what the page oauth_ended shows: why a request goes no further,
// and the way back to who made it.
type endedView struct {
	Why    string // "expired", "answered", "elsewhere", "cookies" or "refused"
	Client string
	Back   string // "" where the client has told of no way
}

// settled is the path that tells what has become of a request that is over, so
// that a second press and the way back are told the same as the first press.
func settled(flow web.Flow, a storage.AuthRequest) string {
	if a.DeviceID != "" {
		return "/device/" + flow.Request
	}
	return flow.Done()
}

// ended answers where load gave err, with the way back to the client.
func (o *OAuth) ended(w http.ResponseWriter, r *http.Request, a storage.AuthRequest, err error) error {
	spent, moved := errors.Is(err, storage.ErrSpent), errors.Is(err, web.ErrDenied)
	if a.ID == "" || !spent && !moved {
		return err
	}
	c, lost := o.db.Client(r.Context(), a.ClientID)
	if errors.Is(lost, storage.ErrNotFound) {
		return err
	} else if lost != nil {
		return lost
	}
	web.Note(r.Context(), "error", err.Error())
	web.Note(r.Context(), "client_id", c.ID)
	view, status := endedView{Why: "expired", Client: c.Name, Back: o.back(c)}, http.StatusGone
	switch {
	case moved && !o.site.BindsAny(r):
		view.Why, status = "cookies", http.StatusForbidden
	case moved:
		view.Why, status = "elsewhere", http.StatusForbidden
	case a.IssuedAt != nil:
		view.Why = "answered"
	}
	if view.Back == "" && spent && a.DeviceID == "" {
		// To this browser alone: what the client sent is not for others. Hints are
		// about somebody, and may have become untrue.
		anew := url.Values{}
		for k, v := range a.Params {
			if !slices.Contains([]string{"login_hint", "id_token_hint"}, k) {
				anew[k] = v
			}
		}
		view.Back = "/oauth2/auth?" + anew.Encode()
	}
	return o.site.Render(w, r, status, "oauth_ended", view)
}

// back is where c begins a sign-in, or what it calls its home; "" where it has
// registered neither.
func (o *OAuth) back(c storage.Client) string {
	u, err := url.Parse(c.Metadata.InitiateLoginURI)
	if c.Metadata.InitiateLoginURI == "" || err != nil {
		return c.Metadata.ClientURI
	}
	// OpenID Connect Core, Section 4: iss is REQUIRED.
	query := u.Query()
	query.Set("iss", o.issuer)
	u.RawQuery = query.Encode()
	return u.String()
}
