package lis

import (
	"fmt"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// devPartitions is how many partitions a topic of the broker below has.
const devPartitions = 3

// DevBroker starts a Kafka broker inside this process, for development and
// tests: it keeps its records in memory and starts at offset 0 each time. Topics
// are created. The address is that of the bootstrap server, on the loopback.
func DevBroker(topics ...string) (brokers string, close func(), err error) {
	cluster, err := kafka.NewMockCluster(1)
	if err != nil {
		return "", nil, fmt.Errorf("in-process broker: %w", err)
	}
	for _, t := range topics {
		if err := cluster.CreateTopic(t, devPartitions, 1); err != nil {
			cluster.Close()
			return "", nil, fmt.Errorf("in-process broker: topic %s: %w", t, err)
		}
	}
	return cluster.BootstrapServers(), cluster.Close, nil
}
