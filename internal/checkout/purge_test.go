package checkout

import (
	"net/http"
	"testing"
)

// What is past its time goes, and what a payment may still need stays.
func TestPurgeRemovesWhatIsPastItsTimeAndNothingElse(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	old := func(table, id string) {
		t.Helper()
		if w.sql(`UPDATE `+table+` SET created_at = created_at - interval '91 days', expires_at = expires_at - interval '91 days' WHERE id = $1::uuid`, id) != 1 {
			t.Fatalf("there is no %s in %s", id, table)
		}
	}
	there := func(table, id string) bool {
		t.Helper()
		return w.count(`SELECT count(*) FROM `+table+` WHERE id = $1::uuid`, id) == 1
	}

	fresh, abandoned, paid, open := w.checkout("order-fresh", nil), w.checkout("order-abandoned", nil), w.checkout("order-paid", nil), w.checkout("order-open",
		map[string]any{"payment_description": "sandbox:500"})
	unused, used, unresolved, young := w.tokenFor(abandoned, goodCard), w.tokenFor(paid, goodCard), w.tokenFor(open, goodCard), w.tokenFor(fresh, goodCard)
	w.object(w.paySession(paid, used, nonce()), http.StatusCreated)
	attempt := nonce()
	w.refused(w.paySession(open, unresolved, attempt), http.StatusBadGateway, "PROVIDER_ERROR")
	for _, id := range []string{abandoned, paid, open} {
		old("checkout_sessions", id)
	}
	for _, id := range []string{unused, used, unresolved} {
		old("one_time_tokens", id)
	}

	if n, err := w.service.Purge(t.Context()); err != nil || n != 3 {
		t.Errorf("%d rows went, %v; want the session that nobody paid and two tokens", n, err)
	}
	for _, row := range []struct {
		table, id string
		stays     bool
	}{
		{"checkout_sessions", fresh, true},
		{"checkout_sessions", abandoned, false},
		{"checkout_sessions", paid, true},
		{"checkout_sessions", open, true},
		{"one_time_tokens", young, true},
		{"one_time_tokens", unused, false},
		{"one_time_tokens", used, false},
		{"one_time_tokens", unresolved, true}, // its payment may be sent again
	} {
		if there(row.table, row.id) != row.stays {
			t.Errorf("%s in %s: there %v, want %v", row.id, row.table, !row.stays, row.stays)
		}
	}

	if got := w.object(w.paySession(open, unresolved, attempt), http.StatusCreated); got["status"] != "SUCCEEDED" || w.charges("order-open") != 1 {
		t.Errorf("the retry says %v, and there are %d charges", got["status"], w.charges("order-open"))
	}
	if got := w.object(w.ask(browser(w.test), http.MethodGet, at(paid)+"/payment", ""), http.StatusOK); got["status"] != "SUCCEEDED" {
		t.Errorf("the payment of an old session is %v", got["status"])
	}
}

// A token that is gone leaves its payment to whoever asks the provider: nothing is sent
// again without it.
func TestRetryWhoseTokenIsGoneOnlyAsks(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	for order, want := range map[string]struct {
		fault   string
		status  int
		charges int
	}{
		"order-booked":  {"sandbox:charge-then-500", http.StatusCreated, 1},
		"order-nothing": {"sandbox:500", http.StatusConflict, 0}, // it may still be on its way
	} {
		session := w.checkout(order, map[string]any{"payment_description": want.fault})
		token, attempt := w.tokenFor(session, goodCard), nonce()
		w.refused(w.paySession(session, token, attempt), http.StatusBadGateway, "PROVIDER_ERROR")
		w.sql(`DELETE FROM one_time_tokens WHERE id = $1::uuid`, token)
		if r := w.paySession(session, token, attempt); r.status != want.status || w.charges(order) != want.charges {
			t.Errorf("%s: %d, and %d charges; want %d and %d: %s", order, r.status, w.charges(order), want.status, want.charges, r.body)
		}
	}
}

// A link may outlive its session by far.
func TestLinkWhoseSessionWasPurgedIsOpenedAgain(t *testing.T) {
	t.Parallel()
	w := newTill(t)
	l := w.link("order-late", nil)
	first := w.session(w.open(l))
	w.sql(`UPDATE checkout_sessions SET created_at = created_at - interval '91 days', expires_at = expires_at - interval '91 days' WHERE id = $1::uuid`, first)
	if n, err := w.service.Purge(t.Context()); err != nil || n != 1 {
		t.Fatalf("%d rows went, %v", n, err)
	}
	second := w.session(w.open(l))
	if second == first || w.session(w.open(l)) != second {
		t.Errorf("the link leads to %s, and then elsewhere", second)
	}
	w.object(w.paySession(second, w.tokenFor(second, goodCard), nonce()), http.StatusCreated)
	if got := w.find(l)["status"]; got != "USED" || w.charges("order-late") != 1 {
		t.Errorf("the link is %v, and there are %d charges", got, w.charges("order-late"))
	}
}
