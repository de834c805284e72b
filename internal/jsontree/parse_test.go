package jsontree

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
)

// card stands in tests for what must never be repeated.
const card = "4111111111111111"

func mustParse(t testing.TB, body string) Value {
	t.Helper()
	v, err := Parse([]byte(body))
	if err != nil {
		t.Fatalf("Parse(%s): %v", body, err)
	}
	return v
}

func TestParseKeepsWhatWasSent(t *testing.T) {
	t.Parallel()
	v := mustParse(t, ` {"b": 1.00, "a": [true, null, "é\u00e9\n", {"": -0e5}], "c": {}, "d": false} `)
	if got, want := string(v.JSON()), `{"b":1.00,"a":[true,null,"éé\n",{"":-0e5}],"c":{},"d":false}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if text, ok := v.Get("b").Number(); !ok || text != "1.00" {
		t.Errorf("b: %q, %t", text, ok)
	}
	if b, ok := v.Get("d").Bool(); b || !ok {
		t.Errorf("d: %t, %t", b, ok)
	}
	var names []string
	for name := range v.Members() {
		names = append(names, name)
	}
	if got := strings.Join(names, " "); got != "b a c d" {
		t.Errorf("members in the order %s", got)
	}
	var kinds []string
	for element := range v.Get("a").Elements() {
		kinds = append(kinds, element.Kind().String())
	}
	if got := strings.Join(kinds, " "); got != "boolean null string object" {
		t.Errorf("elements: %s", got)
	}
}

func TestAccessorsAnswerForTheirOwnKindOnly(t *testing.T) {
	t.Parallel()
	for _, body := range []string{`null`, `true`, `1`, `"1"`, `[1]`, `{"a":1}`} {
		v := mustParse(t, body)
		_, isBool := v.Bool()
		_, isNumber := v.Number()
		_, isString := v.Text()
		members, elements := 0, 0
		for range v.Members() {
			members++
		}
		for range v.Elements() {
			elements++
		}
		got := fmt.Sprint(isBool, isNumber, isString, elements, members, v.Len(), v.Given())
		want := map[Kind]string{
			Null:   "false false false 0 0 0 false",
			Bool:   "true false false 0 0 0 true",
			Number: "false true false 0 0 0 true",
			String: "false false true 0 0 0 true",
			Array:  "false false false 1 0 1 true",
			Object: "false false false 0 1 1 true",
		}[v.Kind()]
		if got != want {
			t.Errorf("%s: got %s, want %s", body, got, want)
		}
	}
}

func TestIterationMayStopEarly(t *testing.T) {
	t.Parallel()
	v := mustParse(t, `{"a":[1,2,3],"b":2}`)
	for name := range v.Members() {
		if name != "a" {
			t.Error("went on to", name)
		}
		break
	}
	for element := range v.Get("a").Elements() {
		if text, _ := element.Number(); text != "1" {
			t.Error("went on to", text)
		}
		break
	}
}

func TestWhatWasNotSentIsAbsentAndKnowsItsPlace(t *testing.T) {
	t.Parallel()
	v := mustParse(t, `{"amount":{"currency":"USD"},"items":[{"sku":1},7],"text":"x","nothing":null}`)
	var second Value
	for element := range v.Get("items").Elements() {
		second = element
	}
	for want, absent := range map[string]Value{
		"$.amount.value":             v.Get("amount").Get("value"),
		"$.customer.address.country": v.Get("customer").Get("address").Get("country"),
		"$.text.length":              v.Get("text").Get("length"),
		"$.nothing.inside":           v.Get("nothing").Get("inside"),
		"$.items.sku":                v.Get("items").Get("sku"),
		"$.items.*":                  v.Get("items").Get(""),
		"$.items[1].sku":             second.Get("sku"),
		"$.Amount":                   v.Get("Amount"),
		"$.a.b":                      Value{}.Get("a").Get("b"),
		"$":                          {},
	} {
		if absent.Path() != want || absent.Kind() != Absent || absent.Given() || absent.Len() != 0 || absent.JSON() != nil {
			t.Errorf("%s: path %s, kind %s, given %t, JSON %q", want, absent.Path(), absent.Kind(), absent.Given(), absent.JSON())
		}
	}
	if got := second.Path(); got != "$.items[1]" {
		t.Errorf("path of an element: %s", got)
	}
}

// H46: Go's own decoder would take "Amount", or "AMOUNT", for the amount.
func TestH46NamesAreCaseSensitive(t *testing.T) {
	t.Parallel()
	v := mustParse(t, `{"Amount":1,"AMOUNT":2,"amount":3}`)
	if text, _ := v.Get("amount").Number(); text != "3" {
		t.Errorf("amount is %s", text)
	}
	if mustParse(t, `{"Amount":1}`).Get("amount").Kind() != Absent {
		t.Error("Amount was taken for amount")
	}
}

// H45: a name twice. H47: a byte order mark, trailing data. And whatever else two
// readers of a body could disagree about, or could cost more than it should.
func TestH45H47ParseRefusesByPlaceAndRule(t *testing.T) {
	t.Parallel()
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, c := range []struct {
		body, path string
		rule       Rule
	}{
		{``, `$`, RuleEmpty},
		{" \r\n\t", `$`, RuleEmpty},
		{"\ufeff{}", `$`, RuleBOM},
		{"\xff\xfe{\x00}\x00", `$`, RuleUTF8}, // UTF-16

		{`{} {}`, `$`, RuleTrailing},
		{`{}x`, `$`, RuleTrailing},
		{`1 2`, `$`, RuleTrailing},
		{"{}\x00", `$`, RuleTrailing},
		{`{}]`, `$`, RuleTrailing},
		{`"a""b"`, `$`, RuleTrailing},
		{"{}\ufeff", `$`, RuleTrailing},

		{`{"a":1,"a":2}`, `$.a`, RuleDuplicate},
		{`{"a":1,"\u0061":1}`, `$.a`, RuleDuplicate},
		{`{"amount":{"value":1,"currency":"USD","value":1}}`, `$.amount.value`, RuleDuplicate},
		{`[0,{"items":[{},{"sku":1,"sku":1}]}]`, `$[1].items[1].sku`, RuleDuplicate},
		{`{"x.y":1,"x.y":2}`, `$.*`, RuleDuplicate},

		{"{\"name\":\"\xff\"}", `$.name`, RuleUTF8},
		{"{\"a\":{\"b\xe9\":1}}", `$.a`, RuleUTF8},
		{"\xff", `$`, RuleUTF8},
		{`{"name":"\ud800"}`, `$.name`, RuleSyntax},
		{`{"name":"\udc00\ud800"}`, `$.name`, RuleSyntax},
		{`{"name":"a\u0000b"}`, `$.name`, RuleNUL},
		{`{"\u0000":1}`, `$.*`, RuleNUL},

		{`{`, `$`, RuleSyntax},
		{`}`, `$`, RuleSyntax},
		{`{]`, `$`, RuleSyntax},
		{`[}`, `$`, RuleSyntax},
		{`[1,]`, `$[1]`, RuleSyntax},
		{`[1 2]`, `$[1]`, RuleSyntax},
		{`{"a"}`, `$.a`, RuleSyntax},
		{`{"a":}`, `$.a`, RuleSyntax},
		{`{"a":1,}`, `$`, RuleSyntax},
		{`{a:1}`, `$`, RuleSyntax},
		{`{1:1}`, `$`, RuleSyntax},
		{`{'a':1}`, `$`, RuleSyntax},
		{`{"a":01}`, `$`, RuleSyntax},
		{`{"a":+1}`, `$.a`, RuleSyntax},
		{`{"a":.5}`, `$.a`, RuleSyntax},
		{`{"a":NaN}`, `$.a`, RuleSyntax},
		{`{"a":0x1}`, `$`, RuleSyntax},
		{`{"a":True}`, `$.a`, RuleSyntax},
		{`{"a":"unfinished`, `$.a`, RuleSyntax},
		{"{\"a\":\"line\nbreak\"}", `$.a`, RuleSyntax},
		{`{"a":1 /* c */}`, `$`, RuleSyntax},
		{"\v{}", `$`, RuleSyntax},

		{deep(maxDepth + 1), `$` + strings.Repeat("[0]", maxDepth), RuleDepth},
		{deep(100_000), `$` + strings.Repeat("[0]", maxDepth), RuleDepth},
		{strings.Repeat(`{"a":`, maxDepth+1), `$` + strings.Repeat(".a", maxDepth), RuleDepth},
		{`{"a":[` + strings.Repeat(`0,`, maxValues) + `0]}`, `$.a`, RuleValues},
		{`{"a":` + strings.Repeat("9", maxNumber+1) + `}`, `$.a`, RuleNumber},
		{`{"a":1e` + strings.Repeat("0", maxNumber) + `}`, `$.a`, RuleNumber},
	} {
		v, err := Parse([]byte(c.body))
		var refused *Error
		if !errors.As(err, &refused) {
			t.Errorf("%.60q: got %v, want %s %s", c.body, err, c.path, c.rule)
		} else if refused.Rule != c.rule || refused.Path != c.path {
			t.Errorf("%.60q: got %v, want %s %s", c.body, err, c.path, c.rule)
		}
		if v.Kind() != Absent {
			t.Errorf("%.60q: refused, and yet there is a tree", c.body)
		}
	}
}

