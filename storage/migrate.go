package storage

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrations embed.FS

// A migration is one forward step: the same for both databases, written in
// PostgreSQL's words, or a pair where the dialects truly part
// (NNNN_x.sqlite.sql replaces NNNN_x.sql). An index of a table that may be large
// is built beside running writers, in a step that does nothing else: see besides.
type migration struct {
	version int64
	name    string
	sql     string
}

// steps lists the migrations of a dialect in order.
func steps(dialect string) ([]migration, error) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var out []migration
	for _, f := range files {
		name := strings.TrimSuffix(path.Base(f), ".sql")
		if strings.HasSuffix(name, ".sqlite") {
			continue
		}
		if twin := strings.TrimSuffix(f, ".sql") + ".sqlite.sql"; dialect == "sqlite" && slices.Contains(files, twin) {
			f = twin
		}
		text, err := migrations.ReadFile(f)
		if err != nil {
			return nil, err
		}
		number, _, _ := strings.Cut(name, "_")
		v, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("migration %s: the name must start with its number", f)
		}
		m := migration{version: v, name: name, sql: string(text)}
		if dialect == "sqlite" {
			m.sql = strings.NewReplacer("TIMESTAMPTZ", "DATETIME", "BYTEA", "BLOB", " CONCURRENTLY", "").Replace(m.sql)
		}
		out = append(out, m)
	}
	return out, nil
}

const (
	// migrationWait is how long a migrator waits for another one.
	migrationWait = time.Minute
	// stepLimit is how long a statement of a step may take.
	stepLimit = time.Hour
	// startLimit is how long the question for the schema's version may take.
	startLimit = 5 * time.Second
)

// migrationLock is the number of PostgreSQL's advisory lock: "patauth" in ASCII.
const migrationLock = 0x70617461757468

func (db *DB) goose(all []migration, opts ...goose.ProviderOption) (*goose.Provider, error) {
	dialect := goose.DialectSQLite3
	if db.dialect == "postgres" {
		dialect = goose.DialectPostgres
		l, err := lock.NewPostgresSessionLocker(lock.WithLockID(migrationLock), lock.WithLockTimeout(1, uint64(migrationWait/time.Second)))
		if err != nil {
			return nil, err
		}
		opts = append(opts, goose.WithSessionLocker(l))
	}
	var list []*goose.Migration
	for _, m := range all {
		if db.dialect == "postgres" && strings.Contains(m.sql, "CONCURRENTLY") {
			list = append(list, goose.NewGoMigration(m.version, &goose.GoFunc{
				RunDB: func(ctx context.Context, pool *sql.DB) error {
					return buildBeside(withLimit(ctx, stepLimit), pool, m.sql)
				},
			}, nil))
			continue
		}
		list = append(list, goose.NewGoMigration(m.version, &goose.GoFunc{
			RunTx: func(ctx context.Context, tx *sql.Tx) error {
				if db.dialect == "postgres" {
					// A step may take its time, but must not make requests queue up behind
					// a lock that it waits for.
					if _, err := tx.ExecContext(ctx, fmt.Sprintf("SET LOCAL statement_timeout = %d; SET LOCAL lock_timeout = '2s'", stepLimit.Milliseconds())); err != nil {
						return err
					}
				}
				_, err := tx.ExecContext(withLimit(ctx, stepLimit), m.sql)
				return err
			},
		}, nil))
	}
	opts = append(opts, goose.WithGoMigrations(list...), goose.WithDisableGlobalRegistry(true))
	return goose.NewProvider(dialect, db.sql, nil, opts...)
}

// besides is what a step that builds indexes consists of.
var besides = regexp.MustCompile(`CREATE (?:UNIQUE )?INDEX CONCURRENTLY IF NOT EXISTS (\w+) [^;]+;`)

