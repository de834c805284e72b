package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/test/harness"
)

// seed is a system that a merchant may come from: its client, and what it promises.
type seed struct {
	policy string
	mode   string // of the key that its client pays with
	shop   func(w *wire) shop

	retryAfter   string  // with a 409; "": it does not say
	required     bool    // of a key; else a request without one runs unprotected
	marks        bool    // replays
	keepsErrors  bool    // as the key's answer
	otherBody    verdict // of a key that has its answer
	refusesFirst bool    // another body, while the first is under way; else it is told to wait
}

var seeds = []seed{
	{policy: "yuno", mode: "test", shop: func(w *wire) shop { return yunoShop{w} }, retryAfter: "1", required: true, marks: true, otherBody: isPaid},
	{policy: "novu", mode: "test", shop: func(w *wire) shop { return novuShop{w} }, retryAfter: "1", marks: true, keepsErrors: true, otherBody: isTaken},
	{policy: "fyno", mode: "live", shop: func(w *wire) shop { return fynoShop{wire: w} }, keepsErrors: true, otherBody: isPaid},
	{policy: "ietf", mode: "test", shop: func(w *wire) shop { return ietfShop{w} }, required: true, marks: true, keepsErrors: true, otherBody: isTaken, refusesFirst: true},
}

// mall is one installation with a merchant from each of the systems.
type mall struct {
	dev    *harness.Dev
	door   *harness.Door
	ledger harness.Ledger
}

// sound is a test card that is one in live mode as well, and leaves the outcome to the
// description.
const sound = "4111111111111111"

// newMall starts one. Its provider has five seconds, so that an answer can be held for a
// while and is missed soon.
func newMall(t *testing.T) *mall {
	t.Helper()
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	door := harness.NewDoor(t, sandbox.URL)
	dev := harness.StartDev(t, harness.Folder(t), "--provider-url", door.URL,
		"--provider-timeout", "5s", "--settle", "1s", "--lease", "9s", "--recovery-interval", "500ms")
	t.Cleanup(func() {
		if strings.Contains(dev.Stderr()+sandbox.Stderr(), sound) {
			t.Error("a log holds a card number")
		}
	})
	return &mall{dev, door, sandbox.Ledger()}
}

// stand is one merchant's, and what a scene is played with.
type stand struct {
	*mall
	seed
	keys harness.Keys
}

func (m *mall) rent(t *testing.T, s seed) stand {
	t.Helper()
	return stand{m, s, settle(t, m.dev.Info.Operator(), s.policy, s.mode)}
}

