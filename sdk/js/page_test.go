package js_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/chromedp"
)

// oneCharge is what every story here has to end with: one charge, and the page says so.
func oneCharge(t *testing.T, api *fakeAPI, b *tab) {
	t.Helper()
	b.reaches("success")
	if api.charges() != 1 {
		t.Errorf("%d charges", api.charges())
	}
}

func oneNonce(t *testing.T, api *fakeAPI) {
	t.Helper()
	if sent := api.sent(); len(sent) != 1 {
		t.Errorf("%d nonces were used: %q", len(sent), sent)
	}
}

// TestAShopperPays in each language, wide and narrow, by day and by night.
func TestAShopperPays(t *testing.T) {
	for _, language := range []string{"en", "es", "pt"} {
		for _, scheme := range []string{"light", "dark"} {
			for width, view := range map[int64]string{1280: "wide", 390: "narrow"} {
				name := language + "-" + scheme + "-" + view
				t.Run(name, func(t *testing.T) {
					api := newFakeAPI(t, "SDK_SEAMLESS")
					b := newTab(t)
					b.look(width, 844, scheme)
					b.goTo(api.page() + "?lang=" + language)
					b.reaches("form")
					b.shoot(name + "-form")
					b.fill(goodCard)
					b.submit()
					oneCharge(t, api, b)
					oneNonce(t, api)
					b.shoot(name + "-success")
					if got := eval[string](b, "document.documentElement.lang"); got != language {
						t.Errorf("the page says it is in %q", got)
					}
					if kept := eval[string](b, "JSON.stringify(localStorage)"); kept != "{}" {
						t.Errorf("what has ended is still kept: %s", kept)
					}
				})
			}
		}
	}
}

func TestTheBrowsersLanguageIsSpoken(t *testing.T) {
	api := newFakeAPI(t, "SDK_SEAMLESS")
	for accept, want := range map[string]string{
		"pt-BR,pt;q=0.9,en;q=0.8": "pt", "fr, es;q=0.5, en;q=0.4": "es", "de": "en", "": "en", "en;q=0, es": "es", "es;q=x, pt": "pt",
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, api.page(), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept-Language", accept)
		res, err := api.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if got := res.Header.Get("Content-Language"); got != want {
			t.Errorf("%q gets %q, want %q", accept, got, want)
		}
	}
}

// TestWrongFieldsAreSaidAndFocused and nothing is sent.
func TestWrongFieldsAreSaidAndFocused(t *testing.T) {
	api := newFakeAPI(t, "SDK_SEAMLESS")
	b := newTab(t)
	b.look(390, 900, "light")
	b.goTo(api.page() + "?lang=en")
	b.reaches("form")
	b.submit()
	if got := eval[string](b, "document.activeElement.id"); got != "card-number" {
		t.Errorf("the focus is on %q", got)
	}
	b.shoot("wrong-empty")
	for _, field := range []string{"number", "expiry", "code", "holder"} {
		said := eval[string](b, `(() => { const i = document.getElementById("card-`+field+`"); return i.getAttribute("aria-invalid") + ": " + document.getElementById(i.getAttribute("aria-describedby")).textContent })()`)
		if !strings.HasPrefix(said, "true: ") || len(said) < 12 {
			t.Errorf("%s: %q", field, said)
		}
	}
	b.fill("4507")
	b.submit()
	if got := eval[string](b, "document.activeElement.id"); got != "card-number" {
		t.Errorf("the focus is on %q", got)
	}
	if api.sends() != 0 || len(api.tokens) != 0 {
		t.Error("a wrong card was sent")
	}
	// The server finds what the page cannot.
	b.goTo(api.page() + "?lang=en")
	b.reaches("form")
	b.fill("4000000000000119")
	b.submit()
	eventually(t, "the number is marked", func() bool {
		return eval[bool](b, `document.querySelector("#card-number").getAttribute("aria-invalid") === "true" && document.activeElement.id === "card-number"`)
	})
	b.shoot("wrong-by-server")
	if api.sends() != 0 {
		t.Error("a refused card was paid with")
	}
}

