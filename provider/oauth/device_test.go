package oauth

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// player is a client without a browser of its own, and without a secret.
func (h *house) player(t testing.TB) storage.Client {
	t.Helper()
	c := storage.Client{
		Name: "Music <player>", AuthMethods: storage.Words{"none"}, GrantTypes: storage.Words{grantDevice, "refresh_token"},
		Scopes: Scopes, Audience: storage.Strings{results, results + "/2"},
	}
	require.NoError(t, h.db.CreateClient(context.Background(), &c))
	return c
}

// wake lets a device of c ask for its codes.
func (h *house) wake(t testing.TB, c storage.Client, scope string) (deviceCode, userCode string) {
	t.Helper()
	status, body := h.post("/oauth2/device", c, "", url.Values{"scope": {scope}})
	require.Equal(t, 200, status, body)
	return body["device_code"].(string), body["user_code"].(string)
}

func poll(deviceCode string) url.Values {
	return url.Values{"grant_type": {grantDevice}, "device_code": {deviceCode}}
}

// polls is the status of a poll, and its error if it has one.
func (h *house) polls(c storage.Client, deviceCode string) []any {
	status, body := h.post("/oauth2/token", c, "", poll(deviceCode))
	return []any{status, body["error"]}
}

// enter types a code into the page, and follows where that leads.
func (b *browser) enter(code string) *httptest.ResponseRecorder {
	b.t.Helper()
	w := b.do(http.MethodPost, "/device", url.Values{"user_code": {code}})
	if to := w.Header().Get("Location"); to != "" {
		return b.get(to)
	}
	return w
}

// asked is the request that a consent page is about.
func asked(t testing.TB, page *httptest.ResponseRecorder) string {
	t.Helper()
	require.Equal(t, 200, page.Code, page.Body)
	_, after, ok := strings.Cut(page.Body.String(), `name="request" value="`)
	require.True(t, ok, page.Body)
	id, _, _ := strings.Cut(after, `"`)
	return id
}

// press answers the consent page of a request, and follows where that leads.
func (b *browser) press(request, decision string) *httptest.ResponseRecorder {
	b.t.Helper()
	w := b.do(http.MethodPost, "/consent", url.Values{"request": {request}, "decision": {decision}})
	require.Equal(b.t, http.StatusSeeOther, w.Code, w.Body)
	return b.get(w.Header().Get("Location"))
}

const (
	connected    = "Your device is connected"
	notConnected = "The device was not connected"
	unknownCode  = "That code is not known or too old"
)

func TestADeviceIsConnected(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		h := build(t, db)
		c := h.player(t)
		status, body := h.post("/oauth2/device", c, "", url.Values{"scope": {"openid profile offline_access unknown"}})
		require.Equal(t, 200, status, body)
		deviceCode, userCode := body["device_code"].(string), body["user_code"].(string)
		delete(body, "device_code")
		require.Equal(t, map[string]any{ // RFC 8628, Section 3.2
			"user_code": userCode, "verification_uri": issuer + "/device",
			"verification_uri_complete": issuer + "/device?user_code=" + userCode, "expires_in": 600.0, "interval": 5.0,
		}, body)
		require.Equal(t, []any{400, "authorization_pending"}, h.polls(c, deviceCode))

		// The patient, who is not signed in yet, comes with the link.
		b := h.browser(t)
		page := b.get("/device?user_code=" + userCode)
		require.Equal(t, 200, page.Code)
		require.Contains(t, page.Body.String(), `value="`+userCode+`"`)
		require.Contains(t, page.Body.String(), "Please check that your device shows exactly this code")
		to := b.enter(userCode).Header().Get("Location")
		require.Contains(t, to, "/login?request=")
		request := strings.TrimPrefix(to, "/login?request=")
		s := b.signIn("pwd")
		page = b.get("/oauth2/auth/" + request)
		require.Equal(t, request, asked(t, page))
		for _, text := range []string{"Music &lt;player&gt;", "A device is asking", userCode, "See your name", "at most 90 days", "only if you started this yourself"} {
			require.Contains(t, page.Body.String(), text)
		}
		require.Contains(t, page.Header().Get("Content-Security-Policy"), "form-action 'self';")
		require.Contains(t, b.press(request, "allow").Body.String(), connected)

		status, body = h.post("/oauth2/token", c, "", poll(deviceCode))
		require.Equal(t, 200, status, body)
		require.Equal(t, "openid profile offline_access", body["scope"])
		require.Equal(t, "Bearer", body["token_type"])
		require.InDelta(t, 600, body["expires_in"], 1)
		id := claimsOf(t, body["id_token"])
		require.Equal(t, []any{issuer, h.patient.ID, c.ID, s.ID}, []any{id["iss"], id["sub"], id["aud"], id["sid"]})
		require.Equal(t, halfHash(c.IDTokenAlg, body["access_token"].(string)), id["at_hash"])
		require.NotContains(t, id, "nonce")
		require.Equal(t, []any{issuer}, h.introspection(t, body["access_token"])["aud"])
		status, info := h.userinfo(body["access_token"])
		require.Equal(t, 200, status)
		require.Equal(t, "Ada Example", info["name"])

		// offline_access: the device stays connected when the patient signs out.
		require.NoError(t, db.EndSession(context.Background(), s.PatientID, s.ID, storage.Now()))
		status, body = h.post("/oauth2/token", c, "", refresh(body["refresh_token"]))
		require.Equal(t, 200, status, body)
		// What was allowed is listed, and can be taken back.
		require.NoError(t, db.RevokeConsent(context.Background(), s.PatientID, c.ID, storage.Now()))
		status, _ = h.post("/oauth2/token", c, "", refresh(body["refresh_token"]))
		require.Equal(t, 400, status)
	})
}

