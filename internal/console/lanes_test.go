package console

import (
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/transactions"
)

// told builds the timeline of a story.
type told struct {
	life transactions.Life
	at   time.Time
}

// storyBegins is the time of the stories' first request, which is also in their ids.
var storyBegins = time.Date(2026, 11, 22, 2, 6, 31, 284_000_000, time.UTC)

func tale(status transactions.Status, state transactions.KeyState, answer int) *told {
	// A UUIDv7 begins with its time in milliseconds.
	id := fmt.Sprintf("%012x", storyBegins.UnixMilli())
	id = id[:8] + "-" + id[8:] + "-7dc2-9e7e-8dd3d788f431"
	t := &told{at: storyBegins.Add(158 * time.Microsecond)}
	t.life = transactions.Life{
		AccountID: "01a20101-28f4-7b37-85b4-b9a7b7aea93a", Mode: "test", Policy: "yuno", KeyState: state,
		PaymentID:   uuid.MustParse(id).String(),
		Transaction: transactions.LifeTransaction{ID: id, Type: transactions.Purchase, Status: status, Fence: 1, Attempts: 1},
		Verdict:     "Charged once: 45.67 USD on 2026-11-22 02:06:33 UTC.",
	}
	if answer != 0 {
		t.life.AnswerStatus = &answer
	}
	if status == transactions.Succeeded {
		t.life.Charges = 1
	}
	return t
}

func (t *told) verdict(s string) *told { t.life.Verdict = s; return t }

func (t *told) put(later time.Duration, m transactions.Moment) *told {
	t.at = t.at.Add(later)
	m.At = t.at.Format("2006-01-02T15:04:05.000000Z")
	t.life.Timeline = append(t.life.Timeline, m)
	return t
}

func (t *told) request(later time.Duration, verdict string, differs ...string) *told {
	different := len(differs) > 0
	return t.put(later, transactions.Moment{Kind: "request", Verdict: verdict, RequestID: "01a20101-4973-7961-9c74-39d42fb1928f", BodyDiffers: &different, Differs: differs})
}

func (t *told) call(later time.Duration, kind, outcome string, ms int64, reason string) *told {
	m := transactions.Moment{Kind: kind, Provider: "ONCEPAY_SANDBOX", Outcome: outcome, DurationMS: &ms, Reason: reason}
	if outcome == "approved" {
		m.Reference = "sbx_TP2DEH7PFCIPVKB32KKSWI3XBI"
	}
	return t.put(later, m)
}

func (t *told) taken(later time.Duration, by string) *told {
	t.life.Transaction.Fence++
	t.life.Transaction.Attempts++
	return t.put(later, transactions.Moment{Kind: "takeover", By: by})
}

func (t *told) event(later time.Duration, outcome, by string) *told {
	return t.put(later, transactions.Moment{Kind: "event", Outcome: outcome, By: by})
}

