package conformance

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/test/harness"
	"github.com/oncepay/oncepay/test/wallclock"
)

// H18 from outside: one of two instances has a wall clock that is 25 hours off, which
// is more than an answer is kept, and than any lease. Whatever both do, it is as if it
// were right: what decides is the database's clock, and differences on the monotonic one.

// patientTimes let a test hold the provider's answer, on whatever machine.
var patientTimes = []string{"--provider-timeout", "20s", "--settle", "2s", "--lease", "30s", "--recovery-interval", "200ms"}

// clocks are two instances of one installation, each with a door of its own before the
// one provider.
type clocks struct {
	sandbox    *harness.Sandbox
	database   string
	look       *pgx.Conn
	right, off *clocked
}

// clocked is one of them.
type clocked struct {
	*harness.API
	door   *harness.Door
	client *harness.Client
	// restart starts it again after it was killed.
	restart func()
}

func newClocks(t *testing.T, ahead string, times []string) *clocks {
	t.Helper()
	c := &clocks{sandbox: harness.StartSandbox(t, harness.Folder(t)), database: pgtest.URL(t)}
	c.look = connect(t, c.database)
	installation := harness.NewInstallation(c.database, c.sandbox.URL)
	start := func(change func(*harness.Command)) *clocked {
		i := &clocked{door: harness.NewDoor(t, c.sandbox.URL)}
		i.restart = func() {
			behindDoor := installation
			behindDoor.ProviderURL = i.door.URL
			command := behindDoor.ServeCommand(times...)
			change(&command)
			i.API = behindDoor.ServeAs(t, command)
			if i.client != nil {
				i.client.MoveTo(i.URL)
			}
		}
		i.restart()
		return i
	}
	c.right = start(func(*harness.Command) {})
	keys := merchant(t, c.right.API) // first, so that the other one knows the merchant from its start
	c.off = start(func(command *harness.Command) {
		command.Binary = harness.WithWallClock(t)
		command.Env = append(command.Env, wallclock.Variable+"="+ahead)
	})
	c.right.client, c.off.client = harness.NewClient(c.right.URL, keys), harness.NewClient(c.off.URL, keys)
	answer := c.off.client.Get(within(t, harness.Patience), "/v1/payments?merchant_order_id=none")
	at, err := http.ParseTime(answer.Header.Get("Date"))
	if err != nil || time.Since(at).Abs() < 24*time.Hour {
		t.Fatalf("the instance says that it is %q (%v): its clock is not off", answer.Header.Get("Date"), err)
	}
	return c
}

// hold begins a payment at an instance and holds the provider's answer. It returns when
// the charge is booked.
func (c *clocks) hold(t *testing.T, at *clocked, description string) (p harness.Payment, heard <-chan harness.Answer, release func()) {
	t.Helper()
	p = harness.NewPayment(description)
	booked, release := at.door.HoldAnswer(p.OrderID)
	t.Cleanup(release)
	answers, ctx := make(chan harness.Answer, 1), within(t, 2*harness.Patience)
	go func() { answers <- at.client.Pay(ctx, p) }()
	select {
	case <-booked:
	case a := <-answers:
		t.Fatalf("answered before it was booked: %s", a)
	}
	return p, answers, release
}

func TestH18InstanceWhoseClockIsADayOffChangesNothing(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]string{"25 hours ahead": "25h", "25 hours behind": "-25h"} {
		for what, play := range map[string]func(t *testing.T, ahead string){
			"as usual":                      livesAsUsual,
			"both are killed, one by one":   killedOneByOne,
			"the one that is right sleeps":  func(t *testing.T, ahead string) { sleepsUntilReleased(t, ahead, false) },
			"the one that is off is asleep": func(t *testing.T, ahead string) { sleepsUntilReleased(t, ahead, true) },
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				t.Parallel()
				play(t, ahead)
			})
		}
	}
}

