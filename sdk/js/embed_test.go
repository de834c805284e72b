package js_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/oncepay/oncepay/internal/checkout"
)

// shop is a merchant's page with the SDK in it, on an origin of its own.
type shop struct {
	*httptest.Server
	api *fakeAPI

	mu      sync.Mutex
	options string // more of startCheckout's
	start   string
	// paid are the idempotency keys with which the shop's backend was asked to pay, and fail
	// says how many of those it refuses first.
	paid []string
	fail int
}

const shopHTML = `<!doctype html><html lang="en"><meta name="viewport" content="width=device-width"><title>Shop</title>
<style>body{font:16px system-ui;margin:24px;background:#fff;color:#111}@media(prefers-color-scheme:dark){body{background:#111;color:#eee}}</style>
<h1>Shop</h1><div id="pay"></div>
<script src="%[1]s/sdk/v1/oncepay.js" integrity="%[2]s" crossorigin="anonymous"></script>
<script>
window.results = []; window.errors = []; window.said = [];
addEventListener("message", (e) => said.push([e.origin, JSON.stringify(e.data)]));
const oncepay = Oncepay.initialize("sandbox_key");
oncepay.%[4]s({checkoutSession: "%[3]s", elementSelector: "#pay", countryCode: "US", language: "en",
  onResult: (r) => results.push(r), onError: (e) => errors.push(e), %[5]s});
</script>`

const createPayment = `createPayment: async (token, info) => {
  const r = await fetch("/pay", {method: "POST", body: JSON.stringify({token, key: info.idempotencyKey})});
  if (!r.ok) throw new Error("the backend said " + r.status);
}`

func newShop(t *testing.T, workflow, options string) *shop {
	t.Helper()
	s := &shop{options: options, start: "startCheckout"}
	s.Server = merchant(t, func() string {
		s.mu.Lock()
		defer s.mu.Unlock()
		return fmt.Sprintf(shopHTML, s.api.URL, checkout.Integrity(), s.api.session.ID, s.start, s.options)
	}, map[string]http.HandlerFunc{"POST /pay": s.pay})
	s.api = newFakeAPI(t, workflow, s.elsewhere())
	return s
}

// pay is the shop's backend: it pays with the token, under the key that came with it.
func (s *shop) pay(w http.ResponseWriter, r *http.Request) {
	var body struct{ Token, Key string }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.paid = append(s.paid, body.Key)
	refuse := len(s.paid) <= s.fail
	s.mu.Unlock()
	if refuse {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	s.api.do(func() {
		if s.api.answers[body.Key] == nil && s.api.holder() == nil {
			s.api.charge(body.Key, body.Token)
		}
	})
}

func (s *shop) keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.paid...)
}

// frame is our page in the shop's. The shop is on another site, so the browser gives the frame
// a process and a target of its own.
func (b *tab) frame(s *shop) *tab {
	b.t.Helper()
	var in *tab
	eventually(b.t, "the frame is there", func() bool {
		targets, err := chromedp.Targets(b.Context)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, info := range targets {
			if info.Type == "iframe" && strings.Contains(info.URL, s.api.session.ID.String()) {
				ctx, cancel := chromedp.NewContext(b.Context, chromedp.WithTargetID(info.TargetID))
				b.t.Cleanup(cancel)
				in = watched(ctx, b.t, cancel)
				return true
			}
		}
		return false
	})
	return in
}

// elsewhere is the shop's address on another site than the API's: ports don't make one.
func (s *shop) elsewhere() string { return strings.Replace(s.URL, "127.0.0.1", "localhost", 1) }

func (b *tab) results() []checkoutResult {
	b.t.Helper()
	var r []checkoutResult
	if err := json.Unmarshal([]byte(eval[string](b, "JSON.stringify(window.results)")), &r); err != nil {
		b.t.Fatal(err)
	}
	return r
}

type checkoutResult struct{ CheckoutSession, PaymentID, Status, SubStatus string }

func (b *tab) errors() string { return eval[string](b, "JSON.stringify(window.errors)") }

// TestTheSDKPaysInAFrame of our origin; the shop's page is told the result and no card.
func TestTheSDKPaysInAFrame(t *testing.T) {
	for _, scheme := range []string{"light", "dark"} {
		s := newShop(t, "SDK_SEAMLESS", "")
		b := newTab(t)
		b.look(390, 844, scheme)
		b.goTo(s.elsewhere())
		in := b.frame(s)
		in.reaches("form")
		eventually(t, "the frame is as high as its page", func() bool {
			return eval[float64](b, `document.querySelector("iframe").offsetHeight`) == eval[float64](in, `Math.ceil(document.getElementById("oncepay").getBoundingClientRect().height)`)
		})
		b.shoot("embedded-form-" + scheme)
		in.fill(poorCard)
		in.submit()
		in.reaches("declined")
		b.shoot("embedded-declined-" + scheme)
		in.run(chromedp.Click(css("button.primary")))
		in.reaches("form")
		in.fill(goodCard)
		in.submit()
		oneCharge(t, s.api, in)
		b.shoot("embedded-success-" + scheme)
		eventually(t, "the shop is told", func() bool { return len(b.results()) == 2 })
		if r := b.results(); r[0].Status != "DECLINED" || r[1].Status != "SUCCEEDED" || r[1].CheckoutSession != s.api.session.ID.String() || r[1].PaymentID == "" {
			t.Errorf("the shop was told %+v", r)
		}
		said := eval[string](b, "JSON.stringify(window.said)")
		for _, secret := range []string{goodCard, poorCard, "0000 0002", `"123"`, "John Doe"} {
			if strings.Contains(said, secret) {
				t.Error("a message to the shop's page has card data")
			}
		}
		if got := b.errors(); got != "[]" {
			t.Errorf("errors: %s", got)
		}
	}
}