// settle makes a merchant with a policy, and a key in that mode.
func settle(t *testing.T, o harness.Operator, policy, mode string) harness.Keys {
	t.Helper()
	made := ordered[struct {
		AccountID string       `json:"account_id"`
		Policy    string       `json:"idempotency_policy"`
		APIKey    harness.Keys `json:"api_key"`
	}](t, o, http.MethodPost, "/admin/v1/merchants", map[string]string{"name": t.Name(), "idempotency_policy": policy}, http.StatusCreated)
	if made.Policy != policy {
		t.Fatalf("the merchant's policy is %s, not %s", made.Policy, policy)
	}
	made.APIKey.AccountID = made.AccountID
	if mode == "test" {
		return made.APIKey
	}
	keys, err := o.NewKey(within(t, harness.Patience), made.AccountID, mode)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// visit is a shop with a connection of its own.
func (s stand) visit(t *testing.T) (shop, *wire) {
	t.Helper()
	w := newWire(t, s.dev.Info.BaseURL, s.keys)
	return s.shop(w), w
}

// order is the JSON of a payment.
func order(t *testing.T, keys harness.Keys, p harness.Payment) []byte {
	t.Helper()
	b, err := json.Marshal(map[string]any{
		"account_id": keys.AccountID, "merchant_order_id": p.OrderID, "description": p.Description, "country": "US", "workflow": "DIRECT",
		"amount": map[string]any{"currency": "USD", "value": json.Number(p.Value)},
		"payment_method": map[string]any{"type": "CARD", "detail": map[string]any{"card": map[string]any{"card_data": map[string]any{
			"number": sound, "holder_name": "John Doe", "expiration_month": 11, "expiration_year": 28, "security_code": "123"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// scenes are what happens to every shop sooner or later.
var scenes = map[string]func(t *testing.T, s stand){
	"an ordinary payment":     ordinaryPayment,
	"two clicks at once":      twoClicksAtOnce,
	"a click during another":  clickDuringAnother,
	"a lost answer":           lostAnswer,
	"a declined card":         declinedCard,
	"a changed body":          changedBody,
	"a changed body too soon": changedBodyTooSoon,
	"a missing key":           missingKey,
	"an invalid body":         invalidBody,
	"bad credentials":         badCredentials,

	"sandbox:500":                 providerFails("sandbox:500", http.StatusBadGateway, 0),
	"sandbox:charge-then-500":     providerFails("sandbox:charge-then-500", http.StatusBadGateway, 1),
	"sandbox:unavailable":         providerFails("sandbox:unavailable", http.StatusServiceUnavailable, 0),
	"sandbox:timeout":             providerFails("sandbox:timeout", http.StatusGatewayTimeout, 0),
	"sandbox:charge-then-timeout": providerFails("sandbox:charge-then-timeout", http.StatusGatewayTimeout, 1),
}

func TestClientsThatKnowOnlyTheirOwnSystemsRulesPayUnchanged(t *testing.T) {
	t.Parallel()
	m := newMall(t)
	for _, seed := range seeds {
		t.Run(seed.policy, func(t *testing.T) {
			t.Parallel()
			s := m.rent(t, seed)
			for name, play := range scenes {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					play(t, s)
				})
			}
		})
	}
}

// mustEnd checks how a shop's payment ended.
func mustEnd(t *testing.T, c conclusion, v verdict, status int) {
	t.Helper()
	if c.verdict != v || c.status != status {
		t.Fatalf("it ended with %s, not with %d, %s", c, status, v)
	}
}

// mustAgree checks that a later answer is the first one, byte for byte, and told to be,
// where the system does so.
func (s stand) mustAgree(t *testing.T, first, later conclusion) {
	t.Helper()
	if later.verdict != first.verdict || later.status != first.status || !bytes.Equal(later.body, first.body) || later.replayed != s.marks {
		t.Errorf("the first answer was %s\n and a later one %s (replayed: %t)", first, later, later.replayed)
	}
}

func ordinaryPayment(t *testing.T, s stand) {
	ctx, p := within(t, harness.Patience), harness.NewPayment("an ordinary payment")
	client, _ := s.visit(t)
	key, body := client.newKey(), order(t, s.keys, p)
	first := client.pay(ctx, key, body)
	mustEnd(t, first, isPaid, http.StatusCreated)
	if first.replayed || first.outcome() != "SUCCEEDED" {
		t.Errorf("the first answer (replayed: %t) is %s", first.replayed, first)
	}
	for range 3 {
		s.mustAgree(t, first, client.pay(ctx, key, body))
	}
	s.ledger.MustHave(t, p, 1)
	// Another key is another payment.
	next := harness.NewPayment("another payment")
	mustEnd(t, client.pay(ctx, client.newKey(), order(t, s.keys, next)), isPaid, http.StatusCreated)
	s.ledger.MustHave(t, next, 1)
}

func twoClicksAtOnce(t *testing.T, s stand) {
	ctx, p := within(t, harness.Patience), harness.NewPayment("sandbox:slow=300ms")
	client, _ := s.visit(t)
	key, body := client.newKey(), order(t, s.keys, p)
	ends, begin := make(chan conclusion, 2), make(chan struct{})
	for range cap(ends) {
		go func() {
			<-begin
			ends <- client.pay(ctx, key, body)
		}()
	}
	close(begin)
	one, other := <-ends, <-ends
	mustEnd(t, one, isPaid, http.StatusCreated)
	mustEnd(t, other, isPaid, http.StatusCreated)
	if !bytes.Equal(one.body, other.body) || one.replayed && other.replayed || s.marks && !one.replayed && !other.replayed {
		t.Errorf("two clicks were told\n %s (replayed: %t)\n %s (replayed: %t)", one, one.replayed, other, other.replayed)
	}
	s.ledger.MustHave(t, p, 1)
}

// begun lets a shop pay, and returns when the provider has decided and nobody has heard
// it yet.
func (s stand) begun(ctx context.Context, t *testing.T, client shop, key string, p harness.Payment) (end <-chan conclusion, release func()) {
	t.Helper()
	booked, release := s.door.HoldAnswer(p.OrderID)
	t.Cleanup(release)
	ends := make(chan conclusion, 1)
	body := order(t, s.keys, p)
	go func() { ends <- client.pay(ctx, key, body) }()
	await(ctx, t, booked)
	return ends, release
}

// await waits until the provider has decided.
func await(ctx context.Context, t *testing.T, booked <-chan struct{}) {
	t.Helper()
	select {
	case <-booked:
	case <-ctx.Done():
		t.Fatal("the charge never reached the provider")
	}
}

func clickDuringAnother(t *testing.T, s stand) {
	ctx, p := within(t, harness.Patience), harness.NewPayment("a click during another")
	first, _ := s.visit(t)
	second, w := s.visit(t)
	key := first.newKey()
	end, release := s.begun(ctx, t, first, key, p)
	again, body := make(chan conclusion, 1), order(t, s.keys, p)
	go func() { again <- second.pay(ctx, key, body) }()
	harness.Eventually(t, harness.Patience, "the second click is told of the first", func() bool { return w.heard(http.StatusConflict) > 0 })
	release()
	c := <-end
	mustEnd(t, c, isPaid, http.StatusCreated)
	s.mustAgree(t, c, <-again)
	for _, wait := range w.told() {
		if wait != s.retryAfter {
			t.Errorf("a 409 says Retry-After: %q, not %q", wait, s.retryAfter)
		}
	}
	s.ledger.MustHave(t, p, 1)
	if n := s.door.Charges(p.OrderID); n != 1 {
		t.Errorf("it was sent %d times", n)
	}
}

func lostAnswer(t *testing.T, s stand) {
	ctx, p := within(t, harness.Patience), harness.NewPayment("a lost answer")
	client, w := s.visit(t)
	end, release := s.begun(ctx, t, client, client.newKey(), p)
	w.hangUp()
	harness.Eventually(t, harness.Patience, "the payment goes on without its client", func() bool { return w.heard(http.StatusConflict) > 0 })
	release()
	c := <-end
	mustEnd(t, c, isPaid, http.StatusCreated)
	if c.outcome() != "SUCCEEDED" || c.replayed != s.marks {
		t.Errorf("it came back to %s (replayed: %t)", c, c.replayed)
	}
	s.ledger.MustHave(t, p, 1)
	if n := s.door.Charges(p.OrderID); n != 1 {
		t.Errorf("it was sent %d times", n)
	}
}

// A decline is an answer, and told again; the next attempt is one with a new key.
func declinedCard(t *testing.T, s stand) {
	ctx, p := within(t, harness.Patience), harness.NewPayment("INSUFFICIENT_FUNDS")
	client, _ := s.visit(t)
	key, body := client.newKey(), order(t, s.keys, p)
	first := client.pay(ctx, key, body)
	mustEnd(t, first, isPaid, http.StatusCreated)
	if first.outcome() != "DECLINED" {
		t.Errorf("the payment is %s", first.outcome())
	}
	s.mustAgree(t, first, client.pay(ctx, key, body))
	s.ledger.MustHave(t, p, 0)
	p.Description = "the next attempt"
	mustEnd(t, client.pay(ctx, client.newKey(), order(t, s.keys, p)), isPaid, http.StatusCreated)
	s.ledger.MustHave(t, p, 1)
}

func changedBody(t *testing.T, s stand) {
	ctx, p := within(t, harness.Patience), harness.NewPayment("a changed body")
	client, _ := s.visit(t)
	key := client.newKey()
	first := client.pay(ctx, key, order(t, s.keys, p))
	mustEnd(t, first, isPaid, http.StatusCreated)
	changed := p
	changed.Value = "99.99"
	c := client.pay(ctx, key, order(t, s.keys, changed))
	if s.otherBody == isPaid {
		s.mustAgree(t, first, c)
	} else {
		mustEnd(t, c, s.otherBody, http.StatusUnprocessableEntity)
	}
	s.mustAgree(t, first, client.pay(ctx, key, order(t, s.keys, p)))
	s.ledger.MustHave(t, p, 1)
}

func changedBodyTooSoon(t *testing.T, s stand) {
	ctx, p := within(t, harness.Patience), harness.NewPayment("a changed body too soon")
	first, _ := s.visit(t)
	second, w := s.visit(t)
	key := first.newKey()
	end, release := s.begun(ctx, t, first, key, p)
	changed := p
	changed.Value = "99.99"
	again, body := make(chan conclusion, 1), order(t, s.keys, changed)
	go func() { again <- second.pay(ctx, key, body) }()
	told := http.StatusConflict
	if s.refusesFirst {
		told = http.StatusUnprocessableEntity
	}
	harness.Eventually(t, harness.Patience, "the other body is answered", func() bool {
		return w.heard(http.StatusConflict)+w.heard(http.StatusUnprocessableEntity) > 0
	})
	if w.heard(told) == 0 {
		t.Errorf("while the first is under way, another body is not told %d", told)
	}
	release()
	c := <-end
	mustEnd(t, c, isPaid, http.StatusCreated)
	if later := <-again; s.otherBody == isPaid {
		s.mustAgree(t, c, later)
	} else {
		mustEnd(t, later, s.otherBody, http.StatusUnprocessableEntity)
	}
	s.ledger.MustHave(t, p, 1)
}

func missingKey(t *testing.T, s stand) {
	ctx, p := within(t, harness.Patience), harness.NewPayment("a missing key")
	client, _ := s.visit(t)
	body := order(t, s.keys, p)
	first, second := client.pay(ctx, "", body), client.pay(ctx, "", body)
	if s.required {
		mustEnd(t, first, isInvalid, http.StatusBadRequest)
		mustEnd(t, second, isInvalid, http.StatusBadRequest)
		s.ledger.MustHave(t, p, 0)
		return
	}
	mustEnd(t, first, isPaid, http.StatusCreated)
	mustEnd(t, second, isPaid, http.StatusCreated)
	if bytes.Equal(first.body, second.body) || first.replayed || second.replayed {
		t.Errorf("two requests without a key were told %s\n and %s", first, second)
	}
	s.ledger.MustHave(t, p, 2)
}

// What is invalid has not used its key up.
func invalidBody(t *testing.T, s stand) {
	ctx, p := within(t, harness.Patience), harness.NewPayment("an invalid body")
	client, _ := s.visit(t)
	key, wrong := client.newKey(), p
	wrong.Value = "0"
	for _, body := range [][]byte{order(t, s.keys, wrong), []byte(`{"account_id":`), []byte(`{}`)} {
		mustEnd(t, client.pay(ctx, key, body), isInvalid, http.StatusBadRequest)
	}
	s.ledger.MustHave(t, p, 0)
	c := client.pay(ctx, key, order(t, s.keys, p))
	mustEnd(t, c, isPaid, http.StatusCreated)
	if c.replayed {
		t.Error("the corrected request is told to be a replay")
	}
	if later := client.pay(ctx, key, []byte(`{}`)); s.otherBody == isPaid {
		s.mustAgree(t, c, later)
	} else {
		mustEnd(t, later, isInvalid, http.StatusBadRequest)
	}
	s.ledger.MustHave(t, p, 1)
}

// A merchant whose secret is wrong is told so in words that its client can read, and
// nothing of it is kept.
func badCredentials(t *testing.T, s stand) {
	ctx, p := within(t, harness.Patience), harness.NewPayment("bad credentials")
	client, _ := s.visit(t)
	stranger := s
	stranger.keys.PrivateSecretKey += "x"
	wrong, _ := stranger.visit(t)
	key, body := client.newKey(), order(t, s.keys, p)
	mustEnd(t, wrong.pay(ctx, key, body), isShutOut, http.StatusUnauthorized)
	s.ledger.MustHave(t, p, 0)
	first := client.pay(ctx, key, body)
	mustEnd(t, first, isPaid, http.StatusCreated)
	mustEnd(t, wrong.pay(ctx, key, body), isShutOut, http.StatusUnauthorized) // nor is it told to strangers
	s.mustAgree(t, first, client.pay(ctx, key, body))
	s.ledger.MustHave(t, p, 1)
}

// providerFails is a provider that answers with an error, or not at all, having booked
// the charge or not. Where the error is kept, the shop ends with it and the payment is
// settled without it; else it comes back until it is paid.
func providerFails(description string, status, booked int) func(t *testing.T, s stand) {
	return func(t *testing.T, s stand) {
		ctx, p := within(t, harness.Patience), harness.NewPayment(description)
		client, _ := s.visit(t)
		key, body := client.newKey(), order(t, s.keys, p)
		first := client.pay(ctx, key, body)
		if !s.keepsErrors {
			mustEnd(t, first, isPaid, http.StatusCreated)
			if first.outcome() != "SUCCEEDED" {
				t.Errorf("the payment is %s", first.outcome())
			}
			s.mustAgree(t, conclusion{isPaid, http.StatusCreated, first.body, false, ""}, client.pay(ctx, key, body))
			s.ledger.MustHave(t, p, 1)
			return
		}
		mustEnd(t, first, isFinal, status)
		s.ledger.MustHave(t, p, booked)
		life := s.settled(t, key)
		if life.Charges != booked || life.KeyState != "answered" {
			t.Errorf("the key is %s, with %d charges: %s", life.KeyState, life.Charges, life.Verdict)
		}
		s.mustAgree(t, first, client.pay(ctx, key, body))
		s.ledger.MustHave(t, p, booked)
		if n := s.door.Charges(p.OrderID); n != 1 {
			t.Errorf("it was sent %d times", n)
		}
	}
}

// settled is the key's only life, once the transaction behind it has ended.
func (s stand) settled(t *testing.T, key string) harness.Life {
	t.Helper()
	var all []harness.Life
	reader := harness.NewClient(s.dev.Info.BaseURL, s.keys)
	harness.Eventually(t, harness.Patience, "the transaction has ended", func() bool {
		all = lives(t, reader, key)
		return len(all) == 1 && all[0].Transaction.Status != "CREATED" && all[0].Transaction.Status != "PENDING"
	})
	return all[0]
}

// F06, F08 to F10 as fyno's client sees them.
func TestFynosClientChoosesHowLongItsAnswersAreKeptAndInLiveModeAlone(t *testing.T) {
	t.Parallel()
	m := newMall(t)
	s := m.rent(t, seeds[2])
	ctx, w := within(t, harness.Patience), newWire(t, m.dev.Info.BaseURL, s.keys)
	briefly, later := fynoShop{w, "2"}, fynoShop{w, "86400"}
	key, p := briefly.newKey(), harness.NewPayment("kept for two seconds")
	body, began := order(t, s.keys, p), time.Now()
	first := briefly.pay(ctx, key, body)
	mustEnd(t, first, isPaid, http.StatusCreated)
	// A later value changes nothing, so the key lives again before long: with the first
	// answer until then, and with its own from then on.
	var second conclusion
	harness.Eventually(t, harness.Patience, "the first answer is forgotten", func() bool {
		second = later.pay(ctx, key, body)
		mustEnd(t, second, isPaid, http.StatusCreated)
		again := !bytes.Equal(second.body, first.body)
		if again && time.Since(began) < 2*time.Second {
			t.Errorf("it was forgotten within %s", time.Since(began))
		}
		return again
	})
	m.ledger.MustHave(t, p, 2) // one in each life
	for range 3 {
		if again := briefly.pay(ctx, key, body); !bytes.Equal(again.body, second.body) {
			t.Errorf("the second life answers %s", again)
		}
	}
	m.ledger.MustHave(t, p, 2)

	test := settle(t, m.dev.Info.Operator(), "fyno", "test")
	tried, p := fynoShop{wire: newWire(t, m.dev.Info.BaseURL, test)}, harness.NewPayment("tried in test mode")
	body = order(t, test, p)
	for range 2 {
		mustEnd(t, tried.pay(ctx, key, body), isPaid, http.StatusCreated)
	}
	m.ledger.MustHave(t, p, 2)
}

// A life that is under way outlasts its expiration: what is not answered is not
// forgotten, and what is answered late is kept for as long from then on.
func TestFynosKeyDoesNotExpireBeforeItsAnswer(t *testing.T) {
	t.Parallel()
	m := newMall(t)
	s := m.rent(t, seeds[2])
	s.shop = func(w *wire) shop { return fynoShop{w, "2"} }
	first, _ := s.visit(t)
	second, w := s.visit(t)
	ctx, key, p := within(t, harness.Patience), first.newKey(), harness.NewPayment("answered after its expiration")
	end, release := s.begun(ctx, t, first, key, p)
	begun := time.Now()
	harness.Eventually(t, harness.Patience, "its two seconds are over", func() bool { return time.Since(begun) > 2200*time.Millisecond })
	again, body := make(chan conclusion, 1), order(t, s.keys, p)
	go func() { again <- second.pay(ctx, key, body) }()
	harness.Eventually(t, harness.Patience, "the second click is told of the first", func() bool { return w.heard(http.StatusConflict) > 0 })
	release()
	c := <-end
	mustEnd(t, c, isPaid, http.StatusCreated)
	s.mustAgree(t, c, <-again) // it came within the two seconds that began with the answer
	m.ledger.MustHave(t, p, 1)
	if n := m.door.Charges(p.OrderID); n != 1 {
		t.Errorf("it was sent %d times", n)
	}
}

// changing is a merchant whose policy is changed while two instances serve it.
type changing struct {
	t    *testing.T
	one  *wire
	two  *wire
	keys harness.Keys
}

// soon is within what time a change holds on every instance.
const soon = 5 * time.Second

// await waits until errors come as a merchant with that policy gets them, from both
// instances. Call it when the operator has been told that the policy is changed.
func (c changing) await(policy string) {
	c.t.Helper()
	since := time.Now()
	sign := map[string]string{"yuno": `"doc_url"`, "novu": `"statusCode"`, "ietf": `"detail"`}[policy]
	for name, w := range map[string]*wire{"one": c.one, "two": c.two} {
		harness.Eventually(c.t, soon-time.Since(since), policy+" holds on instance "+name, func() bool {
			a, err := w.do(c.t.Context(), http.MethodGet, "/v1/payments", http.Header{}, nil)
			if err != nil || a.status != http.StatusBadRequest {
				c.t.Fatalf("a list of nothing: %d (%v)", a.status, err)
			}
			return bytes.Contains(a.body, []byte(sign))
		})
		c.t.Logf("%s holds on instance %s after %s", policy, name, time.Since(since).Round(time.Millisecond))
	}
}

// ask sends one request with a key to one of the instances.
func (c changing) ask(w *wire, key string, body []byte, status int) reply {
	c.t.Helper()
	a, err := w.post(within(c.t, harness.Patience), http.Header{"Idempotency-Key": {key}}, body)
	if err != nil || a.status != status {
		c.t.Fatalf("the key %s answers %d %s (%v), not %d", key, a.status, a.body, err, status)
	}
	return a
}

// mustReplay checks that the key answers as it did at first, in its first manner: with
// these headers and without those of other policies.
func (c changing) mustReplay(key string, body []byte, first reply, want map[string]string) {
	c.t.Helper()
	for _, w := range []*wire{c.one, c.two} {
		a := c.ask(w, key, body, first.status)
		if !bytes.Equal(a.body, first.body) || a.header.Get("Content-Type") != first.header.Get("Content-Type") || a.header.Get("Link") != first.header.Get("Link") {
			c.t.Errorf("the key %s answers %v %s, and first %v %s", key, a.header, a.body, first.header, first.body)
		}
		for _, name := range []string{"Idempotent-Replayed", "Idempotency-Replay", "Idempotency-Body-Mismatch"} {
			if got := a.header.Get(name); got != want[name] {
				c.t.Errorf("the key %s answers with %s: %q, not %q", key, name, got, want[name])
			}
		}
	}
}

func TestPolicyChangesOnEveryInstanceWithinFiveSecondsAndAnAnswerKeepsItsManner(t *testing.T) {
	t.Parallel()
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	door := harness.NewDoor(t, sandbox.URL)
	installation := harness.NewInstallation(pgtest.URL(t), door.URL)
	one, two := installation.Serve(t), installation.Serve(t)
	keys := settle(t, one.Operator, "yuno", "test")
	c := changing{t, newWire(t, one.URL, keys), newWire(t, two.URL, keys), keys}
	harness.Eventually(t, soon, "the other instance knows the merchant", func() bool {
		a, err := c.two.do(t.Context(), http.MethodGet, "/v1/payments?merchant_order_id=none", http.Header{}, nil)
		return err == nil && a.status == http.StatusOK
	})
	pay := func(w *wire, key, description string, status int) (p harness.Payment, body []byte, a reply) {
		p = harness.NewPayment(description)
		body = order(t, keys, p)
		return p, body, c.ask(w, key, body, status)
	}
	other := func(p harness.Payment) []byte {
		p.Value = "99.99"
		return order(t, keys, p)
	}
	replayed, differs := map[string]string{"Idempotent-Replayed": "true"}, map[string]string{"Idempotent-Replayed": "true", "Idempotency-Body-Mismatch": "true"}

	underYuno, yunoBody, yunoFirst := pay(c.one, "begun-under-yuno", "paid under yuno", http.StatusCreated)
	c.mustReplay("begun-under-yuno", yunoBody, yunoFirst, replayed)

	harness.Call(t, harness.Command{
		Args: []string{"merchants", "update", keys.AccountID, "--policy", "novu", "--admin-url", one.Operator.URL},
		Env:  []string{"PAYMENTS_ADMIN_TOKEN=" + one.Operator.Token},
	}).Must(t, 0, keys.AccountID, "novu", "Within 5 s")
	c.await("novu")
	c.mustReplay("begun-under-yuno", yunoBody, yunoFirst, replayed)
	c.mustReplay("begun-under-yuno", other(underYuno), yunoFirst, differs)

	// A client that was not told goes on as before: it is refused, and not charged again.
	for _, w := range []*wire{c.one, c.two} {
		a, err := w.post(within(t, harness.Patience), http.Header{"X-Idempotency-Key": {"begun-under-yuno"}}, yunoBody)
		if err != nil || a.status != http.StatusBadRequest || !bytes.Contains(a.body, []byte("Idempotency-Key is the header that is read")) {
			t.Errorf("in yuno's header, the key answers %d %s (%v)", a.status, a.body, err)
		}
	}

	marked := map[string]string{"Idempotency-Replay": "true"}
	underNovu, novuBody, novuFirst := pay(c.two, "begun-under-novu", "paid under novu", http.StatusCreated)
	failed, failedBody, failedFirst := pay(c.one, "failed-under-novu", "sandbox:charge-then-500", http.StatusBadGateway)
	c.mustReplay("begun-under-novu", novuBody, novuFirst, marked)
	c.mustReplay("failed-under-novu", failedBody, failedFirst, marked)
	if a := c.ask(c.one, "begun-under-novu", other(underNovu), http.StatusUnprocessableEntity); !bytes.Contains(a.body, []byte(`"statusCode":422`)) {
		t.Errorf("another body is refused with %s", a.body)
	}

	slow := harness.NewPayment("under way while the policy changes")
	slowBody, slowEnd := order(t, keys, slow), make(chan reply, 1)
	booked, release := door.HoldAnswer(slow.OrderID)
	t.Cleanup(release)
	ctx := within(t, harness.Patience)
	go func() {
		a, _ := c.one.post(ctx, http.Header{"Idempotency-Key": {"under-way"}}, slowBody) // status 0, if it broke
		slowEnd <- a
	}()
	await(ctx, t, booked)

	changed := ordered[struct {
		Policy string `json:"idempotency_policy"`
	}](t, two.Operator, http.MethodPatch, "/admin/v1/merchants/"+keys.AccountID, map[string]string{"idempotency_policy": "ietf"}, http.StatusOK)
	if changed.Policy != "ietf" {
		t.Errorf("the merchant's policy is %s", changed.Policy)
	}
	c.await("ietf")
	// From here on the merchant writes its keys in quotes; they mean the same. What is under
	// way keeps its manner, too: 409 before 422, and when to come back.
	for _, body := range [][]byte{slowBody, other(slow)} {
		if a := c.ask(c.two, `"under-way"`, body, http.StatusConflict); a.header.Get("Retry-After") != "1" || a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("what is under way answers %v %s", a.header, a.body)
		}
	}
	release()
	slowFirst := <-slowEnd
	if slowFirst.status != http.StatusCreated {
		t.Fatalf("what was under way ends with %d %s", slowFirst.status, slowFirst.body)
	}
	c.mustReplay(`"under-way"`, slowBody, slowFirst, marked)
	c.mustReplay(`"begun-under-yuno"`, yunoBody, yunoFirst, replayed)
	c.mustReplay(`"begun-under-yuno"`, other(underYuno), yunoFirst, differs)
	c.mustReplay(`"begun-under-novu"`, novuBody, novuFirst, marked)
	c.mustReplay(`"failed-under-novu"`, failedBody, failedFirst, marked)
	underIETF, ietfBody, ietfFirst := pay(c.one, `"begun under ietf"`, "paid under ietf", http.StatusCreated)
	c.mustReplay(`"begun under ietf"`, ietfBody, ietfFirst, replayed)
	for name, body := range map[string][]byte{`"begun-under-novu"`: other(underNovu), `"begun under ietf"`: other(underIETF)} {
		if a := c.ask(c.two, name, body, http.StatusUnprocessableEntity); a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("another body for %s is refused with %v %s", name, a.header, a.body)
		}
	}
	for _, p := range []harness.Payment{underYuno, underNovu, failed, slow, underIETF} {
		sandbox.Ledger().MustHave(t, p, 1)
	}
}

// The process dies while a payment is at the provider. The client knows nothing of that:
// a connection broke, and then there is 409 for a while. (fyno's keys count in live mode
// alone, for which `serve` has no provider yet.)
func TestKilledWhileAPaymentUnderNovuOrIETFIsAtTheProviderItsClientIsToldOnceAndItIsChargedOnce(t *testing.T) {
	t.Parallel()
	for _, s := range seeds {
		if !s.keepsErrors || s.mode == "live" {
			continue
		}
		t.Run(s.policy, func(t *testing.T) {
			t.Parallel()
			sandbox := harness.StartSandbox(t, harness.Folder(t))
			door := harness.NewDoor(t, sandbox.URL)
			installation := harness.NewInstallation(pgtest.URL(t), door.URL)
			api := installation.Serve(t)
			keys := settle(t, api.Operator, s.policy, s.mode)
			w, p := newWire(t, api.URL, keys), harness.NewPayment("killed at the provider")
			client := s.shop(w)
			ctx, key, body := within(t, harness.Patience), client.newKey(), order(t, keys, p)
			booked, release := door.HoldAnswer(p.OrderID)
			end := make(chan conclusion, 1)
			go func() { end <- client.pay(ctx, key, body) }()
			await(ctx, t, booked)
			api.Kill()
			release()
			api = installation.Serve(t)
			w.moveTo(api.URL)
			first := <-end
			mustEnd(t, first, isPaid, http.StatusCreated)
			again := client.pay(ctx, key, body)
			if !bytes.Equal(again.body, first.body) || !again.replayed || first.outcome() != "SUCCEEDED" {
				t.Errorf("told first %s\n and then %s", first, again)
			}
			sandbox.Ledger().MustHave(t, p, 1)
			if n := door.Charges(p.OrderID); n != 1 {
				t.Errorf("it was sent %d times", n)
			}
		})
	}
}
