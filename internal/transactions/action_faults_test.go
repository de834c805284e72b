package transactions

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/postgres"
)

// The database fails at one statement, wherever in the life of a capture, a cancellation
// or a refund it is, as it does in database_faults_test.go in the life of a payment.

// actionScenes are what becomes of actions. Each has payments and nonces of its own.
var actionScenes = []func(l *errand){
	(*errand).performed,
	(*errand).performedUnclearly,
	(*errand).performedAndRecovered,
	(*errand).performedByAZombie,
	(*errand).performedByAPerson,
	(*errand).performedLater,
	(*errand).notPerformed,
	(*errand).notPossible,
}

// errand is a lifetime of actions.
type errand struct {
	*lifetime
	kind Route
	done map[string]deed // what was asked for, by the names that first has
}

// each does something with the errand's deed.
func (l *errand) each(scene string, f func(what string, d deed)) {
	order := "order-" + l.nonce(scene)
	switch l.kind {
	case RouteCapture:
		l.done[scene] = l.w.held(order, "100").capture("60")
	case RouteCancel:
		l.done[scene] = l.w.held(order, "100").cancel()
	default:
		l.done[scene] = l.w.sold(order, "100").refund("60")
	}
	f(scene, l.done[scene])
}

// operates replaces what the provider does next with operations.
func (l *errand) operates(os ...operating) {
	l.w.psp.mu.Lock()
	defer l.w.psp.mu.Unlock()
	l.w.psp.onOperate, l.w.psp.onAsk = os, nil
}

// perform asks for a deed until it is answered, as pay does.
func (l *errand) perform(what string, d deed) response {
	l.w.t.Helper()
	var r response
	for range patienceOfClients {
		if r = l.ask(what, d); r.status == http.StatusOK {
			if known, ok := l.first[what]; ok && r.header.Get(headerReplayed) == "true" && !bytes.Equal(r.body, known.body) {
				l.w.t.Fatalf("%s: another answer than the first:\n%s\n%s", what, known, r)
			}
			return r
		}
		if r.status == http.StatusConflict {
			l.w.shift(l.nonce(what), testLease)
		}
	}
	l.w.t.Fatalf("%s: not answered after %d requests, the last with %s", what, patienceOfClients, r)
	return r
}

// ask asks for a deed once.
func (l *errand) ask(what string, d deed) response {
	l.w.t.Helper()
	r := l.w.actOn(l.i, l.nonce(what), d)
	if r.status != http.StatusOK && (r.status < http.StatusInternalServerError && r.status != http.StatusConflict || r.header.Get("Retry-After") == "") {
		l.w.t.Fatalf("%s: got %s, which is no invitation to come back", what, r)
	}
	return r
}

// askedFor asks for a deed until there is a transaction of it, and no longer.
func (l *errand) askedFor(what string, d deed) {
	l.w.t.Helper()
	for range patienceOfClients {
		l.ask(what, d)
		if l.w.count(`SELECT count(*) FROM transactions WHERE nonce = $1`, l.nonce(what)) > 0 {
			return
		}
	}
	l.w.t.Fatalf("%s: not begun after %d requests", what, patienceOfClients)
}

// recoversFully lets recovery work until nothing of the nonce is left to do.
func (l *errand) recoversFully(what string) {
	l.w.t.Helper()
	for round := 0; l.unresolved(what); round++ {
		if round == patienceOfClients {
			l.w.t.Fatalf("%s: recovery has not settled it in %d rounds", what, round)
		}
		if round > 1 {
			l.w.shift(l.nonce(what), 2*testLease)
		}
		l.w.dueAgain(l.nonce(what))
		_, _ = l.i.service.Recover(l.w.t.Context()) // the next round tries again
	}
}

func (l *errand) performed() {
	l.operates()
	l.each("performed", func(what string, d deed) {
		l.first[what] = l.perform(what, d)
		l.perform(what, d)
	})
}

func (l *errand) performedUnclearly() {
	l.each("unclearly", func(what string, d deed) {
		l.operates(operateThenTimeout)
		l.first[what] = l.perform(what, d)
	})
}

func (l *errand) performedAndRecovered() {
	l.each("recovered", func(what string, d deed) {
		l.operates(operateThenTimeout)
		l.askedFor(what, d)
		l.recoversFully(what)
		l.operates()
		l.first[what] = l.perform(what, d)
	})
}

// performedByAZombie is finished by another instance while its holder waits.
func (l *errand) performedByAZombie() {
	w := l.w
	w.t.Helper()
	l.each("zombie", func(what string, d deed) {
		l.operates()
		acted, letGo := w.holdOperation(operateAsUsual)
		answer := w.acting(l.i, l.nonce(what), d)
		select {
		case <-acted:
			w.shift(l.nonce(what), testLease)
			w.dueAgain(l.nonce(what))
			w.recoverOn(w.instance)
			letGo()
			receive(w.t, answer, "the answer of who was fenced out")
		case <-answer: // the fault was at its begin
			l.operates()
		case <-time.After(soon):
			w.t.Fatal("neither sent nor answered")
		}
		l.first[what] = l.perform(what, d)
	})
}

