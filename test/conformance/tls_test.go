package conformance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/localpg"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/test/harness"
)

// authority issues certificates, for this test and nobody else.
type authority struct {
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	roots *x509.CertPool
	file  string
}

func newAuthority(t *testing.T, dir, name string) authority {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a := authority{key: newKey(t), roots: x509.NewCertPool(), file: filepath.Join(dir, name+".crt")}
	a.cert = sign(t, template, template, a.key, a.key)
	a.roots.AddCert(a.cert)
	writePEM(t, a.file, "CERTIFICATE", a.cert.Raw, 0o644)
	return a
}

// issue writes a certificate for 127.0.0.1, and its key, into a folder.
func (a authority) issue(t *testing.T, dir, name string) (certFile, keyFile string, cert *x509.Certificate) {
	t.Helper()
	key := newKey(t)
	cert = sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.cert, key, a.key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	writePEM(t, certFile, "CERTIFICATE", cert.Raw, 0o644)
	writePEM(t, keyFile, "PRIVATE KEY", der, 0o600)
	return certFile, keyFile, cert
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t *testing.T, template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = serial, time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func writePEM(t *testing.T, path, kind string, der []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
		t.Fatal(err)
	}
}

// secured are the flags of an instance whose listeners share a certificate.
func secured(certFile, keyFile string) []string {
	return []string{"--tls-cert", certFile, "--tls-key", keyFile, "--admin-tls-cert", certFile, "--admin-tls-key", keyFile}
}

func TestBothListenersSpeakTLS(t *testing.T) {
	t.Parallel()
	dir := harness.Folder(t)
	ca, stranger := newAuthority(t, dir, "ca"), newAuthority(t, dir, "stranger")
	certFile, keyFile, _ := ca.issue(t, dir, "listener")
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	installation := harness.NewInstallation(pgtest.URL(t), sandbox.URL)
	installation.Roots = ca.roots
	api := installation.Serve(t, secured(certFile, keyFile)...)
	for _, u := range []string{api.URL, api.Operator.URL} {
		if !strings.HasPrefix(u, "https://") {
			t.Errorf("it says that it is at %s", u)
		}
	}

	client := harness.NewClient(api.URL, merchant(t, api)).Trusting(ca.roots)
	payment := harness.NewPayment("paid over TLS")
	answer := pay(t, client, payment)
	mustReplay(t, client, payment, answer)
	sandbox.Ledger().MustHave(t, payment, 1)
	if a := client.Trusting(stranger.roots).Pay(within(t, harness.Patience), payment); a.Err == nil {
		t.Error("a stranger's authority vouches for it")
	}

	for _, base := range []string{api.URL, api.Operator.URL} {
		for _, path := range []string{"/livez", "/readyz", "/docs", "/nothing-here"} {
			res := ask(t, base+path, &tls.Config{RootCAs: ca.roots, NextProtos: []string{"h2", "http/1.1"}})
			if res.strictTransport != "max-age=31536000" || res.major != 1 || res.tls.Version < tls.VersionTLS12 {
				t.Errorf("%s%s answers %+v", base, path, res)
			}
		}
	}
	if res := ask(t, api.Operator.URL+"/metrics", &tls.Config{RootCAs: ca.roots}); res.status != http.StatusOK {
		t.Errorf("/metrics answers %d", res.status)
	}
	address := strings.TrimPrefix(api.URL, "https://")
	for name, old := range map[string]*tls.Config{
		"TLS 1.1": {RootCAs: ca.roots, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
		"HTTP/2":  {RootCAs: ca.roots, NextProtos: []string{"h2"}},
	} {
		if conn, err := tls.Dial("tcp", address, old); err == nil {
			_ = conn.Close()
			t.Errorf("it speaks %s", name)
		}
	}
	if res := ask(t, "http://"+address+"/livez", nil); res.status != http.StatusBadRequest || res.strictTransport != "" {
		t.Errorf("without TLS it answers %+v", res)
	}

	lookup := func(args ...string) harness.Result {
		return harness.Call(t, harness.Command{
			Args: append([]string{"lookup", payment.Nonce, "--admin-url", api.Operator.URL}, args...), Env: []string{"PAYMENTS_ADMIN_TOKEN=" + installation.AdminToken},
		})
	}
	lookup("--admin-ca", ca.file).Must(t, 0, "Charged once")
	lookup("--admin-ca", stranger.file).Must(t, 4, "a certificate that is not trusted", "--admin-ca")
	lookup().Must(t, 4, "a certificate that is not trusted", "--admin-ca")
	lookup("--admin-ca", keyFile).Must(t, 2, "--admin-ca must be a file with certificates")

	api.Signal(syscall.SIGTERM)
	if code := api.Wait(); code != 0 {
		t.Errorf("it ends with %d", code)
	}
}

// answered is what there is to know of an answer beside its body.
type answered struct {
	status, major   int
	strictTransport string
	tls             *tls.ConnectionState
}

// ask asks for a URL on a connection of its own.
func ask(t *testing.T, address string, config *tls.Config) answered {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t, harness.Patience), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: config, ForceAttemptHTTP2: config != nil && len(config.NextProtos) > 0}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Fatal(err)
	}
	return answered{res.StatusCode, res.ProtoMajor, res.Header.Get("Strict-Transport-Security"), res.TLS}
}

