package lis

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	_ "github.com/mattn/go-sqlite3"
	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// testFeed is a broker of the test's own.
func testFeed(t *testing.T) Config {
	t.Helper()
	brokers, stop, err := DevBroker("lis.patient.v1", "lis.patient.v1.dlq")
	require.NoError(t, err)
	t.Cleanup(stop)
	return Config{Brokers: []string{brokers}, Topic: "lis.patient.v1", DeadLetterTopic: "lis.patient.v1.dlq", Group: "consumer-lis-patient", session: 10 * time.Second}
}

// run consumes until stop, which returns what Run returned.
func run(t *testing.T, c *Consumer) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = stop() })
	return stop
}

func publish(t *testing.T, cfg Config, values ...string) {
	t.Helper()
	p, err := NewPublisher(cfg)
	require.NoError(t, err)
	defer p.Close()
	var records []Record
	for _, v := range values {
		r := newRecord(typeHL7, []byte(v))
		r.Topic = cfg.Topic
		records = append(records, r)
	}
	n, err := p.Publish(t.Context(), records)
	require.NoError(t, err)
	require.Equal(t, len(values), n)
}

// outcomesIn counts the inbox by outcome.
func outcomesIn(t *testing.T, db *storage.DB) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, o := range []string{storage.LabApplied, storage.LabStale, storage.LabReview, storage.LabQuarantined, storage.LabSkipped} {
		rows, err := db.LabEvents(t.Context(), o, 10000)
		require.NoError(t, err)
		if len(rows) > 0 {
			out[o] = len(rows)
		}
	}
	return out
}

func eventually(t *testing.T, want map[string]int, db *storage.DB) {
	t.Helper()
	require.Eventually(t, func() bool { return fmt.Sprint(want) == fmt.Sprint(outcomesIn(t, db)) }, 60*time.Second, 100*time.Millisecond, "want %v", want)
}

// committed adds up the group's offsets.
func committed(t *testing.T, cfg Config) (sum int64) {
	t.Helper()
	k, err := kafka.NewConsumer(&kafka.ConfigMap{"bootstrap.servers": cfg.Brokers[0], "group.id": cfg.Group})
	require.NoError(t, err)
	defer k.Close()
	var ask []kafka.TopicPartition
	for p := range int32(devPartitions) {
		ask = append(ask, kafka.TopicPartition{Topic: &cfg.Topic, Partition: p})
	}
	got, err := k.Committed(ask, 5000)
	require.NoError(t, err)
	for _, p := range got {
		sum += max(int64(p.Offset), 0)
	}
	return sum
}

// consume waits for n records of a topic.
func consume(t *testing.T, cfg Config, topic string, n int) []Record {
	t.Helper()
	k, err := kafka.NewConsumer(&kafka.ConfigMap{"bootstrap.servers": cfg.Brokers[0], "group.id": "reader"})
	require.NoError(t, err)
	defer k.Close()
	var all []kafka.TopicPartition
	for p := range int32(devPartitions) {
		all = append(all, kafka.TopicPartition{Topic: &topic, Partition: p, Offset: kafka.OffsetBeginning})
	}
	require.NoError(t, k.Assign(all))
	var out []Record
	for end := time.Now().Add(20 * time.Second); len(out) < n && time.Now().Before(end); {
		if m, ok := k.Poll(100).(*kafka.Message); ok {
			out = append(out, recordOf(m))
		}
	}
	require.Len(t, out, n)
	return out
}

