// Package fields reads the members of a request's body and collects what is wrong with
// them: places and rules, never values, so that a card number in the wrong place is
// nowhere else.
package fields

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/iso"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/money"
)

// Limits of the contract, in characters unless said otherwise.
const (
	MinText          = 3   // orders, descriptions, references
	MaxText          = 255 // the same
	MaxMetadata      = 120 // pairs
	MaxMetadataKey   = 48
	MaxMetadataValue = 512
	// MaxMessages bounds how much one answer complains of, so that an answer to nonsense
	// stays short.
	MaxMessages = 20
	// MaxDescriptive is how large a member may be that is kept and given back without
	// being read, in bytes.
	MaxDescriptive = 64 << 10

	minURL = 3
	maxURL = 526
)

// Checker collects what is wrong with a body. The zero Checker has found nothing.
type Checker struct {
	code     apierr.Code
	messages []string
}

// Fail notes one broken rule. The first one's code is the answer's.
func (v *Checker) Fail(code apierr.Code, at jsontree.Value, rule string) {
	if v.code == "" {
		v.code = code
	}
	if len(v.messages) < MaxMessages {
		v.messages = append(v.messages, at.Path()+" "+rule)
	}
}

// Invalid notes one broken rule that has no code of its own.
func (v *Checker) Invalid(at jsontree.Value, rule string) {
	v.Fail(apierr.InvalidParameters, at, rule)
}

// Err is what is wrong, at most 20 rules, or nil.
func (v *Checker) Err() error {
	if v.code == "" {
		return nil
	}
	return apierr.New(v.code, v.messages...)
}

// Required says whether a member is there, and notes it if not.
func (v *Checker) Required(at jsontree.Value) bool {
	if !at.Given() {
		v.Fail(apierr.MissingParameters, at, "is required")
		return false
	}
	return true
}

// Text reads an optional string of lo to hi characters without control characters.
func (v *Checker) Text(at jsontree.Value, lo, hi int) string {
	if !at.Given() {
		return ""
	}
	s, ok := at.Text()
	if !ok {
		v.Invalid(at, "must be a string")
		return ""
	}
	if n := utf8.RuneCountInString(s); n < lo || n > hi {
		v.Invalid(at, fmt.Sprintf("must have %d to %d characters", lo, hi))
	} else if strings.ContainsFunc(s, unicode.IsControl) {
		v.Invalid(at, "must not contain control characters")
	}
	return s
}

// RequiredText is Text of a member that must be there.
func (v *Checker) RequiredText(at jsontree.Value, lo, hi int) string {
	if !v.Required(at) {
		return ""
	}
	return v.Text(at, lo, hi)
}

// Integer reads an optional whole number from lo to hi, or returns other.
func (v *Checker) Integer(at jsontree.Value, lo, hi, other int) int {
	if !at.Given() {
		return other
	}
	s, isNumber := at.Number()
	n, err := strconv.Atoi(s)
	if !isNumber || err != nil || n < lo || n > hi {
		v.Invalid(at, fmt.Sprintf("must be a whole number from %d to %d", lo, hi))
		return other
	}
	return n
}

// Boolean reads an optional boolean, or returns other.
func (v *Checker) Boolean(at jsontree.Value, other bool) bool {
	if !at.Given() {
		return other
	}
	b, ok := at.Bool()
	if !ok {
		v.Invalid(at, "must be true or false")
		return other
	}
	return b
}

// Object notes a member that is there and no object.
func (v *Checker) Object(at jsontree.Value) jsontree.Value {
	if at.Given() && at.Kind() != jsontree.Object {
		v.Invalid(at, "must be an object")
	}
	return at
}

// Descriptive reads an object that we keep and give back without reading it; nil where
// there is none. It has at most MaxDescriptive bytes.
func (v *Checker) Descriptive(at jsontree.Value) json.RawMessage {
	if !at.Given() {
		return nil
	}
	data := v.Object(at).JSON()
	if len(data) > MaxDescriptive {
		v.Invalid(at, "must have at most 65536 bytes")
	}
	return data
}

// Unavailable refuses an instruction about money that we would have to ignore. An
// empty one of its kind says nothing.
func (v *Checker) Unavailable(at jsontree.Value, kind jsontree.Kind) {
	if at.Given() && (at.Kind() != kind || at.Len() > 0) {
		v.Invalid(at, "is not available yet and must be left out")
	}
}

