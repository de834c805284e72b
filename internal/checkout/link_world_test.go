package checkout

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/apitest"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
	"github.com/oncepay/oncepay/internal/providers/sandbox"
	"github.com/oncepay/oncepay/internal/transactions"
)

// till is what kept cards and links need: a database, the sandbox, and all routes of the
// checkout. Exchanges about cards and links are held against the API document. Sessions and
// payments have tests of their own, and pages are for people.
type till struct {
	t        *testing.T
	url      string
	db       *postgres.DB
	auth     *merchants.Service
	payments *transactions.Service
	service  *Service
	bank     *httptest.Server
	ledger   *sandbox.Ledger
	api      *httptest.Server
	client   *http.Client // follows no redirect
	logs     *logs
	account  uuid.UUID
	test     merchants.KeyPair
	live     merchants.KeyPair
}

func newTill(t *testing.T) *till {
	t.Helper()
	return newTillWith(t, nil)
}

// newTillWith makes one of an installation whose secret is being changed to other; nil: it
// is not.
func newTillWith(t *testing.T, other []byte) *till {
	t.Helper()
	w := &till{t: t, url: pgtest.URL(t), logs: &logs{}}
	log := slog.New(slog.NewJSONHandler(w.logs, nil))
	var err error
	if w.db, err = postgres.Open(t.Context(), w.url, pgtest.Options(w.url, postgres.Options{})); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.db.Close)
	bank := w.openBank()
	policies, err := idem.NewPolicies(idem.Presets(idem.Options{})...)
	if err != nil {
		t.Fatal(err)
	}
	prints, err := idem.NewFingerprinter(tillSecret, other)
	if err != nil {
		t.Fatal(err)
	}
	arrivals := idem.NewArrivals(w.db, log)
	w.auth = merchants.NewService(w.db, policies.Names())
	w.payments, err = transactions.NewService(transactions.Options{
		DB: w.db, Providers: providers.NewRegistry(map[string]providers.Provider{merchants.Test: bank, merchants.Live: bank}),
		Arrivals: arrivals, Policies: policies, Fingerprints: prints, Log: log, RawLiveCards: true, Lease: 30 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.payments.Beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.service = NewService(Options{DB: w.db, Payments: w.payments, Auth: w.auth, Policies: policies, Prints: prints, Arrivals: arrivals})
	w.account, w.test = w.merchant()
	if w.live, err = w.auth.CreateKey(t.Context(), w.account, merchants.Live); err != nil {
		t.Fatal(err)
	}
	w.api = w.serve(log)
	w.client = &http.Client{Transport: w.api.Client().Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return w
}

var tillSecret = []byte("a secret of the tests, 32 bytes or more")

// openBank starts the sandbox.
func (w *till) openBank() *sandbox.Adapter {
	w.t.Helper()
	ledger, err := sandbox.Open(w.t.TempDir())
	if err != nil {
		w.t.Fatal(err)
	}
	server := sandbox.NewServer(ledger, sandbox.Options{})
	w.ledger, w.bank = ledger, httptest.NewServer(server)
	w.t.Cleanup(func() {
		server.Close()
		w.bank.Close()
		if err := ledger.Close(); err != nil {
			w.t.Error(err)
		}
	})
	adapter, err := sandbox.NewAdapter(w.bank.URL, sandbox.AdapterOptions{Timeout: 5 * time.Second, Settle: 5 * time.Second})
	if err != nil {
		w.t.Fatal(err)
	}
	return adapter
}

// serve serves every route.
func (w *till) serve(log *slog.Logger) *httptest.Server {
	w.t.Helper()
	payments := transactions.NewHandler(w.payments, w.auth)
	e := httpapi.New(httpapi.Options{Log: log, Transient: postgres.IsTransient, Describe: postgres.Describe, Style: payments.ErrorStyle})
	cors := httpapi.NewCORS(w.auth.KnownOrigin, func() string { return "" })
	e.Use(httpapi.RefuseSecretsFromBrowsers(merchants.HeaderSecret), cors.Preflights)
	browsers, base := merchants.NewBrowsers(w.auth, cors), func(echo.Context) string { return "https://pay.example" }
	payments.Mount(e)
	payments.MountCheckout(e, browsers, base)
	h := NewHandler(w.service, browsers, base)
	for _, mount := range []func(*echo.Echo){h.mountSessions, h.mountTokens, h.mountCustomers, h.mountMethods, h.mountLinks} {
		mount(e)
	}
	checked := apitest.Handler(w.t, e)
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch p := r.URL.Path; {
		case strings.HasPrefix(p, "/v1/checkout/sessions"), strings.HasPrefix(p, "/v1/payments"), strings.HasPrefix(p, "/v1/tokens"),
			strings.HasPrefix(p, transactions.PayPage):
			e.ServeHTTP(rw, r)
		default:
			checked.ServeHTTP(rw, r)
		}
	}))
	w.t.Cleanup(s.Close)
	return s
}

func (w *till) merchant() (uuid.UUID, merchants.KeyPair) {
	w.t.Helper()
	m, pair, err := w.auth.Create(w.t.Context(), "Corner shop", "")
	if err != nil {
		w.t.Fatal(err)
	}
	return m.AccountID, pair
}

