package transactions

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/postgres"
)

// A database that fails at one statement, wherever in a payment's life it is. The
// statements are not listed here: a life without faults tells which there are, and how
// often. Each of them fails once in every way, and what is executed again, for somebody
// else or later in a life, fails there in the two ways that differ most: without any
// effect and told so, and committed with nobody told.

// patienceOfClients is how often a client, a loop or a person tries one thing again in
// a life with one fault in it. A lost claim costs a 409, and the fault itself a 5xx.
const patienceOfClients = 5

// againFaults are those that also a later execution of a statement meets.
var againFaults = []string{"serialization failure", "cut after the commit"}

// scenes are what becomes of payments, one after the other a whole life. Each has
// nonces of its own and needs no other, so that a fault in one is judged at its end.
var scenes = []func(l *lifetime){
	func(l *lifetime) { l.paid(); l.anotherLife() },
	func(l *lifetime) { l.unclear(); l.asked() },
	(*lifetime).recovered,
	(*lifetime).fencedOut,
	(*lifetime).parked,
	(*lifetime).unconfirmed,
	(*lifetime).checkedOut,
	(*lifetime).loops,
}

// lifetime is one scene on one instance. One thing comes after the other, so that the
// nth statement is always the same one.
type lifetime struct {
	w     *world
	i     instance
	db    *postgres.DB
	wire  *faultyWire
	name  string // begins its nonces and orders
	first map[string]response
	// checkout is what a payment of a session asks for, by name.
	checkout map[string][]byte
}

// does replaces what the provider does next.
func (l *lifetime) does(bs ...behaviour) {
	l.w.psp.mu.Lock()
	defer l.w.psp.mu.Unlock()
	l.w.psp.script, l.w.psp.onAsk = bs, nil
}

func (l *lifetime) nonce(what string) string { return l.name + "-" + what }

// body is what a payment asks for.
func (l *lifetime) body(what string) []byte {
	if b, ok := l.checkout[what]; ok {
		return b
	}
	return l.w.body("order-"+l.nonce(what), nil)
}

func (l *lifetime) send(what string) response {
	l.w.t.Helper()
	r := l.w.createOn(l.i, l.w.test, l.nonce(what), l.body(what))
	l.mayBe(what, r)
	return r
}

// mayBe fails the test unless r is the payment, or asks to come back.
func (l *lifetime) mayBe(what string, r response) {
	l.w.t.Helper()
	if r.status == http.StatusCreated {
		return
	}
	if r.status != http.StatusConflict && r.status <= http.StatusInternalServerError || r.header.Get("Retry-After") == "" {
		l.w.t.Fatalf("%s: got %s, which is no invitation to come back", what, r)
	}
}

