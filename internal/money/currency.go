package money

import "strings"

// currencies lists the active codes by their number of minor units: those of
// list one of ISO 4217, "Current currency & funds", which SIX publishes for ISO,
// as it stood on 1 February 2026. It knows the latest comings (ZWG 2024, XCG and
// XAD 2025) and goings (HRK and SLL 2023, ANG 2025, BGN 2026).
//
// Codes that ISO gives no minor unit are no money to pay with, and left out:
// precious metals (XAU…), bond units (XBA…), XDR, XSU, XUA, the test code XTS and
// "no currency" XXX.
//
// When ISO amends the list, amend this one. A code may only leave when no open
// payment carries it, for a capture or a refund checks its amount here again.
var currencies = [...]string{
	0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
	2: `
		AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD
		BTN BWP BYN BZD CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP
		DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF
		IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL
		MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR
		NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP
		SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD
		USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG
	`,
	3: "BHD IQD JOD KWD LYD OMR TND",
	4: "CLF UYW",
}

var minorUnits = indexCurrencies()

func indexCurrencies() map[string]int {
	index := make(map[string]int)
	for units, codes := range currencies {
		for code := range strings.FieldsSeq(codes) {
			index[code] = units
		}
	}
	return index
}

// MinorUnits is the number of decimal places that amounts of a currency have:
// JPY 0, USD 2, KWD 3. It reports false for anything but an active ISO 4217 code
// in capitals.
func MinorUnits(currency string) (int, bool) {
	units, ok := minorUnits[currency]
	return units, ok
}
