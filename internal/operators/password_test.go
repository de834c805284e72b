package operators

import (
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"

	"github.com/oncepay/oncepay/internal/apierr"
)

func TestPasswordIsJudgedByItsLengthAndByWhatIsTriedFirst(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		password, name string
		good           bool
	}{
		{"a quiet harbour at noon", "ada", true},
		{"elevenchars", "ada", false},
		{"twelve chars", "ada", true},
		{"zwölf Buchst", "ada", true},
		{"日本語のパスワードはどう", "ada", true},
		{strings.Repeat("abcdefgh", 32), "ada", true},
		{strings.Repeat("abcdefgh", 32) + "i", "ada", false},
		{"", "ada", false},
		{"PasswordPassword", "ada", false},
		{"aaaaaaaaaaaaaaaa", "bob", false},
		{"abababababababab", "bob", false},
		{"grace@example.org", "grace@example.org", false},
		{"Grace@Example.org123", "grace@example.org", false},
		{"grace@example.org likes boats", "grace@example.org", true},
		{"gracegracegrace", "grace", false},
	} {
		err := validatePassword(c.password, c.name)
		if (err == nil) != c.good {
			t.Errorf("%q of %s: %v", c.password, c.name, err)
		}
		if err != nil && c.password != "" && strings.Contains(err.Error(), c.password) {
			t.Errorf("the message quotes it: %v", err)
		}
	}
	for _, p := range obvious {
		if len(p) < MinPassword || strings.ToLower(p) != p {
			t.Errorf("%q need not be in the list, or is never found", p)
		}
	}
}

func TestHashIsOfArgon2idWithTheCostThatRFC9106Recommends(t *testing.T) {
	t.Parallel()
	h := newHasher()
	one, err := h.hash(t.Context(), stranger, right)
	if err != nil || !strings.HasPrefix(one, "$argon2id$v=19$m=65536,t=3,p=4$") {
		t.Fatalf("%s, %v", one, err)
	}
	another, err := h.hash(t.Context(), stranger, right)
	if err != nil || one == another {
		t.Errorf("two of the same have the same hash, %v", err)
	}
	for password, want := range map[string]bool{right: true, wrong: false, "": false, right + "\x00": false} {
		if ok, outdated, err := h.matches(t.Context(), stranger, one, password); ok != want || outdated || err != nil {
			t.Errorf("%q: %t, outdated %t, %v", password, ok, outdated, err)
		}
	}
	for _, no := range []string{"", "x", right, "$argon2i$v=19$m=65536,t=3,p=4$AAAAAAAAAAAAAAAAAAAAAA$x", strings.Replace(one, "v=19", "v=16", 1),
		strings.Replace(one, "m=65536", "m=99999999", 1), strings.Replace(one, "p=4", "p=0", 1), strings.Replace(one, "p=4", "p=300", 1), one[:len(one)-4], one + "$"} {
		if _, _, err := h.matches(t.Context(), stranger, no, right); err == nil || no != "" && strings.Contains(err.Error(), no) {
			t.Errorf("%q: %v", no, err)
		}
	}
}

// A release that makes hashes costlier finds those of the release before.
func TestHashIsMadeAnewWhereItsCostHasGrown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.first("ada")
	old := cost{memory: 19 << 10, passes: 2, lanes: 1}
	salt := random(saltLength)
	cheap := old.phc(salt, argon2.IDKey([]byte(right), salt, old.passes, old.memory, old.lanes, keyLength))
	w.sql(`UPDATE operators SET password_hash = $1`, cheap)
	w.hasher.costs(currentCost)
	_, err := w.SignIn(t.Context(), "ada", wrong, "")
	wantCode(t, err, apierr.InvalidCredentials)
	if r, err := w.store.byName(w.db.Conn(t.Context()), "ada"); err != nil || r.PasswordHash != cheap {
		t.Errorf("a wrong password has changed it, %v", err)
	}
	for range 2 {
		in, err := w.SignIn(t.Context(), "ada", right, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.BySession(t.Context(), in.Session); err != nil {
			t.Error(err)
		}
	}
	if r, err := w.store.byName(w.db.Conn(t.Context()), "ada"); err != nil || !strings.HasPrefix(r.PasswordHash, "$argon2id$v=19$m=65536,t=3,p=4$") {
		t.Errorf("it is as it was, %v", err)
	}
}
