package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/operators"
	"github.com/oncepay/oncepay/internal/pgtest"
)

// Case H55 over the whole program, with its metrics and its traces. That of
// internal/transactions goes deeper into what a database and a crash may do; this one
// goes wider: every route of both listeners, every place of a request, every header.
//
// Not everywhere: what the contract lets a client say in its own words (a nonce, an
// order's id, a description, a request id) is kept and told as it is, and not
// searched for cards.

const (
	canaryCard = "4929180918091807"
	canaryCode = "9810"
)

// collector takes traces as OpenTelemetry's does, and keeps all that is in them, as
// text: in the bytes, any two may be a security code.
type collector struct {
	t     *testing.T
	mu    sync.Mutex
	spans bytes.Buffer
}

// ServeHTTP takes one batch.
func (c *collector) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		c.t.Error(err)
	}
	var batch coltracepb.ExportTraceServiceRequest
	if err := proto.Unmarshal(data, &batch); err != nil {
		c.t.Error(err)
	}
	if unknown := batch.ProtoReflect().GetUnknown(); len(unknown) > 0 {
		c.t.Errorf("%d bytes of a batch are not looked at", len(unknown))
	}
	text, err := protojson.Marshal(&batch)
	if err != nil {
		c.t.Error(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spans.Write(text)
}

// spies are where everything ends up that an installation says.
type spies struct {
	*running
	told     bytes.Buffer
	seen     map[string]bool // bodies that were told
	codes    map[string]bool // of errors that were told
	canaries map[string]string
}

func (s *spies) ask(operator bool, method, target, body string, headers ...string) answered {
	s.t.Helper()
	a := s.running.ask(operator, method, target, body, headers...)
	if !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") || a.status >= 400 { // pages are the same for everybody
		h := a.header.Clone()
		h.Del("Content-Length") // digits, by chance the code's
		fmt.Fprintf(&s.told, "%d %v\n", a.status, h)
		if !s.seen[string(a.body)] {
			s.seen[string(a.body)] = true
			s.told.Write(a.body)
		}
	}
	if code := a.code(); code != "" {
		s.codes[code] = true
	}
	return a
}

// payments go into everything that a provider may do, each with a retry.
func (s *spies) payments(o owned) {
	s.t.Helper()
	for _, outcome := range []string{"approved", "declined", "refused", "not reached", "pending", "broken", "unclear", "panic"} {
		nonce := strings.ReplaceAll(outcome, " ", "-") + "-" + o.pair.Mode
		body := fmt.Sprintf(paymentBody, o.account, "order-of-"+nonce, outcome, canaryCard, canaryCode)
		for range 2 {
			s.ask(false, http.MethodPost, "/v1/payments", body, append(o.keys(), "X-Idempotency-Key", nonce)...)
		}
		s.ask(false, http.MethodPost, "/v1/payments", strings.Replace(body, `"US"`, `"`+canaryCard+`"`, 1), append(o.keys(), "X-Idempotency-Key", nonce)...)
		for _, target := range []string{"/v1/payments?merchant_order_id=order-of-" + nonce, "/v1/idempotency-keys/" + nonce} {
			s.ask(false, http.MethodGet, target, "", o.keys()...)
		}
		s.ask(true, http.MethodGet, "/admin/v1/nonces/"+nonce, "", "Authorization", "Bearer "+s.cfg.adminToken)
	}
}

// actions are what can be done to payments, and what cannot, with canaries where nobody
// looks: unknown members are accepted, and forgotten.
func (s *spies) actions(o owned) {
	s.t.Helper()
	body := fmt.Sprintf(`{"merchant_reference":"reference-1","reason":"REQUESTED_BY_CUSTOMER","amount":{"currency":"USD","value":0.01,"note":%q},"card_number":%q,"cvv":%q,"customer_payer":{"card":%q}}`,
		canaryCard, canaryCard, canaryCode, canaryCard)
	part, cancelled := o.held[0], o.held[2]
	for n, step := range []struct {
		path   string
		status int
		code   string
	}{
		{part.act("capture").target, 200, ""}, {part.act("capture").target, 200, ""},
		{"/v1/payments/" + part.payment + "/cancel-or-refund", 400, "INVALID_TRANSACTION"}, // of two captures, none is named
		{part.act("refund").target, 400, "INVALID_TRANSACTION_TYPE"},
		{part.act("cancel").target, 400, "INVALID_STATUS"},
		{sale{part.payment, uuid.NewString()}.act("capture").target, 400, "TRANSACTION_NOT_FOUND"},
		{o.sale.act("refund").target, 200, ""}, {o.sale.act("cancel-or-refund").target, 201, ""},
		{cancelled.act("cancel").target, 200, ""}, {cancelled.act("capture").target, 400, "INVALID_STATUS"},
	} {
		a := s.ask(false, http.MethodPost, step.path, body, append(o.keys(), "X-Idempotency-Key", fmt.Sprint("action-", n))...)
		if a.status != step.status || a.code() != step.code {
			s.t.Errorf("%s: got %s, want %d %s", step.path, a, step.status, step.code)
		}
	}
}

