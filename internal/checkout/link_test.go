package checkout

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/pgtest"
)

// linkBody is a valid request for a link, with changes; nil leaves a member out.
func (w *till) linkBody(order string, changes map[string]any) string {
	w.t.Helper()
	b := map[string]any{
		"account_id": w.account.String(), "merchant_order_id": order, "description": "Invoice 77", "country": "UY",
		"amount": map[string]any{"currency": "USD", "value": json.Number("45.67")}, "payment_method_types": []string{"CARD"},
	}
	maps.Copy(b, changes)
	maps.DeleteFunc(b, func(_ string, v any) bool { return v == nil })
	data, err := json.Marshal(b)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(data)
}

// link makes a link, and returns it.
func (w *till) link(order string, changes map[string]any) map[string]any {
	w.t.Helper()
	return w.object(w.ask(w.test, http.MethodPost, "/v1/payment-links", w.linkBody(order, changes)), http.StatusOK)
}

// find is what the merchant is told of a link now.
func (w *till) find(l map[string]any) map[string]any {
	w.t.Helper()
	return w.object(w.ask(w.test, http.MethodGet, fmt.Sprintf("/v1/payment-links/%s", l["code"]), ""), http.StatusOK)
}

func (w *till) cancel(l map[string]any, headers ...string) reply {
	w.t.Helper()
	return w.ask(w.test, http.MethodPost, fmt.Sprintf("/v1/payment-links/%s/cancel", l["code"]), "", headers...)
}

// open opens a link, as somebody's browser does.
func (w *till) open(l map[string]any, headers ...string) reply {
	w.t.Helper()
	return w.ask(merchants.KeyPair{}, http.MethodGet, fmt.Sprintf("/pay/link/%s", l["code"]), "", headers...)
}

var sessionAddress = regexp.MustCompile(`^/pay/([0-9a-f-]{36})$`)

// session is the one that a link has led to.
func (w *till) session(r reply) string {
	w.t.Helper()
	m := sessionAddress.FindStringSubmatch(r.header.Get("Location"))
	if r.status != http.StatusSeeOther || m == nil {
		w.t.Fatalf("it answered %d, with %q: %s", r.status, r.header.Get("Location"), r.body)
	}
	return m[1]
}

// wantLink fails the test unless a link has that status and number of payments.
func (w *till) wantLink(l map[string]any, status string, payments int) {
	w.t.Helper()
	if got := w.find(l); got["status"] != status || fmt.Sprint(got["payments_number"]) != strconv.Itoa(payments) {
		w.t.Errorf("the link is %v with %v payments, want %s with %d", got["status"], got["payments_number"], status, payments)
	}
}

// closed fails the test unless a link leads nowhere and says why.
func (w *till) closed(r reply, status int, title string) {
	w.t.Helper()
	if r.status != status || !strings.Contains(string(r.body), "<h1>"+title+"</h1>") || r.header.Get("Location") != "" {
		w.t.Errorf("it answered %d, want %d, %s: %s", r.status, status, title, r.body)
	}
}

func TestPaymentLinkIsToldAsItWasMade(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	asked := map[string]any{
		"one_time_use": false, "callback_url": "https://shop.example/thanks", "metadata": []any{map[string]any{"key": "k", "value": "v"}},
		"customer_payer": map[string]any{"email": "x"}, "additional_data": map[string]any{"order": map[string]any{"a": "b"}},
		"availability": map[string]any{"start_at": "2026-01-15T14:00:12Z", "finish_at": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)},
	}
	l := w.link("order-1", asked)
	for name, want := range asked {
		if name != "availability" && fmt.Sprint(l[name]) != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %v", name, l[name], want)
		}
	}
	code := fmt.Sprint(l["code"])
	for name, want := range map[string]any{
		"account_id": w.account, "country": "UY", "status": "CREATED", "merchant_order_id": "order-1", "description": "Invoice 77",
		"amount": map[string]any{"currency": "USD", "value": 45.67}, "capture": true, "split_payment_methods": false, "installments_plan": nil,
		"payment_method_types": []any{"CARD"}, "payments_number": 0, "checkout_url": "https://pay.example/pay/link/" + code,
	} {
		if fmt.Sprint(l[name]) != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %v", name, l[name], want)
		}
	}
	if len(code) != 26 || len(fmt.Sprint(l["id"])) != 36 {
		t.Errorf("code %s, id %s", code, l["id"])
	}
	for _, name := range []any{l["code"], l["id"]} {
		found := w.object(w.ask(w.test, http.MethodGet, fmt.Sprintf("/v1/payment-links/%s", name), ""), http.StatusOK)
		if fmt.Sprint(found) != fmt.Sprint(l) {
			t.Errorf("by %s it is %v\nwant %v", name, found, l)
		}
	}
}

