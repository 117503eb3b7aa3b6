package templates

import (
	"bytes"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"path"
	"strings"
	text "text/template"
)

// parseMails reads each file mail/NAME.txt of tree, whose first line is "Subject: …" and whose
// body follows an empty line, and mail/NAME.html, which defines "content" for
// mail/layout.html. The HTML twin may be left out.
func (s *Set) parseMails(tree fs.FS, files []string, lang string) error {
	var faults []error
	for _, file := range files {
		name := strings.TrimSuffix(path.Base(file), ".txt")
		funcs := s.funcs(lang, "mail."+name+".subject")
		m, err := text.New(path.Base(file)).Funcs(funcs).ParseFS(tree, file)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		faults = append(faults, s.texts[lang].check(m.Tree, file))
		s.mails[lang+"/"+name] = m

		file = "mail/" + name + ".html"
		if _, err := fs.Stat(tree, file); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		h, err := template.New("layout.html").Funcs(funcs).ParseFS(tree, "mail/layout.html", file)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		for _, part := range h.Templates() {
			faults = append(faults, s.texts[lang].check(part.Tree, file))
		}
		s.htmls[lang+"/"+name] = h
	}
	return errors.Join(faults...)
}

// Mail is the subject and the two bodies of a mail in lang; html is "" where
// the mail has no HTML twin. The subject is one line whatever the view holds.
func (s *Set) Mail(lang, name string, view any) (subject, plain, html string, err error) {
	key := s.known(lang) + "/" + name
	m, ok := s.mails[key]
	if !ok {
		return "", "", "", fmt.Errorf("templates: there is no mail %q", name)
	}
	var b bytes.Buffer
	if err := m.Execute(&b, view); err != nil {
		return "", "", "", fmt.Errorf("templates: mail %s: %w", name, err)
	}
	head, body, ok := strings.Cut(b.String(), "\n\n")
	subject, isSubject := strings.CutPrefix(head, "Subject:")
	if !ok || !isSubject {
		return "", "", "", fmt.Errorf("templates: mail %s does not start with a subject line", name)
	}
	// A line break in a header would start another header (RFC 5322, Section 2.2).
	subject = strings.Join(strings.Fields(subject), " ")
	if h, ok := s.htmls[key]; ok {
		var b bytes.Buffer
		if err := h.Execute(&b, view); err != nil {
			return "", "", "", fmt.Errorf("templates: mail %s: %w", name, err)
		}
		html = b.String()
	}
	return subject, body, html, nil
}