// checkouts pay with a token twice, and with a customer's card for another one.
func (s *spies) checkouts(o owned) {
	s.t.Helper()
	made := s.ask(false, http.MethodPost, "/v1/tokens", fmt.Sprintf(`{"account_id":%q,"card_data":{"number":%q,"security_code":%q,"expiration_month":11,"expiration_year":28}}`,
		o.account, canaryCard, canaryCode), o.keys()...)
	var token struct{ Token string }
	if err := json.Unmarshal(made.body, &token); err != nil || made.status != http.StatusCreated {
		s.t.Fatalf("no token: %s", made)
	}
	for n, step := range []struct {
		method string
		status int
		code   string
	}{
		{`{"token":"` + token.Token + `"}`, 201, ""}, {`{"token":"` + token.Token + `"}`, 401, "TOKEN_IN_USE"},
		{`{"vaulted_token":"` + o.shop.methods[0] + `"}`, 400, "INVALID_CUSTOMER_FOR_TOKEN"},
	} {
		a := s.ask(false, http.MethodPost, "/v1/payments", fmt.Sprintf(`{"account_id":%q,"merchant_order_id":"order-checkout","description":"approved","country":"US",
			"amount":{"currency":"USD","value":1},"customer_payer":{"id":%q},"card_number":%q,"payment_method":%s}`, o.account, o.shop.doomed, canaryCard, step.method),
			append(o.keys(), "X-Idempotency-Key", fmt.Sprint("checkout-", n))...)
		if a.status != step.status || a.code() != step.code {
			s.t.Errorf("%s: got %s, want %d %s", step.method, a, step.status, step.code)
		}
	}
}

// harmless are headers that change nothing about an answer.
var harmless = []string{
	"User-Agent", "Referer", "Origin", "Cookie", "Accept", "Accept-Language", "Via", "Forwarded", "X-Real-Ip", "X-Forwarded-Host", "Traceparent", "Tracestate", "Baggage",
	"X-B3-Traceid", "Proxy-Authorization", "From", "X-Account-Code", "X-Card",
}

// everywhere puts a canary into every place of a request to a route, sent by a
// friend and by a stranger.
func (s *spies) everywhere(operator bool, route string, c call, friend []string, canary string) {
	s.t.Helper()
	method, _, _ := strings.Cut(route, " ")
	stranger := []string{"public-api-key", canary, "private-secret-key", canary + "x", "Authorization", "Bearer " + canary + "x"}
	path, query, _ := strings.Cut(c.target, "?")
	escaped := url.PathEscape(canary)
	targets := []string{path + "?unknown=" + escaped, path + "?" + escaped + "=1", path + "/" + escaped, path + "?" + query + "&limit=" + escaped, path + "?" + query + "&after=" + escaped}
	if strings.Contains(route, "/:") {
		targets = append(targets, strings.Replace(path, strings.Split(path, "/")[len(strings.Split(path, "/"))-1], escaped, 1))
	}
	for _, who := range [][]string{friend, stranger} {
		for _, target := range targets {
			if strings.Contains(target, "/debug/pprof/profile") || strings.Contains(target, "/v1/idempotency-keys/") || strings.Contains(target, "/admin/v1/nonces/") {
				continue // the first would take its time; in the others it would be a nonce, and repeated
			}
			s.ask(operator, method, target, c.body, who...)
		}
		all := slices.Clone(who)
		for _, name := range harmless {
			all = append(all, name, "vendor="+canary)
		}
		s.ask(operator, method, "/nowhere/"+escaped, "", all...)
		headers := [][]string{all}
		for _, name := range []string{"Content-Type", "Content-Encoding", "Accept-Encoding", "If-None-Match", "Range", "X-Idempotency-Key", "Idempotency-Key", "X-Forwarded-For"} {
			headers = append(headers, append(slices.Clone(who), name, canary))
		}
		for _, h := range headers {
			if !strings.Contains(path, "/profile") {
				s.ask(operator, method, c.target, c.body, h...)
			}
		}
		if bodiless := strings.HasSuffix(route, "/unenroll") || strings.HasSuffix(route, "/:code/cancel"); method == http.MethodPost && !bodiless { // those succeed with any
			for _, body := range []string{
				canary, `"` + canary + `"`, `{"` + canary + `":1,"` + canary + `":2}`, `{"a":"` + canary, `{"a":"` + canary + "\xff" + `"}`, `["` + canary + `"]`, `{"name":["` + canary + `"]}`,
				`{"amount":"` + canary + `","country":"` + canary + `","account_id":"` + canary + `","mode":"` + canary + `","outcome":"` + canary + `","workflow":"` + canary + `"}`,
				strings.Repeat(canary+" ", httpapi.MaxBody/len(canary)),
			} {
				s.ask(operator, method, c.target, body, append(slices.Clone(who), "X-Idempotency-Key", "mistake")...)
			}
		}
	}
}

