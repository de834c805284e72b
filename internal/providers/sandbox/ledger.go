package sandbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"sort"
	"sync"
	"time"
)

// What a booking is called in the ledger.
const (
	typePurchase  = "PURCHASE"
	typeAuthorize = "AUTHORIZE"
)

// Ledger is the sandbox's durable memory and the referee of every experiment:
// what is in it was booked, once. It is a journal (see there) and an index of
// that journal in memory, about half a kilobyte per charge; it never shrinks.
//
// All that becomes of a reference is decided by whoever holds it:
//
//	           ┌─ booked                        money moved, or is held
//	(unknown) ─┼─ declined                      a final no
//	           ├─ refused ─┐
//	           └───────────┴─ voided            refused from now on
//
// A Ledger is safe for concurrent use.
type Ledger struct {
	journal *journal // nil: in memory only

	holdsMu sync.Mutex
	holds   map[refKey]*turn

	mu          sync.RWMutex
	closed      bool // in memory only: the journal knows for itself
	bookings    []Entry
	byReference map[string][]int // positions in bookings, over all accounts
	byOrder     map[string][]int
	standings   map[refKey]standing
	orders      map[orderKey]struct{} // that a first send was seen for
	tokens      map[string]string     // the response code of the card, or ""
}

// Entry is one thing that was booked, as the contract shows it. Amount is a
// decimal string in major units.
type Entry struct {
	Reference       string    `json:"reference"`
	MerchantOrderID string    `json:"merchant_order_id"`
	AccountID       string    `json:"account_id"`
	Mode            string    `json:"mode"`
	Type            string    `json:"type"`
	Amount          string    `json:"amount"`
	Currency        string    `json:"currency"`
	Status          string    `json:"status"`
	CreatedAt       time.Time `json:"created_at"`
}

// refKey scopes a reference: two accounts, or modes, never meet.
type refKey struct{ account, mode, reference string }

type orderKey struct{ account, mode, order string }

// standing is what became of a reference.
type standing struct {
	status            status
	id                string
	responseCode      string
	authorizationCode string
}

// status is also the word for it on the wire. statusError is there only: an
// answer that promises nothing.
type status string

const (
	statusUnknown  status = "unknown"
	statusApproved status = "approved"
	statusDeclined status = "declined"
	statusRefused  status = "refused"
	statusVoided   status = "voided"
	statusError    status = "error"
)

// Open reads the ledger in dir, making it if it is not there, and takes it for
// this process alone. A torn last line is cut off; anything else that cannot be
// read is an error that names the file and the line, and changes nothing. With
// an empty dir the ledger lives in memory only.
func Open(dir string) (*Ledger, error) {
	l := &Ledger{
		holds:       map[refKey]*turn{},
		byReference: map[string][]int{},
		byOrder:     map[string][]int{},
		standings:   map[refKey]standing{},
		orders:      map[orderKey]struct{}{},
		tokens:      map[string]string{},
	}
	if dir == "" {
		return l, nil
	}
	j, err := openJournal(dir, l.apply)
	if err != nil {
		return nil, err
	}
	l.journal = j
	return l, nil
}

// Close gives the ledger up. What is being written still reaches the disk.
func (l *Ledger) Close() error {
	if l.journal != nil {
		return l.journal.close()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	return nil
}

// Err says why the ledger can be used no longer, or nil. After a failed write
// nobody knows what is on the disk, so it answers nothing at all any more.
func (l *Ledger) Err() error {
	if l.journal != nil {
		return l.journal.err()
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return ErrClosed
	}
	return nil
}

// Query selects entries. Empty fields select all. Before is the Next of the page
// before, 0 for the first page.
type Query struct {
	Reference       string
	MerchantOrderID string
	Limit           int
	Before          int
}

// Entries returns at most q.Limit entries, newest first, over all accounts and
// modes. next is 0 when there are no more.
func (l *Ledger) Entries(q Query) (entries []Entry, next int) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	// at is the position of the i-th candidate, oldest first.
	n, at := len(l.bookings), func(i int) int { return i }
	switch {
	case q.Reference != "":
		list := l.byReference[q.Reference]
		n, at = len(list), func(i int) int { return list[i] }
	case q.MerchantOrderID != "":
		list := l.byOrder[q.MerchantOrderID]
		n, at = len(list), func(i int) int { return list[i] }
	}
	if q.Before > 0 {
		n = sort.Search(n, func(i int) bool { return at(i) >= q.Before-1 })
	}
	for i := n - 1; i >= 0; i-- {
		e := l.bookings[at(i)]
		if q.MerchantOrderID != "" && e.MerchantOrderID != q.MerchantOrderID {
			continue
		}
		if len(entries) == q.Limit {
			return entries, next
		}
		entries = append(entries, e)
		next = at(i) + 1
	}
	return entries, 0
}

