package transactions

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/providers"
)

// What may become of a payment, tried three times over: every history up to a length, by
// the rules alone; long ones with any amounts, at random; and, for each move that a payment
// may make, the shortest history that leads to it, in the database.

// tale is one payment's history by the rules alone: no database and no provider.
type tale struct {
	p       Payment
	txs     []Transaction // the first one began it
	targets []int         // what each acts on, by its place in txs
	told    int64         // events
	steps   []step
}

// step is what may happen next: a transaction moves, or, where tx is beyond the last one,
// begins.
type step struct {
	tx       int
	typ      Type
	target   int
	amount   int64
	to       Status
	redirect bool // the payer is sent somewhere
}

func (s step) String() string {
	text := fmt.Sprintf("%s#%d %s", s.typ, s.tx, s.to)
	if s.amount > 0 {
		text += fmt.Sprintf(" of %d", s.amount)
		if s.tx > 0 {
			text += fmt.Sprintf(" on #%d", s.target)
		}
	}
	if s.redirect {
		text += ", redirected"
	}
	return text
}

func (t tale) String() string {
	var said []string
	for _, s := range t.steps {
		said = append(said, s.String())
	}
	return strings.Join(said, "; ")
}

// begun is a payment with its first transaction, as begin makes it.
func begun(typ Type, amount int64) tale {
	value := decimal.NewFromInt(amount)
	t := tale{
		p:       Payment{Status: Unconfirmed.Status, SubStatus: Unconfirmed.Sub, Amount: value},
		txs:     []Transaction{{Type: typ, Status: Created, Amount: value}},
		targets: []int{0},
		steps:   []step{{typ: typ, to: Created, amount: amount}},
	}
	if typ != Verify {
		t.p.AuthorizePending = value
	}
	if typ == Purchase {
		t.p.SettlePending = value
	}
	return t
}

// waits is what t's transactions, but one, are waiting for.
func (t tale) waits(but int) (u alongside) {
	for i, tx := range t.txs {
		if i != but {
			u = u.with(tx.Type, tx.Status)
		}
	}
	return u
}

// after is t once s has happened. It fails where the code finds that illegal.
func (t tale) after(s step) (tale, error) {
	t.txs, t.targets = slices.Clone(t.txs), slices.Clone(t.targets)
	t.steps = append(slices.Clone(t.steps), s)
	if s.tx == len(t.txs) {
		tx := Transaction{Type: s.typ, Status: Unborn, Amount: decimal.NewFromInt(s.amount), TargetID: uuid.NullUUID{UUID: uuid.UUID{byte(s.target)}, Valid: true}}
		t.targets = append(t.targets, s.target)
		if s.typ != Chargeback {
			return t.reserve(s, tx), nil
		}
		t.txs = append(t.txs, tx)
	}
	tx := &t.txs[s.tx]
	if s.redirect {
		tx.RedirectURL = "https://bank.example/challenge"
	}
	before := t.p
	var err error
	if t.p, err = before.after(*tx, s.to, t.waits(s.tx)); err != nil {
		return t, fmt.Errorf("%s: %w", t, err)
	}
	if tx.Type == Refund && s.to.Terminal() {
		g := &t.txs[t.targets[s.tx]]
		g.RefundPending = g.RefundPending.Sub(tx.Amount)
		if s.to == Succeeded {
			g.Refunded = g.Refunded.Add(tx.Amount)
		}
	}
	if s.to.Terminal() || t.p.state() != before.state() {
		t.told++
	}
	tx.Status = s.to
	return t, nil
}

// reserve is what beginning an action does to a payment.
func (t tale) reserve(s step, tx Transaction) tale {
	tx.Status = Created
	switch s.typ {
	case Capture:
		t.p.SettlePending = t.p.SettlePending.Add(tx.Amount)
	case Cancel:
		t.p.CancelPending = t.p.CancelPending.Add(tx.Amount)
	default:
		t.p.RefundPending = t.p.RefundPending.Add(tx.Amount)
		g := &t.txs[s.target]
		g.RefundPending = g.RefundPending.Add(tx.Amount)
	}
	t.txs = append(t.txs, tx)
	return t
}

