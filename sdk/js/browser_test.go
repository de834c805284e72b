package js_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// chromium is the one browser of all tests here; each test has a profile of its own in it.
var chromium = sync.OnceValues(func() (context.Context, error) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		return nil, err
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.Flag("disable-gpu", true), chromedp.Flag("lang", "en-US"))
	allocator, _ := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, _ := chromedp.NewContext(allocator)
	return ctx, chromedp.Do(ctx)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if _, err := exec.LookPath("chromium"); err == nil {
		if ctx, err := chromium(); err == nil {
			_ = chromedp.Cancel(ctx)
		}
	}
	os.Exit(code)
}

// tab is one of a browser's.
type tab struct {
	context.Context
	t     *testing.T
	close func()
}

// newTab opens a tab in a profile of its own.
func newTab(t *testing.T) *tab {
	t.Helper()
	if _, err := exec.LookPath("chromium"); err != nil {
		t.Skip("chromium is not installed: what happens in a browser is not tested")
	}
	ctx, err := chromium()
	if err != nil {
		t.Fatal(err)
	}
	return open(ctx, t, chromedp.WithNewBrowserContext())
}

// another opens a second tab of the same profile.
func (b *tab) another() *tab {
	b.t.Helper()
	return open(b.Context, b.t)
}

func open(parent context.Context, t *testing.T, options ...chromedp.ContextOption) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(parent, options...)
	t.Cleanup(cancel)
	return watched(ctx, t, cancel)
}

// watched attaches to a tab or a frame, and looks at what goes wrong there.
func watched(ctx context.Context, t *testing.T, cancel func()) *tab {
	t.Helper()
	b := &tab{ctx, t, cancel}
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	// A page that breaks its own policy, or throws, is wrong whatever it shows.
	if err := chromedp.Listen(ctx, func(ev any) {
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			t.Errorf("the page threw: %s", ev.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			if strings.Contains(ev.Entry.Text, "Content Security Policy") && !strings.Contains(ev.Entry.Text, "frame-ancestors") {
				t.Errorf("the page broke its policy: %s", ev.Entry.Text)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *tab) run(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.Context, 30*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

func (b *tab) goTo(url string) {
	b.t.Helper()
	b.run(chromedp.Navigate(url))
}

// eval runs a script in the page.
func eval[T any](b *tab, script string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.Context, 30*time.Second)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", script, err)
	}
	return v
}

// state is what the page shows. doc is a script for the page's document.
func (b *tab) stateIn(doc string) string {
	return eval[string](b, fmt.Sprintf(`(() => { try { return %s.getElementById("oncepay")?.dataset.state ?? "" } catch { return "" } })()`, doc))
}

// reaches waits until the page shows one of some states, and returns which.
func (b *tab) reaches(states ...string) string {
	b.t.Helper()
	got := ""
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		got = b.stateIn("document")
		for _, s := range states {
			if got == s {
				return got
			}
		}
		select {
		case <-b.Done():
			b.t.Fatal(b.Err())
		case <-time.After(15 * time.Millisecond):
		}
	}
	b.t.Fatalf("the page shows %q, not %q: %s", got, states, b.text())
	return ""
}

func (b *tab) text() string { return eval[string](b, `document.body.innerText`) }

func css(selector string) chromedp.CSS { return chromedp.CSS(selector) }

const (
	goodCard      = "4507990000000002"
	poorCard      = "4507990000000010"
	challengeCard = "4000000000003220"
	slowCard      = "4507990000000101"
)

// fill types a card into the form, as a person does.
func (b *tab) fill(number string) {
	b.t.Helper()
	b.run(
		chromedp.SendKeys(css("#card-number"), number),
		chromedp.SendKeys(css("#card-expiry"), "1128"),
		chromedp.SendKeys(css("#card-code"), "123"),
		chromedp.SendKeys(css("#card-holder"), "John Doe"),
	)
}

func (b *tab) submit() {
	b.t.Helper()
	b.run(chromedp.Click(css("form button.primary")))
}

// look sets how the page is looked at.
func (b *tab) look(width, height int64, scheme string) {
	b.t.Helper()
	b.run(chromedp.EmulateViewport(width, height))
	_, err := chromedp.Call(b.Context, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}},
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// shoot keeps a picture of the page in the folder that SCREENSHOTS names, if it does.
func (b *tab) shoot(name string) {
	b.t.Helper()
	folder := os.Getenv("SCREENSHOTS")
	if folder == "" {
		return
	}
	picture, err := chromedp.Run(b.Context, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, name+".png"), picture, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// before runs a script in every document, before the page's own.
func (b *tab) before(script string) {
	b.t.Helper()
	if _, err := chromedp.Call(b.Context, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: script}); err != nil {
		b.t.Fatal(err)
	}
}
