package conformance

import (
	"context"
	"net/http"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/test/harness"
)

// H17: a process is stopped in the middle of a payment for two leases, and goes on
// as if nothing had happened, while another instance has long settled it.

// shortTimes make a lease of four seconds, which is the shortest for a provider
// timeout of one.
var shortTimes = []string{"--provider-timeout", "1s", "--settle", "2s", "--lease", "4s", "--recovery-interval", "200ms"}

// pause is the stage of these tests: one instance that will be stopped, with a
// door before its provider, and one that lives.
type pause struct {
	sandbox        *harness.Sandbox
	door           *harness.Door
	sleeper        *harness.API
	atSleeper      *harness.Client
	atOther        *harness.Client
	look           *pgx.Conn
	database       string
	payment        harness.Payment
	heardBySleeper chan harness.Answer
}

func newPause(t *testing.T, description string) *pause {
	t.Helper()
	p := &pause{
		sandbox: harness.StartSandbox(t, harness.Folder(t)), database: pgtest.URL(t),
		payment: harness.NewPayment(description), heardBySleeper: make(chan harness.Answer, 1),
	}
	p.door = harness.NewDoor(t, p.sandbox.URL)
	p.look = connect(t, p.database)
	installation := harness.NewInstallation(p.database, p.sandbox.URL)
	other := installation.Serve(t, shortTimes...)
	keys := merchant(t, other) // first, so that the sleeper knows the merchant from its start
	installation.ProviderURL = p.door.URL
	p.sleeper = installation.Serve(t, shortTimes...)
	p.atSleeper, p.atOther = harness.NewClient(p.sleeper.URL, keys), harness.NewClient(other.URL, keys)
	return p
}

// begin sends the payment to the instance that will be stopped.
func (p *pause) begin(t *testing.T) {
	t.Helper()
	ctx := within(t, 2*harness.Patience)
	go func() { p.heardBySleeper <- p.atSleeper.Pay(ctx, p.payment) }()
}

// freezeBeforeTheWire stops the instance after its claim is committed and before
// it can know: the claim waits behind a duplicate of ours that is not committed, the
// process is stopped, and only then the duplicate goes. PostgreSQL finishes the
// claim, and nobody is there to read that.
func (p *pause) freezeBeforeTheWire(t *testing.T) {
	t.Helper()
	pay(t, p.atOther, harness.NewPayment("paid before, to copy its key"))
	tx, err := connect(t, p.database).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := tx.Exec(t.Context(), `INSERT INTO idempotency_keys (account_id, mode, key_id, operation, fingerprint, transaction_id, created_at, expires_at)
		SELECT account_id, mode, $1, operation, fingerprint, transaction_id, created_at, expires_at FROM idempotency_keys`, p.payment.Nonce); err != nil {
		t.Fatal(err)
	}
	p.begin(t)
	harness.Eventually(t, harness.Patience, "the claim waits", func() bool {
		return number(t, p.look, `SELECT count(*) FROM pg_stat_activity
			WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE '/* transactions.begin */%'`) == 1
	})
	p.sleeper.Freeze()
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, harness.Patience, "the claim is committed", func() bool {
		return number(t, p.look, `SELECT count(*) FROM transactions WHERE nonce = $1`, p.payment.Nonce) == 1
	})
}

// thawAfterTwoLeases lets the instance go on when two leases have passed since the
// claim, and returns what its client hears, when it takes keys again: it has slept
// through revocations, if there were any, and refuses everybody until it has asked.
// That time passes is the subject here; the database's clock tells it.
func (p *pause) thawAfterTwoLeases(t *testing.T) harness.Answer {
	t.Helper()
	harness.Eventually(t, harness.Patience, "two leases have passed", func() bool {
		return number(t, p.look, `SELECT count(*) FROM transactions
			WHERE nonce = $1 AND clock_timestamp() > created_at + interval '8 seconds'`, p.payment.Nonce) >= 1
	})
	p.sleeper.Thaw()
	heard := <-p.heardBySleeper
	harness.Eventually(t, harness.Patience, "the woken instance takes keys again", func() bool {
		return p.atSleeper.Get(t.Context(), "/v1/payments?merchant_order_id="+p.payment.OrderID).Status == http.StatusOK
	})
	return heard
}

// mustHaveChangedNothing checks what the woken instance did to a life, counted from
// the newest.
func (p *pause) mustHaveChangedNothing(t *testing.T, life int, state string) {
	t.Helper()
	if l := lives(t, p.atOther, p.payment.Nonce)[life]; l.Count("event") != 1 || l.KeyState != state {
		t.Errorf("the key is %s, with %d events: %+v", l.KeyState, l.Count("event"), l)
	}
}

