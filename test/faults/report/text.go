package report

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	// columns is how wide the table may be on a terminal.
	columns = 110
	// nameColumns is how much of a name is written in a table.
	nameColumns = 60
	// margin is how far everything below a heading stands in.
	margin = "  "
)

// Text writes the campaign for a terminal, at most 110 columns wide. The last line is
// the verdict.
func Text(w io.Writer, r Result) {
	textHead(w, r)
	textPolicies(w, r)
	textPoints(w, r)
	textFaults(w, r)
	textOracles(w, r)
	if gaps := r.NotHit(); len(gaps) > 0 {
		heading(w, "Not hit: "+number(len(gaps)))
		for _, g := range gaps {
			paragraph(w, margin, g)
		}
	}
	if len(r.Mutants) > 0 {
		fmt.Fprintln(w)
		MutantsText(w, r.Mutants)
	}
	fmt.Fprintln(w)
	paragraph(w, "", r.verdict())
}

func textHead(w io.Writer, r Result) {
	heading(w, "The campaign")
	var rows [][]string
	for _, f := range r.facts() {
		rows = append(rows, []string{f.name, f.value})
	}
	table(w, "ll", rows)
	heading(w, "What it came to")
	rows = nil
	for _, f := range r.figures() {
		rows = append(rows, []string{f.value, f.name})
	}
	table(w, "rl", rows)
}

// fact is a line that every form of the report has.
type fact struct{ name, value string }

// facts are what somebody needs to run the campaign again.
func (r Result) facts() []fact {
	return []fact{
		{"commit", r.commit()},
		{"command", r.Command},
		{"seeds", r.seeds()},
		{"took", fmt.Sprintf("%s (%s of running time)", human(r.Took), human(r.Summed))},
		{"recovery", r.Recovery.String()},
	}
}

// String is a recovery on one line.
func (r Recovery) String() string {
	if r.Count == 0 {
		return "none measured"
	}
	return fmt.Sprintf("p50 %s, p99 %s, max %s (%s)", human(r.P50), human(r.P99), human(r.Max),
		count(r.Count, "transaction", "transactions"))
}

// figures are the numbers of the headline, the promises last.
func (r Result) figures() []fact {
	return []fact{
		{"operations", number(r.Operations)},
		{"nonces", number(r.Nonces)},
		{"faults", number(r.faults())},
		{"charges in the provider's ledger", number(r.Charges)},
		{"captures", number(r.Captures)},
		{"cancellations", number(r.Cancellations)},
		{"refunds", number(r.Refunds)},
		{"callbacks taken in", number(r.Callbacks)},
		{"payments and actions acknowledged", number(r.Acknowledged)},
		{"parked for a person", number(r.Parked)},
		{"undecided", number(r.Undecided)},
		{"double charges", number(r.DoubleCharges)},
		{"double captures", number(r.DoubleCaptures)},
		{"double refunds", number(r.DoubleRefunds)},
		{"reservations leaked", number(r.Leaked)},
		{"lost", number(r.Lost)},
		{"unresolved", number(r.Unresolved)},
		{"violations", number(len(r.Violations))},
	}
}

func textPolicies(w io.Writer, r Result) {
	if len(r.Policies) == 0 {
		return
	}
	heading(w, "Under each policy")
	rows := [][]string{append([]string{""}, policyHead...)}
	for _, p := range r.Policies {
		rows = append(rows, append([]string{p.Name}, p.figures()...))
	}
	table(w, "lrrrrrrr", rows)
}

func textPoints(w io.Writer, r Result) {
	if len(r.Points) == 0 {
		return
	}
	heading(w, "Crash points")
	rows := [][]string{{"", "reached", "killed once", "twice in a row", "frozen"}}
	for _, p := range r.Points {
		rows = append(rows, []string{p.Name, number(p.Reached), number(p.Once), number(p.Twice), number(p.Frozen)})
	}
	table(w, "lrrrr", rows)
}

func textFaults(w io.Writer, r Result) {
	heading(w, "Faults")
	var rows [][]string
	for _, g := range r.groups() {
		for _, k := range g.kinds {
			rows = append(rows, []string{number(k.count), k.full})
		}
	}
	if rows == nil {
		paragraph(w, margin, "none")
	}
	table(w, "rl", rows)
}

func textOracles(w io.Writer, r Result) {
	if len(r.Oracles) > 0 {
		heading(w, "Oracles: "+number(len(r.Oracles)))
		paragraph(w, margin, strings.Join(r.Oracles, ", "))
	}
	if len(r.Violations) == 0 {
		return
	}
	heading(w, "Violations: "+number(len(r.Violations)))
	for _, v := range r.Violations {
		paragraph(w, margin, fmt.Sprintf("%s, seed %d", v.Oracle, v.Seed))
		paragraph(w, margin+margin, v.Detail)
	}
}

// MutantsText writes which of the defects put in on purpose were noticed, and by
// what.
func MutantsText(w io.Writer, ms []Mutant) {
	fmt.Fprintf(w, "Mutants: %s of %s caught\n", number(caught(ms)), number(len(ms)))
	const below = "              " // as wide as what stands before a name
	for _, m := range ms {
		first, by := "  NOT CAUGHT  ", ""
		if m.Caught {
			first = "  caught      "
		}
		if m.Caught && m.Oracle != "" {
			by = " by " + m.Oracle
		}
		for i, l := range wrap(fmt.Sprintf("%s%s%s, %s", m.Name, by, within(m), human(m.Took)), columns-len(below)) {
			if i > 0 {
				first = below
			}
			fmt.Fprintf(w, "%s%s\n", first, l)
		}
		paragraph(w, below, m.Defect)
		paragraph(w, below, m.Detail)
	}
}

// within says in which scenario a mutant ran.
func within(m Mutant) string {
	if m.Scenario == "" {
		return ""
	}
	return " in " + m.Scenario
}

func heading(w io.Writer, text string) { fmt.Fprintf(w, "\n%s\n", clip(text, columns)) }

// paragraph writes a text behind an indent, on as many lines as it needs.
func paragraph(w io.Writer, indent, text string) {
	for _, line := range wrap(text, columns-len(indent)) {
		fmt.Fprintf(w, "%s%s\n", indent, line)
	}
}

// table aligns columns, each to the left (l) or right (r). The last column, if it
// is to the left, may go on in the next line.
func table(w io.Writer, align string, rows [][]string) {
	widths := make([]int, len(align))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(clip(cell, nameColumns)))
		}
	}
	last := len(align) - 1
	for _, row := range rows {
		var line strings.Builder
		line.WriteString(margin)
		for i, cell := range row {
			if i > 0 {
				line.WriteString("  ")
			}
			if i == last && align[i] == 'l' {
				indent := utf8.RuneCountInString(line.String())
				lines := wrap(cell, columns-indent)
				line.WriteString(strings.Join(lines, "\n"+strings.Repeat(" ", indent)))
				continue
			}
			cell = clip(cell, nameColumns)
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if align[i] == 'r' {
				cell = pad + cell
			} else {
				cell += pad
			}
			line.WriteString(cell)
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}
