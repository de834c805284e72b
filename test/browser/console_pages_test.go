package browser

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/test/harness"
)

// furnished is an installation in which every page of the console has something to show.
type furnished struct {
	*stage
	admin             *desk
	paid, reserved    made
	key               string // its page
	token, invitation string
	order             string // has two payments
}

// furnish makes payments of each kind, people, keys and tokens.
func furnish(t *testing.T) *furnished {
	t.Helper()
	s := newStage(t)
	f := &furnished{stage: s, admin: s.signsUp(s.setUpLink(), "ada"), order: "order-1043"}
	s.colleague("olga", "operator").close()
	f.invitation = s.invited("vera", "viewer")
	f.paid = s.pays(s.api, s.dev.Info.AccountID, "order-1041/attempt-1", "order-1041", map[string]any{
		"metadata":       []map[string]string{{"key": "shop", "value": "Lisbon"}},
		"customer_payer": map[string]any{"merchant_customer_id": "customer-7", "first_name": "Ana"},
		"description":    "A mug with a very long description that says what is on it: a lighthouse, two gulls, and the sea",
		"callback_url":   "https://shop.example/thanks?order=order-1041",
	})
	f.reserved = s.buysCups("order-1042", map[string]any{"payment_method": byCard(goodCard, false)})
	for range 2 {
		s.buysCups(f.order, nil)
	}
	s.buysCups("order-1044", map[string]any{"payment_method": byCard(poorCard, true)})
	for _, order := range []string{"order-1045", "order-1046"} { // nobody confirms them
		s.buysCups(order, map[string]any{"payment_method": byCard(plainCard, true), "description": "sandbox:challenge"})
	}
	// It takes a quarter of an hour until a person has to look.
	n := pgtest.Exec(t, s.database, `UPDATE transactions SET parked_at = clock_timestamp(), next_attempt_at = clock_timestamp() + interval '1 hour' WHERE payment_id = (SELECT id FROM payments WHERE merchant_order_id = $1)`, "order-1046")
	if n != 1 {
		t.Fatalf("%d transactions are parked", n)
	}
	a := s.api.Post(t.Context(), "/v1/payments/"+f.paid.ID+"/transactions/"+f.paid.Transaction.ID+"/refund", http.Header{"X-Idempotency-Key": {harness.Unguessable("nonce")}},
		map[string]any{"merchant_reference": "return-1", "reason": "REQUESTED_BY_CUSTOMER", "amount": map[string]any{"currency": currency, "value": 10}})
	mustBe(t, a, http.StatusOK)
	f.furnishKeys(t)
	return f
}

// furnishKeys makes a key that is being rotated, and a token.
func (f *furnished) furnishKeys(t *testing.T) {
	t.Helper()
	operator, account := f.dev.Info.Operator(), "/admin/v1/merchants/"+f.dev.Info.AccountID
	a := operator.Do(t.Context(), http.MethodPost, account+"/keys", map[string]any{"mode": "test"})
	mustBe(t, a, http.StatusCreated)
	var key, token struct {
		ID    string `json:"id"`
		Token string `json:"token"`
	}
	if err := json.Unmarshal(a.Body, &key); err != nil || key.ID == "" {
		t.Fatalf("no key: %v", err)
	}
	mustBe(t, operator.Do(t.Context(), http.MethodPost, account+"/keys/"+key.ID+"/rotate", map[string]any{"overlap_seconds": 3600}), http.StatusCreated)
	f.key = "/merchants/" + f.dev.Info.AccountID + "/keys/" + key.ID
	a = operator.Do(t.Context(), http.MethodPost, "/admin/v1/tokens", map[string]any{"name": "nightly report", "scope": "viewer"})
	mustBe(t, a, http.StatusCreated)
	if err := json.Unmarshal(a.Body, &token); err != nil {
		t.Fatal(err)
	}
	f.token = token.Token
}

// pages are all of those that somebody who has signed in can see, by what they are.
func (f *furnished) pages() map[string]string {
	nonce := "/nonces/" + url.PathEscape(f.paid.Nonce)
	return map[string]string{
		"front":            "/",
		"found":            "/search?q=" + f.order,
		"nothing found":    "/search?q=nothing-is-called-so",
		"payments":         "/payments",
		"filtered":         "/payments?status=DECLINED&min=1&order=order-1044",
		"a wrong filter":   "/payments?from=yesterday&min=much",
		"payment":          "/payments/" + f.paid.ID,
		"reserved payment": "/payments/" + f.reserved.ID,
		"nonce":            nonce,
		"print view":       nonce + "?print=1",
		"unsettled":        "/unsettled",
		"merchants":        "/merchants",
		"merchant":         "/merchants/" + f.dev.Info.AccountID,
		"key":              f.key,
		"audit":            "/audit",
		"operators":        "/operators",
		"operator":         "/operators/olga",
		"account":          "/account",
		"no page":          "/nowhere",
		"no payment":       "/payments/01a204f5-57f7-77d4-9275-7c7225c4172f",
		"no nonce":         "/nonces/nobody-has-sent-this",
	}
}

