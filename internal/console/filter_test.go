package console

import (
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestAFilterIsReadAndLinkedTo(t *testing.T) {
	t.Parallel()
	account, before := uuid.NewString(), uuid.NewString()
	q := url.Values{
		"status": {"PENDING"}, "sub_status": {"AUTHORIZED"}, "account": {account}, "mode": {"live"}, "from": {"2026-11-01"}, "to": {"2026-11-30"},
		"min": {"1"}, "max": {"99.50"}, "currency": {"eur"}, "order": {" a&b=c "}, "response_code": {"DO_NOT_HONOR"}, "nonce": {"n/1%2"},
		"customer": {"ü"}, "before": {before}, "other": {"ignored"},
	}
	f := parseFilter(q)
	if len(f.Problems) > 0 {
		t.Fatal(f.Problems)
	}
	if f.Status != "PENDING" || f.SubStatus != "AUTHORIZED" || f.AccountID.String() != account || f.Mode != "live" || f.Currency != "EUR" ||
		f.Order != "a&b=c" || f.ResponseCode != "DO_NOT_HONOR" || f.Nonce != "n/1%2" || f.Customer != "ü" || f.Before.String() != before {
		t.Errorf("read as %+v", f)
	}
	if got := f.From.Format("2006-01-02 15:04") + " " + f.To.Format("2006-01-02 15:04"); got != "2026-11-01 00:00 2026-12-01 00:00" {
		t.Errorf("from and to are %s", got)
	}
	if f.MinAmount.String() != "1" || f.MaxAmount.String() != "99.5" {
		t.Errorf("amounts are %s and %s", f.MinAmount, f.MaxAmount)
	}
	u, err := url.Parse(f.link("/payments"))
	if err != nil {
		t.Fatal(err)
	}
	again := parseFilter(u.Query())
	again.Before = f.Before // a link names it only where it says so
	if !reflect.DeepEqual(again, f) {
		t.Errorf("the link leads to %+v, want %+v", again, f)
	}
	if f := parseFilter(url.Values{}); f.Active() || f.link("/payments") != "/payments" {
		t.Error("no filter is one")
	}
}

// A message names the field and the rule; the value, which may be a card number in the wrong
// place, is in none.
func TestAFilterThatCannotBeLookedUpSaysWhichFieldAndWhy(t *testing.T) {
	t.Parallel()
	const secret = "4111111111111111x"
	for param, values := range map[string][]string{
		"status": {secret, "pending"}, "sub_status": {secret}, "mode": {secret, "TEST"}, "account": {secret, "{" + uuid.NewString() + "}"},
		"before": {secret}, "from": {secret, "2026-02-30", "01.02.2026", "2026-1-1"}, "to": {secret, "yesterday"},
		"min": {secret, "-1", "1e99999", "1,5", "NaN", strings.Repeat("1", 41)}, "max": {secret, "--1"}, "currency": {secret, "E", "U$D", "EURO"},
		"order": {strings.Repeat("o", 256), "a\x00b", "a\nb", "\xff"}, "nonce": {strings.Repeat("n", 8<<10+1), "n" + strings.Repeat("é", 200), "a\x00b"}, "response_code": {"\x1b[31m"}, "customer": {"\xc3\x28"},
	} {
		for _, v := range values {
			f := parseFilter(url.Values{param: {v}})
			if len(f.Problems) != 1 || !strings.HasPrefix(f.Problems[0], param+" must ") || strings.Contains(f.Problems[0], v) {
				t.Errorf("%s=%q: %q", param, v, f.Problems)
			}
		}
	}
	for _, q := range []url.Values{{"from": {"2026-02-02"}, "to": {"2026-02-01"}}, {"min": {"2"}, "max": {"1"}}} {
		if f := parseFilter(q); len(f.Problems) != 1 {
			t.Errorf("%v: %q", q, f.Problems)
		}
	}
	if f := parseFilter(url.Values{"nonce": {strings.Repeat("n", 8<<10)}}); len(f.Problems) != 0 || len(f.Nonce) != 8<<10 {
		t.Errorf("a long nonce: %q", f.Problems)
	}
	if f := parseFilter(url.Values{"from": {"2026-02-02"}, "to": {"2026-02-02"}, "min": {"1"}, "max": {"1.00"}}); len(f.Problems) != 0 {
		t.Errorf("one day, one amount: %q", f.Problems)
	}
}