func TestPaymentLinkIsGoodForOnePaymentAndThirtyDaysIfNobodySays(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	l := w.link("order-1", map[string]any{"payment_method_types": nil})
	available, _ := l["availability"].(map[string]any)
	var at [2]time.Time
	for i, name := range []string{"start_at", "finish_at"} {
		var err error
		if at[i], err = time.Parse(time.RFC3339, fmt.Sprint(available[name])); err != nil {
			t.Fatal(err)
		}
	}
	if at[1].Sub(at[0]) != 30*24*time.Hour || l["one_time_use"] != true || l["callback_url"] != nil || l["metadata"] != nil {
		t.Errorf("it is %v", l)
	}
}

func TestPaymentLinkRefusesWhatItCannotDo(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }
	day := 24 * time.Hour
	for _, c := range []struct {
		name    string
		changes map[string]any
		code    string
		message string
	}{
		{"no account", map[string]any{"account_id": nil}, "MISSING_PARAMETERS", "$.account_id"},
		{"another account", map[string]any{"account_id": uuid.NewString()}, "INVALID_ACCOUNT_ID", "$.account_id"},
		{"no order", map[string]any{"merchant_order_id": nil}, "MISSING_PARAMETERS", "$.merchant_order_id"},
		{"a short order", map[string]any{"merchant_order_id": "ab"}, "INVALID_PARAMETERS", "$.merchant_order_id"},
		{"no description", map[string]any{"description": nil}, "MISSING_PARAMETERS", "$.description"},
		{"no country", map[string]any{"country": "uy"}, "COUNTRY_NOT_SUPPORTED", "$.country"},
		{"no currency", map[string]any{"amount": map[string]any{"value": 1}}, "MISSING_PARAMETERS", "$.amount.currency"},
		{"nothing to pay", map[string]any{"amount": map[string]any{"value": 0, "currency": "USD"}}, "INVALID_AMOUNT", "$.amount.value"},
		{"a part of a yen", map[string]any{"amount": map[string]any{"value": 1.5, "currency": "JPY"}}, "INVALID_AMOUNT", "$.amount.value"},
		{"another method", map[string]any{"payment_method_types": []string{"CARD", "PIX"}}, "UNAVAILABLE_PAYMENT_METHOD", "$.payment_method_types[1]"},
		{"no method", map[string]any{"payment_method_types": []string{}}, "INVALID_PARAMETERS", "$.payment_method_types"},
		{"no list", map[string]any{"payment_method_types": "CARD"}, "INVALID_PARAMETERS", "$.payment_method_types"},
		{"no capture", map[string]any{"capture": false}, "INVALID_PARAMETERS", "$.capture"},
		{"two methods", map[string]any{"split_payment_methods": true}, "INVALID_PARAMETERS", "$.split_payment_methods"},
		{"a plan", map[string]any{"installments_plan": map[string]any{"plan": 1}}, "INVALID_PARAMETERS", "$.installments_plan"},
		{"a script", map[string]any{"callback_url": "javascript:alert(1)"}, "INVALID_PARAMETERS", "$.callback_url"},
		{"once or not", map[string]any{"one_time_use": "yes"}, "INVALID_PARAMETERS", "$.one_time_use"},
		{"metadata", map[string]any{"metadata": map[string]any{}}, "INVALID_PARAMETERS", "$.metadata"},
		{"no moment", map[string]any{"availability": map[string]any{"start_at": "tomorrow"}}, "INVALID_PARAMETERS", "$.availability.start_at"},
		{"over already", map[string]any{"availability": map[string]any{"finish_at": in(-time.Minute)}}, "INVALID_PARAMETERS", "$.availability.finish_at"},
		{"too long", map[string]any{"availability": map[string]any{"finish_at": in(367 * day)}}, "INVALID_PARAMETERS", "$.availability.finish_at"},
		{"too late", map[string]any{"availability": map[string]any{"start_at": in(360 * day)}}, "INVALID_PARAMETERS", "$.availability.finish_at"},
		{"backwards", map[string]any{"availability": map[string]any{"start_at": in(2 * day), "finish_at": in(day)}}, "INVALID_PARAMETERS", "$.availability.finish_at"},
	} {
		r := w.ask(w.test, http.MethodPost, "/v1/payment-links", w.linkBody("order-1", c.changes), idem.Header, "nonce-1")
		if said := w.refused(r, http.StatusBadRequest, c.code); !strings.Contains(said, c.message+" ") {
			t.Errorf("%s: %s", c.name, said)
		}
	}
	w.refused(w.ask(w.test, http.MethodPost, "/v1/payment-links", `[]`), http.StatusBadRequest, "INVALID_REQUEST")
	if n := w.count(`SELECT count(*) FROM payment_links`); n != 0 {
		t.Errorf("%d links were made", n)
	}
	w.object(w.ask(w.test, http.MethodPost, "/v1/payment-links", w.linkBody("order-1", nil), idem.Header, "nonce-1"), http.StatusOK) // which is free
}

