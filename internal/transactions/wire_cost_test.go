package transactions

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/pgtest/pgproxy"
	"github.com/oncepay/oncepay/internal/postgres"
)

// What a request costs at the database, counted on the wire: round trips, commits
// and connections.

// metered is an instance with one connection, whose statements are prepared already,
// so that what its proxy counts is what a request costs on a busy server.
func (w *world) metered() (instance, *pgproxy.Proxy) {
	w.t.Helper()
	proxy := pgproxy.New(w.t, w.url)
	db, err := postgres.Open(w.t.Context(), proxy.URL(), pgtest.Options(proxy.URL(), postgres.Options{MaxConns: 1}))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(db.Close)
	i := w.newInstance(db)
	w.steady()
	w.psp.next(approve, timeout)
	for n, status := range []int{http.StatusCreated, http.StatusGatewayTimeout} { // finish, and leave
		nonce, body := fmt.Sprint("warm-up-", n), w.body(fmt.Sprint("warm-up-order-", n), nil)
		w.want(w.createOn(i, w.test, nonce, body), status)
		w.want(w.createOn(i, w.test, nonce, body), http.StatusCreated) // replayed, and resumed
	}
	proxy.Reset()
	return i, proxy
}

// wantRounds fails the test unless exactly these statements were executed, each in a
// round trip of its own and each its own transaction; and forgets them.
func (w *world) wantRounds(proxy *pgproxy.Proxy, what string, statements ...string) {
	w.t.Helper()
	var got []string
	for _, r := range proxy.Rounds() {
		got = append(got, strings.Join(slices.Concat(r.Statements, r.Prepared), "+"))
		if r.InTransaction || r.SQLState != "" || !r.Done {
			w.t.Errorf("%s: %v ended with a transaction open (%t) or an error (%q)", what, r.Statements, r.InTransaction, r.SQLState)
		}
	}
	if !slices.Equal(got, statements) {
		w.t.Errorf("%s costs the round trips %q, want %q", what, got, statements)
	}
	proxy.Reset()
}

// writers are the database transactions that wrote the present rows of a nonce: one
// commit each.
func (w *world) writers(nonce string) []string {
	w.t.Helper()
	var ids []string
	err := w.db.Conn(w.t.Context()).Raw(`WITH tx AS (SELECT * FROM transactions WHERE nonce = $1)
		SELECT DISTINCT writer FROM (
			SELECT xmin::text AS writer FROM transactions WHERE nonce = $1
			UNION ALL SELECT k.xmin::text FROM idempotency_keys k WHERE k.key_id = $1
			UNION ALL SELECT p.xmin::text FROM payments p, tx WHERE p.id = tx.payment_id
			UNION ALL SELECT e.xmin::text FROM events e, tx WHERE e.transaction_id = tx.id
			UNION ALL SELECT c.xmin::text FROM provider_calls c, tx WHERE c.transaction_id = tx.id) rows`, nonce).Scan(&ids).Error
	if err != nil {
		w.t.Fatal(err)
	}
	return ids
}

func TestCostOfANewPaymentIsTwoRoundTripsAndTwoCommits(t *testing.T) {
	t.Parallel()
	for outcome, c := range map[string]struct {
		does   behaviour
		status int
		saved  string
	}{
		"approved":    {approve, http.StatusCreated, "transactions.finish"},
		"declined":    {decline, http.StatusCreated, "transactions.finish"},
		"pending":     {accept, http.StatusCreated, "transactions.finish"},
		"refused":     {refuse, http.StatusBadRequest, "transactions.finish"},
		"not reached": {notReached, http.StatusServiceUnavailable, "transactions.finish"},
		"unclear":     {timeout, http.StatusGatewayTimeout, "transactions.leave"},
	} {
		t.Run(outcome, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			i, proxy := w.metered()
			acted, letGo := w.holdAnswer(c.does)
			answer := w.sendTo(i, "nonce-1", w.body("order-1", nil))
			receive(t, acted, "the send")
			began := w.writers("nonce-1")
			w.wantRounds(proxy, "until the send, a new payment", "transactions.begin")
			if len(began) != 1 {
				t.Errorf("the claim took the commits %v, want one", began)
			}
			letGo()
			w.want(receive(t, answer, "the answer"), c.status)
			w.wantRounds(proxy, "after the send, a new payment", c.saved)
			ended := slices.DeleteFunc(w.writers("nonce-1"), func(id string) bool { return id == began[0] })
			if len(ended) != 1 {
				t.Errorf("the end took the commits %v, want one", ended)
			}
		})
	}
}

