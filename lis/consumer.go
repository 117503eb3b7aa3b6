package lis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/pat-authenticate/patauth/storage"
)

const (
	batchSize = 500
	batchTime = 20 * time.Millisecond
	pollTime  = 50 * time.Millisecond
	// firstWait and longestWait bound the pause while the database is away.
	firstWait   = 200 * time.Millisecond
	longestWait = 30 * time.Second
	// notReadyAfter is how long it may be away before the consumer says so.
	notReadyAfter = 60 * time.Second
	closeTime     = 10 * time.Second
)

var noContext = context.Background()

// Consumer follows the topic: it applies records in batches and stores offsets
// after the commit, so that a kill anywhere repeats records and loses none. One
// goroutine does it all, and rebalances happen inside its polls, when no batch
// is being applied.
type Consumer struct {
	cfg  Config
	db   *storage.DB
	hand []Record // polled, and not yet applied
	// paused says that nothing shall come: the database is away.
	paused  bool
	started atomic.Bool
	// awaySince and downSince are Unix nanoseconds; 0 while the database and the
	// brokers are there.
	awaySince, downSince atomic.Int64
}

// NewConsumer is a consumer of the feed that cfg names.
func NewConsumer(cfg Config, db *storage.DB) *Consumer { return &Consumer{cfg: cfg, db: db} }

// Run consumes until ctx ends, then commits and leaves. Records in hand that
// are not applied come again at the next start. Other errors are fatal ones of
// the Kafka client: the process should end and be started anew.
func (c *Consumer) Run(ctx context.Context) (err error) {
	k, err := kafka.NewConsumer(c.cfg.consumer())
	if err != nil {
		return fmt.Errorf("lis consumer: %w", err)
	}
	go drain(k.Logs())
	defer func() { err = errors.Join(err, c.close(k)) }()
	if err := k.SubscribeTopics([]string{c.cfg.Topic}, c.rebalance); err != nil {
		return fmt.Errorf("lis consumer: %w", err)
	}
	c.started.Store(true)
	defer c.started.Store(false)
	slog.Info("lis sync started", "topic", c.cfg.Topic, "group", c.cfg.Group)
	for ctx.Err() == nil {
		if err := c.collect(k); err != nil {
			return err
		}
		if err := c.applyHand(ctx, k); err != nil {
			return err
		}
	}
	return nil
}

// Ready is nil while the feed can be followed: brokers are reached, and the
// database is not away for long.
func (c *Consumer) Ready(context.Context) error {
	switch away := c.awaySince.Load(); {
	case !c.started.Load():
		return errors.New("lis consumer: not started")
	case c.downSince.Load() != 0:
		return errors.New("lis consumer: no broker is reached")
	case away != 0 && time.Since(time.Unix(0, away)) > notReadyAfter:
		return errors.New("lis consumer: the database is away")
	}
	return nil
}

// collect polls a batch: up to its size, or what comes within its time.
func (c *Consumer) collect(k *kafka.Consumer) error {
	wait, end := pollTime, time.Time{}
	for len(c.hand) < batchSize {
		before := len(c.hand)
		if err := c.poll(k, wait); err != nil {
			return err
		}
		switch {
		case len(c.hand) == 0:
			return nil
		case before == 0:
			end = time.Now().Add(batchTime)
		}
		if wait = time.Until(end); wait < time.Millisecond {
			return nil
		}
	}
	return nil
}

// poll serves one event of the client. The error is a fatal one.
func (c *Consumer) poll(k *kafka.Consumer, wait time.Duration) error {
	switch e := k.Poll(int(wait.Milliseconds())).(type) {
	case *kafka.Message:
		if e.TopicPartition.Error != nil {
			slog.Warn("lis sync: partition error", "partition", e.TopicPartition.Partition, "error", e.TopicPartition.Error)
			return nil
		}
		c.downSince.Store(0)
		c.hand = append(c.hand, recordOf(e))
	case kafka.Error:
		if e.IsFatal() {
			return fmt.Errorf("lis consumer: fatal: %w", e)
		}
		if e.Code() == kafka.ErrAllBrokersDown {
			c.downSince.CompareAndSwap(0, time.Now().UnixNano())
		}
		slog.Warn("lis sync: kafka error", "code", e.Code().String(), "error", e.String())
	case *kafka.Stats:
		if watch(e.String(), c.cfg.Topic) {
			c.downSince.Store(0)
		}
	}
	return nil
}

func recordOf(m *kafka.Message) Record {
	r := Record{
		Topic: *m.TopicPartition.Topic, Partition: m.TopicPartition.Partition, Offset: int64(m.TopicPartition.Offset),
		Timestamp: m.Timestamp.UTC(), Key: m.Key, Value: m.Value,
	}
	for _, h := range m.Headers {
		r.Headers = append(r.Headers, Header{h.Key, h.Value})
	}
	return r
}

// applyHand applies the batch in hand. While the database is away it keeps the
// batch and its place in the group, takes nothing new, and tries again.
func (c *Consumer) applyHand(ctx context.Context, k *kafka.Consumer) error {
	wait := firstWait
	for len(c.hand) > 0 && ctx.Err() == nil {
		began := time.Now()
		outcomes, err := c.applyBatch(ctx, c.hand)
		if err == nil {
			batchSeconds.Observe(time.Since(began).Seconds())
			c.report(outcomes)
			c.storeOffsets(k)
			c.hand = nil
			break
		}
		if ctx.Err() != nil {
			break
		}
		retriesTotal.Inc()
		c.awaySince.CompareAndSwap(0, time.Now().UnixNano())
		slog.Error("lis sync: the database is away", "error", err, "records", len(c.hand), "retry_in", wait.String())
		if err := c.pause(k); err != nil {
			return err
		}
		for end := time.Now().Add(wait); time.Now().Before(end) && ctx.Err() == nil; {
			if err := c.poll(k, pollTime); err != nil {
				return err
			}
		}
		wait = min(2*wait, longestWait)
	}
	c.awaySince.Store(0)
	return c.resume(k)
}

// report counts and logs what became of the records in hand: a line for the
// batch, and one for each record that somebody must look at.
func (c *Consumer) report(outcomes []Outcome) {
	counts := map[string]int{}
	oldest := time.Now()
	for i, o := range outcomes {
		counts[o.Outcome]++
		eventsTotal.WithLabelValues(o.Outcome).Inc()
		r := c.hand[i]
		if !r.Timestamp.IsZero() && r.Timestamp.Before(oldest) {
			oldest = r.Timestamp
		}
		if o.Outcome == storage.LabReview || o.Outcome == storage.LabQuarantined {
			slog.Warn("lis sync: event needs attention", "event", "lis."+o.Outcome, "lab_event_id", o.ID,
				"kind", o.Kind, "reason", o.Reason, "partition", r.Partition, "offset", r.Offset)
		}
	}
	eventAge.Set(time.Since(oldest).Seconds())
	attrs := []any{"records", len(outcomes)}
	for _, word := range []string{storage.LabApplied, storage.LabDuplicate, storage.LabStale, storage.LabReview, storage.LabQuarantined, storage.LabSkipped} {
		attrs = append(attrs, word, counts[word])
	}
	slog.Info("lis sync: batch applied", attrs...)
}
