// Package errorsx holds the error helpers that fosite v0.49.0 imports.
package errorsx

// WithStack returns err unchanged: errors here carry context in their text,
// not stack traces.
func WithStack(err error) error { return err }

// Cause unwraps err to the innermost error that offers a non-nil Cause.
func Cause(err error) error {
	for err != nil {
		c, ok := err.(interface{ Cause() error })
		if !ok || c.Cause() == nil {
			break
		}
		err = c.Cause()
	}
	return err
}

// The carriers are optional facets of an error that fosite's RFC6749Error
// reads from the errors it wraps.
type (
	StatusCodeCarrier interface{ StatusCode() int }
	RequestIDCarrier  interface{ RequestID() string }
	ReasonCarrier     interface{ Reason() string }
	DebugCarrier      interface{ Debug() string }
	StatusCarrier     interface{ Status() string }
	DetailsCarrier    interface{ Details() map[string]any }
)