func TestParseAcceptsUpToItsLimits(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth),
		`[` + strings.Repeat(`0,`, maxValues-2) + `0]`, // the array is a value too
		strings.Repeat("9", maxNumber),
		" \t\r\n1 \t\r\n",
		`""`,
		`{"":{"":1}}`,
		`"\ud83d\ude00 😀 \uFEFF"`,
	} {
		mustParse(t, body)
	}
}

func TestTheTreeOutlivesTheBody(t *testing.T) {
	t.Parallel()
	body := []byte(`{"name":"value","number":123.45}`)
	v, err := Parse(body)
	if err != nil {
		t.Fatal(err)
	}
	for i := range body {
		body[i] = 'x'
	}
	if got, want := string(v.JSON()), `{"name":"value","number":123.45}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A card number may be where nobody looks for it: as a name, beside a typo, in a
// string that never ends.
func TestErrorsNeverRepeatTheBody(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{"` + card + `":1,"` + card + `":1}`,
		`{"card_` + card + `":01}`,
		`{"card 4111 1111 1111 1111":01}`,
		`{"4111_1111_1111_1111":01}`,
		`{"number":` + card + card + `x}`,
		`{"number":"` + card,
		`{"number":"` + card + "\xff\"}",
		`{"number":"` + card + `\u0000"}`,
		`{"` + card + `\u0000":1}`,
		`{"` + card + "\xff\":1}",
		`{"number":"` + card + `"} ` + card,
		card + card + `x`,
		`{"number":` + strings.Repeat(card, 10) + `}`,
		`{"` + card + `":` + strings.Repeat(`[`, 40) + `}`,
		`{"` + card + `":[` + strings.Repeat(`0,`, maxValues) + `0]}`,
	} {
		_, err := Parse([]byte(body))
		if err == nil {
			t.Errorf("%.60q was accepted", body)
			continue
		}
		for _, shown := range []string{err.Error(), fmt.Sprintf("%+v %#v", err, err)} {
			if strings.Contains(shown, "41111") || strings.Contains(shown, "4111_1") || strings.Contains(shown, "4111 1") {
				t.Errorf("%.60q: the error shows it: %s", body, shown)
			}
		}
		if errors.Unwrap(err) != nil {
			t.Errorf("%.60q: the error wraps %T", body, errors.Unwrap(err))
		}
	}
}