// options are all steps that may follow. amounts are those that an action or a dispute may
// have; an action is begun only where its own rules allow it.
func (t tale) options(amounts []int64) []step {
	var all []step
	for i, tx := range t.txs {
		for _, to := range Moves[tx.Type][tx.Status] {
			switch {
			case tx.Type == Authorize && to == Expired && tx.Status == Succeeded &&
				(t.p.state() != PaymentAuthorized || t.p.SettlePending.Add(t.p.CancelPending).IsPositive()):
				continue // it expires only where nothing has been done, or is being done
			case tx.Type == Chargeback && to == Lost && t.lostOf(t.targets[i]).Add(tx.Amount).GreaterThan(t.txs[t.targets[i]].Amount):
				continue // no bank takes back more than was paid
			}
			all = append(all, step{tx: i, typ: tx.Type, to: to})
			if i == 0 && to == Pending {
				all = append(all, step{tx: i, typ: tx.Type, to: to, redirect: true})
			}
		}
		if tx.Status == Succeeded {
			all = append(all, t.beginnings(i, tx, amounts)...)
		}
	}
	return all
}

// lostOf is how much of a transaction was charged back.
func (t tale) lostOf(target int) decimal.Decimal {
	sum := decimal.Zero
	for i, tx := range t.txs {
		if tx.Type == Chargeback && tx.Status == Lost && t.targets[i] == target {
			sum = sum.Add(tx.Amount)
		}
	}
	return sum
}

// beginnings are the actions and disputes that may begin on a transaction that has
// succeeded: what the code says before it asks the database.
func (t tale) beginnings(target int, g Transaction, amounts []int64) []step {
	var all []step
	may := func(typ Type, amount int64) {
		a := Action{Type: typ, Amount: decimal.NewFromInt(amount)}
		if a.settle(t.p, g) == nil {
			all = append(all, step{tx: len(t.txs), typ: typ, target: target, amount: amount, to: Created})
		}
	}
	for _, amount := range amounts {
		may(Capture, amount)
		may(Cancel, amount)
		may(Refund, amount)
		value := decimal.NewFromInt(amount)
		if !g.refundable() || value.GreaterThan(g.Amount) {
			continue
		}
		for _, to := range Moves[Chargeback][Unborn] {
			if to != Lost || !t.lostOf(target).Add(value).GreaterThan(g.Amount) {
				all = append(all, step{tx: len(t.txs), typ: Chargeback, target: target, amount: amount, to: to})
			}
		}
	}
	return all
}

// key is the same for tales that have the same future.
func (t tale) key() string {
	var parts []string
	for i, tx := range t.txs {
		g := t.targets[i]
		parts = append(parts, fmt.Sprint(tx.Type, tx.Status, tx.Amount, t.txs[g].Type, t.txs[g].Amount, t.txs[g].Refunded, t.txs[g].RefundPending, tx.RedirectURL != ""))
	}
	slices.Sort(parts)
	return t.p.state().String() + " " + strings.Join(parts, ",")
}

