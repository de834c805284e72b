package doctor

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// The tests of a whole installation, with a mistake seeded for nearly every check, are
// in test/conformance/doctor_test.go. Here is what cannot be had there: other versions,
// other machines, old age.

// judgement is one check, some facts, and what it must come to.
type judgement struct {
	name  string
	judge func(*facts) verdict
	facts facts
	level Level
	says  string
}

func try(t *testing.T, all []judgement) {
	t.Helper()
	for _, j := range all {
		v := j.judge(&j.facts)
		if v.level != j.level || !strings.Contains(v.says, j.says) || (v.next == "") != (v.level == OK) {
			t.Errorf("%s: got %+v", j.name, v)
		}
	}
}

func of(s server) facts { return facts{server: seen[server]{got: s}} }

func apart(ahead, within time.Duration) facts {
	return facts{skew: seen[skew]{got: skew{ahead: ahead, within: within}}}
}

func TestWhatOneServerCannotShow(t *testing.T) {
	t.Parallel()
	try(t, []judgement{
		{"clocks agree", clock, apart(300*time.Millisecond, time.Millisecond), OK, "301ms"},
		{"one is ahead", clock, apart(1100*time.Millisecond, time.Millisecond), Warn, "1.099s"},
		{"one is behind", clock, apart(-1100*time.Millisecond, time.Millisecond), Warn, "1.099s"},
		{"a slow answer explains it", clock, apart(1100*time.Millisecond, 200*time.Millisecond), OK, ""},
		{"a minute apart", clock, apart(-61*time.Second, time.Millisecond), Bad, "1m0.999s"},

		{"PostgreSQL 13", version, of(server{Version: "13.22", VersionNumber: 130022}), Bad, "13.22"},
		{"PostgreSQL 14", version, of(server{Version: "14.0", VersionNumber: 140000}), OK, "14.0"},
		{"PostgreSQL 18", version, of(server{Version: "18.1", VersionNumber: 180001}), OK, ""},
		{"PostgreSQL 19", version, of(server{Version: "19beta1", VersionNumber: 190000}), Warn, "19beta1"},

		{"young", transactionIDs, of(server{TransactionAge: 200_000_000}), OK, "200 million"},
		{"old", transactionIDs, of(server{TransactionAge: 1_000_000_001}), Warn, "1000 million"},
		{"too old", transactionIDs, of(server{TransactionAge: 1_900_000_000}), Bad, "1900 million"},

		{"no checksums", checksums, of(server{}), Warn, "disk"},
		{"far away in the clear", encrypted, of(server{Remote: true}), Warn, "TLS"},
		{"far away with TLS", encrypted, of(server{Remote: true, Encrypted: true}), OK, ""},
		{"on this machine", encrypted, of(server{}), OK, ""},
		{"the owner", role, of(server{Owner: true}), Warn, "owner"},
		{"an upgraded system", collation, of(server{Collation: "2.31", CollationNow: "2.36"}), Bad, "sorts otherwise"},
		{"locale C", collation, of(server{}), OK, ""},
		{"track_counts", autovacuum, of(server{Autovacuum: true}), Warn, "autovacuum"},
		{"remote_write", synchronousCommit, of(server{SynchronousCommit: "remote_write"}), OK, "remote_write"},
		{"a synchronous standby", standbys, of(server{Standbys: 1, SynchronousStandbys: "a"}), OK, "synchronous"},
		{"a standby itself", standbys, of(server{InRecovery: true, SynchronousStandbys: "a"}), OK, ""},
		{"a schema that cannot be read", schema, facts{misfit: errors.New("no")}, Bad, "cannot be read"},
		{"a schema that is too new", schema, facts{misfit: postgres.SchemaStatus{Version: 99, Latest: 5}.Misfit()}, Bad, "version 99"},
	})
	// What has to be done is not said twice.
	v := schema(&facts{misfit: postgres.SchemaStatus{Version: 99, Latest: 5}.Misfit()})
	if v.next != "run a newer binary" || strings.Contains(v.says, v.next) {
		t.Errorf("%+v", v)
	}
}

