package console

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/operators"
	"github.com/oncepay/oncepay/internal/transactions"
)

// form is an order's form as the page of a payment shows it, filled in by whoever has the
// password.
func (b *browser) form(p paid, route string) (path string, form url.Values) {
	b.w.t.Helper()
	page := b.get(p.path())
	path = p.path() + "/" + route
	_, after, found := strings.Cut(page.body, `action="`+path+`"`)
	if !found {
		b.w.t.Fatalf("there is no form for a %s: %s", route, page)
	}
	after, _, _ = strings.Cut(after, "</form>")
	form = url.Values{"password": {testPassword}}
	for _, m := range regexp.MustCompile(`<input [^>]*name="(transaction|nonce|amount)"[^>]*value="([^"]*)"`).FindAllStringSubmatch(after, -1) {
		form.Set(m[1], m[2])
	}
	if route == "capture" {
		form.Set("reason", "PRODUCT_CONFIRMED")
	}
	return path, form
}

// with is a form with other values in it.
func with(form url.Values, pairs ...string) url.Values {
	changed := url.Values{}
	for name, values := range form {
		changed[name] = values
	}
	for i := 0; i < len(pairs); i += 2 {
		changed.Set(pairs[i], pairs[i+1])
	}
	return changed
}

// file is what is known of a payment.
func (w *consoleUnderTest) file(p paid) transactions.PaymentFile {
	w.t.Helper()
	f, err := w.payments.File(w.t.Context(), uuid.MustParse(p.payment))
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// refunds are the amounts that a payment's refunds are about.
func (w *consoleUnderTest) refunds(p paid) []string {
	var all []string
	for _, t := range w.file(p).Transactions {
		if t.Type == transactions.Refund {
			all = append(all, plainAmount(t.Amount, t.Currency)+" "+string(t.Status))
		}
	}
	return all
}

func TestAPaymentsPageTellsAllOfIt(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	p := w.made("nonce/1%2?#", map[string]any{
		"merchant_order_id": "order-1", "description": "Two tickets", "merchant_reference": "ref-1", "metadata": []any{map[string]any{"key": "basket", "value": "b-17"}},
		"customer_payer": map[string]any{"merchant_customer_id": "cust-1"},
	})
	if a := w.call("/v1/payments/"+p.payment+"/transactions/"+p.transaction+"/refund", "refund-1", map[string]any{
		"merchant_reference": "ref-2", "amount": map[string]any{"currency": "USD", "value": 5}, "reason": "DUPLICATE",
	}); a.status != http.StatusOK {
		t.Fatal(a)
	}
	a := w.as(operators.Viewer).get(p.path())
	if a.status != http.StatusOK {
		t.Fatal(a)
	}
	for _, want := range []string{
		"<h1>45.67 USD</h1>", "PARTIALLY_REFUNDED", "First merchant", "/merchants/" + w.account.String(), "order-1", "Two tickets", "ref-1", "ref-2", "cust-1",
		"b-17", "VISA ····1111", "ONCEPAY_SANDBOX", "sbx_", `id="` + p.transaction + `"`, "/nonces/nonce%2F1%252%3F%23", "/nonces/refund-1", "DUPLICATE",
		"REFUND of 5.00 USD", "payment.purchase", "payment.refund", "<details><summary>The provider's answer", "/audit?target=payment%2F" + p.payment,
	} {
		if !strings.Contains(a.body, want) {
			t.Errorf("there is no %s", want)
		}
	}
	for _, hidden := range []string{"4111111111111111", "John Doe", "<form method=\"post\" action=\"/payments", `class="action"`, "What can be done"} {
		if strings.Contains(a.body, hidden) {
			t.Errorf("a viewer is shown %s", hidden)
		}
	}
}

func TestWhatThereIsNotIsNotFound(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Operator)
	for _, path := range []string{"/payments/" + uuid.NewString(), "/payments/x", "/transactions/" + uuid.NewString(), "/transactions/x"} {
		if a := b.get(path); a.status != http.StatusNotFound || !strings.Contains(a.body, "There is nothing here") {
			t.Errorf("%s: %d %s", path, a.status, a)
		}
	}
	p := w.made("", nil)
	if a := b.get("/transactions/" + p.transaction); a.status != http.StatusSeeOther || a.header.Get("Location") != p.path()+"#"+p.transaction {
		t.Errorf("%d to %s", a.status, a.header.Get("Location"))
	}
}

