package transactions

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/oncepay/oncepay/migrations"
)

// The drawings in the docs are compared with the code, and both with the
// database's constraints: the three say the same thing to three kinds of reader.

const statesPage = "../../docs/concepts/states.md"

// drawing is a state diagram as it was drawn: its arrows with their labels, and
// the names behind its aliases.
type drawing struct {
	arrows  []arrow
	aliases map[string]string
}

type arrow struct{ from, to, label string }

func (a arrow) String() string {
	return strings.TrimSuffix(a.from+" --> "+a.to+" : "+a.label, " : ")
}

// outside is where a state diagram begins and ends.
const outside = "[*]"

var (
	arrowLine = regexp.MustCompile(`^(\S+) --> (\S+?)(?: : (.+))?$`)
	aliasLine = regexp.MustCompile(`^state "([^"]+)" as (\S+)$`)
)

// statesSection is the text below a heading of the page, up to the next one.
func statesSection(t *testing.T, heading string) string {
	t.Helper()
	page, err := os.ReadFile(statesPage)
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(page), "# "+heading+"\n")
	if !found {
		t.Fatalf("%s has no section %s", statesPage, heading)
	}
	if end := nextHeading.FindStringIndex(text); end != nil {
		text = text[:end[0]]
	}
	return text
}

var nextHeading = regexp.MustCompile(`(?m)^#`)

// readDrawing reads the drawing in a section. Every line must be understood: an
// arrow that the test cannot read would be one that nobody compares.
func readDrawing(t *testing.T, heading string) drawing {
	t.Helper()
	_, text, found := strings.Cut(statesSection(t, heading), "```mermaid\nstateDiagram-v2\n")
	if !found {
		t.Fatalf("the section %s has no state diagram", heading)
	}
	text, _, _ = strings.Cut(text, "\n```")
	d := drawing{aliases: map[string]string{}}
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		if m := arrowLine.FindStringSubmatch(line); m != nil {
			d.arrows = append(d.arrows, arrow{m[1], m[2], m[3]})
		} else if m := aliasLine.FindStringSubmatch(line); m != nil {
			d.aliases[m[2]] = m[1]
		} else {
			t.Errorf("%s: a line that is neither arrow nor name: %q", heading, line)
		}
	}
	return d
}

// compareArrows reports what only one of two sets of arrows has.
func compareArrows(t *testing.T, drawn, coded []arrow) {
	t.Helper()
	for _, a := range drawn {
		if !slices.Contains(coded, a) {
			t.Errorf("drawn, but not in the code: %s", a)
		}
	}
	for _, a := range coded {
		if !slices.Contains(drawn, a) {
			t.Errorf("in the code, but not drawn: %s", a)
		}
	}
	if len(drawn) != len(coded) && !t.Failed() {
		t.Error("an arrow was drawn twice")
	}
}

// drawnTypes are the types that share a drawing, by its section.
var drawnTypes = map[string][]Type{
	"What begins a payment":  {Purchase, Authorize, Verify},
	"What acts on a payment": {Capture, Cancel, Refund},
	"Disputes":               {Chargeback},
}

// A move that only some of a drawing's types make has their names beside it.
func TestTransactionsAreDrawnAsTheyMove(t *testing.T) {
	t.Parallel()
	var drawn []Type
	for heading, types := range drawnTypes {
		drawn = append(drawn, types...)
		who := map[arrow][]string{}
		for _, typ := range types {
			for from, all := range Moves[typ] {
				for _, to := range all {
					a := arrow{from: cmp.Or(string(from), outside), to: string(to)}
					who[a] = append(who[a], string(typ))
				}
			}
		}
		var coded []arrow
		for a, names := range who {
			if len(names) < len(types) {
				a.label = strings.Join(names, ", ")
			}
			coded = append(coded, a)
		}
		compareArrows(t, readDrawing(t, heading).arrows, coded)
	}
	slices.Sort(drawn)
	if all := slices.Sorted(maps.Keys(Moves)); !slices.Equal(drawn, all) {
		t.Errorf("drawn are %v, there are %v", drawn, all)
	}
}

