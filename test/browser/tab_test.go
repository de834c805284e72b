package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/oncepay/oncepay/test/harness"
)

// stepLimit bounds one thing that a browser is asked to do. Only a failing test waits that
// long.
const stepLimit = harness.Patience

// tab is one of Chromium's.
type tab struct {
	t     *testing.T
	ctx   context.Context
	close context.CancelFunc

	mu     sync.Mutex
	broken []string // what pages did against their policy, and what they threw
}

// newTab opens a tab in a profile of its own: no storage, no cache, nothing of others.
func newTab(t *testing.T) *tab {
	t.Helper()
	return open(chromium(t), t, chromedp.WithNewBrowserContext())
}

// another opens a second tab of the same profile.
func (b *tab) another() *tab {
	b.t.Helper()
	profile := chromedp.FromContext(b.ctx).BrowserContextID
	return open(chromium(b.t), b.t, chromedp.WithExistingBrowserContext(profile))
}

func open(parent context.Context, t *testing.T, options ...chromedp.ContextOption) *tab {
	t.Helper()
	ctx, closeTab := chromedp.NewContext(parent, options...)
	t.Cleanup(closeTab)
	b := &tab{t: t, ctx: ctx, close: closeTab}
	if err := chromedp.Listen(ctx, b.hear); err != nil {
		t.Fatal(err)
	}
	b.do()
	// The policy's own event, in every document: a page may break its policy without a word
	// in the console.
	b.inEveryDocument(`addEventListener("securitypolicyviolation", e => console.error("broke its policy:", e.violatedDirective, e.blockedURI))`)
	t.Cleanup(b.mustHaveBehaved)
	return b
}

// hear keeps what a page must not do.
func (b *tab) hear(ev any) {
	var said string
	switch ev := ev.(type) {
	case *runtime.EventExceptionThrown:
		said = "threw: " + ev.ExceptionDetails.Text
		if e := ev.ExceptionDetails.Exception; e != nil {
			said += " " + e.Description
		}
	case *runtime.EventConsoleAPICalled:
		words := make([]string, 0, len(ev.Args))
		for _, a := range ev.Args {
			words = append(words, strings.Trim(string(a.Value), `"`))
		}
		if said = strings.Join(words, " "); !strings.HasPrefix(said, "broke its policy") {
			return
		}
	case *log.EventEntryAdded:
		if said = ev.Entry.Text; !strings.Contains(said, "Content Security Policy") {
			return
		}
	default:
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.broken = append(b.broken, said)
}

// forgive takes back what was to be expected, and returns it.
func (b *tab) forgive() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.broken
	b.broken = nil
	return all
}

func (b *tab) mustHaveBehaved() {
	for _, said := range b.forgive() {
		b.t.Errorf("a page %s", said)
	}
}

// do carries out steps, one after the other.
func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, stepLimit)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// call sends a command of the protocol.
func call[P, R any](b *tab, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, stepLimit)
	defer cancel()
	r, err := chromedp.Call(ctx, command, params)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b *tab) goTo(address string) {
	b.t.Helper()
	b.do(chromedp.Navigate(address))
}

// inEveryDocument runs a script in each document from now on, frames' too, before its own.
func (b *tab) inEveryDocument(script string) {
	b.t.Helper()
	call(b, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: script})
}

// eval runs a script in the page and waits for its result.
func eval[T any](b *tab, script string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, stepLimit)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", script, err)
	}
	return v
}

// until waits until a script says true. A page that is just being left says nothing.
func (b *tab) until(what, script string) {
	b.t.Helper()
	harness.Eventually(b.t, stepLimit, what, func() bool {
		ctx, cancel := context.WithTimeout(b.ctx, stepLimit)
		defer cancel()
		v, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+script+")"))
		if err != nil && b.ctx.Err() != nil {
			b.t.Fatal(err)
		}
		return err == nil && v
	})
}

// stateOf is what a pay page shows, in the document that a script names.
const stateOf = `(d => d?.getElementById("oncepay")?.dataset.state ?? "")`

// reaches waits until the pay page shows one of some states, and returns which.
func (b *tab) reaches(states ...string) string {
	b.t.Helper()
	return b.reachesIn("document", states...)
}

// inFrame is the document of the pay page in a page of its own origin.
const inFrame = `document.querySelector("iframe")?.contentDocument`

