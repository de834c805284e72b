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
	"net/http"

	"github.com/jackc/pgx/v5"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/money"
	"github.com/oncepay/oncepay/test/faults/record"
)

// The names of the oracles.
const (
	OneCharge        = "one-charge"
	AcknowledgedKept = "acknowledged-kept"
	AnswerDurable    = "answer-durable"
	ChargeAndPayment = "charge-and-payment"
	SameAnswer       = "same-answer"
	Amounts          = "amounts"
	StatusMachine    = "status-machine"
	Events           = "events"
	Linearizable     = "linearizable"
	Isolation        = "isolation"
	Settled          = "settled"
	NotBrokenOff     = "not-broken-off"
)

// oracles are asked in this order: money first.
var oracles = []struct {
	name  string
	judge func(*trial)
}{
	{OneCharge, oneCharge},
	{AcknowledgedKept, acknowledgedKept},
	{AnswerDurable, answerDurable},
	{ChargeAndPayment, chargeAndPayment},
	{SameAnswer, sameAnswer},
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
	Ops    []record.Op
	Ledger []record.Entry
	Broken []record.BrokenOff
	// Settled is false where the campaign stopped waiting although something was
	// still unresolved.
	Settled bool
}

// Figures are the run in numbers.
type Figures struct {
	Acknowledged  int // payments that a client was told of by a 201
	Lost          int // of these, the ones that are missing or different
	DoubleCharges int // charges beyond the one that an order's nonce and life allow
	Charges       int // lines of the ledger
	Unresolved    int // transactions that are neither terminal nor parked
	Parked        int
	Nonces        int
	Shown         int // replays that nobody had promised, and that are told otherwise since
	Undecided     int // nonces whose history was too long to judge in the time
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
		if o.Kind == record.Pay && o.Status == http.StatusCreated {
			t.answers = append(t.answers, readAnswer(o))
		}
	}
	t.figures.Nonces, t.figures.Charges = len(nonces), len(r.Ledger)
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

// answer is a 201, read.
type answer struct {
	op                      record.Op
	payment, account, order string
	status                  paymentStatus
	amount                  decimal.Decimal
	currency                string
	err                     error // it could not be read, and nothing else is known
}

var errNoID = errors.New("it has no id")

// readAnswer reads what the oracles need of a 201. Its errors quote nothing of the
// body, which has parts of a card in it.
func readAnswer(o record.Op) answer {
	var body struct {
		ID              string `json:"id"`
		AccountID       string `json:"account_id"`
		MerchantOrderID string `json:"merchant_order_id"`
		Status          string `json:"status"`
		SubStatus       string `json:"sub_status"`
		Amount          struct {
			Value    json.RawMessage `json:"value"`
			Currency string          `json:"currency"`
		} `json:"amount"`
	}
	a := answer{op: o}
	if json.Unmarshal(o.Body, &body) != nil {
		a.err = errors.New("it is not the JSON of a payment")
		return a
	}
	if body.ID == "" {
		a.err = errNoID
		return a
	}
	value, err := money.Parse(string(body.Amount.Value))
	if err != nil {
		a.err = fmt.Errorf("amount.value: %w", err)
		return a
	}
	a.payment, a.account, a.order = body.ID, body.AccountID, body.MerchantOrderID
	a.status = paymentStatus{Status: body.Status, Sub: body.SubStatus}
	a.amount, a.currency = value, body.Amount.Currency
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
