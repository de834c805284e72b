package transactions

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/pgtest/pgproxy"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
)

// The cases about dying: a process, a connection or a database that is gone at the
// worst moment, and who goes on afterwards. A crash is a holder that does not come
// back in time: its provider call is held, its commit is held on the wire, or nobody
// has its run any more. Time passes by SQL.

// steady lets every instance so far have a heartbeat for the next hour, so that a
// slow machine does not look like a dead process.
func (w *world) steady() {
	w.t.Helper()
	w.sql(`UPDATE instances SET beat_at = clock_timestamp() + interval '1 hour'`)
}

// silence makes an instance look dead: it has missed its beats.
func (w *world) silence(i instance) {
	w.t.Helper()
	w.sql(`UPDATE instances SET beat_at = clock_timestamp() - interval '1 minute' WHERE id = $1`, i.service.instance)
}

// behind starts another instance that reaches the database through a proxy.
func (w *world) behind(change ...func(*Options)) (instance, *pgproxy.Proxy) {
	w.t.Helper()
	proxy := pgproxy.New(w.t, w.url)
	db, err := postgres.Open(w.t.Context(), proxy.URL(), pgtest.Options(proxy.URL(), postgres.Options{}))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(db.Close)
	i := w.newInstanceWith(db, func(o *Options) {
		for _, f := range change {
			f(o)
		}
	})
	w.t.Cleanup(proxy.Down) // whoever is still held lets go, so that all can close
	w.steady()
	return i, proxy
}

// worldOfTwo is a world whose first instance stands beside a second one, behind a
// proxy, and in which nobody dies unless the test says so.
func worldOfTwo(t *testing.T) (*world, instance, *pgproxy.Proxy) {
	t.Helper()
	w := newWorld(t)
	i, proxy := w.behind()
	return w, i, proxy
}

// sendTo sends a payment to an instance in the background.
func (w *world) sendTo(i instance, nonce string, body []byte) <-chan response {
	return atOnce(1, func(int) (response, error) { return w.post(i, w.test, nonce, body) })
}

// holdAnswer lets the provider act on its next send at once, and keeps its answer
// back. It tells when the provider has acted, and lets the answer go when asked to,
// or when the test ends.
func (w *world) holdAnswer(first behaviour) (acted <-chan struct{}, letGo func()) {
	w.t.Helper()
	did, gate := make(chan struct{}, 1), make(chan struct{})
	letGo = sync.OnceFunc(func() { close(gate) })
	w.t.Cleanup(letGo)
	w.psp.next(func(ctx context.Context, p *psp, c providers.Charge) providers.Result {
		result := first(ctx, p, c)
		did <- struct{}{}
		<-gate
		return result
	})
	return did, letGo
}

// holdInquiry keeps the provider's answer to the next inquiry back: the truth of the
// moment at which it is let go.
func (w *world) holdInquiry() (asked <-chan struct{}, letGo func()) {
	w.t.Helper()
	came, gate := make(chan struct{}, 1), make(chan struct{})
	letGo = sync.OnceFunc(func() { close(gate) })
	w.t.Cleanup(letGo)
	w.psp.asked(func() (providers.Result, bool) {
		came <- struct{}{}
		<-gate
		return providers.Result{}, false
	})
	return came, letGo
}

// mute lets the next n inquiries end without an answer.
func (p *psp) mute(n int) {
	for range n {
		p.asked(func() (providers.Result, bool) {
			return providers.Result{Outcome: providers.Unclear, TimedOut: true}, true
		})
	}
}

func (p *psp) inquiries() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.inquiry
}

// be changes what the provider declares about itself.
func (p *psp) be(change func(*providers.Traits)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.traits)
}

// The kinds of provider that are worse than the world's default.
func notIdempotent(t *providers.Traits) { t.Idempotent, t.IdempotentFor, t.CanVoid = false, 0, false }
func silent(t *providers.Traits)        { t.Idempotent, t.Queryable, t.CanVoid = false, false, false }

// command is a request as the handler hands it to the service.
func (w *world) command(i instance, nonce string, body []byte) Command {
	w.t.Helper()
	v, err := jsontree.Parse(body)
	if err != nil {
		w.t.Fatal(err)
	}
	policy := i.service.policies.Of(idem.DefaultPolicy)
	cmd := Command{
		AccountID: w.account, Mode: merchants.Test, Policy: policy, Key: key(policy, nonce), Operation: "POST /v1/payments",
		Print: i.service.prints.Of(http.MethodPost, "/v1/payments", "", v), RequestID: "request-of-" + nonce, ArrivedAt: time.Now(),
	}
	cmd.Request, err = parseRequest(v, i.service.rulesFor(merchants.Caller{AccountID: w.account, Mode: merchants.Test}))
	if err != nil {
		w.t.Fatal(err)
	}
	return cmd
}

// executed says whether PostgreSQL is done with every statement of that name that
// went through a proxy.
func executed(proxy *pgproxy.Proxy, statement string) func() bool {
	return func() bool {
		return !slices.ContainsFunc(proxy.Rounds(), func(r pgproxy.Round) bool { return !r.Done && slices.Contains(r.Statements, statement) })
	}
}

// claim begins a payment and goes no further, as a process does that dies between
// its commit and its send.
func (w *world) claim(i instance, nonce, order string) *run {
	w.t.Helper()
	r, err := i.service.begin(w.t.Context(), w.command(i, nonce, w.body(order, nil)), w.psp)
	if err != nil || r == nil {
		w.t.Fatalf("the nonce could not be claimed: %v", err)
	}
	return r
}

