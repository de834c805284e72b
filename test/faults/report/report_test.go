package report_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/oncepay/oncepay/test/faults/record"
	"github.com/oncepay/oncepay/test/faults/report"
)

// good is a campaign without a gap and without a broken promise.
func good() report.Result {
	return report.Result{
		Commit: strings.Repeat("4ef54770", 5), Command: "make prove", Took: time.Minute, Summed: 3 * time.Minute,
		Seed: 7, Seeds: []int64{7, 8, 9}, Operations: 131_877, Nonces: 48_210, Charges: 41_877, Acknowledged: 40_112,
		Faults:   map[string]int{"process: killed": 410, "provider: time-out after booking": 31},
		Kinds:    []string{"provider: time-out after booking", "process: killed"},
		Points:   []report.Point{{Name: "begin.before", Reached: 9, Once: 5, Twice: 2, Frozen: 1}},
		Oracles:  []string{"at-most-once"},
		Policies: []report.Policy{{Name: "yuno", Rounds: 2, Nonces: 40_000, Charges: 41_000, Replays: 3, KeptErrors: 0}, {Name: "novu", Rounds: 1, Nonces: 8_210, KeptErrors: 12, KeptCharged: 5}},
		Recovery: report.Recovery{Count: 3, P50: 210 * time.Millisecond, P99: time.Second, Max: 1500 * time.Microsecond},
	}
}

// hard is one with more of everything than a page likes, and with texts that try to
// get out of their places.
func hard() report.Result {
	r := good()
	long := strings.Repeat("very long ", 30) + strings.Repeat("unbroken", 40)
	for i := range 40 {
		r.Faults[fmt.Sprintf("group %d: %d %s", i%6, i, long)] = i * i * i * 977
	}
	r.Kinds = append(r.Kinds, "no group & <none>")
	r.Points = append(r.Points, report.Point{Name: long}, report.Point{Name: "a|b`c", Once: 12_345_678, Twice: 1_234_567})
	r.Oracles = append(r.Oracles, long, "<oracle>")
	r.Policies = append(r.Policies, report.Policy{Name: "a|b`c <of \x1bnone>", Nonces: 123_456_789, Violations: 1})
	r.Command, r.Commit = "make prove X='<&\"|`'", "\x00\x1b[31m"+long
	r.Seeds = []int64{-9_000_000_000_000_000_000, 1, 3, 5, 7, 9, 11, 9_000_000_000_000_000_000}
	r.Nonces, r.Operations, r.DoubleCharges, r.Lost, r.Unresolved, r.Undecided = 123_456_789_012, 5, 2, 1, 1, 1
	r.Violations = []record.Violation{{Oracle: "<" + long, Seed: 3, Detail: "a\n| b \xff\x01\x1b[2J ]]> & " + long}}
	r.Mutants = []report.Mutant{
		{Name: long, Defect: long, Caught: true, Oracle: long, Scenario: long, Detail: long}, {Name: "quiet", Defect: "a|b"},
	}
	return r
}

