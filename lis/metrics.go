package lis

import (
	"encoding/json"
	"log/slog"
	"strconv"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/pat-authenticate/patauth/storage"
)

var (
	eventsTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "patauth_lis_events_total", Help: "Messages of the laboratory feed, by what became of them.",
	}, []string{"outcome"})
	batchSeconds = promauto.NewHistogram(prometheus.HistogramOpts{
		Name: "patauth_lis_batch_seconds", Help: "Time to apply one batch of messages.",
		Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	})
	eventAge = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "patauth_lis_event_age_seconds", Help: "Age of the oldest message of the last batch when it was applied.",
	})
	retriesTotal = promauto.NewCounter(prometheus.CounterOpts{
		Name: "patauth_lis_retries_total", Help: "Batches tried again because the database was away.",
	})
	kafkaLag = promauto.NewGaugeVec(prometheus.GaugeOpts{
		Name: "patauth_kafka_lag", Help: "Messages that are not yet committed, by partition.",
	}, []string{"partition"})
)

// What is counted begins with 0, so that the first one is a rise.
func init() {
	for _, outcome := range []string{
		storage.LabApplied, storage.LabDuplicate, storage.LabStale, storage.LabReview, storage.LabQuarantined, storage.LabSkipped,
	} {
		eventsTotal.WithLabelValues(outcome)
	}
}

// statistics are the parts of librdkafka's figures that are watched
// (STATISTICS.md).
type statistics struct {
	Brokers map[string]struct {
		State string `json:"state"`
	} `json:"brokers"`
	Topics map[string]struct {
		Partitions map[string]struct {
			Partition int32 `json:"partition"`
			Lag       int64 `json:"consumer_lag"`
		} `json:"partitions"`
	} `json:"topics"`
}

// watch shows the figures, and reports whether any broker is reached.
func watch(raw, topic string) (up bool) {
	var s statistics
	if json.Unmarshal([]byte(raw), &s) != nil {
		return true
	}
	kafkaLag.Reset()
	for _, p := range s.Topics[topic].Partitions {
		if p.Partition >= 0 && p.Lag >= 0 {
			kafkaLag.WithLabelValues(strconv.Itoa(int(p.Partition))).Set(float64(p.Lag))
		}
	}
	for _, b := range s.Brokers {
		up = up || b.State == "UP"
	}
	return up
}

// drain writes the library's own log lines into ours until it is closed.
func drain(logs chan kafka.LogEvent) {
	for l := range logs {
		level := slog.LevelDebug
		if l.Level <= 4 { // syslog's warning and worse
			level = slog.LevelWarn
		}
		slog.Log(noContext, level, "lis kafka client", "facility", l.Tag, "message", l.Message)
	}
}
