package idem

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/labstack/echo/v4"
	"pgregory.net/rapid"

	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/jsontree"
)

var (
	secret  = []byte("a secret of the tests, 32 bytes or more")
	another = []byte("another secret of the tests, 32 bytes or more")
)

func printer(t testing.TB, secret []byte) *Fingerprinter {
	t.Helper()
	f, err := NewFingerprinter(secret, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// printerOf is a fingerprinter of a program with these versions.
func printerOf(t testing.TB, known []version, secret, other []byte) *Fingerprinter {
	t.Helper()
	f, err := newFingerprinter(known, secret, other)
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

// kept is what is stored of a payment's request with this body.
func kept(t testing.TB, f *Fingerprinter, body string) []byte {
	t.Helper()
	return payOf(t, f, body).Kept()
}

// payOf is the print of a payment's request with this body.
func payOf(t testing.TB, f *Fingerprinter, body string) Print {
	t.Helper()
	return f.Of("POST", "/v1/payments", "", parsed(t, body))
}

func TestFingerprintIsAVersionAndADigest(t *testing.T) {
	t.Parallel()
	if got, want := kept(t, printer(t, secret), aPayment), versions[0].number; len(got) != 1+sha256.Size || got[0] != want {
		t.Errorf("%d bytes that begin with %d, want %d that begin with %d", len(got), got[0], 1+sha256.Size, want)
	}
}

// Stored fingerprints are compared for as long as a key lives. If this test fails, what
// is hashed has changed: that takes a new version, and here its digest.
func TestH52FingerprintOfThisVersionNeverChanges(t *testing.T) {
	t.Parallel()
	const card = "f4259439c6da1bc30e2b300bd94de8cb"
	requests := map[byte]string{
		1: "0111ef2b516267f2bc28d5fac5e5de15e31e9ac5533e9b39025b5288aad1147eb2",
	}
	for _, v := range versions {
		if got := hex.EncodeToString(kept(t, printerOf(t, []version{v}, secret, nil), aPayment)); got != requests[v.number] {
			t.Errorf("version %d: the fingerprint is %s, want %s", v.number, got, requests[v.number])
		}
	}
	if got := printer(t, secret).Card("4111111111111111"); got != card {
		t.Errorf("the card's fingerprint is %s, want %s", got, card)
	}
}

func TestNoTwoVersionsHaveOneNumber(t *testing.T) {
	t.Parallel()
	seen := map[byte]bool{}
	for _, v := range versions {
		if seen[v.number] || v.number == 0 {
			t.Errorf("version %d is there twice, or is none", v.number)
		}
		seen[v.number] = true
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
		got := string(f.Of(parts[0], parts[1], parts[2], body).Kept())
		if other, known := seen[got]; known {
			t.Errorf("%q and %s have one fingerprint", parts, other)
		}
		seen[got] = fmt.Sprintf("%q", parts)
	}
	if payOf(t, f, aPayment).Is(kept(t, printer(t, another), aPayment)) {
		t.Error("two installations have one fingerprint")
	}
	if !payOf(t, f, aPayment).Is(kept(t, printer(t, secret), aPayment)) {
		t.Error("two instances of one installation have two fingerprints")
	}
}

func TestFingerprintsTellBodiesApartAsAMerchantWould(t *testing.T) {
	t.Parallel()
	f := printer(t, secret)
	of := func(body string) string { return string(kept(t, f, body)) }
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
	for _, body := range []string{`{"n":%s}`, `{"amount":{"value":%s}}`, `{"amount":{"value":"%s"}}`} {
		if payOf(t, f, fmt.Sprintf(body, "9007199254740993")).Is(kept(t, f, fmt.Sprintf(body, "9007199254740992"))) {
			t.Errorf("%s: two amounts have one fingerprint", body)
		}
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
	if got == printer(t, another).Card(number) {
		t.Error("two installations have one fingerprint of a card: it could be looked up")
	}
	bare := sha256.Sum256([]byte(number))
	if strings.HasPrefix(hex.EncodeToString(bare[:]), got) {
		t.Error("the fingerprint is a bare digest of the number")
	}
	if request := f.Of("", "", "", parsed(t, `"`+number+`"`)).Kept(); strings.Contains(hex.EncodeToString(request), got) {
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
		return respelled(t, v.String())
	case amount:
		text := respelled(t, string(v))
		if rapid.Bool().Draw(t, "as text") {
			return `"` + text + `"`
		}
		return text
	case string:
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "escaped") {
			return escaped(v)
		}
		return string(b)
	}
	return strings.ReplaceAll(fmt.Sprint(v), "<nil>", "null")
}

// escaped writes each character of a text as an escape.
func escaped(text string) string {
	b := []byte{'"'}
	for _, unit := range utf16.Encode([]rune(text)) {
		b = fmt.Appendf(b, `\u%04x`, unit)
	}
	return string(append(b, '"'))
}

// respelled is the number of a plain text, 12.30, with zeros behind it and its point
// somewhere else.
func respelled(t *rapid.T, text string) string {
	digits, negative := strings.CutPrefix(text, "-")
	whole, fraction, _ := strings.Cut(digits, ".")
	digits = whole + fraction + strings.Repeat("0", rapid.IntRange(0, 3).Draw(t, "zeros"))
	shift := rapid.IntRange(-5, 5).Draw(t, "shift")
	point := len(whole) + shift
	digits = strings.Repeat("0", max(0, 1-point)) + digits + strings.Repeat("0", max(0, point-len(digits)))
	point = max(1, point)
	whole, fraction = strings.TrimLeft(digits[:point-1], "0")+digits[point-1:point], digits[point:]
	if negative {
		whole = "-" + whole
	}
	if fraction != "" {
		whole += "." + fraction
	}
	if shift == 0 && rapid.Bool().Draw(t, "plain") {
		return whole
	}
	return whole + fmt.Sprintf(rapid.SampledFrom([]string{"e%d", "E%d", "e%+d", "E%+04d"}).Draw(t, "notation"), -shift)
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
		if rapid.IntRange(0, 4).Draw(t, "take a member away") == 0 {
			delete(c, name)
			return c
		}
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
		if rapid.Bool().Draw(t, "as text") {
			return v.String()
		}
		return json.Number(v.String() + "1")
	case amount:
		return v + "1"
	case string:
		return v + "x"
	case bool:
		return !v
	}
	return 0
}

// amount is a number that may be sent as a text.
type amount string

func TestBodiesOfOneMeaningHaveOneFingerprintAndOthersAnother(t *testing.T) {
	t.Parallel()
	f := printer(t, secret)
	rapid.Check(t, func(r *rapid.T) {
		cents := rapid.IntRange(0, 1_000_000).Draw(r, "cents")
		v := map[string]any{
			"amount": map[string]any{"currency": "USD", "value": amount(fmt.Sprintf("%d.%02d", cents/100, cents%100))},
			"rest":   body(3).Draw(r, "body"),
		}
		of := func(v any) Print {
			text := spelled(r, v)
			tree, err := jsontree.Parse([]byte(text))
			if err != nil {
				r.Fatalf("%s: %v", text, err)
			}
			return f.Of("POST", "/v1/payments", "", tree)
		}
		row := of(v).Kept()
		if !of(v).Is(row) {
			r.Fatal("two spellings of one body have two fingerprints")
		}
		if of(changed(r, v)).Is(row) {
			r.Fatal("two bodies have one fingerprint")
		}
	})
}

// Two instances in the middle of a change of the secret: what each makes, the other
// recognises, and neither changes what it makes because of the other one.
func TestWhatTheOtherSecretMadeIsRecognised(t *testing.T) {
	t.Parallel()
	before, after := printerOf(t, versions, secret, another), printerOf(t, versions, another, secret)
	const number = "4111111111111111"
	alone, old, changed := payOf(t, printer(t, secret), aPayment), payOf(t, before, aPayment), payOf(t, after, aPayment)
	if !bytes.Equal(old.Kept(), alone.Kept()) || before.Card(number) != printer(t, secret).Card(number) {
		t.Error("another secret changes what the current one makes")
	}
	if bytes.Equal(old.Kept(), changed.Kept()) || !bytes.Equal(old.KeptByOther(), changed.Kept()) || !bytes.Equal(changed.KeptByOther(), old.Kept()) {
		t.Error("what the other instance makes is not known")
	}
	if !old.Is(changed.Kept()) || !changed.Is(old.Kept()) || !old.Is(old.Kept()) || alone.Is(changed.Kept()) {
		t.Error("a request is not recognised across the change")
	}
	if before.CardByOther(number) != after.Card(number) || after.CardByOther(number) != before.Card(number) {
		t.Error("a card is not recognised across the change")
	}
	if alone.KeptByOther() != nil || printer(t, secret).CardByOther(number) != "" {
		t.Error("there is no other secret, and something made with it")
	}
}

// nextVersion is how a later release might hash: it has learnt that references are the
// same in any letters, say, and forgets a member that means nothing. What both versions
// are asked about below is one request to one of them, and two to the other.
var nextVersion = version{2, func(card func(number string) string) jsontree.Form {
	return jsontree.NewForm(
		jsontree.Omit("$.payment_method.detail.card.card_data.security_code"),
		jsontree.Replace("$.payment_method.detail.card.card_data.number", card),
		jsontree.Replace("$.reference", strings.ToLower),
		jsontree.Omit("$.note"),
	)
}}

// releases are the three that a new version takes: before it, with it to recognise, and
// with it to make.
var releases = [][]version{{versions[0]}, {versions[0], nextVersion}, {nextVersion, versions[0]}}

// Case H52. A row is compared in the way in which it was made, whatever the program that
// meets it makes itself: equal bodies are recognised, and others told apart, as they
// were then.
func TestH52RowsAreComparedInTheirOwnVersion(t *testing.T) {
	t.Parallel()
	first := `{"amount":{"value":1.50},"reference":"Order","note":"a"}`
	bodies := []struct {
		body     string
		by1, by2 bool // whether it is the first one's, by each version
	}{
		{first, true, true},
		{` { "note":"\u0061", "reference":"Order", "amount":{"value":15e-1} } `, true, true},
		{strings.Replace(first, "1.50", `"1.5"`, 1), true, false},
		{strings.Replace(first, "Order", "ORDER", 1), false, true},
		{strings.Replace(first, `"a"`, `"b"`, 1), false, true},
		{strings.Replace(first, "1.50", "1.51", 1), false, false},
		{`{}`, false, false},
	}
	for made, makes := range releases {
		for met, meets := range releases {
			for name, secrets := range map[string][2][2][]byte{ // current and other, of who made it and of who meets it
				"one secret":            {{secret, nil}, {secret, nil}},
				"before the change":     {{secret, another}, {secret, nil}},
				"the secret is new":     {{secret, nil}, {another, secret}},
				"the secret was new":    {{another, secret}, {secret, another}},
				"the secret is unknown": {{another, nil}, {secret, nil}},
			} {
				row := kept(t, printerOf(t, makes, secrets[0][0], secrets[0][1]), first)
				reader := printerOf(t, meets, secrets[1][0], secrets[1][1])
				known := name != "the secret is unknown" && slices.ContainsFunc(meets, func(v version) bool { return v.number == row[0] })
				for _, b := range bodies {
					want := known && (row[0] == 1 && b.by1 || row[0] == 2 && b.by2)
					if got := payOf(t, reader, b.body).Is(row); got != want {
						t.Errorf("release %d made it, release %d meets it, %s, %s: the same is %t, want %t", made+1, met+1, name, b.body, got, want)
					}
				}
			}
		}
	}
}

// In a rollout two releases run side by side; each must recognise what the other makes.
func TestH52NeighbouringReleasesRecogniseEachOther(t *testing.T) {
	t.Parallel()
	for i, older := range releases[:len(releases)-1] {
		before, after := payOf(t, printerOf(t, older, secret, another), aPayment), payOf(t, printerOf(t, releases[i+1], another, secret), aPayment)
		if !before.Is(after.Kept()) || !after.Is(before.Kept()) {
			t.Errorf("releases %d and %d take one request for two", i+1, i+2)
		}
	}
	if got := payOf(t, printerOf(t, releases[2], secret, another), aPayment); got.Kept()[0] != 2 || got.KeptByOther()[0] != 2 {
		t.Errorf("the first version is not the one that is made: %d and %d", got.Kept()[0], got.KeptByOther()[0])
	}
}

func TestH52WhatNoVersionMadeIsNobodys(t *testing.T) {
	t.Parallel()
	p, row := payOf(t, printerOf(t, releases[1], secret, another), aPayment), kept(t, printer(t, secret), aPayment)
	for name, value := range map[string][]byte{
		"nothing": nil, "an empty value": {}, "a version alone": {1}, "a version and zeros": append([]byte{1}, make([]byte, sha256.Size)...),
		"a digest without its version": row[1:], "a digest of version 0": append([]byte{0}, row[1:]...), "of another known version": append([]byte{2}, row[1:]...),
		"of an unknown version": append([]byte{3}, row[1:]...), "a byte less": row[:len(row)-1], "a byte more": append(slices.Clone(row), 0), "twice": append(slices.Clone(row), row...),
		"all that the print holds": p.made,
	} {
		if p.Is(value) || (Print{}).Is(value) {
			t.Errorf("%s is a request's", name)
		}
	}
	if !p.Is(row) {
		t.Error("the request is not recognised at all")
	}
	if (Print{}).Is(row) || (Print{}).Kept() != nil || (Print{}).KeptByOther() != nil {
		t.Error("the zero print is somebody's")
	}
}

// Who stores a print's fingerprint may append to it, and changes no other one.
func TestFingerprintsOfAPrintDoNotShareTheirEnds(t *testing.T) {
	t.Parallel()
	p := payOf(t, printerOf(t, releases[2], secret, another), aPayment)
	other := slices.Clone(p.KeptByOther())
	_ = append(p.Kept(), make([]byte, len(p.made)-printSize)...)
	if !bytes.Equal(p.KeptByOther(), other) || !p.Is(other) {
		t.Error("appending to one fingerprint changed another")
	}
}

func TestH43AmountIsItsDecimalAndOtherTextsAreTexts(t *testing.T) {
	t.Parallel()
	f := printer(t, secret)
	const amount, elsewhere = `{"amount":{"value":%s}}`, `{"amount":{"currency":"USD","values":%s}}`
	for _, value := range []string{`1`, `1.0`, `1.00`, `1e0`, `10E-1`, `"1"`, `"1.0"`, `"1.00"`, `"1e0"`, `"0.1e+1"`} {
		if !payOf(t, f, fmt.Sprintf(amount, value)).Is(kept(t, f, fmt.Sprintf(amount, "1"))) {
			t.Errorf("an amount of %s is not 1", value)
		}
		isNumber := value[0] != '"'
		if payOf(t, f, fmt.Sprintf(elsewhere, value)).Is(kept(t, f, fmt.Sprintf(elsewhere, "1"))) != isNumber {
			t.Errorf("elsewhere, %s is 1: %t", value, !isNumber)
		}
		if payOf(t, f, fmt.Sprintf(elsewhere, value)).Is(kept(t, f, fmt.Sprintf(elsewhere, `"1.0"`))) != (value == `"1.0"`) {
			t.Errorf("elsewhere, %s and the text 1.0 are mixed up", value)
		}
	}
	for _, value := range []string{`" 1"`, `"1 "`, `"+1"`, `"01"`, `"1,0"`, `"1.0.0"`, `""`, `null`, `true`, `[1]`, `{"value":1}`, `-1`, `"-1"`, `10`, `1.0000000000000000000000001`} {
		if payOf(t, f, fmt.Sprintf(amount, value)).Is(kept(t, f, fmt.Sprintf(amount, "1"))) {
			t.Errorf("an amount of %s is 1", value)
		}
	}
}

// Case H51. An operation that takes no body has a print all the same; one that is sent an
// empty object was sent something.
func TestH51NoBodyHasAPrintOfItsOwn(t *testing.T) {
	t.Parallel()
	f := printer(t, secret)
	none := f.Of("POST", "/v1/payments/:id/cancel", "id", jsontree.Value{})
	if again := printer(t, secret).Of("POST", "/v1/payments/:id/cancel", "id", jsontree.Value{}); !none.Is(again.Kept()) || len(none.Kept()) != 1+sha256.Size {
		t.Error("no body is not the same as no body")
	}
	for _, body := range []string{`{}`, `null`, `""`, `[]`, `0`, `false`} {
		if none.Is(f.Of("POST", "/v1/payments/:id/cancel", "id", parsed(t, body)).Kept()) {
			t.Errorf("no body is the same as %s", body)
		}
	}
	if none.Is(f.Of("POST", "/v1/payments/:id/cancel", "other", jsontree.Value{}).Kept()) {
		t.Error("without a body, the target makes no difference")
	}
}

// Case H49. What is hashed is what a body says: that it was packed on its way, or how, is
// no difference.
func TestH49PackedBodyHasThePrintOfThePlainOne(t *testing.T) {
	t.Parallel()
	f := printer(t, secret)
	read := func(data []byte, encoding string) Print {
		t.Helper()
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/payments", bytes.NewReader(data))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Content-Encoding", encoding)
		v, err := httpapi.Body(echo.New().NewContext(req, httptest.NewRecorder()))
		if err != nil {
			t.Fatal(err)
		}
		return f.Of("POST", "/v1/payments", "", v)
	}
	row := read([]byte(aPayment), "").Kept()
	for _, level := range []int{gzip.NoCompression, gzip.BestSpeed, gzip.BestCompression} {
		var packed bytes.Buffer
		for _, piece := range []string{aPayment[:10], aPayment[10:]} {
			w, err := gzip.NewWriterLevel(&packed, level)
			if err != nil {
				t.Fatal(err)
			}
			w.Name, w.ModTime = "payment.json", time.Unix(int64(level)+10, 0)
			if _, err = w.Write([]byte(piece)); err == nil {
				err = w.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if !read(packed.Bytes(), "gzip").Is(row) {
			t.Errorf("level %d: a packed body is another request", level)
		}
	}
	if read([]byte(payment(`"4111111111111111"`, `"123"`, "45.68")), "identity").Is(row) {
		t.Error("another body is the same request")
	}
}
