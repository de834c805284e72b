package idem

import "testing"

// BenchmarkFingerprint is what recognising a body costs each request, replays
// included: its canonical form, and an HMAC of it.
func BenchmarkFingerprint(b *testing.B) {
	f, body := printer(b, secret), parsed(b, aPayment)
	b.ReportAllocs()
	for b.Loop() {
		f.Of("POST", "/v1/payments", "", body)
	}
}

// BenchmarkCardFingerprint is the card's own, once a request.
func BenchmarkCardFingerprint(b *testing.B) {
	f := printer(b, secret)
	b.ReportAllocs()
	for b.Loop() {
		f.Card("4111111111111111")
	}
}