func TestPaymentLinkIsMadeOncePerNonce(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	first := w.ask(w.test, http.MethodPost, "/v1/payment-links", w.linkBody("order-1", nil), idem.Header, "nonce-1")
	again := w.ask(w.test, http.MethodPost, "/v1/payment-links", w.linkBody("order-1", nil), idem.Header, "nonce-1")
	if first.status != http.StatusOK || again.status != http.StatusOK || string(first.body) != string(again.body) || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("%d %s\n%d %s", first.status, first.body, again.status, again.body)
	}
	if n := w.count(`SELECT count(*) FROM payment_links`); n != 1 {
		t.Errorf("%d links were made", n)
	}
}

// Contract, A12: what is another merchant's, or the other mode's, is not there.
func TestPaymentLinkOfSomebodyElseIsNotFound(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	l := w.link("order-1", nil)
	_, stranger := w.merchant()
	for name, pair := range map[string]merchants.KeyPair{"stranger": stranger, "live mode": w.live} {
		for _, path := range []string{fmt.Sprint(l["code"]), fmt.Sprint(l["id"])} {
			r := w.ask(pair, http.MethodGet, "/v1/payment-links/"+path, "")
			if said := w.refused(r, http.StatusBadRequest, "NOT_FOUND"); strings.Contains(said, path) {
				t.Errorf("%s: %s", name, said)
			}
			w.refused(w.ask(pair, http.MethodPost, "/v1/payment-links/"+path+"/cancel", ""), http.StatusBadRequest, "NOT_FOUND")
		}
	}
	for _, path := range []string{"nothing", "%FF", "%00", "a%27b", uuid.NewString(), uuid.Nil.String()} {
		w.refused(w.ask(w.test, http.MethodGet, "/v1/payment-links/"+path, ""), http.StatusBadRequest, "NOT_FOUND")
		w.closed(w.ask(merchants.KeyPair{}, http.MethodGet, "/pay/link/"+path, ""), http.StatusNotFound, "There is no payment here")
	}
	w.closed(w.ask(merchants.KeyPair{}, http.MethodGet, fmt.Sprintf("/pay/link/%s", l["id"]), ""), http.StatusNotFound, "There is no payment here")
	w.wantLink(l, "CREATED", 0)
}

