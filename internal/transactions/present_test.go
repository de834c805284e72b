package transactions

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/providers"
)

// As the contract shows them, transactions are an object in the answer of the call
// that made one, and an array in every other; see shapes_test.go for all the rest.
func TestPaymentIsShownAlikeAloneAndInAList(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	created := w.create("nonce-1", w.body("order-1", nil))
	w.want(created, http.StatusCreated)
	if got := created.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("the content type is %q", got)
	}
	one := w.get(fmt.Sprintf("/v1/payments/%s", created.get("id")))
	w.want(one, http.StatusOK)
	list := w.get("/v1/payments?merchant_order_id=order-1")
	w.want(list, http.StatusOK)
	var elements []json.RawMessage
	if err := json.Unmarshal(list.body, &elements); err != nil || len(elements) != 1 {
		t.Fatalf("the list is no array of one payment: %s", list)
	}
	if string(elements[0]) != string(bytes.TrimSpace(one.body)) {
		t.Errorf("the payment is shown otherwise in a list:\n%s\n%s", elements[0], one.body)
	}
}

// What was answered to the call that made it is what everybody reads later
// (promise 2): nothing but the form of transactions may differ.
func TestPaymentIsReadAsItWasAnswered(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		does    behaviour
		changes map[string]any
	}{
		"approved":   {approve, nil},
		"authorized": {approve, map[string]any{"capture": false}},
		"declined":   {decline, nil},
		"pending":    {answering(providers.Result{Outcome: providers.Pending}), nil},
		"challenged": {answering(providers.Result{Outcome: providers.Pending, RedirectURL: "https://psp.test/challenge"}), nil},
		"with everything": {approve, map[string]any{
			"merchant_reference": "ref-1", "callback_url": "https://shop.test/back",
			"metadata":       json.RawMessage(`[{"key":"z","value":"1"},{"key":"a","value":"<é>"}]`),
			"customer_payer": json.RawMessage(`{"zip":1.50,"billing_address":{"country":"st"}}`), "additional_data": json.RawMessage(`{"order":{"items":[]}}`),
			"amount": json.Number("1234567.89"),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.psp.next(c.does)
			created := w.create("nonce-1", w.body("order-1", c.changes))
			w.want(created, http.StatusCreated)
			read := w.get(fmt.Sprintf("/v1/payments/%s?transactions_history=true", created.get("id")))
			w.want(read, http.StatusOK)
			exact := func(data []byte) map[string]any {
				d := json.NewDecoder(bytes.NewReader(data))
				d.UseNumber()
				var v map[string]any
				if err := d.Decode(&v); err != nil {
					t.Fatal(err)
				}
				return v
			}
			was, is := exact(created.body), exact(read.body)
			was["transactions"] = []any{was["transactions"]}
			for _, name := range slices.Sorted(maps.Keys(was)) {
				if !reflect.DeepEqual(was[name], is[name]) {
					t.Errorf("%s was answered as %v and is read as %v", name, was[name], is[name])
				}
			}
			if len(was) != len(is) {
				t.Errorf("%d members were answered, %d are read", len(was), len(is))
			}
		})
	}
}

