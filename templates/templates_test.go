package templates

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

func set(t *testing.T, overlay string) *Set {
	t.Helper()
	s, err := New(overlay)
	require.NoError(t, err)
	return s
}

func TestEveryLanguageHasTheSameTexts(t *testing.T) {
	s := set(t, "")
	keys := func(lang string) []string {
		var out []string
		for k := range s.texts[lang] {
			out = append(out, k)
		}
		slices.Sort(out)
		return out
	}
	for _, lang := range s.Langs[1:] {
		require.Equal(t, keys(s.Langs[0]), keys(lang), lang)
		for k, text := range s.texts[lang] {
			require.Equal(t, strings.Count(s.texts[s.Langs[0]][k], "%s"), strings.Count(text, "%s"), "arguments of %s in %s", k, lang)
			require.NotEmpty(t, strings.TrimSpace(text), "%s in %s", k, lang)
			require.NotContains(t, strings.ReplaceAll(text, "%s", ""), "%", "only %%s is filled in: %s in %s", k, lang)
		}
	}
}

// Every text is said somewhere: a key that no template and no Go file names has
// lost its page.
func TestNoTextIsSurplus(t *testing.T) {
	var all strings.Builder
	for _, root := range []string{".", "../provider", "../tasks", "../cmd"} {
		filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() && slices.Contains([]string{".html", ".txt", ".go"}, filepath.Ext(path)) && !strings.HasSuffix(path, "_test.go") {
				b, err := os.ReadFile(path)
				require.NoError(t, err)
				all.Write(b)
			}
			return nil
		})
	}
	text := all.String()
	s := set(t, "")
	for key := range s.texts["en"] {
		if !strings.Contains(text, `"`+key+`"`) && !computed(s, key, text) {
			t.Errorf("no page says %q", key)
		}
	}
}

// computed reports whether key belongs to a family whose last word, or whose
// first, a program works out: the title of a page, the message of a row.
func computed(s *Set, key, text string) bool {
	page, isTitle := strings.CutSuffix(key, ".title")
	if isTitle && (slices.Contains(s.Pages(), page) || computed(s, page, text)) {
		return true
	}
	for i := len(key) - 1; i > 0; i-- {
		if key[i] == '.' || key[i] == '_' {
			family := key[:i+1]
			if strings.Contains(text, `"`+family+`"`) || strings.Contains(text, `"`+family+`%s`) {
				return true
			}
		}
	}
	return false
}

func TestBasePagesInEveryLanguage(t *testing.T) {
	s := set(t, "")
	views := map[string]any{
		"error": map[string]any{"Title": "error.invalid.title", "Text": "error.invalid", "Parameter": "redirect_uri", "Detail": "<b>", "RequestID": "R1"},
		"problem": map[string]any{"Title": "error.spent.title", "Text": "error.spent", "Name": "spent", "Status": 410,
			"OAuth": "invalid_grant"},
		"message": map[string]any{"Title": "message.title", "Text": "error.home", "Next": "/account", "Action": "error.home"},
	}
	for page, view := range views {
		for _, lang := range s.Langs {
			t.Run(page+" "+lang, func(t *testing.T) {
				var b bytes.Buffer
				require.NoError(t, s.Page(&b, lang, page, view))
				require.Contains(t, b.String(), `<html lang="`+lang+`">`)
				require.Contains(t, b.String(), `/static/app.css?v=`)
				require.Equal(t, 1, strings.Count(b.String(), "<h1>"))
				require.NotContains(t, b.String(), "<b>", "what a client sends is text")
				require.NotContains(t, b.String(), "ZgotmplZ")
				require.NotRegexp(t, `(?i)<script[^>]*>[^<]|\son\w+=|style=`, b.String(), "nothing that the content policy forbids")
			})
		}
	}
	require.Error(t, s.Page(io.Discard, "en", "nowhere", nil))
	var b bytes.Buffer
	require.NoError(t, s.Page(&b, "xx", "message", views["message"]))
	require.Contains(t, b.String(), `<html lang="en">`, "an unknown language is the first")
}

func TestNoPageBreaksTheContentPolicy(t *testing.T) {
	files, err := filepath.Glob("pages/*.html")
	require.NoError(t, err)
	for _, f := range append(files, "layout.html") {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		require.NotRegexp(t, `(?i)<script>|<style|\sstyle=|\son[a-z]+=|javascript:|https?://`, string(b), f)
	}
}

