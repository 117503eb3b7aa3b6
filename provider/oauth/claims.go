package oauth

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ory/fosite"

	"github.com/pat-authenticate/patauth/storage"
)

// idTokens makes ID tokens in fosite's stead.
type idTokens struct{ o *OAuth }

// GenerateIDToken makes the ID token of a code or refresh answer.
// OpenID Connect Core, Section 2; at a refresh Section 12.2: the same iss, sub
// and aud, and auth_time "MUST represent the time of the original authentication".
func (t idTokens) GenerateIDToken(ctx context.Context, life time.Duration, r fosite.Requester) (string, error) {
	g, c := r.GetSession().(*grant), r.GetClient().(client)
	now := time.Now()
	// The other claims come from userinfo (Section 5.4), but for those that were
	// asked for here, and for the lab record, which a portal needs at once.
	granted, scopes := g.scopes(fosite.Arguments(g.Scopes)), storage.Words{}
	if granted.Has("lab") {
		scopes = storage.Words{"lab"}
	}
	claims, err := t.o.about(ctx, g.PatientID, scopes, open(g.Grant, granted, g.Claims.V.IDToken))
	if err != nil {
		return "", err
	}
	for k, v := range map[string]any{
		"iss": t.o.issuer, "sub": g.Sub(), "aud": c.ID,
		"exp": now.Add(life).Unix(), "iat": now.Unix(), "auth_time": g.AuthTime.Unix(),
		"acr": g.ACR, "amr": g.AMR, "sid": g.SID(), "jti": storage.NewID(),
		"at_hash": halfHash(c.IDTokenAlg, g.access),
	} {
		claims[k] = v
	}
	if g.code.Nonce != "" {
		claims["nonce"] = g.code.Nonce
	}
	return t.o.keys.Sign(c.IDTokenAlg, "JWT", claims)
}

// open are those of the claims asked for one by one that a token with scopes still
// opens: all where it has what was granted, else those whose scope it kept.
// RFC 6749, Section 6: a refreshed token may have fewer.
func open(g storage.Grant, scopes storage.Words, names []string) []string {
	if scopes.Has(g.Scopes...) {
		return names
	}
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !scopes.Has(scopeOf(name)) })
}

// halfHash is the left half of the hash of an access token, by the hash of the
// ID token's alg (OpenID Connect Core, Section 3.1.3.6): SHA-512 for Ed25519,
// SHA-256 for the others we have.
func halfHash(alg, token string) string {
	sum := sha256.Sum256([]byte(token))
	half := sum[:16]
	if alg == "EdDSA" {
		sum := sha512.Sum512([]byte(token))
		half = sum[:32]
	}
	return base64.RawURLEncoding.EncodeToString(half)
}

// about are the claims about a patient that scopes open, and those named one by
// one.
func (o *OAuth) about(ctx context.Context, patientID string, scopes storage.Words, names []string) (map[string]any, error) {
	claims := map[string]any{}
	wanted := func(scope, name string) bool { return scopes.Has(scope) || slices.Contains(names, name) }
	if wanted("lab", "lab") {
		_, record, err := o.db.LinkOf(ctx, patientID)
		if err == nil {
			claims["lab"] = labRecord{Authority: record.Authority, Record: record.Value}
		} else if !errors.Is(err, storage.ErrNotFound) {
			return nil, fmt.Errorf("lab claim: %w", err)
		}
	}
	if len(names) == 0 && len(scopes) == 0 {
		return claims, nil
	}
	p, err := o.db.PatientByID(ctx, patientID)
	if err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	for scope, all := range standard(p) {
		for name, value := range all {
			if wanted(scope, name) {
				claims[name] = value
			}
		}
	}
	return claims, nil
}

// subject is what c calls a patient (OpenID Connect Core, Section 8).
func (o *OAuth) subject(ctx context.Context, c storage.Client, patientID string) (string, error) {
	if c.Metadata.SubjectType != "pairwise" {
		return patientID, nil
	}
	return o.db.PairwiseSubject(ctx, c.Metadata.Sector, patientID)
}

// labRecord is the claim "lab": which record of which laboratory is the patient's.
type labRecord struct {
	Authority string `json:"authority"`
	Record    string `json:"record"`
}
