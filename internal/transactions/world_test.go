package transactions

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/apitest"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
)

// checksUnderRace is how many cases a random test tries under the race detector, which
// makes each some eight times slower and looks for something else; without it, it is
// rapid's 100.
const checksUnderRace = "15"

func TestMain(m *testing.M) {
	if underRace { // a flag on the command line comes later, and wins
		if err := flag.Set("rapid.checks", checksUnderRace); err != nil {
			panic(err)
		}
	}
	pgtest.Main(m)
}

// psp is a provider whose every answer a test can choose. It books like a real
// one: by reference, and it counts.
type psp struct {
	mu       sync.Mutex
	traits   providers.Traits
	bookings []providers.Charge
	declined map[string]bool
	voided   map[string]bool
	sends    []string // references, one a send that reached it
	inquiry  int
	script   []behaviour // the next sends, first to last; then approve
	onAsk    []func() (providers.Result, bool)

	tokens    map[string]string // the first digits of a card, by its token
	token     string            // what all of them begin with; a test's own
	takesNone bool              // no card is tokenised

	operations []providers.Operation // booked
	onOperate  []operating           // the next operations, first to last; then approve
}

// operating answers one operation that has reached the provider.
type operating func(ctx context.Context, p *psp, o providers.Operation) providers.Result

// nextOperation adds to the script of operations.
func (p *psp) nextOperation(os ...operating) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onOperate = append(p.onOperate, os...)
}

// Operate makes a capture, a cancellation or a refund.
func (p *psp) Operate(ctx context.Context, o providers.Operation, may providers.MaySend) providers.Result {
	if !may() {
		return providers.Result{Outcome: providers.NotReached}
	}
	if o.MerchantOrderID == "" { // as no provider would take it
		return providers.Result{Outcome: providers.Refused, Detail: "an operation without its order"}
	}
	p.mu.Lock()
	f := operating(func(_ context.Context, p *psp, o providers.Operation) providers.Result { return p.operate(o) })
	if len(p.onOperate) > 0 {
		f, p.onOperate = p.onOperate[0], p.onOperate[1:]
	}
	p.sends = append(p.sends, o.Reference)
	p.mu.Unlock()
	return f(ctx, p, o)
}

// operate books an operation unless its reference is known, or more would be moved than
// is there.
func (p *psp) operate(o providers.Operation) providers.Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.voided[o.Reference] {
		return providers.Result{Outcome: providers.Refused}
	}
	total, moved, canceled := decimal.Zero, decimal.Zero, false
	for _, c := range p.bookings {
		if c.Reference == o.Target {
			total = c.Amount
		}
	}
	for _, b := range p.operations {
		switch {
		case b.Reference == o.Reference && p.traits.Idempotent:
			return approved(o.Reference)
		case b.Reference == o.Target:
			total = b.Amount
		case b.Target == o.Target && b.Kind == providers.Cancel:
			canceled = true
		case b.Target == o.Target:
			moved = moved.Add(b.Amount)
		}
	}
	if canceled || moved.Add(o.Amount).GreaterThan(total) {
		p.declined[o.Reference] = true
		return providers.Result{Outcome: providers.Declined, ResponseCode: "INVALID_AMOUNT"}
	}
	p.operations = append(p.operations, o)
	return approved(o.Reference)
}

// operated sums up what was booked of one kind on a target.
func (p *psp) operated(kind providers.OperationKind, target string) (n int, sum decimal.Decimal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.operations {
		if o.Kind == kind && o.Target == target {
			n, sum = n+1, sum.Add(o.Amount)
		}
	}
	return n, sum
}

// behaviour answers one send that has reached the provider.
type behaviour func(ctx context.Context, p *psp, c providers.Charge) providers.Result

func newPSP() *psp {
	return &psp{
		declined: map[string]bool{}, voided: map[string]bool{}, tokens: map[string]string{},
		traits: providers.Traits{
			Idempotent: true, Queryable: true, CanVoid: true, Timeout: 2 * time.Second, Settle: 4 * time.Second,
		},
	}
}