func TestAConfidentialClientCanHaveDevices(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	h.change(t, &h.portal, func(c *storage.Client) {
		c.GrantTypes = storage.Words{grantDevice}
		c.Metadata.SubjectType, c.Metadata.Sector = "pairwise", "portal.example"
		c.Metadata.Lifetimes.AccessToken = 60
	})
	status, body := h.post("/oauth2/device", h.portal, h.secret, url.Values{"scope": {"openid"}, "resource": {results, issuer}})
	require.Equal(t, 200, status, body)
	b := h.browser(t)
	b.signIn("pwd")
	page := b.enter(body["user_code"].(string))
	require.Contains(t, page.Body.String(), "A device is asking", "a first party asks too, when it is a device")
	require.Contains(t, page.Body.String(), "ends when you sign out")
	b.press(asked(t, page), "allow")
	form := poll(body["device_code"].(string))
	status, _ = h.post("/oauth2/token", h.portal, "wrong", form)
	require.Equal(t, 401, status)
	form.Set("resource", results+"/other")
	status, body = h.post("/oauth2/token", h.portal, h.secret, form)
	require.Equal(t, []any{400, "invalid_target"}, []any{status, body["error"]})
	form.Set("resource", results)
	status, body = h.post("/oauth2/token", h.portal, h.secret, form)
	require.Equal(t, 200, status, body)
	require.NotContains(t, body, "refresh_token", "the client has no such grant")
	require.InDelta(t, 60, body["expires_in"], 1)
	require.NotEqual(t, h.patient.ID, claimsOf(t, body["id_token"])["sub"])
	status, _ = h.userinfo(body["access_token"])
	require.Equal(t, 401, status, "it is for the other resource")
}

func TestAGrantOfADeviceEndsWithTheSession(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	c := h.player(t)
	b := h.browser(t)
	s := b.signIn("pwd")
	first, code := h.wake(t, c, "openid")
	b.press(asked(t, b.enter(code)), "allow")
	status, body := h.post("/oauth2/token", c, "", poll(first))
	require.Equal(t, 200, status, body)
	second, code := h.wake(t, c, "")
	b.press(asked(t, b.enter(code)), "allow")
	require.NoError(t, h.db.EndSession(context.Background(), s.PatientID, s.ID, storage.Now()))
	status, _ = h.post("/oauth2/token", c, "", refresh(body["refresh_token"]))
	require.Equal(t, 400, status)
	require.Equal(t, []any{400, "invalid_grant"}, h.polls(c, second), "allowed, and over before it was fetched")
}

