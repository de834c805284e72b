package browser

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/oncepay/oncepay/test/harness"
)

// desk is an operator at the console of a stage, in a browser of their own.
type desk struct {
	*tab
	stage *stage
	name  string
}

// deskPassword is everybody's.
const deskPassword = "a long password of the tests"

// at is the address of a page of the console.
func (s *stage) at(path string) string { return s.dev.Info.AdminURL + path }

// setUp finds what a start prints for the first operator.
var setUp = regexp.MustCompile(`(?m)^First operator, within \S+: (http://\S+)$`)

// setUpLink is what the start has printed for the first operator.
func (s *stage) setUpLink() string {
	s.t.Helper()
	var found []string
	harness.Eventually(s.t, harness.Patience, "the set-up link", func() bool {
		found = setUp.FindStringSubmatch(s.dev.Stdout())
		return found != nil
	})
	return found[1]
}

// signsUp follows a link of the installation's, and chooses a password; a name too, where
// the link leaves it open.
func (s *stage) signsUp(link, name string) *desk {
	s.t.Helper()
	d := &desk{newTab(s.t), s, name}
	d.keepsTo(s.dev.Info.AdminURL)
	d.goTo(link)
	if eval[bool](d.tab, `!!document.querySelector("main input[name=name]")`) {
		d.do(chromedp.SendKeys(css("main input[name=name]"), name))
	}
	d.do(chromedp.SendKeys(css("main input[name=password]"), deskPassword), chromedp.SendKeys(css("main input[name=again]"), deskPassword))
	d.presses("main button.primary")
	d.isIn()
	return d
}

// isIn waits until the page knows who they are.
func (d *desk) isIn() {
	d.t.Helper()
	d.until(d.name+" is signed in", fmt.Sprintf(`document.querySelector("header .who .name")?.textContent === %q`, d.name))
}

// invited is the link of somebody who is asked in.
func (s *stage) invited(name, role string) (link string) {
	s.t.Helper()
	a := s.dev.Info.Operator().Do(s.t.Context(), http.MethodPost, "/admin/v1/operators", map[string]string{"name": name, "role": role})
	mustBe(s.t, a, http.StatusCreated)
	var made struct {
		Path string `json:"invitation_path"`
	}
	if err := json.Unmarshal(a.Body, &made); err != nil || made.Path == "" {
		s.t.Fatalf("no invitation: %v", err)
	}
	return s.at(made.Path)
}

// colleague is somebody with a role, signed in.
func (s *stage) colleague(name, role string) *desk {
	s.t.Helper()
	return s.signsUp(s.invited(name, role), name)
}

// signsIn fills in the page of the sign-in, where they are.
func (d *desk) signsIn() {
	d.t.Helper()
	d.until("the sign-in", `location.pathname === "/sign-in"`)
	d.do(chromedp.SendKeys(css("main input[name=name]"), d.name), chromedp.SendKeys(css("main input[name=password]"), deskPassword))
	d.presses("main button.primary")
	d.isIn()
}

// beside is a second tab of the same browser.
func (d *desk) beside() *desk {
	d.t.Helper()
	other := &desk{d.another(), d.stage, d.name}
	other.keepsTo(d.stage.dev.Info.AdminURL)
	return other
}

// open goes to a page of the console.
func (d *desk) open(path string) {
	d.t.Helper()
	d.goTo(d.stage.at(path))
}

// slash presses the key that leads to the search.
func (b *tab) slash() {
	b.t.Helper()
	for _, does := range []input.DispatchKeyEventType{input.DispatchKeyEventTypeKeyDown, input.DispatchKeyEventTypeKeyUp} {
		press := input.DispatchKeyEventParams{Type: does, Key: "/", Code: "Slash"}
		if does == input.DispatchKeyEventTypeKeyDown {
			press.Text = "/" // in the same event, as from a keyboard: who prevents it gets no character
		}
		call(b, input.DispatchKeyEvent, press)
	}
}

// pastes puts a text where the focus is.
func (b *tab) pastes(text string) {
	b.t.Helper()
	call(b, input.InsertText, input.InsertTextParams{Text: text})
}

// leads does what leads to another page, and waits until that is there.
func (b *tab) leads(does func()) {
	b.t.Helper()
	eval[bool](b, `window.stillHere = true`)
	does()
	b.until("another page", `window.stillHere === undefined && document.readyState === "complete"`)
}