func TestNotHitNamesEachGapOnce(t *testing.T) {
	t.Parallel()
	if gaps := good().NotHit(); len(gaps) != 0 {
		t.Errorf("nothing was missed, and yet: %q", gaps)
	}
	r := good()
	r.Points = append(r.Points, report.Point{Name: "purge.after", Reached: 2, Once: 1}, report.Point{Name: "void.after", Reached: 2, Twice: 1},
		report.Point{Name: "send.wire", Reached: 2}, report.Point{Name: "never"})
	r.Kinds = append(r.Kinds, "client: gave up")
	r.Faults["client: hung up"] = 0
	r.Kinds = append(r.Kinds, "disk: full")
	r.Excused = map[string]string{"disk: full": "nobody may"}
	want := []string{
		"crash point purge.after: never twice", "crash point void.after: never once",
		"crash point send.wire: never once", "crash point send.wire: never twice", "crash point never: never reached",
		"fault client: gave up: never met", "fault client: hung up: never met", "fault disk: full: never met, because nobody may",
	}
	if got := r.NotHit(); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestEachBrokenPromiseFailsTheCampaign(t *testing.T) {
	t.Parallel()
	if good().Failed() {
		t.Error("a campaign that kept every promise failed")
	}
	for name, breakIt := range map[string]func(*report.Result){
		"FAILED: 1 double charge.":      func(r *report.Result) { r.DoubleCharges = 1 },
		"FAILED: 2 payments lost.":      func(r *report.Result) { r.Lost = 2 },
		"FAILED: 1 nonce unresolved.":   func(r *report.Result) { r.Unresolved = 1 },
		"FAILED: 1 violation.":          func(r *report.Result) { r.Violations = []record.Violation{{}} },
		"FAILED: 1 mutant not caught.":  func(r *report.Result) { r.Mutants = []report.Mutant{{Name: "quiet"}, {Caught: true}} },
		"FAILED: 1,000 double charges.": func(r *report.Result) { r.DoubleCharges, r.Charges = 1000, 0 },
	} {
		r := good()
		breakIt(&r)
		if last := lastLine(r); !r.Failed() || !strings.HasSuffix(last, name) {
			t.Errorf("failed %t; %q does not end with %q", r.Failed(), last, name)
		}
	}
	for name, keepIt := range map[string]func(*report.Result){
		"nothing unresolved.":                                   func(r *report.Result) { r.Mutants = []report.Mutant{{Caught: true}} },
		"; 3 parked; 1 undecided.":                              func(r *report.Result) { r.Parked, r.Undecided = 3, 1 },
		"No money moved in this campaign, so it shows nothing.": func(r *report.Result) { r.Charges = 0 },
	} {
		r := good()
		keepIt(&r)
		if last := lastLine(r); r.Failed() || !strings.HasSuffix(last, name) {
			t.Errorf("failed %t; %q does not end with %q", r.Failed(), last, name)
		}
	}
}

func lastLine(r report.Result) string {
	lines := strings.Split(strings.TrimSpace(text(r)), "\n")
	return lines[len(lines)-1]
}

func text(r report.Result) string {
	var b bytes.Buffer
	report.Text(&b, r)
	return b.String()
}

func TestPercentilesAreMeasuredValues(t *testing.T) {
	t.Parallel()
	if got := report.Recoveries(nil); got != (report.Recovery{}) {
		t.Errorf("of nothing: %v", got)
	}
	var ds []time.Duration
	for i := range 200 {
		ds = append(ds, time.Duration(200-i))
	}
	before := slices.Clone(ds)
	for _, c := range []struct {
		n    int // of 200, 199, …
		want report.Recovery
	}{
		{1, report.Recovery{Count: 1, P50: 200, P99: 200, Max: 200}},
		{2, report.Recovery{Count: 2, P50: 199, P99: 200, Max: 200}},
		{3, report.Recovery{Count: 3, P50: 199, P99: 200, Max: 200}},
		{200, report.Recovery{Count: 200, P50: 100, P99: 198, Max: 200}},
	} {
		if got := report.Recoveries(ds[:c.n]); got != c.want {
			t.Errorf("of %d: got %v, want %v", c.n, got, c.want)
		}
	}
	if !slices.Equal(ds, before) {
		t.Error("the durations were sorted in their owner's slice")
	}
}

func TestJSONIsOneLineWithoutNull(t *testing.T) {
	t.Parallel()
	keys := []string{
		"seed", "seeds", "operations", "nonces", "charges", "captures", "cancellations", "refunds", "callbacks",
		"acknowledged", "faults", "crash_points", "not_hit", "double_charges", "double_captures", "double_refunds", "leaked",
		"lost", "policies", "violations", "unresolved", "parked", "undecided", "recovery_ms", "duration_s", "summed_s", "commit",
	}
	for name, r := range map[string]report.Result{"empty": {}, "good": good(), "hard": hard()} {
		var b bytes.Buffer
		if err := report.JSON(&b, r); err != nil {
			t.Fatal(err)
		}
		if strings.Count(b.String(), "\n") != 1 || strings.Contains(b.String(), ":null") {
			t.Errorf("%s: more than a line, or null: %s", name, &b)
		}
		var got map[string]json.RawMessage
		if err := json.Unmarshal(b.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			if got[k] == nil {
				t.Errorf("%s: no %s", name, k)
			}
		}
		if _, has := got["mutants"]; has != (len(r.Mutants) > 0) || len(got) > len(keys)+1 {
			t.Errorf("%s: keys that nobody asked for: %s", name, &b)
		}
		if name == "empty" && (string(got["violations"]) != "[]" || string(got["faults"]) != "{}" || string(got["seeds"]) != "[]") {
			t.Errorf("an empty list is not empty: %s", &b)
		}
		if want := `{"count":3,"p50":210,"p99":1000,"max":1.5}`; name == "good" && string(got["recovery_ms"]) != want {
			t.Errorf("recovery_ms is %s, not %s", got["recovery_ms"], want)
		}
	}
}

func TestTextFitsTheTerminal(t *testing.T) {
	t.Parallel()
	for _, r := range []report.Result{{}, good(), hard()} {
		for l := range strings.SplitSeq(text(r), "\n") {
			if utf8.RuneCountInString(l) > 110 || strings.ContainsAny(l, "\x00\x01\x1b") || !utf8.ValidString(l) {
				t.Errorf("too wide, or not only text: %q", l)
			}
		}
	}
}

func TestMarkdownKeepsItsCells(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	report.Markdown(&b, hard())
	width := 0
	for l := range strings.SplitSeq(b.String(), "\n") {
		if !strings.HasPrefix(l, "|") {
			width = 0
			continue
		}
		bars := strings.Count(l, "|") - strings.Count(l, `\|`)
		if width != 0 && bars != width {
			t.Errorf("%d bars instead of %d: %s", bars, width, l)
		}
		width = bars
	}
	b.Reset()
	report.Markdown(&b, good())
	for _, want := range []string{"| seeds | 7–9 |", "| commit | `4ef547704ef5` |", "| command | `make prove` |", "| `begin.before` | 9 | 5 | 2 | 1 |",
		"| policy | rounds | nonces | charges | replays | errors kept | of them charged | violations |", "| `novu` | 1 | 8,210 | 0 | 0 | 12 | 5 | 0 |"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, &b)
		}
	}
}

