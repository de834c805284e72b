package console

import (
	"html"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/operators"
)

func TestTheNoncePageTellsWhatBecameOfAPayment(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	made := w.made("order-71-a", nil)
	w.pay("order-71-a", map[string]any{"amount": 99})
	b := w.as(operators.Viewer)
	r := b.get("/nonces/order-71-a")
	if r.status != http.StatusOK {
		t.Fatalf("%s", r)
	}
	for _, want := range []string{
		"Charged once: 45.67 USD", "Replayed once, once with a different amount", "Done once", "First merchant", made.transaction,
		`href="/payments/` + made.payment + `"`, "<code>amount</code>", "answer: 201", "claims the nonce", `role="group"`,
		html.EscapeString(`-H 'X-Idempotency-Key: order-71-a'`), html.EscapeString(`"$CARD_NUMBER"`),
		html.EscapeString(w.API + "/v1/idempotency-keys?nonce=order-71-a"),
	} {
		if !strings.Contains(r.body, want) {
			t.Errorf("the page does not have %s", want)
		}
	}
	if strings.Contains(r.body, "4111111111111111") || strings.Contains(r.body, w.keys.PrivateSecretKey) {
		t.Error("the page has a secret")
	}
	if dir := os.Getenv("CONSOLE_SAMPLES"); dir != "" {
		body := strings.ReplaceAll(r.body, `"/assets/`, `"assets/`)
		if err := os.WriteFile(filepath.Join(dir, "real.html"), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	printed := b.get("/nonces/order-71-a?print=1")
	if printed.status != http.StatusOK || strings.Contains(printed.body, "<nav") || !strings.Contains(printed.body, "Made by "+b.Name+" on ") {
		t.Errorf("on paper: %s", printed)
	}
}

func TestEveryNonceThatAMerchantMaySendHasAPage(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Viewer)
	for _, nonce := range []string{"a/b", "100%", "a?b#c", "a%2Fb", "..", ".", `a"b'<b>`, "a+b&c=d", "//x"} {
		w.made(nonce, nil)
		r := b.get(noncePath(nonce))
		if r.status != http.StatusOK {
			t.Errorf("the page of %q: %d", nonce, r.status)
		}
		if found := regexp.MustCompile(`<h1 class="mono">(.*?)</h1>`).FindStringSubmatch(r.body); found == nil || html.UnescapeString(found[1]) != nonce {
			t.Errorf("%q is shown as %q", nonce, found)
		}
		if printed := b.get(nonceLink(nonce, url.Values{"print": {"1"}})); printed.status != http.StatusOK {
			t.Errorf("%q cannot be printed: %d", nonce, printed.status)
		}
	}
}

func TestNoncesThatNobodySentAreNotFound(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Viewer)
	for path, want := range map[string]int{
		"/nonces/unknown": http.StatusNotFound, "/nonces": http.StatusBadRequest, "/nonces/": http.StatusBadRequest, "/nonces/a%00b": http.StatusBadRequest,
		"/nonces/%FF": http.StatusBadRequest, "/nonces/a?after=x": http.StatusBadRequest,
		"/nonces/" + strings.Repeat("a", 64) + "%E2%80%A6" + strings.Repeat("0", 64): http.StatusNotFound,
	} {
		if r := b.get(path); r.status != want {
			t.Errorf("%s is answered with %d, not %d", path, r.status, want)
		}
	}
	if r := w.nobody().get("/nonces/unknown"); r.status != http.StatusSeeOther {
		t.Errorf("nobody gets %d", r.status)
	}
}

// A merchant's own texts reach the page through the payment, the nonce and a retry's body.
func TestNothingThatAMerchantSendsRunsOnTheNoncePage(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	nonce := `"><script>alert(1)</script>`
	script := `</pre><script>alert(2)</script><img src=x onerror=alert(3)>`
	w.made(nonce, map[string]any{
		"merchant_order_id": script, "description": script, "metadata": []any{map[string]any{"key": "k", "value": script}},
		"customer_payer": map[string]any{"first_name": script, "merchant_customer_id": script},
	})
	w.pay(nonce, map[string]any{"description": "another", `"><script>alert(4)</script>`: 1})
	b := w.as(operators.Viewer)
	for _, path := range []string{noncePath(nonce), nonceLink(nonce, url.Values{"print": {"1"}})} {
		r := b.get(path)
		if r.status != http.StatusOK || strings.Contains(r.body, "<script>alert") || strings.Contains(r.body, "<img src=x") {
			t.Errorf("%s: %s", path, r)
		}
	}
}

func TestALifeThatWasTakenOverIsDrawnWithItsBreak(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	made := w.made("", nil)
	// What a crash between the claim and the answer leaves behind: no arrival, no exchange.
	w.sql(`DELETE FROM arrivals`)
	w.sql(`DELETE FROM provider_calls WHERE transaction_id = $1`, uuid.MustParse(made.transaction))
	w.sql(`INSERT INTO takeovers (account_id, transaction_id, fence, taken_by, at)
		SELECT account_id, id, 2, 'recovery', created_at FROM transactions WHERE id = $1`, uuid.MustParse(made.transaction))
	r := w.as(operators.Viewer).get("/nonces/" + made.nonce)
	for _, want := range []string{"holder gone", "by recovery", "The nonce was claimed; the request itself is not on the timeline"} {
		if !strings.Contains(r.body, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
}