// TestADeclinedCardLeadsToAnother: a second try is a second nonce, and one of them charges.
func TestADeclinedCardLeadsToAnother(t *testing.T) {
	api := newFakeAPI(t, "SDK_SEAMLESS")
	b := newTab(t)
	b.look(390, 844, "light")
	b.goTo(api.page() + "?lang=en")
	b.reaches("form")
	b.fill(poorCard)
	b.submit()
	b.reaches("declined")
	b.shoot("declined-light-narrow")
	if text := b.text(); !strings.Contains(text, "not enough money") || !strings.Contains(text, "not been charged") {
		t.Errorf("the page says %q", text)
	}
	b.run(chromedp.Click(css("button.primary")))
	b.reaches("form")
	if left := eval[string](b, `document.querySelector("#card-number").value`); left != "" {
		t.Error("the declined card is still there")
	}
	b.fill(goodCard)
	b.submit()
	oneCharge(t, api, b)
	if len(api.sent()) != 2 {
		t.Errorf("two attempts used %d nonces", len(api.sent()))
	}
}

// TestManyClicksAreOneAttempt: a double click, Enter, and twenty submits at once.
func TestManyClicksAreOneAttempt(t *testing.T) {
	api := newFakeAPI(t, "SDK_SEAMLESS")
	b := newTab(t)
	b.goTo(api.page())
	b.reaches("form")
	b.fill(goodCard)
	b.run(chromedp.DoubleClick(css("form button.primary")))
	eval[bool](b, `(() => { const f = document.querySelector("form"); for (let i = 0; f && i < 20; i++) f.requestSubmit(); return true })()`)
	oneCharge(t, api, b)
	oneNonce(t, api)
	if api.sends() != 1 || len(api.tokens) != 1 {
		t.Errorf("%d requests with %d tokens", api.sends(), len(api.tokens))
	}
}

// TestTwentySubmitsAtOnceAreOneAttempt has them all in one turn of the browser's loop.
func TestTwentySubmitsAtOnceAreOneAttempt(t *testing.T) {
	api := newFakeAPI(t, "SDK_SEAMLESS")
	b := newTab(t)
	b.goTo(api.page())
	b.reaches("form")
	b.fill(goodCard)
	eval[bool](b, `(() => { const f = document.querySelector("form"); for (let i = 0; i < 20; i++) { f.requestSubmit(); f.querySelector("button").click() } return true })()`)
	oneCharge(t, api, b)
	if api.sends() != 1 || len(api.tokens) != 1 {
		t.Errorf("%d requests with %d tokens", api.sends(), len(api.tokens))
	}
}

// TestALostAnswerIsAskedForAgain with the same nonce, whatever became of the request.
func TestALostAnswerIsAskedForAgain(t *testing.T) {
	answer := func(status int, body string) func(n int, w http.ResponseWriter, charge func()) bool {
		return func(n int, w http.ResponseWriter, _ func()) bool {
			if n > 2 {
				return true
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
			return false
		}
	}
	for name, meet := range map[string]func(n int, w http.ResponseWriter, charge func()) bool{
		"the connection breaks before the charge": func(n int, w http.ResponseWriter, _ func()) bool {
			if n > 2 {
				return true
			}
			hangUp(w)
			return false
		},
		"the connection breaks after the charge": func(n int, w http.ResponseWriter, charge func()) bool {
			charge()
			if n > 1 {
				return true
			}
			hangUp(w)
			return false
		},
		"half an answer": func(n int, w http.ResponseWriter, charge func()) bool {
			charge()
			if n > 1 {
				return true
			}
			w.WriteHeader(http.StatusCreated)
			_, _ = w.Write([]byte(`{"id":"01a2`))
			return false
		},
		"409":           answer(409, `{"code":"REQUEST_IN_PROCESS","messages":[]}`),
		"429":           answer(429, `{"code":"RATE_LIMITED","messages":[]}`),
		"500":           answer(500, `{"code":"INTERNAL_ERROR","messages":[]}`),
		"502":           answer(502, `<html>a proxy's own page</html>`),
		"503":           answer(503, `{"code":"SERVICE_UNAVAILABLE","messages":[]}`),
		"504":           answer(504, `{"code":"REQUEST_TIMEOUT","messages":[]}`),
		"a proxy's 404": answer(404, `<html>not here</html>`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := newFakeAPI(t, "SDK_SEAMLESS")
			api.meet = meet
			b := newTab(t)
			b.goTo(api.page() + "?lang=en")
			b.reaches("form")
			b.fill(goodCard)
			b.submit()
			b.reaches("checking", "success")
			oneCharge(t, api, b)
			oneNonce(t, api)
			if api.sends() < 2 || len(api.tokens) != 1 {
				t.Errorf("%d requests with %d tokens", api.sends(), len(api.tokens))
			}
		})
	}
}