// Twenty clicks on one button are one refund, and each of them is led to what became of it.
func TestManyClicksOnRefundAreOneRefund(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	p := w.made("", nil)
	b := w.as(operators.Operator)
	path, form := b.form(p, "refund")
	form = with(form, "amount", "20", "reason", "REQUESTED_BY_CUSTOMER", "description", "asked on the phone")
	answers := make([]answer, 20)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() { answers[i] = b.post(path, form) })
	}
	all.Wait()
	done := 0
	for _, a := range answers {
		switch a.status {
		case http.StatusSeeOther:
			done++
			if want := p.path() + "?done=" + form.Get("nonce"); !strings.HasPrefix(a.header.Get("Location"), want) {
				t.Errorf("led to %s", a.header.Get("Location"))
			}
		case http.StatusConflict: // begun, but not to be seen yet
		case http.StatusTooManyRequests, http.StatusServiceUnavailable: // too many passwords at once, before anything began
		default:
			t.Errorf("got %d %s", a.status, a)
		}
	}
	if got := w.refunds(p); len(got) != 1 || got[0] != "20.00 SUCCEEDED" || done == 0 {
		t.Fatalf("%d were answered, refunds are %q", done, got)
	}
	if n := w.sql(`SELECT 1 FROM audit_entries WHERE action = 'payment.refund_ordered' AND actor_kind = 'operator' AND actor = $1::text`, b.Name); n != 1 {
		t.Errorf("%d orders in the audit log", n)
	}
	// Whoever goes back and sends the form once more, perhaps with another amount, moves
	// nothing, and is told so.
	again := b.post(path, with(form, "amount", "25"))
	if again.status != http.StatusSeeOther || !strings.HasSuffix(again.header.Get("Location"), "&again=differs") {
		t.Fatalf("%d to %s", again.status, again.header.Get("Location"))
	}
	page := b.get(again.header.Get("Location"))
	for _, want := range []string{"Refunded once: 20.00 USD", "Nothing was sent a second time", "/nonces/" + form.Get("nonce")} {
		if !strings.Contains(page.body, want) {
			t.Errorf("there is no %q", want)
		}
	}
	if got := w.refunds(p); len(got) != 1 {
		t.Errorf("refunds are %q", got)
	}
}

func TestAnOperatorCapturesAndCancels(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Operator)
	captured := w.made("", map[string]any{"capture": false})
	path, form := b.form(captured, "capture")
	if form.Get("amount") != "45.67" {
		t.Errorf("the amount is %q at first", form.Get("amount"))
	}
	if a := b.post(path, with(form, "amount", "30.5")); a.status != http.StatusSeeOther {
		t.Fatal(a)
	}
	if f := w.file(captured); f.Sums.Settled.String() != "30.5" || f.SubStatus != "PARTIALLY_CAPTURED" {
		t.Errorf("%s captured, %s", f.Sums.Settled, f.SubStatus)
	}
	canceled := w.made("", map[string]any{"capture": false})
	path, form = b.form(canceled, "cancel")
	a := b.post(path, form)
	if a.status != http.StatusSeeOther {
		t.Fatal(a)
	}
	if f := w.file(canceled); f.Status != "CANCELED" {
		t.Errorf("it is %s", f.Status)
	}
	if page := b.get(a.header.Get("Location")); !strings.Contains(page.body, "once: 45.67 USD") || strings.Contains(page.body, `class="action"`) {
		t.Errorf("got %s", page)
	}
}

