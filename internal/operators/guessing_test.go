package operators

import (
	"context"
	"math/bits"
	"strings"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/apierr"
)

// guess is a wrong password from an unknown browser, and how it was refused.
func (w *world) guess(name string) apierr.Code {
	w.t.Helper()
	_, err := w.SignIn(w.t.Context(), name, wrong, "")
	e, ok := apierr.From(err)
	if !ok {
		w.t.Fatalf("a wrong password: %v", err)
	}
	return e.Code
}

// locked has whoever has failed as often as is free wait for long, so that a test may be slow.
func (w *world) locked() {
	w.t.Helper()
	if w.sql(`UPDATE operator_failures SET failures = 20 WHERE failures >= $1`, freeFailures) == 0 {
		w.t.Fatal("nobody has to wait")
	}
}

// waited lets so much time go by for whoever has to wait.
func (w *world) waited(d time.Duration) { w.age("operator_failures", "failed_at", d) }

// Each try is counted before the password is looked at: so that a hundred at once, on two
// instances, are not a hundred guesses.
func TestOfAHundredGuessesAtOnceFiveAreLookedAt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.first("ada")
	before, began := w.hashes.Load(), time.Now()
	codes := atOnce(100, func(int) apierr.Code { return w.guess("ada") })
	late := bits.Len(uint(time.Since(began) / time.Second)) // so many more may be tried in that time
	looked := 0
	for _, code := range codes {
		if code == apierr.InvalidCredentials {
			looked++
		} else if code != apierr.RateLimited && code != apierr.ServiceUnavailable {
			t.Errorf("refused with %s", code)
		}
	}
	if hashes := int(w.hashes.Load() - before); looked != hashes || looked < freeFailures || looked > freeFailures+late {
		t.Errorf("%d were looked at, and %d hashes were made", looked, hashes)
	}
	if n := w.told("operator.sign_in_failed"); n != 1 {
		t.Errorf("the log has %d of them, want 1", n)
	}
}

func TestWaitDoublesUpToAQuarterOfAnHour(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	subject := digest("somebody")
	tries := func() (failures int, wait time.Duration) {
		t.Helper()
		failures, _, wait, err := w.store.countTry(w.db.Conn(t.Context()), subject)
		if err != nil {
			t.Fatal(err)
		}
		return failures, wait
	}
	for n := 1; n <= 20; n++ {
		if failures, wait := tries(); failures != n || wait != 0 {
			t.Fatalf("try %d: %d in a row, wait %s", n, failures, wait)
		}
		if n < freeFailures {
			continue
		}
		want := min(time.Second<<(n-freeFailures), maxWait)
		failures, wait := tries()
		if failures != 0 || wait > want || wait < want-want/2 {
			t.Errorf("after %d: wait %s, want %s", n, wait, want)
		}
		w.waited(want)
	}
	if n := w.number(`SELECT failures FROM operator_failures`); n != 20 {
		t.Errorf("%d were counted: those that came too early must not", n)
	}
}

// Strangers who guess somebody's password make strangers wait. Whoever's name it is goes on
// in the browser that they have signed in with.
func TestOwnersBrowserIsNotSlowedByStrangers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, other := w.instance()
	ada := w.first("ada")
	w.joined("bob", Admin)
	for range freeFailures {
		w.guess("ada")
	}
	w.locked()
	before := w.hashes.Load()
	_, err := w.SignIn(t.Context(), "ada", right, "") // with the right password, too
	if e := refusal(t, err, apierr.RateLimited); e.RetryAfter < 1 {
		t.Errorf("wait %d s", e.RetryAfter)
	}
	if w.hashes.Load() != before {
		t.Error("a hash was made for who came too early")
	}
	for name, device := range map[string]string{
		"nothing": "", "nonsense": "nonsense", "an id without proof": strings.SplitN(ada.Device, ".", 2)[0],
		"another's": w.device("bob", newSecret()), "another proof": newSecret() + "." + strings.SplitN(ada.Device, ".", 2)[1],
	} {
		_, err := other.SignIn(t.Context(), "ada", right, device)
		if e, ok := apierr.From(err); !ok || e.Code != apierr.RateLimited {
			t.Errorf("with %s: %v", name, err)
		}
	}
	in, err := other.SignIn(t.Context(), "ADA ", right, ada.Device)
	if err != nil || in.Device != ada.Device {
		t.Fatalf("her own browser: %v", err)
	}
	if err := w.Confirm(t.Context(), in.Principal, right, in.Device); err != nil {
		t.Errorf("her password again: %v", err)
	}
	// That she is in does not help the strangers.
	if code := w.guess("ada"); code != apierr.RateLimited {
		t.Errorf("a stranger after that: %s", code)
	}
	// And who has her browser, but not her password, is slowed as well.
	for range freeFailures {
		_, err := w.SignIn(t.Context(), "ada", wrong, ada.Device)
		wantCode(t, err, apierr.InvalidCredentials)
	}
	w.locked()
	_, err = w.SignIn(t.Context(), "ada", right, ada.Device)
	wantCode(t, err, apierr.RateLimited)
	// Once the time is over, the right password begins anew.
	w.waited(maxWait)
	if _, err := w.SignIn(t.Context(), "ada", right, ""); err != nil {
		t.Fatal(err)
	}
	for range freeFailures {
		if code := w.guess("ada"); code != apierr.InvalidCredentials {
			t.Errorf("after a good sign-in: %s", code)
		}
	}
}

