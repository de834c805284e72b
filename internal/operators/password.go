package operators

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"github.com/oncepay/oncepay/internal/apierr"
)

// Passwords have 12 to 256 characters. Length is what makes one hard to guess, so nothing
// is demanded of what they consist of. The upper bound is beyond any passphrase, and keeps
// a form from sending megabytes to be hashed.
const (
	MinPassword = 12
	MaxPassword = 256
)

// cost is what one hash of argon2id costs.
type cost struct {
	memory uint32 // KiB
	passes uint32
	lanes  uint8
}

// currentCost is the second of the two that RFC 9106 (section 4) recommends, the one for
// where memory is limited. It is above each of those that OWASP's Password Storage Cheat
// Sheet calls sufficient, of which the largest takes 46 MiB and one pass. A hash that was
// made with less is made anew at the next sign-in.
var currentCost = cost{memory: 64 << 10, passes: 3, lanes: 4}

// Lengths in bytes, as RFC 9106 recommends them.
const (
	saltLength = 16
	keyLength  = 32
)

// asker is who wants a hash to be made. One is made at a time for each of the two, so that
// passwords take 128 MiB of the machine's memory and no more, whoever tries them; and a
// crowd of strangers keeps nobody waiting whom we know.
type asker int

const (
	// recognized is who has shown what we gave them: a session, a link, or the cookie of a
	// browser that the same name has signed in with. Each of them has few tries.
	recognized asker = iota
	// stranger is everybody else, of whom there is no end.
	stranger
	askers
)

// hashWait bounds how long one waits for its turn. On two cores a hash takes a tenth of a
// second, and two where the other asker has one made: whoever waits longer has twenty-five
// or more in front of them, and is told to come back.
const hashWait = 5 * time.Second

// hasher makes and compares hashes of passwords, one at a time for each asker.
type hasher struct {
	slots [askers]chan struct{}
	wait  time.Duration // for a slot
	cost  cost
	key   func(password, salt []byte, passes, memory uint32, lanes uint8, length uint32) []byte
	// nobodys is the hash of a password that there is not. Whoever gives an unknown name is
	// compared with it, and cannot tell from the time that the name is unknown.
	nobodys string
}

func newHasher() *hasher {
	h := &hasher{wait: hashWait, cost: currentCost, key: argon2.IDKey}
	for by := range h.slots {
		h.slots[by] = make(chan struct{}, 1)
	}
	h.nobodys = h.cost.phc(random(saltLength), random(keyLength))
	return h
}

func random(length int) []byte {
	b := make([]byte, length)
	_, _ = rand.Read(b) // it never fails: the process ends instead
	return b
}

// derive computes a key when it is the asker's turn. If it fails, none was computed.
func (h *hasher) derive(ctx context.Context, by asker, c cost, password string, salt []byte) ([]byte, error) {
	slot, turn := h.slots[by], time.NewTimer(h.wait)
	defer turn.Stop()
	select {
	case slot <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-turn.C:
		return nil, apierr.New(apierr.ServiceUnavailable, "too many passwords are being checked at the moment; try again").Retry(1)
	}
	defer func() { <-slot }()
	return h.key([]byte(password), salt, c.passes, c.memory, c.lanes, keyLength), nil
}

// hash makes what is kept of a password.
func (h *hasher) hash(ctx context.Context, by asker, password string) (string, error) {
	salt := random(saltLength)
	key, err := h.derive(ctx, by, h.cost, password, salt)
	if err != nil {
		return "", err
	}
	return h.cost.phc(salt, key), nil
}

// matches reports whether a password is the one that was hashed, and whether its hash is to
// be made anew because it cost less than one does today. Bytes are compared: an accent that
// is typed in two ways is two passwords. If it fails, the password was not looked at.
func (h *hasher) matches(ctx context.Context, by asker, hashed, password string) (ok, outdated bool, err error) {
	c, salt, want, err := parsePHC(hashed)
	if err != nil {
		return false, false, err
	}
	got, err := h.derive(ctx, by, c, password, salt)
	if err != nil {
		return false, false, err
	}
	return subtle.ConstantTimeCompare(got, want) == 1, c.below(h.cost), nil
}