func TestOneTimeLinkLeadsEverybodyToOneSessionAndIsPaidOnce(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	l := w.link("order-1", map[string]any{"callback_url": "https://shop.example/thanks", "metadata": []any{map[string]any{"key": "k", "value": "v"}}})
	session := w.session(w.open(l))
	if again := w.session(w.open(l)); again != session {
		t.Errorf("the second was led to %s, the first to %s", again, session)
	}
	sn := w.object(w.ask(w.test, http.MethodGet, "/v1/checkout/sessions/"+session, ""), http.StatusOK)
	for name, want := range map[string]any{
		"merchant_order_id": "order-1", "payment_description": "Invoice 77", "country": "UY", "workflow": "SDK_SEAMLESS", "used": false,
		"callback_url": "https://shop.example/thanks", "amount": map[string]any{"currency": "USD", "value": 45.67}, "metadata": []any{map[string]any{"key": "k", "value": "v"}},
	} {
		if fmt.Sprint(sn[name]) != fmt.Sprint(want) {
			t.Errorf("the session's %s is %v, want %v", name, sn[name], want)
		}
	}
	w.refused(w.ask(w.test, http.MethodPatch, "/v1/checkout/sessions/"+session, `{"merchant_order_id":"another"}`), http.StatusBadRequest, "INVALID_STATUS")
	p := w.object(w.paySession(session, w.tokenFor(session, goodCard), uuid.NewString()), http.StatusCreated)
	if p["status"] != "SUCCEEDED" || p["merchant_order_id"] != "order-1" {
		t.Fatalf("the payment is %v", p)
	}
	w.wantLink(l, "USED", 1)
	w.closed(w.open(l), http.StatusGone, "This link has been paid")
	w.refused(w.cancel(l), http.StatusBadRequest, "INVALID_STATUS")

	// What comes later takes nothing away from that.
	w.sql(`UPDATE payment_links SET finish_at = clock_timestamp()`)
	w.sql(`UPDATE checkout_sessions SET expires_at = clock_timestamp()`)
	w.wantLink(l, "USED", 1)
	w.closed(w.open(l), http.StatusGone, "This link has been paid")
	if n := w.count(`SELECT count(*) FROM checkout_sessions`); n != 1 {
		t.Errorf("there are %d sessions", n)
	}
}

// The storm: everybody whom the link was forwarded to opens it at once, and pays.
func TestManyWhoOpenAOneTimeLinkAndPayMakeOneCharge(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	l := w.link("order-1", nil)
	var mu sync.Mutex
	sessions := map[string]int{}
	together(50, func(int) {
		r, err := w.send(merchants.KeyPair{}, http.MethodGet, fmt.Sprintf("/pay/link/%s", l["code"]), "")
		mu.Lock()
		defer mu.Unlock()
		if err != nil || r.status != http.StatusSeeOther {
			t.Errorf("opened: %d, %v", r.status, err)
		}
		sessions[r.header.Get("Location")]++
	})
	if len(sessions) != 1 || w.count(`SELECT count(*) FROM checkout_sessions`) != 1 {
		t.Fatalf("they were led to %v", sessions)
	}
	session := w.session(w.open(l))
	tokens := make([]string, 20)
	for i := range tokens {
		tokens[i] = w.tokenFor(session, goodCard)
	}
	answers := map[int]int{}
	together(len(tokens), func(i int) {
		r, err := w.sendPayment(session, tokens[i], uuid.NewString())
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			t.Error(err)
		}
		answers[r.status]++
	})
	if answers[http.StatusCreated] != 1 || answers[http.StatusCreated]+answers[http.StatusBadRequest]+answers[http.StatusConflict] != len(tokens) {
		t.Errorf("they were answered %v", answers)
	}
	if n := w.charges("order-1"); n != 1 {
		t.Errorf("the sandbox has charged %d times", n)
	}
	w.wantLink(l, "USED", 1)
}

