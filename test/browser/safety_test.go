package browser

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/oncepay/oncepay/test/harness"
)

// site is a page of somebody's on an origin of its own, whose HTML can be set when it is
// known what it is to be about.
type site struct {
	*httptest.Server
	html atomic.Pointer[string]
}

func (s *site) shows(html string) { s.html.Store(&html) }

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{}
	s.shows("")
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, *s.html.Load())
	}))
	t.Cleanup(s.Close)
	return s
}

// integrity is the SDK's hash, as a merchant reads it.
func (s *stage) integrity() string {
	s.t.Helper()
	var document struct {
		Integrity string `json:"integrity"`
	}
	client := &http.Client{Timeout: stepLimit}
	res, err := client.Get(s.dev.Info.BaseURL + "/sdk/v1/integrity.json") // no API, so not in its document
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&document); err != nil || document.Integrity == "" {
		s.t.Fatalf("no integrity: %v", err)
	}
	return document.Integrity
}

// embeds is the page of a merchant that shows the checkout of a session.
func (s *stage) embeds(c session) string {
	return fmt.Sprintf(`<!doctype html><html lang="en"><title>Shop</title><div id="pay"></div>
<script src="%s/sdk/v1/oncepay.js" integrity="%s" crossorigin="anonymous"></script>
<script>
window.results = []; window.errors = [];
Oncepay.initialize(%q).startCheckout({checkoutSession: %q, elementSelector: "#pay", countryCode: "US", language: "en",
	onResult: r => results.push(r), onError: e => errors.push(e)});
</script>`, s.dev.Info.BaseURL, s.integrity(), s.dev.Info.PublicAPIKey, c.id)
}

// TestARegisteredPageEmbedsTheCheckout and is told the result.
func TestARegisteredPageEmbedsTheCheckout(t *testing.T) {
	t.Parallel()
	shop := newSite(t)
	s := newStage(t, shop.URL)
	c, b := s.session("Two cups"), newTab(t)
	shop.shows(s.embeds(c))
	b.goTo(shop.URL)
	f := b.frameAt("/pay/" + c.id)
	f.pay(goodCard)
	f.reaches("success")
	b.until("the result", `results.some(r => r.status === "SUCCEEDED")`)
	c.mustBePaidOnce()
	if got := eval[string](b, `JSON.stringify([results.at(-1).checkoutSession, errors])`); got != `["`+c.id+`",[]]` {
		t.Errorf("the page was told %s", got)
	}
}

// TestTheBankAsksInTheFrame, and sends the payer back into it.
func TestTheBankAsksInTheFrame(t *testing.T) {
	t.Parallel()
	shop := newSite(t)
	s := newStage(t, shop.URL)
	c, b := s.session("Two cups"), newTab(t)
	shop.shows(s.embeds(c))
	b.goTo(shop.URL)
	b.frameAt("/pay/" + c.id).pay(challengeCard)
	b.frameAt("/sandbox/v1/challenges/").answers("1234")
	b.until("the result", `results.some(r => r.status === "SUCCEEDED")`)
	b.frameAt("/pay/" + c.id).reaches("success")
	c.mustBePaidOnce()
}

// answers gives the bank's page in a frame the one-time code.
func (f frame) answers(code string) {
	f.tab.t.Helper()
	harness.Eventually(f.tab.t, stepLimit, "the bank asks", func() bool {
		asked, err := evalIn[bool](f, fmt.Sprintf(`(() => {
			const field = document.querySelector("#code");
			if (!field) return false;
			field.value = %q;
			document.querySelector("form").requestSubmit();
			return true;
		})()`, code))
		return err == nil && asked
	})
}

// TestAHostilePageMayNotFrameTheCheckout: neither as the SDK does, nor by itself.
func TestAHostilePageMayNotFrameTheCheckout(t *testing.T) {
	t.Parallel()
	shop, thief := newSite(t), newSite(t)
	s := newStage(t, shop.URL)
	c := s.session("Two cups")
	for name, html := range map[string]string{
		"with the SDK": s.embeds(c),
		"by itself":    `<!doctype html><title>Free cups</title><iframe src="` + c.page() + `&embed=1&origin=` + shop.URL + `"></iframe>`,
	} {
		t.Run(name, func(t *testing.T) {
			thief.shows(html)
			b := newTab(t)
			b.goTo(thief.URL)
			harness.Eventually(t, stepLimit, "the browser refuses the frame", func() bool {
				frames := call(b, page.GetFrameTree, cdp.Empty{}).FrameTree.ChildFrames
				return len(frames) == 1 && strings.HasPrefix(frames[0].Frame.URL, "chrome-error:")
			})
			harness.Eventually(t, stepLimit, "the browser says why", func() bool {
				return slices.ContainsFunc(b.forgive(), func(said string) bool { return strings.Contains(said, "frame-ancestors") })
			})
		})
	}
	c.mustNotBePaid()
}

