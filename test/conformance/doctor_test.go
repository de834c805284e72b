package conformance

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/oncepay/oncepay/internal/localpg"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/pgtest/pgbouncer"
	"github.com/oncepay/oncepay/test/harness"
)

// doctorRole is whom the patient's instances run as.
const doctorRole = "payments_app"

// patient is an installation with a PostgreSQL of its own, in which nothing is wrong
// until a test sees to it.
type patient struct {
	dir     string
	server  *localpg.Server
	sandbox *harness.Sandbox
	harness.Installation
}

type finding struct{ ID, Level, Says, Next string }

// newPatient has a role that can do no more than it must, a merchant, and was served.
func newPatient(t *testing.T) *patient {
	t.Helper()
	p := &patient{dir: filepath.Join(harness.Folder(t), "postgres"), sandbox: harness.StartSandbox(t, harness.Folder(t))}
	p.Installation = harness.NewInstallation("", p.sandbox.URL)
	p.start(t, nil)
	t.Cleanup(func() { p.stop(t) })
	p.exec(t, "CREATE ROLE "+doctorRole+" LOGIN")
	harness.Call(t, harness.Command{
		Args: []string{"migrate", "up", "--grant-to", doctorRole}, Env: []string{"MIGRATE_DATABASE_URL=" + p.server.URL()},
	}).Must(t, 0, "up to date")
	api := p.Serve(t)
	merchant(t, api)
	api.Signal(syscall.SIGTERM)
	if code := api.Wait(); code != 0 {
		t.Fatalf("serve ends with %d", code)
	}
	return p
}

