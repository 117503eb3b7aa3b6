package lis

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// rebalance runs inside Poll; the library does the assigning. Offsets of what
// is taken away are committed while it is still ours, and its records in hand
// are dropped: they will come to the new owner.
func (c *Consumer) rebalance(k *kafka.Consumer, e kafka.Event) error {
	switch e := e.(type) {
	case kafka.AssignedPartitions:
		slog.Info("lis sync: partitions assigned", "partitions", numbers(e.Partitions))
		if c.paused {
			// The pause must follow the assignment, so the assigning is done here.
			if err := k.IncrementalAssign(e.Partitions); err != nil {
				return err
			}
			return k.Pause(e.Partitions)
		}
	case kafka.RevokedPartitions:
		lost := k.AssignmentLost()
		slog.Info("lis sync: partitions revoked", "partitions", numbers(e.Partitions), "lost", lost)
		if !lost {
			commit(k)
		}
		kept := c.hand[:0]
		for _, r := range c.hand {
			if !holds(e.Partitions, r) {
				kept = append(kept, r)
			}
		}
		c.hand = kept
	}
	return nil
}

func holds(partitions []kafka.TopicPartition, r Record) bool {
	for _, p := range partitions {
		if p.Partition == r.Partition && p.Topic != nil && *p.Topic == r.Topic {
			return true
		}
	}
	return false
}

func numbers(partitions []kafka.TopicPartition) []int32 {
	var out []int32
	for _, p := range partitions {
		out = append(out, p.Partition)
	}
	return out
}

func (c *Consumer) pause(k *kafka.Consumer) error {
	if c.paused {
		return nil
	}
	c.paused = true
	assigned, err := k.Assignment()
	if err == nil {
		err = k.Pause(assigned)
	}
	if err != nil {
		return fmt.Errorf("lis consumer: pause: %w", err)
	}
	return nil
}

func (c *Consumer) resume(k *kafka.Consumer) error {
	if !c.paused {
		return nil
	}
	c.paused = false
	assigned, err := k.Assignment()
	if err == nil {
		err = k.Resume(assigned)
	}
	if err != nil {
		return fmt.Errorf("lis consumer: resume: %w", err)
	}
	return nil
}

// storeOffsets lets the client commit what the database now has.
func (c *Consumer) storeOffsets(k *kafka.Consumer) {
	next := map[int32]int64{}
	for _, r := range c.hand {
		next[r.Partition] = max(next[r.Partition], r.Offset+1)
	}
	for p, o := range next {
		tp := kafka.TopicPartition{Topic: &c.cfg.Topic, Partition: p, Offset: kafka.Offset(o)}
		// A partition that was taken away in between has another owner, who finds
		// these records applied.
		if _, err := k.StoreOffsets([]kafka.TopicPartition{tp}); err != nil {
			slog.Warn("lis sync: offset not stored", "partition", p, "error", err)
		}
	}
}

// commit writes the stored offsets now.
func commit(k *kafka.Consumer) {
	_, err := k.Commit()
	var e kafka.Error
	if err != nil && !(errors.As(err, &e) && e.Code() == kafka.ErrNoOffset) {
		slog.Warn("lis sync: offsets not committed", "error", err)
	}
}

// close commits and leaves. librdkafka has known hangs in closing; nothing is
// lost by not waiting for it.
func (c *Consumer) close(k *kafka.Consumer) error {
	done := make(chan error, 1)
	go func() {
		commit(k)
		done <- k.Close()
	}()
	select {
	case err := <-done:
		slog.Info("lis sync stopped")
		return err
	case <-time.After(closeTime):
		return fmt.Errorf("lis consumer: the client did not close within %s", closeTime)
	}
}
