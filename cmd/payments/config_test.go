package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestTheTimesThatWereNotGivenFollowFromThoseThatWere(t *testing.T) {
	t.Parallel()
	d := func(d time.Duration) *time.Duration { return &d }
	for name, c := range map[string]struct {
		change                 func(*serverFlags)
		timeout, settle, lease time.Duration
	}{
		"nothing is given": {
			func(*serverFlags) {},
			25 * time.Second, 60 * time.Second, 45 * time.Second,
		},
		"a short provider timeout alone: settling takes twice that, not a minute": {
			func(f *serverFlags) { f.ProviderTimeout = d(time.Second) },
			time.Second, 2 * time.Second, 21 * time.Second,
		},
		"a long provider timeout alone": {
			func(f *serverFlags) { f.ProviderTimeout = d(50 * time.Second) },
			50 * time.Second, 100 * time.Second, 70 * time.Second,
		},
		"the default, but given: as any other that is given": {
			func(f *serverFlags) { f.ProviderTimeout = d(25 * time.Second) },
			25 * time.Second, 50 * time.Second, 45 * time.Second,
		},
		"settle alone": {
			func(f *serverFlags) { f.Settle = d(5 * time.Second) },
			25 * time.Second, 5 * time.Second, 45 * time.Second,
		},
		"no settling time at all": {
			func(f *serverFlags) { f.Settle = d(0) },
			25 * time.Second, 0, 45 * time.Second,
		},
		"settle and provider timeout": {
			func(f *serverFlags) { f.ProviderTimeout, f.Settle = d(time.Second), d(7*time.Second) },
			time.Second, 7 * time.Second, 21 * time.Second,
		},
		"the shortest lease": {
			func(f *serverFlags) { f.ProviderTimeout, f.Lease = d(time.Second), d(4*time.Second) },
			time.Second, 2 * time.Second, 4 * time.Second,
		},
		"a long lease": {
			func(f *serverFlags) { f.Lease = d(time.Hour) },
			25 * time.Second, 60 * time.Second, time.Hour,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := usualFlags()
			c.change(&f)
			got, err := f.times()
			want := times{
				providerTimeout: c.timeout, settle: c.settle, lease: c.lease,
				recovery: f.RecoveryInterval, retention: f.Retention, shutdown: f.ShutdownTimeout,
				authorizedFor: f.AuthorizationExpiry, pendingFor: f.PendingExpiry,
			}
			if err != nil || got != want {
				t.Errorf("got %+v (%v), want %+v", got, err, want)
			}
		})
	}
}

func TestTimesThatCannotWorkAreRefusedWithTheFlagAndTheRule(t *testing.T) {
	t.Parallel()
	d := func(d time.Duration) *time.Duration { return &d }
	for says, change := range map[string]func(*serverFlags){
		"--provider-timeout must be positive":  func(f *serverFlags) { f.ProviderTimeout = d(0) },
		"--settle must not be negative":        func(f *serverFlags) { f.Settle = d(-1) },
		"--lease must be at least 28s":         func(f *serverFlags) { f.Lease = d(28*time.Second - 1) },
		"--lease must be at least 33s":         func(f *serverFlags) { f.ProviderTimeout, f.Lease = d(30*time.Second), d(32*time.Second) },
		"--recovery-interval must be positive": func(f *serverFlags) { f.RecoveryInterval = 0 },
		"--retention must be at least 1m0s":    func(f *serverFlags) { f.Retention = time.Minute - 1 },
		"--listen must be an address":          func(f *serverFlags) { f.Listen = "" }, // which would be every interface
		"--admin-listen must be an address":    func(f *serverFlags) { f.AdminListen = "localhost" },
		"--shutdown-timeout must be positive":  func(f *serverFlags) { f.ShutdownTimeout = -time.Second },

		"--authorization-expiry must be positive": func(f *serverFlags) { f.AuthorizationExpiry = 0 },
		"--pending-expiry must be positive":       func(f *serverFlags) { f.PendingExpiry = -time.Second },
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			f := usualFlags()
			change(&f)
			_, err := f.times()
			e, ok := errors.AsType[exitError](err)
			if !ok || e.code != exitUsage || !strings.Contains(err.Error(), says) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// usualFlags are what the command line makes of no flags.
func usualFlags() serverFlags {
	return serverFlags{
		Listen: "127.0.0.1:8080", AdminListen: "127.0.0.1:8081",
		RecoveryInterval: 2 * time.Second, Retention: 24 * time.Hour, ShutdownTimeout: 30 * time.Second,
		AuthorizationExpiry: 168 * time.Hour, PendingExpiry: 24 * time.Hour,
	}
}

// Providers are told this address, and payers may see it.
func TestPublicURLIsAnAddressAndNothingElse(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"": "", "https://pay.example.com": "https://pay.example.com", "http://10.0.0.1:8080/": "http://10.0.0.1:8080",
		"https://example.com/payments/": "https://example.com/payments", "https://[2001:db8::1]:8443": "https://[2001:db8::1]:8443",
	} {
		if got, err := (serverFlags{PublicURL: given}).publicURL(); err != nil || got != want {
			t.Errorf("%q became %q (%v), want %q", given, got, err, want)
		}
	}
	for _, given := range []string{
		"pay.example.com", "https://", "ftp://pay.example.com", "//pay.example.com", "https://user:word@pay.example.com", "https://pay.example.com?a=1",
		"https://pay.example.com#top", "https://pay.example.com:port", "/v1",
	} {
		_, err := serverFlags{PublicURL: given}.publicURL()
		if e, ok := errors.AsType[exitError](err); !ok || e.code != exitUsage || !strings.Contains(err.Error(), "--public-url") || strings.Contains(err.Error(), "word") {
			t.Errorf("%q: got %v", given, err)
		}
	}
}
