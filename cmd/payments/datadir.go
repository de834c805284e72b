package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/merchants"
)

// Files of a data directory.
const (
	devFile     = "dev.json"
	secretsFile = "secrets.json"
	lockFile    = "lock"
)

func postgresDir(dataDir string) string { return filepath.Join(dataDir, "postgres") }
func sandboxDir(dataDir string) string  { return filepath.Join(dataDir, "sandbox") }

// lockDataDir makes sure that one `dev` at a time uses a folder. The lock goes
// with the process, however it ends.
func lockDataDir(dir string) (release func(), err error) {
	mode := fs.FileMode(0o700)
	if os.Geteuid() == 0 {
		// Where root's PostgreSQL has to run as another user, that one passes through.
		// The files in it are private all the same.
		mode = 0o711
	}
	if err := os.MkdirAll(dir, mode); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		owner := make([]byte, 20)
		n, _ := f.Read(owner) // for the message only
		_ = f.Close()
		return nil, unavailableError("another `payments dev` (pid %s) is running on %s; stop it, or choose another folder with --data-dir",
			strings.TrimSpace(string(owner[:n])), dir)
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid()))); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the data directory: %w", err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text+"\n"), 0)
	return err
}

// secrets are what a `dev` installation keeps from one run to the next.
type secrets struct {
	InstallationSecret string            `json:"installation_secret"`
	AdminToken         string            `json:"admin_token"`
	AccountID          uuid.UUID         `json:"account_id"`
	Test               merchants.KeyPair `json:"test"`
	Live               merchants.KeyPair `json:"live"`
}

// loadSecrets reads the folder's secrets, or draws them if there are none yet.
func loadSecrets(dir string) (secrets, error) {
	path := filepath.Join(dir, secretsFile)
	data, err := os.ReadFile(path)
	var s secrets
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s = secrets{
			InstallationSecret: rand.Text() + rand.Text(), AdminToken: rand.Text() + rand.Text(), AccountID: uuid.Must(uuid.NewV7()),
			Test: merchants.NewKeyPair(merchants.Test), Live: merchants.NewKeyPair(merchants.Live),
		}
		return s, writePrivately(path, s)
	case err != nil:
		return s, fmt.Errorf("read %s: %w", path, err)
	}
	if json.Unmarshal(data, &s) != nil || s.AccountID == uuid.Nil || s.InstallationSecret == "" || s.AdminToken == "" ||
		s.Test.PrivateSecretKey == "" || s.Live.PrivateSecretKey == "" {
		return s, fmt.Errorf("%s cannot be read as the secrets of an installation; restore it, or choose another folder with --data-dir", path)
	}
	return s, nil
}

// writePrivately writes v as JSON that only its owner can read, all or nothing.
func writePrivately(path string, v any) (err error) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// devInfo is dev.json: where a running `dev` is and how to speak to it.
type devInfo struct {
	PID              int    `json:"pid"`
	BaseURL          string `json:"base_url"`
	AdminURL         string `json:"admin_url"`
	SandboxURL       string `json:"sandbox_url"`
	AccountID        string `json:"account_id"`
	PublicAPIKey     string `json:"public_api_key"`
	PrivateSecretKey string `json:"private_secret_key"`
	AdminToken       string `json:"admin_token"`
	DatabaseURL      string `json:"database_url"`
}

func readDevInfo(dir string) (devInfo, error) {
	var d devInfo
	data, err := os.ReadFile(filepath.Join(dir, devFile))
	if err != nil {
		return d, err
	}
	return d, json.Unmarshal(data, &d)
}
