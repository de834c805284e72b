package transactions

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/providers"
)

// The cases N17 to N30: a client that knows the rules of novu, and nothing of ours. What
// other policies have in common with it is shown for them, too.

// optional are the policies under which a request may come without a nonce.
var optional = []string{"novu", "fyno"}

func TestN17WithoutAKeyEachRequestIsAPaymentOfItsOwn(t *testing.T) {
	t.Parallel()
	everywhere(t, optional, func(t *testing.T, c *client) {
		body := c.body("order-1", nil)
		var payments [2]response
		for i := range payments {
			r := c.pay(body)
			c.wantNew(r)
			c.wantEcho(r, "") // there is nothing to give back
			if key, given := r.get("idempotency_key").(string); !given || key != "" {
				t.Errorf("idempotency_key is %v, of a payment without one", r.get("idempotency_key"))
			}
			if read := c.get("/v1/payments/" + textAt(r, "id")); read.get("idempotency_key") != "" {
				t.Errorf("read later, idempotency_key is %v", read.get("idempotency_key"))
			}
			payments[i] = r
		}
		if payments[0].get("id") == payments[1].get("id") {
			t.Error("two requests, one payment")
		}
		c.w.wantCharges("order-1", 2)
		c.w.wantSends(2, 2)
		for i, kept := range c.w.nonces() {
			// What stands in for the nonce is none that anybody could send, or look up.
			r := c.get("/v1/idempotency-keys?nonce=" + kept)
			c.wantError(r, http.StatusBadRequest, apierr.InvalidParameters, "nonce must have only printable ASCII characters")
			c.w.wantEvents(kept, "provider")
			if c.pay(body, c.header, kept).status != http.StatusBadRequest {
				t.Errorf("the stand-in of payment %d was taken for a nonce", i)
			}
		}
		c.w.wantCharges("order-1", 2)
	})
}

// nonces are what is kept as nonces, the oldest first.
func (w *world) nonces() (kept []string) {
	w.t.Helper()
	if err := w.db.Conn(w.t.Context()).Raw(`SELECT nonce FROM transactions ORDER BY created_at, id`).Scan(&kept).Error; err != nil {
		w.t.Fatal(err)
	}
	return kept
}

// An unprotected request that meets an error must not be told to come back with a key
// that it never sent; and what it began is settled, although nobody can ask for it.
func TestN17WithoutAKeyAnErrorIsNotKeptAndWhatItBeganIsSettled(t *testing.T) {
	t.Parallel()
	const lookFirst = "look up what became of it before you send it again"
	for _, e := range []struct {
		name    string
		does    behaviour
		status  int
		code    apierr.Code
		message string
		ends    Status
		cause   string
	}{
		{"lost", chargeThenTimeout, http.StatusGatewayTimeout, apierr.RequestTimeout, "the provider did not answer in time, the outcome is not known; " + lookFirst, Succeeded, "provider"},
		{"under way", timeout, http.StatusGatewayTimeout, apierr.RequestTimeout, "the provider did not answer in time, the outcome is not known; " + lookFirst, Errored, "proved"},
		{"broken", chargeThenError, http.StatusBadGateway, apierr.ProviderError, "the provider's answer leaves the outcome open; " + lookFirst, Succeeded, "provider"},
		{"refused", refuse, http.StatusBadRequest, apierr.InvalidRequest, "the provider refused the request as invalid and moved nothing; correct it and send it again", Rejected, "refused"},
		{"not reached", notReached, http.StatusServiceUnavailable, apierr.ProviderUnavailable, "the provider could not be reached and moved nothing; send it again", Errored, "not_reached"},
	} {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			everywhere(t, optional, func(t *testing.T, c *client) {
				c.w.psp.next(e.does)
				c.wantError(c.pay(c.body("order-1", nil)), e.status, e.code, e.message)
				nonce := c.w.nonces()[0]
				if n := c.w.count(`SELECT count(*) FROM idempotency_keys WHERE response_status IS NOT NULL`); n != 0 {
					t.Error("the error is kept, for nobody")
				}
				if !c.w.transaction(nonce).Status.Terminal() {
					c.w.settle(nonce)
				}
				if tx := c.w.transaction(nonce); tx.Status != e.ends {
					t.Fatalf("it ended as %s, want %s", tx.Status, e.ends)
				}
				c.w.wantEvents(nonce, e.cause)
				c.w.wantSends(1, 1)
				c.wantNew(c.pay(c.body("order-2", nil))) // and the next request is another one
			})
		})
	}
}