func TestConsumerAppliesEachMessageOnce(t *testing.T) {
	cfg, l := testFeed(t), newLab(t, storagetest.SQLite(t))
	log := captureLog(t)
	var messages []string
	for i := range 600 {
		messages = append(messages, adtMessage("A28", i, pid(fmt.Sprintf("SECRET%d", i), "GEHEIM^ANNA||19800229|F")))
	}
	broken := "MSH|^~\\&|LIS|LAB1|||2025||ADT^A08|x|P|2.5\rPID|1||1^^^LAB1||GEHEIM\xff"
	messages = append(messages, broken, messages[0], messages[1])
	publish(t, cfg, messages...)
	// Some were applied before a kill that lost their offsets.
	l.feed(messages[:50]...)

	c := NewConsumer(cfg, l.db)
	require.Error(t, c.Ready(t.Context()))
	stop := run(t, c)
	eventually(t, map[string]int{"applied": 600, "quarantined": 1}, l.db)
	require.NoError(t, c.Ready(t.Context()))
	require.Eventually(t, func() bool { return committed(t, cfg) == int64(len(messages)) }, 60*time.Second, 200*time.Millisecond,
		"offsets are committed")
	require.NoError(t, stop())

	dead, err := l.db.LabEvents(t.Context(), storage.LabQuarantined, 10)
	require.NoError(t, err)
	require.Equal(t, "charset", dead[0].Reason)
	wishes, err := l.db.ClaimOutbox(t.Context(), 10, storage.Now())
	require.NoError(t, err)
	require.Len(t, wishes, 1)
	require.Equal(t, "dead_letter", wishes[0].Kind)

	p, err := NewPublisher(cfg)
	require.NoError(t, err)
	defer p.Close()
	for range 2 { // the second time it is there already
		require.NoError(t, p.DeadLetter(t.Context(), l.db, dead[0].ID))
	}
	letter := consume(t, cfg, cfg.DeadLetterTopic, 1)[0]
	require.Equal(t, broken, string(letter.Value), "byte for byte")
	require.Equal(t, "charset", letter.header("dlq.reason"))
	require.Equal(t, cfg.Topic, letter.header("dlq.original.topic"))
	require.Equal(t, typeHL7, letter.header("content-type"))

	// A new member finds nothing to do, and a replay of the topic changes nothing.
	cfg.Group = "from-the-start"
	stop = run(t, NewConsumer(cfg, l.db))
	require.Eventually(t, func() bool { return committed(t, cfg) == int64(len(messages)) }, 60*time.Second, 200*time.Millisecond)
	require.NoError(t, stop())
	require.Equal(t, map[string]int{"applied": 600, "quarantined": 1}, outcomesIn(t, l.db))

	for _, secret := range []string{"SECRET", "GEHEIM", "19800229"} {
		require.NotContains(t, log.String(), secret, "the log holds nothing of a message")
	}
	require.Contains(t, log.String(), "lis sync: batch applied")
}

// A record that the database refuses, for whatever reason, does not stop the
// others.
func TestPoisonGoesToQuarantine(t *testing.T) {
	dsn := "sqlite:" + filepath.Join(t.TempDir(), "patauth.db")
	l := newLab(t, storagetest.Open(t, dsn))
	raw, err := sql.Open("sqlite3", strings.TrimPrefix(dsn, "sqlite:"))
	require.NoError(t, err)
	defer raw.Close()
	_, err = raw.Exec(`CREATE TRIGGER poison BEFORE INSERT ON lab_identity WHEN NEW.value = 'POISON' BEGIN SELECT RAISE(ABORT, 'poison'); END`)
	require.NoError(t, err)
	c := NewConsumer(Config{}, l.db)
	var records []Record
	for i, v := range []string{"1", "POISON", "2"} {
		r := hl7Record([]byte(adtMessage("A28", i, pid(v, anna))))
		r.Offset = int64(i)
		records = append(records, r)
	}
	for _, want := range []string{"applied quarantined:internal applied", "duplicate duplicate duplicate"} {
		outcomes, err := c.applyBatch(t.Context(), records)
		require.NoError(t, err)
		var got []string
		for _, o := range outcomes {
			got = append(got, strings.TrimSuffix(o.Outcome+":"+o.Reason, ":"))
		}
		require.Equal(t, want, strings.Join(got, " "))
	}
	// Its cause mended, it is applied as if nothing had been.
	_, err = raw.Exec("DROP TRIGGER poison")
	require.NoError(t, err)
	dead, err := l.db.LabEvents(t.Context(), storage.LabQuarantined, 10)
	require.NoError(t, err)
	o, err := Replay(t.Context(), l.db, dead[0].ID, Reading{})
	require.NoError(t, err)
	require.Equal(t, storage.LabApplied, o.Outcome)
	require.Equal(t, "MUSTER", l.record("POISON").Family)
	_, err = Replay(t.Context(), l.db, dead[0].ID, Reading{})
	require.ErrorIs(t, err, storage.ErrNotFound)
}

// TestConsumerWaitsForTheDatabase cuts the connections to PostgreSQL while the
// consumer runs.
func TestConsumerWaitsForTheDatabase(t *testing.T) {
	direct := storagetest.PostgresURL(t)
	u, err := url.Parse(direct)
	require.NoError(t, err)
	wire := newWire(t, u.Host)
	u.Host = wire.address
	cfg, db := testFeed(t), storagetest.Open(t, direct)
	l := newLab(t, db)
	through, err := storage.Open(t.Context(), storage.Config{DSN: u.String(), Keys: storage.NewKeyring()})
	require.NoError(t, err)
	defer through.Close()

	c := NewConsumer(cfg, through)
	stop := run(t, c)
	publish(t, cfg, adtMessage("A28", 0, pid("1", anna)))
	eventually(t, map[string]int{"applied": 1}, db)
	wire.cut()
	var messages []string
	for i := range 20 {
		messages = append(messages, adtMessage("A28", i+1, pid(fmt.Sprint(100+i), anna)))
	}
	publish(t, cfg, messages...)
	require.Eventually(t, func() bool { return c.awaySince.Load() != 0 }, 60*time.Second, 50*time.Millisecond)
	require.NoError(t, c.Ready(t.Context()), "a short absence is no reason to leave")
	require.Equal(t, map[string]int{"applied": 1}, outcomesIn(t, db))
	require.LessOrEqual(t, committed(t, cfg), int64(1), "no offset runs ahead of the database")
	wire.mend()
	eventually(t, map[string]int{"applied": 21}, db)
	require.Eventually(t, func() bool { return committed(t, cfg) == 21 }, 60*time.Second, 100*time.Millisecond)
	require.NoError(t, stop())
	require.Equal(t, storage.LabActive, l.record("119").Status)
}

