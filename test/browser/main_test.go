// Package browser pays in a real Chromium, on the built binary: what a shopper does to a
// checkout (clicks twice, reloads, loses the network, opens a second tab) and what somebody
// else tries to do to it.
//
// Two things are asked after each story. What the page says in the end, because that is what
// the shopper believes; and what the provider's own ledger has booked, because that is what
// happened. They must agree, and the ledger must have one charge.
//
// Each test has an installation of its own (a process, a database, a ledger) and a profile
// of its own in one Chromium. Nothing waits for time to pass: each wait is for something
// that the page shows or the provider has booked.
package browser

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/test/harness"
)

// requireChromium is set where a missing Chromium is a failure: in CI, which installs it.
const requireChromium = "ONCEPAY_REQUIRE_CHROMIUM"

// programs are the names that Chromium has on one system or another.
var programs = []string{"chromium", "chromium-browser", "google-chrome"}

var errNoChromium = errors.New("no Chromium is installed, so nothing of what happens in a browser is tested (apt-get install chromium)")

func TestMain(m *testing.M) {
	if _, err := chromiumPath(); err != nil && os.Getenv(requireChromium) != "" {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(harness.Run(m, func(m *testing.M) int {
		code := pgtest.Run(m)
		closeChromium()
		return code
	}))
}

func chromiumPath() (string, error) {
	for _, name := range programs {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errNoChromium
}

// theBrowser is the one Chromium of the run.
var theBrowser struct {
	once   sync.Once
	ctx    context.Context
	cancel context.CancelFunc
	err    error
}

// chromium starts Chromium, once, and ends the test as skipped where there is none.
func chromium(t *testing.T) context.Context {
	t.Helper()
	path, err := chromiumPath()
	if err != nil {
		t.Skip(err)
	}
	b := &theBrowser
	b.once.Do(func() {
		options := append(chromedp.DefaultExecAllocatorOptions[:],
			chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.Flag("disable-gpu", true), chromedp.Flag("lang", "en-US"))
		allocator, stopAllocator := chromedp.NewExecAllocator(context.Background(), options...)
		ctx, stop := chromedp.NewContext(allocator)
		b.ctx, b.cancel = ctx, func() { stop(); stopAllocator() }
		// The kernel ends Chromium with the thread that forked it, which is why that thread
		// has to live as long as this process.
		started := make(chan error)
		go func() {
			runtime.LockOSThread()
			started <- chromedp.Do(ctx)
			select {}
		}()
		b.err = <-started
	})
	if b.err != nil {
		t.Fatalf("Chromium does not start: %v", b.err)
	}
	return b.ctx
}

func closeChromium() {
	if b := &theBrowser; b.ctx != nil {
		_ = chromedp.Cancel(b.ctx) // it may have ended by itself
		b.cancel()
	}
}