// What is refused has moved nothing, and the form is there again with what was given and
// another nonce.
func TestARefusedOrderMovesNothingAndCanBeMended(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	p := w.made("", nil)
	b := w.as(operators.Operator)
	path, form := b.form(p, "refund")
	for _, c := range []struct {
		changed []string
		want    string
	}{
		{[]string{"amount", "45.68"}, "amount must not exceed what can still be refunded"},
		{[]string{"amount", "0"}, "amount must be greater than 0"},
		{[]string{"amount", ""}, "amount must be greater than 0"},
		{[]string{"amount", "-1"}, "amount must be greater than 0"},
		{[]string{"amount", "1,50"}, "amount must be greater than 0"},
		{[]string{"amount", "1.505"}, "decimal places"},
		{[]string{"reason", "BECAUSE"}, "reason must be"},
		{[]string{"description", "x"}, "description must have"},
		{[]string{"transaction", uuid.NewString()}, "there is no transaction with this id in the payment"},
		{[]string{"transaction", ""}, "transaction must be a UUID"},
		{[]string{"nonce", "1"}, "load the page again"},
	} {
		a := b.post(path, with(form, c.changed...))
		if a.status < 400 || a.status > 499 || !strings.Contains(a.body, c.want) || !strings.Contains(a.body, "<h1>45.67 USD</h1>") {
			t.Errorf("%q: %d, without %q in %s", c.changed, a.status, c.want, a)
		}
		if strings.Contains(a.body, `value="`+form.Get("nonce")+`"`) {
			t.Errorf("%q: the form has the same nonce", c.changed)
		}
	}
	if a := b.post(path, with(form, "amount", "45.68", "description", "for you")); !strings.Contains(a.body, `value="45.68"`) || !strings.Contains(a.body, `value="for you"`) {
		t.Errorf("what was given is gone: %s", a)
	}
	if a := b.post("/payments/"+uuid.NewString()+"/refund", form); a.status != http.StatusNotFound {
		t.Errorf("of no payment: %s", a)
	}
	if got := w.refunds(p); len(got) != 0 {
		t.Errorf("refunds are %q", got)
	}
}

func TestOnlyWhoMayAndKnowsThePasswordMovesMoney(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	p := w.made("", nil)
	unknown := w.made("", map[string]any{"merchant_order_id": "order-2", "description": "sandbox:500"})
	b, viewer := w.as(operators.Operator), w.as(operators.Viewer)
	_, form := b.form(p, "refund")
	resolve := url.Values{"outcome": {"succeeded"}, "reason": {"seen"}, "password": {testPassword}}
	posts := map[string]url.Values{
		p.path() + "/refund": form, p.path() + "/capture": form, p.path() + "/cancel": form, "/transactions/" + unknown.transaction + "/resolve": resolve,
	}
	for path, form := range posts {
		if a := viewer.post(path, form); a.status != http.StatusForbidden {
			t.Errorf("a viewer: %s: %d", path, a.status)
		}
		if a := b.post(path, with(form, "password", "not the password")); a.status != http.StatusForbidden {
			t.Errorf("without the password: %s: %d", path, a.status)
		}
		if a := b.post(path, form, "Sec-Fetch-Site", "cross-site"); a.status != http.StatusForbidden {
			t.Errorf("from another site: %s: %d", path, a.status)
		}
		if a := w.nobody().post(path, form); a.status != http.StatusSeeOther || a.header.Get("Location") != pathSignIn {
			t.Errorf("nobody: %s: %d", path, a.status)
		}
	}
	if got := w.refunds(p); len(got) != 0 {
		t.Errorf("refunds are %q", got)
	}
	if f := w.file(unknown); f.Transactions[0].Status.Terminal() {
		t.Errorf("it was resolved: %+v", f.Transactions[0])
	}
	for _, path := range []string{p.path(), "/unsettled"} {
		if a := viewer.get(path); a.status != http.StatusOK || strings.Contains(a.body, `method="post" action="/payments`) || strings.Contains(a.body, `action="/transactions`) {
			t.Errorf("%s shows a viewer a form: %s", path, a)
		}
	}
}