// RFC 8628, Section 3.3.1: the link spares the typing, and nothing else.
func TestVerificationURICompleteNeverApproves(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	ctx := context.Background()
	c := h.player(t)
	b := h.browser(t)
	s := b.signIn("pwd", "otp")
	require.NoError(t, h.db.SaveConsent(ctx, s.PatientID, c, "", Scopes, storage.Now()))
	deviceCode, userCode := h.wake(t, c, "openid")
	for _, query := range []string{
		"user_code=" + userCode, "user_code=" + strings.ToLower(userCode), "user_code=" + userCode + "&decision=allow",
		"user_code=" + userCode + "&request=" + storage.NewID(), "decision=allow", "user_code=%22%3E%3Cscript%3E",
	} {
		w := b.do(http.MethodGet, "/device?"+query, nil)
		require.Equal(t, 200, w.Code)
		require.Empty(t, w.Header().Get("Location"))
		require.NotContains(t, w.Body.String(), "<script>")
	}
	require.Equal(t, 400, b.do(http.MethodGet, "/device?user_code=a&user_code=b", nil).Code)
	require.Equal(t, []any{400, "authorization_pending"}, h.polls(c, deviceCode))
	// Nor does the dispatcher, for all that was allowed before; only the press.
	page := b.enter(userCode)
	require.Contains(t, page.Body.String(), "A device is asking")
	request := asked(t, page)
	require.NoError(t, h.db.SaveConsent(ctx, s.PatientID, c, "", Scopes, storage.Now()))
	require.Equal(t, request, asked(t, b.get("/oauth2/auth/"+request)), "allowed meanwhile, in another tab")
	require.Equal(t, request, asked(t, b.get("/device/"+request)), "not decided yet")
	require.Equal(t, 400, b.do(http.MethodPost, "/consent", url.Values{"request": {request}}).Code)
	_, err := h.db.DeviceByUserCode(ctx, userCode, storage.Now())
	require.NoError(t, err, "it still waits")
}

func TestThePatientDoesNotAllowADevice(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	c := h.player(t)
	b := h.browser(t)
	b.signIn("pwd")
	deviceCode, userCode := h.wake(t, c, "openid")
	request := asked(t, b.enter(userCode))
	require.Contains(t, b.press(request, "deny").Body.String(), notConnected)
	for range 2 { // no pace for what is decided
		require.Equal(t, []any{400, "access_denied"}, h.polls(c, deviceCode))
	}
	// The way back and another press change nothing.
	require.Contains(t, b.press(request, "allow").Body.String(), notConnected)
	require.Contains(t, b.get("/oauth2/auth/"+request).Body.String(), notConnected)
	require.Contains(t, b.get("/consent?request="+request).Body.String(), notConnected)
	require.Contains(t, b.enter(userCode).Body.String(), unknownCode)
	_, err := h.db.Consent(context.Background(), h.patient.ID, c.ID)
	require.ErrorIs(t, err, storage.ErrNotFound)
	require.Equal(t, []any{400, "access_denied"}, h.polls(c, deviceCode))
}

// RFC 8628, Section 3.5.
func TestADevicePolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := build(t, storagetest.SQLite(t))
		c := h.player(t)
		deviceCode, userCode := h.wake(t, c, "openid")
		for i, step := range []struct {
			wait time.Duration
			want string
		}{
			{0, "authorization_pending"}, {5 * time.Second, "authorization_pending"},
			{4 * time.Second, "slow_down"}, {9 * time.Second, "slow_down"}, {15 * time.Second, "authorization_pending"},
			{0, "slow_down"}, {20 * time.Second, "authorization_pending"},
		} {
			time.Sleep(step.wait)
			require.Equal(t, []any{400, step.want}, h.polls(c, deviceCode), "step %d", i)
		}
		b := h.browser(t)
		b.signIn("pwd")
		b.press(asked(t, b.enter(userCode)), "allow")
		require.Equal(t, []any{200, nil}, h.polls(c, deviceCode), "who was allowed need not wait")

		// Ten minutes, for the device and for the patient.
		deviceCode, userCode = h.wake(t, c, "openid")
		late, lateCode := h.wake(t, c, "openid")
		request := asked(t, b.enter(userCode))
		b.press(asked(t, b.enter(lateCode)), "allow")
		time.Sleep(10 * time.Minute)
		require.Equal(t, []any{400, "expired_token"}, h.polls(c, deviceCode))
		require.Equal(t, []any{400, "expired_token"}, h.polls(c, late), "allowed, and fetched too late")
		require.Equal(t, 410, b.get("/oauth2/auth/"+request).Code)
		require.Equal(t, 410, b.get("/consent?request="+request).Code)
		require.Equal(t, 410, b.get("/device/"+request).Code)
		require.Equal(t, 410, b.press(request, "allow").Code)
		require.Contains(t, b.enter(userCode).Body.String(), unknownCode)
		time.Sleep(time.Hour)
		_, err := h.db.DeleteExpired(context.Background(), "device", storage.Now(), 100)
		require.NoError(t, err)
		require.Equal(t, []any{400, "invalid_grant"}, h.polls(c, deviceCode), "forgotten")
	})
}

