package transactions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
)

// wantInvariants fails the test unless every invariant holds.
func (w *world) wantInvariants() {
	w.t.Helper()
	found, err := w.service.Invariants(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if broken := found.broken(); broken != "" || !found.OK || len(found.Checks) != len(invariants) {
		w.t.Errorf("broken: %s", broken)
	}
}

// broken names what does not hold.
func (i Invariants) broken() string {
	var names []string
	for _, c := range i.Checks {
		if !c.OK {
			names = append(names, c.Name)
		}
	}
	return strings.Join(names, " ")
}

// storyOf is the beginning of a tale of 3, of which the first transaction succeeds.
func storyOf(t *testing.T, first Type, steps ...step) tale {
	t.Helper()
	now := begun(first, 3)
	for _, s := range append([]step{{typ: first, to: Succeeded}}, steps...) {
		var err error
		if now, err = now.after(s); err != nil {
			t.Fatal(err)
		}
	}
	return now
}

// becomes is a step of a transaction that has begun, on is the one that begins it.
func becomes(tx int, typ Type, to Status) step { return step{tx: tx, typ: typ, to: to} }

func on(tx int, typ Type, target int, amount int64) step {
	return step{tx: tx, typ: typ, target: target, amount: amount, to: Created}
}

// populate fills the database with a payment in every situation that one transaction can
// be in, and with those that the tests below break, by their names.
func (w *world) populate() map[string]*play {
	w.t.Helper()
	plays := map[string]*play{}
	for _, typ := range everyType {
		for _, status := range everyStatus() {
			if at, reachable := routeTo(typ, status); reachable {
				name := fmt.Sprintf("%s-%s", typ, status)
				plays[name] = w.perform(name, at)
			}
		}
	}
	scenes := map[string]tale{
		"returned": storyOf(w.t, Authorize, on(1, Capture, 0, 3), becomes(1, Capture, Succeeded), on(2, Refund, 1, 3), becomes(2, Refund, Succeeded)),
		"disputed": storyOf(w.t, Purchase, on(1, Refund, 0, 3), becomes(1, Refund, Succeeded), on(2, Chargeback, 0, 1)),
		"lost":     storyOf(w.t, Purchase, step{tx: 1, typ: Chargeback, amount: 3, to: Lost}, on(2, Chargeback, 0, 1)),
		"parts": storyOf(w.t, Authorize, on(1, Capture, 0, 1), becomes(1, Capture, Succeeded), on(2, Capture, 0, 2), becomes(2, Capture, Succeeded),
			on(3, Refund, 2, 2), becomes(3, Refund, Succeeded)),
		"part":      storyOf(w.t, Authorize, on(1, Capture, 0, 1), becomes(1, Capture, Succeeded), on(2, Capture, 0, 2), becomes(2, Capture, Declined)),
		"cancelled": storyOf(w.t, Authorize, on(1, Cancel, 0, 3), becomes(1, Cancel, Declined), on(2, Cancel, 0, 3), becomes(2, Cancel, Succeeded)),
		"refused":   storyOf(w.t, Purchase, on(1, Refund, 0, 1), becomes(1, Refund, Declined), on(2, Refund, 0, 1), becomes(2, Refund, Declined)),
	}
	for _, name := range slices.Sorted(maps.Keys(scenes)) {
		plays[name] = w.perform(name, scenes[name])
	}
	w.psp.next(refuse)
	_, _ = w.service.Execute(w.t.Context(), w.command(w.instance, "released", w.body("order-released", nil)))
	w.psp.next(timeout)
	_, _ = w.service.Execute(w.t.Context(), w.command(w.instance, "lapsed", w.body("order-lapsed", nil)))
	if r, err := w.service.takeOver(w.t.Context(), w.transaction("lapsed"), w.psp, byRecovery); r == nil || err != nil {
		w.t.Fatalf("not taken over: %v", err)
	}
	return plays
}

// breakage is one way to break a rule, and only that one.
type breakage struct {
	name  string // the invariant
	sql   []string
	args  []any
	count int64 // violations; 0: any
}

// breakages are at least one for each invariant. The last letter of an id stands for
// "another one".
func breakages(plays map[string]*play) []breakage {
	id := func(play string, i int) uuid.UUID { return plays[play].txs[i].ID }
	payment := func(play string) uuid.UUID { return plays[play].txs[0].PaymentID }
	all := []breakage{
		{name: "refunds_match_targets", sql: []string{`UPDATE transactions SET refunded = refunded + 1 WHERE id = $1`}, args: []any{id("refused", 0)}, count: 1},
		{name: "refunds_match_targets", sql: []string{`UPDATE transactions SET refund_pending = 1 WHERE id = $1`}, args: []any{id("refused", 0)}, count: 1},
		{name: "captures_within_authorization", sql: []string{
			`UPDATE transactions SET amount = 2 WHERE id = $1`, `UPDATE payments SET amount = 2, authorized = 2 WHERE id = (SELECT payment_id FROM transactions WHERE id = $1)`,
		}, args: []any{id("returned", 0)}, count: 1},
		{name: "refunds_within_settled", sql: []string{ // the payment, and its purchase
			`UPDATE transactions SET amount = 2 WHERE id = $1`, `UPDATE payments SET amount = 2, authorized = 2, settled = 2 WHERE id = (SELECT payment_id FROM transactions WHERE id = $1)`,
		}, args: []any{id("disputed", 0)}, count: 2},
		{name: "refunds_within_settled", sql: []string{ // another of its captures, which is smaller
			`UPDATE transactions SET target_id = $2 WHERE id = $3 AND target_id = $1`,
			`UPDATE transactions SET refunded = CASE WHEN id = $1 THEN 0 ELSE 2 END WHERE id IN ($1, $2) AND $3::uuid IS NOT NULL`,
		}, args: []any{id("parts", 2), id("parts", 1), id("parts", 3)}, count: 1},
		{name: "chargebacks_within_settled", sql: []string{
			`UPDATE transactions SET amount = 2 WHERE id = $1`, `UPDATE payments SET amount = 2, authorized = 2, settled = 2 WHERE id = (SELECT payment_id FROM transactions WHERE id = $1)`,
		}, args: []any{id("lost", 0)}, count: 2},
		{name: "never_captured_and_cancelled", sql: []string{
			`UPDATE transactions SET type = 'CANCEL', status = 'SUCCEEDED' WHERE id = $1`, `UPDATE events SET type = 'payment.cancel' WHERE transaction_id = $1`,
			`UPDATE payments SET canceled = 2 WHERE id = (SELECT payment_id FROM transactions WHERE id = $1)`,
		}, args: []any{id("part", 2)}, count: 1},
		{name: "never_captured_and_cancelled", sql: []string{ // cancelled twice, in parts
			`UPDATE transactions SET status = 'SUCCEEDED', amount = 1 WHERE id = $1 AND $2::uuid IS NOT NULL`, `UPDATE transactions SET amount = 2 WHERE id = $2 AND $1::uuid IS NOT NULL`,
		}, args: []any{id("cancelled", 1), id("cancelled", 2)}, count: 1},
		{name: "released_moved_nothing", sql: []string{`INSERT INTO idempotency_keys (account_id, mode, key_id, operation, fingerprint, transaction_id, response_status, response_body, created_at, expires_at)
			SELECT account_id, mode, nonce, 'POST /v1/payments', '', id, 400, '', now(), now() FROM transactions WHERE nonce = 'released'`}, count: 1},
		{name: "released_moved_nothing", sql: []string{`UPDATE transactions SET released = true WHERE id = $1`, `DELETE FROM idempotency_keys WHERE transaction_id = $1`}, args: []any{id("refused", 1)}, count: 1},
		{name: "payments_begin_once", sql: []string{`UPDATE payments SET mode = 'live' WHERE id = $1`}, args: []any{payment("refused")}, count: 1},
		{name: "payments_begin_once", sql: []string{`UPDATE payments SET currency = 'EUR' WHERE id = $1`}, args: []any{payment("refused")}, count: 1},
		{name: "payments_begin_once", sql: []string{`UPDATE payments SET amount = 4 WHERE id = $1`}, args: []any{payment("refused")}, count: 1},
		{name: "payments_begin_once", sql: []string{ // twice
			`INSERT INTO transactions SELECT (jsonb_populate_record(t, jsonb_build_object('id', $2::text))).* FROM transactions t WHERE id = $1`,
			`INSERT INTO events SELECT account_id, payment_id, seq + 1, $2, type, status, sub_status, cause, created_at FROM events WHERE transaction_id = $1`,
			`UPDATE payments SET version = version + 1 WHERE id = (SELECT payment_id FROM transactions WHERE id = $1 AND $2 <> '')`,
		}, args: []any{id("VERIFY-SUCCEEDED", 0), uuid.NewString()}, count: 1},
		{name: "targets_belong", sql: []string{`UPDATE transactions SET currency = 'EUR' WHERE id = $1`}, args: []any{id("refused", 1)}, count: 1},
		{name: "targets_belong", sql: []string{`UPDATE transactions SET provider = 'ANOTHER' WHERE id = $1`}, args: []any{id("refused", 1)}, count: 1},
		{name: "targets_belong", sql: []string{`DELETE FROM idempotency_keys WHERE transaction_id = $1`, `UPDATE transactions SET mode = 'live' WHERE id = $1`}, args: []any{id("refused", 1)}, count: 1},
		{name: "targets_belong", sql: []string{`UPDATE transactions SET target_id = $2 WHERE id = $1`}, args: []any{id("refused", 1), uuid.New()}, count: 1},
		{name: "targets_belong", sql: []string{`UPDATE transactions SET target_id = $2 WHERE id = $1`}, args: []any{id("refused", 1), id("parts", 1)}, count: 1}, // of another payment
		{name: "targets_belong", sql: []string{`UPDATE transactions SET target_id = $2 WHERE id = $1`}, args: []any{id("refused", 1), id("refused", 2)}, count: 1},
		{name: "targets_belong", sql: []string{`UPDATE transactions SET amount = 0 WHERE id = $1`}, args: []any{id("refused", 1)}, count: 1},
		{name: "targets_belong", sql: []string{`UPDATE transactions SET target_id = $1 WHERE id = $1`}, args: []any{id("refused", 0)}, count: 1},
		{name: "authorizations_belong", sql: []string{`UPDATE authorizations SET transaction_id = $2 WHERE transaction_id = $1`}, args: []any{id("part", 0), id("part", 1)}, count: 1},
		{name: "authorizations_belong", sql: []string{`UPDATE authorizations SET payment_id = $2 WHERE transaction_id = $1`}, args: []any{id("part", 0), payment("refused")}, count: 1},
		{name: "amounts_have_minor_units", sql: []string{`UPDATE transactions SET amount = 1.005 WHERE id = $1`}, args: []any{id("refused", 1)}, count: 1},
		{name: "payment_status_follows", sql: []string{
			`UPDATE payments SET status = 'ERROR', sub_status = 'ERROR' WHERE id = $1`,
			`UPDATE events SET status = 'ERROR', sub_status = 'ERROR' WHERE payment_id = $1 AND seq = (SELECT version FROM payments WHERE id = $1)`,
		}, args: []any{payment("part")}, count: 1},
		{name: "events_without_gaps", sql: []string{`UPDATE payments SET version = version + 1 WHERE id = $1`}, args: []any{payment("refused")}, count: 1},
		{name: "events_without_gaps", sql: []string{`UPDATE events SET seq = seq + 1 WHERE payment_id = $1 AND seq = 3`}, args: []any{payment("refused")}, count: 1},
		{name: "events_without_gaps", sql: []string{`UPDATE events SET seq = seq - 1 WHERE payment_id = $1 AND seq = 1`}, args: []any{payment("refused")}, count: 1},
		{name: "events_without_gaps", sql: []string{`UPDATE payments SET version = 0 WHERE id = $1`}, args: []any{payment("refused")}, count: 1},
		{name: "events_without_gaps", sql: []string{`UPDATE events SET status = 'ERROR' WHERE payment_id = $1 AND seq = 3`}, args: []any{payment("refused")}, count: 1},
		{name: "one_event_per_end", sql: []string{`UPDATE events SET transaction_id = $1 WHERE transaction_id = $2`}, args: []any{id("refused", 1), id("refused", 2)}, count: 2},
		{name: "one_event_per_end", sql: []string{ // of a transaction that has not ended
			`UPDATE transactions SET status = 'CREATED', lease_until = now() WHERE id = $1`,
			`UPDATE idempotency_keys SET response_status = NULL, response_body = NULL WHERE transaction_id = $1`,
			`UPDATE payments SET refund_pending = 1 WHERE id = (SELECT payment_id FROM transactions WHERE id = $1)`,
			`UPDATE transactions SET refund_pending = 1 WHERE id = (SELECT target_id FROM transactions WHERE id = $1)`,
		}, args: []any{id("refused", 1)}, count: 1},
		{name: "events_belong", sql: []string{`UPDATE events SET type = 'payment.capture' WHERE transaction_id = $1`}, args: []any{id("refused", 1)}, count: 1},
		{name: "nonces_point_to_their_transactions", sql: []string{`UPDATE transactions SET nonce = 'another' WHERE id = $1`}, args: []any{id("refused", 1)}, count: 1},
		{name: "nonces_point_to_their_transactions", sql: []string{`UPDATE idempotency_keys SET mode = 'live' WHERE transaction_id = $1`}, args: []any{id("refused", 1)}, count: 1},
		{name: "nonces_point_to_their_transactions", sql: []string{`DELETE FROM idempotency_keys WHERE key_id = 'lapsed'`}, count: 1},
		{name: "answers_only_where_told", sql: []string{`UPDATE idempotency_keys SET response_status = NULL, response_body = NULL WHERE transaction_id = $1`}, args: []any{id("refused", 1)}, count: 1},
		{name: "answers_only_where_told", sql: []string{`UPDATE idempotency_keys SET response_status = 201, response_body = '' WHERE key_id = 'lapsed'`}, count: 1},
		{name: "unresolved_have_leases", sql: []string{`UPDATE transactions SET lease_until = now() WHERE id = $1`}, args: []any{id("refused", 1)}, count: 1},
		{name: "unresolved_have_leases", sql: []string{`UPDATE transactions SET parked_at = now() WHERE id = $1`}, args: []any{id("refused", 1)}, count: 1},
		{name: "unresolved_have_leases", sql: []string{`UPDATE transactions SET lease_until = NULL WHERE nonce = 'lapsed'`}, count: 1},
		{name: "unresolved_have_leases", sql: []string{`UPDATE transactions SET lease_until = now() WHERE id = $1`}, args: []any{id("disputed", 2)}, count: 1},
		{name: "fences_have_takeovers", sql: []string{`UPDATE transactions SET fence = 2 WHERE id = $1`}, args: []any{id("refused", 1)}, count: 1},
		{name: "fences_have_takeovers", sql: []string{`DELETE FROM takeovers WHERE transaction_id = (SELECT id FROM transactions WHERE nonce = 'lapsed')`}, count: 1},
		{name: "fences_have_takeovers", sql: []string{`UPDATE takeovers SET fence = 7 WHERE transaction_id = (SELECT id FROM transactions WHERE nonce = 'lapsed')`}, count: 1},
	}
	// A session of each of two payments, as begin makes it.
	const (
		session = `INSERT INTO checkout_sessions (account_id, id, mode, workflow, merchant_order_id, payment_description, country, currency, amount,
			callback_url, details, payment_id, created_at, updated_at, expires_at)
			SELECT account_id, $1, mode, 'SDK_SEAMLESS', merchant_order_id, 'text', 'US', currency, amount, '', '{}', id, now(), now(), now() FROM payments WHERE id = $2 AND id <> $3`
		source = `INSERT INTO payment_sources (account_id, payment_id, checkout_session_id) SELECT account_id, id, $1 FROM payments WHERE id = ANY (ARRAY[$2::uuid, $3])`
	)
	two := []any{uuid.New(), payment("refused"), payment("parts")}
	failed := []any{uuid.New(), payment("PURCHASE-DECLINED"), payment("PURCHASE-ERROR")}
	all = append(all,
		breakage{"sessions_paid_once", []string{session, source}, two, 1},
		breakage{"sessions_hold_their_payment", []string{source}, []any{two[0], two[1], uuid.New()}, 1},
		breakage{"sessions_hold_their_payment", []string{session, source}, failed, 1},
	)
	for _, column := range []string{"authorized", "settled", "captured", "refunded", "canceled", "charged_back"} {
		all = append(all, breakage{"payment_sums_match_transactions", []string{`UPDATE payments SET ` + column + ` = ` + column + ` + 0.01 WHERE id = $1`}, []any{payment("parts")}, 1})
	}
	for _, column := range []string{"authorize_pending", "settle_pending", "refund_pending", "cancel_pending"} {
		all = append(all, breakage{"reservations_match_unresolved", []string{`UPDATE payments SET ` + column + ` = 0.01 WHERE id = $1`}, []any{payment("parts")}, 1})
	}
	return all
}

// errUndo takes back what a test has done in a database transaction.
var errUndo = errors.New("undo")

// breaking tells judge what the invariants are found to be once each breakage's statements
// were executed, with no constraint in their way. Then all is as it was.
func (w *world) breaking(all []breakage, judge func(breakage, Invariants)) {
	w.t.Helper()
	err := w.owner().InTx(w.t.Context(), func(db postgres.Tx) error {
		var constraints []string
		err := db.Raw(`SELECT format('ALTER TABLE %s DROP CONSTRAINT %I CASCADE', conrelid::regclass, conname) FROM pg_constraint
			WHERE contype IN ('c', 'f') AND connamespace = 'public'::regnamespace`).Scan(&constraints).Error
		if err != nil {
			return err
		}
		if err := db.Exec(strings.Join(constraints, ";")).Error; err != nil {
			return err
		}
		for _, b := range all {
			if err := db.SavePoint("sound").Error; err != nil {
				return err
			}
			for _, statement := range b.sql {
				if err := db.Exec(statement, b.args...).Error; err != nil {
					return fmt.Errorf("%s: %w", statement, err)
				}
			}
			found, err := w.service.checkAll(w.t.Context(), db)
			if err != nil {
				return err
			}
			judge(b, found)
			if err := db.RollbackTo("sound").Error; err != nil {
				return err
			}
		}
		return errUndo
	})
	if !errors.Is(err, errUndo) {
		w.t.Fatal(err)
	}
}

// TestEachInvariantFindsWhatBreaksItAlone breaks one rule after the other, in a database
// that has a payment in every situation. Each is found, by its own check and no other.
func TestEachInvariantFindsWhatBreaksItAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	plays := w.populate()
	w.wantInvariants()
	tried := map[string]bool{}
	w.breaking(breakages(plays), func(b breakage, found Invariants) {
		tried[b.name] = true
		if broken := found.broken(); broken != b.name || found.OK {
			t.Errorf("%s: broken is %q, ok %v", b.sql, broken, found.OK)
		}
		for _, c := range found.Checks {
			if c.Name == b.name && (c.Violations == nil || *c.Violations == 0 || b.count > 0 && *c.Violations != b.count) {
				t.Errorf("%s: violations %v, want %d", b.sql, c.Violations, b.count)
			}
		}
	})
	for _, i := range invariants {
		if !tried[i.name] {
			t.Errorf("nothing breaks %s", i.name)
		}
	}
	w.wantInvariants()
}

