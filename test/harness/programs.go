package harness

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/pgtest"
)

// anyPort listens on a free port of this machine only.
const anyPort = "127.0.0.1:0"

// anyLookups lets tests ask what became of thousands of nonces. A later flag of the
// same name wins.
const anyLookups = "1000000"

// DevInfo is dev.json.
type DevInfo struct {
	PID              int    `json:"pid"`
	BaseURL          string `json:"base_url"`
	AdminURL         string `json:"admin_url"`
	SandboxURL       string `json:"sandbox_url"`
	AccountID        string `json:"account_id"`
	PublicAPIKey     string `json:"public_api_key"`
	PrivateSecretKey string `json:"private_secret_key"`
	AdminToken       string `json:"admin_token"`
}

// Keys are the seeded merchant's.
func (i DevInfo) Keys() Keys {
	return Keys{AccountID: i.AccountID, PublicAPIKey: i.PublicAPIKey, PrivateSecretKey: i.PrivateSecretKey}
}

// Operator speaks to the operator's API of this dev.
func (i DevInfo) Operator() Operator { return Operator{URL: i.AdminURL, Token: i.AdminToken} }

// Ledger is the sandbox's, the referee.
func (i DevInfo) Ledger() Ledger { return Ledger{URL: i.SandboxURL} }

// Dev is a running `payments dev`.
type Dev struct {
	*Process
	Info    DevInfo
	DataDir string
	// Took is how long it was from the start of the process to dev.json.
	Took time.Duration
}

// DevCommand is the command for a `dev` on a folder, on free ports.
func DevCommand(dataDir string, args ...string) Command {
	return Command{Args: append([]string{"dev", "--data-dir", dataDir, "--listen", anyPort, "--admin-listen", anyPort, "--lookup-rate", anyLookups}, args...)}
}

// StartDev starts `dev` on a folder and waits until it is ready.
func StartDev(t testing.TB, dataDir string, args ...string) *Dev {
	t.Helper()
	return AwaitDev(t, Start(t, DevCommand(dataDir, args...)), dataDir)
}

// AwaitDev waits until a `dev` that was started on that folder is ready.
func AwaitDev(t testing.TB, p *Process, dataDir string) *Dev {
	t.Helper()
	d := &Dev{Process: p, DataDir: dataDir}
	p.awaitReady(func() bool {
		info, err := ReadDevInfo(dataDir)
		d.Info = info
		return err == nil && info.PID == p.PID() // not an earlier one's
	})
	d.Took = time.Since(p.began)
	p.never = append(p.never, d.Info.PrivateSecretKey, d.Info.AdminToken)
	t.Cleanup(func() { // runs before the process's own, which by then finds nobody
		p.Kill()
		AwaitNobodyIn(t, dataDir)
	})
	return d
}

// ReadDevInfo reads the dev.json of a folder.
func ReadDevInfo(dataDir string) (DevInfo, error) {
	var info DevInfo
	data, err := os.ReadFile(filepath.Join(dataDir, "dev.json"))
	if err != nil {
		return info, err
	}
	return info, json.Unmarshal(data, &info)
}

// Sandbox is a provider that runs as its own process.
type Sandbox struct {
	*Process
	URL string
}

// Ledger is the referee.
func (s *Sandbox) Ledger() Ledger { return Ledger{URL: s.URL} }

// StartSandbox starts the provider on a folder.
func StartSandbox(t testing.TB, dataDir string) *Sandbox {
	t.Helper()
	s := &Sandbox{Process: Start(t, Command{Args: []string{"sandbox", "--listen", anyPort, "--data-dir", dataDir}})}
	s.awaitReady(func() bool { return told(s.Stdout(), "Sandbox", &s.URL) })
	return s
}

// Installation is what all instances of one installation share.
type Installation struct {
	DatabaseURL string
	ProviderURL string
	Secret      string
	AdminToken  string
	// OtherSecret is the last one or the next, while the secret is being changed.
	OtherSecret string
	// Roots are the authorities of the listeners' certificates; nil where they have none.
	Roots *x509.CertPool
}

// NewInstallation has secrets of its own.
func NewInstallation(databaseURL, providerURL string) Installation {
	return Installation{DatabaseURL: databaseURL, ProviderURL: providerURL, Secret: Unguessable("secret"), AdminToken: Unguessable("token")}
}

// ServeCommand is the command for one instance, on free ports. Nothing balances it, so
// that it stops without a delay.
func (i Installation) ServeCommand(args ...string) Command {
	env := []string{"DATABASE_URL=" + i.DatabaseURL, "PAYMENTS_SECRET=" + i.Secret, "PAYMENTS_SECRET_OTHER=" + i.OtherSecret,
		"PAYMENTS_ADMIN_TOKEN=" + i.AdminToken}
	if pgtest.Pooled(i.DatabaseURL) {
		env = append(env, "PAYMENTS_PGBOUNCER=true")
	}
	return Command{
		Args: append([]string{"serve", "--listen", anyPort, "--admin-listen", anyPort, "--provider-url", i.ProviderURL,
			"--drain-delay", "0s", "--lookup-rate", anyLookups}, args...),
		Env: env,
	}
}

// API is a running `payments serve`.
type API struct {
	*Process
	URL      string
	Operator Operator
}

// Serve starts one instance and waits until it is ready.
func (i Installation) Serve(t testing.TB, args ...string) *API {
	t.Helper()
	return i.ServeAs(t, i.ServeCommand(args...))
}

// ServeAs starts one instance by a command of the caller's.
func (i Installation) ServeAs(t testing.TB, c Command) *API {
	t.Helper()
	a := &API{Process: Start(t, c), Operator: Operator{Token: i.AdminToken, Roots: i.Roots}}
	a.never = append(a.never, i.Secret, i.AdminToken)
	if i.OtherSecret != "" {
		a.never = append(a.never, i.OtherSecret)
	}
	a.awaitReady(func() bool {
		out := a.Stdout()
		return told(out, "API", &a.URL) && told(out, "Operator", &a.Operator.URL)
	})
	return a
}

// told takes over the address that a process printed behind a name.
func told(out, name string, url *string) bool {
	u, ok := Told(out, name)
	if ok {
		*url = u
	}
	return ok
}

// Told is the address that a process printed behind a name, if it has.
func Told(out, name string) (url string, ok bool) {
	m := regexp.MustCompile(fmt.Sprintf(`(?m)^%s +(https?://\S+)\n`, name)).FindStringSubmatch(out)
	if m == nil {
		return "", false
	}
	return m[1], true
}
