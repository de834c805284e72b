package transactions

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/merchants"
)

// find searches.
func (w *world) find(q string) Results {
	w.t.Helper()
	r, err := w.service.Search(w.t.Context(), q)
	if err != nil {
		w.t.Fatalf("%q: %v", q, err)
	}
	return r
}

// wantFound fails the test unless exactly these payments were found, as that kind.
func (w *world) wantFound(q string, kind FoundKind, payments ...string) {
	w.t.Helper()
	r := w.find(q)
	if len(r.Groups) != 1 || r.Groups[0].Kind != kind || r.Groups[0].More {
		w.t.Fatalf("%q: found %+v, want only %s", q, r.Groups, kind)
	}
	var got []string
	for _, f := range r.Groups[0].Found {
		got = append(got, f.PaymentID.String())
		if f.MerchantName == "" || f.Kind != kind || f.What == "" || f.Currency != "USD" && f.PaymentID != uuid.Nil || f.CreatedAt.IsZero() {
			w.t.Errorf("%q: found %+v, which lacks something", q, f)
		}
	}
	if !slices.Equal(got, payments) {
		w.t.Fatalf("%q: found %q, want %q", q, got, payments)
	}
	if _, only := r.Only(); only != (len(payments) == 1 && payments[0] != uuid.Nil.String() || kind == FoundNonce) {
		w.t.Errorf("%q: alone: %t", q, only)
	}
}

// ofTheConsole are the statements by which operators read, and no payment's life does. Those
// by which they order something meet their errors in operate_test.go.
var ofTheConsole = []string{
	"transactions.search_nonce", "transactions.search_payment", "transactions.search_transaction", "transactions.search_order",
	"transactions.search_reference", "transactions.search_customer", "transactions.search_known_customer", "transactions.search_session",
	"transactions.search_link", "transactions.look_at_all", "transactions.look_at_merchant", "transactions.look_at_customer",
	"transactions.look_at_nonce", "transactions.look_at_order", "transactions.lines", "transactions.file", "transactions.file_transactions",
	"transactions.file_events", "transactions.unsettled", "transactions.any_payment", "transactions.ordered",
}

func TestASearchFindsAPaymentByEverythingThatIsKnownOfIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := w.body("order-1", map[string]any{"customer_payer": map[string]any{"merchant_customer_id": "Ünïcode customer 1"}})
	first := w.create("nonce-1", body)
	w.want(first, http.StatusCreated)
	payment, transaction := textAt(first, "id"), textAt(first, "transactions", "id")
	reference := textAt(first, "transactions", "provider_data", "transaction_id")
	refund := w.act("nonce-refund", sale{payment, transaction}.refund("5"))
	w.want(refund, http.StatusOK)
	w.want(w.create("another", w.body("another", nil)), http.StatusCreated)

	w.wantFound("nonce-1", FoundNonce, payment)
	w.wantFound(" nonce-refund\n", FoundNonce, payment)
	w.wantFound(strings.ToUpper(payment), FoundPayment, payment)
	w.wantFound(transaction, FoundTransaction, payment)
	w.wantFound("order-1", FoundOrder, payment)
	w.wantFound(reference, FoundReference, payment)
	w.wantFound("Ünïcode customer 1", FoundCustomer, payment)
	for _, absent := range []string{"", " ", "order", "ORDER-1", "nonce-", "%", "_", "' OR true --", "@q ? $1", uuid.NewString(), unsent} {
		if r := w.find(absent); r.Len() != 0 || len(r.Groups) != 0 {
			t.Errorf("%q: found %+v", absent, r)
		}
	}
	found := w.find("nonce-refund").Groups[0].Found[0]
	if found.What != "REFUND, SUCCEEDED" || !found.Amount.Equal(decimal.NewFromInt(5)) || found.Nonce != "nonce-refund" || found.Order != "order-1" || found.Status != "SUCCEEDED" ||
		found.SubStatus != "PARTIALLY_REFUNDED" || found.Mode != merchants.Test || found.AccountID != w.account || found.Customer != "Ünïcode customer 1" {
		t.Errorf("the refund is found as %+v", found)
	}
}

// unsent is how the nonce of a request without one begins in the database.
const unsent = "…"

