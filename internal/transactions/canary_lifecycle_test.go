package transactions

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/providers"
)

// The rest of a payment's life, for the canaries of canary_test.go.

// sells is a payment with the canaries in it, to act on.
func (m *mine) sells(name string, capture bool) sale {
	m.t.Helper()
	m.psp.next(approve)
	r := m.pay(m.test, name, set(capture, "payment_method", "detail", "card", "capture"))
	m.want(r, http.StatusCreated)
	return sale{textAt(r, "id"), textAt(r, "transactions", "id")}
}

// spoilt are the members that nobody asks for, with canaries in them.
func (m *mine) spoilt(body map[string]any) map[string]any {
	spoilt := maps.Clone(body)
	maps.Copy(spoilt, map[string]any{
		"card_number": m.card, "cvv": canaryCode, "customer_payer": map[string]any{m.card: canaryCode},
		"card": map[string]any{"number": m.card, "security_code": canaryCode, "track_2": ";" + m.card + "=2811"},
	})
	if amount, ok := body["amount"].(map[string]any); ok {
		amount = maps.Clone(amount)
		amount["note"] = m.card
		spoilt["amount"] = amount
	}
	return spoilt
}

// acts asks for a deed, with canaries.
func (m *mine) acts(nonce string, d deed) response {
	m.t.Helper()
	body, err := json.Marshal(m.spoilt(d.body))
	if err != nil {
		m.t.Fatal(err)
	}
	return m.ask(http.MethodPost, m.public, d.path(), body, append(keys(m.test), idem.Header, nonce)...)
}

// actions sends captures, cancellations and refunds into everything a provider may do.
func (m *mine) actions() {
	m.t.Helper()
	for name, does := range map[string]operating{
		"usual": operateAsUsual, "timeout": operateThenTimeout, "no-answer": noAnswer, "broken": brokenAnswer, "invalid": invalidAnswer,
		"not-reached": neverReached, "accepted": acceptedForNow, "declined": declinedForGood,
		"panic": func(context.Context, *psp, providers.Operation) providers.Result { panic(m.card + canaryCode) },
	} {
		for _, route := range []Route{RouteCapture, RouteCancel, RouteRefund, RouteCancelOrRefund} {
			nonce := fmt.Sprintf("%s-%s", route, name)
			s := m.sells("sale-for-"+nonce, route == RouteRefund)
			d := s.deed(route, s.transaction, map[Route]string{RouteCapture: "20", RouteRefund: "20"}[route])
			m.psp.nextOperation(does)
			m.acts(nonce, d)
			m.acts(nonce, d)
			m.acts(nonce, d.differently())
			m.ask(http.MethodGet, m.public, "/v1/payments/"+s.payment+"?transactions_history=true&raw_response=true", nil, keys(m.test)...)
			m.ask(http.MethodGet, m.public, "/v1/payments/"+s.payment+"?transactions_history="+m.card+"&raw_response="+m.card, nil, keys(m.test)...)
		}
	}
	sold := m.sells("sale-as-a-whole", true)
	m.want(m.acts("as-a-whole", sold.reverse("", "")), http.StatusCreated)
	m.wrongActions()
}

// wrongActions has canaries in the place of what an action is about.
func (m *mine) wrongActions() {
	m.t.Helper()
	s := m.sells("sale-for-mistakes", true)
	n := 0
	for _, path := range []string{
		"reason", "amount", "amount.value", "amount.currency", "simplified_mode", "split_marketplace", "customer_payer", "response_additional_data", "additional_data",
		"merchant_reference", "description",
	} {
		for _, value := range []any{m.card, json.Number(m.card), json.Number(canaryCode), []any{m.card, canaryCode}, map[string]any{m.card: canaryCode}} {
			_, isObject := value.(map[string]any)
			_, isText := value.(string)
			if isObject && path == "additional_data" || isText && (path == "merchant_reference" || path == "description") {
				continue // a merchant's own words, which we keep and give back as they are
			}
			n++
			d := s.refund("20").with(nil)
			d.body["amount"] = map[string]any{"currency": "USD", "value": json.Number("20")}
			set(value, strings.Split(path, ".")...)(d.body)
			m.ask(http.MethodPost, m.public, d.path(), mustJSON(m, d.body), append(keys(m.test), idem.Header, fmt.Sprint("wrong-action-", n))...)
		}
	}
	whole := mustJSON(m, m.spoilt(s.refund("20").body))
	for _, body := range [][]byte{whole[:len(whole)/2], []byte(`"` + m.card + `"`), append(bytes.Clone(whole), m.card...), bytes.Replace(whole, []byte(m.card), []byte(m.card+"\xff"), 1)} {
		m.ask(http.MethodPost, m.public, s.refund("20").path(), body, append(keys(m.test), idem.Header, "broken-action")...)
	}
	for _, path := range []string{
		sale{m.card, m.card}.refund("20").path(), sale{s.payment, m.card}.capture("20").path(), sale{m.card, ""}.reverse("", "").path(),
	} {
		m.ask(http.MethodPost, m.public, path, whole, append(keys(m.test), idem.Header, "broken-action")...)
	}
}

