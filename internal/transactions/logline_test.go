package transactions

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
)

// lineKeys are the keys of the canonical line, in their order: searches and
// dashboards are built on them.
var lineKeys = []string{
	"time", "level", "msg", "request_id", "method", "route", "status", "duration_ms", "account_id", "mode", "idem_verdict",
	"transaction_id", "provider", "provider_ms", "error_code",
}

// keysOf are a line's keys, in the order in which they stand.
func keysOf(t *testing.T, line string) []string {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(line))
	var keys []string
	for i := -1; ; i++ { // the opening brace, then key and value by turns
		token, err := d.Token()
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if token == json.Delim('}') {
			return keys
		}
		if name, ok := token.(string); ok && i%2 == 0 {
			keys = append(keys, name)
		}
	}
}

// TestOneLineARequest: the same keys whatever became of it, and, for everything that
// is an ordinary answer, the level INFO and no other line.
func TestOneLineARequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.psp.next(approve, decline)
	const creates, payments = "POST", "/v1/payments"
	valid := w.body("an-order", nil)
	// In process, because over the wire an answer may be there before its line.
	ask := func(method, path string, body []byte, headers ...string) *httptest.ResponseRecorder {
		req := httptest.NewRequestWithContext(t.Context(), method, path, bytes.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		answer := httptest.NewRecorder()
		w.public.Config.Handler.ServeHTTP(answer, req)
		return answer
	}
	send := func(nonce string, body []byte, pair merchants.KeyPair) *httptest.ResponseRecorder {
		return ask(creates, payments, body, append(keys(pair), idem.Header, nonce, "X-Request-Id", "request-of-"+nonce)...)
	}
	get := func(path string) *httptest.ResponseRecorder { return ask("GET", path, nil, keys(w.test)...) }
	wrong := merchants.KeyPair{PublicAPIKey: w.test.PublicAPIKey, PrivateSecretKey: "sandbox_secret_wrong"}
	account, psp := w.account.String(), w.psp.Name()
	for _, c := range []struct {
		what                                 string
		call                                 func() *httptest.ResponseRecorder
		status                               int
		method, route, verdict, provider, id string
		account, code                        string
	}{
		{"approved", func() *httptest.ResponseRecorder { return send("a-nonce", valid, w.test) }, 201, creates, payments, "new", psp, "request-of-a-nonce", account, ""},
		{"replayed", func() *httptest.ResponseRecorder { return send("a-nonce", valid, w.test) }, 201, creates, payments, "replayed", psp, "request-of-a-nonce", account, ""},
		{"declined", func() *httptest.ResponseRecorder { return send("b-nonce", valid, w.test) }, 201, creates, payments, "new", psp, "request-of-b-nonce", account, ""},
		{"not valid", func() *httptest.ResponseRecorder { return send("c-nonce", []byte(`{}`), w.test) }, 400, creates, payments, "rejected", "", "request-of-c-nonce", account, "MISSING_PARAMETERS"},
		{"no JSON", func() *httptest.ResponseRecorder { return send("d-nonce", []byte(`{`), w.test) }, 400, creates, payments, "rejected", "", "request-of-d-nonce", account, "INVALID_REQUEST"},
		{"no nonce", func() *httptest.ResponseRecorder { return ask(creates, payments, valid, keys(w.test)...) }, 400, creates, payments, "", "", "", account, "MISSING_PARAMETERS"},
		{"wrong secret", func() *httptest.ResponseRecorder { return send("a-nonce", valid, wrong) }, 401, creates, payments, "", "", "request-of-a-nonce", "", "INVALID_CREDENTIALS"},
		{"looked up", func() *httptest.ResponseRecorder { return get("/v1/idempotency-keys/a-nonce") }, 200, "GET", "/v1/idempotency-keys/*", "", "", "", account, ""},
		{"nothing known", func() *httptest.ResponseRecorder { return get("/v1/idempotency-keys/z-nonce") }, 404, "GET", "/v1/idempotency-keys/*", "", "", "", account, "NOT_FOUND"},
		{"no payment", func() *httptest.ResponseRecorder { return get(payments + "/" + uuid.NewString()) }, 400, "GET", "/v1/payments/:payment_id", "", "", "", account, "PAYMENT_NOT_FOUND"},
		{"no path", func() *httptest.ResponseRecorder { return get("/v2/nowhere") }, 404, "GET", "", "", "", "", "", "NOT_FOUND"},
		{"no method", func() *httptest.ResponseRecorder { return ask("PUT", payments, nil, keys(w.test)...) }, 405, "PUT", payments, "", "", "", "", "UNSUPPORTED_METHOD"},
	} {
		w.logs.Reset()
		r := c.call()
		if r.Code != c.status {
			t.Fatalf("%s: %d %s", c.what, r.Code, r.Body)
		}
		lines := strings.Split(strings.TrimSpace(w.logs.String()), "\n")
		if len(lines) != 1 {
			t.Fatalf("%s: %d lines:\n%s", c.what, len(lines), strings.Join(lines, "\n"))
		}
		if got := keysOf(t, lines[0]); !slices.Equal(got, lineKeys) {
			t.Errorf("%s: the keys are %q", c.what, got)
		}
		var l map[string]any
		if err := json.Unmarshal([]byte(lines[0]), &l); err != nil {
			t.Fatal(err)
		}
		mode := ""
		if c.account != "" {
			mode = "test"
		}
		id := c.id
		if id == "" {
			id = r.Header().Get("X-Request-Id")
		}
		want := fmt.Sprint("INFO", "request", id, c.method, c.route, c.status, c.account, mode, c.verdict, c.provider, c.code)
		got := fmt.Sprint(l["level"], l["msg"], l["request_id"], l["method"], l["route"], l["status"], l["account_id"], l["mode"],
			l["idem_verdict"], l["provider"], l["error_code"])
		if got != want {
			t.Errorf("%s: the line says %s, not %s", c.what, got, want)
		}
		if has := l["transaction_id"] != ""; has != (c.provider != "") {
			t.Errorf("%s: the transaction is %q", c.what, l["transaction_id"])
		}
	}
}