func TestAPathShowsOnlyWhatMustBeAName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"amount":                 "$.amount",
		"iso8583_response_code":  "$.iso8583_response_code",
		"address_line_1":         "$.address_line_1",
		"":                       "$.*",
		card:                     "$.*",
		"c4111111":               "$.*",
		"a b":                    "$.*",
		"a.b":                    "$.*",
		"é":                      "$.*",
		"<script>":               "$.*",
		strings.Repeat("n", 64):  "$." + strings.Repeat("n", 64),
		strings.Repeat("n", 65):  "$.*",
		"line\nbreak":            "$.*",
		"device-fingerprint-key": "$.*",
	} {
		quoted, _ := json.Marshal(name)
		for _, value := range mustParse(t, `{`+string(quoted)+`:1}`).Members() {
			if got := value.Path(); got != want {
				t.Errorf("%q: got %s, want %s", name, got, want)
			}
		}
	}
}

func TestAValueIsNeverPrintedOrEncodedByAccident(t *testing.T) {
	t.Parallel()
	v := mustParse(t, `{"number":"`+card+`"}`)
	type request struct{ Body Value }
	var shown bytes.Buffer
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&shown, format, v)
		fmt.Fprintf(&shown, format, request{v})
		fmt.Fprintf(&shown, format, &request{v})
	}
	for _, handler := range []slog.Handler{slog.NewTextHandler(&shown, nil), slog.NewJSONHandler(&shown, nil)} {
		slog.New(handler).Info("request", "body", v, "request", request{v}, "members", []Value{v})
	}
	if encoded, err := json.Marshal(request{v}); err == nil {
		t.Errorf("encoded as %s", encoded)
	}
	if strings.Contains(shown.String(), "4111") || strings.Contains(shown.String(), fmt.Sprintf("%x", card)) {
		t.Errorf("printed: %s", shown.String())
	}
}

