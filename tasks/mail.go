package tasks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/hibiken/asynq"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/tasks/queue"
)

// Message is a mail to one recipient.
type Message struct {
	// ID is the same whenever the same wish is mailed, so that a mail server or
	// reader can tell a repetition.
	ID                      string
	To, Subject, Text, HTML string
}

// Sender hands a message over to whoever delivers it. ErrRefused where nobody
// ever can.
type Sender func(context.Context, Message) error

// verifyEmail mails the link of a challenge. The secret in it is derived, not
// stored, so a repeated mail holds the same link. A challenge that is no longer
// live needs no mail.
func (w *Worker) verifyEmail(ctx context.Context, o storage.Outbox) error {
	var j queue.VerifyEmail
	if err := json.Unmarshal([]byte(o.Payload), &j); err != nil {
		return fmt.Errorf("verify mail: %w", err)
	}
	c, err := w.DB.Challenge(ctx, o.Kind, j.ChallengeID)
	if errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrSpent) || (err == nil && !c.Open(storage.Now())) {
		mails.WithLabelValues(o.Kind, "late").Inc()
		return nil
	} else if err != nil {
		return err
	}
	return w.mail(ctx, o, c.PatientID, struct{ Link string }{w.Issuer + "/verify-email?token=" + w.DB.MailedToken(c.ID)})
}

// accountExists mails the owner of an address that was registered again.
func (w *Worker) accountExists(ctx context.Context, o storage.Outbox) error {
	var j queue.AccountExists
	if err := json.Unmarshal([]byte(o.Payload), &j); err != nil {
		return fmt.Errorf("account mail: %w", err)
	}
	return w.mail(ctx, o, j.PatientID, struct{ Link string }{w.Issuer + "/login"})
}

// notice mails a patient about a change.
func (w *Worker) notice(ctx context.Context, o storage.Outbox) error {
	var j queue.Notice
	if err := json.Unmarshal([]byte(o.Payload), &j); err != nil {
		return fmt.Errorf("notice mail: %w", err)
	}
	if !slices.Contains(queue.Notices, j.Notice) {
		return fmt.Errorf("notice mail: unknown notice: %w", asynq.SkipRetry)
	}
	return w.mail(ctx, o, j.PatientID, struct{ Notice, Link string }{j.Notice, w.Issuer + "/account"})
}

// mail sends the template named like the wish's kind to a patient, in the
// patient's language. A patient who is gone or disabled gets none.
func (w *Worker) mail(ctx context.Context, o storage.Outbox, patientID string, view any) error {
	p, err := w.DB.PatientByID(ctx, patientID)
	if errors.Is(err, storage.ErrNotFound) || (err == nil && p.DisabledAt != nil) {
		mails.WithLabelValues(o.Kind, "suppressed").Inc()
		return nil
	} else if err != nil {
		return err
	}
	m := Message{ID: o.ID, To: p.Email}
	if m.Subject, m.Text, m.HTML, err = w.Pages.Mail(p.Locale, o.Kind, view); err != nil {
		return err
	}
	if err := w.Send(ctx, m); err != nil {
		mails.WithLabelValues(o.Kind, "error").Inc()
		if errors.Is(err, ErrRefused) {
			return fmt.Errorf("send mail: %w (%w)", err, asynq.SkipRetry)
		}
		return fmt.Errorf("send mail: %w", err)
	}
	mails.WithLabelValues(o.Kind, "sent").Inc()
	return nil
}
