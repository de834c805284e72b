package idem

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/oncepay/oncepay/internal/jsontree"
)

var secret = []byte("a secret of the tests, 32 bytes or more")

func printer(t testing.TB, secret []byte) *Fingerprinter {
	t.Helper()
	f, err := NewFingerprinter(secret, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func parsed(t testing.TB, body string) jsontree.Value {
	t.Helper()
	v, err := jsontree.Parse([]byte(body))
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return v
}

// payment is a body with a card; each part can be another one.
func payment(number, code, amount string) string {
	return fmt.Sprintf(`{"amount":{"currency":"USD","value":%s},"payment_method":{"detail":{"card":{"card_data":{"number":%s,"security_code":%s}}}},"metadata":[{"key":"a","value":"1.0"}]}`,
		amount, number, code)
}

var aPayment = payment(`"4111111111111111"`, `"123"`, "45.67")

func TestFingerprintIsAVersionAndADigest(t *testing.T) {
	t.Parallel()
	got := printer(t, secret).Request("POST", "/v1/payments", "", parsed(t, aPayment))
	if len(got) != 1+sha256.Size || got[0] != fingerprintVersion {
		t.Errorf("%d bytes that begin with %d, want %d that begin with %d", len(got), got[0], 1+sha256.Size, fingerprintVersion)
	}
}

// Stored fingerprints are compared for as long as a key lives. If this test fails,
// what is hashed has changed: give it a new fingerprintVersion, and this test a new
// digest.
func TestH52FingerprintOfThisVersionNeverChanges(t *testing.T) {
	t.Parallel()
	const (
		version = 1
		request = "0111ef2b516267f2bc28d5fac5e5de15e31e9ac5533e9b39025b5288aad1147eb2"
		card    = "f4259439c6da1bc30e2b300bd94de8cb"
	)
	f := printer(t, secret)
	if got := hex.EncodeToString(f.Request("POST", "/v1/payments", "", parsed(t, aPayment))); fingerprintVersion == version && got != request {
		t.Errorf("the fingerprint is %s, want %s", got, request)
	}
	if got := f.Card("4111111111111111"); got != card {
		t.Errorf("the card's fingerprint is %s, want %s", got, card)
	}
}

func TestFingerprintKnowsWhatWasAskedAndOfWhom(t *testing.T) {
	t.Parallel()
	f, body := printer(t, secret), parsed(t, aPayment)
	seen := map[string]string{}
	for _, parts := range [][3]string{
		{"POST", "/v1/payments", ""}, {"PATCH", "/v1/payments", ""}, {"POST", "/v1/payments/", ""}, {"POST", "/v1/payments", "id"},
		// The parts must not run together.
		{"POS", "T/v1/payments", ""}, {"POST/v1/payments", "", ""}, {"", "", "POST/v1/payments"}, {"POST", "/v1/", "payments"}, {"", "", ""},
	} {
		got := string(f.Request(parts[0], parts[1], parts[2], body))
		if other, known := seen[got]; known {
			t.Errorf("%q and %s have one fingerprint", parts, other)
		}
		seen[got] = fmt.Sprintf("%q", parts)
	}
	if bytes.Equal(f.Request("POST", "/v1/payments", "", body), printer(t, []byte(strings.Repeat("another secret ", 3))).Request("POST", "/v1/payments", "", body)) {
		t.Error("two installations have one fingerprint")
	}
	if !bytes.Equal(f.Request("POST", "/v1/payments", "", body), printer(t, secret).Request("POST", "/v1/payments", "", body)) {
		t.Error("two instances of one installation have two fingerprints")
	}
}

func TestFingerprintsTellBodiesApartAsAMerchantWould(t *testing.T) {
	t.Parallel()
	f := printer(t, secret)
	of := func(body string) string { return string(f.Request("POST", "/v1/payments", "", parsed(t, body))) }
	first := of(aPayment)
	for name, body := range map[string]string{
		"white space":         strings.ReplaceAll(strings.ReplaceAll(aPayment, ":", " :\n\t"), ",", " , "),
		"zeros":               payment(`"4111111111111111"`, `"123"`, "45.670"),
		"an exponent":         payment(`"4111111111111111"`, `"123"`, "4567e-2"),
		"an amount as text":   payment(`"4111111111111111"`, `"123"`, `"45.67"`),
		"both":                payment(`"4111111111111111"`, `"123"`, `"45.6700"`),
		"another code":        payment(`"4111111111111111"`, `"999"`, "45.67"),
		"no code":             strings.Replace(aPayment, `,"security_code":"123"`, "", 1),
		"a code of null":      payment(`"4111111111111111"`, "null", "45.67"),
		"escapes":             strings.Replace(aPayment, `"USD"`, `"\u0055SD"`, 1),
		"escapes of a number": payment(`"\u0034111111111111111"`, `"123"`, "45.67"),
	} {
		if of(body) != first {
			t.Errorf("%s make it another request", name)
		}
	}
	for name, body := range map[string]string{
		"another amount":               payment(`"4111111111111111"`, `"123"`, "45.68"),
		"a much smaller amount":        payment(`"4111111111111111"`, `"123"`, "0.4567"),
		"an amount with a space":       payment(`"4111111111111111"`, `"123"`, `"45.67 "`),
		"another card":                 payment(`"4111111111111112"`, `"123"`, "45.67"),
		"a number that is a number":    payment("4111111111111111", `"123"`, "45.67"),
		"the fingerprint for a number": payment(`"`+f.Card("4111111111111111")+`"`, `"123"`, "45.67"),
		"no number":                    payment("null", `"123"`, "45.67"),
		"another metadata":             strings.Replace(aPayment, `"1.0"`, `"1.00"`, 1),
		"a member more":                strings.Replace(aPayment, `{`, `{"x":null,`, 1),
		"a member less":                strings.Replace(aPayment, `"currency":"USD",`, "", 1),
		"a name in other case":         strings.Replace(aPayment, `"currency"`, `"Currency"`, 1),
		"an element more":              strings.Replace(aPayment, `[{`, `[{},{`, 1),
		"a code elsewhere":             strings.Replace(aPayment, `{`, `{"security_code":"123",`, 1),
	} {
		if of(body) == first {
			t.Errorf("%s makes no difference", name)
		}
	}
	if of(strings.Replace(aPayment, `{`, `{"security_code":"123",`, 1)) == of(strings.Replace(aPayment, `{`, `{"security_code":"124",`, 1)) {
		t.Error("a code that is not the card's is left out, too")
	}
}

// 9007199254740993 and …992 are one float and two amounts.
func TestH44FingerprintsNeverGoThroughAFloat(t *testing.T) {
	t.Parallel()
	f := printer(t, secret)
	a, b := parsed(t, `{"n":9007199254740993}`), parsed(t, `{"n":9007199254740992}`)
	if bytes.Equal(f.Request("POST", "/", "", a), f.Request("POST", "/", "", b)) {
		t.Error("two amounts have one fingerprint")
	}
}

func TestCardsFingerprintIsKeyedAndSaysNothing(t *testing.T) {
	t.Parallel()
	f := printer(t, secret)
	const number = "4111111111111111"
	got := f.Card(number)
	if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(got) {
		t.Fatalf("%q is not 32 hexadecimal digits", got)
	}
	if got != f.Card(number) || got == f.Card("4111111111111112") {
		t.Error("the fingerprint does not stand for the number")
	}
	if got == printer(t, []byte(strings.Repeat("another secret ", 3))).Card(number) {
		t.Error("two installations have one fingerprint of a card: it could be looked up")
	}
	bare := sha256.Sum256([]byte(number))
	if strings.HasPrefix(hex.EncodeToString(bare[:]), got) {
		t.Error("the fingerprint is a bare digest of the number")
	}
	if request := f.Request("", "", "", parsed(t, `"`+number+`"`)); strings.Contains(hex.EncodeToString(request), got) {
		t.Error("cards and requests share a key")
	}
}

func TestSecretMustBeLongEnough(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, MinSecretLength - 1} {
		if _, err := NewFingerprinter(make([]byte, n), nil); !errors.Is(err, ErrSecret) {
			t.Errorf("a secret of %d bytes: %v, want ErrSecret", n, err)
		}
		if _, err := NewFingerprinter(secret, make([]byte, n)); n > 0 && !errors.Is(err, ErrSecret) {
			t.Errorf("another secret of %d bytes: %v, want ErrSecret", n, err)
		}
	}
	printer(t, make([]byte, MinSecretLength))
}

// body draws a body as a shop might send it: objects, arrays, texts, numbers.
func body(depth int) *rapid.Generator[any] {
	leaves := []*rapid.Generator[any]{
		rapid.Just[any](nil), rapid.Bool().AsAny(), rapid.StringMatching(`[ -~é😀\n]{0,6}`).AsAny(),
		rapid.Map(rapid.IntRange(-1_000_000, 1_000_000), func(n int) any { return json.Number(fmt.Sprintf("%d.%02d", n/100, max(n, -n)%100)) }),
	}
	if depth == 0 {
		return rapid.OneOf(leaves...)
	}
	return rapid.OneOf(append(leaves,
		rapid.SliceOfN(body(depth-1), 0, 4).AsAny(),
		rapid.MapOfN(rapid.StringMatching(`[a-z]{1,5}`), body(depth-1), 0, 5).AsAny(),
	)...)
}

// spelled writes v as JSON in one of its many spellings.
func spelled(t *rapid.T, v any) string {
	blank := rapid.SampledFrom([]string{"", " ", "\n", "\t "})
	switch v := v.(type) {
	case map[string]any:
		members := make([]string, 0, len(v))
		for _, name := range rapid.Permutation(slices.Sorted(maps.Keys(v))).Draw(t, "order") {
			members = append(members, blank.Draw(t, "blank")+`"`+name+`"`+blank.Draw(t, "blank")+":"+spelled(t, v[name]))
		}
		return "{" + strings.Join(members, ",") + blank.Draw(t, "blank") + "}"
	case []any:
		elements := make([]string, len(v))
		for i, e := range v {
			elements[i] = blank.Draw(t, "blank") + spelled(t, e)
		}
		return "[" + strings.Join(elements, ",") + "]"
	case json.Number:
		return v.String() + strings.Repeat("0", rapid.IntRange(0, 3).Draw(t, "zeros"))
	case string:
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	return strings.ReplaceAll(fmt.Sprint(v), "<nil>", "null")
}

// changed is v with one thing changed somewhere.
func changed(t *rapid.T, v any) any {
	switch v := v.(type) {
	case map[string]any:
		c := maps.Clone(v)
		names := slices.Sorted(maps.Keys(v))
		if len(names) == 0 || rapid.IntRange(0, 4).Draw(t, "add a member") == 0 {
			c["added"] = true
			return c
		}
		name := rapid.SampledFrom(names).Draw(t, "member")
		c[name] = changed(t, v[name])
		return c
	case []any:
		c := slices.Clone(v)
		if len(c) == 0 || rapid.IntRange(0, 4).Draw(t, "add an element") == 0 {
			return append(c, true)
		}
		i := rapid.IntRange(0, len(c)-1).Draw(t, "element")
		c[i] = changed(t, c[i])
		return c
	case json.Number:
		return json.Number(v.String() + "1")
	case string:
		return v + "x"
	case bool:
		return !v
	}
	return 0
}

func TestBodiesOfOneMeaningHaveOneFingerprintAndOthersAnother(t *testing.T) {
	t.Parallel()
	f := printer(t, secret)
	rapid.Check(t, func(r *rapid.T) {
		v := map[string]any{"amount": map[string]any{"value": json.Number("45.67")}, "rest": body(3).Draw(r, "body")}
		of := func(v any) string {
			text := spelled(r, v)
			tree, err := jsontree.Parse([]byte(text))
			if err != nil {
				r.Fatalf("%s: %v", text, err)
			}
			return string(f.Request("POST", "/v1/payments", "", tree))
		}
		if first, second := of(v), of(v); first != second {
			r.Fatal("two spellings of one body have two fingerprints")
		}
		if of(v) == of(changed(r, v)) {
			r.Fatal("two bodies have one fingerprint")
		}
	})
}

// Two instances in the middle of a change of the secret: what each makes, the other
// recognises, and neither changes what it makes because of the other one.
func TestWhatTheOtherSecretMadeIsRecognised(t *testing.T) {
	t.Parallel()
	next := []byte("the next secret of the tests, 32 bytes or more")
	before, err := NewFingerprinter(secret, next)
	if err != nil {
		t.Fatal(err)
	}
	after, err := NewFingerprinter(next, secret)
	if err != nil {
		t.Fatal(err)
	}
	const number = "4111111111111111"
	body := parsed(t, aPayment)
	of := func(f func(method, route, target string, body jsontree.Value) []byte) []byte {
		return f("POST", "/v1/payments", "", body)
	}
	if alone := printer(t, secret); !bytes.Equal(of(before.Request), of(alone.Request)) || before.Card(number) != alone.Card(number) {
		t.Error("another secret changes what the current one makes")
	}
	if !bytes.Equal(of(before.RequestByOther), of(after.Request)) || !bytes.Equal(of(after.RequestByOther), of(before.Request)) {
		t.Error("a request is not recognised across the change")
	}
	if before.CardByOther(number) != after.Card(number) || after.CardByOther(number) != before.Card(number) {
		t.Error("a card is not recognised across the change")
	}
	if alone := printer(t, secret); of(alone.RequestByOther) != nil || alone.CardByOther(number) != "" {
		t.Error("there is no other secret, and something made with it")
	}
}
