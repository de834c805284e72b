package jsontree

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// FuzzCanonical asks of any body that is one: its form is JSON, means the same to
// somebody else's reader, is the form of itself, and of the body written otherwise.
func FuzzCanonical(f *testing.F) {
	for _, seed := range []string{
		`null`, `{"b":1.00,"a":[true,null,"é\u00e9\n",{"":-0e5}]}`, `[1,1.0,1e0,10e-1,0.1e1,-0,0e9,1e999999999,1e-99999999999999999999999]`,
		`{"z":{"y":{"x":[[],{},[{}]]}},"a\u0062":"\ud83d\ude00\u2028","":"<&>"}`, `"\u001f\u007f\u0080\uffff"`, typical,
		`[` + strings.Repeat("9", maxNumber) + `,1e` + strings.Repeat("9", maxNumber-2) + `,0.1e` + strings.Repeat("9", maxNumber-4) + `]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		v, err := Parse(body)
		if err != nil {
			var refused *Error
			if !errors.As(err, &refused) || !strings.HasPrefix(refused.Path, "$") || refused.Rule == "" {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		form := Form{}.Canonical(v)
		if !json.Valid(form) {
			t.Fatalf("%q has the form %q, which is no JSON", body, form)
		}
		if short(body) && !reflect.DeepEqual(meaning(t, body), meaning(t, form)) {
			t.Fatalf("%q and its form %q are two documents", body, form)
		}
		again, err := Parse(form)
		if refused, ok := errors.AsType[*Error](err); ok && refused.Rule == RuleNumber {
			return // an exponent at its limit may need one digit more
		}
		if err != nil {
			t.Fatalf("%q has the form %q, which is refused: %v", body, form, err)
		}
		if twice := (Form{}).Canonical(again); !bytes.Equal(form, twice) {
			t.Fatalf("%q has the form %q, and that the form %q", body, form, twice)
		}
		var indented bytes.Buffer
		if err := json.Indent(&indented, body, " ", "\t"); err != nil {
			t.Fatal(err)
		}
		other, err := Parse(indented.Bytes())
		if err != nil || !bytes.Equal(form, Form{}.Canonical(other)) {
			t.Fatalf("%q has another form when it is indented (%v)", body, err)
		}
	})
}

// short says that no number's exponent would be a page of digits as a fraction.
func short(body []byte) bool {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	for {
		token, err := d.Token()
		if err != nil {
			return true
		}
		if n, ok := token.(json.Number); ok {
			if at := strings.IndexAny(n.String(), "eE"); at >= 0 && len(n.String())-at > 4 {
				return false
			}
		}
	}
}

// meaning is what encoding/json and exact fractions make of a text.
func meaning(t *testing.T, text []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return withFractions(v)
}