// Whoever sends the header wants to be protected, and is told that they are not.
func TestN17EmptyKeyIsRefusedRatherThanRunUnprotected(t *testing.T) {
	t.Parallel()
	everywhere(t, optional, func(t *testing.T, c *client) {
		before := c.w.footprint()
		for _, empty := range []string{"", " ", " \t "} {
			r := c.pay(c.body("order-1", nil), c.header, empty)
			c.wantError(r, http.StatusBadRequest, apierr.InvalidParameters, "Idempotency-Key must not be empty")
		}
		c.w.wantUntouched(before)
	})
}

func TestN18KeyOf255CharactersIsAcceptedAndNoLongerOne(t *testing.T) {
	t.Parallel()
	everywhere(t, []string{"novu", "ietf"}, func(t *testing.T, c *client) {
		for i, nonce := range []string{
			strings.Repeat("k", 255), strings.Repeat("blanks, and commas ", 14)[:254] + ".", "~" + strings.Repeat(`\"`, 127),
		} {
			body := c.body(fmt.Sprint("order-", i), nil)
			first := c.create(nonce, body)
			c.wantNew(first)
			if first.get("idempotency_key") != nonce {
				t.Errorf("idempotency_key is %v", first.get("idempotency_key"))
			}
			c.wantReplay(first, c.create(nonce, body))
			if l := c.life(nonce); l.KeyState != KeyAnswered || l.Policy != c.policy {
				t.Errorf("the look-up tells of a life under %s that is %s", l.Policy, l.KeyState)
			}
			c.w.wantCharges(fmt.Sprint("order-", i), 1)
		}
		before := c.w.footprint()
		r := c.pay(c.body("order-1", nil), c.header, c.written(strings.Repeat("k", 256)))
		c.wantKeyError(r, http.StatusBadRequest, apierr.InvalidParameters, "Idempotency-Key is malformed", "Idempotency-Key must have at most 255 characters")
		c.w.wantUntouched(before)
	})
}

// None of our public routes takes PATCH, PUT or DELETE. The engine would protect the
// first; a nonce that comes with any of them is neither looked at nor used up.
func TestN19PatchIsProtectedAndPutAndDeleteAreNot(t *testing.T) {
	t.Parallel()
	everywhere(t, allPolicies, func(t *testing.T, c *client) {
		policy := presets().Of(c.policy)
		for method, want := range map[string]bool{
			http.MethodPost: true, http.MethodPatch: true, http.MethodPut: false, http.MethodDelete: false, http.MethodGet: false, http.MethodHead: false,
		} {
			r := idem.Route{Method: method, Path: "/v1/things", Creates: true, MovesMoney: true, Produces: "application/json"}
			if got := policy.Covers(r, true); got != want {
				t.Errorf("%s is covered: %t, want %t", method, got, want)
			}
		}
		before := c.w.footprint()
		for _, method := range []string{http.MethodPatch, http.MethodPut, http.MethodDelete} {
			for _, nonce := range []string{c.written("nonce-1"), "", "a\tb"} {
				r := c.call(method, "/v1/payments", c.body("order-1", nil), c.header, nonce)
				c.wantError(r, http.StatusMethodNotAllowed, apierr.UnsupportedMethod, "this path does not take this method")
				c.wantEcho(r, "")
			}
		}
		c.w.wantUntouched(before)
		r := c.create("nonce-1", c.body("order-1", nil))
		c.w.want(r, http.StatusCreated)
		c.wantMarked(r, c.manner, false)
		c.w.wantCharges("order-1", 1)
	})
}

