package web

import (
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/pat-authenticate/patauth/storage"
)

// Flow is where a step leads when it is done: on to an authorization request,
// or back to a page of the account. Forms carry it as hidden inputs.
type Flow struct {
	Request string // handle of an authorization request
	To      string // "account", "labs" or "factors"
	// Problem is the key of what was wrong with the form that led back to its page,
	// and Typed what was typed there, to be shown again. No form and no link carries
	// them on.
	Problem, Typed string
}

// problems is the closed set of what Problem may be, with the status of the page.
var problems = map[string]int{
	"login.wrong": http.StatusUnauthorized, "login.passkey.wrong": http.StatusUnauthorized,
	"login.second.wrong": http.StatusUnauthorized, "login.second.tries": http.StatusUnauthorized,
}

// Status is that of a page that says Problem.
func (f Flow) Status() int {
	if status, ok := problems[f.Problem]; ok {
		return status
	}
	return http.StatusOK
}

// Again sends the browser back to the page at path to say problem, after a form: so
// that Back, a reload, and a telephone that drops the page meet no form again, and
// the flow is not lost. typed is sealed, since it stands in the address.
func (s *Site) Again(w http.ResponseWriter, r *http.Request, path string, f Flow, problem, typed string) error {
	v := url.Values{"problem": {problem}}
	if typed != "" && len(typed) <= maxTyped {
		v.Set("typed", base64.RawURLEncoding.EncodeToString(s.DB.Seal("form", "typed", "", []byte(typed))))
	}
	to := "&"
	if f.Query() == "" {
		to = "?"
	}
	return Redirect(w, r, path+f.Query()+to+v.Encode())
}

// maxTyped bounds what is shown again, in bytes: an address of mail.
const maxTyped = 254

// A flow cookie binds authorization requests to one browser. Requests that come
// at once to a browser that has none get one each, under names of their own, so
// that each tab goes on; later ones share the oldest.
const (
	flowCookie = "flow-"
	maxFlows   = 8
)

// Bind is what an authorization request that begins in this browser is bound to:
// the digest of its flow cookie, which is set where there is none. Those that are
// too many go.
func (s *Site) Bind(w http.ResponseWriter, r *http.Request) []byte {
	all := readCookies(r, s.Issuer, flowCookie)
	for _, c := range all[min(len(all), maxFlows):] {
		http.SetCookie(w, Cookie(s.Issuer, c.Name, "", -1))
	}
	if len(all) > 0 {
		return storage.Digest(all[0].Value)
	}
	v := storage.NewHandle("pa_fl_")
	http.SetCookie(w, Cookie(s.Issuer, flowCookie+storage.NewID()[:8], v, 0))
	return storage.Digest(v)
}

// Bound reports whether a request that is bound to binding began in this browser.
func (s *Site) Bound(r *http.Request, binding []byte) bool {
	return slices.ContainsFunc(readCookies(r, s.Issuer, flowCookie), func(c *http.Cookie) bool {
		return subtle.ConstantTimeCompare(storage.Digest(c.Value), binding) == 1
	})
}

// BindsAny reports whether any request began in this browser, as far as it tells:
// one that keeps no cookies does not.
func (s *Site) BindsAny(r *http.Request) bool {
	return len(readCookies(r, s.Issuer, flowCookie)) > 0
}

// destinations is the closed set of places that To may name.
var destinations = map[string]string{
	"account": "/account",
	"labs":    "/account/labs",
	"factors": "/account/factors",
}

// FlowOf reads a Flow from a query or form. What is neither a handle nor a known
// place is an ErrInvalid, so that no address from outside is ever followed.
func FlowOf(v url.Values) (Flow, error) {
	f := Flow{Request: v.Get("request"), To: v.Get("to")}
	if f.Request != "" && !storage.IsHandle(f.Request) {
		return Flow{}, Invalid("request", "not a request")
	}
	if _, ok := destinations[f.To]; f.To != "" && !ok {
		return Flow{}, Invalid("to", "not a known place")
	}
	if f.Request != "" && f.To != "" {
		return Flow{}, Invalid("to", "not together with request")
	}
	return f, nil
}

// QueryFlow is Query and the Flow in it.
func QueryFlow(r *http.Request) (url.Values, Flow, error) { return withFlow(Query(r)) }

// PageFlow is QueryFlow for the page that Again leads back to.
func (s *Site) PageFlow(r *http.Request) (Flow, error) {
	v, f, err := QueryFlow(r)
	if _, ok := problems[v.Get("problem")]; err != nil || !ok {
		return f, err
	}
	f.Problem = v.Get("problem")
	sealed, err := base64.RawURLEncoding.DecodeString(v.Get("typed"))
	if err == nil && s.DB != nil {
		if plain, err := s.DB.Unseal("form", "typed", "", sealed); err == nil {
			f.Typed = string(plain)
		}
	}
	return f, nil
}

// FormFlow is Form and the Flow in it. Who sends a form is about it, so the
// authorization request that it belongs to waits anew.
func (s *Site) FormFlow(r *http.Request) (url.Values, Flow, error) {
	v, f, err := withFlow(Form(r))
	return v, s.Acted(f), err
}

// Acted is f after the patient has done something about it.
func (s *Site) Acted(f Flow) Flow {
	if f.Request != "" {
		f.Request = s.DB.ActAuthRequest(f.Request, storage.Now())
	}
	return f
}

func withFlow(v url.Values, err error) (url.Values, Flow, error) {
	if err != nil {
		return nil, Flow{}, err
	}
	f, err := FlowOf(v)
	return v, f, err
}

// Query is f as the query of a link, with its question mark; "" for no flow.
func (f Flow) Query() string {
	switch {
	case f.Request != "":
		return "?request=" + f.Request
	case f.To != "":
		return "?to=" + f.To
	}
	return ""
}

// Done is the path to return to when the step is done.
func (f Flow) Done() string {
	if f.Request != "" {
		return "/oauth2/auth/" + f.Request
	}
	if path, ok := destinations[f.To]; ok {
		return path
	}
	return destinations["account"]
}

// FlowTo is the flow that returns to an account page at path: the most specific
// known place, else the account itself.
func FlowTo(path string) Flow {
	for to, place := range destinations {
		if to != "account" && (path == place || strings.HasPrefix(path, place+"/")) {
			return Flow{To: to}
		}
	}
	return Flow{To: "account"}
}
