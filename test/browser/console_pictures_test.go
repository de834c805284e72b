package browser

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/test/harness"
)

// sold are the payments of the pictures: who sells, for how much, and what goes wrong.
var sold = []struct{ shop, order, value, currency, card, fault string }{
	{"Blue Door Books", "BD-77120", "23.90", "EUR", goodCard, ""},
	{"Acme Coffee", "2026-1038", "12.50", "USD", goodCard, ""},
	{"Acme Coffee", "2026-1039", "8.00", "USD", poorCard, ""},
	{"Casa Azul", "CA-0991", "1249.00", "MXN", goodCard, ""},
	{"Blue Door Books", "BD-77121", "64.00", "EUR", "5252440000000013", ""},
	{"Acme Coffee", "2026-1040", "45.00", "USD", plainCard, "sandbox:pending-then-approve=60s"},
	{"Casa Azul", "CA-0992", "310.50", "MXN", plainCard, "sandbox:pending-then-approve=60s"},
	{"Blue Door Books", "BD-77122", "18.20", "EUR", goodCard, ""},
	{"Acme Coffee", "2026-1041", "37.00", "USD", goodCard, ""},
}

// sells makes them, each with a nonce as its shop would make one.
func (s *stage) sells() (last made) {
	s.t.Helper()
	shops := map[string]harness.Keys{}
	for _, x := range sold {
		keys, known := shops[x.shop]
		if !known {
			var err error
			if keys, err = s.dev.Info.Operator().NewMerchant(s.t.Context(), x.shop); err != nil {
				s.t.Fatal(err)
			}
			shops[x.shop] = keys
		}
		more := map[string]any{
			"amount":         map[string]any{"currency": x.currency, "value": json.Number(x.value)},
			"payment_method": byCard(x.card, true), "customer_payer": map[string]any{"merchant_customer_id": "customer-" + x.order},
		}
		if x.fault != "" {
			more["description"] = x.fault
		}
		last = s.pays(harness.NewClient(s.dev.Info.BaseURL, keys), keys.AccountID, x.order+"/attempt-1", x.order, more)
	}
	pgtest.Exec(s.t, s.database, `UPDATE transactions SET parked_at = clock_timestamp(), next_attempt_at = clock_timestamp() + interval '1 hour' WHERE nonce = $1`, "CA-0992/attempt-1")
	return last
}

// aDay makes up what the charts show: a quiet night, a busy evening, half an hour in which the
// provider was slow.
const aDay = `INSERT INTO request_minutes (minute, instance_id, requests, failures, began, replayed, conflicts, durations)
	SELECT m, '01a204f5-57f7-77d4-9275-7c7225c4172f', n, CASE WHEN slow THEN n / 20 ELSE 0 END, n - n / 9, n / 14 + CASE WHEN slow THEN n / 8 ELSE 0 END, n / 70,
		(SELECT array_agg((CASE b WHEN 3 THEN n / 3 WHEN 4 THEN n / 2 WHEN 5 THEN n / 6 WHEN 6 THEN n / 30 WHEN 9 THEN CASE WHEN slow THEN n / 5 ELSE n / 200 END ELSE 0 END)::bigint ORDER BY b)
			FROM generate_series(1, $1::int) b)
	FROM (SELECT m, (240 - 150 * cos((extract(hour FROM m) + extract(minute FROM m) / 60 - 4) / 12 * pi()) + random() * 30)::bigint AS n,
			m BETWEEN now() - interval '430 minutes' AND now() - interval '400 minutes' AS slow
		FROM generate_series(date_trunc('minute', now()) - interval '25 hours', date_trunc('minute', now()) - interval '1 minute', interval '1 minute') m) x`

// TestPicturesOfTheConsole makes those of the documentation, in the folder that SCREENSHOTS
// names, such as docs/assets. `pngquant --quality 85-100` makes them a third as large.
func TestPicturesOfTheConsole(t *testing.T) {
	if os.Getenv("SCREENSHOTS") == "" {
		t.Skip("SCREENSHOTS names no folder for pictures")
	}
	s := newHeldStage(t, soon...)
	d := s.signsUp(s.setUpLink(), "ada")
	crashed := s.crashes()
	paid := s.sells()
	s.colleague("olga", "operator")
	mustBe(t, s.dev.Info.Operator().Do(t.Context(), http.MethodPost, "/admin/v1/tokens", map[string]any{"name": "nightly report", "scope": "viewer"}), http.StatusCreated)
	s.fillsADay()
	nonce := "/nonces/" + url.PathEscape(crashed.Nonce)
	d.pictured("console-front", "/?range=24h", 1280, 1500, "light", "")
	d.pictured("console-nonce", nonce, 1280, 1022, "light", "")
	d.pictured("console-nonce-dark", nonce, 390, 1500, "dark", "")
	d.pictured("console-payments", "/payments", 1280, 960, "light", "")
	d.pictured("console-payment", "/payments/"+paid.ID, 1280, 1400, "light", fmt.Sprintf(`(document.querySelector(%q).closest("details").open = true)`, refundForm))
	d.pictured("console-unsettled", "/unsettled", 1280, 1010, "light", "")
	d.pictured("console-audit", "/audit", 1280, 900, "light", "")
}

// fillsADay fills the charts, once there is a row to learn from how many bounds there are.
func (s *stage) fillsADay() {
	s.t.Helper()
	harness.Eventually(s.t, harness.Patience, "the first figures", func() bool { return s.number(`SELECT count(*) FROM request_minutes`) > 0 })
	bounds := s.number(`SELECT max(cardinality(durations)) FROM request_minutes`)
	pgtest.Exec(s.t, s.database, aDay, bounds)
}

// pictured takes a picture of a page, from its top, as high as it is but no higher than that.
func (d *desk) pictured(name, path string, width, height int64, scheme, does string) {
	d.t.Helper()
	d.looks(width, 400, scheme) // a page is as high as the window at least
	d.open(path)
	if does != "" {
		eval[bool](d.tab, "("+does+", true)")
	}
	d.looks(width, min(height, eval[int64](d.tab, `document.documentElement.scrollHeight`)), scheme)
	call(d.tab, page.BringToFront, cdp.Empty{})
	picture, err := chromedp.Run(d.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(os.Getenv("SCREENSHOTS"), name+".png"), picture, 0o644); err != nil {
		d.t.Fatal(err)
	}
}