func TestMistakesAreFoundAtStartUp(t *testing.T) {
	for name, c := range map[string]struct{ file, text, want string }{
		"a text that is missing":        {"pages/message.html", `{{define "content"}}{{if .X}}{{t "no.such"}}{{end}}{{end}}`, `there is no text "no.such"`},
		"a text with too few arguments": {"pages/message.html", `{{define "content"}}{{t "error.request"}}{{end}}`, "takes 1 arguments, not 0"},
		"an argument piped in":          {"pages/message.html", `{{define "content"}}{{.X | t "error.home"}}{{end}}`, "takes 0 arguments, not 1"},
		"a page that does not parse":    {"pages/message.html", `{{define "content"}}{{if}}{{end}}`, "missing value for if"},
		"a key that is there twice":     {"locales/de.json", `{"a": "1", "a": "2"}`, "a is there twice"},
		"words that are no object":      {"locales/de.json", `["a"]`, "not a JSON object"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, c.file)), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, c.file), []byte(c.text), 0o644))
			_, err := New(dir)
			require.ErrorContains(t, err, c.want)
		})
	}
	_, err := New("no/such/directory")
	require.Error(t, err)
}

func TestOverlayReplacesFileByFile(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "static"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "static/theme.css"), []byte("/* ours */"), 0o644))
	s := set(t, dir)
	require.Equal(t, "/* ours */", string(s.static["theme.css"].body))
	require.Equal(t, set(t, "").static["app.css"], s.static["app.css"])
	require.NotEqual(t, set(t, "").static["theme.css"].hash, s.static["theme.css"].hash)
}

func TestStaticFilesAreKeptByCaches(t *testing.T) {
	h := set(t, "").Static()
	get := func(path, etag string) *httptest.ResponseRecorder {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", path, nil)
		r.Header.Set("If-None-Match", etag)
		h.ServeHTTP(w, r)
		return w
	}
	for name, kind := range map[string]string{"app.css": "text/css", "passkey.js": "text/javascript", "logo.svg": "image/svg+xml"} {
		w := get("/static/"+name, "")
		require.Equal(t, http.StatusOK, w.Code)
		require.Contains(t, w.Header().Get("Content-Type"), kind)
		require.Equal(t, "public, max-age=3600", w.Header().Get("Cache-Control"))
		again := get("/static/"+name, w.Header().Get("ETag"))
		require.Equal(t, http.StatusNotModified, again.Code)
		require.Empty(t, again.Body.Bytes())
	}
	for _, path := range []string{"/static/", "/static/none.css", "/static/../templates.go", "/static/pages/error.html"} {
		require.Equal(t, http.StatusNotFound, get(path, "").Code, path)
	}
}

func TestMail(t *testing.T) {
	s := set(t, "")
	tree := fstest.MapFS{
		"mail/layout.html":  {Data: []byte(`<html lang="{{lang}}">{{block "content" .}}{{end}}</html>`)},
		"mail/hello.txt":    {Data: []byte("Subject: {{t \"brand.name\"}} {{.Name}}\n\n{{.Name}} {{.Link}}\n")},
		"mail/hello.html":   {Data: []byte(`{{define "content"}}<a href="{{.Link}}">{{.Name}}</a>{{end}}`)},
		"mail/plain.txt":    {Data: []byte("Subject: x\n\ny\n")},
		"mail/headless.txt": {Data: []byte("Hello,\n\ny\n")},
	}
	for _, lang := range s.Langs {
		require.NoError(t, s.parseMails(tree, []string{"mail/hello.txt", "mail/plain.txt", "mail/headless.txt"}, lang))
	}
	view := map[string]string{"Link": "https://id.example/a?b=c&d=e", "Name": "<x>\r\nBcc: y@example.org"}
	subject, plain, html, err := s.Mail("de", "hello", view)
	require.NoError(t, err)
	require.Equal(t, "Patienten-Anmeldung <x> Bcc: y@example.org", subject, "one line, whatever the view holds")
	require.Equal(t, "<x>\r\nBcc: y@example.org https://id.example/a?b=c&d=e\n", plain)
	require.Contains(t, html, `<html lang="de"><a href="https://id.example/a?b=c&amp;d=e">&lt;x&gt;`)

	_, _, html, err = s.Mail("en", "plain", nil)
	require.NoError(t, err)
	require.Empty(t, html, "the HTML twin may be left out")
	_, _, _, err = s.Mail("en", "headless", nil)
	require.ErrorContains(t, err, "subject line")
	_, _, _, err = s.Mail("en", "none", nil)
	require.Error(t, err)

	tree["mail/bad.txt"] = &fstest.MapFile{Data: []byte("Subject: {{t \"no.such\"}}\n\nx")}
	require.ErrorContains(t, s.parseMails(tree, []string{"mail/bad.txt"}, "en"), `there is no text "no.such"`)
}

func FuzzTexts(f *testing.F) {
	f.Add([]byte(`{"a":"b %s"}`))
	f.Add([]byte(`{"a":"b","a":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		texts, err := parseTexts("x.json", b)
		if err != nil {
			return
		}
		var m map[string]string
		require.NoError(t, json.Unmarshal(b, &m))
		require.Equal(t, map[string]string(texts), m)
	})
}
