package providertest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/providers"
)

// fake is a provider in memory whose traits can be switched off, and that can be
// told to lie. The suite has to pass the honest ones and to catch the liars.
type fake struct {
	traits providers.Traits
	lie    string
	off    bool // nobody listens
	secret []byte
	*ledger
}

// asked is a charge or an operation, as the fake sees it.
type asked struct {
	providers.Order
	kind      string // purchase, authorize, verify, or an OperationKind
	target    string
	amount    decimal.Decimal
	currency  string
	behaviour Behaviour
}

// ledger is what outlives a fake.
type ledger struct {
	requests atomic.Int64
	mu       sync.Mutex
	booked   map[string]int
	answers  map[string]providers.Result
	voided   map[string]bool
	met      map[string]bool  // orders, by kind, whose first send has been
	asked    map[string]asked // what a reference was first booked for
	waiting  map[string]asked // what is pending
	used     map[string]decimal.Decimal
	ended    map[string]bool // cancelled
	list     []providers.Booking
	sent     []Message
}

func newLedger() *ledger {
	return &ledger{booked: map[string]int{}, answers: map[string]providers.Result{}, voided: map[string]bool{}, met: map[string]bool{},
		asked: map[string]asked{}, waiting: map[string]asked{}, used: map[string]decimal.Decimal{}, ended: map[string]bool{}}
}

func (f *fake) Name() string             { return "FAKE" }
func (f *fake) Traits() providers.Traits { return f.traits }

var unclear = providers.Result{Outcome: providers.Unclear}

func (f *fake) Charge(ctx context.Context, c providers.Charge, may providers.MaySend) providers.Result {
	q := asked{Order: c.Order, kind: "authorize", amount: c.Amount, currency: c.Currency, behaviour: Behaviour(c.Description)}
	if c.Capture {
		q.kind = "purchase"
	}
	if c.Verify {
		q.kind = "verify"
	}
	if c.Token.Value != "" && c.Token.Value != theToken && f.lie != "charges any token" {
		q.behaviour = Refuse
	}
	r := f.send(ctx, q, may)
	if f.lie == "prints the card" {
		r.Detail = fmt.Sprintf("charged %s", c.Card.Number)
	}
	return r
}

func (f *fake) Operate(ctx context.Context, o providers.Operation, may providers.MaySend) providers.Result {
	return f.send(ctx, asked{Order: o.Order, kind: string(o.Kind), target: o.Target, amount: o.Amount, currency: o.Currency,
		behaviour: Behaviour(o.Description)}, may)
}

func (f *fake) send(ctx context.Context, q asked, may providers.MaySend) providers.Result {
	if f.off || ctx.Err() != nil || !may() && f.lie != "ignores MaySend" {
		return providers.Result{Outcome: providers.NotReached}
	}
	f.requests.Add(1)
	ctx, cancel := context.WithTimeout(ctx, f.traits.Timeout)
	defer cancel()
	f.mu.Lock()
	r, behaviour := f.decide(q)
	f.mu.Unlock()
	switch behaviour {
	case BookAndHang, HangUnbooked:
		<-ctx.Done()
		r = providers.Result{Outcome: providers.Unclear, TimedOut: true}
		if f.lie == "calls a timeout a no" {
			r = providers.Result{Outcome: providers.NotReached}
		}
	case BookAndFail, FailUnbooked, BookAndBreakOff:
		r = unclear
		if f.lie == "calls an error a no" {
			r = providers.Result{Outcome: providers.NotReached}
		}
	case Approve, Decline, Refuse, GuaranteeNothing, PendThenApprove, PendThenDecline, Tokenise:
	}
	return r
}

