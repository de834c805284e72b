package browser

import (
	_ "embed" // the check that runs in the page
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/chromedp"
)

//go:embed accessible.js
var accessible string

// axe is a copy of axe-core's axe.min.js, if the environment names one: it is not part of the
// repository, and finds more than our own check does.
const axe = "ONCEPAY_AXE"

// mustBeAccessible checks the page as it is shown now.
func (b *tab) mustBeAccessible(what string) {
	b.t.Helper()
	for _, wrong := range eval[[]string](b, accessible) {
		b.t.Errorf("%s: %s", what, wrong)
	}
	// What a screen reader is given: everything that can be used has a name there.
	tree := call(b, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	for _, node := range tree.Nodes {
		if node.Ignored || node.Role == nil {
			continue
		}
		role := textOf(node.Role)
		if slices.Contains([]string{"button", "link", "textbox", "spinbutton", "radio", "heading", "Iframe", "RootWebArea"}, role) && textOf(node.Name) == "" {
			b.t.Errorf("%s: a %s has no name", what, role)
		}
	}
	b.mustPassAxe(what)
}

func textOf(v *accessibility.Value) string {
	if v == nil {
		return ""
	}
	var s string
	_ = json.Unmarshal(v.Value, &s) // what is no text is none
	return s
}

// mustPassAxe has axe-core look at the page, where there is one. What it calls serious or
// critical fails the test; the rest is logged.
func (b *tab) mustPassAxe(what string) {
	b.t.Helper()
	path := os.Getenv(axe)
	if path == "" {
		return
	}
	source, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	eval[bool](b, string(source)+"; true")
	for _, found := range eval[[]string](b, `axe.run({iframes: false}).then(r => r.violations.map(v => v.impact + " " + v.id + ": " + v.help + " " + v.nodes.map(n => n.target.join(" ")).join(", ")))`) {
		if strings.HasPrefix(found, "serious") || strings.HasPrefix(found, "critical") {
			b.t.Errorf("%s: axe: %s", what, found)
			continue
		}
		b.t.Logf("%s: axe: %s", what, found)
	}
}

// TestThePagesAreAccessible: in each state, wide and narrow, by day and by night.
func TestThePagesAreAccessible(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	for _, look := range []struct {
		name          string
		width, height int64
		scheme        string
	}{{"wide, light", 1280, 900, "light"}, {"narrow, dark", 390, 844, "dark"}, {"very narrow, light", 320, 640, "light"}} {
		b := newTab(t)
		b.looks(look.width, look.height, look.scheme)
		check := func(what string) { b.mustBeAccessible(look.name + ", " + what) }
		c := s.session("Two cups")
		b.goTo(c.page())
		b.reaches("form")
		check("form")
		b.do(chromedp.Click(css(payButton)))
		b.until("the form complains", `document.querySelector("[aria-invalid=true]")`)
		check("form with complaints")
		if got := eval[string](b, `document.activeElement.id`); got != "card-number" {
			t.Errorf("%s: after a complaint the focus is on %q", look.name, got)
		}
		b.do(chromedp.Reload())
		b.pay(poorCard)
		b.reaches("declined")
		check("declined")
		b.do(chromedp.Click(css("button.primary")))
		b.pay(goodCard)
		b.reaches("success")
		check("success")
		expired := s.session("Two cups")
		expired.age()
		b.goTo(expired.page())
		b.reaches("expired")
		check("expired")
		b.goTo(s.dev.Info.BaseURL + "/demo?lang=es")
		check("shop")
		b.do(chromedp.Click(css("form button[type=submit]")))
		b.until("the checkout", `document.querySelector("#payment iframe")`)
		f := b.frameAt("/pay/")
		f.reaches("form")
		check("checkout")
		f.pay(goodCard)
		b.until("the shop says that it is paid", `document.querySelector("[data-outcome=paid]")`)
		check("thanks")
	}
}

// TestTheKeyboardIsEnoughToPay: the fields come in the order in which they are read, what has
// the focus can be seen, and the news gets it.
func TestTheKeyboardIsEnoughToPay(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	c, b := s.session("Two cups"), newTab(t)
	b.goTo(c.page())
	b.reaches("form")
	var order []string
	for range 5 {
		b.do(chromedp.KeyEvent("\t"))
		order = append(order, eval[string](b, `document.activeElement.id || document.activeElement.type`))
		if !eval[bool](b, `(() => { const s = getComputedStyle(document.activeElement); return s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2 })()`) {
			t.Errorf("the focus on %q cannot be seen", order[len(order)-1])
		}
	}
	if want := []string{"card-number", "card-expiry", "card-code", "card-holder", "submit"}; !slices.Equal(order, want) {
		t.Errorf("the focus goes %q, not %q", order, want)
	}
	b.goTo(c.page())
	b.reaches("form")
	for _, keys := range []string{goodCard, "1128", "123", "John Doe"} {
		b.do(chromedp.KeyEvent("\t"), chromedp.KeyEvent(keys))
	}
	b.do(chromedp.KeyEvent("\r"))
	c.endsPaid(b)
	if got := eval[string](b, `document.activeElement.tagName`); got != "H2" {
		t.Errorf("after the payment the focus is on %q, not on the news", got)
	}
}
