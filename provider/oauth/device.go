package oauth

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/ory/fosite"
	"github.com/ory/fosite/handler/oauth2"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// grantDevice is the grant of devices that no patient can type on (RFC 8628,
// Section 3.4). fosite v0.49.0 does not know it.
const grantDevice = "urn:ietf:params:oauth:grant-type:device_code"

// Device handles POST /oauth2/device: a device asks for the codes that it and the
// patient go on with (RFC 8628, Section 3.1).
func (o *OAuth) Device(w http.ResponseWriter, r *http.Request) error {
	form, err := o.clientForm(r, "resource")
	if err != nil {
		return err
	}
	// Section 3.1: clients say who they are as at the token endpoint.
	c, err := o.authenticate(r.Context(), r, form)
	if err != nil {
		o.fail(w, r, err)
		return nil
	}
	web.Note(r.Context(), "client_id", c.ID)
	answer, err := o.newDevice(r, c, form)
	if errors.Is(err, web.ErrSlowDown) {
		return err
	}
	if err != nil {
		o.fail(w, r, err)
		return nil
	}
	web.Event(r.Context(), "oauth.device.asked")
	writeJSON(w, http.StatusOK, answer)
	return nil
}

// How often devices may ask, each a row, in a process. Many may live behind one
// address, but they ask only when a patient turns them on.
var (
	devicesOfNetwork = web.Rate{PerMinute: 60, Burst: 60}
	devicesOfAll     = web.Rate{PerMinute: 600, Burst: 600}
)

// newDevice is the answer of Section 3.2.
func (o *OAuth) newDevice(r *http.Request, c storage.Client, form url.Values) (map[string]any, error) {
	d, err := o.deviceOf(c, strings.Fields(form.Get("scope")), form["resource"])
	if err != nil {
		return nil, err
	}
	if err := o.devices.Pass(r); err != nil {
		return nil, err
	}
	deviceCode, userCode, err := o.db.CreateDevice(r.Context(), &d)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"device_code": deviceCode, "user_code": userCode,
		"verification_uri": o.issuer + "/device", "verification_uri_complete": o.issuer + "/device?user_code=" + userCode,
		"expires_in": int(storage.DeviceLife.Seconds()), "interval": storage.DevicePace,
	}, nil
}

// deviceOf is a device of c that asks for scopes and resources, if c may.
func (o *OAuth) deviceOf(c storage.Client, scopes, resources []string) (storage.Device, error) {
	if !c.GrantTypes.Has(grantDevice) {
		return storage.Device{}, fosite.ErrUnauthorizedClient.WithHint("The client may not use the device grant.")
	}
	d := storage.Device{ClientID: c.ID}
	var err error
	if d.Scopes, err = scopesFor(c, scopes); err != nil {
		return d, err
	}
	d.Audience, err = audienceFor(c, resources, o.issuer)
	return d, err
}

// The answers to a device that polls: RFC 8628, Section 3.5.
var (
	errPending = &fosite.RFC6749Error{
		ErrorField: "authorization_pending", DescriptionField: "The patient has not decided yet.", CodeField: http.StatusBadRequest,
	}
	errTooFast = &fosite.RFC6749Error{
		ErrorField: "slow_down", DescriptionField: "Wait five seconds longer between requests.", CodeField: http.StatusBadRequest,
	}
	errRefused = &fosite.RFC6749Error{
		ErrorField: "access_denied", DescriptionField: "The patient said no.", CodeField: http.StatusBadRequest,
	}
	errExpired = &fosite.RFC6749Error{
		ErrorField: "expired_token", DescriptionField: "The device code has expired.", CodeField: http.StatusBadRequest,
	}
)

// deviceHandler is the device grant at the token endpoint.
type deviceHandler struct {
	o      *OAuth
	store  *store
	access *oauth2.HandleHelper
}

var _ fosite.TokenEndpointHandler = (*deviceHandler)(nil)

// CanSkipClientAuth is false: RFC 8628, Section 3.4, wants the client to say who it is.
func (*deviceHandler) CanSkipClientAuth(context.Context, fosite.AccessRequester) bool { return false }

// CanHandleTokenEndpointRequest holds for device codes.
func (*deviceHandler) CanHandleTokenEndpointRequest(_ context.Context, r fosite.AccessRequester) bool {
	return r.GetGrantTypes().ExactOne(grantDevice)
}

