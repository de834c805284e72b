package transactions

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/providers"
)

// The database fails at one statement, wherever in the rest of a payment's life it is:
// when a provider calls back, in a dispute, when time passes, while books are compared,
// and at those places of an action that action_faults_test.go does not come by. See
// database_faults_test.go for how.

// courses are what becomes of payments that have begun. What is before a course, and
// after it, goes another way, on which nothing fails.
var courses = []func(c *course){
	(*course).decidedByCallback,
	(*course).calledBackEarly,
	(*course).disputed,
	(*course).expired,
	(*course).undecided,
	(*course).undone,
	(*course).capturedByTwo,
	(*course).unconfirmedAction,
	(*course).reconciled,
}

// course is a lifetime of what follows a payment's beginning.
type course struct {
	*lifetime
	books   *bookkeeper
	sequels []func() // what must be so at the end
}

// listed is an instance whose provider shows its books.
func (b *bookkeeper) listed(o *Options) {
	o.Providers = providers.NewRegistry(map[string]providers.Provider{merchants.Test: b, merchants.Live: b})
}

// until asks until there is an answer, as a client and a provider do. What is no answer
// must invite to come back.
func (c *course) until(what string, ask func() response) response {
	c.w.t.Helper()
	var r response
	for range patienceOfClients {
		if r = ask(); r.status < http.StatusMultipleChoices {
			return r
		}
		if r.status != http.StatusConflict && r.status <= http.StatusInternalServerError || r.header.Get("Retry-After") == "" {
			c.w.t.Fatalf("%s: got %s, which is no invitation to come back", what, r)
		}
		if r.status == http.StatusConflict {
			c.w.shift(c.nonce(what), testLease)
		}
	}
	c.w.t.Fatalf("%s: not answered after %d requests, the last with %s", what, patienceOfClients, r)
	return r
}

// hears lets the provider say something until it is taken.
func (c *course) hears(m said) {
	c.w.t.Helper()
	body, err := json.Marshal(m)
	if err != nil {
		c.w.t.Fatal(err)
	}
	c.until("a callback", func() response {
		return c.w.call(http.MethodPost, c.i.public.URL+CallbackPath(c.w.psp.Name()), body, signatureHeader, goodSignature)
	})
}

// operates replaces what the provider does next with operations.
func (c *course) operates(os ...operating) {
	c.w.psp.mu.Lock()
	defer c.w.psp.mu.Unlock()
	c.w.psp.onOperate, c.w.psp.onAsk = os, nil
}

// chargeOf is what a provider was, or would be, asked for on behalf of tx.
func chargeOf(tx Transaction) providers.Charge {
	return providers.Charge{
		Order:  providers.Order{Reference: tx.ID.String(), AccountID: tx.AccountID.String(), Mode: tx.Mode, MerchantOrderID: "order-" + tx.Nonce},
		Amount: tx.Amount, Currency: tx.Currency, Capture: tx.Type == Purchase,
	}
}

// book books a charge at the provider, whatever it has answered.
func (c *course) book(tx Transaction) { c.w.psp.book(chargeOf(tx)) }

// lapse takes a booking out of the provider's books: its hold on the money has ended
// there, too, or another booking stands against it.
func (c *course) lapse(references ...string) {
	p := c.w.psp
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bookings = slices.DeleteFunc(p.bookings, func(b providers.Charge) bool { return slices.Contains(references, b.Reference) })
	p.operations = slices.DeleteFunc(p.operations, func(o providers.Operation) bool { return slices.Contains(references, o.Reference) })
}

// accepted is a payment that the provider has accepted, and not decided.
func (c *course) accepted(what string) {
	c.w.t.Helper()
	c.does(acceptFirst)
	body := c.w.body("order-"+c.nonce(what), nil)
	first := c.w.create(c.nonce(what), body)
	c.w.want(first, http.StatusCreated)
	c.stays(first, func() response { return c.w.create(c.nonce(what), body) })
}

// stays has an answer replayed at the end.
func (c *course) stays(first response, again func() response) {
	c.sequels = append(c.sequels, func() {
		c.w.t.Helper()
		c.w.wantReplay(first, again(), false)
	})
}

