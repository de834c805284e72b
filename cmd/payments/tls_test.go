package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pairOf writes a certificate for 127.0.0.1 that signs itself, and its key, and
// returns the files and its serial number.
func pairOf(t *testing.T, dir, name string) (certFile, keyFile string, serial *big.Int) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile = write(t, dir, name+".crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), 0o644)
	keyFile = write(t, dir, name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})), 0o600)
	return certFile, keyFile, serial
}

func TestLoopbackIsWhatOnlyThisMachineReaches(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"127.0.0.1:8081": true, "127.9.9.9:0": true, "[::1]:8081": true, "localhost:8081": true, "LOCALHOST:8081": true, "[::ffff:127.0.0.1]:8081": true,
		":8081": false, "0.0.0.0:8081": false, "[::]:8081": false, "10.0.0.1:8081": false, "[fe80::1%lo]:8081": false, "[fd00::1]:8081": false,
		"payments:8081": false, "localhost.example:8081": false, "127.0.0.1.example:8081": false, "127.1:8081": false, "127.0.0.1": false, "": false,
	} {
		if got := onLoopback(address); got != want {
			t.Errorf("%q is on loopback: %t", address, got)
		}
	}
}

func TestCertificatesThatCannotServeAreRefusedWithTheFlagAndTheRule(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key, _ := pairOf(t, dir, "one")
	_, otherKey, _ := pairOf(t, dir, "two")
	const local, everywhere = "127.0.0.1:8081", "0.0.0.0:8081"
	for name, c := range map[string]struct {
		flags tlsFlags
		admin string
		says  string
	}{
		"a certificate alone":                     {tlsFlags{TLSCert: cert}, local, "--tls-cert and --tls-key go together"},
		"a key alone":                             {tlsFlags{TLSKey: key}, local, "--tls-cert and --tls-key go together"},
		"the operator's certificate alone":        {tlsFlags{AdminTLSCert: cert}, everywhere, "--admin-tls-cert and --admin-tls-key go together"},
		"the operator's key alone":                {tlsFlags{AdminTLSKey: key}, local, "--admin-tls-cert and --admin-tls-key go together"},
		"the operator's listener open":            {tlsFlags{}, everywhere, "--admin-listen must be on loopback"},
		"the same with TLS for the API":           {tlsFlags{TLSCert: cert, TLSKey: key}, everywhere, "--admin-listen must be on loopback"},
		"the same by a name":                      {tlsFlags{}, "payments.internal:8081", "--admin-listen must be on loopback"},
		"no certificate there":                    {tlsFlags{TLSCert: filepath.Join(dir, "nothing"), TLSKey: key}, local, "--tls-cert and --tls-key: the certificate's file cannot be read"},
		"no key there":                            {tlsFlags{TLSCert: cert, TLSKey: filepath.Join(dir, "nothing")}, local, "--tls-cert and --tls-key: the key's file cannot be read"},
		"another's key":                           {tlsFlags{TLSCert: cert, TLSKey: otherKey}, local, "--tls-cert and --tls-key: tls: private key does not match"},
		"switched":                                {tlsFlags{TLSCert: key, TLSKey: cert}, local, "switched"},
		"the operator's certificate with another": {tlsFlags{AdminTLSCert: cert, AdminTLSKey: otherKey}, everywhere, "--admin-tls-cert and --admin-tls-key: tls: private key does not match"},
	} {
		_, _, err := c.flags.certificates(c.admin, slog.New(slog.DiscardHandler))
		e, ok := errors.AsType[exitError](err)
		if !ok || e.code != exitUsage || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		flags            tlsFlags
		admin            string
		public, operator string
	}{
		"none":                       {tlsFlags{}, local, "http://a", "http://a"},
		"the API's":                  {tlsFlags{TLSCert: cert, TLSKey: key}, local, "https://a", "http://a"},
		"the operator's":             {tlsFlags{AdminTLSCert: cert, AdminTLSKey: key}, everywhere, "http://a", "https://a"},
		"the operator's on loopback": {tlsFlags{AdminTLSCert: cert, AdminTLSKey: key}, local, "http://a", "https://a"},
	} {
		public, operator, err := c.flags.certificates(c.admin, slog.New(slog.DiscardHandler))
		if err != nil || public.url("a") != c.public || operator.url("a") != c.operator {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestACertificateIsRenewedWithoutARestartAndABrokenOneIsNot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certFile, keyFile, first := pairOf(t, dir, "served")
	var log bytes.Buffer
	c, err := newCertificate(certFile, keyFile, newLog(&log))
	if err != nil {
		t.Fatal(err)
	}
	c.every = 0 // each handshake looks
	serves := func(when string, serial *big.Int) {
		t.Helper()
		got, err := c.get(&tls.ClientHelloInfo{})
		if err != nil || got.Leaf.SerialNumber.Cmp(serial) != 0 {
			t.Errorf("%s it serves another certificate (%v)", when, err)
		}
	}
	serves("at first", first)

	newCert, newKey, second := pairOf(t, t.TempDir(), "served")
	replace(t, newCert, certFile) // the key is still the old one's
	serves("half-way through a renewal", first)
	serves("half-way through a renewal", first)
	if n := strings.Count(log.String(), `"level":"ERROR"`); n != 1 {
		t.Errorf("%d errors were logged of one broken renewal: %s", n, log.String())
	}
	replace(t, newKey, keyFile)
	serves("after a renewal", second)
	serves("after a renewal", second)
	if n := strings.Count(log.String(), `"msg":"certificate renewed"`); n != 1 {
		t.Errorf("%d renewals were logged: %s", n, log.String())
	}
	if err := os.Remove(keyFile); err != nil {
		t.Fatal(err)
	}
	serves("without its files", second)
	if n := strings.Count(log.String(), `"level":"ERROR"`); n != 2 {
		t.Errorf("%d errors were logged of two faults: %s", n, log.String())
	}
	c.every = time.Hour
	replace(t, certFile, filepath.Join(dir, "away"))
	serves("between two looks", second)
	if strings.Contains(log.String(), "PRIVATE") {
		t.Error("the log has a key")
	}
}

func replace(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func TestAuthorityOfTheOperatorsListenerIsAFileOfCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key, _ := pairOf(t, dir, "authority")
	if transport, err := clientTrusting(cert); err != nil || transport.TLSClientConfig.RootCAs == nil {
		t.Errorf("a certificate: %v", err)
	}
	if transport, err := clientTrusting(""); err != nil || transport.TLSClientConfig.RootCAs != nil {
		t.Errorf("none: %v", err)
	}
	for file, says := range map[string]string{
		key: "--admin-ca must be a file with certificates", filepath.Join(dir, "nothing"): "--admin-ca names a file that cannot be read",
	} {
		_, err := clientTrusting(file)
		if e, ok := errors.AsType[exitError](err); !ok || e.code != exitUsage || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %s", err, says)
		}
	}
}
