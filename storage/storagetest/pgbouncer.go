package storagetest

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// PgBouncer starts a PgBouncer in transaction mode, with two server connections,
// in front of the database of a URL, and returns the URL through it. It ends with
// the test. Without the program the test is skipped.
func PgBouncer(t testing.TB, database string) string {
	t.Helper()
	program := os.Getenv("PATAUTH_TEST_PGBOUNCER")
	if program == "" {
		t.Skip("no PgBouncer: set PATAUTH_TEST_PGBOUNCER or run make test")
	}
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	dir, port := serverDir(t), freePort(t)
	for name, text := range map[string]string{
		"users": fmt.Sprintf("%q \"\"\n", u.User.Username()),
		"ini": fmt.Sprintf("[databases]\n* = host=%s port=%s\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\n"+
			"auth_type = trust\nauth_file = %s/users\npool_mode = transaction\ndefault_pool_size = 2\nmax_client_conn = 200\n",
			u.Hostname(), u.Port(), port, dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, filepath.Join(dir, "ini"))
	cmd.Dir = dir
	asNobody(t, cmd, dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	u.Host = fmt.Sprintf("127.0.0.1:%d", port)
	through := u.String()
	db, err := sql.Open("pgx", through+"&default_query_exec_mode=exec")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for err = db.PingContext(ctx); err != nil; err = db.PingContext(ctx) {
		select {
		case <-ctx.Done():
			t.Fatalf("PgBouncer does not start: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return through
}
