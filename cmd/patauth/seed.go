package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/pat-authenticate/patauth/lis"
	"github.com/pat-authenticate/patauth/provider/oauth"
	"github.com/pat-authenticate/patauth/storage"
)

// testCallback is where clients under test are called back.
const testCallback = "http://127.0.0.1:9999/callback"

// seed makes what a newcomer and a test need, once; a restart finds it again.
func (i *installation) seed(ctx context.Context, db *storage.DB, portalURL string) error {
	everything := storage.Words{"openid", "profile", "email", "address", "phone", "offline_access", "lab"}
	if i.Client.ID == "" {
		made, err := seedClient(ctx, db, storage.Client{
			Name: "Test app", AuthMethods: storage.Words{"none"}, RedirectURIs: storage.Strings{testCallback},
			PostLogoutRedirectURIs: storage.Strings{testCallback, "http://127.0.0.1:9999/"},
			GrantTypes:             storage.Words{"authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"}, Scopes: everything,
		})
		if err != nil {
			return err
		}
		i.Client = made
	}
	if i.ConfidentialClient.ID == "" {
		made, err := seedClient(ctx, db, storage.Client{
			Name: "Test service", AuthMethods: oauth.SecretMethods,
			RedirectURIs:           storage.Strings{testCallback},
			PostLogoutRedirectURIs: storage.Strings{testCallback, "http://127.0.0.1:9999/"},
			GrantTypes:             storage.Words{"authorization_code", "refresh_token", "client_credentials"}, Scopes: everything,
			CanIntrospect: true,
		})
		if err != nil {
			return err
		}
		i.ConfidentialClient = made
	}
	// The portal's redirect URIs hold its port, which may be another next time.
	if i.Portal.ID == "" || i.PortalURL != portalURL {
		made, err := seedClient(ctx, db, storage.Client{
			Name: "Riverside Clinic portal", AuthMethods: oauth.SecretMethods,
			RedirectURIs:           storage.Strings{portalURL + "/callback"},
			PostLogoutRedirectURIs: storage.Strings{portalURL + "/"},
			GrantTypes:             storage.Words{"authorization_code", "refresh_token"}, Scopes: everything,
			Metadata: storage.ClientMetadata{BackchannelLogoutURI: portalURL + "/backchannel-logout", BackchannelLogoutSessionRequired: true},
		})
		if err != nil {
			return err
		}
		i.Portal, i.PortalURL = made, portalURL
	}
	if len(i.ActivationCodes) == 0 {
		codes, err := seedRecords(ctx, db)
		if err != nil {
			return err
		}
		i.ActivationCodes = codes
	}
	return nil
}

func seedClient(ctx context.Context, db *storage.DB, n storage.Client) (seededClient, error) {
	secret, err := createClient(ctx, db, &n)
	return seededClient{ID: n.ID, Secret: secret, RedirectURIs: n.RedirectURIs}, err
}

// authorities are those whom the feed of a development installation may name:
// 2.999 is the arc for examples (ITU-T X.660).
var authorities = []storage.LabAuthority{
	{ID: "lab1", Name: "Riverside Laboratory", OID: "2.999.1", Namespaces: storage.Strings{"LAB1", "LAB"}, URIs: storage.Strings{"urn:oid:2.999.1"}},
	{ID: "lab2", Name: "Hill Laboratory", OID: "2.999.2", Namespaces: storage.Strings{"LAB2"}, URIs: storage.Strings{"urn:oid:2.999.2"}},
	{ID: "adt1", Name: "Riverside Hospital", Namespaces: storage.Strings{"ADT1"}},
	{ID: "synthea", Name: "Synthetic Hospital", URIs: storage.Strings{"https://github.com/synthetichealth/synthea", "http://hospital.smarthealthit.org"}},
}

// seedRecords makes lab records that nobody has linked yet.
func seedRecords(ctx context.Context, db *storage.DB) ([]activation, error) {
	for _, a := range authorities {
		a.LinkKey, a.Active = true, true
		if err := db.UpsertLabAuthority(ctx, a); err != nil {
			return nil, fmt.Errorf("authority %s: %w", a.ID, err)
		}
	}
	var out []activation
	for _, r := range []struct{ value, given, family, birth string }{
		{"R-1001", "Grace", "Example", "1975-12-10"},
		{"R-1002", "Erika", "Mustermann", "1964-08-12"},
		{"R-1003", "Max", "Beispiel", "1990-02-28"},
	} {
		code, err := seedRecord(ctx, db, r.value, r.given, r.family, r.birth)
		if err != nil {
			return nil, fmt.Errorf("record %s: %w", r.value, err)
		}
		out = append(out, activation{Authority: authorities[0].ID, Record: r.value, Name: r.given + " " + r.family, BirthDate: r.birth, Code: code})
	}
	return out, nil
}

// seedRecord makes a record by a message of the feed, and its activation code.
func seedRecord(ctx context.Context, db *storage.DB, value, given, family, birth string) (code string, err error) {
	message := fmt.Sprintf("MSH|^~\\&|LIS|LAB1|PATAUTH||20250101120000||ADT^A28^ADT_A05|SEED-%s|P|2.5.1\r"+
		"EVN|A28|20250101120000\r"+
		"PID|1||%s^^^LAB1&2.999.1&ISO^MR||%s^%s||%s\r", value, value, family, given, strings.ReplaceAll(birth, "-", ""))
	outcomes, err := lis.ApplyRecords(ctx, db, []lis.Record{{
		Topic: "seed", Timestamp: storage.Now(), Value: []byte(message),
		Headers: []lis.Header{{Key: "content-type", Value: []byte("application/hl7-v2")}},
	}}, lis.Reading{})
	if err != nil {
		return "", err
	}
	if o := outcomes[0]; o.Outcome != storage.LabApplied && o.Outcome != storage.LabDuplicate {
		return "", fmt.Errorf("the message was %s: %s", o.Outcome, o.Reason)
	}
	r, err := db.LabIdentityByKey(ctx, storage.LabKey{Authority: authorities[0].ID, Value: value})
	if err != nil {
		return "", err
	}
	return db.NewInvitation(ctx, r.ID, storage.Now().AddDate(10, 0, 0))
}
