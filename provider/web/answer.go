package web

import (
	"context"
	"errors"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/pat-authenticate/patauth/storage"
)

// The errors that handlers return besides those of storage.
var (
	ErrInvalid              = errors.New("invalid request")
	ErrLogin                = errors.New("login required")
	ErrConsent              = errors.New("consent required")
	ErrInteraction          = errors.New("interaction required")
	ErrDenied               = errors.New("access denied")
	ErrMethod               = errors.New("method not allowed")
	ErrTooLarge             = errors.New("too large")
	ErrUnsupportedMediaType = errors.New("unsupported media type")
	ErrSlowDown             = errors.New("slow down")
	ErrUnavailable          = errors.New("unavailable")

	errInternal = errors.New("internal error")
)

// Row is one line of the table that answers errors.
type Row struct {
	// Name is the last part of a problem's type and of the message's key.
	Name   string
	Status int
	// OAuth is the error code (RFC 6749, Section 4.1.2.1 and 5.2; OpenID
	// Connect Core, Section 3.1.2.6).
	OAuth string

	errs []error
	// oauthStatus is the status on the OAuth face: "The authorization server
	// responds with an HTTP 400 (Bad Request) status code (unless specified
	// otherwise)" (RFC 6749, Section 5.2).
	oauthStatus int
	title       string // of the problem document
}

// table is every answer to an error. The first row that fits counts.
var table = []Row{
	{"invalid", 400, "invalid_request", []error{ErrInvalid}, 400, "Invalid request"},
	{"login", 401, "login_required", []error{ErrLogin}, 400, "Login required"},
	{"consent", 401, "consent_required", []error{ErrConsent}, 400, "Consent required"},
	{"interaction", 401, "interaction_required", []error{ErrInteraction}, 400, "Interaction required"},
	{"denied", 403, "access_denied", []error{ErrDenied}, 400, "Access denied"},
	{"not_found", 404, "invalid_request", []error{storage.ErrNotFound}, 400, "Not found"},
	{"method", 405, "invalid_request", []error{ErrMethod}, 405, "Method not allowed"},
	{"conflict", 409, "invalid_request", []error{storage.ErrConflict}, 400, "Conflict"},
	{"spent", 410, "invalid_grant", []error{storage.ErrSpent}, 400, "Already used or expired"},
	{"too_large", 413, "invalid_request", []error{ErrTooLarge}, 413, "Too large"},
	{"unsupported_media_type", 415, "invalid_request", []error{ErrUnsupportedMediaType}, 415, "Unsupported media type"},
	{"slow_down", 429, "temporarily_unavailable", []error{ErrSlowDown}, 429, "Too many requests"},
	{"unavailable", 503, "temporarily_unavailable", unavailable, 503, "Unavailable"},
	internalRow,
}

// unavailable is what may be asked again in a moment: it did not come in time, or
// nobody waited for it.
var unavailable = []error{ErrUnavailable, storage.ErrUnavailable, storage.ErrTimeout, context.DeadlineExceeded, context.Canceled}

// Unavailable reports whether the answer to err is 503.
func Unavailable(err error) bool {
	return slices.ContainsFunc(unavailable, func(e error) bool { return errors.Is(err, e) })
}

var internalRow = Row{"internal", 500, "server_error", []error{errInternal}, 500, "Internal error"}

// RowOf is the table's answer to err. Where no row fits, it is the row
// "internal" and known is false.
func RowOf(err error) (row Row, known bool) {
	for _, row := range table {
		for _, e := range row.errs {
			if errors.Is(err, e) {
				return row, true
			}
		}
	}
	return internalRow, false
}

// invalid is an ErrInvalid that names the parameter at fault.
type invalid struct{ param, why string }

func (e invalid) Error() string        { return "invalid request: " + e.param + ": " + e.why }
func (e invalid) Is(target error) bool { return target == ErrInvalid }

// Invalid is an ErrInvalid about one parameter. Both words are shown to whoever
// sent it: why is a fixed phrase in English and repeats nothing of the input.
func Invalid(param, why string) error { return invalid{param, why} }

// InvalidParameter is what an error made by Invalid names; "" for any other.
func InvalidParameter(err error) (param, why string) {
	var e invalid
	if errors.As(err, &e) {
		return e.param, e.why
	}
	return "", ""
}

// slowDown is an ErrSlowDown that says for how long.
type slowDown struct{ after time.Duration }

func (e slowDown) Error() string        { return "slow down: retry after " + e.after.String() }
func (e slowDown) Is(target error) bool { return target == ErrSlowDown }

// SlowDown is an ErrSlowDown answered with Retry-After.
func SlowDown(after time.Duration) error { return slowDown{after} }

// retryAfter is the value of Retry-After in seconds, or 0 for none.
func retryAfter(err error) int {
	var e slowDown
	if errors.As(err, &e) {
		return max(1, int(math.Ceil(e.after.Seconds())))
	}
	switch row, _ := RowOf(err); row.Status {
	case http.StatusTooManyRequests:
		return 30
	case http.StatusServiceUnavailable:
		return 5
	}
	return 0
}