// TestARefusalIsNotSentAgain: the form comes back, and the next try is a new nonce.
func TestARefusalIsNotSentAgain(t *testing.T) {
	for name, refusal := range map[string]struct {
		status int
		code   string
	}{
		"400": {400, "INVALID_REQUEST"}, "401": {401, "INVALID_TOKEN"}, "422": {422, "IDEMPOTENCY_KEY_REUSED"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := newFakeAPI(t, "SDK_SEAMLESS")
			api.meet = func(n int, w http.ResponseWriter, _ func()) bool {
				if n > 1 {
					return true
				}
				w.WriteHeader(refusal.status)
				_, _ = w.Write([]byte(`{"code":"` + refusal.code + `","messages":["no"]}`))
				return false
			}
			b := newTab(t)
			b.goTo(api.page() + "?lang=en")
			b.reaches("form")
			b.fill(goodCard)
			b.submit()
			eventually(t, "the form is back, with the reason", func() bool { return strings.Contains(b.text(), "could not be made") })
			if api.sends() != 1 {
				t.Errorf("it was sent %d times", api.sends())
			}
			b.submit()
			oneCharge(t, api, b)
			if len(api.sent()) != 2 {
				t.Errorf("%d nonces for two attempts", len(api.sent()))
			}
		})
	}
}

