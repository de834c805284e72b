package main

import (
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/transactions"
)

const (
	defaultProviderTimeout = 25 * time.Second
	// minSettle is the least settling time where nothing is known of the provider:
	// a minute covers proxies and queues on the way.
	minSettle = time.Minute
	// leaseOverTimeout is what a lease has beyond the provider's time-out: enough
	// for a slow database, little enough for a merchant to wait.
	leaseOverTimeout = 20 * time.Second
)

// serverFlags are what `dev` and `serve` have in common. What is said of each is also
// its line in docs/reference/configuration.md, which is made of it.
type serverFlags struct {
	Listen           string         `default:"127.0.0.1:8080" help:"Address of the API; port 0 is a free one; without a host it is every address of the machine (default ${default})." placeholder:"ADDR"`
	AdminListen      string         `default:"127.0.0.1:8081" help:"Address of the operator's listener, which serves /metrics without credentials: keep it private. Beyond loopback it needs --admin-tls-cert; dev has it on loopback only (default ${default})." placeholder:"ADDR"`
	ProviderURL      string         `help:"A sandbox that runs as its own process: http(s)://host[:port][/path]. Required by serve; dev starts one itself without it." placeholder:"URL"`
	ProviderTimeout  *time.Duration `help:"How long one exchange with the provider may take; above 0 (default 25s)." placeholder:"DURATION"`
	Settle           *time.Duration `help:"How long a request may still travel, or sit unseen at the provider, after we gave up on it; not negative (default: twice the provider timeout, and at least 60s unless --provider-timeout is given)." placeholder:"DURATION"`
	Lease            *time.Duration `help:"How long a request may work on a payment before another takes over; at least the provider timeout and 3s (default: provider timeout + 20s)." placeholder:"DURATION"`
	RecoveryInterval time.Duration  `default:"2s" help:"How often to look for unresolved payments; above 0."`
	Retention        time.Duration  `default:"24h" help:"How long a nonce's answer is kept; at least 1m."`
	IETFBareKeys     bool           `name:"ietf-bare-keys" help:"Let merchants with the policy ietf send a nonce without the quotes that the draft asks for."`
	ShutdownTimeout  time.Duration  `default:"30s" help:"How long a stop waits for requests in flight; above 0."`
	MaxInFlight      int            `default:"1024" help:"How many of the API's requests are worked on at a time; more get 503 at once. At least 1." placeholder:"N"`
	LookupRate       int            `default:"60" help:"How many look-ups of nonces an account has a minute, on each instance; more get 429; the operator's are not limited. At least 1." placeholder:"N"`
	PublicURL        string         `name:"public-url" help:"Where providers and browsers reach this API, such as https://pay.example.com: providers are told to call back there, and payers come back there from their banks (default: providers nowhere, so that decisions are asked for, and payers to the host that their request named; dev: the API's own address)." placeholder:"URL"`

	AuthorizationExpiry time.Duration `default:"168h" help:"How long an authorization may be captured, by the database's clock; above 0."`
	PendingExpiry       time.Duration `default:"24h" help:"How long a provider may take to decide about a payment that it has accepted, before it is asked to refuse it; above 0."`

	TrustedProxies []string `help:"Networks of your proxies, such as 10.1.0.0/16, separated by commas: their X-Forwarded-For is believed, and nobody else's, not even loopback's. Not everybody, /0 (default: nobody's)." placeholder:"CIDR"`
}

// settings are what the flags say, as far as they can be judged by themselves.
func (f serverFlags) settings() (t times, l limits, publicURL string, err error) {
	if t, err = f.times(); err != nil {
		return t, l, "", err
	}
	if l, err = f.limits(); err != nil {
		return t, l, "", err
	}
	publicURL, err = f.publicURL()
	return t, l, publicURL, err
}

// times are the durations that the protocol needs, checked against each other.
type times struct {
	providerTimeout, settle, lease, recovery, retention, shutdown time.Duration
	authorizedFor, pendingFor                                     time.Duration
}

func (f serverFlags) times() (times, error) {
	if err := f.addresses(); err != nil {
		return times{}, err
	}
	t := times{
		providerTimeout: defaultProviderTimeout,
		recovery:        f.RecoveryInterval, retention: f.Retention, shutdown: f.ShutdownTimeout,
		authorizedFor: f.AuthorizationExpiry, pendingFor: f.PendingExpiry,
	}
	if f.ProviderTimeout != nil {
		t.providerTimeout = *f.ProviderTimeout
		t.settle = 2 * t.providerTimeout
	} else {
		t.settle = max(minSettle, 2*t.providerTimeout)
	}
	if f.Settle != nil {
		t.settle = *f.Settle
	}
	t.lease = t.providerTimeout + leaseOverTimeout
	if f.Lease != nil {
		t.lease = *f.Lease
	}
	switch least := t.providerTimeout + transactions.LeaseMargin; {
	case t.providerTimeout <= 0:
		return t, usage("--provider-timeout must be positive")
	case t.settle < 0:
		return t, usage("--settle must not be negative")
	case t.lease < least:
		return t, usage("--lease must be at least %s: the provider timeout and %s more", least, transactions.LeaseMargin)
	case t.recovery <= 0:
		return t, usage("--recovery-interval must be positive")
	case t.retention < idem.MinRetention:
		return t, usage("--retention must be at least %s", idem.MinRetention)
	case t.authorizedFor <= 0:
		return t, usage("--authorization-expiry must be positive")
	case t.pendingFor <= 0:
		return t, usage("--pending-expiry must be positive")
	case t.shutdown <= 0:
		return t, usage("--shutdown-timeout must be positive")
	}
	return t, nil
}

// limits are what one process takes from its clients.
type limits struct {
	inFlight, lookups int
	proxies           []netip.Prefix
}

func (f serverFlags) limits() (limits, error) {
	l := limits{inFlight: f.MaxInFlight, lookups: f.LookupRate}
	switch {
	case l.inFlight < 1:
		return l, usage("--max-in-flight must be at least 1")
	case l.lookups < 1:
		return l, usage("--lookup-rate must be at least 1")
	}
	for _, text := range f.TrustedProxies {
		p, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			return l, usage("--trusted-proxies must be networks such as 10.1.0.0/16 or fd00:1::/32, separated by commas")
		case p.Bits() == 0:
			return l, usage("--trusted-proxies must not be everybody: then each client could choose its address")
		}
		l.proxies = append(l.proxies, p.Masked())
	}
	return l, nil
}

// publicURL is --public-url without a slash at its end, or "".
func (f serverFlags) publicURL() (string, error) {
	if f.PublicURL == "" {
		return "", nil
	}
	u, err := url.Parse(f.PublicURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", usage("--public-url must be http(s)://host[:port][/path] and nothing else")
	}
	return strings.TrimRight(u.String(), "/"), nil
}

// addresses refuses a listener without an address: it, perhaps from a variable that
// is set to nothing, would be on every interface of the machine.
func (f serverFlags) addresses() error {
	for flag, addr := range map[string]string{"--listen": f.Listen, "--admin-listen": f.AdminListen} {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return usage("%s must be an address such as 127.0.0.1:8080", flag)
		}
	}
	return nil
}
