package login

import (
	"context"
	"crypto/hmac"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// invite asks for any passkey of this site, whoever it belongs to. It must
// verify its holder, because it will be the only proof.
// Looking at the page writes nothing: the ceremony is sealed into the page, to the
// browser that was asked, and only its end leaves a row.
func (p *passkeys) invite(browser []byte) (*ceremony, error) {
	options, data, err := p.rp.BeginDiscoverableLogin(webauthn.WithUserVerification(protocol.VerificationRequired))
	if err != nil {
		return nil, fmt.Errorf("passkey login: %w", err)
	}
	state, err := json.Marshal(invitation{Data: data, Until: storage.Now().Add(ceremonyLife)})
	if err != nil {
		return nil, fmt.Errorf("passkey login: %w", err)
	}
	shown, err := json.Marshal(options.Response)
	if err != nil {
		return nil, fmt.Errorf("passkey login: %w", err)
	}
	return &ceremony{Challenge: string(p.db.Seal(kindPasskeyLogin, "challenge", hex.EncodeToString(browser), state)), Options: string(shown)}, nil
}

// invitation is what invite seals.
type invitation struct {
	Data  *webauthn.SessionData `json:"data"`
	Until time.Time             `json:"until"`
}

// accepted spends an invitation, before anything is checked; errWrong where it is
// none of ours for this browser, is too old, or was answered before.
func (p *passkeys) accepted(ctx context.Context, browser []byte, form answer) (webauthn.SessionData, error) {
	var i invitation
	plain, err := p.db.Unseal(kindPasskeyLogin, "challenge", hex.EncodeToString(browser), []byte(url.Values(form).Get("challenge")))
	if err == nil {
		err = json.Unmarshal(plain, &i)
	}
	if err != nil || i.Data == nil || !storage.Now().Before(i.Until) {
		web.Note(ctx, "passkey_error", "no open ceremony")
		return webauthn.SessionData{}, errWrong
	}
	err = p.db.SpendSealed(ctx, kindPasskeyLogin, i.Data.Challenge, i.Until)
	if errors.Is(err, storage.ErrSpent) {
		web.Note(ctx, "passkey_error", "answered before")
		return webauthn.SessionData{}, errWrong
	}
	return *i.Data, err
}

// welcome takes the answer to invite and returns who it is; errWrong where it
// proves nobody.
func (p *passkeys) welcome(ctx context.Context, browser []byte, form answer) (storage.Patient, session.Proof, error) {
	data, err := p.accepted(ctx, browser, form)
	if err != nil {
		return storage.Patient{}, session.Proof{}, err
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes([]byte(url.Values(form).Get("credential")))
	if err != nil {
		return storage.Patient{}, session.Proof{}, refused(ctx, err)
	}
	var holder keyholder
	var failure error
	_, key, err := p.rp.ValidatePasskeyLogin(func(rawID, handle []byte) (webauthn.User, error) {
		holder, failure = p.holder(ctx, rawID, handle)
		return &holder, failure
	}, data, parsed)
	if failure != nil && !errors.Is(failure, storage.ErrNotFound) {
		return storage.Patient{}, session.Proof{}, failure
	}
	if err != nil {
		return storage.Patient{}, session.Proof{}, refused(ctx, err)
	}
	proven, err := p.accept(ctx, holder, key, parsed)
	return holder.patient, proven, err
}

// holder finds the patient of a credential id who also goes by the handle; a
// patient who may not sign in is not found.
func (p *passkeys) holder(ctx context.Context, rawID, handle []byte) (keyholder, error) {
	c, err := p.db.CredentialByExternalID(ctx, hex.EncodeToString(rawID))
	if err != nil {
		return keyholder{}, err
	}
	patient, err := p.db.PatientByID(ctx, c.PatientID)
	if err != nil {
		return keyholder{}, err
	}
	if patient.DisabledAt != nil || patient.EmailVerifiedAt == nil || !hmac.Equal(patient.WebAuthnHandle, handle) {
		return keyholder{}, storage.ErrNotFound
	}
	return p.open(patient, []storage.Credential{c})
}

// browserCookie binds a ceremony to the browser that was asked, before there is
// a session. It never becomes one.
const browserCookie = "patauth-browser"

// browser is the digest of the browser's cookie, which is set where it is missing.
func (l *Login) browser(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	handle, err := web.ReadCookie(r, l.site.Issuer, browserCookie)
	if errors.Is(err, http.ErrNoCookie) {
		handle = storage.NewHandle("pab_")
		http.SetCookie(w, web.Cookie(l.site.Issuer, browserCookie, handle, 0))
		err = nil
	}
	return storage.Digest(handle), err
}

// PostPasskey signs in with a passkey alone. POST /login/passkey
func (l *Login) PostPasskey(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	form, flow, err := l.site.FormFlow(r)
	if err != nil {
		return err
	}
	if l.passkeys == nil {
		return storage.ErrNotFound
	}
	if err := l.gate.guess(r); err != nil {
		return err
	}
	browser, err := l.browser(w, r)
	if err != nil {
		return err
	}
	patient, proof, err := l.passkeys.welcome(ctx, browser, form)
	if err == nil {
		if _, err = l.sessions.Start(ctx, w, r, patient.ID, proof); errors.Is(err, storage.ErrNotFound) {
			err = errWrong // the key removed, or the account shut, while it was checked
		}
	}
	if errors.Is(err, errWrong) {
		l.gate.failed(r)
		attempts.WithLabelValues(storage.KindPasskey, "bad").Inc()
		web.Event(ctx, "auth.login.failed", "factor", storage.KindPasskey)
		return l.site.Again(w, r, "/login", flow, "login.passkey.wrong", "")
	}
	if err != nil {
		return fmt.Errorf("passkey login: %w", err)
	}
	if err := l.remember(w, r, patient.Email); err != nil {
		return err
	}
	attempts.WithLabelValues(storage.KindPasskey, "ok").Inc()
	web.Note(ctx, "patient", patient.ID)
	web.Event(ctx, "auth.login.ok", "factor", storage.KindPasskey)
	return web.Redirect(w, r, flow.Done())
}
