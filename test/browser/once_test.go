package browser

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"

	"github.com/oncepay/oncepay/test/harness"
)

// underWay starts a payment that the provider has booked, and not answered: the money has
// moved, and nobody here knows. answer has it answered, if whoever asked is still there.
func underWay(t *testing.T, s *stage) (c session, b *tab, answer func()) {
	t.Helper()
	c, b = s.session("Two cups"), newTab(t)
	booked, answer := s.door.HoldAnswer(c.order)
	b.goTo(c.page())
	b.pay(goodCard)
	await(t, "the provider has booked", booked)
	return c, b, answer
}

func await(t *testing.T, what string, happened <-chan struct{}) {
	t.Helper()
	limit := time.NewTimer(harness.Patience)
	defer limit.Stop()
	select {
	case <-happened:
	case <-limit.C:
		t.Fatalf("not within %s: %s", harness.Patience, what)
	}
}

// paidByOneNonce checks that all tries of a story were one payment.
func (c session) paidByOneNonce() {
	c.stage.t.Helper()
	if n := c.attempts(); n != 1 {
		c.stage.t.Errorf("one attempt of the shopper made %d payments", n)
	}
}

func TestADoubleClickPaysOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, b := s.session("Two cups"), newTab(t)
	b.goTo(c.page())
	b.reaches("form")
	b.fill(goodCard)
	b.do(chromedp.DoubleClick(css(payButton)))
	c.endsPaid(b)
	c.paidByOneNonce()
}

func TestTwentyClicksPayOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, b := s.session("Two cups"), newTab(t)
	b.goTo(c.page())
	b.reaches("form")
	b.fill(goodCard)
	eval[bool](b, fmt.Sprintf(`(() => { const button = document.querySelector(%q); for (let i = 0; i < 20; i++) button.click(); return true })()`, payButton))
	c.endsPaid(b)
	c.paidByOneNonce()
}

// theAttempt is what the page has stored of its attempt.
const theAttempt = `JSON.parse(localStorage.getItem("oncepay.attempt." + document.getElementById("oncepay").dataset.session))`

// post sends a request as any script in the page could.
const post = `(path, body, nonce) => fetch("/v1/checkout/sessions/" + document.getElementById("oncepay").dataset.session + path, {method: "POST",
	headers: {"public-api-key": document.getElementById("oncepay").dataset.publicKey, "Content-Type": "application/json", ...(nonce ? {"X-Idempotency-Key": nonce} : {})},
	body: JSON.stringify(body)})`

// aCard is the body of a request that hands a card in.
const aCard = `{payment_method: {type: "CARD", vault_on_success: false,
	card: {number: "` + goodCard + `", expiration_month: 11, expiration_year: 28, security_code: "123", holder_name: "John Doe"}}}`

// only checks that all answers are of these kinds.
func only(t *testing.T, what string, statuses []int, kinds ...int) {
	t.Helper()
	for _, got := range statuses {
		if !slices.Contains(kinds, got) {
			t.Errorf("%s, the answers are %v, not only %v", what, statuses, kinds)
			return
		}
	}
}

// TestTwentyRequestsWithThePagesNonceAreOnePayment, while it is under way and after it: the
// same nonce and token are the same payment. Twenty orders a minute are what a session may
// send, so some hear 429.
func TestTwentyRequestsWithThePagesNonceAreOnePayment(t *testing.T) {
	t.Parallel()
	s := newHeldStage(t)
	c, b, answer := underWay(t, s)
	twenty := `(async () => {
		const post = ` + post + `;
		window.attempt ??= ` + theAttempt + `;
		return Promise.all(Array.from({length: 20}, () => post("/payment", {payment_method: {token: attempt.token}}, attempt.nonce).then(r => r.status)));
	})()`
	during := eval[[]int](b, twenty)
	only(t, "while the payment is under way", during, http.StatusConflict, http.StatusTooManyRequests)
	if !slices.Contains(during, http.StatusConflict) {
		t.Errorf("no request got as far as the nonce: %v", during)
	}
	answer()
	c.endsPaid(b)
	only(t, "after the payment", eval[[]int](b, twenty), http.StatusCreated, http.StatusTooManyRequests)
	b.do(chromedp.Reload())
	c.endsPaid(b)
	c.paidByOneNonce()
}