// noise may hold the digits of a security code by chance: ids, digests, times, ports,
// and numbers that are longer.
var noise = regexp.MustCompile(`"(trace|span|parentSpan)Id": ?"[^"]*"|"(start|end)TimeUnixNano": ?"[^"]*"|(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16,}|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?|(sandbox|prod)_\w+|:\d{5}\b|\d+\.\d+|0x[0-9a-f]+|\.go:\d+|"duration_ms":\d+`)

var codeAlone = regexp.MustCompile(`(^|[^0-9A-Za-z])` + canaryCode + `($|[^0-9A-Za-z])`)

// search tells what of the canaries a place holds.
func (s *spies) search(place string, data []byte) (found []string) {
	small := bytes.ToLower(data)
	for value, name := range s.canaries {
		for _, written := range []string{
			value, base64.StdEncoding.EncodeToString([]byte(value)), base64.RawURLEncoding.EncodeToString([]byte(value)), hex.EncodeToString([]byte(value)), url.QueryEscape(value),
		} {
			if at := bytes.Index(small, []byte(strings.ToLower(written))); at >= 0 {
				found = append(found, fmt.Sprintf("%s holds the %s: %q", place, name, data[max(0, at-100):at]))
			}
		}
	}
	plain := noise.ReplaceAll(data, []byte(" "))
	if m := codeAlone.FindIndex(plain); m != nil {
		found = append(found, fmt.Sprintf("%s holds the security code: %q", place, plain[max(0, m[0]-60):min(len(plain), m[1]+60)]))
	}
	return found
}

// console puts a canary into every place of a request to each page, sent by an admin who has
// signed in, and by a stranger. What the pages answer is not looked at: a form shows what was
// typed into it.
func (s *spies) console(canary string) {
	s.t.Helper()
	defer s.told.Truncate(s.told.Len())
	var admin []string
	for _, who := range s.askers() {
		if who.role == operators.Admin && who.cookie != "" {
			admin = []string{"Cookie", "oncepay_session=" + who.cookie}
		}
	}
	for _, name := range s.routes(s.operator) {
		method, path, _ := strings.Cut(name, " ")
		if !isPage(true, path) || path == "/sign-out" { // which would end what the others are asked with
			continue
		}
		if path == "/nonces/*" || path == "/search" { // where it would be a nonce, and repeated
			continue
		}
		target := parameter.ReplaceAllStringFunc(path, func(string) string { return uuid.NewString() })
		s.everywhere(true, name, call{target, ""}, admin, canary)
		form := url.Values{}
		for _, field := range []string{"name", "password", "again", "role", "reason", "amount", "nonce", "outcome", "provider_reference", "origins", "networks", "mode", "days", "next", "unheard_of"} {
			form.Set(field, canary)
		}
		if method == http.MethodPost {
			s.ask(true, method, target, form.Encode(), append(slices.Clone(admin), "Content-Type", "application/x-www-form-urlencoded")...)
		}
	}
}

// database is every row of every table, as a dump has it.
func (s *spies) database() map[string][]byte {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), pgtest.Direct(s.url))
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(s.t.Context())) }()
	dumps := map[string][]byte{}
	for _, table := range append(slices.Sorted(maps.Keys(s.rows())), "arrivals", "instances", "reconciliation_progress", "request_minutes") {
		var dump bytes.Buffer
		if _, err := conn.PgConn().CopyTo(s.t.Context(), &dump, `COPY `+table+` TO STDOUT`); err != nil {
			s.t.Fatal(err)
		}
		dumps[table] = dump.Bytes()
	}
	return dumps
}

