package session

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

type key struct{}

// From is the live session of the request, put there by Middleware.
func From(ctx context.Context) (*storage.Session, bool) {
	s, ok := ctx.Value(key{}).(*storage.Session)
	return s, ok
}

// Middleware finds the session of the cookie. A request without one, or with one
// that has ended, was idle too long, or belongs to a patient who is disabled or
// gone, goes on as nobody's. Where the database cannot say, the answer is 503:
// a patient is not signed out by an outage.
func (s *Sessions) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handle, err := web.ReadCookie(r, s.Site.Issuer, web.SessionCookie)
		if errors.Is(err, http.ErrNoCookie) {
			next.ServeHTTP(w, r)
			return
		}
		if err != nil {
			s.Site.Fail(w, r, err)
			return
		}
		found, patient, err := s.find(r.Context(), handle)
		if errors.Is(err, storage.ErrNotFound) {
			next.ServeHTTP(w, r)
			return
		}
		if err != nil {
			s.Site.Fail(w, r, fmt.Errorf("find session: %w", err))
			return
		}
		web.Note(r.Context(), "session", found.ID)
		web.Note(r.Context(), "patient", found.PatientID)
		storage.ActAs(r.Context(), storage.ActorPatient(found.PatientID))
		ctx := web.WithLang(r.Context(), patient.Locale)
		next.ServeHTTP(w, r.WithContext(context.WithValue(ctx, key{}, &found)))
	})
}

// seenEvery is how exactly a session remembers when it was last used.
const seenEvery = time.Minute

func (s *Sessions) find(ctx context.Context, handle string) (storage.Session, storage.Patient, error) {
	now := storage.Now()
	found, err := s.DB.SessionByDigest(ctx, storage.Digest(handle), now)
	if err != nil {
		return found, storage.Patient{}, err
	}
	if now.Sub(found.LastSeenAt) >= s.Idle || now.Sub(found.CreatedAt) >= s.Absolute {
		return found, storage.Patient{}, storage.ErrNotFound
	}
	patient, err := s.DB.PatientByID(ctx, found.PatientID)
	if err != nil {
		return found, patient, err
	}
	if patient.DisabledAt != nil {
		return found, patient, storage.ErrNotFound
	}
	if before := now.Add(-seenEvery); !found.LastSeenAt.After(before) {
		if err := s.DB.TouchSession(ctx, found.ID, before, now); err != nil {
			return found, patient, err
		}
	}
	return found, patient, nil
}

// Require is h for patients whose session has level factors, and, unless fresh
// is 0, proved one of them no longer than fresh ago. Anybody else is sent to
// the page of what is missing, which leads back to the account.
func (s *Sessions) Require(level int, fresh time.Duration, h web.Handler) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		now := storage.Now()
		need := Need{Level: level}
		if fresh > 0 {
			need.After = now.Add(-fresh)
		}
		found, ok := From(r.Context())
		second := false
		if ok && level > 0 {
			var err error
			if second, err = Second(r.Context(), s.DB, found.PatientID, need); err != nil {
				return err
			}
		}
		switch Missing(found, second, need, now) {
		case StepLogin:
			return web.Redirect(w, r, "/login"+web.FlowTo(r.URL.Path).Query())
		case StepSecond:
			return web.Redirect(w, r, "/login/second"+web.FlowTo(r.URL.Path).Query())
		case StepEnrol:
			return web.Redirect(w, r, "/login/enrol"+web.FlowTo(r.URL.Path).Query())
		}
		return h(w, r)
	}
}
