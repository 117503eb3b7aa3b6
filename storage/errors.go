package storage

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/jackc/pgx/v5/pgconn"
	sqlite3 "github.com/mattn/go-sqlite3"
	"gorm.io/gorm"
)

var (
	// ErrNotFound says that there is no such row, or none that the caller may see.
	ErrNotFound = errors.New("not found")
	// ErrConflict says that a unique rule refused the row.
	ErrConflict = errors.New("conflict")
	// ErrSpent says that something usable once was used, replaced or too old.
	ErrSpent = errors.New("spent")
	// ErrUnavailable says that the database cannot be reached, does not answer in
	// time, takes no writes, or that the caller did not wait.
	ErrUnavailable = errors.New("database unavailable")
	// ErrTimeout says that a statement ran into the limit that Within gave it: the
	// database is there, the work was too much.
	ErrTimeout = errors.New("took too long")
)

// mapErr turns a driver's error into one of the sentinels, keeping the cause.
func mapErr(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrConflict), errors.Is(err, ErrSpent), errors.Is(err, ErrUnavailable), errors.Is(err, ErrTimeout):
		return err
	case errors.Is(err, gorm.ErrRecordNotFound), errors.Is(err, sql.ErrNoRows):
		return ErrNotFound
	case errors.Is(err, gorm.ErrDuplicatedKey):
		return ErrConflict
	}
	if away(err) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// away reports whether err means that the database, not the statement, failed.
func away(err error) bool {
	// Whatever refused a connection, a server that starts up or knows no such
	// user, there is none.
	if connect := (*pgconn.ConnectError)(nil); errors.As(err, &connect) {
		return true
	}
	if code := sqlState(err); code != "" {
		switch code[:2] {
		case "08", "53", "57", "58": // connection, resources, operator intervention, system
			return true
		}
		switch code {
		case readOnly, "40001", "40P01", "55000": // retries used up; not in the state to serve this
			return true
		}
		return false
	}
	var lite sqlite3.Error
	if errors.As(err, &lite) {
		switch lite.Code {
		case sqlite3.ErrBusy, sqlite3.ErrLocked, sqlite3.ErrIoErr, sqlite3.ErrFull, sqlite3.ErrCantOpen, sqlite3.ErrReadonly:
			return true
		}
		return false
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, sql.ErrConnDone) ||
		pgconn.SafeToRetry(err) // a connection that was lost before anything was sent on it
}

// retryable reports whether the whole transaction may be run again: PostgreSQL
// rolled it back because of others (serialization_failure, deadlock_detected).
func retryable(err error) bool {
	code := sqlState(err)
	return code == "40001" || code == "40P01"
}

// SQLSTATEs of a server that takes no writes, and of a statement that was cut off.
const (
	readOnly      = "25006"
	queryCanceled = "57014"
)

// sqlState is PostgreSQL's code for err, "" where err is not PostgreSQL's.
func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// spentUnlessOne is the answer of a conditional update: one row is the winner.
func spentUnlessOne(r *gorm.DB) error {
	if r.Error != nil {
		return mapErr(r.Error)
	}
	if r.RowsAffected != 1 {
		return ErrSpent
	}
	return nil
}