// tales are the stories that a nonce can have.
func tales() map[string]transactions.Life {
	const ms, s = time.Millisecond, time.Second
	all := map[string]*told{
		"fresh": tale(transactions.Succeeded, transactions.KeyAnswered, 201).
			request(0, "new").call(ms, "send", "approved", 2, "").event(3*ms, "SUCCEEDED/APPROVED", "provider").
			request(4200*ms, "replayed").request(1300*ms, "replayed").request(75*time.Hour, "replayed", "amount", "metadata"),
		"refund declined": tale(transactions.Declined, transactions.KeyAnswered, 200).verdict("Not refunded: 20.00 USD was declined (DO_NOT_HONOR) on 2026-11-22 02:06:31 UTC.").
			request(0, "new").call(ms, "send", "declined", 44, "").event(45*ms, "SUCCEEDED/APPROVED", "provider"),
		"refund decided late": tale(transactions.Succeeded, transactions.KeyAnswered, 200).
			request(0, "new").call(ms, "send", "pending", 44, "").event(45*ms, "REFUNDED/PENDING_PROVIDER_CONFIRMATION", "provider").
			taken(30*s, "recovery").call(ms, "inquire", "approved", 9, "").event(10*ms, "REFUNDED/REFUNDED", "provider"),
		"authorized": tale(transactions.Succeeded, transactions.KeyAnswered, 201).
			request(0, "new").call(ms, "send", "approved", 51, "").event(52*ms, "PENDING/AUTHORIZED", "provider"),
		"authorization over": tale(transactions.Expired, transactions.KeyAnswered, 201).
			request(0, "new").call(ms, "send", "approved", 51, "").event(52*ms, "PENDING/AUTHORIZED", "provider").event(50*time.Hour, "EXPIRED/EXPIRED", "expired"),
		"declined": tale(transactions.Declined, transactions.KeyAnswered, 201).verdict("Not charged: 45.67 USD was declined (INSUFFICIENT_FUNDS) on 2026-11-22 02:06:31 UTC.").
			request(0, "new").call(ms, "send", "declined", 212, "").event(213*ms, "DECLINED/DECLINED", "provider"),
		"mismatch": tale(transactions.Succeeded, transactions.KeyAnswered, 201).
			request(0, "new").call(ms, "send", "approved", 88, "").event(89*ms, "SUCCEEDED/APPROVED", "provider").
			request(9*s, "mismatch").request(2*s, "rejected"),
		"crash and recovery": tale(transactions.Succeeded, transactions.KeyAnswered, 201).
			request(0, "new").request(700*ms, "in_process").taken(1900*ms, "recovery").call(2*ms, "inquire", "approved", 14, "").
			event(15*ms, "SUCCEEDED/APPROVED", "provider").request(1400*ms, "replayed"),
		"crash that took the arrival": tale(transactions.Succeeded, transactions.KeyAnswered, 201).
			taken(2600*ms, "recovery").call(2*ms, "inquire", "approved", 14, "").event(15*ms, "SUCCEEDED/APPROVED", "provider"),
		"crash and the client": tale(transactions.Succeeded, transactions.KeyAnswered, 201).
			request(0, "new").request(2300*ms, "resumed").taken(ms, "request").call(2*ms, "inquire", "not_found", 5, "nothing is booked; the reference is unknown").
			call(6*ms, "send", "approved", 120, "").event(121*ms, "SUCCEEDED/APPROVED", "provider").request(3*s, "replayed"),
		"lost answer": tale(transactions.Succeeded, transactions.KeyAnswered, 201).
			request(0, "new").call(ms, "send", "unclear", 496, "the connection broke before the answer was complete").
			taken(2700*ms, "recovery").call(2*ms, "inquire", "approved", 1, "").event(2*ms, "SUCCEEDED/APPROVED", "provider").request(60*s, "replayed"),
		"never reached": tale(transactions.Errored, transactions.KeyReleased, 0).verdict("Not charged: the attempt over 45.67 USD had no effect, and the key was given back on 2026-11-22 02:06:31 UTC.").
			request(0, "new").call(ms, "send", "not_reached", 0, "no connection to the provider").event(ms, "ERROR/ERROR", "not_reached"),
		"asynchronous": tale(transactions.Succeeded, transactions.KeyAnswered, 201).
			put(0, transactions.Moment{Kind: "checkout", Reference: "01a20101-28f4-7b37-85b4-b9a7b7aea93a"}).
			request(0, "new").call(ms, "send", "pending", 31, "").event(32*ms, "PENDING/WAITING_ADDITIONAL_STEP", "provider").
			put(42*s, transactions.Moment{Kind: "callback", Provider: "ONCEPAY_SANDBOX", Outcome: "approved", Reason: "kept"}).
			taken(2*ms, "callback").call(ms, "inquire", "approved", 9, "").event(10*ms, "SUCCEEDED/APPROVED", "provider").
			put(3*s, transactions.Moment{Kind: "callback", Provider: "ONCEPAY_SANDBOX", Outcome: "approved", Reason: "known"}),
		"frozen holder": tale(transactions.Succeeded, transactions.KeyAnswered, 201).
			request(0, "new").call(ms, "send", "approved", 5200, "").taken(2100*ms, "recovery").call(2*ms, "inquire", "unclear", 400, "no answer in time").
			put(3100*ms, transactions.Moment{Kind: "observation", Outcome: "approved", Reference: "sbx_TP2DEH7PFCIPVKB32KKSWI3XBI"}).
			taken(1100*ms, "recovery").event(3*ms, "SUCCEEDED/APPROVED", "provider").call(time.Hour, "reverse", "approved", 12, ""),
		"at work": tale(transactions.Created, transactions.KeyOpen, 0).verdict("In process: 45.67 USD, charged at most once.").
			request(0, "new").request(800*ms, "in_process"),
		"accepted": tale(transactions.Pending, transactions.KeyUnresolved, 201).verdict("Not decided: the payer has not confirmed 45.67 USD yet; it will be charged at most once.").
			request(0, "new").call(ms, "send", "pending", 31, "").event(32*ms, "PENDING/WAITING_ADDITIONAL_STEP", "provider"),
		"unknown kinds": tale(transactions.Created, transactions.KeyState("odd"), 0).
			put(0, transactions.Moment{Kind: "something_new"}).request(0, "odd"),
		"nothing": tale(transactions.Created, transactions.KeyExpired, 0),
	}
	storm := tale(transactions.Succeeded, transactions.KeyAnswered, 201).request(0, "new")
	for range 199 {
		storm.request(3*ms, "in_process")
	}
	storm.call(0, "send", "approved", 900, "").event(40*ms, "SUCCEEDED/APPROVED", "provider")
	storm.life.Truncated = true
	all["storm"] = storm

	parked := tale(transactions.Created, transactions.KeyParked, 0).verdict("Not known: nobody could tell whether 45.67 USD was charged, at most once. A person must look.").
		request(0, "new").call(ms, "send", "unclear", 496, "the connection broke before the answer was complete")
	for range 20 {
		parked.taken(4*s, "recovery").call(2*ms, "inquire", "unclear", 0, "no connection to the provider: connection refused")
	}
	parked.put(4*s, transactions.Moment{Kind: "parked", By: "recovery"}).request(2*s, "in_process")
	resolved := *parked
	resolved.life.Timeline = slices.Clone(parked.life.Timeline)
	resolved.life.KeyState, resolved.life.Transaction.Status, resolved.life.Charges = transactions.KeyAnswered, transactions.Succeeded, 1
	all["resolved"] = resolved.taken(20*time.Minute, "person").event(ms, "SUCCEEDED/APPROVED", "resolved").
		put(37*ms, transactions.Moment{Kind: "resolution", Outcome: "succeeded", Reference: "ch_5501", By: "person", Reason: "Booked, seen in the provider's dashboard. Ticket 4711.", RequestID: "01a2010a-ea05-7529-b6ad-53956c78e34f"}).
		verdict("Charged once: 45.67 USD on 2026-11-22 02:17:02 UTC.")
	all["parked"] = parked

	lives := map[string]transactions.Life{}
	for name, t := range all {
		lives[name] = t.life
	}
	return lives
}

