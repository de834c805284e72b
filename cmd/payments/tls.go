package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oncepay/oncepay/internal/httpapi"
)

// certificateEvery is how often a certificate's files are looked at, while somebody
// connects: whoever renews one a month ahead needs no more, and a handshake is not to
// wait for a disk.
const certificateEvery = 10 * time.Second

// tlsFlags are the certificates of serve's listeners.
type tlsFlags struct {
	TLSCert      string `name:"tls-cert" placeholder:"FILE" help:"The API's certificate and those between it and its root, in PEM; --tls-key goes with it. Without both the API speaks plain HTTP, for a proxy in front of it that ends TLS. Read again when it changes, without a restart."`
	TLSKey       string `name:"tls-key" placeholder:"FILE" help:"The key of --tls-cert, in PEM, without a passphrase."`
	AdminTLSCert string `name:"admin-tls-cert" placeholder:"FILE" help:"As --tls-cert, for the operator's listener; required where --admin-listen is not on loopback."`
	AdminTLSKey  string `name:"admin-tls-key" placeholder:"FILE" help:"The key of --admin-tls-cert, in PEM, without a passphrase."`
}

// certificates are those of the two listeners; nil is a listener without TLS.
func (f tlsFlags) certificates(adminListen string, log *slog.Logger) (public, operator *certificate, err error) {
	if (f.TLSCert == "") != (f.TLSKey == "") {
		return nil, nil, usage("--tls-cert and --tls-key go together")
	}
	if (f.AdminTLSCert == "") != (f.AdminTLSKey == "") {
		return nil, nil, usage("--admin-tls-cert and --admin-tls-key go together")
	}
	if f.AdminTLSCert == "" && !onLoopback(adminListen) {
		return nil, nil, usage("--admin-listen must be on loopback, such as 127.0.0.1:8081, or have --admin-tls-cert and --admin-tls-key: " +
			"the admin token must not cross a network in the clear")
	}
	if f.TLSCert != "" {
		if public, err = newCertificate(f.TLSCert, f.TLSKey, log.With("flag", "--tls-cert")); err != nil {
			return nil, nil, usage("--tls-cert and --tls-key: %w", err)
		}
	}
	if f.AdminTLSCert != "" {
		if operator, err = newCertificate(f.AdminTLSCert, f.AdminTLSKey, log.With("flag", "--admin-tls-cert")); err != nil {
			return nil, nil, usage("--admin-tls-cert and --admin-tls-key: %w", err)
		}
	}
	return public, operator, nil
}

// onLoopback says whether a listener's address is one that only this machine reaches.
func onLoopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	return err == nil && httpapi.Loopback(host)
}

// certificate is a certificate with its key, from two files that may be replaced while
// it is served.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger
	every             time.Duration
	current           atomic.Pointer[tls.Certificate]

	looking sync.Mutex // held by the one handshake that looks at the files
	looked  time.Time
	trouble string // what was logged of the files as they are; "" is none
}

// newCertificate fails if the files are not a pair as they are now.
func newCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log, every: certificateEvery, looked: time.Now()}
	pair, err := readPair(certFile, keyFile)
	c.current.Store(pair)
	return c, err
}

// readPair reads a certificate and its key.
func readPair(certFile, keyFile string) (*tls.Certificate, error) {
	cert, _, err := readFile(certFile, maxSettingFile)
	if err != nil {
		return nil, errors.New("the certificate's file cannot be read: " + err.Error())
	}
	key, _, err := readFile(keyFile, maxSettingFile)
	if err != nil {
		return nil, errors.New("the key's file cannot be read: " + err.Error())
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err // names what is wrong with them, and quotes nothing
	}
	return &pair, nil
}

// get is the certificate for a handshake.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.looking.TryLock() { // otherwise somebody else does
		if time.Since(c.looked) >= c.every {
			c.look()
		}
		c.looking.Unlock()
	}
	return c.current.Load(), nil
}

// look takes new files over. Files that are no pair leave everything as it was: they
// may be half written, and a broken renewal must not end what still works.
func (c *certificate) look() {
	defer func() { c.looked = time.Now() }()
	pair, err := readPair(c.certFile, c.keyFile)
	if err != nil {
		if c.trouble != err.Error() {
			c.trouble = err.Error()
			c.log.Error("the new certificate cannot be used; the old one is kept", "error", c.trouble, "not_after", c.current.Load().Leaf.NotAfter)
		}
		return
	}
	c.trouble = ""
	if !pair.Leaf.Equal(c.current.Load().Leaf) {
		c.log.Info("certificate renewed", "not_after", pair.Leaf.NotAfter)
	}
	c.current.Store(pair)
}

// secure is l, behind TLS if there is a certificate. Like the plain one, it speaks
// HTTP/1 alone.
func (c *certificate) secure(l net.Listener) net.Listener {
	if c == nil {
		return l
	}
	return tls.NewListener(l, &tls.Config{GetCertificate: c.get, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
}

// url is that of a listener's address.
func (c *certificate) url(address string) string {
	if c == nil {
		return "http://" + address
	}
	return "https://" + address
}

// clientTrusting is an HTTP client's transport that believes in the authorities of one
// file alone; without a file, in those of the system.
func clientTrusting(caFile string) (*http.Transport, error) {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	if caFile == "" {
		return t, nil
	}
	pem, _, err := readFile(caFile, maxAuthorities)
	if err != nil {
		return nil, usage("--admin-ca names a file that cannot be read: %w", err)
	}
	t.TLSClientConfig.RootCAs = x509.NewCertPool()
	if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
		return nil, usage("--admin-ca must be a file with certificates in PEM")
	}
	return t, nil
}
