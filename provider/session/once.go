package session

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// Once is next for forms whose answer gives a signed-in browser a new handle,
// behind Middleware. A browser may press twice: the patient does, or the answer
// was lost on the way. The second press comes with the old handle and asks for
// what is spent, so it gets the answer to the first, which the browser never saw.
// That is no way in for anybody else: it takes the old handle and the form that
// raised it.
func (s *Sessions) Once(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handle, err := web.ReadCookie(r, s.Site.Issuer, web.SessionCookie)
		if errors.Is(err, http.ErrNoCookie) {
			next.ServeHTTP(w, r)
			return
		}
		var body []byte
		if err == nil {
			body, err = io.ReadAll(r.Body)
		}
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			err = web.ErrTooLarge
		}
		if err != nil {
			s.Site.Fail(w, r, err)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		press := strings.Join([]string{handle, r.URL.RequestURI(), string(body)}, "\x00")
		mine, err := s.press(w, r, press)
		if err != nil {
			s.Site.Fail(w, r, fmt.Errorf("second press: %w", err))
			return
		}
		if !mine {
			return
		}
		if _, ok := From(r.Context()); !ok {
			next.ServeHTTP(w, r)
			return
		}
		// A browser hangs up on the first press when it sends the second. What was
		// begun is brought to its end all the same.
		ctx, stop := context.WithTimeout(context.WithoutCancel(r.Context()), storage.PressUnderWay/2)
		defer stop()
		next.ServeHTTP(w, r.WithContext(ctx))
		answer := ""
		if raised(w.Header(), s.Site.Issuer) {
			b, err := json.Marshal(pressed{w.Header().Get("Location"), w.Header()["Set-Cookie"]})
			if err != nil {
				panic(err) // texts
			}
			answer = string(b)
		}
		// It is answered already, so a failure is nobody's but the log's.
		if err := s.DB.AnswerPress(ctx, press, answer, storage.Now()); err != nil {
			web.Note(r.Context(), "press_error", err.Error())
		}
	})
}

// pressed is the answer to a press.
type pressed struct {
	Location string   `json:"location"`
	Cookies  []string `json:"cookies"`
}

// raised reports whether the answer leads on with a new handle.
func raised(h http.Header, issuer string) bool {
	name := web.Cookie(issuer, web.SessionCookie, "", 0).Name + "="
	for _, c := range h["Set-Cookie"] {
		if value, ok := strings.CutPrefix(c, name); ok && !strings.HasPrefix(value, ";") {
			return h.Get("Location") != ""
		}
	}
	return false
}

// press reports whether this press is to be answered now. If not, it has been: as
// the first one was. One that is under way is waited for.
func (s *Sessions) press(w http.ResponseWriter, r *http.Request, press string) (mine bool, err error) {
	ctx := r.Context()
	_, live := From(ctx)
	for {
		// A handle that is nobody's begins no press, or strangers would leave rows.
		if live {
			err := s.DB.BeginPress(ctx, press, storage.Now())
			if err == nil || !errors.Is(err, storage.ErrSpent) {
				return err == nil, err
			}
		}
		text, err := s.DB.PressAnswer(ctx, press, storage.Now())
		if errors.Is(err, storage.ErrNotFound) {
			if !live {
				return true, nil
			}
			continue // forgotten meanwhile: it is this one's turn
		}
		if err != nil {
			return false, err
		}
		if text != "" {
			var a pressed
			if err := json.Unmarshal([]byte(text), &a); err != nil {
				return false, err
			}
			for _, c := range a.Cookies {
				w.Header().Add("Set-Cookie", c)
			}
			return false, web.Redirect(w, r, a.Location)
		}
		select {
		case <-ctx.Done():
			return false, fmt.Errorf("%w: %w", web.ErrUnavailable, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
