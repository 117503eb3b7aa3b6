package tasks

import (
	"context"
	"io"
	"log"
	"net"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
	"github.com/stretchr/testify/require"
)

// mailServer is a real SMTP server in this process.
type mailServer struct {
	refuse bool
	dies   bool // after a delivery
	got    chan string
	name   string // that EHLO gave
}

func (s *mailServer) NewSession(c *smtp.Conn) (smtp.Session, error) {
	s.name = c.Hostname()
	return s, nil
}
func (s *mailServer) Mail(string, *smtp.MailOptions) error { return nil }
func (s *mailServer) Rcpt(to string, _ *smtp.RcptOptions) error {
	if s.refuse {
		return &smtp.SMTPError{Code: 450, Message: "mailbox of " + to + " is busy"}
	}
	if strings.HasPrefix(to, "nobody") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no mailbox " + to}
	}
	return nil
}
func (s *mailServer) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	s.got <- string(b)
	return err
}
func (s *mailServer) Logout() error { return nil }

// Reset is called when a client starts anew, also after a delivery.
func (s *mailServer) Reset() {
	if s.dies {
		panic("the server dies after it has taken the mail")
	}
}

func TestSMTP(t *testing.T) {
	ctx, back := context.Background(), &mailServer{got: make(chan string, 1)}
	server := smtp.NewServer(back)
	server.Domain = "localhost"
	server.ErrorLog = log.New(io.Discard, "", 0)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	conf := SMTP{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, From: "Sign-in <id@example.org>", Plain: true, Issuer: "https://id.example"}
	send, err := conf.Sender()
	require.NoError(t, err)
	m := Message{ID: "ABC", To: "ada@example.org", Subject: "Grüße", Text: "Hallo\n", HTML: "<p>Hallo</p>"}
	require.NoError(t, send(ctx, m))
	got := <-back.got
	require.Contains(t, got, "Message-ID: <ABC@id.example>")
	require.Equal(t, "id.example", back.name, "not the pod's name")
	require.Contains(t, got, "Auto-Submitted: auto-generated")
	require.Contains(t, got, "To: <ada@example.org>")

	for _, to := range []string{"ada@example.org\r\nBcc: eve@example.org", "ada@example.org, eve@example.org", "nobody", ""} {
		err := send(ctx, Message{ID: "X", To: to, Subject: "s", Text: "t"})
		require.Error(t, err, to)
		require.NotContains(t, err.Error(), "eve@")
	}
	require.NoError(t, send(ctx, Message{ID: "X", To: "ada@example.org", Subject: "a\r\nBcc: eve@example.org", Text: "t"}))
	require.NotContains(t, strings.Split(<-back.got, "\r\n\r\n")[0], "\r\nBcc:")

	back.refuse = true
	err = send(ctx, m)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "ada@", "an address does not reach the log")
	require.NotErrorIs(t, err, ErrRefused, "tomorrow it may work")
	back.refuse = false
	err = send(ctx, Message{ID: "X", To: "nobody@example.org", Subject: "s", Text: "t"})
	require.ErrorIs(t, err, ErrRefused)
	require.NotContains(t, err.Error(), "nobody@")

	back.dies = true
	require.NoError(t, send(ctx, m), "the server has the mail")
	<-back.got
	back.dies = false

	conf.Plain = false
	strict, err := conf.Sender()
	require.NoError(t, err)
	require.Error(t, strict(ctx, m), "a server without STARTTLS gets nothing")
	server.Close()
	require.Error(t, send(ctx, m))
}
