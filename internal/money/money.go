// Package money reads, checks and writes amounts: exact decimals in major units
// (23.57, never cents), from the first byte of a request to the last of an
// answer. No amount ever passes through a float, which cannot even hold 0.1.
//
// Parse takes an amount's text and bounds what it costs to hold. Check says
// whether money can be moved in that amount. JSONNumber writes it back.
package money

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"github.com/shopspring/decimal"
)

const (
	// maxLength bounds an amount's text, in characters. The largest amount has 15;
	// the rest is room for the zeros with which decimal types pad their scale.
	maxLength = 40

	// maxExponent bounds a written exponent, in either direction, before anything
	// expands it: "1e10000" is seven characters, and ten thousand digits. The
	// largest amount is below 1e10, so 20 refuses nothing that could be right.
	maxExponent = 20

	// maxDecimals is the wire contract's limit, and the most minor units that any
	// currency has.
	maxDecimals = 4
)

// maximum is the wire contract's largest amount: all that fits numeric(14,4).
var maximum = decimal.RequireFromString("9999999999.9999")

// What can be wrong with an amount. Each text is the rule in words that a client
// may hear, to be put behind the field's path; none repeats what was sent.
var (
	ErrSyntax      = errors.New("must be a decimal number of at most 40 characters")
	ErrExponent    = errors.New("must not have an exponent beyond 20")
	ErrNotPositive = errors.New("must be greater than 0")
	ErrTooLarge    = errors.New("must be at most 9999999999.9999")
	ErrTooPrecise  = errors.New("must have at most 4 decimal places")
	ErrCurrency    = errors.New("must be an active ISO 4217 currency code")
	ErrMinorUnits  = errors.New("must not have more decimal places than its currency")
)

// number is the JSON grammar of a number (RFC 8259, section 6), and so no leading
// plus, no leading zero, no hexadecimal, no blank, no NaN.
var number = regexp.MustCompile(`^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE]([+-]?[0-9]+))?$`)

// Parse reads the exact decimal written in raw: the text of a JSON number, or
// the contents of a JSON string that holds one. It fails with ErrSyntax or
// ErrExponent, at a cost that the length of raw alone decides; the sign and the
// size of the value are Check's business.
func Parse(raw string) (decimal.Decimal, error) {
	if len(raw) > maxLength {
		return decimal.Decimal{}, ErrSyntax
	}
	match := number.FindStringSubmatch(raw)
	if match == nil {
		return decimal.Decimal{}, ErrSyntax
	}
	if exponent := match[1]; exponent != "" {
		e, err := strconv.Atoi(exponent)
		if err != nil || e < -maxExponent || e > maxExponent { // err: more digits than an int has
			return decimal.Decimal{}, ErrExponent
		}
	}
	d, err := decimal.NewFromString(raw)
	if err != nil {
		return decimal.Decimal{}, ErrSyntax // without err, which quotes raw
	}
	return d, nil
}

// Check says whether money can be moved in this amount of this currency. It
// reports the first rule that is broken, in this order: ErrNotPositive,
// ErrTooLarge, ErrTooPrecise, ErrCurrency, ErrMinorUnits (wrapped, with the
// currency and its number of decimal places).
//
// Decimal places are counted on the value, not on its notation: 10.00 JPY is 10
// yen and fine, 10.50 JPY is not. Shops format every price alike, and zeros say
// nothing that could be misread.
func Check(v decimal.Decimal, currency string) error {
	switch {
	case !v.IsPositive():
		return ErrNotPositive
	case v.GreaterThan(maximum):
		return ErrTooLarge
	case !fits(v, maxDecimals):
		return ErrTooPrecise
	}
	units, ok := MinorUnits(currency)
	if !ok {
		return ErrCurrency
	}
	if !fits(v, units) {
		return fmt.Errorf("%w: %s has %d", ErrMinorUnits, currency, units)
	}
	return nil
}

// fits reports whether v is the same value with that many decimal places.
func fits(v decimal.Decimal, places int) bool {
	return v.Truncate(int32(places)).Equal(v) //nolint:gosec // G115: places is 0 to 4
}

// JSONNumber is the JSON number of d: all of its digits, no exponent and no
// trailing zeros (45.67, 5000, 0.5). It is raw JSON rather than a json.Number
// because encoders disagree about that type, and decimal's own encoding is a
// string.
func JSONNumber(d decimal.Decimal) json.RawMessage {
	return json.RawMessage(d.String())
}