var storyNow = storyBegins.Add(80 * time.Hour)

// places collects the anchors of all items, and for each moment the one that tells it.
func itemAnchors(items []item) []string {
	var anchors []string
	for _, it := range items {
		anchors = append(anchors, it.Anchor)
		anchors = append(anchors, itemAnchors(it.Folded)...)
	}
	return anchors
}

func leaves(items []item) int {
	n := 0
	for _, it := range items {
		if it.Folded != nil {
			n += leaves(it.Folded)
		} else {
			n++
		}
	}
	return n
}

func TestEveryMomentHasAMarkAndAnItem(t *testing.T) {
	t.Parallel()
	for name, life := range tales() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := layOut(life, "m-1-", storyNow)
			anchors := itemAnchors(p.Items)
			if sorted := slices.Clone(anchors); len(slices.Compact(slices.Sorted(slices.Values(sorted)))) != len(anchors) {
				t.Error("two items have one name")
			}
			claims := 0
			if slices.Contains(anchors, "m-1-claim") {
				claims = 1
			}
			if got := leaves(p.Items) - claims; got != len(life.Timeline) {
				t.Errorf("the list tells %d moments of %d", got, len(life.Timeline))
			}
			for _, d := range []drawing{p.Wide, p.Narrow} {
				linked := map[string]bool{}
				for _, r := range d.Rows {
					if r.Href == "" {
						continue
					}
					linked[r.Href] = true
					if !slices.Contains(anchors, strings.TrimPrefix(r.Href, "#")) {
						t.Errorf("%s: a row leads to %s, which is not there", d.Name, r.Href)
					}
					if len(r.Arrows)+len(r.Marks) == 0 {
						t.Errorf("%s: nothing is drawn for %q", d.Name, r.Label)
					}
				}
				for _, it := range p.Items {
					if !linked["#"+it.Anchor] {
						t.Errorf("%s: no mark leads to %q", d.Name, it.Text)
					}
				}
			}
		})
	}
}