func TestFiftyRedeemOneDeviceCode(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		h := build(t, db)
		c := h.player(t)
		b := h.browser(t)
		b.signIn("pwd")
		deviceCode, userCode := h.wake(t, c, "openid offline_access")
		b.press(asked(t, b.enter(userCode)), "allow")
		var mu sync.Mutex
		var good map[string]any
		statuses := map[int]int{}
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				status, body := h.post("/oauth2/token", c, "", poll(deviceCode))
				mu.Lock()
				defer mu.Unlock()
				statuses[status]++
				if status == http.StatusOK {
					good = body
				} else if body["error"] != "invalid_grant" {
					t.Errorf("%d %v", status, body)
				}
			})
		}
		all.Wait()
		require.Equal(t, map[int]int{200: 1, 400: 49}, statuses)
		// Somebody else has the device code: what it gave has ended.
		require.Equal(t, map[string]any{"active": false}, h.introspection(t, good["access_token"]))
		status, body := h.post("/oauth2/token", c, "", refresh(good["refresh_token"]))
		require.Equal(t, []any{400, "invalid_grant"}, []any{status, body["error"]})
	})
}

// Fifty presses, on allow and on deny: one counts, and all are told which.
func TestFiftyAnswersToOneDevice(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		h := build(t, db)
		c := h.player(t)
		deviceCode, userCode := h.wake(t, c, "openid")
		b := h.browser(t)
		b.signIn("pwd")
		request := asked(t, b.enter(userCode))
		var all sync.WaitGroup
		for i := range 50 {
			tab := cloneCookies(b)
			all.Go(func() {
				decision := []string{"allow", "deny"}[i%2]
				w := tab.do(http.MethodPost, "/consent", url.Values{"request": {request}, "decision": {decision}})
				if to := w.Header().Get("Location"); w.Code != http.StatusSeeOther || !h.same(t, "/device/"+request, to) {
					t.Errorf("%d to %q", w.Code, to)
				}
			})
		}
		all.Wait()
		page := b.get("/device/" + request).Body.String()
		switch got := h.polls(c, deviceCode); got[0] {
		case 200:
			require.Contains(t, page, connected)
		default:
			require.Equal(t, []any{400, "access_denied"}, got)
			require.Contains(t, page, notConnected)
		}
	})
}

func TestADeviceCodeBelongsToItsClient(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	mine, other := h.player(t), h.player(t)
	deviceCode, userCode := h.wake(t, mine, "openid")
	require.Equal(t, []any{400, "authorization_pending"}, h.polls(mine, deviceCode))
	require.Equal(t, []any{400, "invalid_grant"}, h.polls(other, deviceCode))
	require.Equal(t, []any{400, "invalid_grant"}, h.polls(mine, deviceCode+"x"))
	require.Equal(t, []any{400, "invalid_grant"}, h.polls(mine, userCode))
	d, err := h.db.DeviceByCode(context.Background(), storage.Digest(deviceCode))
	require.NoError(t, err)
	require.Equal(t, 5, d.Pace, "another client does not slow it down")
	b := h.browser(t)
	b.signIn("pwd")
	b.press(asked(t, b.enter(userCode)), "allow")
	require.Equal(t, []any{400, "invalid_grant"}, h.polls(other, deviceCode))
	status, body := h.post("/oauth2/token", mine, "", poll(deviceCode))
	require.Equal(t, 200, status, body)
	require.Equal(t, []any{400, "invalid_grant"}, h.polls(other, deviceCode))
	require.Equal(t, true, h.introspection(t, body["access_token"])["active"], "nobody ends what is not theirs")
	require.Equal(t, []any{400, "invalid_grant"}, h.polls(mine, deviceCode), "used")
	require.Equal(t, false, h.introspection(t, body["access_token"])["active"])
}

