package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/pat-authenticate/patauth"

// floors is the house: a package imports only from lower floors, and the
// features on floor 3 are strangers to each other. A package that is not here
// has no place yet.
var floors = map[string]int{
	"cmd/patauth": 5,

	"provider": 4, "tasks": 4,

	"provider/oauth": 3, "provider/login": 3, "provider/account": 3, "provider/admin": 3, "lis": 3,

	"provider/session": 2,

	"provider/web": 1, "provider/keys": 1, "provider/outbound": 1, "lis/match": 1, "storage/storagetest": 1,

	"storage": 0, "templates": 0, "tasks/queue": 0,
}

// fences keep each heavy library in one room. Tests may look over them: they
// play the other side.
var fences = map[string][]string{
	"gorm.io/":                        {"storage"},
	"github.com/mattn/go-sqlite3":     {"storage"},
	"github.com/jackc/pgx":            {"storage", "storage/storagetest"},
	"github.com/pressly/goose":        {"storage"},
	"github.com/ory/":                 {"provider/oauth"},
	"github.com/go-webauthn/webauthn": {"provider/login"},
	"github.com/hibiken/asynq":        {"tasks"},
	"github.com/wneessen/go-mail":     {"tasks"},
	"github.com/confluentinc/":        {"lis"},
	"github.com/gorilla/mux":          {"provider", "provider/web", "provider/oauth", "provider/login", "provider/account", "provider/admin"},
	"github.com/spf13/cobra":          {"cmd/patauth"},
	"github.com/coreos/go-oidc":       {"cmd/patauth"},
	"golang.org/x/oauth2":             {"cmd/patauth"},
	"github.com/alicebob/miniredis":   {"cmd/patauth"},
	"github.com/caarlos0/env":         {"cmd/patauth"},
	"math/rand":                       {"storage"}, // the jitter between retries
	"testing":                         {"storage/storagetest"},
	"github.com/stretchr/testify":     {},
	"net/http/httptest":               {},
	module + "/storage/storagetest":   {},
}

// imports are what the Go files of every package of the module import; whole
// folders that are modules of their own are left out.
func imports(t *testing.T, see func(pkg, file, imported string, test bool)) {
	t.Helper()
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			name := d.Name()
			_, err := os.Stat(filepath.Join(p, "go.mod"))
			if p != root && (err == nil || name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		pkg := path.Dir(filepath.ToSlash(rel))
		see(pkg, rel, "", strings.HasSuffix(p, "_test.go"))
		for _, i := range f.Imports {
			imported, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			see(pkg, rel, imported, strings.HasSuffix(p, "_test.go"))
		}
		return nil
	})
	require.NoError(t, err)
}

func TestFloors(t *testing.T) {
	imports(t, func(pkg, file, imported string, test bool) {
		if problem := misplaced(pkg, imported, test); problem != "" {
			t.Errorf("%s: %s", file, problem)
		}
	})
}

// misplaced says what is wrong with pkg importing imported; "" is fine.
func misplaced(pkg, imported string, test bool) string {
	floor, known := floors[pkg]
	if !known {
		return fmt.Sprintf("package %s has no floor", pkg)
	}
	if test {
		return "" // a test may set up the whole house around its room
	}
	if room, ours := strings.CutPrefix(imported, module+"/"); ours {
		below, known := floors[room]
		if !known {
			return fmt.Sprintf("package %s has no floor", room)
		}
		if below >= floor {
			return fmt.Sprintf("%s (floor %d) must not import %s (floor %d)", pkg, floor, room, below)
		}
	}
	for library, rooms := range fences {
		if inside(imported, library) && !slices.Contains(rooms, pkg) {
			return fmt.Sprintf("%s is fenced into %v", imported, rooms)
		}
	}
	return ""
}

// inside reports whether imported is library or below it.
func inside(imported, library string) bool {
	return imported == library || strings.HasPrefix(imported, strings.TrimSuffix(library, "/")+"/")
}

func TestFloorsSeeWhatIsMisplaced(t *testing.T) {
	for _, row := range []struct {
		pkg, imported string
		ok            bool
	}{
		{"provider/oauth", module + "/provider/session", true},
		{"provider/oauth", module + "/provider/login", false},
		{"storage", module + "/templates", false},
		{"storage", module + "/provider/web", false},
		{"lis", module + "/provider/session", true},
		{"provider/web", module + "/provider/keys", false},
		{"provider/web", "gorm.io/gorm", false},
		{"storage", "gorm.io/driver/postgres", true},
		{"provider/login", "github.com/ory/fosite/handler/oauth2", false},
		{"provider/login", "math/rand", false},
		{"provider/login", "math/rand/v2", false},
		{"provider/login", "crypto/rand", true},
		{"drawer", "fmt", false},
		{"storage", module + "/drawer", false},
	} {
		require.Equal(t, row.ok, misplaced(row.pkg, row.imported, false) == "", "%s imports %s", row.pkg, row.imported)
	}
	require.NotEmpty(t, misplaced("drawer", "", true))
}

// Who did something travels in the context (storage.WithActor): a name written
// down where the row is made is wrong for whoever else comes there.
func TestNobodyWritesAnActorDown(t *testing.T) {
	imports(t, func(_, file, imported string, test bool) {
		if imported != "" || test {
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "..", file), nil, 0)
		require.NoError(t, err)
		ast.Inspect(f, func(n ast.Node) bool {
			if kv, ok := n.(*ast.KeyValueExpr); ok {
				if key, ok := kv.Key.(*ast.Ident); ok && key.Name == "Actor" {
					t.Errorf("%s: an audit row with an actor of its own", file)
				}
			}
			return true
		})
	})
}