// standing is what became of a reference so far. It waits for nobody: while a
// charge is being decided, its reference is unknown.
func (l *Ledger) standing(key refKey) (standing, error) {
	if err := l.Err(); err != nil {
		return standing{}, err
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if s, ok := l.standings[key]; ok {
		return s, nil
	}
	return standing{status: statusUnknown}, nil
}

// token is what a token's card stands for.
func (l *Ledger) token(token string) (cardCode string, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	cardCode, ok = l.tokens[token]
	return cardCode, ok
}

// issueToken remembers a new token.
func (l *Ledger) issueToken(cardCode string) (string, error) {
	token := "sbxtok_" + rand.Text()
	return token, l.append(record{Kind: kindToken, Token: token, ResponseCode: cardCode})
}

// turn lets one holder after the other have a reference.
type turn struct {
	taken chan struct{} // capacity 1
	users int           // holder and waiting; guarded by Ledger.holdsMu
}

// hold is one reference in somebody's hands. Only a hold can decide about it.
type hold struct {
	l    *Ledger
	key  refKey
	turn *turn
}

// hold waits until nobody else has the reference, or ctx ends.
func (l *Ledger) hold(ctx context.Context, key refKey) (*hold, error) {
	l.holdsMu.Lock()
	t := l.holds[key]
	if t == nil {
		t = &turn{taken: make(chan struct{}, 1)}
		l.holds[key] = t
	}
	t.users++
	l.holdsMu.Unlock()
	select {
	case t.taken <- struct{}{}:
		return &hold{l, key, t}, nil
	case <-ctx.Done():
		l.leave(key, t)
		return nil, ctx.Err()
	}
}

func (h *hold) release() {
	<-h.turn.taken
	h.l.leave(h.key, h.turn)
}

func (l *Ledger) leave(key refKey, t *turn) {
	l.holdsMu.Lock()
	defer l.holdsMu.Unlock()
	if t.users--; t.users == 0 {
		delete(l.holds, key)
	}
}

func (h *hold) standing() (standing, error) { return h.l.standing(h.key) }

// firstSend tells whether this is the first send for its order, and makes it so.
// It is remembered when something about the send is; until then nothing has
// been done or answered, and after a crash another send may be the first.
func (h *hold) firstSend(order string) bool {
	key := orderKey{h.key.account, h.key.mode, order}
	h.l.mu.Lock()
	defer h.l.mu.Unlock()
	_, seen := h.l.orders[key]
	h.l.orders[key] = struct{}{}
	return !seen
}

// booking is what a charge wants booked.
type booking struct {
	order, kind, amount, currency string
	responseCode, fault           string
}

// book moves the money. When it returns, it is moved for ever.
func (h *hold) book(b booking) (standing, error) {
	code, err := rand.Int(rand.Reader, big.NewInt(1_000_000)) // six digits, as issuers give
	if err != nil {
		return standing{}, fmt.Errorf("sandbox: authorization code: %w", err)
	}
	return h.decide(record{Kind: kindBooking, MerchantOrderID: b.order, Type: b.kind, Amount: b.amount, Currency: b.currency,
		ID: newID(), ResponseCode: b.responseCode, AuthorizationCode: fmt.Sprintf("%06d", code), Fault: b.fault})
}

// decline makes a no final.
func (h *hold) decline(order, responseCode string) (standing, error) {
	return h.decide(record{Kind: kindDecline, MerchantOrderID: order, ID: newID(), ResponseCode: responseCode})
}

// refuse makes a refusal final, so that a second send is answered like the first.
func (h *hold) refuse(order, fault string) (standing, error) {
	return h.decide(record{Kind: kindRefusal, MerchantOrderID: order, Fault: fault})
}

// void refuses the reference from now on.
func (h *hold) void(order string) (standing, error) {
	return h.decide(record{Kind: kindVoid, MerchantOrderID: order})
}

// meet remembers that the order's first send met a fault.
func (h *hold) meet(order, fault string) error {
	return h.append(record{Kind: kindFault, MerchantOrderID: order, Fault: fault})
}

func (h *hold) append(r record) error {
	r.AccountID, r.Mode, r.Reference = h.key.account, h.key.mode, h.key.reference
	return h.l.append(r)
}

func (h *hold) decide(r record) (standing, error) {
	if err := h.append(r); err != nil {
		return standing{}, err
	}
	return h.standing()
}

func newID() string { return "sbx_" + rand.Text() }

// append makes a record durable and applies it.
func (l *Ledger) append(r record) error {
	r.At = time.Now().UTC().Truncate(time.Microsecond)
	if l.journal != nil {
		return l.journal.append(r)
	}
	if err := l.Err(); err != nil {
		return err
	}
	if err := r.check(); err != nil {
		return fmt.Errorf("sandbox: ledger: %w", err)
	}
	return l.apply(r)
}

// apply takes a record into the index. It refuses what no holder could have
// decided: that is a bug, or a journal that somebody else wrote into.
func (l *Ledger) apply(r record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := refKey{r.AccountID, r.Mode, r.Reference}
	before, known := l.standings[key]
	after := standing{id: r.ID, responseCode: r.ResponseCode, authorizationCode: r.AuthorizationCode}
	switch r.Kind {
	case kindToken:
		l.tokens[r.Token] = r.ResponseCode
		return nil
	case kindFault:
		l.seen(r)
		return nil
	case kindBooking:
		after.status = statusApproved
	case kindDecline:
		after.status = statusDeclined
	case kindRefusal:
		after.status = statusRefused
	case kindVoid:
		after.status = statusVoided
		known = known && before.status != statusRefused
	}
	if known {
		return errors.New("a second decision about one reference")
	}
	l.standings[key] = after
	if r.Kind != kindVoid { // a void is no send
		l.seen(r)
	}
	if r.Kind == kindBooking {
		at := len(l.bookings)
		l.bookings = append(l.bookings, Entry{
			Reference: r.Reference, MerchantOrderID: r.MerchantOrderID, AccountID: r.AccountID, Mode: r.Mode,
			Type: r.Type, Amount: r.Amount, Currency: r.Currency, Status: succeeded, CreatedAt: r.At,
		})
		l.byReference[r.Reference] = append(l.byReference[r.Reference], at)
		l.byOrder[r.MerchantOrderID] = append(l.byOrder[r.MerchantOrderID], at)
	}
	return nil
}

func (l *Ledger) seen(r record) {
	l.orders[orderKey{r.AccountID, r.Mode, r.MerchantOrderID}] = struct{}{}
}