func TestN20AnotherBodyIs409WhileTheFirstRequestRunsAnd422AfterIt(t *testing.T) {
	t.Parallel()
	c := newClient(t, "novu")
	defer c.judge()
	body, other := c.body("order-1", nil), c.body("order-1", map[string]any{"amount": json.Number("99.99")})
	arrived, letGo := c.w.holdNext(approve)
	answer := c.background("nonce-1", body)
	receive(t, arrived, "the send")
	c.wantInFlight(c.create("nonce-1", other))
	c.wantInFlight(c.create("nonce-1", body))
	letGo()
	first := receive(t, answer, "the answer")
	c.wantNew(first)
	c.wantEcho(first, "nonce-1")
	c.wantReused(c.create("nonce-1", other), "with another body")
	c.wantReplay(first, c.create("nonce-1", body))
	c.w.wantVerdicts(c.life("nonce-1"), idem.New, idem.InProcess, idem.InProcess, idem.Mismatch, idem.Replayed)
	c.w.wantCharges("order-1", 1)
	c.w.wantSends(1, 1)
	c.w.wantEvents("nonce-1", "provider")
}

// keptError is what a provider's failure looks like to whoever asked, under a policy that
// keeps it, and how the transaction behind it ends.
type keptError struct {
	name    string
	does    behaviour
	status  int
	code    apierr.Code
	message string
	ends    Status
	cause   string
}

const (
	outcomeOpen = "; look up what became of it before a new key is used, as this one keeps its answer"
	newKey      = " use a new key, as this one keeps its answer"
)

var keptErrors = []keptError{
	{"error-charged", chargeThenError, http.StatusBadGateway, apierr.ProviderError, "the provider's answer leaves the outcome open" + outcomeOpen, Succeeded, "provider"},
	{"error-uncharged", serverError, http.StatusBadGateway, apierr.ProviderError, "the provider's answer leaves the outcome open" + outcomeOpen, Errored, "proved"},
	{"silence-charged", chargeThenTimeout, http.StatusGatewayTimeout, apierr.RequestTimeout, "the provider did not answer in time, the outcome is not known" + outcomeOpen, Succeeded, "provider"},
	{"silence-uncharged", timeout, http.StatusGatewayTimeout, apierr.RequestTimeout, "the provider did not answer in time, the outcome is not known" + outcomeOpen, Errored, "proved"},
	{"refused", refuse, http.StatusBadRequest, apierr.InvalidRequest, "the provider refused the request as invalid and moved nothing; correct it and" + newKey, Rejected, "refused"},
	{"not-reached", notReached, http.StatusServiceUnavailable, apierr.ProviderUnavailable, "the provider could not be reached and moved nothing;" + newKey, Errored, "not_reached"},
}

// wantErrorsKept is what N21, F02 and I10 have in common: an error is the nonce's answer,
// for as long as it is kept, and the transaction behind it is settled all the same.
func wantErrorsKept(t *testing.T, policy string) {
	t.Helper()
	for _, e := range keptErrors {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			c := newClient(t, policy)
			defer c.judge()
			body := c.body("order-1", nil)
			c.w.psp.next(e.does)
			first := c.create("nonce-1", body)
			c.wantError(first, e.status, e.code, e.message)
			c.wantAgain(first, body)
			c.w.wantSends(1, 1)
			if n := c.w.psp.inquiries(); n != 0 {
				t.Errorf("retries made us ask the provider %d times", n)
			}
			if !c.w.transaction("nonce-1").Status.Terminal() {
				c.w.wantEvents("nonce-1") // nothing is claimed that nobody knows
				c.w.settle("nonce-1")
			}
			if tx := c.w.transaction("nonce-1"); tx.Status != e.ends || tx.Released {
				t.Fatalf("it ended as %s, released %t; want %s", tx.Status, tx.Released, e.ends)
			}
			c.w.wantEvents("nonce-1", e.cause)
			c.wantAgain(first, body)
			c.w.wantSends(1, 1)
			c.wantToldWhatCounts(e)
		})
	}
}

func TestN21ErrorIsKeptAndReplayedAndItsPaymentSettled(t *testing.T) {
	t.Parallel()
	wantErrorsKept(t, "novu")
}

