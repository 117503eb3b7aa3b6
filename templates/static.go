package templates

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

// static are the files under static/, by name.
type static map[string]asset

type asset struct {
	body []byte
	hash string
}

func readStatic(tree fs.FS) (static, error) {
	out := static{}
	names, err := fs.Glob(embedded, "static/*")
	if err != nil {
		return nil, err
	}
	for _, file := range names {
		b, err := fs.ReadFile(tree, file)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(b)
		out[path.Base(file)] = asset{body: b, hash: hex.EncodeToString(sum[:8])}
	}
	return out, nil
}

// address is the URL path of a file. Its query changes with the content, so
// that a new release is not styled by an old sheet.
func (s static) address(name string) (string, error) {
	a, ok := s[name]
	if !ok {
		return "", fmt.Errorf("there is no static file %q", name)
	}
	return "/static/" + name + "?v=" + a.hash, nil
}

// Static serves the files below /static/. They hold nothing personal and may
// be kept by caches for an hour.
func (s *Set) Static() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := s.static[strings.TrimPrefix(r.URL.Path, "/static/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Type", mime.TypeByExtension(path.Ext(r.URL.Path)))
		h.Set("Cache-Control", "public, max-age=3600")
		h.Set("ETag", `"`+a.hash+`"`)
		if r.Header.Get("If-None-Match") == `"`+a.hash+`"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(a.body)))
		if r.Method != http.MethodHead {
			w.Write(a.body)
		}
	})
}
