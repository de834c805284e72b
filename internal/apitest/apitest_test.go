package apitest

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/admin"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/transactions"
)

// example is one of the document's, as JSON.
func example(t *testing.T, name string) []byte {
	t.Helper()
	d, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(d.Spec.Components.Examples[name].Value.Value)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// exchange is one to check, good unless a test spoils it.
type exchange struct {
	method, target string
	header         http.Header
	body           []byte
	status         int
	answered       http.Header
	answer         []byte
}

// created is a payment that was created.
func created(t *testing.T) exchange {
	t.Helper()
	return exchange{
		method: http.MethodPost, target: "/v1/payments", body: example(t, "CreatePurchase"),
		header: http.Header{"Content-Type": {"application/json"}, "Public-Api-Key": {"sandbox_A"}, "Private-Secret-Key": {"s"}, "X-Idempotency-Key": {"k"}},
		status: http.StatusCreated, answered: http.Header{"Content-Type": {"application/json"}, "X-Request-Id": {"r"}},
		answer: example(t, "PaymentPurchased"),
	}
}

// found is a nonce that was looked up.
func found(t *testing.T, target string) exchange {
	t.Helper()
	x := created(t)
	x.method, x.target, x.body, x.status, x.answer = http.MethodGet, target, nil, http.StatusOK, example(t, "NonceAnswered")
	return x
}

// failed is a create that was answered with that error.
func failed(t *testing.T, status int, name string) exchange {
	t.Helper()
	x := created(t)
	x.status, x.answer = status, example(t, name)
	return x
}

func (x exchange) with(header, value string) exchange {
	x.answered = maps.Clone(x.answered)
	x.answered.Set(header, value)
	return x
}

// without takes something out of a body.
func without(t *testing.T, body []byte, path ...string) []byte {
	t.Helper()
	return changed(t, body, func(at map[string]any) { delete(at, path[len(path)-1]) }, path[:len(path)-1]...)
}

// changed changes an object within a body.
func changed(t *testing.T, body []byte, change func(map[string]any), path ...string) []byte {
	t.Helper()
	var root map[string]any
	if err := json.Unmarshal(body, &root); err != nil {
		t.Fatal(err)
	}
	at := root
	for _, name := range path {
		at, _ = at[name].(map[string]any)
	}
	change(at)
	b, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (x exchange) problem() error {
	req := httptest.NewRequest(x.method, x.target, bytes.NewReader(x.body))
	maps.Copy(req.Header, x.header)
	return Problem(req, x.body, &http.Response{StatusCode: x.status, Header: x.answered}, x.answer)
}

func TestExchangesThatTheDocumentAllows(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]exchange{
		"created":                 created(t),
		"a replay":                created(t).with("Idempotent-Replayed", "true"),
		"declined":                failed(t, http.StatusCreated, "PaymentDeclined"),
		"one rule broken":         failed(t, http.StatusBadRequest, "ErrorInvalidAmount"),
		"in process":              failed(t, http.StatusConflict, "ErrorRequestInProcess").with("Retry-After", "1"),
		"unclear":                 failed(t, http.StatusBadGateway, "ErrorProviderError").with("Retry-After", "1"),
		"slow upload":             failed(t, http.StatusRequestTimeout, "ErrorUploadTooSlow"),
		"slow provider":           failed(t, http.StatusGatewayTimeout, "ErrorRequestTimeout").with("Retry-After", "1"),
		"a nonce":                 found(t, "/v1/idempotency-keys/abc"),
		"a nonce with a slash":    found(t, "/v1/idempotency-keys/a%2Fb%25c"),
		"a nonce in the query":    found(t, "/v1/idempotency-keys?nonce=a%2Fb"),
		"a nonce of the operator": operators(found(t, "/admin/v1/nonces/abc?account_id=01a200da-e636-7293-8fff-64c418eedec6")),
		"a number as a string":    withBody(created(t), func(b []byte) []byte { return bytes.Replace(b, []byte("45.67"), []byte(`"45.67"`), 1) }),
		"members that we ignore":  withBody(created(t), func(b []byte) []byte { return bytes.Replace(b, []byte("{"), []byte(`{"airline":1,`), 1) }),
		"null for what is left out": withBody(created(t), func(b []byte) []byte {
			return changed(t, b, func(m map[string]any) { m["callback_url"], m["metadata"], m["customer_payer"] = nil, nil, nil })
		}),
	} {
		if err := x.problem(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func operators(x exchange) exchange {
	x.header = http.Header{"Authorization": {"Bearer t"}}
	return x
}

func withBody(x exchange, f func([]byte) []byte) exchange {
	x.body = f(x.body)
	return x
}

func withAnswer(x exchange, f func([]byte) []byte) exchange {
	x.answer = f(x.answer)
	return x
}

// TestExchangesThatTheDocumentForbids: a check that lets these through would let
// the document and the code drift apart.
func TestExchangesThatTheDocumentForbids(t *testing.T) {
	t.Parallel()
	noID := created(t)
	noID.answered = http.Header{"Content-Type": {"application/json"}}
	noKeys := created(t)
	noKeys.header = http.Header{"Content-Type": {"application/json"}, "X-Idempotency-Key": {"k"}}
	badNonce := created(t)
	badNonce.header = badNonce.header.Clone()
	badNonce.header.Set("X-Idempotency-Key", "a,b")
	asText := created(t)
	asText.answered = http.Header{"Content-Type": {"text/plain"}, "X-Request-Id": {"r"}}
	elsewhere := created(t)
	elsewhere.target = "/v1/refunds"
	teapot := failed(t, http.StatusTeapot, "ErrorInvalidAmount")
	list := found(t, "/v1/payments?merchant_order_id=o&limit=101")
	list.answer = []byte("[]")
	deep := []string{"transactions", "provider_data"}

	for name, x := range map[string]exchange{
		"no such operation":                  elsewhere,
		"no such status":                     teapot,
		"no request id":                      noID,
		"no JSON":                            asText,
		"accepted without credentials":       noKeys,
		"accepted with a malformed nonce":    badNonce,
		"accepted with a page too large":     list,
		"accepted without a country":         withBody(created(t), func(b []byte) []byte { return without(t, b, "country") }),
		"accepted with half a card":          withBody(created(t), func(b []byte) []byte { return without(t, b, "payment_method", "detail", "card", "card_data", "number") }),
		"accepted with a negative amount":    withBody(created(t), func(b []byte) []byte { return bytes.Replace(b, []byte("45.67"), []byte("-1"), 1) }),
		"accepted a broken body":             withBody(created(t), func([]byte) []byte { return []byte("{") }),
		"a member is missing":                withAnswer(created(t), func(b []byte) []byte { return without(t, b, "version") }),
		"a member deep inside is missing":    withAnswer(created(t), func(b []byte) []byte { return without(t, b, append(deep, "id")...) }),
		"a member that nobody documented":    withAnswer(created(t), func(b []byte) []byte { return changed(t, b, func(m map[string]any) { m["new"] = 1 }) }),
		"the same deep inside":               withAnswer(created(t), func(b []byte) []byte { return changed(t, b, func(m map[string]any) { m["new"] = 1 }, deep...) }),
		"transactions as an array":           failed(t, http.StatusCreated, "PaymentFound"),
		"a status that there is not":         withAnswer(created(t), func(b []byte) []byte { return changed(t, b, func(m map[string]any) { m["status"] = "PAID" }) }),
		"an amount as a string":              withAnswer(created(t), func(b []byte) []byte { return changed(t, b, func(m map[string]any) { m["value"] = "45.67" }, "amount") }),
		"a code under another status":        failed(t, http.StatusBadRequest, "ErrorPaymentNotFound"),
		"an error without a code":            withAnswer(failed(t, http.StatusBadRequest, "ErrorInvalidAmount"), func(b []byte) []byte { return without(t, b, "code") }),
		"an error with more than we say":     withAnswer(failed(t, http.StatusBadRequest, "ErrorInvalidAmount"), func(b []byte) []byte { return changed(t, b, func(m map[string]any) { m["card"] = 1 }) }),
		"told to wait, but not for how long": failed(t, http.StatusTooManyRequests, "ErrorTooManyFailures"),
		"a replay that says maybe":           created(t).with("Idempotent-Replayed", "maybe"),
		"no JSON at all":                     withAnswer(created(t), func([]byte) []byte { return []byte("{") }),
	} {
		if x.problem() == nil {
			t.Errorf("%s: nothing was found", name)
		}
	}
}

// TestRequestsAreCheckedOnlyWhereTheyWereTakenForValid: a test of a refusal must
// not be told that the request was wrong.
func TestRequestsAreCheckedOnlyWhereTheyWereTakenForValid(t *testing.T) {
	t.Parallel()
	broken := func([]byte) []byte { return []byte("{") }
	for name, x := range map[string]exchange{
		"a 400":                      withBody(failed(t, http.StatusBadRequest, "ErrorInvalidRequest"), broken),
		"a replay with another body": withBody(created(t).with("Idempotent-Replayed", "true").with("Idempotency-Body-Mismatch", "true"), broken),
		"a database that is away":    withBody(failed(t, http.StatusServiceUnavailable, "ErrorServiceUnavailable").with("Retry-After", "1"), broken),
		"a fault of ours":            withBody(failed(t, http.StatusInternalServerError, "ErrorInternalError"), broken),
	} {
		if err := x.problem(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	x := withBody(failed(t, http.StatusServiceUnavailable, "ErrorProviderUnavailable").with("Retry-After", "1"), broken)
	if x.problem() == nil {
		t.Error("the provider was called with a request that the document does not allow")
	}
}

// TestWhatTheEdgeAnswersByItself goes through the real edge, for which no database
// is needed: wrong keys, unknown paths, other methods.
func TestWhatTheEdgeAnswersByItself(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	edge := httpapi.Options{Log: log, Transient: func(error) bool { return false }, Describe: error.Error}
	public, operator := httpapi.New(edge), httpapi.New(edge)
	auth := merchants.NewService(nil, []string{"yuno"})
	transactions.NewHandler(nil, auth).Mount(public)
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = io.WriteString(w, "payments_parked 0\n")
	})
	token := strings.Repeat("t", admin.MinTokenLength)
	admin.Mount(operator, admin.Options{
		Token: token, Metrics: metrics, API: []admin.Mounter{merchants.NewOperatorHandler(auth), transactions.NewOperatorHandler(nil)},
	})

	for _, c := range []struct {
		h              http.Handler
		method, target string
		body           string
		want           int
	}{
		{public, http.MethodPost, "/v1/payments", "{}", http.StatusUnauthorized},
		{public, http.MethodGet, "/v1/payments/x", "", http.StatusUnauthorized},
		{public, http.MethodGet, "/v1/idempotency-keys/a%2Fb", "", http.StatusUnauthorized},
		{public, http.MethodDelete, "/v1/idempotency-keys/abc", "", http.StatusMethodNotAllowed},
		{public, http.MethodPut, "/v1/payments", "{}", http.StatusMethodNotAllowed},
		{public, http.MethodGet, "/nowhere", "", http.StatusNotFound},
		{public, http.MethodGet, "/v1/nowhere", "", http.StatusNotFound},
		{operator, http.MethodGet, "/metrics", "", http.StatusOK},
		{operator, http.MethodGet, "/nowhere", "", http.StatusNotFound},
		{operator, http.MethodPost, "/admin/v1/merchants", "{}", http.StatusBadRequest},
		{operator, http.MethodPost, "/admin/v1/merchants", "", http.StatusBadRequest},
		{operator, http.MethodPost, "/admin/v1/merchants/x/keys", "{}", http.StatusNotFound},
		{operator, http.MethodGet, "/admin/v1/nonces", "", http.StatusBadRequest},
		{operator, http.MethodGet, "/admin/v1/nonces/a%09b", "", http.StatusBadRequest},
		{operator, http.MethodPost, "/admin/v1/transactions/x/resolve", "{}", http.StatusNotFound},
	} {
		req := httptest.NewRequest(c.method, c.target, strings.NewReader(c.body))
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		rec := httptest.NewRecorder()
		c.h.ServeHTTP(rec, req)
		if rec.Code != c.want {
			t.Errorf("%s %s answered %d, want %d", c.method, c.target, rec.Code, c.want)
		}
		Check(t, req, []byte(c.body), rec.Result(), rec.Body.Bytes())
	}

	rec := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodGet, "/admin/v1/nonces/abc", http.NoBody)
	operator.ServeHTTP(rec, req)
	if rec.Code != http.StatusUnauthorized {
		t.Errorf("without a token: %d", rec.Code)
	}
	Check(t, req, nil, rec.Result(), rec.Body.Bytes())
}

// TestGoServersOwnRefusalsPass: they never reach us, and have no envelope.
func TestGoServersOwnRefusalsPass(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.MaxHeaderBytes = 1 << 10
	server.Start()
	t.Cleanup(server.Close)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/v1/payments", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Idempotency-Key", strings.Repeat("k", 16<<10))
	res, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Fatalf("the server answered %d", res.StatusCode)
	}
	Check(t, req, nil, res, body)
}

// TestCheckIsCheap: it stands behind every exchange of every suite. The limit is a
// hundred times what it takes, and still less than compiling the schemas again.
func TestCheckIsCheap(t *testing.T) {
	x := created(t)
	if err := x.problem(); err != nil { // loads the document
		t.Fatal(err)
	}
	const n = 200
	begun := time.Now()
	for range n {
		_ = x.problem()
	}
	each := time.Since(begun) / n
	t.Logf("%s each", each)
	if each > 20*time.Millisecond {
		t.Errorf("one check takes %s", each)
	}
}

// TestCheckFailsTheTestAndNamesTheExchange is the one line that callers read.
func TestCheckFailsTheTestAndNamesTheExchange(t *testing.T) {
	t.Parallel()
	r := &recorder{TB: t}
	x := created(t)
	x.status = http.StatusTeapot
	req := httptest.NewRequest(x.method, x.target, bytes.NewReader(x.body))
	Check(r, req, x.body, &http.Response{StatusCode: x.status, Header: x.answered}, x.answer)
	if r.failures != 1 {
		t.Errorf("it failed %d times", r.failures)
	}
}

// recorder is a test that only counts its failures.
type recorder struct {
	testing.TB
	failures int
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(string, ...any) { r.failures++ }
