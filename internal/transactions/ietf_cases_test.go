package transactions

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/apidocs"
	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/pgtest/pgproxy"
)

// The cases I01 to I14: a client that knows the standard draft, and the specification
// that we publish as it wants.

const (
	titleMalformed = "Idempotency-Key is malformed"
	stringRule     = `Idempotency-Key must be a string of RFC 9651, such as "8e03978e-40d5-43dd-bc93-6894a57f9324", with its quotes`
)

func TestI01MissingKeyIs400WhereMoneyMoves(t *testing.T) {
	t.Parallel()
	c := newClient(t, "ietf")
	defer c.judge()
	sold := c.sells("sale-1", "order-1", "100")
	missing := func(r response) {
		t.Helper()
		c.wantKeyError(r, http.StatusBadRequest, apierr.MissingParameters, "Idempotency-Key is missing", "Idempotency-Key is required")
	}
	before := c.w.footprint()
	missing(c.pay(c.body("order-2", nil)))
	missing(c.pay(c.body("order-2", nil), "X-Idempotency-Key", `"nonce-1"`)) // which is another policy's
	for _, d := range []deed{sold.refund("10"), sold.capture("10"), sold.cancel(), sold.reverse("", ""), sold.reverse(sold.transaction, "10")} {
		body, err := json.Marshal(d.body)
		if err != nil {
			t.Fatal(err)
		}
		missing(c.call(http.MethodPost, d.path(), body))
	}
	for _, path := range []string{"/v1/payments/" + sold.payment, "/v1/payments?merchant_order_id=order-1"} {
		c.w.want(c.get(path), http.StatusOK) // nothing moves there
	}
	c.w.wantUntouched(before)
}

func TestI02KeyWithoutQuotesIs400UnlessTheInstallationTakesIt(t *testing.T) {
	t.Parallel()
	c := newClient(t, "ietf")
	defer c.judge()
	body := c.body("order-1", nil)
	before := c.w.footprint()
	for _, bare := range []string{"abc", "8e03978e-40d5-43dd-bc93-6894a57f9324", "a/b", "*"} {
		c.wantKeyError(c.pay(body, c.header, bare), http.StatusBadRequest, apierr.InvalidParameters, titleMalformed, stringRule)
	}
	c.w.wantUntouched(before)

	lenient := c.w.newInstanceWith(c.w.db, func(o *Options) {
		ps, err := idem.NewPolicies(idem.Presets(idem.Options{BareKeys: true})...)
		if err != nil {
			t.Fatal(err)
		}
		o.Policies = ps
	})
	c.w.steady()
	send := func(key string) response {
		return c.w.call(http.MethodPost, lenient.public.URL+"/v1/payments", body, append(keys(c.pair), c.header, key)...)
	}
	first := send("abc")
	c.wantNew(first)
	c.wantReplay(first, send(`"abc"`))
	c.wantReplay(first, send("  abc "))
	c.wantReplay(first, send(`"abc";v=1`))
	c.wantReplay(first, c.create("abc", body)) // on an instance that is strict
	for bare, rule := range map[string]string{
		"a b": "Idempotency-Key must have only visible ASCII characters without a comma", "a,b": "Idempotency-Key must have only visible ASCII characters without a comma",
		`"abc`: stringRule, `"abc" "`: stringRule, `""`: "Idempotency-Key must not be empty", strings.Repeat("k", 256): "Idempotency-Key must have at most 255 characters",
	} {
		c.wantKeyError(send(bare), http.StatusBadRequest, apierr.InvalidParameters, titleMalformed, rule)
	}
	c.w.wantCharges("order-1", 1)
	c.w.wantSends(1, 1)
}

func TestI03EscapesInAKeyAreDecodedAndBadOnesRefused(t *testing.T) {
	t.Parallel()
	c := newClient(t, "ietf")
	defer c.judge()
	for sent, nonce := range map[string]string{`"a\"b"`: `a"b`, `"a\\b"`: `a\b`, `"\\\""`: `\"`, `"a, b;c=\"1\""`: `a, b;c="1"`, `" a "`: " a ", `"~ !"`: "~ !"} {
		body := c.body("order-of-"+nonce, nil)
		first := c.pay(body, c.header, sent)
		c.wantNew(first)
		if first.get("idempotency_key") != nonce {
			t.Errorf("%s is taken for %v", sent, first.get("idempotency_key"))
		}
		c.wantReplay(first, c.create(nonce, body))
		if l := c.life(nonce); l.PaymentID != first.get("id") {
			t.Errorf("%s: the look-up finds %s", sent, l.PaymentID)
		}
		if r := c.get("/v1/idempotency-keys/" + url.PathEscape(nonce)); r.status != http.StatusOK {
			t.Errorf("%s: by its path it is %s", sent, r)
		}
		c.w.wantCharges("order-of-"+nonce, 1)
		c.w.wantEvents(nonce, "provider")
	}
	before := c.w.footprint()
	for _, wrong := range []string{`"a\b"`, `"a\n"`, `"a\x41"`, `"a\u0041"`, `"a\"`, `"a`, `"`, `a"`, `"a"b"`, `"a"b`, "\"a\tb\"", `"é"`, `"a" "b"`} {
		c.wantKeyError(c.pay(c.body("order-1", nil), c.header, wrong), http.StatusBadRequest, apierr.InvalidParameters, titleMalformed, stringRule)
	}
	c.w.wantUntouched(before)
}

