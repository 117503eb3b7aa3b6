package provider_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/pquerna/otp/totp"
	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider"
	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/provider/login"
	"github.com/pat-authenticate/patauth/provider/oauth"
	"github.com/pat-authenticate/patauth/provider/outbound"
	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
	"github.com/pat-authenticate/patauth/tasks"
	"github.com/pat-authenticate/patauth/templates"
)

// TestFlows reads each file of testdata/flows as a transcript of browsers and
// clients at work, and plays it against the whole provider over SQLite. Mails
// go through the outbox, a Redis and a worker, as they do elsewhere.
//
//	# a comment
//	browser NAME            the cookies of another browser from here on
//	GET PATH, POST PATH, …  a request; the lines below belong to it:
//	  form FIELD=VALUE        a field of its body
//	  header NAME: VALUE      a header
//	  basic ID SECRET         who the client is
//	  text TYPE BODY          a body of another type
//	submit ACTION           POST of the form with that action on the last page,
//	                        with the hidden fields it has
//	follow                  GET of where the last answer led
//	status N                what the answer must be
//	location ~ REGEX, body ~ REGEX, body !~ REGEX, has HEADER ~ REGEX
//	capture NAME ~ REGEX    a name for the first group, in the location or body
//	mail ADDRESS            waits for a mail; it is the body from here on
//	claims TOKEN            the claims of an ID token, verified; they are the body
//	jwt TYPE TOKEN          the claims of a token of another type, likewise
//	told                    waits until the service is told of a sign-out; the
//	                        logout token's claims, verified, are the body
//	totp NAME SEED          the present code of an authenticator app
//	disable PATIENT         what an operator does
//	patient ADDRESS         an account with a verified address and {password}
//	metadata CLIENT JSON    what a client registered besides
//
// {NAME} is what was captured or is known from the start: issuer, public,
// service, secret, callback, challenge, verifier, code, record, bday, password,
// pkce (the challenge as it stands in a query), cookie (the session's name),
// registration (the initial access token).
func TestFlows(t *testing.T) {
	for _, file := range transcripts(t) {
		t.Run(flowName(file), func(t *testing.T) {
			t.Parallel()
			playFile(t, file, newHouse(t, storagetest.SQLite(t)))
		})
	}
}

func transcripts(t *testing.T) []string {
	files, err := filepath.Glob("testdata/flows/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	return files
}

func flowName(file string) string { return strings.TrimSuffix(filepath.Base(file), ".txt") }

// playFile plays a transcript in a house.
func playFile(t *testing.T, file string, h *house) {
	text, err := os.Open(file)
	require.NoError(t, err)
	defer text.Close()
	p := newPlay(t, file, h)
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		p.line++
		if line := strings.TrimSpace(lines.Text()); line != "" && !strings.HasPrefix(line, "#") {
			p.step(line)
		}
	}
	require.NoError(t, lines.Err())
	p.send()
}

// play is one transcript being played.
type play struct {
	t    *testing.T
	file string
	line int

	house    *house
	jars     map[string]http.CookieJar
	browser  string
	known    map[string]string
	waiting  *http.Request
	form     url.Values
	status   int
	header   http.Header
	location string
	body     string
}

func newPlay(t *testing.T, file string, h *house) *play {
	verifier := strings.Repeat("v", 43)
	sum := sha256.Sum256([]byte(verifier))
	return &play{
		t: t, file: file, house: h, jars: map[string]http.CookieJar{}, browser: "first",
		known: map[string]string{
			"issuer": h.site.Issuer, "public": h.public, "service": h.service, "secret": h.secret, "callback": callback,
			"verifier": verifier, "challenge": base64.RawURLEncoding.EncodeToString(sum[:]),
			"cookie": web.Cookie(h.site.Issuer, web.SessionCookie, "", 0).Name,
			"pkce":   "code_challenge=" + base64.RawURLEncoding.EncodeToString(sum[:]) + "&code_challenge_method=S256",
			"code":   h.code, "record": "R-1", "bday": "1975-12-10", "password": "blue tulip kettle moon",
			"registration": registration,
		},
	}
}

func (p *play) fail(format string, args ...any) {
	p.t.Helper()
	p.t.Fatalf("%s:%d: %s\n%d %s\n%s", p.file, p.line, fmt.Sprintf(format, args...), p.status, p.location, p.body)
}