func TestADeviceInTwoTabs(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	c := h.player(t)
	b := h.browser(t)
	deviceCode, userCode := h.wake(t, c, "openid")
	one := strings.TrimPrefix(b.enter(userCode).Header().Get("Location"), "/login?request=")
	two := strings.TrimPrefix(b.enter(userCode).Header().Get("Location"), "/login?request=")
	require.NotEqual(t, one, two)
	b.signIn("pwd")
	require.Equal(t, two, asked(t, b.get("/oauth2/auth/"+two)))
	for range 2 { // a double press
		require.Contains(t, b.press(one, "allow").Body.String(), connected)
	}
	require.Contains(t, b.get("/oauth2/auth/"+one).Body.String(), connected, "the way back")
	require.Equal(t, 410, b.press(two, "deny").Code)
	require.Equal(t, 410, b.get("/oauth2/auth/"+two).Code)
	require.Equal(t, 410, b.get("/device/"+two).Code)
	require.Equal(t, []any{200, nil}, h.polls(c, deviceCode))
}

func TestARequestOfADeviceStaysInItsBrowser(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	c := h.player(t)
	deviceCode, userCode := h.wake(t, c, "openid")
	b := h.browser(t)
	b.signIn("pwd")
	request := asked(t, b.enter(userCode))
	other := h.browser(t)
	other.signIn("pwd")
	moved := func() {
		t.Helper()
		for _, path := range []string{"/oauth2/auth/" + request, "/consent?request=" + request, "/device/" + request} {
			require.Equal(t, 403, other.get(path).Code, path)
		}
	}
	moved()
	w := other.do(http.MethodPost, "/consent", url.Values{"request": {request}, "decision": {"allow"}})
	require.Equal(t, 403, w.Code)
	require.Equal(t, []any{400, "authorization_pending"}, h.polls(c, deviceCode))
	b.press(request, "allow")
	moved()
	for _, id := range []string{"x", storage.NewID()} {
		require.Equal(t, 404, b.get("/device/"+id).Code)
	}
	// A request of a browser has no page of a device.
	to := b.do(http.MethodGet, "/oauth2/auth?"+askFor(h.portal, oauth2.GenerateVerifier(), nil), nil).Header().Get("Location")
	require.Equal(t, 404, b.do(http.MethodGet, strings.Replace(to, "/oauth2/auth/", "/device/", 1), nil).Code)

	// Another site's page cannot press anything.
	r := httptest.NewRequest(http.MethodPost, "/device", strings.NewReader("user_code="+userCode))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	status, _ := h.send(r)
	require.Equal(t, 403, status)
}

// Which device an authorization request is for is never the client's to say.
func TestNoClientNamesADevice(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	deviceCode, userCode := h.wake(t, h.player(t), "openid")
	d, err := h.db.DeviceByCode(context.Background(), storage.Digest(deviceCode))
	require.NoError(t, err)
	b := h.browser(t)
	for _, change := range []url.Values{
		{"device_id": {d.ID}}, {"DeviceID": {d.ID}}, {"device": {d.ID}}, {"user_code": {userCode}}, {"device_code": {deviceCode}},
		{"request": {""}, "grant_type": {grantDevice}},
	} {
		to := b.do(http.MethodGet, "/oauth2/auth?"+askFor(h.portal, oauth2.GenerateVerifier(), change), nil).Header().Get("Location")
		a, err := h.db.AuthRequest(context.Background(), strings.TrimPrefix(to, "/oauth2/auth/"), storage.Now())
		require.NoError(t, err, to)
		require.Empty(t, a.DeviceID)
	}
	b.signIn("pwd")
	require.NotEmpty(t, answer(t, b.get("/oauth2/auth?"+askFor(h.portal, oauth2.GenerateVerifier(), url.Values{"user_code": {userCode}}))).Get("code"))
	_, err = h.db.WaitingDevice(context.Background(), d.ID, storage.Now())
	require.NoError(t, err)
}

