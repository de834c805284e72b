package jsontree

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// payments is a form with one rule of each kind, as a fingerprint would have it.
var payments = NewForm(
	Decimal("$.amount.value"),
	Omit("$.card.security_code"),
	Replace("$.card.number", func(text string) string { return "keyed(" + text[len(text)-4:] + ")" }),
	Decimal("$.splits[*].value"),
	Omit("$.splits[*].note"),
)

func TestH41WhiteSpaceDoesNotCount(t *testing.T) {
	t.Parallel()
	same(t, `{"a":[1,{"b":"x"}],"c":null}`, "\n{ \"a\" :\t[ 1 , { \"b\" : \"x\" } ] ,\r\n \"c\" : null } ")
	different(t, `{"a":"x y"}`, `{"a":"x  y"}`) // but inside a string it does
}

func TestH42TheOrderOfMembersDoesNotCountAndOfElementsDoes(t *testing.T) {
	t.Parallel()
	same(t, `{"a":1,"b":{"c":2,"d":3}}`, `{"b":{"d":3,"c":2},"a":1}`)
	different(t, `[1,2]`, `[2,1]`)
	different(t, `{"a":1,"b":2}`, `{"a":2,"b":1}`)
	different(t, `{"a":[{"b":1},{"c":2}]}`, `{"a":[{"c":2},{"b":1}]}`)
}

func TestH43NumbersCompareAsExactDecimals(t *testing.T) {
	t.Parallel()
	for _, class := range [][]string{
		{`1`, `1.0`, `1.00`, `1e0`, `1E0`, `1e+0`, `1e-0`, `10e-1`, `0.1e1`, `0.01E+2`, `1.000e000`, `100e-00002`},
		{`0`, `-0`, `0.0`, `-0.000`, `0e0`, `0e5`, `-0E-5`, `0e999999999`, `0.0e-99999999999999999999999`},
		{`100`, `1e2`, `1E+2`, `1.0e2`, `100.0`, `0.1e3`, `1000e-1`},
		{`-1.5`, `-1.50`, `-15e-1`, `-0.15e1`},
		{`45.67`, `45.670`, `4567e-2`, `0.4567e2`},
		{`1e999999999`, `10e999999998`, `0.1e1000000000`, `1.0E+999999999`},
		{`1e99999999999999999999999`, `10e99999999999999999999998`, `0.1e100000000000000000000000`, `1e+099999999999999999999999`},
		{`1e-99999999999999999999999`, `10e-100000000000000000000000`, `0.1e-99999999999999999999998`},
		// On both sides of where exponents stop being plain integers.
		{`1e99999999999999999`, `0.1e100000000000000000`, `10e99999999999999998`},
		{`1e-9999999999999999`, `10e-10000000000000000`, `100e-10000000000000001`, `0.1e-000000000000000009999999999999998`},
	} {
		for _, other := range class[1:] {
			same(t, class[0], other)
			same(t, `{"any":[`+class[0]+`]}`, `{"any":[`+other+`]}`)
		}
	}
	different(t, `1`, `-1`)
	different(t, `1`, `10`)
	different(t, `1`, `1.0000000000000000000000000001`)
	different(t, `12e3`, `1.2e3`)
	different(t, `1e999999999`, `1e999999998`)
	different(t, `1e99999999999999999999999`, `1e99999999999999999999998`)
	different(t, `1e99999999999999999999999`, `1e-99999999999999999999999`)
	different(t, `"1.0"`, `"1.00"`)
	different(t, `"1"`, `1`)
}

