package conformance

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/test/harness"
)

const (
	// seedVariable chooses other moments; the same seed throws the same dice again,
	// as far as the machine's own timing lets it.
	seedVariable = "ONCEPAY_TEST_SEED"
	defaultSeed  = 20261122

	// answerLimit is how soon after a restart every nonce must have its answer,
	// although a lease takes 45 seconds.
	answerLimit = 10 * time.Second
)

// dice throws the same numbers for the same seed.
type dice struct{ *rand.Rand }

func newDice(t *testing.T, name string) dice {
	t.Helper()
	seed := uint64(defaultSeed)
	if text := os.Getenv(seedVariable); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", seedVariable, err)
		}
	}
	t.Logf("%s=%d chooses the same moments again", seedVariable, seed)
	h := fnv.New64a()
	h.Write([]byte(name)) // never fails
	return dice{rand.New(rand.NewPCG(seed, h.Sum64()))}
}

func (d dice) upTo(limit time.Duration) time.Duration {
	return time.Duration(d.Int64N(int64(limit) + 1))
}

// victim is what a round kills, and starts again.
type victim interface {
	kill()
	// restart returns once it is ready, with the API's new address.
	restart() (baseURL string)
}

// wholeDev dies with everything: API, PostgreSQL and provider.
type wholeDev struct {
	t   *testing.T
	dir string
	dev *harness.Dev
}

func (v *wholeDev) kill()           { v.dev.Kill() }
func (v *wholeDev) restart() string { v.dev = harness.StartDev(v.t, v.dir); return v.dev.Info.BaseURL }

// onlyAPI dies alone: database and provider go on, and the provider books what the
// dead have sent.
type onlyAPI struct {
	t            *testing.T
	installation harness.Installation
	args         []string
	api          *harness.API
}

func (v *onlyAPI) kill()           { v.api.Kill() }
func (v *onlyAPI) restart() string { v.api = v.installation.Serve(v.t, v.args...); return v.api.URL }

// A kill -9 at any moment, a restart, and a client that comes back with the same
// nonce: one charge per order, and the answer within ten seconds.
func TestKilledAtAnyMomentThenRestartedAndRetriedEveryOrderIsChargedOnceAndAnsweredSoon(t *testing.T) {
	t.Parallel()
	const lanes, rounds = 3, 5 // of each of two kinds: 30 kills
	var tally tally
	t.Run("lanes", func(t *testing.T) {
		for lane := range lanes {
			t.Run(fmt.Sprintf("everything dies, %d", lane), func(t *testing.T) {
				t.Parallel()
				v := &wholeDev{t: t, dir: harness.Folder(t)}
				v.restart()
				client := harness.NewClient(v.dev.Info.BaseURL, v.dev.Info.Keys())
				c := campaign{client: client, ledger: func() harness.Ledger { return v.dev.Info.Ledger() }, tally: &tally}
				c.run(t, v, rounds)
			})
			t.Run(fmt.Sprintf("the API dies, %d", lane), func(t *testing.T) {
				t.Parallel()
				sandbox := harness.StartSandbox(t, harness.Folder(t))
				v := &onlyAPI{t: t, installation: harness.NewInstallation(pgtest.URL(t), sandbox.URL)}
				v.restart()
				client := harness.NewClient(v.api.URL, merchant(t, v.api))
				c := campaign{client: client, ledger: sandbox.Ledger, tally: &tally}
				c.run(t, v, rounds)
			})
		}
	})
	tally.report(t)
}

// tally is what the rounds of all lanes have seen.
type tally struct {
	mu    sync.Mutex
	kills int
	took  []time.Duration // from ready to answered
	met   map[string]int  // where the kills met the payments
}

func (y *tally) add(met string, took time.Duration) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.met == nil {
		y.met = map[string]int{}
	}
	y.met[met]++
	y.took = append(y.took, took)
}

func (y *tally) report(t *testing.T) {
	t.Helper()
	if t.Failed() {
		return
	}
	t.Logf("%d kills met the payments:", y.kills)
	for _, state := range slices.Sorted(maps.Keys(y.met)) {
		t.Logf("%5d %s", y.met[state], state)
	}
	spread(t, "from ready to answered", y.took)
	// A campaign that only ever hit before or after the work shows nothing.
	for _, state := range []string{stateBegun, stateBooked} {
		if y.met[state] == 0 {
			t.Errorf("no kill met a payment that was %s", state)
		}
	}
}