func TestASearchFindsWhatBelongsToACheckout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	customer, absentee := w.customer(column{"merchant_customer_id", "shopper-1"}), w.customer(column{"merchant_customer_id", "shopper-2"})
	link := uuid.Must(uuid.NewV7())
	w.insert("payment_links", []column{
		{"account_id", w.account}, {"id", link}, {"code", "a-code"}, {"mode", "test"}, {"merchant_order_id", "order-1"}, {"country", "US"}, {"currency", "USD"},
		{"amount", "45.67"}, {"one_time_use", true}, {"start_at", time.Now()}, {"finish_at", time.Now().Add(time.Hour)}, {"details", "{}"},
		{"created_at", time.Now()}, {"updated_at", time.Now()},
	})
	session := w.session("order-1", column{"customer_id", customer})
	nonce := newNonce()
	w.want(w.pays(nonce, session, w.token(session)), http.StatusCreated)
	payment := w.transaction(nonce).PaymentID.String()
	w.sql(`UPDATE checkout_sessions SET link_id = $2 WHERE id = $1`, session, link)
	w.sql(`UPDATE payments SET request = (request::jsonb || jsonb_build_object('payment_link_code', $2::text))::text WHERE id = $1`, payment, "a-code")
	w.wantFound(session.String(), FoundSession, payment)
	w.wantFound("a-code", FoundLink, payment)
	w.wantFound(link.String(), FoundLink, payment)
	w.wantFound("shopper-1", FoundCustomer, payment)
	w.wantFound(customer.String(), FoundCustomer, payment)
	w.wantFound("shopper-2", FoundCustomer, uuid.Nil.String())
	w.wantFound(absentee.String(), FoundCustomer, uuid.Nil.String())

	file, err := w.service.File(t.Context(), uuid.MustParse(payment))
	if err != nil || file.SessionID != session || file.TokenID == uuid.Nil || file.LinkCode != "a-code" || file.Customer != "shopper-1" {
		t.Errorf("the file (%v) is %+v", err, file)
	}
}

func TestASearchCrossesMerchantsAndModesAndTellsTheNewestTwenty(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other, _ := w.newMerchant("Second merchant")
	live := request0(w, "nonce-live", "the order", w.live)
	w.sql(`INSERT INTO payments (account_id, id, mode, merchant_order_id, status, sub_status, currency, amount, request, merchant_customer_id, created_at, updated_at)
		SELECT $1, gen_random_uuid(), mode, merchant_order_id, status, sub_status, currency, 1, request, 'c', created_at - interval '1 hour', updated_at FROM payments`, other)
	r := w.find("the order")
	if r.Len() != 2 || r.Groups[0].Found[0].PaymentID.String() != live || r.Groups[0].Found[1].AccountID != other || r.Groups[0].Found[1].MerchantName != "Second merchant" {
		t.Fatalf("found %+v", r)
	}
	if _, only := r.Only(); only {
		t.Error("two payments are one")
	}
	for i := range maxFound {
		w.want(w.create(fmt.Sprint("nonce-", i), w.body("the order", nil)), http.StatusCreated)
	}
	if g := w.find("the order").Groups[0]; len(g.Found) != maxFound || !g.More || !slices.IsSortedFunc(g.Found, func(a, b Found) int { return b.CreatedAt.Compare(a.CreatedAt) }) {
		t.Errorf("found %d of 22, more: %t", len(g.Found), g.More)
	}
}

// request0 is a payment with a key of another mode.
func request0(w *world, nonce, order string, pair merchants.KeyPair) (payment string) {
	w.t.Helper()
	r := w.createOn(w.instance, pair, nonce, w.body(order, nil))
	w.want(r, http.StatusCreated)
	return textAt(r, "id")
}

func TestASearchRefusesWhatCannotBeText(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, q := range []string{strings.Repeat("é", maxSearch+1), "a\x00b", "\xff", "a\nb"} {
		if _, err := w.service.Search(t.Context(), q); !isCode(err, apierr.InvalidParameters) {
			t.Errorf("%.20q: %v", q, err)
		}
		if _, err := w.service.Payments(t.Context(), PaymentFilter{Order: q}, uuid.Nil, 1); len(q) < maxSearch && !isCode(err, apierr.InvalidParameters) {
			t.Errorf("filter %.20q: %v", q, err)
		}
	}
	if _, err := w.service.Search(t.Context(), strings.Repeat("é", maxSearch)); err != nil {
		t.Error(err)
	}
}