// TestWhatSaysNothingOfTheAttemptKeepsIt: after a revoked key nobody knows what became of
// the first try, so the page offers no second one, and the nonce stays.
func TestWhatSaysNothingOfTheAttemptKeepsIt(t *testing.T) {
	api := newFakeAPI(t, "SDK_SEAMLESS")
	api.meet = func(n int, w http.ResponseWriter, charge func()) bool {
		switch n {
		case 1:
			charge()
			hangUp(w)
		case 2:
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"code":"INVALID_CREDENTIALS","messages":[]}`))
		default:
			return true
		}
		return false
	}
	b := newTab(t)
	b.goTo(api.page())
	b.reaches("form")
	b.fill(goodCard)
	b.submit()
	b.reaches("error")
	if kept := eval[string](b, "JSON.stringify(localStorage)"); !strings.Contains(kept, api.sent()[0]) {
		t.Error("the nonce is forgotten")
	}
	b.run(chromedp.Reload())
	oneCharge(t, api, b)
	oneNonce(t, api)
}

// TestAReloadGoesOnWithTheSameAttempt while the first request is still on its way.
func TestAReloadGoesOnWithTheSameAttempt(t *testing.T) {
	api, release := stuck(t)
	b := newTab(t)
	b.goTo(api.page() + "?lang=en")
	b.reaches("form")
	b.fill(goodCard)
	b.submit()
	eventually(t, "the request has arrived", func() bool { return api.sends() == 1 })
	b.run(chromedp.Reload())
	b.reaches("checking")
	if strings.Contains(b.text(), "Card number") || !strings.Contains(b.text(), "do not pay again") {
		t.Errorf("while it is checking, the page says %q", b.text())
	}
	b.shoot("checking")
	eventually(t, "it is sent again", func() bool { return api.sends() > 1 })
	release()
	oneCharge(t, api, b)
	oneNonce(t, api)
	b.run(chromedp.Reload())
	oneCharge(t, api, b)
}

// stuck is an API whose first payment request charges only when it is released. Others
// are told that it is in process.
func stuck(t *testing.T) (api *fakeAPI, release func()) {
	t.Helper()
	api = newFakeAPI(t, "SDK_SEAMLESS")
	held, done := make(chan struct{}), make(chan struct{})
	api.meet = func(n int, w http.ResponseWriter, charge func()) bool {
		if n == 1 {
			<-held
			charge()
			close(done)
			return true
		}
		select {
		case <-done:
			return true
		default:
		}
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusConflict)
		_, _ = w.Write([]byte(`{"code":"REQUEST_IN_PROCESS","messages":[]}`))
		return false
	}
	released := false
	release = func() {
		if !released {
			released = true
			close(held)
		}
	}
	t.Cleanup(release)
	return api, release
}

// TestATabThatIsKilledIsOpenedAgain: what was stored before anything was sent is enough.
func TestATabThatIsKilledIsOpenedAgain(t *testing.T) {
	api, release := stuck(t)
	second := newTab(t)
	b := second.another()
	b.goTo(api.page())
	b.reaches("form")
	b.fill(goodCard)
	b.submit()
	eventually(t, "the request has arrived", func() bool { return api.sends() == 1 })
	b.close()
	second.goTo(api.page())
	second.reaches("checking")
	eventually(t, "it is sent again", func() bool { return api.sends() > 1 })
	release()
	oneCharge(t, api, second)
	oneNonce(t, api)
}

// TestASecondTabFollowsTheFirst: it leaves its form, and neither pays nor asks for a card.
func TestASecondTabFollowsTheFirst(t *testing.T) {
	api, release := stuck(t)
	b := newTab(t)
	second := b.another()
	b.goTo(api.page())
	second.goTo(api.page())
	b.reaches("form")
	second.reaches("form")
	second.fill(goodCard)
	b.fill(goodCard)
	b.submit()
	eventually(t, "the request has arrived", func() bool { return api.sends() == 1 })
	second.reaches("checking")
	release()
	oneCharge(t, api, b)
	oneCharge(t, api, second)
	oneNonce(t, api)
	if len(api.tokens) != 1 {
		t.Errorf("%d cards were handed in", len(api.tokens))
	}
}

// TestTwoTabsPayAtOnce: with and without locks, one charge.
func TestTwoTabsPayAtOnce(t *testing.T) {
	for name, script := range map[string]string{
		"with locks": ``, "without": `Object.defineProperty(navigator, "locks", {value: undefined})`,
	} {
		t.Run(name, func(t *testing.T) {
			api := newFakeAPI(t, "SDK_SEAMLESS")
			b := newTab(t)
			second := b.another()
			for _, each := range []*tab{b, second} {
				each.before(script)
				each.goTo(api.page())
				each.reaches("form")
				each.fill(goodCard)
			}
			go func() { eval[bool](second, `(document.querySelector("form")?.requestSubmit(), true)`) }()
			eval[bool](b, `(document.querySelector("form")?.requestSubmit(), true)`)
			oneCharge(t, api, b)
			oneCharge(t, api, second)
		})
	}
}

// TestTwoBrowsersPayAtOnce: they share nothing, so each has its nonce, and the server's
// word is shown on both.
func TestTwoBrowsersPayAtOnce(t *testing.T) {
	api := newFakeAPI(t, "SDK_SEAMLESS")
	b, other := newTab(t), newTab(t)
	for _, each := range []*tab{b, other} {
		each.goTo(api.page())
		each.reaches("form")
		each.fill(goodCard)
	}
	b.submit()
	other.submit()
	oneCharge(t, api, b)
	oneCharge(t, api, other)
}

// TestGoingOfflineMidRequest says so, and goes on when the network is back.
func TestGoingOfflineMidRequest(t *testing.T) {
	api, release := stuck(t)
	b := newTab(t)
	b.look(390, 844, "light")
	b.goTo(api.page() + "?lang=en")
	b.reaches("form")
	b.fill(goodCard)
	b.submit()
	eventually(t, "the request has arrived", func() bool { return api.sends() == 1 })
	setOffline(b, true)
	api.CloseClientConnections()
	b.reaches("checking")
	eventually(t, "the page says that it is offline", func() bool { return strings.Contains(b.text(), "offline") })
	b.shoot("offline")
	release()
	setOffline(b, false)
	oneCharge(t, api, b)
	oneNonce(t, api)
	if strings.Contains(b.text(), "offline") {
		t.Error("the page still says that it is offline")
	}
}

// networkConditions is a command that Chromium has and the library has dropped: what came
// after it is not the same in every version.
var networkConditions = cdp.Command[struct {
	Offline            bool    `json:"offline"`
	Latency            float64 `json:"latency"`
	DownloadThroughput float64 `json:"downloadThroughput"`
	UploadThroughput   float64 `json:"uploadThroughput"`
}, cdp.Empty]{Method: "Network.emulateNetworkConditions"}

func setOffline(b *tab, offline bool) {
	b.t.Helper()
	conditions := struct {
		Offline            bool    `json:"offline"`
		Latency            float64 `json:"latency"`
		DownloadThroughput float64 `json:"downloadThroughput"`
		UploadThroughput   float64 `json:"uploadThroughput"`
	}{offline, 0, -1, -1}
	if _, err := chromedp.Call(b.Context, networkConditions, conditions); err != nil {
		b.t.Fatal(err)
	}
}

// TestWithoutStorageItWorksAllTheSame: the nonce lives as long as the page.
func TestWithoutStorageItWorksAllTheSame(t *testing.T) {
	for name, script := range map[string]string{
		"refused": `for (const s of ["localStorage", "sessionStorage"]) Object.defineProperty(window, s, {get() { throw new DOMException("no", "SecurityError") }})`,
		"full":    `Storage.prototype.setItem = () => { throw new DOMException("full", "QuotaExceededError") }`,
		"refused, and locks with it": `Object.defineProperty(window, "localStorage", {get() { throw new DOMException("no", "SecurityError") }});
			navigator.locks.request = () => Promise.reject(new DOMException("no", "SecurityError"))`,
	} {
		t.Run(name, func(t *testing.T) {
			api := newFakeAPI(t, "SDK_SEAMLESS")
			api.meet = func(n int, w http.ResponseWriter, charge func()) bool {
				charge()
				if n > 1 {
					return true
				}
				hangUp(w)
				return false
			}
			b := newTab(t)
			b.before(script)
			b.goTo(api.page())
			b.reaches("form")
			b.fill(goodCard)
			b.submit()
			oneCharge(t, api, b)
			oneNonce(t, api)
			b.run(chromedp.Reload())
			oneCharge(t, api, b)
		})
	}
}

// TestTheNonceIsStoredBeforeAnythingIsSent and no card ever is.
func TestTheNonceIsStoredBeforeAnythingIsSent(t *testing.T) {
	api, release := stuck(t)
	defer release()
	b := newTab(t)
	b.before(`(() => {
		window.kept = []; const send = window.fetch;
		window.fetch = (...a) => { if (a[1]?.method === "POST") window.kept.push([a[0], JSON.stringify(localStorage) + JSON.stringify(sessionStorage)]); return send(...a) }
	})()`)
	b.goTo(api.page())
	b.reaches("form")
	b.fill(goodCard)
	b.submit()
	eventually(t, "the request has arrived", func() bool { return api.sends() == 1 })
	var kept [][2]string
	if err := json.Unmarshal([]byte(eval[string](b, "JSON.stringify(window.kept)")), &kept); err != nil {
		t.Fatal(err)
	}
	if len(kept) != 2 {
		t.Fatalf("%d requests were sent", len(kept))
	}
	for _, k := range kept {
		if !strings.Contains(k[1], api.sent()[0]) {
			t.Errorf("%s went out before the nonce was stored", k[0])
		}
		if strings.Contains(k[1], goodCard) || strings.Contains(k[1], "John") || strings.Contains(k[1], `123"`) {
			t.Errorf("the card is in the browser's storage")
		}
	}
	for token := range api.tokens {
		if !strings.Contains(kept[1][1], token) {
			t.Error("the payment went out before its token was stored")
		}
	}
}

