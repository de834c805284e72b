// Package oracle judges a run of a fault campaign: by what clients were told, by
// the provider's own ledger, and by what the database holds at the end. No oracle
// takes the product's word for anything that one of the others can tell.
//
// Before the run, Watch has the database remember every move; after it, Judge asks
// every oracle.
package oracle

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/money"
	"github.com/oncepay/oncepay/internal/transactions"
	"github.com/oncepay/oncepay/test/faults/record"
)

// The names of the oracles.
const (
	OneCharge        = "one-charge"
	OneOperation     = "one-operation"
	WithinBounds     = "within-bounds"
	AcknowledgedKept = "acknowledged-kept"
	AnswerDurable    = "answer-durable"
	ChargeAndPayment = "charge-and-payment"
	SameAnswer       = "same-answer"
	KeptAnswer       = "kept-answer"
	Amounts          = "amounts"
	StatusMachine    = "status-machine"
	Events           = "events"
	Linearizable     = "linearizable"
	Isolation        = "isolation"
	Settled          = "settled"
	NotBrokenOff     = "not-broken-off"
	SessionPaidOnce  = "session-paid-once"
	SessionTruth     = "session-truth"
	SessionFree      = "session-free"
	TokenOnce        = "token-once"
)

// oracles are asked in this order: money first.
var oracles = []struct {
	name  string
	judge func(*trial)
}{
	{OneCharge, oneCharge},
	{SessionPaidOnce, sessionPaidOnce},
	{TokenOnce, tokenOnce},
	{OneOperation, oneOperation},
	{WithinBounds, withinBounds},
	{AcknowledgedKept, acknowledgedKept},
	{AnswerDurable, answerDurable},
	{ChargeAndPayment, chargeAndPayment},
	{SessionTruth, sessionTruth},
	{SessionFree, sessionFree},
	{SameAnswer, sameAnswer},
	{KeptAnswer, keptAnswer},
	{Amounts, amounts},
	{StatusMachine, statusMachine},
	{Events, events},
	{Linearizable, linearizable},
	{Isolation, isolation},
	{Settled, settled},
	{NotBrokenOff, notBrokenOff},
}

// Names are the names of all oracles, in the order in which they are asked.
func Names() []string {
	names := make([]string, 0, len(oracles))
	for _, o := range oracles {
		names = append(names, o.name)
	}
	return names
}

// Run is all that the oracles look at, beside the database.
type Run struct {
	Seed   int64
	Policy record.Policy // of all merchants
	Ops    []record.Op
	Ledger []record.Entry
	// Sessions are the checkout sessions that were made.
	Sessions []record.Session
	Broken   []record.BrokenOff
	// Settled is false where the campaign stopped waiting although something was
	// still unresolved.
	Settled bool
}

// Figures are the run in numbers.
type Figures struct {
	Acknowledged  int // payments, and actions, that a client was told of
	Lost          int // of these, the ones that are missing or different
	DoubleCharges int // charges beyond the one that an order's nonce and life allow
	Charges       int // purchases and authorizations in the ledger
	Captures      int // in the ledger
	Cancellations int
	Refunds       int
	Callbacks     int // messages of the provider's that were taken in
	// Captures and refunds beyond the one that a nonce and life allow.
	DoubleCaptures, DoubleRefunds int
	Leaked                        int // sums that are reserved for nobody
	Unresolved                    int // transactions that are neither terminal nor parked
	Parked                        int
	Nonces                        int
	Shown                         int // replays that nobody had promised, and that are told otherwise since
	Undecided                     int // nonces whose history was too long to judge in the time
	Replays                       int // times that an answer was told again
	KeptErrors                    int // nonces whose answer is an error
	KeptCharged                   int // of these, the ones whose payment was charged all the same
	Sessions                      int // checkout sessions
	SessionsPaid                  int // of these, the ones that the ledger has a charge of
	SessionNonces                 int // nonces under which somebody tried to pay one
}

// maxComplaints is how often one oracle is quoted. Whatever breaks everything
// would fill the report with one sentence.
const maxComplaints = 50

// Judge asks every oracle about a run; db is a connection to the run's database,
// where Watch was called before. An error means that an oracle could not look, and
// the run has no verdict.
func Judge(ctx context.Context, db *pgx.Conn, r Run) ([]record.Violation, Figures, error) {
	w, err := readWorld(ctx, db)
	if err != nil {
		return nil, Figures{}, fmt.Errorf("oracle: %w", err)
	}
	t := newTrial(r, w)
	for _, o := range oracles {
		if err := ctx.Err(); err != nil {
			return nil, Figures{}, fmt.Errorf("oracle: before %s: %w", o.name, err)
		}
		before := len(t.violations)
		t.oracle = o.name
		o.judge(t)
		if more := len(t.violations) - before - maxComplaints; more > 0 {
			t.violations = t.violations[:before+maxComplaints]
			t.complain("and %d more", more)
		}
	}
	return t.violations, t.figures, nil
}

// nonce is a nonce of one account.
type nonce struct{ account, value string }

