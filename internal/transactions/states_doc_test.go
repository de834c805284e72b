package transactions

import (
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
	_, text, found := strings.Cut(string(page), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("%s has no section %s", statesPage, heading)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

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

// drawnStatuses are those that Moves knows.
func drawnStatuses() []Status {
	known := map[Status]bool{}
	for from, to := range Moves {
		known[from] = true
		for _, s := range to {
			known[s] = true
		}
	}
	return slices.Sorted(maps.Keys(known))
}

// drawnTypes are the types that exist so far; the migrations must agree.
var drawnTypes = []Type{Authorize, Purchase}

func TestTransactionsAreDrawnAsTheyMove(t *testing.T) {
	t.Parallel()
	coded := []arrow{{from: outside, to: string(Created)}}
	for from, to := range Moves {
		for _, s := range to {
			coded = append(coded, arrow{from: string(from), to: string(s)})
		}
	}
	for _, s := range drawnStatuses() {
		if s.Terminal() {
			coded = append(coded, arrow{from: string(s), to: outside})
		}
	}
	compareArrows(t, readDrawing(t, "Transactions").arrows, coded)
}

func TestPaymentsAreDrawnAsTheyFollowTheirTransactions(t *testing.T) {
	t.Parallel()
	d := readDrawing(t, "Payments")
	name := func(alias string) string {
		if alias == outside {
			return alias
		}
		named, ok := d.aliases[alias]
		if !ok {
			t.Errorf("nothing says which status %q is", alias)
		}
		return named
	}
	var drawn []arrow
	for _, a := range d.arrows {
		drawn = append(drawn, arrow{name(a.from), name(a.to), a.label})
	}
	coded := []arrow{{from: outside, to: statusWords(Unconfirmed)}}
	for _, typ := range drawnTypes {
		for _, s := range drawnStatuses() {
			if after := paymentAfter(typ, s); s.Terminal() {
				coded = append(coded, arrow{statusWords(Unconfirmed), statusWords(after), fmt.Sprintf("%s %s", typ, s)})
			} else if after != Unconfirmed {
				t.Errorf("an unresolved %s (%s) makes its payment %s", typ, s, statusWords(after))
			}
		}
	}
	compareArrows(t, drawn, coded)
}

func statusWords(s PaymentStatus) string { return s.Status + " / " + s.Sub }

// TestStatusesAreThoseThatTheDatabaseKnows reads the constraints in the migrations:
// a status that the code has and the database refuses would be found by a payment.
func TestStatusesAreThoseThatTheDatabaseKnows(t *testing.T) {
	t.Parallel()
	var statuses, types, payments []string
	for _, s := range drawnStatuses() {
		statuses = append(statuses, string(s))
	}
	for _, typ := range drawnTypes {
		types = append(types, string(typ))
	}
	for _, name := range slices.Sorted(maps.Values(readDrawing(t, "Payments").aliases)) {
		payments = append(payments, strings.Split(name, " / ")...)
	}
	for constraint, want := range map[string][]string{
		"transactions_status_known": statuses,
		"transactions_type_known":   types,
		"payments_status_known":     payments,
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

// TestEveryStateIsExplained in the tables below the drawings.
func TestEveryStateIsExplained(t *testing.T) {
	t.Parallel()
	for _, s := range drawnStatuses() {
		if !strings.Contains(statesSection(t, "Transactions"), "\n| `"+string(s)+"` | ") {
			t.Errorf("the transaction status %s is not explained", s)
		}
	}
	rows := regexp.MustCompile("(?m)^\\| `([a-z]+)` \\| ").FindAllStringSubmatch(statesSection(t, "Nonces"), -1)
	var explained []string
	for _, m := range rows {
		explained = append(explained, m[1])
	}
	var want []string
	for _, s := range []KeyState{KeyOpen, KeyUnresolved, KeyParked, KeyAnswered, KeyReleased, KeyExpired} {
		want = append(want, string(s))
	}
	if !slices.Equal(explained, want) {
		t.Errorf("the page explains %q, there are %q", explained, want)
	}
}
