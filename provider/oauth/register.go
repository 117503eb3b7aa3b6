package oauth

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"
	"github.com/ory/fosite"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// prefixRegistration is that of registration access tokens.
const prefixRegistration = "pa_rg_"

// How often in an hour a network may register clients where anybody may, all
// networks together, and a client may change itself: each of these can make us
// ask a server that was named.
const (
	registrationsOfOne = 200
	registrationsOfAll = 1000
	changesOfOne       = 60
)

// off reports whether clients are registered by operators only.
func (p Registration) off() bool { return !p.Open && p.Token == "" }

// Register handles POST /oauth2/register (RFC 7591, Section 3).
func (o *OAuth) Register(w http.ResponseWriter, r *http.Request) error {
	if o.registration.off() {
		return registrationIsOff(w)
	}
	// The initial access token of Section 3, in constant time.
	token, _ := bearerHeader(r)
	if !o.registration.Open && subtle.ConstantTimeCompare(storage.Digest(token), storage.Digest(o.registration.Token)) != 1 {
		return registrationUnauthorized(w, r)
	}
	answer, err := o.register(r)
	if err != nil {
		return o.failRegistration(w, r, err)
	}
	web.Note(r.Context(), "client_id", answer.ClientID)
	web.Event(r.Context(), "oauth.client.registered")
	writeJSON(w, http.StatusCreated, answer)
	return nil
}

func (o *OAuth) register(r *http.Request) (information, error) {
	ctx, by := r.Context(), "token"
	if o.registration.Open {
		by = "anybody"
		if err := o.pace(ctx, "register", web.Network(r), registrationsOfOne); err != nil {
			return information{}, err
		}
		if err := o.pace(ctx, "register", "", registrationsOfAll); err != nil {
			return information{}, err
		}
	}
	var in registration
	if err := readMetadata(r, &in); err != nil {
		return information{}, err
	}
	c, token := storage.Client{}, storage.NewHandle(prefixRegistration)
	if err := o.propose(ctx, in, &c); err != nil {
		return information{}, err
	}
	c.Registration = storage.Digest(token)
	secret := o.db.SettleClientSecret(&c)
	err := o.db.Tx(ctx, func(ctx context.Context) error {
		if err := o.db.CreateClient(ctx, &c); err != nil {
			return fmt.Errorf("register client: %w", err)
		}
		storage.ActAs(ctx, storage.ActorClient(c.ID))
		return o.db.Audit(ctx, storage.AuditEvent{
			Event: "client.registered", Object: "client:" + c.ID,
			Detail: storage.JSON[map[string]string]{V: map[string]string{"by": by}},
		})
	})
	return o.inform(c, secret, token), err
}

// propose gives c what in asks for; what is wrong with that comes back as the
// protocol's error.
func (o *OAuth) propose(ctx context.Context, in registration, c *storage.Client) error {
	faults := in.apply(c, o.registration.Open)
	k := check{}
	k.bad(o.nameTaken(in.ClientName), "client_name", "must not be the name of this site")
	faults = append(faults, k.faults...)
	var more Faults
	errors.As(CheckClient(ctx, o.outbound, c), &more)
	return append(faults, more...).refused()
}

// nameTaken reports whether name is what patients know this site by.
func (o *OAuth) nameTaken(name string) bool {
	name = strings.TrimSpace(name)
	u, err := url.Parse(o.issuer)
	return err == nil && strings.EqualFold(name, u.Hostname()) || slices.ContainsFunc(o.site.Pages.Langs, func(lang string) bool {
		return strings.EqualFold(name, o.site.Pages.Text(lang, "brand.name"))
	})
}

// ReadRegistration handles GET /oauth2/register/{client} (RFC 7592, Section 2.1).
func (o *OAuth) ReadRegistration(w http.ResponseWriter, r *http.Request) error {
	return o.manage(w, r, func(c storage.Client, token string) error {
		writeJSON(w, http.StatusOK, o.inform(c, "", token))
		return nil
	})
}

// ReplaceRegistration handles PUT /oauth2/register/{client}. RFC 7592, Section
// 2.2: what is sent "MUST replace, not augment, the values previously associated
// with this client".
func (o *OAuth) ReplaceRegistration(w http.ResponseWriter, r *http.Request) error {
	return o.manage(w, r, func(c storage.Client, token string) error {
		ctx := r.Context()
		if err := o.pace(ctx, "reregister", c.ID, changesOfOne); err != nil {
			return err
		}
		var in replacement
		if err := readMetadata(r, &in); err != nil {
			return err
		}
		if err := o.mayReplace(c, in); err != nil {
			return err
		}
		asked := c
		if err := o.propose(ctx, in.registration, &asked); err != nil {
			return err
		}
		// An operator may have changed the client meanwhile: that stays.
		secret := ""
		err := o.db.Tx(ctx, func(ctx context.Context) (err error) {
			c, err = o.db.ChangeClient(ctx, c.ID, func(c *storage.Client) {
				in.apply(c, o.registration.Open)
				c.Metadata.Sector = asked.Metadata.Sector
				secret = o.db.SettleClientSecret(c)
			})
			if err != nil {
				return fmt.Errorf("change client: %w", err)
			}
			return o.db.Audit(ctx, storage.AuditEvent{Event: "client.updated", Object: "client:" + c.ID})
		})
		if err != nil {
			return err
		}
		web.Event(ctx, "oauth.client.updated")
		writeJSON(w, http.StatusOK, o.inform(c, secret, token))
		return nil
	})
}

