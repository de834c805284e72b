// Package merchants knows who is calling: merchants, their API keys, and the
// directory that every request is authenticated against without asking the
// database. A merchant is one account; `account_id` is its id everywhere.
package merchants

import (
	"crypto/rand"
	"crypto/sha256"
	"log/slog"
	"strings"
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
)

// Merchant is one account.
type Merchant struct {
	AccountID         uuid.UUID
	Name              string
	IdempotencyPolicy string
}

// KeyPair is an API key as it is shown once, when it is made.
type KeyPair struct {
	PublicAPIKey     string `json:"public_api_key"`
	PrivateSecretKey string `json:"private_secret_key"`
	Mode             string `json:"mode"`
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

// newKeyPair draws a pair: 260 random bits behind each prefix.
func newKeyPair(mode string) KeyPair {
	prefix := prefixes[mode]
	return KeyPair{
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

func validateMode(mode string) error {
	if _, ok := prefixes[mode]; !ok {
		return apierr.New(apierr.InvalidParameters, "$.mode must be test or live")
	}
	return nil
}
