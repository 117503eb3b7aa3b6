package lis

import (
	"strings"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

// Config says where the feed is.
type Config struct {
	Brokers         []string // HOST:PORT
	Topic           string   // usually lis.patient.v1
	DeadLetterTopic string   // usually lis.patient.v1.dlq
	Group           string   // usually consumer-lis-patient
	// Instance makes this member of the group a lasting one (KIP-345): a restart
	// within the session timeout moves no partition. Unique in the group; empty
	// for a member that comes and goes.
	Instance string
	Reading  Reading

	// session is after how long without a word a member counts as gone; 45 s where
	// it is zero. Only tests shorten it: the broker for development sometimes waits
	// for it when a second member joins.
	session time.Duration

	Mechanism string // PLAIN, SCRAM-SHA-256, SCRAM-SHA-512; empty without SASL
	Username  string
	Password  string
	TLS       bool
	CA        string // path of the certificates to trust
	Cert      string // path of a client certificate, with its Key
	Key       string
}

// client is what every connection has in common.
func (c Config) client() kafka.ConfigMap {
	m := kafka.ConfigMap{
		"bootstrap.servers":      strings.Join(c.Brokers, ","),
		"client.id":              "patauth",
		"log.connection.close":   false,
		"enable.metrics.push":    false,
		"go.logs.channel.enable": true,
	}
	encrypted := c.TLS || c.CA != "" || c.Cert != ""
	protocol := map[bool]string{false: "plaintext", true: "ssl"}[encrypted]
	if c.Mechanism != "" {
		protocol = map[bool]string{false: "sasl_plaintext", true: "sasl_ssl"}[encrypted]
		m["sasl.mechanisms"], m["sasl.username"], m["sasl.password"] = c.Mechanism, c.Username, c.Password
	}
	m["security.protocol"] = protocol
	if encrypted {
		m["ssl.endpoint.identification.algorithm"] = "https"
	}
	if c.CA != "" {
		m["ssl.ca.location"] = c.CA
	}
	if c.Cert != "" {
		m["ssl.certificate.location"], m["ssl.key.location"] = c.Cert, c.Key
	}
	return m
}

// consumer reads from the start what nobody has read, and commits in the
// background only offsets that were stored, which happens after the database
// has the records.
func (c Config) consumer() *kafka.ConfigMap {
	m := c.client()
	session := c.session
	if session == 0 {
		session = 45 * time.Second
	}
	for k, v := range map[string]kafka.ConfigValue{
		"group.id":                      c.Group,
		"enable.auto.commit":            true,
		"auto.commit.interval.ms":       1000,
		"enable.auto.offset.store":      false,
		"auto.offset.reset":             "earliest",
		"partition.assignment.strategy": "cooperative-sticky",
		"session.timeout.ms":            int(session.Milliseconds()),
		"heartbeat.interval.ms":         3000,
		"max.poll.interval.ms":          300000,
		"isolation.level":               "read_committed",
		"allow.auto.create.topics":      false,
		"enable.partition.eof":          false,
		"check.crcs":                    true,
		"queued.min.messages":           2000,
		"queued.max.messages.kbytes":    16384,
		"fetch.wait.max.ms":             100,
		"fetch.message.max.bytes":       2097152,
		"statistics.interval.ms":        5000,
	} {
		m[k] = v
	}
	if c.Instance != "" {
		m["group.instance.id"] = c.Instance
	}
	return &m
}

// producer loses and doubles nothing that it acknowledged.
func (c Config) producer() *kafka.ConfigMap {
	m := c.client()
	m["acks"] = "all"
	m["enable.idempotence"] = true
	m["delivery.timeout.ms"] = 10000
	m["linger.ms"] = 5
	m["message.max.bytes"] = 2 * maxMessage
	return &m
}