func isCode(err error, code apierr.Code) bool {
	e, ok := apierr.From(err)
	return ok && e.Code == code
}

// listed are the orders of all pages of that size.
func (w *world) listed(f PaymentFilter, limit int) (orders []string) {
	w.t.Helper()
	var before uuid.UUID
	for {
		page, err := w.service.Payments(w.t.Context(), f, before, limit)
		if err != nil {
			w.t.Fatal(err)
		}
		if len(page.Payments) > limit || page.Complete == (page.Next != uuid.Nil) {
			w.t.Fatalf("a page of %d payments, complete %t, next %s", len(page.Payments), page.Complete, page.Next)
		}
		for _, p := range page.Payments {
			orders = append(orders, p.Order)
		}
		if page.Complete {
			return orders
		}
		before = page.Next
	}
}

func TestAListShowsWhatFitsItsFilterTheNewestFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other, _ := w.newMerchant("Second merchant")
	body := func(order, amount, customer string) []byte {
		return w.body(order, map[string]any{"amount": json.Number(amount), "customer_payer": map[string]any{"merchant_customer_id": customer}})
	}
	w.want(w.create("nonce-a", body("o-a", "1", "c1")), http.StatusCreated)
	w.psp.next(decline)
	w.want(w.create("nonce-b", body("o-b", "2", "c2")), http.StatusCreated)
	w.want(w.createOn(w.instance, w.live, "nonce-c", body("o-c", "3", "c1")), http.StatusCreated)
	w.want(w.create("nonce-d", body("o-d", "4", "c2")), http.StatusCreated)
	refunded := w.find("o-d").Groups[0].Found[0]
	w.want(w.act("nonce-r", sale{refunded.PaymentID.String(), w.transaction("nonce-d").ID.String()}.refund("4")), http.StatusOK)
	now := time.Now()
	hour, before := now.Add(-time.Hour), now.Add(-2*time.Hour)
	two, three := decimal.NewFromInt(2), decimal.NewFromInt(3)
	for _, c := range []struct {
		f    PaymentFilter
		want string
	}{
		{PaymentFilter{}, "o-d o-c o-b o-a"},
		{PaymentFilter{AccountID: w.account}, "o-d o-c o-b o-a"},
		{PaymentFilter{AccountID: other}, ""},
		{PaymentFilter{Mode: merchants.Live}, "o-c"},
		{PaymentFilter{Mode: merchants.Live, Order: "o-c"}, "o-c"},
		{PaymentFilter{Mode: merchants.Live, Order: "o-d"}, ""},
		{PaymentFilter{Order: "o-b", AccountID: w.account}, "o-b"},
		{PaymentFilter{Order: "o-b", AccountID: other}, ""},
		{PaymentFilter{Order: "o-b", From: &hour}, "o-b"},
		{PaymentFilter{Order: "o-b", To: &hour}, ""},
		{PaymentFilter{Status: "SUCCEEDED"}, "o-c o-a"},
		{PaymentFilter{Status: "REFUNDED", SubStatus: "REFUNDED", AccountID: w.account}, "o-d"},
		{PaymentFilter{ResponseCode: "INSUFFICIENT_FUNDS"}, "o-b"},
		{PaymentFilter{MinAmount: &two, MaxAmount: &three}, "o-c o-b"},
		{PaymentFilter{MinAmount: &two, Currency: "EUR"}, ""},
		{PaymentFilter{Nonce: "nonce-a"}, "o-a"},
		{PaymentFilter{Nonce: "nonce-r"}, "o-d"},
		{PaymentFilter{Nonce: "nonce-r", Status: "SUCCEEDED"}, ""},
		{PaymentFilter{Customer: "c1"}, "o-c o-a"},
		{PaymentFilter{Customer: "c1", Mode: merchants.Test, AccountID: w.account}, "o-a"},
		{PaymentFilter{Customer: "c"}, ""},
		{PaymentFilter{From: &hour}, "o-d o-c o-b o-a"},
		{PaymentFilter{From: &before, To: &hour}, ""},
		{PaymentFilter{To: &hour, AccountID: w.account}, ""},
	} {
		for _, limit := range []int{1, 2, 50} {
			if got := strings.Join(w.listed(c.f, limit), " "); got != c.want {
				t.Errorf("%+v, %d a page: %q, want %q", c.f, limit, got, c.want)
			}
		}
	}
	page, err := w.service.Payments(t.Context(), PaymentFilter{Order: "o-d"}, uuid.Nil, 0)
	if err != nil || len(page.Payments) != 1 {
		t.Fatal(page, err)
	}
	line := page.Payments[0]
	if line.MerchantName != "First merchant" || line.Nonce != "nonce-d" || line.CardBrand != "VISA" || line.CardLastFour != "1111" || line.Provider != w.psp.Name() ||
		line.ResponseCode != "SUCCEEDED" || !line.Refunded.Equal(decimal.NewFromInt(4)) || line.Customer != "c2" || line.Type != Purchase || line.TransactionStatus != Succeeded {
		t.Errorf("the line is %+v", line)
	}
}

