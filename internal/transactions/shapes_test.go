package transactions

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/oncepay/oncepay/internal/providers"
)

// What every answer looks like, path by path, is written down in testdata/shapes: one
// file an operation, as the contract publishes it for cards, and where ours differs. The
// tests compare it with real answers, both ways: nothing is missing, of another type or
// elsewhere, and nothing appears that is not written down.

//go:embed testdata/shapes/*.txt
var shapeFiles embed.FS

// paths is one of the files.
type paths struct {
	types   map[string][]string // by path
	asSent  map[string]bool     // below these, a merchant decides what there is
	leftOut []string            // what is published, and not here; a star at the end stands for all below
}

// readShape reads a file of testdata/shapes. Its header says what the lines mean.
func readShape(t *testing.T, operation string) paths {
	t.Helper()
	data, err := shapeFiles.ReadFile("testdata/shapes/" + operation + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	p := paths{types: map[string][]string{}, asSent: map[string]bool{}}
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		mark := ""
		if len(fields[0]) == 1 && fields[0] != "$" {
			mark, fields = fields[0], fields[1:]
		}
		if mark == "-" {
			if len(fields) < 2 {
				t.Fatalf("%s: %s is left out without a reason", operation, fields)
			}
			p.leftOut = append(p.leftOut, fields[0])
			continue
		}
		if len(fields) != 2 || p.types[fields[0]] != nil || !strings.Contains(" + ~", mark) {
			t.Fatalf("%s: no path and types, or twice: %q", operation, line)
		}
		p.types[fields[0]] = strings.Split(fields[1], "|")
		p.asSent[fields[0]] = mark == "~"
	}
	return p
}

// typesIn collects the types at each path of v. Below what is as it was sent it does not
// look.
func typesIn(v any, path string, asSent map[string]bool, into map[string]map[string]bool) {
	see := func(typ string) {
		if into[path] == nil {
			into[path] = map[string]bool{}
		}
		into[path][typ] = true
	}
	switch v := v.(type) {
	case nil:
		see("null")
	case bool:
		see("boolean")
	case float64:
		see("number")
	case string:
		see("string")
	case []any:
		see("array")
		for _, e := range v {
			typesIn(e, path+"[]", asSent, into)
		}
	case map[string]any:
		see("object")
		if asSent[path] {
			return
		}
		for name, e := range v {
			typesIn(e, path+"."+name, asSent, into)
		}
	}
}

// incomplete are the paths that an object in v does not have, although others like it do.
func (p paths) incomplete(v any, path string) (missing []string) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			missing = append(missing, p.incomplete(e, path+"[]")...)
		}
	case map[string]any:
		if p.asSent[path] {
			return nil
		}
		for below := range p.types {
			name, direct := strings.CutPrefix(below, path+".")
			if _, there := v[name]; direct && !there && !strings.ContainsAny(name, ".[") {
				missing = append(missing, below)
			}
		}
		for name, e := range v {
			missing = append(missing, p.incomplete(e, path+"."+name)...)
		}
	}
	return missing
}

func TestEveryAnswerHasTheShapeThatIsWrittenDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	answers := map[string][]response{}
	w.tellPayments(answers)
	w.tellActions(answers)
	for operation, all := range answers {
		p := readShape(t, operation)
		seen := map[string]map[string]bool{}
		for _, r := range all {
			var v any
			if err := json.Unmarshal(r.body, &v); err != nil {
				t.Fatalf("%s: no JSON: %v", operation, err)
			}
			typesIn(v, "$", p.asSent, seen)
			for _, path := range p.incomplete(v, "$") {
				t.Errorf("%s: %s is missing in %s", operation, path, r)
			}
		}
		for _, path := range slices.Sorted(maps.Keys(p.types)) {
			if got, want := slices.Sorted(maps.Keys(seen[path])), slices.Sorted(slices.Values(p.types[path])); !slices.Equal(got, want) {
				t.Errorf("%s: %s is of type %v, and written down as %v", operation, path, got, want)
			}
		}
		for _, path := range slices.Sorted(maps.Keys(seen)) {
			if p.types[path] == nil {
				t.Errorf("%s: %s, of type %v, is not written down", operation, path, slices.Sorted(maps.Keys(seen[path])))
			}
			for _, out := range p.leftOut {
				if below, isPrefix := strings.CutSuffix(out, "*"); path == out || isPrefix && strings.HasPrefix(path, below) {
					t.Errorf("%s: %s is written down as left out", operation, path)
				}
			}
		}
	}
	files, err := shapeFiles.ReadDir("testdata/shapes")
	if err != nil || len(files) != len(answers) {
		t.Errorf("there are %d files of shapes, and answers to %d operations (%v)", len(files), len(answers), err)
	}
}

// answering is a provider that answers a charge with r, and books it if that says so.
func answering(r providers.Result) behaviour {
	return func(_ context.Context, p *psp, c providers.Charge) providers.Result {
		if r.Outcome == providers.Approved {
			p.book(c)
		}
		return r
	}
}

const rawAnswer = `{"id":"psp-1","status":"approved"}`

