package console

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/operators"
	"github.com/oncepay/oncepay/internal/transactions"
)

// ids are the payments that a list shows, in its order.
func ids(a answer) []string {
	var all []string
	for _, m := range regexp.MustCompile(`href="/payments/([0-9a-f-]{36})"`).FindAllStringSubmatch(a.body, -1) {
		all = append(all, m[1])
	}
	return all
}

// attribute is the value of the first attribute of that name, as a browser reads it.
func attribute(t *testing.T, a answer, name string) string {
	t.Helper()
	m := regexp.MustCompile(`\b` + name + `="([^"]*)"`).FindStringSubmatch(a.body)
	if m == nil {
		t.Fatalf("there is no %s in %s", name, a)
	}
	return strings.NewReplacer("&amp;", "&", "&#43;", "+", "&#39;", "'", "&#34;", `"`).Replace(m[1])
}

func TestPaymentsAreListedTheNewestFirstAndByEveryFilter(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	nonce := uuid.NewString()
	paid := w.made(nonce, map[string]any{"merchant_order_id": "order-a", "customer_payer": map[string]any{"merchant_customer_id": "cust-1"}})
	declined := w.made("", map[string]any{"merchant_order_id": "order-b", "amount": json.Number("99.5"), "number": "4507990000000010"})
	authorized := w.made("", map[string]any{"merchant_order_id": "order-c", "capture": false})
	all := []string{authorized.payment, declined.payment, paid.payment}
	b := w.as(operators.Viewer)
	for query, want := range map[string][]string{
		"":                                      all,
		"?status=DECLINED":                      {declined.payment},
		"?status=PENDING&sub_status=AUTHORIZED": {authorized.payment},
		"?account=" + w.account.String():        all,
		"?account=" + uuid.NewString():          nil,
		"?mode=test":                            all,
		"?mode=live":                            nil,
		"?from=2020-01-01&to=2100-01-01":        all,
		"?to=2020-01-01":                        nil,
		"?min=50":                               {declined.payment},
		"?max=50":                               {authorized.payment, paid.payment},
		"?currency=usd":                         all,
		"?currency=EUR":                         nil,
		"?order=order-c":                        {authorized.payment},
		"?response_code=INSUFFICIENT_FUNDS":     {declined.payment},
		"?nonce=" + nonce:                       {paid.payment},
		"?customer=cust-1":                      {paid.payment},
		"?customer=cust-1&status=DECLINED":      nil,
	} {
		a := b.get("/payments" + query)
		if got := ids(a); a.status != http.StatusOK || !slices.Equal(got, want) {
			t.Errorf("%s: %d, %q, want %q", query, a.status, got, want)
		}
	}
	a := b.get("/payments?status=DECLINED")
	for _, want := range []string{"First merchant", "order-b", "99.50 USD", "DECLINED", "VISA ····0010", "INSUFFICIENT_<wbr>FUNDS", "/nonces/" + declined.nonce} {
		if !strings.Contains(a.body, want) {
			t.Errorf("the row has no %s", want)
		}
	}
}

// The address bar is what people keep and send on: fields that were left empty are not in it.
func TestAFiltersAddressNamesOnlyWhatIsChosen(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Viewer)
	a := b.get("/payments?status=&account=&mode=test&from=&to=&order=a%26b&nonce=")
	if want := "/payments?mode=test&order=a%26b"; a.status != http.StatusSeeOther || a.header.Get("Location") != want {
		t.Errorf("%d to %s, want %s", a.status, a.header.Get("Location"), want)
	}
	if a := b.get(a.header.Get("Location")); a.status != http.StatusOK || !strings.Contains(a.body, `value="a&amp;b"`) {
		t.Errorf("the form does not show what is chosen: %s", a)
	}
}

func TestAWrongFilterIsNamedAndThePageIsStillThere(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	w.made("", nil)
	b := w.as(operators.Viewer)
	a := b.get("/payments?from=yesterday&min=1,5&status=DECLINED")
	for _, want := range []string{"from must be a date", "min must be an amount", "Nothing was looked up", `name="order"`, `selected>DECLINED`} {
		if !strings.Contains(a.body, want) {
			t.Errorf("there is no %q", want)
		}
	}
	if a.status != http.StatusBadRequest || ids(a) != nil || strings.Contains(a.body, "data-live") {
		t.Errorf("got %d with %d payments", a.status, len(ids(a)))
	}
	for _, path := range []string{"/payments/rows?from=yesterday", "/payments.csv?from=yesterday"} {
		if a := b.get(path); a.status != http.StatusBadRequest || !strings.Contains(a.body, "from must be a date") {
			t.Errorf("%s: %s", path, a)
		}
	}
}

