package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/pat-authenticate/patauth/storage"
)

// installation is what `patauth dev` remembers in its folder: where it can be
// reached while it runs, and what it has seeded. It holds secrets of that
// installation and nothing else.
type installation struct {
	Issuer  string   `json:"issuer"`
	DSN     string   `json:"dsn"`
	Keyring string   `json:"keyring"`
	Redis   string   `json:"redis"`
	Kafka   []string `json:"kafka"`
	// AdminToken opens /admin/v1/ on the internal listener.
	AdminToken string `json:"admin_token"`

	Client             seededClient `json:"client"`
	ConfidentialClient seededClient `json:"confidential_client"`
	Portal             seededClient `json:"portal_client"`
	PortalURL          string       `json:"portal"`
	ActivationCodes    []activation `json:"activation_codes"`
}

type seededClient struct {
	ID           string   `json:"id"`
	Secret       string   `json:"secret,omitempty"`
	RedirectURIs []string `json:"redirect_uris"`
}

// activation is a seeded lab record and how to link it.
type activation struct {
	Authority string `json:"authority"`
	Record    string `json:"record"`
	Name      string `json:"name"`
	BirthDate string `json:"birth_date"`
	Code      string `json:"code"`
}

const installationFile = "dev.json"

// readInstallation reads the folder's memory; a new folder has none.
func readInstallation(dir string) (installation, error) {
	var i installation
	b, err := os.ReadFile(filepath.Join(dir, installationFile))
	if errors.Is(err, fs.ErrNotExist) {
		return i, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &i)
	}
	if err != nil {
		return i, fmt.Errorf("read %s: %w", installationFile, err)
	}
	return i, nil
}

func (i installation) write(dir string) error {
	if err := writeJSON(filepath.Join(dir, installationFile), i); err != nil {
		return fmt.Errorf("write %s: %w", installationFile, err)
	}
	return nil
}

// installed is the configuration of the `patauth dev` that keeps its data in dir.
func installed(dir string) (Config, error) {
	i, err := readInstallation(dir)
	if err == nil && i.DSN == "" {
		err = errors.New("patauth dev has not run there")
	}
	if err != nil {
		return Config{}, fmt.Errorf("--data %s: %w", dir, err)
	}
	c := defaults()
	c.Mode, c.Issuer = development, i.Issuer
	c.Storage.DSN, c.Storage.Keyring = Secret(i.DSN), i.Keyring
	c.Redis.URL, c.Kafka.Brokers = Secret(i.Redis), i.Kafka
	c.Outbound.Networks = thisMachine
	return c, nil
}

// thisMachine is where the portal and the clients under test are. Where dev runs,
// which is never in production mode, they may be told of sign-outs there.
var thisMachine = []string{"127.0.0.0/8", "::1/128"}

// occupy takes the folder for this process, so that a second one does not write
// into it. The folder is made where there is none, for its owner alone.
func occupy(dir string) (leave func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = errors.New("another patauth dev runs there")
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return func() { f.Close() }, nil
}

// ownKeyring makes the folder's keyring once. Without it the database cannot be
// read, so a lost one is not replaced.
func ownKeyring(dir string) (path string, err error) {
	path = filepath.Join(dir, "keyring.json")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if _, err := os.Stat(filepath.Join(dir, "patauth.db")); err == nil {
		return "", fmt.Errorf("%s is lost, and with it the data in %s: remove the folder to start anew", path, dir)
	}
	return path, writeJSON(path, storage.NewKeyring())
}
