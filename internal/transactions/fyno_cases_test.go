package transactions

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/providers"
)

// The cases F01 to F11: a client that knows the rules of fyno, and nothing of ours.

const expirationHeader = "X-Idempotency-Expiration"

// unchecked is a client of a listener that doesn't hold its exchanges against the API
// document: for headers that the document forbids, and that a policy nevertheless
// ignores.
func (c *client) unchecked() *client {
	c.w.t.Helper()
	public, _ := c.w.edges(c.w.instance, c.w.service.log)
	server := httptest.NewServer(public)
	c.w.t.Cleanup(server.Close)
	world, plain := *c.w, *c
	world.public = server
	plain.w = &world
	return &plain
}

func TestF01AnotherBodyGetsTheFirstAnswerAndNothingSaysSo(t *testing.T) {
	t.Parallel()
	c := newClient(t, "fyno")
	defer c.judge()
	first := c.create("nonce-1", c.body("order-1", nil))
	c.wantNew(first)
	for name, other := range map[string][]byte{
		"another amount": c.body("order-1", map[string]any{"amount": json.Number("99.99")}), "another order": c.body("order-2", nil),
		"an amount of nothing": c.body("order-1", map[string]any{"amount": json.Number("0")}), "nothing at all": nil, "no JSON": []byte("amount=1"),
		"the same, backwards": backwards(t, c.body("order-1", nil)),
	} {
		r := c.pay(other, c.header, "nonce-1", "Content-Type", "application/json")
		if r.status != first.status {
			t.Fatalf("%s: got %s", name, r)
		}
		c.wantReplay(first, r)
	}
	c.w.wantCharges("order-1", 1)
	c.w.wantSends(1, 1)
	c.w.wantEvents("nonce-1", "provider")
}

func TestF02FirstErrorIsEveryRetrysAndItsPaymentIsSettled(t *testing.T) {
	t.Parallel()
	wantErrorsKept(t, "fyno")
}

func TestF03ValidationFailureIsNotKept(t *testing.T) {
	t.Parallel()
	c := newClient(t, "fyno")
	defer c.judge()
	c.wantCorrectable()
}

func TestF04ConflictIsNotKeptAndNamesNoTime(t *testing.T) {
	t.Parallel()
	c := newClient(t, "fyno")
	defer c.judge()
	body, other := c.body("order-1", nil), c.body("order-1", map[string]any{"amount": json.Number("99.99")})
	arrived, letGo := c.w.holdNext(approve)
	answer := c.background("nonce-1", body)
	receive(t, arrived, "the send")
	for _, b := range [][]byte{body, other, body} {
		r := c.create("nonce-1", b)
		c.wantInFlight(r)
		if _, given := r.header["Retry-After"]; given {
			t.Errorf("Retry-After is %q", r.header.Get("Retry-After"))
		}
	}
	if n := c.w.count(`SELECT count(*) FROM idempotency_keys WHERE response_status IS NOT NULL`); n != 0 {
		t.Error("the conflict is kept")
	}
	letGo()
	first := receive(t, answer, "the answer")
	c.wantNew(first)
	c.wantReplay(first, c.create("nonce-1", other))
	c.w.wantCharges("order-1", 1)
	c.w.wantSends(1, 1)
}

// An index cannot hold keys of any length: of a long one its beginning and its digest are
// kept, and what differs anywhere is another key.
func TestF05KeyMayBeAsLongAsAHeader(t *testing.T) {
	t.Parallel()
	c := newClient(t, "fyno")
	defer c.judge()
	for _, length := range []int{255, 256, 300, 4000, 12000} {
		// No two of these are alike in their beginning and their length alone.
		long := strings.Repeat(fmt.Sprint("a key of ", length, ", "), length)[:length-1]
		one, other := long+"1", long+"2"
		order := fmt.Sprint("order-", length)
		body := c.body(order, nil)
		first, second := c.create(one, body), c.create(other, body)
		c.wantNew(first)
		c.wantNew(second)
		if first.get("id") == second.get("id") {
			t.Fatalf("%d characters: keys that differ in their last character are one", length)
		}
		c.wantReplay(first, c.create(one, body))
		c.wantReplay(second, c.create(other, body))
		c.w.wantCharges(order, 2)

		if l := c.life(one); l.PaymentID != first.get("id") || l.KeyState != KeyAnswered {
			t.Errorf("%d characters: the look-up finds payment %s, which is %s", length, l.PaymentID, l.KeyState)
		}
		kept := textAt(first, "idempotency_key")
		if begins, digest, cut := strings.Cut(kept, "…"); cut != (length > 255) || cut && (begins != one[:64] || len(digest) != 64) || !cut && kept != one {
			t.Errorf("%d characters: the payment's key is %q", length, kept)
		}
		c.w.wantEvents(kept, "provider")
		if r := c.get("/v1/payments/" + textAt(first, "id")); textAt(r, "idempotency_key") != kept {
			t.Errorf("%d characters: read later, the payment's key is %v", length, r.get("idempotency_key"))
		}
	}
}