// It sets variables of the process, so it does not run beside others.
func TestH55NothingSecretIsInLogAnswersMetricsTracesOrDatabase(t *testing.T) {
	traces := &collector{t: t}
	server := httptest.NewServer(traces)
	t.Cleanup(server.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	s := &spies{running: start(t), seen: map[string]bool{}, codes: map[string]bool{}}
	test, live, other, _ := s.people()
	s.canaries = map[string]string{
		canaryCard: "card number", canaryCard[6:15]: "card number's middle", string(s.cfg.secret): "installation's secret", s.cfg.adminToken: "admin token",
		test.pair.PrivateSecretKey: "secret of a test key", live.pair.PrivateSecretKey: "secret of a live key", other.pair.PrivateSecretKey: "secret of another's key",
	}
	s.payments(test)
	s.payments(live)
	s.actions(test)
	s.checkouts(test)
	token := []string{"Authorization", "Bearer " + s.cfg.adminToken}
	table := operatorsRoutes(test, other)
	// All of them at once, each a word of its own.
	canary := strings.Join([]string{canaryCard, canaryCode, live.pair.PrivateSecretKey, s.cfg.adminToken, string(s.cfg.secret)}, " ")
	for _, name := range s.routes(s.public) {
		s.everywhere(false, name, everyRoute()[name].ask(other), other.keys(), canary)
	}
	s.console(canary)
	for _, name := range s.forPrograms() {
		c := table[name].call
		switch name {
		case "POST /admin/v1/merchants", "POST /admin/v1/merchants/:account_id/keys", "POST /admin/v1/operators", "POST /admin/v1/tokens":
			c.body = "{}" // a good one is told its secret, which is right
		}
		s.everywhere(true, name, c, token, canary)
	}
	s.ask(false, http.MethodPost, "/v1/payments", strings.Replace(test.body(), test.account, canaryCard, 1), append(test.keys(), "X-Idempotency-Key", "mistake")...)
	for _, method := range []string{canaryCard, canaryCode, live.pair.PrivateSecretKey, s.cfg.adminToken} {
		s.ask(false, method, "/v1/payments", "", test.keys()...)
		s.ask(true, method, "/metrics", "")
	}
	metrics := s.running.ask(true, http.MethodGet, "/metrics", "")
	if _, err := s.arrivals.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	dumps := s.database()
	s.app.seen.Stop(t.Context())

	found := s.search("the metrics", metrics.body)
	for table, dump := range dumps {
		found = append(found, s.search("the table "+table, dump)...)
	}
	found = append(found, s.search("an answer", s.told.Bytes())...)
	traces.mu.Lock()
	spans := slices.Clone(traces.spans.Bytes())
	traces.mu.Unlock()
	found = append(found, s.search("a trace", spans)...)
	s.mu.Lock()
	log := bytes.Clone(s.log.Bytes())
	s.mu.Unlock()
	found = append(found, s.search("the log", log)...)
	slices.Sort(found)
	for _, f := range slices.Compact(found) {
		t.Error(f)
	}

	// That nothing was found means something only if there was something to look at.
	for name, place := range map[string][]byte{"metrics": metrics.body, "traces": spans, "log": log, "payments": dumps["payments"], "arrivals": dumps["arrivals"]} {
		if len(place) < 500 {
			t.Errorf("the %s have %d bytes: nothing was looked for in them", name, len(place))
		}
	}
	for _, word := range []string{"payments_requests_total", "payments_idempotency_total", "payments_provider_seconds"} {
		if !bytes.Contains(metrics.body, []byte(word)) {
			t.Errorf("the metrics know no %s", word)
		}
	}
	if !bytes.Contains(spans, []byte("POST /v1/payments")) {
		t.Error("the traces know no payment")
	}
	if len(slices.Compact(s.search("here", []byte(`{"a":"`+canaryCard+`","b":"`+canaryCode+`"}`)))) < 3 {
		t.Error("what is planted is not found")
	}
	// These have no way of being told here: a test of their own package tells them.
	elsewhere := []apierr.Code{
		"CHARGEBACK_IN_PROCESS", "CHECKOUT_SESSION_NOT_FOUND", "IDEMPOTENCY_KEY_REUSED", "INVALID_AMOUNT", "INVALID_STATE", "INVALID_TOKEN", "REQUEST_TIMEOUT", "RATE_LIMITED", "SERVICE_UNAVAILABLE",
		"UNAVAILABLE_PAYMENT_METHOD", "CURRENCY_NOT_ALLOWED", "REQUEST_IN_PROCESS", "UNKNOWN_IP_ADDRESS",
	}
	for _, code := range apierr.Codes() {
		if !s.codes[string(code)] && !slices.Contains(elsewhere, code) {
			t.Errorf("no canary was with a request that was answered with %s", code)
		}
	}
}
