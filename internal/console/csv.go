package console

import (
	"encoding/csv"
	"io"
	"strings"
	"unicode"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/money"
	"github.com/oncepay/oncepay/internal/transactions"
)

// csvNames is the first line of a file of payments. Programs read it: a column keeps its
// name, and new ones come last.
var csvNames = []string{
	"created_at", "account_id", "merchant", "mode", "payment_id", "merchant_order_id", "status", "sub_status", "currency", "amount",
	"captured", "refunded", "charged_back", "customer", "transaction_id", "transaction_type", "transaction_status", "provider",
	"response_code", "card_brand", "card_last_four", "nonce",
}

// paymentsCSV writes payments as RFC 4180 has it, with CRLF.
type paymentsCSV struct{ w *csv.Writer }

// newPaymentsCSV begins a file.
func newPaymentsCSV(to io.Writer) (paymentsCSV, error) {
	f := paymentsCSV{csv.NewWriter(to)}
	f.w.UseCRLF = true
	return f, f.w.Write(csvNames)
}

// add adds a payment. Amounts, ids, times and the words of a closed set are ours, and stay
// what they are; whatever somebody else may have chosen is guarded.
func (f paymentsCSV) add(p transactions.PaymentLine) error {
	amount := func(d decimal.Decimal) string { return plainAmount(d, p.Currency) }
	return f.w.Write([]string{
		httpapi.Timestamp(p.CreatedAt), p.AccountID.String(), guarded(p.MerchantName), p.Mode, p.ID.String(), guarded(p.Order),
		p.Status, p.SubStatus, p.Currency, amount(p.Amount), amount(p.Captured), amount(p.Refunded), amount(p.ChargedBack),
		guarded(p.Customer), idOrNone(p.TransactionID), string(p.Type), string(p.TransactionStatus), guarded(p.Provider),
		guarded(p.ResponseCode), guarded(p.CardBrand), guarded(p.CardLastFour), guarded(p.Nonce),
	})
}

// flush sends what has been added.
func (f paymentsCSV) flush() error {
	f.w.Flush()
	return f.w.Error()
}

// plainAmount writes an amount with its currency's decimals, or as many as it takes.
func plainAmount(d decimal.Decimal, currency string) string {
	units, _ := money.MinorUnits(currency)
	if fixed := d.StringFixed(int32(units)); decimal.RequireFromString(fixed).Equal(d) { //nolint:gosec // 0 to 4
		return fixed
	}
	return d.String()
}

func idOrNone(id uuid.UUID) string {
	if id == uuid.Nil {
		return ""
	}
	return id.String()
}

// formulaSigns are what a spreadsheet takes for the beginning of a formula, and what looks
// like one of them and may become one: the small and the full-width forms, and the minus of
// mathematicians.
const formulaSigns = "=+-@" + "＝＋－＠" + "﹦﹢﹣﹫" + "−"

// cellEnds are where another cell begins for a spreadsheet that expects other separators
// than ours, as those of half of Europe do.
const cellEnds = ",;\t\r\n"

// guarded is a text that a spreadsheet takes for nothing but a text. Where a formula could
// begin, an apostrophe is put in front: of the cell if it begins with a sign, behind
// whatever blanks, quotes and invisible characters, or with a tab or a line break; and
// behind each separator in it, because not every spreadsheet is told which one is ours.
func guarded(text string) string {
	var out strings.Builder
	if strings.IndexAny(text, "\t\r\n") == 0 {
		out.WriteByte('\'')
	}
	for text != "" {
		end := strings.IndexAny(text, cellEnds) + 1
		if end == 0 {
			end = len(text)
		}
		if strings.IndexAny(strings.TrimLeftFunc(text[:end], invisible), formulaSigns) == 0 {
			out.WriteByte('\'')
		}
		out.WriteString(text[:end])
		text = text[end:]
	}
	return out.String()
}

// invisible says whether a spreadsheet may pass over it before it looks for a formula.
func invisible(r rune) bool {
	return unicode.IsSpace(r) || unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Quotation_Mark) || r == '`'
}