// pay sends the payment until it is answered, as a client does. A 409 says that somebody
// has the claim; whoever that was is gone, so its lease has time to end.
func (l *lifetime) pay(what string) response {
	l.w.t.Helper()
	var r response
	for range patienceOfClients {
		if r = l.send(what); r.status == http.StatusCreated {
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

// begun sends the payment until there is a transaction of it, and no longer.
func (l *lifetime) begun(what string) {
	l.w.t.Helper()
	for range patienceOfClients {
		l.send(what)
		if l.w.count(`SELECT count(*) FROM transactions WHERE nonce = $1`, l.nonce(what)) > 0 {
			return
		}
	}
	l.w.t.Fatalf("%s: not begun after %d requests", what, patienceOfClients)
}

// works does something again until there is no error.
func (l *lifetime) works(what string, f func(context.Context) error) {
	l.w.t.Helper()
	var err error
	for range patienceOfClients {
		if err = f(l.w.t.Context()); err == nil {
			return
		}
	}
	l.w.t.Fatalf("%s: failed %d times: %v", what, patienceOfClients, err)
}

func (l *lifetime) paid() {
	l.does(approve)
	l.first["paid"] = l.pay("paid")
	l.pay("paid")
}

// unclear is charged, and its client asks again.
func (l *lifetime) unclear() {
	l.does(chargeThenTimeout)
	l.first["unclear"] = l.pay("unclear")
}

// recovered is charged, and nobody asks again.
func (l *lifetime) recovered() {
	l.w.t.Helper()
	l.does(chargeThenTimeout)
	l.begun("recovered")
	for round := 0; l.unresolved("recovered"); round++ {
		if round == patienceOfClients {
			l.w.t.Fatalf("recovery has not settled it in %d rounds", round)
		}
		if round > 1 { // a claim that was never sent is proved to be so only later
			l.w.shift(l.nonce("recovered"), 2*testLease)
		}
		l.w.dueAgain(l.nonce("recovered"))
		_, _ = l.i.service.Recover(l.w.t.Context()) // the next round tries again
	}
	l.first["recovered"] = l.pay("recovered")
}

func (l *lifetime) unresolved(what string) bool {
	return l.w.count(`SELECT count(*) FROM transactions WHERE nonce = $1 AND lease_until IS NOT NULL`, l.nonce(what)) > 0
}

// fencedOut is finished by another instance while its holder waits for the provider.
func (l *lifetime) fencedOut() {
	w := l.w
	w.t.Helper()
	l.does()
	acted, letGo := w.holdAnswer(approve)
	answer := w.sendTo(l.i, l.nonce("fenced-out"), w.body("order-"+l.nonce("fenced-out"), nil))
	var told *response
	select {
	case <-acted:
		w.shift(l.nonce("fenced-out"), testLease)
		w.dueAgain(l.nonce("fenced-out"))
		w.recoverOn(w.instance)
	case r := <-answer: // the fault was at its begin
		told = &r
	case <-time.After(soon):
		w.t.Fatal("neither sent nor answered")
	}
	letGo()
	if told == nil {
		r := receive(w.t, answer, "the answer of who was fenced out")
		told = &r
	}
	l.mayBe("fenced-out", *told)
	l.first["fenced-out"] = l.pay("fenced-out")
}

// parked is ended by a person: nothing was charged, but the person says that it was.
func (l *lifetime) parked() {
	w := l.w
	w.t.Helper()
	l.does(timeout)
	l.begun("parked")
	l.does()
	w.park(l.nonce("parked"))
	for range patienceOfClients {
		r := w.resolveOn(l.i, l.nonce("parked"), "succeeded")
		if r.status == http.StatusOK || r.code() == "INVALID_STATE" && w.transaction(l.nonce("parked")).Status == Succeeded {
			l.first["parked"] = l.pay("parked")
			return
		}
		if r.status == http.StatusConflict {
			w.shift(l.nonce("parked"), testLease)
		} else if r.status < http.StatusInternalServerError {
			w.t.Fatalf("resolve: got %s", r)
		}
	}
	w.t.Fatalf("a person could not end it in %d tries", patienceOfClients)
}

// unconfirmed has a begin whose answer is always lost, so that somebody has to read back
// whose it is: this payment's, or the next one's if this one's meets another fault.
func (l *lifetime) unconfirmed() {
	l.does(approve)
	l.wire.also("transactions.begin", fault{worked: true})
	l.first["unconfirmed"] = l.pay("unconfirmed")
	l.first["next"] = l.pay("next")
}

// checkedOut pays a session with a token, after a decline that gave the session back.
func (l *lifetime) checkedOut() {
	l.w.t.Helper()
	session := l.w.session("order-" + l.nonce("tried-again"))
	for _, what := range []string{"declined", "tried-again"} {
		l.checkout[what] = l.w.checkoutBody("order-"+l.nonce(what), session, l.w.token(session), nil)
	}
	l.does(decline)
	l.first["declined"] = l.pay("declined")
	l.does(approve)
	l.first["tried-again"] = l.pay("tried-again")
	l.reads(l.i.public.URL+"/v1/checkout/sessions/"+session.String()+"/payment", keys(l.w.test)...)
}

// anotherLife begins the paid nonce anew, a day later.
func (l *lifetime) anotherLife() {
	l.does(approve)
	l.w.shift(l.nonce("paid"), idem.DefaultRetention+time.Second)
	again := l.pay("paid")
	l.w.wantNewLife(l.first["paid"], again)
	l.first["paid"] = again
}

// asked is everything that only reads.
func (l *lifetime) asked() {
	l.w.t.Helper()
	nonce := l.nonce("unclear")
	for _, path := range []string{
		"/v1/payments/" + fmt.Sprint(l.first["unclear"].get("id")), "/v1/payments?merchant_order_id=order-" + nonce, "/v1/idempotency-keys/" + nonce,
	} {
		l.reads(l.i.public.URL+path, keys(l.w.test)...)
	}
	l.reads(l.i.operator.URL+"/admin/v1/nonces/"+nonce, "Authorization", "Bearer "+operatorToken)
}

func (l *lifetime) reads(url string, headers ...string) {
	l.w.t.Helper()
	l.works("GET", func(context.Context) error {
		r := l.w.call(http.MethodGet, url, nil, headers...)
		if r.status != http.StatusOK && r.status < http.StatusInternalServerError {
			l.w.t.Fatalf("GET: %s", r)
		}
		if r.status != http.StatusOK {
			return fmt.Errorf("%s", r)
		}
		return nil
	})
}

// loops is one round of each loop of a process, and its goodbye.
func (l *lifetime) loops() {
	w := l.w
	w.t.Helper()
	l.does(approve)
	l.first["noted"] = l.pay("noted") // an arrival to be written
	counted := func(f func(context.Context) (int, error)) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := f(ctx)
			return err
		}
	}
	expiring, err := w.auth.CreateKey(w.t.Context(), w.account, merchants.Test)
	if err != nil {
		w.t.Fatal(err)
	}
	w.sql(`UPDATE api_keys SET expires_at = clock_timestamp(), changed_at = clock_timestamp() WHERE public_api_key = $1`, expiring.PublicAPIKey)
	fresh := merchants.NewService(l.db, []string{idem.DefaultPolicy})
	l.works("the first reading of the directory", counted(fresh.Refresh))
	l.works("the next reading of the directory", counted(fresh.Refresh))
	if _, err := fresh.Authenticate(w.test.PublicAPIKey, w.test.PrivateSecretKey, netip.IPv6Loopback()); err != nil {
		w.t.Fatal(err)
	}
	l.works("the keys' uses", counted(fresh.FlushUses))
	l.works("the arrivals", counted(l.i.arrivals.Flush))
	l.works("the purge", counted(idem.Purge{DB: l.db, Retention: idem.DefaultRetention}.RunOnce))
	l.works("the backlog", func(ctx context.Context) error {
		_, err := l.i.service.Backlog(ctx)
		return err
	})
	l.works("the goodbye", l.i.service.Goodbye)
	l.works("the beat", counted(l.i.service.Beat))
	w.steady()
	if n := w.count(`SELECT count(*) FROM api_keys WHERE public_api_key = $1 AND revoked_at IS NOT NULL`, expiring.PublicAPIKey); n != 1 {
		w.t.Error("a key whose time is over is not revoked")
	}
}

// judge asks the provider and the database, not our answers.
func (l *lifetime) judge() {
	w := l.w
	w.t.Helper()
	if len(l.first) == 0 {
		w.t.Error("nobody was answered")
	}
	for what, first := range l.first {
		charges := 1
		switch what {
		case "paid":
			charges = 2 // two lives
		case "parked", "declined":
			charges = 0
		}
		w.wantCharges("order-"+l.nonce(what), charges)
		w.wantReplay(first, w.create(l.nonce(what), l.body(what)), false) // elsewhere, too
	}
	w.wantNothingOpen()
}

// wantNothingOpen fails the test if anything in the database is not as it is once all
// has ended well.
func (w *world) wantNothingOpen() {
	w.t.Helper()
	for what, query := range map[string]string{
		"transactions are unresolved": `SELECT count(*) FROM transactions WHERE lease_until IS NOT NULL`,
		"keys have no answer":         `SELECT count(*) FROM idempotency_keys WHERE response_status IS NULL`,
		"payments have no event, or not as many as their version says": `SELECT count(*) FROM payments p
			WHERE p.version = 0 OR p.version <> (SELECT count(*) FROM events e WHERE e.account_id = p.account_id AND e.payment_id = p.id)`,
		"payments still wait for amounts": `SELECT count(*) FROM payments
			WHERE authorize_pending <> 0 OR settle_pending <> 0 OR refund_pending <> 0 OR cancel_pending <> 0`,
		"decisions of persons are not in the audit log, or more than once": `SELECT count(*) FROM (
			SELECT target FROM (
				SELECT 'transaction/' || transaction_id AS target, 1 AS times FROM resolutions UNION ALL
				SELECT target, -1 FROM audit_entries WHERE action = 'transaction.resolved') decided
			GROUP BY target HAVING sum(times) <> 0) odd`,
	} {
		if n := w.count(query); n != 0 {
			w.t.Errorf("%d %s", n, what)
		}
	}
}

// playOn is one scene, with faults. It returns what was executed.
func playOn(w *world, i instance, db *postgres.DB, wire *faultyWire, scene func(*lifetime), name string, traps ...wireTrap) []string {
	w.t.Helper()
	wire.arm(traps...)
	l := &lifetime{w: w, i: i, db: db, wire: wire, name: name, first: map[string]response{}, checkout: map[string][]byte{}}
	scene(l)
	l.judge()
	executed, left := wire.executed()
	if left != 0 {
		w.t.Errorf("%s: %d traps are left: the scene was another one", name, left)
	}
	return executed
}

// soundLife is what each scene executes where nothing fails.
func soundLife(t *testing.T) (executed [][]string) {
	t.Helper()
	w := newWorld(t)
	i, db, wire := w.onFaultyWire()
	for n, scene := range scenes {
		executed = append(executed, playOn(w, i, db, wire, scene, fmt.Sprint("sound-", n)))
		if t.Failed() || len(executed[n]) == 0 {
			t.Fatalf("without a fault, already; executed were %q", executed)
		}
	}
	return executed
}

func TestH65ErrorOfTheDatabaseAtAnyStatementCostsNeitherMoneyNorAnswer(t *testing.T) {
	t.Parallel()
	everyFault(t, soundLife(t), func(t *testing.T) (func(scene int, name string, trap wireTrap), func()) {
		w := newWorld(t)
		i, db, wire := w.onFaultyWire()
		return func(n int, name string, trap wireTrap) { playOn(w, i, db, wire, scenes[n], name, trap) }, func() {}
	})
}

// everyFault plays scenes in every way: for each statement that a sound life executes,
// and each error. begin makes a stage for one kind of error: what plays a scene on it,
// and what is to be asked when all have been played.
func everyFault(t *testing.T, sound [][]string, begin func(t *testing.T) (play func(scene int, name string, trap wireTrap), over func())) {
	t.Helper()
	for name, with := range statementFaults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			play, over := begin(t)
			times := map[string]int{}
			for n, executed := range sound {
				here := map[string]int{}
				for _, statement := range executed {
					times[statement]++
					here[statement]++
					if times[statement] > 1 && !slices.Contains(againFaults, name) {
						continue
					}
					where := fmt.Sprintf("%s-%d", strings.ReplaceAll(statement, "_", "-"), times[statement])
					play(n, where, wireTrap{statement, here[statement], with})
					if t.Failed() {
						t.Fatalf("%s at %s", name, where)
					}
				}
			}
			over()
		})
	}
}