// HandleTokenEndpointRequest answers a poll with what became of the device so
// far; where a patient has allowed it, the request goes on with that grant.
func (h *deviceHandler) HandleTokenEndpointRequest(ctx context.Context, r fosite.AccessRequester) error {
	d, err := h.polled(ctx, r)
	if err != nil {
		return err
	}
	now := storage.Now()
	switch {
	case d.UsedAt != nil:
		// As for a code (RFC 6749, Section 4.1.2): one of the two that presented it
		// is not who it should be, so what it gave ends.
		if err := h.o.db.RevokeGrant(ctx, d.GrantID, "device replayed", now); err != nil {
			return err
		}
		noteReplay(ctx, "device")
		return fosite.ErrInvalidGrant.WithHint("The device code was used before.")
	case d.DeniedAt != nil:
		return errRefused
	case !now.Before(d.ExpiresAt):
		return errExpired
	case d.GrantID == "":
		// Section 3.5 calls slow_down a variant of authorization_pending: who was
		// allowed need not wait.
		inTime, err := h.o.db.PollDevice(ctx, d, now)
		if err != nil {
			return err
		}
		if !inTime {
			return errTooFast
		}
		return errPending
	}
	g := r.GetSession().(*grant)
	if g.Grant, err = h.o.db.Grant(ctx, d.GrantID, now); errors.Is(err, storage.ErrNotFound) {
		return storage.ErrSpent
	} else if err != nil {
		return err
	}
	r.SetID(g.Grant.ID)
	for _, s := range g.Scopes {
		r.GrantScope(s)
	}
	for _, a := range g.Audience {
		r.GrantAudience(a)
	}
	c := r.GetClient().(client)
	g.SetExpiresAt(fosite.AccessToken, now.Add(c.GetEffectiveLifespan(grantDevice, fosite.AccessToken, accessLife)))
	g.SetExpiresAt(fosite.RefreshToken, now.Add(c.GetEffectiveLifespan(grantDevice, fosite.RefreshToken, refreshIdle)))
	return nil
}

// polled is the device of the code that was presented. One of another client is
// not found, so that nobody can slow down or end what is not theirs.
func (h *deviceHandler) polled(ctx context.Context, r fosite.AccessRequester) (storage.Device, error) {
	if !r.GetClient().GetGrantTypes().Has(grantDevice) {
		return storage.Device{}, fosite.ErrUnauthorizedClient.WithHint("The client may not use this grant.")
	}
	code := r.GetRequestForm().Get("device_code")
	d, err := h.o.db.DeviceByCode(ctx, storage.Digest(code))
	if errors.Is(err, storage.ErrNotFound) || (err == nil && d.ClientID != r.GetClient().GetID()) {
		return storage.Device{}, fosite.ErrInvalidGrant.WithHint("The device code is unknown.")
	}
	return d, err
}

// PopulateTokenEndpointResponse spends the device code and issues the tokens.
func (h *deviceHandler) PopulateTokenEndpointResponse(ctx context.Context, r fosite.AccessRequester, resp fosite.AccessResponder) error {
	if !h.CanHandleTokenEndpointRequest(ctx, r) {
		return fosite.ErrUnknownRequest
	}
	digest := storage.Digest(r.GetRequestForm().Get("device_code"))
	if err := h.o.db.RedeemDevice(ctx, digest, storage.Now()); err != nil {
		return err
	}
	if _, err := h.access.IssueAccessToken(ctx, accessLife, r, resp); err != nil {
		return err
	}
	if r.GetClient().GetGrantTypes().Has("refresh_token") {
		if err := h.refresh(ctx, r, resp); err != nil {
			return err
		}
	}
	if !r.GetGrantedScopes().Has("openid") {
		return nil
	}
	life := r.GetClient().(client).GetEffectiveLifespan(grantDevice, fosite.IDToken, idTokenLife)
	token, err := idTokens{h.o}.GenerateIDToken(ctx, life, r)
	if err != nil {
		return err
	}
	resp.SetExtra("id_token", token)
	return nil
}

func (h *deviceHandler) refresh(ctx context.Context, r fosite.AccessRequester, resp fosite.AccessResponder) error {
	token, signature, err := tokens{h.o}.GenerateRefreshToken(ctx, r)
	if err != nil {
		return err
	}
	resp.SetExtra("refresh_token", token)
	return h.store.CreateRefreshTokenSession(ctx, signature, "", r)
}
