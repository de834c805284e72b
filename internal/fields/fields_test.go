package fields_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/money"
)

// member is $.it of a body in which it is that JSON, or is not there.
func member(t *testing.T, json string) jsontree.Value {
	t.Helper()
	body := `{}`
	if json != "" {
		body = `{"it":` + json + `}`
	}
	v, err := jsontree.Parse([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return v.Get("it")
}

const account = "0198c2f3-7777-7777-8888-999999999999"

// Each reader, what it takes and what it says of what it does not take.
func TestEachReaderSaysPlaceAndRuleAndNeverTheValue(t *testing.T) {
	t.Parallel()
	text := func(v *fields.Checker, at jsontree.Value) string { return v.Text(at, 2, 4) }
	required := func(v *fields.Checker, at jsontree.Value) string { return v.RequiredText(at, 1, 4) }
	integer := func(v *fields.Checker, at jsontree.Value) string { return fmt.Sprint(v.Integer(at, 1, 9, 5)) }
	boolean := func(v *fields.Checker, at jsontree.Value) string { return fmt.Sprint(v.Boolean(at, true)) }
	digits := func(v *fields.Checker, at jsontree.Value) string { return v.Digits(at, 3, 4) }
	object := func(v *fields.Checker, at jsontree.Value) string { return string(v.Descriptive(at)) }
	country := func(v *fields.Checker, at jsontree.Value) string { return v.Country(at) }
	id := func(v *fields.Checker, at jsontree.Value) string { return v.ID(at).String() }
	web := func(v *fields.Checker, at jsontree.Value) string { return v.URL(at) }
	metadata := func(v *fields.Checker, at jsontree.Value) string { return string(v.Metadata(at)) }
	own := func(v *fields.Checker, at jsontree.Value) string {
		v.Account(at, uuid.MustParse(account))
		return ""
	}
	amount := func(v *fields.Checker, at jsontree.Value) string {
		value, currency := v.Money(at, money.Check)
		return value.String() + currency
	}
	for _, c := range []struct {
		name string
		read func(*fields.Checker, jsontree.Value) string
		json string
		want string // what is read
		code apierr.Code
		rule string
	}{
		{"text", text, `"abc"`, "abc", "", ""},
		{"text", text, ``, "", "", ""},
		{"text", text, `null`, "", "", ""},
		{"text", text, `"äöü€"`, "äöü€", "", ""},
		{"text", text, `7`, "", apierr.InvalidParameters, "must be a string"},
		{"text", text, `"secret"`, "secret", apierr.InvalidParameters, "must have 2 to 4 characters"},
		{"text", text, `"a\u0007b"`, "a\ab", apierr.InvalidParameters, "must not contain control characters"},
		{"required text", required, `null`, "", apierr.MissingParameters, "is required"},
		{"integer", integer, ``, "5", "", ""},
		{"integer", integer, `9`, "9", "", ""},
		{"integer", integer, `10`, "5", apierr.InvalidParameters, "must be a whole number from 1 to 9"},
		{"integer", integer, `"9"`, "5", apierr.InvalidParameters, "must be a whole number from 1 to 9"},
		{"boolean", boolean, ``, "true", "", ""},
		{"boolean", boolean, `false`, "false", "", ""},
		{"boolean", boolean, `"no"`, "true", apierr.InvalidParameters, "must be true or false"},
		{"digits", digits, `"0123"`, "0123", "", ""},
		{"digits", digits, `"12a"`, "", apierr.InvalidParameters, "must be a string of 3 to 4 digits"},
		{"object", object, `{"a": 1}`, `{"a":1}`, "", ""},
		{"object", object, `[1]`, `[1]`, apierr.InvalidParameters, "must be an object"},
		{"object", object, `{"a":"` + strings.Repeat("x", fields.MaxDescriptive) + `"}`, "", apierr.InvalidParameters, "must have at most 65536 bytes"},
		{"country", country, `"US"`, "US", "", ""},
		{"country", country, `"us"`, "us", apierr.CountryNotSupported, "must be an ISO 3166-1 alpha-2 country code in capitals"},
		{"account", own, `"` + strings.ToUpper(account) + `"`, "", "", ""},
		{"account", own, `"another"`, "", apierr.InvalidAccountID, "must be the account of the API key"},
		{"id", id, `"` + account + `"`, account, "", ""},
		{"id", id, `""`, uuid.Nil.String(), "", ""},
		{"id", id, `"{` + account + `}"`, account, apierr.InvalidParameters, "must be a UUID of 36 characters"},
		{"URL", web, `"https://shop.example/thanks?order=1"`, "https://shop.example/thanks?order=1", "", ""},
		{"URL", web, `"http://localhost:3000/"`, "http://localhost:3000/", "", ""},
		{"URL", web, `"javascript:alert(1)"`, "javascript:alert(1)", apierr.InvalidParameters, "must be an http or https URL with a host and without a user"},
		{"URL", web, `"https:///thanks"`, "https:///thanks", apierr.InvalidParameters, "must be an http or https URL with a host and without a user"},
		{"URL", web, `"https://shop.example@evil.example/"`, "https://shop.example@evil.example/", apierr.InvalidParameters, "must be an http or https URL with a host and without a user"},
		{"URL", web, `"//shop.example/"`, "//shop.example/", apierr.InvalidParameters, "must be an http or https URL with a host and without a user"},
		{"metadata", metadata, `[{"key":"a","value":"b","more":1}]`, `[{"key":"a","value":"b"}]`, "", ""},
		{"metadata", metadata, `{"a":"b"}`, "", apierr.InvalidParameters, "must be an array of at most 120 pairs of key and value"},
		{"money", amount, `{"currency":"KWD","value":"1.234"}`, "1.234KWD", "", ""},
		{"money", amount, `{"currency":"JPY","value":1.5}`, "0JPY", apierr.InvalidAmount, ""},
		{"money", amount, ``, "0", apierr.MissingParameters, "is required"},
	} {
		var v fields.Checker
		if got := c.read(&v, member(t, c.json)); got != c.want && c.want != "" {
			t.Errorf("%s %.40s: read %q, want %q", c.name, c.json, got, c.want)
		}
		err := v.Err()
		e, refused := apierr.From(err)
		switch {
		case c.code == "" && err == nil:
		case c.code == "" || !refused || e.Code != c.code:
			t.Errorf("%s %.40s: %v, want %q", c.name, c.json, err, c.code)
		case c.rule != "" && !slices.Contains(e.Messages, "$.it "+c.rule):
			t.Errorf("%s %.40s: %v, want that it %s", c.name, c.json, e.Messages, c.rule)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error has the value", c.name)
		}
	}
}

// An answer to nonsense stays short, and its code is that of the first fault.
func TestOneAnswerHasTwentyRulesAtMost(t *testing.T) {
	t.Parallel()
	var v fields.Checker
	v.Required(member(t, ""))
	for range 2 * fields.MaxMessages {
		v.Text(member(t, `7`), 1, 2)
	}
	e, _ := apierr.From(v.Err())
	if e == nil || e.Code != apierr.MissingParameters || len(e.Messages) != fields.MaxMessages {
		t.Errorf("it is %v", e)
	}
}
