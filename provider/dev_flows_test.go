package provider_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/provider/keys"
	"github.com/pat-authenticate/patauth/provider/login"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/tasks"
)

// TestFlowsOverTLS plays the same transcripts against the real program, an
// instance of `patauth dev` for each, whose certificate a private CA has signed.
func TestFlowsOverTLS(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "patauth")
	out, err := exec.Command("go", "build", "-o", binary, "../cmd/patauth").CombinedOutput()
	require.NoError(t, err, string(out))
	ca := privateCA(t, dir)
	for _, file := range transcripts(t) {
		t.Run(flowName(file), func(t *testing.T) { playFile(t, file, devHouse(t, binary, dir, ca)) })
	}
}

// privateCA writes cert.pem and key.pem for localhost into dir and returns the
// authority that has signed them.
func privateCA(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	make := func(name string, is func(*x509.Certificate), parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		c := &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
		}
		is(c)
		if parent == nil {
			parent, signer = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
		require.NoError(t, err)
		c, err = x509.ParseCertificate(der)
		require.NoError(t, err)
		return c, key
	}
	ca, caKey := make("A private CA", func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }, nil, nil)
	leaf, key := make("localhost", func(c *x509.Certificate) { c.DNSNames = []string{"localhost"} }, ca, caKey)
	write := func(name, kind string, der []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	write("cert.pem", "CERTIFICATE", leaf.Raw)
	write("key.pem", "PRIVATE KEY", der)
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return pool
}

// devHouse is a house that runs in a process of its own. The transcripts reach
// into its database, as an operator would.
func devHouse(t *testing.T, binary, dir string, ca *x509.CertPool) *house {
	data := t.TempDir()
	cmd := exec.Command(binary, "dev", "--json", "--data", data, "--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0",
		"--portal-listen", "127.0.0.1:0", "--tls-cert", filepath.Join(dir, "cert.pem"), "--tls-key", filepath.Join(dir, "key.pem"))
	cmd.Env = append(os.Environ(), "PATAUTH_REGISTRATION_MODE=token", "PATAUTH_REGISTRATION_TOKEN="+registration)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	var line struct{ Issuer string }
	first, err := bufio.NewReader(stdout).ReadBytes('\n')
	require.NoError(t, err, "it did not start")
	require.NoError(t, json.Unmarshal(first, &line))
	var remembered struct{ DSN, Keyring string }
	b, err := os.ReadFile(filepath.Join(data, "dev.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &remembered))
	keyring, err := storage.ReadKeyring(remembered.Keyring)
	require.NoError(t, err)
	db, err := storage.Open(context.Background(), storage.Config{DSN: remembered.DSN, Keys: keyring})
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	k, err := keys.Open(context.Background(), db, keys.Config{RSABits: 2048})
	require.NoError(t, err)
	h := &house{
		db: db, keys: k, site: &web.Site{Issuer: line.Issuer}, quick: login.Defaults(), told: make(chan string, 10),
		transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca}},
	}
	taken := map[string]bool{}
	h.mailbox = func() []tasks.Message {
		r, err := (&http.Client{Transport: h.transport}).Get(line.Issuer + "/dev/mail.json")
		require.NoError(t, err)
		defer r.Body.Close()
		var all []struct {
			To, Subject, Text string
			At                time.Time
		}
		require.NoError(t, json.NewDecoder(r.Body).Decode(&all))
		var fresh []tasks.Message
		for i := len(all) - 1; i >= 0; i-- { // the oldest first
			id := all[i].At.String() + all[i].To
			if !taken[id] {
				taken[id] = true
				fresh = append(fresh, tasks.Message{To: all[i].To, Subject: all[i].Subject, Text: all[i].Text})
			}
		}
		return fresh
	}
	h.seed(t)
	return h
}
