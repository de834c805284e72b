package transactions

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
)

// The cases about what a second request is answered under the policies that compare
// bodies (H41 to H52), about answers that are large (H67), about how errors look, and
// about a merchant whose policy changes while lives go on.

// mindful are the policies that refuse another body.
var mindful = []string{"novu", "ietf"}

// comparable is a body with something of everything that can be written in two ways.
func (c *client) comparable() string {
	c.w.t.Helper()
	return string(c.body("order-1", map[string]any{
		"additional_data": json.RawMessage(`{"big":9007199254740993,"list":["a","b"],"n":1,"text":"1.0"}`),
		"metadata":        json.RawMessage(`[{"key":"k1","value":"v1"},{"key":"k2","value":"v2"}]`),
		"unheard_of":      json.RawMessage(`{"a":1,"b":[true,null]}`),
	}))
}

// edition is a body as a later request writes it.
type edition struct {
	name     string
	old, new string // in the body's text
}

// wantEditions sends a body, and then editions of it: some are the same body, and
// replayed, the others are 422.
func wantEditions(t *testing.T, same, others []edition) {
	t.Helper()
	everywhere(t, mindful, func(t *testing.T, c *client) {
		body := c.comparable()
		first := c.create("nonce-1", []byte(body))
		c.wantNew(first)
		edited := func(e edition) []byte {
			if strings.Count(body, e.old) != 1 {
				t.Fatalf("%s: %q is in the body %d times", e.name, e.old, strings.Count(body, e.old))
			}
			return []byte(strings.Replace(body, e.old, e.new, 1))
		}
		for _, e := range same {
			again := c.create("nonce-1", edited(e))
			if again.status != first.status {
				t.Fatalf("%s: got %s", e.name, again)
			}
			c.wantReplay(first, again)
		}
		for _, e := range others {
			again := c.create("nonce-1", edited(e))
			if again.status != http.StatusUnprocessableEntity {
				t.Fatalf("%s: got %s", e.name, again)
			}
			c.wantReused(again, "with another body")
		}
		c.w.wantCharges("order-1", 1)
		c.w.wantSends(1, 1)
		c.w.wantEvents("nonce-1", "provider")
	})
}

func TestH41RetryWithOtherWhiteSpaceIsReplayed(t *testing.T) {
	t.Parallel()
	everywhere(t, mindful, func(t *testing.T, c *client) {
		body := []byte(c.comparable())
		first := c.create("nonce-1", body)
		c.wantNew(first)
		var indented bytes.Buffer
		if err := json.Indent(&indented, body, "\t", "  "); err != nil {
			t.Fatal(err)
		}
		for _, again := range [][]byte{
			indented.Bytes(), append(bytes.Clone(body), " \r\n\t"...), append([]byte("\n "), body...), bytes.ReplaceAll(body, []byte(`":`), []byte("\" \t:\r\n")),
		} {
			c.wantReplay(first, c.create("nonce-1", again))
		}
		c.w.wantCharges("order-1", 1)
		c.w.wantSends(1, 1)
	})
}

func TestH42RetryWithItsNamesInAnotherOrderIsReplayedAndAnotherListIs422(t *testing.T) {
	t.Parallel()
	everywhere(t, mindful, func(t *testing.T, c *client) {
		body := []byte(c.comparable())
		first := c.create("nonce-1", body)
		c.wantNew(first)
		turned := backwards(t, body)
		if bytes.Equal(turned, body) {
			t.Fatal("the order is the same")
		}
		c.wantReplay(first, c.create("nonce-1", turned))
	})
	wantEditions(t, []edition{{"names within", `{"a":1,"b":[true,null]}`, `{"b":[true,null],"a":1}`}}, []edition{
		{"a list", `["a","b"]`, `["b","a"]`}, {"a list that nobody reads", `[true,null]`, `[null,true]`},
		{"pairs", `[{"key":"k1","value":"v1"},{"key":"k2","value":"v2"}]`, `[{"key":"k2","value":"v2"},{"key":"k1","value":"v1"}]`},
	})
}