// buildBeside builds indexes while others write to their tables, which cannot be
// done in a transaction. It may be repeated: what stands is left, and what a try
// that was broken off has left behind, which PostgreSQL marks invalid, is built
// anew. It takes no lock that a request could queue behind, so it may wait.
func buildBeside(ctx context.Context, pool *sql.DB, step string) error {
	conn, err := pool.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, fmt.Sprintf("SET statement_timeout = %d; SET lock_timeout = 0", stepLimit.Milliseconds())); err != nil {
		return err
	}
	defer conn.ExecContext(context.WithoutCancel(ctx), "RESET statement_timeout; RESET lock_timeout")
	for _, index := range besides.FindAllStringSubmatch(step, -1) {
		var broken int
		err := conn.QueryRowContext(ctx, `SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
			WHERE c.relname = $1 AND c.relnamespace = current_schema()::regnamespace AND NOT i.indisvalid`, index[1]).Scan(&broken)
		if err != nil {
			return err
		}
		if broken > 0 {
			if _, err := conn.ExecContext(ctx, "DROP INDEX CONCURRENTLY "+index[1]); err != nil {
				return err
			}
		}
		if _, err := conn.ExecContext(ctx, index[0]); err != nil {
			return err
		}
	}
	return nil
}

// Migrate brings the schema to the newest version, each step whole or not at all,
// under a lock that waits up to a minute for another migrator. It returns the
// names of the steps it applied.
func (db *DB) Migrate(ctx context.Context) ([]string, error) {
	all, err := steps(db.dialect)
	if err != nil {
		return nil, err
	}
	if db.dialect == "sqlite" {
		unlock, err := lockFile(ctx, db.path+".migrate", migrationWait)
		if err != nil {
			return nil, fmt.Errorf("lock migrations: %w", err)
		}
		defer unlock()
	} else if _, err := db.SchemaStatus(ctx); err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	p, err := db.goose(all)
	if err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	done, err := p.Up(ctx)
	var names []string
	for _, d := range done {
		if i := slices.IndexFunc(all, func(m migration) bool { return m.version == d.Source.Version }); i >= 0 {
			names = append(names, all[i].name)
		}
	}
	if err != nil {
		return names, fmt.Errorf("migrate: %w", mapErr(err))
	}
	return names, nil
}

// Schema says where the database's schema is and where this program wants it.
type Schema struct {
	Version int64 `json:"version"`
	Wanted  int64 `json:"wanted"`
}

// Old reports whether the schema is older than this program needs. A newer one
// is fine: migrations only ever add what the previous release can ignore.
func (s Schema) Old() bool { return s.Version < s.Wanted }

// SchemaStatus reads the schema's version.
func (db *DB) SchemaStatus(ctx context.Context) (Schema, error) {
	all, err := steps(db.dialect)
	if err != nil {
		return Schema{}, err
	}
	s := Schema{Wanted: all[len(all)-1].version}
	// Who starts may wait until one of several hosts has answered.
	ctx, cancel := context.WithTimeout(withLimit(ctx, startLimit), startLimit)
	defer cancel()
	exists := "SELECT count(*) FROM information_schema.tables WHERE table_schema = current_schema() AND table_name = 'goose_db_version'"
	if db.dialect == "sqlite" {
		exists = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'goose_db_version'"
	}
	var n int
	if err := db.sql.QueryRowContext(ctx, exists).Scan(&n); err != nil {
		return s, fmt.Errorf("schema status: %w", mapErr(err))
	}
	if n == 0 {
		return s, nil
	}
	err = db.sql.QueryRowContext(ctx, "SELECT coalesce(max(version_id), 0) FROM goose_db_version").Scan(&s.Version)
	if err != nil {
		return s, fmt.Errorf("schema status: %w", mapErr(err))
	}
	return s, nil
}

// lockFile holds an exclusive lock on path until unlock. It waits up to wait.
func lockFile(ctx context.Context, path string, wait time.Duration) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || !pause(ctx, 50*time.Millisecond) {
			f.Close()
			return nil, err
		}
	}
	return func() { f.Close() }, nil
}