// Name is the provider's id.
func (p *psp) Name() string { return "TEST_PSP" }

func (p *psp) Traits() providers.Traits {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.traits
}

// next adds to the script.
func (p *psp) next(bs ...behaviour) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.script = append(p.script, bs...)
}

// asked adds to the script of inquiries; false stands for the truth.
func (p *psp) asked(f func() (providers.Result, bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onAsk = append(p.onAsk, f)
}

func (p *psp) Charge(ctx context.Context, c providers.Charge, may providers.MaySend) providers.Result {
	if !may() {
		return providers.Result{Outcome: providers.NotReached}
	}
	p.mu.Lock()
	if _, known := p.tokens[c.Token.Value]; c.Token.Value != "" && (!known || c.Card != (providers.Card{})) || c.Token.Value == "" && c.Card.Number == "" {
		p.mu.Unlock() // as no provider would take it
		return providers.Result{Outcome: providers.Refused, Detail: "neither a card nor a token of ours, or both"}
	}
	b := approve
	if len(p.script) > 0 {
		b, p.script = p.script[0], p.script[1:]
	}
	p.sends = append(p.sends, c.Reference)
	p.mu.Unlock()
	return b(ctx, p, c)
}

// book books a charge unless its reference is known (and the provider recognises
// references), and reports what it then stands for.
func (p *psp) book(c providers.Charge) providers.Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.voided[c.Reference]:
		return providers.Result{Outcome: providers.Refused}
	case p.declined[c.Reference]:
		return providers.Result{Outcome: providers.Declined, ResponseCode: "INSUFFICIENT_FUNDS"}
	}
	if p.traits.Idempotent {
		for _, b := range p.bookings {
			if b.Reference == c.Reference {
				return approved(c.Reference)
			}
		}
	}
	c.Card = providers.Card{}
	p.bookings = append(p.bookings, c)
	return approved(c.Reference)
}

func approved(reference string) providers.Result {
	return providers.Result{Outcome: providers.Approved, ProviderReference: "psp-" + reference, ResponseCode: "SUCCEEDED", AuthorizationCode: "123456"}
}

func (p *psp) truth(reference string) providers.Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.bookings {
		if b.Reference == reference {
			return approved(reference)
		}
	}
	for _, o := range p.operations {
		if o.Reference == reference {
			return approved(reference)
		}
	}
	if p.declined[reference] {
		return providers.Result{Outcome: providers.Declined, ResponseCode: "INSUFFICIENT_FUNDS"}
	}
	return providers.Result{Outcome: providers.NotFound}
}

func (p *psp) Inquire(_ context.Context, o providers.Order) providers.Result {
	p.mu.Lock()
	p.inquiry++
	var f func() (providers.Result, bool)
	if len(p.onAsk) > 0 {
		f, p.onAsk = p.onAsk[0], p.onAsk[1:]
	}
	p.mu.Unlock()
	if f != nil {
		if r, scripted := f(); scripted {
			return r
		}
	}
	return p.truth(o.Reference)
}

func (p *psp) Void(_ context.Context, o providers.Order, may providers.MaySend) providers.Result {
	if !may() {
		return providers.Result{Outcome: providers.NotReached}
	}
	if r := p.truth(o.Reference); r.Outcome != providers.NotFound {
		return r
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.voided[o.Reference] = true
	return providers.Result{Outcome: providers.Voided}
}

// Tokenise keeps a card, as far as a test may want to know which it was.
func (p *psp) Tokenise(_ context.Context, c providers.Card) (providers.Token, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.takesNone {
		return providers.Token{}, providers.ErrTokenise
	}
	token := cmp.Or(p.token, "psptok_") + rand.Text()
	p.tokens[token] = c.Number[:6]
	return providers.Token{Value: token}, nil
}

// charges counts what was booked for an order.
func (p *psp) charges(order string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, b := range p.bookings {
		if b.MerchantOrderID == order {
			n++
		}
	}
	return n
}

func (p *psp) sent() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sends)
}