// TestMessagesOfOthersAreIgnored: the merchant's page believes only the frame of the SDK, and
// that frame only its parent.
func TestMessagesOfOthersAreIgnored(t *testing.T) {
	t.Parallel()
	shop, thief := newSite(t), newSite(t)
	s := newStage(t, shop.URL)
	c, b := s.session("Two cups"), newTab(t)
	forged := `{oncepay: 1, type: "result", result: {checkoutSession: "` + c.id + `", paymentId: "x", status: "SUCCEEDED", subStatus: "APPROVED"}}`
	// The thief's frame is in the shop's page, as an advertisement is.
	thief.shows(`<!doctype html><title>Ad</title><script>
		addEventListener("message", e => { if (e.source !== window) document.title += JSON.stringify(e.data) });
		const tell = () => {
			parent.postMessage(` + forged + `, "*");
			for (let i = 0; i < parent.frames.length; i++) {
				parent.frames[i].postMessage({oncepay: 1, type: "init", publicKey: "sandbox_x", language: "pt", createsPayments: true}, "*");
				parent.frames[i].postMessage(` + forged + `, "*");
			}
		};
		tell(); setInterval(tell, 50);
	</script>`)
	shop.shows(s.embeds(c) + `<script>postMessage(` + forged + `, "*")</script><iframe id="ad" src="` + thief.URL + `"></iframe>
		<script>window.noise = 0; addEventListener("message", e => { if (e.source === document.getElementById("ad").contentWindow) noise++ })</script>`)
	b.goTo(shop.URL)
	f := b.frameAt("/pay/" + c.id)
	f.reaches("form")
	b.until("the thief has spoken", `noise > 3`)
	if got := eval[string](b, `JSON.stringify(results)`); got != "[]" {
		t.Errorf("the shop was told %s before anything was paid", got)
	}
	f.pay(goodCard)
	f.reaches("success")
	b.until("the result", `results.length > 0`)
	if got := eval[string](b, `JSON.stringify(results.map(r => r.paymentId === "x"))`); strings.Contains(got, "true") {
		t.Errorf("a forged result got through: %s", got)
	}
	if language, err := evalIn[string](f, `document.documentElement.lang`); err != nil || language != "en" {
		t.Errorf("the thief's message changed the language to %q: %v", language, err)
	}
	if heard, err := evalIn[string](b.frameAt(thief.URL), `document.title`); err != nil || heard != "Ad" {
		t.Errorf("somebody answered the thief: %s, %v", heard, err)
	}
	c.mustBePaidOnce()
}

// asks is a script that calls the API from a page of another origin, and returns the status,
// or -1 where the browser does not let it know.
func (s *stage) asks(method, path string, header map[string]string, body string) string {
	s.t.Helper()
	options := map[string]any{"method": method, "headers": header}
	if body != "" {
		options["body"] = body
	}
	text, err := json.Marshal(options)
	if err != nil {
		s.t.Fatal(err)
	}
	return fmt.Sprintf(`fetch(%q, %s).then(r => r.status, () => -1)`, s.dev.Info.BaseURL+path, text)
}