// Digits reads a string of lo to hi digits.
func (v *Checker) Digits(at jsontree.Value, lo, hi int) string {
	s, ok := at.Text()
	if !ok || len(s) < lo || len(s) > hi || strings.Trim(s, "0123456789") != "" {
		v.Invalid(at, fmt.Sprintf("must be a string of %d to %d digits", lo, hi))
		return ""
	}
	return s
}

// Metadata reads an optional array of pairs of key and value, and what is to be kept of
// it; nil where there is none.
func (v *Checker) Metadata(at jsontree.Value) json.RawMessage {
	if !at.Given() {
		return nil
	}
	if at.Kind() != jsontree.Array || at.Len() > MaxMetadata {
		v.Invalid(at, "must be an array of at most 120 pairs of key and value")
		return nil
	}
	for pair := range at.Elements() {
		v.Object(pair)
		v.RequiredText(pair.Get("key"), 1, MaxMetadataKey)
		v.RequiredText(pair.Get("value"), 1, MaxMetadataValue)
	}
	return metadataMembers.Pick(at).JSON()
}

// metadataMembers are what is kept of each pair.
var metadataMembers = jsontree.NewPaths("$[*].key", "$[*].value")

// Money reads a required amount with its currency. check says whether that much may be
// asked for.
func (v *Checker) Money(at jsontree.Value, check func(amount decimal.Decimal, currency string) error) (amount decimal.Decimal, currency string) {
	if !v.Required(at) {
		return amount, ""
	}
	v.Object(at)
	if c := at.Get("currency"); v.Required(c) {
		currency, _ = c.Text()
		if _, known := money.MinorUnits(currency); !known {
			v.Fail(apierr.CurrencyNotAllowed, c, money.ErrCurrency.Error())
			currency = ""
		}
	}
	value := at.Get("value")
	if !v.Required(value) {
		return amount, currency
	}
	raw, ok := value.Number()
	if !ok {
		raw, ok = value.Text()
	}
	if !ok {
		v.Fail(apierr.InvalidAmount, value, "must be a number, or a string that holds one")
		return amount, currency
	}
	amount, err := money.Parse(raw)
	if err == nil && currency != "" {
		err = check(amount, currency)
	}
	if err != nil {
		v.Fail(apierr.InvalidAmount, value, err.Error())
		return decimal.Decimal{}, currency
	}
	return amount, currency
}

// Country reads a required country.
func (v *Checker) Country(at jsontree.Value) string {
	if !v.Required(at) {
		return ""
	}
	country, _ := at.Text()
	if !iso.Country(country) {
		v.Fail(apierr.CountryNotSupported, at, "must be an ISO 3166-1 alpha-2 country code in capitals")
	}
	return country
}

// Account reads a required account_id, which must be the caller's own.
func (v *Checker) Account(at jsontree.Value, caller uuid.UUID) {
	if !v.Required(at) {
		return
	}
	if account, _ := at.Text(); !strings.EqualFold(account, caller.String()) {
		v.Fail(apierr.InvalidAccountID, at, "must be the account of the API key")
	}
}

// ID reads an optional id of ours, a UUID in its usual form of 36 characters; uuid.Nil
// where there is none.
func (v *Checker) ID(at jsontree.Value) uuid.UUID {
	s := v.Text(at, 0, MaxText)
	if s == "" {
		return uuid.Nil
	}
	id, ok := ParseID(s)
	if !ok {
		v.Invalid(at, "must be a UUID of 36 characters")
	}
	return id
}

// ParseID reads an id in the one form in which we write it.
func ParseID(s string) (uuid.UUID, bool) {
	id, err := uuid.Parse(s)
	return id, err == nil && len(s) == len(id.String())
}

// URL reads an optional address to which a payer's browser is led: http or https and a
// host, because a browser takes others, javascript: for one, for something to run.
func (v *Checker) URL(at jsontree.Value) string {
	s := v.Text(at, minURL, maxURL)
	if s == "" {
		return ""
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil {
		v.Invalid(at, "must be an http or https URL with a host and without a user")
	}
	return s
}
