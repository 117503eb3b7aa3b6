package templates

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"reflect"
	"strings"
	"text/template/parse"
)

// texts are the words of one language: a flat table from key to text. A text
// may take arguments, each written %s.
type texts map[string]string

// readTexts reads locales/LANG.json.
func readTexts(tree fs.FS, lang string) (texts, error) {
	file := "locales/" + lang + ".json"
	b, err := fs.ReadFile(tree, file)
	if err != nil {
		return nil, err
	}
	return parseTexts(file, b)
}

// parseTexts reads one JSON object of texts. A key given twice is an error,
// because one of the two texts would never be seen.
func parseTexts(file string, b []byte) (texts, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if tok, err := d.Token(); err != nil || tok != json.Delim('{') {
		return nil, fmt.Errorf("%s: not a JSON object (%v)", file, err)
	}
	out := texts{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		var text string
		if err := d.Decode(&text); err != nil {
			return nil, fmt.Errorf("%s: %v: %w", file, key, err)
		}
		if _, twice := out[key.(string)]; twice {
			return nil, fmt.Errorf("%s: %v is there twice", file, key)
		}
		out[key.(string)] = text
	}
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("%s: something follows the object", file)
	}
	return out, nil
}

// say is the text of key with its arguments filled in. A missing key or a wrong
// number of arguments is an error: the page is then not shown at all.
func (t texts) say(key string, args ...any) (string, error) {
	if err := t.has(key, len(args), "page"); err != nil {
		return "", err
	}
	if len(args) == 0 {
		return t[key], nil
	}
	words := make([]any, len(args))
	for i, a := range args {
		words[i] = fmt.Sprint(a)
	}
	return fmt.Sprintf(t[key], words...), nil
}

func (t texts) has(key string, args int, where string) error {
	text, ok := t[key]
	if !ok {
		return fmt.Errorf("%s: there is no text %q", where, key)
	}
	if n := strings.Count(text, "%s"); n != args {
		return fmt.Errorf("%s: text %q takes %d arguments, not %d", where, key, n, args)
	}
	return nil
}

// check walks a template for {{t "key" …}} and reports the keys t does not
// have. Keys that are computed are checked when they are said.
func (t texts) check(tree *parse.Tree, where string) error {
	var faults []error
	if tree != nil {
		walk(reflect.ValueOf(tree.Root), func(p *parse.PipeNode) {
			for i, c := range p.Cmds {
				name, ok := c.Args[0].(*parse.IdentifierNode)
				if !ok || name.Ident != "t" || len(c.Args) < 2 {
					continue
				}
				key, ok := c.Args[1].(*parse.StringNode)
				if !ok {
					continue
				}
				args := len(c.Args) - 2
				if i > 0 {
					args++ // the value piped in
				}
				faults = append(faults, t.has(key.Text, args, where))
			}
		})
	}
	return errors.Join(faults...)
}

// walk calls visit for every pipeline below v, whatever node holds it.
func walk(v reflect.Value, visit func(*parse.PipeNode)) {
	switch v.Kind() {
	case reflect.Interface:
		walk(v.Elem(), visit)
	case reflect.Slice:
		for i := range v.Len() {
			walk(v.Index(i), visit)
		}
	case reflect.Pointer:
		if v.IsNil() || v.Type() == reflect.TypeFor[*parse.Tree]() {
			return
		}
		if p, ok := v.Interface().(*parse.PipeNode); ok {
			visit(p)
		}
		walk(v.Elem(), visit)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				walk(v.Field(i), visit)
			}
		}
	}
}

// Text is the text of key in lang with its arguments, for words outside a
// template. A missing key is answered with the key.
func (s *Set) Text(lang, key string, args ...any) string {
	text, err := s.texts[s.known(lang)].say(key, args...)
	if err != nil {
		return key
	}
	return text
}
