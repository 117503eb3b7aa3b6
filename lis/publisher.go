package lis

import (
	"context"
	"errors"
	"fmt"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// Publisher writes records to Kafka and waits until all in-sync brokers have
// them. It is safe for concurrent use.
type Publisher struct {
	cfg Config
	k   *kafka.Producer
}

// NewPublisher opens a publisher; Close it.
func NewPublisher(cfg Config) (*Publisher, error) {
	k, err := kafka.NewProducer(cfg.producer())
	if err != nil {
		return nil, fmt.Errorf("lis publisher: %w", err)
	}
	go drain(k.Logs())
	go func() {
		for range k.Events() { // errors of the client; those of messages come to Publish
		}
	}()
	return &Publisher{cfg, k}, nil
}

// Close ends the publisher. What is not acknowledged then was reported as such.
func (p *Publisher) Close() { p.k.Close() }

// inFlight is how many records wait for their acknowledgement at once.
const inFlight = 1000

// Publish writes records to their topics, in order, and returns how many the
// brokers acknowledged; the rest failed with the errors.
func (p *Publisher) Publish(ctx context.Context, records []Record) (acknowledged int, err error) {
	var faults []error
	for len(records) > 0 {
		n := min(inFlight, len(records))
		done := make(chan kafka.Event, n)
		sent := 0
		for _, r := range records[:n] {
			if err := p.k.Produce(message(r), done); err != nil {
				faults = append(faults, err)
				continue
			}
			sent++
		}
		for range sent {
			select {
			case <-ctx.Done():
				return acknowledged, errors.Join(append(faults, ctx.Err())...)
			case e := <-done:
				m, ok := e.(*kafka.Message)
				switch {
				case !ok:
				case m.TopicPartition.Error != nil:
					faults = append(faults, m.TopicPartition.Error)
				default:
					acknowledged++
				}
			}
		}
		records = records[n:]
	}
	return acknowledged, errors.Join(faults...)
}

func message(r Record) *kafka.Message {
	m := &kafka.Message{
		TopicPartition: kafka.TopicPartition{Topic: &r.Topic, Partition: kafka.PartitionAny},
		Key:            r.Key, Value: r.Value,
	}
	for _, h := range r.Headers {
		m.Headers = append(m.Headers, kafka.Header{Key: h.Key, Value: h.Value})
	}
	return m
}
