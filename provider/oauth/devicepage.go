package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/gorilla/mux"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// The patient's side of the device grant (RFC 8628, Section 3.3): the page where
// the code is entered begins an authorization request for the device, which then
// goes through sign-in and second factor like any other. Consent is asked on a
// page of its own, and what is pressed there answers the device at once.

// codeView is what the page oauth_device shows.
type codeView struct {
	Code    string // to begin with
	Filled  bool   // the code came with the link, and nobody has typed it
	Problem string
}

// deviceView is what the page oauth_device_consent shows.
type deviceView struct {
	consentView
	Code string
}

// GetDevice handles GET /device. A code in the address (verification_uri_complete)
// is only filled in: whether it is known is told to who presses the button.
func (o *OAuth) GetDevice(w http.ResponseWriter, r *http.Request) error {
	params, err := web.Query(r)
	if err != nil {
		return err
	}
	code := storage.NormalUserCode(params.Get("user_code"))
	return o.site.Render(w, r, http.StatusOK, "oauth_device", codeView{Code: code, Filled: code != ""})
}

// PostDevice handles POST /device: a code that a device shows leads to the
// dispatcher. An unknown code, a used and an expired one get the same answer.
func (o *OAuth) PostDevice(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	form, err := web.Form(r)
	if err != nil {
		return err
	}
	typed := form.Get("user_code")
	code := storage.NormalUserCode(typed)
	d, err := o.typedDevice(r, code)
	if errors.Is(err, storage.ErrNotFound) {
		web.Event(ctx, "oauth.device.code_wrong")
		if len(typed) > maxTyped {
			typed = ""
		}
		return o.site.Render(w, r, http.StatusUnprocessableEntity, "oauth_device", codeView{Code: typed, Problem: "oauth_device.unknown"})
	} else if err != nil {
		return err
	}
	a := storage.NewAuthRequest(d.ClientID, url.Values{"user_code": {code}})
	a.Binding, a.DeviceID = o.site.Bind(w, r), d.ID
	return o.lead(w, r, a)
}

const (
	maxTyped = 20 // bytes of a code with blanks and dashes
	// RFC 8628, Section 5.1: five tries at a code of 34.5 bits leave a guess one
	// chance in five billion.
	wrongCodes = 5
	wrongTime  = 10 * time.Minute
)

// typedDevice finds the device that waits under code. ErrNotFound where there is
// none; web.ErrSlowDown where who asks was wrong too often.
func (o *OAuth) typedDevice(r *http.Request, code string) (storage.Device, error) {
	const what = "user_code"
	ctx, who := r.Context(), guesser(r)
	err := o.db.CountAttempt(ctx, what, who, wrongCodes, wrongTime, storage.Now())
	if errors.Is(err, storage.ErrSpent) {
		web.Event(ctx, "oauth.device.throttled")
		return storage.Device{}, web.SlowDown(wrongTime)
	}
	if err != nil {
		return storage.Device{}, err
	}
	d, err := o.db.DeviceByUserCode(ctx, code, storage.Now())
	if errors.Is(err, storage.ErrNotFound) {
		return d, err
	}
	// Right, or not looked at: neither is a wrong code.
	return d, errors.Join(err, o.db.ForgiveAttempt(ctx, what, who))
}

// guesser is whose tries are counted together: the patient who is signed in,
// else who holds the address.
func guesser(r *http.Request) string {
	if s, ok := session.From(r.Context()); ok {
		return "patient:" + s.PatientID
	}
	return web.Network(r)
}

// loadDevice is the request of a device that still waits. ErrSpent where it does
// not, or its client may no longer have what it asked for.
func (o *OAuth) loadDevice(ctx context.Context, a storage.AuthRequest, c storage.Client) (request, error) {
	d, err := o.db.WaitingDevice(ctx, a.DeviceID, storage.Now())
	if err != nil {
		return request{}, err
	}
	if d, err = o.deviceOf(c, d.Scopes, d.Audience); err != nil {
		return request{}, fmt.Errorf("%w: %w", storage.ErrSpent, err)
	}
	web.Note(ctx, "client_id", c.ID)
	q := request{
		client: c, redirect: new(url.URL), scopes: d.Scopes, audience: d.Audience, maxAge: -1,
		device: a.Params.Get("user_code"), requestedAt: a.RequestedAt,
	}
	if age := c.Metadata.DefaultMaxAge; age != nil {
		q.maxAge = time.Duration(*age) * time.Second
	}
	return q, q.demand(c, c.Metadata.DefaultACRValues)
}

// answerDevice does what the patient has pressed: request, consent, grant and
// device are one transaction.
func (o *OAuth) answerDevice(w http.ResponseWriter, r *http.Request, flow web.Flow, a storage.AuthRequest, q request, f facts, decision string) error {
	allowed := decision == "allow"
	if !allowed && decision != "deny" {
		return web.Invalid("decision", "must be allow or deny")
	}
	now, patient := storage.Now(), f.session.PatientID
	err := o.db.Tx(r.Context(), func(ctx context.Context) error {
		if !allowed {
			if err := o.db.DenyAuthRequest(ctx, a, now); err != nil {
				return err
			}
			return o.db.DenyDevice(ctx, a.DeviceID, patient, now)
		}
		q, f, err := o.still(ctx, a, f.session, stepConsent)
		if err != nil {
			return err
		}
		if err := o.db.FinishAuthRequest(ctx, a, now); err != nil {
			return err
		}
		if err := o.db.SaveConsent(ctx, patient, q.client, q.place(), q.asks(), now); err != nil {
			return err
		}
		return o.db.ApproveDevice(ctx, a.DeviceID, q.grant(f, now), now)
	})
	switch {
	case errors.Is(err, errMoved):
		return web.Redirect(w, r, flow.Done())
	case errors.Is(err, storage.ErrSpent): // pressed twice: the first press counts
	case err != nil:
		return err
	case allowed:
		authorizations.WithLabelValues("ok").Inc()
		web.Event(r.Context(), "oauth.device.approved", "patient_id", patient)
	default:
		authorizations.WithLabelValues(errRefused.ErrorField).Inc()
		web.Event(r.Context(), "oauth.device.denied", "patient_id", patient)
	}
	return web.Redirect(w, r, "/device/"+flow.Request)
}

// GetDeviceAnswer handles GET /device/{request}: what the patient has decided,
// however often it is asked for. Where that is nothing yet, it leads to the
// dispatcher, or to an error where that would lead back here.
func (o *OAuth) GetDeviceAnswer(w http.ResponseWriter, r *http.Request) error {
	handle := mux.Vars(r)["request"]
	a, _, err := o.load(r, handle)
	if err != nil && (!errors.Is(err, storage.ErrSpent) || a.DeviceID == "") {
		return o.ended(w, r, a, err)
	}
	switch {
	case a.DeviceID == "":
		return storage.ErrNotFound
	case a.DeniedAt != nil:
		return o.site.Render(w, r, http.StatusOK, "message", web.Message{Title: "oauth_device_refused.title", Text: "oauth_device_refused.text"})
	case a.IssuedAt != nil:
		return o.site.Render(w, r, http.StatusOK, "message", web.Message{Title: "oauth_device_connected.title", Text: "oauth_device_connected.text"})
	case err != nil:
		return o.ended(w, r, a, err)
	}
	return web.Redirect(w, r, "/oauth2/auth/"+handle)
}
