package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/providers"
	"github.com/oncepay/oncepay/internal/providers/sandbox"
)

// serveCmd runs one instance of the API.
type serveCmd struct {
	serverFlags
	tlsFlags
	// Not a flag of dev's, which nobody balances: there a stop is to be quick. The
	// default covers a cluster that withdraws an endpoint (a second or two) and a
	// balancer that asks every second and believes the third bad answer.
	DrainDelay time.Duration `default:"5s" help:"How long a stop goes on accepting requests, unready, so that balancers notice; not negative, 0 where nothing balances."`
	PgBouncer  bool          `name:"pgbouncer" help:"DATABASE_URL leads to PgBouncer in transaction mode: isolation and time-outs are the role's settings, and a start without them is refused."`
}

// Help says what the environment must hold.
func (serveCmd) Help() string {
	return "Needs DATABASE_URL, PAYMENTS_SECRET (the installation's secret, at least 32 bytes, the same on every instance), " +
		"PAYMENTS_ADMIN_TOKEN (at least 32 bytes) and --provider-url. Each of the three may be in a file that " +
		"DATABASE_URL_FILE, PAYMENTS_SECRET_FILE or PAYMENTS_ADMIN_TOKEN_FILE names. Run `payments migrate up` first: " +
		"a schema that is too old or too new is refused, and never changed."
}

// Run serves until ctx ends.
func (c serveCmd) Run(ctx context.Context, s streams) error {
	t, l, publicURL, err := c.settings()
	if err != nil {
		return err
	}
	i, err := readInstallation()
	if err == nil {
		err = i.check()
	}
	if err != nil {
		return err
	}
	if err := c.check(); err != nil {
		return err
	}
	provider, err := sandboxAt(c.ProviderURL, t, []byte(i.callbackSecret.value))
	if err != nil {
		return err
	}
	log := newLog(s.err)
	public, operator, err := c.certificates(c.AdminListen, log)
	if err != nil {
		return err
	}
	i.warn(ctx, log)
	a, err := startApp(ctx, appConfig{
		databaseURL: i.database.value, pgbouncer: c.PgBouncer, secret: []byte(i.secret.value), otherSecret: []byte(i.otherSecret.value), adminToken: i.adminToken.value,
		listen: c.Listen, adminListen: c.AdminListen, tls: public, adminTLS: operator, times: t, limits: l, bareKeys: c.IETFBareKeys, drain: c.DrainDelay,
		providers: map[string]providers.Provider{merchants.Test: provider}, publicURL: publicURL, log: log,
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "API       %s\nOperator  %s\n", public.url(a.publicAddr), operator.url(a.operatorAddr))
	a.welcome(ctx, s.out)
	err = a.wait(ctx, nil)
	return errors.Join(err, a.stop(ctx))
}

// check refuses flags of serve's own.
func (c serveCmd) check() error {
	switch {
	case c.DrainDelay < 0:
		return usage("--drain-delay must not be negative")
	case c.ProviderURL == "":
		return usage("--provider-url is required: the URL of a sandbox, such as one that `payments sandbox` runs")
	}
	return nil
}

// sandboxAt is the adapter to the sandbox at url, which signs its callbacks with secret.
func sandboxAt(url string, t times, secret []byte) (*sandbox.Adapter, error) {
	a, err := sandbox.NewAdapter(url, sandbox.AdapterOptions{
		Timeout: t.providerTimeout, Settle: t.settle, Withhold: withheld(), CallbackSecret: secret,
	})
	if err != nil {
		return nil, usage("--provider-url: %w", err)
	}
	return a, nil
}

// newLog writes JSON lines: one a request, and what an operator must know.
func newLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, nil))
}