func (f *fake) decide(q asked) (providers.Result, Behaviour) {
	if f.voided[q.Reference] {
		return providers.Result{Outcome: providers.Refused}, Approve
	}
	if r, known := f.answers[q.Reference]; known && f.traits.Idempotent && f.lie != "books twice" {
		if before := f.asked[q.Reference]; family(before.kind) != family(q.kind) && f.lie != "takes a refund for its charge" {
			return providers.Result{Outcome: providers.Refused}, Approve
		}
		return r, Approve
	}
	behaviour, first := q.behaviour, q.MerchantOrderID+" "+family(q.kind)
	if f.met[first] {
		behaviour = Approve
	}
	f.met[first] = true
	switch behaviour {
	case Decline:
		return f.decline(q, "DO_NOT_HONOR"), Approve
	case Refuse:
		return providers.Result{Outcome: providers.Refused}, Approve
	case GuaranteeNothing:
		return providers.Result{Outcome: providers.NotReached}, Approve
	case HangUnbooked, FailUnbooked:
		return unclear, behaviour
	case Approve, BookAndHang, BookAndFail, BookAndBreakOff, PendThenApprove, PendThenDecline, Tokenise:
	}
	if code := f.objection(q); code != "" {
		return f.decline(q, code), Approve
	}
	if behaviour == PendThenApprove || behaviour == PendThenDecline {
		q.behaviour = behaviour
		f.waiting[q.Reference], f.asked[q.Reference] = q, q
		if f.lie != "reserves nothing" {
			f.change(q, +1)
		}
		r := providers.Result{Outcome: providers.Pending}
		if f.lie == "takes pending for a no" {
			r = providers.Result{Outcome: providers.Declined, ResponseCode: "DO_NOT_HONOR"}
		}
		f.answers[q.Reference] = r
		return r, Approve
	}
	f.change(q, +1)
	return f.book(q), behaviour
}

func family(kind string) string {
	switch kind {
	case "purchase", "authorize", "verify":
		return ""
	}
	return kind
}

// objection says why what an operation acts on does not allow it.
func (f *fake) objection(q asked) (code string) {
	if q.target == "" {
		return ""
	}
	on, booked := f.asked[q.target], f.booked[q.target] > 0
	left := on.amount.Sub(f.used[q.target])
	switch {
	case !booked:
		return "TRANSACTION_NOT_FOUND"
	case f.lie == "does not look at its target":
		return ""
	case (q.kind == "refund") == (on.kind == "authorize"), q.kind != "refund" && on.kind != "authorize":
		return "INVALID_STATUS"
	case q.currency != on.currency:
		return "CURRENCY_NOT_ALLOWED"
	case q.kind == "cancel" && !left.Equal(q.amount) && f.lie != "cancels what is captured", f.ended[q.target]:
		return "INVALID_STATUS"
	case q.kind != "cancel" && q.amount.GreaterThan(left) && f.lie != "gives back more than there was":
		return "INVALID_AMOUNT"
	}
	return ""
}

func (f *fake) change(q asked, sign int64) {
	if q.kind == "cancel" {
		f.ended[q.target] = sign > 0
		return
	}
	f.used[q.target] = f.used[q.target].Add(q.amount.Mul(decimal.NewFromInt(sign)))
}

func (f *fake) decline(q asked, code string) providers.Result {
	r := providers.Result{Outcome: providers.Declined, ResponseCode: code}
	f.answers[q.Reference], f.asked[q.Reference] = r, q
	return r
}

func (f *fake) book(q asked) providers.Result {
	n := 1
	if q.kind != "verify" || f.lie == "books a verification" {
		f.booked[q.Reference]++
		n = f.booked[q.Reference]
		f.list = append(f.list, providers.Booking{Order: q.Order, Amount: q.amount, Currency: q.currency, BookedAt: time.Now()})
	}
	r := providers.Result{Outcome: providers.Approved, ResponseCode: "SUCCEEDED", Amount: q.amount, Currency: q.currency,
		ProviderReference: fmt.Sprintf("%s#%d", q.Reference, n)}
	if f.lie == "tells another amount" {
		r.Amount = q.amount.Add(q.amount)
	}
	f.answers[q.Reference], f.asked[q.Reference] = r, q
	return r
}

// decideAll ends all that is pending.
func (f *fake) decideAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for reference, q := range f.waiting {
		if f.lie != "decides twice" {
			delete(f.waiting, reference)
		}
		var r providers.Result
		if q.behaviour == PendThenDecline {
			f.change(q, -1)
			r = f.decline(q, "DO_NOT_HONOR")
		} else {
			r = f.book(q)
		}
		f.sent = append(f.sent, f.message(q.Order, r))
	}
}

func (f *fake) Inquire(ctx context.Context, o providers.Order) providers.Result {
	if f.off || ctx.Err() != nil || !f.traits.Queryable && f.lie != "can be asked after all" {
		return unclear
	}
	f.requests.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if r, known := f.answers[o.Reference]; known {
		return r
	}
	return providers.Result{Outcome: providers.NotFound}
}