func TestDrawingsStayInsideAndNothingOverlaps(t *testing.T) {
	t.Parallel()
	for name, life := range tales() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := layOut(life, "m-1-", storyNow)
			checkDrawing(t, p.Wide, wide)
			checkDrawing(t, p.Narrow, narrow)
		})
	}
}

// box is where a text is, by the width that the layout counts with.
type box struct{ left, right, top, bottom int }

func (b box) meets(o box) bool {
	return b.left < o.right && o.left < b.right && b.top < o.bottom && o.top < b.bottom
}

func boxOf(l label, sh shape) box {
	width := utf8.RuneCountInString(l.Text) * sh.glyph / 10
	b := box{left: l.X, top: l.Y - 9, bottom: l.Y + 2}
	switch l.Anchor {
	case "middle":
		b.left -= width / 2
	case "end":
		b.left -= width
	}
	b.right = b.left + width
	return b
}

func checkDrawing(t *testing.T, d drawing, sh shape) {
	t.Helper()
	bottom := 0
	for _, r := range d.Rows {
		if r.Top < bottom {
			t.Errorf("%s: row %q begins at %d, before the one above it ends at %d", d.Name, r.Label, r.Top, bottom)
		}
		bottom = r.Top + r.Height
		var boxes []box
		for _, l := range r.Texts {
			b := boxOf(l, sh)
			if b.left < 0 || b.right > d.Width || b.top < r.Top || b.bottom > bottom {
				t.Errorf("%s: %q is at %+v, outside its row of %d to %d", d.Name, l.Text, b, r.Top, bottom)
			}
			for i, other := range boxes {
				if b.meets(other) {
					t.Errorf("%s: %q covers %q", d.Name, l.Text, r.Texts[i].Text)
				}
			}
			boxes = append(boxes, b)
		}
		for i, a := range r.Arrows {
			if min(a.X1, a.X2) < 0 || max(a.X1, a.X2) > d.Width || a.Y < r.Top || a.Y > bottom {
				t.Errorf("%s: an arrow of %q leaves its row", d.Name, r.Label)
			}
			for _, other := range r.Arrows[:i] {
				if a.Y == other.Y && min(a.X1, a.X2) < max(other.X1, other.X2) && min(other.X1, other.X2) < max(a.X1, a.X2) {
					t.Errorf("%s: two arrows of %q lie on each other", d.Name, r.Label)
				}
			}
		}
	}
	if bottom > d.Height {
		t.Errorf("%s: the rows end at %d, the picture at %d", d.Name, bottom, d.Height)
	}
	for _, b := range d.Bars {
		if b.Height <= 0 || b.Y < 0 || b.Y+b.Height > d.Height || b.X < 0 || b.X+b.Width > d.Width {
			t.Errorf("%s: a lease is outside: %+v", d.Name, b)
		}
	}
	for i, b := range d.Bars[:max(len(d.Bars)-1, 0)] {
		if next := d.Bars[i+1]; b.Y+b.Height > next.Y {
			t.Errorf("%s: two hold it at once: %+v, %+v", d.Name, b, next)
		}
	}
	for _, g := range d.Gaps {
		if g.Y < 0 || g.Y > d.Height {
			t.Errorf("%s: a gap is outside", d.Name)
		}
	}
}

// ends are how the holds of a story ended, in their order.
func ends(life transactions.Life) []ending {
	var all []ending
	for _, h := range tell(life, "m-", storyNow).holds {
		all = append(all, h.end)
	}
	return all
}

func TestLeasesEndAsTheirHoldersDid(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]ending{
		"fresh":                       {finished},
		"declined":                    {finished},
		"crash and recovery":          {gone, finished},
		"crash that took the arrival": {gone, finished},
		"crash and the client":        {gone, finished},
		"lost answer":                 {left, finished},
		"never reached":               {finished},
		"asynchronous":                {finished, finished},
		"frozen holder":               {gone, left, finished},
		"at work":                     {held},
		"accepted":                    {finished},
		"storm":                       {finished},
		"parked":                      {left, left},
		"resolved":                    {left, left, finished},
	} {
		if got := ends(tales()[name]); !slices.Equal(got, want) {
			t.Errorf("%s: the holds ended %v, not %v", name, got, want)
		}
	}
}

