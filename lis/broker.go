package lis

import (
	"fmt"
	"os"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"golang.org/x/sys/unix"
)

// devPartitions is how many partitions a topic of the broker below has.
const devPartitions = 3

// DevBroker starts a Kafka broker inside this process, for development and
// tests: it keeps its records in memory and starts at offset 0 each time. Topics
// are created. The address is that of the bootstrap server, on the loopback.
func DevBroker(topics ...string) (brokers string, close func(), err error) {
	var cluster *kafka.MockCluster
	hushed(func() { cluster, err = kafka.NewMockCluster(1) })
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

// hushed runs f without what it writes to standard error: the library warns
// there that the cluster's own client knows no cluster, and cannot be told not to.
func hushed(f func()) {
	nowhere, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		f()
		return
	}
	defer nowhere.Close()
	stderr, err := unix.Dup(unix.Stderr)
	if err != nil {
		f()
		return
	}
	defer unix.Close(stderr)
	if unix.Dup2(int(nowhere.Fd()), unix.Stderr) == nil {
		defer unix.Dup2(stderr, unix.Stderr)
	}
	f()
}