// H12: stopped before the send, and the merchant's retry pays elsewhere. The woken
// one does not send.
func TestH17AnInstanceThatWasStoppedBeforeItsSendDoesNotSendLate(t *testing.T) {
	t.Parallel()
	p := newPause(t, "paid while somebody slept")
	p.freezeBeforeTheWire(t)
	answer, err := p.atOther.PayUntilAnswered(within(t, harness.Patience), p.payment)
	if err != nil {
		t.Fatal(err)
	}
	heard := p.thawAfterTwoLeases(t)
	if heard.Err != nil || !heard.Same(answer) && heard.Status != http.StatusServiceUnavailable {
		t.Errorf("the woken instance tells neither what is stored nor to come back: %s", heard)
	}
	if n := p.door.Charges(p.payment.OrderID); n != 0 {
		t.Errorf("the woken instance sent %d charges", n)
	}
	p.mustHaveChangedNothing(t, 0, "answered")
	mustReplay(t, p.atSleeper, p.payment, answer)
	p.sandbox.Ledger().MustHave(t, p.payment, 1)
}

// H12 at its worst: nobody retries while it sleeps, recovery proves that nothing
// was booked and gives the nonce back, and a second life has paid. A late send of
// the first life would be a second charge.
func TestH17AnInstanceThatSleptThroughTheReleaseOfItsPaymentDoesNotSendLate(t *testing.T) {
	t.Parallel()
	p := newPause(t, "paid in the second life")
	p.sleepThroughTheRelease(t)
	p.sandbox.Ledger().MustHave(t, p.payment, 0)
	p.mustWakeIntoTheSecondLife(t)
}

// sleepThroughTheRelease freezes the instance before its first byte, until recovery has
// given the nonce back.
func (p *pause) sleepThroughTheRelease(t *testing.T) {
	t.Helper()
	p.freezeBeforeTheWire(t)
	harness.Eventually(t, harness.Patience, "recovery gives the nonce back", func() bool {
		return lives(t, p.atOther, p.payment.Nonce)[0].KeyState == "released"
	})
}

// mustWakeIntoTheSecondLife pays again elsewhere, and wakes the sleeper: it sends nothing,
// changes nothing, and tells nobody another life's answer.
func (p *pause) mustWakeIntoTheSecondLife(t *testing.T) {
	t.Helper()
	answer := pay(t, p.atOther, p.payment)
	heard := p.thawAfterTwoLeases(t)
	if heard.Err != nil || heard.Status != http.StatusServiceUnavailable {
		t.Errorf("the woken instance tells another life's answer, or none: %s", heard)
	}
	if n := p.door.Charges(p.payment.OrderID); n != 0 {
		t.Errorf("the woken instance sent %d charges", n)
	}
	p.mustHaveChangedNothing(t, 0, "answered")
	p.mustHaveChangedNothing(t, 1, "released")
	mustReplay(t, p.atSleeper, p.payment, answer)
	p.sandbox.Ledger().MustHave(t, p.payment, 1)
}

// H13: stopped after the provider has booked, before it can read the answer. What
// it learnt is kept as an observation, because facts are never thrown away.
func TestH17AnInstanceThatWasStoppedAfterItsSendIsFencedOutAndKeepsWhatItLearnt(t *testing.T) {
	t.Parallel()
	p := newPause(t, "booked, and nobody there to hear it")
	booked, release := p.door.HoldAnswer(p.payment.OrderID)
	p.begin(t)
	<-booked
	p.sleeper.Freeze()
	release()
	answer, err := p.atOther.PayUntilAnswered(within(t, harness.Patience), p.payment)
	if err != nil {
		t.Fatal(err)
	}
	heard := p.thawAfterTwoLeases(t)
	// The provider's answer and the end of its time-out lie side by side when it
	// wakes. Having read the one, it tells what is stored; after the other, that it
	// does not know.
	if heard.Err != nil || !heard.Same(answer) && heard.Code() != "REQUEST_TIMEOUT" {
		t.Errorf("the woken instance tells %s, not %s", heard, answer)
	}
	if n := p.door.Charges(p.payment.OrderID); n != 1 {
		t.Errorf("the woken instance sent %d charges", n)
	}
	p.mustHaveChangedNothing(t, 0, "answered")
	mustReplay(t, p.atSleeper, p.payment, answer)
	p.sandbox.Ledger().MustHave(t, p.payment, 1)
	if n := lives(t, p.atOther, p.payment.Nonce)[0].Count("observation"); n != 1 {
		t.Errorf("the woken instance left %d observations", n)
	}
}
