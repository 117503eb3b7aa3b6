package storage

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
)

const (
	// acquireTimeout bounds the wait for a connection, the dial behind it included.
	acquireTimeout = 500 * time.Millisecond
	// connectTimeout bounds the attempt at one host, which goes on when whoever
	// asked for the connection has given up.
	connectTimeout = time.Second
	// statementTimeout is the server's limit for a statement, silenceTimeout ours:
	// a server that was frozen, or is cut off, does not keep to its own. Both
	// together are less than two seconds.
	statementTimeout = 1400 * time.Millisecond
	silenceTimeout   = 1600 * time.Millisecond
)

// pool is the connections to PostgreSQL. Whatever becomes of the server, nobody
// waits for long: dials go side by side, a caller waits acquireTimeout for a
// connection, and each statement has its time.
type pool struct {
	*pgxpool.Pool
	connector driver.Connector
	waited    atomic.Int64 // nanoseconds
	hosts     hosts
}

// openPool is the pool of c. It does not wait for the server.
func openPool(c Config) (*pool, error) {
	pc, err := pgxpool.ParseConfig(c.DSN)
	if err != nil {
		// The parser's error repeats the DSN, and with it the password.
		return nil, fmt.Errorf("storage dsn: not a PostgreSQL URL")
	}
	p := &pool{}
	pc.MaxConns = int32(cmp.Or(c.MaxConns, 10))
	pc.MaxConnLifetime, pc.MaxConnIdleTime = 30*time.Minute, 5*time.Minute
	pc.MaxConnLifetimeJitter = 5 * time.Minute
	pc.PingTimeout = acquireTimeout / 2 // of a connection that was idle: leaves time for another one
	pc.PrepareConn = func(_ context.Context, conn *pgx.Conn) (bool, error) { return !takesNoWrites(conn), nil }
	pc.AfterConnect = p.connected
	pc.BeforeConnect = func(_ context.Context, cc *pgx.ConnConfig) error { p.hosts.order(cc); return nil }
	pc.BeforeClose = closeSoon

	cc := pc.ConnConfig
	cc.ConnectTimeout = connectTimeout
	cc.Tracer = limiter{}
	cc.DialFunc = dial
	cc.LookupFunc = p.hosts.lookup(cc.LookupFunc)
	if cc.ValidateConnect == nil {
		// target_session_attrs: what takes no writes is of no use to us.
		cc.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	fatal := cc.OnPgError
	cc.OnPgError = func(conn *pgconn.PgConn, e *pgconn.PgError) bool {
		switch e.Code {
		case readOnly, "57P01", "57P02":
			// The server is no longer what it was, for none of the connections.
			p.Reset()
			return false
		}
		return fatal(conn, e)
	}
	if c.PgBouncer {
		// In transaction mode a named statement is found by whom the server
		// connection serves next, and no parameter of a session is kept.
		cc.DefaultQueryExecMode = pgx.QueryExecModeExec
		cc.StatementCacheCapacity, cc.DescriptionCacheCapacity = 0, 0
	} else if cc.RuntimeParams["statement_timeout"] == "" {
		cc.RuntimeParams["statement_timeout"] = strconv.FormatInt(statementTimeout.Milliseconds(), 10)
	}
	if p.Pool, err = pgxpool.NewWithConfig(context.Background(), pc); err != nil {
		return nil, fmt.Errorf("storage dsn: %w", err)
	}
	p.connector = stdlib.GetPoolConnector(p.Pool)
	return p, nil
}

// sql is the pool for database/sql, which keeps no connection to itself.
func (p *pool) sql() *sql.DB {
	db := sql.OpenDB(p)
	db.SetMaxIdleConns(0)
	return db
}

// Connect implements driver.Connector.
func (p *pool) Connect(ctx context.Context) (driver.Conn, error) {
	limit, _ := limitOf(ctx)
	ctx, cancel := context.WithTimeout(ctx, max(acquireTimeout, limit))
	defer cancel()
	start := time.Now()
	conn, err := p.connector.Connect(ctx)
	p.waited.Add(int64(time.Since(start)))
	return conn, err
}

// Driver implements driver.Connector.
func (p *pool) Driver() driver.Driver { return p.connector.Driver() }

// Close implements io.Closer, for database/sql to call.
func (p *pool) Close() error {
	p.Pool.Close()
	return nil
}

// takesNoWrites reports whether the server has said, unasked, that it takes no
// writes any more (PostgreSQL 14; others say it when a write fails).
func takesNoWrites(conn *pgx.Conn) bool {
	return conn.PgConn().ParameterStatus("default_transaction_read_only") == "on" ||
		conn.PgConn().ParameterStatus("in_hot_standby") == "on"
}

// dial connects to a server, for a session or to cancel a statement. Either has
// to be through within connectTimeout, unless connected says that it may stay.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(connectTimeout))
}

