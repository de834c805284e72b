package console

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/operators"
)

func TestWhoeverFindsOneThingIsLedToIt(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	p := w.made("nonce/1%2?#", map[string]any{"merchant_order_id": "order-a", "customer_payer": map[string]any{"merchant_customer_id": "cust-1"}})
	second := w.made("", map[string]any{"merchant_order_id": "order-b"})
	w.made("", map[string]any{"merchant_order_id": "order-b"})
	reference := w.file(p).Transactions[0].ProviderReference
	b := w.as(operators.Viewer)
	for q, want := range map[string]string{
		"nonce/1%2?#":                 "/nonces/nonce%2F1%252%3F%23",
		p.payment:                     p.path(),
		strings.ToUpper(p.payment):    p.path(),
		" " + p.payment + " ":         p.path(),
		p.transaction:                 p.path() + "#" + p.transaction,
		reference:                     p.path() + "#" + p.transaction,
		"order-a":                     p.path(),
		"cust-1":                      p.path(),
		second.transaction:            second.path() + "#" + second.transaction,
		strings.ToLower(second.nonce): "/nonces/" + second.nonce,
	} {
		if a := b.get("/search?q=" + url.QueryEscape(q)); a.status != http.StatusSeeOther || a.header.Get("Location") != want {
			t.Errorf("%q: %d to %q, want %q", q, a.status, a.header.Get("Location"), want)
		}
	}
	a := b.get("/search?q=order-b")
	if a.status != http.StatusOK || len(ids(a)) != 2 || !strings.Contains(a.body, "Payments of an order") || !strings.Contains(a.body, `value="order-b"`) {
		t.Errorf("two payments of an order: %s", a)
	}
}

// Some policies know no limit. What is kept of such a nonce is not what the merchant has.
func TestALongNonceIsFoundAsItWasSent(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	nonce := strings.Repeat("long nonce ", 100) + "1"
	p := w.made("", nil)
	w.sql(`UPDATE transactions SET nonce = $1 WHERE id = $2`, idem.KeyOf(nonce), uuid.MustParse(p.transaction))
	b := w.as(operators.Viewer)
	a := b.get("/search?" + url.Values{"q": {nonce}}.Encode())
	if a.status != http.StatusSeeOther || a.header.Get("Location") != noncePath(nonce) {
		t.Fatalf("led to %q: %s", a.header.Get("Location"), a)
	}
	kept := b.get(a.header.Get("Location"))
	if kept.status != http.StatusOK || !strings.Contains(kept.body, p.transaction) || !strings.Contains(kept.body, "<h1 class=\"mono\">"+nonce+"</h1>") {
		t.Errorf("the page is %s", kept)
	}
	if list := b.get("/payments?" + url.Values{"nonce": {nonce}}.Encode()); !slices.Equal(ids(list), []string{p.payment}) || !strings.Contains(list.body, `value="`+nonce+`"`) {
		t.Errorf("the list is %s", list)
	}
	other := b.get("/search?" + url.Values{"q": {nonce + "2"}}.Encode())
	if other.status != http.StatusOK || !strings.Contains(other.body, "<code>"+nonce+"2</code>") || !strings.Contains(other.body, `value="`+nonce+`2"`) {
		t.Errorf("another one: %s", other)
	}
	if a := b.get("/search?q=" + strings.Repeat("n", maxNonceShown+1)); a.status != http.StatusBadRequest {
		t.Errorf("what no header brings: %s", a)
	}
}

func TestASearchThatFindsNothingSaysWhatWasTried(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Viewer)
	for q, want := range map[string]string{
		"":                                 "Type a nonce",
		"nothing":                          "<code>nothing</code> as a nonce",
		uuid.NewString():                   "Nothing is called exactly that",
		`"><script>alert(1)</script>`:      "&lt;script&gt;",
		strings.Repeat("é", maxFilterText): strings.Repeat("é", maxFilterText),
	} {
		a := b.get("/search?q=" + url.QueryEscape(q))
		if a.status != http.StatusOK || !strings.Contains(a.body, want) || strings.Contains(a.body, "<script>alert") {
			t.Errorf("%q: %d %s", q, a.status, a)
		}
	}
	for _, q := range []string{strings.Repeat("é", maxFilterText+1), "a\x00b", "\xff\xfe"} {
		a := b.get("/search?q=" + url.QueryEscape(q))
		if a.status != http.StatusBadRequest || !strings.Contains(a.body, "what is searched for must") || strings.Contains(a.body, strings.Repeat("é", maxFilterText+1)) {
			t.Errorf("%q: %d %s", q, a.status, a)
		}
	}
}

// hostileText is what a merchant or a customer may try on whoever looks at their payments. It is
// in every field that any of them controls.
const hostileText = `"'><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}javascript:alert(3)//` + "\u2028"

// No field that a merchant controls gets to run anything, wherever it is shown.
func TestNothingThatAMerchantSendsRuns(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	if _, err := w.merchants.Update(t.Context(), w.account, renamed(hostileText)); err != nil {
		t.Fatal(err)
	}
	nonce := `<script>alert(1)</script>"'>`
	body := map[string]any{
		"merchant_order_id": hostileText, "description": hostileText, "merchant_reference": hostileText, "metadata": []any{map[string]any{"key": `<script>"`, "value": hostileText}},
		"customer_payer": map[string]any{"merchant_customer_id": hostileText, "first_name": hostileText}, "additional_data": map[string]any{"<script>": hostileText},
	}
	p := w.made(nonce, body)
	body["description"] = "sandbox:500"
	body["merchant_order_id"] = hostileText + "2"
	unknown := w.made("", body)
	w.age(unknown)
	w.park(unknown)
	if a := w.call("/v1/payments/"+p.payment+"/transactions/"+p.transaction+"/refund", nonce+"2", map[string]any{
		"merchant_reference": hostileText, "description": hostileText, "amount": map[string]any{"currency": "USD", "value": 5},
	}); a.status != http.StatusOK {
		t.Fatal(a)
	}
	b := w.as(operators.Operator)
	q := url.QueryEscape(hostileText)
	for _, path := range []string{
		"/payments", "/payments/rows", "/payments?order=" + q, "/payments?customer=" + q + "&nonce=" + q + "&from=" + q + "&account=" + q,
		p.path(), p.path() + "?done=" + q + "&again=" + q, unknown.path(), "/unsettled", "/search?q=" + q, "/search?q=" + q + "2",
	} {
		a := b.get(path)
		if a.status >= 500 || a.status == http.StatusOK && a.body == "" {
			t.Errorf("%s: %d", path, a.status)
		}
		for _, bad := range []string{"<script>alert", "<img src=x", `href="javascript:`, "<script>&#34;", `"'>`} {
			if strings.Contains(a.body, bad) {
				t.Errorf("%s: %q is on the page: %s", path, bad, a)
			}
		}
		if a.status == http.StatusOK && !strings.HasPrefix(path, "/payments/rows") && a.header.Get("Content-Security-Policy") != contentPolicy {
			t.Errorf("%s: the policy is %q", path, a.header.Get("Content-Security-Policy"))
		}
	}
	if a := b.get(p.path()); strings.Count(a.body, "&lt;script&gt;") < 8 {
		t.Errorf("the page does not show what was sent: %s", a)
	}
}
