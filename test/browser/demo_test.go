package browser

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/oncepay/oncepay/test/harness"
)

// purchase is one order in the demo shop, as its page shows it.
type purchase struct {
	stage *stage
	tab   *tab
	order string
}

// buys goes through the shop's first page: two cups, with some trouble.
func buys(t *testing.T, s *stage, language, trouble, payer string) purchase {
	t.Helper()
	b := newTab(t)
	b.goTo(s.dev.Info.BaseURL + "/demo?lang=" + language)
	b.do(
		chromedp.Click(css("input[name=trouble][value="+trouble+"]")),
		chromedp.Click(css("input[name=payer][value="+payer+"]")),
		chromedp.Click(css("form button[type=submit]")),
	)
	b.until("the checkout", `location.pathname.startsWith("/demo/orders/") && document.querySelector("dl dd")`)
	return purchase{s, b, eval[string](b, `document.querySelector("dl dd").textContent`)}
}

// booked is what the ledger has of the order: "amount currency" of each charge.
func (p purchase) booked() []string {
	p.tab.t.Helper()
	entries, err := p.stage.dev.Info.Ledger().Of(p.tab.t.Context(), p.order)
	if err != nil {
		p.tab.t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Amount+" "+e.Currency)
	}
	return list
}

// endsPaid checks that the shop's backend says so, and the ledger.
func (p purchase) endsPaid(amount string) {
	p.tab.t.Helper()
	p.tab.until("the shop says that it is paid", `document.querySelector("[data-outcome=paid]")`)
	if got := p.booked(); len(got) != 1 || got[0] != amount {
		p.tab.t.Errorf("the ledger has %q for the order, not one charge of %s", got, amount)
	}
}

// TestTheDemoShopSells in each language, whoever sends the payment.
func TestTheDemoShopSells(t *testing.T) {
	t.Parallel()
	for language, amount := range map[string]string{"en": "37 USD", "es": "640 MXN", "pt": "190 BRL"} {
		for _, payer := range []string{"browser", "backend"} {
			t.Run(language+", "+payer, func(t *testing.T) {
				t.Parallel()
				p := buys(t, newStage(t), language, "none", payer)
				p.tab.frameAt("/pay/").pay(goodCard)
				p.endsPaid(amount)
				if got := eval[string](p.tab, "document.documentElement.lang"); got != language {
					t.Errorf("the shop is in %q now", got)
				}
			})
		}
	}
}

// TestTheDemoShopRehearsesTrouble: whatever the bank does, one charge, and the shop's backend
// knows.
func TestTheDemoShopRehearsesTrouble(t *testing.T) {
	t.Parallel()
	for name, rehearse := range map[string]func(p purchase){
		"slow": func(p purchase) {
			p.tab.frameAt("/pay/").pay(goodCard)
			harness.Eventually(p.tab.t, harness.Patience, "the provider has booked", func() bool { return len(p.booked()) > 0 })
			call(p.tab, page.Reload, page.ReloadParams{}) // it may be on its way to the shop's thanks already
		},
		"pending": func(p purchase) { p.tab.frameAt("/pay/").pay(plainCard) },
		"challenge": func(p purchase) {
			p.tab.frameAt("/pay/").pay(plainCard)
			bank := p.tab.frameAt("/sandbox/v1/challenges/")
			harness.Eventually(p.tab.t, harness.Patience, "the bank asks", func() bool {
				there, err := evalIn[bool](bank, `!!document.querySelector("#code")`)
				return err == nil && there
			})
			if _, err := evalIn[bool](bank, `(document.querySelector("#code").value = "1234", document.querySelector("form").requestSubmit(), true)`); err != nil {
				p.tab.t.Fatal(err)
			}
		},
	} {
		for _, payer := range []string{"browser", "backend"} {
			t.Run(name+", "+payer, func(t *testing.T) {
				t.Parallel()
				p := buys(t, newStage(t), "en", name, payer)
				rehearse(p)
				p.endsPaid("37 USD")
			})
		}
	}
}

// TestADeclineInTheDemoShopIsNoSale, and the shop says so when it is asked.
func TestADeclineInTheDemoShopIsNoSale(t *testing.T) {
	t.Parallel()
	p := buys(t, newStage(t), "en", "none", "browser")
	f := p.tab.frameAt("/pay/")
	f.pay(poorCard)
	f.reaches("declined")
	here := eval[string](p.tab, `location.href`)
	p.tab.goTo(strings.Replace(here, "?", "/thanks?", 1))
	p.tab.until("the shop says that it was declined", `document.querySelector("[data-outcome=failed]")`)
	if got := p.booked(); len(got) != 0 {
		t.Errorf("the ledger has %q", got)
	}
	p.tab.do(chromedp.Click(css("a.button")))
	p.tab.until("the checkout", `document.querySelector("#payment")`)
	again := p.tab.frameAt("/pay/")
	again.pay(goodCard)
	p.endsPaid("37 USD")
}

