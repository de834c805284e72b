package transactions

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/shopspring/decimal"
	"pgregory.net/rapid"
)

// row is all that is stored about one transaction and the life it belongs to.
type row struct {
	ID               string
	Nonce            string
	Type             Type
	Status           Status
	Amount           decimal.Decimal
	Fence            int64
	LeaseUntil       *time.Time
	MaySendUntil     time.Time
	NextAttemptAt    time.Time
	CreatedAt        time.Time
	ParkedAt         *time.Time
	Attempts         int
	ResendRefused    bool
	Released         bool
	UpdatedAt        time.Time
	Payment          string
	Version          int64
	Authorized       decimal.Decimal
	AuthorizePending decimal.Decimal
	Settled          decimal.Decimal
	SettlePending    decimal.Decimal
	HasKey           bool
	AnswerStatus     *int
	AnswerBody       []byte
	ExpiresAt        *time.Time
	Instance         uuid.UUID
	TakenBy          string // last, if it was taken over
	Events           string
	Resolved         string
}

const sqlModelRows = `SELECT t.id::text, t.nonce, t.type, t.status, t.amount::text, t.fence, t.lease_until, t.may_send_until, t.next_attempt_at,
    t.created_at, t.parked_at, t.attempts, t.resend_refused, t.released, t.updated_at, p.status || '/' || p.sub_status, p.version,
    p.authorized::text, p.authorize_pending::text, p.settled::text, p.settle_pending::text,
    k.transaction_id IS NOT NULL, k.response_status, k.response_body, k.expires_at, t.instance_id,
    coalesce((SELECT o.taken_by FROM takeovers o WHERE o.account_id = t.account_id AND o.transaction_id = t.id ORDER BY o.fence DESC LIMIT 1), ''),
    coalesce((SELECT string_agg(e.seq || ' ' || e.status || '/' || e.sub_status, ', ' ORDER BY e.seq) FROM events e
              WHERE e.account_id = p.account_id AND e.payment_id = p.id), ''),
    coalesce((SELECT string_agg(r.outcome, ', ') FROM resolutions r WHERE r.account_id = t.account_id AND r.transaction_id = t.id), '')
FROM transactions t
JOIN payments p ON p.account_id = t.account_id AND p.id = t.payment_id
LEFT JOIN idempotency_keys k ON k.account_id = t.account_id AND k.mode = t.mode AND k.key_id = t.nonce AND k.transaction_id = t.id
WHERE t.account_id = $1 ORDER BY t.id`

// life is one life of a nonce, as far as the model has seen it.
type life struct {
	ref   string
	name  string // the nonce and which of its lives: a1
	nonce *nonce
	row   row

	// In the model's time.
	created, next, leaseUntil, maySendUntil, expires time.Duration

	answer   *told // what is stored, once something is
	terminal *row  // how it ended
	ended    time.Duration
	fresh    bool // it has just ended

	// In the drain.
	mayStayParked bool
	deadline      time.Duration
}

// proof is the moment after which an inquiry proves something.
func (l *life) proof() time.Duration { return l.maySendUntil + modelTimeout + modelSettle }

func (m *model) nameOf(ref string) string {
	if l := m.lives[ref]; l != nil {
		return l.name
	}
	return "?"
}

// unresolved are the lives without an outcome, the oldest first.
func (m *model) unresolved() []*life {
	var open []*life
	for _, l := range m.order {
		if l.terminal == nil {
			open = append(open, l)
		}
	}
	return open
}

// soonest is when recovery looks at the first of them.
func soonest(open []*life) time.Duration {
	next := open[0].next
	for _, l := range open {
		next = min(next, l.next)
	}
	return next
}

// check holds everything against the promises, and against what was seen before.
func (m *model) check(rt *rapid.T) {
	m.rt = rt
	m.pass(0)
	m.read()
	if m.spring() {
		m.pass(0)
		m.read()
	}
	if m.bank.fault != "" {
		rt.Fatalf("SEND: %s", m.bank.fault)
	}
	for _, l := range m.order {
		m.checkMoney(l)
		m.checkRow(l)
		m.checkKey(l)
	}
	for _, a := range m.actors {
		if a.ended && a.told != nil && !a.died {
			m.checkTold(a.told)
		}
	}
	m.actors = slices.DeleteFunc(m.actors, func(a *actor) bool { return a.ended })
}

