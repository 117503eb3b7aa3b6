package storagetest

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Server is a PostgreSQL server of one test, to be frozen, copied and stopped. It
// has one superuser, postgres, without a password.
type Server struct {
	t    testing.TB
	dir  string
	port int
	cmd  *exec.Cmd
}

// PrivateServer starts a server that ends with the test. Without PostgreSQL's
// programs the test is skipped.
func PrivateServer(t testing.TB) *Server {
	t.Helper()
	s := &Server{t: t, dir: serverDir(t)}
	s.run("initdb", "-D", filepath.Join(s.dir, "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	s.start()
	return s
}

// Copy stops s, and starts it again beside a copy of itself.
func (s *Server) Copy() *Server {
	s.t.Helper()
	s.Stop()
	other := &Server{t: s.t, dir: serverDir(s.t)}
	if out, err := exec.Command("cp", "-a", filepath.Join(s.dir, "data"), other.dir).CombinedOutput(); err != nil {
		s.t.Fatalf("cp: %v: %s", err, out)
	}
	s.start()
	other.start()
	return other
}

// URL is where the server's database postgres is.
func (s *Server) URL() string {
	return "postgres://postgres@" + s.Address() + "/postgres?sslmode=disable"
}

// Address is the server's host and port.
func (s *Server) Address() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// Exec runs statements as the superuser, on a connection of its own.
func (s *Server) Exec(statements ...string) {
	s.t.Helper()
	db, err := sql.Open("pgx", s.URL())
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	for _, statement := range statements {
		if _, err := db.Exec(statement); err != nil {
			s.t.Fatalf("%s: %v", statement, err)
		}
	}
}

// Freeze stops the server's processes where they are: connections stay open, new
// ones are taken by the kernel, and nobody says anything.
func (s *Server) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw lets them go on.
func (s *Server) Thaw() { s.signal(syscall.SIGCONT) }

// Stop ends the server, with its connections.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	s.Thaw()
	s.cmd.Process.Signal(syscall.SIGINT) // "fast shutdown"
	s.cmd.Wait()
	s.cmd = nil
}

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	// The postmaster first: it makes no more children then.
	for _, pid := range append([]int{s.cmd.Process.Pid}, children(s.cmd.Process.Pid)...) {
		if err := syscall.Kill(pid, sig); err != nil && err != syscall.ESRCH {
			s.t.Fatalf("signal %d: %v", pid, err)
		}
	}
}

// children are the processes whose parent is pid.
func children(pid int) []int {
	var found []int
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // after the name, which may be anything
		if len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			n, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			found = append(found, n)
		}
	}
	return found
}

func (s *Server) start() {
	s.t.Helper()
	s.port = freePort(s.t)
	s.cmd = s.command("postgres", "-D", filepath.Join(s.dir, "data"), "-p", strconv.Itoa(s.port), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=60")
	var log bytes.Buffer
	s.cmd.Stderr = &log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.Stop)
	db, err := sql.Open("pgx", s.URL())
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for db.PingContext(ctx) != nil {
		select {
		case <-ctx.Done():
			s.t.Fatalf("PostgreSQL does not start: %s", log.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Server) run(name string, args ...string) {
	s.t.Helper()
	if out, err := s.command(name, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v: %s", name, err, out)
	}
}

// command is one of PostgreSQL's programs, which refuse to be run by root.
func (s *Server) command(name string, args ...string) *exec.Cmd {
	s.t.Helper()
	path := programOfPostgres(name)
	if path == "" {
		s.t.Skipf("no program %s of PostgreSQL: install postgresql", name)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = s.dir
	asNobody(s.t, cmd, s.dir)
	return cmd
}

// asNobody makes cmd run as the user postgres where this process is root's.
func asNobody(t testing.TB, cmd *exec.Cmd, dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		return
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Skipf("%s refuses to run as root: %v", filepath.Base(cmd.Path), err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

// programOfPostgres is the path of a program of the newest PostgreSQL, "" where
// there is none. Debian keeps them out of the path.
func programOfPostgres(name string) string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	slices.SortFunc(found, func(a, b string) int { return len(a) - len(b) }) // 9 before 15
	if n := len(found); n > 0 {
		return found[n-1]
	}
	path, _ := exec.LookPath(name)
	return path
}

// serverDir is a folder that the user postgres can reach, unlike the test's own.
func serverDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "patauth-server-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Silent is an address that takes connections and says nothing.
func Silent(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// Refusing is an address that takes no connections.
func Refusing(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", freePort(t))
}

// URLAt is a database's URL at other hosts, separated by commas.
func URLAt(t testing.TB, url string, hosts ...string) string {
	t.Helper()
	scheme, rest, ok := strings.Cut(url, "@")
	_, path, found := strings.Cut(rest, "/")
	if !ok || !found {
		t.Fatalf("%q is no URL of a database", url)
	}
	return scheme + "@" + strings.Join(hosts, ",") + "/" + path
}
