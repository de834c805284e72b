// Package doctor finds what is wrong with an installation before it costs
// anything: machine, configuration, database, provider and keys.
//
//	Settings ── look ──► facts ── judge ──► Report
//
// Looking does all that can fail or take time, each look with a limit of its own, and
// changes nothing. Judging is a table of checks, each a function of the facts alone;
// one whose ground is missing is skipped, and says why. No finding has a secret, a key
// or what a URL says of its user.
package doctor

import (
	"context"
	"errors"
	"net"

	"github.com/oncepay/oncepay/internal/postgres"
)

// Level is how a check came out.
type Level string

// The levels. Only Bad keeps an installation from being fit to serve.
const (
	OK      Level = "ok"
	Warn    Level = "warn"    // it works, and will hurt some day
	Bad     Level = "bad"     // it does not work, or breaks a promise
	Skipped Level = "skipped" // what it looks at could not be seen
)

// Finding is what one check says.
type Finding struct {
	ID    string `json:"id"` // stable: scripts may rely on it
	Level Level  `json:"level"`
	Says  string `json:"says"`
	Next  string `json:"next,omitempty"` // what to do, where there is something to do
}

// Report is every check's finding, in the order of the list.
type Report struct {
	OK     bool      `json:"ok"` // nothing is bad
	Checks []Finding `json:"checks"`
}

// Count is how many findings have this level.
func (r Report) Count(l Level) int {
	n := 0
	for _, f := range r.Checks {
		if f.Level == l {
			n++
		}
	}
	return n
}

// Examine looks at an installation and judges it. It writes nothing anywhere, and
// moves no money. It takes at most a minute.
func Examine(ctx context.Context, s Settings) Report {
	return judge(look(ctx, s))
}

// check is one line of the list.
type check struct {
	id     string
	ground func(*facts) error // why it cannot be judged, or nil
	judge  func(*facts) verdict
}

// verdict is a finding without its check.
type verdict struct {
	level      Level
	says, next string
}

func fine(says string) verdict       { return verdict{OK, says, ""} }
func warn(says, next string) verdict { return verdict{Warn, says, next} }
func bad(says, next string) verdict  { return verdict{Bad, says, next} }

// checks are all there are; docs/operate/doctor.md explains each.
var checks = []check{
	{"machine.open_files", nil, openFiles},
	{"machine.clock", onClock, clock},

	{"config.values", nil, values},
	{"config.secret", nil, installationSecret},
	{"config.admin_token", nil, adminToken},
	{"config.secret_files", nil, secretFiles},
	{"config.admin_listener", onAddresses, adminListener},
	{"config.api_listener", onAddresses, apiListener},
	{"config.addresses", onAddresses, addresses},
	{"config.certificates", nil, certificates},
	{"config.trusted_proxies", nil, trustedProxies},
	{"config.times", onValues, times},
	{"config.retention", onValues, retention},

	{"database.reachable", nil, reachable},
	{"database.session", onReach, session},
	{"database.encrypted", onDirect, encrypted},
	{"database.version", onServer, version},
	{"database.writable", onServer, writable},
	{"database.schema", onReach, schema},
	{"database.tables", onTables, tables},
	{"database.privileges", onPrivileges, privileges},
	{"database.role", onServer, role},
	{"database.encoding", onServer, encoding},
	{"database.collation", onServer, collation},
	{"database.fsync", onServer, fsync},
	{"database.full_page_writes", onServer, fullPageWrites},
	{"database.synchronous_commit", onServer, synchronousCommit},
	{"database.standbys", onServer, standbys},
	{"database.checksums", onServer, checksums},
	{"database.connections", onDirect, connections},
	{"database.autovacuum", onServer, autovacuum},
	{"database.transaction_ids", onServer, transactionIDs},
	{"database.identity", onIdentity, identity},

	{"provider.answers", onProvider, providerAnswers},
	{"provider.transport", onProvider, providerTransport},

	{"keys.merchants", onKeys, haveMerchants},
	{"keys.usable", onKeys, keysUsable},
	{"keys.live", onKeys, keysLive},
	{"keys.expiring", onKeys, keysExpiring},
	{"keys.unused", onKeys, keysUnused},

	{"work.unresolved", onWork, workUnresolved},
	{"work.parked", onWork, workParked},
}

// IDs are the checks', in the order of a report.
func IDs() []string {
	ids := make([]string, len(checks))
	for i, c := range checks {
		ids[i] = c.id
	}
	return ids
}

func judge(f *facts) Report {
	r := Report{OK: true, Checks: make([]Finding, 0, len(checks))}
	for _, c := range checks {
		var v verdict
		if err := c.missing(f); err != nil {
			v = verdict{Skipped, "because " + err.Error(), ""}
		} else {
			v = c.judge(f)
		}
		r.OK = r.OK && v.level != Bad
		r.Checks = append(r.Checks, Finding{c.id, v.level, v.says, v.next})
	}
	return r
}

func (c check) missing(f *facts) error {
	if c.ground == nil {
		return nil
	}
	return c.ground(f)
}

// What checks stand on.
func onReach(f *facts) error {
	if f.reach != nil {
		return errUnreached
	}
	return nil
}

func onClock(f *facts) error    { return f.skew.err }
func onServer(f *facts) error   { return f.server.err }
func onIdentity(f *facts) error { return f.identity.err }
func onKeys(f *facts) error     { return f.keys.err }
func onWork(f *facts) error     { return f.work.err }

// onValues is for what is not known where flags are refused.
func onValues(f *facts) error {
	if len(f.set.Refused) > 0 {
		return errRefused
	}
	return nil
}

func onAddresses(f *facts) error {
	for _, l := range []Listener{f.set.API, f.set.Operator} {
		if _, _, err := net.SplitHostPort(l.Address); err != nil {
			return errRefused
		}
	}
	return nil
}

// onTables and onPrivileges are for what only a schema of ours has.
func onTables(f *facts) error {
	if errors.Is(f.misfit, postgres.ErrSchema) {
		return errMisfit
	}
	return f.tables.err
}

func onPrivileges(f *facts) error {
	if errors.Is(f.misfit, postgres.ErrSchema) {
		return errMisfit
	}
	return f.lacking.err
}

// onDirect is for what PgBouncer hides: who is seen behind it is PgBouncer.
func onDirect(f *facts) error {
	if f.server.err == nil && f.pooled {
		return errPooled
	}
	return f.server.err
}

func onProvider(f *facts) error {
	if len(f.set.Providers) == 0 {
		return errNoProvider
	}
	return nil
}