func TestADeviceThatWantsLabDataNeedsTwoFactors(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	c := h.player(t)
	deviceCode, userCode := h.wake(t, c, "openid lab")
	b := h.browser(t)
	b.signIn("pwd")
	to := b.enter(userCode).Header().Get("Location")
	require.Contains(t, to, "/login/enrol?request=")
	request := strings.TrimPrefix(to, "/login/enrol?request=")
	w := b.do(http.MethodPost, "/consent", url.Values{"request": {request}, "decision": {"allow"}})
	require.True(t, h.same(t, "/oauth2/auth/"+request, w.Header().Get("Location")), "not yet")
	require.Equal(t, []any{400, "authorization_pending"}, h.polls(c, deviceCode))
	b.signIn("pwd", "otp")
	b.press(asked(t, b.get("/oauth2/auth/"+request)), "allow")
	require.Equal(t, []any{200, nil}, h.polls(c, deviceCode))
}

// RFC 8628, Section 5.1.
func TestUserCodesCannotBeTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := build(t, storagetest.SQLite(t))
		c := h.player(t)
		b := h.browser(t)
		b.signIn("pwd")
		_, used := h.wake(t, c, "openid")
		b.press(asked(t, b.enter(used)), "allow")
		_, denied := h.wake(t, c, "openid")
		b.press(asked(t, b.enter(denied)), "deny")
		_, expired := h.wake(t, c, "openid")
		time.Sleep(10 * time.Minute)
		_, good := h.wake(t, c, "openid")

		// Nobody is signed in: the address counts, whatever its cookies. Right
		// codes are free.
		var pages []string
		for _, code := range []string{used, denied, expired, "BBBB-BBBB", "not a code"} {
			require.Contains(t, h.browser(t).enter(good).Header().Get("Location"), "/login")
			w := h.browser(t).enter(code)
			require.Equal(t, 422, w.Code, code)
			require.Contains(t, w.Body.String(), unknownCode)
			require.Contains(t, w.Body.String(), `aria-invalid="true"`)
			require.Contains(t, w.Body.String(), `value="`+code+`"`)
			pages = append(pages, strings.ReplaceAll(w.Body.String(), code, ""))
		}
		for _, page := range pages {
			require.Equal(t, pages[0], page, "nothing tells which codes there were")
		}
		for _, code := range []string{"BBBB-BBBC", good} {
			w := h.browser(t).enter(code)
			require.Equal(t, 429, w.Code)
			require.Equal(t, "600", w.Header().Get("Retry-After"))
			require.NotContains(t, w.Body.String(), code)
		}
		// A patient who is signed in is counted alone, in whatever browser.
		asked(t, b.enter(good))
		for range 5 {
			require.Equal(t, 422, b.enter("BBBB-BBBB").Code)
		}
		again := h.browser(t)
		again.signIn("pwd")
		require.Equal(t, 429, again.enter(good).Code)
		time.Sleep(10 * time.Minute)
		_, good = h.wake(t, c, "openid")
		b.signIn("pwd")
		asked(t, b.enter(good))
		require.Contains(t, h.browser(t).enter(good).Header().Get("Location"), "/login")
	})
}

// All guesses of a burst are counted before the first of them is answered.
func TestABurstOfUserCodes(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		h := build(t, db)
		var mu sync.Mutex
		statuses := map[int]int{}
		var all sync.WaitGroup
		for range 50 {
			b := h.browser(t)
			all.Go(func() {
				w := b.do(http.MethodPost, "/device", url.Values{"user_code": {"BBBB-BBBB"}})
				mu.Lock()
				defer mu.Unlock()
				statuses[w.Code]++
			})
		}
		all.Wait()
		require.Equal(t, map[int]int{422: 5, 429: 45}, statuses)
	})
}