func TestI04EmptyStringIsNoKey(t *testing.T) {
	t.Parallel()
	c := newClient(t, "ietf")
	defer c.judge()
	before := c.w.footprint()
	for _, empty := range []string{`""`, ` "" `, `"";a=1`} {
		r := c.pay(c.body("order-1", nil), c.header, empty)
		c.wantKeyError(r, http.StatusBadRequest, apierr.InvalidParameters, titleMalformed, "Idempotency-Key must not be empty")
	}
	for _, blank := range []string{"", " ", "\t"} { // a header with nothing in it is none
		r := c.pay(c.body("order-1", nil), c.header, blank)
		c.wantKeyError(r, http.StatusBadRequest, apierr.MissingParameters, "Idempotency-Key is missing", "Idempotency-Key is required")
	}
	c.w.wantUntouched(before)
}

func TestI05WhatIsNoStringIsNoKey(t *testing.T) {
	t.Parallel()
	c := newClient(t, "ietf")
	defer c.judge()
	before := c.w.footprint()
	for _, other := range []string{
		"1", "-7", "1.5", "?1", "?0", "abc", "*a", ":YWJj:", "@1659578233", `%"a"`, "a=b",
		`"a", "b"`, `"a","a"`, `("a" "b")`, `("a")`, `'a'`, "`a`", "“a”", `"a" , `, `,"a"`,
	} {
		r := c.pay(c.body("order-1", nil), c.header, other)
		if r.status != http.StatusBadRequest {
			t.Fatalf("%s: got %s", other, r)
		}
		c.wantKeyError(r, http.StatusBadRequest, apierr.InvalidParameters, titleMalformed, stringRule)
	}
	for _, second := range []string{`"a"`, `"b"`, ""} {
		r := c.pay(c.body("order-1", nil), c.header, `"a"`, c.header, second)
		c.wantKeyError(r, http.StatusBadRequest, apierr.InvalidParameters, titleMalformed, "Idempotency-Key must be sent once")
	}
	c.w.wantUntouched(before)
	first := c.create("a", c.body("order-1", nil)) // none of them used it up
	c.wantNew(first)
}

func TestI06ParametersOfAKeyAreIgnored(t *testing.T) {
	t.Parallel()
	c := newClient(t, "ietf")
	defer c.judge()
	body := c.body("order-1", nil)
	first := c.pay(body, c.header, `"a";x=1`)
	c.wantNew(first)
	if first.get("idempotency_key") != "a" {
		t.Errorf("the key is %v", first.get("idempotency_key"))
	}
	for _, same := range []string{`"a"`, `"a";x=1`, `"a";x=2`, `"a"; x=1;  y="b"`, `"a";flag`, `"a";x=1;x=2`, `"a";*=?0`, ` "a";v=:YWJj: `} {
		c.wantReplay(first, c.pay(body, c.header, same))
	}
	before := c.w.footprint()
	for _, wrong := range []string{`"a";`, `"a";X=1`, `"a";=1`, `"a";x=`, `"a" ;x=1`, `"a";x="`, `"a";x=(1)`} {
		r := c.pay(body, c.header, wrong)
		c.wantKeyError(r, http.StatusBadRequest, apierr.InvalidParameters, titleMalformed, stringRule)
	}
	c.w.wantUntouched(before)
	c.w.wantCharges("order-1", 1)
	c.w.wantSends(1, 1)
}