func mustJSON(m *mine, v any) []byte {
	m.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		m.t.Fatal(err)
	}
	return b
}

// says lets the provider call back, with more than is asked of it.
func (m *mine) says(s said) response {
	m.t.Helper()
	var body map[string]any
	if err := json.Unmarshal(mustJSON(m, s), &body); err != nil {
		m.t.Fatal(err)
	}
	return m.ask(http.MethodPost, m.public, CallbackPath(m.psp.Name()), mustJSON(m, m.spoilt(body)), signatureHeader, goodSignature)
}

// callbacks come signed and forged, about what is pending, what has ended and what is
// nobody's.
func (m *mine) callbacks() {
	m.t.Helper()
	m.psp.next(func(_ context.Context, _ *psp, c providers.Charge) providers.Result {
		return providers.Result{
			Outcome: providers.Pending, ProviderReference: "psp-" + c.Reference, RedirectURL: "https://bank.example/challenge/" + c.Reference,
			Raw: json.RawMessage(`{"state":"challenge"}`),
		}
	})
	m.want(m.pay(m.test, "challenged", nil), http.StatusCreated)
	message := m.about("message-1", "challenged", "approved")
	for range 2 {
		m.want(m.says(message), http.StatusOK)
	}
	contradiction := m.about("message-2", "challenged", "declined")
	m.want(m.says(contradiction), http.StatusOK)
	m.sells("sale-in-dispute", true)
	for n, stage := range []string{"received", "pending_review", "lost", m.card} {
		d := m.about(fmt.Sprint("dispute-message-", n), "sale-in-dispute", "")
		d.DisputeID, d.Stage, d.Amount, d.Currency = "dispute-1", stage, "45.67", "USD"
		m.says(d)
	}
	body := mustJSON(m, m.spoilt(map[string]any{"id": "message-3", "reference": m.card, "account_id": m.card, "mode": m.card, "outcome": "approved"}))
	for _, body := range [][]byte{body, body[:len(body)/2], []byte(m.card), []byte(`["` + m.card + `"]`), bytes.Repeat([]byte(m.card+" "), 20_000)} {
		for _, signature := range []string{goodSignature, m.card, m.adminToken} {
			m.ask(http.MethodPost, m.public, CallbackPath(m.psp.Name()), body, signatureHeader, signature)
		}
	}
	m.ask(http.MethodPost, m.public, CallbackPath(m.card), body, signatureHeader, goodSignature)
}

// compare holds books against each other, with canaries in what an operator asks for.
func (m *mine) compare() {
	m.t.Helper()
	bearer := []string{"Authorization", "Bearer " + m.adminToken}
	m.sells("dearer", true)
	m.shift("dearer", longAgo)
	tx := m.transaction("dearer")
	m.books.mu.Lock()
	m.books.books = append(m.books.books, providers.Booking{
		Order:  providers.Order{Reference: tx.ID.String(), AccountID: tx.AccountID.String(), Mode: tx.Mode},
		Amount: tx.Amount.Add(decimal.NewFromInt(1)), Currency: tx.Currency, BookedAt: tx.CreatedAt.Add(time.Millisecond),
	})
	m.books.mu.Unlock()
	if _, err := m.reconciler.RunOnce(m.t.Context()); err != nil {
		m.t.Error(err)
	}
	m.want(m.ask(http.MethodPost, m.operator, "/admin/v1/reconciliations", []byte(`{"since":"5m","card":"`+m.card+`"}`), bearer...), http.StatusOK)
	for _, name := range []string{"since", "until", "provider", "after"} {
		for _, value := range []string{`"` + m.card + `"`, m.card, `["` + m.card + `"]`} {
			body := fmt.Sprintf(`{%q:%s,"since":"5m"}`, name, value)
			if name == "since" {
				body = fmt.Sprintf(`{"since":%s}`, value)
			}
			m.ask(http.MethodPost, m.operator, "/admin/v1/reconciliations", []byte(body), bearer...)
		}
	}
	m.ask(http.MethodPost, m.operator, "/admin/v1/reconciliations", []byte(`{"`+m.card), bearer...)
	m.want(m.ask(http.MethodGet, m.operator, "/admin/v1/differences", nil, bearer...), http.StatusOK)
	for _, query := range []string{"limit=" + m.card, "after=" + m.card} {
		m.ask(http.MethodGet, m.operator, "/admin/v1/differences?"+query, nil, bearer...)
	}
	m.want(m.ask(http.MethodGet, m.operator, "/admin/v1/invariants?"+m.card, nil, bearer...), http.StatusOK)

	gone := m.sells("held-for-too-long", false)
	m.sql(`UPDATE authorizations SET expires_at = clock_timestamp() WHERE payment_id = $1::uuid`, gone.payment)
	if n, err := m.service.Expire(m.t.Context()); n != 1 || err != nil {
		m.t.Errorf("%d authorizations expired: %v", n, err)
	}
	m.want(m.acts("too-late", gone.capture("20")), http.StatusBadRequest)
	m.want(m.acts("nobodys", sale{gone.payment, uuid.NewString()}.capture("20")), http.StatusBadRequest)
}
