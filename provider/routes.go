package provider

import (
	"net/http"
	"slices"

	"github.com/gorilla/mux"

	"github.com/pat-authenticate/patauth/provider/web"
)

// HEAD asks for what GET would say, and for nothing to happen (RFC 9110, Section
// 9.2.1): where GET goes on with something, spends or begins it, there is none.
var (
	get           = []string{http.MethodGet, http.MethodHead}
	advance       = []string{http.MethodGet}
	post          = []string{http.MethodPost}
	advanceOrPost = []string{http.MethodGet, http.MethodPost}
	both          = []string{http.MethodGet, http.MethodHead, http.MethodPost}
)

// routes is every public route. The JSON documents, /static/ and the endpoints
// of clients know no cookie and ask no session of the database.
func (r rooms) routes(development http.Handler) *mux.Router {
	router := r.site.Router()
	add := func(path string, h http.Handler, methods []string) {
		router.Handle(path, h).Methods(slices.Clone(methods)...) // mux writes into what it is given
	}
	page := func(path string, h web.Handler, methods []string) {
		add(path, r.sessions.Middleware(r.site.Page(h)), methods)
	}
	// once is page for the forms that give a browser a new session handle.
	once := func(path string, h web.Handler) {
		add(path, r.sessions.Middleware(r.sessions.Once(r.site.Page(h))), post)
	}
	protocol := func(path string, h web.Handler, methods []string) { add(path, r.site.OAuth(h), methods) }
	// shared is protocol for what scripts of clients' pages may call, too.
	shared := func(path string, h web.Handler, methods []string) {
		add(path, r.oauth.CrossOrigin(r.site.OAuth(h)), append(slices.Clone(methods), http.MethodOptions))
	}

	// What the provider says of itself.
	open := append(slices.Clone(get), http.MethodOptions)
	add("/.well-known/openid-configuration", r.oauth.Discovery(), open)
	add("/.well-known/oauth-authorization-server", r.oauth.Discovery(), open)
	add("/.well-known/jwks.json", r.oauth.JWKS(), open)
	// https://w3c.github.io/webappsec-change-password-url/
	page("/.well-known/change-password", changePassword, get)
	page("/problems/{name}", r.site.ProblemPage, get)
	router.PathPrefix("/static/").Handler(r.site.Pages.Static()).Methods(slices.Clone(get)...)

	// Browsers on their way to a client.
	page("/oauth2/auth", r.oauth.Authorize, advanceOrPost)
	page("/oauth2/auth/{id}", r.oauth.Dispatch, advance)
	page("/consent", r.oauth.GetConsent, get)
	page("/consent", r.oauth.PostConsent, post)
	page("/oauth2/logout", r.oauth.EndSession, advanceOrPost)
	page("/logout", r.oauth.GetLogout, get)
	page("/logout", r.oauth.PostLogout, post)

	// Clients.
	shared("/oauth2/token", r.oauth.Token, post)
	shared("/oauth2/userinfo", r.oauth.UserInfo, both)
	protocol("/oauth2/introspect", r.oauth.Introspect, post)
	shared("/oauth2/revoke", r.oauth.Revoke, post)

	// Devices without a keyboard, and the patients who allow them.
	protocol("/oauth2/device", r.oauth.Device, post)
	page("/device", r.oauth.GetDevice, get)
	page("/device", r.oauth.PostDevice, post)
	page("/device/{request}", r.oauth.GetDeviceAnswer, advance)

	// Clients that register themselves.
	protocol("/oauth2/register", r.oauth.Register, post)
	protocol("/oauth2/register/{client}", r.oauth.ReadRegistration, get)
	protocol("/oauth2/register/{client}", r.oauth.ReplaceRegistration, []string{http.MethodPut})
	protocol("/oauth2/register/{client}", r.oauth.DeleteRegistration, []string{http.MethodDelete})

	// Getting in.
	page("/register", r.login.GetRegister, get)
	page("/register", r.login.PostRegister, post)
	page("/verify-email", r.login.GetVerify, get)
	page("/verify-email", r.login.PostVerify, post)
	page("/verify-email/sent", r.login.GetSent, get)
	page("/verify-email/done", r.login.GetVerified, get)
	page("/verify-email/resend", r.login.GetResend, get)
	page("/verify-email/resend", r.login.PostResend, post)
	page("/login", r.login.GetLogin, get)
	once("/login", r.login.PostLogin)
	once("/login/passkey", r.login.PostPasskey)
	page("/login/second", r.login.GetSecond, advance)
	once("/login/second", r.login.PostSecond)
	page("/login/enrol", r.login.GetEnrol, get)
	page("/login/enrol/{factor}", r.login.GetEnrolFactor, advance)
	once("/login/enrol/{factor}", r.login.PostEnrolFactor)
	page("/login/password", r.login.GetPassword, get)
	once("/login/password", r.login.PostPassword)
	page("/signout", r.login.PostSignout, post)

	// The patient's own pages.
	page("/", home, get)
	page("/account", r.account.GetOverview, get)
	page("/account/profile", r.account.GetProfile, get)
	page("/account/profile", r.account.PostProfile, post)
	page("/account/labs", r.account.GetLabs, get)
	page("/account/labs", r.account.PostLabs, post)
	page("/account/labs/unlink", r.account.PostUnlink, post)
	page("/account/factors", r.account.GetFactors, get)
	page("/account/factors/{id}/remove", r.account.GetRemoveFactor, get)
	page("/account/factors/{id}/remove", r.account.PostRemoveFactor, post)
	page("/account/sessions", r.account.GetSessions, get)
	page("/account/sessions/{id}/end", r.account.PostEndSession, post)
	page("/account/sessions/end-others", r.account.PostEndOthers, post)
	page("/account/apps", r.account.GetApps, get)
	page("/account/apps/{client}/revoke", r.account.PostRevokeApp, post)

	if development != nil {
		router.PathPrefix("/dev/").Handler(development)
	}
	return router
}

// home is where somebody lands who typed the address. GET /
func home(w http.ResponseWriter, r *http.Request) error { return web.Redirect(w, r, "/account") }

// changePassword is where password managers look. GET /.well-known/change-password
func changePassword(w http.ResponseWriter, r *http.Request) error {
	return web.Redirect(w, r, "/login/password")
}
