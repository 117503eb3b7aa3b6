package storage

import (
	"context"
	"crypto/hmac"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
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

// DefaultIDTokenAlg signs the ID tokens of a client that asks for no algorithm.
// OpenID Connect Registration 1.0, Section 2, id_token_signed_response_alg: "The
// default, if omitted, is RS256."
const DefaultIDTokenAlg = "RS256"

// Client is a relying party or a resource server (RFC 6749, Section 2).
type Client struct {
	ID   string
	Name string
	// AuthMethods are the ways the client may authenticate at the token endpoint,
	// one per request: "none" alone for public clients, else "private_key_jwt"
	// alone, "client_secret_basic", "client_secret_post" or the last two.
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
	IDTokenAlg string // one of keys.Algorithms
	// CanIntrospect marks a resource server (RFC 7662, Section 2.1).
	CanIntrospect bool
	// FirstParty spares the patient the consent page.
	FirstParty bool
	// Metadata is what the client registered besides.
	Metadata ClientMetadata
	// Origins are the web origins whose scripts may call the endpoints of clients.
	// Where none are named, those of a public client's redirect URIs are.
	Origins Strings
	// Registration is the Digest of the registration access token, nil for a
	// client that an operator has registered (RFC 7592, Section 1.2).
	Registration []byte
	CreatedAt    time.Time
	DisabledAt   *time.Time
}

// ClientMetadata is metadata that no query asks for, under the names of RFC
// 7591, Section 2, OpenID Connect Registration 1.0, Section 2, and the logout
// specifications; the last four are ours. The zero value is what a client has
// that registered nothing.
type ClientMetadata struct {
	// ApplicationType is web or native, and says which redirect URIs go; an
	// operator's client may be neither ("").
	ApplicationType string          `json:"application_type,omitempty"`
	JWKS            json.RawMessage `json:"jwks,omitempty"`
	JWKSURI         string          `json:"jwks_uri,omitempty"`
	// TokenEndpointAuthSigningAlg is the one algorithm of the client's
	// assertions; "" allows each that we take.
	TokenEndpointAuthSigningAlg string `json:"token_endpoint_auth_signing_alg,omitempty"`
	// SubjectType is public ("") or pairwise; Sector is the host that a pairwise
	// sub is made for (OpenID Connect Core, Section 8.1).
	SubjectType         string `json:"subject_type,omitempty"`
	SectorIdentifierURI string `json:"sector_identifier_uri,omitempty"`
	Sector              string `json:"sector,omitempty"`

	UserinfoSignedResponseAlg      string `json:"userinfo_signed_response_alg,omitempty"`      // "" is plain JSON
	IntrospectionSignedResponseAlg string `json:"introspection_signed_response_alg,omitempty"` // "" is RS256

	DefaultMaxAge    *int    `json:"default_max_age,omitempty"` // seconds
	RequireAuthTime  bool    `json:"require_auth_time,omitempty"`
	DefaultACRValues Strings `json:"default_acr_values,omitempty"`
	InitiateLoginURI string  `json:"initiate_login_uri,omitempty"`
	ClientURI        string  `json:"client_uri,omitempty"`
	LogoURI          string  `json:"logo_uri,omitempty"`
	PolicyURI        string  `json:"policy_uri,omitempty"`
	TOSURI           string  `json:"tos_uri,omitempty"`
	Contacts         Strings `json:"contacts,omitempty"`

	BackchannelLogoutURI              string `json:"backchannel_logout_uri,omitempty"`
	BackchannelLogoutSessionRequired  bool   `json:"backchannel_logout_session_required,omitempty"`
	FrontchannelLogoutURI             string `json:"frontchannel_logout_uri,omitempty"`
	FrontchannelLogoutSessionRequired bool   `json:"frontchannel_logout_session_required,omitempty"`

	// AccessTokenSignedResponseAlg makes access tokens JWTs (RFC 9068): those of
	// the client, or, for a resource server, those for its resources. "" is opaque.
	AccessTokenSignedResponseAlg string `json:"access_token_signed_response_alg,omitempty"`
	// RequireACR is the weakest authentication the client accepts.
	RequireACR string `json:"require_acr,omitempty"`
	// RequirePKCE holds a confidential client to PKCE whatever the policy demands.
	RequirePKCE bool      `json:"require_pkce,omitempty"`
	Lifetimes   Lifetimes `json:"lifetimes,omitzero"`
	// Was is the client as patients saw it until its name or places first changed:
	// consents that do not say what they saw were given to that.
	Was *Face `json:"was,omitempty"`
}

// Face is what a patient is told of a client: its name, and where it sends them.
type Face struct {
	Name   string   `json:"name"`
	Places []string `json:"places"`
}

func (c Client) face() Face {
	f := Face{Name: c.Name}
	for _, uri := range c.RedirectURIs {
		if p := PlaceOf(uri); !slices.Contains(f.Places, p) {
			f.Places = append(f.Places, p)
		}
	}
	return f
}

// PlaceOf is where a redirect URI leads, as a patient is told: scheme and host, of a
// loopback address in any port, or a private-use scheme.
func PlaceOf(uri string) string {
	u, err := url.Parse(uri)
	switch {
	case err != nil || u.Host == "":
		scheme, _, _ := strings.Cut(uri, ":")
		return scheme
	case u.Scheme == "http":
		return "http://" + u.Hostname()
	}
	return u.Scheme + "://" + u.Host
}

// Lifetimes are in seconds; 0 is the default.
type Lifetimes struct {
	AccessToken int `json:"access_token,omitempty"`
	IDToken     int `json:"id_token,omitempty"`
	RefreshIdle int `json:"refresh_idle,omitempty"` // a refresh token that is not used
	Grant       int `json:"grant,omitempty"`        // everything, however much it is used
}

// Value writes the metadata as JSON text.
func (m ClientMetadata) Value() (driver.Value, error) { return JSON[metadata]{metadata(m)}.Value() }

// Scan reads the metadata from JSON text.
func (m *ClientMetadata) Scan(src any) error {
	var j JSON[metadata]
	err := j.Scan(src)
	*m = ClientMetadata(j.V)
	return err
}

// metadata is ClientMetadata without methods.
type metadata ClientMetadata

// ClientSecret is one live secret of a client.
type ClientSecret struct {
	Digest    []byte    `json:"digest"`
	CreatedAt time.Time `json:"created_at"`
	// Bound ties the digest to its client: it opens nothing where it was copied to.
	Bound []byte `json:"bound,omitempty"`
	made  bool   // by this program, just now
}

// TableName names the table.
func (Client) TableName() string { return "client" }

// Public reports whether the client cannot keep a secret (RFC 6749, Section 2.1).
func (c Client) Public() bool { return c.AuthMethods.Has("none") }

// UsesSecret reports whether the client authenticates by a secret of ours.
func (c Client) UsesSecret() bool {
	return c.AuthMethods.Has("client_secret_basic") || c.AuthMethods.Has("client_secret_post")
}

// SetRedirectURIs gives c other redirect URIs. Where the origins followed from the
// old ones, they will follow from the new ones.
func (c *Client) SetRedirectURIs(uris []string) {
	if c.Public() && slices.Equal(c.Origins, origins(c.RedirectURIs)) {
		c.Origins = nil
	}
	c.RedirectURIs = uris
}

const purposeClientSecret = "client-secret"

// NewClientSecret adds a generated secret of 256 bits to c and returns it; it
// cannot be had again. Of several secrets the two newest stay live.
func (db *DB) NewClientSecret(c *Client) string {
	secret := NewHandle("pa_cs_")
	c.Secrets.V = append([]ClientSecret{{Digest: db.MAC(purposeClientSecret, []byte(secret)), CreatedAt: Now(), made: true}}, c.Secrets.V...)
	if len(c.Secrets.V) > 2 {
		c.Secrets.V = c.Secrets.V[:2]
	}
	return secret
}

// SettleClientSecret gives c a secret where it authenticates by one and has none,
// and returns it as NewClientSecret does. Secrets that are not used go.
func (db *DB) SettleClientSecret(c *Client) string {
	if !c.UsesSecret() {
		c.Secrets.V = nil
		return ""
	}
	if len(c.Secrets.V) > 0 {
		return ""
	}
	return db.NewClientSecret(c)
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
		ok = hmac.Equal(s.Digest, digest) && db.ownSecret(c, s) || ok
	}
	return ok && secret != ""
}

