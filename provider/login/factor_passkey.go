package login

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/storage"
)

func (*passkeys) kind() string { return storage.KindPasskey }

// ask asks for one of the patient's own passkeys.
func (p *passkeys) ask(ctx context.Context, who subject) (any, error) {
	holder, err := p.open(who.patient, who.creds)
	if err != nil {
		return nil, err
	}
	options, data, err := p.rp.BeginLogin(&holder, webauthn.WithUserVerification(protocol.VerificationPreferred))
	if err != nil {
		return nil, fmt.Errorf("passkey: %w", err)
	}
	return p.begin(ctx, kindPasskeyProof, who.patient.ID, who.session.Digest, options.Response, data)
}

// verify takes the answer to ask.
func (p *passkeys) verify(ctx context.Context, who subject, form answer) (session.Proof, error) {
	data, err := p.end(ctx, kindPasskeyProof, who.session.Digest, form)
	if err != nil {
		return session.Proof{}, err
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes([]byte(url.Values(form).Get("credential")))
	if err != nil {
		return session.Proof{}, refused(ctx, err)
	}
	holder, err := p.open(who.patient, who.creds)
	if err != nil {
		return session.Proof{}, err
	}
	key, err := p.rp.ValidateLogin(&holder, data, parsed)
	if err != nil {
		return session.Proof{}, refused(ctx, err)
	}
	return p.accept(ctx, holder, key, parsed)
}

// offer asks for a new passkey, preferably one that can sign in by itself.
func (p *passkeys) offer(ctx context.Context, who subject, _ answer) (any, error) {
	holder, err := p.open(who.patient, who.creds)
	if err != nil {
		return nil, err
	}
	var known []protocol.CredentialDescriptor
	for _, k := range holder.keys {
		known = append(known, k.Descriptor())
	}
	options, data, err := p.rp.BeginRegistration(&holder,
		webauthn.WithAuthenticatorSelection(protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementPreferred, UserVerification: protocol.VerificationPreferred,
		}),
		webauthn.WithExclusions(known),
		webauthn.WithExtensions(webauthn.WithExtensionCredProps()),
		webauthn.WithCredentialParameters([]protocol.CredentialParameter{
			{Type: protocol.PublicKeyCredentialType, Algorithm: webauthncose.AlgES256},
			{Type: protocol.PublicKeyCredentialType, Algorithm: webauthncose.AlgEdDSA},
			{Type: protocol.PublicKeyCredentialType, Algorithm: webauthncose.AlgRS256},
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("passkey: %w", err)
	}
	return p.begin(ctx, kindPasskeyEnrol, who.patient.ID, who.session.Digest, options.Response, data)
}

// enrol takes a new passkey.
func (p *passkeys) enrol(ctx context.Context, who subject, form answer) (storage.Credential, []string, error) {
	var added storage.Credential
	data, err := p.end(ctx, kindPasskeyEnrol, who.session.Digest, form)
	if err != nil {
		return added, nil, err
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes([]byte(url.Values(form).Get("credential")))
	if err != nil {
		return added, nil, refused(ctx, err)
	}
	holder, err := p.open(who.patient, who.creds)
	if err != nil {
		return added, nil, err
	}
	key, err := p.rp.CreateCredential(&holder, data, parsed)
	if err != nil {
		return added, nil, refused(ctx, err)
	}
	if len(key.ID) > credentialIDMax || !usableKey(key.PublicKey) {
		return added, nil, errWrong
	}
	plain, err := json.Marshal(key)
	if err != nil {
		return added, nil, fmt.Errorf("passkey: %w", err)
	}
	now := storage.Now()
	added = storage.Credential{Name: fmt.Sprintf("Passkey %d", len(who.creds)+1), ExternalID: hex.EncodeToString(key.ID), Secret: plain, LastUsedAt: &now}
	return added, provenBy(parsed.Response.AttestationObject.AuthData.Flags), nil
}

// usableKey reports whether a COSE key is of the type that its algorithm signs with
// (RFC 9053, Section 2): another one could be kept, and never used.
func usableKey(cose []byte) bool {
	key, err := webauthncose.ParsePublicKey(cose)
	if err != nil {
		return false
	}
	var alg int64
	var of []webauthncose.COSEAlgorithmIdentifier
	switch k := key.(type) {
	case webauthncose.EC2PublicKeyData:
		alg, of = k.Algorithm, []webauthncose.COSEAlgorithmIdentifier{webauthncose.AlgES256, webauthncose.AlgES384, webauthncose.AlgES512, webauthncose.AlgES256K}
	case webauthncose.OKPPublicKeyData:
		alg, of = k.Algorithm, []webauthncose.COSEAlgorithmIdentifier{webauthncose.AlgEdDSA}
	case webauthncose.RSAPublicKeyData:
		alg, of = k.Algorithm, []webauthncose.COSEAlgorithmIdentifier{
			webauthncose.AlgRS256, webauthncose.AlgRS384, webauthncose.AlgRS512, webauthncose.AlgPS256, webauthncose.AlgPS384, webauthncose.AlgPS512,
		}
	}
	return slices.Contains(of, webauthncose.COSEAlgorithmIdentifier(alg))
}
