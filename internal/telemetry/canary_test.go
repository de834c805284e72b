package telemetry

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/admin"
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

func TestMain(m *testing.M) { pgtest.Main(m) }

// Case H55, for what tools see: values that occur nowhere else go through the
// routes, an approval, a decline and errors; then every span and every metric is
// searched for them.
const (
	canaryCard = "4507990000000002" // the sandbox approves it
	poorCard   = "4507990000000010" // and declines this one
	canaryCode = "9810"
	lease      = 30 * time.Second
)

// stage is an installation as cmd puts it together, with its spans kept.
type stage struct {
	t                *testing.T
	seen             *Telemetry
	public, operator *httptest.Server
	service          *transactions.Service
	metrics          http.Handler
	account          uuid.UUID
	pair             merchants.KeyPair
	token            string
	secret           string
}

func newStage(t *testing.T, seen *Telemetry) *stage {
	t.Helper()
	s := &stage{t: t, seen: seen, token: "admin-token-" + rand.Text() + rand.Text(), secret: "installation-" + rand.Text() + rand.Text()}
	url := pgtest.URL(t)
	db, err := postgres.Open(t.Context(), url, pgtest.Options(url, postgres.Options{Tracer: seen.Statements()}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	log := slog.New(slog.DiscardHandler)
	prints, err := idem.NewFingerprinter([]byte(s.secret), nil)
	if err != nil {
		t.Fatal(err)
	}
	auth := merchants.NewService(db, []string{idem.DefaultPolicy})
	policies, err := idem.NewPolicies(idem.Presets(idem.Options{})...)
	if err != nil {
		t.Fatal(err)
	}
	psp := newPSP(t)
	s.service, err = transactions.NewService(transactions.Options{
		DB: db, Arrivals: idem.NewArrivals(db, log), Lease: lease, Fingerprints: prints, RawLiveCards: true, Log: log,
		Providers: providers.NewRegistry(map[string]providers.Provider{merchants.Test: psp}),
		Policies:  policies,
		Watch:     seen.Exchanges(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.service.Beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	m, pair, err := auth.Create(t.Context(), "A merchant", "")
	if err != nil {
		t.Fatal(err)
	}
	s.account, s.pair = m.AccountID, pair
	s.metrics = seen.Handler(db, s.service)
	edge := httpapi.Options{Log: log, Transient: postgres.IsTransient, Describe: postgres.Describe, Observe: seen.Requests(Public)}
	public := httpapi.New(edge)
	edge.Observe = seen.Requests(Admin)
	operator := httpapi.New(edge)
	transactions.NewHandler(s.service, auth).Mount(public)
	admin.Mount(operator, admin.Options{
		Token: s.token, Metrics: s.metrics, API: []admin.Mounter{merchants.NewOperatorHandler(auth), transactions.NewOperatorHandler(s.service)},
	})
	s.public, s.operator = httptest.NewServer(apitest.Handler(t, public)), httptest.NewServer(apitest.Handler(t, operator))
	t.Cleanup(s.public.Close)
	t.Cleanup(s.operator.Close)
	return s
}

func newPSP(t *testing.T) providers.Provider {
	t.Helper()
	ledger, err := sandbox.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	psp := sandbox.NewServer(ledger, sandbox.Options{})
	server := httptest.NewServer(psp)
	t.Cleanup(func() {
		server.Close()
		psp.Close()
		_ = ledger.Close()
	})
	a, err := sandbox.NewAdapter(server.URL, sandbox.AdapterOptions{Timeout: 5 * time.Second, Settle: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// call sends a request and returns its status; headers are pairs.
func (s *stage) call(method, url string, body []byte, headers ...string) int {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

// pay sends a payment with the canaries in it; extra is put in front of the body's
// end.
func (s *stage) pay(nonce, card, secret, extra string) int {
	s.t.Helper()
	body := fmt.Sprintf(`{"account_id":%q,"merchant_order_id":"order-%s","description":"A test payment","country":"US",`+
		`"amount":{"currency":"USD","value":45.67},"workflow":"DIRECT","payment_method":{"type":"CARD","detail":{"card":{"card_data":`+
		`{"number":%q,"holder_name":"Canary Doe","expiration_month":11,"expiration_year":28,"security_code":%q}}}}%s}`,
		s.account, nonce, card, canaryCode, extra)
	return s.call(http.MethodPost, s.public.URL+"/v1/payments", []byte(body),
		"public-api-key", s.pair.PublicAPIKey, "private-secret-key", secret, "X-Idempotency-Key", nonce,
		"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate", "v="+card, "baggage", "v="+card)
}

func TestH55NoSpanAndNoMetricHoldsACardANonceOrASecret(t *testing.T) {
	t.Parallel()
	seen, kept := traced(t)
	s := newStage(t, seen)
	nonce, poor := "nonce-"+rand.Text(), "nonce-"+rand.Text()
	wrong := "sandbox_secret_wrong" + rand.Text()
	keys := []string{"public-api-key", s.pair.PublicAPIKey, "private-secret-key", s.pair.PrivateSecretKey}
	for _, step := range []struct {
		what string
		want int
		got  int
	}{
		{"approved", 201, s.pay(nonce, canaryCard, s.pair.PrivateSecretKey, "")},
		{"replayed", 201, s.pay(nonce, canaryCard, s.pair.PrivateSecretKey, `,"`+canaryCard+`":"`+canaryCard+`"`)},
		{"declined", 201, s.pay(poor, poorCard, s.pair.PrivateSecretKey, "")},
		{"no JSON", 400, s.pay("nonce-"+rand.Text(), canaryCard, s.pair.PrivateSecretKey, canaryCard)},
		{"wrong secret", 401, s.pay(nonce, canaryCard, wrong, "")},
		{"looked up by its path", 200, s.call(http.MethodGet, s.public.URL+"/v1/idempotency-keys/"+nonce, nil, keys...)},
		{"looked up by its query", 200, s.call(http.MethodGet, s.public.URL+"/v1/idempotency-keys?nonce="+nonce, nil, keys...)},
		{"listed", 200, s.call(http.MethodGet, s.public.URL+"/v1/payments?merchant_order_id=order-"+nonce, nil, keys...)},
		{"no payment", 400, s.call(http.MethodGet, s.public.URL+"/v1/payments/"+canaryCard, nil, keys...)},
		{"no path", 404, s.call(http.MethodGet, s.public.URL+"/"+canaryCard+"?"+canaryCard, nil, keys...)},
		{"no method", 405, s.call("M"+canaryCard, s.public.URL+"/v1/payments", nil, keys...)},
		{"the operator's look", 200, s.call(http.MethodGet, s.operator.URL+"/admin/v1/nonces/"+nonce, nil, "Authorization", "Bearer "+s.token)},
		{"no operator", 401, s.call(http.MethodGet, s.operator.URL+"/admin/v1/nonces/"+nonce, nil, "Authorization", "Bearer "+wrong)},
	} {
		if step.got != step.want {
			t.Errorf("%s: %d, not %d", step.what, step.got, step.want)
		}
	}
	if _, err := s.service.Recover(t.Context()); err != nil {
		t.Error(err)
	}

	names := spanNames(kept.GetSpans())
	for _, want := range []string{
		"POST /v1/payments", "GET /v1/idempotency-keys/*", "GET /v1/payments/:payment_id", "GET /admin/v1/nonces/*", "GET", "other /v1/payments",
		"provider send", "db transactions.begin", "db transactions.read_key", "db transactions.finish", "db transactions.lives",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("there is no span %q among %q", want, names)
		}
	}
	var all bytes.Buffer
	for _, span := range kept.GetSpans() {
		fmt.Fprintf(&all, "%+v\n", span)
	}
	scraped := httptest.NewRecorder()
	s.metrics.ServeHTTP(scraped, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if !strings.Contains(scraped.Body.String(), `payments_requests_total{listener="public",method="POST",route="/v1/payments",status="201"} 3`) {
		t.Error("the metrics do not know of the requests")
	}
	for what, text := range map[string]string{"span": plain(t, kept.GetSpans()) + all.String(), "metric": scraped.Body.String()} {
		for canary, name := range map[string]string{
			canaryCard: "card number", poorCard: "card number", canaryCode: "security code", nonce: "nonce", poor: "nonce",
			s.pair.PrivateSecretKey: "secret key", s.pair.PublicAPIKey: "public key", wrong: "wrong secret", s.token: "admin token",
			s.secret: "installation's secret", "Canary Doe": "card holder", "A test payment": "body",
		} {
			found := strings.Contains(text, canary)
			if canary == canaryCode { // four digits may stand in an id by chance, between quotes they don't
				found = strings.Contains(text, `"`+canaryCode+`"`) || strings.Contains(text, canaryCode+`\"`)
			}
			if found {
				t.Errorf("a %s holds the %s", what, name)
			}
		}
		if what == "metric" && strings.Contains(text, s.account.String()) {
			t.Error("a metric names a merchant")
		}
	}
}

// plain is what a span says of itself, as JSON.
func plain(t *testing.T, spans any) string {
	t.Helper()
	text, err := json.Marshal(spans)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