// TestAListLooksAtABoundedNumberAndSaysHowFar: what is rare, or nowhere, must not cost a
// scan of everything. The page is short, says how far back it has looked, and the next goes
// on from there.
func TestAListLooksAtABoundedNumberAndSaysHowFar(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.sold("rare", "1")
	w.sql(`INSERT INTO payments (account_id, id, mode, merchant_order_id, status, sub_status, currency, amount, request, created_at, updated_at)
		SELECT p.account_id, (lpad(to_hex((extract(epoch FROM p.created_at) * 1000)::bigint + i), 12, '0') || '7000' || '8000' || lpad(i::text, 12, '0'))::uuid, p.mode, 'common', 'DECLINED', 'DECLINED',
		       p.currency, 1, p.request, p.created_at + i * interval '1 millisecond', p.updated_at FROM payments p, generate_series(1000, 8000) i`)
	w.sql(`INSERT INTO transactions (account_id, id, payment_id, mode, type, status, currency, amount, provider, nonce, card, lease_holder, instance_id, may_send_until, next_attempt_at, travel_us, created_at, updated_at)
		SELECT account_id, id, id, mode, 'PURCHASE', 'DECLINED', currency, 1, 'TEST_PSP', id::text, '{}', id, id, created_at, created_at, 0, created_at, created_at FROM payments WHERE merchant_order_id = $1`, "common")
	f := PaymentFilter{Status: "SUCCEEDED"}
	page, err := w.service.Payments(t.Context(), f, uuid.Nil, 10)
	if err != nil || len(page.Payments) != 0 || page.Complete || page.Next == uuid.Nil {
		t.Fatalf("%+v, %v", page, err)
	}
	if newer := w.count(`SELECT count(*) FROM payments WHERE created_at >= $1`, page.SearchedTo); newer != maxLooked {
		t.Errorf("looked at %d payments, want %d", newer, maxLooked)
	}
	if page, err = w.service.Payments(t.Context(), f, page.Next, 10); err != nil || len(page.Payments) != 1 || page.Payments[0].ID.String() != first.payment || !page.Complete {
		t.Errorf("the second page is %+v, %v", page, err)
	}

	told := 0
	stop := errors.New("enough")
	count := func(PaymentLine) error { told++; return nil }
	if err := w.service.EachPayment(t.Context(), PaymentFilter{Order: "common"}, 10_000, count); err != nil || told != 7001 {
		t.Errorf("%d payments were exported, error %v", told, err)
	}
	told = 0
	if err := w.service.EachPayment(t.Context(), PaymentFilter{}, 600, count); !errors.Is(err, ErrMorePayments) || told != 600 {
		t.Errorf("%d payments were exported, error %v", told, err)
	}
	told = 0
	if err := w.service.EachPayment(t.Context(), f, 10, count); err != nil || told != 1 {
		t.Errorf("%d payments were exported, error %v", told, err)
	}
	if err := w.service.EachPayment(t.Context(), PaymentFilter{}, 600, func(PaymentLine) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the export ended with %v", err)
	}
}