func TestH43RetryWithItsNumbersWrittenOtherwiseIsReplayedAndOtherTextsAre422(t *testing.T) {
	t.Parallel()
	wantEditions(t, []edition{
		{"an amount with a zero more", `"value":45.67`, `"value":45.670`}, {"an amount with an exponent", `"value":45.67`, `"value":4567e-2`},
		{"an amount as a text", `"value":45.67`, `"value":"45.67"`}, {"one with a zero more", `"value":45.67`, `"value":"45.6700"`},
		{"1.0", `"n":1,`, `"n":1.0,`}, {"1.00", `"n":1,`, `"n":1.00,`}, {"1e0", `"n":1,`, `"n":1e0,`}, {"10E-1", `"n":1,`, `"n":10E-1,`},
		{"a text's escapes", `"A test payment"`, `"\u0041 test\u0020payment"`}, {"a name's escapes", `"country"`, `"\u0063ountry"`},
	}, []edition{
		{"another amount", `"value":45.67`, `"value":45.68`}, {"another amount as a text", `"value":45.67`, `"value":"45.68"`},
		{"a text of another form", `"text":"1.0"`, `"text":"1.00"`}, {"a number for a text", `"text":"1.0"`, `"text":1.0`}, {"a text for a number", `"n":1,`, `"n":"1",`},
		{"another number", `"n":1,`, `"n":1.1,`},
	})
}

func TestH44RetryWithALargeNumberThatDiffersByOneIs422(t *testing.T) {
	t.Parallel()
	wantEditions(t, []edition{{"with a point", `9007199254740993`, `9007199254740993.0`}, {"with an exponent", `9007199254740993`, `9.007199254740993e15`}}, []edition{
		{"one less", `9007199254740993`, `9007199254740992`}, {"one more", `9007199254740993`, `9007199254740994`}, {"a little more", `9007199254740993`, `9007199254740993.0000000000000001`},
	})
}

func TestH48FieldThatNobodyKnowsIsAcceptedAndPartOfTheBody(t *testing.T) {
	t.Parallel()
	wantEditions(t, nil, []edition{
		{"of another value", `"unheard_of":{"a":1`, `"unheard_of":{"a":2`}, {"left out", `,"unheard_of":{"a":1,"b":[true,null]}`, ``},
		{"of another name", `"unheard_of"`, `"Unheard_of"`}, {"one more", `"country"`, `"another":1,"country"`}, {"one more, of nothing", `"country"`, `"another":null,"country"`},
	})
}

// The security code must not be kept even as a digest, so it is no part of the body.
func TestH48SecurityCodeIsNoPartOfTheBodyAndTheCardIs(t *testing.T) {
	t.Parallel()
	wantEditions(t, []edition{{"another security code", `"security_code":"123"`, `"security_code":"321"`}}, []edition{
		{"another card", `"4111111111111111"`, `"4242424242424242"`}, {"another month", `"expiration_month":11`, `"expiration_month":12`},
		{"another holder", `"John Doe"`, `"Jane Doe"`},
	})
}

func TestH49PackedBodyIsTheSameAndAnotherCharsetIs415(t *testing.T) {
	t.Parallel()
	everywhere(t, mindful, func(t *testing.T, c *client) {
		body := []byte(c.comparable())
		packed := func(b []byte) []byte {
			var z bytes.Buffer
			w := gzip.NewWriter(&z)
			_, _ = w.Write(b)
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			return z.Bytes()
		}
		send := func(nonce string, body []byte, contentType, coding string) response {
			r := c.w.paying("", body).but(header("Content-Type", contentType), header("Content-Encoding", coding), header("X-Idempotency-Key"),
				header("public-api-key", c.pair.PublicAPIKey), header("private-secret-key", c.pair.PrivateSecretKey), header(c.header, c.written(nonce)))
			return c.w.send(c.w.public, r)
		}
		for i, way := range [][2]string{{"gzip", "identity"}, {"identity", "gzip"}} {
			nonce := fmt.Sprint("nonce-", i)
			coded := map[string][]byte{"gzip": packed(body), "identity": body}
			first := send(nonce, coded[way[0]], "application/json", way[0])
			c.wantNew(first)
			c.wantReplay(first, send(nonce, coded[way[1]], "application/json; charset=UTF-8", way[1]))
			c.wantReused(send(nonce, packed(c.body("order-2", nil)), "application/json", "gzip"), "with another body")
		}
		before := c.w.footprint()
		for _, charset := range []string{"iso-8859-1", "utf-16", "us-ascii"} {
			r := send("nonce-0", body, "application/json; charset="+charset, "identity")
			c.wantError(r, http.StatusUnsupportedMediaType, apierr.UnsupportedMediaType, "charset must be utf-8")
		}
		c.w.wantUntouched(before, "arrivals")
		c.w.wantCharges("order-1", 2)
		c.w.wantSends(2, 2)
	})
}