// notOfALife are the statements that no payment's life has, and why.
var notOfALife = map[string]string{
	"postgres.identity":        "read at the start, before anybody is served",
	"postgres.note_identity":   "an operator's command",
	"postgres.accept_identity": "an operator's command",
	"postgres.session":         "asked at the start, before anybody is served",
	"postgres.unfit":           "asked at the start, before anybody is served",
	"postgres.find_index":      "asked at a migration",
	"postgres.lacking":         "asked at the start, before anybody is served",
	"postgres.schema":          "asked at the start, before anybody is served",
	"idem.claim_once":          "of what moves no money, in a database transaction that fails as a whole: see idem.Once",
	"idem.answer_once":         "of what moves no money, in a database transaction that fails as a whole: see idem.Once",
	"idem.read_once":           "of what moves no money, in a database transaction that fails as a whole: see idem.Once",
	"idem.end_once":            "of what moves no money, in a database transaction that fails as a whole: see idem.Once",
	"postgres.allow":           "an operator reads, in a database transaction that writes nothing",
	"merchants.insert":         "an operator's change, and its database transaction fails as a whole",
	"merchants.lock":           "an operator's change, and its database transaction fails as a whole",
	"merchants.lock_key":       "an operator's change, and its database transaction fails as a whole",
	"merchants.insert_key":     "an operator's change, and its database transaction fails as a whole",
	"merchants.expire_key":     "an operator's change, and its database transaction fails as a whole",
	"merchants.revoke_key":     "an operator's change, and its database transaction fails as a whole",
	"merchants.restrict_key":   "an operator's change, and its database transaction fails as a whole",
	"merchants.update":         "an operator's change, and its database transaction fails as a whole",
	"merchants.disable":        "an operator's change, and its database transaction fails as a whole",
	"merchants.one":            "an operator reads",
	"merchants.page":           "an operator reads",
	"merchants.key":            "an operator reads",
	"merchants.keys":           "an operator reads",
	"audit.page":               "an operator reads",
	"audit.page_of_target":     "an operator reads",
	"audit.page_of_actor":      "an operator reads",
	"audit.ends":               "an operator reads",
	"audit.batch":              "an operator reads",
}