// What is kept of a long key is no key that somebody else could send in its place.
func TestF05DigestOfALongKeyIsNoKey(t *testing.T) {
	t.Parallel()
	c := newClient(t, "fyno")
	defer c.judge()
	first := c.create(strings.Repeat("k", 300), c.body("order-1", nil))
	c.wantNew(first)
	before := c.w.footprint()
	kept := textAt(first, "idempotency_key")
	c.wantError(c.pay(c.body("order-1", nil), c.header, kept), http.StatusBadRequest, apierr.InvalidParameters,
		"Idempotency-Key must have only printable ASCII characters")
	c.wantError(c.get("/v1/idempotency-keys?nonce="+kept), http.StatusBadRequest, apierr.InvalidParameters, "nonce must have only printable ASCII characters")
	c.w.wantUntouched(before)
}

// The server's limit is 16 KiB for the whole header, to which Go adds a little of its own.
func TestF05KeyAboveTheHeadersLimitIs431(t *testing.T) {
	t.Parallel()
	c := newClient(t, "fyno")
	defer c.judge()
	server := c.w.counter()
	before := c.w.footprint()
	r := c.w.call(http.MethodPost, server.URL+"/v1/payments", c.body("order-1", nil), append(keys(c.pair), c.header, strings.Repeat("k", 24<<10))...)
	c.w.want(r, http.StatusRequestHeaderFieldsTooLarge)
	c.w.wantUntouched(before)
	r = c.w.call(http.MethodPost, server.URL+"/v1/payments", c.body("order-1", nil), append(keys(c.pair), c.header, strings.Repeat("k", 12000))...)
	c.wantNew(r)
}

// expiring is a client of a world whose clock stands still at noon.
func expiring(t *testing.T) (*client, dbClock) {
	t.Helper()
	w := newWorld(t)
	clock := w.takeClock()
	clock.set(noon)
	return w.client("fyno"), clock
}

// createFor is create with a wish for how long the answer is kept.
func (c *client) createFor(nonce string, body []byte, expiration string) response {
	c.w.t.Helper()
	return c.pay(body, c.header, c.written(nonce), expirationHeader, expiration)
}

func TestF06FirstRequestSaysHowLongItsAnswerIsKept(t *testing.T) {
	t.Parallel()
	c, clock := expiring(t)
	defer c.judge()
	body := c.body("order-1", nil)
	first := c.createFor("nonce-1", body, "3600")
	c.wantNew(first)
	ends := noon.Add(time.Hour)
	for i, later := range []string{"7200", "1", "604800"} {
		clock.set(noon.Add(time.Duration(i) * 10 * time.Minute))
		c.wantReplay(first, c.createFor("nonce-1", body, later))
		if at := c.w.expiry("nonce-1"); !at.Equal(ends) {
			t.Fatalf("%s seconds, said later, moved the end to %s", later, at)
		}
	}
	clock.set(ends.Add(-tick))
	c.wantReplay(first, c.create("nonce-1", body)) // who says nothing changes nothing, either
	c.w.wantCharges("order-1", 1)
	clock.set(ends)
	c.wantNew(c.createFor("nonce-1", body, "3600"))
	c.w.wantCharges("order-1", 2)
}