func TestDeclinedPaymentLeavesTheLinkToAnotherTry(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	l := w.link("order-1", nil)
	session := w.session(w.open(l))
	p := w.object(w.paySession(session, w.tokenFor(session, declinedCard), uuid.NewString()), http.StatusCreated)
	if p["status"] != "DECLINED" {
		t.Fatalf("the payment is %v", p["status"])
	}
	w.wantLink(l, "CREATED", 0)
	if again := w.session(w.open(l)); again != session {
		t.Errorf("the next was led to %s, not to %s", again, session)
	}
	w.object(w.paySession(session, w.tokenFor(session, goodCard), uuid.NewString()), http.StatusCreated)
	w.wantLink(l, "USED", 1)
}

// A payment that is under way decides: nobody overtakes it, and whoever opens the link is
// led to it, also when the time of both is over.
func TestLinkWaitsForThePaymentThatIsUnderWay(t *testing.T) {
	t.Parallel()
	for otp, end := range map[string]struct {
		status   string
		payments int
	}{"1234": {"USED", 1}, "1111": {"EXPIRED", 0}} {
		t.Run(end.status, func(t *testing.T) {
			t.Parallel()
			w := newTill(t)
			l := w.link("order-1", map[string]any{"description": "sandbox:challenge"})
			session := w.session(w.open(l))
			p := w.object(w.paySession(session, w.tokenFor(session, goodCard), uuid.NewString()), http.StatusCreated)
			if p["status"] != "PENDING" {
				t.Fatalf("the payment is %v", p["status"])
			}
			w.sql(`UPDATE checkout_sessions SET expires_at = clock_timestamp()`)
			w.sql(`UPDATE payment_links SET finish_at = clock_timestamp()`)
			w.wantLink(l, "CREATED", 0)
			if again := w.session(w.open(l)); again != session {
				t.Errorf("the next was led to %s, not to %s", again, session)
			}
			if said := w.refused(w.cancel(l), http.StatusBadRequest, "INVALID_STATUS"); !strings.Contains(said, "under way") {
				t.Errorf("it is told %s", said)
			}
			w.decide(p, otp)
			w.wantLink(l, end.status, end.payments)
			if n := w.count(`SELECT count(*) FROM checkout_sessions`); n != 1 {
				t.Errorf("there are %d sessions", n)
			}
		})
	}
}

// A payment that nobody finished holds its session for good, so that the link cannot be
// paid any more. It is not USED, though: nobody has paid.
func TestLinkWhosePaymentHasComeToNothingIsOverBeforeItsTime(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	l := w.link("order-1", map[string]any{"description": "sandbox:challenge"})
	session := w.session(w.open(l))
	w.object(w.paySession(session, w.tokenFor(session, goodCard), uuid.NewString()), http.StatusCreated)
	w.sql(`UPDATE payments SET status = 'EXPIRED', sub_status = 'EXPIRED'`)
	w.wantLink(l, "EXPIRED", 0)
	w.closed(w.open(l), http.StatusGone, "This link has expired")
	if got := w.object(w.cancel(l), http.StatusOK); got["status"] != "CANCELED" {
		t.Errorf("it is %v", got["status"])
	}
}