// looks4 are how each page is looked at.
var looks4 = []struct {
	name          string
	width, height int64
	scheme        string
}{{"wide, light", 1280, 900, "light"}, {"wide, dark", 1280, 900, "dark"}, {"narrow, light", 390, 844, "light"}, {"narrow, dark", 390, 844, "dark"}}

// looksGood checks a page in all its looks, with everything on it opened.
func (d *desk) looksGood(what, address string) {
	d.t.Helper()
	d.goTo(address)
	eval[bool](d.tab, `(document.querySelectorAll("details").forEach(e => { e.open = true }), document.title !== "")`)
	for i, look := range looks4 {
		d.looks(look.width, look.height, look.scheme)
		if i == 0 || i == 3 {
			d.mustBeAccessible(look.name + ", " + what)
			continue
		}
		for _, wrong := range eval[[]string](d.tab, accessible) {
			d.t.Errorf("%s, %s: %s", look.name, what, wrong)
		}
	}
}

// TestEveryPageOfTheConsoleIsAccessible, wide and narrow, by day and by night, and breaks no
// policy.
func TestEveryPageOfTheConsoleIsAccessible(t *testing.T) {
	t.Parallel()
	f := furnish(t)
	for what, path := range f.pages() {
		f.admin.looksGood(what, f.at(path))
	}
	stranger := &desk{newTab(t), f.stage, "nobody"}
	stranger.keepsTo(f.dev.Info.AdminURL)
	for what, address := range map[string]string{"sign-in": f.at("/sign-in"), "invitation": f.invitation, "an invitation that is none": f.at("/invitations/" + strings.Repeat("x", 43))} {
		stranger.looksGood(what, address)
	}
}

// TestTheKeyboardIsEnoughForTheConsole: from the top of a page the search comes first, then
// the navigation, then what the page has; and it can be seen where one is.
func TestTheKeyboardIsEnoughForTheConsole(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	d := s.signsUp(s.setUpLink(), "ada")
	p := s.buysCups("order-1", nil)
	d.open("/payments")
	var order []string
	for range 40 {
		d.do(chromedp.KeyEvent("\t"))
		order = append(order, eval[string](d.tab, `(e => e.id || e.getAttribute("href") || e.name || e.textContent.trim())(document.activeElement)`))
		if !eval[bool](d.tab, `(() => { const s = getComputedStyle(document.activeElement); return s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2 })()`) {
			t.Errorf("the focus on %q cannot be seen", order[len(order)-1])
		}
		if slices.Contains(order, "p-"+p.ID) {
			break
		}
	}
	at := -1
	for _, want := range []string{"#content", "search", "Sign out", "/unsettled", "/audit", "n-" + p.ID, "p-" + p.ID} {
		next := slices.Index(order, want)
		if next <= at {
			t.Errorf("%q does not come where it should: %q", want, order)
		}
		at = next
	}
	d.leads(func() { d.do(chromedp.KeyEvent("\r")) })
	d.until("the payment's page", `location.pathname === "/payments/`+p.ID+`"`)
	d.do(chromedp.KeyEvent("\t"))
	d.do(chromedp.KeyEvent("\r"))
	d.until("the content has the focus", `document.activeElement.id === "content"`)
}

// hostile are texts that a merchant can send, each of which is something else to some reader.
var hostile = []string{
	`<script>window.pwned=1</script>`,
	`"><img src=x onerror=window.pwned=1>`,
	`'><svg onload=window.pwned=1>`,
	`javascript:window.pwned=1//`,
	"{{7*7}}${7*7}<%= 7*7 %>`${7*7}`",
	`</title></textarea></pre></style></script><script>window.pwned=1</script>`,
	`<iframe srcdoc="<script>parent.pwned=1</script>"></iframe>`,
	`<meta http-equiv=refresh content="0;url=http://127.0.0.1:9/">`,
	`<div hx-get="/payments" hx-trigger="load" hx-on:load="window.pwned=1" data-live>`,
	`" onfocus=window.pwned=1 autofocus x="`,
	`=HYPERLINK("http://127.0.0.1:9/","x")`,
	`</text></a></svg><a href=javascript:window.pwned=1>bait</a>`,
	`<details open ontoggle=window.pwned=1>--><!--`,
	`&lt;script&gt;window.pwned=1&lt;/script&gt;&#x3c;`,
}

// atMost is a text cut to what a field takes.
func atMost(text string, length int) string { return text[:min(length, len(text))] }

// asNonce is a text as a nonce can be: a slash parts attributes as a blank does.
func asNonce(text string) string {
	return atMost(strings.NewReplacer(" ", "/", ",", ";").Replace(text), 64)
}