// The time counts from the answer, however long the provider took.
func TestF06TimeIsCountedFromTheAnswer(t *testing.T) {
	t.Parallel()
	c, clock := expiring(t)
	defer c.judge()
	body := c.body("order-1", nil)
	arrived, letGo := c.w.holdNext(approve)
	answer := atOnce(1, func(int) (response, error) {
		return request(t.Context(), http.MethodPost, c.w.public.URL+"/v1/payments", body, append(keys(c.pair), c.header, "nonce-1", expirationHeader, "60")...)
	})
	receive(t, arrived, "the send")
	answered := noon.Add(20 * time.Second)
	clock.set(answered)
	c.wantInFlight(c.createFor("nonce-1", body, "7200"))
	letGo()
	first := receive(t, answer, "the answer")
	c.wantNew(first)
	if at := c.w.expiry("nonce-1"); !at.Equal(answered.Add(time.Minute)) {
		t.Errorf("the answer is kept until %s, want a minute from %s", at, answered)
	}
	clock.set(answered.Add(time.Minute - tick))
	c.wantReplay(first, c.create("nonce-1", body))
}

const expirationRule = "X-Idempotency-Expiration must be a whole number of seconds, at least 1, and be sent once"

func TestF07ExpirationThatIsNoTimeIsRefused(t *testing.T) {
	t.Parallel()
	c := newClient(t, "fyno")
	defer c.judge()
	body := c.body("order-1", nil)
	before := c.w.footprint()
	for _, wrong := range []string{
		"", " ", "0", "00", "-1", "-0", "+60", "1.5", "60.0", "1e3", "0x3c", "1_000", "1,000", "60 seconds", "60s", "an hour", "٦٠", "60;", `"60"`, "NaN", "Infinity",
		"Sun, 22 Nov 2026 17:00:00 GMT",
	} {
		r := c.createFor("nonce-1", body, wrong)
		if r.status != http.StatusBadRequest {
			t.Fatalf("%q: got %s", wrong, r)
		}
		c.wantError(r, http.StatusBadRequest, apierr.InvalidParameters, expirationRule)
	}
	for _, twice := range [][2]string{{"60", "60"}, {"60", "120"}, {"60", ""}} {
		r := c.pay(body, c.header, "nonce-1", expirationHeader, twice[0], expirationHeader, twice[1])
		c.wantError(r, http.StatusBadRequest, apierr.InvalidParameters, expirationRule)
	}
	c.w.wantUntouched(before)
	first := c.createFor("nonce-1", body, "60")
	c.wantNew(first)
	// A replay is no way around the rule.
	c.wantError(c.createFor("nonce-1", body, "0"), http.StatusBadRequest, apierr.InvalidParameters, expirationRule)
	c.wantReplay(first, c.create("nonce-1", body))
}

func TestF07ExpirationAboveTheMaximumIsTheMaximum(t *testing.T) {
	t.Parallel()
	c, _ := expiring(t)
	defer c.judge()
	const week = 7 * 24 * time.Hour
	for said, kept := range map[string]time.Duration{
		"1": time.Second, "060": time.Minute, " 90\t": 90 * time.Second, "604799": week - time.Second, "604800": week, "604801": week,
		"31536000": week, "9223372036854775807": week, "9223372036854775808": week, strings.Repeat("9", 1000): week, strings.Repeat("0", 1000) + "1": time.Second,
	} {
		nonce := fmt.Sprint("nonce-", len(said), "-", strings.TrimSpace(said)[:1], "-", kept)
		c.wantNew(c.createFor(nonce, c.body(nonce, nil), said))
		if at := c.w.expiry(nonce); !at.Equal(noon.Add(kept)) {
			t.Errorf("%.20s: kept until %s, want %s", said, at, noon.Add(kept))
		}
		c.w.wantCharges(nonce, 1)
	}
}