// TestAnUnregisteredOriginGetsNowhere: nothing can be read from there, and nothing is made.
func TestAnUnregisteredOriginGetsNowhere(t *testing.T) {
	t.Parallel()
	shop, thief := newSite(t), newSite(t)
	s := newStage(t, shop.URL)
	c := s.session("Two cups")
	key := map[string]string{"public-api-key": s.dev.Info.PublicAPIKey, "Content-Type": "application/json"}
	paying := map[string]string{"public-api-key": s.dev.Info.PublicAPIKey, "Content-Type": "application/json", "X-Idempotency-Key": "0a204f55-57f7-47d4-9275-7c7225c4172f"}
	card := `{"payment_method":{"type":"CARD","card":{"number":"` + goodCard + `","expiration_month":11,"expiration_year":28,"security_code":"123","holder_name":"John Doe"}}}`
	base := "/v1/checkout/sessions/" + c.id
	calls := map[string]struct {
		script     string
		registered int // what a registered page gets
	}{
		"read the session": {s.asks("GET", base, key, ""), http.StatusOK},
		"read the payment": {s.asks("GET", base+"/payment", key, ""), http.StatusBadRequest}, // there is none
		"hand a card in":   {s.asks("POST", base+"/token", key, card), http.StatusCreated},
		"pay":              {s.asks("POST", base+"/payment", paying, `{"payment_method":{"token":"01a204f5-57f7-77d4-9275-7c7225c4172f"}}`), http.StatusUnauthorized}, // no such token
		"without a key":    {s.asks("GET", base, nil, ""), -1},
		"with a form's request": {
			s.asks("POST", base+"/token", map[string]string{"Content-Type": "text/plain"}, card), -1,
		},
		"with a secret": {
			s.asks("GET", base, map[string]string{"public-api-key": s.dev.Info.PublicAPIKey, "private-secret-key": s.dev.Info.PrivateSecretKey}, ""), -1,
		},
		"make a session": {s.asks("POST", "/v1/checkout/sessions", key, `{}`), -1},
		"read payments":  {s.asks("GET", "/v1/payments?merchant_order_id="+c.order, key, ""), -1},
	}
	b := newTab(t)
	b.goTo(thief.URL)
	for name, does := range calls {
		if got := eval[int](b, does.script); got != -1 {
			t.Errorf("an unregistered page, %s: it reads the status %d", name, got)
		}
	}
	for _, table := range []string{"one_time_tokens", "payments"} {
		if n := s.number(`SELECT count(*) FROM ` + table); n != 0 {
			t.Errorf("an unregistered page made %d rows of %s", n, table)
		}
	}
	b.goTo(shop.URL)
	for name, does := range calls {
		if got := eval[int](b, does.script); got != does.registered {
			t.Errorf("a registered page, %s: %d, not %d", name, got, does.registered)
		}
	}
	c.mustNotBePaid()
}

// TestASecretKeyInABrowserIsRefused on our own page, too, where no preflight stops it.
func TestASecretKeyInABrowserIsRefused(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, b := s.session("Two cups"), newTab(t)
	b.goTo(c.page())
	secret := map[string]string{"public-api-key": s.dev.Info.PublicAPIKey, "private-secret-key": s.dev.Info.PrivateSecretKey, "Content-Type": "application/json"}
	for _, path := range []string{"/v1/checkout/sessions", "/v1/payments", "/v1/customers", "/v1/checkout/sessions/" + c.id + "/token"} {
		if got := eval[int](b, s.asks("POST", path, secret, `{}`)); got != http.StatusForbidden {
			t.Errorf("POST %s with a secret from a page is answered %d", path, got)
		}
	}
}

// TestAnAmountThatIsChangedInTheBrowserHasNoEffect: whatever its requests say of amount,
// currency, order or account, and whatever amount the page was made to show.
func TestAnAmountThatIsChangedInTheBrowserHasNoEffect(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, b := s.session("Two cups"), newTab(t)
	changed := b.changesRequests()
	b.goTo(c.page())
	b.reaches("form")
	b.until("the page shows another amount", `document.querySelector("form button").textContent.includes("0.01")`)
	b.pay(goodCard)
	b.reaches("success")
	c.mustBePaidOnce()
	if n := changed(); n < 2 {
		t.Errorf("only %d requests were changed", n)
	}
	var p struct {
		Amount struct {
			Value    json.Number `json:"value"`
			Currency string      `json:"currency"`
		} `json:"amount"`
		Order string `json:"merchant_order_id"`
	}
	a := s.api.Get(t.Context(), "/v1/checkout/sessions/"+c.id+"/payment")
	mustBe(t, a, http.StatusOK)
	if err := json.Unmarshal(a.Body, &p); err != nil || p.Amount.Value != amount || p.Amount.Currency != currency || p.Order != c.order {
		t.Errorf("the payment is %+v (%v)", p, err)
	}
}

