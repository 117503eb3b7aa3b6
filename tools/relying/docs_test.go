package relying

import (
	"bufio"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// fences are the blocks of a document in Markdown: language and text.
var fences = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")

// Each block of docs/integrating.md that says sh is run, all by one shell, and
// prints what the block of text after it says. The word browse opens an address
// in a patient's browser and prints where that ends.
func TestIntegrating(t *testing.T) {
	t.Parallel()
	bin := program(t)
	for _, name := range []string{"curl", "jq"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("no " + name + ": install it or run make test")
		}
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "integrating.md"))
	require.NoError(t, err)
	h := &house{data: t.TempDir(), client: http.DefaultClient}
	h.run(t)
	port := regexp.MustCompile(`\d+$`).FindString(h.Issuer)

	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "bin"), 0o700))
	require.NoError(t, os.Symlink(bin, filepath.Join(dir, "bin", "patauth")))
	require.NoError(t, os.Symlink(h.data, filepath.Join(dir, ".patauth")))
	script := "set -eu\nbrowse() { echo \"$1\" >&3; read -r there <&4; echo \"$there\"; }\n"
	var want []string
	for _, f := range fences.FindAllStringSubmatch(string(text), -1) {
		switch f[1] {
		case "sh":
			want = append(want, "")
			script += "{\n" + f[2] + "} > " + strconv.Itoa(len(want)) + ".out\n"
		case "text":
			want[len(want)-1] = f[2]
		}
	}
	require.NotEmpty(t, want)

	asked, asks := pipe(t)
	answers, answer := pipe(t)
	cmd := exec.Command("sh", "-c", strings.ReplaceAll(script, "localhost:8080", "localhost:"+port))
	cmd.Dir, cmd.ExtraFiles = dir, []*os.File{asks, answers}
	said := &strings.Builder{}
	cmd.Stderr = said
	require.NoError(t, cmd.Start())
	asks.Close()
	answers.Close()
	b := newBrowser(t, h, "", "grace@example.org")
	for lines := bufio.NewScanner(asked); lines.Scan(); {
		_, err := answer.WriteString(b.goes(lines.Text()).String() + "\n")
		require.NoError(t, err)
	}
	require.NoError(t, cmd.Wait(), "%s", said)
	for i, w := range want {
		got, err := os.ReadFile(filepath.Join(dir, strconv.Itoa(i+1)+".out"))
		require.NoError(t, err)
		printed := strings.NewReplacer("localhost:"+port, "localhost:8080", "localhost%3A"+port, "localhost%3A8080", "\r", "").Replace(string(got))
		lines := strings.Split(strings.TrimSuffix(printed, "\n"), "\n")
		expected := strings.Split(strings.TrimSuffix(w, "\n"), "\n")
		require.Len(t, lines, len(expected), "block %d\n%s", i+1, printed)
		for n, line := range expected {
			require.Regexp(t, "^"+strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*")+"$", lines[n], "block %d", i+1)
		}
	}
}

func pipe(t *testing.T) (read, write *os.File) {
	t.Helper()
	read, write, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { read.Close(); write.Close() })
	return read, write
}