// Without a nonce there is nothing to be kept, and under the other policies a client has
// no say.
func TestF07ExpirationCountsWithAKeyAndUnderThisPolicyOnly(t *testing.T) {
	t.Parallel()
	c := newClient(t, "fyno")
	defer c.judge()
	free := c.unchecked()
	for _, sent := range []string{"0", "soon", "60"} {
		c.wantNew(free.pay(c.body("order-1", nil), expirationHeader, sent))
	}
	c.w.wantCharges("order-1", 3)
	for _, policy := range []string{"yuno", "novu", "ietf"} {
		other := c.w.client(policy)
		free, body := other.unchecked(), other.body("order-of-"+policy, nil)
		first := free.createFor("nonce-of-"+policy, body, "soon")
		c.wantNew(first)
		other.wantReplay(first, free.createFor("nonce-of-"+policy, body, "1"))
		c.w.wantCharges("order-of-"+policy, 1)
		if n := c.w.count(`SELECT count(*) FROM idempotency_keys WHERE key_id = $1 AND expires_at > clock_timestamp() + interval '23 hours'`, "nonce-of-"+policy); n != 1 {
			t.Errorf("%s: a client had a say", policy)
		}
	}
}

func TestF08WithoutAnExpirationAnAnswerIsKeptFor24Hours(t *testing.T) {
	t.Parallel()
	c, clock := expiring(t)
	defer c.judge()
	body := c.body("order-1", nil)
	first := c.create("nonce-1", body)
	c.wantNew(first)
	for _, at := range []time.Duration{time.Hour, 24*time.Hour - tick} {
		clock.set(noon.Add(at))
		c.wantReplay(first, c.create("nonce-1", body))
	}
	c.w.wantCharges("order-1", 1)
	clock.set(noon.Add(24 * time.Hour))
	c.wantNew(c.create("nonce-1", body))
	c.w.wantCharges("order-1", 2)
}

func TestF09NextLifeMayCarryAnExpirationOfItsOwn(t *testing.T) {
	t.Parallel()
	c, clock := expiring(t)
	defer c.judge()
	body := c.body("order-1", nil)
	now := noon
	for i, said := range []string{"60", "7200", "", "1"} {
		clock.set(now)
		headers := []string{c.header, "nonce-1"}
		kept := 24 * time.Hour
		if said != "" {
			headers = append(headers, expirationHeader, said)
			kept, _ = time.ParseDuration(said + "s")
		}
		first := c.pay(body, headers...)
		c.wantNew(first)
		now = now.Add(kept)
		if at := c.w.expiry("nonce-1"); !at.Equal(now) {
			t.Errorf("life %d is kept until %s, want %s", i+1, at, now)
		}
		clock.set(now.Add(-tick))
		c.wantReplay(first, c.create("nonce-1", body))
		c.w.wantCharges("order-1", i+1)
	}
	if n := len(c.lives("nonce-1")); n != 4 {
		t.Errorf("%d lives, want 4", n)
	}
}

// A retention that is shorter than others' must not be purged with them, nor outlive them.
func TestF09PurgeGoesByEachLifesOwnTime(t *testing.T) {
	t.Parallel()
	c, clock := expiring(t)
	defer c.judge()
	for nonce, said := range map[string]string{"short": "60", "a-day": "86400", "a-week": "604800"} {
		c.wantNew(c.createFor(nonce, c.body("order-of-"+nonce, nil), said))
	}
	for _, step := range []struct {
		at   time.Duration
		left int
	}{{time.Minute - tick, 3}, {24*time.Hour - tick, 3}, {24 * time.Hour, 1}, {7*24*time.Hour - tick, 1}, {7 * 24 * time.Hour, 0}} {
		clock.set(noon.Add(step.at))
		c.w.purge()
		if n := c.w.count(`SELECT count(*) FROM idempotency_keys`); n != step.left {
			t.Errorf("after %s, %d keys are left, want %d", step.at, n, step.left)
		}
	}
}