// TestAnInvariantThatCannotBeCheckedHidesNoOther: what is not known does not count as
// sound, and the checks after it are made.
func TestAnInvariantThatCannotBeCheckedHidesNoOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want(w.create("order-1-a", w.body("order-1", nil)), http.StatusCreated)
	w.breaking([]breakage{{sql: []string{`DROP TABLE events`, `UPDATE transactions SET fence = fence + 1`}}}, func(_ breakage, found Invariants) {
		if got := found.broken(); got != "events_without_gaps one_event_per_end events_belong fences_have_takeovers" || found.OK {
			t.Errorf("broken is %q", got)
		}
		for _, c := range found.Checks {
			if strings.Contains(c.Name, "event") != (c.Violations == nil) {
				t.Errorf("%s has violations %v", c.Name, c.Violations)
			}
		}
	})
}

// TestOperatorsReadTheInvariants over the wire, one reader at a time.
func TestOperatorsReadTheInvariants(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want(w.create("order-1-a", w.body("order-1", nil)), http.StatusCreated)
	get := func() (response, Invariants) {
		r := w.call(http.MethodGet, w.operator.URL+"/admin/v1/invariants", nil, "Authorization", "Bearer "+operatorToken)
		w.want(r, http.StatusOK)
		var found Invariants
		if err := json.Unmarshal(r.body, &found); err != nil {
			t.Fatal(err)
		}
		return r, found
	}
	if r, found := get(); !found.OK || len(found.Checks) != len(invariants) || found.broken() != "" {
		t.Errorf("got %s", r)
	}
	w.sql(`UPDATE payments SET refund_pending = 0.01 WHERE settled > 0`)
	if r, found := get(); found.OK || found.broken() != "reservations_match_unresolved" {
		t.Errorf("got %s", r)
	}
	h := NewOperatorHandler(w.service)
	h.checking.Lock()
	if h.checking.TryLock() {
		t.Error("two at a time")
	}
}

