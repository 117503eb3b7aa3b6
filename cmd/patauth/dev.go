package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/spf13/cobra"

	"github.com/pat-authenticate/patauth/lis"
	"github.com/pat-authenticate/patauth/provider"
	"github.com/pat-authenticate/patauth/provider/admin"
	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/tasks"
)

// devOptions are the flags of `patauth dev`.
type devOptions struct {
	listen, internal, portal string
	data                     string
	issuer, cert, key        string
	json                     bool
}

// dev runs everything in one process with no other software: every workload on
// SQLite, a Redis and a Kafka inside, a mailbox, and a portal to sign in to.
func (c *command) dev() *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use: "dev", Short: "Run everything in one process, to try and to develop", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := c.configured()
			if err != nil {
				return err
			}
			if config.Mode == production && c.modeIsSet() {
				return errors.New("dev is refused in production mode")
			}
			config.Mode = development
			return runDev(cmd.Context(), config, o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:8080", "`address` of the public listener")
	f.StringVar(&o.internal, "internal-listen", "127.0.0.1:9090", "`address` of health, metrics and profiles")
	f.StringVar(&o.portal, "portal-listen", "127.0.0.1:8090", "`address` of the demo portal")
	f.StringVar(&o.data, "data", ".patauth", "`folder` that keeps everything")
	f.BoolVar(&o.json, "json", false, "print one line of JSON when ready")
	f.StringVar(&o.issuer, "issuer", "", "`URL` of the issuer (default: http://localhost and the port of --listen)")
	f.StringVar(&o.cert, "tls-cert", "", "PEM `file` with the issuer's certificate")
	f.StringVar(&o.key, "tls-key", "", "PEM `file` with its key")
	return cmd
}

// runDev runs until ctx ends.
func runDev(ctx context.Context, config Config, o devOptions, out, log io.Writer) (err error) {
	dir, err := filepath.Abs(o.data)
	if err != nil {
		return err
	}
	leave, err := occupy(dir)
	if err != nil {
		return err
	}
	defer leave()
	logFile, closeLog, err := devLog(dir, o, config, log)
	if err != nil {
		return err
	}
	defer closeLog()

	cert, trusting, err := certificate(o)
	if err != nil {
		return err
	}
	public, err := listen("--listen", o.listen)
	if err != nil {
		return err
	}
	defer public.Close()
	inside, err := listen("--internal-listen", o.internal)
	if err != nil {
		return err
	}
	defer inside.Close()
	portalAt, err := listen("--portal-listen", o.portal)
	if err != nil {
		return err
	}
	defer portalAt.Close()
	if config.Issuer, err = devIssuer(o, public.Addr()); err != nil {
		return err
	}

	redis, err := startRedis(ctx)
	if err != nil {
		return err
	}
	defer redis.Close()
	config.Redis.URL = Secret("redis://" + redis.Addr())
	brokers, stopBroker, err := lis.DevBroker(config.LIS.Topic, config.LIS.DeadLetterTopic)
	if err != nil {
		return err
	}
	defer stopBroker()
	config.Kafka = KafkaConfig{Brokers: strings.Split(brokers, ",")}
	config.Outbound.Networks = append(config.Outbound.Networks, thisMachine...)
	if config.Storage.Keyring, err = ownKeyring(dir); err != nil {
		return err
	}
	config.Storage.DSN = Secret("sqlite:" + filepath.Join(dir, "patauth.db"))
	if err := config.Validate("app"); err != nil {
		return fmt.Errorf("configuration:\n%w", err)
	}
	ctx = storage.WithActor(ctx, storage.System)
	db, err := openDB(ctx, config)
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.Migrate(ctx); err != nil {
		return err
	}

	i, err := readInstallation(dir)
	if err != nil {
		return err
	}
	i.Issuer, i.DSN, i.Keyring = config.Issuer, string(config.Storage.DSN), config.Storage.Keyring
	i.Redis, i.Kafka = string(config.Redis.URL), config.Kafka.Brokers
	if i.AdminToken == "" {
		i.AdminToken = storage.NewHandle("pa_ad_")
	}
	if err := i.seed(ctx, db, "http://"+reachable(portalAt.Addr(), "127.0.0.1")); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	if err := i.write(dir); err != nil {
		return err
	}

	mails, err := openMailbox(filepath.Join(dir, "mail.json"))
	if err != nil {
		return err
	}
	signing, err := keys.Open(ctx, db, config.Keys)
	if err != nil {
		return err
	}
	site, err := openSite(config, db)
	if err != nil {
		return err
	}
	front := config.provider(db, signing, site)
	front.Development = mails
	pages, err := provider.New(front)
	if err != nil {
		return err
	}
	queue, err := tasks.ParseRedis(string(config.Redis.URL))
	if err != nil {
		return err
	}
	deadLetter, closed, err := deadLetters(config, db)
	if err != nil {
		return err
	}
	defer closed()
	work := tasks.NewWorker(tasks.Config{
		DB: db, Redis: queue, Issuer: config.Issuer, Pages: site.Pages, DeadLetter: deadLetter, Checks: checks(db), AuditKept: config.Storage.AuditKept, Keys: config.Keys,
		Logout: logouts(config, db, signing),
		Send: func(_ context.Context, m tasks.Message) error {
			return mails.put(received{To: m.To, Subject: m.Subject, Text: m.Text, HTML: m.HTML, At: time.Now()})
		},
	})
	portal := newPortal(i.PortalURL, config.Issuer, i.Portal.ID, i.Portal.Secret, trusting)
	operators, err := admin.New(db, site, i.AdminToken)
	if err != nil {
		return err
	}
	health := &provider.Health{DB: db, Fresh: signing.Fresh, Admin: operators, Watch: work}

	return run(ctx, health, 0,
		serve(public, pages, cert), serveInternal(inside, health.Internal()), serve(portalAt, portal.handler(), nil),
		signing.Run, tasks.NewRelay(db, queue).Run, work.Run, lis.NewConsumer(config.feed(), db).Run, everyMinute(db, queue),
		func(ctx context.Context) error {
			ready(out, o, i, "http://"+reachable(inside.Addr(), "127.0.0.1"), dir, logFile)
			<-ctx.Done()
			return nil
		},
	)
}