func TestWhatALoopbackCannotShow(t *testing.T) {
	t.Parallel()
	public := facts{set: Settings{API: Listener{Flag: "--listen", Address: "0.0.0.0:8080"}}}
	withProxy := public
	withProxy.set.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	withTLS := public
	withTLS.set.API.TLS = true
	taken := func(err error) facts {
		f := facts{set: Settings{API: Listener{Flag: "--listen", Address: "a:1"}, Operator: Listener{Flag: "--admin-listen", Address: "b:1"}}}
		f.taken = map[string]error{"b:1": &net.OpError{Op: "listen", Addr: &net.TCPAddr{Port: 4711}, Err: os.NewSyscallError("bind", err)}}
		return f
	}
	proxies := func(all ...string) facts {
		var f facts
		for _, p := range all {
			f.set.TrustedProxies = append(f.set.TrustedProxies, netip.MustParsePrefix(p))
		}
		return f
	}
	provider := func(url string) facts { return facts{set: Settings{ProviderURL: url}} }
	try(t, []judgement{
		{"an API for everybody", apiListener, public, Warn, "clear"},
		{"behind a proxy", apiListener, withProxy, OK, ""},
		{"with TLS", apiListener, withTLS, OK, ""},

		{"an address of another machine", addresses, taken(syscall.EADDRNOTAVAIL), Bad, "--admin-listen names an address"},
		{"a port of root's", addresses, taken(syscall.EACCES), Bad, "below 1024"},
		{"a taken port", addresses, taken(syscall.EADDRINUSE), Warn, "somebody else"},
		{"something else", addresses, taken(syscall.ENOBUFS), Bad, "nobody can listen"},

		{"private networks", trustedProxies, proxies("10.0.0.0/8", "192.168.1.0/24", "172.16.0.0/12", "fd00::/8", "100.64.0.0/10", "127.0.0.1/32", "::1/128"), OK, ""},
		{"a public one", trustedProxies, proxies("10.0.0.0/8", "198.51.100.0/24"), Warn, "198.51.100.0/24"},
		{"half of IPv6", trustedProxies, proxies("2000::/3"), Warn, "2000::/3"},
		{"a private one and its neighbours", trustedProxies, proxies("100.0.0.0/8"), Warn, "100.0.0.0/8"},
		{"10/7, which is more than is private", trustedProxies, proxies("10.0.0.0/7"), Warn, "10.0.0.0/7"},

		{"http to another machine", providerTransport, provider("http://192.0.2.1:8090"), Warn, "clear"},
		{"http to this machine", providerTransport, provider("http://[::1]:8090"), OK, ""},
		{"https", providerTransport, provider("https://psp.example"), OK, ""},
	})
}

func TestReasonsForNotReachingADatabaseAreToldApart(t *testing.T) {
	t.Parallel()
	refused := func(state string) error { return fmt.Errorf("reach the database: %w", &serverError{state}) }
	for name, c := range map[string]struct {
		err  error
		says string
	}{
		"DNS":         {fmt.Errorf("reach the database: %w", &net.DNSError{Err: "no such host", Name: "db"}), "cannot be resolved"},
		"refused":     {&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, "nobody listens"},
		"socket":      {&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ENOENT)}, "no socket"},
		"certificate": {fmt.Errorf("tls: %w", x509.UnknownAuthorityError{}), "not to be trusted"},
		"host name":   {fmt.Errorf("tls: %w", x509.HostnameError{Certificate: &x509.Certificate{}, Host: "db"}), "not to be trusted"},
		"time-out":    {fmt.Errorf("reach the database: %w", context.DeadlineExceeded), "does not answer within 5s"},
		"password":    {refused("28P01"), "password"},
		"privilege":   {refused("42501"), "may not connect"},
		"full":        {refused("53300"), "no connection left"},
		"starting":    {refused("57P03"), "starting up"},
		"other":       {refused("XX000"), "refuses the connection"},
		"garbage":     {io.ErrUnexpectedEOF, "breaks off"},
	} {
		v := unreachable(c.err)
		if v.level != Bad || !strings.Contains(v.says, c.says) || v.next == "" {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

type serverError struct{ state string }

func (e *serverError) Error() string    { return "FATAL: something with hunter2 in it" }
func (e *serverError) SQLState() string { return e.state }

func TestSecretsThatWereDrawnAreBelievedAndOthersAreNot(t *testing.T) {
	t.Parallel()
	s := Secret{Variable: "PAYMENTS_SECRET", AtLeast: 32}
	for range 2000 {
		random := make([]byte, 32)
		_, _ = rand.Read(random)
		for _, s.Value = range []string{
			hex.EncodeToString(random), hex.EncodeToString(random[:16]), base64.StdEncoding.EncodeToString(random),
			base64.RawURLEncoding.EncodeToString(random[:24]), rand.Text() + rand.Text(), string(random),
		} {
			if says := s.weak(); says != "" {
				t.Fatalf("%q: %s", s.Value, says)
			}
		}
	}
	if s.Value = "<q\xcd`\xe6\x90\xe0\xb5t\xc2\x06a\x88X\b\xde[p\xeb\xc1N\xb0\xc7\xf8\x96\xa3{$_\x178>"; s.weak() != "" { // was drawn once
		t.Error("bytes that look like a placeholder by chance are taken for one")
	}
	for _, s.Value = range []string{
		strings.Repeat("0", 64), strings.Repeat("ab", 20), "0123456789abcdef0123456789abcdef", "abcdefghijklmnopqrstuvwxyz0123456789",
		"00000000000000000000000000000001", "<the installation's secret goes here>", "your-secret-of-at-least-32-bytes-here",
		"ChangeMeChangeMeChangeMe-please-1234", "00112233445566778899aabbccddeeff", "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbb",
		"REPLACE_WITH_openssl_rand_hex_32_out", strings.Repeat("topsecret", 4),
	} {
		if says := s.weak(); says == "" || strings.Contains(says, s.Value) {
			t.Errorf("%q: %q", s.Value, says)
		}
	}
}

// Nothing that prints Settings as a whole prints what is in them.
func TestSettingsAreNotPrinted(t *testing.T) {
	t.Parallel()
	s := Settings{Database: Secret{Value: "hunter2"}, Secret: Secret{Value: "hunter2"}, AdminToken: Secret{Value: "hunter2"}}
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%+v", s), fmt.Sprintf("%#v", s), s.Secret.LogValue().String()} {
		if strings.Contains(text, "hunter2") {
			t.Error(text)
		}
	}
}

// healthy are settings with which nothing but the tests' own server is wrong.
func healthy(t *testing.T, dbURL string) Settings {
	t.Helper()
	drawn := func(variable string) Secret {
		return Secret{Variable: variable, Value: rand.Text() + rand.Text(), AtLeast: 32}
	}
	return Settings{
		Database: Secret{Variable: "DATABASE_URL", Value: dbURL}, Secret: drawn("PAYMENTS_SECRET"), AdminToken: drawn("PAYMENTS_ADMIN_TOKEN"),
		API:         Listener{Flag: "--listen", Address: "127.0.0.1:0", Loopback: true},
		Operator:    Listener{Flag: "--admin-listen", Address: "127.0.0.1:0", Loopback: true},
		MaxInFlight: 1, ProviderTimeout: 25 * time.Second, Settle: time.Minute, Recovery: time.Second, Retention: 24 * time.Hour,
		Providers: map[string]providers.Provider{},
	}
}

func TestEveryCheckIsReportedOnceWhateverIsMissing(t *testing.T) {
	t.Parallel()
	silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	dbURL := pgtest.Direct(pgtest.URL(t))
	for name, c := range map[string]struct {
		ctx   context.Context
		dbURL string
	}{
		"a database":               {t.Context(), dbURL},
		"no database":              {t.Context(), ""},
		"a database that hangs":    {t.Context(), "postgres://u:hunter2@" + silent.Addr().String() + "/x?sslmode=disable"},
		"no time":                  {ended, dbURL},
		"something that is no URL": {t.Context(), "hunter2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			r := Examine(c.ctx, healthy(t, c.dbURL))
			if took := time.Since(began); took > examLimit {
				t.Errorf("it took %s", took)
			}
			var ids []string
			for _, f := range r.Checks {
				ids = append(ids, f.ID)
				if f.Says == "" || strings.Contains(f.Says+f.Next, "hunter2") {
					t.Errorf("%+v", f)
				}
			}
			if !slices.Equal(ids, IDs()) {
				t.Errorf("got %q", ids)
			}
			if r.OK || r.Count(Bad) == 0 { // the tests' server has fsync off
				t.Error("nothing is bad")
			}
			if n := r.Count(OK) + r.Count(Warn) + r.Count(Bad) + r.Count(Skipped); n != len(ids) {
				t.Errorf("%d of %d have a level", n, len(ids))
			}
		})
	}
}

