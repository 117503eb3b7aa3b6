package main

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// The tests that the documentation names exist.
func TestDocsNameTests(t *testing.T) {
	root := filepath.Join("..", "..")
	declared := map[string]bool{}
	require.NoError(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`).FindAllStringSubmatch(string(text), -1) {
			declared[m[1]] = true
		}
		return err
	}))
	require.Contains(t, declared, "TestDocsNameTests")
	docs, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	require.NoError(t, err)
	named := 0
	for _, doc := range docs {
		text, err := os.ReadFile(doc)
		require.NoError(t, err)
		for _, name := range regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w+`).FindAllString(string(text), -1) {
			require.Contains(t, declared, name, filepath.Base(doc))
			named++
		}
	}
	require.NotZero(t, named)
}

// Every table has a retention that docs/operations.md states, and those that go by
// the clock go when it says.
func TestEveryTableHasARetention(t *testing.T) {
	path := filepath.Join(t.TempDir(), "patauth.db")
	db := storagetest.Open(t, "sqlite:"+path)
	raw, err := sql.Open("sqlite3", path)
	require.NoError(t, err)
	defer raw.Close()
	rows, err := raw.Query("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name")
	require.NoError(t, err)
	defer rows.Close()
	var tables []string
	for rows.Next() {
		var name string
		require.NoError(t, rows.Scan(&name))
		tables = append(tables, name)
	}
	text, err := os.ReadFile("../../docs/operations.md")
	require.NoError(t, err)
	_, text, _ = bytes.Cut(text, []byte("## How long things are kept"))
	text, _, _ = bytes.Cut(text, []byte("\n## "))
	var stated []string
	expiring, kept := storage.Expiring()
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| .+ \\| (.+) \\|$").FindAllStringSubmatch(string(text), -1) {
		stated = append(stated, row[1])
		if slices.Contains(expiring, row[1]) {
			days, _ := strings.CutSuffix(row[2], " days")
			if n, err := strconv.Atoi(days); err == nil {
				row[2] = fmt.Sprintf("%dh", 24*n)
			}
			after, err := time.ParseDuration(row[2])
			require.NoError(t, err, row[0])
			require.Equal(t, kept[row[1]], after, row[1])
		}
	}
	require.Equal(t, tables, stated)
	require.Equal(t, defaults().Storage.AuditKept, 52608*time.Hour)
	for _, table := range expiring {
		n, err := db.DeleteExpired(t.Context(), table, storage.Now(), 10)
		require.NoError(t, err, table)
		require.Zero(t, n)
	}
	_, err = db.DeleteExpired(t.Context(), "consent", storage.Now(), 10)
	require.Error(t, err)
}