// modeIsSet reports whether somebody chose the mode, rather than the default.
func (c *command) modeIsSet() bool {
	unset := defaults()
	unset.Mode = ""
	return overlay(&unset, c.config, c.environ) == nil && unset.Mode != ""
}

// devLog sends the log to stderr, or, where a person looks at that, into a file
// of the folder, whose path it returns.
func devLog(dir string, o devOptions, c Config, stderr io.Writer) (path string, closeLog func() error, err error) {
	std, ok := stderr.(*os.File)
	if !ok || o.json || !isTerminal(std) {
		logTo(stderr, c.Log.Level)
		return "", func() error { return nil }, nil
	}
	path = filepath.Join(dir, "dev.log")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return "", nil, err
	}
	logTo(f, c.Log.Level)
	return path, f.Close, nil
}

func isTerminal(f *os.File) bool {
	i, err := f.Stat()
	return err == nil && i.Mode()&os.ModeCharDevice != 0
}

// certificate reads that of --tls-cert, and makes the client that trusts it.
func certificate(o devOptions) (*tls.Certificate, *http.Client, error) {
	client := &http.Client{Timeout: 10 * time.Second}
	if o.cert == "" && o.key == "" {
		return nil, client, nil
	}
	cert, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return nil, nil, fmt.Errorf("--tls-cert and --tls-key: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, der := range cert.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, nil, fmt.Errorf("--tls-cert: %w", err)
		}
		pool.AddCert(c)
	}
	client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	return &cert, client, nil
}

// devIssuer is --issuer, or the address of the public listener under the name
// localhost: browsers allow passkeys there, and on no address of numbers.
func devIssuer(o devOptions, at net.Addr) (string, error) {
	scheme := "http://"
	if o.cert != "" {
		scheme = "https://"
	}
	switch {
	case o.issuer == "":
		return scheme + reachable(at, "localhost"), nil
	case !isOrigin(o.issuer):
		return "", errors.New("--issuer: must be https://HOST without path, query or final slash")
	case o.cert != "" && o.issuer[:len(scheme)] != scheme:
		return "", errors.New("--issuer: must be https with --tls-cert")
	}
	return o.issuer, nil
}

// reachable is host with the port of at, or at itself where it is not of this
// machine alone.
func reachable(at net.Addr, host string) string {
	a := at.(*net.TCPAddr)
	if a.IP.IsLoopback() || a.IP.IsUnspecified() {
		return net.JoinHostPort(host, fmt.Sprint(a.Port))
	}
	return a.String()
}

// startRedis starts a Redis in this process, whose keys expire as time goes on.
func startRedis(ctx context.Context) (*miniredis.Miniredis, error) {
	redis := miniredis.NewMiniRedis()
	if err := redis.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("start redis: %w", err)
	}
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				redis.FastForward(time.Second)
			}
		}
	}()
	return redis, nil
}

// everyMinute is what a CronJob does elsewhere.
func everyMinute(db *storage.DB, redis tasks.Redis) job {
	return func(ctx context.Context) error {
		for {
			if _, err := tasks.EnqueueDue(ctx, db, redis, storage.Now()); err != nil && ctx.Err() == nil {
				slog.ErrorContext(ctx, "cron", "event", "cron.failed", "error", err.Error())
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute))):
			}
		}
	}
}

// readyLine is what --json prints.
type readyLine struct {
	Issuer             string       `json:"issuer"`
	Internal           string       `json:"internal"`
	Portal             string       `json:"portal"`
	Mailbox            string       `json:"mailbox"`
	Client             seededClient `json:"client"`
	ConfidentialClient seededClient `json:"confidential_client"`
	ActivationCodes    []activation `json:"activation_codes"`
}

// ready says where everything is.
func ready(w io.Writer, o devOptions, i installation, internal, dir, log string) {
	mailbox := i.Issuer + "/dev/mail"
	if o.json {
		json.NewEncoder(w).Encode(readyLine{i.Issuer, internal, i.PortalURL, mailbox, i.Client, i.ConfidentialClient, i.ActivationCodes})
		return
	}
	fmt.Fprintf(w, `patauth is running.

  Demo portal       %s    start here
  Mailbox           %s
  Sign-in pages     %s    (the issuer)
  Health, metrics   %s

Try this first:

  1. Open the portal, press "Sign in with patauth" and create an account.
  2. Open the mailbox, follow the link in the mail, then sign in.
  3. Set up a second factor: a passkey, or a code of an authenticator app.
  4. At the portal, link a lab record. Your laboratory would send you one of these:

       activation code   birth date
`, i.PortalURL, mailbox, i.Issuer, internal)
	for _, a := range i.ActivationCodes {
		fmt.Fprintf(w, "       %s    %s    (%s)\n", a.Code, a.BirthDate, a.Name)
	}
	fmt.Fprintf(w, "\nEverything is kept in %s; remove it to start anew.\n", dir)
	if log != "" {
		fmt.Fprintf(w, "The log is in %s.\n", log)
	}
	fmt.Fprintln(w, "Ctrl-C stops.")
}