func TestI07AnotherBodyIs422WithALinkToTheSpecification(t *testing.T) {
	t.Parallel()
	c := newClient(t, "ietf")
	defer c.judge()
	first := c.create("nonce-1", c.body("order-1", nil))
	c.wantNew(first)
	other := c.body("order-1", map[string]any{"amount": json.Number("99.99")})
	for range 2 {
		c.wantReused(c.create("nonce-1", other), "with another body")
	}
	c.wantReplay(first, c.create("nonce-1", c.body("order-1", nil)))
	c.w.wantVerdicts(c.life("nonce-1"), idem.New, idem.Mismatch, idem.Mismatch, idem.Replayed)
	if n := c.w.count(`SELECT count(*) FROM arrivals WHERE verdict = 'mismatch' AND body_differs AND differs = 'amount'`); n != 2 {
		t.Errorf("%d arrivals say that the amount was another, want 2", n)
	}
	c.w.wantCharges("order-1", 1)
	c.w.wantEvents("nonce-1", "provider")
}

func TestI08RequestInFlightIs409(t *testing.T) {
	t.Parallel()
	c := newClient(t, "ietf")
	defer c.judge()
	body := c.body("order-1", nil)
	arrived, letGo := c.w.holdNext(approve)
	answer := c.background("nonce-1", body)
	receive(t, arrived, "the send")
	for range 2 {
		c.wantInFlight(c.create("nonce-1", body))
	}
	letGo()
	first := receive(t, answer, "the answer")
	c.wantNew(first)
	c.wantReplay(first, c.create("nonce-1", body))
	c.w.wantSends(1, 1)
}

func TestI09AnotherBodyOfARequestInFlightIs422(t *testing.T) {
	t.Parallel()
	c := newClient(t, "ietf")
	defer c.judge()
	body, other := c.body("order-1", nil), c.body("order-1", map[string]any{"amount": json.Number("99.99")})
	arrived, letGo := c.w.holdNext(approve)
	answer := c.background("nonce-1", body)
	receive(t, arrived, "the send")
	c.wantReused(c.create("nonce-1", other), "with another body")
	c.wantInFlight(c.create("nonce-1", body))
	letGo()
	first := receive(t, answer, "the answer")
	c.wantNew(first)
	c.wantReused(c.create("nonce-1", other), "with another body")
	c.wantReplay(first, c.create("nonce-1", body))
	c.w.wantCharges("order-1", 1)
	c.w.wantSends(1, 1)
}

// A process that died keeps no errors: what it left is resumed by the same body, and no
// other one.
func TestI09AnotherBodyOfADeadProcessesRequestIs422AndTheSameOneResumes(t *testing.T) {
	t.Parallel()
	everywhere(t, []string{"novu", "ietf"}, func(t *testing.T, c *client) {
		body, other := c.body("order-1", nil), c.body("order-1", map[string]any{"amount": json.Number("99.99")})
		dead := c.w.newInstance(c.w.db)
		c.w.steady()
		acted, letGo := c.w.holdAnswer(approve)
		zombie := atOnce(1, func(int) (response, error) {
			return c.tryOn(t.Context(), dead, "/v1/payments", "nonce-1", body)
		})
		receive(t, acted, "the send")
		c.w.silence(dead)
		c.wantReused(c.create("nonce-1", other), "with another body")
		first := c.create("nonce-1", body)
		c.wantNew(first)
		letGo()
		c.w.wantSame(first, receive(t, zombie, "the answer of the process that came back"))
		c.wantReplay(first, c.create("nonce-1", body))
		c.w.wantCharges("order-1", 1)
		c.w.wantSends(1, 1)
		c.w.wantEvents("nonce-1", "provider")
	})
}

func TestI10ErrorIsKeptAndReplayedAsAProblem(t *testing.T) {
	t.Parallel()
	wantErrorsKept(t, "ietf")
}