// None of our operations goes without a body. Whoever sends none is told so each time
// alike, and has used nothing up.
func TestH51RequestWithoutABodyIsRefusedAlikeEachTime(t *testing.T) {
	t.Parallel()
	everywhere(t, mindful, func(t *testing.T, c *client) {
		sold := c.sells("sale-1", "order-1", "100")
		refund := sold.refund("10")
		c.life("sale-1")
		before := c.w.footprint()
		for range 3 {
			for _, path := range []string{"/v1/payments", refund.path()} {
				r := c.call(http.MethodPost, path, []byte{}, c.header, c.written("nonce-1"))
				c.wantError(r, http.StatusBadRequest, apierr.InvalidRequest, "$ must not be empty")
			}
		}
		c.w.wantUntouched(before, "arrivals")
		refunded := c.act("nonce-1", refund)
		c.w.want(refunded, http.StatusOK)
		c.wantReplay(refunded, c.act("nonce-1", refund))
	})
}

// A release that makes fingerprints otherwise leaves rows behind that are compared in
// their own way; one that nobody here can make is nobody's, which is the safe side.
func TestH52RowIsComparedInTheVersionThatMadeIt(t *testing.T) {
	t.Parallel()
	everywhere(t, mindful, func(t *testing.T, c *client) {
		body := c.body("order-1", nil)
		first := c.create("nonce-1", body)
		c.wantNew(first)
		if n := c.w.count(`SELECT get_byte(fingerprint, 0) FROM idempotency_keys`); n != 1 {
			t.Errorf("the fingerprint is of version %d", n)
		}
		c.w.sql(`UPDATE idempotency_keys SET fingerprint = set_byte(fingerprint, 0, $1)`, 99)
		c.wantReused(c.create("nonce-1", body), "with another body")
		c.w.sql(`UPDATE idempotency_keys SET fingerprint = set_byte(fingerprint, 0, $1)`, 1)
		c.wantReplay(first, c.create("nonce-1", body))
		c.w.wantCharges("order-1", 1)
	})
}

// While the installation's secret changes, half of the instances make the fingerprints
// with the one and half with the other.
func TestH52ChangeOfTheSecretMakesNoOtherBody(t *testing.T) {
	t.Parallel()
	everywhere(t, mindful, func(t *testing.T, c *client) {
		changed := c.w.newInstanceWith(c.w.db, func(o *Options) {
			prints, err := idem.NewFingerprinter([]byte("the next secret of the tests, of 32 bytes or more"), testSecret)
			if err != nil {
				t.Fatal(err)
			}
			o.Fingerprints = prints
		})
		c.w.steady()
		body := c.body("order-1", nil)
		first := c.create("nonce-1", body)
		c.wantNew(first)
		c.wantReplay(first, c.createOn(changed, "nonce-1", body))
		c.wantReused(c.createOn(changed, "nonce-1", c.body("order-2", nil)), "with another body")
		c.w.wantCharges("order-1", 1)
	})
}