// changesRequests puts another amount, currency, order and account into all that the tab
// sends to the API, and another amount into what it is told of the session. It returns how
// many requests were changed.
func (b *tab) changesRequests() (changed func() int) {
	b.t.Helper()
	wishes := map[string]any{
		"amount": map[string]any{"currency": "BRL", "value": 0.01}, "currency": "BRL", "value": 0.01, "merchant_order_id": "another-order",
		"account_id": "01a204f5-57f7-77d4-9275-7c7225c4172f", "country": "BR", "description": "sandbox:500", "workflow": "DIRECT",
		"checkout": map[string]any{"session": "01a204f5-57f7-77d4-9275-7c7225c4172f"},
	}
	sent := make(chan struct{}, 100)
	err := chromedp.Listen(b.ctx, func(ev any) {
		paused, is := ev.(*fetch.EventRequestPaused)
		if !is {
			return
		}
		go func() { // the browser waits for the answer to its event while we are in here
			if err := b.change(paused, wishes); err != nil && b.ctx.Err() == nil {
				b.t.Errorf("a request could not be changed: %v", err)
			}
			if paused.Request.Method == http.MethodPost {
				sent <- struct{}{}
			}
		}()
	})
	if err != nil {
		b.t.Fatal(err)
	}
	call(b, fetch.Enable, fetch.EnableParams{Patterns: []*fetch.RequestPattern{
		{URLPattern: "*/v1/checkout/sessions/*", RequestStage: fetch.RequestStageRequest},
		{URLPattern: "*/v1/checkout/sessions/*", RequestStage: fetch.RequestStageResponse},
	}})
	return func() int { return len(sent) }
}

// change changes one request, or the answer to one that asks for the session.
func (b *tab) change(paused *fetch.EventRequestPaused, wishes map[string]any) error {
	answered := paused.ResponseStatusCode != 0
	isSession := answered && paused.Request.Method == http.MethodGet && !strings.Contains(paused.Request.URL, "/payment")
	switch {
	case isSession:
		told, err := chromedp.Call(b.ctx, fetch.GetResponseBody, fetch.GetResponseBodyParams{RequestID: paused.RequestID})
		if err != nil {
			return err
		}
		body, err := with(told.Body, map[string]any{"amount": map[string]any{"currency": "USD", "value": 0.01}})
		if err != nil {
			return err
		}
		_, err = chromedp.Call(b.ctx, fetch.FulfillRequest, fetch.FulfillRequestParams{
			RequestID: paused.RequestID, ResponseCode: paused.ResponseStatusCode, Body: body,
			ResponseHeaders: []*fetch.HeaderEntry{{Name: "Content-Type", Value: "application/json"}},
		})
		return err
	case !answered && paused.Request.Method == http.MethodPost:
		var original []byte
		for _, part := range paused.Request.PostDataEntries {
			original = append(original, part.Bytes...)
		}
		body, err := with(original, wishes)
		if err != nil {
			return err
		}
		_, err = chromedp.Call(b.ctx, fetch.ContinueRequest, fetch.ContinueRequestParams{RequestID: paused.RequestID, PostData: body})
		return err
	}
	_, err := chromedp.Call(b.ctx, fetch.ContinueRequest, fetch.ContinueRequestParams{RequestID: paused.RequestID})
	return err
}

// with is a JSON object with more members, at its top and in its payment_method.
func with(object []byte, more map[string]any) ([]byte, error) {
	var all map[string]any
	d := json.NewDecoder(bytes.NewReader(object))
	d.UseNumber()
	if err := d.Decode(&all); err != nil {
		return nil, err
	}
	for name, value := range more {
		all[name] = value
		if method, is := all["payment_method"].(map[string]any); is {
			method[name] = value
		}
	}
	return json.Marshal(all)
}

// TestACallbackThatIsNoWebAddressIsRefused: a page of ours never leads to a script.
func TestACallbackThatIsNoWebAddressIsRefused(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	for _, address := range []string{"javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "//shop.example", "intent:x", "https:shop"} {
		a := s.api.Post(t.Context(), "/v1/checkout/sessions", http.Header{"X-Idempotency-Key": {harness.Unguessable("nonce")}}, map[string]any{
			"account_id": s.dev.Info.AccountID, "merchant_order_id": "order-7", "payment_description": "Two cups", "country": "US",
			"amount": map[string]any{"currency": currency, "value": json.Number(amount)}, "callback_url": address,
		})
		if a.Status != http.StatusBadRequest {
			t.Errorf("callback_url %q: %s", address, a)
		}
	}
}

// TestTheWatchSeesABrokenPolicy: each tab of these tests fails for what breaks a page's
// policy, so it must notice.
func TestTheWatchSeesABrokenPolicy(t *testing.T) {
	t.Parallel()
	loose := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'")
		_, _ = io.WriteString(w, `<p style="color:red">x</p><script>window.ran = true</script>`)
	}))
	defer loose.Close()
	chromium(t)
	b := newTab(t)
	b.goTo(loose.URL)
	var said []string
	for _, directive := range []string{"style-src", "script-src"} {
		harness.Eventually(t, stepLimit, "the watch sees "+directive, func() bool {
			said = append(said, b.forgive()...)
			return slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, directive) })
		})
	}
	b.forgive()
}