// While nobody knows what became of a refund, nobody is led to send another.
func TestARefundThatIsNotKnownOfLeavesNoFormForAnother(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	p := w.made("", nil)
	b := w.as(operators.Operator)
	path, form := b.form(p, "refund")
	form = with(form, "amount", "20", "description", "sandbox:500")
	a := b.post(path, form)
	page := a
	if a.status == http.StatusSeeOther {
		page = b.get(a.header.Get("Location"))
	}
	for _, want := range []string{"Not known yet: 20.00 USD", "/nonces/" + form.Get("nonce"), "nobody knows yet what became of it"} {
		if !strings.Contains(page.body, want) {
			t.Errorf("there is no %q", want)
		}
	}
	if strings.Contains(page.body, `class="action"`) {
		t.Errorf("there is a form: %s", page)
	}
	if t.Failed() {
		t.Logf("%d %s", a.status, page)
	}
}

// One that the provider has accepted and not decided is named. Another one beside it is legal,
// and nobody orders it without having read of the first.
func TestARefundThatIsAcceptedIsNamedAboveTheForms(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	p := w.made("", nil)
	b := w.as(operators.Operator)
	path, form := b.form(p, "refund")
	form = with(form, "amount", "20", "description", "sandbox:pending-then-approve=60s")
	a := b.post(path, form)
	if got := w.refunds(p); a.status != http.StatusSeeOther || len(got) != 1 || got[0] != "20.00 PENDING" {
		t.Fatalf("refunds are %q: %s", got, a)
	}
	page := b.get(p.path())
	notice, forms := strings.Index(page.body, "A REFUND of 20.00 USD is under way: the provider has accepted it"), strings.Index(page.body, `action="`+path+`"`)
	if notice < 0 || forms < notice || !strings.Contains(page.body, "What is ordered here comes on top of it.") || !strings.Contains(page.body, "at most 25.67") {
		t.Errorf("the notice is at %d, the form at %d: %s", notice, forms, page)
	}
	p = w.made("", map[string]any{"merchant_order_id": "order-2"})
	path, form = b.form(p, "refund")
	if a := b.post(path, with(form, "description", "sandbox:pending-then-approve=60s")); a.status != http.StatusSeeOther {
		t.Fatal(a)
	}
	page = b.get(p.path())
	if !strings.Contains(page.body, "Until it has, nothing else can be ordered.") || strings.Contains(page.body, `class="action"`) {
		t.Errorf("all of it is under way: %s", page)
	}
}

// A form whose nonce is spent on another payment's order moves nothing, and says why in words
// for whoever has never heard of a header.
func TestAFormThatWasUsedForAnotherOrderIsRefusedInWords(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	first, second := w.made("", nil), w.made("", map[string]any{"merchant_order_id": "order-2"})
	b := w.as(operators.Operator)
	path, form := b.form(first, "refund")
	if a := b.post(path, form); a.status != http.StatusSeeOther {
		t.Fatal(a)
	}
	path, other := b.form(second, "refund")
	a := b.post(path, with(other, "nonce", form.Get("nonce")))
	if a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, "this form was used for another order. Load the page again.") || strings.Contains(a.body, "Idempotency-Key") {
		t.Errorf("%d %s", a.status, a)
	}
	if strings.Contains(a.body, `value="`+form.Get("nonce")+`"`) {
		t.Error("the form has the spent nonce")
	}
	if got := w.refunds(second); len(got) != 0 {
		t.Errorf("refunds are %q", got)
	}
}

// A link can have the page tell what became of an order, and nothing else.
func TestNobodysWordsAreOnAPaymentsPage(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	p, other := w.made("", nil), w.made(uuid.NewString(), nil)
	b := w.as(operators.Operator)
	for _, done := range []string{"<b>paid</b>", uuid.NewString(), other.nonce} {
		if a := b.get(p.path() + "?done=" + url.QueryEscape(done) + "&again=same"); a.status != http.StatusOK || strings.Contains(a.body, `role="status"`) || strings.Contains(a.body, "paid") {
			t.Errorf("%s: %s", done, a)
		}
	}
}