// problem says what is wrong with a tale's payment, or nothing: its sums are worked out
// anew, its status by the sums, and the database's constraints are repeated in Go.
func (t tale) problem() string {
	var want Sums
	for _, tx := range t.txs {
		open, done := !tx.Status.Terminal() && tx.Status != Unborn, tx.Status == Succeeded
		add := func(pending, sum *decimal.Decimal) {
			if open {
				*pending = pending.Add(tx.Amount)
			}
			if done {
				*sum = sum.Add(tx.Amount)
			}
		}
		var nothing decimal.Decimal
		switch tx.Type {
		case Purchase:
			add(&want.AuthorizePending, &want.Authorized)
			add(&want.SettlePending, &want.Settled)
		case Authorize:
			add(&want.AuthorizePending, &want.Authorized)
		case Verify: // moves nothing
		case Capture:
			add(&want.SettlePending, &want.Settled)
			add(&nothing, &want.Captured)
		case Cancel:
			add(&want.CancelPending, &want.Canceled)
		case Refund:
			add(&want.RefundPending, &want.Refunded)
		case Chargeback:
			if tx.Status == Lost {
				want.ChargedBack = want.ChargedBack.Add(tx.Amount)
			}
		}
	}
	s, first := t.p.Sums, t.txs[0]
	// An expired authorization is worth what a declined one is.
	expected := want.standing(t.waits(-1))
	if first.Status != Succeeded || first.Type == Verify {
		expected = t.p.began(first.Type, first.Status, first.RedirectURL)
		if first.Status == Created {
			expected = Unconfirmed
		}
	}
	switch {
	case fmt.Sprint(s) != fmt.Sprint(want):
		return fmt.Sprintf("its sums are %v, its transactions add up to %v", s, want)
	case t.p.state() != expected:
		return fmt.Sprintf("it is %s, by its sums it is %s", t.p.state(), expected)
	case t.p.Version != t.told:
		return fmt.Sprintf("it has version %d after %d events", t.p.Version, t.told)
	}
	return constraintsOf(t)
}

// constraintsOf names the constraint of the database that a tale breaks.
func constraintsOf(t tale) string {
	s := t.p.Sums
	for name, d := range map[string]decimal.Decimal{
		"authorized": s.Authorized, "authorize_pending": s.AuthorizePending, "settled": s.Settled, "settle_pending": s.SettlePending, "captured": s.Captured,
		"refunded": s.Refunded, "refund_pending": s.RefundPending, "canceled": s.Canceled, "cancel_pending": s.CancelPending, "charged_back": s.ChargedBack,
	} {
		if d.IsNegative() {
			return "payments_no_negative_sum: " + name
		}
	}
	switch {
	case s.Authorized.Add(s.AuthorizePending).GreaterThan(t.p.Amount):
		return "payments_authorized_within_amount"
	case decimal.Sum(s.Settled, s.SettlePending, s.Canceled, s.CancelPending).GreaterThan(s.Authorized.Add(s.AuthorizePending)):
		return "payments_settled_or_canceled_within_authorized"
	case s.Captured.GreaterThan(s.Settled):
		return "payments_captured_within_settled"
	case s.Refunded.Add(s.RefundPending).GreaterThan(s.Settled):
		return "payments_refunded_within_settled"
	case s.ChargedBack.GreaterThan(s.Settled):
		return "payments_charged_back_within_settled"
	case s.Canceled.Add(s.CancelPending).IsPositive() && s.Settled.Add(s.SettlePending).IsPositive():
		return "captured and cancelled"
	}
	for _, tx := range t.txs {
		if tx.Refunded.IsNegative() || tx.RefundPending.IsNegative() || tx.Refunded.Add(tx.RefundPending).GreaterThan(tx.Amount) {
			return "transactions_refunded_within_amount"
		}
	}
	return ""
}

// paymentMove is a change of a payment's status.
type paymentMove struct{ from, to PaymentStatus }

func (m paymentMove) String() string { return m.from.String() + " -> " + m.to.String() }

// exploration is what is learnt from every history of a payment of 3.
type exploration struct {
	shortest   map[paymentMove]tale            // to each move that a payment makes
	causes     map[paymentMove]map[string]bool // which transactions' moves make it
	illegal    map[string]error                // the shortest, for each move that the code refuses
	problems   []string
	situations int
}

// exploredTransactions is how many transactions a payment has in these histories. Two of
// the moves need four; a fifth takes twenty times as long, and leads to no other move.
const exploredTransactions = 4