// Word for word, so that nothing is compared with what made it.
func TestI11EveryErrorIsAProblem(t *testing.T) {
	t.Parallel()
	c := newClient(t, "ietf")
	defer c.judge()
	body := c.body("order-1", nil)
	c.wantNew(c.create("nonce-1", body))
	arrived, letGo := c.w.holdNext(approve)
	answer := c.background("in-flight", body)
	receive(t, arrived, "the send")
	for want, r := range map[string]response{
		`{"type":"/docs/idempotency","title":"Idempotency-Key is missing","status":400,"detail":"Idempotency-Key is required","code":"MISSING_PARAMETERS","request_id":"ID"}`:                                                                                          c.pay(body),
		`{"type":"/docs/idempotency","title":"Idempotency-Key is malformed","status":400,"detail":"Idempotency-Key must not be empty","code":"INVALID_PARAMETERS","request_id":"ID"}`:                                                                                  c.create("", body),
		`{"type":"/docs/idempotency","title":"Idempotency-Key is already used","status":422,"detail":"Idempotency-Key was used with another body; use a new key","code":"IDEMPOTENCY_KEY_REUSED","request_id":"ID"}`:                                                   c.create("nonce-1", c.body("order-2", nil)),
		`{"type":"/docs/idempotency","title":"A request is outstanding for this Idempotency-Key","status":409,"detail":"a request with this idempotency key is in process; retry with the same key","code":"REQUEST_IN_PROCESS","request_id":"ID"}`:                    c.create("in-flight", body),
		`{"type":"/docs/errors/INVALID_REQUEST","title":"Invalid request","status":400,"detail":"$ must be an object","code":"INVALID_REQUEST","request_id":"ID"}`:                                                                                                     c.create("new", []byte("1")),
		`{"type":"/docs/errors/NOT_FOUND","title":"Not found","status":404,"detail":"nothing is known of this idempotency key","code":"NOT_FOUND","request_id":"ID"}`:                                                                                                  c.get("/v1/idempotency-keys/unheard-of"),
		`{"type":"/docs/errors/NOT_FOUND","title":"Not found","status":404,"detail":"there is nothing at this path","code":"NOT_FOUND","request_id":"ID"}`:                                                                                                             c.get("/v1/nothing"),
		`{"type":"/docs/errors/UNSUPPORTED_METHOD","title":"Unsupported method","status":405,"detail":"this path does not take this method","code":"UNSUPPORTED_METHOD","request_id":"ID"}`:                                                                            c.call(http.MethodPut, "/v1/payments", nil),
		`{"type":"/docs/errors/INVALID_CREDENTIALS","title":"Invalid credentials","status":401,"detail":"public-api-key and private-secret-key must be a valid pair","code":"INVALID_CREDENTIALS","request_id":"ID"}`:                                                  c.w.call(http.MethodGet, c.w.public.URL+"/v1/payments", nil, "public-api-key", c.pair.PublicAPIKey),
		`{"type":"/docs/errors/MISSING_PARAMETERS","title":"Missing parameters","status":400,"detail":"$.merchant_order_id is required; $.description is required; $.amount is required; $.payment_method is required","code":"MISSING_PARAMETERS","request_id":"ID"}`: c.create("new", fmt.Appendf(nil, `{"account_id":"%s","country":"US"}`, c.account)),
	} {
		got := strings.ReplaceAll(string(r.body), r.header.Get(httpapi.HeaderRequestID), "ID")
		if got != want+"\n" {
			t.Errorf("got  %s want %s", got, want)
		}
		if !strings.Contains(want, fmt.Sprintf(`"status":%d,`, r.status)) || r.header.Get("Content-Type") != "application/problem+json" ||
			r.header.Get("Link") != `</docs/idempotency>; rel="describedby"; type="text/html"` {
			t.Errorf("it comes as %d with the headers %v", r.status, r.header)
		}
	}
	letGo()
	c.wantNew(receive(t, answer, "the answer"))
	c.w.wantCharges("order-1", 2)
}

// The page that every problem leads to, by the server that told the problem.
func TestI12SpecificationThatProblemsLinkToIsPublished(t *testing.T) {
	t.Parallel()
	c := newClient(t, "ietf")
	defer c.judge()
	public, _ := c.w.edges(c.w.instance, c.w.service.log)
	apidocs.Mount(public)
	server := serve(t, public)
	refused := c.w.call(http.MethodPost, server.URL+"/v1/payments", c.body("order-1", nil), keys(c.pair)...)
	link, rest, found := strings.Cut(strings.TrimPrefix(refused.header.Get("Link"), "<"), ">")
	if kind := textAt(refused, "type"); !found || !strings.Contains(rest, `rel="describedby"`) || link != kind {
		t.Fatalf("Link is %q, and the type is %q", refused.header.Get("Link"), kind)
	}
	base, err := url.Parse(server.URL + "/v1/payments")
	if err != nil {
		t.Fatal(err)
	}
	page, err := base.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	r := c.w.call(http.MethodGet, page.String(), nil) // whoever they are
	c.w.want(r, http.StatusOK)
	if got := r.header.Get("Content-Type"); !strings.HasPrefix(got, "text/html") {
		t.Errorf("the page is %s", got)
	}
	// What the draft asks to be published: format, scope, comparison, and how long.
	text := strings.ToLower(string(r.body))
	for _, says := range []string{
		"draft-ietf-httpapi-idempotency-key-header", "rfc 9651", "255", "24 h", "for your account and a mode", "how two requests are compared", "how long a key lives",
		"idempotency-key is missing", "idempotency-key is malformed", "idempotency-key is already used", "a request is outstanding for this idempotency-key", "409", "422",
	} {
		if !strings.Contains(text, says) {
			t.Errorf("the page does not say %q", says)
		}
	}
	// And the pages of other problems are there, too.
	for _, code := range apierr.Codes() {
		if r := c.w.call(http.MethodGet, server.URL+apierr.DocPath(code), nil); r.status != http.StatusOK {
			t.Errorf("%s: %d", apierr.DocPath(code), r.status)
		}
	}
}