// wantAgain fails the test unless a kept answer is told again to whoever sends the first
// body, and another body is answered as the policy has it.
func (c *client) wantAgain(first response, body []byte) {
	c.w.t.Helper()
	other := c.body("order-1", map[string]any{"amount": json.Number("99.99")})
	for range 3 {
		c.wantReplay(first, c.create("nonce-1", body))
	}
	if c.minds {
		c.wantReused(c.create("nonce-1", other), "with another body")
		return
	}
	c.wantReplay(first, c.create("nonce-1", other))
}

// wantToldWhatCounts fails the test unless the look-up tells what became of the payment
// beside what the key answers, and a payment that went through can be refunded.
func (c *client) wantToldWhatCounts(e keptError) {
	c.w.t.Helper()
	l := c.life("nonce-1")
	begins, charges := "Not charged: ", 0
	if e.ends == Succeeded {
		begins, charges = "Charged once: 45.67 USD on ", 1
	}
	says := fmt.Sprintf(" Its key keeps answering %d; what counts is said here. Replayed ", e.status)
	if !strings.HasPrefix(l.Verdict, begins) || !strings.Contains(l.Verdict, says) {
		c.w.t.Errorf("the verdict is %q, want %q … %q", l.Verdict, begins, says)
	}
	if l.KeyState != KeyAnswered || l.AnswerStatus == nil || *l.AnswerStatus != e.status || l.Charges != charges || l.Transaction.Status != e.ends {
		c.w.t.Errorf("the life is %+v", l)
	}
	c.w.wantCharges("order-1", charges)
	paid := c.get("/v1/payments/" + l.PaymentID)
	c.w.want(paid, http.StatusOK)
	if e.ends != Succeeded {
		return
	}
	c.w.want(c.act("nonce-2", sale{l.PaymentID, l.Transaction.ID}.refund("45.67")), http.StatusOK)
	if n, sum := c.w.psp.operated(providers.Refund, l.Transaction.ID); n != 1 || sum.String() != "45.67" {
		c.w.t.Errorf("%d refunds of %s were booked", n, sum)
	}
}

// A 422 with an object as its body, as some other release may have kept one.
func TestN22KeptAnswerIsReplayedWithItsStatusAndBodyWhateverTheyAre(t *testing.T) {
	t.Parallel()
	bodies := map[string]string{
		"novu": `{"statusCode":422,"message":["$.amount.value must be below 100","$.country must be US"],"error":"Unprocessable Entity"}`,
		"fyno": `{"messages":["X-Idempotency-Key was used"],"code":"IDEMPOTENCY_KEY_REUSED","request_id":"another","doc_url":"/docs/errors/IDEMPOTENCY_KEY_REUSED"}`,
		"ietf": `{"status":422,"title":"Idempotency-Key is already used","type":"/docs/idempotency","detail":"of old","request_id":"another","code":"IDEMPOTENCY_KEY_REUSED"}`,
	}
	everywhere(t, keepers, func(t *testing.T, c *client) {
		c.wantNew(c.create("nonce-1", c.body("order-1", nil)))
		kept := bodies[c.policy] + "\n"
		c.w.sql(`UPDATE idempotency_keys SET response_status = 422, response_body = $1::bytea`, []byte(kept))
		again := c.create("nonce-1", c.body("order-1", nil))
		if again.status != http.StatusUnprocessableEntity || string(again.body) != kept {
			t.Errorf("got %s, want 422 and what is kept", again)
		}
		c.wantMarked(again, c.manner, true)
		c.w.wantSends(1, 1)
	})
}