// TestTheBankAsksThePayer, who comes back to the truth.
func TestTheBankAsksThePayer(t *testing.T) {
	api := newFakeAPI(t, "SDK_SEAMLESS")
	b := newTab(t)
	b.look(390, 844, "light")
	b.goTo(api.page() + "?lang=es")
	b.reaches("form")
	b.fill(challengeCard)
	b.submit()
	b.run(chromedp.WaitVisible(css("#yes")))
	// Instead of answering, the payer goes back.
	b.goTo(api.page())
	b.reaches("challenge")
	b.shoot("challenge")
	b.run(chromedp.Click(css("button.primary")))
	b.run(chromedp.WaitVisible(css("#yes")), chromedp.Click(css("#yes")))
	oneCharge(t, api, b)
	oneNonce(t, api)
	if got := eval[string](b, "document.documentElement.lang"); got != "es" {
		t.Errorf("back from the bank, the page is in %q", got)
	}
}

// TestAPendingPaymentIsWaitedFor and the form is not offered meanwhile.
func TestAPendingPaymentIsWaitedFor(t *testing.T) {
	for end, state := range map[string]string{"SUCCEEDED": "success", "DECLINED": "declined", "EXPIRED": "payExpired", "CANCELED": "canceled", "REFUNDED": "refunded"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			api := newFakeAPI(t, "SDK_SEAMLESS")
			b := newTab(t)
			b.look(390, 844, "dark")
			b.goTo(api.page() + "?lang=pt")
			b.reaches("form")
			b.fill(slowCard)
			b.submit()
			b.reaches("pending")
			b.shoot("pending")
			b.run(chromedp.Reload())
			b.reaches("pending")
			api.do(func() { p := api.payments[0]; p.status, p.sub, p.holds = end, end, end != "DECLINED" })
			b.reaches(state)
			b.shoot("end-" + state)
			oneNonce(t, api)
		})
	}
}