// becomes has a payment's state looked at in the end.
func (c *course) becomes(nonce string, state PaymentStatus, version int64) {
	c.sequels = append(c.sequels, func() {
		c.w.t.Helper()
		c.w.wantState(nonce, state, version)
	})
}

// resolves lets recovery work until nothing of it is left to do.
func (c *course) resolves(what string) {
	c.w.t.Helper()
	for round := 0; c.unresolved(what); round++ {
		if round == patienceOfClients {
			c.w.t.Fatalf("%s: recovery has not settled it in %d rounds", what, round)
		}
		if round > 1 { // whoever had it is gone
			c.w.shift(c.nonce(what), 2*testLease)
		}
		c.w.dueAgain(c.nonce(what))
		_, _ = c.i.service.Recover(c.w.t.Context()) // the next round tries again
	}
}

// decidedByCallback is pending until the provider calls back, which it does until it is
// heard, and then once more.
func (c *course) decidedByCallback() {
	c.accepted("approved")
	c.book(c.w.transaction(c.nonce("approved")))
	c.accepted("declined")
	c.w.psp.mu.Lock()
	c.w.psp.declined[c.w.transaction(c.nonce("declined")).ID.String()] = true
	c.w.psp.mu.Unlock()
	for _, outcome := range []string{"approved", "declined"} {
		m := c.w.about("message-"+c.nonce(outcome), c.nonce(outcome), outcome)
		c.hears(m)
		c.resolves(outcome)
		c.hears(m)
	}
	c.becomes(c.nonce("approved"), PaymentApproved, 1)
	c.becomes(c.nonce("declined"), PaymentDeclined, 1)
}

// calledBackEarly hears of the decision before the provider has answered the request.
func (c *course) calledBackEarly() {
	c.does(func(_ context.Context, p *psp, charge providers.Charge) providers.Result {
		r := p.book(charge)
		c.hears(c.w.about("message-"+c.nonce("early"), c.nonce("early"), "approved"))
		return providers.Result{Outcome: providers.Pending, ProviderReference: r.ProviderReference}
	})
	first := c.pay("early")
	c.resolves("early")
	c.stays(first, func() response { return c.w.create(c.nonce("early"), c.w.body("order-"+c.nonce("early"), nil)) })
	c.becomes(c.nonce("early"), PaymentApproved, 1)
}

// disputed is disputed twice: won, and lost.
func (c *course) disputed() {
	order := "order-" + c.nonce("disputed")
	c.does()
	c.w.sold(order, "100")
	for n, stages := range [][]string{{"received", "pending_review", "won"}, {"pending_review", "lost"}} {
		for _, stage := range stages {
			m := c.w.about(fmt.Sprintf("message-%s-%d-%s", c.nonce(""), n, stage), "sale-"+order, "")
			m.DisputeID, m.Stage, m.Amount, m.Currency = fmt.Sprintf("dispute-%s-%d", c.nonce(""), n), stage, "100", "USD"
			c.hears(m)
			c.hears(m)
		}
	}
	c.becomes("sale-"+order, PaymentChargedBack, 1+3+2)
}

