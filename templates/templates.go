// Package templates is what is said: every page and mail, in every language,
// with the style sheet, the one script and the logo.
//
// The tree is embedded. An operator may lay a directory of the same shape over
// it, file by file. New parses everything once, for each language, and refuses
// a page that names a text which is missing in any of them, so that a mistake
// in an overlay is found at start-up and not by a patient.
package templates

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	text "text/template"
)

//go:embed layout.html pages mail locales static
var embedded embed.FS

// Set is every page and mail in every language. It is safe for concurrent use.
type Set struct {
	// Langs lists the languages; the first is spoken where no other fits.
	Langs  []string
	texts  map[string]texts
	pages  map[string]*template.Template // by "lang/page"
	mails  map[string]*text.Template     // by "lang/name"
	htmls  map[string]*template.Template // by "lang/name"
	static static
}

// New parses the embedded tree with overlayDir laid over it; "" is no overlay.
// All faults are reported at once.
func New(overlayDir string) (*Set, error) {
	var tree fs.FS = embedded
	if overlayDir != "" {
		if i, err := os.Stat(overlayDir); err != nil || !i.IsDir() {
			return nil, fmt.Errorf("templates: %s is not a directory", overlayDir)
		}
		tree = overlay{over: os.DirFS(overlayDir), under: embedded}
	}
	s := &Set{
		Langs: []string{"en", "de"},
		texts: map[string]texts{},
		pages: map[string]*template.Template{},
		mails: map[string]*text.Template{},
		htmls: map[string]*template.Template{},
	}
	var faults []error
	for _, lang := range s.Langs {
		t, err := readTexts(tree, lang)
		if err != nil {
			return nil, fmt.Errorf("templates: %w", err)
		}
		s.texts[lang] = t
	}
	mails, err := fs.Glob(embedded, "mail/*.txt")
	if err != nil {
		return nil, err
	}
	if s.static, err = readStatic(tree); err != nil {
		return nil, fmt.Errorf("templates: %w", err)
	}
	for _, lang := range s.Langs {
		faults = append(faults, s.parsePages(tree, lang), s.parseMails(tree, mails, lang))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("templates: %w", err)
	}
	return s, nil
}

// funcs are what a page or mail may call: t for a text of its language, lang,
// title, and static for the address of a file under static/.
func (s *Set) funcs(lang, title string) map[string]any {
	return map[string]any{
		"t":      s.texts[lang].say,
		"lang":   func() string { return lang },
		"title":  func() (string, error) { return s.texts[lang].say(title) },
		"static": s.static.address,
	}
}

func (s *Set) parsePages(tree fs.FS, lang string) error {
	names, err := fs.Glob(embedded, "pages/*.html")
	if err != nil {
		return err
	}
	var faults []error
	for _, file := range names {
		page := strings.TrimSuffix(path.Base(file), ".html")
		title := page + ".title"
		p, err := template.New("layout.html").Funcs(s.funcs(lang, title)).ParseFS(tree, "layout.html", file)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		if p.Lookup("title").Tree.Root.String() == "{{title}}" {
			faults = append(faults, s.texts[lang].has(title, 0, file))
		}
		for _, part := range p.Templates() {
			faults = append(faults, s.texts[lang].check(part.Tree, file))
		}
		s.pages[lang+"/"+page] = p
	}
	return errors.Join(faults...)
}

// Page writes a page with its layout in lang; an unknown language is the first.
// view is what the page's own template shows. The page is written whole or not
// at all.
func (s *Set) Page(w io.Writer, lang, page string, view any) error {
	p, ok := s.pages[s.known(lang)+"/"+page]
	if !ok {
		return fmt.Errorf("templates: there is no page %q", page)
	}
	var b bytes.Buffer
	if err := p.Execute(&b, view); err != nil {
		return fmt.Errorf("templates: page %s: %w", page, err)
	}
	_, err := b.WriteTo(w)
	return err
}

// Pages lists the pages by name.
func (s *Set) Pages() []string {
	var out []string
	for k := range s.pages {
		if p, ok := strings.CutPrefix(k, s.Langs[0]+"/"); ok {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

func (s *Set) known(lang string) string {
	if slices.Contains(s.Langs, lang) {
		return lang
	}
	return s.Langs[0]
}

// overlay serves a file from over where it has it, else from under.
type overlay struct{ over, under fs.FS }

func (o overlay) Open(name string) (fs.File, error) {
	f, err := o.over.Open(name)
	if err == nil {
		if i, err := f.Stat(); err == nil && !i.IsDir() {
			return f, nil
		}
		f.Close()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return o.under.Open(name)
}