var name = regexp.MustCompile(`\{[a-z][a-z0-9_]*\}`)

// fill puts what is known in place of {NAME}.
func (p *play) fill(s string, quote func(string) string) string {
	return name.ReplaceAllStringFunc(s, func(n string) string {
		v, ok := p.known[n[1:len(n)-1]]
		if !ok {
			p.fail("%s is not known", n)
		}
		return quote(v)
	})
}

func plain(s string) string { return s }

func (p *play) step(line string) {
	verb, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	switch verb {
	case "form", "header", "basic", "text":
		if p.waiting == nil {
			p.fail("there is no request to add to")
		}
		p.add(verb, p.fill(rest, plain))
		return
	}
	p.send()
	switch verb {
	case "browser":
		p.browser = rest
	case "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS":
		p.ask(verb, p.fill(rest, plain))
	case "submit":
		p.submit(p.fill(rest, plain))
	case "follow":
		if p.location == "" {
			p.fail("the answer led nowhere")
		}
		p.ask("GET", p.location)
	case "status":
		if rest != strconv.Itoa(p.status) {
			p.fail("the status must be %s", rest)
		}
	case "location":
		p.match("location", p.location, rest)
	case "body":
		p.match("body", p.body, rest)
	case "has":
		header, pattern, _ := strings.Cut(rest, " ")
		p.match(header, strings.Join(p.header.Values(header), "\n"), pattern)
	case "capture":
		as, pattern, _ := strings.Cut(rest, " ")
		p.capture(as, pattern)
	case "mail":
		p.body, p.location = p.house.mail(p.t, p.fill(rest, plain)), ""
	case "claims":
		p.claims("JWT", p.fill(rest, plain))
	case "jwt":
		kind, token, _ := strings.Cut(rest, " ")
		p.claims(kind, p.fill(token, plain))
	case "told":
		p.told()
	case "totp":
		as, seed, _ := strings.Cut(rest, " ")
		code, err := totp.GenerateCode(strings.ReplaceAll(p.fill(seed, plain), " ", ""), time.Now())
		require.NoError(p.t, err)
		p.known[as] = code
	case "disable":
		patient, err := p.house.db.PatientByEmail(context.Background(), p.fill(rest, plain))
		require.NoError(p.t, err)
		require.NoError(p.t, p.house.db.SetPatientDisabled(context.Background(), patient.ID, true))
	case "patient":
		p.house.patient(p.t, p.fill(rest, plain), p.known["password"])
	case "metadata":
		id, text, _ := strings.Cut(rest, " ")
		c, err := p.house.db.Client(context.Background(), p.fill(id, plain))
		require.NoError(p.t, err)
		c.Metadata = storage.ClientMetadata{}
		require.NoError(p.t, json.Unmarshal([]byte(p.fill(text, plain)), &c.Metadata))
		require.NoError(p.t, p.house.db.UpdateClient(context.Background(), &c))
	default:
		p.fail("%s is no step", verb)
	}
}

func (p *play) ask(method, path string) {
	r, err := http.NewRequest(method, p.absolute(path), nil)
	require.NoError(p.t, err)
	p.waiting, p.form = r, url.Values{}
}

func (p *play) absolute(path string) string {
	if strings.HasPrefix(path, "/") {
		return p.house.site.Issuer + path
	}
	if !strings.HasPrefix(path, p.house.site.Issuer) {
		p.fail("%s is not of the issuer", path)
	}
	return path
}

func (p *play) add(verb, rest string) {
	switch verb {
	case "form":
		field, value, _ := strings.Cut(rest, "=")
		p.form.Add(field, value)
	case "header":
		header, value, _ := strings.Cut(rest, ":")
		p.waiting.Header.Add(header, strings.TrimSpace(value))
	case "basic":
		id, secret, _ := strings.Cut(rest, " ")
		p.waiting.SetBasicAuth(id, secret)
	case "text":
		kind, body, _ := strings.Cut(rest, " ")
		p.waiting.Header.Set("Content-Type", kind)
		p.waiting.Body = io.NopCloser(strings.NewReader(body))
	}
}