func (p *pool) connected(_ context.Context, conn *pgx.Conn) error {
	p.hosts.reached(conn.PgConn().Conn().RemoteAddr())
	return conn.PgConn().Conn().SetDeadline(time.Time{})
}

// closeSoon keeps a connection that ends from holding its place in the pool
// until a silent server has said goodbye.
func closeSoon(conn *pgx.Conn) {
	if conn.IsClosed() {
		conn.PgConn().Conn().Close()
		return
	}
	conn.PgConn().Conn().SetDeadline(time.Now().Add(connectTimeout))
}

// limiter gives each statement its time: silenceTimeout, or what Within says and
// a little more, for the server to be the one that says so.
type limiter struct{}

type stopKey struct{}

// TraceQueryStart implements pgx.QueryTracer.
func (limiter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	within := silenceTimeout
	if limit, ok := limitOf(ctx); ok {
		within = limit + silenceTimeout - statementTimeout
	}
	ctx, stop := context.WithTimeout(ctx, within)
	return context.WithValue(ctx, stopKey{}, stop)
}

// TraceQueryEnd implements pgx.QueryTracer.
func (limiter) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) {
	ctx.Value(stopKey{}).(context.CancelFunc)()
}

// hosts remembers which of several hosts was reached last: the next connection
// tries it first, so that silent ones cost their time once.
type hosts struct {
	mu   sync.Mutex
	of   map[string]string // an address is of this host
	last string
}

// lookup is look that remembers whose the addresses are.
func (h *hosts) lookup(look pgconn.LookupFunc) pgconn.LookupFunc {
	return func(ctx context.Context, host string) ([]string, error) {
		found, err := look(ctx, host)
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.of == nil {
			h.of = map[string]string{}
		}
		for _, address := range found {
			h.of[address] = host
		}
		return found, err
	}
}

func (h *hosts) reached(address net.Addr) {
	ip, port, err := net.SplitHostPort(address.String())
	if err != nil {
		return // a Unix socket
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = net.JoinHostPort(cmp.Or(h.of[ip], ip), port)
}

// order puts the host that was reached last in front.
func (h *hosts) order(c *pgx.ConnConfig) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := append([]*pgconn.FallbackConfig{{Host: c.Host, Port: c.Port, TLSConfig: c.TLSConfig}}, c.Fallbacks...)
	slices.SortStableFunc(all, func(a, b *pgconn.FallbackConfig) int { return h.rank(a) - h.rank(b) })
	c.Host, c.Port, c.TLSConfig, c.Fallbacks = all[0].Host, all[0].Port, all[0].TLSConfig, all[1:]
}

func (h *hosts) rank(c *pgconn.FallbackConfig) int {
	if net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))) == h.last {
		return 0
	}
	return 1
}

// Stats are the pool's figures for metrics.
type Stats struct {
	InUse, Idle int
	// Waited is the time spent waiting for a connection, in all.
	Waited time.Duration
}