func TestPickKeepsTheChosenPlacesAndNothingElse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, body, want string
		paths            []string
	}{
		{
			"a card without its secrets",
			`{"payment_method":{"type":"CARD","detail":{"card":{"card_data":{"number":"` + card + `","security_code":"123","holder_name":"A"},"installments":1}}}}`,
			`{"payment_method":{"type":"CARD","detail":{"card":{"card_data":{"holder_name":"A"},"installments":1}}}}`,
			[]string{"$.payment_method.type", "$.payment_method.detail.card.card_data.holder_name", "$.payment_method.detail.card.installments"},
		},
		{"all below", `{"a":{"b":[1,{"c":null}],"d":1.0},"e":2}`, `{"a":{"b":[1,{"c":null}],"d":1.0}}`, []string{"$.a"}},
		{"a path below a chosen one changes nothing", `{"a":{"b":1,"c":2}}`, `{"a":{"b":1,"c":2}}`, []string{"$.a.b", "$.a", "$.a.c"}},
		{"the order sent", `{"c":1,"b":2,"a":3}`, `{"c":1,"a":3}`, []string{"$.a", "$.c"}},
		{"empty where nothing is chosen", `{"a":{"x":1},"b":1}`, `{"a":{}}`, []string{"$.a.y"}},
		{"elements", `{"a":[{"k":1,"v":2},{"v":3},"text",[4],{"k":5}]}`, `{"a":[{"k":1},{},{"k":5}]}`, []string{"$.a[*].k"}},
		{"elements of elements", `[[1,"x"],2,[[3]]]`, `[[1,"x"],[[3]]]`, []string{"$[*][*]"}},
		{"the root", `{"a":1}`, `{"a":1}`, []string{"$"}},
		{"a null on the way", `{"a":null}`, `{}`, []string{"$.a.b"}},
		{"a chosen null", `{"a":null}`, `{"a":null}`, []string{"$.a"}},
		{"names are case-sensitive", `{"A":1}`, `{}`, []string{"$.a"}},
		{"a name that looks like a path", `{"a.b":1,"a":{"b":2}}`, `{"a":{"b":2}}`, []string{"$.a.b"}},
		{"a name that looks like an element", `{"[*]":1,"*":2}`, ``, []string{"$[*]"}},
		// What stands where the path goes on may be anything, a card number included.
		{"a text on the way", `{"card_data":"` + card + `"}`, `{}`, []string{"$.card_data.holder_name"}},
		{"a number on the way", `{"card_data":` + card + `}`, `{}`, []string{"$.card_data.holder_name"}},
		{"an array where an object should be", `{"card_data":["` + card + `"]}`, `{}`, []string{"$.card_data.holder_name"}},
		{"an object where an array should be", `{"a":{"k":1}}`, `{}`, []string{"$.a[*].k"}},
		{"a text as the body", `"` + card + `"`, ``, []string{"$.a"}},
		{"nothing chosen", `{"a":1}`, ``, nil},
	} {
		picked := NewPaths(c.paths...).Pick(mustParse(t, c.body))
		if got := string(picked.JSON()); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	if (NewPaths("$").Pick(Value{}) != Value{}) || (Paths{}).Pick(mustParse(t, "1")).Kind() != Absent {
		t.Error("something came of nothing")
	}
}

func TestAPickedCopyHasPathsAndParentsOfItsOwn(t *testing.T) {
	t.Parallel()
	v := mustParse(t, `{"card":"`+card+`","items":["dropped",{"sku":"A"}]}`)
	picked := NewPaths("$.items[*].sku").Pick(v)
	for item := range picked.Get("items").Elements() {
		if got := item.Get("sku").Path(); got != "$.items[0].sku" {
			t.Errorf("path %s", got)
		}
		for n := item.node; n != nil; n = n.parent {
			if n == v.node {
				t.Error("the copy holds on to the tree it was made from")
			}
		}
	}
	if picked.Get("items").Len() != 1 || v.Get("items").Len() != 2 {
		t.Error("the copy and the original share their children")
	}
}

func TestMalformedPathsPanic(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"", "a", ".a", "$a", "$.", "$..a", "$.a.", "$[0]", "$[", "$.*", "$[*", "$.a b", "$.a[*]b", "$.é", "$.c" + card} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q was accepted", path)
				}
			}()
			NewPaths(path)
		}()
	}
}

