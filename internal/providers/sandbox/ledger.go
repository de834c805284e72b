package sandbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/oncepay/oncepay/internal/providers"
)

// What a booking is called in the ledger. A verification is none, and is not shown.
const (
	typePurchase  = "PURCHASE"
	typeAuthorize = "AUTHORIZE"
	typeVerify    = "VERIFY"
	typeCapture   = "CAPTURE"
	typeCancel    = "CANCEL"
	typeRefund    = "REFUND"
)

// Ledger is the sandbox's durable memory and the referee of every experiment:
// what is in it was booked, once. It is a journal (see there) and an index of
// that journal in memory, about 800 bytes per charge; it never shrinks.
//
// All that becomes of a reference is decided by whoever holds it:
//
//	            ┌─ booked                        money moved, or is held
//	(unknown) ──┼─ declined                      a final no
//	    │       ├─ refused ─┐
//	    │       ├───────────┴─ voided            refused from now on
//	    └─ pending, and then any but refused
//
// An operation also changes the sums of what it acts on, and no other reference's
// holder may change them meanwhile: see Ledger.roots.
//
// A Ledger is safe for concurrent use.
type Ledger struct {
	journal *journal // nil: in memory only

	// holds are the references in somebody's hands, roots the booked things whose sums
	// somebody is about to change. Who has a root decides about it with nobody between
	// the look at its sums and the record on the disk, so two operations never both fit
	// where there is room for one. The order is always a reference first, then at most
	// one root, and who has a root waits for nothing but the disk. So nobody waits in a
	// circle, although the root of an operation is another charge's reference.
	holds, roots turns

	memoryMu sync.Mutex // in memory only: one record after the other, as the journal has them
	last     time.Time  // in memory only: the newest record's

	mu          sync.RWMutex
	closed      bool // in memory only: the journal knows for itself
	bookings    []Entry
	byReference map[string][]int // positions in bookings, over all accounts
	byOrder     map[string][]int
	standings   map[refKey]standing
	orders      map[orderKey]struct{} // that a first send was seen for
	tokens      map[string]string     // the response code of the card, or ""
	sums        map[refKey]*sums      // of what operations or disputes were made on
	undecided   map[refKey]record     // what is pending
	challenges  map[string]challenge  // by the secret part of their pages' URLs
	disputes    map[string]*dispute   // by their ids
	outbox      map[letterKey]letter  // callbacks that nobody acknowledged
	urls        map[string]string     // callback URLs, each kept once
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

	callbackURL string
}

// refKey scopes a reference: two accounts, or modes, never meet.
type refKey struct{ account, mode, reference string }

// orderKey names an order's charges, or with a kind its captures, cancellations or
// refunds.
type orderKey struct{ account, mode, order, kind string }

// standing is what became of a reference. What is unknown may have a kind already:
// a send of that kind met a fault, and nothing came of it.
type standing struct {
	status            status
	id                string
	responseCode      string
	authorizationCode string
	kind              string // its type; "" for a charge of which an old journal told no more
	amount, currency  string
	challenge         string // of what waits for the payer
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
	statusPending  status = "pending"
	statusError    status = "error"
)