// strange is a provider that knows what nobody has told it.
type strange struct{ providers.Provider }

func (strange) Traits() providers.Traits { return providers.Traits{Queryable: true} }
func (strange) Inquire(context.Context, providers.Order) providers.Result {
	return providers.Result{Outcome: providers.Approved}
}

// mute is a provider that cannot be asked.
type mute struct{ providers.Provider }

func (mute) Traits() providers.Traits { return providers.Traits{} }

func TestAProviderIsOnlyAskedAndMustNotKnowWhatNobodyUsed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		provider providers.Provider
		level    Level
		says     string
	}{
		{strange{}, Bad, "nobody has ever used"},
		{mute{}, OK, "cannot be asked"},
	} {
		f := facts{set: Settings{Providers: map[string]providers.Provider{"test": c.provider}}, answers: map[string]answer{}}
		f.answers["test"] = ask(t.Context(), "test", c.provider)
		if v := providerAnswers(&f); v.level != c.level || !strings.Contains(v.says, c.says) {
			t.Errorf("%+v", v)
		}
	}
}

func TestDurationsAndCountsReadWell(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		24 * time.Hour: "24h", 5 * time.Minute: "5m", 90 * time.Second: "1m30s", 0: "0s", 10 * time.Second: "10s",
		time.Hour + time.Second: "1h0m1s", 90 * time.Minute: "1h30m", 10 * time.Minute: "10m", 1500 * time.Microsecond: "2ms",
	} {
		if got := plain(d); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
	}
	if counted(1, "key ends", "keys end") != "1 key ends" || counted(2, "key ends", "keys end") != "2 keys end" {
		t.Error("one and many")
	}
}

// TestThePageHasEveryCheck compares docs/operate/doctor.md with the list, in order.
func TestThePageHasEveryCheck(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/operate/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	var onPage []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z]+\\.[a-z_]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		onPage = append(onPage, m[1])
	}
	if !slices.Equal(onPage, IDs()) {
		t.Errorf("the page has %q, the program %q", onPage, IDs())
	}
}