// ownSecret reports whether s was made for c.
func (db *DB) ownSecret(c *Client, s ClientSecret) bool {
	if s.Bound == nil {
		return !db.refuseUnbound
	}
	return hmac.Equal(s.Bound, db.bindSecret(c, s))
}

func (db *DB) bindSecret(c *Client, s ClientSecret) []byte {
	return db.MAC("client-secret-owner", append([]byte(c.ID+"\x00"), s.Digest...))
}

// bindSecrets binds the secrets of c that may be bound: those just made, and where
// unbound ones are taken, those too.
func (db *DB) bindSecrets(c *Client) {
	for i, s := range c.Secrets.V {
		if s.Bound == nil && (s.made || !db.refuseUnbound) {
			c.Secrets.V[i].Bound = db.bindSecret(c, s)
		}
		c.Secrets.V[i].made = false
	}
}

// BindClients binds the secrets that the previous release has written to their
// clients, and returns how many clients it changed.
func (db *DB) BindClients(ctx context.Context) (int, error) {
	if db.refuseUnbound {
		return 0, nil
	}
	rows, err := db.ListClients(ctx)
	n := 0
	for _, c := range rows {
		if !c.unbound() || c.DisabledAt != nil {
			continue
		}
		if _, err := db.ChangeClient(ctx, c.ID, func(*Client) {}); err != nil {
			return n, fmt.Errorf("client %s: %w", c.ID, err)
		}
		n++
	}
	return n, err
}