// expired ends by time: nothing of it was captured, a part, or all.
func (c *course) expired() {
	w := c.w
	w.t.Helper()
	c.does()
	c.operates()
	captured := map[string]string{"part": "40", "all": "100"}
	for _, what := range []string{"nothing", "part", "all"} {
		s := w.held("order-"+c.nonce(what), "100")
		if amount := captured[what]; amount != "" {
			w.want(w.act(c.nonce(what), s.capture(amount)), http.StatusOK)
		}
		w.sql(`UPDATE authorizations SET expires_at = clock_timestamp() WHERE payment_id = $1::uuid`, s.payment)
	}
	for round := 0; w.count(`SELECT count(*) FROM authorizations WHERE expires_at > '-infinity' AND expires_at <= clock_timestamp()`) > 0; round++ {
		if round == patienceOfClients {
			w.t.Fatalf("not expired in %d rounds", round)
		}
		_, _ = c.i.service.Expire(w.t.Context()) // the next round tries again
	}
	c.lapse(w.transaction("sale-order-" + c.nonce("nothing")).ID.String())
	c.becomes("sale-order-"+c.nonce("nothing"), PaymentExpired, 2)
	c.becomes("sale-order-"+c.nonce("part"), PaymentPartiallyCaptured, 2)
	c.becomes("sale-order-"+c.nonce("all"), PaymentCaptured, 2)
	part := sale{w.transaction(c.nonce("part")).PaymentID.String(), w.transaction("sale-order-" + c.nonce("part")).ID.String()}
	for range patienceOfClients {
		r := w.actOn(c.i, c.nonce("rest"), part.capture("60"))
		if r.status == http.StatusBadRequest && r.code() == "INVALID_STATUS" {
			return
		}
		if r.status <= http.StatusInternalServerError || r.header.Get("Retry-After") == "" {
			w.t.Fatalf("a capture that comes too late: %s", r)
		}
	}
	w.t.Fatal("a capture that comes too late is not refused")
}

// undecided is pending for as long as a provider has, and refused then.
func (c *course) undecided() {
	c.accepted("undecided")
	c.w.shift(c.nonce("undecided"), DefaultPendingFor)
	c.w.sql(`UPDATE idempotency_keys SET expires_at = clock_timestamp() + interval '1 hour' WHERE key_id = $1`, c.nonce("undecided"))
	c.w.pendingAnswer(1)
	for round := 0; c.unresolved("undecided"); round++ {
		if round == patienceOfClients {
			c.w.t.Fatalf("not expired in %d rounds", round)
		}
		c.w.dueAgain(c.nonce("undecided"))
		_, _ = c.i.service.Recover(c.w.t.Context())
	}
	c.becomes(c.nonce("undecided"), PaymentExpired, 1)
}

// acts does a deed until it is answered, and has the answer replayed at the end.
func (c *course) acts(what string, d deed) {
	c.w.t.Helper()
	first := c.until(what, func() response { return c.w.actOn(c.i, c.nonce(what), d) })
	c.stays(first, func() response { return c.w.act(c.nonce(what), d) })
}

// undone is a cancel-or-refund that does not say which of the two, or of what; its answer
// is lost.
func (c *course) undone() {
	c.does()
	held, sold := c.w.held("order-"+c.nonce("cancel"), "100"), c.w.sold("order-"+c.nonce("refund"), "100")
	c.operates(operateThenTimeout)
	c.acts("cancel", held.reverse("", ""))
	c.operates(operateThenTimeout)
	c.acts("refund", sold.reverse("", ""))
	c.becomes("sale-order-"+c.nonce("cancel"), PaymentCanceled, 2)
	c.becomes("sale-order-"+c.nonce("refund"), PaymentRefunded, 2)
}

// capturedByTwo is captured as a whole by one who was taken over meanwhile: a payment
// that is past it has no move for them.
func (c *course) capturedByTwo() {
	w := c.w
	w.t.Helper()
	c.does()
	d := w.held("order-"+c.nonce("capture"), "100").capture("100")
	c.operates()
	acted, letGo := w.holdOperation(operateAsUsual)
	answer := w.acting(c.i, c.nonce("capture"), d)
	select {
	case <-acted:
		w.shift(c.nonce("capture"), testLease)
		w.dueAgain(c.nonce("capture"))
		w.recoverOn(w.instance)
		letGo()
		receive(w.t, answer, "the answer of who was fenced out")
	case <-answer: // the fault was at its begin
		c.operates()
	case <-time.After(soon):
		w.t.Fatal("neither sent nor answered")
	}
	c.acts("capture", d)
	c.becomes("sale-order-"+c.nonce("capture"), PaymentCaptured, 2)
}