// A payment stays paid when a refund is declined, and waits when it was authorized: the
// colour is that of what the nonce was about, and never the payment's.
func TestTheEventThatSettlesALifeHasItsColour(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]tone{
		"fresh": {good}, "declined": {bad}, "refund declined": {bad}, "refund decided late": {waiting, good}, "authorized": {good},
		"authorization over": {waiting, bad}, "asynchronous": {waiting, good}, "accepted": {waiting}, "never reached": {bad}, "at work": nil,
	} {
		life := tales()[name]
		var got []tone
		for _, sc := range tell(life, "m-", storyNow).scenes {
			if !strings.Contains(sc.text, "The payment is now ") {
				continue
			}
			if settled := sc.tone != waiting; settled != strings.HasPrefix(sc.text, "Settled as "+string(life.Transaction.Status)) {
				t.Errorf("%s: %q is %s", name, sc.text, sc.tone)
			}
			got = append(got, sc.tone)
			for _, st := range sc.strokes {
				if st.tone != sc.tone {
					t.Errorf("%s: %q is %s, and its stroke %q %s", name, sc.text, sc.tone, st.label, st.tone)
				}
			}
			if sp := sc.spots[0]; sp.tone != sc.tone || sc.tone != waiting && sp.label != string(life.Transaction.Status) {
				t.Errorf("%s: %q is %s, and its mark %q %s", name, sc.text, sc.tone, sp.label, sp.tone)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: the events are %v, not %v", name, got, want)
		}
	}
}

func TestABreakIsShownOnlyWhereNothingWasHeard(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int{"fresh": 0, "crash and recovery": 1, "crash and the client": 1, "lost answer": 0, "frozen holder": 1, "parked": 0} {
		got := 0
		for _, r := range layOut(tales()[name], "m-", storyNow).Wide.Rows {
			for _, m := range r.Marks {
				if m.Shape == "break" {
					got++
				}
			}
		}
		if got != want {
			t.Errorf("%s: %d breaks, not %d", name, got, want)
		}
	}
}

// After 90 days the exchanges are gone from the timeline, and their absence says nothing.
func TestAnOldLifeDoesNotLookLikeACrash(t *testing.T) {
	t.Parallel()
	life := tales()["crash that took the arrival"]
	for _, sc := range tell(life, "m-", storyBegins.Add(exchangesKept+time.Hour)).scenes {
		for _, sp := range sc.spots {
			if sp.shape == "break" {
				t.Error("a crash is shown of which nothing is known")
			}
		}
	}
}

func TestAStormIsToldInFewRows(t *testing.T) {
	t.Parallel()
	p := layOut(tales()["storm"], "m-", storyNow)
	if n := len(p.Wide.Rows); n > 6 {
		t.Errorf("%d rows", n)
	}
	if got := p.Items[2]; len(got.Folded) != 198 || !strings.HasPrefix(got.Text, "198 times more within 591 ms") {
		t.Errorf("%d are folded: %q", len(got.Folded), got.Text)
	}
	parked := layOut(tales()["parked"], "m-", storyNow)
	if n := len(parked.Wide.Rows); n > 9 {
		t.Errorf("%d rows for what recovery tried", n)
	}
}

func TestGapsAreSaid(t *testing.T) {
	t.Parallel()
	var got []string
	for _, g := range layOut(tales()["fresh"], "m-", storyNow).Wide.Gaps {
		got = append(got, g.Text)
	}
	if want := []string{"4.2 s later", "1.3 s later", "3 days later"}; !slices.Equal(got, want) {
		t.Errorf("the gaps are %q, not %q", got, want)
	}
}

func TestDurationsAreSaidAsPeopleDo(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		3 * time.Millisecond: "3 ms", 999 * time.Millisecond: "999 ms", 4230 * time.Millisecond: "4.2 s", 59_990 * time.Millisecond: "59.9 s",
		61 * time.Second: "1 min 1 s", 3 * time.Hour: "3 h 0 min", 49 * time.Hour: "2 days",
	} {
		if got := duration(d); got != want {
			t.Errorf("%s is said %q, not %q", d, got, want)
		}
	}
}