// TestTheShopPaysWithTheToken and the nonce that comes with it; a backend that fails can be
// asked again, and the nonce is the same.
func TestTheShopPaysWithTheToken(t *testing.T) {
	s := newShop(t, "SDK_CHECKOUT", createPayment)
	s.fail = 1
	b := newTab(t)
	b.goTo(s.elsewhere())
	in := b.frame(s)
	in.reaches("form")
	in.fill(goodCard)
	in.submit()
	eventually(t, "the page says that the shop did not pay", func() bool { return strings.Contains(in.text(), "did not start the payment") })
	in.submit()
	oneCharge(t, s.api, in)
	keys := s.keys()
	if len(keys) != 2 || keys[0] != keys[1] || len(keys[0]) != 36 {
		t.Errorf("the backend got the keys %q", keys)
	}
	if got := b.errors(); !strings.Contains(got, "CREATE_PAYMENT_FAILED") {
		t.Errorf("errors: %s", got)
	}
	eventually(t, "the shop is told", func() bool { r := b.results(); return len(r) == 1 && r[0].Status == "SUCCEEDED" })
}

// TestAReloadedShopIsAskedWithTheSameKey while nobody knows whether it has paid.
func TestAReloadedShopIsAskedWithTheSameKey(t *testing.T) {
	s := newShop(t, "SDK_CHECKOUT", `createPayment: (token, info) => { fetch("/pay", {method: "POST", body: JSON.stringify({token, key: info.idempotencyKey})}); return new Promise(() => {}) }`)
	s.fail = 1 // the first request is lost on its way
	b := newTab(t)
	b.goTo(s.elsewhere())
	in := b.frame(s)
	in.reaches("form")
	in.fill(goodCard)
	in.submit()
	eventually(t, "the backend is asked", func() bool { return len(s.keys()) == 1 })
	b.run(chromedp.Reload())
	in = b.frame(s)
	oneCharge(t, s.api, in)
	if keys := s.keys(); len(keys) != 2 || keys[0] != keys[1] {
		t.Errorf("the backend got the keys %q", keys)
	}
	if len(s.api.tokens) != 1 {
		t.Errorf("%d cards were handed in", len(s.api.tokens))
	}
}

// TestADeclineInTheShopAllowsAnotherKey, as it allows another card.
func TestADeclineInTheShopAllowsAnotherKey(t *testing.T) {
	s := newShop(t, "SDK_CHECKOUT", createPayment)
	b := newTab(t)
	b.goTo(s.elsewhere())
	in := b.frame(s)
	in.reaches("form")
	in.fill(poorCard)
	in.submit()
	in.reaches("declined")
	in.run(chromedp.Click(css("button.primary")))
	in.reaches("form")
	in.fill(goodCard)
	in.submit()
	oneCharge(t, s.api, in)
	if keys := s.keys(); len(keys) != 2 || keys[0] == keys[1] {
		t.Errorf("the backend got the keys %q", keys)
	}
}

// TestASessionThatNeedsCreatePaymentSaysSo before anybody types a card.
func TestASessionThatNeedsCreatePaymentSaysSo(t *testing.T) {
	s := newShop(t, "SDK_CHECKOUT", "")
	b := newTab(t)
	b.goTo(s.elsewhere())
	b.frame(s).reaches("error")
	eventually(t, "the shop is told", func() bool { return strings.Contains(b.errors(), "NO_CREATE_PAYMENT") })
}

// TestTheChallengeIsInTheFrame and comes back into it, although the bank knows nothing of
// frames.
func TestTheChallengeIsInTheFrame(t *testing.T) {
	s := newShop(t, "SDK_SEAMLESS", "")
	b := newTab(t)
	b.goTo(s.elsewhere())
	in := b.frame(s)
	in.reaches("form")
	in.fill(challengeCard)
	in.submit()
	in.run(chromedp.WaitVisible(css("#yes")), chromedp.Click(css("#yes")))
	oneCharge(t, s.api, in)
	eventually(t, "the shop is told", func() bool {
		r := b.results()
		return len(r) == 2 && r[0].Status == "PENDING" && r[1].Status == "SUCCEEDED"
	})
}