// wire forwards connections until it is cut.
type wire struct {
	t       *testing.T
	address string
	target  string
	mu      sync.Mutex
	open    []net.Conn
	listen  net.Listener
}

func newWire(t *testing.T, target string) *wire {
	w := &wire{t: t, target: target, address: "127.0.0.1:0"}
	w.mend()
	t.Cleanup(w.cut)
	return w
}

func (w *wire) mend() {
	l, err := net.Listen("tcp", w.address)
	require.NoError(w.t, err)
	w.mu.Lock()
	w.listen, w.address = l, l.Addr().String()
	w.mu.Unlock()
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", w.target)
			if err != nil {
				in.Close()
				continue
			}
			w.mu.Lock()
			w.open = append(w.open, in, out)
			w.mu.Unlock()
			go func() { _, _ = io.Copy(in, out); in.Close() }()
			go func() { _, _ = io.Copy(out, in); out.Close() }()
		}
	}()
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listen.Close()
	for _, c := range w.open {
		c.Close()
	}
	w.open = nil
}

// captureLog collects the log of a test.
func captureLog(t *testing.T) *lockedBuffer {
	b := &lockedBuffer{}
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewJSONHandler(b, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	return b
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestPublishReadsFiles(t *testing.T) {
	cfg, dir := testFeed(t), t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	files := []string{
		"testdata/hl7v2/derived/seq-09-unmerge.hl7",
		"testdata/fhir/derived/patient-cases.ndjson",
		write("event.json", `{"specversion":"1.0","id":"1","source":"s","type":"org.lis.patient.updated.v1","data":{"identifiers":[{"namespace":"LAB1","value":"7"}]}}`),
		write("patient.json", `{"resourceType":"Patient","identifier":[{"system":"urn:oid:2.999.1","value":"8"}]}`),
	}
	report, err := Publish(t.Context(), cfg, files...)
	require.NoError(t, err)
	require.Equal(t, Report{Records: 20, Acknowledged: 20}, report)
	keys := map[string]int{}
	for _, r := range consume(t, cfg, cfg.Topic, 20) {
		keys[string(r.Key)]++
	}
	require.Equal(t, 1, keys["LAB1|7"])
	require.Equal(t, 1, keys["2.999.1|8"])
	merge, err := ReadFile("testdata/hl7v2/derived/mrg-01-simple.hl7")
	require.NoError(t, err)
	require.Equal(t, "2.999.1|100", string(merge[0].Key), "the key of a merge is the record that ends")

	verdicts, err := Check(Reading{}, files...)
	require.NoError(t, err)
	require.Len(t, verdicts, 20)
	require.Equal(t, files[0]+":3 apply merge", verdicts[2].String())
	require.Equal(t, files[1]+":6 quarantine choice-type-twice", verdicts[9].String())
	_, err = Publish(t.Context(), cfg, write("x.json", `{}`))
	require.Error(t, err)
	_, err = Publish(t.Context(), cfg, write("x.pdf", `{}`))
	require.Error(t, err)
}

// Readers lose nothing when the broker rebalances between two of them.
func TestTwoConsumersShareTheTopic(t *testing.T) {
	cfg := testFeed(t)
	db := storagetest.SQLite(t)
	newLab(t, db)
	stopFirst := run(t, NewConsumer(cfg, db))
	var messages []string
	for i := range 300 {
		messages = append(messages, adtMessage("A28", i, pid(fmt.Sprint(i), anna)))
	}
	publish(t, cfg, messages[:150]...)
	stopSecond := run(t, NewConsumer(cfg, db))
	publish(t, cfg, messages[150:]...)
	eventually(t, map[string]int{"applied": 300}, db)
	require.Eventually(t, func() bool { return committed(t, cfg) == 300 }, 60*time.Second, 100*time.Millisecond)
	require.NoError(t, stopFirst())
	require.NoError(t, stopSecond())
}