// TestTheDemoShopsPriceIsItsOwn: the browser says how many, and nothing else that counts.
func TestTheDemoShopsPriceIsItsOwn(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	b := newTab(t)
	b.goTo(s.dev.Info.BaseURL + "/demo?lang=en")
	eval[bool](b, `(() => {
		for (const [name, value] of Object.entries({amount: "0.01", price: "0.01", currency: "BRL", total: "0.01", value: "0.01"})) {
			const field = document.createElement("input");
			Object.assign(field, {type: "hidden", name, value});
			document.querySelector("form").append(field);
		}
		return true;
	})()`)
	b.do(chromedp.Click(css("form button[type=submit]")))
	b.until("the checkout", `location.pathname.startsWith("/demo/orders/") && document.querySelector("dl dd")`)
	p := purchase{s, b, eval[string](b, `document.querySelector("dl dd").textContent`)}
	b.frameAt("/pay/").pay(goodCard)
	p.endsPaid("37 USD")
	for _, quantity := range []string{"0", "-1", "10", "1.5", "", "1e3"} {
		if status := eval[int](b, `fetch("/demo/orders", {method: "POST", redirect: "manual", body: new URLSearchParams({cart: crypto.randomUUID(), lang: "en", trouble: "none", payer: "browser", quantity: "`+quantity+`"})}).then(r => r.status)`); status != http.StatusBadRequest {
			t.Errorf("%q of them are answered %d", quantity, status)
		}
	}
}

// TestTheDemoShopTakesAFormOnce: sent twice, it is one order.
func TestTheDemoShopTakesAFormOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	b := newTab(t)
	b.goTo(s.dev.Info.BaseURL + "/demo?lang=en")
	places := eval[[]string](b, `Promise.all(Array.from({length: 5}, () => fetch("/demo/orders", {method: "POST", body: new URLSearchParams(new FormData(document.querySelector("form")))}).then(r => r.url)))`)
	for _, place := range places {
		if place != places[0] || !strings.Contains(place, "/demo/orders/") {
			t.Fatalf("one form led to %q", places)
		}
	}
	if n := s.number(`SELECT count(*) FROM checkout_sessions`); n != 1 {
		t.Errorf("one form made %d sessions", n)
	}
}

// TestAnotherPagesFormIsNoOrderInTheDemoShop.
func TestAnotherPagesFormIsNoOrderInTheDemoShop(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte(`<form method=post action="` + s.dev.Info.BaseURL + `/demo/orders"><input name=cart value="01a204f5-57f7-77d4-9275-7c7225c4172f">
			<input name=quantity value=9><input name=lang value=en><input name=trouble value=none><input name=payer value=browser><button>Go</button></form>`))
	}))
	defer other.Close()
	b := newTab(t)
	b.goTo(strings.Replace(other.URL, "127.0.0.1", "localhost", 1))
	b.do(chromedp.Click(css("button")))
	b.until("the answer", `document.body.innerText.includes("AUTHORIZATION_REQUIRED")`)
	if n := s.number(`SELECT count(*) FROM checkout_sessions`); n != 0 {
		t.Errorf("another page's form made %d sessions", n)
	}
}

// TestPicturesOfTheCheckout makes those of the documentation, in the folder that SCREENSHOTS
// names, such as docs/assets.
func TestPicturesOfTheCheckout(t *testing.T) {
	folder := os.Getenv("SCREENSHOTS")
	if folder == "" {
		t.Skip("SCREENSHOTS names no folder for pictures")
	}
	s := newStage(t)
	for _, p := range []struct {
		name, language, scheme string
		width, height          int64
		take                   func(b *tab)
	}{
		{"checkout-shop", "en", "light", 1280, 540, func(b *tab) { b.goTo(s.dev.Info.BaseURL + "/demo?lang=en") }},
		{"checkout-embedded", "pt", "light", 1280, 880, func(b *tab) { b.orders(s, "pt") }},
		{"checkout-embedded-dark", "es", "dark", 390, 844, func(b *tab) { b.orders(s, "es") }},
		{"checkout-page", "en", "light", 1280, 760, func(b *tab) { b.goTo(s.pictured("Two cups").page()); b.reaches("form"); b.fill(goodCard) }},
		{"checkout-success", "en", "dark", 390, 844, func(b *tab) { b.goTo(s.pictured("Two cups").page()); b.pay(goodCard); b.reaches("success") }},
		{"checkout-declined", "es", "light", 390, 844, func(b *tab) { b.goTo(s.pictured("Dos tazas").in("es")); b.pay(poorCard); b.reaches("declined") }},
	} {
		b := newTab(t)
		b.looks(p.width, p.height, p.scheme)
		p.take(b)
		picture, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, p.name+".png"), picture, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// pictured is a session whose order has a name that people would give it.
func (s *stage) pictured(description string) session {
	return s.sessionOf(map[string]any{
		"payment_description": description, "workflow": "SDK_SEAMLESS", "merchant_order_id": "2026-1041", "callback_url": "https://shop.example/thanks",
	})
}

// orders goes to the checkout of the demo shop, and waits until its form is drawn.
func (b *tab) orders(s *stage, language string) {
	b.t.Helper()
	b.goTo(s.dev.Info.BaseURL + "/demo?lang=" + language)
	b.do(chromedp.Click(css("form button[type=submit]")))
	b.until("the checkout", `document.querySelector("#payment iframe")`)
	b.frameAt("/pay/").reaches("form")
	b.until("the frame is as high as its page", inFrame+`.documentElement.scrollHeight <= document.querySelector("iframe").clientHeight`)
	call(b, page.BringToFront, cdp.Empty{})
}