func (b *tab) reachesIn(document string, states ...string) string {
	b.t.Helper()
	got := ""
	for deadline := time.Now().Add(stepLimit); ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(b.ctx, stepLimit)
		v, err := chromedp.Run(ctx, chromedp.Evaluate[string](stateOf+"("+document+")"))
		cancel()
		if b.ctx.Err() != nil {
			b.t.Fatal(b.ctx.Err())
		}
		if err == nil {
			got = v
		}
		if err == nil && slices.Contains(states, got) {
			return got
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("the page shows %q, not %q: %s", got, states, b.text())
		}
	}
}

// text is what can be read on the page.
func (b *tab) text() string {
	b.t.Helper()
	return eval[string](b, `document.body.innerText`)
}

// must checks that the page says some words.
func (b *tab) must(words ...string) {
	b.t.Helper()
	text := b.text()
	for _, w := range words {
		if !strings.Contains(text, w) {
			b.t.Errorf("the page does not say %q:\n%s", w, text)
		}
	}
}

func css(selector string) chromedp.CSS { return chromedp.CSS(selector) }

// The inputs and the button of the pay page's form.
const (
	numberInput = "#card-number"
	expiryInput = "#card-expiry"
	codeInput   = "#card-code"
	holderInput = "#card-holder"
	payButton   = "form button[type=submit]"
)

// fill types a card into the form, key by key.
func (b *tab) fill(number string) {
	b.t.Helper()
	b.do(
		chromedp.SendKeys(css(numberInput), number),
		chromedp.SendKeys(css(expiryInput), "1128"),
		chromedp.SendKeys(css(codeInput), "123"),
		chromedp.SendKeys(css(holderInput), "John Doe"),
	)
}

// pay fills in the form and presses its button.
func (b *tab) pay(number string) {
	b.t.Helper()
	b.reaches("form")
	b.fill(number)
	b.do(chromedp.Click(css(payButton)))
}

// looks sets how the page is looked at: its width in CSS pixels, by day or by night.
func (b *tab) looks(width, height int64, scheme string) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(width, height))
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}})
}

// frame is a document in a page, of whatever origin: its DOM can be seen from outside, and
// its scripts cannot see us.
type frame struct {
	tab *tab
	id  cdp.FrameID
}

// frameAt waits for the frame whose address has some words in it.
func (b *tab) frameAt(words string) frame {
	b.t.Helper()
	found := frame{tab: b}
	harness.Eventually(b.t, stepLimit, "a frame at "+words, func() bool {
		tree := call(b, page.GetFrameTree, cdp.Empty{}).FrameTree
		for _, child := range tree.ChildFrames {
			if strings.Contains(child.Frame.URL, words) {
				found.id = child.Frame.ID
				return true
			}
		}
		return false
	})
	return found
}

// evalIn runs a script in a frame.
func evalIn[T any](f frame, script string) (v T, err error) {
	ctx, cancel := context.WithTimeout(f.tab.ctx, stepLimit)
	defer cancel()
	world, err := chromedp.Call(ctx, page.CreateIsolatedWorld, page.CreateIsolatedWorldParams{FrameID: f.id})
	if err != nil {
		return v, err
	}
	yes := true
	r, err := chromedp.Call(ctx, runtime.Evaluate, runtime.EvaluateParams{
		Expression: script, ContextID: world.ExecutionContextID, ReturnByValue: &yes, AwaitPromise: &yes,
	})
	if err != nil {
		return v, err
	}
	if r.ExceptionDetails != nil {
		return v, fmt.Errorf("%s", r.ExceptionDetails.Text)
	}
	return v, json.Unmarshal(r.Result.Value, &v)
}

// reaches waits until the pay page in the frame shows a state.
func (f frame) reaches(states ...string) string {
	f.tab.t.Helper()
	got := ""
	harness.Eventually(f.tab.t, stepLimit, fmt.Sprintf("the frame shows one of %q", states), func() bool {
		v, err := evalIn[string](f, stateOf+"(document)")
		got = v
		return err == nil && slices.Contains(states, v)
	})
	return got
}

// pay types a card into the pay page in the frame, and presses its button.
func (f frame) pay(number string) {
	f.tab.t.Helper()
	f.reaches("form")
	for _, input := range [][2]string{{numberInput, number}, {expiryInput, "1128"}, {codeInput, "123"}, {holderInput, "John Doe"}} {
		if _, err := evalIn[bool](f, fmt.Sprintf(`(document.querySelector(%q).focus(), true)`, input[0])); err != nil {
			f.tab.t.Fatal(err)
		}
		f.tab.do(chromedp.KeyEvent(input[1]))
	}
	if _, err := evalIn[bool](f, fmt.Sprintf(`(document.querySelector(%q).click(), true)`, payButton)); err != nil {
		f.tab.t.Fatal(err)
	}
}
