package idem

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"
)

// FuzzNonceOnTheWire sends any bytes as a header's value through Go's own reader of
// requests: what comes out as a nonce is what was sent, less the blanks around it,
// and nothing else ever is one.
func FuzzNonceOnTheWire(f *testing.F) {
	for _, seed := range []string{
		"key", " \tkey\t ", "a b", "a,b", "é", "\xff", "\x00", "a\r\n b", "a\r\nIdempotency-Key: a", "a\r\nX-Idempotency-Key: a", "a\rb", "a\nb", strings.Repeat("k", 65),
		`';--`, "\u00a0key", "key\x7f", "\r\n key", "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		wire := bytes.Join([][]byte{[]byte("POST /v1/payments HTTP/1.1\r\nHost: x\r\nX-Idempotency-Key:"), value, []byte("\r\n\r\n")}, nil)
		req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(wire)))
		if err != nil {
			return
		}
		nonce, err := NonceFrom(req.Header)
		if bytes.ContainsAny(value, "\r\n") {
			if err == nil && !ValidNonce(nonce) {
				t.Fatalf("%q passed for a nonce", nonce)
			}
			return // more lines than one, or a folded one
		}
		sent := strings.Trim(string(value), " \t")
		if (err == nil) != ValidNonce(sent) || err == nil && nonce != sent {
			t.Fatalf("%q was sent, and read as %q (%v)", value, nonce, err)
		}
	})
}
