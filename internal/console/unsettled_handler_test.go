package console

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/operators"
)

// unknown is a payment of which nobody knows what became of it: the provider has said nothing
// that could be understood.
func (w *consoleUnderTest) unknown(order string) paid {
	w.t.Helper()
	return w.made("", map[string]any{"merchant_order_id": order, "description": "sandbox:charge-then-500"})
}

// age lets a transaction have begun three hours before it did, so that nothing of it is on its
// way any more.
func (w *consoleUnderTest) age(p paid) {
	w.t.Helper()
	if w.sql(`UPDATE transactions SET created_at = created_at - interval '3 hours', may_send_until = may_send_until - interval '3 hours' WHERE id = $1::uuid`, p.transaction) != 1 {
		w.t.Fatal("there is no such transaction")
	}
}

func (w *consoleUnderTest) park(p paid) {
	w.t.Helper()
	if w.sql(`UPDATE transactions SET parked_at = clock_timestamp() WHERE id = $1::uuid`, p.transaction) != 1 {
		w.t.Fatal("there is no such transaction")
	}
}

func TestWhatIsUnsettledIsListedTheLongestWaitingFirst(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Operator)
	if a := b.get("/unsettled"); a.status != http.StatusOK || !strings.Contains(a.body, `<p class="done">Nothing is unsettled`) {
		t.Errorf("nothing is unsettled: %s", a)
	}
	young, old := w.unknown("order-1"), w.unknown("order-2")
	w.age(old)
	w.park(old)
	pending := w.made("", map[string]any{"merchant_order_id": "order-3", "description": "sandbox:pending-then-approve=60s"})
	w.made("", map[string]any{"merchant_order_id": "order-4"})
	a := b.get("/unsettled")
	at := func(s string) int { return strings.Index(a.body, s) }
	if i, j, k := at(`id="`+old.transaction), at(`id="`+young.transaction), at(`id="`+pending.transaction); i < 0 || j < i || k < j {
		t.Fatalf("they are at %d, %d and %d: %s", i, j, k, a)
	}
	for _, want := range []string{"parked", "unknown", "accepted, not decided", "for 3 h", "Look for the reference " + old.transaction, "/nonces/" + young.nonce, "Wait: recovery asks", "order-2"} {
		if !strings.Contains(a.body, want) {
			t.Errorf("there is no %q", want)
		}
	}
	if strings.Contains(a.body, "order-4") {
		t.Error("a settled payment is listed")
	}
	parked := b.get("/unsettled?parked=true")
	if !strings.Contains(parked.body, old.transaction) || strings.Contains(parked.body, young.transaction) {
		t.Errorf("got %s", parked)
	}
	if a := b.get("/unsettled?account=" + uuid.NewString()); !strings.Contains(a.body, "Nothing is unsettled") {
		t.Errorf("another merchant's: %s", a)
	}
	if a := b.get("/unsettled?account=x"); a.status != http.StatusBadRequest || !strings.Contains(a.body, "account must be a UUID") {
		t.Errorf("got %s", a)
	}
}

// resolving is a decision's form.
func resolving(outcome string) url.Values {
	return url.Values{"outcome": {outcome}, "provider_reference": {"ref-1"}, "reason": {"seen on the provider's page\r\nby me"}, "password": {testPassword}}
}

func TestAnOperatorDecidesWhatBecameOfAParkedTransaction(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	p := w.unknown("order-1")
	w.age(p)
	w.park(p)
	b := w.as(operators.Operator)
	path := "/transactions/" + p.transaction + "/resolve"
	if page := b.get("/unsettled"); !strings.Contains(page.body, `action="`+path+`"`) {
		t.Fatalf("there is no form: %s", page)
	}
	a := b.post(path, resolving("succeeded"))
	if want := "/unsettled?resolved=" + p.transaction; a.status != http.StatusSeeOther || a.header.Get("Location") != want {
		t.Fatalf("%d to %s, %s", a.status, a.header.Get("Location"), a)
	}
	page := b.get(a.header.Get("Location"))
	if !strings.Contains(page.body, "Decided: the PURCHASE of 45.67 USD is SUCCEEDED") || !strings.Contains(page.body, "Nothing is unsettled") {
		t.Errorf("got %s", page)
	}
	if got := w.file(p); got.Status != "SUCCEEDED" || got.Transactions[0].ProviderReference != "ref-1" {
		t.Errorf("it is %s, %s", got.Status, got.Transactions[0].ProviderReference)
	}
	if n := w.sql(`SELECT 1 FROM audit_entries WHERE action = 'transaction.resolved' AND actor = $1::text AND details LIKE '%seen on the provider''s page by me%'`, b.Name); n != 1 {
		t.Errorf("%d decisions in the audit log", n)
	}
	again := b.post(path, resolving("failed"))
	if again.status != http.StatusConflict || !strings.Contains(again.body, "is SUCCEEDED already") {
		t.Errorf("decided again: %s", again)
	}
}

