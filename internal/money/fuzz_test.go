package money

import (
	"math/big"
	"strings"
	"testing"
)

// FuzzCheck asks of any amount that may be moved: it is what was written, to the
// last digit, within the contract's bounds and its currency's units.
func FuzzCheck(f *testing.F) {
	for _, raw := range []string{"45.67", "0", "-1", "9999999999.9999", "10000000000", "0.0001", "1e9", "4567e-2", "10.00", "0.1e1", "1e-20", "0.30000000000000004"} {
		for _, currency := range []string{"USD", "JPY", "KWD", "CLF", "usd", ""} {
			f.Add(raw, currency)
		}
	}
	largest, _ := new(big.Rat).SetString("9999999999.9999")
	f.Fuzz(func(t *testing.T, raw, currency string) {
		d, err := Parse(raw)
		if err != nil || Check(d, currency) != nil {
			return
		}
		units, known := MinorUnits(currency)
		if !known {
			t.Fatalf("%q in %q passed", raw, currency)
		}
		written, ok := new(big.Rat).SetString(raw)
		if !ok {
			t.Fatalf("%q is no number to anybody else", raw)
		}
		if written.Sign() <= 0 || written.Cmp(largest) > 0 {
			t.Fatalf("%q passed", raw)
		}
		emitted := string(JSONNumber(d))
		if got, ok := new(big.Rat).SetString(emitted); !ok || got.Cmp(written) != 0 {
			t.Fatalf("%q became %s", raw, emitted)
		}
		if _, decimals, _ := strings.Cut(emitted, "."); len(decimals) > units || strings.HasSuffix(decimals, "0") {
			t.Fatalf("%q %s is told as %s", raw, currency, emitted)
		}
	})
}