// Where a kill met a payment, as it looks after the restart.
const (
	stateNothing    = "not begun"
	stateBegun      = "begun, nothing booked"
	stateBooked     = "booked, its answer not saved"
	stateSaved      = "saved, its answer not heard"
	stateHeard      = "answered"
	stateUnresolved = "left unresolved by an error"
)

// campaign is one lane's: one installation, killed again and again.
type campaign struct {
	client *harness.Client
	ledger func() harness.Ledger
	tally  *tally
}

// attempt is one payment of a round, and what the client heard before the kill.
type attempt struct {
	payment harness.Payment
	after   time.Duration // when it is sent
	heard   harness.Answer
}

// paid says whether the client was answered before the kill. An answer is more than
// one segment long: a kill can leave its first half, and a status with it.
func (a *attempt) paid() bool {
	return a.heard.Err == nil && a.heard.Status == http.StatusCreated
}

func (c *campaign) run(t *testing.T, v victim, rounds int) {
	t.Helper()
	d := newDice(t, t.Name())
	for round := range rounds {
		c.round(t, d, v, round%2 == 1)
	}
}

// round sends a dozen payments, kills at a random moment of their lives, restarts
// and lets every client come back. A quick round aims between the few
// milliseconds of a payment, a slow one at what waits for the provider.
func (c *campaign) round(t *testing.T, d dice, v victim, slow bool) {
	t.Helper()
	attempts, moment := plan(d, slow)
	var all sync.WaitGroup
	begin := make(chan struct{})
	for _, a := range attempts {
		all.Go(func() {
			<-begin
			<-time.After(a.after)
			a.heard = c.client.Pay(t.Context(), a.payment)
		})
	}
	close(begin)
	<-time.After(moment) // the moment is the subject
	v.kill()
	all.Wait()
	c.client.MoveTo(v.restart())
	ready := time.Now()
	c.tally.mu.Lock()
	c.tally.kills++
	c.tally.mu.Unlock()

	for _, a := range attempts {
		all.Go(func() { c.comeBack(t, a, ready) })
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// plan chooses a round's payments and the moment of its kill.
func plan(d dice, slow bool) ([]*attempt, time.Duration) {
	descriptions := []string{
		"paid", "paid", "paid", "paid", "paid", "paid",
		"sandbox:charge-then-500", "sandbox:charge-then-reset", "sandbox:500",
	}
	window := 60 * time.Millisecond
	if slow {
		window = 900 * time.Millisecond
		descriptions = append(descriptions, "sandbox:slow=300ms", "sandbox:slow=600ms", "sandbox:slow=900ms", "sandbox:slow=1200ms")
	}
	var attempts []*attempt
	for _, text := range descriptions {
		attempts = append(attempts, &attempt{payment: harness.NewPayment(text), after: d.upTo(window / 2)})
	}
	attempts[0].payment.Card = harness.CardWithoutFunds
	attempts[0].payment.Description = "declined"
	return attempts, window/5 + d.upTo(window*4/5)
}

// comeBack is one client after the restart: it finds out where it stands, retries
// until it is answered, and then the referee is asked.
func (c *campaign) comeBack(t *testing.T, a *attempt, ready time.Time) {
	met, err := c.standing(t.Context(), a)
	if err != nil {
		t.Error(err)
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	answer, err := c.client.PayUntilAnswered(ctx, a.payment)
	if err != nil {
		t.Errorf("%s: %v", a.payment.Description, err)
		return
	}
	took := answer.At.Sub(ready)
	if took > answerLimit {
		t.Errorf("%s, %s: answered %s after the restart was ready", a.payment.Description, met, took)
	}
	c.tally.add(met, took)
	if a.paid() && !answer.Same(a.heard) {
		t.Errorf("%s: answered %s, and after the restart %s", a.payment.Description, a.heard, answer)
	}
	if again := c.client.Pay(ctx, a.payment); again.Err != nil || !again.Same(answer) || !again.Replayed() {
		t.Errorf("%s: not a replay: %s", a.payment.Description, again)
	}
	charges := 1
	if a.payment.Card == harness.CardWithoutFunds {
		charges = 0
	}
	c.ledger().MustHave(t, a.payment, charges)
	all, err := c.client.Lives(ctx, a.payment.Nonce)
	if err != nil || len(all) != 1 || all[0].Charges != charges || all[0].Count("event") != 1 {
		t.Errorf("%s: its lives are %+v (%v)", a.payment.Description, all, err)
	}
}

// standing tells where the kill met a payment.
func (c *campaign) standing(ctx context.Context, a *attempt) (string, error) {
	if a.paid() {
		return stateHeard, nil
	}
	all, err := c.client.Lives(ctx, a.payment.Nonce)
	switch {
	case err != nil:
		return "", err
	case len(all) == 0:
		return stateNothing, nil
	case all[0].KeyState == "answered":
		return stateSaved, nil
	case a.heard.Err == nil:
		return stateUnresolved, nil
	}
	booked, err := c.ledger().Of(ctx, a.payment.OrderID)
	if len(booked) > 0 {
		return stateBooked, err
	}
	return stateBegun, err
}

func TestH07AThousandPaymentsInFlightSurviveTheKillOfTheirProcess(t *testing.T) {
	t.Parallel()
	const (
		payments = 1000
		// fewer than there are connections to the provider, so that others are sent too
		bookedFirst = 400
	)
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	database := pgtest.URL(t)
	// No answer comes before all have begun, on whatever machine.
	v := &onlyAPI{t: t, installation: harness.NewInstallation(database, sandbox.URL), args: []string{"--provider-timeout", "90s"}}
	v.restart()
	client := harness.NewClient(v.api.URL, merchant(t, v.api))
	ctx := within(t, 4*time.Minute)
	look := connect(t, database)
	var all sync.WaitGroup
	begin := func(attempts []*attempt, description string) {
		t.Helper()
		for i := range attempts {
			attempts[i] = &attempt{payment: harness.NewPayment(description)}
			all.Go(func() { attempts[i].heard = client.Pay(ctx, attempts[i].payment) })
		}
	}

	// Some are booked, and the answer never comes. Then the provider stands still:
	// others lie unread in its sockets, and the rest waits for a connection.
	attempts := make([]*attempt, payments)
	begin(attempts[:bookedFirst], "sandbox:charge-then-timeout")
	harness.Eventually(t, harness.Patience, "the first are booked", func() bool { return len(sandbox.Ledger().All(t)) == bookedFirst })
	sandbox.Freeze()
	begin(attempts[bookedFirst:], "paid when the provider goes on")
	harness.Eventually(t, harness.Patience, "a thousand payments are in flight", func() bool {
		return number(t, look, `SELECT count(*) FROM transactions WHERE lease_until > clock_timestamp()`) == payments
	})
	v.kill()
	killed := time.Now()
	all.Wait()
	for _, a := range attempts {
		if a.heard.Err == nil {
			t.Fatalf("answered before the kill: %s", a.heard)
		}
	}
	sandbox.Thaw()
	client.MoveTo(v.restart())
	ready := time.Now()

	took := make([]time.Duration, payments)
	answers := make([]harness.Answer, payments)
	for i, a := range attempts {
		all.Go(func() {
			var err error
			if answers[i], err = client.PayUntilAnswered(ctx, a.payment); err != nil {
				t.Error(err)
			}
			took[i] = answers[i].At.Sub(ready)
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	t.Logf("ready %s after the kill", ready.Sub(killed).Round(time.Millisecond))
	spread(t, "from ready to answered", took)

	if n := number(t, look, `SELECT count(*) FROM transactions WHERE lease_until IS NOT NULL OR status <> 'SUCCEEDED'`); n != 0 {
		t.Errorf("%d transactions have not succeeded", n)
	}
	byOrder := map[string]int{}
	for _, e := range sandbox.Ledger().All(t) {
		byOrder[e.MerchantOrderID]++
	}
	if len(byOrder) != payments {
		t.Errorf("the ledger has %d orders", len(byOrder))
	}
	for i, a := range attempts {
		if n := byOrder[a.payment.OrderID]; n != 1 {
			t.Errorf("an order was charged %d times", n)
		}
		if again := client.Pay(ctx, a.payment); !again.Same(answers[i]) || !again.Replayed() {
			t.Errorf("not a replay: %s", again)
		}
	}
}