// Whatever makes an answer large: nothing that keeps it or tells it again has a limit of
// its own.
func TestH67AnswerOfAMegabyteIsKeptAndReplayedAsItIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.steady()
	body := w.body("order-1", nil)
	r := w.claim(w.instance, "nonce-1", "order-1")
	approval := w.psp.book(providers.Charge{
		Order: r.order(), Amount: r.tx.Amount, Currency: r.tx.Currency, Country: "US", Capture: true,
	})
	random := rand.New(rand.NewChaCha8([32]byte{67})) // so that they don't compress to nothing
	var large []byte
	e := ending{status: Succeeded, providerReference: approval.ProviderReference, responseCode: approval.ResponseCode, at: r.now(), cause: "provider", calls: r.calls}
	e.tell = func(p Payment, tx Transaction) (*answer, error) {
		a, err := tell(p, tx)
		if err != nil {
			return nil, err
		}
		large = a.body
		for len(large) < 1<<20 { // white space behind JSON is JSON
			large = append(large, " \t\r\n"[random.IntN(4)])
		}
		return &answer{a.status, large}, nil
	}
	a, err := w.service.finish(t.Context(), r, approval, e, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Body, large) || len(large) < 1<<20 {
		t.Fatalf("the first answer has %d bytes, want %d", len(a.Body), len(large))
	}
	first := response{status: a.Status, body: large, header: replayed(large)}
	for range 2 {
		w.wantReplay(first, w.create("nonce-1", body), false)
	}
	w.wantReplay(first, w.create("nonce-1", w.body("order-2", nil)), true)
	w.wantCharges("order-1", 1)
	w.wantSends(0, 0) // the test itself was the provider's client
	w.wantEvents("nonce-1", "provider")
}

// The largest answer that a request can bring about has more than 2 MiB: what describes a
// payment is told in it, some of it thrice, and each "<" is written as six bytes. Only the
// limits of the request bound it.
func TestH67LargestLegalRequestsAnswerIsReplayedAsItIs(t *testing.T) {
	t.Parallel()
	everywhere(t, allPolicies, func(t *testing.T, c *client) {
		body := c.largest()
		if len(body) > httpapi.MaxBody || len(body) < httpapi.MaxBody*9/10 {
			t.Fatalf("the body has %d bytes", len(body))
		}
		first := c.create("nonce-1", body)
		c.w.want(first, http.StatusCreated)
		if len(first.body) < 2<<20 || len(first.body) > 3<<20 {
			t.Errorf("a request of %d bytes has an answer of %d", len(body), len(first.body))
		}
		c.wantReplay(first, c.create("nonce-1", body))
		if n := c.w.count(`SELECT length(response_body) FROM idempotency_keys`); n != len(first.body) {
			t.Errorf("%d bytes are kept of %d", n, len(first.body))
		}
		c.w.wantCharges("order-1", 1)
	})
}

// largest is a payment with all that may describe one, at its limits.
func (c *client) largest() []byte {
	c.w.t.Helper()
	described := json.RawMessage(`{"text":"` + strings.Repeat("<", fields.MaxDescriptive-len(`{"text":""}`)) + `"}`)
	var pairs []string
	for i := range fields.MaxMetadata - 10 { // the body has a limit, too
		pairs = append(pairs, fmt.Sprintf(`{"key":"%d","value":"%s"}`, i, strings.Repeat("<", fields.MaxMetadataValue)))
	}
	card := `{"number":"4111111111111111","holder_name":"John Doe","expiration_month":11,"expiration_year":28,"security_code":"123"}`
	body := bytes.TrimSuffix(c.body("order-1", map[string]any{"payment_method": nil}), []byte("}"))
	return fmt.Appendf(body, `,"customer_payer":%s,"additional_data":%s,"metadata":[%s],"payment_method":{"type":"CARD","detail":{"card":{"stored_credentials":%s,"card_data":%s}}}}`,
		described, described, strings.Join(pairs, ","), described, card)
}