// The behaviours of a provider, good and bad.
func approve(_ context.Context, p *psp, c providers.Charge) providers.Result { return p.book(c) }

func decline(_ context.Context, p *psp, c providers.Charge) providers.Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.declined[c.Reference] = true
	return providers.Result{Outcome: providers.Declined, ResponseCode: "INSUFFICIENT_FUNDS"}
}

func chargeThenTimeout(_ context.Context, p *psp, c providers.Charge) providers.Result {
	p.book(c)
	return providers.Result{Outcome: providers.Unclear, TimedOut: true}
}

func timeout(context.Context, *psp, providers.Charge) providers.Result {
	return providers.Result{Outcome: providers.Unclear, TimedOut: true}
}

func serverError(context.Context, *psp, providers.Charge) providers.Result {
	return providers.Result{Outcome: providers.Unclear}
}

func refuse(context.Context, *psp, providers.Charge) providers.Result {
	return providers.Result{Outcome: providers.Refused}
}

func notReached(context.Context, *psp, providers.Charge) providers.Result {
	return providers.Result{Outcome: providers.NotReached}
}

// waiting holds a send until the test lets it go, and tells when it has arrived.
func waiting(arrived chan<- struct{}, release <-chan struct{}, then behaviour) behaviour {
	return func(ctx context.Context, p *psp, c providers.Charge) providers.Result {
		arrived <- struct{}{}
		<-release
		return then(ctx, p, c)
	}
}

// testLease is long: a test that wants it over says so by SQL.
const testLease = 30 * time.Second

// world is one database, one provider, and as many instances of the API as a test
// asks for. Nothing runs by itself: a test calls Recover, Beat and Purge.
type world struct {
	t        *testing.T
	url      string
	db       *postgres.DB
	owned    *postgres.DB // see owner
	psp      *psp
	account  uuid.UUID
	test     merchants.KeyPair
	live     merchants.KeyPair
	instance // the first
}

// instance is one process: its own service, directory and listeners.
type instance struct {
	service  *Service
	auth     *merchants.Service
	arrivals *idem.Arrivals
	public   *httptest.Server
	operator *httptest.Server
	logs     *bytes.Buffer // read it only when no request runs
}

var testSecret = []byte("a secret of the tests, 32 bytes or more")

