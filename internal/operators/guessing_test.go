package operators

import (
	"context"
	"errors"
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
		tried, wait, err := w.store.countTry(w.db.Conn(t.Context()), subject)
		if err != nil {
			t.Fatal(err)
		}
		return tried.failures, wait
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

// One hash is made at a time for those whom we know and one for strangers, so that guessing
// takes little of the machine's memory.
func TestFewHashesAreMadeAtATime(t *testing.T) {
	t.Parallel()
	h := newHasher()
	entered, leave := make(chan struct{}, 10), make(chan struct{})
	h.key = func(_, _ []byte, _, _ uint32, _ uint8, length uint32) []byte {
		entered <- struct{}{}
		<-leave
		return make([]byte, length)
	}
	done := make(chan error, askers)
	for by := range askers {
		go func() {
			_, err := h.hash(context.WithoutCancel(t.Context()), by, right)
			done <- err
		}()
		<-entered
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for by := range askers {
		if _, err := h.hash(ctx, by, right); err == nil || len(entered) > 0 {
			t.Errorf("one more was made: %v", err)
		}
	}
	close(leave)
	for range askers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// busy keeps somebody's hashes from being made, and has whoever waits for one told at once.
func (w *world) busy(by asker) (over func()) {
	w.hasher.wait = time.Millisecond
	w.hasher.slots[by] <- struct{}{}
	return func() { <-w.hasher.slots[by] }
}

// Strangers took both turns at once, and nobody could sign in, or give their password again
// for a refund.
func TestCrowdOfStrangersKeepsNobodyWaitingWhomWeKnow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada := w.first("ada")
	defer w.busy(stranger)()
	if code := w.guess("ada"); code != apierr.ServiceUnavailable {
		t.Errorf("a stranger: %s", code)
	}
	if _, err := w.SignIn(t.Context(), "ada", right, w.device("bob", newSecret())); err == nil {
		t.Error("another's browser is taken for hers")
	}
	in, err := w.SignIn(t.Context(), "Ada", right, ada.Device)
	if err != nil {
		t.Fatalf("in her browser: %v", err)
	}
	if err := w.Confirm(t.Context(), in.Principal, right, ""); err != nil {
		t.Errorf("her password again: %v", err)
	}
	if _, err = w.ChangePassword(t.Context(), in.Principal, right, "another good one", in.Device); err != nil {
		t.Errorf("another password: %v", err)
	}
	l, err := w.ResetPassword(t.Context(), "ada")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Accept(t.Context(), l.Secret, "", right, ""); err != nil {
		t.Errorf("by a link: %v", err)
	}
}

// A password that was not looked at is no wrong one. It counted as one, so that whoever came
// while the machine was busy had to wait afterwards.
func TestTryThatWasNotLookedAtIsNotCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada := w.first("ada")
	row := func() (row string) {
		t.Helper()
		const state = `SELECT coalesce(string_agg(failures || ' at ' || failed_at, ''), 'none') FROM operator_failures`
		if err := w.db.Conn(t.Context()).Raw(state).Row().Scan(&row); err != nil {
			t.Fatal(err)
		}
		return row
	}
	calls := map[string]func() error{
		"signs in": func() error { _, err := w.SignIn(t.Context(), "ada", right, ada.Device); return err },
		"is asked": func() error { return w.Confirm(t.Context(), ada.Principal, right, ada.Device) },
		"changes it": func() error {
			_, err := w.ChangePassword(t.Context(), ada.Principal, right, wrong, ada.Device)
			return err
		},
	}
	for _, failures := range []int{0, 1, freeFailures + 3} {
		if failures > 0 { // as long ago as she has to wait
			w.sql(`INSERT INTO operator_failures (subject, failures, failed_at) VALUES ($1, $2, clock_timestamp() - interval '1 minute')
				ON CONFLICT ON CONSTRAINT operator_failures_pkey DO UPDATE SET failures = excluded.failures`, w.subject("ada", ada.Device), failures)
		}
		before, over := row(), w.busy(recognized)
		for name, call := range calls {
			e := refusal(t, call(), apierr.ServiceUnavailable)
			if after := row(); after != before || e.RetryAfter != 1 {
				t.Errorf("who %s while it is busy: %s became %s, wait %d s", name, before, after, e.RetryAfter)
			}
		}
		over()
	}
	if err := calls["is asked"](); err != nil || row() != "none" {
		t.Errorf("%s afterwards, %v", row(), err)
	}
	// The right password of which no hash can be made anew is no wrong one, either.
	made := w.hasher.key
	w.hasher.key = func(password, salt []byte, passes, memory uint32, lanes uint8, length uint32) []byte {
		defer func() { w.hasher.key, w.hasher.slots[recognized] = made, make(chan struct{}) }() // nobody's turn comes
		return made(password, salt, passes, memory, lanes, length)
	}
	wantCode(t, calls["changes it"](), apierr.ServiceUnavailable)
	if row() != "none" {
		t.Errorf("%s after a right one", row())
	}
}

// Whoever goes away before the password is looked at has not guessed, and whoever goes away
// after it has: both are written down although nobody waits for it.
func TestTryIsSettledThoughWhoeverMadeItHasGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.first("ada")
	ctx, cancel := context.WithCancel(t.Context())
	tried, err := w.begin(ctx, "ada", "")
	if err != nil {
		t.Fatal(err)
	}
	second, err := w.begin(ctx, "ada", "") // it is another one's
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := w.excuse(ctx, tried, ctx.Err()); !errors.Is(err, context.Canceled) {
		t.Errorf("it failed with %v", err)
	}
	if n := w.number(`SELECT failures FROM operator_failures`); n != 1 {
		t.Errorf("%d are counted, want the other one", n)
	}
	wantCode(t, w.excuse(ctx, second, errWrongPassword()), apierr.InvalidCredentials)
	if n := w.number(`SELECT failures FROM operator_failures`); n != 1 {
		t.Errorf("%d are counted: a wrong password stays", n)
	}
	ctx, cancel = context.WithCancel(t.Context())
	made := w.hasher.key
	w.hasher.key = func(password, salt []byte, passes, memory uint32, lanes uint8, length uint32) []byte {
		cancel()
		return made(password, salt, passes, memory, lanes, length)
	}
	w.waited(maxWait)
	if _, err := w.SignIn(ctx, "ada", wrong, ""); err == nil {
		t.Error("let in")
	}
	if n := w.told("operator.sign_in_failed"); n != 1 || w.number(`SELECT failures FROM operator_failures`) != 2 {
		t.Errorf("the log has %d of them", n)
	}
}

// For a name that nobody has the wait began after the hash, and for another one before: its
// end told which names there are.
func TestWaitTellsNotWhetherThereIsSuchAName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.first("ada")
	counted := func() int {
		return w.number(`SELECT (extract(epoch FROM max(failed_at)) * 1000000)::bigint FROM operator_failures`)
	}
	made, while := w.hasher.key, 0
	w.hasher.key = func(password, salt []byte, passes, memory uint32, lanes uint8, length uint32) []byte {
		while = counted()
		return made(password, salt, passes, memory, lanes, length)
	}
	for _, name := range []string{"ada", "nobody"} {
		for range 2 * freeFailures {
			w.guess(name)
			if after := counted(); after != while {
				t.Errorf("%s: the wait begins %d µs later", name, after-while)
			}
			w.waited(maxWait)
		}
	}
}