func TestI13KeyThatHasExpiredIsProcessedAsNew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	clock := w.takeClock()
	clock.set(noon)
	c := w.client("ietf")
	defer c.judge()
	body, other := c.body("order-1", nil), c.body("order-1", map[string]any{"amount": json.Number("99.99")})
	w.psp.next(serverError)
	first := c.create("nonce-1", body) // an error is kept no longer than another answer
	c.w.want(first, http.StatusBadGateway)
	w.settle("nonce-1")
	clock.set(noon.Add(24*time.Hour - tick - untilProof)) // settle moved all of it
	c.wantReplay(first, c.create("nonce-1", body))
	c.wantReused(c.create("nonce-1", other), "with another body")
	clock.set(noon.Add(24*time.Hour - untilProof))
	second := c.create("nonce-1", other)
	c.wantNew(second)
	c.wantReplay(second, c.create("nonce-1", other))
	c.wantReused(c.create("nonce-1", body), "with another body")
	if n := len(c.lives("nonce-1")); n != 2 {
		t.Errorf("%d lives, want 2", n)
	}
	c.w.wantCharges("order-1", 1)
}

func TestI14StoreThatIsAwayIs503AndNothingIsCalled(t *testing.T) {
	t.Parallel()
	everywhere(t, keepers, func(t *testing.T, c *client) {
		i, proxy := c.w.behind()
		body := c.body("order-1", nil)
		before := c.w.footprint()
		proxy.Down()
		for range 3 {
			away := c.createOn(i, "nonce-1", body)
			message := "the service cannot use its database at the moment; retry with the same key"
			if strings.Contains(string(away.body), "record") { // it had a connection, and lost it
				message = "the service could not record the outcome; retry with the same key"
			}
			c.wantError(away, http.StatusServiceUnavailable, apierr.ServiceUnavailable, message)
			if got := away.header.Get("Retry-After"); got != "1" {
				t.Errorf("Retry-After is %q, want 1", got)
			}
		}
		c.w.wantUntouched(before, "arrivals")
		proxy.Up()
		c.until201(i, body)
		c.w.wantCharges("order-1", 1)
		c.w.wantSends(1, 1)
	})
}

// until201 asks until an instance has found its database again.
func (c *client) until201(i instance, body []byte) {
	c.w.t.Helper()
	c.w.until("the database is back", func() bool { return c.createOn(i, "nonce-1", body).status == http.StatusCreated })
}

// A COMMIT whose answer is lost is not an error that may be kept: whoever is told 503
// retries with the same key, under every policy.
func TestI14ErrorsOfOursAreNeverKept(t *testing.T) {
	t.Parallel()
	for _, statement := range []string{"transactions.begin", "transactions.finish", "transactions.leave"} {
		for _, at := range []pgproxy.Point{pgproxy.Asked, pgproxy.Answered} {
			t.Run(fmt.Sprint(statement, at), func(t *testing.T) {
				t.Parallel()
				everywhere(t, keepers, func(t *testing.T, c *client) {
					i, proxy := c.w.behind()
					body := c.body("order-1", nil)
					if statement == "transactions.leave" {
						c.w.psp.next(chargeThenTimeout)
					}
					for range saveAttempts {
						proxy.Cut(statement, at)
					}
					r := c.createOn(i, "nonce-1", body)
					ours := r.status == http.StatusServiceUnavailable && strings.Contains(string(r.body), "retry with the same key")
					if !ours && !slices.Contains([]int{http.StatusCreated, http.StatusGatewayTimeout}, r.status) {
						t.Fatalf("got %s", r)
					}
					proxy.Up()
					c.w.shift("nonce-1", testLease)
					again := c.create("nonce-1", body)
					if !ours {
						c.wantReplay(r, again)
					} else if again.status == http.StatusServiceUnavailable {
						t.Fatalf("our own failure is kept: %s", again)
					}
					c.wantReplay(again, c.create("nonce-1", body))
					if !c.w.transaction("nonce-1").Status.Terminal() {
						c.w.settle("nonce-1")
					}
					c.w.wantCharges("order-1", 1)
				})
			})
		}
	}
}