func newWorld(t *testing.T) *world {
	t.Helper()
	url := pgtest.URL(t)
	db, err := postgres.Open(t.Context(), url, pgtest.Options(url, postgres.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	w := &world{t: t, url: url, db: db, psp: newPSP()}
	w.instance = w.newInstance(db)
	w.account, w.test = w.newMerchant("First merchant")
	w.live, err = w.auth.CreateKey(t.Context(), w.account, merchants.Live)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// newInstance starts another process of the same installation on db.
func (w *world) newInstance(db *postgres.DB) instance {
	w.t.Helper()
	return w.newInstanceWith(db, func(*Options) {})
}

// newInstanceWith starts one with other options.
func (w *world) newInstanceWith(db *postgres.DB, change func(*Options)) instance {
	w.t.Helper()
	var i instance
	i.logs = &bytes.Buffer{}
	log := slog.New(slog.NewJSONHandler(&lockedWriter{w: i.logs}, nil))
	prints, err := idem.NewFingerprinter(testSecret, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	i.auth = merchants.NewService(db, presets().Names())
	i.arrivals = idem.NewArrivals(db, log)
	o := Options{
		DB: db, Arrivals: i.arrivals, Lease: testLease, Fingerprints: prints, RawLiveCards: true, Log: log,
		Providers: providers.NewRegistry(map[string]providers.Provider{merchants.Test: w.psp, merchants.Live: w.psp}),
		Policies:  presets(),
	}
	change(&o)
	i.service, err = NewService(o)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := i.service.Beat(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	if _, err := i.auth.Refresh(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	public, operator := w.edges(i, log)
	i.operator = serve(w.t, operator)
	i.public = serve(w.t, public)
	return i
}

// Headers of the default policy's replays.
const (
	headerReplayed = "Idempotent-Replayed"
	headerMismatch = "Idempotency-Body-Mismatch"
)

// presets are the policies that merchants choose from.
func presets() idem.Policies {
	ps, err := idem.NewPolicies(idem.Presets(idem.Options{})...)
	if err != nil {
		panic(err)
	}
	return ps
}

// key is what a request says of its nonce that sends just that.
func key(p idem.Policy, nonce string) idem.Key {
	return idem.Key{Nonce: nonce, Sent: nonce, Retention: p.Retention}
}

// only is a set of one policy, that of every merchant: the default one, changed.
func only(name string, change func(*idem.Policy)) idem.Policies {
	p := presets().Of(idem.DefaultPolicy)
	p.Name = name
	change(&p)
	ps, err := idem.NewPolicies(p)
	if err != nil {
		panic(err)
	}
	return ps
}

// serve lets h answer on a port of its own. Each exchange is held against the API
// document.
func serve(t *testing.T, h http.Handler) *httptest.Server {
	s := httptest.NewServer(apitest.Handler(t, h))
	t.Cleanup(s.Close)
	return s
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func (w *world) newMerchant(name string) (uuid.UUID, merchants.KeyPair) {
	w.t.Helper()
	m, pair, err := w.auth.Create(w.t.Context(), name, "")
	if err != nil {
		w.t.Fatal(err)
	}
	return m.AccountID, pair
}

// body is a valid request to create a payment, with changes: "amount" a JSON
// value for amount.value, "capture" for the card's, any other name for the top
// level. A nil value leaves a top-level member out.
func (w *world) body(order string, changes map[string]any) []byte {
	w.t.Helper()
	card := map[string]any{"card_data": map[string]any{
		"number": "4111111111111111", "holder_name": "John Doe", "expiration_month": 11, "expiration_year": 28, "security_code": "123",
	}}
	amount := map[string]any{"currency": "USD", "value": json.Number("45.67")}
	b := map[string]any{
		"account_id": w.account.String(), "merchant_order_id": order, "description": "A test payment", "country": "US",
		"amount": amount, "workflow": "DIRECT", "payment_method": map[string]any{"type": "CARD", "detail": map[string]any{"card": card}},
	}
	for name, v := range changes {
		switch name {
		case "amount":
			amount["value"] = v
		case "capture":
			card["capture"] = v
		default:
			b[name] = v
			if v == nil {
				delete(b, name)
			}
		}
	}
	data, err := json.Marshal(b)
	if err != nil {
		w.t.Fatal(err)
	}
	return data
}

// response is what a client saw.
type response struct {
	status int
	header http.Header
	body   []byte
}

// get reads a member of the answer by its path, such as "transactions", "id".
func (r response) get(path ...string) any {
	var v any
	if json.Unmarshal(r.body, &v) != nil {
		return nil
	}
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

func (r response) code() string {
	s, _ := r.get("code").(string)
	return s
}

func (r response) String() string { return fmt.Sprintf("%d %s", r.status, r.body) }

// call sends one request. headers are pairs; nothing is added but the content
// type of a body.
func (w *world) call(method, url string, body []byte, headers ...string) response {
	w.t.Helper()
	r, err := request(w.t.Context(), method, url, body, headers...)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func request(ctx context.Context, method, url string, body []byte, headers ...string) (response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return response{}, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return response{}, err
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	return response{res.StatusCode, res.Header, data}, err
}

// keys are a pair's headers.
func keys(p merchants.KeyPair) []string {
	return []string{"public-api-key", p.PublicAPIKey, "private-secret-key", p.PrivateSecretKey}
}

// create is POST /v1/payments on the first instance, in test mode.
func (w *world) create(nonce string, body []byte) response {
	w.t.Helper()
	return w.createOn(w.instance, w.test, nonce, body)
}

func (w *world) createOn(i instance, pair merchants.KeyPair, nonce string, body []byte) response {
	w.t.Helper()
	return w.call(http.MethodPost, i.public.URL+"/v1/payments", body, append(keys(pair), idem.Header, nonce)...)
}

// get is a GET on the first instance, in test mode.
func (w *world) get(path string) response {
	w.t.Helper()
	return w.call(http.MethodGet, w.public.URL+path, nil, keys(w.test)...)
}

// lives is what the operator is told about a nonce.
func (w *world) lives(nonce string) []Life {
	w.t.Helper()
	found, err := w.service.Lookup(w.t.Context(), Scope{}, nonce, uuid.Nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return found.Lives
}

// owner is the way in which a test may do anything with its database. Behind
// PgBouncer the product may not.
func (w *world) owner() *postgres.DB {
	w.t.Helper()
	if !pgtest.Pooled(w.url) {
		return w.db
	}
	if w.owned == nil {
		db, err := postgres.Open(w.t.Context(), pgtest.Direct(w.url), postgres.Options{})
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(db.Close)
		w.owned = db
	}
	return w.owned
}

// sql runs a statement and returns the rows it touched.
func (w *world) sql(query string, args ...any) int64 {
	w.t.Helper()
	r := w.owner().Conn(w.t.Context()).Exec(query, args...)
	if r.Error != nil {
		w.t.Fatal(r.Error)
	}
	return r.RowsAffected
}

// count is the one number that a query returns.
func (w *world) count(query string, args ...any) int {
	w.t.Helper()
	var n int
	if err := w.owner().Conn(w.t.Context()).Raw(query, args...).Row().Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// transaction is the newest transaction of a nonce.
func (w *world) transaction(nonce string) Transaction {
	w.t.Helper()
	var tx Transaction
	found, err := one(w.db.Conn(w.t.Context()).Raw(`SELECT `+transactionColumns+` FROM transactions t WHERE t.nonce = $1 ORDER BY t.id DESC LIMIT 1`, nonce), &tx)
	if err != nil || !found {
		w.t.Fatalf("no transaction of nonce %s: %v", nonce, err)
	}
	return tx
}

// shift moves everything that is known of a nonce into the past, as if that much
// time had gone by.
func (w *world) shift(nonce string, by time.Duration) {
	w.t.Helper()
	us := by.Microseconds()
	w.sql(`UPDATE transactions SET lease_until = lease_until - $2::bigint * interval '1 microsecond',
	           may_send_until = may_send_until - $2::bigint * interval '1 microsecond',
	           next_attempt_at = next_attempt_at - $2::bigint * interval '1 microsecond',
	           created_at = created_at - $2::bigint * interval '1 microsecond' WHERE nonce = $1`, nonce, us)
	w.sql(`UPDATE idempotency_keys SET created_at = created_at - $2::bigint * interval '1 microsecond',
	           expires_at = expires_at - $2::bigint * interval '1 microsecond' WHERE key_id = $1`, nonce, us)
}

// wantStatus fails the test unless r has that status (and, for errors, that code).
func (w *world) want(r response, status int, code ...string) {
	w.t.Helper()
	if r.status != status || len(code) > 0 && r.code() != code[0] {
		w.t.Fatalf("got %s, want %d %v", r, status, code)
	}
}

// wantCharges fails the test unless the provider booked that many for an order.
func (w *world) wantCharges(order string, n int) {
	w.t.Helper()
	if got := w.psp.charges(order); got != n {
		w.t.Fatalf("the provider booked %d charges for %s, want %d", got, order, n)
	}
}
