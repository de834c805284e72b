package operators

import (
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/apierr"
)

func TestSessionEndsWhenItIsIdleAndAfterItsLife(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada := w.first("ada")
	if life := time.Until(ada.ExpiresAt); life < SessionLife-time.Hour || life > SessionLife+time.Hour {
		t.Errorf("it ends in %s", life)
	}
	good := func(when string) {
		t.Helper()
		if p, err := w.BySession(t.Context(), ada.Session); err != nil || p != ada.Principal {
			t.Errorf("%s: %+v, %v", when, p, err)
		}
	}
	ended := func(session string) {
		t.Helper()
		_, err := w.BySession(t.Context(), session)
		wantCode(t, err, apierr.InvalidCredentials)
	}
	w.age("operator_sessions", "seen_at", SessionIdle-time.Minute)
	good("before it is idle for too long")
	w.age("operator_sessions", "seen_at", SessionIdle-time.Minute) // its use has begun that anew
	good("the same again")
	w.age("operator_sessions", "seen_at", SessionIdle)
	ended(ada.Session)

	ada, err := w.SignIn(t.Context(), "ada", right, ada.Device)
	if err != nil {
		t.Fatal(err)
	}
	w.age("operator_sessions", "expires_at", SessionLife-time.Minute)
	good("a minute before its end")
	w.age("operator_sessions", "expires_at", time.Minute)
	ended(ada.Session)
	for _, session := range []string{"", "nonsense", newSecret(), "a\x00b", "\xff"} {
		ended(session)
	}
}

func TestUseOfASessionIsNotedOnceAMinute(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada := w.first("ada")
	written := func() int { return w.number(`SELECT (xmin::text)::bigint FROM operator_sessions`) }
	use := func() {
		t.Helper()
		if _, err := w.BySession(t.Context(), ada.Session); err != nil {
			t.Fatal(err)
		}
	}
	w.sql(`UPDATE operator_sessions SET seen_at = clock_timestamp() + $1::bigint * interval '1 microsecond'`, time.Minute.Microseconds()) // however slow the test is
	was := written()
	use()
	if written() != was {
		t.Error("the second use within a minute was written down")
	}
	w.age("operator_sessions", "seen_at", 3*time.Minute)
	was = written()
	use()
	if written() == was {
		t.Error("a use after minutes was not written down")
	}
}

// Nobody can give somebody a session beforehand, and then share it: a sign-in makes a new one.
func TestEachSignInMakesANewSessionAndTheLeastUsedEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.first("ada")
	w.age("operator_sessions", "seen_at", time.Minute)
	seen := map[string]bool{first.Session: true}
	for range maxSessions {
		in, err := w.SignIn(t.Context(), "ada", right, first.Device)
		if err != nil || seen[in.Session] {
			t.Fatalf("the same session again: %t, %v", seen[in.Session], err)
		}
		seen[in.Session] = true
	}
	if n := w.number(`SELECT count(*) FROM operator_sessions`); n != maxSessions {
		t.Errorf("%d sessions are left", n)
	}
	_, err := w.BySession(t.Context(), first.Session)
	wantCode(t, err, apierr.InvalidCredentials)
}

func TestSigningOutEndsASessionOrAllOfThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one := w.first("ada")
	two, err := w.SignIn(t.Context(), "ada", right, "")
	if err != nil {
		t.Fatal(err)
	}
	bob := w.joined("bob", Viewer)
	for range 2 {
		if err := w.SignOut(t.Context(), one.Session); err != nil {
			t.Fatal(err)
		}
	}
	_, err = w.BySession(t.Context(), one.Session)
	wantCode(t, err, apierr.InvalidCredentials)
	if _, err := w.BySession(t.Context(), two.Session); err != nil {
		t.Errorf("another session: %v", err)
	}
	if n, err := w.SignOutEverywhere(t.Context(), "ADA"); err != nil || n != 1 {
		t.Errorf("%d ended, %v", n, err)
	}
	_, err = w.BySession(t.Context(), two.Session)
	wantCode(t, err, apierr.InvalidCredentials)
	if _, err := w.BySession(t.Context(), bob.Session); err != nil {
		t.Errorf("somebody else's session: %v", err)
	}
	if n := w.told("operator.signed_out"); n != 2 {
		t.Errorf("the log has %d of them", n)
	}
}

func TestChangedPasswordEndsEverySessionButTheNewOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada := w.first("ada")
	_, err := w.ChangePassword(t.Context(), ada.Principal, wrong, "another good one", ada.Device)
	wantCode(t, err, apierr.InvalidCredentials)
	_, err = w.ChangePassword(t.Context(), ada.Principal, right, "short", ada.Device)
	wantCode(t, err, apierr.InvalidParameters)
	// Many at once: each knows the password that there was, and one has changed it.
	const times = 4
	results := atOnce(times, func(int) error {
		_, err := w.ChangePassword(t.Context(), ada.Principal, right, wrong, ada.Device)
		return err
	})
	won := 0
	for _, err := range results {
		if err == nil {
			won++
		}
	}
	_, err = w.BySession(t.Context(), ada.Session)
	wantCode(t, err, apierr.InvalidCredentials)
	if n := w.number(`SELECT count(*) FROM operator_sessions`); won != 1 || n != 1 || w.told("operator.password_changed") != 1 {
		t.Errorf("%d have changed it, and there are %d sessions: %v", won, n, results)
	}
}

// A password that is changed while somebody signs in with the one before lets no session
// stay that was begun with that.
func TestSignInBesideAChangeOfThePasswordLeavesNoSessionOfTheOldOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, other := w.instance()
	ada := w.first("ada")
	l, err := w.ResetPassword(t.Context(), "ada")
	if err != nil {
		t.Fatal(err)
	}
	var in SignedIn
	sessions := atOnce(6, func(i int) string {
		if i == 0 {
			in, err = w.Accept(t.Context(), l.Secret, "", wrong, "")
			return in.Session
		}
		old, _ := other.SignIn(t.Context(), "ada", right, ada.Device)
		return old.Session
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sessions[1:] {
		if _, err := w.BySession(t.Context(), s); err == nil {
			t.Error("a session goes on that was begun with the old password")
		}
	}
	if _, err := w.BySession(t.Context(), in.Session); err != nil {
		t.Errorf("the new one: %v", err)
	}
}