// A list refreshes itself: it is answered only if something is different, and says what is new.
func TestALiveListTellsWhatIsNewAndNothingIfNothingIs(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Viewer)
	empty := b.get("/payments?mode=test")
	if !strings.Contains(empty.body, "data-live") || !strings.Contains(empty.body, "data-pause") {
		t.Fatalf("the list is not live: %s", empty)
	}
	first := w.made("", nil)
	a := b.get(attribute(t, empty, "hx-get"), "HX-Request", "true")
	if a.status != http.StatusOK || !slices.Equal(ids(a), []string{first.payment}) || strings.Contains(a.body, "<html") {
		t.Fatalf("got %s", a)
	}
	if same := b.get(attribute(t, a, "hx-get"), "HX-Request", "true"); same.status != http.StatusNoContent {
		t.Errorf("nothing has changed: %s", same)
	}
	second := w.made("", map[string]any{"capture": false})
	a = b.get(attribute(t, a, "hx-get"), "HX-Request", "true")
	if got := ids(a); !slices.Equal(got, []string{second.payment, first.payment}) {
		t.Fatalf("got %q", got)
	}
	if rows := strings.Split(a.body, "<tr"); strings.Count(a.body, `class="new"`) != 1 || !strings.Contains(rows[2], `class="new"`) {
		t.Errorf("another row than the second payment's is new: %s", a)
	}
	order := w.call("/v1/payments/"+second.payment+"/transactions/"+second.transaction+"/cancel", uuid.NewString(), map[string]any{"merchant_reference": "cancel-1"})
	if order.status != http.StatusOK {
		t.Fatal(order)
	}
	a = b.get(attribute(t, a, "hx-get"), "HX-Request", "true")
	if a.status != http.StatusOK || !strings.Contains(a.body, "CANCELED") || strings.Contains(a.body, `class="new"`) {
		t.Errorf("a status has changed: %s", a)
	}
	if a := w.nobody().get("/payments/rows", "HX-Request", "true"); a.header.Get("HX-Redirect") != pathSignIn {
		t.Errorf("whose session is over is led to %q", a.header.Get("HX-Redirect"))
	}
}

func TestAPageOfPaymentsIsFollowedByOlderOnesAndIsNotLive(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	var made []string
	for i := range maxRows + 3 {
		made = append(made, w.made("", map[string]any{"merchant_order_id": fmt.Sprintf("order-%03d", i)}).payment)
	}
	slices.Reverse(made)
	b := w.as(operators.Viewer)
	first := b.get("/payments?mode=test")
	if got := ids(first); !slices.Equal(got, made[:maxRows]) {
		t.Fatalf("%d on the first page", len(got))
	}
	older := regexp.MustCompile(`id="older" href="([^"]+)"`).FindStringSubmatch(first.body)
	if older == nil {
		t.Fatal("there is no way to the older ones")
	}
	second := b.get(strings.ReplaceAll(older[1], "&amp;", "&"))
	if got := ids(second); !slices.Equal(got, made[maxRows:]) || strings.Contains(second.body, "data-live") || strings.Contains(second.body, `id="older"`) {
		t.Errorf("%d on the second page: %s", len(got), second)
	}
	if !strings.Contains(second.body, `href="/payments?mode=test"`) {
		t.Error("there is no way back to the newest")
	}
}