func TestPaymentSaysWhatHappened(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const moment = `^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$`
	r := w.create("nonce-1", w.body("order-1", map[string]any{"merchant_reference": "ref-1"}))
	w.want(r, http.StatusCreated)
	for path, want := range map[string]any{
		"account_id": w.account.String(), "description": "A test payment", "country": "US", "status": "SUCCEEDED", "sub_status": "APPROVED",
		"merchant_order_id": "order-1", "merchant_reference": "ref-1", "amount.currency": "USD", "amount.value": 45.67, "amount.captured": 0.0, "amount.refunded": 0.0,
		"payment_method.type": "CARD", "workflow": "DIRECT", "idempotency_key": "nonce-1", "version": 1.0,
		"payment_method.payment_method_detail.card.authorization_code": "123456", "payment_method.payment_method_detail.card.capture": true,
		"payment_method.payment_method_detail.card.card_data.iin": "41111111", "payment_method.payment_method_detail.card.card_data.lfd": "1111",
		"payment_method.payment_method_detail.card.card_data.number_length": 16.0, "payment_method.payment_method_detail.card.card_data.security_code_length": 3.0,
		"payment_method.payment_method_detail.card.card_data.brand": "VISA", "payment_method.payment_method_detail.card.card_data.holder_name": "John Doe",
		"payment_method.payment_method_detail.card.card_data.expiration_month": 11.0, "payment_method.payment_method_detail.card.card_data.expiration_year": 28.0,
		"transactions.type": "PURCHASE", "transactions.status": "SUCCEEDED", "transactions.category": "CARD", "transactions.amount": 45.67,
		"transactions.provider_id": "TEST_PSP", "transactions.response_code": "SUCCEEDED", "transactions.response_message": "Transaction successful",
		"transactions.description": "A test payment", "transactions.merchant_reference": "ref-1", "transactions.provider_data.id": "TEST_PSP",
		"transactions.provider_data.transaction_id": "psp-" + fmt.Sprint(r.get("transactions", "id")), "transactions.provider_data.status": "SUCCEEDED",
	} {
		if got := r.get(strings.Split(path, ".")...); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
	for _, path := range []string{"created_at", "updated_at", "transactions.created_at", "transactions.updated_at"} {
		if got := fmt.Sprint(r.get(strings.Split(path, ".")...)); !regexp.MustCompile(moment).MatchString(got) {
			t.Errorf("%s is %s, want UTC with six decimals", path, got)
		}
	}
	for _, path := range []string{"id", "transactions.id"} {
		got := fmt.Sprint(r.get(strings.Split(path, ".")...))
		if id, err := uuid.Parse(got); err != nil || len(got) != 36 || id.Version() != 7 {
			t.Errorf("%s is %s, want a bare UUID of version 7", path, got)
		}
	}
}

// Amounts are what was sent, digit for digit, in every answer: no float ever
// touches them.
func TestAmountsAreExact(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i, c := range []struct{ currency, sent, told string }{
		{"USD", "45.67", "45.67"},
		{"USD", "0.01", "0.01"},
		{"USD", `"0.10"`, "0.1"},
		{"USD", "5000", "5000"},
		{"USD", "5000.00", "5000"},
		{"USD", "5e3", "5000"},
		{"USD", "1234567.89", "1234567.89"},
		{"USD", "9999999999.99", "9999999999.99"}, // the largest
		{"USD", "4503599627.37", "4503599627.37"},
		{"JPY", "1", "1"},
		{"JPY", "9999999999", "9999999999"},
		{"JPY", "100.00", "100"},
		{"KWD", "0.001", "0.001"},
		{"KWD", "9999999999.999", "9999999999.999"},
		{"CLF", "0.0001", "0.0001"},
		{"CLF", "9999999999.9999", "9999999999.9999"},
	} {
		order, nonce := fmt.Sprintf("order-%d", i), fmt.Sprintf("nonce-%d", i)
		body := w.edited(edit{"merchant_order_id", `"` + order + `"`}, edit{"amount.value", c.sent}, edit{"amount.currency", `"` + c.currency + `"`})
		created := w.create(nonce, body)
		if created.status != http.StatusCreated {
			t.Errorf("%s %s: got %s", c.sent, c.currency, created)
			continue
		}
		list := w.get("/v1/payments?merchant_order_id=" + order)
		w.wantReplay(created, w.create(nonce, body), false)
		for what, r := range map[string]response{"created": created, "read": w.get(fmt.Sprintf("/v1/payments/%s", created.get("id"))), "listed": list} {
			for _, want := range []string{`"value":` + c.told + `}`, `"amount":` + c.told + `,`, `"captured":0,`, `"refunded":0,`, `"currency":"` + c.currency + `"`} {
				if !bytes.Contains(r.body, []byte(want)) {
					t.Errorf("%s %s is %s without %s", c.sent, c.currency, what, want)
				}
			}
		}
		w.psp.mu.Lock()
		if got := w.psp.bookings[len(w.psp.bookings)-1]; got.Amount.String() != c.told || got.Currency != c.currency {
			t.Errorf("%s %s was booked as %s %s", c.sent, c.currency, got.Amount, got.Currency)
		}
		w.psp.mu.Unlock()
		if n := w.count(`SELECT count(*) FROM payments WHERE merchant_order_id = $1 AND amount = $2::numeric AND settled = $2::numeric`, order, c.told); n != 1 {
			t.Errorf("%s %s is kept as another amount", c.sent, c.currency)
		}
		life := w.onlyLife(nonce)
		if !strings.Contains(life.Verdict, " "+c.currency+" on ") {
			t.Errorf("the verdict over %s %s is %q", c.sent, c.currency, life.Verdict)
		}
	}
}

// nextPage is the address in a Link header, or "".
func nextPage(t *testing.T, r response) string {
	t.Helper()
	link := r.header.Get("Link")
	if link == "" {
		return ""
	}
	address, isNext := strings.CutSuffix(link, `>; rel="next"`)
	address, isAddress := strings.CutPrefix(address, "<")
	if !isNext || !isAddress || !strings.HasPrefix(address, "/v1/payments?") {
		t.Fatalf("the Link header is %q", link)
	}
	return address
}

func TestListIsPagedNewestFirst(t *testing.T) {
	t.Parallel()
	const payments = 23
	w := newWorld(t)
	var ids []string
	for i := range payments {
		r := w.create(fmt.Sprintf("nonce-%d", i), w.body("order-ü&=1", nil))
		w.want(r, http.StatusCreated)
		ids = append(ids, fmt.Sprint(r.get("id")))
	}
	slices.Reverse(ids)
	w.want(w.create("another", w.body("order-2", nil)), http.StatusCreated)
	w.want(w.createOn(w.instance, w.live, "nonce-0", w.body("order-ü&=1", nil)), http.StatusCreated)

	for _, c := range []struct {
		query string
		pages []int
	}{
		{"", []int{20, 3}}, {"&limit=10", []int{10, 10, 3}}, {"&limit=22", []int{22, 1}}, {"&limit=23", []int{23}}, {"&limit=100", []int{23}}, {"&limit=1", slices.Repeat([]int{1}, 23)},
	} {
		var got []string
		path := "/v1/payments?merchant_order_id=order-%C3%BC%26%3D1" + c.query
		for i, size := range c.pages {
			if path == "" {
				t.Fatalf("%q: no page after %d", c.query, i)
			}
			r := w.get(path)
			w.want(r, http.StatusOK)
			var page []struct {
				ID string `json:"id"`
			}
			if err := json.Unmarshal(r.body, &page); err != nil || len(page) != size {
				t.Fatalf("%q: page %d has %d payments (%v), want %d", c.query, i+1, len(page), err, size)
			}
			for _, p := range page {
				got = append(got, p.ID)
			}
			path = nextPage(t, r)
		}
		if path != "" {
			t.Errorf("%q: the last page points to another one", c.query)
		}
		if !slices.Equal(got, ids) {
			t.Errorf("%q: the pages together are not the order's payments, newest first", c.query)
		}
	}
}

func TestListOfNothingIsAnEmptyArray(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	_, stranger := w.newMerchant("Second merchant")
	for what, r := range map[string]response{
		"an unknown order":        w.get("/v1/payments?merchant_order_id=unheard-of"),
		"an order in other case":  w.get("/v1/payments?merchant_order_id=ORDER-1"),
		"the order in live mode":  w.call(http.MethodGet, w.public.URL+"/v1/payments?merchant_order_id=order-1", nil, keys(w.live)...),
		"another merchant's":      w.call(http.MethodGet, w.public.URL+"/v1/payments?merchant_order_id=order-1", nil, keys(stranger)...),
		"a page behind the first": w.get("/v1/payments?merchant_order_id=order-1&after=" + uuid.Nil.String()[:35] + "1"),
	} {
		if r.status != http.StatusOK || strings.TrimSpace(string(r.body)) != "[]" || r.header.Get("Link") != "" {
			t.Errorf("%s: got %s", what, r)
		}
	}
	for query, message := range map[string]string{
		"":                             "merchant_order_id is required",
		"?merchant_order_id=":          "merchant_order_id is required",
		"?merchant_order_id=a&limit=0": "limit must be a whole number from 1 to 100", "?merchant_order_id=a&limit=101": "limit must be a whole number from 1 to 100",
		"?merchant_order_id=a&limit=ten": "limit must be a whole number from 1 to 100", "?merchant_order_id=a&limit=-1": "limit must be a whole number from 1 to 100",
		"?merchant_order_id=a&after=geheim": "after must be a cursor from a Link header",
	} {
		code := "INVALID_PARAMETERS"
		if strings.HasSuffix(message, "required") {
			code = "MISSING_PARAMETERS"
		}
		w.wantError(w.get("/v1/payments"+query), http.StatusBadRequest, code, message)
	}
}

func TestPaymentOfAnotherMerchantOrModeIsNotFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	account, stranger := w.newMerchant("Second merchant")
	r := w.create("nonce-1", w.body("order-1", nil))
	w.want(r, http.StatusCreated)
	path := fmt.Sprintf("/v1/payments/%s", r.get("id"))
	w.want(w.get(path), http.StatusOK)
	w.want(w.get(path+"?transactions_history=true&raw_response=true"), http.StatusOK)

	live := w.createOn(w.instance, w.live, "nonce-1", w.body("order-1", nil))
	w.want(live, http.StatusCreated)
	livePath := fmt.Sprintf("/v1/payments/%s", live.get("id"))
	for who, c := range map[string]struct {
		of   merchants.KeyPair
		path string
	}{
		"another merchant": {stranger, path}, "another merchant, of a live payment": {stranger, livePath},
		"the live key, of a test payment": {w.live, path}, "the test key, of a live payment": {w.test, livePath},
		"an unknown payment":        {w.test, "/v1/payments/" + uuid.Must(uuid.NewV7()).String()},
		"a merchant by its account": {stranger, "/v1/payments/" + account.String()},
		"no id":                     {w.test, "/v1/payments/geheim"},
		"an id in braces":           {w.test, "/v1/payments/%7B" + path[len("/v1/payments/"):] + "%7D"},
		"an id as a URN":            {w.test, "/v1/payments/urn:uuid:" + path[len("/v1/payments/"):]},
		"an id without hyphens":     {w.test, "/v1/payments/" + strings.ReplaceAll(path[len("/v1/payments/"):], "-", "")},
		"the transaction's id":      {w.test, fmt.Sprintf("/v1/payments/%s", r.get("transactions", "id"))},
	} {
		got := w.call(http.MethodGet, w.public.URL+c.path, nil, keys(c.of)...)
		if got.status != http.StatusBadRequest {
			t.Errorf("%s: got %s", who, got)
			continue
		}
		w.wantError(got, http.StatusBadRequest, "PAYMENT_NOT_FOUND", "there is no payment with this id")
	}
}