// paymentDrawings are the sections whose drawings together are PaymentMoves.
var paymentDrawings = []string{"Until there is money", "Money that goes back", "Money that is taken back"}

// anyOf stands between the statuses of a box that stands for several.
const anyOf = "<br/>"

// TestPaymentsAreDrawnAsTheyMove: each move is one arrow in one of the drawings. Where an
// arrow says what causes it, it is what does, in all histories there are.
func TestPaymentsAreDrawnAsTheyMove(t *testing.T) {
	t.Parallel()
	var drawn, coded []arrow
	for _, heading := range paymentDrawings {
		d := readDrawing(t, heading)
		for _, a := range d.arrows {
			drawn = append(drawn, d.each(t, a, explore().causes)...)
		}
	}
	coded = append(coded, arrow{from: outside, to: statusWords(Unconfirmed)})
	for from, all := range PaymentMoves {
		for _, to := range all {
			coded = append(coded, arrow{from: statusWords(from), to: statusWords(to)})
		}
	}
	compareArrows(t, drawn, coded)
}

// each is the arrows that one stands for, by the statuses at its ends.
func (d drawing) each(t *testing.T, a arrow, causes map[paymentMove]map[string]bool) []arrow {
	t.Helper()
	names := func(alias string) []string {
		if alias == outside {
			return []string{alias}
		}
		named, ok := d.aliases[alias]
		if !ok {
			t.Errorf("nothing says which status %q is", alias)
		}
		return strings.Split(named, anyOf)
	}
	var all []arrow
	why := map[string]bool{}
	for _, from := range names(a.from) {
		for _, to := range names(a.to) {
			all = append(all, arrow{from: from, to: to})
			for cause := range causes[paymentMove{statusOf(from), statusOf(to)}] {
				why[cause] = true
			}
		}
	}
	if got := strings.Join(slices.Sorted(maps.Keys(why)), ", "); a.label != "" && a.label != got {
		t.Errorf("%s is caused by %s", a, got)
	}
	return all
}

func statusWords(s PaymentStatus) string { return s.Status + " / " + s.Sub }

func statusOf(words string) PaymentStatus {
	status, sub, _ := strings.Cut(words, " / ")
	return PaymentStatus{status, sub}
}

// everyPaymentStatus are those that PaymentMoves knows, in words.
func everyPaymentStatus() []string {
	known := map[string]bool{}
	for from, all := range PaymentMoves {
		known[statusWords(from)] = true
		for _, to := range all {
			known[statusWords(to)] = true
		}
	}
	return slices.Sorted(maps.Keys(known))
}

// TestStatusesAreThoseThatTheDatabaseKnows reads the constraints in the migrations:
// a status that the code has and the database refuses would be found by a payment.
func TestStatusesAreThoseThatTheDatabaseKnows(t *testing.T) {
	t.Parallel()
	var statuses, types, payments, targeted []string
	for _, s := range everyStatus()[1:] { // but Unborn
		statuses = append(statuses, string(s))
	}
	for _, typ := range slices.Sorted(maps.Keys(Moves)) {
		types = append(types, string(typ))
		if typ.acts() || typ == Chargeback {
			targeted = append(targeted, string(typ))
		}
	}
	for _, name := range everyPaymentStatus() {
		payments = append(payments, strings.Split(name, " / ")...)
	}
	for constraint, want := range map[string][]string{
		"transactions_status_known":     statuses,
		"transactions_type_known":       types,
		"transactions_target_where_due": targeted,
		"payments_status_known":         payments,
	} {
		got := constraintValues(t, constraint)
		if constraint == "payments_status_known" { // pairs
			want, got = statusPairs(want), statusPairs(got)
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s allows %q, the code has %q", constraint, got, want)
		}
	}
}