// send makes the request that waits, if any.
func (p *play) send() {
	r := p.waiting
	if r == nil {
		return
	}
	p.waiting = nil
	if r.Method == "POST" && r.Header.Get("Content-Type") == "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		body := p.form.Encode()
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	}
	if p.jars[p.browser] == nil {
		jar, err := cookiejar.New(nil)
		require.NoError(p.t, err)
		p.jars[p.browser] = jar
	}
	client := &http.Client{Transport: p.house.transport, Jar: p.jars[p.browser], CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(r)
	require.NoError(p.t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(p.t, err)
	p.status, p.header, p.location, p.body = answer.StatusCode, answer.Header, answer.Header.Get("Location"), string(body)
	if strings.HasPrefix(p.header.Get("Content-Type"), "text/html") {
		require.NotContains(p.t, p.body, "<no value>")
	}
}

var (
	forms  = regexp.MustCompile(`(?s)<form [^>]*action="([^"]*)"[^>]*>(.*?)</form>`)
	hidden = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
)

func (p *play) submit(action string) {
	for _, form := range forms.FindAllStringSubmatch(p.body, -1) {
		if html.UnescapeString(form[1]) != action {
			continue
		}
		p.ask("POST", action)
		for _, field := range hidden.FindAllStringSubmatch(form[2], -1) {
			p.form.Add(html.UnescapeString(field[1]), html.UnescapeString(field[2]))
		}
		return
	}
	p.fail("there is no form with action %s", action)
}

func (p *play) match(what, have, rest string) {
	how, pattern, _ := strings.Cut(rest, " ")
	re, err := regexp.Compile("(?m)" + p.fill(pattern, regexp.QuoteMeta))
	if err != nil || (how != "~" && how != "!~") {
		p.fail("%s: not ~ REGEX: %v", what, err)
	}
	if found := re.MatchString(html.UnescapeString(have)); found != (how == "~") {
		p.fail("%s %s", what, rest)
	}
}

func (p *play) capture(as, rest string) {
	pattern, ok := strings.CutPrefix(rest, "~ ")
	re, err := regexp.Compile(p.fill(pattern, regexp.QuoteMeta))
	if err != nil || !ok {
		p.fail("not capture NAME ~ REGEX: %v", err)
	}
	for _, have := range []string{p.location, html.UnescapeString(p.body)} {
		if m := re.FindStringSubmatch(have); len(m) > 1 {
			p.known[as] = m[1]
			return
		}
	}
	p.fail("%s is not there", pattern)
}

func (p *play) told() {
	select {
	case token := <-p.house.told:
		p.claims("logout+jwt", token)
	case <-time.After(10 * time.Second):
		p.fail("the service was not told")
	}
}

func (p *play) claims(kind, token string) {
	var claims map[string]any
	if err := p.house.keys.Verify(token, kind, &claims); err != nil {
		p.fail("%s: %v", kind, err)
	}
	b, err := json.Marshal(claims)
	require.NoError(p.t, err)
	p.body, p.location = string(b), ""
}

// house is the provider with everything behind it.
type house struct {
	db                      *storage.DB
	keys                    *keys.Keys
	site                    *web.Site
	public, service, secret string
	code                    string
	quick                   login.Config
	transport               http.RoundTripper

	told chan string // logout tokens that the service got

	mu      sync.Mutex
	mails   []tasks.Message
	mailbox func() []tasks.Message // what came since it was last asked; nil where Send collects
}

const (
	callback     = "http://127.0.0.1:9999/callback"
	registration = "an initial access token for tests"
)

func newHouse(t *testing.T, db *storage.DB) *house {
	ctx, stop := context.WithCancel(context.Background())
	h := &house{db: db, told: make(chan string, 10)}
	pages, err := templates.New("")
	require.NoError(t, err)
	h.keys, err = keys.Open(ctx, h.db, keys.Config{RSABits: 2048})
	require.NoError(t, err)
	var handler http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	h.site = &web.Site{Issuer: strings.Replace(server.URL, "127.0.0.1", "localhost", 1), Pages: pages, DB: h.db}
	h.quick = login.Defaults()
	h.quick.Hash.MemoryKiB, h.quick.Hash.Iterations = 8, 1
	handler, err = provider.New(provider.Config{
		DB: h.db, Keys: h.keys, Site: h.site, Session: session.Defaults(), Login: h.quick,
		PKCE: oauth.PKCENonce, Registration: oauth.Registration{Token: registration}, Outbound: outbound.New(outbound.Config{}),
	})
	require.NoError(t, err)

	redis, err := tasks.ParseRedis("redis://" + miniredis.RunT(t).Addr())
	require.NoError(t, err)
	loopback := outbound.New(outbound.Config{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	logouts := &oauth.Backchannel{DB: h.db, Keys: h.keys, Issuer: h.site.Issuer, Outbound: loopback}
	worker := tasks.NewWorker(tasks.Config{DB: h.db, Redis: redis, Issuer: h.site.Issuer, Pages: pages, Logout: logouts.Tell, Send: func(_ context.Context, m tasks.Message) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.mails = append(h.mails, m)
		return nil
	}})
	var running sync.WaitGroup
	running.Go(func() {
		if err := worker.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	running.Go(func() { tasks.NewRelay(h.db, redis).Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	h.seed(t)
	return h
}

func (h *house) seed(t *testing.T) {
	ctx := context.Background()
	everything := storage.Words{"openid", "profile", "email", "offline_access", "lab", "results"}
	public := storage.Client{
		Name: "App", AuthMethods: storage.Words{"none"}, RedirectURIs: storage.Strings{callback}, PostLogoutRedirectURIs: storage.Strings{callback},
		GrantTypes: storage.Words{"authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"}, Scopes: everything,
	}
	service := public
	service.Name, service.AuthMethods, service.CanIntrospect = "Service", storage.Words{"client_secret_basic"}, true
	service.GrantTypes = storage.Words{"authorization_code", "refresh_token", "client_credentials"}
	h.secret = h.db.NewClientSecret(&service)
	at := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { h.told <- r.PostFormValue("logout_token") }))
	t.Cleanup(at.Close)
	service.Metadata.BackchannelLogoutURI, service.Metadata.FrontchannelLogoutURI = at.URL, "https://service.example/signed-out"
	require.NoError(t, h.db.CreateClient(ctx, &public))
	require.NoError(t, h.db.CreateClient(ctx, &service))
	h.public, h.service = public.ID, service.ID

	require.NoError(t, h.db.UpsertLabAuthority(ctx, storage.LabAuthority{ID: "lab1", Name: "Riverside Laboratory", OID: "2.999.1", LinkKey: true, Active: true}))
	record := storage.LabIdentity{Authority: "lab1", Value: "R-1", Given: "Ada", Family: "Example", BirthDate: "1975-12-10", BirthPrecision: "day"}
	record.SetVersion("seen", "0")
	require.NoError(t, h.db.SaveLabIdentities(ctx, []*storage.LabIdentity{&record}))
	code, err := h.db.NewInvitation(ctx, record.ID, time.Now().Add(time.Hour))
	require.NoError(t, err)
	h.code = code
}

// patient makes an account that can sign in.
func (h *house) patient(t *testing.T, email, password string) {
	t.Helper()
	ctx := context.Background()
	hasher, err := login.NewHasher(h.db, h.quick.Hash)
	require.NoError(t, err)
	phc, err := hasher.Hash(ctx, password)
	require.NoError(t, err)
	p := storage.Patient{Email: email, GivenName: "Ada", FamilyName: "Example", BirthDate: "1975-12-10", Locale: "en"}
	require.NoError(t, h.db.CreatePatient(ctx, &p))
	require.NoError(t, h.db.SetPassword(ctx, p.ID, phc, p.CreatedAt))
	require.NoError(t, h.db.MarkEmailVerified(ctx, p.ID, p.CreatedAt))
}

// mail waits for a mail to somebody and takes it.
func (h *house) mail(t *testing.T, to string) string {
	t.Helper()
	for range 200 {
		h.mu.Lock()
		if h.mailbox != nil {
			h.mails = append(h.mails, h.mailbox()...)
		}
		for i, m := range h.mails {
			if m.To == to {
				h.mails = append(h.mails[:i:i], h.mails[i+1:]...)
				h.mu.Unlock()
				return m.Subject + "\n\n" + m.Text
			}
		}
		h.mu.Unlock()
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("no mail came to %s", to)
	return ""
}

func TestMain(m *testing.M) {
	flag.Parse()
	if !testing.Verbose() {
		slog.SetDefault(slog.New(slog.DiscardHandler))
	}
	m.Run()
}
