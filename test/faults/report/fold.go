package report

import (
	"cmp"
	"slices"
	"strings"
)

const (
	maxRows   = 22  // of a column: what a reader sees at once
	groupGap  = 0.5 // of a row, between groups
	bigFamily = 5   // kinds that begin with one word are folded from here on, or sooner if there is no room
	mostKept  = 10  // rows of a group, if even that is too much
)

// section is a group as the picture has it.
type section struct {
	name  string
	rows  []row
	total int
}

// row is one kind of fault, or some that are folded into one line.
type row struct {
	name              string
	count, kinds, met int
}

// note is what a folded row says of the kinds in it; one that was never met must not
// disappear in it.
func (w row) note() string {
	switch {
	case w.kinds == 1:
		return ""
	case w.met == w.kinds:
		return " · " + number(w.kinds) + " kinds"
	default:
		return " · " + number(w.met) + " of " + number(w.kinds) + " kinds"
	}
}

// fold makes one row of some.
func fold(name string, rows []row) row {
	all := row{name: name}
	for _, w := range rows {
		all.count += w.count
		all.kinds += w.kinds
		all.met += w.met
	}
	return all
}

// height is in rows. A group of one row needs no line for its name.
func (s section) height() float64 {
	if len(s.rows) == 1 {
		return 1
	}
	return float64(1 + len(s.rows))
}

// columns are all faults, in two columns. Nothing is folded that there is room for;
// else groups within groups go first, then kinds that begin with the same word, the
// largest families before the others, and at last the rarest of each group.
func (r Result) columns() [2][]section {
	all := sections(r.groups())
	sides := place(all)
	if fits(sides) {
		return sides
	}
	all = nest(all)
	for size := bigFamily + 1; size >= 2; size-- { // the first time, nothing but nested
		if size <= bigFamily {
			all = each(all, func(rows []row) []row { return families(rows, size) })
		}
		if sides = place(all); fits(sides) {
			return sides
		}
	}
	for kept := mostKept; kept >= 1; kept-- {
		sides = place(each(all, func(rows []row) []row { return frequent(rows, kept) }))
		if fits(sides) {
			break
		}
	}
	return sides
}

func sections(groups []group) []section {
	var all []section
	for _, g := range groups {
		s := section{name: g.name, total: g.total}
		for _, k := range g.kinds {
			s.rows = append(s.rows, row{name: k.name, count: k.count, kinds: 1, met: min(k.count, 1)})
		}
		all = append(all, s)
	}
	return all
}

// each has other rows in every section.
func each(all []section, change func([]row) []row) []section {
	changed := slices.Clone(all)
	for i := range changed {
		changed[i].rows = change(changed[i].rows)
	}
	return changed
}

// inGroup is what a group within a group is called in its line.
var inGroup = map[string]string{"inquiry": "when asked", "void": "when voiding", "operation": "of an action", "callback": "when calling back"}

// nest makes a group like "provider, void" a line of the group "provider".
func nest(all []section) []section {
	var nested []section
	for _, s := range all {
		outer, inner, ok := strings.Cut(s.name, ", ")
		if !ok {
			nested = append(nested, s)
			continue
		}
		i := slices.IndexFunc(nested, func(o section) bool { return o.name == outer })
		if i < 0 {
			i, nested = len(nested), append(nested, section{name: outer})
		}
		if known := inGroup[inner]; known != "" {
			inner = known
		}
		if len(s.rows) == 1 {
			inner += ": " + s.rows[0].name
		}
		nested[i].rows = append(slices.Clip(nested[i].rows), fold(inner, s.rows))
		nested[i].total += s.total
	}
	return nested
}

// families folds kinds that begin with the same word, if there are so many of them.
// The line stands where the most frequent of them stood.
func families(rows []row, size int) []row {
	byWord := map[string][]row{}
	for _, w := range rows {
		if word := firstWord(w.name); w.kinds == 1 {
			byWord[word] = append(byWord[word], w)
		}
	}
	var folded []row
	for _, w := range rows {
		word := firstWord(w.name)
		family := byWord[word]
		switch {
		case w.kinds > 1 || len(family) < size:
			folded = append(folded, w)
		case w == family[0]:
			folded = append(folded, fold(common(family), family))
		}
	}
	return folded
}

func firstWord(name string) string {
	word, _, _ := strings.Cut(plain(name), " ")
	return strings.TrimRight(word, ",;")
}

// common is the words with which all names begin and end: "statement … lost".
func common(rows []row) string {
	begin := strings.Fields(plain(rows[0].name))
	end := begin
	for _, w := range rows[1:] {
		words := strings.Fields(plain(w.name))
		n := 0
		for n < min(len(begin), len(words)) && begin[n] == words[n] {
			n++
		}
		m := 0
		for m < min(len(end), len(words)-n) && end[len(end)-1-m] == words[len(words)-1-m] {
			m++
		}
		begin, end = begin[:n], end[len(end)-m:]
	}
	// The first word may differ in its comma.
	first := strings.TrimRight(strings.Join(begin, " "), ",;")
	if first == "" {
		first = firstWord(rows[0].name)
	}
	return strings.TrimSpace(first + " … " + strings.Join(end, " "))
}

// frequent keeps so many rows, and folds the rarest into the last of them.
func frequent(rows []row, kept int) []row {
	if len(rows) <= kept {
		return rows
	}
	sorted := slices.Clone(rows)
	slices.SortStableFunc(sorted, func(a, b row) int { return cmp.Compare(b.count, a.count) })
	name := "others"
	if kept == 1 {
		name = "all"
	}
	return append(slices.Clip(sorted[:kept-1]), fold(name, sorted[kept-1:]))
}

// place puts the longest section first, each into the column that is shorter by then,
// and leaves the sections of a column in their order.
func place(all []section) [2][]section {
	order := make([]int, len(all))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(all[b].height(), all[a].height()) })
	var places [2][]int
	var heights [2]float64
	for _, i := range order {
		side := 0
		if heights[1] < heights[0] {
			side = 1
		}
		places[side] = append(places[side], i)
		heights[side] += all[i].height() + groupGap
	}
	var sides [2][]section
	for side, is := range places {
		slices.Sort(is)
		for _, i := range is {
			sides[side] = append(sides[side], all[i])
		}
	}
	return sides
}

// fits says whether both columns have room.
func fits(sides [2][]section) bool {
	return max(rowsOf(sides[0]), rowsOf(sides[1])) <= maxRows
}

// rowsOf is how high a column is.
func rowsOf(side []section) float64 {
	h := 0.0
	for i, s := range side {
		h += gapBefore(side, i) + s.height()
	}
	return h
}

// gapBefore is what parts a section from the one above it. Groups of one row each
// are a list.
func gapBefore(side []section, i int) float64 {
	if i == 0 || side[i-1].height() == 1 && side[i].height() == 1 {
		return 0
	}
	return groupGap
}