// performedByAPerson is ended by a person, who knows what the provider did.
func (l *errand) performedByAPerson() {
	w := l.w
	w.t.Helper()
	l.each("person", func(what string, d deed) {
		l.operates(operateThenTimeout)
		l.askedFor(what, d)
		l.operates()
		if !l.unresolved(what) {
			l.first[what] = l.perform(what, d)
			return
		}
		w.park(l.nonce(what))
		w.psp.operate(operationOf(w.transaction(l.nonce(what)))) // if the fault was before its send
		for range patienceOfClients {
			if r := w.resolveOn(l.i, l.nonce(what), "succeeded"); r.status < http.StatusInternalServerError {
				break
			}
			w.shift(l.nonce(what), testLease)
		}
		l.first[what] = l.perform(what, d)
	})
}

// performedLater is accepted first, and decided when recovery asks.
func (l *errand) performedLater() {
	l.each("later", func(what string, d deed) {
		l.operates(acceptedForNow)
		r := l.perform(what, d)
		if l.w.transaction(l.nonce(what)).Status == Pending { // else the fault made us ask again, and it was done at once
			l.w.decided(l.nonce(what), true)
		}
		l.recoversFully(what)
		l.first[what] = r
	})
}

// notPerformed is given back, and done in the next life.
func (l *errand) notPerformed() {
	for n, answers := range []operating{invalidAnswer, neverReached} {
		l.each(fmt.Sprint("without-", n), func(what string, d deed) {
			l.operates(answers)
			for range patienceOfClients { // until that answer has been given
				if r := l.w.actOn(l.i, l.nonce(what), d); r.status == http.StatusConflict {
					l.w.shift(l.nonce(what), testLease)
				}
				l.w.psp.mu.Lock()
				left := len(l.w.psp.onOperate)
				l.w.psp.mu.Unlock()
				if left == 0 {
					break
				}
			}
			l.first[what] = l.perform(what, d)
		})
	}
}

// notPossible is refused, whatever the database does, and its nonce stays free.
func (l *errand) notPossible() {
	l.operates()
	l.each("possible", func(what string, d deed) {
		tooMuch := d.with(map[string]any{"amount": map[string]any{"currency": "USD", "value": 101}})
		if d.route == RouteCancel { // it has no amount to be too much
			l.first[what] = l.perform(what, d)
			return
		}
		for range patienceOfClients {
			r := l.w.actOn(l.i, l.nonce(what), tooMuch)
			if r.status == http.StatusBadRequest {
				break
			}
			if r.header.Get("Retry-After") == "" {
				l.w.t.Fatalf("%s: got %s", what, r)
			}
		}
		l.first[what] = l.perform(what, d)
	})
}

// judgeDeeds asks the provider and the database, not our answers.
func (l *errand) judgeDeeds() {
	w := l.w
	w.t.Helper()
	if len(l.first) == 0 {
		w.t.Error("nobody was answered")
	}
	for what, first := range l.first {
		w.wantReplay(first, w.act(l.nonce(what), l.done[what]), false) // elsewhere, too
		w.wantDone(l.done[what])
	}
	w.wantBalanced()
}

// enactment is one scene for one kind of action on one way to the database.
type enactment struct {
	w    *world
	i    instance
	db   *postgres.DB
	wire *faultyWire
	play func(*errand)
	kind Route

	plays int
}

// on is the scene, with faults. It returns what was executed.
func (e *enactment) on(name string, traps ...wireTrap) []string {
	e.w.t.Helper()
	l := &errand{&lifetime{w: e.w, i: e.i, db: e.db, wire: e.wire, name: name, first: map[string]response{}}, e.kind, map[string]deed{}}
	e.wire.arm(traps...)
	e.play(l)
	executed, left := e.wire.executed()
	e.wire.arm()
	l.judgeDeeds()
	if left != 0 {
		e.w.t.Errorf("%s: %d traps are left: the scene was another one", name, left)
	}
	return executed
}

// TestH79Error… meets each fault at each statement of a plain life of each kind of
// action, and at those that only some other scene has; the faults of againFaults also
// wherever else a statement is executed, there for one kind of action.
func TestH79ErrorOfTheDatabaseAtAnyStatementOfAnActionConsumesItsReservationOnce(t *testing.T) {
	t.Parallel()
	plain := map[Route][]string{}
	kinds := []Route{RouteCapture, RouteCancel, RouteRefund}
	for n, play := range actionScenes {
		for k, kind := range kinds {
			e := newEnactment(t, play, kind)
			sound := e.on("sound")
			if n == 0 {
				plain[kind] = sound
			}
			t.Run(fmt.Sprintf("%s %d", kind, n), func(t *testing.T) {
				t.Parallel()
				e := newEnactment(t, play, kind)
				for fault, with := range statementFaults {
					times := map[string]int{}
					for _, statement := range sound {
						times[statement]++
						first := times[statement] == 1 && (n == 0 || !slices.Contains(plain[kind], statement))
						if again := slices.Contains(againFaults, fault) && (n == 0 || n%len(kinds) == k); first || again {
							e.at(fault, with, statement, times[statement])
						}
					}
				}
			})
		}
	}
}

// newEnactment is one in a world of its own.
func newEnactment(t *testing.T, play func(*errand), kind Route) *enactment {
	t.Helper()
	w := newWorld(t)
	i, db, wire := w.onFaultyWire()
	return &enactment{w: w, i: i, db: db, wire: wire, play: play, kind: kind}
}

// at plays with one fault, at the nth execution of a statement.
func (e *enactment) at(name string, with fault, statement string, n int) {
	e.w.t.Helper()
	e.plays++
	e.on(fmt.Sprint("play-", e.plays), wireTrap{statement, n, with})
	if e.w.t.Failed() {
		e.w.t.Fatalf("%s at execution %d of %s", name, n, statement)
	}
}