func TestThePictureIsXMLAndStandsAlone(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]report.Result{"empty": {}, "good": good(), "hard": hard()} {
		picture := draw(t, r)
		d := xml.NewDecoder(strings.NewReader(picture))
		seen := map[string]int{}
		for {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			e, ok := token.(xml.StartElement)
			if !ok {
				continue
			}
			seen[e.Name.Local]++
			for _, a := range e.Attr {
				if a.Name.Local == "href" || strings.Contains(a.Value, "-") && slices.Contains([]string{"width", "height", "x", "y"}, a.Name.Local) {
					t.Errorf("%s: %s=%q on %s", name, a.Name.Local, a.Value, e.Name.Local)
				}
			}
		}
		if seen["title"] != 1 || seen["desc"] != 1 || seen["script"]+seen["image"] != 0 || seen["circle"] != 2*len(r.Points) {
			t.Errorf("%s: elements are %v", name, seen)
		}
	}
}

func draw(t *testing.T, r report.Result) string {
	t.Helper()
	var b bytes.Buffer
	if err := report.SVG(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// crowded has kinds like those of the campaign: too many for a line each. More are
// added to two of its groups, and to one that it does not know.
func crowded(more int) report.Result {
	r := good()
	r.Faults, r.Kinds, r.Points = map[string]int{"time: a nonce aged by 25 hours": 300, "person: a decision": 158}, nil, nil
	for i, booking := range strings.Fields("5xx time-out reset garbage close late trickle") {
		for j, group := range []string{"provider", "provider, inquiry", "provider, void"} {
			r.Faults[group+": "+booking+" before booking"] = 1 + i*j*10
			r.Faults[group+": reused connection "+booking+"d after booking"] = 2000 + i*i*j
		}
	}
	for i, what := range strings.Fields("begin finish leave observe take_over") {
		r.Faults["database: statement "+what+" lost"] = i
		r.Faults["database: answer to "+what+" lost"] = i + 1
		r.Faults["process: frozen, shorter than "+what] = i + 1
		r.Faults["client: "+what] = i + 1
	}
	for i := range more {
		r.Faults[fmt.Sprintf("%s: %d is a new kind, and has a name that no column has room for", []string{"process", "network", "provider"}[i%3], i)] = i * 50
	}
	r.Faults["provider, void: trickle before booking"] = 0
	for i := range 22 {
		r.Points = append(r.Points, report.Point{Name: fmt.Sprintf("end_life%d.before", i), Once: i * 60, Twice: i * i * 300})
	}
	return r
}

// label is a text of the picture.
type label struct {
	x, y  float64
	class string
	text  string
}

// labels are all texts of a picture, and its height.
func labels(t *testing.T, picture string) ([]label, float64) {
	t.Helper()
	var height float64
	if _, err := fmt.Sscanf(picture, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 880 %f"`, &height); err != nil {
		t.Fatal(err)
	}
	var all []label
	for l := range strings.SplitSeq(picture, "\n") {
		if !strings.HasPrefix(l, "<text") {
			continue
		}
		var e struct {
			X     float64 `xml:"x,attr"`
			Y     float64 `xml:"y,attr"`
			Class string  `xml:"class,attr"`
			Own   string  `xml:",chardata"`
			Note  string  `xml:"tspan"`
		}
		if err := xml.Unmarshal([]byte(l), &e); err != nil {
			t.Fatal(err)
		}
		all = append(all, label{e.X, e.Y, e.Class, e.Own + e.Note})
	}
	return all, height
}

func TestThePictureIsNoHigherThanAScreen(t *testing.T) {
	t.Parallel()
	for _, more := range []int{0, 18, 100} {
		r := crowded(more)
		all, height := labels(t, draw(t, r))
		if height > 720 {
			t.Errorf("%d kinds: %v high", len(r.Faults), height)
		}
		for i, a := range all {
			if a.y > height-20 {
				t.Errorf("%q is at %v of %v", a.text, a.y, height)
			}
			for _, b := range all[:i] {
				if dy := math.Abs(a.y - b.y); dy < 14 && a.left() < b.right() && b.left() < a.right() {
					t.Errorf("%d kinds: %q is over %q", len(r.Faults), a.text, b.text)
				}
			}
		}
	}
}

// left and right are where a text is at least; letters are not narrower as a rule.
func (l label) left() float64 {
	if strings.Contains(l.class, "end") {
		return l.x - l.width()
	}
	return l.x
}

func (l label) right() float64 { return l.left() + l.width() }

func (l label) width() float64 {
	size := 12.5 * 0.45
	if strings.HasPrefix(l.class, "big") {
		size = 20
	}
	return float64(utf8.RuneCountInString(l.text)) * size
}

// TestFoldingLosesNothing: a line for some kinds has their sum, and says how many
// they are and how many of them were met.
func TestFoldingLosesNothing(t *testing.T) {
	t.Parallel()
	if p := draw(t, good()); strings.Contains(p, "kinds") {
		t.Error("there is room for everything, and something is folded")
	}
	for _, more := range []int{0, 18, 100} {
		r := crowded(more)
		want := 0
		for _, n := range r.Faults {
			want += n
		}
		all, _ := labels(t, draw(t, r))
		var texts []string
		sum, kinds := 0, 0
		for i, l := range all {
			texts = append(texts, l.text)
			if i == 0 || l.class != "small muted end" || all[i-1].y != l.y || strings.HasPrefix(l.text, "bar") {
				continue
			}
			var n int
			if _, err := fmt.Sscan(strings.ReplaceAll(l.text, ",", ""), &n); err != nil {
				t.Fatal(err)
			}
			sum += n
			kinds += kindsOf(all[i-1].text)
		}
		if sum != want || kinds != len(r.Faults) {
			t.Errorf("lines have %d faults of %d kinds; there are %d of %d", sum, kinds, want, len(r.Faults))
		}
		if more > 18 {
			continue
		}
		for _, line := range []string{
			"when asked · 14 kinds", "when voiding · 13 of 14 kinds", "statement … lost · 4 of 5 kinds", "answer to … lost · 5 kinds",
		} {
			if !slices.Contains(texts, line) {
				t.Errorf("with %d more kinds, no line %q in %q", more, line, texts)
			}
		}
	}
}

// kindsOf is how many kinds a line says it has.
func kindsOf(line string) int {
	_, note, folded := strings.Cut(line, " · ")
	if !folded {
		return 1
	}
	words := strings.Fields(note) // 13 of 14 kinds
	n := 0
	_, _ = fmt.Sscan(words[len(words)-2], &n)
	return n
}

// TestOnlyAZeroIsGood: the accent colour is a claim.
func TestOnlyAZeroIsGood(t *testing.T) {
	t.Parallel()
	if p := draw(t, good()); strings.Count(p, "big good") != 2 || strings.Contains(p, "big bad") || strings.Contains(p, "FAILED") {
		t.Error("a campaign that kept every promise does not show two zeroes")
	}
	r := good()
	r.DoubleCharges = 10
	if p := draw(t, r); strings.Count(p, "big good") != 1 || strings.Count(p, "big bad") != 1 || !strings.Contains(p, "FAILED") {
		t.Error("ten double charges look good")
	}
	if strings.Contains(draw(t, report.Result{}), "big good") {
		t.Error("a campaign in which no money moved looks good")
	}
}

func TestTheSameResultIsWrittenTheSame(t *testing.T) {
	t.Parallel()
	all := func() string {
		var b bytes.Buffer
		report.Markdown(&b, hard())
		if err := report.JSON(&b, hard()); err != nil {
			t.Fatal(err)
		}
		return text(hard()) + b.String() + draw(t, hard())
	}
	first := all()
	for range 20 {
		if all() != first {
			t.Fatal("two reports of one result differ")
		}
	}
}

func TestAWriterThatFailsIsHeard(t *testing.T) {
	t.Parallel()
	r, w := io.Pipe()
	_ = r.Close()
	if report.SVG(w, good()) == nil || report.JSON(w, good()) == nil {
		t.Error("a picture or a line that was not written is taken for written")
	}
}