func (p *patient) start(t *testing.T, settings map[string]string) {
	t.Helper()
	var err error
	p.server, err = localpg.Start(within(t, harness.Patience), localpg.Options{Dir: p.dir, Database: "oncepay", Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	p.DatabaseURL = urlWith(t, p.server.URL(), "user", doctorRole)
}

func (p *patient) stop(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), harness.Patience)
	defer cancel()
	if err := p.server.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// restart gives the server other settings.
func (p *patient) restart(t *testing.T, settings map[string]string) {
	t.Helper()
	p.stop(t)
	p.start(t, settings)
}

func (p *patient) exec(t *testing.T, sql string) {
	t.Helper()
	pgtest.Exec(t, p.server.URL(), sql)
}

// urlWith is a URL with another parameter.
func urlWith(t *testing.T, dbURL, name, value string) string {
	t.Helper()
	u, err := url.Parse(dbURL)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
	return u.String()
}

// withDatabase is a URL with another database.
func withDatabase(t *testing.T, dbURL, name string) string {
	t.Helper()
	u, err := url.Parse(dbURL)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

// examine runs the doctor with these flags and variables on top, and looks for what
// it must never say.
func (p *patient) examine(t *testing.T, args, env []string) map[string]finding {
	t.Helper()
	c := p.ServeCommand(args...)
	c.Args[0] = "doctor"
	c.Args = append(c.Args, "--json")
	c.Env = append(c.Env, env...)
	r := harness.Call(t, c)
	var report struct {
		OK     bool
		Checks []finding
	}
	if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil {
		t.Fatalf("exit code %d: %v\n%s%s", r.Code, err, r.Stdout, r.Stderr)
	}
	for _, secret := range []string{p.Secret, p.AdminToken, p.DatabaseURL, "hunter2"} {
		if strings.Contains(r.Stdout+r.Stderr, secret) {
			t.Error("it tells a secret")
		}
	}
	found := map[string]finding{}
	ok := true
	for _, f := range report.Checks {
		found[f.ID] = f
		ok = ok && f.Level != "bad"
		if (f.Level == "warn" || f.Level == "bad") && (f.Says == "" || f.Next == "") {
			t.Errorf("%+v does not say what to do", f)
		}
	}
	if report.OK != ok || (r.Code == 0) != ok || (r.Code == 1) == ok {
		t.Errorf("ok is %t, and the exit code %d", report.OK, r.Code)
	}
	return found
}

// mustBeHealthy checks that nothing is wrong, and nothing was left out.
func (p *patient) mustBeHealthy(t *testing.T) {
	t.Helper()
	for _, f := range p.examine(t, nil, nil) {
		if f.Level != "ok" {
			t.Fatalf("before anything is wrong: %+v", f)
		}
	}
}

// mustFind checks that one check found its fault, at this level, and no other
// anything.
func (p *patient) mustFind(t *testing.T, check, level string, args, env []string) {
	t.Helper()
	found := p.examine(t, args, env)
	for id, f := range found {
		switch {
		case id == check && f.Level != level:
			t.Errorf("not found: %+v", f)
		case id == check:
			t.Logf("%s: %s → %s", f.Level, f.Says, f.Next)
		case f.Level == "warn" || f.Level == "bad":
			t.Errorf("found as well: %+v", f)
		}
	}
	if _, ok := found[check]; !ok {
		t.Errorf("there is no check %s", check)
	}
}

// misconfiguration is one mistake, and who has to find it.
type misconfiguration struct {
	name, check, level string
	args, env          []string
	refused            bool   // serve does not start with it
	sql, cure          string // as a superuser
}

// seeded are mistakes in flags, variables and SQL.
func seeded(t *testing.T, p *patient) []misconfiguration {
	t.Helper()
	files := harness.Folder(t)
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(files, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	now := time.Now()
	certificate := func(name string, until time.Time) (cert, key string) {
		c, k := selfSigned(t, until)
		return write(name+".crt", c, 0o600), write(name+".key", k, 0o600)
	}
	overCert, overKey := certificate("over", now.Add(-time.Hour))
	soonCert, soonKey := certificate("soon", now.Add(5*24*time.Hour))
	goodCert, goodKey := certificate("good", now.Add(90*24*time.Hour))
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	stranger := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(stranger.Close)

	database := func(dbURL string) []string { return []string{"DATABASE_URL=" + dbURL} }
	const open = `INSERT INTO payments (account_id, id, mode, merchant_order_id, status, sub_status, currency, amount, authorize_pending, request, created_at, updated_at)
SELECT account_id, '01990000-0000-7000-8000-000000000001', 'test', 'order', 'PENDING', 'PENDING_PROVIDER_CONFIRMATION', 'USD', 1, 1, '{}', now(), now() FROM merchants;
INSERT INTO transactions (account_id, id, payment_id, mode, type, status, currency, amount, provider, nonce, card, lease_holder, instance_id, lease_until, may_send_until, travel_us, next_attempt_at, created_at, updated_at, parked_at)
SELECT account_id, id, id, mode, 'PURCHASE', 'CREATED', currency, amount, 'ONCEPAY_SANDBOX', 'nonce', '{}', id, id, now(), now(), 0, now(), now() - interval '10 minutes', now(), `
	const settled = `DELETE FROM transactions; DELETE FROM payments`
	const drawn = "q3v8Zk1T0xYw7RbN5mC2hJ9sLd4uFgEa6oPi"
	config := []misconfiguration{
		{name: "a flag that serve refuses", check: "config.values", level: "bad", refused: true, args: []string{"--lease", "1s"}},
		{name: "another", check: "config.values", level: "bad", refused: true, args: []string{"--drain-delay=-1s"}},
		{name: "no provider", check: "config.values", level: "bad", refused: true, args: []string{"--provider-url", ""}},
		{name: "no secret", check: "config.secret", level: "bad", refused: true, env: []string{"PAYMENTS_SECRET="}},
		{name: "a short secret", check: "config.secret", level: "bad", refused: true, env: []string{"PAYMENTS_SECRET=" + drawn[:31]}},
		{name: "a secret of one character", check: "config.secret", level: "bad", env: []string{"PAYMENTS_SECRET=" + strings.Repeat("a", 64)}},
		{name: "a word, repeated", check: "config.secret", level: "bad", env: []string{"PAYMENTS_SECRET=" + strings.Repeat("hunter2!", 8)}},
		{name: "an example's secret", check: "config.secret", level: "bad", env: []string{"PAYMENTS_SECRET=change-me-to-32-random-bytes-please"}},
		{name: "a secret that is the token", check: "config.secret", level: "bad", refused: true, env: []string{"PAYMENTS_SECRET=" + p.AdminToken}},
		{name: "two secrets that are one", check: "config.secret", level: "bad", refused: true, env: []string{"PAYMENTS_SECRET_OTHER=" + p.Secret}},
		{name: "a secret that is set twice", check: "config.secret", level: "bad", refused: true, env: []string{"PAYMENTS_SECRET_FILE=" + write("twice", drawn, 0o600)}},
		{name: "no admin token", check: "config.admin_token", level: "bad", refused: true, env: []string{"PAYMENTS_ADMIN_TOKEN="}},
		{name: "a token that counts up", check: "config.admin_token", level: "bad", env: []string{"PAYMENTS_ADMIN_TOKEN=0123456789abcdefghijklmnopqrstuvwxyz"}},
		{name: "a secret's file that everybody reads", check: "config.secret_files", level: "warn",
			env: []string{"PAYMENTS_SECRET=", "PAYMENTS_SECRET_FILE=" + write("shared", drawn, 0o644)}},
		{name: "an admin listener for everybody, without TLS", check: "config.admin_listener", level: "bad", refused: true, args: []string{"--admin-listen", "0.0.0.0:0"}},
		{name: "an address that is taken", check: "config.addresses", level: "warn", args: []string{"--listen", taken.Addr().String()}},
		{name: "one address for both listeners", check: "config.addresses", level: "bad", args: []string{"--listen", "127.0.0.1:18347", "--admin-listen", "127.0.0.1:18347"}},
		{name: "a certificate that is over", check: "config.certificates", level: "bad", args: []string{"--tls-cert", overCert, "--tls-key", overKey}},
		{name: "a certificate that ends soon", check: "config.certificates", level: "warn", args: []string{"--tls-cert", soonCert, "--tls-key", soonKey}},
		{name: "another certificate's key", check: "config.certificates", level: "bad", refused: true, args: []string{"--admin-tls-cert", goodCert, "--admin-tls-key", soonKey}},
		{name: "a certificate without its key", check: "config.certificates", level: "bad", refused: true, args: []string{"--tls-cert", goodCert}},
		{name: "a certificate that is not there", check: "config.certificates", level: "bad", refused: true, args: []string{"--tls-cert", files + "/none", "--tls-key", goodKey}},
		{name: "a proxy network of the whole provider's", check: "config.trusted_proxies", level: "warn", args: []string{"--trusted-proxies", "10.1.0.0/16,203.0.0.0/8"}},
		{name: "a provider that may take as long as clients wait", check: "config.times", level: "warn", args: []string{"--provider-timeout", "59s"}},
		{name: "no settling time", check: "config.times", level: "warn", args: []string{"--settle", "0s"}},
		{name: "answers kept for an hour", check: "config.retention", level: "warn", args: []string{"--retention", "1h"}},
		{name: "more requests than files", check: "machine.open_files", level: "warn", args: []string{"--max-in-flight", "2000000000"}},
		{name: "a provider that is away", check: "provider.answers", level: "bad", args: []string{"--provider-url", "http://127.0.0.1:1"}},
		{name: "a provider that is something else", check: "provider.answers", level: "bad", args: []string{"--provider-url", stranger.URL}},
	}
	direct := []misconfiguration{
		{name: "no database", check: "database.reachable", level: "bad", refused: true, env: database("")},
		{name: "a URL that is none", check: "database.reachable", level: "bad", env: database("postgres://u:hunter2@[::1/x")},
		{name: "nobody listens", check: "database.reachable", level: "bad", env: database("postgres://nobody:hunter2@127.0.0.1:1/x?sslmode=disable")},
		{name: "no such database", check: "database.reachable", level: "bad", env: database(withDatabase(t, p.DatabaseURL, "nothing"))},
		{name: "no such role", check: "database.reachable", level: "bad", env: database(urlWith(t, p.DatabaseURL, "user", "nobody"))},
		{name: "no TLS where it is asked for", check: "database.reachable", level: "bad",
			env: database("postgres://" + doctorRole + "@" + forward(t, p.server.URL()) + "/oncepay?sslmode=require")},
		{name: "a superuser", check: "database.role", level: "warn", env: database(p.server.URL())},
		{name: "a schema that is too old", check: "database.schema", level: "bad",
			sql: `CREATE TABLE was AS TABLE schema_migrations; UPDATE schema_migrations SET version = 1`, cure: `UPDATE schema_migrations SET version = (SELECT version FROM was); DROP TABLE was`},
		{name: "a migration that failed", check: "database.schema", level: "bad",
			sql: `UPDATE schema_migrations SET dirty = true`, cure: `UPDATE schema_migrations SET dirty = false`},
		{name: "a table that a crash empties", check: "database.tables", level: "bad",
			sql: `ALTER TABLE provider_calls SET UNLOGGED`, cure: `ALTER TABLE provider_calls SET LOGGED`},
		{name: "a table without its key", check: "database.tables", level: "bad",
			sql: `ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_pkey`, cure: `ALTER TABLE idempotency_keys ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (account_id, mode, key_id)`},
		{name: "a privilege that is missing", check: "database.privileges", level: "bad",
			sql: `REVOKE INSERT ON events FROM ` + doctorRole, cure: `GRANT INSERT ON events TO ` + doctorRole},
		{name: "a role that may create tables", check: "database.role", level: "warn",
			sql: `GRANT CREATE ON SCHEMA public TO ` + doctorRole, cure: `REVOKE CREATE ON SCHEMA public FROM ` + doctorRole},
		{name: "another encoding", check: "database.encoding", level: "bad",
			sql:  `UPDATE pg_database SET encoding = pg_char_to_encoding('SQL_ASCII') WHERE datname = 'oncepay'`,
			cure: `UPDATE pg_database SET encoding = pg_char_to_encoding('UTF8') WHERE datname = 'oncepay'`},
		{name: "commits that nobody waits for", check: "database.synchronous_commit", level: "bad",
			sql: `ALTER ROLE ` + doctorRole + ` SET synchronous_commit = off`, cure: `ALTER ROLE ` + doctorRole + ` RESET synchronous_commit`},
		{name: "commits that no standby waits for", check: "database.synchronous_commit", level: "bad",
			sql: `ALTER DATABASE oncepay SET synchronous_commit = local`, cure: `ALTER DATABASE oncepay RESET synchronous_commit`},
		{name: "a role that only reads", check: "database.writable", level: "bad",
			sql: `ALTER ROLE ` + doctorRole + ` SET default_transaction_read_only = on`, cure: `ALTER ROLE ` + doctorRole + ` RESET default_transaction_read_only`},
		{name: "too few connections for the role", check: "database.connections", level: "bad",
			sql: `ALTER ROLE ` + doctorRole + ` CONNECTION LIMIT 10`, cure: `ALTER ROLE ` + doctorRole + ` CONNECTION LIMIT -1`},
		{name: "too few connections for two instances", check: "database.connections", level: "warn",
			sql: `ALTER DATABASE oncepay CONNECTION LIMIT 30`, cure: `ALTER DATABASE oncepay CONNECTION LIMIT -1`},
		{name: "a payment that nobody settles", check: "work.unresolved", level: "warn", sql: open + `NULL FROM payments`, cure: settled},
		{name: "a payment that waits for a person", check: "work.parked", level: "warn", sql: open + `now() FROM payments`, cure: settled},
		{name: "one that has waited for days", check: "work.parked", level: "bad", sql: open + `now() - interval '2 days' FROM payments`, cure: settled},
		{name: "no merchant", check: "keys.merchants", level: "warn",
			sql:  `CREATE SCHEMA aside; CREATE TABLE aside.m AS TABLE merchants; CREATE TABLE aside.k AS TABLE api_keys; DELETE FROM api_keys; DELETE FROM merchants`,
			cure: `INSERT INTO merchants TABLE aside.m; INSERT INTO api_keys TABLE aside.k; DROP SCHEMA aside CASCADE`},
		{name: "no key that works", check: "keys.usable", level: "warn",
			sql: `UPDATE merchants SET disabled_at = now()`, cure: `UPDATE merchants SET disabled_at = NULL`},
		{name: "a live key without a provider", check: "keys.live", level: "warn",
			sql:  `INSERT INTO api_keys (account_id, id, mode, public_api_key, secret_hash) SELECT account_id, account_id, 'live', 'prod_x', sha256('x') FROM merchants`,
			cure: `DELETE FROM api_keys WHERE mode = 'live'`},
		{name: "the only key ends tomorrow", check: "keys.expiring", level: "warn",
			sql: `UPDATE api_keys SET expires_at = now() + interval '1 day'`, cure: `UPDATE api_keys SET expires_at = NULL`},
		{name: "a key that nobody uses", check: "keys.unused", level: "warn",
			sql: `UPDATE api_keys SET last_used_at = now() - interval '91 days'`, cure: `UPDATE api_keys SET last_used_at = NULL`},
	}
	return append(config, direct...)
}

// selfSigned is a certificate for this machine, and its key, in PEM.
func selfSigned(t *testing.T, until time.Time) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: until.Add(-100 * 24 * time.Hour), NotAfter: until,
	}
	c, err := x509.CreateCertificate(rand.Reader, &template, &template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return block("CERTIFICATE", c), block("PRIVATE KEY", k)
}

// forward is an address of this machine behind which a database's socket is.
func forward(t *testing.T, dbURL string) string {
	t.Helper()
	cfg, err := pgconn.ParseConfig(dbURL)
	if err != nil {
		t.Fatal(err)
	}
	network, server := pgconn.NetworkAddress(cfg.Host, cfg.Port)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				db, err := (&net.Dialer{}).Dial(network, server)
				if err != nil {
					return
				}
				defer db.Close()
				go func() { _, _ = io.Copy(db, client) }()
				_, _ = io.Copy(client, db)
			}()
		}
	}()
	return l.Addr().String()
}

