package login

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// passkeys is the factor of W3C WebAuthn Level 3. A passkey that verifies its
// holder also signs in by itself.
type passkeys struct {
	db *storage.DB
	rp *webauthn.WebAuthn
}

const (
	// ceremonyLife is how long a browser may take to answer.
	ceremonyLife     = 5 * time.Minute
	kindPasskeyLogin = "passkey_login"  // bound to the browser's cookie, and kept in the page
	kindPasskeyProof = "passkey_second" // bound to the session
	kindPasskeyEnrol = "passkey_enrol"  // bound to the session
	// WebAuthn, Section 7.1, step 25: "Verify that the credentialId is ≤ 1023 bytes."
	credentialIDMax = 1023
)

// newPasskeys is nil where the issuer's host cannot be a relying party ID: an
// IP address is no domain (WebAuthn, Section 5.1.2).
func newPasskeys(db *storage.DB, site *web.Site) (*passkeys, error) {
	rp, err := relyingParty(site)
	if err != nil || rp == nil {
		return nil, err
	}
	return &passkeys{db: db, rp: rp}, nil
}

// CheckIssuer reports why an issuer cannot have passkeys, where that is a mistake.
func CheckIssuer(issuer string) error {
	_, err := relyingParty(&web.Site{Issuer: issuer})
	return err
}

// relyingParty is the site as authenticators know it; nil for an address, which can
// have no passkeys.
func relyingParty(site *web.Site) (*webauthn.WebAuthn, error) {
	u, err := url.Parse(site.Issuer)
	if err != nil || u.Hostname() == "" {
		return nil, fmt.Errorf("passkeys: the issuer %q has no host", site.Issuer)
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil {
		return nil, nil
	}
	limit := webauthn.TimeoutConfig{Enforce: true, Timeout: ceremonyLife, TimeoutUVD: ceremonyLife}
	rp, err := webauthn.New(&webauthn.Config{
		RPID: u.Hostname(), RPDisplayName: issuerName(site), RPOrigins: []string{u.Scheme + "://" + u.Host},
		AttestationPreference:             protocol.PreferNoAttestation,
		Timeouts:                          webauthn.TimeoutsConfig{Login: limit, Registration: limit},
		ExtensionsUnsolicitedOutputPolicy: protocol.UnsolicitedOutputPolicyIgnore,
	})
	if err != nil {
		return nil, fmt.Errorf("passkeys: %w", err)
	}
	return rp, nil
}

// ceremony is a question for passkey.js.
type ceremony struct {
	Challenge string // id of the stored challenge, or the challenge itself, sealed
	Options   string // JSON of the inner publicKey options
}

// begin stores a ceremony. The library's data goes in as it is: made anew by
// hand it would refuse what it asked for.
func (p *passkeys) begin(ctx context.Context, kind, patientID string, digest []byte, options any, data *webauthn.SessionData) (*ceremony, error) {
	state, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("passkey ceremony: %w", err)
	}
	shown, err := json.Marshal(options)
	if err != nil {
		return nil, fmt.Errorf("passkey ceremony: %w", err)
	}
	c := storage.Challenge{Kind: kind, PatientID: patientID, Digest: digest, Data: state, ExpiresAt: storage.Now().Add(ceremonyLife)}
	if err := p.db.NewChallenge(ctx, &c); err != nil {
		return nil, err
	}
	return &ceremony{Challenge: c.ID, Options: string(shown)}, nil
}

// end spends a ceremony, before anything is checked: the library itself would
// take the same answer again. errWrong where there is none to spend.
func (p *passkeys) end(ctx context.Context, kind string, digest []byte, form answer) (webauthn.SessionData, error) {
	var data webauthn.SessionData
	c, err := p.db.SpendChallenge(ctx, kind, url.Values(form).Get("challenge"), digest, storage.Now())
	if errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrSpent) {
		web.Note(ctx, "passkey_error", "no open ceremony")
		return data, errWrong
	}
	if err == nil {
		err = json.Unmarshal(c.Data, &data)
	}
	return data, err
}