func TestH65EveryStatementIsInTheLifeThatMeetsTheErrorsOrSaysWhyNot(t *testing.T) {
	t.Parallel()
	executed := slices.Concat(slices.Concat(soundLife(t)...), slices.Concat(soundCourses(t)...))
	written := statementsOf(t, ".", "../idem", "../merchants", "../postgres", "../audit")
	for _, name := range written {
		_, excused := notOfALife[name]
		excused = excused || slices.Contains(ofTheConsole, name)
		excused = excused || strings.HasPrefix(name, "transactions.check_") // an operator reads: see invariants_store.go
		if met := slices.Contains(executed, name); met == excused {
			t.Errorf("%s: executed in the life: %t, excused: %t", name, met, excused)
		}
	}
	for name := range notOfALife {
		if !slices.Contains(written, name) {
			t.Errorf("%s is excused, and there is no such statement", name)
		}
	}
	for _, name := range executed {
		if !slices.Contains(written, name) && name != commit {
			t.Errorf("%s is executed, and is in no source that was read", name)
		}
	}
}

// statementsOf are the names of the statements in the sources of some packages.
func statementsOf(t *testing.T, folders ...string) (names []string) {
	t.Helper()
	inSource := regexp.MustCompile("`/\\* ([a-z]+\\.[a-z_]+) \\*/")
	for _, folder := range folders {
		files, err := filepath.Glob(filepath.Join(folder, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no sources in %s: %v", folder, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range inSource.FindAllSubmatch(source, -1) {
				names = append(names, string(m[1]))
			}
		}
	}
	return names
}