// TestTwentyNoncesForOneSessionAreOnePayment: a page, or what somebody puts in its place,
// may make as many as it likes.
func TestTwentyNoncesForOneSessionAreOnePayment(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"with one token": `(async () => {
			const post = ` + post + `;
			const {token} = await (await post("/token", ` + aCard + `)).json();
			return Promise.all(Array.from({length: 20}, () => post("/payment", {payment_method: {token}}, crypto.randomUUID()).then(r => r.status)));
		})()`,
		"with a token each": `(async () => { // ten of each are the twenty requests that a session has
			const post = ` + post + `;
			const cards = await Promise.all(Array.from({length: 10}, () => post("/token", ` + aCard + `).then(r => r.json())));
			return Promise.all(cards.map(({token}) => post("/payment", {payment_method: {token}}, crypto.randomUUID()).then(r => r.status)));
		})()`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			c, b := s.session("Two cups"), newTab(t)
			b.goTo(c.page())
			b.reaches("form")
			got := eval[[]int](b, script)
			only(t, "with a nonce each", got, http.StatusCreated, http.StatusBadRequest, http.StatusUnauthorized, http.StatusConflict, http.StatusTooManyRequests)
			slices.Sort(got)
			if got[0] != http.StatusCreated || got[1] == http.StatusCreated {
				t.Errorf("not one payment was made: %v", got)
			}
			b.do(chromedp.Reload())
			c.endsPaid(b)
			c.paidByOneNonce()
		})
	}
}

// TestTheFormOfAPaidSessionPaysNothing: one tab still shows the form when another browser
// has paid.
func TestTheFormOfAPaidSessionPaysNothing(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, b, other := s.session("Two cups"), newTab(t), newTab(t)
	b.goTo(c.page())
	b.reaches("form")
	b.fill(goodCard)
	other.goTo(c.page())
	other.pay(goodCard)
	c.endsPaid(other)
	b.do(chromedp.Click(css(payButton)))
	c.endsPaid(b, other)
	c.paidByOneNonce()
}

func TestAReloadMidPaymentPaysOnce(t *testing.T) {
	t.Parallel()
	s := newHeldStage(t)
	c, b, answer := underWay(t, s)
	b.do(chromedp.Reload())
	b.reaches("checking")
	b.must("not pay again")
	answer()
	c.endsPaid(b)
	c.paidByOneNonce()
}

// crash kills what draws a tab, as the kernel would where memory is short.
var crash = cdp.Command[cdp.Empty, cdp.Empty]{Method: "Page.crash"}

func TestATabThatIsKilledMidPaymentIsOpenedAgain(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(b *tab){
		"crashed": func(b *tab) { go func() { _, _ = chromedp.Call(b.ctx, crash, cdp.Empty{}) }() }, // it never answers
		"closed": func(b *tab) {
			_, err := chromedp.CallBrowser(b.ctx, target.CloseTarget, target.CloseTargetParams{TargetID: chromedp.FromContext(b.ctx).Target.TargetID})
			if err != nil {
				b.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newHeldStage(t)
			c, b, answer := underWay(t, s)
			end(b)
			again := b.another()
			again.goTo(c.page())
			again.reaches("checking")
			answer()
			c.endsPaid(again)
			c.paidByOneNonce()
		})
	}
}

// TestATabThatIsOpenedAgainLaterTellsTheTruth: nobody was there when the answer came.
func TestATabThatIsOpenedAgainLaterTellsTheTruth(t *testing.T) {
	t.Parallel()
	s := newHeldStage(t)
	c, b, answer := underWay(t, s)
	b.goTo("about:blank")
	answer()
	harness.Eventually(t, harness.Patience, "the payment has ended", func() bool { return c.standing() == "SUCCEEDED" })
	b.goTo(c.page())
	c.endsPaid(b)
	c.paidByOneNonce()
}

func TestASecondTabFollowsTheFirst(t *testing.T) {
	t.Parallel()
	s := newHeldStage(t)
	c, b := s.session("Two cups"), newTab(t)
	booked, answer := s.door.HoldAnswer(c.order)
	second := b.another()
	b.goTo(c.page())
	second.goTo(c.page())
	second.reaches("form")
	second.fill(goodCard)
	b.pay(goodCard)
	await(t, "the provider has booked", booked)
	second.reaches("checking")
	third := b.another()
	third.goTo(c.page())
	third.reaches("checking")
	answer()
	c.endsPaid(b, second, third)
	c.paidByOneNonce()
}

