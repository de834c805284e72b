package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/oncepay/oncepay/internal/admin"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/providers"
	"github.com/oncepay/oncepay/internal/providers/sandbox"
)

// serveCmd runs one instance of the API.
type serveCmd struct {
	serverFlags
	// Not a flag of dev's, which nobody balances: there a stop is to be quick. The
	// default covers a cluster that withdraws an endpoint (a second or two) and a
	// balancer that asks every second and believes the third bad answer.
	DrainDelay time.Duration `default:"5s" help:"How long a stop goes on accepting requests, unready, so that balancers notice."`
}

// Help says what the environment must hold.
func (serveCmd) Help() string {
	return "Needs DATABASE_URL, PAYMENTS_SECRET (the installation's secret, at least 32 bytes, the same on every instance), " +
		"PAYMENTS_ADMIN_TOKEN (at least 32 bytes) and --provider-url. Run `payments migrate up` first."
}

// Run serves until ctx ends.
func (c serveCmd) Run(ctx context.Context, s streams) error {
	t, err := c.times()
	if err != nil {
		return err
	}
	l, err := c.limits()
	if err != nil {
		return err
	}
	url, err := databaseURL()
	if err != nil {
		return err
	}
	secret, token := os.Getenv(envSecret), os.Getenv(envAdminToken)
	switch {
	case len(secret) < idem.MinSecretLength:
		return usage("%s must hold at least %d bytes, such as the output of `openssl rand -hex 32`", envSecret, idem.MinSecretLength)
	case len(token) < admin.MinTokenLength:
		return usage("%s must hold at least %d bytes, such as the output of `openssl rand -hex 32`", envAdminToken, admin.MinTokenLength)
	case c.DrainDelay < 0:
		return usage("--drain-delay must not be negative")
	case c.ProviderURL == "":
		return usage("--provider-url is required: the URL of a sandbox, such as one that `payments sandbox` runs")
	}
	provider, err := sandboxAt(c.ProviderURL, t)
	if err != nil {
		return err
	}
	a, err := startApp(ctx, appConfig{
		databaseURL: url, secret: []byte(secret), adminToken: token, listen: c.Listen, adminListen: c.AdminListen, times: t,
		limits: l, drain: c.DrainDelay,
		providers: map[string]providers.Provider{merchants.Test: provider}, log: newLog(s.err),
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "API       http://%s\nOperator  http://%s\n", a.publicAddr, a.operatorAddr)
	err = a.wait(ctx, nil)
	return errors.Join(err, a.stop(ctx))
}

// sandboxAt is the adapter to the sandbox at url.
func sandboxAt(url string, t times) (*sandbox.Adapter, error) {
	a, err := sandbox.NewAdapter(url, sandbox.AdapterOptions{Timeout: t.providerTimeout, Settle: t.settle, Withhold: withheld()})
	if err != nil {
		return nil, usage("--provider-url: %w", err)
	}
	return a, nil
}

// newLog writes JSON lines: one a request, and what an operator must know.
func newLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, nil))
}