// unbound reports whether a secret of c is bound to nobody.
func (c Client) unbound() bool {
	return slices.ContainsFunc(c.Secrets.V, func(s ClientSecret) bool { return s.Bound == nil })
}

// CreateClient stores c. An empty ID is filled in: client ids are made by the
// server, so that none can pass for a subject.
func (db *DB) CreateClient(ctx context.Context, c *Client) error {
	if c.ID == "" {
		c.ID = "c-" + NewID()
	}
	c.CreatedAt = Now()
	c.complete()
	db.bindSecrets(c)
	return mapErr(db.g(ctx).Create(c).Error)
}

// complete fills in what follows from the rest.
func (c *Client) complete() {
	if c.IDTokenAlg == "" {
		c.IDTokenAlg = DefaultIDTokenAlg
	}
	if len(c.Origins) == 0 && c.Public() {
		c.Origins = origins(c.RedirectURIs)
	}
}

// origins are those of uris that a page can have.
func origins(uris []string) Strings {
	var out Strings
	for _, uri := range uris {
		u, err := url.Parse(uri)
		if err == nil && (u.Scheme == "https" || u.Scheme == "http") && !slices.Contains(out, u.Scheme+"://"+u.Host) {
			out = append(out, u.Scheme+"://"+u.Host)
		}
	}
	return out
}

// ChangeClient updates the client with what change makes of it: nobody else
// changes it meanwhile. change must reach for nothing outside the database.
func (db *DB) ChangeClient(ctx context.Context, id string, change func(*Client)) (Client, error) {
	var c Client
	err := db.Tx(ctx, func(ctx context.Context) error {
		c = Client{}
		if err := locked(db.g(ctx)).Where("id = ? AND disabled_at IS NULL", id).Take(&c).Error; err != nil {
			return mapErr(err)
		}
		was, known := c.face(), c.Metadata.Was
		change(&c)
		if c.Metadata.Was = known; known == nil {
			if now := c.face(); now.Name != was.Name || !slices.Equal(now.Places, was.Places) {
				c.Metadata.Was = &was
			}
		}
		return db.UpdateClient(ctx, &c)
	})
	return c, err
}

// UpdateClient writes everything about c but its ID and times; ErrNotFound
// where it is disabled or gone.
func (db *DB) UpdateClient(ctx context.Context, c *Client) error {
	c.complete()
	db.bindSecrets(c)
	return foundOne(db.g(ctx).Model(&Client{}).Where("id = ? AND disabled_at IS NULL", c.ID).
		Select("*").Omit("id", "created_at", "disabled_at").Updates(c))
}

// DeleteClient shuts a client for good and ends every grant it holds. The row
// stays, so that nobody gets its id and the audit can name it.
func (db *DB) DeleteClient(ctx context.Context, id string, now time.Time) error {
	return db.Tx(ctx, func(ctx context.Context) error {
		r := db.g(ctx).Model(&Client{}).Where("id = ? AND disabled_at IS NULL", id).
			Updates(map[string]any{"disabled_at": now, "registration": nil, "secrets": "[]"})
		if err := foundOne(r); err != nil {
			return err
		}
		return db.revokeGrants(ctx, now, "client deleted", "client_id = ?", id)
	})
}

// Client finds a client that is not disabled. It reads the row that stands where
// the id would, so that an id of nobody's takes as long as one of somebody's.
func (db *DB) Client(ctx context.Context, id string) (Client, error) {
	var c Client
	if err := db.g(ctx).Where("id >= ?", id).Order("id").Take(&c).Error; err != nil {
		return Client{}, mapErr(err)
	}
	if c.ID != id || c.DisabledAt != nil {
		return Client{}, ErrNotFound
	}
	return c, nil
}

// RegisteredClient finds the client that holds the registration access token of
// the digest.
func (db *DB) RegisteredClient(ctx context.Context, id string, digest []byte) (Client, error) {
	var c Client
	err := db.g(ctx).Where("id = ? AND registration = ? AND disabled_at IS NULL", id, digest).Take(&c).Error
	return c, mapErr(err)
}

// ResourceServers lists the clients that may introspect: they answer to their
// Audience.
func (db *DB) ResourceServers(ctx context.Context) ([]Client, error) {
	var out []Client
	return out, mapErr(db.g(ctx).Where("can_introspect AND disabled_at IS NULL").Order("id").Find(&out).Error)
}

// KnowsOrigin reports whether any client has named the web origin.
func (db *DB) KnowsOrigin(ctx context.Context, origin string) (bool, error) {
	quoted, err := json.Marshal(origin)
	if err != nil {
		return false, err
	}
	var n int64
	err = db.g(ctx).Model(&Client{}).Where("disabled_at IS NULL AND replace(origins, ?, '') <> origins", string(quoted)).Count(&n).Error
	return n > 0, mapErr(err)
}

// ListClients lists all clients by id.
func (db *DB) ListClients(ctx context.Context) ([]Client, error) {
	var out []Client
	return out, mapErr(db.g(ctx).Order("id").Find(&out).Error)
}
