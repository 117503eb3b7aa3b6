package storage

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"
)

// everyColumn is what a statement must not ask for: "*", "t.*". count(*) counts.
var everyColumn = regexp.MustCompile("(?i)\\b(SELECT|RETURNING)\\s+(DISTINCT\\s+)?\\*|\\b\\w+[\"`]?\\.\\*|,\\s*\\*")

// No statement asks for whatever columns there are: what a prepared statement
// promised must hold on the schema of the next release too.
func TestStatementsNameTheirColumns(t *testing.T) {
	for _, bad := range []string{"SELECT * FROM a", "select\n\t* from a", "SELECT a.* FROM a", `SELECT "a".* FROM a`, "SELECT `a`.* FROM a", "SELECT x, * FROM a", "UPDATE a SET x = 1 RETURNING *"} {
		require.Regexp(t, everyColumn, bad)
	}
	require.NotRegexp(t, everyColumn, "SELECT count(*), n FROM a")

	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	read := 0
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, e.Name(), nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				if n.Kind == token.STRING {
					text, err := strconv.Unquote(n.Value)
					require.NoError(t, err)
					read++
					require.NotRegexp(t, everyColumn, text, files.Position(n.Pos()))
				}
			case *ast.CompositeLit:
				if s, ok := n.Type.(*ast.SelectorExpr); ok && s.Sel.Name == "Returning" {
					require.NotEmpty(t, n.Elts, "%s: a RETURNING names its columns", files.Position(n.Pos()))
				}
			}
			return true
		})
	}
	require.Greater(t, read, 500)

	// What gorm writes by itself.
	db, err := Open(t.Context(), Config{DSN: "sqlite:" + t.TempDir() + "/a.db", Keys: NewKeyring()})
	require.NoError(t, err)
	defer db.Close()
	dry := db.gorm.Session(&gorm.Session{DryRun: true})
	for _, made := range []*gorm.DB{
		dry.Where("id = ?", "x").Take(&Patient{}),
		dry.Where("id = ?", "x").Find(&[]Patient{}),
	} {
		require.NotRegexp(t, everyColumn, made.Statement.SQL.String())
		require.Contains(t, made.Statement.SQL.String(), "`patient`.`email`")
	}
}
