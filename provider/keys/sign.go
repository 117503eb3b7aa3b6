package keys

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// ErrToken is every reason not to trust a token: its form, key, algorithm,
// kind or signature.
var ErrToken = errors.New("token not trusted")

// maxToken bounds what is parsed, in bytes.
const maxToken = 16 << 10

// Sign makes a signed JWT of claims in compact form, with the active key of
// alg. typ is the kind of token ("JWT" for an ID token), so that no kind passes
// for another (RFC 8725, Section 3.11). ErrNoKey where there is no key to use.
func (k *Keys) Sign(alg, typ string, claims any) (string, error) {
	if !k.Fresh() {
		return "", fmt.Errorf("%w: keys were read too long ago", ErrNoKey)
	}
	key, ok := k.set.Load().active[alg]
	if !ok {
		return "", fmt.Errorf("%w for %s", ErrNoKey, alg)
	}
	signer, err := jose.NewSigner(key, (&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	return jws.CompactSerialize()
}

// signatures are the Algorithms, as what reads tokens calls them.
var signatures = func() (all []jose.SignatureAlgorithm) {
	for _, alg := range Algorithms {
		all = append(all, jose.SignatureAlgorithm(alg))
	}
	return all
}()

// Verify checks that token is a JWT of kind typ that a published key of ours
// signed with the one algorithm it is for (RFC 8725, Section 3.1), and fills
// claims. It does not look at times: an ID token hint may be expired. The key is
// found by kid only; embedded keys and URLs are ignored (RFC 8725, Section 3.10).
// Every failure is ErrToken.
func (k *Keys) Verify(token, typ string, claims any) error {
	if len(token) > maxToken {
		return ErrToken
	}
	jws, err := jose.ParseSignedCompact(token, signatures)
	if err != nil || len(jws.Signatures) != 1 {
		return ErrToken
	}
	h := jws.Signatures[0].Protected
	key, ok := k.set.Load().public[h.KeyID]
	if !ok || key.Algorithm != h.Algorithm || h.ExtraHeaders[jose.HeaderType] != typ {
		return ErrToken
	}
	payload, err := jws.Verify(key)
	if err != nil {
		return ErrToken
	}
	if err := json.Unmarshal(payload, claims); err != nil {
		return ErrToken
	}
	return nil
}