// The record goes each time between losing the claim and reading what took it.
func TestN23KeyThatVanishesAtEveryLookIsInFlightAndNothingIsCalled(t *testing.T) {
	t.Parallel()
	everywhere(t, keepers, func(t *testing.T, c *client) {
		body := c.body("order-1", nil)
		first := c.create("nonce-1", body)
		c.wantNew(first)
		slow, race := c.w.interrupted()
		c.w.sql(`CREATE TABLE vanished AS SELECT * FROM idempotency_keys`)
		for i := range maxLooks {
			race.before("transactions.begin", func() {
				if i > 0 {
					c.w.sql(`INSERT INTO idempotency_keys SELECT * FROM vanished`)
				}
			})
			race.before("transactions.read_key", func() { c.w.sql(`DELETE FROM idempotency_keys`) })
		}
		c.wantInFlight(c.createOn(slow, "nonce-1", body))
		race.wantAllHappened(t)
		c.w.wantSends(1, 1)
		c.w.wantCharges("order-1", 1)
		c.w.sql(`INSERT INTO idempotency_keys SELECT * FROM vanished`)
		c.wantReplay(first, c.createOn(slow, "nonce-1", body))
	})
}

// wantCorrectable is what N24 and F03 have in common: what is wrong with a request uses
// up nothing, so the corrected one may carry the same nonce.
func (c *client) wantCorrectable() {
	c.w.t.Helper()
	before := c.w.footprint()
	amount := "$.amount.value must be greater than 0"
	invalid := c.create("nonce-1", c.body("order-1", map[string]any{"amount": json.Number("0")}))
	c.wantError(invalid, http.StatusBadRequest, apierr.InvalidAmount, amount)
	c.wantError(c.create("nonce-1", c.body("order-1", map[string]any{"amount": json.Number("0")})), http.StatusBadRequest, apierr.InvalidAmount, amount)
	c.wantError(c.create("nonce-1", []byte(`[]`)), http.StatusBadRequest, apierr.InvalidRequest, "$ must be an object")
	c.wantError(c.create("nonce-1", []byte(`{"amount":`)), http.StatusBadRequest, apierr.InvalidRequest, "$.amount must be well-formed JSON")
	unknown := c.body("order-1", map[string]any{"payment_method": json.RawMessage(`{"type":"CARD","token":"unheard-of"}`)})
	c.w.want(c.create("nonce-1", unknown), http.StatusUnauthorized)
	c.w.want(c.act("nonce-1", sale{"00000000-0000-7000-8000-000000000000", ""}.reverse("", "")), http.StatusBadRequest)
	c.w.wantUntouched(before, "arrivals")

	body := c.body("order-1", nil)
	first := c.create("nonce-1", body)
	c.wantNew(first)
	c.wantReplay(first, c.create("nonce-1", body))
	c.w.wantCharges("order-1", 1)
}

func TestN24InvalidRequestIsNotKeptAndItsCorrectionMayCarryTheKey(t *testing.T) {
	t.Parallel()
	c := newClient(t, "novu")
	defer c.judge()
	c.wantCorrectable()
	// From now on another body is another body, valid or not.
	c.wantError(c.create("nonce-1", []byte(`{}`)), http.StatusBadRequest, apierr.MissingParameters,
		"$.merchant_order_id is required", "$.description is required", "$.account_id is required", "$.country is required",
		"$.amount is required", "$.payment_method is required")
}

func TestN25RetryAfterIsOneSecondAndTheRetryIsReplayed(t *testing.T) {
	t.Parallel()
	c := newClient(t, "novu")
	defer c.judge()
	body := c.body("order-1", nil)
	arrived, letGo := c.w.holdNext(approve)
	answer := c.background("nonce-1", body)
	receive(t, arrived, "the send")
	r := c.create("nonce-1", body)
	c.wantInFlight(r)
	if got := r.header.Values("Retry-After"); len(got) != 1 || got[0] != "1" {
		t.Errorf("Retry-After is %q", got)
	}
	letGo()
	first := receive(t, answer, "the answer")
	c.wantNew(first)
	c.wantReplay(first, c.create("nonce-1", body))
	c.w.wantSends(1, 1)
}

