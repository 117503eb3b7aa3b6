package login

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/go-crypt/crypt"
	"github.com/go-crypt/crypt/algorithm/argon2"
	"github.com/go-crypt/crypt/algorithm/bcrypt"
	"github.com/go-crypt/crypt/algorithm/pbkdf2"
	"github.com/go-crypt/crypt/algorithm/scrypt"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// HashConfig is the cost of one password hash, argon2id (RFC 9106). The memory
// in use at once is at most MemoryKiB for each of Parallel, and as much again
// until it is collected: no library for it takes a buffer, so the process needs a
// soft memory limit (GOMEMLIMIT, or its container's).
type HashConfig struct {
	MemoryKiB  uint32 `yaml:"memory_kib" env:"MEMORY_KIB"`   // default 65536
	Iterations int    `yaml:"iterations" env:"ITERATIONS"`   // default 2
	Lanes      int    `yaml:"parallelism" env:"PARALLELISM"` // default 1
	// Parallel is how many hashes run at once. 0 is one less than the processors,
	// so that one is left for everything else, and no more than a quarter of the
	// container's memory holds; at least one. What is set is held to half of the memory.
	Parallel int `yaml:"concurrent" env:"CONCURRENT"`
}

func defaultHash() HashConfig { return HashConfig{MemoryKiB: 64 << 10, Iterations: 2, Lanes: 1} }

// validate refuses a cost that is out of reason. It is no floor for strength:
// tests hash cheaply.
func (c HashConfig) validate() error {
	if c.MemoryKiB < 8*uint32(max(c.Lanes, 1)) || c.MemoryKiB > 1<<20 || c.Iterations < 1 || c.Iterations > 20 ||
		c.Lanes < 1 || c.Lanes > 16 || c.Parallel < 0 || c.Parallel > 64 {
		return fmt.Errorf("login.hash: memory_kib, iterations, parallelism or concurrent is out of range")
	}
	return nil
}

// Weak reports a cost below the least that OWASP ASVS 5.0, Appendix C, names for
// argon2id: 46 MiB with one pass, 19 MiB with two, or 12 MiB with three.
func (c HashConfig) Weak() bool {
	least := map[int]uint32{1: 46 << 10, 2: 19 << 10, 3: 12 << 10}
	return c.MemoryKiB < least[min(c.Iterations, 3)]
}

// slots is how many hashes run at once on so many processors, in a process whose
// soft memory limit is limit bytes.
func (c HashConfig) slots(processors int, limit int64) int {
	want, share := processors-1, int64(3) // the limit is 85 % of the container's
	if c.Parallel > 0 {
		want, share = c.Parallel, 5
	}
	fit := limit / 10 * share / (int64(c.MemoryKiB) << 10)
	return int(max(1, min(int64(want), fit)))
}

const (
	// hashQueue is how many wait for their turn in a line, for each that runs.
	hashQueue = 16
	// hashWait is how long one waits before the answer is "try later".
	hashWait = 2 * time.Second
	// peppered marks a PHC string whose input was keyed with a secret that is
	// not in the database. Strings without it were imported.
	peppered = "pep1"
)

// A Hasher hashes passwords, a few at a time: one hash costs tens of megabytes,
// so a burst of sign-ins must wait in line and not exhaust the machine.
type Hasher struct {
	db     *storage.DB
	argon  *argon2.Hasher
	want   string // how a PHC string with the present cost begins
	decode *crypt.Decoder
	dummy  string
	slots  chan struct{}
	// line and member are who waits for a slot: strangers, and who is no stranger.
	line, member chan struct{}
}

// members is h with the line that strangers do not stand in.
func (h *Hasher) members() *Hasher {
	m := *h
	m.line = h.member
	return &m
}

