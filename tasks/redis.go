package tasks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/hibiken/asynq"
)

// queueName is the one queue; a second would need a reason.
const queueName = "default"

// Redis says where the queue is.
type Redis struct{ opt asynq.RedisConnOpt }

// ParseRedis reads redis://, rediss://, redis-socket:// and redis-sentinel://
// URLs; several redis:// URLs separated by commas are a cluster. Its error does
// not repeat the URL, which may hold a password.
func ParseRedis(url string) (Redis, error) {
	if strings.Contains(url, ",") && !strings.HasPrefix(url, "redis-sentinel:") {
		var c asynq.RedisClusterClientOpt
		for _, u := range strings.Split(url, ",") {
			opt, err := asynq.ParseRedisURI(strings.TrimSpace(u))
			one, ok := opt.(asynq.RedisClientOpt)
			if err != nil || !ok {
				return Redis{}, errRedis
			}
			c.Addrs = append(c.Addrs, one.Addr)
			c.Username, c.Password, c.TLSConfig = one.Username, one.Password, one.TLSConfig
		}
		return Redis{c}, nil
	}
	opt, err := asynq.ParseRedisURI(url)
	if err != nil {
		return Redis{}, errRedis
	}
	return Redis{opt}, nil
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