// recoverOn is one round of an instance's recovery, and how many it took.
func (w *world) recoverOn(i instance) int {
	w.t.Helper()
	n, err := i.service.Recover(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// recovering is one round of recovery in the background.
func (w *world) recovering(i instance) <-chan int {
	taken := make(chan int, 1)
	go func() {
		n, err := i.service.Recover(w.t.Context())
		if err != nil {
			n = -1
		}
		taken <- n
	}()
	return taken
}

// wantTransaction fails the test unless the newest transaction of a nonce is there,
// under that fence.
func (w *world) wantTransaction(nonce string, status Status, fence int64) Transaction {
	w.t.Helper()
	tx := w.transaction(nonce)
	if tx.Status != status || tx.Fence != fence {
		w.t.Fatalf("the transaction is %s under fence %d, want %s under %d", tx.Status, tx.Fence, status, fence)
	}
	return tx
}

// wantObservations fails the test unless these outcomes were kept for a nonce.
func (w *world) wantObservations(nonce string, outcomes ...string) {
	w.t.Helper()
	var got []string
	err := w.db.Conn(w.t.Context()).Raw(`SELECT o.outcome FROM provider_observations o JOIN transactions t ON t.id = o.transaction_id
		WHERE t.nonce = $1 ORDER BY o.id`, nonce).Scan(&got).Error
	if err != nil {
		w.t.Fatal(err)
	}
	if !slices.Equal(got, outcomes) {
		w.t.Fatalf("observed: %q, want %q", got, outcomes)
	}
}

// wantSame fails the test unless two clients were told the same.
func (w *world) wantSame(a, b response) {
	w.t.Helper()
	if a.status != b.status || !bytes.Equal(a.body, b.body) {
		w.t.Fatalf("two answers of one life differ:\n%s\n%s", a, b)
	}
}

func TestH01CrashBetweenClaimAndSendIsResumedAfterItsLease(t *testing.T) {
	t.Parallel()
	for how, die := range map[string]func(w *world, dead instance){
		"its lease ends":           func(w *world, _ instance) { w.shift("nonce-1", testLease) },
		"its process falls silent": func(w *world, dead instance) { w.silence(dead) },
		"its process says goodbye": func(w *world, dead instance) {
			if err := dead.service.Goodbye(w.t.Context()); err != nil {
				w.t.Fatal(err)
			}
		},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			dead := w.newInstance(w.db)
			w.steady()
			w.claim(dead, "nonce-1", "order-1")

			w.wantInProcess(w.create("nonce-1", w.body("order-1", nil)))
			if n := w.recoverOn(w.instance); n != 0 {
				t.Fatalf("recovery took %d within the lease", n)
			}
			w.wantCharges("order-1", 0)

			die(w, dead)
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
			w.wantCharges("order-1", 1)
			w.wantSends(1, 1)
			w.wantTransaction("nonce-1", Succeeded, 2)
			w.wantEvents("nonce-1", "provider")
			if n := w.transactionsOf("nonce-1"); n != 1 {
				t.Errorf("%d transactions, want 1", n)
			}
		})
	}
}

func TestH02CrashBetweenSendAndSaveIsSettledByRecovery(t *testing.T) {
	t.Parallel()
	for how, die := range map[string]func(w *world, dead instance){
		"its lease ends":           func(w *world, _ instance) { w.shift("nonce-1", testLease+grace) },
		"its process falls silent": func(w *world, dead instance) { w.silence(dead) },
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			dead := w.newInstance(w.db)
			w.steady()
			acted, wake := w.holdAnswer(approve)
			zombie := w.sendTo(dead, "nonce-1", w.body("order-1", nil))
			receive(t, acted, "the send")

			die(w, dead)
			if n := w.recoverOn(w.instance); n != 1 {
				t.Fatalf("recovery took %d, want 1", n)
			}
			settled := w.create("nonce-1", w.body("order-1", nil))
			w.want(settled, http.StatusCreated)
			if settled.header.Get(headerReplayed) != "true" {
				t.Error("recovery's answer was not replayed")
			}
			w.wantTransaction("nonce-1", Succeeded, 2)

			wake()
			w.wantSame(settled, receive(t, zombie, "the answer to the client that waited all along"))
			w.wantCharges("order-1", 1)
			w.wantSends(1, 1)
			w.wantEvents("nonce-1", "provider")
		})
	}
}

func TestH03CrashBetweenSaveAndResponseIsReplayed(t *testing.T) {
	t.Parallel()
	w, dying, proxy := worldOfTwo(t)
	saved := proxy.Trap("transactions.finish", pgproxy.Answered)
	first := w.sendTo(dying, "nonce-1", w.body("order-1", nil))
	saved.Wait(t)

	replay := w.create("nonce-1", w.body("order-1", nil))
	w.want(replay, http.StatusCreated)
	if replay.header.Get(headerReplayed) != "true" {
		t.Error("what was saved was not replayed")
	}
	saved.Cut()
	w.wantSame(replay, receive(t, first, "the answer of the instance that had saved"))
	w.wantCharges("order-1", 1)
	w.wantSends(1, 1)
	w.wantEvents("nonce-1", "provider")
}

func TestH04BeginWhoseCommitWasNotConfirmedGoesOn(t *testing.T) {
	t.Parallel()
	w, i, proxy := worldOfTwo(t)
	lost := proxy.Cut("transactions.begin", pgproxy.Answered)
	first := w.createOn(i, w.test, "nonce-1", w.body("order-1", nil))
	lost.Wait(t)
	w.want(first, http.StatusCreated)
	w.wantCharges("order-1", 1)
	w.wantTransaction("nonce-1", Succeeded, 1)
	if n := w.transactionsOf("nonce-1"); n != 1 {
		t.Errorf("%d transactions, want 1", n)
	}
	w.wantReplay(first, w.create("nonce-1", w.body("order-1", nil)), false)
}