func TestN26KeyLivesFor24HoursAndAMinute(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	clock := w.takeClock()
	clock.set(noon)
	c := w.client("novu")
	defer c.judge()
	body := c.body("order-1", nil)
	first := c.create("nonce-1", body)
	c.wantNew(first)
	const kept = 24*time.Hour + time.Minute
	for _, at := range []time.Duration{0, 24 * time.Hour, 24*time.Hour + 59*time.Second, kept - tick} {
		clock.set(noon.Add(at))
		c.wantReplay(first, c.create("nonce-1", body))
	}
	c.w.wantCharges("order-1", 1)
	clock.set(noon.Add(kept + time.Second))
	w.purge()
	second := c.create("nonce-1", body)
	c.wantNew(second)
	if second.get("id") == first.get("id") {
		t.Error("the life before goes on")
	}
	if again := w.expiry("nonce-1"); !again.Equal(noon.Add(2*kept + time.Second)) {
		t.Errorf("the next life ends at %s", again)
	}
	clock.set(noon.Add(2*kept + time.Second)) // to the instant
	c.wantNew(c.create("nonce-1", body))
	c.w.wantCharges("order-1", 3) // one a life
	w.wantSends(3, 3)
}

func TestN27ReplayKeepsTheStatusOfItsRoute(t *testing.T) {
	t.Parallel()
	everywhere(t, []string{"novu", "ietf"}, func(t *testing.T, c *client) {
		body := c.body("order-1", nil)
		created := c.create("nonce-1", body)
		c.w.want(created, http.StatusCreated)
		refund := saleIn(created).refund("10")
		refunded := c.act("nonce-2", refund)
		c.w.want(refunded, http.StatusOK)
		for range 2 {
			c.wantReplay(created, c.create("nonce-1", body))
			c.wantReplay(refunded, c.act("nonce-2", refund))
		}
		c.wantReused(c.act("nonce-2", refund.differently()), "with another body")
		if n, sum := c.w.psp.operated(providers.Refund, textAt(created, "transactions", "id")); n != 1 || sum.String() != "10" {
			t.Errorf("%d refunds of %s were booked, want 1 of 10", n, sum)
		}
	})
}

func TestN28ReadsIgnoreTheKeyWhateverItIs(t *testing.T) {
	t.Parallel()
	everywhere(t, keepers, func(t *testing.T, c *client) {
		first := c.create("nonce-1", c.body("order-1", nil))
		c.wantNew(first)
		c.life("nonce-1") // what is to be written of it is written
		before := c.w.footprint()
		for _, path := range []string{"/v1/payments/" + textAt(first, "id"), "/v1/payments?merchant_order_id=order-1", "/v1/idempotency-keys/nonce-1"} {
			plain := c.get(path)
			c.w.want(plain, http.StatusOK)
			for _, sent := range []string{c.written("nonce-1"), c.written("new"), strings.Repeat("k", 300), "a, b"} {
				r := c.call(http.MethodGet, path, nil, c.header, sent)
				if r.status != plain.status || string(r.body) != string(plain.body) {
					t.Errorf("GET %s with %q is answered otherwise: %s", path, sent, r)
				}
				c.wantMarked(r, c.manner, false)
				c.wantEcho(r, "")
			}
		}
		c.w.wantUntouched(before)
	})
}

func TestN29OrderOfABodysMembersIsNoDifference(t *testing.T) {
	t.Parallel()
	c := newClient(t, "novu")
	defer c.judge()
	body := c.body("order-1", nil)
	first := c.create("nonce-1", body)
	c.wantNew(first)
	c.wantReplay(first, c.create("nonce-1", backwards(t, body)))
	c.w.wantVerdicts(c.life("nonce-1"), idem.New, idem.Replayed)
	c.w.wantSends(1, 1)
}