// A refusal is shown in words, with the form as it was filled in.
func TestADecisionThatCannotBeCarriedOutIsExplained(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	p := w.unknown("order-1")
	b := w.as(operators.Operator)
	path := "/transactions/" + p.transaction + "/resolve"
	page := b.get("/unsettled")
	if !strings.Contains(page.body, `value="failed" required disabled`) || !strings.Contains(page.body, "That it failed can be decided from") {
		t.Errorf("a charge may still arrive, and the page does not say so: %s", page)
	}
	a := b.post(path, resolving("failed"))
	if a.status != http.StatusConflict || !strings.Contains(a.body, "a charge may still arrive") || !strings.Contains(a.body, "(try again in ") || !strings.Contains(a.body, "ref-1") {
		t.Errorf("before the proof moment: %d %s", a.status, a)
	}
	for _, c := range []struct {
		changed []string
		want    string
	}{
		{[]string{"outcome", ""}, "outcome must be succeeded or failed"},
		{[]string{"outcome", "maybe"}, "outcome must be succeeded or failed"},
		{[]string{"reason", " \r\n "}, "reason must have 1 to 500 characters"},
		{[]string{"reason", strings.Repeat("r", 501)}, "reason must have 1 to 500 characters"},
		{[]string{"reason", "a\x00b"}, "reason must have 1 to 500 characters"},
		{[]string{"provider_reference", strings.Repeat("r", 256)}, "provider_reference must have at most 255 characters"},
		{[]string{"provider_reference", "\xff"}, "provider_reference must have at most 255 characters"},
	} {
		if a := b.post(path, with(resolving("succeeded"), c.changed...)); a.status != http.StatusBadRequest || !strings.Contains(a.body, c.want) {
			t.Errorf("%q: %d, without %q in %s", c.changed, a.status, c.want, a)
		}
	}
	if w.file(p).Transactions[0].Status.Terminal() {
		t.Error("it was resolved")
	}
	for _, id := range []string{uuid.NewString(), "x"} {
		if a := b.post("/transactions/"+id+"/resolve", resolving("succeeded")); a.status != http.StatusNotFound {
			t.Errorf("%s: %d %s", id, a.status, a)
		}
	}
	// What the provider knows better is recorded instead, and said.
	w.age(p)
	if a := b.post(path, resolving("failed")); a.status != http.StatusConflict || !strings.Contains(a.body, "the provider knows this transaction as") {
		t.Errorf("the provider knows better: %d %s", a.status, a)
	}
	if got := w.file(p); got.Status != "SUCCEEDED" {
		t.Errorf("it is %s", got.Status)
	}
}

// Whoever is refused keeps what they typed, however many wait longer, and whatever became of
// it meanwhile.
func TestARefusedDecisionIsShownWhereverItStandsInTheList(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	p := w.unknown("order-1")
	const more = 60 // than a page has
	w.sql(`INSERT INTO transactions SELECT (jsonb_populate_record(t, jsonb_build_object(
			'id', overlay(t.id::text PLACING lpad(n::text, 12, '0') FROM 25), 'nonce', 'copy-' || n, 'created_at', t.created_at - interval '1 hour'))).*
		FROM transactions t, generate_series(1, ` + strconv.Itoa(more) + `) n WHERE t.id = '` + p.transaction + `'`)
	b := w.as(operators.Operator)
	path := "/transactions/" + p.transaction + "/resolve"
	if page := b.get("/unsettled"); strings.Contains(page.body, `action="`+path+`"`) {
		t.Fatal("it is on the first page")
	}
	a := b.post(path, with(resolving("succeeded"), "reason", strings.Repeat("why ", 126)))
	for _, want := range []string{`href="#` + p.transaction + `"`, `id="` + p.transaction + `"`, `action="` + path + `"`, "why why", `value="ref-1"`, "reason must have 1 to 500", "further down the list"} {
		if a.status != http.StatusBadRequest || !strings.Contains(a.body, want) {
			t.Errorf("%d, there is no %q", a.status, want)
		}
	}
	if strings.Count(a.body, "<details class=\"action\" open>") != 1 {
		t.Errorf("another form is open: %s", a)
	}
	// While somebody works on it there is no form for it, but there is one for who had it.
	w.sql(`UPDATE transactions SET lease_until = clock_timestamp() + interval '1 hour', created_at = created_at - interval '2 hours' WHERE id = $1::uuid`, p.transaction)
	a = b.post(path, resolving("succeeded"))
	if a.status != http.StatusConflict || !strings.Contains(a.body, `action="`+path+`"`) || !strings.Contains(a.body, "seen on the provider&#39;s page") {
		t.Errorf("somebody is at work: %d %s", a.status, a)
	}
	w.sql(`UPDATE transactions SET lease_until = clock_timestamp() WHERE id = $1::uuid`, p.transaction)
	if a := b.post(path, resolving("succeeded")); a.status != http.StatusSeeOther {
		t.Fatal(a)
	}
	a = b.post(path, resolving("succeeded"))
	if a.status != http.StatusConflict || !strings.Contains(a.body, `href="/transactions/`+p.transaction+`"`) || strings.Contains(a.body, `action="`+path+`"`) {
		t.Errorf("it is settled: %d %s", a.status, a)
	}
}

// Nobody is told by a link that something was decided which was not.
func TestALinkDecidesNothing(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	p := w.unknown("order-1")
	b := w.as(operators.Viewer)
	for _, id := range []string{p.transaction, uuid.NewString(), "<b>x</b>"} {
		if a := b.get("/unsettled?resolved=" + url.QueryEscape(id)); a.status != http.StatusOK || strings.Contains(a.body, "Decided") || strings.Contains(a.body, "<b>x") {
			t.Errorf("%s: %s", id, a)
		}
	}
}