// NewHasher checks c and makes its Hasher.
func NewHasher(db *storage.DB, c HashConfig) (*Hasher, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	c.Parallel = c.slots(runtime.GOMAXPROCS(0), debug.SetMemoryLimit(-1))
	a, err := argon2.New(argon2.WithVariantID(), argon2.WithM(c.MemoryKiB), argon2.WithT(c.Iterations), argon2.WithP(c.Lanes))
	if err != nil {
		return nil, fmt.Errorf("password hash: %w", err)
	}
	h := &Hasher{
		db: db, argon: a, decode: crypt.NewDecoder(),
		want:  fmt.Sprintf("%s$argon2id$v=19$m=%d,t=%d,p=%d$", peppered, c.MemoryKiB, c.Iterations, c.Lanes),
		slots: make(chan struct{}, c.Parallel),
		line:  make(chan struct{}, c.Parallel*(hashQueue+1)), member: make(chan struct{}, c.Parallel*(hashQueue+1)),
	}
	for _, register := range []func() error{
		func() error { return argon2.RegisterDecoderArgon2id(h.decode) },
		func() error { return bcrypt.RegisterDecoder(h.decode) },
		func() error { return pbkdf2.RegisterDecoder(h.decode) },
		func() error { return scrypt.RegisterDecoder(h.decode) },
	} {
		if err := register(); err != nil {
			return nil, fmt.Errorf("password hash: %w", err)
		}
	}
	if h.dummy, err = h.hash("nobody's password"); err != nil {
		return nil, err
	}
	return h, nil
}

// Hash is the PHC string of a password. web.ErrUnavailable when too many wait.
func (h *Hasher) Hash(ctx context.Context, password string) (phc string, err error) {
	if e := h.turn(ctx, func() { phc, err = h.hash(password) }); e != nil {
		return "", e
	}
	return phc, err
}

// Verify reports whether password is the one that phc was made of. An empty phc,
// of somebody who is unknown, matches nothing and takes as long. Where phc is
// made in another way than Hash does now, anew is the hash of password as Hash
// would make it: so a hash that was cheaper takes no less time than one of now.
// web.ErrUnavailable when too many wait.
func (h *Hasher) Verify(ctx context.Context, phc, password string) (ok bool, anew string, err error) {
	known := phc != ""
	if !known {
		phc = h.dummy
	}
	e := h.turn(ctx, func() {
		ok, err = h.verify(phc, password)
		if err == nil && !strings.HasPrefix(phc, h.want) {
			anew, err = h.hash(password)
		}
	})
	if e != nil || err != nil {
		return false, "", errors.Join(e, err)
	}
	return ok && known, anew, nil
}

// turn runs f when a slot is free.
func (h *Hasher) turn(ctx context.Context, f func()) error {
	select {
	case h.line <- struct{}{}:
		defer func() { <-h.line }()
	default:
		hashRejected.Inc()
		return fmt.Errorf("password hash: the line is full: %w", web.ErrUnavailable)
	}
	late := time.NewTimer(hashWait)
	defer late.Stop()
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-late.C:
		hashRejected.Inc()
		return fmt.Errorf("password hash: waited too long: %w", web.ErrUnavailable)
	case <-ctx.Done():
		return fmt.Errorf("password hash: %w: %w", web.ErrUnavailable, context.Cause(ctx))
	}
	start := time.Now()
	f()
	hashSeconds.Observe(time.Since(start).Seconds())
	return nil
}

func (h *Hasher) hash(password string) (string, error) {
	d, err := h.argon.Hash(h.pepper(password))
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return peppered + d.Encode(), nil
}

func (h *Hasher) verify(phc, password string) (bool, error) {
	input := normalPassword(password)
	if plain, ok := strings.CutPrefix(phc, peppered); ok {
		phc, input = plain, h.pepper(password)
	}
	d, err := h.decode.Decode(phc)
	if err != nil {
		return false, fmt.Errorf("read password hash: %w", err)
	}
	ok, err := d.MatchAdvanced(input)
	if err != nil {
		return false, fmt.Errorf("verify password: %w", err)
	}
	return ok, nil
}

// pepper keys the password with a secret that lies outside the database: a
// stolen table alone can not be guessed against.
func (h *Hasher) pepper(password string) string {
	return base64.RawStdEncoding.EncodeToString(h.db.MAC("password", []byte(normalPassword(password))))
}