func TestGuessersAreToldApart(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	try := func(addr string) int {
		r := httptest.NewRequest(http.MethodPost, "/device", strings.NewReader("user_code=BBBB-BBBB"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.RemoteAddr = addr
		status, _ := h.send(r)
		return status
	}
	for range 5 {
		require.Equal(t, 422, try("[2001:db8:1:2::1]:1"))
		require.Equal(t, 422, try("198.51.100.7:1"))
	}
	require.Equal(t, 429, try("[2001:db8:1:2:ffff::9]:2"), "one subscriber has 64 bits of addresses")
	require.Equal(t, 422, try("[2001:db8:1:3::1]:1"))
	require.Equal(t, 429, try("198.51.100.7:2"))
	require.Equal(t, 422, try("198.51.100.8:1"))
}

func TestBadDeviceRequests(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	c := h.player(t)
	h.change(t, &c, func(c *storage.Client) { c.Scopes = storage.Words{"openid", "profile"} })
	const form = "application/x-www-form-urlencoded"
	id := "client_id=" + c.ID
	for _, x := range []struct {
		name, path, kind, body string
		status                 int
		code                   string
	}{
		{"no body", "/oauth2/device", form, "", 401, "invalid_client"},
		{"unknown client", "/oauth2/device", form, "client_id=nobody", 401, "invalid_client"},
		{"a secret where there is none", "/oauth2/device", form, id + "&client_secret=x", 401, "invalid_client"},
		{"a client that must authenticate", "/oauth2/device", form, "client_id=" + h.portal.ID, 401, "invalid_client"},
		{"a client without this grant", "/oauth2/device", form, "client_id=" + h.public.ID, 400, "unauthorized_client"},
		{"a scope that is not the client's", "/oauth2/device", form, id + "&scope=openid+email", 400, "invalid_scope"},
		{"a resource that is not the client's", "/oauth2/device", form, id + "&resource=https://elsewhere.example", 400, "invalid_target"},
		{"a parameter twice", "/oauth2/device", form, id + "&scope=openid&scope=openid", 400, "invalid_request"},
		{"in the address", "/oauth2/device?" + id, form, "", 400, "invalid_request"},
		{"json", "/oauth2/device", "application/json", "{}", 415, "invalid_request"},
		{"multipart", "/oauth2/device", "multipart/form-data; boundary=x", "--x--", 415, "invalid_request"},
		{"no kind", "/oauth2/device", "", id, 415, "invalid_request"},
		{"large", "/oauth2/device", form, id + "&scope=" + strings.Repeat("a", 65<<10), 413, "invalid_request"},
		{"not text", "/oauth2/device", form, id + "&scope=%ff", 400, "invalid_request"},

		{"no device code", "/oauth2/token", form, id + "&grant_type=" + grantDevice, 400, "invalid_request"},
		{"an unknown device code", "/oauth2/token", form, id + "&grant_type=" + grantDevice + "&device_code=x", 400, "invalid_grant"},
		{"a device code twice", "/oauth2/token", form, id + "&grant_type=" + grantDevice + "&device_code=x&device_code=y", 400, "invalid_request"},
		{"a poll of nobody", "/oauth2/token", form, "grant_type=" + grantDevice + "&device_code=x", 401, "invalid_client"},
		{"a poll by a client without this grant", "/oauth2/token", form, "client_id=" + h.public.ID + "&grant_type=" + grantDevice + "&device_code=x", 400, "unauthorized_client"},
	} {
		r := httptest.NewRequest(http.MethodPost, x.path, strings.NewReader(x.body))
		r.Header.Set("Content-Type", x.kind)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, x.status, w.Code, x.name)
		require.Contains(t, w.Body.String(), `"error":"`+x.code+`"`, x.name)
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"), x.name)
	}
	b := h.browser(t)
	require.Equal(t, 405, b.do(http.MethodGet, "/oauth2/device", nil).Code)
	for _, typed := range []string{"", strings.Repeat("W", 10<<10), "<script>", "\u2028{{.}}"} {
		w := b.enter(typed)
		require.Equal(t, 422, w.Code)
		require.NotContains(t, w.Body.String(), "<script>")
		require.Less(t, w.Body.Len(), 8<<10)
	}
}

func TestAClientThatChangesMeanwhile(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	ctx := context.Background()
	c := h.player(t)
	b := h.browser(t)
	b.signIn("pwd")
	begin := func() (deviceCode, request string) {
		deviceCode, userCode := h.wake(t, c, "openid email")
		return deviceCode, asked(t, b.enter(userCode))
	}
	over := func(request string, status int) {
		t.Helper()
		require.Equal(t, status, b.get("/oauth2/auth/"+request).Code)
		w := b.do(http.MethodPost, "/consent", url.Values{"request": {request}, "decision": {"allow"}})
		if w.Code == http.StatusSeeOther {
			w = b.get(w.Header().Get("Location"))
		}
		require.Equal(t, status, w.Code)
	}
	deviceCode, request := begin()
	h.change(t, &c, func(c *storage.Client) { c.Scopes = storage.Words{"openid"} })
	over(request, 410)
	require.Equal(t, []any{400, "authorization_pending"}, h.polls(c, deviceCode))

	h.change(t, &c, func(c *storage.Client) { c.Scopes = Scopes })
	deviceCode, request = begin()
	h.change(t, &c, func(c *storage.Client) { c.GrantTypes = storage.Words{"refresh_token"} })
	over(request, 410)
	require.Equal(t, []any{400, "unauthorized_client"}, h.polls(c, deviceCode))

	h.change(t, &c, func(c *storage.Client) { c.GrantTypes = storage.Words{grantDevice} })
	deviceCode, request = begin()
	_, fresh := h.wake(t, c, "openid")
	require.NoError(t, h.db.DeleteClient(ctx, c.ID, storage.Now()))
	over(request, 404)
	require.Equal(t, []any{401, "invalid_client"}, h.polls(c, deviceCode))
	require.NotContains(t, b.enter(fresh).Body.String(), "Music", "a client that is gone asks nobody")
}

func TestDevicesWithoutADatabase(t *testing.T) {
	db, p := behindProxy(t)
	h := build(t, db)
	c := h.player(t)
	deviceCode, userCode := h.wake(t, c, "openid")
	b := h.browser(t)
	request := strings.TrimPrefix(b.enter(userCode).Header().Get("Location"), "/login?request=")
	p.cut()
	for path, form := range map[string]url.Values{"/oauth2/device": {"client_id": {c.ID}}, "/oauth2/token": poll(deviceCode)} {
		form.Set("client_id", c.ID)
		w := b.do(http.MethodPost, path, form)
		require.Equal(t, 503, w.Code, path+w.Body.String())
		require.NotEmpty(t, w.Header().Get("Retry-After"))
	}
	require.Equal(t, 503, b.enter(userCode).Code)
	require.Equal(t, 503, b.get("/oauth2/auth/"+request).Code)
	require.Equal(t, 503, b.get("/device/"+request).Code)
	require.Equal(t, 503, b.do(http.MethodPost, "/consent", url.Values{"request": {request}, "decision": {"allow"}}).Code)
	require.Equal(t, 200, b.get("/device?user_code="+userCode).Code, "the page itself needs none")
}

// A client that anybody may be asks ten times as often as a network may: what is
// refused leaves no row, and a device elsewhere is served.
func TestDevicesAreAskedForAtAPace(t *testing.T) {
	h := build(t, storagetest.SQLite(t))
	c := h.player(t)
	ask := func(addr string) int {
		r := httptest.NewRequest(http.MethodPost, "/oauth2/device", strings.NewReader("client_id="+c.ID))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.RemoteAddr = addr
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code == 429 {
			require.NotEmpty(t, w.Header().Get("Retry-After"))
		}
		return w.Code
	}
	statuses := map[int]int{}
	for range 10 * devicesOfNetwork.Burst {
		statuses[ask("198.51.100.7:1")]++
	}
	require.InDelta(t, devicesOfNetwork.Burst, statuses[200], 10) // one comes back each second
	require.Equal(t, 10*devicesOfNetwork.Burst, statuses[200]+statuses[429])
	require.Equal(t, 200, ask("198.51.100.8:1"))
}