// Open reads the ledger in dir, making it if it is not there, and takes it for
// this process alone. A torn last line is cut off; anything else that cannot be
// read is an error that names the file and the line, and changes nothing. With
// an empty dir the ledger lives in memory only.
func Open(dir string) (*Ledger, error) {
	l := &Ledger{
		holds:       turns{of: map[refKey]*turn{}},
		roots:       turns{of: map[refKey]*turn{}},
		byReference: map[string][]int{},
		byOrder:     map[string][]int{},
		standings:   map[refKey]standing{},
		orders:      map[orderKey]struct{}{},
		tokens:      map[string]string{},
		sums:        map[refKey]*sums{},
		undecided:   map[refKey]record{},
		challenges:  map[string]challenge{},
		disputes:    map[string]*dispute{},
		outbox:      map[letterKey]letter{},
		urls:        map[string]string{},
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

// Between returns at most limit of what was booked from one moment up to, and
// without, another, oldest first, over all accounts and modes; a zero to is no end.
// after is the next of the page before, 0 for the first page; next is 0 when there
// are no more. A booking has its time a moment before it can be seen: who must not
// miss one asks up to a moment that is some seconds ago.
func (l *Ledger) Between(from, to time.Time, after, limit int) (entries []Entry, next int) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	first := func(t time.Time) int {
		return sort.Search(len(l.bookings), func(i int) bool { return !l.bookings[i].CreatedAt.Before(t) })
	}
	start, end := max(first(from), after), len(l.bookings)
	if !to.IsZero() {
		end = first(to)
	}
	if start >= end {
		return nil, 0
	}
	if end-start > limit {
		end = start + limit
		next = end
	}
	return slices.Clone(l.bookings[start:end]), next
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

// turns lets one after the other have a thing that is named by a key.
type turns struct {
	mu sync.Mutex
	of map[refKey]*turn
}

type turn struct {
	taken chan struct{} // capacity 1
	users int           // holder and waiting; guarded by turns.mu
}

// take waits until nobody else has the thing, or done is closed; nil never is. ok
// says whether it is the caller's, who then has to call release.
func (t *turns) take(key refKey, done <-chan struct{}) (release func(), ok bool) {
	t.mu.Lock()
	this := t.of[key]
	if this == nil {
		this = &turn{taken: make(chan struct{}, 1)}
		t.of[key] = this
	}
	this.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if this.users--; this.users == 0 {
			delete(t.of, key)
		}
	}
	select {
	case this.taken <- struct{}{}:
		return func() { <-this.taken; leave() }, true
	case <-done:
		leave()
		return nil, false
	}
}

// hold is one reference in somebody's hands. Only a hold can decide about it.
type hold struct {
	l       *Ledger
	key     refKey
	release func()
}

// hold waits until nobody else has the reference, or ctx ends.
func (l *Ledger) hold(ctx context.Context, key refKey) (*hold, error) {
	release, ok := l.holds.take(key, ctx.Done())
	if !ok {
		return nil, ctx.Err()
	}
	return &hold{l, key, release}, nil
}

func (h *hold) standing() (standing, error) { return h.l.standing(h.key) }

// firstSend tells whether this is the first send of its kind for its order, and makes
// it so. It is remembered when something about the send is; until then nothing has
// been done or answered, and after a crash another send may be the first.
func (h *hold) firstSend(order, kind string) bool {
	key := orderKey{h.key.account, h.key.mode, order, family(kind)}
	h.l.mu.Lock()
	defer h.l.mu.Unlock()
	_, seen := h.l.orders[key]
	h.l.orders[key] = struct{}{}
	return !seen
}

// family is what sends are told apart by: "" is the charges, of whatever type.
func family(kind string) string {
	switch kind {
	case typeCapture, typeCancel, typeRefund:
		return kind
	}
	return ""
}

// booking is what a charge or an operation wants booked.
type booking struct {
	order, kind, amount, currency string
	target                        string // of an operation: the reference of what it acts on
	callbackURL, returnURL        string
	id                            string // if it has one already
	responseCode, fault           string
}

// record is the booking as a record of some kind.
func (b *booking) record(k kind) record {
	r := record{Kind: k, MerchantOrderID: b.order, Type: b.kind, Amount: b.amount, Currency: b.currency, Target: b.target,
		CallbackURL: b.callbackURL, ID: b.id, ResponseCode: b.responseCode, Fault: b.fault}
	if r.ID == "" {
		r.ID = newID()
	}
	return r
}

// book moves the money, or, for a verification, says that it could be moved. When it
// returns, that is so for ever.
func (h *hold) book(b booking) (standing, error) {
	code, err := rand.Int(rand.Reader, big.NewInt(1_000_000)) // six digits, as issuers give
	if err != nil {
		return standing{}, fmt.Errorf("sandbox: authorization code: %w", err)
	}
	r := b.record(kindBooking)
	if b.kind == typeVerify {
		r.Kind = kindVerified
	}
	r.AuthorizationCode = fmt.Sprintf("%06d", code)
	return h.decide(r)
}

// decline makes a no final.
func (h *hold) decline(b booking) (standing, error) {
	r := b.record(kindDecline)
	r.CallbackURL = "" // nothing will ever be told about it
	return h.decide(r)
}

// settle books or declines, as the response code says. An operation is declined if
// what it acts on does not allow it.
func (h *hold) settle(b booking) (standing, error) {
	release := h.root(&b)
	defer release()
	if class, _ := providers.ClassOf(b.responseCode); class != providers.ClassSucceeded {
		return h.decline(b)
	}
	return h.book(b)
}

// root takes what the operation acts on, and gives the operation the response code of
// a decline if that does not allow it. Other bookings act on nothing.
func (h *hold) root(b *booking) (release func()) {
	if b.target == "" {
		return func() {}
	}
	target := refKey{h.key.account, h.key.mode, b.target}
	release, _ = h.l.roots.take(target, nil)
	h.l.mu.RLock()
	defer h.l.mu.RUnlock()
	if code := h.l.objection(target, b.kind, b.amount, b.currency); code != "" {
		b.responseCode = code
	}
	return release
}

// refuse makes a refusal final, so that a second send is answered like the first.
func (h *hold) refuse(b booking) (standing, error) {
	return h.decide(record{Kind: kindRefusal, MerchantOrderID: b.order, Type: b.kind, Fault: b.fault})
}

// void refuses the reference from now on.
func (h *hold) void(order string) (standing, error) {
	return h.decide(record{Kind: kindVoid, MerchantOrderID: order})
}

// meet remembers that the order's first send met a fault.
func (h *hold) meet(b booking) error {
	return h.append(record{Kind: kindFault, MerchantOrderID: b.order, Type: b.kind, Fault: b.fault})
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
	if l.journal != nil {
		return l.journal.append(r)
	}
	if err := l.Err(); err != nil {
		return err
	}
	l.memoryMu.Lock()
	defer l.memoryMu.Unlock()
	r.At = later(now(), l.last)
	l.last = r.At
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
	switch r.Kind {
	case kindToken:
		l.tokens[r.Token] = r.ResponseCode
	case kindAcknowledged:
		delete(l.outbox, letterKey{r.Message, r.Copy})
	case kindDispute:
		return l.applyDispute(key, r)
	case kindFault:
		l.seen(r)
		if _, known := l.standings[key]; !known && r.Reference != "" && r.Type != "" {
			l.standings[key] = standing{status: statusUnknown, kind: r.Type}
		}
	case kindBooking, kindVerified, kindDecline, kindRefusal, kindVoid, kindPending:
		return l.applyDecision(key, r)
	}
	return nil
}

// decisions is what each kind of decision makes of a reference, and of which
// standings, besides the unknown one.
var decisions = map[kind]struct {
	to   status
	from []status
}{
	kindBooking:  {statusApproved, []status{statusPending}},
	kindVerified: {statusApproved, []status{statusPending}},
	kindDecline:  {statusDeclined, []status{statusPending}},
	kindRefusal:  {statusRefused, nil},
	kindVoid:     {statusVoided, []status{statusRefused, statusPending}},
	kindPending:  {statusPending, nil},
}

func (l *Ledger) applyDecision(key refKey, r record) error {
	d := decisions[r.Kind]
	before, known := l.standings[key]
	if known && before.status != statusUnknown && !slices.Contains(d.from, before.status) {
		return errors.New("a second decision about one reference")
	}
	p, waited := l.undecided[key]
	if waited {
		if r.Kind != kindVoid && (r.Type != p.Type || r.Amount != p.Amount || r.Currency != p.Currency || r.Target != p.Target || r.ID != p.ID) {
			return errors.New("a decision about something else than what is pending")
		}
		l.unreserve(key, p)
	}
	if r.Target != "" && (r.Kind == kindBooking || r.Kind == kindPending) {
		target := refKey{r.AccountID, r.Mode, r.Target}
		if l.objection(target, r.Type, r.Amount, r.Currency) != "" {
			return errors.New("an operation that what it acts on does not allow")
		}
		l.sumsOf(target).change(r.Type, r.Amount, +1)
	}
	after := standing{status: d.to, id: r.ID, responseCode: r.ResponseCode, authorizationCode: r.AuthorizationCode,
		kind: r.Type, amount: r.Amount, currency: r.Currency}
	switch r.Kind {
	case kindPending:
		after.responseCode, after.challenge = pendingCode(r.Then), r.Challenge
		l.undecided[key] = r
		if r.Challenge != "" {
			l.challenges[r.Challenge] = challenge{key: key, order: r.MerchantOrderID, amount: r.Amount, currency: r.Currency, returnURL: r.ReturnURL}
		}
	case kindBooking:
		l.enter(r)
	case kindVoid:
		after.kind = before.kind
	case kindVerified, kindDecline, kindRefusal, kindFault, kindToken, kindDispute, kindAcknowledged:
	}
	l.standings[key] = after
	if waited && r.Kind != kindVoid {
		l.announce(p, r)
	}
	if r.Kind != kindVoid { // a void is no send
		l.seen(r)
	}
	return nil
}

// enter makes an entry of a booking. In an old journal neighbours may be dated the
// wrong way round; the books are read by time, so there the later line counts as no
// earlier than the one before.
func (l *Ledger) enter(r record) {
	at, created := len(l.bookings), r.At
	if at > 0 {
		created = later(created, l.bookings[at-1].CreatedAt)
	}
	url, ok := l.urls[r.CallbackURL]
	if !ok {
		url = r.CallbackURL
		l.urls[url] = url
	}
	l.bookings = append(l.bookings, Entry{
		Reference: r.Reference, MerchantOrderID: r.MerchantOrderID, AccountID: r.AccountID, Mode: r.Mode,
		Type: r.Type, Amount: r.Amount, Currency: r.Currency, Status: succeeded, CreatedAt: created, callbackURL: url,
	})
	l.byReference[r.Reference] = append(l.byReference[r.Reference], at)
	l.byOrder[r.MerchantOrderID] = append(l.byOrder[r.MerchantOrderID], at)
}

// entry is what was booked under a reference.
func (l *Ledger) entry(key refKey) (Entry, bool) {
	for _, at := range l.byReference[key.reference] {
		if e := l.bookings[at]; e.AccountID == key.account && e.Mode == key.mode {
			return e, true
		}
	}
	return Entry{}, false
}

func (l *Ledger) seen(r record) {
	l.orders[orderKey{r.AccountID, r.Mode, r.MerchantOrderID, family(r.Type)}] = struct{}{}
}
