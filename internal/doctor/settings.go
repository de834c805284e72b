package doctor

import (
	"crypto/tls"
	"log/slog"
	"net/netip"
	"time"

	"github.com/oncepay/oncepay/internal/providers"
)

// Settings are what an instance would serve with.
type Settings struct {
	// Refused is why an instance would not start with them, apart from what has a
	// check of its own.
	Refused []error

	Database    Secret // its URL
	PgBouncer   bool   // it leads to one in transaction mode
	Secret      Secret
	OtherSecret Secret // the last or the next one, while it is being changed
	AdminToken  Secret

	API, Operator  Listener
	TrustedProxies []netip.Prefix
	MaxInFlight    int

	ProviderTimeout, Settle, Recovery, Retention time.Duration

	// Providers are the modes that are served. ProviderURL is where they are, or "".
	Providers   map[string]providers.Provider
	ProviderURL string
}

// Secret is one that is given from outside.
type Secret struct {
	Variable string
	Value    string
	AtLeast  int   // bytes
	Shared   bool  // others than its owner can read the file it comes from
	Err      error // why it cannot be read
}

// String keeps the secret out of whatever prints it.
func (Secret) String() string { return "[secret]" }

// GoString does the same for %#v.
func (Secret) GoString() string { return "[secret]" }

// LogValue does the same for slog.
func (Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// Listener is one of the two.
type Listener struct {
	Flag     string // --listen, --admin-listen
	Address  string
	Loopback bool // nobody else's machine reaches it
	// TLS says that there is to be any: Certificate is what it serves with then, or
	// Err why it cannot.
	TLS         bool
	Certificate *tls.Certificate
	Err         error
}

// exposed says that other machines reach it, and everything on it can be read on the
// way.
func (l Listener) exposed() bool { return !l.Loopback && !l.TLS }