// everything is all that a merchant may send beside what a payment needs.
var everything = []edit{
	{"merchant_reference", `"ref-1"`}, {"callback_url", `"https://shop.test/back"`}, {"metadata", `[{"key":"k","value":"v"}]`},
	{"customer_payer", `{"first_name":"Ada","billing_address":{"country":"st"}}`}, {"additional_data", `{"order":{"items":[]}}`},
	{cardPath + "stored_credentials", `{"reason":"CARD_ON_FILE","usage":"FIRST","subscription_agreement_id":"a-1"}`},
}

// tellPayments collects answers to the operations on payments, whatever became of them.
func (w *world) tellPayments(answers map[string][]response) {
	w.t.Helper()
	for i, c := range []struct {
		does  behaviour
		edits []edit
	}{
		{approve, nil},
		{approve, everything},
		{approve, []edit{{cardPath + "capture", "false"}}},
		{approve, []edit{{cardPath + "verify", "true"}, {"amount.value", "0"}}},
		{decline, nil},
		{answering(providers.Result{Outcome: providers.Declined, ResponseCode: "PROVIDER_ERROR"}), nil},
		{answering(providers.Result{Outcome: providers.Approved, ResponseCode: "SUCCEEDED", Raw: json.RawMessage(rawAnswer)}), nil},
		{answering(providers.Result{Outcome: providers.Pending}), nil},
		{answering(providers.Result{Outcome: providers.Pending, RedirectURL: "https://psp.test/challenge"}), nil},
	} {
		w.psp.next(c.does)
		r := w.create(fmt.Sprintf("told-%d", i), w.edited(append(c.edits, edit{"merchant_order_id", fmt.Sprintf(`"told-%d"`, i)})...))
		w.want(r, http.StatusCreated)
		answers["create-payment"] = append(answers["create-payment"], r)
		answers["retrieve-payment-by-merchant-order-id"] = append(answers["retrieve-payment-by-merchant-order-id"], w.get(fmt.Sprintf("/v1/payments?merchant_order_id=told-%d", i)))
		w.read(answers, textAt(r, "id"))
	}
	w.psp.next(timeout) // and nobody knows
	w.want(w.create("told-open", w.body("told-open", nil)), http.StatusGatewayTimeout)
	list := w.get("/v1/payments?merchant_order_id=told-open")
	answers["retrieve-payment-by-merchant-order-id"] = append(answers["retrieve-payment-by-merchant-order-id"], list)
	var found []struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(list.body, &found); err != nil || len(found) != 1 {
		w.t.Fatalf("the open payment is not found: %s", list)
	}
	w.read(answers, found[0].ID)
}

// read collects every view of a payment.
func (w *world) read(answers map[string][]response, id string) {
	w.t.Helper()
	for _, query := range []string{"", "?transactions_history=true", "?raw_response=true", "?transactions_history=true&raw_response=true", "?transactions_history=false&raw_response=false"} {
		r := w.get("/v1/payments/" + id + query)
		w.want(r, http.StatusOK)
		answers["retrieve-payment-by-id"] = append(answers["retrieve-payment-by-id"], r)
	}
}

// tellActions collects answers to captures, cancellations and refunds.
func (w *world) tellActions(answers map[string][]response) {
	w.t.Helper()
	n := 0
	told := func(operation string, status int, d deed) response {
		w.t.Helper()
		n++
		r := w.act(fmt.Sprintf("told-action-%d", n), d)
		w.want(r, status)
		answers[operation] = append(answers[operation], r)
		return r
	}
	described := map[string]any{"description": "As agreed", "additional_data": json.RawMessage(`{"order":{"items":[]}}`)}
	silent := map[string]any{"reason": nil}
	w.psp.nextOperation(operateAsUsual, declinedForGood, acceptedForNow)
	s := w.held("told-captured", "45.67")
	capture := told("capture-authorization", http.StatusOK, s.capture("10"))
	told("capture-authorization", http.StatusOK, s.capture("10").with(described))
	told("capture-authorization", http.StatusOK, s.capture("10"))
	told("refund-payment", http.StatusOK, s.refundOf(textAt(capture, "id"), "1").with(silent))
	told("cancel-or-refund-a-payment", http.StatusCreated, s.reverse(textAt(capture, "id"), "1").with(map[string]any{"merchant_reference": nil}))
	w.read(answers, s.payment)
	s = w.held("told-canceled", "45.67")
	told("cancel-payment", http.StatusOK, s.cancel().with(silent))
	w.read(answers, s.payment)
	told("cancel-payment", http.StatusOK, w.held("told-canceled-2", "45.67").cancel().with(described))
	told("cancel-or-refund-a-payment", http.StatusCreated, w.held("told-canceled-3", "45.67").reverse("", "").with(described))
	sold := w.create("told-refunded", w.edited(everything...))
	w.want(sold, http.StatusCreated)
	s = sale{textAt(sold, "id"), textAt(sold, "transactions", "id")}
	told("refund-payment", http.StatusOK, s.refund("10").with(described))
	w.psp.nextOperation(declinedForGood, acceptedForNow)
	told("refund-payment", http.StatusOK, s.refund("10"))
	told("refund-payment", http.StatusOK, s.refund(""))
	w.read(answers, s.payment)
}