// TestTheStatusPageOnlyShows and waits.
func TestTheStatusPageOnlyShows(t *testing.T) {
	s := newShop(t, "SDK_SEAMLESS", "")
	s.start = "mountStatusPayment"
	b := newTab(t)
	b.goTo(s.elsewhere())
	in := b.frame(s)
	in.reaches("nothing")
	s.api.do(func() { s.api.tokens["t"] = poorCard; s.api.charge("n1", "t") })
	in.reaches("declined")
	if eval[bool](in, `document.querySelector("button") !== null`) {
		t.Error("the page offers to pay")
	}
	s.api.do(func() { s.api.tokens["t"] = slowCard; s.api.charge("n2", "t") })
	in.reaches("pending")
	s.api.do(func() { s.api.payments[1].status, s.api.payments[1].sub = "SUCCEEDED", "APPROVED" })
	in.reaches("success")
}

// TestAStrangersPageGetsNothing: it cannot show the page, is told nothing, and nobody obeys it.
func TestAStrangersPageGetsNothing(t *testing.T) {
	s := newShop(t, "SDK_SEAMLESS", "")
	// The page's origin is not registered.
	s.api.do(func() { s.api.session.Origins = []string{"https://shop.example"} })
	b := newTab(t)
	b.goTo(s.elsewhere())
	eventually(t, "the frame was asked for", func() bool {
		s.api.mu.Lock()
		defer s.api.mu.Unlock()
		return strings.Contains(strings.Join(s.api.requests, "\n"), "GET /pay/"+s.api.session.ID.String())
	})
	// A page that opens ours in a window, and speaks to it.
	b.goTo(s.elsewhere())
	opened := eval[bool](b, `(() => { window.w = window.open("`+s.api.page()+`"); return !!window.w })()`)
	if !opened {
		t.Fatal("no window was opened")
	}
	eval[bool](b, `new Promise((done) => { let n = 0; const i = setInterval(() => {
		w.postMessage({oncepay: 1, type: "init", publicKey: "sandbox_key", language: "pt", createsPayments: true}, "*");
		w.postMessage({oncepay: 1, type: "look"}, "*");
		if (++n > 20) { clearInterval(i); done(true) } }, 25) })`)
	if said := eval[string](b, "JSON.stringify(window.said)"); said != "[]" {
		t.Errorf("the stranger was told %s", said)
	}
	s.api.mu.Lock()
	defer s.api.mu.Unlock()
	for _, r := range s.api.requests {
		if strings.HasPrefix(r, "POST /v1/") {
			t.Errorf("the stranger made the page do %s", r)
		}
	}
}

// TestTheSDKBelievesOnlyItsOwnFrame.
func TestTheSDKBelievesOnlyItsOwnFrame(t *testing.T) {
	s := newShop(t, "SDK_CHECKOUT", createPayment)
	b := newTab(t)
	b.goTo(s.elsewhere())
	b.frame(s).reaches("form")
	// The shop's own origin, and another frame of the API's origin.
	eval[bool](b, `new Promise((done) => {
		postMessage({oncepay: 1, type: "token", token: "t", nonce: "n", card: null}, "*");
		postMessage({oncepay: 1, type: "result", result: {status: "SUCCEEDED"}}, "*");
		postMessage({oncepay: 2, type: "resize", height: 1}, "*");
		setTimeout(() => done(true), 200) })`)
	if len(s.keys()) != 0 || len(b.results()) != 0 {
		t.Errorf("a forged message was believed: %q, %v", s.keys(), b.results())
	}
}

// TestTheSDKRefusesWhatCannotWork at once, where its developer sees it.
func TestTheSDKRefusesWhatCannotWork(t *testing.T) {
	s := newShop(t, "SDK_SEAMLESS", "")
	b := newTab(t)
	b.goTo(s.URL)
	for script, want := range map[string]string{
		`Oncepay.initialize("sandbox_secret_x")`: "public API key",
		`Oncepay.initialize("")`:                 "public API key",
		`Oncepay.initialize("sandbox_key").startCheckout({checkoutSession: "../x", elementSelector: "#pay"})`:                                  "id of a session",
		`Oncepay.initialize("sandbox_key").startCheckout({checkoutSession: "` + s.api.session.ID.String() + `", elementSelector: "#nowhere"})`: "no element",
	} {
		if got := eval[string](b, `(() => { try { `+script+`; return "fine" } catch (e) { return e.name + ": " + e.message } })()`); !strings.HasPrefix(got, "TypeError") || !strings.Contains(got, want) {
			t.Errorf("%s: %s", script, got)
		}
	}
}

// TestThePolicyOfThePage: nothing inline, nothing from elsewhere, framed by the registered only.
func TestThePolicyOfThePage(t *testing.T) {
	api := newFakeAPI(t, "SDK_SEAMLESS", "https://shop.example", "https://evil.example; script-src *", "https://b.example:8443")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, api.page(), nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := api.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	want := "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self' https://shop.example https://b.example:8443"
	if got := res.Header.Get("Content-Security-Policy"); got != want {
		t.Errorf("the policy is %q", got)
	}
	for name, value := range map[string]string{"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"} {
		if got := res.Header.Get(name); got != value {
			t.Errorf("%s: %q", name, got)
		}
	}
}
