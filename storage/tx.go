package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"gorm.io/gorm"
)

// A txState is one open transaction, carried by the context.
type txState struct {
	db    *gorm.DB
	depth int      // of joined Begins
	after []func() // run once the outermost transaction has committed
	done  bool
}

type txKey struct{ db *DB }

func (db *DB) txOf(ctx context.Context) *txState {
	s, _ := ctx.Value(txKey{db}).(*txState)
	return s
}

// g is the handle to query with: the transaction of ctx, or the pool.
func (db *DB) g(ctx context.Context) *gorm.DB {
	if s := db.txOf(ctx); s != nil {
		return s.db.WithContext(ctx)
	}
	return db.gorm.WithContext(ctx)
}

// Tx runs fn in a transaction that travels in the context it is given. Calls
// that use that context join it; a Tx inside a Tx is a savepoint. The
// transaction commits when fn returns nil and rolls back otherwise, also on a
// panic. A serialization failure or deadlock reruns fn, three times at most,
// so fn must have no effect outside the database, and no network inside.
func (db *DB) Tx(ctx context.Context, fn func(context.Context) error) error {
	if s := db.txOf(ctx); s != nil {
		return s.db.WithContext(ctx).Transaction(func(g *gorm.DB) error {
			inner := &txState{db: g}
			err := fn(context.WithValue(ctx, txKey{db}, inner))
			if err == nil {
				s.after = append(s.after, inner.after...)
			}
			return err
		})
	}
	var err error
	for try := range 4 {
		if try > 0 {
			if !pause(ctx, time.Duration(rand.Int64N(int64(20*time.Millisecond)<<try))) {
				break
			}
		}
		s := &txState{}
		err = db.gorm.WithContext(ctx).Transaction(func(g *gorm.DB) error {
			s.db = g
			return fn(context.WithValue(ctx, txKey{db}, s))
		})
		if err == nil {
			for _, f := range s.after {
				f()
			}
			return nil
		}
		if !retryable(err) {
			break
		}
	}
	return mapErr(err)
}

// pause waits for d, and reports whether ctx has not ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

type limitKey struct{}

// withLimit is ctx for statements that may take up to limit.
func withLimit(ctx context.Context, limit time.Duration) context.Context {
	return context.WithValue(ctx, limitKey{}, limit)
}

func limitOf(ctx context.Context) (limit time.Duration, ok bool) {
	limit, ok = ctx.Value(limitKey{}).(time.Duration)
	return limit, ok
}

// Within is Tx for work that may take longer than a request: each of its
// statements up to limit, which should be shorter than the time that ctx has.
// ErrTimeout where one takes longer. Inside a Tx the limit holds until the
// outermost one ends.
func (db *DB) Within(ctx context.Context, limit time.Duration, fn func(context.Context) error) error {
	err := db.Tx(withLimit(ctx, limit), func(ctx context.Context) error {
		if db.dialect == "postgres" {
			err := db.g(ctx).Exec(fmt.Sprintf("SET LOCAL statement_timeout = %d", limit.Milliseconds())).Error
			if err != nil {
				return mapErr(err)
			}
		}
		return fn(ctx)
	})
	if sqlState(err) == queryCanceled {
		return fmt.Errorf("%w: %v", ErrTimeout, err) // not ErrUnavailable, as a request would say
	}
	return err
}

// AfterCommit runs f once the transaction of ctx has committed; at once where
// there is none.
func (db *DB) AfterCommit(ctx context.Context, f func()) {
	if s := db.txOf(ctx); s != nil {
		s.after = append(s.after, f)
		return
	}
	f()
}

// Begin opens a transaction for callers that cannot pass a function, and joins
// the one of ctx where there is one. Each Begin needs its Commit or Rollback.
func (db *DB) Begin(ctx context.Context) (context.Context, error) {
	if s := db.txOf(ctx); s != nil {
		s.depth++
		return ctx, nil
	}
	g := db.gorm.WithContext(ctx).Begin(&sql.TxOptions{})
	if g.Error != nil {
		return nil, mapErr(g.Error)
	}
	return context.WithValue(ctx, txKey{db}, &txState{db: g}), nil
}

// Commit ends what Begin opened.
func (db *DB) Commit(ctx context.Context) error {
	s := db.txOf(ctx)
	if s == nil || s.done {
		return fmt.Errorf("commit: no transaction")
	}
	if s.depth > 0 {
		s.depth--
		return nil
	}
	s.done = true
	if err := s.db.Commit().Error; err != nil {
		return mapErr(err)
	}
	for _, f := range s.after {
		f()
	}
	return nil
}

// Rollback ends what Begin opened; it is harmless on a transaction that is
// finished. A Rollback of a joined Begin leaves the decision to the outermost
// caller, who learns of the failure by its error.
func (db *DB) Rollback(ctx context.Context) error {
	s := db.txOf(ctx)
	if s == nil || s.done {
		return nil
	}
	if s.depth > 0 {
		s.depth--
		return nil
	}
	s.done = true
	if err := s.db.Rollback().Error; err != nil && !errors.Is(err, sql.ErrTxDone) {
		return mapErr(err)
	}
	return nil
}