func (n nonce) String() string { return fmt.Sprintf("nonce %s of account %s", n.value, n.account) }

func nonceOf(o record.Op) nonce { return nonce{o.Account, o.Nonce} }

// trial is one run before its oracles.
type trial struct {
	run        Run
	world      world
	answers    []answer
	ages       map[nonce][]record.Op // the operations that may have ended a life
	oracle     string
	violations []record.Violation
	figures    Figures
}

func newTrial(r Run, w world) *trial {
	t := &trial{run: r, world: w, ages: map[nonce][]record.Op{}}
	nonces := map[nonce]struct{}{}
	for _, o := range r.Ops {
		nonces[nonceOf(o)] = struct{}{}
		if endsLife(o) {
			t.ages[nonceOf(o)] = append(t.ages[nonceOf(o)], o)
		}
		if o.Told() {
			t.answers = append(t.answers, readAnswer(o))
		}
	}
	t.figures.Nonces, t.figures.Callbacks = len(nonces), w.callbacks
	for _, e := range r.Ledger {
		switch transactions.Type(e.Type) {
		case transactions.Capture:
			t.figures.Captures++
		case transactions.Cancel:
			t.figures.Cancellations++
		case transactions.Refund:
			t.figures.Refunds++
		default:
			t.figures.Charges++
		}
	}
	return t
}

// unsure reports whether what an operation was told is no promise: a first 201 is told
// once the standby has what it says, but a replay, or a look-up, tells what is there.
// Where a primary is lost whose standby was away, that may be told otherwise later on.
func unsure(o record.Op) bool { return o.Doubtful && (o.Replayed || o.Kind == record.Look) }

// endsLife reports whether the next request with that nonce may begin a new life.
// An Age that failed may have taken place.
func endsLife(o record.Op) bool { return o.Kind == record.Age && (o.AnsweredBefore || o.Failed) }

func (t *trial) complain(format string, args ...any) {
	t.violations = append(t.violations, record.Violation{Oracle: t.oracle, Seed: t.run.Seed, Detail: fmt.Sprintf(format, args...)})
}

// answer is a 200 or 201, read.
type answer struct {
	op                      record.Op
	payment, account, order string
	transaction             string // of an action
	status                  paymentStatus
	version                 int64
	amount                  decimal.Decimal // of the payment, or of the action
	currency                string
	err                     error // it could not be read, and nothing else is known
}

// life is what the answer's nonce stands for: a payment, or what was done with one.
func (a answer) life() string {
	if a.op.Kind == record.Act {
		return a.transaction
	}
	return a.payment
}

var errNoID = errors.New("it has no id")

// shown is a payment, or an action, as an answer shows it.
type shown struct {
	ID              string `json:"id"`
	AccountID       string `json:"account_id"`
	MerchantOrderID string `json:"merchant_order_id"`
	Status          string `json:"status"`
	SubStatus       string `json:"sub_status"`
	Version         int64  `json:"version"`
	Amount          struct {
		Value    json.RawMessage `json:"value"`
		Currency string          `json:"currency"`
	} `json:"amount"`
}

// readAnswer reads what the oracles need of an answer. Its errors quote nothing of the
// body, which has parts of a card in it.
func readAnswer(o record.Op) answer {
	var body struct {
		shown
		Payment      *shown `json:"payment"` // in a transaction
		Transactions struct {
			ID     string          `json:"id"`
			Amount json.RawMessage `json:"amount"`
		} `json:"transactions"` // in a payment
	}
	a := answer{op: o}
	if json.Unmarshal(o.Body, &body) != nil {
		a.err = errors.New("it is not the JSON of a payment")
		return a
	}
	p, value := body.shown, body.Amount.Value
	switch {
	case o.Kind == record.Act && body.Payment != nil:
		p, a.transaction = *body.Payment, body.ID
	case o.Kind == record.Act:
		a.transaction, value = body.Transactions.ID, body.Transactions.Amount
	}
	if p.ID == "" || o.Kind == record.Act && a.transaction == "" {
		a.err = errNoID
		return a
	}
	amount, err := money.Parse(string(value))
	if err != nil {
		a.err = fmt.Errorf("amount: %w", err)
		return a
	}
	a.payment, a.account, a.order = p.ID, p.AccountID, p.MerchantOrderID
	a.status, a.version = paymentStatus{Status: p.Status, Sub: p.SubStatus}, p.Version
	a.amount, a.currency = amount, p.Amount.Currency
	return a
}

// digest stands for a body where it must not be quoted.
func digest(body []byte) string {
	sum := sha256.Sum256(body)
	return fmt.Sprintf("%d bytes, sha256 %x", len(body), sum[:6])
}

// notBrokenOff: a process that lives waits for a provider's answer until its
// time-out, whether its client does or not.
func notBrokenOff(t *trial) {
	for _, b := range t.run.Broken {
		t.complain("nonce %s, order %s: the charge's connection was closed from our side after %s: %s", b.Nonce, b.Order, b.After, b.Detail)
	}
}
