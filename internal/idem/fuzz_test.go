package idem

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"
)

// FuzzNonceOnTheWire sends any bytes as a header's value through Go's own reader of
// requests, to each policy: what comes out as a nonce is what was sent, less the blanks
// around it and the quotes that a policy wants, and nothing else ever is one.
func FuzzNonceOnTheWire(f *testing.F) {
	for _, seed := range []string{
		"key", " \tkey\t ", "a b", "a,b", "é", "\xff", "\x00", "a\r\n b", "a\r\nIdempotency-Key: a", "a\r\nX-Idempotency-Key: a", "a\rb", "a\nb", strings.Repeat("k", 65),
		`';--`, "\u00a0key", "key\x7f", "\r\n key", "", strings.Repeat("k", 256), `"key"`, `"a\"b\\"`, `"key";a=1`, `"key`, `"é"`, `""`, `"a", "b"`,
	} {
		f.Add([]byte(seed))
	}
	route := Route{Method: http.MethodPost, Path: "/v1/payments", Creates: true, MovesMoney: true, Produces: "application/json"}
	policies := Presets(Options{})
	bare := Presets(Options{BareKeys: true})
	policies = append(policies, bare[len(bare)-1])
	f.Fuzz(func(t *testing.T, value []byte) {
		for _, p := range policies {
			wire := bytes.Join([][]byte{[]byte("POST /v1/payments HTTP/1.1\r\nHost: x\r\n" + p.Headers[0] + ":"), value, []byte("\r\n\r\n")}, nil)
			req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(wire)))
			if err != nil {
				continue
			}
			key, err := p.Key(req.Header, route, true)
			if err != nil {
				if sent := strings.Trim(string(value), " \t"); p.Format != Quoted && writable(p, sent) && sent[0] != '"' {
					t.Fatalf("%s: %q was refused: %v", p.Name, value, err)
				}
				continue
			}
			if !key.Protected() || !WasSent(key.Nonce) {
				t.Fatalf("%s: %q was read as none", p.Name, value)
			}
			if bytes.ContainsAny(value, "\r\n") {
				continue // more lines than one, or a folded one
			}
			if sent := strings.Trim(string(value), " \t"); key.Sent != sent || !meant(p, sent, key.Nonce) {
				t.Fatalf("%s: %q was sent, and read as %q", p.Name, value, key.Nonce)
			}
		}
	})
}

// writable says whether a policy takes text for a nonce as it stands, without quotes.
func writable(p Policy, text string) bool {
	if text == "" || p.MaxLength > 0 && len(text) > p.MaxLength {
		return false
	}
	return strings.IndexFunc(text, func(r rune) bool {
		return r < ' ' || r > '~' || p.Format != Printable && (r == ' ' || r == ',')
	}) < 0
}

// meant says whether sent, as a policy wants it written, means nonce.
func meant(p Policy, sent, nonce string) bool {
	if sent == "" || sent[0] != '"' || p.Format != Quoted && p.Format != QuotedOrBare {
		return p.Format != Quoted && writable(p, sent) && nonce == KeyOf(sent)
	}
	inner := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(nonce)
	return len(nonce) <= p.MaxLength && strings.HasPrefix(sent, `"`+inner+`"`)
}
