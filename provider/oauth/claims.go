package oauth

import (
	"context"
	"errors"
	"fmt"
	"strings"
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
	claims := map[string]any{
		"iss": t.o.issuer, "sub": g.PatientID, "aud": c.ID,
		"exp": now.Add(life).Unix(), "iat": now.Unix(), "auth_time": g.AuthTime.Unix(),
		"acr": g.ACR, "amr": g.AMR, "sid": g.SessionID, "at_hash": g.id.AccessTokenHash,
		"jti": storage.NewID(),
	}
	if g.code.Nonce != "" {
		claims["nonce"] = g.code.Nonce
	}
	// The other claims come from userinfo (Section 5.4); a portal needs the lab
	// record at once.
	lab, err := t.o.labClaim(ctx, g.PatientID, g.Scopes)
	if err != nil {
		return "", err
	}
	if lab != nil {
		claims["lab"] = lab
	}
	return t.o.keys.Sign(c.IDTokenAlg, "JWT", claims)
}

// profile are the claims about a patient that scopes open.
// OpenID Connect Core, Section 5.4; lab is ours.
func (o *OAuth) profile(ctx context.Context, p storage.Patient, scopes storage.Words) (map[string]any, error) {
	claims := map[string]any{"sub": p.ID}
	set := func(k, v string) {
		if v != "" {
			claims[k] = v
		}
	}
	if scopes.Has("profile") {
		set("name", strings.TrimSpace(p.GivenName+" "+p.FamilyName))
		set("given_name", p.GivenName)
		set("family_name", p.FamilyName)
		set("birthdate", p.BirthDate)
		set("locale", p.Locale)
		claims["updated_at"] = p.UpdatedAt.Unix()
	}
	if scopes.Has("email") {
		set("email", p.Email)
		claims["email_verified"] = p.EmailVerifiedAt != nil
	}
	lab, err := o.labClaim(ctx, p.ID, scopes)
	if err != nil {
		return nil, err
	}
	if lab != nil {
		claims["lab"] = lab
	}
	return claims, nil
}

// labRecord is the claim "lab": which record of which laboratory is the patient's.
type labRecord struct {
	Authority string `json:"authority"`
	Record    string `json:"record"`
}

// labClaim is the linked lab record, nil where the scope or the link is missing.
func (o *OAuth) labClaim(ctx context.Context, patientID string, scopes storage.Words) (*labRecord, error) {
	if !scopes.Has("lab") {
		return nil, nil
	}
	_, record, err := o.db.LinkOf(ctx, patientID)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lab claim: %w", err)
	}
	return &labRecord{Authority: record.Authority, Record: record.Value}, nil
}