// A path that exists is not "not found" to another method; and which methods there
// are is nobody's business who has not said who they are.
func TestMethodThatAPathDoesNotTakeIsSaidToBeUnsupported(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for path, allowed := range map[string]string{
		"/v1/payments": "GET, POST", "/v1/payments/" + uuid.Must(uuid.NewV7()).String(): "GET", "/v1/idempotency-keys": "GET", "/v1/idempotency-keys/nonce-1": "GET",
	} {
		for _, method := range []string{http.MethodDelete, http.MethodPut, http.MethodPatch} {
			r := w.call(method, w.public.URL+path, []byte("{}"), keys(w.test)...)
			if r.status != http.StatusMethodNotAllowed || r.code() != "UNSUPPORTED_METHOD" {
				t.Errorf("%s %.30s: got %d %s, want 405 UNSUPPORTED_METHOD", method, path, r.status, r.code())
				continue
			}
			got := strings.Split(r.header.Get("Allow"), ", ")
			for _, m := range strings.Split(allowed, ", ") {
				if !slices.Contains(got, m) {
					t.Errorf("%s %.30s: allowed are %v, want %s among them", method, path, got, m)
				}
			}
		}
	}
	for _, path := range []string{"/v1/nothing", "/v1", "/nothing"} {
		w.wantError(w.get(path), http.StatusNotFound, "NOT_FOUND", "there is nothing at this path")
	}
	for _, path := range []string{"/v1/payments", "/v1/payments/" + uuid.Must(uuid.NewV7()).String(), "/v1/idempotency-keys/nonce-1"} {
		w.want(w.call(http.MethodGet, w.public.URL+path, nil), http.StatusUnauthorized, "INVALID_CREDENTIALS")
	}
}

// A stored row that cannot be read must not end in an answer with half a payment,
// nor in one that quotes it.
func TestStoredShapeThatCannotBeReadIsAnErrorWithoutIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.create("nonce-1", w.body("order-1", nil))
	w.want(r, http.StatusCreated)
	path := fmt.Sprintf("/v1/payments/%s", r.get("id"))
	for _, sql := range []string{
		`UPDATE payments SET request = '{"description":"geheim'`,
		`UPDATE transactions SET card = 'geheim'`,
	} {
		w.sql(sql)
		got := w.get(path)
		w.wantError(got, http.StatusInternalServerError, "INTERNAL_ERROR", "something unexpected happened; retry with the same key")
		w.wantSilent(got, "geheim")
	}
	w.wantReplay(r, w.create("nonce-1", w.body("order-1", nil)), false) // the answer is kept as bytes
	w.public.Close()                                                    // so that every line is written
	if strings.Contains(w.logs.String(), "geheim") {
		t.Error("a log line quotes the row")
	}
}