// TestTwoTabsPayAtTheSameTime in one browser, which share what is stored, and in two, which
// share nothing.
func TestTwoTabsPayAtTheSameTime(t *testing.T) {
	t.Parallel()
	for name, other := range map[string]func(b *tab) *tab{
		"of one browser":  (*tab).another,
		"of two browsers": func(b *tab) *tab { return newTab(b.t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			c, b := s.session("Two cups"), newTab(t)
			second := other(b)
			for _, each := range []*tab{b, second} {
				each.goTo(c.page())
				each.reaches("form")
				each.fill(goodCard)
			}
			// Both press their button at one moment, by the clock that they share.
			at := time.Now().Add(300 * time.Millisecond).UnixMilli()
			for _, each := range []*tab{b, second} {
				eval[bool](each, fmt.Sprintf(`(setTimeout(() => document.querySelector(%q)?.click(), %d - Date.now()), true)`, payButton, at))
			}
			c.endsPaid(b, second)
			c.paidByOneNonce()
		})
	}
}

// networkConditions is the command for them that all releases of Chromium know; throughput
// is in bytes a second, and -1 is any.
var networkConditions = cdp.Command[conditions, cdp.Empty]{Method: "Network.emulateNetworkConditions"}

type conditions struct {
	Offline            bool    `json:"offline"`
	Latency            float64 `json:"latency"`
	DownloadThroughput float64 `json:"downloadThroughput"`
	UploadThroughput   float64 `json:"uploadThroughput"`
}

// goesOffline takes the network away from a tab, and from what it is doing, or gives it back.
func (b *tab) goesOffline(is bool) {
	b.t.Helper()
	call(b, network.Enable, network.EnableParams{})
	call(b, networkConditions, conditions{Offline: is, DownloadThroughput: -1, UploadThroughput: -1})
}

// TestGoingOfflineMidRequestPaysOnce: the answer is lost on its way. While there is no
// network the page knows nothing, and says so.
func TestGoingOfflineMidRequestPaysOnce(t *testing.T) {
	t.Parallel()
	s := newHeldStage(t)
	c, b, wire := s.session("Two cups"), newTab(t), newLine(t, s.dev.Info.BaseURL)
	booked, answer := s.door.HoldAnswer(c.order)
	b.goTo(c.over(wire))
	b.pay(goodCard)
	await(t, "the provider has booked", booked)
	b.goesOffline(true)
	wire.cut()
	b.reaches("checking")
	b.until("the page says that it is offline", `document.body.innerText.includes("offline")`)
	b.must("not pay again")
	answer()
	harness.Eventually(t, harness.Patience, "the payment has ended", func() bool { return c.standing() == "SUCCEEDED" })
	b.reaches("checking")
	wire.mend()
	b.goesOffline(false)
	c.endsPaid(b)
	c.paidByOneNonce()
	if strings.Contains(b.text(), "offline") {
		t.Error("the page still says that it is offline")
	}
}

// TestALostAnswerIsAskedForAgain: the browser believes that it is online, and its connection
// breaks all the same, as behind a proxy that restarts.
func TestALostAnswerIsAskedForAgain(t *testing.T) {
	t.Parallel()
	s := newHeldStage(t)
	c, b, wire := s.session("Two cups"), newTab(t), newLine(t, s.dev.Info.BaseURL)
	booked, answer := s.door.HoldAnswer(c.order)
	b.goTo(c.over(wire))
	b.pay(goodCard)
	await(t, "the provider has booked", booked)
	wire.cut()
	b.reaches("checking")
	wire.mend()
	answer()
	c.endsPaid(b)
	c.paidByOneNonce()
}

// TestTheNetworkIsGoneBeforeAnythingIsSent: nothing is paid, the page says so, and later it
// is paid once.
func TestTheNetworkIsGoneBeforeAnythingIsSent(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, b := s.session("Two cups"), newTab(t)
	b.goTo(c.page())
	b.reaches("form")
	b.fill(goodCard)
	b.goesOffline(true)
	b.do(chromedp.Click(css(payButton)))
	b.until("the page says that it is offline", `document.body.innerText.includes("offline")`)
	c.mustNotBePaid()
	b.goesOffline(false)
	c.endsPaid(b)
	c.paidByOneNonce()
}

