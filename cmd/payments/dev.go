package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/oncepay/oncepay/internal/demo"
	"github.com/oncepay/oncepay/internal/localpg"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/providers"
)

// devCmd is the whole thing on loopback.
type devCmd struct {
	serverFlags
	DataDir string `default:".data" help:"Folder for database, ledger and keys; one dev at a time." type:"path"`
}

// Help says what it starts.
func (devCmd) Help() string {
	return "Starts a private PostgreSQL, or uses and migrates the database of DATABASE_URL; a merchant with keys for test " +
		"and live mode, the sandbox provider, the API, a shop at /demo and the operator's listener. Keeps all of it in one folder."
}

// postgresStop bounds the private server's orderly stop.
const postgresStop = 20 * time.Second

// defaultDataDir is the flags' default, relative to where they are typed.
const defaultDataDir = ".data"

// devName is the seeded merchant's.
const devName = "Sandbox merchant"

// Run runs until ctx ends.
func (c devCmd) Run(ctx context.Context, s streams) (err error) {
	t, l, publicURL, err := c.settings()
	if err != nil {
		return err
	}
	if !onLoopback(c.AdminListen) {
		return usage("--admin-listen must be on loopback, such as 127.0.0.1:8081: `payments serve` can have it elsewhere, with TLS")
	}
	unlock, err := lockDataDir(c.DataDir)
	if err != nil {
		return err
	}
	defer unlock()
	devJSON := filepath.Join(c.DataDir, devFile)
	if err := os.Remove(devJSON); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the last run's %s: %w", devFile, err)
	}
	sec, err := loadSecrets(c.DataDir)
	if err != nil {
		return err
	}

	// Each part is stopped after those that need it.
	url, died, stopPostgres, err := c.database(ctx, s.err)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopPostgres()) }()
	fmt.Fprintln(s.err, "migrating the database …")
	if err := migrateUp(ctx, url, nil); err != nil {
		return err
	}
	callbackSecret, err := devCallbackSecret(sec.InstallationSecret)
	if err != nil {
		return err
	}
	if c.ProviderURL == "" {
		p, startErr := startSandbox(ctx, "127.0.0.1:0", sandboxDir(c.DataDir), callbackSecret)
		if startErr != nil {
			return startErr
		}
		defer func() { err = errors.Join(err, p.stop(ctx)) }()
		c.ProviderURL = p.url
	}
	provider, err := sandboxAt(c.ProviderURL, t, callbackSecret)
	if err != nil {
		return err
	}
	a, err := startApp(ctx, appConfig{
		databaseURL: url, secret: []byte(sec.InstallationSecret), adminToken: sec.AdminToken,
		listen: c.Listen, adminListen: c.AdminListen, times: t, limits: l, rawLiveCards: true, bareKeys: c.IETFBareKeys, log: newLog(s.err),
		providers: map[string]providers.Provider{merchants.Test: provider, merchants.Live: provider}, publicURL: publicURL, callBackHere: true,
		demo: &demo.Options{
			AccountID: sec.AccountID.String(), PublicKey: sec.Test.PublicAPIKey, SecretKey: sec.Test.PrivateSecretKey, Bank: c.ProviderURL,
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.stop(ctx)) }()
	m := merchants.Merchant{AccountID: sec.AccountID, Name: devName, IdempotencyPolicy: "yuno"}
	if err := a.auth.Ensure(ctx, m, sec.Test, sec.Live); err != nil {
		return err
	}
	if err := c.announce(s, a, sec, url); err != nil {
		return err
	}
	a.welcome(ctx, s.out)
	return a.wait(ctx, died)
}

