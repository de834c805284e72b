// Package operators knows the people and the programs that operate an installation: who
// they are, what they may do, and how they show it.
//
// A person signs in with a name and a password and has a session from then on; a program
// brings a token with each request. Whatever lets somebody in is drawn at random, 256 bits,
// and only its SHA-256 is kept; a password, which people choose, is kept as argon2id makes
// it. The first person comes by a link that the process prints when there is nobody yet,
// everybody else by a link that an admin asks for. So there is no password that everybody
// knows, and none that an admin has ever seen.
package operators

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"log/slog"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/audit"
)

// Role is what somebody may do. Each role may do what those before it may.
type Role string

// The roles there are.
const (
	Viewer   Role = "viewer"   // sees everything, but for secrets
	Operator Role = "operator" // also moves money, and decides what became of it
	Admin    Role = "admin"    // also changes merchants, keys, operators and tokens
)

// ranks puts the roles in their order. What is no role has rank 0.
var ranks = map[Role]int{Viewer: 1, Operator: 2, Admin: 3}

// Includes reports whether whoever has role r may do what other may. What is no role
// includes nothing, and is included in nothing.
func (r Role) Includes(other Role) bool { return ranks[other] > 0 && ranks[r] >= ranks[other] }

const (
	// SessionIdle is how long a session lasts after its last request: a lunch break ends
	// it. As the last request is noted to the minute, it may be a minute less.
	SessionIdle = 30 * time.Minute
	// SessionLife is how long a session lasts in any case: a working day.
	SessionLife = 12 * time.Hour
	// maxSessions bounds somebody's sessions; one more ends the one that has been idle for
	// longest. It is more browsers than a person uses.
	maxSessions = 20

	// FirstInvitationLife is how long the first operator's link works. It is in a log, so
	// not longer than it takes to read it the next day; a restart prints another one.
	FirstInvitationLife = 24 * time.Hour
	// InvitationLife is how long somebody has to choose their first password: a weekend.
	InvitationLife = 72 * time.Hour
	// ResetLife is how long somebody has to choose another password: they wait for it.
	ResetLife = 24 * time.Hour

	// DefaultTokenLife is how long a token lasts for which nobody said how long.
	DefaultTokenLife = 90 * day
	// MinTokenLife is the shortest life of a token.
	MinTokenLife = day
	// MaxTokenLife is the longest: no token is for ever, and a leap year is a year.
	MaxTokenLife = 366 * day
	// maxTokens bounds the tokens that are good at a time. Each is something to look after.
	maxTokens = 100
	// maxTokenName is in characters, as the database's.
	maxTokenName = 255

	// seenGrain is how exactly is noted when a session or a token was used last, so that
	// most requests write nothing.
	seenGrain = time.Minute

	day = 24 * time.Hour
)

// TokenPrefix begins each API token, so that scanners of source code find one.
const TokenPrefix = "opc_"

// Principal is who asks.
type Principal struct {
	Kind audit.Kind
	// ID is the operator's or the token's; uuid.Nil for PAYMENTS_ADMIN_TOKEN and for nobody.
	ID   uuid.UUID
	Name string
	Role Role // of a token its scope; "" for nobody
}

// Actor is the principal as the audit log has it.
func (p Principal) Actor(address, requestID string) audit.Actor {
	a := audit.Actor{Kind: p.Kind, Name: p.Name, Address: address, RequestID: requestID}
	if p.ID != uuid.Nil {
		a.ID = p.ID.String()
	}
	return a
}

// AdminTokenPrincipal is who brings the token of the environment, PAYMENTS_ADMIN_TOKEN. It
// may do everything.
func AdminTokenPrincipal() Principal {
	return Principal{Kind: audit.KindAdminToken, Name: "PAYMENTS_ADMIN_TOKEN", Role: Admin}
}

// Person is one operator.
type Person struct {
	ID         uuid.UUID
	Name       string
	Role       Role
	CreatedAt  time.Time
	ChangedAt  time.Time  // of role, password or being disabled
	DisabledAt *time.Time // may not sign in since; nil: may
	SeenAt     *time.Time // to the minute, in one of the sessions that are kept; nil: in none
}

// Update is what is to be different about somebody; nil stays as it is.
type Update struct {
	Role     *Role
	Disabled *bool
}

