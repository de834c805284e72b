package main

import (
	"net/http"
	"net/netip"
	"testing"

	"github.com/oncepay/oncepay/internal/merchants"
)

// A key's list goes by the last address that none of the trusted proxies has: what a
// client writes in front of it is its own word.
func TestListOfNetworksBelievesTrustedProxiesOnly(t *testing.T) {
	t.Parallel()
	r := start(t)
	m, _, err := r.auth.Create(t.Context(), "First merchant", "")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := r.auth.CreateKey(t.Context(), m.AccountID, merchants.Test, netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32"))
	if err != nil {
		t.Fatal(err)
	}
	for forwarded, want := range map[string]int{
		"203.0.113.9":               http.StatusOK,
		"2001:db8::9":               http.StatusOK,
		"::ffff:203.0.113.9":        http.StatusOK,
		"198.51.100.1, 203.0.113.9": http.StatusOK,
		"203.0.113.9, 127.0.0.2":    http.StatusOK, // another of the proxies
		"203.0.113.9, 198.51.100.1": http.StatusUnauthorized,
		"198.51.100.1":              http.StatusUnauthorized,
		"203.0.113.9, nonsense":     http.StatusUnauthorized,
		"":                          http.StatusUnauthorized, // the proxy's own
	} {
		a := r.ask(false, http.MethodGet, "/v1/payments?merchant_order_id=none", "", append(owned{pair: pair}.keys(), "X-Forwarded-For", forwarded)...)
		if a.status != want || want == http.StatusUnauthorized && a.code() != "UNKNOWN_IP_ADDRESS" {
			t.Errorf("forwarded for %q: %s, want %d", forwarded, a, want)
		}
	}
}