// announce writes down where everything is, and says so.
func (c devCmd) announce(s streams, a *app, sec secrets, databaseURL string) error {
	info := devInfo{
		PID: os.Getpid(), BaseURL: "http://" + a.publicAddr, AdminURL: "http://" + a.operatorAddr, SandboxURL: c.ProviderURL,
		AccountID: sec.AccountID.String(), PublicAPIKey: sec.Test.PublicAPIKey, PrivateSecretKey: sec.Test.PrivateSecretKey,
		AdminToken: sec.AdminToken, DatabaseURL: databaseURL,
	}
	if err := writePrivately(filepath.Join(c.DataDir, devFile), info); err != nil {
		return fmt.Errorf("write %s: %w", devFile, err)
	}
	banner(s.out, info, c.DataDir)
	return nil
}

// devCallbackSecret is what the sandbox signs its callbacks with: that of the
// environment, for a sandbox that runs elsewhere, or one that follows from the
// installation's, as HMAC-SHA-256.
func devCallbackSecret(installation string) ([]byte, error) {
	if given, err := setting(envCallbackSecret); given != "" || err != nil {
		return []byte(given), errors.Join(err, checkCallbackSecret(given))
	}
	h := hmac.New(sha256.New, []byte(installation))
	h.Write([]byte("callbacks of the sandbox"))
	return h.Sum(nil), nil
}

// database is the one of DATABASE_URL, or a private server in the data directory.
func (c devCmd) database(ctx context.Context, progress io.Writer) (url string, died <-chan struct{}, stop func() error, err error) {
	if url, err := databaseSetting(envDatabaseURL); err != nil || url != "" {
		return url, nil, func() error { return nil }, err
	}
	fmt.Fprintln(progress, "starting PostgreSQL in", postgresDir(c.DataDir), "…")
	pg, err := localpg.Start(ctx, localpg.Options{Dir: postgresDir(c.DataDir), Database: "oncepay", BinDir: os.Getenv(envPGBinDir)})
	if err != nil {
		return "", nil, nil, unavailableError("%w", err)
	}
	return pg.URL(), pg.Done(), func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), postgresStop)
		defer cancel()
		return pg.Stop(ctx)
	}, nil
}

// banner says where everything is, and gives three lines to paste.
func banner(w io.Writer, d devInfo, dataDir string) {
	auth := fmt.Sprintf("-H 'public-api-key: %s' -H 'private-secret-key: %s'", d.PublicAPIKey, d.PrivateSecretKey)
	create := fmt.Sprintf(`curl -si %s/v1/payments %s -H 'X-Idempotency-Key: my-first-key' -H 'Content-Type: application/json' `+
		`-d '{"account_id":"%s","merchant_order_id":"order-1","description":"A test payment","country":"US",`+
		`"amount":{"currency":"USD","value":45.67},"workflow":"DIRECT","payment_method":{"type":"CARD","detail":{"card":{"card_data":`+
		`{"number":"4507990000000002","holder_name":"John Doe","expiration_month":11,"expiration_year":28,"security_code":"123"}}}}}'`,
		d.BaseURL, auth, d.AccountID)
	lookup := "payments lookup my-first-key"
	if usual, err := filepath.Abs(defaultDataDir); err != nil || usual != dataDir {
		lookup += " --data-dir " + dataDir
	}
	fmt.Fprintf(w, `
Oncepay is ready. One nonce moves money at most once.

  API       %s/v1
  Shop      %s/demo
  Operator  %s   (its API: /admin/v1, with Authorization: Bearer %s)
  Sandbox   %s/sandbox/v1/ledger
  Account   %s
  Keys      public-api-key: %s
            private-secret-key: %s
  Data      %s

Create a payment:

%s

Run the same line again: the answer is replayed, byte for byte. Change the amount: it still is.

Retry it as a client would after a lost answer:

%s

Ask what became of the nonce, here or with `+"`"+lookup+"`"+`:

curl -s %s/v1/idempotency-keys/my-first-key %s

Ctrl-C stops everything; the data stays.

`, d.BaseURL, d.BaseURL, d.AdminURL, d.AdminToken, d.SandboxURL, d.AccountID, d.PublicAPIKey, d.PrivateSecretKey, dataDir, create, create, d.BaseURL, auth)
}
