package storage

import (
	"context"
	"crypto/hmac"
	"database/sql/driver"
	"encoding/json"
	"time"
)

// Strings is a list kept as one JSON text.
type Strings []string

// Value writes the list as JSON text.
func (s Strings) Value() (driver.Value, error) {
	if s == nil {
		return "[]", nil
	}
	b, err := json.Marshal([]string(s))
	return string(b), err
}

// Scan reads the list from JSON text.
func (s *Strings) Scan(src any) error {
	t, err := text(src)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(t), (*[]string)(s))
}

// Client is a relying party or a resource server (RFC 6749, Section 2).
type Client struct {
	ID   string
	Name string
	// AuthMethods are the ways the client may authenticate at the token endpoint,
	// one per request: "none" alone for public clients, else
	// "client_secret_basic", "client_secret_post" or both.
	AuthMethods Words
	// Secrets are keyed digests; two may be live at once, for rotation.
	Secrets                JSON[[]ClientSecret]
	RedirectURIs           Strings
	PostLogoutRedirectURIs Strings
	GrantTypes             Words
	Scopes                 Words
	// Audience lists the resources (RFC 8707) the client may ask tokens for, and,
	// for a resource server, those it answers to.
	Audience   Strings
	IDTokenAlg string // ES256 or RS256
	// CanIntrospect marks a resource server (RFC 7662, Section 2.1).
	CanIntrospect bool
	// FirstParty spares the patient the consent page.
	FirstParty bool
	CreatedAt  time.Time
	DisabledAt *time.Time
}

// ClientSecret is one live secret of a client.
type ClientSecret struct {
	Digest    []byte    `json:"digest"`
	CreatedAt time.Time `json:"created_at"`
}

// TableName names the table.
func (Client) TableName() string { return "client" }

// Public reports whether the client cannot keep a secret (RFC 6749, Section 2.1).
func (c Client) Public() bool { return c.AuthMethods.Has("none") }

const purposeClientSecret = "client-secret"

// NewClientSecret adds a generated secret of 256 bits to c and returns it; it
// cannot be had again. Of several secrets the two newest stay live.
func (db *DB) NewClientSecret(c *Client) string {
	secret := NewHandle("pa_cs_")
	c.Secrets.V = append([]ClientSecret{{Digest: db.MAC(purposeClientSecret, []byte(secret)), CreatedAt: Now()}}, c.Secrets.V...)
	if len(c.Secrets.V) > 2 {
		c.Secrets.V = c.Secrets.V[:2]
	}
	return secret
}

// ClientSecretValid compares secret with the live ones of c in constant time.
// A client without secrets, a nil client too, matches nothing and takes as long.
func (db *DB) ClientSecretValid(c *Client, secret string) bool {
	digest := db.MAC(purposeClientSecret, []byte(secret))
	ok := false
	if c == nil {
		c = &Client{}
	}
	for _, s := range c.Secrets.V {
		ok = hmac.Equal(s.Digest, digest) || ok
	}
	return ok && secret != ""
}

// CreateClient stores c. An empty ID is filled in: client ids are made by the
// server, so that none can pass for a subject.
func (db *DB) CreateClient(ctx context.Context, c *Client) error {
	if c.ID == "" {
		c.ID = "c-" + NewID()
	}
	if c.IDTokenAlg == "" {
		c.IDTokenAlg = "ES256"
	}
	c.CreatedAt = Now()
	return mapErr(db.g(ctx).Create(c).Error)
}

// Client finds a client that is not disabled.
func (db *DB) Client(ctx context.Context, id string) (Client, error) {
	var c Client
	err := db.g(ctx).Where("id = ? AND disabled_at IS NULL", id).Take(&c).Error
	return c, mapErr(err)
}

// ListClients lists all clients by id.
func (db *DB) ListClients(ctx context.Context) ([]Client, error) {
	var out []Client
	return out, mapErr(db.g(ctx).Order("id").Find(&out).Error)
}