func TestExpiredSessionOfALinkIsReplacedForGood(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	l := w.link("order-1", nil)
	first := w.session(w.open(l))
	token := w.tokenFor(first, goodCard)
	w.sql(`UPDATE checkout_sessions SET expires_at = clock_timestamp()`)
	second := w.session(w.open(l))
	if second == first || w.session(w.open(l)) != second {
		t.Fatalf("it leads to %s, first to %s", second, first)
	}
	// The old one stays closed, whatever the clock says later.
	if n := w.count(`SELECT count(*) FROM checkout_sessions WHERE id = $1::uuid AND expires_at = created_at AND version = 2`, first); n != 1 {
		t.Error("the old session may open again")
	}
	w.sql(`UPDATE one_time_tokens SET expires_at = clock_timestamp() + interval '1 hour'`)
	w.refused(w.paySession(first, token, uuid.NewString()), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
	w.object(w.paySession(second, w.tokenFor(second, goodCard), uuid.NewString()), http.StatusCreated)
	w.wantLink(l, "USED", 1)
	if n := w.charges("order-1"); n != 1 {
		t.Errorf("the sandbox has charged %d times", n)
	}
}

// The session's time runs out while a payment is just beginning in it, and somebody else
// opens the link: they wait, and see it.
func TestLinkIsOpenedBehindAPaymentThatIsJustBeginning(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	other := w.link("order-2", map[string]any{"description": "sandbox:challenge"})
	payment := w.object(w.paySession(w.session(w.open(other)), w.tokenFor(w.session(w.open(other)), goodCard), uuid.NewString()), http.StatusCreated)
	l := w.link("order-1", nil)
	session := w.session(w.open(l))
	w.sql(`UPDATE checkout_sessions SET expires_at = clock_timestamp() WHERE id = $1::uuid`, session)
	conn, err := pgx.Connect(t.Context(), pgtest.Direct(w.url))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	beginning, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := beginning.Exec(t.Context(), `UPDATE checkout_sessions SET payment_id = $2::uuid WHERE id = $1::uuid`, session, payment["id"]); err != nil {
		t.Fatal(err)
	}
	opened := make(chan reply, 1)
	go func() {
		r, err := w.send(merchants.KeyPair{}, http.MethodGet, fmt.Sprintf("/pay/link/%s", l["code"]), "")
		if err != nil {
			t.Error(err)
		}
		opened <- r
	}()
	w.awaitLock("checkout.lock_link_session")
	if err := beginning.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := w.session(<-opened); again != session {
		t.Errorf("they were led to %s, the payment is in %s", again, session)
	}
}

func TestSessionOfALinkLastsNoLongerThanTheLink(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	w.open(w.link("order-1", map[string]any{"availability": map[string]any{"finish_at": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)}}))
	w.open(w.link("order-2", nil))
	for query, want := range map[string]int{
		`SELECT count(*) FROM checkout_sessions s JOIN payment_links l ON l.session_id = s.id WHERE s.merchant_order_id = 'order-1' AND s.expires_at = l.finish_at`:                       1,
		`SELECT count(*) FROM checkout_sessions s JOIN payment_links l ON l.session_id = s.id WHERE s.merchant_order_id = 'order-2' AND s.expires_at = s.created_at + interval '5 hours'`: 1,
	} {
		if got := w.count(query); got != want {
			t.Errorf("%d for %s", got, query)
		}
	}
}

func TestLinkIsOpenBetweenItsTwoMomentsOnly(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	for _, once := range []bool{true, false} {
		l := w.link("order-1", map[string]any{"one_time_use": once, "availability": map[string]any{"start_at": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)}})
		w.closed(w.open(l), http.StatusNotFound, "This link is not open yet")
		w.wantLink(l, "CREATED", 0)
		w.sql(`UPDATE payment_links SET start_at = clock_timestamp() WHERE id = $1::uuid`, l["id"])
		w.session(w.open(l))
		w.sql(`UPDATE payment_links SET finish_at = clock_timestamp() WHERE id = $1::uuid`, l["id"])
		w.sql(`UPDATE checkout_sessions SET expires_at = clock_timestamp()`)
		w.closed(w.open(l), http.StatusGone, "This link has expired")
		w.wantLink(l, "EXPIRED", 0)
	}
}