// below reports whether c costs less than other in any way.
func (c cost) below(other cost) bool {
	return c.memory < other.memory || c.passes < other.passes || c.lanes < other.lanes
}

// phc writes a hash as PHC's string format has it, which says how it was made.
func (c cost) phc(salt, key []byte) string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, c.memory, c.passes, c.lanes,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key))
}

// maxCost is the most that a hash in the database may ask for: whoever can write there is
// not to take the machine's memory as well.
var maxCost = cost{memory: 1 << 20, passes: 16, lanes: 16}

// parsePHC reads what phc has written. The error quotes nothing of it.
func parsePHC(text string) (c cost, salt, key []byte, err error) {
	unreadable := func() (cost, []byte, []byte, error) {
		return cost{}, nil, nil, errors.New("the hash of a password cannot be read: it is not one of argon2id as this release makes it")
	}
	parts := strings.Split(text, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return unreadable()
	}
	if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &c.memory, &c.passes, &c.lanes); err != nil || n != 3 ||
		c.passes < 1 || c.lanes < 1 || c.memory > maxCost.memory || c.passes > maxCost.passes || c.lanes > maxCost.lanes {
		return unreadable()
	}
	salt, errSalt := base64.RawStdEncoding.DecodeString(parts[4])
	key, errKey := base64.RawStdEncoding.DecodeString(parts[5])
	if errSalt != nil || errKey != nil || len(salt) < saltLength || len(key) != keyLength {
		return unreadable()
	}
	return c, salt, key, nil
}

// obvious passwords are tried by everybody first. What is shorter than a password may be
// need not be here.
var obvious = []string{
	"123456789012", "1234567890123", "12345678901234", "123456789012345", "1234567890123456", "012345678901", "123412341234", "123123123123",
	"passwordpassword", "password1234", "password12345", "password123456", "passw0rd1234", "p@ssw0rd1234", "adminadminadmin",
	"administrator", "administrator1", "admin1234567", "admin12345678", "qwertyuiop12", "qwertyuiop123", "qwertyuiop[]", "qwertyuiopas",
	"qwertyqwerty", "qwerty123456", "1q2w3e4r5t6y", "1qaz2wsx3edc", "qazwsxedcrfv", "asdfghjkl123", "abcdefghijkl", "abcdefghijklm", "abcd12345678",
	"abc123abc123", "letmeinletmein", "letmein12345", "welcome12345", "welcome123456", "changemechangeme", "changeme1234", "changeme12345", "iloveyou1234",
	"iloveyouiloveyou", "trustno1trustno1", "correcthorsebatterystaple", "correct horse battery staple", "oncepayoncepay", "oncepay12345", "oncepay123456",
}

const (
	// minVariety is in different characters: fewer are one key held down, or two in turn.
	minVariety = 5
	// minBeyondName is in characters: fewer beside the name are the name.
	minBeyondName = 6
)

// validatePassword says why a password is not good enough for who has that name.
func validatePassword(password, name string) error {
	n := utf8.RuneCountInString(password)
	switch lower := strings.ToLower(password); {
	case n < MinPassword || n > MaxPassword:
		return apierr.New(apierr.InvalidParameters, fmt.Sprintf("the password must have %d to %d characters", MinPassword, MaxPassword))
	case name != "" && strings.Contains(lower, name) && utf8.RuneCountInString(strings.ReplaceAll(lower, name, "")) < minBeyondName:
		return apierr.New(apierr.InvalidParameters, "the password must not be the name with little else")
	case slices.Contains(obvious, lower) || variety(lower) < minVariety:
		return apierr.New(apierr.InvalidParameters, "the password is one of those that are tried first; choose another one")
	}
	return nil
}

// variety is how many different characters there are in a text.
func variety(text string) int {
	seen := map[rune]bool{}
	for _, r := range text {
		seen[r] = true
	}
	return len(seen)
}
