package web

import (
	"net/http"
	"net/url"
	"strings"
)

// Flow is where a step leads when it is done: on to an authorization request,
// or back to a page of the account. Forms carry it as hidden inputs.
type Flow struct {
	Request string // id of an authorization request
	To      string // "account", "labs" or "factors"
}

// destinations is the closed set of places that To may name.
var destinations = map[string]string{
	"account": "/account",
	"labs":    "/account/labs",
	"factors": "/account/factors",
}

// FlowOf reads a Flow from a query or form. What is neither an id nor a known
// place is an ErrInvalid, so that no address from outside is ever followed.
func FlowOf(v url.Values) (Flow, error) {
	f := Flow{Request: v.Get("request"), To: v.Get("to")}
	if f.Request != "" && !isID(f.Request) {
		return Flow{}, Invalid("request", "not an id")
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

// FormFlow is Form and the Flow in it.
func FormFlow(r *http.Request) (url.Values, Flow, error) { return withFlow(Form(r)) }

func withFlow(v url.Values, err error) (url.Values, Flow, error) {
	if err != nil {
		return nil, Flow{}, err
	}
	f, err := FlowOf(v)
	return v, f, err
}

// isID reports whether id looks like one of storage.NewID: [A-Z2-7]{26}.
func isID(id string) bool {
	return len(id) == 26 && strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
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
