package login

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"image/png"
	"net/url"
	"time"

	"github.com/pquerna/otp"

	"github.com/pat-authenticate/patauth/provider/session"
	"github.com/pat-authenticate/patauth/provider/web"
	"github.com/pat-authenticate/patauth/storage"
)

// totp is the factor of authenticator apps.
type totp struct {
	db     *storage.DB
	issuer string // what apps call this place
	past   int
}

func (totp) kind() string { return storage.KindTOTP }

// ask needs nothing but a field for the code.
func (totp) ask(context.Context, subject) (any, error) { return struct{}{}, nil }

// verify compares the code with the seeds of all apps of the patient. A wrong
// code counts as a failure of each of them, because each was guessed at.
func (t totp) verify(ctx context.Context, who subject, form answer) (session.Proof, error) {
	now := storage.Now()
	code := url.Values(form).Get("one-time-code")
	var hit *storage.Credential
	var step int64
	for i, c := range who.creds {
		if s, ok := totpMatch(c.Secret, code, now, t.past); ok && hit == nil {
			hit, step = &who.creds[i], s
		}
	}
	if hit == nil {
		for _, c := range who.creds {
			if _, err := t.db.TryCredential(ctx, c.ID, now); err != nil && !errors.Is(err, storage.ErrSpent) {
				return session.Proof{}, err
			}
		}
		return session.Proof{}, errWrong
	}
	// RFC 6238, Section 5.2: a code is accepted once.
	try, err := t.db.TryCredential(ctx, hit.ID, now)
	if errors.Is(err, storage.ErrSpent) {
		return session.Proof{}, errWrong
	}
	if err != nil {
		return session.Proof{}, err
	}
	err = t.db.UseTOTPStep(ctx, hit.ID, step)
	if err == nil {
		err = t.db.CredentialSucceeded(ctx, hit.ID, now)
	}
	if errors.Is(err, storage.ErrNotFound) {
		return session.Proof{}, errWrong // removed while it was checked
	}
	if err != nil {
		if errors.Is(err, storage.ErrSpent) {
			err = errUsed
		}
		return session.Proof{}, errors.Join(err, t.db.TakeBack(ctx, try))
	}
	return session.Proof{Credential: hit.ID, Factors: []string{session.TOTP}}, nil
}

const (
	kindTOTPEnrol = "totp_enrol"
	enrolLife     = 10 * time.Minute
	enrolTries    = 5
)

// totpOffer is a new seed for an app to read.
type totpOffer struct {
	Challenge string
	Secret    string       // base32
	URL       template.URL // otpauth://…
	QR        template.URL // data:image/png;…
}

// offer makes a new seed, or shows the one again that was mistyped from.
func (t totp) offer(ctx context.Context, who subject, again answer) (any, error) {
	now := storage.Now()
	var c storage.Challenge
	if id := url.Values(again).Get("challenge"); id != "" {
		old, err := t.db.Challenge(ctx, kindTOTPEnrol, id)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return nil, err
		}
		if err == nil && old.Open(now) && old.PatientID == who.patient.ID && old.Attempts < enrolTries &&
			bytes.Equal(old.Digest, who.session.Digest) {
			c = old
		}
	}
	if c.ID == "" {
		c = storage.Challenge{
			Kind: kindTOTPEnrol, PatientID: who.patient.ID, Digest: who.session.Digest,
			Data: newSeed(), ExpiresAt: now.Add(enrolLife),
		}
		if err := t.db.NewChallenge(ctx, &c); err != nil {
			return nil, err
		}
	}
	address := totpURL(t.issuer, who.patient.Email, c.Data)
	qr, err := qrCode(address)
	if err != nil {
		return nil, err
	}
	return totpOffer{Challenge: c.ID, Secret: seedText.EncodeToString(c.Data), URL: template.URL(address), QR: qr}, nil
}

// enrol takes the first code of the new seed.
func (t totp) enrol(ctx context.Context, who subject, form answer) (storage.Credential, []string, error) {
	now, v := storage.Now(), url.Values(form)
	c, err := t.db.TryChallenge(ctx, kindTOTPEnrol, v.Get("challenge"), who.session.Digest, enrolTries, now)
	if errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrSpent) {
		return storage.Credential{}, nil, errWrong
	}
	if err != nil {
		return storage.Credential{}, nil, err
	}
	step, ok := totpMatch(c.Data, v.Get("one-time-code"), now, t.past)
	if !ok {
		return storage.Credential{}, nil, errWrong
	}
	if _, err := t.db.SpendChallenge(ctx, kindTOTPEnrol, c.ID, who.session.Digest, now); err != nil {
		return storage.Credential{}, nil, err
	}
	added := storage.Credential{Name: fmt.Sprintf("App %d", len(who.creds)+1), Secret: c.Data, LastStep: step, LastUsedAt: &now}
	return added, []string{session.TOTP}, nil
}

// qrCode is address as a picture that stands in the page itself, so that the
// seed is in no URL and no log.
func qrCode(address string) (template.URL, error) {
	key, err := otp.NewKeyFromURL(address)
	if err != nil {
		return "", fmt.Errorf("qr code: %w", err)
	}
	img, err := key.Image(240, 240)
	if err != nil {
		return "", fmt.Errorf("qr code: %w", err)
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		return "", fmt.Errorf("qr code: %w", err)
	}
	return template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(b.Bytes())), nil
}

// issuerName is what apps and authenticators call this place.
func issuerName(site *web.Site) string {
	if u, err := url.Parse(site.Issuer); err == nil && u.Host != "" {
		return u.Hostname()
	}
	return "patauth"
}