// read takes in what the database says now.
func (m *model) read() {
	rows, err := m.stage.side.Query(context.Background(), sqlModelRows, m.account)
	if err != nil {
		m.rt.Fatalf("read the rows: %v", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	if err != nil {
		m.rt.Fatalf("read the rows: %v", err)
	}
	for _, r := range all {
		l := m.lives[r.ID]
		if l == nil {
			l = m.newLife(r)
		} else {
			m.checkFence(l, r)
		}
		m.follow(l, r)
	}
	if len(all) != len(m.order) {
		m.rt.Fatalf("LIFE: a transaction has gone")
	}
}

// checkFence holds who became the holder since the last look against who might.
func (m *model) checkFence(l *life, r row) {
	switch {
	case r.Fence < l.row.Fence:
		m.rt.Fatalf("FENCE: that of %s went back", l.name)
	case r.Fence == l.row.Fence || l.terminal != nil:
	case r.ParkedAt != nil && l.row.ParkedAt == nil: // by its own holder, which moves the fence
	case l.row.Status == Pending && r.TakenBy == string(byPerson): // nobody's work in progress
	case l.leaseUntil > m.now()+edge && m.beats[l.row.Instance]:
		m.rt.Fatalf("FENCE: %s was taken over while its holder's lease ran", l.name)
	case l.row.ParkedAt != nil && r.TakenBy == string(byRequest):
		m.rt.Fatalf("FENCE: %s is parked, and a request took it over", l.name)
	}
}

// newLife meets a transaction for the first time. A nonce may live again only
// after its life before has expired or was released.
func (m *model) newLife(r row) *life {
	i := slices.IndexFunc(m.nonces, func(n *nonce) bool { return n.name == r.Nonce })
	n := m.nonces[i]
	l := &life{ref: r.ID, name: fmt.Sprintf("%s%d", n.name, len(n.lives)+1), nonce: n}
	if before := n.last(); before != nil {
		if before.terminal == nil {
			m.rt.Fatalf("LIFE: %s began while %s is unresolved", l.name, before.name)
		}
		if !before.row.Released && m.now() < before.expires-edge {
			m.rt.Fatalf("LIFE: %s began while %s has an answer that has not expired", l.name, before.name)
		}
		m.stage.note("a nonce lives again")
	}
	n.lives = append(n.lives, l)
	m.lives[r.ID] = l
	m.order = append(m.order, l)
	return l
}

// follow brings a life up to date.
func (m *model) follow(l *life, r row) {
	since := func(t time.Time) time.Duration { return m.now() + t.Sub(m.anchor) }
	until := since(r.MaySendUntil)
	// The database's clock runs on while the model's stands still, and a loaded machine
	// makes that seconds: a lowering worth the name is larger.
	if l.row.ID != "" && until < l.maySendUntil-10*time.Second {
		m.rt.Fatalf("FENCE: may_send_until of %s was lowered", l.name)
	}
	l.created, l.next, l.maySendUntil = since(r.CreatedAt), since(r.NextAttemptAt), until
	if r.LeaseUntil != nil {
		l.leaseUntil = since(*r.LeaseUntil)
	}
	if r.ExpiresAt != nil {
		l.expires = since(*r.ExpiresAt)
	}
	if r.ResendRefused && !l.row.ResendRefused {
		m.bank.of(l.ref).refusedIn = m.stage.step
	}
	if r.ParkedAt != nil && l.row.ParkedAt == nil {
		m.stage.note("parked")
		if m.bank.traits.Queryable && m.now() < l.proof()-edge {
			m.rt.Fatalf("PARKED: %s before its proof moment", l.name)
		}
	}
	if l.terminal == nil && r.Status.Terminal() {
		l.terminal, l.fresh, l.ended = &r, true, m.now()
		m.bank.of(l.ref).byPerson = r.Resolved == "failed"
		m.stage.note(fmt.Sprintf("ended %s, released=%t, later attempt=%t", r.Status, r.Released, r.Fence > 1))
	}
	l.row = r
}

// spring lets everything arrive that may still arrive at a reference which has
// just been given up, and wakes some of those who still work on a transaction that
// has just ended. That is what an adversary would do who wants us to be wrong.
func (m *model) spring() (sprung bool) {
	for _, l := range m.order {
		if !l.fresh {
			continue
		}
		l.fresh = false
		for i := len(m.bank.underway()) - 1; i >= 0 && l.row.Status != Succeeded; i-- {
			if m.bank.transit[i].charge.Reference == l.ref {
				m.say("a late send for %s arrives now", l.name)
				m.bank.deliver(i, books)
				sprung = true
			}
		}
		for _, h := range m.stage.stopped() {
			if (h.ref == l.ref || h.actor.nonce == l.nonce && !h.at.atProvider()) && rapid.Bool().Draw(m.rt, "wakes") {
				m.say("%d: wakes %s", h.actor.id, h.at)
				m.stage.free(h, plan{}, false)
				m.rest()
				sprung = true
			}
		}
	}
	return sprung
}

// checkMoney holds the provider's books against our record.
func (m *model) checkMoney(l *life) {
	charges := m.bank.of(l.ref).charges
	if len(charges) > 1 {
		m.rt.Fatalf("MONEY: %s was charged %d times", l.name, len(charges))
	}
	for _, sum := range charges {
		if !sum.Equal(l.row.Amount) {
			m.rt.Fatalf("MONEY: %s was charged %s instead of %s", l.name, sum, l.row.Amount)
		}
	}
	switch {
	case l.terminal == nil:
	case l.row.Status != Succeeded && len(charges) > 0:
		m.rt.Fatalf("MONEY: %s is %s and was charged", l.name, l.row.Status)
	case l.row.Status == Succeeded && len(charges) == 0 && l.row.Resolved != "succeeded":
		m.rt.Fatalf("MONEY: %s has SUCCEEDED and was not charged", l.name)
	}
}

// checkRow holds one life's rows against each other, and against how it ended.
func (m *model) checkRow(l *life) {
	r := l.row
	if (r.LeaseUntil == nil) != r.Status.Terminal() {
		m.rt.Fatalf("ROW: %s is %s with lease %v", l.name, r.Status, r.LeaseUntil)
	}
	want := struct {
		payment                    string
		version                    int64
		events                     string
		authorized, pending        decimal.Decimal
		settled, pendingSettlement decimal.Decimal
	}{payment: Unconfirmed.Status + "/" + Unconfirmed.Sub, pending: r.Amount}
	if r.Type == Purchase {
		want.pendingSettlement = r.Amount
	}
	if r.Status.Terminal() {
		p := Payment{}.began(r.Type, r.Status, "")
		want.payment, want.version, want.events = p.Status+"/"+p.Sub, 1, "1 "+p.Status+"/"+p.Sub
		if r.Status == Succeeded {
			want.authorized, want.settled = want.pending, want.pendingSettlement
		}
		want.pending, want.pendingSettlement = decimal.Zero, decimal.Zero
	}
	switch {
	case r.Payment != want.payment || r.Version != want.version:
		m.rt.Fatalf("ROW: %s is %s, its payment %s, version %d", l.name, r.Status, r.Payment, r.Version)
	case r.Events != want.events:
		m.rt.Fatalf("EVENTS: %s is %s with events %q", l.name, r.Status, r.Events)
	case !r.Authorized.Equal(want.authorized), !r.AuthorizePending.Equal(want.pending),
		!r.Settled.Equal(want.settled), !r.SettlePending.Equal(want.pendingSettlement):
		m.rt.Fatalf("RESERVED: %s is %s %s of %s with authorized %s + %s, settled %s + %s", l.name, r.Type, r.Status, r.Amount,
			r.Authorized, r.AuthorizePending, r.Settled, r.SettlePending)
	}
	if l.terminal != nil {
		t := l.terminal
		if r.Status != t.Status || r.Fence != t.Fence || r.Released != t.Released || !r.UpdatedAt.Equal(t.UpdatedAt) || r.Resolved != t.Resolved {
			m.rt.Fatalf("ROW: %s was changed after it had ended", l.name)
		}
	}
}

// checkKey holds the nonce's record against the life, and its answer against what
// it was before.
func (m *model) checkKey(l *life) {
	r := l.row
	switch {
	case l.terminal == nil && !r.HasKey:
		m.rt.Fatalf("KEY: %s is unresolved and its nonce is free", l.name)
	case r.Released && (r.HasKey || l.answer != nil || r.Status == Succeeded || r.Status == Declined):
		m.rt.Fatalf("KEY: %s was released and has an answer, or a record", l.name)
	case l.terminal != nil && !r.Released && m.now() < l.expires-edge && r.AnswerStatus == nil:
		m.rt.Fatalf("KEY: %s has ended and has no answer", l.name)
	}
	switch {
	case r.AnswerStatus == nil && l.answer != nil && r.HasKey:
		m.rt.Fatalf("ANSWER: that of %s has gone", l.name)
	case r.AnswerStatus == nil:
	case l.answer == nil:
		l.answer = &told{nonce: l.nonce, status: *r.AnswerStatus, body: r.AnswerBody}
		if l.answer.status != 201 && !m.policy.KeepErrors {
			m.rt.Fatalf("ANSWER: %s keeps a %d", l.name, l.answer.status)
		}
	case l.answer.status != *r.AnswerStatus || !bytes.Equal(l.answer.body, r.AnswerBody):
		m.rt.Fatalf("ANSWER: that of %s has changed", l.name)
	}
}

// checkTold holds what a client was told against what is stored.
func (m *model) checkTold(t *told) {
	stored := func(l *life) bool {
		return l.answer != nil && l.answer.status == t.status && bytes.Equal(l.answer.body, t.body)
	}
	m.stage.note(fmt.Sprintf("told %d", t.status))
	switch t.status {
	case 201:
		var body struct {
			Transactions struct{ ID string }
		}
		err := json.Unmarshal(t.body, &body)
		if l := m.lives[body.Transactions.ID]; err != nil || l == nil || l.nonce != t.nonce || !stored(l) {
			m.rt.Fatalf("TOLD: nonce %s was answered with what is not its stored answer", t.nonce.name)
		}
	case 400, 409, 502, 503, 504:
	case 422:
		if m.policy.IgnoreRetryBody {
			m.rt.Fatalf("TOLD: nonce %s was refused for its body", t.nonce.name)
		}
	default:
		m.rt.Fatalf("TOLD: nonce %s was answered with %d", t.nonce.name, t.status)
	}
	if t.replayed && !slices.ContainsFunc(t.nonce.lives, stored) {
		m.rt.Fatalf("TOLD: a replay of nonce %s is not what is stored", t.nonce.name)
	}
}

// drain ends the faults and lets time pass until nothing is due. Whoever stands
// still wakes or has died.
func (m *model) drain() {
	m.say("the faults end")
	m.bank.down = 0
	for hs := m.stage.stopped(); len(hs) > 0; hs = m.stage.stopped() {
		h := hs[rapid.IntRange(0, len(hs)-1).Draw(m.rt, "who")]
		dies := h.at.atProvider() && rapid.Bool().Draw(m.rt, "dies")
		m.say("%d: goes on %s, dies=%t", h.actor.id, h.at, dies)
		m.stage.free(h, plan{}, dies)
		m.rest()
		m.check(m.rt)
	}
	for len(m.bank.underway()) > 0 {
		m.arrival()
	}
	for len(m.bank.undecided()) > 0 {
		m.decision()
	}
	for _, p := range m.procs {
		m.beats[p.service.instance] = true
	}
	m.check(m.rt)
	m.settle(rapid.Bool().Draw(m.rt, "the merchant retries"))
	for _, l := range m.order {
		m.checkEnd(l)
	}
	for _, n := range m.nonces {
		m.checkReplay(n)
		m.checkLookup(n)
	}
}

// settle runs recovery, and perhaps the merchant's retries, until nothing is due.
func (m *model) settle(retries bool) {
	var hopeless []*life
	for _, l := range m.unresolved() {
		m.expect(l, retries)
		if l.mayStayParked {
			hopeless = append(hopeless, l)
		}
	}
	m.tire(hopeless)
	patience := time.Duration(0)
	if retries { // each of them puts recovery off
		patience = m.lease / 4
	}
	for i := range (maxAttempts + 5) * max(1, len(m.unresolved())) {
		open := m.hopeful()
		for _, l := range open {
			if retries && l.row.ParkedAt == nil {
				m.post(l.nonce, l.body(), m.procs[i%2], plan{})
				m.check(m.rt)
			}
		}
		if open = m.hopeful(); len(open) == 0 {
			return
		}
		m.pass(max(0, soonest(open)-m.now(), patience) + edge)
		m.round(m.procs[(i+1)%2], plan{})
		m.check(m.rt)
	}
}

// hopeful are the lives that have not come to their end.
func (m *model) hopeful() []*life {
	return slices.DeleteFunc(m.unresolved(), func(l *life) bool { return l.row.ParkedAt != nil && l.mayStayParked })
}

// expect says how a life has to end once the faults are over. It may stay parked
// only where the provider cannot be asked, nobody has heard its answer, and no
// retry of the merchant's may bring the same reference again (or none gets that
// far, because the policy answers it with the error that it keeps).
func (m *model) expect(l *life, retries bool) {
	t := m.bank.traits
	resend := retries && l.row.Attempts < maxAttempts/2 && !m.policy.KeepErrors && t.Idempotent && t.IdempotentFor == 0 && !l.row.ResendRefused && l.row.ParkedAt == nil
	l.mayStayParked = !t.Queryable && len(m.bank.of(l.ref).heard) == 0 && !resend
	if t.Queryable && l.row.ParkedAt == nil {
		l.deadline = max(l.leaseUntil+grace, l.proof(), l.next, m.now()) + m.lease + (m.now()-l.created)/4 + minPoll
		if retries {
			l.deadline += m.lease / 2
		}
	}
}

// body is which of the nonce's bodies began this life.
func (l *life) body() string {
	if l.row.Amount.Equal(decimal.NewFromInt(99)) {
		return "other"
	}
	return "same"
}

// checkEnd is what must hold of each life once nothing is due.
func (m *model) checkEnd(l *life) {
	switch {
	case l.terminal == nil && l.row.ParkedAt == nil:
		m.rt.Fatalf("END: %s is still unresolved", l.name)
	case l.terminal == nil && len(m.bank.of(l.ref).heard) > 0:
		m.rt.Fatalf("END: %s is parked, although a holder that lived had heard its outcome", l.name)
	case l.terminal == nil && !l.mayStayParked:
		m.rt.Fatalf("END: %s is parked, although its provider could tell", l.name)
	case l.terminal != nil && l.deadline > 0 && l.ended > l.deadline:
		m.rt.Fatalf("END: %s ended %s too late", l.name, l.ended-l.deadline)
	}
}

// checkReplay asks once more for what a nonce was answered.
func (m *model) checkReplay(n *nonce) {
	l := n.last()
	if l == nil || l.answer == nil || m.now() > l.expires-edge {
		return
	}
	t := m.post(n, l.body(), m.procs[0], plan{})
	m.check(m.rt)
	if t.status != l.answer.status || !bytes.Equal(t.body, l.answer.body) {
		m.rt.Fatalf("REPLAY: %s was answered with %d, and now with %d", l.name, l.answer.status, t.status)
	}
}

// checkLookup asks what became of a nonce.
func (m *model) checkLookup(n *nonce) {
	found, err := m.procs[0].service.Lookup(context.Background(), Scope{AccountID: m.account, Mode: "test"}, n.name, uuid.Nil)
	if err != nil || len(found.Lives) != min(len(n.lives), maxLives) {
		m.rt.Fatalf("LOOKUP: nonce %s: %d lives instead of %d, %v", n.name, len(found.Lives), len(n.lives), err)
	}
	for i, f := range found.Lives {
		l := n.lives[len(n.lives)-1-i]
		if f.Transaction.ID != l.ref || f.Transaction.Status != l.row.Status {
			m.rt.Fatalf("LOOKUP: %s is %s and not told so", l.name, l.row.Status)
		}
		if l.terminal != nil && l.row.Resolved == "" && f.Charges != len(m.bank.of(l.ref).charges) {
			m.rt.Fatalf("LOOKUP: %s is told to have %d charges", l.name, f.Charges)
		}
	}
}