// attacks makes a merchant and a token of that name, a payment that is not settled, and one in each field
// of which the text is; and a refund of that.
func (s *stage) attacks(text string) made {
	s.t.Helper()
	keys, err := s.dev.Info.Operator().NewMerchant(s.t.Context(), text)
	if err != nil {
		s.t.Fatal(err)
	}
	api := harness.NewClient(s.dev.Info.BaseURL, keys)
	s.pays(api, keys.AccountID, atMost("p:"+asNonce(text), 64), text, map[string]any{
		"payment_method": byCard(plainCard, true), "description": "sandbox:challenge",
	})
	card := byCard(goodCard, true)
	card["detail"].(map[string]any)["card"].(map[string]any)["soft_descriptor"] = atMost(text, 15)
	card["detail"].(map[string]any)["card"].(map[string]any)["card_data"].(map[string]any)["holder_name"] = text
	p := s.pays(api, keys.AccountID, asNonce(text), text, map[string]any{
		"description": text, "merchant_reference": text, "callback_url": "https://shop.example/?" + text, "payment_method": card,
		"metadata":        []map[string]string{{"key": atMost(text, 48), "value": text}},
		"customer_payer":  map[string]any{"merchant_customer_id": text, "first_name": text, text: text},
		"additional_data": map[string]any{text: []string{text}},
	})
	a := api.Post(s.t.Context(), "/v1/payments/"+p.ID+"/transactions/"+p.Transaction.ID+"/refund", http.Header{"X-Idempotency-Key": {harness.Unguessable("nonce")}},
		map[string]any{"merchant_reference": text, "description": text, "amount": map[string]any{"currency": currency, "value": 1}})
	mustBe(s.t, a, http.StatusOK)
	mustBe(s.t, s.dev.Info.Operator().Do(s.t.Context(), http.MethodPost, "/admin/v1/tokens", map[string]any{"name": text, "scope": "viewer"}), http.StatusCreated)
	return p
}

// intruders are what a page must not have, whatever the texts on it are.
const intruders = `(() => {
	const found = [];
	if (window.pwned !== undefined) found.push("a script ran");
	for (const s of document.scripts) if (!s.src.startsWith(location.origin + "/assets/")) found.push("a script: " + s.outerHTML);
	for (const e of document.querySelectorAll("*")) {
		for (const {name, value} of e.attributes) {
			if (name.startsWith("on") || name.startsWith("hx-on") || name === "srcdoc" || name === "style") found.push(e.tagName + " has " + name);
			if (["href", "action", "formaction", "src"].includes(name) && !/^([#?]|\/(?!\/)|$)/.test(value)) found.push(e.tagName + " leads to " + value);
		}
	}
	for (const e of document.querySelectorAll("main img, iframe, object, embed, base, meta[http-equiv], main link, main style, main script")) found.push(e.outerHTML);
	return found;
})()`

// harmless checks a page on which a merchant's texts are, and that they are there as texts.
func (d *desk) harmless(path string, texts ...string) {
	d.t.Helper()
	d.open(path)
	for _, found := range eval[[]string](d.tab, intruders) {
		d.t.Errorf("%s: %s", path, found)
	}
	shown := eval[string](d.tab, `document.body.textContent`)
	for _, text := range texts {
		if !strings.Contains(shown, text) {
			d.t.Errorf("%s does not show %s", path, text)
		}
	}
}

// TestNothingThatAMerchantSendsRuns, wherever it is shown.
func TestNothingThatAMerchantSendsRuns(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	d := s.signsUp(s.setUpLink(), "ada")
	for _, text := range hostile {
		p := s.attacks(text)
		escaped, nonce := url.QueryEscape(text), asNonce(text)
		d.harmless("/payments/"+p.ID, text)
		if n := eval[int](d.tab, fmt.Sprintf(`document.body.textContent.split(%s).length - 1`, inJSON(t, text))); n < 8 {
			t.Errorf("the payment's page shows %s %d times, not in each field", text, n)
		}
		d.harmless("/nonces/"+url.PathEscape(nonce), nonce, text)
		d.harmless("/nonces/"+url.PathEscape(nonce)+"?print=1", nonce, text)
		d.harmless("/search?q="+escaped, text)
		d.harmless("/payments?order="+escaped+"&nonce="+url.QueryEscape(nonce)+"&customer="+escaped, text)
		d.harmless("/audit?actor=" + escaped + "&target=" + escaped + "&action=" + escaped)
	}
	d.harmless("/", hostile[0], hostile[len(hostile)-1]) // it shows a few
	for _, path := range []string{"/unsettled", "/merchants", "/operators", "/audit", "/payments"} {
		d.harmless(path, hostile...)
	}
	for _, text := range hostile { // and what comes into the list while it is looked at
		s.buysCups("later: "+text, nil)
	}
	d.until("the list has them all", row("later: "+hostile[len(hostile)-1]))
	for _, found := range eval[[]string](d.tab, intruders) {
		t.Errorf("the live list: %s", found)
	}
	account := eval[string](d.tab, `fetch("/merchants").then(r => r.text()).then(html => new DOMParser().parseFromString(html, "text/html").querySelector("main table a").getAttribute("href"))`)
	d.harmless(account, hostile[len(hostile)-1])
	d.harmless("/sign-in?next=" + url.QueryEscape(hostile[1]))
	d.harmless("/payments/" + url.PathEscape(hostile[1]))
}