// browser is a pair without its secret.
func browser(pair merchants.KeyPair) merchants.KeyPair {
	return merchants.KeyPair{PublicAPIKey: pair.PublicAPIKey}
}

// ask sends a request with a key pair, or with what there is of one, a body ("": none) and
// headers, by turns name and value.
func (w *till) ask(pair merchants.KeyPair, method, path, body string, headers ...string) reply {
	w.t.Helper()
	r, err := w.send(pair, method, path, body, headers...)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// send is ask for goroutines.
func (w *till) send(pair merchants.KeyPair, method, path, body string, headers ...string) (reply, error) {
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.api.URL+path, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	for name, value := range map[string]string{merchants.HeaderPublicKey: pair.PublicAPIKey, merchants.HeaderSecret: pair.PrivateSecretKey} {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for pair := range slices.Chunk(headers, 2) {
		r.Header.Set(pair[0], pair[1])
	}
	res, err := w.client.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	return reply{res.StatusCode, res.Header, data}, err
}

// object is the answer's, which must have that status.
func (w *till) object(r reply, status int) map[string]any {
	w.t.Helper()
	if r.status != status {
		w.t.Fatalf("it answered %d, not %d: %s", r.status, status, r.body)
	}
	var m map[string]any
	if err := json.Unmarshal(r.body, &m); err != nil {
		w.t.Fatal(err)
	}
	return m
}

// refused fails the test unless r is an error of that status and code, and returns its
// messages.
func (w *till) refused(r reply, status int, code string) string {
	w.t.Helper()
	var e struct {
		Code     string
		Messages []string
	}
	if err := json.Unmarshal(r.body, &e); err != nil || r.status != status || e.Code != code {
		w.t.Fatalf("it answered %d: %s, want %d %s", r.status, r.body, status, code)
	}
	return strings.Join(e.Messages, "; ")
}

func (w *till) sql(query string, args ...any) int64 {
	w.t.Helper()
	return pgtest.Exec(w.t, w.url, query, args...)
}

func (w *till) count(query string, args ...any) int {
	w.t.Helper()
	var n int
	if err := w.db.Conn(w.t.Context()).Raw(query, args...).Row().Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// The sandbox's cards: one that is good, another, and one that is declined.
const (
	goodCard     = "4111111111111111"
	otherCard    = "5252440000000002"
	declinedCard = "4507990000000010"
)

// cardJSON is a card on the wire.
func cardJSON(number string) string {
	return `{"number":"` + number + `","expiration_month":11,"expiration_year":28,"security_code":"123","holder_name":"John Doe"}`
}

// tokenFor is a one-time token of a session, made by the merchant's backend, whom nobody
// tells to wait.
func (w *till) tokenFor(session, number string) string {
	w.t.Helper()
	body := `{"payment_method":{"type":"CARD","card":` + cardJSON(number) + `}}`
	return fmt.Sprint(w.object(w.ask(w.test, http.MethodPost, "/v1/checkout/sessions/"+session+"/token", body), http.StatusCreated)["token"])
}

// paySession is what a browser does with a token.
func (w *till) paySession(session, token, nonce string) reply {
	w.t.Helper()
	r, err := w.sendPayment(session, token, nonce)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *till) sendPayment(session, token, nonce string) (reply, error) {
	return w.send(browser(w.test), http.MethodPost, "/v1/checkout/sessions/"+session+"/payment",
		`{"payment_method":{"token":"`+token+`"}}`, idem.Header, nonce)
}

// charges is how often the sandbox has charged for an order.
func (w *till) charges(order string) int {
	entries, _ := w.ledger.Entries(sandbox.Query{MerchantOrderID: order, Limit: 100})
	return len(entries)
}

// decide answers a payment's challenge, and lets recovery find out.
func (w *till) decide(payment map[string]any, otp string) {
	w.t.Helper()
	method, _ := payment["payment_method"].(map[string]any)
	detail, _ := method["payment_method_detail"].(map[string]any)
	card, _ := detail["card"].(map[string]any)
	to, _ := card["redirect_url"].(string)
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, to, strings.NewReader(url.Values{"code": {otp}}.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := w.client.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.sql(`UPDATE transactions SET lease_until = clock_timestamp() - interval '1 second', next_attempt_at = clock_timestamp() - interval '1 second'
		WHERE lease_until IS NOT NULL`)
	if n, err := w.payments.Recover(w.t.Context()); err != nil || n != 1 {
		w.t.Fatalf("recovery took %d, %v", n, err)
	}
}

// together does n things at once.
func together(n int, do func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			do(i)
		})
	}
	close(start)
	wg.Wait()
}

// awaitLock waits until somebody's statement waits for a lock.
func (w *till) awaitLock(statement string) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); w.count(`SELECT count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND wait_event_type = 'Lock' AND starts_with(query, '/* ' || $1::text || ' */')`, statement) == 0; {
		if time.Now().After(deadline) {
			w.t.Fatalf("nobody waits in %s", statement)
		}
	}
}