func TestH43AnAmountMayBeAString(t *testing.T) {
	t.Parallel()
	amount := func(value string) string { return `{"amount":{"value":` + value + `}}` }
	for _, value := range []string{`"45.60"`, `"45.6"`, `"456e-1"`, `45.60`, `"45.600"`} {
		sameIn(t, payments, amount(`45.6`), amount(value))
	}
	for _, value := range []string{`" 45.6"`, `"45.6 "`, `"\n45.6"`, `"+45.6"`, `"045.6"`, `"45,6"`, `"45.6.0"`, `""`, `"-"`, `"4"`, `null`, `{"v":45.6}`, `["45.6"]`} {
		differentIn(t, payments, amount(`45.6`), amount(value))
	}
	differentIn(t, payments, amount(`"x1"`), amount(`"x1.0"`))
	differentIn(t, payments, amount(`" 1"`), amount(`" 1.0"`))
	differentIn(t, payments, `{"amount":{"values":"1.0"}}`, `{"amount":{"values":"1"}}`)
	differentIn(t, payments, `{"amount":"1.0"}`, `{"amount":"1"}`)
	long := strings.Repeat("9", maxNumber+1)
	differentIn(t, payments, amount(`"`+long+`.0"`), amount(`"`+long+`"`))
	sameIn(t, payments, `{"splits":[{"value":"1.0"},{"value":2}]}`, `{"splits":[{"value":1},{"value":"2.00"}]}`)
}

func TestH44NoNumberGoesThroughAFloat(t *testing.T) {
	t.Parallel()
	different(t, `9007199254740993`, `9007199254740992`)
	different(t, `0.1`, `0.1000000000000000055511151231257827`)
	different(t, `1e400`, `1e401`) // both +Inf to a float
	different(t, `1e-400`, `0`)
}

// An exponent is one that somebody else would expand: nine digits of it ask for a
// gigabyte.
func TestHugeExponentsStayCheap(t *testing.T) {
	t.Parallel()
	body := `[1e999999999,1e-999999999,123.456e` + strings.Repeat("9", 100) + `,-1e-` + strings.Repeat("9", 100) + `]`
	start := time.Now()
	form := Form{}.Canonical(mustParse(t, body))
	if took := time.Since(start); took > time.Second { // microseconds, unless something expands
		t.Errorf("took %s", took)
	}
	if len(form) > 2*len(body) {
		t.Errorf("%d bytes became %d", len(body), len(form))
	}
}

func TestH46AndH48UnknownMembersCountAndSoDoesTheCaseOfNames(t *testing.T) {
	t.Parallel()
	different(t, `{"amount":1}`, `{"Amount":1}`)
	different(t, `{"amount":1}`, `{"amount":1,"Amount":1}`)
	different(t, `{"amount":1}`, `{"amount":1,"unknown":false}`)
}

func TestH47EscapesAreTheCharactersTheyStandFor(t *testing.T) {
	t.Parallel()
	same(t, `"\u00e9"`, `"é"`)
	same(t, `"\u00E9\/\u0041\n"`, `"é/A\u000a"`)
	same(t, `"\ud83d\ude00"`, `"😀"`)
	same(t, `{"\u00e9":1}`, `{"é":1}`)
	different(t, `"é"`, `"e\u0301"`) // é and e + accent look alike, but are two texts
	different(t, `"a"`, `"A"`)
}

func TestH51NoBodyHasAFormOfItsOwn(t *testing.T) {
	t.Parallel()
	if form := (Form{}).Canonical(Value{}); len(form) != 0 {
		t.Errorf("form %q", form)
	}
	if form := payments.Canonical(mustParse(t, `{}`).Get("nothing")); len(form) != 0 {
		t.Errorf("form %q", form)
	}
	if form := NewForm(Omit("$")).Canonical(mustParse(t, `{}`)); len(form) != 0 {
		t.Errorf("form %q", form)
	}
}

func TestKindsThatLookAlikeStayApart(t *testing.T) {
	t.Parallel()
	all := []string{
		`null`, `"null"`, `true`, `"true"`, `false`, `0`, `"0"`, `""`, `[]`, `{}`, `[[]]`, `[{}]`, `{"":{}}`, `[null]`, `[""]`, `[0]`,
		`{"a":null}`, `{"a":""}`, `{"a":[]}`, `{"a,b":1}`, `{"a":1,"b":1}`, `["a","b"]`, `["a,b"]`, `["a\",\"b"]`, `{"a\":1,\"b":1}`,
		`[1,2]`, `[12]`, `[[1],2]`, `[1,[2]]`, `"1e2"`, `100`, `"@\"x\""`, `["@","x"]`,
	}
	for i, a := range all {
		for _, b := range all[i+1:] {
			different(t, a, b)
		}
	}
}