// explore follows every history, the shortest first, once for all tests.
var explore = sync.OnceValue(func() exploration {
	x := exploration{shortest: map[paymentMove]tale{}, causes: map[paymentMove]map[string]bool{}, illegal: map[string]error{}}
	seen := map[string]bool{}
	for next := []tale{begun(Purchase, 3), begun(Authorize, 3), begun(Verify, 0)}; len(next) > 0; {
		now := next
		next = nil
		for _, before := range now {
			for _, s := range before.options([]int64{1, 2, 3}) {
				if s.tx >= exploredTransactions {
					continue
				}
				after, err := before.after(s)
				if err != nil {
					x.refused(before, s, err)
					continue
				}
				x.learn(before, after, s)
				if key := after.key(); !seen[key] {
					seen[key] = true
					next = append(next, after)
				}
			}
		}
	}
	x.situations = len(seen)
	return x
})

func (x *exploration) refused(before tale, s step, err error) {
	if move := before.p.state().String() + " " + string(s.typ) + " " + string(s.to); x.illegal[move] == nil {
		x.illegal[move] = err
	}
}

func (x *exploration) learn(before, after tale, s step) {
	if wrong := after.problem(); wrong != "" {
		x.problems = append(x.problems, after.String()+": "+wrong)
	}
	m := paymentMove{before.p.state(), after.p.state()}
	if m.from == m.to {
		return
	}
	if _, known := x.shortest[m]; !known {
		x.shortest[m], x.causes[m] = after, map[string]bool{}
	}
	x.causes[m][string(s.typ)+" "+string(s.to)] = true
}

// TestEveryLegalMoveOfAPaymentIsReachedAndNoOther: what PaymentMoves has, some history
// needs; and no history needs more.
func TestEveryLegalMoveOfAPaymentIsReachedAndNoOther(t *testing.T) {
	t.Parallel()
	x := explore()
	for _, err := range x.illegal {
		t.Errorf("a legal history leads to an illegal move: %v", err)
	}
	for _, problem := range x.problems {
		t.Error(problem)
	}
	for from, all := range PaymentMoves {
		for _, to := range all {
			if _, reached := x.shortest[paymentMove{from, to}]; !reached {
				t.Errorf("no history leads from %s to %s", from, to)
			}
		}
	}
	for m, after := range x.shortest {
		if !slices.Contains(PaymentMoves[m.from], m.to) {
			t.Errorf("%s is not in PaymentMoves: %s", m, after)
		}
	}
	t.Logf("%d situations, %d moves", x.situations, len(x.shortest))
}

// TestLongHistoriesKeepTheRules: any amounts, and many transactions at once, that end in any
// order.
func TestLongHistoriesKeepTheRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		value := rapid.Int64Range(1, 50).Draw(rt, "amount")
		now := begun(rapid.SampledFrom([]Type{Purchase, Authorize}).Draw(rt, "type"), value)
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			now = now.randomly(rt)
		}
	})
}

// randomly is t after some step, or t, if its story is over.
func (t tale) randomly(rt *rapid.T) tale {
	whole := t.txs[0].Amount.IntPart()
	all := t.options([]int64{whole, rapid.Int64Range(1, whole).Draw(rt, "some"), rapid.Int64Range(1, whole).Draw(rt, "more")})
	if len(all) == 0 {
		return t
	}
	types := map[Type]bool{}
	for _, s := range all {
		types[s.typ] = true
	}
	typ := rapid.SampledFrom(slices.Sorted(maps.Keys(types))).Draw(rt, "type") // else most of it would be disputes
	all = slices.DeleteFunc(all, func(s step) bool { return s.typ != typ })
	next, err := t.after(rapid.SampledFrom(all).Draw(rt, "step"))
	if err != nil {
		rt.Fatalf("a legal history leads to an illegal move: %v", err)
	}
	if wrong := next.problem(); wrong != "" {
		rt.Fatalf("%s: %s", next, wrong)
	}
	return next
}