// Errors of every kind, in the words and the shape that each policy's clients can read.
func TestErrorsLookAsThePolicysClientsReadThem(t *testing.T) {
	t.Parallel()
	everywhere(t, allPolicies, func(t *testing.T, c *client) {
		before := c.w.footprint()
		c.wantError(c.create("nonce-1", []byte(`{}`)), http.StatusBadRequest, apierr.MissingParameters, "$.merchant_order_id is required", "$.description is required",
			"$.account_id is required", "$.country is required", "$.amount is required", "$.payment_method is required")
		c.wantError(c.get("/v1/payments"), http.StatusBadRequest, apierr.MissingParameters, "merchant_order_id is required")
		c.wantError(c.get("/v1/payments/"+uuid.NewString()), http.StatusBadRequest, apierr.PaymentNotFound, "there is no payment with this id")
		c.wantError(c.get("/v1/nothing"), http.StatusNotFound, apierr.NotFound, "there is nothing at this path")
		c.wantError(c.get("/v1/idempotency-keys/unheard-of"), http.StatusNotFound, apierr.NotFound, "nothing is known of this idempotency key")
		for _, method := range []string{http.MethodPut, http.MethodDelete} {
			c.wantError(c.call(method, "/v1/payments", nil), http.StatusMethodNotAllowed, apierr.UnsupportedMethod, "this path does not take this method")
		}
		c.wantError(c.create("nonce-1", bytes.Repeat([]byte(" "), httpapi.MaxBody+1)), http.StatusRequestEntityTooLarge, apierr.RequestTooLarge, tooLargeRule)
		c.wantError(c.pay(c.body("order-1", nil), c.header, c.written("nonce-1"), "Content-Encoding", "br"), http.StatusUnsupportedMediaType,
			apierr.UnsupportedMediaType, "Content-Encoding must be gzip, or not be set")
		wrong := *c
		wrong.pair.PrivateSecretKey = c.w.live.PrivateSecretKey
		for _, r := range []response{wrong.pay(c.body("order-1", nil), c.header, c.written("nonce-1")), wrong.get("/v1/payments")} {
			wrong.wantError(r, http.StatusUnauthorized, apierr.InvalidCredentials, pairRule)
		}
		c.w.wantUntouched(before, "arrivals")
		c.w.want(c.create("nonce-1", c.body("order-1", nil)), http.StatusCreated)
	})
}

// What is told before anybody has looked who asks goes by the key that is shown.
func TestErrorsOfTheEdgeLookAsThePolicysClientsReadThem(t *testing.T) {
	t.Parallel()
	everywhere(t, allPolicies, func(t *testing.T, c *client) {
		stale := merchants.NewService(c.w.db, presets().Names())
		if _, err := stale.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		stale.RefuseAfter(time.Nanosecond)
		edge := httpapi.Options{Log: c.w.service.log, Transient: postgres.IsTransient, Describe: postgres.Describe, FailedAuth: 1}
		listener := func(auth *merchants.Service) string {
			h := NewHandler(c.w.service, auth)
			h.LimitLookups(httpapi.NewLimiter(1))
			edge.Style = h.ErrorStyle
			e := httpapi.New(edge)
			h.Mount(e)
			return serve(t, e).URL
		}
		before := c.w.footprint()
		ask := func(url, path string, pair merchants.KeyPair) response {
			return c.w.call(http.MethodGet, url+path, nil, keys(pair)...)
		}
		r := ask(listener(stale), "/v1/payments", c.pair)
		c.wantError(r, http.StatusServiceUnavailable, apierr.ServiceUnavailable, "the service cannot tell at the moment which keys are valid; retry with the same key")
		limited := listener(c.w.auth)
		c.w.want(ask(limited, "/v1/idempotency-keys/nonce-1", c.pair), http.StatusNotFound)
		r = ask(limited, "/v1/idempotency-keys/nonce-1", c.pair)
		c.wantError(r, http.StatusTooManyRequests, apierr.RateLimited, "this account has looked up too many nonces within a minute; wait for Retry-After")
		wrong := merchants.KeyPair{PublicAPIKey: c.pair.PublicAPIKey, PrivateSecretKey: "wrong"}
		c.w.want(ask(limited, "/v1/payments", wrong), http.StatusUnauthorized)
		r = ask(limited, "/v1/payments", wrong)
		c.w.want(r, http.StatusTooManyRequests)
		if style := (map[apierr.Style]string{apierr.Nest: `{"message":`, apierr.Problem: `{"type":`, apierr.Envelope: `{"code":`})[c.errors]; !strings.HasPrefix(string(r.body), style) {
			t.Errorf("told in another style: %s", r)
		}
		c.w.wantUntouched(before)
	})
}

