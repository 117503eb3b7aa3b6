package storage_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pat-authenticate/patauth/storage"
	"github.com/pat-authenticate/patauth/storage/storagetest"
)

// Who may write to the database and has no key of the keyring gains nothing from
// rows of their own account.
func TestACopiedRowOpensNothing(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		attacker, victim := somebody(t, db, "attacker@example.org"), somebody(t, db, "victim@example.org")
		mine := map[string]string{}
		for _, p := range []storage.Patient{attacker, victim} {
			require.NoError(t, db.SetPassword(ctx, p.ID, "phc of "+p.ID, storage.Now()))
			for _, kind := range []string{storage.KindTOTP, storage.KindPasskey} {
				c := storage.Credential{PatientID: p.ID, Kind: kind, Secret: []byte(kind + " of " + p.ID)}
				if kind == storage.KindPasskey {
					c.ExternalID = storage.NewID()
				}
				require.NoError(t, db.AddCredential(ctx, &c))
			}
		}
		all, err := db.Credentials(ctx, attacker.ID)
		require.NoError(t, err)
		require.Len(t, all, 3)
		for _, c := range all {
			mine[c.Kind] = c.ID
		}
		secrets := func() (out []string) {
			all, err := db.Credentials(ctx, victim.ID)
			require.NoError(t, err)
			for _, c := range all {
				out = append(out, string(c.Secret))
			}
			return out
		}
		own := []string{"phc of " + victim.ID, "totp of " + victim.ID, "passkey of " + victim.ID}
		require.ElementsMatch(t, own, secrets())

		copyRow := `UPDATE credential SET secret = (SELECT secret FROM credential WHERE id = ?) WHERE patient_id = ? AND kind = 'password'`
		require.NoError(t, db.Exec(copyRow, mine[storage.KindPassword], victim.ID))
		require.ElementsMatch(t, own, secrets(), "what the previous release reads counts for nothing")

		for _, kind := range []string{storage.KindTOTP, storage.KindPasskey} {
			require.NoError(t, db.Exec("UPDATE credential SET patient_id = ? WHERE id = ?", victim.ID, mine[kind]))
			require.ElementsMatch(t, own, secrets(), "a row moved to another patient: %s", kind)
		}
		var moved storage.Credential
		for _, c := range all {
			if c.Kind == storage.KindPasskey {
				moved = c
			}
		}
		_, err = db.CredentialByExternalID(ctx, moved.ExternalID)
		require.ErrorIs(t, err, storage.ErrNotFound)

		copyBound := `UPDATE credential SET bound = (SELECT bound FROM credential WHERE id = ?) WHERE patient_id = ? AND kind = 'password'`
		require.NoError(t, db.Exec(copyBound, mine[storage.KindPassword], victim.ID))
		require.NotContains(t, secrets(), "phc of "+attacker.ID)
	})
}

// The rows of the previous release go on to open their accounts, are bound to them,
// and open nothing once unbound ones are refused.
func TestRowsOfThePreviousReleaseAreBound(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		p := somebody(t, db, "ada@example.org")
		require.NoError(t, db.SetPassword(ctx, p.ID, "phc", storage.Now()))
		require.NoError(t, db.AddCredential(ctx, &storage.Credential{PatientID: p.ID, Kind: storage.KindTOTP, Secret: []byte("seed")}))
		require.NoError(t, db.Exec("UPDATE credential SET bound = NULL"))
		secrets := func(db *storage.DB) (out []string) {
			all, err := db.Credentials(ctx, p.ID)
			require.NoError(t, err)
			for _, c := range all {
				out = append(out, string(c.Secret))
			}
			return out
		}
		require.ElementsMatch(t, []string{"phc", "seed"}, secrets(db))
		require.Empty(t, secrets(db.RefuseUnbound()))

		n, err := db.RefuseUnbound().BindCredentials(ctx, 1)
		require.NoError(t, err)
		require.Zero(t, n, "where they are refused nobody makes them good")
		for _, want := range []int{1, 1, 0} {
			n, err := db.BindCredentials(ctx, 1)
			require.NoError(t, err)
			require.Equal(t, want, n)
		}
		left, err := db.CountUnbound(ctx)
		require.NoError(t, err)
		require.Zero(t, left)
		require.ElementsMatch(t, []string{"phc", "seed"}, secrets(db.RefuseUnbound()))
	})
}

// A client's secret is its own, also where its digest was copied by who can write
// to the database.
func TestACopiedClientSecretOpensNothing(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		ctx := context.Background()
		make := func(name string) (storage.Client, string) {
			c := storage.Client{Name: name, AuthMethods: storage.Words{"client_secret_basic"}}
			secret := db.NewClientSecret(&c)
			require.NoError(t, db.CreateClient(ctx, &c))
			return c, secret
		}
		attacker, mine := make("attacker")
		victim, hers := make("victim")
		valid := func(db *storage.DB, id, secret string) bool {
			c, err := db.Client(ctx, id)
			require.NoError(t, err)
			return db.ClientSecretValid(&c, secret)
		}
		require.True(t, valid(db, victim.ID, hers))
		require.True(t, valid(db.RefuseUnbound(), victim.ID, hers))
		require.NoError(t, db.Exec("UPDATE client SET secrets = (SELECT secrets FROM client WHERE id = ?) WHERE id = ?", attacker.ID, victim.ID))
		require.False(t, valid(db, victim.ID, mine))

		// As the previous release has written it.
		require.NoError(t, db.Exec(`UPDATE client SET secrets = replace(secrets, '"bound"', '"x"') WHERE id = ?`, attacker.ID))
		require.True(t, valid(db, attacker.ID, mine))
		require.False(t, valid(db.RefuseUnbound(), attacker.ID, mine))
		n, err := db.BindClients(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.True(t, valid(db.RefuseUnbound(), attacker.ID, mine))
	})
}
