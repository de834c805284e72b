package console

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/operators"
	"github.com/oncepay/oncepay/internal/telemetry"
	"github.com/oncepay/oncepay/internal/transactions"
)

// tileOf is what a tile of a page says.
func tileOf(t *testing.T, body, name string) string {
	t.Helper()
	found := regexp.MustCompile(`(?s)<dt>(?:<a [^>]*>)?` + name + `(?:</a>)?</dt>\s*<dd class="value">([^<]*)</dd>\s*<dd class="hint">([^<]*)</dd>`).FindStringSubmatch(body)
	if found == nil {
		t.Errorf("there is no tile %s", name)
		return ""
	}
	return found[1] + " · " + found[2]
}

func TestTheOverviewSaysWhatHappenedAndWhatWaits(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	who := w.as(operators.Viewer)
	nonce := uuid.NewString()
	for range 3 {
		if a := w.pay(nonce, nil); a.status != http.StatusCreated {
			t.Fatal(a)
		}
	}
	if _, err := w.minutes.RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := who.get("/")
	if a.status != http.StatusOK {
		t.Fatal(a)
	}
	for name, want := range map[string]string{
		"Requests": "3 · none answered with 5xx", "Begun": "1 · with a new nonce, or taken over", "Replayed": "66.7 % · 2 of 3 with a nonce",
		"Conflicts": "0 · nonce in process, or another body", "Unresolved": "0 · nothing is unknown", "Parked": "0 · nobody has to decide",
	} {
		if got := tileOf(t, a.body, name); got != want {
			t.Errorf("%s: %s, not %s", name, got, want)
		}
	}
	if got := tileOf(t, a.body, "p95"); !strings.Contains(got, " ms · half within ") && !strings.Contains(got, " s · half within ") {
		t.Errorf("p95: %s", got)
	}
	for _, part := range []string{">45.67", "First merchant", "Nothing waits", `href="/payments/`, `action="/search"`, `hx-get="/front?range=1h"`, `hx-trigger="every 10s"`} {
		if !strings.Contains(a.body, part) {
			t.Errorf("the overview has no %s", part)
		}
	}
}

func TestTheOverviewNamesWhatNobodyKnows(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	who := w.as(operators.Viewer)
	w.pay(uuid.NewString(), map[string]any{"description": "sandbox:500"})
	a := who.get("/")
	if got := tileOf(t, a.body, "Unresolved"); !strings.HasPrefix(got, "1 · the oldest for ") {
		t.Errorf("unresolved: %s", got)
	}
	if strings.Contains(a.body, "Nothing waits") || !strings.Contains(a.body, "PURCHASE of 45.67") {
		t.Errorf("what waits is not named: %s", a.body)
	}
}

func TestTheOverviewGoesBackAsFarAsIsAsked(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	who := w.as(operators.Viewer)
	if err := w.db.Conn(t.Context()).Exec(`INSERT INTO request_minutes
		SELECT date_trunc('minute', clock_timestamp()) - h * interval '1 hour', gen_random_uuid(), $1::bigint, 0, 600, 0, 0, array_fill(50::bigint, ARRAY[14])
		FROM generate_series(2, 160) h`, 700).Error; err != nil {
		t.Fatal(err)
	}
	for key, c := range map[string]struct {
		title string
		empty bool
	}{"": {"The last hour", true}, "1h": {"The last hour", true}, "24h": {"The last 24 hours", false}, "7d": {"The last seven days", false}, "made up": {"The last hour", true}} {
		a := who.get("/?" + url.Values{"range": {key}}.Encode())
		if a.status != http.StatusOK || !strings.Contains(a.body, `<h2 id="charts">`+c.title+`</h2>`) {
			t.Errorf("%q: %s", key, a)
		}
		if got := strings.Contains(a.body, "Nobody has asked anything in this time."); got != c.empty {
			t.Errorf("%q: empty %v", key, got)
		}
		if got := tileOf(t, a.body, "Requests"); got != "0 · none answered with 5xx" {
			t.Errorf("%q: in the last hour there are %s", key, got)
		}
	}
}

func TestThePartThatRefreshesIsThatOfTheOverview(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	who := w.as(operators.Viewer)
	part := who.get("/front?range=24h", "HX-Request", "true")
	if part.status != http.StatusOK || strings.Contains(part.body, "<html") || !strings.Contains(part.body, "The last 24 hours") {
		t.Error(part)
	}
	if a := who.get("/front?range=24h"); a.status != http.StatusSeeOther || a.header.Get("Location") != "/?range=24h" {
		t.Errorf("by hand it leads to %q: %s", a.header.Get("Location"), a)
	}
	if a := w.nobody().get("/front", "HX-Request", "true"); a.status == http.StatusOK || strings.Contains(a.body, "tiles") {
		t.Errorf("nobody is shown %s", a)
	}
}

// A merchant chooses its name and its orders; neither may become part of the page.
func TestTheOverviewShowsWhatMerchantsWriteAsText(t *testing.T) {
	t.Parallel()
	w := newConsole(t)
	who := w.as(operators.Viewer)
	hostile := `"><script>alert(1)</script><img src=x onerror=alert(2)>'{{7}}`
	if a := w.pay(uuid.NewString(), map[string]any{"merchant_order_id": hostile}); a.status != http.StatusCreated {
		t.Fatal(a)
	}
	a := who.get("/")
	if strings.Contains(a.body, "<script>alert") || strings.Contains(a.body, "<img src=x") || !strings.Contains(a.body, "&lt;script&gt;alert(1)") {
		t.Error("an order became markup")
	}
	if attribute := regexp.MustCompile(`(?i)<[a-z][^>]*\s(style|on[a-z]+)=`).FindString(a.body); attribute != "" {
		t.Errorf("the policy forbids %s", attribute)
	}
}

func TestTilesSayWhatIsToBeDone(t *testing.T) {
	t.Parallel()
	all := map[string]tile{}
	for _, x := range tilesOf(telemetry.Counts{Requests: 12345, Failures: 1}, transactions.Backlog{Unresolved: 1200, OldestSeconds: int64(3 * time.Hour / time.Second), Parked: 1}) {
		all[x.Name] = x
	}
	for name, want := range map[string]tile{
		"Requests":   {"Requests", "12,345", "1 answered with 5xx", "", false},
		"p95":        {"p95", "–", "nobody has waited", "", false},
		"Replayed":   {"Replayed", "–", "0 of 0 with a nonce", "", false},
		"Unresolved": {"Unresolved", "1,200", "the oldest for 3 h", "/unsettled", false},
		"Parked":     {"Parked", "1", "waits for a person", "/unsettled?parked=true", true},
	} {
		if all[name] != want {
			t.Errorf("%+v, not %+v", all[name], want)
		}
	}
}