func TestF10TestModeIgnoresKeys(t *testing.T) {
	t.Parallel()
	c := newClient(t, "fyno")
	defer c.judge()
	trying := *c
	trying.pair = c.newKey(merchants.Test)
	body := c.body("order-1", nil)
	for i := range 3 {
		r := trying.pay(body, c.header, "nonce-1", expirationHeader, "60")
		c.wantNew(r)
		if key := r.get("idempotency_key"); key != "" {
			t.Errorf("the payment has the key %v", key)
		}
		c.w.wantCharges("order-1", i+1)
	}
	free := trying.unchecked()
	for _, sent := range []string{"", " ", "a\tb", "é", strings.Repeat("k", 300)} {
		c.wantNew(free.pay(body, c.header, sent, expirationHeader, "-1"))
	}
	c.wantNew(free.pay(body, c.header, "one", c.header, "two"))
	c.w.wantCharges("order-1", 9)
	c.w.wantSends(9, 9)
	c.wantError(trying.get("/v1/idempotency-keys?nonce=nonce-1"), http.StatusNotFound, apierr.NotFound, "nothing is known of this idempotency key")
	// And live mode knows nothing of it.
	first := c.create("nonce-1", body)
	c.wantNew(first)
	c.wantReplay(first, c.create("nonce-1", body))
	c.w.wantCharges("order-1", 10)
}

// Captures, cancellations and refunds make nothing new: they are outside the list.
func TestF11RoutesThatActOnAPaymentIgnoreTheKey(t *testing.T) {
	t.Parallel()
	c := newClient(t, "fyno")
	defer c.judge()
	free := c.unchecked()
	sold := c.sells("sale-1", "order-1", "100")
	refund, err := json.Marshal(sold.refund("10").body)
	if err != nil {
		t.Fatal(err)
	}
	path := sold.refund("10").path()
	for i, sent := range []string{"nonce-1", "nonce-1", "sale-1", "", "a\tb", "é"} {
		r := free.call(http.MethodPost, path, refund, c.header, sent, expirationHeader, "-1")
		c.w.want(r, http.StatusOK)
		c.wantMarked(r, c.manner, false)
		if n, _ := c.w.psp.operated(providers.Refund, sold.transaction); n != i+1 {
			t.Fatalf("after %d requests, %d refunds were booked", i+1, n)
		}
	}
	held := c.create("sale-2", c.body("order-2", map[string]any{"capture": false, "amount": json.Number("100")}))
	c.wantNew(held)
	authorized := saleIn(held)
	for range 2 {
		r := c.act("nonce-1", authorized.capture("20"))
		c.w.want(r, http.StatusOK)
		if got := r.get("idempotency_key"); got != "" {
			t.Errorf("the capture has the key %v", got)
		}
	}
	other := c.create("sale-3", c.body("order-3", map[string]any{"capture": false}))
	c.wantNew(other)
	c.w.want(c.act("sale-3", saleIn(other).cancel()), http.StatusOK)
	c.w.want(c.act("sale-1", sold.reverse("", "10")), http.StatusCreated)
	c.w.want(c.act("sale-1", sold.reverse(sold.transaction, "30")), http.StatusCreated)
	if n, sum := c.w.psp.operated(providers.Refund, sold.transaction); n != 8 || sum.String() != "100" {
		t.Errorf("%d refunds of %s were booked, want 8 of 100", n, sum)
	}
	for _, nonce := range []string{"sale-1", "sale-2", "sale-3"} {
		c.w.wantVerdicts(c.life(nonce), idem.New) // and no key has met any of it
	}
}

// A refund without protection that fails is told so, and settled once.
func TestF11ErrorOfAnUnprotectedRefundIsNotKeptAndTheRefundIsSettled(t *testing.T) {
	t.Parallel()
	c := newClient(t, "fyno")
	defer c.judge()
	sold := c.sells("sale-1", "order-1", "100")
	c.w.psp.nextOperation(operateThenTimeout)
	r := c.act("nonce-1", sold.refund("60"))
	c.wantError(r, http.StatusGatewayTimeout, apierr.RequestTimeout,
		"the provider did not answer in time, the outcome is not known; look up what became of it before you send it again")
	// Whoever sends it again all the same cannot get more back than was paid.
	c.w.want(c.act("nonce-1", sold.refund("60")), http.StatusBadRequest)
	c.w.settle(c.w.nonces()[1])
	if n, sum := c.w.psp.operated(providers.Refund, sold.transaction); n != 1 || sum.String() != "60" {
		t.Errorf("%d refunds of %s were booked, want 1 of 60", n, sum)
	}
	if p := c.get("/v1/payments/" + sold.payment); p.get("sub_status") != "PARTIALLY_REFUNDED" {
		t.Errorf("the payment is %v", p.get("sub_status"))
	}
}