// InvitationKind is what a link is for.
type InvitationKind string

// What a link can be for.
const (
	First  InvitationKind = "first"  // the first operator, an admin, who chooses a name as well
	New    InvitationKind = "new"    // somebody new
	Forgot InvitationKind = "forgot" // another password for somebody who is an operator already
)

// Invitation is what a link is for, without its secret.
type Invitation struct {
	Kind      InvitationKind
	Name      string // whose password is chosen; "" for the first operator
	Role      Role
	ExpiresAt time.Time
}

// Link is an invitation with its secret, which is shown once.
type Link struct {
	Invitation
	Secret string // 43 characters of base64url; the page is at /invitations/ and the secret
}

// String keeps the secret out of whatever prints a link.
func (Link) String() string { return "[link]" }

// GoString does the same for %#v.
func (Link) GoString() string { return "[link]" }

// LogValue does the same for slog.
func (Link) LogValue() slog.Value { return slog.StringValue("[link]") }

// Path is where the console lets the link be used.
func (l Link) Path() string { return "/invitations/" + l.Secret }

// SignedIn is a session that has just begun.
type SignedIn struct {
	Principal Principal
	Session   string    // the cookie's value
	ExpiresAt time.Time // when the session ends in any case
	Device    string    // the value of the cookie by which the browser is known the next time
}

// String keeps the secrets out of whatever prints one.
func (SignedIn) String() string { return "[session]" }

// GoString does the same for %#v.
func (SignedIn) GoString() string { return "[session]" }

// LogValue does the same for slog.
func (SignedIn) LogValue() slog.Value { return slog.StringValue("[session]") }

// Token is an API token, without its secret.
type Token struct {
	ID         uuid.UUID
	Name       string
	Scope      Role
	CreatedBy  string // the name of who made it
	CreatedAt  time.Time
	ExpiresAt  time.Time
	LastUsedAt *time.Time // to the minute; nil: never
	RevokedAt  *time.Time
	Status     TokenStatus
}

// TokenStatus is whether a token is taken.
type TokenStatus string

// What a token's status can be.
const (
	TokenActive  TokenStatus = "active"
	TokenExpired TokenStatus = "expired"
	TokenRevoked TokenStatus = "revoked"
)

// secretLength is in bytes, and drawn.
const secretLength = 32

// newSecret draws 256 random bits, as base64url.
func newSecret() string {
	b := make([]byte, secretLength)
	_, _ = rand.Read(b) // it never fails: the process ends instead
	return base64.RawURLEncoding.EncodeToString(b)
}

// digest is what is kept of a secret. A plain SHA-256 is enough: 256 random bits cannot be
// guessed at, however fast the hash.
func digest(secret string) []byte {
	d := sha256.Sum256([]byte(secret))
	return d[:]
}

// maxName is in characters, as the database's.
const maxName = 64

// plainName is what the database takes for a name, too.
var plainName = regexp.MustCompile(`^[a-z0-9][a-z0-9._@+-]{0,63}$`)

// normalName is a name as it is kept: people don't mind capitals.
func normalName(name string) string { return strings.ToLower(strings.TrimSpace(name)) }

// validateName returns a name as it is kept, or why it cannot be one. field is how the
// message calls it.
func validateName(field, name string) (string, error) {
	name = normalName(name)
	if !plainName.MatchString(name) {
		return "", apierr.New(apierr.InvalidParameters, field+" must have 1 to 64 characters of a to z, 0 to 9 and . _ @ + -, and begin with a letter or a digit")
	}
	return name, nil
}

func validateRole(field string, r Role) error {
	if ranks[r] == 0 {
		return apierr.New(apierr.InvalidParameters, field+" must be viewer, operator or admin")
	}
	return nil
}

func validateToken(name string, scope Role, life time.Duration) error {
	n := utf8.RuneCountInString(name)
	if n < 1 || n > maxTokenName || strings.TrimSpace(name) == "" || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return apierr.New(apierr.InvalidParameters, "$.name must have 1 to 255 characters, none of which is a control character")
	}
	if err := validateRole("$.scope", scope); err != nil {
		return err
	}
	if life < MinTokenLife || life > MaxTokenLife {
		return apierr.New(apierr.InvalidParameters, "$.lifetime_days must be a whole number from 1 to 366")
	}
	return nil
}