func TestN30KeyOfAnotherRouteTellsNothingOfIt(t *testing.T) {
	t.Parallel()
	everywhere(t, []string{"novu", "ietf"}, func(t *testing.T, c *client) {
		one, other := c.sells("sale-1", "order-1", "100"), c.sells("sale-2", "order-2", "100")
		for i, next := range []deed{one.reverse("", "10"), one.reverse(one.transaction, "10"), other.refund("10"), one.capture("10"), one.cancel()} {
			// The very body of the first, on another route, or about something else.
			nonce := fmt.Sprint("nonce-", i)
			refund := one.refund("10").with(map[string]any{"reason": "REQUESTED_BY_CUSTOMER"})
			refunded := c.act(nonce, refund)
			c.w.want(refunded, http.StatusOK)
			next.body = refund.body
			for range 2 {
				c.wantReused(c.act(nonce, next), "for another operation")
			}
			c.wantReplay(refunded, c.act(nonce, refund))
		}
		c.wantReused(c.act("sale-1", one.refund("10")), "for another operation")
		c.wantReused(c.create("nonce-0", c.body("order-1", nil)), "for another operation")
		if n, _ := c.w.psp.operated(providers.Refund, other.transaction); n != 0 {
			t.Error("the other sale was refunded")
		}
		c.w.wantSends(7, 7)
	})
}

// What is told of a surprise, or of a database that is away, once was "retry with the same
// key", to a client that had sent none: whoever did so paid twice.
func TestN17WithoutAKeyNoErrorOfOursInvitesToASecondPayment(t *testing.T) {
	t.Parallel()
	everywhere(t, optional, func(t *testing.T, c *client) {
		c.w.psp.next(func(_ context.Context, p *psp, c providers.Charge) providers.Result {
			p.book(c)
			panic("an adapter's fault")
		})
		surprised := c.pay(c.body("order-1", nil))
		c.wantError(surprised, http.StatusInternalServerError, apierr.InternalError, "something unexpected happened; look up what became of it before you send it again")
		c.w.settle(c.w.nonces()[0])
		c.w.wantCharges("order-1", 1)

		i, proxy := c.w.behind()
		proxy.Down()
		for range 3 { // with a connection that breaks, and without one
			r := c.w.call(http.MethodPost, i.public.URL+"/v1/payments", c.body("order-2", nil), keys(c.pair)...)
			c.w.want(r, http.StatusServiceUnavailable)
			if told := string(r.body); strings.Contains(told, "same key") || !strings.Contains(told, "look up what became of it before you send it again") {
				t.Errorf("told %s", told)
			}
		}
		proxy.Up()
		c.w.wantCharges("order-2", 0)
	})
}

func TestN17WithoutAKeyAPaymentWhoseProcessDiesIsSettledAllTheSame(t *testing.T) {
	t.Parallel()
	everywhere(t, optional, func(t *testing.T, c *client) {
		dead, body := c.w.newInstance(c.w.db), c.body("order-1", nil)
		c.w.steady()
		acted, letGo := c.w.holdAnswer(approve)
		zombie := atOnce(1, func(int) (response, error) {
			return request(t.Context(), http.MethodPost, dead.public.URL+"/v1/payments", body, keys(c.pair)...)
		})
		receive(t, acted, "the send")
		nonce := c.w.nonces()[0]
		c.w.silence(dead)
		c.w.shift(nonce, grace)
		if n := c.w.recoverOn(c.w.instance); n != 1 {
			t.Fatalf("recovery took %d, want 1", n)
		}
		c.w.wantTransaction(nonce, Succeeded, 2)
		letGo()
		first := receive(t, zombie, "the answer of the process that came back")
		c.wantNew(first)
		if first.get("id") != c.w.transaction(nonce).PaymentID.String() {
			t.Errorf("it told of another payment: %s", first)
		}
		c.w.wantCharges("order-1", 1)
		c.w.wantSends(1, 1)
		c.w.wantEvents(nonce, "provider")
	})
}

