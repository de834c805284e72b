package console

import (
	"net/http"
	"strings"
	"testing"

	"github.com/oncepay/oncepay/internal/operators"
)

// What browsers leave out or take for a slash before they look where a link leads must not be
// in one that we send somebody to.
func TestAfterTheSignInNobodyIsLedElsewhere(t *testing.T) {
	t.Parallel()
	for _, next := range []string{"/", "/payments?status=DECLINED", "/nonces/a%2Fb%20c", "/nonces?nonce=..", "/payments#x", "/~"} {
		if got := localPath(next); got != next {
			t.Errorf("%q leads to %q", next, got)
		}
	}
	odd := []string{"", "payments", "//evil.example", `/\evil.example`, "https://evil.example", "/a/\xff", "/é", "/\u2028/evil.example", "/\u00a0"}
	for c := range byte(0x21) {
		odd = append(odd, "/"+string(rune(c))+"/evil.example")
	}
	for _, next := range append(odd, "/\x7f/evil.example", "/\u0085/evil.example") {
		if got := localPath(next); got != "/" {
			t.Errorf("%q leads to %q", next, got)
		}
	}
}

// Every page that names a nonce leads to it, those two included that a browser takes for
// directories.
func TestEveryLinkToANonceLeadsToIt(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	b := w.as(operators.Operator)
	for _, nonce := range []string{".", ".."} {
		p := w.made(nonce, map[string]any{"merchant_order_id": "order" + nonce, "description": "sandbox:500"})
		href := `href="/nonces?nonce=` + nonce + `"`
		for _, path := range []string{"/payments", p.path(), "/unsettled"} {
			if a := b.get(path); !strings.Contains(a.body, href) || strings.Contains(a.body, `href="/nonces/`+nonce+`"`) {
				t.Errorf("%s leads elsewhere than to %q", path, nonce)
			}
		}
		if a := b.get("/search?q=" + nonce); a.status != http.StatusSeeOther || a.header.Get("Location") != "/nonces?nonce="+nonce {
			t.Errorf("a search for %q leads to %q", nonce, a.header.Get("Location"))
		}
	}
}
