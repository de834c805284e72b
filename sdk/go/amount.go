package oncepay

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/shopspring/decimal"
)

// maxExponent bounds what an amount may cost to write out: 1e1000000 is nine characters.
// No amount of the API comes near it.
const maxExponent = 20

var errAmount = errors.New("an amount has an exponent beyond 20")

// Amount is exact, in major units: 45.67 USD, never cents.
type Amount struct {
	Currency string // ISO 4217
	Value    decimal.Decimal
}

// NewAmount reads a value such as "45.67".
func NewAmount(currency, value string) (Amount, error) {
	v, err := decimal.NewFromString(value)
	if err != nil || !writable(v) {
		return Amount{}, errors.New("oncepay: the value of an amount must be a decimal number")
	}
	return Amount{Currency: currency, Value: v}, nil
}

// MarshalJSON writes the value as a JSON number with all of its digits.
func (a Amount) MarshalJSON() ([]byte, error) {
	if !writable(a.Value) {
		return nil, errAmount
	}
	return json.Marshal(struct {
		Currency string      `json:"currency"`
		Value    json.Number `json:"value"`
	}{a.Currency, json.Number(a.Value.String())})
}

// UnmarshalJSON reads the value from a JSON number, or a string that holds one, exactly.
func (a *Amount) UnmarshalJSON(text []byte) error {
	var wire struct {
		Currency string          `json:"currency"`
		Value    decimal.Decimal `json:"value"`
	}
	if err := json.Unmarshal(text, &wire); err != nil {
		return err
	}
	if !writable(wire.Value) {
		return errAmount
	}
	a.Currency, a.Value = wire.Currency, wire.Value
	return nil
}

// String is for people: 45.67 USD.
func (a Amount) String() string {
	if !writable(a.Value) {
		return "[amount] " + a.Currency
	}
	return fmt.Sprintf("%s %s", a.Value, a.Currency)
}

func writable(v decimal.Decimal) bool {
	return v.Exponent() >= -maxExponent && v.Exponent() <= maxExponent
}