func TestAFileHasAllOfAPaymentAndNothingOfItsCard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.create("nonce-1", w.body("order-1", map[string]any{
		"amount": json.Number("100"), "capture": false, "metadata": []any{map[string]any{"key": "a", "value": "b"}},
		"customer_payer": map[string]any{"first_name": "Ada"}, "merchant_reference": "reference-0",
	}))
	w.want(r, http.StatusCreated)
	s := sale{textAt(r, "id"), textAt(r, "transactions", "id")}
	captured := w.act("capture-1", s.capture("60"))
	w.want(captured, http.StatusOK)
	w.want(w.act("refund-1", s.refundOf(textAt(captured, "id"), "10").with(map[string]any{"description": "too large"})), http.StatusOK)
	f, err := w.service.File(t.Context(), uuid.MustParse(s.payment))
	if err != nil {
		t.Fatal(err)
	}
	if f.ID.String() != s.payment || f.MerchantName != "First merchant" || f.Nonce != "nonce-1" || f.MerchantReference != "reference-0" || f.Capture ||
		!f.Sums.Captured.Equal(decimal.NewFromInt(60)) || !f.Sums.Refunded.Equal(decimal.NewFromInt(10)) || f.Version != 3 || f.AuthorizedUntil == nil ||
		f.CardLastFour != "1111" || !strings.Contains(f.CustomerPayer, "\n  \"first_name\": \"Ada\"\n") || !strings.Contains(f.Metadata, `"key": "a"`) {
		t.Errorf("the file is %+v", f)
	}
	var types []string
	for _, one := range f.Transactions {
		types = append(types, string(one.Type)+" "+string(one.Status)+" "+one.Nonce+" "+one.Description)
	}
	if want := []string{"AUTHORIZE SUCCEEDED nonce-1 ", "CAPTURE SUCCEEDED capture-1 ", "REFUND SUCCEEDED refund-1 too large"}; !slices.Equal(types, want) {
		t.Errorf("the transactions are %q, want %q", types, want)
	}
	var events []string
	for _, e := range f.Events {
		events = append(events, fmt.Sprint(e.Seq, " ", e.Type, " ", e.SubStatus))
	}
	if want := []string{"1 payment.authorize AUTHORIZED", "2 payment.capture PARTIALLY_CAPTURED", "3 payment.refund PARTIALLY_REFUNDED"}; !slices.Equal(events, want) {
		t.Errorf("the events are %q", events)
	}
	all, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"4111111111111111", "41111111", `"123"`, "fingerprint", "John Doe"} {
		if strings.Contains(string(all), secret) {
			t.Errorf("the file has %s", secret)
		}
	}
	if id, err := w.service.PaymentOf(t.Context(), w.transaction("refund-1").ID); err != nil || id.String() != s.payment {
		t.Errorf("the payment of the refund is %s (%v)", id, err)
	}
	if _, err := w.service.File(t.Context(), uuid.New()); !isCode(err, apierr.PaymentNotFound) {
		t.Errorf("the file of nobody: %v", err)
	}
	if _, err := w.service.PaymentOf(t.Context(), uuid.New()); !isCode(err, apierr.NotFound) {
		t.Errorf("the payment of nothing: %v", err)
	}
}

func TestAFileSaysWhatMayBeDoneByTheRulesOfActions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	want := func(s sale, want ...string) {
		t.Helper()
		f, err := w.service.File(t.Context(), uuid.MustParse(s.payment))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range f.Possible {
			got = append(got, fmt.Sprint(p.Route, " ", p.Type, " ", p.Max, " ", p.Whole))
		}
		if !slices.Equal(got, want) {
			t.Errorf("possible is %q, want %q", got, want)
		}
	}
	held := w.held("order-1", "100")
	want(held, "capture AUTHORIZE 100 false", "cancel AUTHORIZE 100 true")
	w.want(w.act("capture-1", held.capture("60")), http.StatusOK)
	want(held, "refund CAPTURE 60 false", "capture AUTHORIZE 40 false")
	expiring := w.held("order-2", "100")
	w.sql(`UPDATE authorizations SET expires_at = clock_timestamp() WHERE payment_id = $1`, expiring.payment)
	want(expiring, "cancel AUTHORIZE 100 true")
	sold := w.sold("order-3", "100")
	w.want(w.act("refund-1", sold.refund("30")), http.StatusOK)
	want(sold, "refund PURCHASE 70 false")
	w.want(w.act("refund-2", sold.refund("")), http.StatusOK)
	want(sold)
	w.sql(`UPDATE transactions SET provider = 'GONE' WHERE payment_id = $1`, held.payment)
	want(held)
}