// accept records the use of a key that has proven itself. A sign count that did
// not grow says that there may be a copy: a key that cannot be copied is then
// refused (WebAuthn, Section 7.2, step 22).
func (p *passkeys) accept(ctx context.Context, holder keyholder, key *webauthn.Credential, parsed *protocol.ParsedCredentialAssertionData) (session.Proof, error) {
	i := slices.IndexFunc(holder.rows, func(c storage.Credential) bool { return c.ExternalID == hex.EncodeToString(key.ID) })
	if i < 0 || holder.rows[i].DisabledAt != nil {
		return session.Proof{}, errWrong
	}
	row := holder.rows[i]
	if key.Authenticator.CloneWarning {
		web.Event(ctx, "auth.passkey.clone_suspected", "credential", row.ID)
		if err := p.db.Audit(ctx, storage.AuditEvent{
			Event: "factor.clone_suspected", Subject: row.PatientID, Object: "credential:" + row.ID,
		}); err != nil {
			return session.Proof{}, err
		}
		if !key.Flags.BackupEligible {
			return session.Proof{}, errWrong
		}
		key.Authenticator.CloneWarning = false
	}
	plain, err := json.Marshal(key)
	if err != nil {
		return session.Proof{}, fmt.Errorf("passkey: %w", err)
	}
	storage.ActAs(ctx, storage.ActorPatient(row.PatientID))
	err = p.db.Tx(ctx, func(ctx context.Context) error {
		if err := p.db.ReplaceSecret(ctx, row, plain); err != nil {
			return err
		}
		return p.db.CredentialSucceeded(ctx, row.ID, storage.Now())
	})
	if errors.Is(err, storage.ErrNotFound) {
		return session.Proof{}, errWrong // removed while it was checked
	}
	if err != nil {
		return session.Proof{}, fmt.Errorf("passkey: %w", err)
	}
	return session.Proof{Credential: row.ID, Factors: provenBy(parsed.Response.AuthenticatorData.Flags)}, nil
}

// provenBy names what a ceremony has shown: without user verification a key is
// something one has, and no more.
func provenBy(flags protocol.AuthenticatorFlags) []string {
	if flags.HasUserVerified() {
		return []string{session.Passkey, session.PasskeyUV}
	}
	return []string{session.Passkey}
}

// refused is errWrong, with the library's reason in the request's log line.
func refused(ctx context.Context, err error) error {
	reason := err.Error()
	if e := (*protocol.Error)(nil); errors.As(err, &e) {
		reason = strings.TrimSpace(e.Type + ": " + e.Details)
	}
	web.Note(ctx, "passkey_error", reason)
	return errWrong
}

// keyholder is a patient as the library sees one.
type keyholder struct {
	patient storage.Patient
	rows    []storage.Credential
	keys    []webauthn.Credential
}

func (p *passkeys) open(patient storage.Patient, rows []storage.Credential) (keyholder, error) {
	h := keyholder{patient: patient, rows: rows}
	for _, c := range rows {
		var key webauthn.Credential
		if err := json.Unmarshal(c.Secret, &key); err != nil {
			return h, fmt.Errorf("passkey: %w", err)
		}
		h.keys = append(h.keys, key)
	}
	return h, nil
}

// WebAuthnID is the user handle: random, and never anything else about anybody.
func (h *keyholder) WebAuthnID() []byte { return h.patient.WebAuthnHandle }

// WebAuthnName tells the holder's accounts apart in the browser's list.
func (h *keyholder) WebAuthnName() string { return h.patient.Email }

// WebAuthnDisplayName is what the browser calls the holder.
func (h *keyholder) WebAuthnDisplayName() string {
	if name := strings.TrimSpace(h.patient.GivenName + " " + h.patient.FamilyName); name != "" {
		return name
	}
	return h.patient.Email
}

// WebAuthnCredentials are the keys at hand.
func (h *keyholder) WebAuthnCredentials() []webauthn.Credential { return h.keys }