func livesAsUsual(t *testing.T, ahead string) {
	c := newClocks(t, ahead, patientTimes)

	// What either has answered, the other replays.
	here, there := harness.NewPayment("by the right clock"), harness.NewPayment("by the other clock")
	mustReplay(t, c.off.client, here, pay(t, c.right.client, here))
	mustReplay(t, c.right.client, there, pay(t, c.off.client, there))

	// What either has begun, it holds by the database's clock, the other waits, and the
	// answer has that clock's times.
	for of, with := range map[*clocked]*clocked{c.off: c.right, c.right: c.off} {
		p, heard, release := c.hold(t, of, "held at the provider")
		if n := number(t, c.look, `SELECT count(*) FROM transactions t JOIN idempotency_keys k ON k.transaction_id = t.id
			WHERE t.nonce = $1 AND t.created_at BETWEEN clock_timestamp() - interval '1 minute' AND clock_timestamp()
			  AND t.lease_until - t.created_at = interval '30 seconds' AND t.may_send_until - t.created_at = interval '9 seconds'
			  AND k.expires_at - t.created_at = interval '24 hours'`, p.Nonce); n != 1 {
			t.Error("the claim is not dated by the database's clock")
		}
		if a := with.client.Pay(within(t, harness.Patience), p); a.Code() != "REQUEST_IN_PROCESS" || a.Header.Get("Retry-After") != "1" {
			t.Errorf("the other instance tells %s", a)
		}
		release()
		first := <-heard
		mustBe(t, first, http.StatusCreated)
		c.mustBeDated(t, first)
		mustReplay(t, with.client, p, first)
		c.sandbox.Ledger().MustHave(t, p, 1)
	}

	// What one left open, the other settles.
	for from, to := range map[*clocked]*clocked{c.off: c.right, c.right: c.off} {
		open := harness.NewPayment("sandbox:charge-then-500")
		mustBe(t, from.client.Pay(within(t, harness.Patience), open), http.StatusBadGateway)
		a, err := to.client.PayUntilAnswered(within(t, harness.Patience), open)
		if err != nil {
			t.Fatal(err)
		}
		c.mustBeDated(t, a)
		c.sandbox.Ledger().MustHave(t, open, 1)
	}

	// A life ends a day after its answer by the database's clock, and not before.
	for _, p := range []harness.Payment{here, there} {
		pgtest.Exec(t, c.database, `UPDATE idempotency_keys SET created_at = created_at - interval '25 hours', expires_at = expires_at - interval '25 hours'
			WHERE key_id = $1`, p.Nonce)
	}
	mustReplay(t, c.right.client, here, c.beginsAnew(t, c.off.client, here))
	mustReplay(t, c.off.client, there, c.beginsAnew(t, c.right.client, there))
}

// beginsAnew pays with a nonce whose time is over.
func (c *clocks) beginsAnew(t *testing.T, client *harness.Client, p harness.Payment) harness.Answer {
	t.Helper()
	a := pay(t, client, p)
	if a.Replayed() {
		t.Error("a life that is over is replayed")
	}
	c.sandbox.Ledger().MustHave(t, p, 2)
	return a
}

// mustBeDated checks that an answer has the database's times, and no others.
func (c *clocks) mustBeDated(t *testing.T, a harness.Answer) {
	t.Helper()
	var told struct {
		ID        string    `json:"id"`
		CreatedAt time.Time `json:"created_at"`
		UpdatedAt time.Time `json:"updated_at"`
	}
	if err := json.Unmarshal(a.Body, &told); err != nil {
		t.Fatalf("%v: %s", err, a)
	}
	if n := number(t, c.look, `SELECT count(*) FROM payments WHERE id = $1 AND created_at = $2 AND updated_at = $3
		AND created_at > clock_timestamp() - interval '2 minutes' AND updated_at BETWEEN created_at AND clock_timestamp()`,
		told.ID, told.CreatedAt, told.UpdatedAt); n != 1 {
		t.Errorf("the payment's times are not the database's: %s", a)
	}
}

// killedOneByOne kills each instance while two of its charges are booked and not
// answered. The merchant asks the other one about the first, and nobody about the second.
func killedOneByOne(t *testing.T, ahead string) {
	c := newClocks(t, ahead, patientTimes)
	for _, turn := range []struct{ dies, lives *clocked }{{c.off, c.right}, {c.right, c.off}} {
		retried, _, _ := c.hold(t, turn.dies, "its merchant asks again")
		left, _, _ := c.hold(t, turn.dies, "nobody asks again")
		turn.dies.Kill()
		answer, err := turn.lives.client.PayUntilAnswered(within(t, harness.Patience), retried)
		if err != nil {
			t.Fatal(err)
		}
		harness.Eventually(t, harness.Patience, "recovery settles what nobody asks for", func() bool {
			return lives(t, turn.lives.client, left.Nonce)[0].KeyState == "answered"
		})
		turn.dies.restart()
		mustReplay(t, turn.dies.client, retried, answer)
		mustReplay(t, turn.lives.client, left, pay(t, turn.dies.client, left))
		c.sandbox.Ledger().MustHave(t, retried, 1)
		c.sandbox.Ledger().MustHave(t, left, 1)
	}
}

// sleepsUntilReleased stops one instance between its claim and its send, and the other
// one proves that nothing was booked: not before the proof moment by the database's
// clock. The nonce's next life pays, and the sleeper wakes.
func sleepsUntilReleased(t *testing.T, ahead string, offSleeps bool) {
	c := newClocks(t, ahead, shortTimes)
	sleeper, other := c.right, c.off
	if offSleeps {
		sleeper, other = c.off, c.right
	}
	p := &pause{
		sandbox: c.sandbox, door: sleeper.door, sleeper: sleeper.API, atSleeper: sleeper.client, atOther: other.client, look: c.look,
		database: c.database, payment: harness.NewPayment("paid in the second life"), heardBySleeper: make(chan harness.Answer, 1),
	}
	p.sleepThroughTheRelease(t)
	if n := number(t, c.look, `SELECT count(*) FROM transactions
		WHERE nonce = $1 AND updated_at >= may_send_until + travel_us * interval '1 microsecond' AND updated_at <= clock_timestamp()`, p.payment.Nonce); n != 1 {
		t.Error("the nonce was given back before the proof moment")
	}
	p.mustWakeIntoTheSecondLife(t)
}