func TestWhatIsNotSettledIsListedWithWhatToDo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.psp.next(timeout)
	w.create("parked", w.body("order-1", nil))
	w.park("parked")
	w.psp.next(timeout)
	w.create("unknown", w.body("order-2", nil))
	w.shift("unknown", 40*time.Second)
	w.want(w.create("settled", w.body("order-4", nil)), http.StatusCreated)
	s := w.sold("order-3", "10")
	w.psp.nextOperation(acceptedForNow)
	w.act("accepted", s.refund("4"))
	w.shift("parked", time.Hour)

	page, err := w.service.Unsettled(t.Context(), UnsettledFilter{}, uuid.Nil, 2)
	if err != nil || len(page.Transactions) != 2 || page.Next == uuid.Nil {
		t.Fatalf("%+v %v", page, err)
	}
	rest, err := w.service.Unsettled(t.Context(), UnsettledFilter{AccountID: w.account}, page.Next, 2)
	if err != nil || len(rest.Transactions) != 1 || rest.Next != uuid.Nil {
		t.Fatalf("%+v %v", rest, err)
	}
	want := []struct {
		nonce string
		state UnsettledState
		tells string
	}{
		{"parked", UnsettledParked, "Look for the reference " + w.transaction("parked").ID.String() + " on the pages of TEST_PSP"},
		{"unknown", UnsettledUnknown, "Wait: recovery asks the provider"},
		{"accepted", UnsettledAccepted, "Wait: the provider has accepted it and not decided yet"},
	}
	for n, got := range append(page.Transactions, rest.Transactions...) {
		if got.Nonce != want[n].nonce || got.State != want[n].state || !strings.HasPrefix(got.Advice, want[n].tells) || got.MerchantName == "" || got.Order == "" ||
			!got.Resolvable || !got.Configured || got.LastCall == nil || got.Age != got.Age.Truncate(time.Second) {
			t.Errorf("%+v, want %+v", got, want[n])
		}
	}
	if got := page.Transactions[0]; got.Age < time.Hour || !got.FailedPossible || !strings.HasSuffix(got.Advice, "if it is not, as failed.") {
		t.Errorf("the parked is %+v", got)
	}
	parked, err := w.service.Unsettled(t.Context(), UnsettledFilter{Parked: true}, uuid.Nil, 0)
	if err != nil || len(parked.Transactions) != 1 || parked.Transactions[0].Nonce != "parked" {
		t.Errorf("%+v %v", parked, err)
	}
}

func TestAdviceIsGivenForEveryStateOfWhatIsNotSettled(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	later := now.Add(time.Minute)
	for want, row := range map[string]unsettledRow{
		"somebody is working on it, until 2026-11-22 10:01:00 UTC": {Transaction: Transaction{Status: Created, LeaseUntil: &later}},
		"the payer has not passed":                                 {LeaseOver: true, Transaction: Transaction{Status: Pending, RedirectURL: "https://bank.example"}},
		"no provider of that name":                                 {LeaseOver: true, Transaction: Transaction{Status: Created, Provider: "GONE"}},
		"(there it may be psp-1)":                                  {LeaseOver: true, Transaction: Transaction{Status: Pending, ParkedAt: &now, ProviderReference: "psp-1"}},
		"can be decided from 2026-11-22 10:01:00 UTC on":           {LeaseOver: true, Transaction: Transaction{Status: Created, ParkedAt: &now, MaySendUntil: later}},
	} {
		row.Now = now
		if u := row.unsettled(row.Provider != "GONE"); !strings.Contains(u.Advice, want) {
			t.Errorf("%s: %q", want, u.Advice)
		}
	}
}