func TestDoctorFindsEachMisconfigurationAndNothingElse(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	all := seeded(t, p)
	changed := true // since it was last seen to be healthy
	for _, m := range all {
		t.Run(m.name, func(t *testing.T) {
			if changed {
				p.mustBeHealthy(t)
			}
			if changed = m.sql != ""; changed {
				p.exec(t, m.sql)
				defer p.exec(t, m.cure)
			}
			p.mustFind(t, m.check, m.level, m.args, m.env)
			if m.refused {
				c := p.ServeCommand(m.args...)
				c.Env = append(c.Env, m.env...)
				harness.Call(t, c).Must(t, 2)
			}
		})
	}
	t.Run("a receiver of the log that nobody waits for", func(t *testing.T) {
		p.mustBeHealthy(t)
		conn, err := pgconn.Connect(t.Context(), urlWith(t, p.server.URL(), "replication", "true"))
		if err != nil {
			t.Fatal(err)
		}
		p.mustFind(t, "database.standbys", "warn", nil, nil)
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("PgBouncer that nobody told of", func(t *testing.T) {
		p.mustBeHealthy(t)
		b := p.bouncer(t)
		through := []string{"DATABASE_URL=" + b.URL("oncepay", doctorRole)}
		p.mustFind(t, "database.session", "bad", nil, through)
		p.exec(t, "ALTER ROLE "+doctorRole+" IN DATABASE oncepay RESET lock_timeout")
		b = p.bouncer(t) // sessions that have not the old setting any more
		through = []string{"DATABASE_URL=" + b.URL("oncepay", doctorRole)}
		p.mustFind(t, "database.session", "bad", []string{"--pgbouncer"}, through)
		p.exec(t, "ALTER ROLE "+doctorRole+" IN DATABASE oncepay SET lock_timeout = '2s'")
		b = p.bouncer(t)
		for _, f := range p.examine(t, []string{"--pgbouncer"}, []string{"DATABASE_URL=" + b.URL("oncepay", doctorRole)}) {
			if f.Level == "warn" || f.Level == "bad" {
				t.Errorf("through PgBouncer as it should be: %+v", f)
			}
		}
	})
	t.Run("nothing, beside a running instance", func(t *testing.T) {
		folder := harness.Folder(t)
		certFile, keyFile := filepath.Join(folder, "crt"), filepath.Join(folder, "key")
		cert, key := selfSigned(t, time.Now().Add(90*24*time.Hour))
		if err := errors.Join(os.WriteFile(certFile, []byte(cert), 0o600), os.WriteFile(keyFile, []byte(key), 0o600)); err != nil {
			t.Fatal(err)
		}
		secure := []string{"--tls-cert", certFile, "--tls-key", keyFile} // one listener with, and one without
		api := p.Serve(t, secure...)
		args := append(secure, "--listen", strings.TrimPrefix(api.URL, "https://"), "--admin-listen", strings.TrimPrefix(api.Operator.URL, "http://"))
		for _, f := range p.examine(t, args, nil) {
			if f.Level != "ok" {
				t.Errorf("%+v", f)
			}
		}
	})
	t.Logf("%d seeded misconfigurations", len(all)+3)
}

func (p *patient) bouncer(t *testing.T) *pgbouncer.Server {
	t.Helper()
	b, err := pgbouncer.Start(within(t, harness.Patience), pgtest.TempDir(), p.server.URL(), doctorRole)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// Settings of the server, for which it is started anew.
func TestDoctorFindsSettingsOfTheServerThatBreakThePromise(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	for _, m := range []struct {
		settings     map[string]string
		check, level string
	}{
		{map[string]string{"fsync": "off"}, "database.fsync", "bad"},
		{map[string]string{"full_page_writes": "off"}, "database.full_page_writes", "bad"},
		{map[string]string{"synchronous_commit": "off"}, "database.synchronous_commit", "bad"},
		{map[string]string{"autovacuum": "off"}, "database.autovacuum", "warn"},
		{map[string]string{"max_connections": "20"}, "database.connections", "bad"},
		{map[string]string{"synchronous_standby_names": "somebody"}, "database.standbys", "bad"},
	} {
		for name := range m.settings {
			t.Run(name, func(t *testing.T) {
				p.restart(t, nil)
				p.mustBeHealthy(t)
				p.restart(t, m.settings)
				p.mustFind(t, m.check, m.level, nil, nil)
			})
		}
	}
}

// A database that is not the one that was served may have forgotten what was answered:
// by a standby that was promoted, or by a copy.
func TestDoctorFindsAPromotedOrCopiedDatabaseUntilItIsAccepted(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	p.mustBeHealthy(t)

	pgtest.Exec(t, withDatabase(t, p.server.URL(), "postgres"), "CREATE DATABASE copied TEMPLATE oncepay")
	copied := []string{"DATABASE_URL=" + withDatabase(t, p.DatabaseURL, "copied")}
	p.mustFind(t, "database.identity", "bad", nil, copied)

	p.stop(t)
	signal := filepath.Join(p.dir, "standby.signal")
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.start(t, nil)
	p.mustFind(t, "database.writable", "bad", nil, nil)
	if found := p.examine(t, nil, nil)["database.identity"]; found.Level != "skipped" {
		t.Errorf("a standby writes to no timeline: %+v", found)
	}
	p.exec(t, "SELECT pg_promote()")
	p.mustFind(t, "database.identity", "bad", nil, nil)

	// Instances go on all the same, and say so.
	api := p.Serve(t)
	if !strings.Contains(api.Stderr(), "another database than before") {
		t.Error("serve does not warn of a promoted database")
	}
	p.mustFind(t, "database.identity", "bad", nil, nil) // what serves does not accept it

	accept := p.ServeCommand("--accept-database")
	accept.Args[0] = "doctor"
	r := harness.Call(t, accept)
	r.Must(t, 0, "accepted", "timeline 2")
	if strings.Contains(r.Stdout, "\nbad ") {
		t.Error(r.Stdout)
	}
	p.mustBeHealthy(t)
	api.Kill()
	if strings.Contains(p.Serve(t).Stderr(), "another database than before") {
		t.Error("serve warns of a database that was accepted")
	}
}

// The report that people read has the same findings as --json.
func TestDoctorTellsPeopleALineACheckAndWhatToDo(t *testing.T) {
	t.Parallel()
	i := harness.NewInstallation("postgres://nobody:hunter2@127.0.0.1:1/nothing?sslmode=disable", "http://127.0.0.1:1")
	c := i.ServeCommand("--retention", "1h")
	c.Args[0] = "doctor"
	r := harness.Call(t, c)
	r.Must(t, 1, "\nbad      database.reachable", "→ Start PostgreSQL", "\nwarn     config.retention", "\nskipped  database.fsync", "because the database is not reached",
		"what is bad has to be mended")
	if strings.Contains(r.Stdout+r.Stderr, "hunter2") {
		t.Error("it tells the database's password")
	}
	unknown := i.ServeCommand("--no-such-flag")
	unknown.Args[0] = "doctor"
	harness.Call(t, unknown).Must(t, 2)
}
