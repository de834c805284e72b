// Package record holds what a fault campaign writes down about one run: what
// clients asked and were told, and what the provider booked. The oracles judge
// by nothing else, and by the database.
package record

import (
	"net/http"
	"sync"
	"time"

	"github.com/oncepay/oncepay/test/harness"
)

// Kind is what an operation was.
type Kind string

// The kinds of operations.
const (
	// Pay is POST /v1/payments under a nonce.
	Pay Kind = "pay"
	// Act is a capture, a cancellation or a refund under a nonce.
	Act Kind = "act"
	// Look is GET /v1/idempotency-keys/{nonce}.
	Look Kind = "look"
	// Age is the campaign's own: it has put a nonce's times back by more than the
	// retention, so that its life is over if its transaction is terminal.
	Age Kind = "age"
)

// Op is one operation on a nonce, from the moment it was begun to the moment its
// answer was complete.
type Op struct {
	Account string // account_id
	Nonce   string
	Order   string // merchant_order_id
	Kind    Kind
	// Start and End are by the campaign's monotonic clock, from the start of the run.
	Start, End time.Duration
	// Failed says that no answer came: connection refused or broken, given up, hung up.
	Failed bool
	Status int    // HTTP status
	Code   string // of an error, such as REQUEST_IN_PROCESS
	Body   []byte // of a 200 or 201 to Pay or Act, or of an error that its policy may keep
	// ContentType is the Body's.
	ContentType string
	// ComeBack says, of an error, that it said when to come back (Retry-After).
	ComeBack bool
	// OtherBody says that it carried another body than the order's first request.
	OtherBody bool
	// Action is, of an Act, its route, such as capture; Amount is what it asks for, or
	// empty for all that is left.
	Action, Amount string
	// Session is, of a Pay, the checkout session that it pays, and Token the one-time token
	// that it pays with; empty: none.
	Session, Token string
	// Browser says that a shopper's browser sent it, and not the merchant's backend.
	Browser bool
	// Replayed says, of what a Pay or Act was told, that it was told as a replay.
	Replayed bool
	// Doubtful says that what it was told may be of a primary whose synchronous standby
	// was away, and which was lost before that came back.
	Doubtful bool
	// Answered says, of a Look, that the newest life has an answer, and AnswerStatus which
	// status that has; Payment is that life's payment, or of an action's nonce its
	// transaction, whether it has an answer or not. Empty: the nonce has no life.
	Answered     bool
	AnswerStatus int
	Payment      string
	// AnsweredBefore says, of an Age, that the nonce had an answer when it was aged
	// (and its life is therefore over). Unresolved says that nobody knew then what had
	// become of its transaction: the life is over as soon as somebody does.
	AnsweredBefore, Unresolved bool
}

// Entry is one line of the provider's ledger: money that moved. Its Reference is
// the id of the transaction.
type Entry = harness.Entry

// Moves says whether the operation is one that moves money.
func (o Op) Moves() bool { return o.Kind == Pay || o.Kind == Act }

// Told says whether it was told an answer that is its nonce's from then on.
func (o Op) Told() bool {
	return o.Moves() && (o.Status == http.StatusOK || o.Status == http.StatusCreated)
}

// BrokenOff is a charge or an operation whose connection our side closed before its answer was
// there and before its time-out, although the process lived.
type BrokenOff struct {
	Order  string
	Nonce  string
	After  time.Duration // since the request arrived at the provider
	Detail string
}

// Session is one checkout session: what the merchant made it for, and what it said of
// itself when all was over.
type Session struct {
	Account string // account_id
	ID      string
	Order   string // merchant_order_id, which no other session and no other payment has
	// Seamless says that browsers paid it themselves, so that its amount is the one charged.
	Seamless bool
	// Value is what it was made for. Changed is what somebody tried to make of that, or
	// empty, and Change what is known of the attempt.
	Value, Changed string
	Change         Change
	// Payment and Status are those of the payment that it then told; empty: none.
	Payment, Status string
	// Unpaid is why it could not be paid in the end, when nothing befell anybody any more;
	// empty: it was.
	Unpaid string
	// Expired says that its time was ended, perhaps before anybody had paid it.
	Expired bool
	// Doubtful says that nobody but a primary that may be lost said that it was made.
	Doubtful bool
}

// Change is what is known of an attempt to change what a session asks for.
type Change int

// The changes.
const (
	// NotChanged: nobody tried, or was refused without having tried before.
	NotChanged Change = iota
	// MaybeChanged: an attempt was not answered, or by a replay alone.
	MaybeChanged
	// WasChanged: it was told.
	WasChanged
)

// Violation is one broken promise.
type Violation struct {
	Oracle string `json:"oracle"`
	Seed   int64  `json:"seed"`
	Detail string `json:"detail"`
}

// Log gathers operations. It is safe for concurrent use.
type Log struct {
	mu    sync.Mutex
	began time.Time
	ops   []Op
}

// NewLog begins now.
func NewLog() *Log { return &Log{began: time.Now()} }

// Now is the time since the log began, by the monotonic clock.
func (l *Log) Now() time.Duration { return time.Since(l.began) }

// Add notes an operation that has ended.
func (l *Log) Add(o Op) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ops = append(l.ops, o)
}

// Ops are the operations so far, in the order in which they ended.
func (l *Log) Ops() []Op {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Op(nil), l.ops...)
}