// TestLongHistoriesHappenInTheDatabase: some of them. What the rules alone say is what is
// stored, after each step.
func TestLongHistoriesHappenInTheDatabase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := 0
	histories := rapid.Custom(func(rt *rapid.T) tale {
		now := begun(rapid.SampledFrom([]Type{Purchase, Authorize}).Draw(rt, "type"), rapid.Int64Range(2, 9).Draw(rt, "amount"))
		now, _ = now.after(step{typ: now.txs[0].Type, to: Succeeded}) // else most are over at once
		for range 25 {
			now = now.randomly(rt)
		}
		return now
	})
	for seed := range longHistories {
		n++
		w.perform(fmt.Sprintf("long-%d", n), histories.Example(seed))
	}
	w.wantInvariants()
}

// longHistories take a second together.
const longHistories = 40

// everyStatus are all that a transaction of any type may have.
func everyStatus() []Status {
	known := map[Status]bool{Unborn: true}
	for _, table := range Moves {
		for from, all := range table {
			known[from] = true
			for _, to := range all {
				known[to] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(known))
}

var everyType = []Type{Purchase, Authorize, Verify, Capture, Cancel, Refund, Chargeback}

// routeTo is the shortest history to a transaction of that type and status, which is then
// the last one of it.
func routeTo(typ Type, status Status) (tale, bool) {
	var found tale
	amount := int64(3)
	var begin []tale
	switch typ {
	case Verify:
		begin = []tale{begun(Verify, 0)}
	case Purchase, Authorize:
		begin = []tale{begun(typ, amount)}
	case Capture, Cancel:
		begin = []tale{begun(Authorize, amount)}
	case Refund, Chargeback:
		begin = []tale{begun(Purchase, amount)}
	}
	seen := map[string]bool{}
	for len(begin) > 0 {
		now := begin[0]
		begin = begin[1:]
		if last := now.txs[len(now.txs)-1]; last.Type == typ && last.Status == status {
			return now, true
		}
		for _, s := range now.options([]int64{amount}) {
			next, err := now.after(s)
			if s.tx > 1 || err != nil || seen[next.key()] {
				continue
			}
			seen[next.key()] = true
			begin = append(begin, next)
		}
	}
	return found, false
}

// TestEveryPairOfStatusesByTheRules asks Payment.after about every status that a
// transaction of every type may have, and every other one.
func TestEveryPairOfStatusesByTheRules(t *testing.T) {
	t.Parallel()
	tried := 0
	for _, typ := range everyType {
		for _, from := range everyStatus() {
			at, reachable := routeTo(typ, from)
			if legal := len(Moves[typ][from]) > 0 || from.Terminal() && slices.ContainsFunc(slices.Collect(maps.Values(Moves[typ])), func(all []Status) bool {
				return slices.Contains(all, from)
			}); reachable != (legal && from != Unborn) {
				t.Errorf("%s %q: reachable is %v", typ, from, reachable)
			}
			if !reachable {
				continue
			}
			i := len(at.txs) - 1
			for _, to := range everyStatus() {
				tried++
				after, err := at.p.after(at.txs[i], to, at.waits(i))
				legal := slices.Contains(Moves[typ][from], to)
				switch {
				case to == from:
					if err != nil || after != at.p {
						t.Errorf("%s stays %s: %v, error %v", typ, from, after, err)
					}
				case legal != (err == nil):
					t.Errorf("%s from %s to %q: error %v", typ, from, to, err)
				case !legal && after != at.p:
					t.Errorf("%s from %s to %q is illegal, and changed the payment", typ, from, to)
				}
			}
		}
	}
	t.Logf("%d pairs", tried)
}

// play is a tale as it happens in the database.
type play struct {
	w    *world
	name string
	txs  []Transaction
	runs []*run // whoever holds each; nil where nobody does
}

// results are a provider's words for each status.
var results = map[Status]providers.Result{
	Pending:   {Outcome: providers.Pending},
	Succeeded: {Outcome: providers.Approved, ResponseCode: "SUCCEEDED"},
	Declined:  {Outcome: providers.Declined, ResponseCode: "INSUFFICIENT_FUNDS"},
	Rejected:  {Outcome: providers.Declined, ResponseCode: "INVALID_REQUEST"},
	Errored:   {Outcome: providers.Declined, ResponseCode: "PROVIDER_ERROR"},
	Expired:   {Outcome: providers.Voided},
}

// stagesOf are a provider's words for each status of a dispute.
var stagesOf = map[Status]providers.DisputeStage{
	Created: providers.DisputeReceived, Pending: providers.DisputePending, Won: providers.DisputeWon, Lost: providers.DisputeLost,
}

// perform lets a tale happen in the database, and fails the test unless the payment is what
// the tale says after each step. Nobody sends anything: each transaction is held by
// whoever began it, and ended by what a provider would have said.
func (w *world) perform(name string, t tale) *play {
	w.t.Helper()
	p := &play{w: w, name: name}
	now := begun(t.txs[0].Type, t.steps[0].amount)
	p.begin(now.txs[0])
	p.compare(now)
	for _, s := range t.steps[1:] {
		next, err := now.after(s)
		if err != nil {
			w.t.Fatal(err)
		}
		now = next
		p.take(s)
		p.compare(now)
	}
	return p
}

// begin makes the payment.
func (p *play) begin(first Transaction) {
	p.w.t.Helper()
	changes := map[string]any{"amount": first.Amount, "capture": first.Type == Purchase}
	body := p.w.body("order-"+p.name, changes)
	if first.Type == Verify {
		body = []byte(strings.Replace(string(body), `"capture":false`, `"verify":true`, 1))
	}
	cmd := p.w.command(p.w.instance, p.name+"-0", body)
	r, err := p.w.service.begin(p.w.t.Context(), cmd, p.w.psp)
	if err != nil || r == nil || r.tx.Type != first.Type {
		p.w.t.Fatalf("%s could not begin: %v", p.name, err)
	}
	p.txs, p.runs = append(p.txs, r.tx), append(p.runs, r)
}

// take takes one step.
func (p *play) take(s step) {
	p.w.t.Helper()
	ctx := p.w.t.Context()
	switch {
	case s.typ == Chargeback:
		p.dispute(s)
		return
	case s.tx == len(p.txs):
		p.act(s)
		return
	case s.typ == Authorize && p.txs[s.tx].Status == Succeeded:
		p.w.sql(`UPDATE authorizations SET expires_at = clock_timestamp() - interval '1 second' WHERE payment_id = $1`, p.txs[0].PaymentID)
		if _, err := p.w.service.Expire(ctx); err != nil {
			p.w.t.Fatal(err)
		}
		p.refresh(s.tx)
		return
	}
	r := p.runs[s.tx]
	if p.txs[s.tx].Status == Pending { // the first holder is done with it
		var err error
		if r, err = p.w.service.takeOver(ctx, p.txs[s.tx], p.w.psp, byPerson); err != nil || r == nil {
			p.w.t.Fatalf("%s: nobody could take %s over: %v", p.name, p.txs[s.tx].ID, err)
		}
	}
	result := results[s.to]
	if s.redirect {
		result.RedirectURL = "https://bank.example/challenge"
	}
	if _, err := p.w.service.answer(ctx, r, result, "provider", resolution{}); err != nil {
		p.w.t.Fatalf("%s: %s: %v", p.name, s, err)
	}
	p.refresh(s.tx)
}

// act begins an action.
func (p *play) act(s step) {
	p.w.t.Helper()
	route := map[Type]Route{Capture: RouteCapture, Cancel: RouteCancel, Refund: RouteRefund}[s.typ]
	target := p.txs[s.target]
	nonce := fmt.Sprintf("%s-%d", p.name, s.tx)
	a := Action{
		Route: route, Type: s.typ, PaymentID: target.PaymentID, TargetID: target.ID, Amount: decimal.NewFromInt(s.amount),
		MerchantReference: "reference-1", Reason: "REQUESTED_BY_CUSTOMER",
	}
	policy := p.w.service.policies.Of(idem.DefaultPolicy)
	r, refused, err := p.w.service.beginAction(p.w.t.Context(), Command{
		AccountID: p.w.account, Mode: target.Mode, Policy: policy, Key: key(policy, nonce),
		Operation: "POST " + string(route) + " " + target.ID.String(), Print: p.w.service.prints.Of("", "", nonce, jsontree.Value{}), Action: &a, ArrivedAt: time.Now(),
	})
	if err != nil || refused != nil || r == nil {
		p.w.t.Fatalf("%s: %s could not begin: refused %v, error %v", p.name, s, refused, err)
	}
	p.txs, p.runs = append(p.txs, r.tx), append(p.runs, r)
}

// dispute takes one step of a dispute.
func (p *play) dispute(s step) {
	p.w.t.Helper()
	target, amount := s.target, decimal.NewFromInt(s.amount)
	if s.tx < len(p.txs) {
		target, amount = p.indexOf(p.txs[s.tx].TargetID.UUID), p.txs[s.tx].Amount
	}
	id := fmt.Sprintf("dispute-%s-%d", p.name, s.tx)
	heard, err := p.w.service.dispute(p.w.t.Context(), p.txs[target], providers.Callback{
		ID: id + string(s.to), Dispute: &providers.Dispute{ID: id, Stage: stagesOf[s.to], Amount: amount, Currency: p.txs[target].Currency},
	})
	if err != nil || heard != HeardApplied {
		p.w.t.Fatalf("%s: %s was %s: %v", p.name, s, heard, err)
	}
	if s.tx == len(p.txs) {
		p.txs, p.runs = append(p.txs, Transaction{AccountID: p.w.account, ID: disputeID(p.txs[target], id)}), append(p.runs, nil)
	}
	p.refresh(s.tx)
}

func (p *play) indexOf(id uuid.UUID) int {
	return slices.IndexFunc(p.txs, func(t Transaction) bool { return t.ID == id })
}

// refresh reads a transaction as it is now.
func (p *play) refresh(i int) {
	p.w.t.Helper()
	tx, found, err := p.w.service.store.transaction(p.w.t.Context(), p.w.account, p.txs[i].ID)
	if err != nil || !found {
		p.w.t.Fatalf("%s: transaction %d: %v", p.name, i, err)
	}
	p.txs[i] = tx
}

// compare fails the test unless payment and transactions are what a tale says.
func (p *play) compare(t tale) {
	p.w.t.Helper()
	got, err := p.w.service.store.payment(p.w.t.Context(), p.w.account, p.txs[0].PaymentID)
	if err != nil {
		p.w.t.Fatal(err)
	}
	if got.state() != t.p.state() || got.Version != t.p.Version || sums(got) != sums(t.p) {
		p.w.t.Fatalf("%s: %s\nthe payment is %s, version %d, %s\nwant           %s, version %d, %s",
			p.name, t, got.state(), got.Version, sums(got), t.p.state(), t.p.Version, sums(t.p))
	}
	for i, want := range t.txs {
		p.refresh(i)
		tx := p.txs[i]
		if tx.Status != want.Status || !tx.Refunded.Equal(want.Refunded) || !tx.RefundPending.Equal(want.RefundPending) {
			p.w.t.Fatalf("%s: %s\ntransaction %d is %s, refunded %s and %s; want %s, %s and %s",
				p.name, t, i, tx.Status, tx.Refunded, tx.RefundPending, want.Status, want.Refunded, want.RefundPending)
		}
	}
}

// sums are a payment's as text.
func sums(p Payment) string {
	s := p.Sums
	return fmt.Sprintf("authorized %s+%s settled %s+%s captured %s refunded %s+%s canceled %s+%s charged back %s",
		s.Authorized, s.AuthorizePending, s.Settled, s.SettlePending, s.Captured, s.Refunded, s.RefundPending, s.Canceled, s.CancelPending, s.ChargedBack)
}

// TestEveryLegalMoveOfAPaymentHappensInTheDatabase plays the shortest history to each move
// that PaymentMoves has. None of them is proved by the table alone.
func TestEveryLegalMoveOfAPaymentHappensInTheDatabase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	found := explore().shortest
	n := 0
	for _, m := range slices.SortedFunc(maps.Keys(found), func(a, b paymentMove) int { return cmp.Compare(a.String(), b.String()) }) {
		n++
		w.perform(fmt.Sprintf("move-%d", n), found[m])
	}
	w.wantInvariants()
	t.Logf("%d moves", n)
}

// TestEveryPairOfStatusesInTheDatabase asks finish for every status that a real transaction
// of every type may get, from every one that it may have. What the table lacks changes
// nothing at all.
func TestEveryPairOfStatusesInTheDatabase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tried := 0
	for _, typ := range everyType {
		for _, from := range everyStatus() {
			at, reachable := routeTo(typ, from)
			if !reachable {
				continue
			}
			i := len(at.txs) - 1
			for _, to := range everyStatus() {
				if to == Unborn {
					continue // no statement writes that: transactions_status_known
				}
				tried++
				name := fmt.Sprintf("%s-%s-%s", typ, from, to)
				p := w.perform(name, at)
				if slices.Contains(Moves[typ][from], to) {
					s := step{tx: i, typ: typ, to: to}
					next, err := at.after(s)
					if err != nil {
						t.Fatal(err)
					}
					p.take(s)
					p.compare(next)
				} else {
					p.refuses(i, to)
				}
			}
		}
	}
	w.wantInvariants()
	t.Logf("%d pairs", tried)
}