// A refund's error is kept like a payment's, and gives back what it reserved when it is
// settled.
func TestN21ErrorOfARefundIsKeptAndTheRefundSettled(t *testing.T) {
	t.Parallel()
	for _, e := range []struct {
		name    string
		does    operating
		status  int
		code    apierr.Code
		message string
		ends    Status
	}{
		{"silence-refunded", operateThenTimeout, http.StatusGatewayTimeout, apierr.RequestTimeout, keptErrors[2].message, Succeeded},
		{"silence", noAnswer, http.StatusGatewayTimeout, apierr.RequestTimeout, keptErrors[2].message, Errored},
		{"error", brokenAnswer, http.StatusBadGateway, apierr.ProviderError, keptErrors[0].message, Errored},
		{"refused", invalidAnswer, http.StatusBadRequest, apierr.InvalidRequest, keptErrors[4].message, Errored},
		{"not reached", neverReached, http.StatusServiceUnavailable, apierr.ProviderUnavailable, keptErrors[5].message, Errored},
	} {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			everywhere(t, []string{"novu", "ietf"}, func(t *testing.T, c *client) {
				sold := c.sells("sale-1", "order-1", "100")
				refund := sold.refund("60")
				c.w.psp.nextOperation(e.does)
				first := c.act("nonce-1", refund)
				c.wantError(first, e.status, e.code, e.message)
				c.wantReplay(first, c.act("nonce-1", refund))
				c.wantReused(c.act("nonce-1", refund.differently()), "with another body")
				if !c.w.transaction("nonce-1").Status.Terminal() {
					c.w.settle("nonce-1")
				}
				c.wantReplay(first, c.act("nonce-1", refund))
				if tx := c.w.transaction("nonce-1"); tx.Status != e.ends || tx.Released {
					t.Fatalf("it ended as %s, released %t; want %s", tx.Status, tx.Released, e.ends)
				}
				// What can be refunded now is what the first one has left.
				again, left := c.act("nonce-2", refund), http.StatusOK
				if e.ends == Succeeded {
					left = http.StatusBadRequest
				}
				c.w.want(again, left)
				if n, sum := c.w.psp.operated(providers.Refund, sold.transaction); n != 1 || sum.String() != "60" {
					t.Errorf("%d refunds of %s were booked, want 1 of 60", n, sum)
				}
			})
		})
	}
}

// A kept error is told even while a person must decide about its payment, and after it.
func TestN21KeptErrorStaysWhileItsPaymentIsParkedAndResolved(t *testing.T) {
	t.Parallel()
	everywhere(t, keepers, func(t *testing.T, c *client) {
		body := c.body("order-1", nil)
		c.w.psp.next(chargeThenTimeout)
		first := c.create("nonce-1", body)
		c.wantError(first, http.StatusGatewayTimeout, apierr.RequestTimeout, keptErrors[2].message)
		c.w.park("nonce-1")
		c.wantReplay(first, c.create("nonce-1", body))
		if l := c.life("nonce-1"); l.KeyState != KeyParked || l.AnswerStatus == nil || *l.AnswerStatus != http.StatusGatewayTimeout {
			t.Errorf("the life is %+v", l)
		}
		c.w.want(c.w.resolve("nonce-1", "succeeded"), http.StatusOK)
		c.wantReplay(first, c.create("nonce-1", body))
		if l := c.life("nonce-1"); l.KeyState != KeyAnswered || l.Charges != 1 {
			t.Errorf("the life is %+v", l)
		}
		c.w.wantEvents("nonce-1", "resolved")
		c.w.wantCharges("order-1", 1)
		c.w.wantSends(1, 1)
	})
}

// The process that asked has died, and recovery learns nothing at first: that is nobody's
// answer, least of all that of the client who comes back.
func TestN21ErrorThatNobodyWasToldIsNotKept(t *testing.T) {
	t.Parallel()
	everywhere(t, keepers, func(t *testing.T, c *client) {
		dead, body := c.w.newInstance(c.w.db), c.body("order-1", nil)
		c.w.steady()
		acted, letGo := c.w.holdAnswer(approve)
		zombie := atOnce(1, func(int) (response, error) { return c.tryOn(t.Context(), dead, "/v1/payments", "nonce-1", body) })
		receive(t, acted, "the send")
		c.w.silence(dead)
		c.w.shift("nonce-1", grace)
		c.w.psp.mute(1)
		if n := c.w.recoverOn(c.w.instance); n != 1 {
			t.Fatalf("recovery took %d, want 1", n)
		}
		if n := c.w.count(`SELECT count(*) FROM idempotency_keys WHERE response_status IS NOT NULL`); n != 0 {
			t.Error("what recovery did not learn is kept as the answer")
		}
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