func TestPasswordAskedForAgainIsCountedTheSameWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada := w.first("ada")
	for range freeFailures {
		wantCode(t, w.Confirm(t.Context(), ada.Principal, wrong, ada.Device), apierr.InvalidCredentials)
	}
	w.locked()
	wantCode(t, w.Confirm(t.Context(), ada.Principal, right, ada.Device), apierr.RateLimited)
	w.waited(maxWait)
	if err := w.Confirm(t.Context(), ada.Principal, right, ada.Device); err != nil {
		t.Error(err)
	}
	if n := w.number(`SELECT count(*) FROM operator_failures`); n != 0 {
		t.Errorf("%d counters are left", n)
	}
	wantCode(t, w.Confirm(t.Context(), AdminTokenPrincipal(), right, ""), apierr.InvalidCredentials)
	wantCode(t, w.Confirm(t.Context(), Principal{}, right, ""), apierr.InvalidCredentials)
	if n := w.told("operator.confirmation_failed"); n != 1 {
		t.Errorf("the log has %d of them, want 1", n)
	}
}

// Hashes are counted, and not time: an unknown name takes the same path.
func TestUnknownNameCostsWhatAKnownOneDoesAndIsToldTheSame(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.first("ada")
	w.joined("gone", Viewer)
	if _, err := w.Update(t.Context(), "gone", Update{Disabled: new(true)}); err != nil {
		t.Fatal(err)
	}
	var messages []string
	for name, password := range map[string]string{
		"ada": wrong, "nobody": right, "gone": right, "": right, "no name\x00at all": right, strings.Repeat("n", 1000): right, "\xff": "\xff\x00",
	} {
		before := w.hashes.Load()
		_, err := w.SignIn(t.Context(), name, password, "")
		e := refusal(t, err, apierr.InvalidCredentials)
		messages = append(messages, e.Error())
		if made := w.hashes.Load() - before; made != 1 || e.Error() != messages[0] {
			t.Errorf("%q: %d hashes, %v", name, made, e)
		}
		for range freeFailures - 1 {
			w.guess(name)
		}
		w.locked()
		if code := w.guess(name); code != apierr.RateLimited {
			t.Errorf("%q: the sixth guess is %s", name, code)
		}
	}
	// What is given for a name is no operator's, and may be a password.
	for _, e := range w.written() {
		if e.Action == "operator.sign_in_failed" && e.Target != "operator/ada" && e.Target != "operator/gone" {
			t.Errorf("the log has %s", e.Target)
		}
	}
}

// Guessing does not fill the log: of a name there is one entry in a minute at most.
func TestFailuresAreWrittenDownOnceAMinute(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.first("ada")
	for want := 1; want <= 3; want++ {
		w.guess("ada")
		w.waited(2 * time.Second)
		w.guess("ada")
		if n := w.told("operator.sign_in_failed"); n != want {
			t.Fatalf("the log has %d entries, want %d", n, want)
		}
		w.waited(maxWait)
	}
	if _, err := w.SignIn(t.Context(), "ada", right, ""); err != nil {
		t.Fatal(err)
	}
	all := w.written()
	if last := all[len(all)-1]; last.Action != "operator.signed_in" || !strings.Contains(last.Details["all"], `"failures_before":"6"`) {
		t.Errorf("the last entry is %s, %s", last.Action, last.Details)
	}
}

// A few hashes are made at a time, so that guessing cannot take the machine's memory.
func TestFewHashesAreMadeAtATime(t *testing.T) {
	t.Parallel()
	h := newHasher()
	entered, leave := make(chan struct{}, 10), make(chan struct{})
	h.key = func(_, _ []byte, _, _ uint32, _ uint8, length uint32) []byte {
		entered <- struct{}{}
		<-leave
		return make([]byte, length)
	}
	done := make(chan error, maxHashes)
	for range maxHashes {
		go func() {
			_, err := h.hash(context.WithoutCancel(t.Context()), right)
			done <- err
		}()
		<-entered
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.hash(ctx, right); err == nil || len(entered) > 0 {
		t.Errorf("one more was made: %v", err)
	}
	close(leave)
	for range maxHashes {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