func TestCostOfAnAnswerThatIsThereIsTwoRoundTripsAtMost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i, proxy := w.metered()
	w.want(w.createOn(i, w.test, "answered", w.body("order-1", nil)), http.StatusCreated)
	proxy.Reset()

	w.want(w.createOn(i, w.test, "answered", w.body("order-1", nil)), http.StatusCreated)
	w.wantRounds(proxy, "a replay", "transactions.begin", "transactions.read_key")
	w.want(w.createOn(i, w.test, "answered", w.body("order-1", map[string]any{"amount": json.Number("99")})), http.StatusCreated)
	w.wantRounds(proxy, "a replay to another body", "transactions.begin", "transactions.read_key")
	w.want(w.createOn(i, w.test, "answered", w.body("order-1", map[string]any{"country": nil})), http.StatusCreated)
	w.wantRounds(proxy, "a replay to an invalid body", "transactions.read_key")

	acted, letGo := w.holdAnswer(approve)
	first := w.sendTo(i, "in-flight", w.body("order-2", nil))
	receive(t, acted, "the send")
	proxy.Reset()
	w.wantInProcess(w.createOn(i, w.test, "in-flight", w.body("order-2", nil)))
	w.wantRounds(proxy, "a 409", "transactions.begin", "transactions.read_key")
	letGo()
	w.want(receive(t, first, "the answer"), http.StatusCreated)
	proxy.Reset()

	w.want(w.createOn(i, w.test, "never-begun", w.body("order-3", map[string]any{"country": nil})), http.StatusBadRequest)
	w.wantRounds(proxy, "an invalid request", "transactions.read_key")
	w.want(w.call(http.MethodPost, i.public.URL+"/v1/payments", w.body("order-3", nil), keys(w.test)...), http.StatusBadRequest)
	w.wantRounds(proxy, "a request without a nonce")
	w.want(w.call(http.MethodGet, i.public.URL+"/v1/payments/none", nil, "public-api-key", "unknown", "private-secret-key", "unknown"), http.StatusUnauthorized)
	w.wantRounds(proxy, "a caller who is not known")
}

// rounds are what was asked in each round trip since the last look, and forgets them. A
// database transaction of several statements begins with begin …, and ends with commit.
func (w *world) rounds(proxy *pgproxy.Proxy) (names []string) {
	w.t.Helper()
	open := false
	for _, r := range proxy.Rounds() {
		names = append(names, strings.Join(slices.Concat(r.Statements, r.Prepared), "+"))
		if r.SQLState != "" || !r.Done {
			w.t.Errorf("%v ended with an error (%q)", r.Statements, r.SQLState)
		}
		open = r.InTransaction
	}
	if open {
		w.t.Errorf("after %q a database transaction is open", names)
	}
	proxy.Reset()
	return names
}

// The same ends every action: the payment is locked, so that two of them at once are
// worked out one after the other.
var endOfAnAction = []string{"begin isolation level read committed", "transactions.lock_payment", "transactions.under_way", "transactions.finish", "commit"}

// An action costs more than a payment: what it is about has to be read first. Its claim
// and its end are one commit each, as a payment's.
func TestCostOfAnActionIsKnown(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		deed  func(w *world, order string) deed
		reads []string // before the claim
	}{
		"capture": {
			func(w *world, order string) deed { return w.held(order, "100").capture("40") },
			[]string{"transactions.read_key", "transactions.payment", "transactions.one", "transactions.authorization_over"},
		},
		"cancel": {
			func(w *world, order string) deed { return w.held(order, "100").cancel() },
			[]string{"transactions.read_key", "transactions.payment", "transactions.one"},
		},
		"refund": {
			func(w *world, order string) deed { return w.sold(order, "100").refund("40") },
			[]string{"transactions.read_key", "transactions.payment", "transactions.one"},
		},
		"cancel-or-refund of a payment": {
			func(w *world, order string) deed { return w.sold(order, "100").reverse("", "40") },
			[]string{"transactions.read_key", "transactions.payment", "transactions.actionable"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			i, proxy := w.metered()
			first := w.actOn(i, "warm-up", c.deed(w, "warm-up")) // its statements are prepared from now on
			d := c.deed(w, "order-1")
			proxy.Reset()

			acted, letGo := w.holdOperation(operateAsUsual)
			answer := w.acting(i, "nonce-1", d)
			receive(t, acted, "the send")
			if got, want := w.rounds(proxy), append(slices.Clone(c.reads), "transactions.begin_action"); !slices.Equal(got, want) {
				t.Errorf("until the send it costs %q, want %q", got, want)
			}
			began := w.writers("nonce-1")
			if len(began) != 1 {
				t.Errorf("the claim took the commits %v, want one", began)
			}
			again := w.actOn(i, "nonce-1", d)
			w.wantInProcess(again)
			w.wantRounds(proxy, "a 409", "transactions.read_key")

			letGo()
			done := receive(t, answer, "the answer")
			w.want(done, first.status)
			if got := w.rounds(proxy); !slices.Equal(got, endOfAnAction) {
				t.Errorf("after the send it costs %q, want %q", got, endOfAnAction)
			}
			ended := slices.DeleteFunc(w.writers("nonce-1"), func(id string) bool { return id == began[0] })
			if len(ended) != 1 {
				t.Errorf("the end took the commits %v, want one", ended)
			}

			w.wantReplay(done, w.actOn(i, "nonce-1", d), false)
			w.wantRounds(proxy, "a replay", "transactions.read_key")
			w.wantReplay(done, w.actOn(i, "nonce-1", d.differently()), true)
			w.wantRounds(proxy, "a replay to another body", "transactions.read_key")
		})
	}
}

