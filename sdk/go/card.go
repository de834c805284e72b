package oncepay

import (
	"errors"
	"log/slog"
)

// Card is a raw card. Who takes one in needs to be certified for it (PCI DSS): a backend
// that does not has a one-time token made in the browser instead, and pays with that.
//
// Every usual way of printing or encoding a Card shows nothing of it.
type Card struct {
	Number          string // 12 to 19 digits
	SecurityCode    string // 3 or 4 digits; "" for none
	HolderName      string
	ExpirationMonth int // 1 to 12
	ExpirationYear  int // two digits or four
}

// hidden is what is seen of a card.
const hidden = "[card]"

// String hides the card from fmt.
func (Card) String() string { return hidden }

// GoString hides the card from %#v.
func (Card) GoString() string { return hidden }

// LogValue hides the card from slog.
func (Card) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalJSON refuses, so that no card is stored with the parameters it was part of.
func (Card) MarshalJSON() ([]byte, error) { return nil, errors.New("oncepay: a card is not encoded") }

// wireCard is a card on its way to the API, and never leaves this package otherwise.
type wireCard struct {
	Number          string `json:"number"`
	SecurityCode    string `json:"security_code,omitempty"`
	HolderName      string `json:"holder_name,omitempty"`
	ExpirationMonth int    `json:"expiration_month"`
	ExpirationYear  int    `json:"expiration_year"`
}