// soon lets another process take over within seconds.
var soon = []string{"--provider-timeout", "4s", "--lease", "7s", "--settle", "1s", "--recovery-interval", "200ms"}

// TestTheAPIIsKilledMidRequest and started again: who takes over finds that it was paid.
func TestTheAPIIsKilledMidRequest(t *testing.T) {
	t.Parallel()
	s := newHeldStage(t, soon...)
	c, b, answer := underWay(t, s)
	s.killed()
	answer() // to nobody
	b.reaches("checking")
	b.must("not pay again")
	s.restarted()
	c.endsPaid(b)
	c.paidByOneNonce()
}

// TestTheAPIIsKilledAndTheTabWithIt: what is left is the nonce in the browser's storage, and
// the begun payment in the database.
func TestTheAPIIsKilledAndTheTabWithIt(t *testing.T) {
	t.Parallel()
	s := newHeldStage(t, soon...)
	c, b, answer := underWay(t, s)
	s.killed()
	answer() // to nobody
	b.goTo("about:blank")
	s.restarted()
	b.goTo(c.page())
	c.endsPaid(b)
	c.paidByOneNonce()
}

// TestTheBackButtonShowsTheTruth mid-payment, from the bank's page, and after the payment.
func TestTheBackButtonShowsTheTruth(t *testing.T) {
	t.Parallel()
	t.Run("mid-payment", func(t *testing.T) {
		t.Parallel()
		s := newHeldStage(t)
		c, b, answer := underWay(t, s)
		b.goTo(s.dev.Info.BaseURL + "/docs/errors")
		b.back()
		b.reaches("checking")
		answer()
		c.endsPaid(b)
		c.paidByOneNonce()
	})
	t.Run("from the bank", func(t *testing.T) {
		t.Parallel()
		s := newStage(t)
		c, b := s.session("Two cups"), newTab(t)
		b.goTo(c.page())
		b.pay(challengeCard)
		b.do(chromedp.WaitVisible(css("#code")))
		b.back()
		b.reaches("challenge")
		c.mustNotBePaid()
		b.do(chromedp.Click(css("button.primary")), chromedp.WaitVisible(css("#code")), chromedp.SendKeys(css("#code"), "1234"), chromedp.Click(css("button[type=submit]")))
		c.endsPaid(b)
		c.paidByOneNonce()
	})
	t.Run("after the payment", func(t *testing.T) {
		t.Parallel()
		s := newStage(t)
		c, b := s.session("Two cups"), newTab(t)
		b.goTo(c.page())
		b.pay(goodCard)
		c.endsPaid(b)
		b.goTo(s.dev.Info.BaseURL + "/docs/errors")
		b.back()
		c.endsPaid(b)
		c.paidByOneNonce()
	})
}

// back presses the browser's button. The page may come out of the browser's memory, and then
// nothing is loaded that could be waited for.
func (b *tab) back() {
	b.t.Helper()
	history := call(b, page.GetNavigationHistory, cdp.Empty{})
	call(b, page.NavigateToHistoryEntry, page.NavigateToHistoryEntryParams{EntryID: history.Entries[history.CurrentIndex-1].ID})
	b.until("the page is back", `location.pathname.startsWith("/pay/")`)
}

// TestNoCardStaysInTheBrowser: what is stored while a payment is under way is a nonce and a
// one-time token.
func TestNoCardStaysInTheBrowser(t *testing.T) {
	t.Parallel()
	s := newHeldStage(t)
	c, b, answer := underWay(t, s)
	everything := `JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, document.documentElement.outerHTML])`
	kept := eval[string](b, everything)
	if !strings.Contains(kept, "oncepay.attempt."+c.id) {
		t.Errorf("the attempt is not stored: %s", kept)
	}
	for _, secret := range []string{goodCard, "John Doe", goodCard[:6] + "000000"} {
		if strings.Contains(kept, secret) {
			t.Error("the card is stored in the browser")
		}
	}
	answer()
	c.endsPaid(b)
	if kept := eval[string](b, everything); strings.Contains(kept, goodCard) || strings.Contains(kept, "oncepay.attempt."+c.id) {
		t.Error("something of the attempt is left after it")
	}
}
