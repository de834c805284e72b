package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/oncepay/oncepay/internal/admin"
	"github.com/oncepay/oncepay/internal/doctor"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
)

// doctorCmd takes what serve takes, so that it judges what would be served with.
type doctorCmd struct {
	serveCmd
	JSON           bool `name:"json" help:"Print JSON."`
	AcceptDatabase bool `env:"-" help:"Write down that the database is the right one, after a restore or a failover. Nothing else of this command writes."`
}

// Help says how it is used.
func (doctorCmd) Help() string {
	return "Give it the flags and variables of `payments serve`. It looks at machine, configuration, database, provider and keys, " +
		"changes nothing and moves no money, and exits with 1 if anything is bad. Each finding has the next command."
}

var errBad = errors.New("what is bad has to be mended before this installation serves")

// Run prints what is wrong.
func (c doctorCmd) Run(ctx context.Context, s streams) error {
	if c.AcceptDatabase {
		if err := c.accept(ctx, s.err); err != nil {
			return err
		}
	}
	r := doctor.Examine(ctx, c.settings())
	if c.JSON {
		if err := json.NewEncoder(s.out).Encode(r); err != nil {
			return err
		}
	} else {
		printReport(s.out, r)
	}
	if !r.OK {
		return errBad
	}
	return nil
}

func (c doctorCmd) accept(ctx context.Context, progress io.Writer) error {
	url, err := databaseURL()
	if err != nil {
		return err
	}
	db, err := openMigrated(ctx, url, c.PgBouncer)
	if err != nil {
		return err
	}
	defer db.Close()
	n, err := db.AcceptIdentity(ctx)
	if err != nil {
		return errors.New("--accept-database: the database cannot be written down as the right one: " + postgres.Describe(errors.Unwrap(err)))
	}
	fmt.Fprintf(progress, "accepted: this database (%s, timeline %d) is the right one\n", n.Now.System, n.Now.Timeline)
	return nil
}

// settings are what serve would begin with. What it would refuse is among them.
func (c doctorCmd) settings() doctor.Settings {
	t, timesErr := c.times()
	l, limitsErr := c.limits()
	d := doctor.Settings{
		PgBouncer:      c.PgBouncer,
		Database:       secretSetting(envDatabaseURL, 1),
		Secret:         secretSetting(envSecret, idem.MinSecretLength),
		OtherSecret:    secretSetting(envSecretOther, idem.MinSecretLength),
		AdminToken:     secretSetting(envAdminToken, admin.MinTokenLength),
		API:            listener("--listen", c.Listen, "--tls-cert", c.TLSCert, "--tls-key", c.TLSKey),
		Operator:       listener("--admin-listen", c.AdminListen, "--admin-tls-cert", c.AdminTLSCert, "--admin-tls-key", c.AdminTLSKey),
		TrustedProxies: l.proxies, MaxInFlight: l.inFlight,
		ProviderTimeout: t.providerTimeout, Settle: t.settle, Recovery: t.recovery, Retention: t.retention,
		ProviderURL: c.ProviderURL, Providers: map[string]providers.Provider{},
	}
	for _, err := range []error{timesErr, limitsErr, c.check()} {
		if err != nil {
			d.Refused = append(d.Refused, err)
		}
	}
	if c.ProviderURL != "" && timesErr == nil {
		p, err := sandboxAt(c.ProviderURL, t, nil)
		if err != nil {
			d.Refused = append(d.Refused, err)
		} else {
			d.Providers[merchants.Test] = p
		}
	}
	return d
}

func secretSetting(name string, atLeast int) doctor.Secret {
	g, err := findSetting(name)
	return doctor.Secret{Variable: name, Value: g.value, AtLeast: atLeast, Shared: g.open, Err: err}
}

func listener(flag, address, certFlag, certFile, keyFlag, keyFile string) doctor.Listener {
	l := doctor.Listener{Flag: flag, Address: address, Loopback: onLoopback(address), TLS: certFile != "" || keyFile != ""}
	switch {
	case !l.TLS:
	case certFile == "" || keyFile == "":
		l.Err = fmt.Errorf("%s and %s go together", certFlag, keyFlag)
	default:
		l.Certificate, l.Err = readPair(certFile, keyFile)
	}
	return l
}

// printReport is one line a check, and below those that are not fine what to do.
func printReport(w io.Writer, r doctor.Report) {
	for _, f := range r.Checks {
		fmt.Fprintf(w, "%-8s %-28s %s\n", f.Level, f.ID, f.Says)
		if f.Next != "" {
			fmt.Fprintf(w, "%-8s %-28s → %s\n", "", "", f.Next)
		}
	}
	fmt.Fprintf(w, "\n%d checks: %d ok, %d warn, %d bad, %d skipped\n",
		len(r.Checks), r.Count(doctor.OK), r.Count(doctor.Warn), r.Count(doctor.Bad), r.Count(doctor.Skipped))
}