// What the payment does not allow costs a second look at the nonce: it may be this very
// request, sent twice, that stands in its own way.
func TestCostOfARefusedActionIsKnown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i, proxy := w.metered()
	s := w.sold("order-1", "100")
	w.want(w.actOn(i, "warm-up", s.refund("101")), http.StatusBadRequest, "INVALID_AMOUNT")
	proxy.Reset()
	w.want(w.actOn(i, "nonce-1", s.refund("101")), http.StatusBadRequest, "INVALID_AMOUNT")
	w.wantRounds(proxy, "a refusal", "transactions.read_key", "transactions.payment", "transactions.one", "transactions.read_key")
}

// A resume is rare, so it may cost more; but not without anybody noticing.
func TestCostOfAResumeIsKnown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i, proxy := w.metered()
	w.lostAnswer("nonce-1", "order-1")
	w.want(w.createOn(i, w.test, "nonce-1", w.body("order-1", nil)), http.StatusCreated)
	w.wantRounds(proxy, "a resume", "transactions.begin", "transactions.read_key",
		"transactions.take_over", "transactions.payment", "transactions.observations", "transactions.finish")
}

// statements remembers what was last executed under each name.
type statements struct {
	mu   sync.Mutex
	last map[string]pgx.TraceQueryStartData
}

// TraceQueryStart is called with every statement before it is sent.
func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	name, _, _ := strings.Cut(strings.TrimPrefix(d.SQL, "/* "), " */")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last[name] = d
	return ctx
}

// TraceQueryEnd is of no interest.
func (*statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// wal executes a statement again, with the parameters it had, and returns how many
// records it wrote to the write-ahead log.
func (s *statements) wal(t *testing.T, conn *pgx.Conn, name string) (records int) {
	t.Helper()
	s.mu.Lock()
	d, ok := s.last[name]
	s.mu.Unlock()
	if !ok {
		t.Fatalf("%s was not executed", name)
	}
	var plan string
	if err := conn.QueryRow(t.Context(), `EXPLAIN (ANALYZE, WAL, FORMAT JSON) `+d.SQL, d.Args...).Scan(&plan); err != nil {
		t.Fatal(err)
	}
	var nodes func(v any)
	nodes = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if n, ok := v["WAL Records"].(float64); ok {
				records += int(n)
			}
			for _, child := range v {
				nodes(child)
			}
		case []any:
			for _, child := range v {
				nodes(child)
			}
		}
	}
	var tree any
	if err := json.Unmarshal([]byte(plan), &tree); err != nil {
		t.Fatal(err)
	}
	nodes(tree)
	return records
}

func TestH62ReplayAndInProcessWriteNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	seen := &statements{last: map[string]pgx.TraceQueryStartData{}}
	db, err := postgres.Open(t.Context(), w.url, pgtest.Options(w.url, postgres.Options{Tracer: seen}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	i := w.newInstance(db)
	w.steady()
	conn, err := pgx.Connect(t.Context(), pgtest.Direct(w.url))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })

	wantNothingWritten := func(what string) {
		t.Helper()
		for _, name := range []string{"transactions.begin", "transactions.read_key"} {
			// Whoever comes to a page first may have to prune what an update has left there:
			// that is the update's cost, and paid once.
			if n := seen.wal(t, conn, name); n != 0 {
				if n = seen.wal(t, conn, name); n != 0 {
					t.Errorf("%s: %s wrote %d records, and not for once", what, name, n)
				}
			}
		}
	}
	acted, letGo := w.holdAnswer(approve)
	first := w.sendTo(i, "nonce-1", w.body("order-1", nil))
	receive(t, acted, "the send")
	w.wantInProcess(w.createOn(i, w.test, "nonce-1", w.body("order-1", nil)))
	wantNothingWritten("a 409")
	letGo()
	answer := receive(t, first, "the answer")
	w.wantReplay(answer, w.createOn(i, w.test, "nonce-1", w.body("order-1", nil)), false)
	wantNothingWritten("a replay")

	// The same statement does write when it claims: so the zeros above mean something.
	w.sql(`DELETE FROM idempotency_keys`)
	if seen.wal(t, conn, "transactions.begin") == 0 {
		t.Error("a claim wrote nothing either")
	}
}

// A replay and a 409 of an action only look. Where two claims of one nonce meet, the
// second writes nothing either, and reserves nothing.
func TestH62ReplayAndInProcessOfAnActionWriteNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	seen := &statements{last: map[string]pgx.TraceQueryStartData{}}
	db, err := postgres.Open(t.Context(), w.url, pgtest.Options(w.url, postgres.Options{Tracer: seen}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	i := w.newInstance(db)
	conn, err := pgx.Connect(t.Context(), pgtest.Direct(w.url))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	for what, d := range map[string]deed{
		"capture": w.held("order-1", "100").capture("40"), "cancel": w.held("order-2", "100").cancel(), "refund": w.sold("order-3", "100").refund("40"),
	} {
		wantNothingWritten := func(when string) {
			t.Helper()
			for _, name := range []string{"transactions.read_key", "transactions.begin_action"} {
				if n := seen.wal(t, conn, name); n != 0 {
					if n = seen.wal(t, conn, name); n != 0 { // see above
						t.Errorf("%s of a %s: %s wrote %d records, and not for once", when, what, name, n)
					}
				}
			}
		}
		acted, letGo := w.holdOperation(operateAsUsual)
		first := w.acting(i, "nonce-"+what, d)
		receive(t, acted, "the send")
		w.wantInProcess(w.actOn(i, "nonce-"+what, d))
		wantNothingWritten("a 409")
		letGo()
		answer := receive(t, first, "the answer")
		w.wantReplay(answer, w.actOn(i, "nonce-"+what, d), false)
		wantNothingWritten("a replay")
	}
	w.wantBalanced()
}

func TestH61PoolOfTwoServes60PaymentsInFlight(t *testing.T) {
	t.Parallel()
	const payments = 60
	w := newWorld(t)
	proxy := pgproxy.New(t, w.url)
	db, err := postgres.Open(t.Context(), proxy.URL(), pgtest.Options(proxy.URL(), postgres.Options{MaxConns: 2}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	i := w.newInstance(db)
	w.steady()

	arrived, gate := make(chan struct{}, payments), make(chan struct{})
	letGo := sync.OnceFunc(func() { close(gate) })
	t.Cleanup(letGo)
	for range payments {
		w.psp.next(waiting(arrived, gate, approve))
	}
	first := atOnce(payments, func(n int) (response, error) {
		return w.post(i, w.test, fmt.Sprint("nonce-", n), w.body(fmt.Sprint("order-", n), nil))
	})
	for range payments {
		receive(t, arrived, "a send")
	}
	// All of them are at the provider, and both connections are free.
	for _, r := range proxy.Rounds() {
		if !r.Done || r.InTransaction {
			t.Errorf("%v: answered %t, transaction open %t", r.Statements, r.Done, r.InTransaction)
		}
	}
	duplicates := atOnce(payments, func(n int) (response, error) {
		return w.post(i, w.test, fmt.Sprint("nonce-", n), w.body(fmt.Sprint("order-", n), nil))
	})
	for range payments {
		w.wantInProcess(receive(t, duplicates, "a duplicate"))
	}
	w.want(w.createOn(i, w.test, "another", w.body("another-order", nil)), http.StatusCreated)
	letGo()
	for range payments {
		w.want(receive(t, first, "an answer"), http.StatusCreated)
	}
	for n := range payments {
		w.wantCharges(fmt.Sprint("order-", n), 1)
	}
	w.wantSends(payments+1, payments+1)
}
