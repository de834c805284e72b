package console

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/admin"
	"github.com/oncepay/oncepay/internal/audit"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/operators"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
	"github.com/oncepay/oncepay/internal/providers/sandbox"
	"github.com/oncepay/oncepay/internal/telemetry"
	"github.com/oncepay/oncepay/internal/transactions"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	// testPassword is everybody's.
	testPassword = "a long password of the tests"
	// testLease is long: a test that wants it over says so by SQL.
	testLease = 30 * time.Second
)

// testKey is both secrets of the installation.
var testKey = []byte("a secret of the tests, 32 bytes or more")

// consoleUnderTest is one installation: a database, the sandbox, the merchants' API, and the
// console behind the real gate. No loop runs by itself.
type consoleUnderTest struct {
	t         *testing.T
	dbURL     string
	db        *postgres.DB
	logs      *logs
	ledger    *sandbox.Ledger
	payments  *transactions.Service
	merchants *merchants.Service
	operators *operators.Service
	arrivals  *idem.Arrivals
	minutes   *telemetry.Minutes
	handler   *Handler
	API       string // the base URL of the merchants' API
	URL       string // that of the console

	account uuid.UUID // of the first merchant, "First merchant"
	keys    merchants.KeyPair
	admin   *browser // see as
}

// newConsole starts one. Nobody has signed in; the first operator is there as soon as a test
// asks for somebody.
func newConsole(t *testing.T) *consoleUnderTest {
	t.Helper()
	w := &consoleUnderTest{t: t, dbURL: pgtest.URL(t), logs: &logs{}}
	log := slog.New(slog.NewJSONHandler(w.logs, nil))
	var err error
	if w.db, err = postgres.Open(t.Context(), w.dbURL, pgtest.Options(w.dbURL, postgres.Options{})); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.db.Close)
	policies, err := idem.NewPolicies(idem.Presets(idem.Options{})...)
	if err != nil {
		t.Fatal(err)
	}
	prints, err := idem.NewFingerprinter(testKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	bank := w.openBank()
	w.arrivals = idem.NewArrivals(w.db, log)
	w.merchants = merchants.NewService(w.db, policies.Names())
	w.operators = operators.NewService(w.db, operators.Options{Secret: testKey})
	w.payments, err = transactions.NewService(transactions.Options{
		DB: w.db, Providers: providers.NewRegistry(map[string]providers.Provider{merchants.Test: bank, merchants.Live: bank}),
		Arrivals: w.arrivals, Policies: policies, Fingerprints: prints, Log: log, RawLiveCards: true, Lease: testLease,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.payments.Beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.account, w.keys = w.newMerchant("First merchant")
	w.serve(log)
	return w
}

// openBank starts the sandbox.
func (w *consoleUnderTest) openBank() *sandbox.Adapter {
	w.t.Helper()
	ledger, err := sandbox.Open(w.t.TempDir())
	if err != nil {
		w.t.Fatal(err)
	}
	server := sandbox.NewServer(ledger, sandbox.Options{})
	s := httptest.NewServer(server)
	w.ledger = ledger
	w.t.Cleanup(func() {
		server.Close()
		s.Close()
		if err := ledger.Close(); err != nil {
			w.t.Error(err)
		}
	})
	adapter, err := sandbox.NewAdapter(s.URL, sandbox.AdapterOptions{Timeout: 5 * time.Second, Settle: 5 * time.Second})
	if err != nil {
		w.t.Fatal(err)
	}
	return adapter
}

// serve starts both listeners.
func (w *consoleUnderTest) serve(log *slog.Logger) {
	w.t.Helper()
	edge := httpapi.Options{Log: log, Transient: postgres.IsTransient, Describe: postgres.Describe}
	seen, err := telemetry.New(w.t.Context(), telemetry.Options{Version: "test", Log: log})
	if err != nil {
		w.t.Fatal(err)
	}
	w.minutes = seen.Minutes(w.db)
	operator := httpapi.New(edge)
	payments := transactions.NewHandler(w.payments, w.merchants)
	edge.Observe, edge.Style = seen.Requests(telemetry.Public), payments.ErrorStyle
	public := httpapi.New(edge)
	payments.Mount(public)
	api := httptest.NewServer(public)
	w.t.Cleanup(api.Close)
	w.API = api.URL
	w.handler = NewHandler(Options{
		Payments: w.payments, Merchants: w.merchants, Operators: w.operators, Audit: audit.Log{DB: w.db}, Minutes: w.minutes,
		BaseURL: func() string { return w.API }, Version: "test",
	})
	admin.Mount(operator, admin.Options{
		Token: strings.Repeat("t", admin.MinTokenLength), Operators: w.operators, Metrics: http.NotFoundHandler(),
		API: []admin.Mounter{merchants.NewOperatorHandler(w.merchants), transactions.NewOperatorHandler(w.payments)}, Console: w.handler,
	})
	s := httptest.NewServer(operator)
	w.t.Cleanup(s.Close)
	w.URL = s.URL
}

// newMerchant makes a merchant, with a key for the test mode.
func (w *consoleUnderTest) newMerchant(name string) (uuid.UUID, merchants.KeyPair) {
	w.t.Helper()
	m, pair, err := w.merchants.Create(w.t.Context(), name, "")
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.merchants.Refresh(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return m.AccountID, pair
}

// browser is somebody's who has signed in. It follows no redirection.
type browser struct {
	w      *consoleUnderTest
	Role   operators.Role
	Name   string
	client *http.Client
}

// as signs somebody in who has that role. Each call makes another person.
func (w *consoleUnderTest) as(role operators.Role) *browser {
	w.t.Helper()
	if w.admin == nil {
		link, _, err := w.operators.FirstInvitation(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		w.admin = w.accept("admin", operators.Admin, link.Path())
	}
	if role == operators.Admin {
		return w.admin
	}
	name := string(role) + "-" + uuid.NewString()[:8]
	link, err := w.operators.Invite(w.t.Context(), name, role)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.accept(name, role, link.Path())
}

// accept has somebody choose their password, and so signs them in.
func (w *consoleUnderTest) accept(name string, role operators.Role, path string) *browser {
	w.t.Helper()
	b := w.nobody()
	b.Name, b.Role = name, role
	r := b.post(path, url.Values{"name": {name}, "password": {testPassword}, "again": {testPassword}})
	if r.status != http.StatusSeeOther {
		w.t.Fatalf("accept the invitation of %s: %s", name, r)
	}
	return b
}

// nobody is a browser in which nobody has signed in.
func (w *consoleUnderTest) nobody() *browser {
	w.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return &browser{w: w, client: &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// answer is what a browser or a merchant got.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) String() string { return http.StatusText(a.status) + "\n" + a.body }

// get asks for a page. headers are pairs.
func (b *browser) get(path string, headers ...string) answer {
	b.w.t.Helper()
	return b.ask(http.MethodGet, path, nil, headers...)
}

// post sends a form.
func (b *browser) post(path string, form url.Values, headers ...string) answer {
	b.w.t.Helper()
	return b.ask(http.MethodPost, path, form, headers...)
}

// ask does either, and may be called from several goroutines.
func (b *browser) ask(method, path string, form url.Values, headers ...string) answer {
	b.w.t.Helper()
	a, err := b.try(b.w.t.Context(), method, path, form, headers...)
	if err != nil {
		b.w.t.Error(err)
	}
	return a
}

func (b *browser) try(ctx context.Context, method, path string, form url.Values, headers ...string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, b.w.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		return answer{}, err
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return send(b.client, req)
}

func send(client *http.Client, req *http.Request) (answer, error) {
	res, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	return answer{res.StatusCode, res.Header, string(body)}, err
}

// pay is POST /v1/payments by the first merchant, of 45.67 USD, with changes: "amount" is a
// JSON value for amount.value, "capture" and "number" are the card's, any other name is of
// the top level.
func (w *consoleUnderTest) pay(nonce string, changes map[string]any) answer {
	w.t.Helper()
	return w.call("/v1/payments", nonce, w.body(changes))
}

func (w *consoleUnderTest) body(changes map[string]any) map[string]any {
	data := map[string]any{
		"number": "4111111111111111", "holder_name": "John Doe", "expiration_month": 11, "expiration_year": 40, "security_code": "123",
	}
	card := map[string]any{"card_data": data}
	amount := map[string]any{"currency": "USD", "value": json.Number("45.67")}
	b := map[string]any{
		"account_id": w.account.String(), "merchant_order_id": "order-1", "description": "A test payment", "country": "US",
		"amount": amount, "workflow": "DIRECT", "payment_method": map[string]any{"type": "CARD", "detail": map[string]any{"card": card}},
	}
	changes = maps.Clone(changes)
	for name, into := range map[string]map[string]any{"number": data, "capture": card} {
		if v, given := changes[name]; given {
			into[name] = v
		}
		delete(changes, name)
	}
	if v, given := changes["amount"]; given {
		amount["value"] = v
		delete(changes, "amount")
	}
	maps.Copy(b, changes)
	return b
}

// call is a POST of the first merchant's backend.
func (w *consoleUnderTest) call(path, nonce string, body map[string]any) answer {
	w.t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.API+path, bytes.NewReader(data))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("public-api-key", w.keys.PublicAPIKey)
	req.Header.Set("private-secret-key", w.keys.PrivateSecretKey)
	req.Header.Set(idem.Header, nonce)
	a, err := send(http.DefaultClient, req)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// paid is a payment that was made, and its first transaction.
type paid struct{ payment, transaction, nonce string }

// path is where the console shows it.
func (p paid) path() string { return "/payments/" + p.payment }

// made pays, and fails the test if no payment was made. An empty nonce stands for a new one.
func (w *consoleUnderTest) made(nonce string, changes map[string]any) paid {
	w.t.Helper()
	if nonce == "" {
		nonce = uuid.NewString()
	}
	a := w.pay(nonce, changes)
	lives, err := w.payments.Lookup(w.t.Context(), transactions.Scope{}, nonce, uuid.Nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(lives.Lives) == 0 {
		w.t.Fatalf("no payment was made: %s", a)
	}
	return paid{lives.Lives[0].PaymentID, lives.Lives[0].Transaction.ID, nonce}
}

// sql runs a statement as the owner of the database, and returns how many rows it touched.
func (w *consoleUnderTest) sql(query string, args ...any) int64 {
	w.t.Helper()
	return pgtest.Exec(w.t, w.dbURL, query, args...)
}

// logs is a log that several goroutines may write and read.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// String is what has been written.
func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// renamed is another name for a merchant.
func renamed(name string) merchants.Update { return merchants.Update{Name: &name} }
