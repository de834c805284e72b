// Package merchants knows who is calling: merchants, their API keys, and the
// directory that every request is authenticated against without asking the
// database. A merchant is one account; `account_id` is its id everywhere.
package merchants

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
)

// The two modes. They never see each other's data, keys or nonces.
const (
	Test = "test"
	Live = "live"
)

// Prefixes of both halves of a key pair, by mode. Clients tell from the public
// key's prefix which installation to talk to.
var prefixes = map[string]string{Test: "sandbox_", Live: "prod_"}

const (
	// maxNameLength is in characters.
	maxNameLength = 255
	// secretLabel tells the secret half from the public one at a glance, and lets
	// secret scanners find it where it should not be.
	secretLabel = "secret_"

	// maxKeys is how many keys an account may have in one mode that are not revoked:
	// one for each of its services, and as many again while they are rotated. The
	// directory holds all of them.
	maxKeys = 100
	// maxNetworks is how many networks a key's list may have; each request's address
	// is compared with all of them.
	maxNetworks = 50

	// DefaultOverlap is how long a key that is rotated stays good, if nothing is said:
	// a day to bring its successor everywhere.
	DefaultOverlap = 24 * time.Hour
	// MaxOverlap bounds it: what stays good for longer has not been rotated.
	MaxOverlap = 30 * 24 * time.Hour
)

// Merchant is one account.
type Merchant struct {
	AccountID         uuid.UUID
	Name              string
	IdempotencyPolicy string
	Origins           []string // of the pages that may call from a browser, in the order they were given
	CreatedAt         time.Time
	DisabledAt        *time.Time // none of its keys is taken since; nil: they are
}

// Update is what is to be different about a merchant; nil stays as it is.
type Update struct {
	Name, IdempotencyPolicy *string
	Origins                 []string // all of them; empty: there are none any more
}

// Status is what may be done with a key.
type Status string

// What a key's status can be.
//
//	           rotate               its time has come
//	active ──────────────▶ expiring ─────────────────▶ revoked
//	   └──────── revoke ───────┴──────── revoke ─────────▲
const (
	Active   Status = "active"
	Expiring Status = "expiring" // rotated: good until ExpiresAt, and cannot be rotated again
	Revoked  Status = "revoked"  // never taken again
)

// Key is what is known of an API key: everything but its secret.
type Key struct {
	ID           uuid.UUID
	AccountID    uuid.UUID
	Mode         string
	PublicAPIKey string
	Status       Status
	CreatedAt    time.Time
	LastUsedAt   *time.Time // some two minutes behind at most; nil: never
	ExpiresAt    *time.Time
	RevokedAt    *time.Time
	Networks     []netip.Prefix // that may use it; nil: all
}

// KeyPair is an API key as it is shown once, when it is made.
type KeyPair struct {
	ID               uuid.UUID `json:"-"`
	PublicAPIKey     string    `json:"public_api_key"`
	PrivateSecretKey string    `json:"private_secret_key"`
	Mode             string    `json:"mode"`
}

// String keeps the secret out of whatever prints a pair.
func (KeyPair) String() string { return "[key pair]" }

// GoString does the same for %#v.
func (KeyPair) GoString() string { return "[key pair]" }

// LogValue does the same for slog.
func (KeyPair) LogValue() slog.Value { return slog.StringValue("[key pair]") }

// Caller is who an authenticated request speaks for.
type Caller struct {
	AccountID uuid.UUID
	Mode      string
	Policy    string // the name of the merchant's idempotency policy
}

// PublicCaller is whom a browser speaks for: it has shown a public key, which everybody may
// have who has seen one of the merchant's pages.
type PublicCaller struct {
	Caller
	MerchantName string
	Origins      []string // not to be written to: all callers share it
}

// Allows reports whether the merchant has registered an origin, written as a browser
// sends it.
func (p PublicCaller) Allows(origin string) bool { return slices.Contains(p.Origins, origin) }

// newKeyPair draws a pair: 260 random bits behind each prefix.
func newKeyPair(mode string) KeyPair {
	prefix := prefixes[mode]
	return KeyPair{
		ID:               uuid.Must(uuid.NewV7()),
		PublicAPIKey:     prefix + randomText(),
		PrivateSecretKey: prefix + secretLabel + randomText(),
		Mode:             mode,
	}
}

func randomText() string { return rand.Text() + rand.Text() }

// hashSecret is what is kept of a secret. A plain SHA-256 is enough: a secret of
// 260 random bits cannot be guessed at, however fast the hash.
func hashSecret(secret string) [sha256.Size]byte { return sha256.Sum256([]byte(secret)) }

func validateName(name string) error {
	if n := utf8.RuneCountInString(name); n < 1 || n > maxNameLength || strings.TrimSpace(name) == "" {
		return apierr.New(apierr.InvalidParameters, "$.name must have 1 to 255 characters")
	}
	return nil
}

// validatePolicy checks a name against those of the policies that there are.
func validatePolicy(name string, known []string) error {
	if !slices.Contains(known, name) {
		return errNoPolicy(known)
	}
	return nil
}

func errNoPolicy(known []string) error {
	names, last := strings.Join(known[:len(known)-1], ", "), known[len(known)-1]
	if names != "" {
		last = names + " or " + last
	}
	return apierr.New(apierr.InvalidParameters, "$.idempotency_policy must be "+last)
}

func (u Update) validate(policies []string) error {
	if u.Name == nil && u.IdempotencyPolicy == nil && u.Origins == nil {
		return apierr.New(apierr.MissingParameters, "$.name, $.idempotency_policy or $.origins is required")
	}
	if u.Name != nil {
		if err := validateName(*u.Name); err != nil {
			return err
		}
	}
	if u.IdempotencyPolicy != nil {
		if err := validatePolicy(*u.IdempotencyPolicy, policies); err != nil {
			return err
		}
	}
	return validateOrigins(u.Origins)
}

func validateMode(mode string) error {
	if _, ok := prefixes[mode]; !ok {
		return apierr.New(apierr.InvalidParameters, "$.mode must be test or live")
	}
	return nil
}

func validateOverlap(overlap time.Duration) error {
	if overlap < 0 || overlap > MaxOverlap || overlap%time.Second != 0 {
		return apierr.New(apierr.InvalidParameters, fmt.Sprintf("$.overlap_seconds must be a whole number from 0 to %d", int(MaxOverlap.Seconds())))
	}
	return nil
}

// parseNetwork reads a network, or an address, which is a network of one. An IPv4
// address that is written as IPv6 is the IPv4 address, and what is behind the
// network's bits is dropped.
func parseNetwork(text string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, false
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if p.Addr().Is4In6() {
		const mapped = 96 // bits in front of the IPv4 address
		if p.Bits() < mapped {
			return netip.Prefix{}, false
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
	}
	return p.Masked(), true
}

// normal is a list of networks in their order, each once.
func normal(networks []netip.Prefix) []netip.Prefix {
	networks = slices.Clone(networks)
	slices.SortFunc(networks, netip.Prefix.Compare)
	return slices.Compact(networks)
}

// allows reports whether an address is in one of the networks; nil are all.
func allows(networks []netip.Prefix, from netip.Addr) bool {
	if networks == nil {
		return true
	}
	from = from.Unmap().WithZone("")
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(from) })
}