// A key that there is not says nothing about who asks; nor does one that is revoked.
func TestErrorsForKeysThatNobodyHasAreTheContractsOwn(t *testing.T) {
	t.Parallel()
	c := newClient(t, "ietf")
	defer c.judge()
	revoked := c.newKey(merchants.Test)
	c.w.sql(`UPDATE api_keys SET revoked_at = clock_timestamp(), changed_at = clock_timestamp() WHERE public_api_key = $1`, revoked.PublicAPIKey)
	if _, err := c.w.auth.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, pair := range []merchants.KeyPair{{}, {PublicAPIKey: "unheard-of"}, merchants.NewKeyPair(merchants.Test), revoked} {
		r := c.w.call(http.MethodPost, c.w.public.URL+"/v1/payments", c.body("order-1", nil), append(keys(pair), c.header, `"nonce-1"`)...)
		c.w.wantError(r, http.StatusUnauthorized, "INVALID_CREDENTIALS", pairRule)
		c.w.wantError(c.w.call(http.MethodGet, c.w.public.URL+"/v1/nothing", nil, keys(pair)...), http.StatusNotFound, "NOT_FOUND", "there is nothing at this path")
	}
	// The operator's listener knows one style, whatever it is shown.
	r := c.w.call(http.MethodGet, c.w.operator.URL+"/admin/v1/nonces/nonce-1", nil, keys(c.pair)...)
	c.w.wantError(r, http.StatusUnauthorized, "INVALID_CREDENTIALS", "Authorization must be Bearer and the admin token, or an API token")
}

// allPolicies are those that a merchant can choose from.
var allPolicies = []string{"yuno", "novu", "fyno", "ietf"}

// changing runs a case for every change from one policy to another one: before and after
// are the merchant's program until then and from then on, both in live mode.
func changing(t *testing.T, from []string, scene func(t *testing.T, before *client, change func() (after *client))) {
	t.Helper()
	for _, was := range from {
		for _, is := range allPolicies {
			if was == is {
				continue
			}
			t.Run(was+" to "+is, func(t *testing.T) {
				t.Parallel()
				c := newClient(t, was)
				defer c.judge()
				c.pair = c.newKey(merchants.Live)
				scene(t, c, func() *client { return c.becomes(is) })
			})
		}
	}
}

// A merchant's policy changes while answers are kept: each is told in the manner in which
// its life began, and what begins from then on begins in the new one.
func TestLifeKeepsTheMannerInWhichItBegan(t *testing.T) {
	t.Parallel()
	changing(t, allPolicies, func(t *testing.T, c *client, change func() *client) {
		body, other := c.body("order-1", nil), c.body("order-1", map[string]any{"amount": json.Number("99.99")})
		first := c.create("nonce-1", body)
		c.wantNew(first)
		after := change()
		for range 2 {
			after.wantReplayIn(c.manner, first, after.create("nonce-1", body))
		}
		differing := after.create("nonce-1", other)
		invalid := after.pay([]byte(`[]`), "Idempotency-Key", after.written("nonce-1")) // which every policy reads
		if c.minds {
			after.wantReused(differing, "with another body")
			after.wantError(invalid, http.StatusBadRequest, apierr.InvalidRequest, "$ must be an object")
		} else {
			c.w.wantSame(first, differing)
			c.w.wantSame(first, invalid)
		}
		second := after.create("nonce-2", c.body("order-2", nil))
		after.wantNew(second)
		after.wantReplay(second, after.create("nonce-2", c.body("order-2", nil)))
		for nonce, of := range map[string]*client{"nonce-1": c, "nonce-2": after} {
			if l := after.life(nonce); l.Policy != of.policy || l.Charges != 1 {
				t.Errorf("%s lives under %s with %d charges, want %s with 1", nonce, l.Policy, l.Charges, of.policy)
			}
			c.w.wantEvents(nonce, "provider")
		}
		c.w.wantCharges("order-1", 1)
		c.w.wantSends(2, 2)
	})
}