// unconfirmedAction has a begin whose answer is always lost: this action's, or the next
// one's if this one's meets another fault.
func (c *course) unconfirmedAction() {
	c.does()
	s := c.w.sold("order-"+c.nonce("refund"), "100")
	c.operates()
	c.wire.also("transactions.begin_action", fault{worked: true})
	c.acts("first", s.refund("30"))
	c.acts("second", s.refund("20"))
	c.sequels = append(c.sequels, func() { c.w.wantPayment(s, PaymentPartiallyRefunded, "0", "50") })
}

// reconciled compares books in which one charge came late, one has another amount, and
// one is not listed.
func (c *course) reconciled() {
	w := c.w
	w.t.Helper()
	// What was before is a day older, and nobody watches it any more.
	w.sql(`UPDATE transactions SET created_at = created_at - interval '1 day' WHERE created_at > clock_timestamp() - interval '1 day'`)
	w.sql(`DELETE FROM watches WHERE $1`, true)
	c.does(notReached)
	w.want(w.create(c.nonce("late"), w.body("order-"+c.nonce("late"), nil)), http.StatusServiceUnavailable)
	c.does()
	for _, what := range []string{"dearer", "unlisted"} {
		w.want(w.create(c.nonce(what), w.body("order-"+c.nonce(what), nil)), http.StatusCreated)
	}
	late := w.transaction(c.nonce("late"))
	c.book(late)
	for _, what := range []string{"late", "dearer", "unlisted"} {
		w.shift(c.nonce(what), longAgo)
	}
	c.lists("late", decimal.Zero)
	c.lists("dearer", decimal.NewFromInt(1))
	w.sql(`INSERT INTO reconciliation_progress (provider, until) VALUES ($1, clock_timestamp())
	    ON CONFLICT (provider) DO UPDATE SET until = clock_timestamp()`, w.psp.Name())
	w.sql(`UPDATE reconciliation_progress SET until = until - interval '5 minutes' WHERE provider = $1`, w.psp.Name())

	c.operates(operateThenTimeout)
	c.comparesAll()
	r := c.reconciler()
	c.works("a person's step", func(ctx context.Context) error {
		_, err := r.Step(ctx, wish{Ago: 4 * time.Minute})
		return err
	})
	c.works("the list of differences", func(ctx context.Context) error {
		_, err := c.i.service.store.differences(ctx, Difference{}, 100)
		return err
	})
	if n, sum := w.psp.operated(providers.Refund, late.ID.String()); n != 1 || !sum.Equal(late.Amount) {
		w.t.Errorf("the late charge was reversed %d times, %s in all", n, sum)
	}
	for finding, reference := range map[Finding]string{FoundMissingHere: late.ID.String(), FoundAmountDiffers: w.transaction(c.nonce("dearer")).ID.String()} {
		if n := w.count(`SELECT count(*) FROM differences WHERE reference = $1 AND finding = $2 AND (action = 'reversed') = (finding = 'missing_here')`, reference, string(finding)); n != 1 {
			w.t.Errorf("%d differences say %s", n, finding)
		}
	}
	c.lapse(late.ID.String(), reversalOf(late.ID))
}

func (c *course) reconciler() *Reconciler { return NewReconciler(c.i.service, nil) }

// lists has a booking in the provider's books, of that much more than we know of.
func (c *course) lists(what string, more decimal.Decimal) {
	tx := c.w.transaction(c.nonce(what))
	c.books.mu.Lock()
	defer c.books.mu.Unlock()
	c.books.books = append(c.books.books, providers.Booking{
		Order:  providers.Order{Reference: tx.ID.String(), AccountID: tx.AccountID.String(), Mode: tx.Mode, MerchantOrderID: "order-" + tx.Nonce},
		Amount: tx.Amount.Add(more), Currency: tx.Currency, BookedAt: tx.CreatedAt.Add(time.Millisecond),
	})
}

