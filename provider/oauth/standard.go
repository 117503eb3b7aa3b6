package oauth

import (
	"strings"

	"github.com/pat-authenticate/patauth/storage"
)

// standard are the standard claims of a patient by the scope that opens them.
func standard(p storage.Patient) map[string]map[string]any {
	profile := map[string]any{"updated_at": p.UpdatedAt.Unix()}
	for name, value := range map[string]string{
		"name": strings.TrimSpace(p.GivenName + " " + p.FamilyName), "given_name": p.GivenName, "family_name": p.FamilyName,
		"birthdate": p.BirthDate, "locale": p.Locale,
	} {
		if value != "" {
			profile[name] = value
		}
	}
	return map[string]map[string]any{
		"profile": profile,
		"email":   {"email": p.Email, "email_verified": p.EmailVerifiedAt != nil},
	}
}