// presses clicks on what leads to another page.
func (b *tab) presses(selector string) {
	b.t.Helper()
	b.leads(func() { b.do(chromedp.Click(css(selector))) })
}

// fills puts values into a form, and opens what it is folded in.
func (b *tab) fills(form string, values map[string]string) {
	b.t.Helper()
	eval[bool](b, fmt.Sprintf(`(() => {
		const form = document.querySelector(%q);
		form.closest("details")?.setAttribute("open", "");
		for (const [name, value] of Object.entries(%s)) form.elements[name].value = value;
		return true;
	})()`, form, inJSON(b.t, values)))
}

// sends presses the button of a form that has been filled in.
func (b *tab) sends(form string) {
	b.t.Helper()
	b.presses(form + " button:not([type=button])")
}

func inJSON(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// keepsTo fails the test for what a page of the console must not do: ask anybody else for
// anything, miss a file, complain in the browser's log, open a dialogue.
func (b *tab) keepsTo(origin string) {
	b.t.Helper()
	call(b, network.Enable, network.EnableParams{})
	err := chromedp.Listen(b.ctx, func(ev any) {
		said := ""
		switch ev := ev.(type) {
		case *network.EventRequestWillBeSent:
			// Chromium's own fields have pictures in them.
			if at := ev.Request.URL; !strings.HasPrefix(at, origin+"/") && !strings.HasPrefix(at, "data:") {
				said = "asked for " + at
			}
		case *network.EventResponseReceived:
			if ev.Response.Status >= http.StatusBadRequest && ev.Type != network.ResourceTypeDocument {
				said = fmt.Sprintf("was answered %d for %s", ev.Response.Status, ev.Response.URL)
			}
		case *log.EventEntryAdded:
			if ev.Entry.Level == log.EntryLevelError && ev.Entry.Source != log.EntrySourceNetwork { // that is judged above
				said = "complained: " + ev.Entry.Text
			}
		case *runtime.EventConsoleAPICalled:
			if ev.Type == runtime.ConsoleAPICalledTypeError {
				said = "complained in the console"
			}
		case *page.EventJavascriptDialogOpening:
			said = "opened a dialogue: " + ev.Message
			go func() { _, _ = chromedp.Call(b.ctx, page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{}) }() // it has failed anyway
		}
		if said == "" {
			return
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.broken = append(b.broken, said)
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// made is a payment that the merchant's backend has made.
type made struct {
	ID          string `json:"id"`
	Status      string `json:"status"`
	Transaction struct {
		ID string `json:"id"`
	} `json:"transactions"`
	Nonce, Order string
}

// pays makes a payment; more is added to its body, or replaces what is there.
func (s *stage) pays(api *harness.Client, account, nonce, order string, more map[string]any) made {
	s.t.Helper()
	body := map[string]any{
		"account_id": account, "merchant_order_id": order, "description": "Two cups", "country": "US", "workflow": "DIRECT",
		"amount":         map[string]any{"currency": currency, "value": json.Number(amount)},
		"payment_method": byCard(goodCard, true),
	}
	for name, value := range more {
		body[name] = value
	}
	a := api.Post(s.t.Context(), "/v1/payments", http.Header{"X-Idempotency-Key": {nonce}}, body)
	mustBe(s.t, a, http.StatusCreated)
	m := made{Nonce: nonce, Order: order}
	if err := json.Unmarshal(a.Body, &m); err != nil {
		s.t.Fatal(err)
	}
	return m
}

// byCard is how a payment is paid.
func byCard(number string, capture bool) map[string]any {
	return map[string]any{"type": "CARD", "detail": map[string]any{"card": map[string]any{"capture": capture, "card_data": map[string]any{
		"number": number, "holder_name": "John Doe", "expiration_month": 11, "expiration_year": 28, "security_code": "123",
	}}}}
}

// buysCups makes a payment of the stage's merchant.
func (s *stage) buysCups(order string, more map[string]any) made {
	s.t.Helper()
	return s.pays(s.api, s.dev.Info.AccountID, harness.Unguessable("nonce"), order, more)
}

// refundsOf are the refunds that the provider has booked for an order.
func (s *stage) refundsOf(order string) int {
	s.t.Helper()
	entries, err := s.dev.Info.Ledger().Of(s.t.Context(), order)
	if err != nil {
		s.t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if e.Type == "REFUND" {
			n++
		}
	}
	return n
}