// The payment's first answer was dated with the moment at which the claim was read
// back, not with the moment of the claim: two answers about one payment disagreed.
func TestH04PaymentWhoseClaimWasReadBackIsDatedByItsClaim(t *testing.T) {
	t.Parallel()
	w, i, proxy := worldOfTwo(t)
	proxy.Cut("transactions.begin", pgproxy.Answered)
	first := w.createOn(i, w.test, "nonce-1", w.body("order-1", nil))
	w.want(first, http.StatusCreated)
	id, _ := first.get("id").(string)
	for _, field := range []string{"created_at", "updated_at", "status", "sub_status", "version"} {
		if told, kept := first.get(field), w.get("/v1/payments/"+id).get(field); told != kept {
			t.Errorf("%s was told as %v and is kept as %v", field, told, kept)
		}
	}
}

func TestH04BeginThatCannotBeReadBackCostsOneLease(t *testing.T) {
	t.Parallel()
	w, i, proxy := worldOfTwo(t)
	proxy.Cut("transactions.begin", pgproxy.Answered)
	blind := proxy.Cut("transactions.holding", pgproxy.Asked)
	w.want(w.createOn(i, w.test, "nonce-1", w.body("order-1", nil)), http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE")
	blind.Wait(t)
	w.wantSends(0, 0)

	w.wantInProcess(w.create("nonce-1", w.body("order-1", nil)))
	w.shift("nonce-1", testLease)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	w.wantCharges("order-1", 1)
	w.wantSends(1, 1)
	w.wantTransaction("nonce-1", Succeeded, 2)
}

func TestH04BeginThatNeverArrivedClaimsNothing(t *testing.T) {
	t.Parallel()
	w, i, proxy := worldOfTwo(t)
	lost := proxy.Cut("transactions.begin", pgproxy.Asked)
	w.want(w.createOn(i, w.test, "nonce-1", w.body("order-1", nil)), http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE")
	lost.Wait(t)
	if n := w.transactionsOf("nonce-1"); n != 0 {
		t.Fatalf("%d transactions, want none", n)
	}
	w.want(w.createOn(i, w.test, "nonce-1", w.body("order-1", nil)), http.StatusCreated)
	w.wantCharges("order-1", 1)
	w.wantTransaction("nonce-1", Succeeded, 1)
}

// The read-back comes too early: the claim itself is still on its way.
func TestH04BeginThatArrivesAfterItWasGivenUpCostsOneLease(t *testing.T) {
	t.Parallel()
	w, i, proxy := worldOfTwo(t)
	late := proxy.Trap("transactions.begin", pgproxy.Asked)
	first := w.sendTo(i, "nonce-1", w.body("order-1", nil))
	late.Wait(t)
	late.Strand()
	w.want(receive(t, first, "the answer"), http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE")
	late.Pass()
	w.until("the late claim arrives", func() bool { return w.transactionsOf("nonce-1") == 1 })

	w.wantInProcess(w.create("nonce-1", w.body("order-1", nil)))
	w.shift("nonce-1", testLease)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	w.wantCharges("order-1", 1)
	w.wantSends(1, 1)
}

// The claim of one request arrives late, after a second request has made its own:
// the nonce is one, so only one of them is.
func TestH04LateBeginMeetsTheRetryThatOvertookIt(t *testing.T) {
	t.Parallel()
	w, i, proxy := worldOfTwo(t)
	late := proxy.Trap("transactions.begin", pgproxy.Asked)
	first := w.sendTo(i, "nonce-1", w.body("order-1", nil))
	late.Wait(t)
	late.Strand()
	w.want(receive(t, first, "the answer"), http.StatusServiceUnavailable)
	retry := w.create("nonce-1", w.body("order-1", nil))
	w.want(retry, http.StatusCreated)

	late.Pass()
	w.until("the late claim is executed", executed(proxy, "transactions.begin"))
	if n := w.transactionsOf("nonce-1"); n != 1 {
		t.Errorf("%d transactions, want 1", n)
	}
	w.wantReplay(retry, w.create("nonce-1", w.body("order-1", nil)), false)
	w.wantCharges("order-1", 1)
}

func TestH05SaveWhoseCommitWasNotConfirmedIsRepeatedToNoEffect(t *testing.T) {
	t.Parallel()
	for outcome, c := range map[string]struct {
		does    behaviour
		status  int
		charges int
		cause   string
		kept    bool
	}{
		"approved":    {approve, http.StatusCreated, 1, "provider", true},
		"declined":    {decline, http.StatusCreated, 0, "provider", true},
		"refused":     {refuse, http.StatusBadRequest, 0, "refused", false},
		"not reached": {notReached, http.StatusServiceUnavailable, 0, "not_reached", false},
	} {
		t.Run(outcome, func(t *testing.T) {
			t.Parallel()
			w, i, proxy := worldOfTwo(t)
			w.psp.next(c.does)
			// Lost twice, so that the repeated save is lost as well.
			first, second := proxy.Cut("transactions.finish", pgproxy.Answered), proxy.Cut("transactions.finish", pgproxy.Answered)
			told := w.createOn(i, w.test, "nonce-1", w.body("order-1", nil))
			first.Wait(t)
			second.Wait(t)
			w.want(told, c.status)
			w.wantSends(1, 1)
			w.wantCharges("order-1", c.charges)
			w.wantEvents("nonce-1", c.cause)
			w.wantObservations("nonce-1") // what is saved needs none
			if n := w.count(`SELECT count(*) FROM provider_calls`); n != 1 {
				t.Errorf("%d provider calls are kept, want 1", n)
			}
			again := w.create("nonce-1", w.body("order-1", nil))
			if c.kept {
				w.wantReplay(told, again, false)
				return
			}
			w.want(again, http.StatusCreated)
			if n := w.transactionsOf("nonce-1"); n != 2 {
				t.Errorf("%d lives, want the released one and its successor", n)
			}
		})
	}
}

func TestH05SaveThatNeverArrivedIsRepeated(t *testing.T) {
	t.Parallel()
	w, i, proxy := worldOfTwo(t)
	for range saveAttempts - 1 {
		proxy.Cut("transactions.finish", pgproxy.Asked)
	}
	first := w.createOn(i, w.test, "nonce-1", w.body("order-1", nil))
	w.want(first, http.StatusCreated)
	w.wantReplay(first, w.create("nonce-1", w.body("order-1", nil)), false)
	w.wantEvents("nonce-1", "provider")
	w.wantCharges("order-1", 1)
}

// A save that was taken for lost arrives after the repeated one, and in one case
// after its nonce lives again.
func TestH05SaveThatArrivesLateChangesNothing(t *testing.T) {
	t.Parallel()
	for outcome, c := range map[string]struct {
		does   behaviour
		status int
		events []string
	}{
		"approved": {approve, http.StatusCreated, []string{"provider"}},
		"refused":  {refuse, http.StatusBadRequest, []string{"provider"}}, // of the second life
	} {
		t.Run(outcome, func(t *testing.T) {
			t.Parallel()
			w, i, proxy := worldOfTwo(t)
			w.psp.next(c.does)
			late := proxy.Trap("transactions.finish", pgproxy.Asked)
			told := w.sendTo(i, "nonce-1", w.body("order-1", nil))
			late.Wait(t)
			late.Strand()
			w.want(receive(t, told, "the answer"), c.status)
			answer := w.create("nonce-1", w.body("order-1", nil))
			w.want(answer, http.StatusCreated)
			before := w.rows()

			late.Pass()
			w.until("the late save is executed", executed(proxy, "transactions.finish"))
			w.wantReplay(answer, w.create("nonce-1", w.body("order-1", nil)), false)
			w.wantEvents("nonce-1", c.events...)
			w.wantCharges("order-1", 1)
			after := w.rows()
			if fmt.Sprint(before) != fmt.Sprint(after) {
				t.Errorf("rows were %v and are %v", before, after)
			}
		})
	}
}

func TestH05LeavingWhoseCommitWasNotConfirmedIsRepeatedToNoEffect(t *testing.T) {
	t.Parallel()
	w, i, proxy := worldOfTwo(t)
	w.psp.next(chargeThenTimeout)
	lost := proxy.Cut("transactions.leave", pgproxy.Answered)
	w.want(w.createOn(i, w.test, "nonce-1", w.body("order-1", nil)), http.StatusGatewayTimeout, "REQUEST_TIMEOUT")
	lost.Wait(t)
	w.wantTransaction("nonce-1", Created, 1)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	w.wantCharges("order-1", 1)
	w.wantEvents("nonce-1", "provider")
}

func TestH06OutcomeThatCannotBeSavedIsAskedForAgain(t *testing.T) {
	t.Parallel()
	w, i, proxy := worldOfTwo(t)
	acted, letGo := w.holdAnswer(approve)
	first := w.sendTo(i, "nonce-1", w.body("order-1", nil))
	receive(t, acted, "the send")
	proxy.Down()
	letGo()
	w.want(receive(t, first, "the answer"), http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE")
	proxy.Up()

	w.wantTransaction("nonce-1", Created, 1)
	w.wantInProcess(w.createOn(i, w.test, "nonce-1", w.body("order-1", nil)))
	w.shift("nonce-1", testLease)
	w.want(w.createOn(i, w.test, "nonce-1", w.body("order-1", nil)), http.StatusCreated)
	w.wantTransaction("nonce-1", Succeeded, 2)
	w.wantCharges("order-1", 1)
	w.wantSends(1, 1)
	w.wantEvents("nonce-1", "provider")
}

// While the database is away, the log is the only place where the outcome of a charge
// is known. A provider that cannot be asked will never tell it again.
func TestH06OutcomeThatCannotBeSavedIsLoggedWithTheProvidersReference(t *testing.T) {
	t.Parallel()
	w, i, proxy := worldOfTwo(t)
	w.psp.be(silent)
	acted, letGo := w.holdAnswer(approve)
	first := w.sendTo(i, "nonce-1", w.body("order-1", nil))
	receive(t, acted, "the send")
	proxy.Down()
	letGo()
	w.want(receive(t, first, "the answer"), http.StatusServiceUnavailable)
	i.public.Close() // no request runs any more
	if want := "psp-" + w.transaction("nonce-1").ID.String(); !strings.Contains(i.logs.String(), want) {
		t.Errorf("nothing in the log says that the provider booked it as %s:\n%s", want, i.logs)
	}
}

// A migration, or somebody at a console, holds a lock for longer than a statement of
// ours waits for one. The database is there and says "not now", which is no reason to
// forget a charge that nobody can ask about again.
func TestH06SaveThatMeetsALockIsRepeated(t *testing.T) {
	t.Parallel()
	w, i, proxy := worldOfTwo(t)
	w.psp.be(silent)
	acted, letGo := w.holdAnswer(approve)
	first := w.sendTo(i, "nonce-1", w.body("order-1", nil))
	receive(t, acted, "the send")

	conn, err := pgx.Connect(t.Context(), pgtest.Direct(w.url))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if _, err := conn.Exec(t.Context(), `BEGIN; LOCK TABLE transactions IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	letGo()
	w.until("the save gives up waiting", func() bool {
		return slices.ContainsFunc(proxy.Rounds(), func(r pgproxy.Round) bool { return r.SQLState == "55P03" })
	})
	if _, err := conn.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	w.want(receive(t, first, "the answer"), http.StatusCreated)
	w.wantTransaction("nonce-1", Succeeded, 1)
	w.wantCharges("order-1", 1)
}

// dueAgain makes a nonce's transaction due for recovery, and its lease over.
func (w *world) dueAgain(nonce string) {
	w.t.Helper()
	w.sql(`UPDATE transactions SET next_attempt_at = clock_timestamp(), lease_until = least(lease_until, clock_timestamp())
		WHERE nonce = $1 AND lease_until IS NOT NULL`, nonce)
}

func TestH08RetryThatComesSecondIsToldToWait(t *testing.T) {
	t.Parallel()
	w, slow, proxy := worldOfTwo(t)
	w.lostAnswer("nonce-1", "order-1")
	w.dueAgain("nonce-1")

	beaten := proxy.Trap("transactions.take_over", pgproxy.Asked)
	retry := w.sendTo(slow, "nonce-1", w.body("order-1", nil))
	beaten.Wait(t)
	asked, letGo := w.holdInquiry()
	taken := w.recovering(w.instance)
	receive(t, asked, "recovery's inquiry")
	beaten.Pass()
	w.wantInProcess(receive(t, retry, "the retry"))

	letGo()
	if n := receive(t, taken, "recovery"); n != 1 {
		t.Errorf("recovery took %d, want 1", n)
	}
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	w.wantTransaction("nonce-1", Succeeded, 2)
	w.wantSends(1, 1)
	w.wantCharges("order-1", 1)
	if n := w.psp.inquiries(); n != 1 {
		t.Errorf("%d inquiries, want recovery's alone", n)
	}
}

func TestH08WorkerThatComesSecondTakesNothing(t *testing.T) {
	t.Parallel()
	w, slow, proxy := worldOfTwo(t)
	w.lostAnswer("nonce-1", "order-1")
	w.dueAgain("nonce-1")

	beaten := proxy.Trap("transactions.take_over", pgproxy.Asked)
	taken := w.recovering(slow)
	beaten.Wait(t)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	beaten.Pass()
	if n := receive(t, taken, "recovery"); n != 0 {
		t.Errorf("recovery took %d, want none", n)
	}
	w.wantTransaction("nonce-1", Succeeded, 2)
	w.wantEvents("nonce-1", "provider")
	if n := w.psp.inquiries(); n != 1 {
		t.Errorf("%d inquiries, want the retry's alone", n)
	}
}

func TestH08WorkersAndRetriesInAnyOrderSettleEachPaymentOnce(t *testing.T) {
	t.Parallel()
	const payments = 16
	w := newWorld(t)
	other := w.newInstance(w.db)
	w.steady()
	for n := range payments {
		w.psp.next(chargeThenTimeout)
		w.want(w.create(fmt.Sprint("nonce-", n), w.body(fmt.Sprint("order-", n), nil)), http.StatusGatewayTimeout)
		w.dueAgain(fmt.Sprint("nonce-", n))
	}
	workers := []<-chan int{w.recovering(w.instance), w.recovering(other)}
	retries := atOnce(2*payments, func(n int) (response, error) {
		return w.post([]instance{w.instance, other}[n%2], w.test, fmt.Sprint("nonce-", n/2), w.body(fmt.Sprint("order-", n/2), nil))
	})
	for range 2 * payments {
		if r := receive(t, retries, "a retry"); r.status != http.StatusCreated && r.status != http.StatusConflict {
			t.Errorf("a retry got %s", r)
		}
	}
	for _, taken := range workers {
		receive(t, taken, "a worker")
	}
	for n := range payments {
		w.want(w.create(fmt.Sprint("nonce-", n), w.body(fmt.Sprint("order-", n), nil)), http.StatusCreated)
		w.wantCharges(fmt.Sprint("order-", n), 1)
		w.wantTransaction(fmt.Sprint("nonce-", n), Succeeded, 2)
		w.wantEvents(fmt.Sprint("nonce-", n), "provider")
	}
	w.wantSends(payments, payments)
	if n := w.psp.inquiries(); n != payments {
		t.Errorf("%d inquiries for %d payments", n, payments)
	}
}

func TestH09TwoWorkersWithOneListWorkOnEachRowOnce(t *testing.T) {
	t.Parallel()
	const payments = 20
	w, slow, proxy := worldOfTwo(t)
	for n := range payments {
		w.psp.next(chargeThenTimeout)
		w.want(w.create(fmt.Sprint("nonce-", n), w.body(fmt.Sprint("order-", n), nil)), http.StatusGatewayTimeout)
		w.dueAgain(fmt.Sprint("nonce-", n))
	}
	read := proxy.Trap("transactions.due", pgproxy.Answered)
	second := w.recovering(slow)
	read.Wait(t) // it has the whole list
	if n := w.recoverOn(w.instance); n != payments {
		t.Fatalf("the first worker took %d, want %d", n, payments)
	}
	read.Pass()
	if n := receive(t, second, "the second worker"); n != 0 {
		t.Errorf("the second worker took %d, want none", n)
	}
	claims := 0
	for _, r := range proxy.Rounds() {
		if slices.Contains(r.Statements, "transactions.take_over") {
			claims++
		}
	}
	if claims != payments {
		t.Errorf("the second worker tried %d claims: its list was another one", claims)
	}
	if n := w.psp.inquiries(); n != payments {
		t.Errorf("%d inquiries for %d payments", n, payments)
	}
	if n := w.count(`SELECT count(*) FROM takeovers`); n != payments {
		t.Errorf("%d take-overs of %d payments", n, payments)
	}
	for n := range payments {
		w.wantTransaction(fmt.Sprint("nonce-", n), Succeeded, 2)
	}
}

func TestH09TwoWorkersAtOnceShareTheWork(t *testing.T) {
	t.Parallel()
	const payments = 40
	w := newWorld(t)
	other := w.newInstance(w.db)
	w.steady()
	for n := range payments {
		w.psp.next(chargeThenTimeout)
		w.want(w.create(fmt.Sprint("nonce-", n), w.body(fmt.Sprint("order-", n), nil)), http.StatusGatewayTimeout)
		w.dueAgain(fmt.Sprint("nonce-", n))
	}
	a, b := w.recovering(w.instance), w.recovering(other)
	if sum := receive(t, a, "one worker") + receive(t, b, "the other worker"); sum != payments {
		t.Errorf("together they took %d, want %d", sum, payments)
	}
	if n := w.psp.inquiries(); n != payments {
		t.Errorf("%d inquiries for %d payments", n, payments)
	}
	if n := w.count(`SELECT count(*) FROM transactions WHERE status = 'SUCCEEDED' AND fence = 2`); n != payments {
		t.Errorf("%d of %d payments were settled by one worker each", n, payments)
	}
}

// resolve is POST …/resolve on the first instance.
func (w *world) resolve(nonce, outcome string) response {
	w.t.Helper()
	return w.resolveOn(w.instance, nonce, outcome)
}

func (w *world) resolveOn(i instance, nonce, outcome string) response {
	w.t.Helper()
	return w.call(http.MethodPost, i.operator.URL+"/admin/v1/transactions/"+w.transaction(nonce).ID.String()+"/resolve",
		[]byte(`{"outcome":"`+outcome+`","provider_reference":"seen-by-a-person","reason":"called the provider"}`), "Authorization", "Bearer "+operatorToken)
}

// park brings an unresolved transaction to where a person must decide: recovery has
// asked as often as it does, and the provider has told nothing.
func (w *world) park(nonce string) {
	w.t.Helper()
	w.sql(`UPDATE transactions SET attempts = $2 - 1 WHERE nonce = $1`, nonce, maxAttempts)
	w.shift(nonce, 2*testLease) // past the proof moment
	w.dueAgain(nonce)
	w.psp.mute(1)
	if n := w.recoverOn(w.instance); n != 1 || w.transaction(nonce).ParkedAt == nil {
		w.t.Fatalf("recovery took %d and did not park", n)
	}
}

// wantParked fails the test unless r says that a person must look.
func (w *world) wantParked(r response) {
	w.t.Helper()
	w.want(r, http.StatusConflict, "REQUEST_IN_PROCESS")
	if got := r.header.Get("Retry-After"); got != "60" {
		w.t.Fatalf("Retry-After is %q, want 60", got)
	}
}

func TestH10AttemptsGrowApartAndParkNotBeforeTheProofMoment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	w.psp.be(notIdempotent)
	w.lostAnswer("nonce-1", "order-1")
	w.psp.mute(2 * maxAttempts)
	// The proof moment is far away, so that only the pauses decide.
	w.sql(`UPDATE transactions SET may_send_until = may_send_until + interval '1 hour'`)

	for attempt := range maxAttempts + 2 {
		w.dueAgain("nonce-1")
		if n := w.recoverOn(w.instance); n != 1 {
			t.Fatalf("attempt %d: recovery took %d, want 1", attempt+1, n)
		}
		tx := w.transaction("nonce-1")
		if tx.ParkedAt != nil || tx.Attempts != attempt+1 {
			t.Fatalf("attempt %d: parked at %v after %d attempts, and a charge could still arrive", attempt+1, tx.ParkedAt, tx.Attempts)
		}
		// Both were set by one statement: what lies between them is the pause.
		pause := w.at(`SELECT next_attempt_at FROM transactions`).Sub(*tx.LeaseUntil)
		want := min(firstPause<<min(attempt, 10), testLease)
		if pause < want || pause > want+100*time.Millisecond {
			t.Errorf("attempt %d: the pause is %s, want %s", attempt+1, pause, want)
		}
		if n := w.recoverOn(w.instance); n != 0 {
			t.Fatalf("attempt %d: asked again before the pause was over", attempt+1)
		}
	}
	w.sql(`UPDATE transactions SET may_send_until = clock_timestamp() - interval '10 seconds'`)
	w.dueAgain("nonce-1")
	w.recoverOn(w.instance)
	if w.transaction("nonce-1").ParkedAt == nil {
		t.Error("not parked after the last attempt and the proof moment")
	}
	w.wantCharges("order-1", 1)
	w.wantSends(1, 1)
}

func TestH10ParkedNonceWaitsForAPersonAndIsNeverPurged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	w.psp.be(notIdempotent)
	w.lostAnswer("nonce-1", "order-1")
	w.park("nonce-1")
	parked := w.transaction("nonce-1")
	if parked.Fence != 3 { // recovery's take-over, and the parking itself
		t.Errorf("parking left the fence at %d: whoever looked before could take it for unparked", parked.Fence)
	}
	if now, err := w.service.Backlog(t.Context()); err != nil || now.Parked != 1 || now.Unresolved != 0 {
		t.Errorf("an operator is told of %+v (%v), want one parked", now, err)
	}

	w.wantParked(w.create("nonce-1", w.body("order-1", nil)))
	w.wantParked(w.create("nonce-1", w.body("order-1", map[string]any{"description": "another one"})))
	if state := w.onlyLife("nonce-1").KeyState; state != KeyParked {
		t.Errorf("the key is %s, want parked", state)
	}

	asked := w.psp.inquiries()
	if n := w.recoverOn(w.instance); n != 0 || w.psp.inquiries() != asked {
		t.Error("asked about at once, want an hour later")
	}
	w.psp.mute(1)
	w.shift("nonce-1", time.Hour)
	if n := w.recoverOn(w.instance); n != 1 || w.psp.inquiries() != asked+1 {
		t.Errorf("an hour later recovery took %d, want 1", n)
	}
	if tx := w.wantTransaction("nonce-1", Created, 4); tx.ParkedAt == nil || !tx.ParkedAt.Equal(*parked.ParkedAt) {
		t.Errorf("parked since %v, and after one more question since %v", parked.ParkedAt, tx.ParkedAt)
	}

	w.shift("nonce-1", 48*time.Hour)
	w.purge()
	if n := w.count(`SELECT count(*) FROM idempotency_keys WHERE key_id = 'nonce-1'`); n != 1 {
		t.Fatal("the purge took the record of a parked nonce")
	}
	w.wantParked(w.create("nonce-1", w.body("order-1", nil)))
	w.wantCharges("order-1", 1)
	w.wantSends(1, 1)
}

func TestH10ParkedTransactionEndsWhenTheProviderAnswersAtLast(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	w.psp.be(notIdempotent)
	w.lostAnswer("nonce-1", "order-1")
	w.park("nonce-1")
	w.shift("nonce-1", time.Hour)
	if n := w.recoverOn(w.instance); n != 1 {
		t.Fatalf("recovery took %d, want 1", n)
	}
	if tx := w.transaction("nonce-1"); tx.Status != Succeeded || tx.ParkedAt != nil {
		t.Errorf("the transaction is %s, parked at %v", tx.Status, tx.ParkedAt)
	}
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	w.wantEvents("nonce-1", "provider")
}

func TestH10ResolveEndsAParkedTransaction(t *testing.T) {
	t.Parallel()
	for kind, trait := range map[string]func(*providers.Traits){"a provider that does not answer": notIdempotent, "a provider that cannot be asked": silent} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.steady()
			w.psp.be(trait)
			w.lostAnswer("booked", "order-1")
			w.psp.next(timeout)
			w.want(w.create("lost", w.body("order-2", nil)), http.StatusGatewayTimeout)
			for _, nonce := range []string{"booked", "lost"} {
				w.park(nonce)
			}
			w.psp.mute(1) // for the judgement of failed

			w.want(w.resolve("booked", "succeeded"), http.StatusOK)
			w.want(w.resolve("lost", "failed"), http.StatusOK)
			if now, err := w.service.Backlog(t.Context()); err != nil || now.Parked+now.Unresolved != 0 {
				t.Errorf("an operator is told of %+v (%v), want nothing left", now, err)
			}
			w.wantEvents("booked", "resolved")
			w.wantEvents("lost", "resolved")
			if tx := w.transaction("booked"); tx.Status != Succeeded || tx.ProviderReference != "seen-by-a-person" {
				t.Errorf("resolved as succeeded it is %s with reference %q", tx.Status, tx.ProviderReference)
			}
			if tx := w.transaction("lost"); tx.Status != Errored || !tx.Released {
				t.Errorf("resolved as failed it is %s, released %t", tx.Status, tx.Released)
			}
			if n := w.count(`SELECT count(*) FROM resolutions`); n != 2 {
				t.Errorf("%d resolutions are kept, want 2", n)
			}
			w.wantResolved("booked", map[string]string{"outcome": "succeeded", "status": "SUCCEEDED", "provider_reference": "seen-by-a-person"})
			w.wantResolved("lost", map[string]string{"outcome": "failed", "status": "ERROR", "provider_reference": "seen-by-a-person"})
			w.want(w.resolve("booked", "failed"), http.StatusConflict, "INVALID_STATE")

			replay := w.create("booked", w.body("order-1", nil))
			w.want(replay, http.StatusCreated)
			if replay.header.Get(headerReplayed) != "true" || replay.get("status") != "SUCCEEDED" {
				t.Errorf("the decision was not replayed: %s", replay)
			}
			w.want(w.create("lost", w.body("order-2", nil)), http.StatusCreated) // another life
			w.wantCharges("order-1", 1)
			w.wantCharges("order-2", 1)
		})
	}
}

// The gate says who asks, and a decision is written down as theirs.
func TestDecisionIsInTheAuditLogAsThatOfWhoMadeIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	w.psp.be(silent)
	w.lostAnswer("nonce-1", "order-1")
	w.park("nonce-1")
	ada := audit.Actor{Kind: audit.KindOperator, ID: "1", Name: "ada", Address: "192.0.2.7", RequestID: "request-1"}
	tx := w.transaction("nonce-1")
	if _, err := w.service.Resolve(audit.By(t.Context(), ada), tx.ID, Decision{Succeeded: true, Reason: "seen", RequestID: "request-1"}); err != nil {
		t.Fatal(err)
	}
	p, err := audit.Log{DB: w.db}.Page(t.Context(), audit.Filter{Actor: "ada"}, 0, 0)
	if err != nil || len(p.Records) != 1 || p.Records[0].Actor != ada || p.Records[0].Target != "transaction/"+tx.ID.String() {
		t.Errorf("ada's entries are %+v (%v)", p.Records, err)
	}
	if r, err := (audit.Log{DB: w.db}).Verify(t.Context(), audit.VerifyOptions{}); err != nil || r.Broken != nil {
		t.Errorf("the audit log is broken at %+v (%v)", r.Broken, err)
	}
}

// wantResolved fails the test unless the audit log has the decision about a nonce, once.
func (w *world) wantResolved(nonce string, details map[string]string) {
	w.t.Helper()
	tx := w.transaction(nonce)
	p, err := audit.Log{DB: w.db}.Page(w.t.Context(), audit.Filter{Target: "transaction/" + tx.ID.String()}, 0, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	details["reason"], details["nonce"], details["payment_id"], details["status_before"] = "called the provider", nonce, tx.PaymentID.String(), "CREATED"
	if len(p.Records) != 1 || p.Records[0].Action != "transaction.resolved" || p.Records[0].AccountID != tx.AccountID ||
		p.Records[0].Actor.Kind != audit.KindAdminToken || !maps.Equal(p.Records[0].Details, details) {
		w.t.Errorf("the audit log says %+v, want one decision with %q", p.Records, details)
	}
}

// The merchant left a provider, or an operator took it out of the configuration;
// what is unresolved there can only be ended by a person.
func TestH10ResolveEndsATransactionWhoseProviderIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	w.psp.be(silent)
	w.lostAnswer("nonce-1", "order-1")
	w.park("nonce-1")
	w.sql(`UPDATE transactions SET provider = 'LEFT_BEHIND_PSP'`)
	w.want(w.resolve("nonce-1", "succeeded"), http.StatusOK)
	w.wantTransaction("nonce-1", Succeeded, w.transaction("nonce-1").Fence)
}

// A payment that the provider has accepted is polled, and each poll sets its lease
// to the next one. That is nobody's work in progress: a person may end it.
func TestH10ResolveEndsATransactionThatIsPendingAtTheProvider(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	w.psp.next(accept)
	first := w.create("nonce-1", w.body("order-1", nil))
	w.want(first, http.StatusCreated)
	w.wantTransaction("nonce-1", Pending, 1)
	if now, err := w.service.Backlog(t.Context()); err != nil || now != (Backlog{}) {
		t.Errorf("an operator is told of %+v (%v), and nobody waits for us", now, err)
	}
	w.want(w.resolve("nonce-1", "succeeded"), http.StatusOK)
	if status := w.transaction("nonce-1").Status; status != Succeeded {
		t.Errorf("the transaction is %s", status)
	}
	w.wantReplay(first, w.create("nonce-1", w.body("order-1", nil)), false)
}

// accept takes a charge and leaves its outcome for later.
func accept(context.Context, *psp, providers.Charge) providers.Result {
	return providers.Result{Outcome: providers.Pending, ProviderReference: "psp-pending"}
}

func TestH11PastTheProvidersWindowOneOnlyAsks(t *testing.T) {
	t.Parallel()
	const window = 10 * time.Minute
	for _, c := range []struct {
		name  string
		age   time.Duration
		sends int
	}{
		// The window ends early by what a send may still take: time-out and settling.
		{"well within the window", time.Minute, 2},
		{"when it could close before the send arrives", window - 6*time.Second, 1},
		{"past the window", window + time.Minute, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.steady()
			w.psp.be(func(t *providers.Traits) { t.IdempotentFor, t.CanVoid = window, false })
			w.lostAnswer("nonce-1", "order-1")
			raised := w.transaction("nonce-1").MaySendUntil.Add(-c.age)
			w.shift("nonce-1", c.age)
			w.psp.asked(func() (providers.Result, bool) {
				// It has forgotten, or does not know yet.
				return providers.Result{Outcome: providers.NotFound}, true
			})
			r := w.create("nonce-1", w.body("order-1", nil))
			if n := w.psp.sent(); n != c.sends {
				t.Fatalf("%d sends, want %d (the answer was %s)", n, c.sends, r)
			}
			if still := w.transaction("nonce-1").MaySendUntil; c.sends == 1 && !still.Equal(raised) {
				t.Errorf("whoever only asks raised may_send_until from %s to %s", raised, still)
			}
		})
	}
}

func TestH11PastTheWindowOfAProviderThatCannotBeAskedNothingIsSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	w.psp.be(func(t *providers.Traits) { t.IdempotentFor, t.Queryable, t.CanVoid = 10*time.Minute, false, false })
	w.lostAnswer("nonce-1", "order-1")
	w.shift("nonce-1", 11*time.Minute)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusBadGateway, "PROVIDER_ERROR")
	w.wantSends(1, 1)
	w.wantTransaction("nonce-1", Created, 2)
	w.wantCharges("order-1", 1)
}

// The window was judged when the nonce was read, and the send came later: up to most
// of a lease may lie between. By then this provider has forgotten the reference, and
// books it as a charge it has never seen.
func TestH11ResendThatIsHeldUpUntilTheWindowClosesIsNotSent(t *testing.T) {
	t.Parallel()
	const window, left = 10 * time.Minute, 3 * time.Second
	w, i, proxy := worldOfTwo(t)
	w.psp.be(func(t *providers.Traits) {
		t.IdempotentFor, t.Queryable, t.CanVoid, t.Timeout, t.Settle = window, false, false, 100*time.Millisecond, 100*time.Millisecond
	})
	w.lostAnswer("nonce-1", "order-1")
	w.shift("nonce-1", window-200*time.Millisecond-left)

	heldUp := proxy.Trap("transactions.observations", pgproxy.Answered)
	retry := w.sendTo(i, "nonce-1", w.body("order-1", nil))
	heldUp.Wait(t)
	if w.count(`SELECT count(*) FROM transactions WHERE may_send_until > clock_timestamp()`) != 1 {
		t.Fatal("the retry was not allowed to resend when it began, so it proves nothing")
	}
	w.until("the window is over", func() bool {
		return w.count(`SELECT count(*) FROM transactions WHERE created_at <= clock_timestamp() - $1::bigint * interval '1 microsecond'`, window.Microseconds()) == 1
	})
	w.psp.be(func(t *providers.Traits) { t.Idempotent = false }) // it forgets
	heldUp.Pass()
	receive(t, retry, "the retry")
	w.wantCharges("order-1", 1)
	w.wantSends(1, 1)
}
