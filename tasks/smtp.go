package tasks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/wneessen/go-mail"
)

// SMTP says how to reach the mail server.
type SMTP struct {
	Host     string
	Port     int
	Username string
	Password string
	From     string // address, or "Name <address>"
	// STARTTLS is required unless this is true; only for a server on this
	// machine.
	Plain bool
	// Issuer gives the Message-ID its domain, and us our name.
	Issuer string
}

// smtpTimeout bounds each step of a delivery.
const smtpTimeout = 10 * time.Second

// ErrRefused says that a recipient can never be reached: trying again is in vain.
var ErrRefused = errors.New("recipient refused")

// Sender sends through the server. It connects for each message.
func (s SMTP) Sender() (Sender, error) {
	policy := mail.TLSMandatory
	if s.Plain {
		policy = mail.NoTLS
	}
	opts := []mail.Option{mail.WithPort(s.Port), mail.WithTimeout(smtpTimeout), mail.WithTLSPolicy(policy)}
	if s.Username != "" {
		opts = append(opts, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(s.Username), mail.WithPassword(s.Password))
	}
	domain := "patauth"
	if u, err := url.Parse(s.Issuer); err == nil && u.Hostname() != "" {
		domain = u.Hostname()
		// RFC 5321, Section 4.1.1.1: EHLO carries a fully-qualified name, which a
		// pod's own is not.
		if _, err := netip.ParseAddr(domain); err != nil {
			opts = append(opts, mail.WithHELO(domain))
		}
	}
	if _, err := mail.NewClient(s.Host, opts...); err != nil {
		return nil, fmt.Errorf("smtp: %w", err)
	}
	return func(ctx context.Context, m Message) error {
		msg := mail.NewMsg()
		if err := msg.From(s.From); err != nil {
			return fmt.Errorf("smtp: from: %w", err)
		}
		if err := msg.To(m.To); err != nil {
			return fmt.Errorf("smtp: the recipient is not an address: %w", ErrRefused) // not the address itself
		}
		msg.Subject(m.Subject)
		msg.SetMessageIDWithValue(m.ID + "@" + domain)
		msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834, Section 5
		msg.SetBodyString(mail.TypeTextPlain, m.Text)
		if m.HTML != "" {
			msg.AddAlternativeString(mail.TypeTextHTML, m.HTML)
		}
		c, err := mail.NewClient(s.Host, opts...)
		if err != nil {
			return fmt.Errorf("smtp: %w", err)
		}
		// A server that has taken the mail and fails afterwards has taken it.
		if err := c.DialAndSendWithContext(ctx, msg); err != nil && !msg.IsDelivered() {
			return fmt.Errorf("smtp: %w", redact(err))
		}
		return nil
	}, nil
}

// redact keeps what an operator needs of a server's answer: it may repeat the
// recipient's address.
func redact(err error) error {
	var send *mail.SendError
	if !errors.As(err, &send) {
		return err
	}
	answer := fmt.Errorf("%s: answer %d %s", send.Reason, send.ErrorCode(), send.EnhancedStatusCode())
	// RFC 3463, Section 3.2: X.1.* is about the destination address. Other
	// refusals, such as relaying denied, may be our own configuration.
	if strings.HasPrefix(send.EnhancedStatusCode(), "5.1.") && send.Reason == mail.ErrSMTPRcptTo {
		return fmt.Errorf("%w: %w", answer, ErrRefused)
	}
	return answer
}
