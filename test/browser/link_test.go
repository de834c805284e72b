package browser

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/oncepay/oncepay/test/harness"
)

// TestALinkThatIsForOnePaymentPaysOnce, although two people have it open and pay at once.
func TestALinkThatIsForOnePaymentPaysOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	order := harness.Unguessable("order")
	a := s.api.Post(t.Context(), "/v1/payment-links", http.Header{"X-Idempotency-Key": {harness.Unguessable("nonce")}}, map[string]any{
		"account_id": s.dev.Info.AccountID, "merchant_order_id": order, "description": "Two cups", "country": "US", "one_time_use": true,
		"amount": map[string]any{"currency": currency, "value": json.Number(amount)}, "payment_method_types": []string{"CARD"},
		"availability": map[string]any{"start_at": time.Now().Add(-time.Hour).UTC().Format(time.RFC3339), "finish_at": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)},
	})
	mustBe(t, a, http.StatusOK)
	var made struct {
		CheckoutURL string `json:"checkout_url"`
	}
	if err := json.Unmarshal(a.Body, &made); err != nil {
		t.Fatal(err)
	}
	c := session{stage: s, order: order, value: amount}
	first, second := newTab(t), newTab(t)
	for _, b := range []*tab{first, second} {
		b.goTo(made.CheckoutURL + "?lang=en")
		b.reaches("form")
		b.fill(goodCard)
	}
	for _, b := range []*tab{first, second} {
		eval[bool](b, `(document.querySelector("form").requestSubmit(), true)`)
	}
	for _, b := range []*tab{first, second} {
		b.reaches("success")
	}
	c.mustBePaidOnce()
	c.paidByOneNonce()
	third := newTab(t)
	third.goTo(made.CheckoutURL + "?lang=en")
	third.until("the page says that it is paid", `document.body.innerText.toLowerCase().includes("paid") || document.getElementById("oncepay").dataset.state === "success"`)
	if eval[bool](third, `!!document.querySelector("input")`) {
		t.Error("a link that is paid asks for a card")
	}
}