func TestKeptErrorIsToldInTheMannerInWhichItsLifeBegan(t *testing.T) {
	t.Parallel()
	changing(t, keepers, func(t *testing.T, c *client, change func() *client) {
		body := c.body("order-1", nil)
		c.w.psp.next(chargeThenError)
		first := c.create("nonce-1", body)
		c.wantError(first, http.StatusBadGateway, apierr.ProviderError, "the provider's answer leaves the outcome open"+outcomeOpen)
		after := change()
		after.wantReplayIn(c.manner, first, after.create("nonce-1", body))
		c.w.settle("nonce-1")
		c.w.wantTransaction("nonce-1", Succeeded, 2)
		after.wantReplayIn(c.manner, first, after.create("nonce-1", body))
		c.w.wantCharges("order-1", 1)
		c.w.wantSends(1, 1)
	})
}

// An error that was not to be kept when its life began is not kept later, either: the
// merchant was told to retry with the same key.
func TestErrorThatWasNotToBeKeptStaysSo(t *testing.T) {
	t.Parallel()
	changing(t, []string{"yuno"}, func(t *testing.T, c *client, change func() *client) {
		body := c.body("order-1", nil)
		c.w.psp.next(chargeThenTimeout)
		c.wantError(c.create("nonce-1", body), http.StatusGatewayTimeout, apierr.RequestTimeout,
			"the provider did not answer in time, the outcome is not known; retry with the same key")
		after := change()
		c.w.psp.mute(1)
		again := after.create("nonce-1", body)
		after.wantError(again, http.StatusGatewayTimeout, apierr.RequestTimeout, "the provider did not answer in time, the outcome is not known; retry with the same key")
		if got := again.header.Get("Retry-After"); got != "1" {
			t.Errorf("Retry-After is %q, want 1", got)
		}
		third := after.create("nonce-1", body)
		after.wantNew(third)
		after.wantReplayIn(c.manner, third, after.create("nonce-1", body))
		c.w.wantCharges("order-1", 1)
		c.w.wantSends(1, 1)
	})
}

// The change comes while the provider is at work: what it then answers is told, and kept,
// as the life began.
func TestRequestUnderWayKeepsTheMannerInWhichItBegan(t *testing.T) {
	t.Parallel()
	changing(t, allPolicies, func(t *testing.T, c *client, change func() *client) {
		body, other := c.body("order-1", nil), c.body("order-1", map[string]any{"amount": json.Number("99.99")})
		arrived, letGo := c.w.holdNext(decline)
		answer := c.background("nonce-1", body)
		receive(t, arrived, "the send")
		after := change()

		duplicate := after.create("nonce-1", body)
		after.wantKeyError(duplicate, http.StatusConflict, apierr.RequestInProcess, "A request is outstanding for this Idempotency-Key", inProcessMessage)
		if got := duplicate.header.Get("Retry-After") != ""; got != c.retryAfter {
			t.Errorf("there is a Retry-After: %t, want %t", got, c.retryAfter)
		}
		if r := after.create("nonce-1", other); c.policy == "ietf" {
			after.wantReused(r, "with another body")
		} else {
			c.w.want(r, http.StatusConflict)
		}
		letGo()
		first := receive(t, answer, "the answer")
		c.wantNew(first)
		if first.get("status") != "DECLINED" {
			t.Errorf("the payment is %v", first.get("status"))
		}
		after.wantReplayIn(c.manner, first, after.create("nonce-1", body))
		c.w.wantSends(1, 1)
		c.w.wantCharges("order-1", 0)
	})
}

