package oauth

import (
	"slices"
	"strings"

	"github.com/pat-authenticate/patauth/storage"
)

// standard are the standard claims of a patient by the scope that opens them
// (OpenID Connect Core, Sections 5.1 and 5.4). Claims without a value are left
// out: Section 5.3.2, "it SHOULD NOT be present with a null or empty string
// value."
func standard(p storage.Patient) map[string]map[string]any {
	profile := filled(map[string]string{
		"name":       together(" ", p.GivenName, p.More.MiddleName, p.FamilyName),
		"given_name": p.GivenName, "middle_name": p.More.MiddleName, "family_name": p.FamilyName,
		"nickname": p.More.Nickname, "preferred_username": p.More.PreferredUsername,
		"profile": p.More.Profile, "picture": p.More.Picture, "website": p.More.Website,
		"gender": p.More.Gender, "birthdate": p.BirthDate, "zoneinfo": p.More.Zoneinfo,
		"locale": p.Locale, // BCP 47 already
	})
	profile["updated_at"] = p.UpdatedAt.Unix()
	email := filled(map[string]string{"email": p.Email})
	email["email_verified"] = p.EmailVerifiedAt != nil
	phone := filled(map[string]string{"phone_number": p.More.PhoneNumber})
	if len(phone) > 0 {
		phone["phone_number_verified"] = p.More.PhoneVerifiedAt != nil
	}
	address := map[string]any{}
	if a := postal(p.More.Address); len(a) > 0 {
		address["address"] = a
	}
	return map[string]map[string]any{"profile": profile, "email": email, "phone": phone, "address": address}
}

// postal is the claim address (Section 5.1.1). formatted is as on an envelope; it
// "MAY contain multiple lines, separated by newlines".
func postal(a storage.Address) map[string]any {
	return filled(map[string]string{
		"formatted":      together("\n", a.Street, together(" ", a.PostalCode, a.Locality), a.Region, a.Country),
		"street_address": a.Street, "locality": a.Locality, "region": a.Region, "postal_code": a.PostalCode, "country": a.Country,
	})
}

// filled are the claims that have a value.
func filled(all map[string]string) map[string]any {
	out := map[string]any{}
	for name, value := range all {
		if value != "" {
			out[name] = value
		}
	}
	return out
}

// together are the parts that there are, sep between them.
func together(sep string, parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), sep)
}
