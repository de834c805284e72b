package transactions

import (
	"encoding/json"
	"errors"
	"strconv"

	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/providers"
)

// Limits of a card.
const (
	maxHolderName     = 255 // characters
	minCardDigits     = 12  // ISO/IEC 7812 allows fewer, no network issues them
	maxCardDigits     = 19
	minSecurityCode   = 3
	maxSecurityCode   = 4
	maxExpirationYear = 99
)

// CardRules are the rules for card numbers that depend on who is asking.
type CardRules struct {
	luhn        bool // in live mode; published test cards fail it
	rawCards    bool // whether card numbers may come through us at all
	fingerprint func(number string) string
	byOther     func(number string) string // nil: the installation has one secret
}

// CardRules are those of a mode.
func (s *Service) CardRules(live bool) CardRules {
	return CardRules{luhn: live, rawCards: !live || s.rawLive, fingerprint: s.prints.Card, byOther: s.prints.CardByOther}
}

// HandedCard is a card as somebody sends it. It is in memory only; Kept is what may be
// kept of it.
type HandedCard struct {
	providers.Card
	Fingerprint string // of its number, keyed
	byOther     string // the same under the installation's other secret; compared, never kept
}

// ReadCard reads a card: number, holder_name, expiration_month, expiration_year (of two
// or four digits) and, if it is there, security_code.
func (rules CardRules) ReadCard(v *fields.Checker, data jsontree.Value) (c HandedCard) {
	v.Object(data)
	c.HolderName = v.Text(data.Get("holder_name"), 1, maxHolderName)
	if number := data.Get("number"); v.Required(number) {
		if !rules.rawCards {
			v.Invalid(number, "must not be sent in live mode: this installation takes no raw card numbers")
			return c
		}
		c.Number = v.Digits(number, minCardDigits, maxCardDigits)
		if c.Number != "" && rules.luhn && !luhn(c.Number) {
			v.Invalid(number, "must be a valid card number")
		}
		if c.Number != "" {
			c.Fingerprint = rules.fingerprint(c.Number)
			if rules.byOther != nil {
				c.byOther = rules.byOther(c.Number)
			}
		}
	}
	if code := data.Get("security_code"); code.Given() {
		c.SecurityCode = v.Digits(code, minSecurityCode, maxSecurityCode)
	}
	if month := data.Get("expiration_month"); v.Required(month) {
		c.ExpirationMonth = v.Integer(month, 1, 12, 0)
	}
	if year := data.Get("expiration_year"); v.Required(year) {
		c.ExpirationYear = readYear(v, year)
	}
	return c
}

// readYear reads two digits (28) or four (2028).
func readYear(v *fields.Checker, at jsontree.Value) int {
	s, isNumber := at.Number()
	n, err := strconv.Atoi(s)
	switch {
	case isNumber && err == nil && n >= 0 && n <= maxExpirationYear:
		return 2000 + n
	case isNumber && err == nil && n >= 2000 && n <= 2000+maxExpirationYear:
		return n
	}
	v.Invalid(at, "must be a year of two or four digits")
	return 0
}

// luhn says whether the last digit checks the others (ISO/IEC 7812-1, annex B).
func luhn(number string) bool {
	sum := 0
	for i := range len(number) {
		d := int(number[len(number)-1-i] - '0')
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}

// KeptCard is what may be kept of a card, as it is stored and told.
type KeptCard struct {
	HolderName         string `json:"holder_name"`
	IIN                string `json:"iin"`
	LFD                string `json:"lfd"`
	NumberLength       int    `json:"number_length"`
	SecurityCodeLength int    `json:"security_code_length"`
	Brand              string `json:"brand"`
	Fingerprint        string `json:"fingerprint"`
	ExpirationMonth    int    `json:"expiration_month"`
	ExpirationYear     int    `json:"expiration_year"` // two digits, as on the wire
}

// Kept is the card as stored: JSON text. The first eight digits are kept only of numbers
// that leave at least four hidden between them and the last four.
func (c HandedCard) Kept() (string, error) {
	n := c.Number
	if len(n) < minCardDigits {
		return "", errors.New("a card number is too short to be kept in part")
	}
	iin := n[:6]
	if len(n) >= 16 {
		iin = n[:8]
	}
	b, err := json.Marshal(KeptCard{
		HolderName: c.HolderName, IIN: iin, LFD: n[len(n)-4:], NumberLength: len(n),
		SecurityCodeLength: len(c.SecurityCode), Brand: brand(n), Fingerprint: c.Fingerprint,
		ExpirationMonth: c.ExpirationMonth, ExpirationYear: c.ExpirationYear % 100,
	})
	if err != nil {
		return "", errors.New("encode the card to keep") // the cause may quote it
	}
	return string(b), nil
}

// brands are the networks by the ranges of the leading digits that they publish,
// the narrower before the wider.
var brands = []struct {
	digits   int
	from, to int
	name     string
}{
	{2, 34, 34, "AMEX"},
	{2, 37, 37, "AMEX"},
	{3, 300, 305, "DINERS"},
	{2, 36, 36, "DINERS"},
	{2, 38, 39, "DINERS"},
	{4, 3528, 3589, "JCB"},
	{2, 51, 55, "MASTERCARD"},
	{4, 2221, 2720, "MASTERCARD"},
	{4, 6011, 6011, "DISCOVER"},
	{3, 644, 649, "DISCOVER"},
	{2, 65, 65, "DISCOVER"},
	{2, 62, 62, "UNIONPAY"},
	{1, 4, 4, "VISA"},
	{1, 1, 1, "UATP"},
}

// brand is the network of a card number, or "" where we don't know it.
func brand(number string) string {
	for _, b := range brands {
		if n, err := strconv.Atoi(number[:b.digits]); err == nil && n >= b.from && n <= b.to {
			return b.name
		}
	}
	return ""
}