// TestTheInvariantsHoldWhateverIsUnderWay reads them over and over while payments are made,
// captured, cancelled and refunded, by a provider with many moods, and recovered.
func TestTheInvariantsHoldWhateverIsUnderWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const workers, payments = 4, 12
	for range payments {
		w.psp.next(approve, approve, chargeThenTimeout, approve, decline, timeout, approve, refuse, approve, notReached)
		w.psp.nextOperation(moodBooked, moodBooked, moodUnheard, moodBooked, moodAccepted, moodDeclined)
	}
	var purchases []Command
	for i := range workers * payments {
		nonce := fmt.Sprintf("busy-%d", i)
		purchases = append(purchases, w.command(w.instance, nonce, w.body("order-"+nonce, map[string]any{"amount": json.Number("9.00"), "capture": i%2 == 0})))
	}
	var wg sync.WaitGroup
	for n := range workers {
		wg.Go(func() {
			for _, cmd := range purchases[n*payments : (n+1)*payments] {
				w.busily(t.Context(), cmd)
				_, _ = w.service.Recover(t.Context())
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	looks := 0
	for busy := true; busy || looks < 3; looks++ {
		select {
		case <-done:
			busy = false
		case <-time.After(lookEvery): // the machine has other things to do
		}
		w.wantInvariants()
	}
	t.Logf("%d looks", looks)
	if n := w.count(`SELECT count(*) FROM transactions WHERE target_id IS NOT NULL AND status IN ('SUCCEEDED', 'PENDING', 'CREATED')`); n < workers {
		t.Errorf("only %d actions: nothing was under way", n)
	}
}

// lookEvery is the pause between two looks at a busy database.
const lookEvery = 20 * time.Millisecond

// busily makes a payment and all that can be done to it. Most of it may fail.
func (w *world) busily(ctx context.Context, cmd Command) {
	a, err := w.service.Execute(ctx, cmd)
	if err != nil {
		return
	}
	tx, found, err := w.service.store.transaction(ctx, w.account, a.TransactionID)
	if err != nil || !found {
		return
	}
	for i, route := range []Route{RouteCapture, RouteRefund, RouteCancel, RouteCapture, RouteRefund} {
		nonce := fmt.Sprintf("%s-%d", cmd.Nonce, i)
		action := Action{
			Route: route, Type: actionRules[route].typ, PaymentID: tx.PaymentID, TargetID: tx.ID, Amount: decimal.NewFromInt(int64(i + 1)),
			MerchantReference: "reference-1", Reason: "REQUESTED_BY_CUSTOMER",
		}
		if route == RouteCancel {
			action.Amount = decimal.Zero
		}
		_, _ = w.service.Execute(ctx, Command{
			AccountID: w.account, Mode: cmd.Mode, Policy: cmd.Policy, Key: key(cmd.Policy, nonce), Operation: "POST " + string(route) + " " + tx.ID.String(),
			Print: w.service.prints.Of("", "", nonce, jsontree.Value{}), Action: &action, ArrivedAt: time.Now(),
		})
	}
}

// The moods of a provider that is asked for an operation.
func moodBooked(_ context.Context, p *psp, o providers.Operation) providers.Result {
	return p.operate(o)
}

func moodUnheard(_ context.Context, p *psp, o providers.Operation) providers.Result {
	p.operate(o)
	return providers.Result{Outcome: providers.Unclear, TimedOut: true}
}

func moodAccepted(context.Context, *psp, providers.Operation) providers.Result {
	return providers.Result{Outcome: providers.Pending}
}

func moodDeclined(_ context.Context, p *psp, o providers.Operation) providers.Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.declined[o.Reference] = true
	return providers.Result{Outcome: providers.Declined, ResponseCode: "INSUFFICIENT_FUNDS"}
}

// TestEachInvariantIsExplained in the page that operators read, and no other.
func TestEachInvariantIsExplained(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/operate/invariants.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\n## What each check says\n")
	var explained, checked []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ").FindAllStringSubmatch(table, -1) {
		explained = append(explained, m[1])
	}
	for _, i := range invariants {
		checked = append(checked, i.name)
	}
	if !slices.Equal(explained, checked) {
		t.Errorf("the page explains %q, there are %q", explained, checked)
	}
}