// A proxy in front ends TLS and says so itself.
func TestWithoutTLSNothingIsSaidOfIt(t *testing.T) {
	t.Parallel()
	api, _ := instance(t, pgtest.URL(t), "http://127.0.0.1:1")
	for _, base := range []string{api.URL, api.Operator.URL} {
		if res := ask(t, base+"/livez", nil); res.status != http.StatusOK || res.strictTransport != "" {
			t.Errorf("it answers %+v", res)
		}
	}
}

// TestACertificateIsRenewedUnderway replaces files as a renewal does, while payments go
// through, and then with files that are no pair.
func TestACertificateIsRenewedUnderway(t *testing.T) {
	t.Parallel()
	const soon = 15 * time.Second // the files are looked at every ten
	dir, fresh := harness.Folder(t), harness.Folder(t)
	ca := newAuthority(t, dir, "ca")
	certFile, keyFile, first := ca.issue(t, dir, "listener")
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	installation := harness.NewInstallation(pgtest.URL(t), sandbox.URL)
	installation.Roots = ca.roots
	api := installation.Serve(t, secured(certFile, keyFile)...)
	client := harness.NewClient(api.URL, merchant(t, api)).Trusting(ca.roots)
	served := func(address string) *x509.Certificate {
		t.Helper()
		conn, err := tls.Dial("tcp", strings.TrimPrefix(address, "https://"), &tls.Config{RootCAs: ca.roots})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		return conn.ConnectionState().PeerCertificates[0]
	}
	if !served(api.URL).Equal(first) || !served(api.Operator.URL).Equal(first) {
		t.Error("it serves another certificate than it was given")
	}

	newCert, newKey, second := ca.issue(t, fresh, "listener")
	move(t, newCert, certFile)
	move(t, newKey, keyFile)
	replaced := time.Now()
	for _, address := range []string{api.URL, api.Operator.URL} {
		harness.Eventually(t, soon, "the new certificate is served", func() bool {
			pay(t, client, harness.NewPayment("paid while a certificate is renewed"))
			return served(address).Equal(second)
		})
	}
	t.Logf("a new certificate was served after %s", time.Since(replaced).Round(time.Millisecond))

	broken, _, _ := ca.issue(t, fresh, "broken")
	move(t, broken, certFile) // and the key of the one before
	harness.Eventually(t, soon, "the log tells of files that are no pair", func() bool {
		return served(api.URL).Equal(second) && strings.Contains(api.Stderr(), "the new certificate cannot be used")
	})
	pay(t, client, harness.NewPayment("paid beside a broken renewal"))
	if !served(api.URL).Equal(second) {
		t.Error("a broken renewal is served")
	}
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

const databasePassword = "hunter2-and-then-some"

// networkPostgres starts a PostgreSQL of the test's own that is reached over TCP, by a
// password, and has a certificate that it does not use yet. It returns its address.
func networkPostgres(t *testing.T, ca authority) string {
	t.Helper()
	bin, err := localpg.FindBinaries(os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	dir := harness.Folder(t)
	certFile, keyFile, _ := ca.issue(t, dir, "postgres")
	passwordFile, data := filepath.Join(dir, "password"), filepath.Join(dir, "data")
	if err := errors.Join(os.WriteFile(passwordFile, []byte(databasePassword), 0o600), os.Mkdir(data, 0o700)); err != nil {
		t.Fatal(err)
	}
	attr := &syscall.SysProcAttr{}
	if os.Geteuid() == 0 { // PostgreSQL refuses to run as root
		who := unprivileged(t)
		attr.Credential = &who
		for _, path := range []string{certFile, keyFile, passwordFile, data} {
			if err := os.Chown(path, int(who.Uid), int(who.Gid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	run := func(program string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, program), args...)
		cmd.Dir, cmd.Env, cmd.SysProcAttr = "/", []string{"LC_ALL=C", "TZ=UTC", "PATH=" + os.Getenv("PATH")}, attr
		return cmd
	}
	if out, err := run("initdb", "-D", data, "-U", "postgres", "-A", "scram-sha-256", "--pwfile", passwordFile, "--no-sync", "-E", "UTF8", "--locale", "C").CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	address := freeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	server := run("postgres", "-D", data, "-c", "listen_addresses=127.0.0.1", "-c", "port="+port, "-c", "unix_socket_directories=",
		"-c", "ssl_cert_file="+certFile, "-c", "ssl_key_file="+keyFile, "-c", "fsync=off")
	if err := harness.StartTied(server); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGQUIT) // nothing in it is worth an orderly stop
		_ = server.Wait()
	})
	return address
}

// unprivileged is a user whom PostgreSQL may run as.
func unprivileged(t *testing.T) syscall.Credential {
	t.Helper()
	for _, name := range []string{"postgres", "_postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if errors.Join(err1, err2) == nil {
			return syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
	}
	t.Fatal("there is no user to run PostgreSQL as")
	return syscall.Credential{}
}

// freeAddress is one on which nobody listens just now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// TestTheDatabasesTLSModesArePassedOn: what DATABASE_URL says of TLS is what happens, and
// what goes wrong is told without the password.
func TestTheDatabasesTLSModesArePassedOn(t *testing.T) {
	t.Parallel()
	dir := harness.Folder(t)
	ca, stranger := newAuthority(t, dir, "ca"), newAuthority(t, dir, "stranger")
	address := networkPostgres(t, ca)
	database := func(address, mode, root string) string {
		u := url.URL{Scheme: "postgres", User: url.UserPassword("postgres", databasePassword), Host: address, Path: "/postgres"}
		q := url.Values{"sslmode": {mode}}
		if root != "" {
			q.Set("sslrootcert", root)
		}
		u.RawQuery = q.Encode()
		return u.String()
	}
	var conn *pgx.Conn
	harness.Eventually(t, harness.Patience, "PostgreSQL is there", func() (there bool) {
		var err error
		conn, err = pgx.Connect(within(t, harness.Patience), database(address, "disable", ""))
		return err == nil
	})
	defer conn.Close(t.Context())
	refused := func(name, databaseURL, says string) {
		t.Helper()
		for _, command := range []harness.Command{
			{Args: []string{"migrate", "status"}, Env: []string{"DATABASE_URL=" + databaseURL}}, harness.NewInstallation(databaseURL, "http://127.0.0.1:1").ServeCommand(),
		} {
			r := harness.Call(t, command)
			r.Must(t, 4, "reach the database", says)
			if strings.Contains(r.Stdout+r.Stderr, databasePassword) {
				t.Errorf("%s: it tells the database's password", name)
			}
		}
	}

	refused("a server without TLS", database(address, "require", ""), "server refused TLS connection")
	for _, sql := range []string{"ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	harness.Eventually(t, harness.Patience, "PostgreSQL has TLS", func() bool {
		c, err := pgx.Connect(within(t, harness.Patience), database(address, "require", ""))
		if err == nil {
			c.Close(t.Context())
		}
		return err == nil
	})
	refused("an authority that did not sign", database(address, "verify-full", stranger.file), "certificate signed by unknown authority")
	_, port, _ := net.SplitHostPort(address)
	refused("a certificate for somebody else", database("localhost:"+port, "verify-full", ca.file), "certificate")
	harness.Call(t, harness.Command{
		Args: []string{"migrate", "status"}, Env: []string{"DATABASE_URL=" + database(address, "verify-full", ca.file+".missing")},
	}).Must(t, 2, "sslrootcert", "no such file")

	for i, good := range []string{database(address, "require", ""), database(address, "verify-ca", ca.file), database(address, "verify-full", ca.file)} {
		if i == 0 {
			harness.Call(t, harness.Command{Args: []string{"migrate", "up"}, Env: []string{"DATABASE_URL=" + good}}).Must(t, 0, "up to date")
		}
		api := harness.NewInstallation(good, "http://127.0.0.1:1").Serve(t)
		merchant(t, api)
		const sessions = `SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'oncepay' AND `
		if with, without := number(t, conn, sessions+"ssl"), number(t, conn, sessions+"NOT ssl"); with == 0 || without != 0 {
			t.Errorf("%d connections with TLS, %d without", with, without)
		}
		api.Signal(syscall.SIGTERM)
		api.Wait()
	}
}
