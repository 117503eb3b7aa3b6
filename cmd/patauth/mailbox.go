package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"os"
	"regexp"
	"slices"
	"sync"
	"time"
)

// mailbox is where the mails of `patauth dev` end. They are kept in a file, so
// that a restart keeps them. It is safe for concurrent use.
type mailbox struct {
	path  string
	mu    sync.Mutex
	mails []received // oldest first
}

type received struct {
	To      string    `json:"to"`
	Subject string    `json:"subject"`
	Text    string    `json:"text"`
	HTML    string    `json:"html"`
	At      time.Time `json:"at"`
}

const maxMails = 500

// openMailbox reads the mails kept at path; there may be none.
func openMailbox(path string) (*mailbox, error) {
	m := &mailbox{path: path}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open mailbox: %w", err)
	}
	if err := json.Unmarshal(b, &m.mails); err != nil {
		return nil, fmt.Errorf("open mailbox: %s: %w", path, err)
	}
	return m, nil
}

// put keeps one more mail.
func (m *mailbox) put(x received) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mails = append(m.mails, x)
	if len(m.mails) > maxMails {
		m.mails = m.mails[len(m.mails)-maxMails:]
	}
	return writeJSON(m.path, m.mails)
}

// newest lists the mails, the newest first.
func (m *mailbox) newest() []received {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := append([]received{}, m.mails...)
	slices.Reverse(out)
	return out
}

// ServeHTTP shows the mails. GET /dev/mail and /dev/mail.json
func (m *mailbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/dev/mail.json":
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(m.newest())
	case "/dev/mail":
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		mailPage.Execute(w, m.newest())
	default:
		http.NotFound(w, r)
	}
}

var mailPage = template.Must(template.New("mail").Funcs(template.FuncMap{"linked": linked}).Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Mailbox</title>
<link rel="stylesheet" href="/static/theme.css">
<link rel="stylesheet" href="/static/app.css">
</head>
<body>
<main>
<h1>Mailbox</h1>
<p>Every mail that patauth has sent, the newest first. Reload to look again.</p>
{{range .}}<article class="card">
<h2>{{.Subject}}</h2>
<p class="quiet">to {{.To}}, {{.At.Format "2 Jan 2006, 15:04:05"}}</p>
{{range linked .Text}}<p>{{range .}}{{if .Link}}<a href="{{.Link}}">{{.Link}}</a>{{else}}{{.Text}}{{end}}{{end}}</p>
{{end}}</article>
{{else}}<p>There is none yet.</p>
{{end}}</main>
</body>
</html>
`))

type piece struct{ Text, Link string }

var (
	paragraphs = regexp.MustCompile(`\r?\n\s*\r?\n`)
	addresses  = regexp.MustCompile(`https?://[^\s<>"]+`)
)

// linked takes a text apart into paragraphs of words and addresses.
func linked(text string) [][]piece {
	var out [][]piece
	for _, p := range paragraphs.Split(text, -1) {
		var pieces []piece
		for {
			at := addresses.FindStringIndex(p)
			if at == nil {
				break
			}
			pieces = append(pieces, piece{Text: p[:at[0]]}, piece{Link: p[at[0]:at[1]]})
			p = p[at[1]:]
		}
		out = append(out, append(pieces, piece{Text: p}))
	}
	return out
}

// writeJSON replaces the file at path, which only the owner may read, as a whole.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