func TestLinkThatIsGoodForManyMakesASessionPerVisit(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	l := w.link("order-1", map[string]any{"one_time_use": false})
	first, second, third := w.session(w.open(l)), w.session(w.open(l)), w.session(w.open(l))
	if first == second || second == third {
		t.Fatal("two visits have one session")
	}
	for i, session := range []string{first, second} {
		w.object(w.paySession(session, w.tokenFor(session, goodCard), uuid.NewString()), http.StatusCreated)
		w.wantLink(l, "CREATED", i+1)
	}
	w.refused(w.paySession(first, w.backendToken(), uuid.NewString()), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
	if n := w.charges("order-1"); n != 2 {
		t.Errorf("the sandbox has charged %d times", n)
	}
}

// backendToken is a token of the merchant's backend, bound to no session.
func (w *till) backendToken() string {
	w.t.Helper()
	body := `{"account_id":"` + w.account.String() + `","card_data":` + cardJSON(goodCard) + `}`
	return fmt.Sprint(w.object(w.ask(w.test, http.MethodPost, "/v1/tokens", body), http.StatusCreated)["token"])
}

func TestCanceledLinkTakesNoPaymentAnyMore(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	for _, once := range []bool{true, false} {
		order := fmt.Sprintf("order-%t", once)
		l := w.link(order, map[string]any{"one_time_use": once})
		session := w.session(w.open(l))
		token := w.tokenFor(session, goodCard)
		first := w.cancel(l, idem.Header, "nonce-"+order)
		if got := w.object(first, http.StatusOK); got["status"] != "CANCELED" || got["id"] != l["id"] {
			t.Errorf("it is %v", got)
		}
		if again := w.cancel(l, idem.Header, "nonce-"+order); string(again.body) != string(first.body) || again.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("a retry is told %d %s", again.status, again.body)
		}
		if again := w.object(w.cancel(l), http.StatusOK); again["status"] != "CANCELED" {
			t.Errorf("once more it is %v", again)
		}
		w.refused(w.paySession(session, token, uuid.NewString()), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
		w.closed(w.open(l), http.StatusGone, "This link has been canceled")
		if n := w.charges(order); n != 0 {
			t.Errorf("the sandbox has charged %d times", n)
		}
	}
}

// Whoever has a link that is good for many could keep it open by never finishing.
func TestPaymentUnderWayDoesNotKeepALinkForManyOpen(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	l := w.link("order-1", map[string]any{"one_time_use": false, "description": "sandbox:challenge"})
	session, idle := w.session(w.open(l)), w.session(w.open(l))
	token := w.tokenFor(idle, goodCard)
	p := w.object(w.paySession(session, w.tokenFor(session, goodCard), uuid.NewString()), http.StatusCreated)
	if got := w.object(w.cancel(l), http.StatusOK); got["status"] != "CANCELED" {
		t.Errorf("it is %v", got["status"])
	}
	w.refused(w.paySession(idle, token, uuid.NewString()), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
	w.decide(p, "1234")
	w.wantLink(l, "CANCELED", 1)

	// A decline gives the session back, and the link is canceled all the same.
	w.sql(`UPDATE checkout_sessions SET payment_id = NULL`)
	w.refused(w.paySession(session, w.backendToken(), uuid.NewString()), http.StatusBadRequest, "CHECKOUT_SESSION_NOT_FOUND")
}

// Canceled and paid at once: it is one of them.
func TestLinkIsEitherCanceledOrPaid(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	outcomes := map[string]int{}
	for i := range 30 {
		order := fmt.Sprintf("order-%d", i)
		l := w.link(order, nil)
		session := w.session(w.open(l))
		token := w.tokenFor(session, goodCard)
		var canceled, paid reply
		together(2, func(i int) {
			var err error
			if i == 0 {
				canceled, err = w.send(w.test, http.MethodPost, fmt.Sprintf("/v1/payment-links/%s/cancel", l["code"]), "")
			} else {
				paid, err = w.sendPayment(session, token, uuid.NewString())
			}
			if err != nil {
				t.Error(err)
			}
		})
		switch {
		case canceled.status == http.StatusOK && paid.status == http.StatusBadRequest:
			outcomes["canceled"]++
			w.wantLink(l, "CANCELED", 0)
			if n := w.charges(order); n != 0 {
				t.Errorf("canceled, and charged %d times", n)
			}
		case canceled.status == http.StatusBadRequest && paid.status == http.StatusCreated:
			outcomes["paid"]++
			w.wantLink(l, "USED", 1)
		default:
			t.Errorf("canceled: %d %s\npaid: %d %s", canceled.status, canceled.body, paid.status, paid.body)
		}
	}
	t.Log(outcomes)
}

// A link that is good for many is canceled while it is opened: no session is left open.
func TestNoSessionOfALinkOutlivesItsCancellation(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	for i := range 10 {
		l := w.link(fmt.Sprintf("order-%d", i), map[string]any{"one_time_use": false})
		together(8, func(i int) {
			method, path := http.MethodGet, fmt.Sprintf("/pay/link/%s", l["code"])
			if i == 4 {
				method, path = http.MethodPost, fmt.Sprintf("/v1/payment-links/%s/cancel", l["code"])
			}
			r, err := w.send(w.test, method, path, "")
			if err != nil || !slices.Contains([]int{http.StatusSeeOther, http.StatusGone, http.StatusOK}, r.status) {
				t.Errorf("it answered %d, %v", r.status, err)
			}
		})
		if n := w.count(`SELECT count(*) FROM checkout_sessions WHERE expires_at > created_at`); n != 0 {
			t.Fatalf("%d sessions are open", n)
		}
	}
}

func TestPageOfALinkIsInTheReadersLanguageAndShowsNothingElse(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	l := w.link("order-1", nil)
	w.object(w.cancel(l), http.StatusOK)
	for _, c := range []struct{ query, header, language, title string }{
		{"", "", "en", "This link has been canceled"},
		{"", "pt-BR,pt;q=0.9", "pt", "Este link foi cancelado"},
		{"?lang=es", "pt", "es", "Este enlace se ha anulado"},
	} {
		r := w.ask(merchants.KeyPair{}, http.MethodGet, fmt.Sprintf("/pay/link/%s%s", l["code"], c.query), "", "Accept-Language", c.header)
		w.closed(r, http.StatusGone, c.title)
		page := string(r.body)
		if r.header.Get("Content-Language") != c.language || !strings.Contains(page, `<html lang="`+c.language+`">`) {
			t.Errorf("it is in %s", r.header.Get("Content-Language"))
		}
		if policy := r.header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") ||
			strings.Contains(page, "<script") || strings.Contains(page, "order-1") || !strings.Contains(page, "Corner shop") {
			t.Errorf("the policy is %s, the page %s", policy, page)
		}
	}
	for language, texts := range linkTexts {
		for how := range linkStatuses {
			if says := how.textOf(language); says.title == "" || says.text == "" {
				t.Errorf("%s has no text for %d", language, how)
			}
		}
		if len(texts) != 4 {
			t.Errorf("%s has %d texts", language, len(texts))
		}
	}
	if len(linkTexts) != len(pageLanguages) {
		t.Errorf("links speak %d languages, pages %d", len(linkTexts), len(pageLanguages))
	}
	asked := w.ask(merchants.KeyPair{}, http.MethodGet, fmt.Sprintf("/pay/link/%s?lang=pt", w.link("order-2", nil)["code"]), "")
	if to := asked.header.Get("Location"); !strings.HasPrefix(to, "/pay/") || !strings.HasSuffix(to, "?lang=pt") {
		t.Errorf("it leads to %s", to)
	}
}

func TestLinkOfAMerchantWithoutAKeyIsNotFound(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	l := w.link("order-1", nil)
	if _, err := w.auth.SetDisabled(t.Context(), w.account, true); err != nil {
		t.Fatal(err)
	}
	if _, err := w.auth.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.closed(w.open(l), http.StatusNotFound, "There is no payment here")
}

func TestWhoeverOpensTooManyLinksWaits(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	l := w.link("order-1", map[string]any{"one_time_use": false})
	r := w.open(l)
	opened := 0
	for ; r.status == http.StatusSeeOther && opened < 10*opensPerAddress; opened++ { // some come back while it goes on
		r = w.open(l)
	}
	if opened < opensPerAddress {
		t.Errorf("%d were let in", opened)
	}
	w.closed(r, http.StatusTooManyRequests, "We cannot show this page now")
	if wait, err := strconv.Atoi(r.header.Get("Retry-After")); err != nil || wait < 1 {
		t.Errorf("it is told to wait for %q", r.header.Get("Retry-After"))
	}
}

func TestPageOfALinkSaysSoWhereNobodyCanLook(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	l := w.link("order-1", nil)
	w.db.Close()
	r := w.open(l)
	w.closed(r, http.StatusServiceUnavailable, "We cannot show this page now")
	if r.header.Get("Retry-After") == "" || r.header.Get("Content-Type") != "text/html; charset=UTF-8" {
		t.Errorf("its header is %v", r.header)
	}
}