// TestASessionThatIsGoneTellsWhatBecameOfIt: nothing, or its payment.
func TestASessionThatIsGoneTellsWhatBecameOfIt(t *testing.T) {
	api := newFakeAPI(t, "SDK_SEAMLESS")
	b := newTab(t)
	b.look(1280, 844, "light")
	api.do(func() { api.gone, api.session.Expired = true, true })
	b.goTo(api.page() + "?lang=en")
	b.reaches("expired")
	b.shoot("expired-light-wide")
	api.do(func() { api.gone, api.session.Expired = false, false })
	b.goTo(api.page() + "?lang=en")
	b.reaches("form")
	b.fill(goodCard)
	api.do(func() { api.gone = true })
	b.submit()
	b.reaches("expired")
	api.do(func() { api.gone = false })
	b.goTo(api.page() + "?lang=en")
	b.reaches("form")
	b.fill(goodCard)
	b.submit()
	oneCharge(t, api, b)
	api.do(func() { api.gone, api.session.Expired = true, true })
	b.goTo(api.page() + "?lang=en")
	oneCharge(t, api, b)
	b.goTo(strings.Replace(api.page(), api.session.ID.String(), api.session.AccountID.String(), 1) + "?lang=en")
	if text := b.text(); !strings.Contains(text, "no payment here") {
		t.Errorf("an unknown session: %q", text)
	}
	b.shoot("missing-light-wide")
}

// TestAnOpenAttemptOfAnExpiredSessionEnds with the truth.
func TestAnOpenAttemptOfAnExpiredSessionEnds(t *testing.T) {
	api, release := stuck(t)
	b := newTab(t)
	b.goTo(api.page())
	b.reaches("form")
	b.fill(goodCard)
	b.submit()
	eventually(t, "the request has arrived", func() bool { return api.sends() == 1 })
	b.goTo("about:blank")
	release()
	eventually(t, "it is charged", func() bool { return api.charges() == 1 })
	api.do(func() { api.gone, api.session.Expired = true, true })
	b.goTo(api.page())
	oneCharge(t, api, b)
}

// TestHostedItSaysThatTheShopCompletesIt for a session whose payment the shop makes.
func TestHostedItSaysThatTheShopCompletesIt(t *testing.T) {
	api := newFakeAPI(t, "SDK_CHECKOUT")
	b := newTab(t)
	b.goTo(api.page() + "?lang=en")
	b.reaches("elsewhere")
}

// TestTheKeyboardIsEnough to pay.
func TestTheKeyboardIsEnough(t *testing.T) {
	api := newFakeAPI(t, "SDK_SEAMLESS")
	b := newTab(t)
	b.goTo(api.page())
	b.reaches("form")
	b.run(chromedp.KeyEvent("\t"), chromedp.KeyEvent(goodCard), chromedp.KeyEvent("\t"), chromedp.KeyEvent("1128"), chromedp.KeyEvent("\t"), chromedp.KeyEvent("123"), chromedp.KeyEvent("\t"), chromedp.KeyEvent("John Doe"), chromedp.KeyEvent("\r"))
	oneCharge(t, api, b)
	if got := eval[string](b, "document.activeElement.tagName"); got != "H2" {
		t.Errorf("the focus is on %q, not on the news", got)
	}
}
