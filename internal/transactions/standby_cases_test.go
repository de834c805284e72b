package transactions

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
)

// Case H25, as far as it can be told without a failover: while the synchronous standby is
// away, a commit waits, and whoever ends its wait makes it visible although no standby
// has it. A failover would then forget it. So nothing may be sent, and no 201 told, on
// the strength of it. test/faults fails over. The standby is everybody's, so these tests
// are not parallel.

// waitingWorld is a world with an instance whose commits wait for the standby.
func waitingWorld(t *testing.T) (*world, instance) {
	t.Helper()
	w := newWorld(t)
	db, err := postgres.Open(t.Context(), pgtest.Synchronous(w.url), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	i := w.newInstance(db)
	w.steady()
	return w, i
}

// endWait ends the wait of a statement's commit for the standby: by a word to its
// session, after which it is told as done, or with the session.
func (w *world) endWait(statement, how string) {
	w.t.Helper()
	pgtest.Exec(w.t, w.url, `SELECT `+how+`($1)`, pgtest.AwaitWaiting(w.t, w.url, statement))
}

var endsOfWaits = []string{"pg_cancel_backend", "pg_terminate_backend"}

func TestH25ClaimThatNoStandbyHasIsNotSentOn(t *testing.T) { //nolint:paralleltest // see above
	for _, how := range endsOfWaits {
		w, i := waitingWorld(t)
		back := pgtest.StandbyAway(t, w.url)
		first := w.sendTo(i, "nonce-1", w.body("order-1", nil))
		w.endWait("transactions.begin", how)
		w.endWait("transactions.holding", how) // the claim is read back, and that is no more certain
		w.want(receive(t, first, "the answer"), http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE")
		if n := w.psp.sent(); n != 0 {
			t.Fatalf("%s: %d sends, of a claim that a failover forgets", how, n)
		}
		if n := w.count(`SELECT count(*) FROM transactions`); n != 1 {
			t.Fatalf("%s: %d transactions are visible, so this shows nothing", how, n)
		}
		back()
		w.shift("nonce-1", testLease)
		w.wantCreated(w.createOn(i, w.test, "nonce-1", w.body("order-1", nil)))
		w.wantCharges("order-1", 1)
	}
}

func TestH25ClaimThatTheStandbyHasAfterAllIsSentOn(t *testing.T) { //nolint:paralleltest // see above
	for _, how := range endsOfWaits {
		w, i := waitingWorld(t)
		back := pgtest.StandbyAway(t, w.url)
		first := w.sendTo(i, "nonce-1", w.body("order-1", nil))
		w.endWait("transactions.begin", how)
		pgtest.AwaitWaiting(t, w.url, "transactions.holding")
		if n := w.psp.sent(); n != 0 {
			t.Fatalf("%s: %d sends while nobody vouches for the claim", how, n)
		}
		back()
		w.wantCreated(receive(t, first, "the answer"))
		w.wantCharges("order-1", 1)
	}
}

func TestH25TakeOverThatNoStandbyHasIsNotSentOn(t *testing.T) { //nolint:paralleltest // see above
	for _, how := range endsOfWaits {
		w, i := waitingWorld(t)
		w.psp.next(timeout) // so a resend is what a retry does
		w.want(w.createOn(i, w.test, "nonce-1", w.body("order-1", nil)), http.StatusGatewayTimeout)
		sent, asked := w.psp.sent(), w.psp.inquiries()
		back := pgtest.StandbyAway(t, w.url)
		retry := w.sendTo(i, "nonce-1", w.body("order-1", nil))
		w.endWait("transactions.take_over", how)
		w.endWait("transactions.holding", how)
		w.want(receive(t, retry, "the answer"), http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE")
		if w.psp.sent() != sent || w.psp.inquiries() != asked {
			t.Fatalf("%s: the provider was called for a take-over that a failover forgets", how)
		}
		back()
		w.shift("nonce-1", testLease)
		w.wantCreated(w.createOn(i, w.test, "nonce-1", w.body("order-1", nil)))
		w.wantCharges("order-1", 1)
	}
}

func TestH25AnswerIsToldOnlyWhenTheStandbyHasIt(t *testing.T) { //nolint:paralleltest // see above
	for _, how := range endsOfWaits {
		w, i := waitingWorld(t)
		acted, letGo := w.holdAnswer(approve)
		first := w.sendTo(i, "nonce-1", w.body("order-1", nil))
		receive(t, acted, "the send")
		back := pgtest.StandbyAway(t, w.url)
		letGo()
		w.endWait("transactions.finish", how)
		pgtest.AwaitWaiting(t, w.url, "transactions.outcome") // it is saved, as one can see; but is it safe?
		select {
		case r := <-first:
			t.Fatalf("%s: told %s while no standby has it", how, r)
		default:
		}
		back()
		answer := receive(t, first, "the answer")
		w.wantCreated(answer)
		w.wantReplay(answer, w.createOn(i, w.test, "nonce-1", w.body("order-1", nil)), false)
		w.wantCharges("order-1", 1)
	}
}

// awaitCommit returns the session whose end of a database transaction of several
// statements waits for the standby; it has no name of ours.
func (w *world) awaitCommit() (pid int) {
	w.t.Helper()
	w.until("a commit waits for the standby", func() bool {
		pid = w.count(`SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'SyncRep' AND query = $1`, commit)
		return pid != 0
	})
	return pid
}

// The claim of an action is one statement, as a payment's.
func TestH25ClaimOfAnActionThatNoStandbyHasIsNotSentOn(t *testing.T) { //nolint:paralleltest // see above
	for _, how := range endsOfWaits {
		w, i := waitingWorld(t)
		d := w.held("order-1", "100").capture("40")
		sent := w.psp.sent()
		back := pgtest.StandbyAway(t, w.url)
		first := w.acting(i, "nonce-1", d)
		w.endWait("transactions.begin_action", how)
		w.endWait("transactions.holding", how)
		w.want(receive(t, first, "the answer"), http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE")
		if n := w.psp.sent() - sent; n != 0 {
			t.Fatalf("%s: %d sends, of a claim that a failover forgets", how, n)
		}
		if n := w.count(`SELECT count(*) FROM payments WHERE settle_pending = 40`); n != 1 {
			t.Fatalf("%s: %d reservations are visible, so this shows nothing", how, n)
		}
		back()
		w.shift("nonce-1", testLease)
		w.want(w.actOn(i, "nonce-1", d), http.StatusOK)
		w.wantBalanced()
	}
}

// Its end is a database transaction of several statements: the commit is what counts.
func TestH25AnswerOfAnActionIsToldOnlyWhenTheStandbyHasIt(t *testing.T) { //nolint:paralleltest // see above
	for _, how := range endsOfWaits {
		w, i := waitingWorld(t)
		d := w.held("order-1", "100").capture("40")
		acted, letGo := w.holdOperation(operateAsUsual)
		first := w.acting(i, "nonce-1", d)
		receive(t, acted, "the send")
		back := pgtest.StandbyAway(t, w.url)
		letGo()
		w.sql(`SELECT `+how+`($1)`, w.awaitCommit())
		w.awaitCommit() // it is saved, as one can see; but is it safe?
		select {
		case r := <-first:
			t.Fatalf("%s: told %s while no standby has it", how, r)
		default:
		}
		back()
		answer := receive(t, first, "the answer")
		w.want(answer, http.StatusOK)
		w.wantReplay(answer, w.actOn(i, "nonce-1", d), false)
		w.wantBalanced()
	}
}

// A callback is taken only when it is on the standby, too: the provider says it once.
func TestH25CallbackIsTakenOnlyWhenTheStandbyHasIt(t *testing.T) { //nolint:paralleltest // see above
	w, i := waitingWorld(t)
	w.psp.next(acceptFirst)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	w.psp.book(chargeOf(w.transaction("nonce-1")))
	body, err := json.Marshal(w.about("message-1", "nonce-1", "approved"))
	if err != nil {
		t.Fatal(err)
	}
	says := func() (response, error) {
		return request(t.Context(), http.MethodPost, i.public.URL+CallbackPath(w.psp.Name()), body, signatureHeader, goodSignature)
	}
	back := pgtest.StandbyAway(t, w.url)
	first := atOnce(1, func(int) (response, error) { return says() })
	w.sql(`SELECT pg_cancel_backend($1)`, w.awaitCommit())
	w.awaitCommit() // it is written again, to make sure of it
	select {
	case r := <-first:
		t.Fatalf("told %s while no standby has it", r)
	default:
	}
	back()
	w.want(receive(t, first, "the answer"), http.StatusOK)
	w.want(<-atOnce(1, func(int) (response, error) { return says() }), http.StatusOK)
	w.dueAgain("nonce-1")
	w.recoverOn(w.instance)
	w.wantState("nonce-1", PaymentApproved, 1)
	w.wantBalanced()
}
