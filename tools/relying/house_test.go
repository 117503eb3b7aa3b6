// Package relying tries patauth with relying parties that others wrote. Each is
// told the issuer and who it is, and finds the rest by OpenID Connect Discovery,
// over https, under a certificate authority that nobody else knows. A patient is
// a browser without script.
package relying

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

// house is a running `patauth dev`.
type house struct {
	Issuer          string
	ActivationCodes []struct {
		Code      string
		BirthDate string `json:"birth_date"`
		Authority string
		Record    string
	} `json:"activation_codes"`

	env       []string
	data      string // its folder
	authority string // PEM file of the certificate authority
	cert, key string // PEM files of a certificate for localhost and 127.0.0.1
	client    *http.Client
}

// program is the patauth under test; `make test` builds it.
func program(t *testing.T) string {
	t.Helper()
	path := os.Getenv("PATAUTH_TEST_BINARY")
	if path == "" {
		t.Skip("no patauth to rely on: set PATAUTH_TEST_BINARY to its path or run make test")
	}
	return path
}

// open runs `patauth dev` over https on free ports until the test ends. It and the
// operator's commands have env in their environment.
func open(t *testing.T, env ...string) *house {
	t.Helper()
	h := &house{env: env, data: t.TempDir()}
	pool, authority, cert, key := certify(t)
	h.authority, h.cert, h.key = authority, cert, key
	h.env = append(h.env, "SSL_CERT_FILE="+authority) // for what the provider asks of clients
	h.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}, Timeout: 10 * time.Second}
	h.run(t, "--tls-cert", cert, "--tls-key", key)
	require.Contains(t, h.Issuer, "https://localhost:")
	return h
}

func (h *house) run(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(program(t), append([]string{"dev", "--json", "--data", h.data,
		"--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0", "--portal-listen", "127.0.0.1:0"}, args...)...)
	cmd.Env = append(os.Environ(), h.env...)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	log := &bytes.Buffer{}
	cmd.Stderr = log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("patauth dev: %v\n%s", err, log)
		}
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	require.NoError(t, err, "no ready line")
	require.NoError(t, json.Unmarshal(line, h), "%s", line)
}

// certify makes a certificate authority, and under it a certificate for this machine.
func certify(t *testing.T) (pool *x509.CertPool, authority, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der ...[]byte) string {
		var text []byte
		for _, b := range der {
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})...)
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
		return filepath.Join(dir, name)
	}
	begin, end := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Authority of a test"}, NotBefore: begin, NotAfter: end,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"}, NotBefore: begin, NotAfter: end,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	require.NoError(t, err)
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, leafKey.Public(), rootKey)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(leafKey)
	require.NoError(t, err)
	parsed, err := x509.ParseCertificate(rootDER)
	require.NoError(t, err)
	pool = x509.NewCertPool()
	pool.AddCert(parsed)
	return pool, write("authority.pem", "CERTIFICATE", rootDER), write("cert.pem", "CERTIFICATE", leafDER), write("key.pem", "PRIVATE KEY", pkcs8)
}

// operate runs a command of the operator's and reads the JSON it prints.
func (h *house) operate(t *testing.T, stdin string, into any, args ...string) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	cmd := exec.CommandContext(ctx, program(t), append(args, "--data", h.data, "--json")...)
	cmd.Env = append(os.Environ(), h.env...)
	cmd.Stdin = bytes.NewBufferString(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%v\n%s", args, stderr.String())
	require.NoError(t, json.Unmarshal(out, into), "%s", out)
}

// registered is a client as `patauth client create` made it.
type registered struct {
	ID     string `json:"id"`
	Secret string `json:"secret"`
}

func (h *house) register(t *testing.T, flags ...string) (c registered) {
	t.Helper()
	h.operate(t, "", &c, append([]string{"client", "create", "--name", "Portal of " + t.Name()}, flags...)...)
	return c
}

// keys makes a key of a client's, and the file of its public half, as a JWK Set.
func keys(t *testing.T) (private []byte, id, jwks string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "first", Algorithm: "RS256", Use: "sig"}}})
	require.NoError(t, err)
	jwks = filepath.Join(t.TempDir(), "jwks.json")
	require.NoError(t, os.WriteFile(jwks, set, 0o600))
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), "first", jwks
}

// everything is what a portal may ask for.
const everything = "openid,profile,email,offline_access,lab"

const password = "blue tulip kettle moon"

// patient makes an account, and the browser of who holds it.
func (h *house) patient(t *testing.T, email string) *browser {
	t.Helper()
	var made struct{ ID string }
	h.operate(t, password, &made, "patient", "create", "--verified", "--password-stdin",
		"--email", email, "--given-name", "Grace", "--family-name", "Example", "--birth-date", "1975-12-10")
	return newBrowser(t, h, made.ID, email)
}
