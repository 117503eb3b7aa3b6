package tasks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/hibiken/asynq"
)

// queueName is the one queue; a second would need a reason.
const queueName = "default"

// Redis says where the queue is.
type Redis struct {
	opt   asynq.RedisConnOpt
	plain bool
}

// Plaintext reports whether something on its way to Redis can be read on a
// network. (The driver knows no TLS to sentinels.)
func (r Redis) Plaintext() bool { return r.plain }

// inTheClear reports whether o is reached over a network without TLS.
func inTheClear(o asynq.RedisClientOpt) bool {
	host, _, err := net.SplitHostPort(o.Addr)
	if err != nil {
		host = o.Addr
	}
	ip, _ := netip.ParseAddr(host)
	return o.TLSConfig == nil && o.Network != "unix" && host != "localhost" && !ip.IsLoopback()
}

// ParseRedis reads redis://, rediss://, redis-socket:// and redis-sentinel://
// URLs; several redis:// URLs separated by commas are a cluster. Its error does
// not repeat the URL, which may hold a password.
func ParseRedis(url string) (Redis, error) {
	if strings.Contains(url, ",") && !strings.HasPrefix(url, "redis-sentinel:") {
		var c asynq.RedisClusterClientOpt
		plain := false
		for _, u := range strings.Split(url, ",") {
			opt, err := asynq.ParseRedisURI(strings.TrimSpace(u))
			one, ok := opt.(asynq.RedisClientOpt)
			if err != nil || !ok {
				return Redis{}, errRedis
			}
			plain = plain || inTheClear(one)
			c.Addrs = append(c.Addrs, one.Addr)
			c.Username, c.Password, c.TLSConfig = one.Username, one.Password, one.TLSConfig
		}
		return Redis{opt: c, plain: plain}, nil
	}
	opt, err := asynq.ParseRedisURI(url)
	if err != nil {
		return Redis{}, errRedis
	}
	one, single := opt.(asynq.RedisClientOpt)
	return Redis{opt: opt, plain: !single || inTheClear(one)}, nil
}

var errRedis = errors.New("not a redis://, rediss:// or redis-sentinel:// URL")

// enqueue puts a task into the queue under a name. asynq.ErrTaskIDConflict where
// the name is taken, by a task in any state that the queue still remembers.
func enqueue(ctx context.Context, c *asynq.Client, t *asynq.Task, name string, retries int, keep time.Duration) error {
	ctx, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	_, err := c.EnqueueContext(ctx, t, asynq.Queue(queueName), asynq.TaskID(name),
		asynq.MaxRetry(retries), asynq.Timeout(taskTimeout), asynq.Retention(keep))
	if err != nil {
		return fmt.Errorf("enqueue %s: %w", t.Type(), err)
	}
	return nil
}

// quiet is asynq's logger: its words go to slog, where they are warnings.
type quiet struct{}

func (quiet) Debug(...any)      {}
func (quiet) Info(...any)       {}
func (quiet) Warn(args ...any)  { slog.Warn("queue", "said", fmt.Sprint(args...)) }
func (quiet) Error(args ...any) { slog.Error("queue", "said", fmt.Sprint(args...)) }
func (quiet) Fatal(args ...any) { slog.Error("queue", "said", fmt.Sprint(args...)) }
