package console

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/money"
	"github.com/oncepay/oncepay/internal/transactions"
)

// The parameters by which payments are chosen. They are in links that people keep: a name
// stays what it is.
const (
	paramStatus    = "status"
	paramSubStatus = "sub_status"
	paramAccount   = "account"
	paramMode      = "mode"
	paramFrom      = "from"
	paramTo        = "to"
	paramMin       = "min"
	paramMax       = "max"
	paramCurrency  = "currency"
	paramOrder     = "order"
	paramCode      = "response_code"
	paramNonce     = "nonce"
	paramCustomer  = "customer"
	paramBefore    = "before"
)

// filterParams are those of what is chosen, in the order in which links name them.
var filterParams = []string{
	paramStatus, paramSubStatus, paramAccount, paramMode, paramFrom, paramTo, paramMin, paramMax, paramCurrency,
	paramOrder, paramCode, paramNonce, paramCustomer,
}

// maxFilterText is in characters: as long as an order or a customer may be called.
const maxFilterText = 255

// dateLayout is how a browser's field for a date writes it.
const dateLayout = "2006-01-02"

// currencyCode also fits one that has left ISO's list: payments stay in what they were made.
var currencyCode = regexp.MustCompile(`^[A-Z]{3}$`)

// filter is which payments a page shows: as it was asked for, and as it is looked up.
type filter struct {
	transactions.PaymentFilter
	// Before is what the page goes on before; Nil: the newest.
	Before   uuid.UUID
	Problems []string // what cannot be looked up, by field and rule

	given url.Values // as it came, without what is empty
}

// filterReader reads the parameters, and collects what is wrong with them.
type filterReader struct {
	given    url.Values
	problems []string
}

// parseFilter reads the parameters of a page of payments.
func parseFilter(q url.Values) filter {
	r := filterReader{given: url.Values{}}
	for _, name := range filterParams {
		if v := strings.TrimSpace(q.Get(name)); v != "" {
			r.given.Set(name, v)
		}
	}
	var f filter
	f.Status = r.oneOf(paramStatus, paymentStatuses())
	f.SubStatus = r.oneOf(paramSubStatus, paymentSubStatuses())
	f.Mode = r.oneOf(paramMode, []string{merchants.Test, merchants.Live})
	f.AccountID = r.id(paramAccount, r.given.Get(paramAccount), "must be a merchant's account id, a UUID")
	f.Before = r.id(paramBefore, q.Get(paramBefore), "must be the end of a page before")
	f.From, f.To = r.date(paramFrom), r.date(paramTo)
	if f.From != nil && f.To != nil && f.To.Before(*f.From) {
		r.wrong(paramTo, "must not be before from")
	}
	if f.To != nil { // the day is meant, to its end
		end := f.To.AddDate(0, 0, 1)
		f.To = &end
	}
	f.MinAmount, f.MaxAmount = r.amount(paramMin), r.amount(paramMax)
	if f.MinAmount != nil && f.MaxAmount != nil && f.MaxAmount.LessThan(*f.MinAmount) {
		r.wrong(paramMax, "must not be less than min")
	}
	if f.Currency = strings.ToUpper(r.given.Get(paramCurrency)); f.Currency != "" && !currencyCode.MatchString(f.Currency) {
		r.wrong(paramCurrency, "must be a currency's three letters, such as USD")
	}
	f.Order, f.ResponseCode = r.text(paramOrder), r.text(paramCode)
	f.Nonce, f.Customer = r.nonce(paramNonce), r.text(paramCustomer)
	f.given, f.Problems = r.given, r.problems
	return f
}

func (r *filterReader) wrong(param, rule string) { r.problems = append(r.problems, param+" "+rule) }

func (r *filterReader) oneOf(param string, words []string) string {
	v := r.given.Get(param)
	if v != "" && !slices.Contains(words, v) {
		r.wrong(param, "must be one of the list")
		return ""
	}
	return v
}

func (r *filterReader) id(param, v, rule string) uuid.UUID {
	if v == "" {
		return uuid.Nil
	}
	id, ok := fields.ParseID(v)
	if !ok {
		r.wrong(param, rule)
	}
	return id
}

func (r *filterReader) date(param string) *time.Time {
	v := r.given.Get(param)
	if v == "" {
		return nil
	}
	t, err := time.Parse(dateLayout, v)
	if err != nil {
		r.wrong(param, "must be a date, such as 2026-11-30")
		return nil
	}
	return &t
}

func (r *filterReader) amount(param string) *decimal.Decimal {
	v := r.given.Get(param)
	if v == "" {
		return nil
	}
	d, err := money.Parse(v)
	if err != nil || d.IsNegative() {
		r.wrong(param, "must be an amount in major units, such as 45.67")
		return nil
	}
	return &d
}

func (r *filterReader) text(param string) string {
	v := r.given.Get(param)
	switch {
	case !utf8.ValidString(v) || strings.ContainsFunc(v, unicode.IsControl):
		r.wrong(param, "must be UTF-8 without control characters")
	case utf8.RuneCountInString(v) > maxFilterText:
		r.wrong(param, "must have at most 255 characters")
	default:
		return v
	}
	return ""
}

// nonce may be longer than a text: see findableNonce.
func (r *filterReader) nonce(param string) string {
	v := r.given.Get(param)
	if v != "" && !findableNonce(v) {
		r.wrong(param, "must have only printable ASCII characters")
		return ""
	}
	return v
}

// Given is a parameter as it came, for its field in the form.
func (f filter) Given(param string) string { return f.given.Get(param) }

// Active says whether anything is chosen at all.
func (f filter) Active() bool { return len(f.given) > 0 }

// link is a path with the parameters of what is chosen, and more, which are pairs.
func (f filter) link(path string, more ...string) string {
	q := url.Values{}
	for name, values := range f.given {
		q[name] = values
	}
	for pair := range slices.Chunk(more, 2) {
		q.Set(pair[0], pair[1])
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

// CSV is where the same payments are had as a file.
func (f filter) CSV() string { return f.link("/payments.csv") }

// paymentStatuses are the statuses that a payment can have, by name.
func paymentStatuses() []string {
	return statusWords(func(s transactions.PaymentStatus) string { return s.Status })
}

// paymentSubStatuses are the sub-statuses that a payment can have, by name.
func paymentSubStatuses() []string {
	return statusWords(func(s transactions.PaymentStatus) string { return s.Sub })
}

// statusWords is one word of each status that there is, without repetition.
func statusWords(word func(transactions.PaymentStatus) string) []string {
	seen := map[string]bool{}
	for from, all := range transactions.PaymentMoves {
		seen[word(from)] = true
		for _, to := range all {
			seen[word(to)] = true
		}
	}
	words := make([]string, 0, len(seen))
	for w := range seen {
		words = append(words, w)
	}
	slices.Sort(words)
	return words
}