func (f *fake) Void(_ context.Context, o providers.Order, may providers.MaySend) providers.Result {
	switch {
	case f.off, !f.traits.CanVoid:
		return unclear
	case !may():
		return providers.Result{Outcome: providers.NotReached}
	}
	f.requests.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if q, pending := f.waiting[o.Reference]; pending {
		if f.lie != "books what was voided" {
			delete(f.waiting, o.Reference)
		}
		if f.lie != "keeps what was reserved" {
			f.change(q, -1)
		}
		delete(f.answers, o.Reference)
	}
	if r, known := f.answers[o.Reference]; known {
		return r
	}
	f.voided[o.Reference] = f.lie != "forgets a void"
	return providers.Result{Outcome: providers.Voided}
}

func (f *fake) Tokenise(_ context.Context, c providers.Card) (providers.Token, error) {
	if f.off || len(c.Number) > 19 {
		return providers.Token{}, providers.ErrTokenise
	}
	return providers.Token{Value: theToken}, nil
}

// theToken is the fake's only one, whatever the card.
const theToken = "t"

// message tells what became of an order, in a notation of the fake's own.
func (f *fake) message(o providers.Order, r providers.Result) Message {
	body := []byte(strings.Join([]string{o.Reference, o.AccountID, o.Mode, o.MerchantOrderID,
		string(r.Outcome), r.ProviderReference, r.ResponseCode, r.Amount.String(), r.Currency}, "|"))
	return Message{Header: http.Header{"Signature": {f.sign(body)}}, Body: body}
}

func (f *fake) sign(body []byte) string {
	h := sha256.Sum256(append(append([]byte(nil), f.secret...), body...))
	return string(h[:])
}

func (f *fake) ReadCallback(header http.Header, body []byte) (providers.Callback, error) {
	fits := header.Get("Signature") == f.sign(body)
	switch {
	case f.lie == "believes without a secret" && len(f.secret) == 0:
	case f.lie == "believes every callback" && len(f.secret) > 0 && len(body) > 0 && len(header) > 0:
	case !fits || len(f.secret) == 0:
		return providers.Callback{}, providers.ErrForged
	}
	part := strings.Split(string(body), "|")
	if len(part) != 9 {
		return providers.Callback{}, providers.ErrCallback
	}
	r := providers.Result{Outcome: providers.Outcome(part[4]), ProviderReference: part[5], ResponseCode: part[6],
		Amount: decimal.RequireFromString(part[7]), Currency: part[8]}
	return providers.Callback{ID: part[0], Order: providers.Order{Reference: part[0], AccountID: part[1], Mode: part[2], MerchantOrderID: part[3]}, Result: r}, nil
}