// comparesAll runs rounds of the loop until the books of a few minutes are compared and
// nothing is watched any more.
func (c *course) comparesAll() {
	w := c.w
	w.t.Helper()
	const rounds = 15 // four looks, a reversal whose answer was lost, and what a fault costs
	r := c.reconciler()
	behind := func() bool {
		return w.count(`SELECT count(*) FROM reconciliation_progress WHERE provider = $1 AND until < clock_timestamp() - interval '3 minutes'`, w.psp.Name()) > 0
	}
	for range rounds {
		if !behind() && w.count(`SELECT count(*) FROM watches`) == 0 {
			return
		}
		if behind() { // whoever had the turn is gone
			w.sql(`UPDATE reconciliation_progress SET changed_at = clock_timestamp() - interval '1 hour' WHERE provider = $1`, w.psp.Name())
		}
		w.sql(`UPDATE watches SET next_look_at = clock_timestamp() - interval '1 second' WHERE $1`, true)
		_, _ = r.RunOnce(w.t.Context()) // the next round tries again
	}
	w.t.Fatalf("not compared in %d rounds", rounds)
}

// judge asks the database, not our answers, about this course. What all have left behind
// is judged in the end, against the provider's books.
func (c *course) judge() {
	c.w.t.Helper()
	c.w.wantNothingOpen()
	for _, sequel := range c.sequels {
		sequel()
	}
}

// stageOfCourses is a world in which courses are played, and what plays one and returns
// what it executed.
func stageOfCourses(t *testing.T) (*world, func(n int, name string, traps ...wireTrap) []string) {
	t.Helper()
	w := newWorld(t)
	books := &bookkeeper{psp: w.psp, pageSize: 3}
	i, db, wire := w.onFaultyWire(books.listed)
	return w, func(n int, name string, traps ...wireTrap) []string {
		t.Helper()
		wire.arm(traps...)
		c := &course{lifetime: &lifetime{w: w, i: i, db: db, wire: wire, name: name, first: map[string]response{}}, books: books}
		courses[n](c)
		executed, left := wire.executed()
		if left != 0 {
			t.Errorf("%s: %d traps are left: the course was another one", name, left)
		}
		wire.arm()
		c.judge()
		return executed
	}
}

// soundCourses is what each course executes where nothing fails.
func soundCourses(t *testing.T) (executed [][]string) {
	t.Helper()
	w, play := stageOfCourses(t)
	defer w.wantBalanced()
	for n := range courses {
		executed = append(executed, play(n, fmt.Sprint("sound-course-", n)))
		if t.Failed() || len(executed[n]) == 0 {
			t.Fatalf("without a fault, already; executed were %q", executed)
		}
	}
	return executed
}

func TestH65ErrorOfTheDatabaseAtAnyStatementOfALaterLifeCostsNeitherMoneyNorAnswer(t *testing.T) {
	t.Parallel()
	everyFault(t, soundCourses(t), func(t *testing.T) (func(scene int, name string, trap wireTrap), func()) {
		w, play := stageOfCourses(t)
		return func(n int, name string, trap wireTrap) { play(n, name, trap) }, func() {
			w.wantBalanced()
			found, err := w.service.Invariants(t.Context())
			if err != nil || !found.OK {
				t.Errorf("in the end the invariants are %+v, %v", found, err)
			}
		}
	})
}

// What a loop returns is told to nobody but the log. That it is an error at all is what
// the worker's alarm goes by.
func TestH65LoopsTellThatTheDatabaseFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i, _, wire := w.onFaultyWire()
	for statement, round := range map[string]func(context.Context) (int, error){
		"transactions.expired":       i.service.Expire,
		"transactions.claim_watches": NewReconciler(i.service, nil).RunOnce,
		"transactions.claim_window":  NewReconciler(i.service, nil).RunOnce,
		"transactions.due":           i.service.Recover,
		"idem.purge_callbacks":       idem.Purge{DB: i.service.store.db, Retention: idem.DefaultRetention}.RunOnce,
	} {
		wire.arm(wireTrap{statement, 1, fault{state: "40P01"}})
		if _, err := round(t.Context()); err == nil {
			t.Errorf("%s failed, and nobody hears of it", statement)
		}
		if _, left := wire.executed(); left != 0 {
			t.Errorf("%s was not executed", statement)
		}
		if _, err := round(t.Context()); err != nil {
			t.Errorf("%s works again, and the loop does not: %v", statement, err)
		}
	}
}