// refuses fails the test unless a finish, and for a dispute a message, that asks for that
// status leaves the payment and all that belongs to it as they are.
func (p *play) refuses(i int, to Status) {
	p.w.t.Helper()
	before, tx := p.rows(), p.txs[i]
	payment, err := p.w.service.store.payment(p.w.t.Context(), p.w.account, tx.PaymentID)
	if err != nil {
		p.w.t.Fatal(err)
	}
	if tx.Status != to || tx.Status.Terminal() { // to be pending for longer is nothing new, but not nothing
		matched, told, err := p.w.service.store.finish(p.w.t.Context(), tx, payment, ending{status: to, at: time.Now(), cause: "provider"})
		if matched || told != nil || (err == nil) != (tx.LeaseUntil == nil) {
			p.w.t.Errorf("%s: finish says %v, %v, %v", p.name, matched, told, err)
		}
	}
	if stage, ok := stagesOf[to]; ok && tx.Type == Chargeback {
		target := p.txs[p.indexOf(tx.TargetID.UUID)]
		id := tx.ProviderReference
		heard, err := p.w.service.dispute(p.w.t.Context(), target, providers.Callback{
			ID: "again-" + p.name, Dispute: &providers.Dispute{ID: id, Stage: stage, Amount: tx.Amount, Currency: tx.Currency},
		})
		if err != nil || heard != HeardKnown && heard != HeardContradicts {
			p.w.t.Errorf("%s: the message was %s, error %v", p.name, heard, err)
		}
	}
	if after := p.rows(); after != before {
		p.w.t.Errorf("%s: %s\nbecame %s", p.name, before, after)
	}
}

// rows is all that is stored about a payment, as text.
func (p *play) rows() string {
	p.w.t.Helper()
	var all string
	err := p.w.owner().Conn(p.w.t.Context()).Raw(`SELECT concat_ws(E'\n',
		(SELECT p::text FROM payments p WHERE p.id = $1),
		(SELECT string_agg(t::text, E'\n' ORDER BY t.id) FROM transactions t WHERE t.payment_id = $1),
		(SELECT string_agg(e::text, E'\n' ORDER BY e.seq) FROM events e WHERE e.payment_id = $1),
		(SELECT string_agg(a::text, E'\n') FROM authorizations a WHERE a.payment_id = $1),
		(SELECT string_agg(k::text, E'\n' ORDER BY k.key_id) FROM idempotency_keys k JOIN transactions t ON t.id = k.transaction_id WHERE t.payment_id = $1))`,
		p.txs[0].PaymentID).Row().Scan(&all)
	if err != nil {
		p.w.t.Fatal(err)
	}
	return all
}