func TestVerdictsHaveAColourAndAWord(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]tone{
		"fresh": good, "declined": bad, "parked": bad, "at work": waiting, "accepted": waiting, "never reached": bad, "resolved": good,
	} {
		if got, word := judge(tales()[name]); got != want || word == "" {
			t.Errorf("%s is %s, %q", name, got, word)
		}
	}
	told := tales()["fresh"]
	*told.AnswerStatus = 502
	if got, _ := judge(told); got != waiting {
		t.Errorf("charged, and answered 502, is %s", got)
	}
}

// nonceOf renders the page of lives as the console does.
func nonceOf(t *testing.T, part string, v nonceView) string {
	t.Helper()
	body, err := render("nonce", part, page{Title: "Nonce", Data: v, Version: "1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func view(nonce string, lives ...transactions.Life) nonceView {
	name := func(transactions.Life) string { return "Corner shop" }
	send := func(transactions.Life) string { return "curl -sS -i 'http://127.0.0.1:8080/v1/payments'" }
	return viewNonce(transactions.Lives{Nonce: nonce, Lives: lives}, "http://127.0.0.1:8080", storyNow, name, send)
}

// unsafeMarkup is what the pages' policy would refuse.
var unsafeMarkup = regexp.MustCompile(`(?i)<script(?:>| [^s])|<style|\sstyle=|\son[a-z]+=|javascript:`)

func TestNoncePagesHaveNothingThatThePolicyRefuses(t *testing.T) {
	t.Parallel()
	for name, life := range tales() {
		for _, part := range []string{"layout", "print"} {
			v := view("order-71-a", life)
			if part == "print" {
				v = v.onPaper(storyNow)
			}
			if found := unsafeMarkup.FindString(nonceOf(t, part, v)); found != "" {
				t.Errorf("%s, %s: %q", name, part, found)
			}
		}
	}
}

const hostile = `"><script>alert(1)</script><img src=x onerror=alert(1)>'</title></svg><a href="javascript:alert(1)">`

func TestHostileTextsStayText(t *testing.T) {
	t.Parallel()
	life := tales()["resolved"]
	life.Timeline = slices.Clone(life.Timeline)
	life.Verdict, life.Policy, life.Mode, life.AccountID, life.PaymentID = hostile, hostile, hostile, hostile, hostile
	life.Transaction.ID, life.Transaction.Type, life.Transaction.Status, life.KeyState = hostile, hostile, hostile, hostile
	yes := true
	for _, kind := range []string{"request", "send", "inquire", "void", "reverse", "callback", "takeover", "observation", "event", "checkout", "parked", "resolution", hostile} {
		life.Timeline = append(life.Timeline, transactions.Moment{
			At: hostile, Kind: kind, Verdict: hostile, RequestID: hostile, BodyDiffers: &yes, Differs: []string{hostile},
			Provider: hostile, Reference: hostile, Outcome: hostile, By: hostile, Reason: hostile,
		})
	}
	v := viewNonce(transactions.Lives{Nonce: hostile, Lives: []transactions.Life{life, life}, Next: hostile}, "http://127.0.0.1:8080", storyNow,
		func(transactions.Life) string { return hostile }, func(transactions.Life) string { return hostile })
	for _, part := range []string{"layout", "print"} {
		body := nonceOf(t, part, v)
		for _, bad := range []string{"<script>alert", "<img src=x", `href="javascript:`, "</title></svg><a"} {
			if strings.Contains(body, bad) {
				t.Errorf("%s has %q", part, bad)
			}
		}
		if !strings.Contains(body, html.EscapeString("<script>alert(1)</script>")) {
			t.Errorf("%s does not show what was said", part)
		}
	}
}

// The pictures are inside HTML, but whatever is well-formed for a stricter reader is so for
// every browser.
func TestPicturesAreWellFormed(t *testing.T) {
	t.Parallel()
	svg := regexp.MustCompile(`(?s)<svg class="lanes-.*?</svg>`)
	for name, life := range tales() {
		pictures := svg.FindAllString(nonceOf(t, "layout", view("n", life)), -1)
		if len(pictures) != 2 {
			t.Fatalf("%s has %d pictures", name, len(pictures))
		}
		for _, p := range pictures {
			d := xml.NewDecoder(strings.NewReader(p))
			for {
				if _, err := d.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
		}
	}
}

func TestLinksToNoncesAreEscaped(t *testing.T) {
	t.Parallel()
	for nonce, want := range map[string]string{
		"a/b": "/nonces/a%2Fb", "100%": "/nonces/100%25", "a?b#c": "/nonces/a%3Fb%23c", "a b": "/nonces/a%20b", "order-71-a": "/nonces/order-71-a",
		"..": "/nonces?nonce=..", ".": "/nonces?nonce=.", "...": "/nonces/...",
	} {
		v := view(nonce, tales()["fresh"])
		paper := want + "?print=1"
		if strings.Contains(want, "?") {
			paper = want + "&print=1"
		}
		if v.Path() != want || v.PrintPath != paper {
			t.Errorf("%q is at %s, and printed at %s", nonce, v.Path(), v.PrintPath)
		}
		if body := nonceOf(t, "layout", v); !strings.Contains(body, `href="`+html.EscapeString(paper)+`"`) {
			t.Errorf("the page of %q does not lead there", nonce)
		}
	}
}

func TestLivesAreNumberedFromTheOldestAndLeadOn(t *testing.T) {
	t.Parallel()
	life := tales()["fresh"]
	other := life // whose are not counted along
	other.Mode = "live"
	v := viewNonce(transactions.Lives{Nonce: "a/b", Lives: []transactions.Life{life, other, life, life}, Next: "01a20101-28f4-7b37-85b4-b9a7b7aea93a"}, "", storyNow,
		func(transactions.Life) string { return "Corner shop" }, func(transactions.Life) string { return "" })
	body := nonceOf(t, "layout", v)
	first, last := strings.Index(body, "Life 3 of 3"), strings.Index(body, "Life 1 of 3")
	if first < 0 || last < first || strings.Count(body, ">Life ") != 3 {
		t.Error("the lives have no numbers, or the wrong ones")
	}
	if !strings.Contains(body, `href="/nonces/a%2Fb?after=01a20101-28f4-7b37-85b4-b9a7b7aea93a"`) {
		t.Error("nothing leads to the older lives")
	}
	ids := regexp.MustCompile(` id="([^"]+)"`).FindAllStringSubmatch(body, -1)
	seen := map[string]bool{}
	for _, id := range ids {
		if seen[id[1]] {
			t.Errorf("the id %s is there twice", id[1])
		}
		seen[id[1]] = true
	}
}

func TestThePrintedPageIsOpenAndSaysWhoMadeIt(t *testing.T) {
	t.Parallel()
	v := view("order-71-a", tales()["storm"])
	v = v.onPaper(storyNow)
	body := nonceOf(t, "print", v)
	if strings.Contains(body, "<nav") || strings.Contains(body, `role="search"`) {
		t.Error("paper has no navigation")
	}
	if closed := strings.Count(body, "<details") - strings.Count(body, " open>"); closed != 0 {
		t.Errorf("%d items are closed", closed)
	}
	if !strings.Contains(body, "on 2026-11-25 10:06:31 UTC, with Oncepay 1.2.3") {
		t.Error("it does not say when it was made, and with what")
	}
}

// TestSamplePages writes the pages that a person looks at, where the environment says so.
func TestSamplePages(t *testing.T) {
	dir := os.Getenv("CONSOLE_SAMPLES")
	if dir == "" {
		return // nobody looks: there is nothing to check
	}
	f, err := builtFiles()
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range f.byName {
		path := filepath.Join(dir, "assets", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, file.body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stories := tales()
	write := func(name, part string, v nonceView) {
		body := strings.ReplaceAll(nonceOf(t, part, v), `"/assets/`, `"assets/`)
		if err := os.WriteFile(filepath.Join(dir, name+".html"), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, life := range stories {
		write(strings.ReplaceAll(name, " ", "-"), "layout", view("order-71-a", life))
	}
	several := view("order-71-a", stories["crash and recovery"], stories["never reached"])
	write("several", "layout", several)
	several = several.onPaper(storyNow)
	write("print", "print", several)
}
