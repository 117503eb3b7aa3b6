package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/templates"
)

// claimsMax bounds a file of claims in bytes.
const claimsMax = 64 << 10

// readClaims is the patient whom a file of standard claims tells of.
func readClaims(path string, now time.Time) (storage.Patient, error) {
	f, err := os.Open(path)
	if err != nil {
		return storage.Patient{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, claimsMax+1))
	if err != nil {
		return storage.Patient{}, err
	}
	if len(b) > claimsMax {
		return storage.Patient{}, fmt.Errorf("is longer than %d bytes", claimsMax)
	}
	return parseClaims(b, now)
}

// parseClaims reads a JSON object of the standard claims of OpenID Connect Core,
// Section 5.1, as an ID token could hold them, and says everything that is wrong
// with it. What is verified, was so now.
func parseClaims(b []byte, now time.Time) (storage.Patient, error) {
	var p storage.Patient
	var mailbox, phone bool
	m, a := &p.More, &p.More.Address
	err := readMembers(b, map[string]any{
		"given_name": &p.GivenName, "middle_name": &m.MiddleName, "family_name": &p.FamilyName,
		"nickname": &m.Nickname, "preferred_username": &m.PreferredUsername,
		"profile": &m.Profile, "picture": &m.Picture, "website": &m.Website,
		"gender": &m.Gender, "birthdate": &p.BirthDate, "zoneinfo": &m.Zoneinfo, "locale": &p.Locale,
		"email": &p.Email, "email_verified": &mailbox, "phone_number": &m.PhoneNumber, "phone_number_verified": &phone,
		"address": map[string]any{
			"street_address": &a.Street, "locality": &a.Locality, "region": &a.Region, "postal_code": &a.PostalCode, "country": &a.Country,
		},
	})
	if mailbox {
		p.EmailVerifiedAt = &now
	}
	if phone {
		m.PhoneVerifiedAt = &now
	}
	return p, err
}

// made are the claims that follow from others.
var made = []string{"sub", "name", "updated_at", "formatted"}

// readMembers writes the members of a JSON object where into says: to strings, bools,
// and, for an object, on by the same rule. null says nothing. Names are compared
// exactly.
func readMembers(b []byte, into map[string]any) error {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil || all == nil {
		return errors.New("must be a JSON object")
	}
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(all)) {
		bad := func(format string, args ...any) {
			faults = append(faults, fmt.Errorf("%.40q: "+format, append([]any{name}, args...)...))
		}
		switch to := into[name].(type) {
		case nil:
			if slices.Contains(made, name) {
				bad("is made by patauth itself")
			} else {
				bad("is no standard claim")
			}
		case map[string]any:
			if err := readMembers(all[name], to); err != nil && string(all[name]) != "null" {
				bad("%w", err)
			}
		case *string:
			if json.Unmarshal(all[name], to) != nil {
				bad("must be a string")
			}
		default:
			if json.Unmarshal(all[name], to) != nil {
				bad("must be true or false")
			}
		}
	}
	return errors.Join(faults...)
}

// checkPatient brings what an operator says about a patient into its one
// spelling, and says everything that is wrong with it.
func checkPatient(p *storage.Patient, now time.Time) error {
	var faults []error
	bad := func(is bool, format string, args ...any) {
		if is {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	email, err := storage.ParseEmail(p.Email)
	bad(err != nil, "--email: %w", err)
	p.Email, p.GivenName, p.FamilyName, p.More = email, storage.NormalName(p.GivenName), storage.NormalName(p.FamilyName), p.More.Normal()
	bad(p.GivenName != "" && !storage.GoodName(p.GivenName), "--given-name: must have at most 100 characters, none of them invisible, < or >")
	bad(p.FamilyName != "" && !storage.GoodName(p.FamilyName), "--family-name: must have at most 100 characters, none of them invisible, < or >")
	bad(p.BirthDate != "" && !storage.GoodBirthDate(p.BirthDate, now), "--birth-date: must be a day since 1880, YYYY-MM-DD")
	if p.Locale != "" {
		pages, err := templates.New("")
		if err != nil {
			return err
		}
		bad(!slices.Contains(pages.Langs, p.Locale), "--locale: must be of %s", strings.Join(pages.Langs, ", "))
	}
	bad(p.More.PhoneVerifiedAt != nil && p.More.PhoneNumber == "", "--claims: phone_number_verified needs a phone_number")
	for _, claim := range p.More.Faults() {
		bad(true, "--claims: %s: %s", claim, rules[claim])
	}
	return errors.Join(faults...)
}

// rules say what storage asks of a claim.
var rules = func() map[string]string {
	text, link := "must have at most 100 characters, none of them invisible, < or >", "must be an https URL of at most 500 bytes"
	return map[string]string{
		"middle_name": text, "nickname": text, "preferred_username": text, "gender": text,
		"profile": link, "picture": link, "website": link,
		"zoneinfo": "must be a time zone such as Europe/Berlin", "phone_number": "must be an international number such as +4930123456",
		"street_address": "must have at most four lines of 100 characters", "locality": text, "region": text, "postal_code": text, "country": text,
	}
}()