func TestRulesOmitAndReplace(t *testing.T) {
	t.Parallel()
	body := func(card string) string { return `{"card":{` + card + `}}` }
	sameIn(t, payments, body(`"security_code":"123","name":"A"`), body(`"name":"A","security_code":456`))
	sameIn(t, payments, body(`"security_code":{"a":[1]}`), body(``))
	differentIn(t, payments, body(`"Security_code":"123"`), body(`"Security_code":"456"`))
	differentIn(t, payments, `{"security_code":"123"}`, `{"security_code":"456"}`)
	sameIn(t, payments, `{"splits":[{"note":1},{"note":2}]}`, `{"splits":[{},{"note":3}]}`)

	got := string(payments.Canonical(mustParse(t, body(`"number":"`+card+`","security_code":"123"`))))
	if want := `{"card":{"number":@"keyed(1111)"}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	differentIn(t, payments, body(`"number":"`+card+`"`), body(`"number":`+card))
	differentIn(t, payments, body(`"number":null`), body(``))
	differentIn(t, payments, body(`"number":["`+card+`"]`), body(`"number":["`+card[:15]+`2"]`))

	elements := NewForm(Omit("$.a[*]"))
	sameIn(t, elements, `{"a":[1,2]}`, `{"a":[]}`)
	differentIn(t, elements, `{"a":[]}`, `{}`)
	differentIn(t, elements, `{"a":{"b":1}}`, `{"a":{"b":2}}`)
}

func TestFormsAreReadable(t *testing.T) {
	t.Parallel()
	v := mustParse(t, `{ "z": [1.50, -0, 1200, "\u00e9\n"], "a": {"t": true, "n": null}, "": 0.001 }`)
	if got, want := string(Form{}.Canonical(v)), `{"":1e-3,"a":{"n":null,"t":true},"z":[15e-1,0,12e2,"é\n"]}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestTwoRulesForOnePathPanic(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("accepted")
		}
	}()
	NewForm(Omit("$.a"), Decimal("$.a"))
}

func same(t *testing.T, a, b string)      { t.Helper(); sameIn(t, Form{}, a, b) }
func different(t *testing.T, a, b string) { t.Helper(); differentIn(t, Form{}, a, b) }

func sameIn(t *testing.T, form Form, a, b string) {
	t.Helper()
	if x, y := form.Canonical(mustParse(t, a)), form.Canonical(mustParse(t, b)); !bytes.Equal(x, y) {
		t.Errorf("%s and %s should be the same:\n\t%s\n\t%s", a, b, x, y)
	}
}

func differentIn(t *testing.T, form Form, a, b string) {
	t.Helper()
	if x, y := form.Canonical(mustParse(t, a)), form.Canonical(mustParse(t, b)); bytes.Equal(x, y) {
		t.Errorf("%s and %s should differ: %s", a, b, x)
	}
}

// However a document is written down, its form is the same.
func TestTheFormDoesNotDependOnTheNotation(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		document := documents(3).Draw(t, "document")
		a, b := write(t, document), write(t, document)
		x, y := canonical(t, a), canonical(t, b)
		if !bytes.Equal(x, y) {
			t.Fatalf("%s\n%s\n%s\n%s", a, x, b, y)
		}
	})
}

// Two documents have the same form exactly if an independent reader, with
// encoding/json and fractions, finds them equal.
func TestFormsAgreeWithAnIndependentReader(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		small := documents(1) // few enough that equal ones turn up
		a, b := write(t, small.Draw(t, "a")), write(t, small.Draw(t, "b"))
		if got, want := bytes.Equal(canonical(t, a), canonical(t, b)), reflect.DeepEqual(understood(t, a), understood(t, b)); got != want {
			t.Fatalf("%s and %s: same form %t, same document %t", a, b, got, want)
		}
	})
}

func canonical(t *rapid.T, body string) []byte {
	v, err := Parse([]byte(body))
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return Form{}.Canonical(v)
}