func TestAnEmptyListSaysWhatThereIsNoneOf(t *testing.T) {
	t.Parallel()
	filtered, older := filter{given: url.Values{paramStatus: {"ERROR"}}}, filter{Before: uuid.New()}
	both := filter{given: filtered.given, Before: older.Before}
	further := transactions.PaymentPage{Next: uuid.New()}
	for want, p := range map[string]paymentsPage{
		"There are no payments yet.":                          {},
		"There are no older payments.":                        {Filter: older},
		"No payment fits the filter.":                         {Filter: filtered},
		"No older payment fits the filter.":                   {Filter: both},
		"None of these among the newest that were looked at.": {Filter: filtered, PaymentPage: further},
		"None of these among those that were looked at.":      {Filter: both, PaymentPage: further},
	} {
		if got := p.Empty(); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
	w := newConsole(t)
	p := w.made("", nil)
	b := w.as(operators.Viewer)
	if a := b.get("/payments?mode=test&before=" + p.payment); !strings.Contains(a.body, "No older payment fits the filter.") {
		t.Errorf("after the last one: %s", a)
	}
	// Of a nonce, not all is looked at, however little there is.
	if a := b.get("/payments?nonce=" + p.nonce); !strings.Contains(a.body, "among its newest 5,000 transactions") {
		t.Errorf("of a nonce: %s", a)
	}
}

// readCSV reads a file of payments, and the places of its columns.
func readCSV(t *testing.T, a answer) (rows [][]string, at map[string]int) {
	t.Helper()
	rows, err := csv.NewReader(strings.NewReader(a.body)).ReadAll()
	if err != nil || len(rows) == 0 {
		t.Fatalf("%d rows, %v: %s", len(rows), err, a)
	}
	at = map[string]int{}
	for i, name := range rows[0] {
		at[name] = i
	}
	return rows[1:], at
}

func TestPaymentsAreExportedAsAFileWithoutFormulas(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	const formula = `=HYPERLINK("https://attacker.example","x")`
	p := w.made("-2+3", map[string]any{"merchant_order_id": formula, "customer_payer": map[string]any{"merchant_customer_id": "@SUM(1)"}})
	w.made("", map[string]any{"number": "4507990000000010"})
	b := w.as(operators.Viewer)
	a := b.get("/payments.csv?status=SUCCEEDED&order=" + url.QueryEscape(formula))
	if got := a.header.Get("Content-Type"); a.status != http.StatusOK || got != "text/csv; charset=utf-8" {
		t.Fatalf("%s: %s", got, a)
	}
	if got := a.header.Get("Content-Disposition"); !regexp.MustCompile(`^attachment; filename="payments-\d{8}T\d{6}Z\.csv"$`).MatchString(got) {
		t.Errorf("Content-Disposition is %q", got)
	}
	rows, at := readCSV(t, a)
	if len(rows) != 1 {
		t.Fatalf("%d rows", len(rows))
	}
	for name, want := range map[string]string{
		"payment_id": p.payment, "merchant_order_id": "'" + formula, "customer": "'@SUM(1)", "nonce": "'-2+3", "amount": "45.67", "status": "SUCCEEDED",
		"transaction_id": p.transaction, "merchant": "First merchant", "account_id": w.account.String(), "card_last_four": "1111",
	} {
		if got := rows[0][at[name]]; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if a := w.nobody().get("/payments.csv"); a.status != http.StatusSeeOther {
		t.Errorf("nobody has signed in, and gets %s", a)
	}
}

// What cannot be read at all is a page that says so, not a file.
func TestAFileThatCannotBeBegunIsAPage(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Viewer)
	w.sql(`ALTER TABLE payments RENAME TO elsewhere`)
	a := b.get("/payments.csv")
	if a.status != http.StatusInternalServerError || a.header.Get("Content-Disposition") != "" || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
		t.Errorf("%d %v", a.status, a.header)
	}
}

// A file of more payments than one look reads is whole.
func TestALargeFileIsWhole(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	p := w.made("", nil)
	const copies = 1200
	for _, table := range []string{"payments", "transactions"} {
		w.sql(`INSERT INTO ` + table + ` SELECT (jsonb_populate_record(one, ids)).* FROM ` + table + ` one, generate_series(1, ` + strconv.Itoa(copies) + `) n,
			LATERAL (SELECT to_jsonb(overlay(one.id::text PLACING lpad(n::text, 12, '0') FROM 25)) AS own, to_jsonb(overlay('` + p.payment + `' PLACING lpad(n::text, 12, '0') FROM 25)) AS payment) x,
			LATERAL (SELECT CASE '` + table + `' WHEN 'payments' THEN jsonb_build_object('id', own)
				ELSE jsonb_build_object('id', own, 'payment_id', payment, 'nonce', 'copy-' || n) END AS ids) y`)
	}
	rows, at := readCSV(t, w.as(operators.Viewer).get("/payments.csv"))
	seen := map[string]bool{}
	for _, row := range rows {
		seen[row[at["payment_id"]]] = true
	}
	if len(rows) != copies+1 || len(seen) != copies+1 {
		t.Errorf("%d rows of %d payments", len(rows), len(seen))
	}
}

// A file that cannot be finished must not look like a whole one: the connection breaks, and
// whoever downloads it is told.
func TestAFileThatBreaksOffIsNotTakenForAWholeOne(t *testing.T) {
	t.Parallel()
	e := echo.New()
	e.GET("/", func(c echo.Context) error {
		out := &lateResponse{c.Response(), http.NewResponseController(c.Response())}
		if _, err := out.Write([]byte(strings.Repeat("a line\r\n", 1000))); err != nil {
			return err
		}
		out.breakOff()
		return nil // the error is for the log; the answer has begun
	})
	s := httptest.NewServer(e)
	t.Cleanup(s.Close)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := send(s.Client(), req); err == nil {
		t.Errorf("a whole answer: %d bytes", len(a.body))
	}
}