func TestErrorOfARequestUnderWayIsKeptInTheMannerInWhichItBegan(t *testing.T) {
	t.Parallel()
	changing(t, keepers, func(t *testing.T, c *client, change func() *client) {
		body := c.body("order-1", nil)
		arrived, letGo := c.w.holdNext(chargeThenError)
		answer := c.background("nonce-1", body)
		receive(t, arrived, "the send")
		after := change()
		letGo()
		first := receive(t, answer, "the answer")
		c.wantError(first, http.StatusBadGateway, apierr.ProviderError, "the provider's answer leaves the outcome open"+outcomeOpen)
		after.wantReplayIn(c.manner, first, after.create("nonce-1", body))
		c.w.settle("nonce-1")
		c.w.wantCharges("order-1", 1)
	})
}

// How long an answer is kept was settled when its life began, too.
func TestLifeEndsWhenItsOwnPolicySaidSo(t *testing.T) {
	t.Parallel()
	c, clock := expiring(t)
	defer c.judge()
	body := c.body("order-1", nil)
	first := c.createFor("nonce-1", body, "60")
	c.wantNew(first)
	after := c.becomes("novu")
	clock.set(noon.Add(time.Minute - tick))
	after.wantReplayIn(c.manner, first, after.create("nonce-1", body))
	clock.set(noon.Add(time.Minute))
	second := after.create("nonce-1", body)
	after.wantNew(second)
	if at := c.w.expiry("nonce-1"); !at.Equal(noon.Add(time.Minute + 24*time.Hour + time.Minute)) {
		t.Errorf("the next life ends at %s", at)
	}
	back := after.becomes("fyno")
	back.pair = c.pair
	clock.set(noon.Add(24 * time.Hour))
	back.wantReplayIn(after.manner, second, back.createFor("nonce-1", body, "1"))
	c.w.wantCharges("order-1", 2)
}

// Another instance learns of a change with its next reading of the directory, without a
// restart. Until then it goes by the policy before, which is no danger.
func TestAnotherInstanceLearnsOfANewPolicy(t *testing.T) {
	t.Parallel()
	c := newClient(t, "novu")
	defer c.judge()
	other := c.w.newInstance(c.w.db)
	c.w.steady()
	body := c.body("order-1", nil)
	first := c.create("nonce-1", body)
	c.wantNew(first)
	after := c.becomes("ietf")
	c.wantReplay(first, c.createOn(other, "nonce-1", body))
	c.wantNew(c.createOn(other, "nonce-2", c.body("order-2", nil)))
	if _, err := other.auth.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	after.wantReplayIn(c.manner, first, after.createOn(other, "nonce-1", body))
	after.wantNew(after.createOn(other, "nonce-3", c.body("order-3", nil)))
	for nonce, policy := range map[string]string{"nonce-1": "novu", "nonce-2": "novu", "nonce-3": "ietf"} {
		if l := after.life(nonce); l.Policy != policy {
			t.Errorf("%s lives under %s, want %s", nonce, l.Policy, policy)
		}
	}
}

// Many at once, over two instances, while the provider waits.
func TestManySimultaneousRequestsAreServedOnceUnderEveryPolicy(t *testing.T) {
	t.Parallel()
	const n = 40
	everywhere(t, keepers, func(t *testing.T, c *client) {
		other := c.w.newInstance(c.w.db)
		body := c.body("order-1", nil)
		arrived, letGo := c.w.holdNext(approve)
		answers := atOnce(n, func(i int) (response, error) {
			return c.tryOn(t.Context(), []instance{c.w.instance, other}[i%2], "/v1/payments", "nonce-1", body)
		})
		receive(t, arrived, "the send")
		for range n - 1 {
			r := receive(t, answers, "an answer, while the provider waits")
			c.wantInFlight(r)
			c.wantEcho(r, "nonce-1")
		}
		letGo()
		first := receive(t, answers, "the answer of the one that was served")
		c.wantNew(first)
		c.wantReplay(first, c.createOn(other, "nonce-1", body))
		c.w.wantCharges("order-1", 1)
		c.w.wantSends(1, 1)
		c.w.wantEvents("nonce-1", "provider")
	})
}