// mayReplace checks the members of in that are about the registration itself
// (RFC 7592, Section 2.2).
func (o *OAuth) mayReplace(c storage.Client, in replacement) error {
	k := check{}
	k.bad(in.ClientID != c.ID, "client_id", "must be the client's own")
	// "The client MUST NOT be allowed to overwrite its existing client secret
	// with its own chosen value."
	k.bad(in.ClientSecret != nil && !o.db.ClientSecretValid(&c, *in.ClientSecret), "client_secret", "must be the client's own, or left out")
	k.bad(in.RegistrationAccessToken != nil, "registration_access_token", "must be left out")
	k.bad(in.RegistrationClientURI != nil, "registration_client_uri", "must be left out")
	k.bad(in.ClientSecretExpiresAt != nil, "client_secret_expires_at", "must be left out")
	k.bad(in.ClientIDIssuedAt != nil, "client_id_issued_at", "must be left out")
	return k.faults.refused()
}

// DeleteRegistration handles DELETE /oauth2/register/{client}. RFC 7592, Section
// 2.3: the client's grants and tokens die with it.
func (o *OAuth) DeleteRegistration(w http.ResponseWriter, r *http.Request) error {
	return o.manage(w, r, func(c storage.Client, _ string) error {
		err := o.db.Tx(r.Context(), func(ctx context.Context) error {
			if err := o.db.DeleteClient(ctx, c.ID, storage.Now()); err != nil {
				return fmt.Errorf("delete client: %w", err)
			}
			return o.db.Audit(ctx, storage.AuditEvent{Event: "client.deleted", Object: "client:" + c.ID})
		})
		if err != nil {
			return err
		}
		web.Event(r.Context(), "oauth.client.deleted")
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
}

// clientIDForm is that of the ids we make.
var clientIDForm = regexp.MustCompile(`^c-[A-Z2-7]{26}$`)

// manage lets the client of the path do something with its registration, if the
// request bears its token. RFC 7592, Section 2.1: a client that does not exist
// is answered like a wrong token.
func (o *OAuth) manage(w http.ResponseWriter, r *http.Request, do func(c storage.Client, token string) error) error {
	if o.registration.off() {
		return registrationIsOff(w)
	}
	id := mux.Vars(r)["client"]
	token, ok := bearerHeader(r)
	if !ok || !clientIDForm.MatchString(id) {
		return registrationUnauthorized(w, r)
	}
	c, err := o.db.RegisteredClient(r.Context(), id, storage.Digest(token))
	if err == nil {
		web.Note(r.Context(), "client_id", c.ID)
		storage.ActAs(r.Context(), storage.ActorClient(c.ID))
		err = do(c, token)
	}
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return registrationUnauthorized(w, r)
	case err != nil:
		return o.failRegistration(w, r, err)
	}
	return nil
}

// failRegistration answers in the protocol's words; what has none goes to the
// table.
func (o *OAuth) failRegistration(w http.ResponseWriter, r *http.Request, err error) error {
	if !errors.As(err, new(*fosite.RFC6749Error)) {
		return err
	}
	web.Event(r.Context(), "oauth.registration.refused")
	o.fail(w, r, err)
	return nil
}

func registrationUnauthorized(w http.ResponseWriter, r *http.Request) error {
	web.Event(r.Context(), "oauth.registration.unauthorized")
	detail := ""
	if r.Header.Get("Authorization") != "" {
		detail = `, error="invalid_token"` // RFC 6750, Section 3.1: not where nothing was sent
	}
	unauthorized(w, detail)
	return nil
}

func registrationIsOff(w http.ResponseWriter) error {
	writeJSON(w, http.StatusNotFound, oauthError{Code: "invalid_request", Description: "Clients are registered by the operator."})
	return nil
}

// pace counts what whom does in an hour; web.ErrSlowDown where that is more than
// most.
func (o *OAuth) pace(ctx context.Context, what, whom string, most int) error {
	err := o.db.CountAttempt(ctx, what, whom, most, time.Hour, storage.Now())
	if errors.Is(err, storage.ErrSpent) {
		return web.SlowDown(10 * time.Minute)
	}
	return err
}