// FuzzParse holds what callers rely on: no panic, errors of our type only, and a
// tree that is the same again after a round trip.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		``, `null`, `{"a":[1,1.0,1e0,-0,1e999999999],"b":{"c":"\u00e9\n"}}`, `{"a":1,"a":1}`, "\ufeff1", `[[[[]]]]`,
		`{"amount":{"value":"45.60"}}`, `{"":{"":[{}]}}`, `{"a":1e-999999999999999999999999}`, "\"\xff\"", `"\ud83d\ude00"`,
	} {
		f.Add([]byte(seed))
	}
	form := NewForm(Omit("$.b"), Replace("$.a[*]", strings.ToUpper), Decimal("$.amount.value"))
	f.Fuzz(func(t *testing.T, body []byte) {
		v, err := Parse(body)
		if err != nil {
			var refused *Error
			if !errors.As(err, &refused) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if !json.Valid(body) {
			t.Fatalf("accepted %q, which encoding/json refuses", body)
		}
		encoded := v.JSON()
		again, err := Parse(encoded)
		if err != nil {
			t.Fatalf("%q became %q: %v", body, encoded, err)
		}
		if !bytes.Equal(again.JSON(), encoded) || !bytes.Equal(NewPaths("$").Pick(v).JSON(), encoded) {
			t.Fatalf("%q became %q, then something else", body, encoded)
		}
		for _, f := range []Form{{}, form} {
			if first, second := f.Canonical(v), f.Canonical(again); !bytes.Equal(first, second) {
				t.Fatalf("%q has the forms %q and %q", body, first, second)
			}
		}
	})
}

// typical is a purchase as a shop's backend sends it, about 2 KB.
var typical = `{
  "account_id": "018f3c2e-7b1a-7c3d-9e4f-5a6b7c8d9e0f", "merchant_order_id": "order-2026-000123", "merchant_reference": "ref-000123",
  "description": "Running shoes and a water bottle", "country": "CO", "workflow": "DIRECT",
  "amount": {"currency": "COP", "value": 245900.50},
  "payment_method": {"type": "CARD", "vault_on_success": false, "detail": {"card": {"capture": true, "installments": 3, "soft_descriptor": "SHOES",
    "card_data": {"number": "` + card + `", "holder_name": "Ana Mar\u00eda P\u00e9rez", "expiration_month": 11, "expiration_year": 28, "security_code": "123"}}}},
  "customer_payer": {"merchant_customer_id": "c-7781", "first_name": "Ana María", "last_name": "Pérez", "email": "ana@example.com", "gender": "F",
    "date_of_birth": "1990-02-28", "nationality": "CO", "document": {"document_type": "CC", "document_number": "1032765432"},
    "phone": {"country_code": "57", "number": "3132450765"}, "ip_address": "192.0.2.123",
    "billing_address": {"address_line_1": "Calle 34 # 56-78", "address_line_2": "Apartment 502", "city": "Bogotá", "country": "CO", "state": "Cundinamarca", "zip_code": "111111"},
    "shipping_address": {"address_line_1": "Calle 34 # 56-78", "address_line_2": "Apartment 502", "city": "Bogotá", "country": "CO", "state": "Cundinamarca", "zip_code": "111111"}},
  "additional_data": {"order": {"fee_amount": 0.5, "shipping_amount": 9900, "items": [
    {"id": "sku-1", "name": "Running shoes", "quantity": 1, "unit_amount": 215900.50, "category": "Clothes", "brand": "XYZ", "sku_code": "8765432109", "manufacture_part_number": "XYZ123456"},
    {"id": "sku-2", "name": "Water bottle", "quantity": 2, "unit_amount": 10000, "category": "Sports", "brand": "ABC", "sku_code": "8765432110", "manufacture_part_number": "ABC123456"}]}},
  "metadata": [{"key": "channel", "value": "web"}, {"key": "campaign", "value": "black-friday"}, {"key": "cart", "value": "9f1c2d"}]
}`

func BenchmarkParse(b *testing.B) {
	body := []byte(typical)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(body); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEncodingJSON is the measure for BenchmarkParse: what Go's own decoder
// takes for a tree that has lost order, number text and duplicates.
func BenchmarkEncodingJSON(b *testing.B) {
	body := []byte(typical)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.UseNumber()
		var v any
		if err := decoder.Decode(&v); err != nil && !errors.Is(err, io.EOF) {
			b.Fatal(err)
		}
	}
}