func understood(t *rapid.T, body string) any {
	decoder := json.NewDecoder(strings.NewReader(body))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return withFractions(v)
}

// withFractions turns the numbers of v into exact fractions, and keeps them apart
// from strings.
func withFractions(v any) any {
	switch v := v.(type) {
	case json.Number:
		r, _ := new(big.Rat).SetString(v.String())
		return [1]string{r.RatString()}
	case []any:
		for i := range v {
			v[i] = withFractions(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = withFractions(v[k])
		}
	}
	return v
}

// A document is nil, a bool, a string, a number, []any or []member.
type (
	number struct {
		digits   int64
		exponent int
	}
	member struct {
		name  string
		value any
	}
)

func documents(depth int) *rapid.Generator[any] {
	text := rapid.StringOfN(rapid.SampledFrom([]rune("a1\"\\/é😀 \n\u2028<,:{[@#")), 0, 4, -1)
	scalars := rapid.OneOf(
		rapid.Just[any](nil),
		rapid.Bool().AsAny(),
		text.AsAny(),
		rapid.Custom(func(t *rapid.T) number {
			return number{rapid.Int64Range(-120, 120).Draw(t, "digits"), rapid.IntRange(-3, 3).Draw(t, "exponent")}
		}).AsAny(),
	)
	if depth == 0 {
		return scalars
	}
	return rapid.OneOf(
		scalars,
		rapid.SliceOfN(documents(depth-1), 0, 4).AsAny(),
		rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) member {
			return member{text.Draw(t, "name"), documents(depth-1).Draw(t, "value")}
		}), 0, 4, func(m member) string { return m.name }).AsAny(),
	)
}

// write is one of the many ways to write the document down.
func write(t *rapid.T, document any) string {
	space := func() string { return rapid.SampledFrom([]string{"", "", " ", "\n\t", "\r\n "}).Draw(t, "space") }
	written := "null"
	switch d := document.(type) {
	case bool:
		written = strconv.FormatBool(d)
	case string:
		written = writeString(t, d)
	case number:
		written = writeNumber(t, d)
	case []any:
		var elements []string
		for _, element := range d {
			elements = append(elements, write(t, element))
		}
		written = "[" + space() + strings.Join(elements, ",") + "]"
	case []member:
		members := []string{}
		for _, m := range rapid.Permutation(slices.Clone(d)).Draw(t, "order") {
			members = append(members, space()+writeString(t, m.name)+space()+":"+write(t, m.value))
		}
		written = "{" + strings.Join(members, ",") + space() + "}"
	}
	return space() + written + space()
}

func writeString(t *rapid.T, s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r < 0x10000 && rapid.Bool().Draw(t, "escaped"):
			fmt.Fprintf(&b, `\u%04x`, r)
		case r == '"', r == '\\':
			b.WriteString(`\` + string(r))
		case r == '\n':
			b.WriteString(`\n`)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func writeNumber(t *rapid.T, n number) string {
	sign, digits := "", strconv.FormatInt(n.digits, 10)
	if n.digits < 0 {
		sign, digits = "-", digits[1:]
	}
	exponent := n.exponent
	if n.digits != 0 { // 0 may have any exponent, but not any zeros
		zeros := rapid.IntRange(0, 3).Draw(t, "zeros")
		digits += strings.Repeat("0", zeros)
		exponent -= zeros
	}
	point := rapid.IntRange(0, len(digits)-1).Draw(t, "point")
	if point > 0 {
		exponent += len(digits) - point
		digits = digits[:point] + "." + digits[point:]
	}
	if exponent == 0 && rapid.Bool().Draw(t, "plain") {
		return sign + digits
	}
	return sign + digits + fmt.Sprintf(rapid.SampledFrom([]string{"e%d", "E%d", "e%+d", "E%+04d"}).Draw(t, "notation"), exponent)
}

func BenchmarkCanonical(b *testing.B) {
	v := mustParse(b, typical)
	b.ReportAllocs()
	for b.Loop() {
		payments.Canonical(v)
	}
}