func statusPairs(all []string) []string {
	var joined []string
	for pair := range slices.Chunk(all, 2) {
		joined = append(joined, strings.Join(pair, " / "))
	}
	return joined
}

// constraintValues are the texts in the newest definition of a CHECK constraint.
func constraintValues(t *testing.T, constraint string) []string {
	t.Helper()
	files, err := fs.Glob(migrations.FS, "*.up.sql")
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	for _, name := range files { // in the order in which they are applied
		sql, err := fs.ReadFile(migrations.FS, name)
		if err != nil {
			t.Fatal(err)
		}
		_, definition, found := strings.Cut(string(sql), "CONSTRAINT "+constraint+" CHECK (")
		if !found {
			continue
		}
		_, list, _ := strings.Cut(definition, " IN (")
		end := strings.IndexAny(list, ";")
		if next := strings.Index(list, "CONSTRAINT "); next >= 0 && next < end {
			end = next
		}
		values = nil
		for _, m := range regexp.MustCompile(`'([A-Z_]+)'`).FindAllStringSubmatch(list[:end], -1) {
			values = append(values, m[1])
		}
	}
	if values == nil {
		t.Fatalf("no migration has the constraint %s", constraint)
	}
	return values
}

// explained are the first columns of a section's table.
func explained(t *testing.T, heading, pattern string) []string {
	t.Helper()
	var names []string
	for _, m := range regexp.MustCompile("(?m)^\\| "+pattern+" \\| ").FindAllStringSubmatch(statesSection(t, heading), -1) {
		names = append(names, strings.Join(m[1:], " / "))
	}
	return names
}

// TestEveryStateIsExplained in the tables below the drawings, and no other.
func TestEveryStateIsExplained(t *testing.T) {
	t.Parallel()
	for heading, types := range drawnTypes {
		var want []string
		for _, s := range everyStatus()[1:] {
			if _, reachable := routeTo(types[1%len(types)], s); reachable {
				want = append(want, string(s))
			}
		}
		got := explained(t, heading, "`([A-Z]+)`")
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: the page explains %q, there are %q", heading, got, want)
		}
	}
	var want []string
	for _, s := range []KeyState{KeyOpen, KeyUnresolved, KeyParked, KeyAnswered, KeyReleased, KeyExpired} {
		want = append(want, string(s))
	}
	if got := explained(t, "Nonces", "`([a-z]+)`"); !slices.Equal(got, want) {
		t.Errorf("the page explains %q, there are %q", got, want)
	}
	types := explained(t, "Transactions", "`([A-Z]+)`")
	slices.Sort(types)
	if got, want := strings.Join(types, " "), fmt.Sprint(slices.Sorted(maps.Keys(Moves))); "["+got+"]" != want {
		t.Errorf("the page explains the types %s, there are %s", got, want)
	}
}

// TestWhatAMerchantMayDoIsWhatTheCodeAllows in each status of a payment.
func TestWhatAMerchantMayDoIsWhatTheCodeAllows(t *testing.T) {
	t.Parallel()
	const heading = "What each means, and what a merchant may do"
	var names []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` / `([A-Z_]+)` \\| .* \\| (.+) \\|$").FindAllStringSubmatch(statesSection(t, heading), -1) {
		s := PaymentStatus{m[1], m[2]}
		names = append(names, statusWords(s))
		var may []string
		for _, typ := range []Type{Capture, Cancel, Refund} {
			if slices.Contains(allowed[typ], s) {
				may = append(may, strings.ToLower(string(typ)))
			}
		}
		if want := cmp.Or(strings.Join(may, ", "), "–"); m[3] != want {
			t.Errorf("%s: the page says %s, the code %s", s, m[3], want)
		}
	}
	slices.Sort(names)
	if all := everyPaymentStatus(); !slices.Equal(names, all) {
		t.Errorf("the page explains %q, there are %q", names, all)
	}
}