// List shows two lines a page.
func (f *fake) List(_ context.Context, from, to time.Time, after string) (page []providers.Booking, next string, err error) {
	if f.off {
		return nil, "", providers.ErrList
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	skip, err := strconv.Atoi("0" + after)
	if err != nil {
		return nil, "", providers.ErrList
	}
	all := slices.Clone(f.list)
	if f.lie == "lists the newest first" {
		slices.Reverse(all)
	}
	all = slices.DeleteFunc(all, func(b providers.Booking) bool {
		return b.BookedAt.Before(from) || !b.BookedAt.Before(to) && f.lie != "lists beyond the end"
	})
	end := min(skip+2, len(all))
	if end < len(all) {
		next = strconv.Itoa(end)
	}
	if f.lie == "loses a line between pages" {
		skip = min(skip+skip%3, end)
	}
	return all[skip:end], next, nil
}

func fixture(lie string, tr providers.Traits) func(t *testing.T) Fixture {
	return func(*testing.T) Fixture {
		f := &fake{traits: tr, lie: lie, ledger: newLedger(), secret: []byte("secret")}
		return Fixture{
			Provider:         f,
			Arrange:          func(_ *testing.T, c *providers.Charge, want Behaviour) { c.Description = string(want) },
			ArrangeOperation: func(_ *testing.T, o *providers.Operation, want Behaviour) { o.Description = string(want) },
			Decide:           func(*testing.T) { f.decideAll() },
			Bookings: func(_ *testing.T, o providers.Order) int {
				f.mu.Lock()
				defer f.mu.Unlock()
				return f.booked[o.Reference]
			},
			Requests: func() int { return int(f.requests.Load()) },
			Reopen: func(*testing.T) providers.Provider {
				if lie == "forgets everything" {
					f.ledger = newLedger()
				}
				return &fake{traits: tr, lie: lie, ledger: f.ledger, secret: f.secret}
			},
			Unreachable: func(*testing.T) providers.Provider { return &fake{traits: tr, off: true, ledger: f.ledger} },
			Callbacks: func(*testing.T) []Message {
				f.mu.Lock()
				defer f.mu.Unlock()
				return slices.Clone(f.sent)
			},
			WithSecret: func(_ *testing.T, secret []byte) providers.Notifier {
				return &fake{traits: tr, lie: lie, ledger: f.ledger, secret: secret}
			},
		}
	}
}

// all is every trait, with a timeout that the tests of it wait for.
var all = providers.Traits{Idempotent: true, Queryable: true, CanVoid: true, Timeout: 50 * time.Millisecond}

func TestHonestProvidersPassWhateverTheyDeclare(t *testing.T) {
	for i := range 8 {
		tr := all
		tr.Idempotent, tr.Queryable, tr.CanVoid = i&1 > 0, i&2 > 0, i&4 > 0
		t.Run(fmt.Sprintf("idempotent=%v,queryable=%v,canvoid=%v", tr.Idempotent, tr.Queryable, tr.CanVoid), func(t *testing.T) {
			t.Parallel()
			Run(t, fixture("", tr))
		})
	}
}

const liarEnv = "ONCEPAY_PROVIDERTEST_LIAR"

// TestLiar is not for its own sake: TestLiarsAreCaught runs it in a process of
// its own, where it must fail.
func TestLiar(t *testing.T) {
	lie := os.Getenv(liarEnv)
	if lie == "" {
		return
	}
	tr := all
	tr.Queryable = lie != "can be asked after all"
	tr.Idempotent = lie != "recognises references after all"
	f := fixture(lie, tr)
	if !tr.Idempotent { // behaves as if it were, and does not declare it
		f = func(t *testing.T) Fixture {
			x := fixture(lie, all)(t)
			x.Provider = undeclared{x.Provider}
			return x
		}
	}
	Run(t, f)
}

type undeclared struct{ providers.Provider }

func (u undeclared) Traits() providers.Traits {
	tr := u.Provider.Traits()
	tr.Idempotent = false
	return tr
}

func TestLiarsAreCaught(t *testing.T) {
	for lie, caughtBy := range map[string]string{
		"books twice":                     "SameReferenceTwice",
		"ignores MaySend":                 "MaySendFalseSendsNothing",
		"prints the card":                 "ApprovedIsBookedOnceAndCanBeInquired",
		"charges any token":               "TokensAreChargedAsTheirCardsAre",
		"calls a timeout a no":            "BookedButNeverAnswered",
		"calls an error a no":             "BookedButAnsweredWithAnError",
		"can be asked after all":          "UnknownReferenceIsNotFound",
		"forgets a void":                  "VoidBeforeTheSend",
		"forgets everything":              "RemembersAfterARestart",
		"recognises references after all": "SameReferenceTwice",
		"tells another amount":            "ApprovedIsBookedOnceAndCanBeInquired",
		"books a verification":            "AVerificationBooksNothing",
		"gives back more than there was":  "OperationsNeverExceedTheirTarget",
		"cancels what is captured":        "ACaptureAndACancelNeverBothWin",
		"does not look at its target":     "AnOperationNeedsItsTarget",
		"takes a refund for its charge":   "AReferenceIsForOneKind",
		"reserves nothing":                "PendingOperationsReserve",
		"takes pending for a no":          "PendingIsDecidedOnce",
		"decides twice":                   "PendingIsDecidedOnce",
		"books what was voided":           "VoidOfWhatIsPending",
		"keeps what was reserved":         "Ofcancel/VoidOfWhatIsPending",
		"believes every callback":         "CallbacksTellWhatTheInquiryTells",
		"believes without a secret":       "CallbacksTellWhatTheInquiryTells",
		"lists the newest first":          "TheListIsCompleteAndInOrder",
		"lists beyond the end":            "TheListIsCompleteAndInOrder",
		"loses a line between pages":      "TheListIsCompleteAndInOrder",
	} {
		t.Run(lie, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLiar$", "-test.timeout=60s") // #nosec G204 -- this test binary
			cmd.Env = append(os.Environ(), liarEnv+"="+lie)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestLiar/"+caughtBy) {
				t.Errorf("not caught by %s: %v\n%s", caughtBy, err, out)
			}
			if strings.Contains(string(out), canaryNumber) {
				t.Error("the suite itself prints the card")
			}
		})
	}
}
