package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// The picture's grid, in its own units; GitHub shows it about that wide, so that a
// unit is a pixel there. All text is in columns, and each piece knows how much room
// it has.
const (
	svgWidth = 880
	edge     = 36
	content  = svgWidth - 2*edge
	cells    = 4 // of the headline, and of the last lines
	cell     = content / cells

	// The faults have two columns on the left, the crash points one on the right.
	gutter      = 24
	pointsWidth = 184
	faultsWidth = content - pointsWidth - gutter // the two, and a gutter between them
	pointsLeft  = svgWidth - edge - pointsWidth
	onceLeft    = pointsLeft + 106
	twiceLeft   = onceLeft + 44

	lead      = 21 // from one line of prose to the next
	pitch     = 18 // from one row to the next, in all three columns
	titleGap  = 26 // from a column's title to its first row
	minPitch  = 14 // of the crash points, if they are many
	barHeight = 15 // behind its text
	inset     = 7  // of the text in it
	proseSize = 13.5
	rowSize   = 12.5
	smallSize = 11.5
	bigSize   = 44
	dot       = 5
)

// SVG draws the campaign for the README: what was counted, what was done to the
// product, and where. It stands alone, follows the reader's light or dark mode, and
// is the same for the same Result.
func SVG(w io.Writer, r Result) error {
	var p picture
	y := p.headline(r)
	left := p.bars(r, y)
	right := p.matrix(r, y)
	height := p.foot(r, max(left, right)) + edge - 8

	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-labelledby="campaign-title campaign-desc">`+"\n",
		svgWidth, height)
	fmt.Fprintf(&out, `<title id="campaign-title">%s</title>`+"\n", xmlText(strings.Join(headlines(r), " · ")))
	fmt.Fprintf(&out, `<desc id="campaign-desc">%s</desc>`+"\n", xmlText(describe(r)))
	out.WriteString(svgStyle)
	fmt.Fprintf(&out, `<rect class="paper" x="0.5" y="0.5" width="%d" height="%d" rx="10"/>`+"\n", svgWidth-1, height-1)
	out.Write(p.Bytes())
	out.WriteString("</svg>\n")
	_, err := w.Write(out.Bytes())
	return err
}

// svgStyle has every colour twice. The paper is drawn, because the page behind it
// need not be of the mode that the browser is in.
const svgStyle = `<style>
text{font-family:-apple-system,BlinkMacSystemFont,"Segoe UI","Noto Sans",Helvetica,Arial,sans-serif;font-size:12.5px;fill:#1f2328;font-variant-numeric:tabular-nums}
.small{font-size:11.5px}.prose{font-size:13.5px}.muted{fill:#5c646d}.strong{font-weight:600}.end{text-anchor:end}.good{fill:#0a7d53}.bad{fill:#c4283a}
.big{font-weight:600;letter-spacing:-.02em}
.paper{fill:#fff;stroke:#d8dee4}.rule{stroke:#d8dee4}.hollow{fill:none;stroke:#a9b1ba;stroke-width:1.25}.bar{fill-opacity:.2}
.process{fill:#c2613f}.provider{fill:#3f73b8}.database{fill:#7f5fb0}.client{fill:#a37a1f}.other{fill:#6b7785}
@media (prefers-color-scheme:dark){
text{fill:#e6edf3}.muted{fill:#9aa4af}.good{fill:#3ddc97}.bad{fill:#ff7b72}
.paper{fill:#0d1117;stroke:#30363d}.rule{stroke:#30363d}.hollow{stroke:#59626c}.bar{fill-opacity:.32}
.process{fill:#e0835f}.provider{fill:#6ea3e8}.database{fill:#ab8fe0}.client{fill:#d3a94a}.other{fill:#8b949e}
}
</style>
`

// headlines are the four numbers of the picture, in words.
func headlines(r Result) []string {
	return []string{
		count(r.Nonces, "nonce", "nonces"), count(r.faults(), "fault", "faults"),
		count(r.DoubleCharges, "double charge", "double charges"), number(r.Lost) + " lost",
	}
}

// describe is the picture for those who do not see it.
func describe(r Result) string {
	var b strings.Builder
	b.WriteString(r.verdict())
	for _, g := range r.groups() {
		fmt.Fprintf(&b, " Faults, %s: %s.", g.name, number(g.total))
	}
	once, twice := 0, 0
	for _, p := range r.Points {
		once += min(p.Once, 1)
		twice += min(p.Twice, 1)
	}
	fmt.Fprintf(&b, " Of %s, %d were hit once and %d twice in a row.", count(len(r.Points), "crash point", "crash points"), once, twice)
	for _, f := range footFacts(r) {
		fmt.Fprintf(&b, " %s: %s.", strings.ToUpper(f.name[:1])+f.name[1:], strings.ReplaceAll(f.value, "\n", ", "))
	}
	return b.String()
}

// picture gathers elements. Only positions that were worked out go into it.
type picture struct{ bytes.Buffer }

// text writes one line at a baseline, shortened to the room there is.
func (p *picture) text(x, y float64, class, s string, size, room float64) {
	fmt.Fprintf(p, `<text x="%s" y="%s" class="%s">%s</text>`+"\n", coordinate(x), coordinate(y), class, xmlText(fit(s, size, room)))
}

// headline is the large type: what was tried and what must be zero. It returns where
// the next part begins.
func (p *picture) headline(r Result) float64 {
	size := float64(bigSize)
	for _, h := range headlines(r) {
		n, _, _ := strings.Cut(h, " ")
		size = min(size, (cell-14)/textWidth(n, 1.06)) // bold is wider
	}
	const baseline = edge + 36
	for i, h := range headlines(r) {
		class := ""
		switch promised := i >= 2; {
		case promised && strings.HasPrefix(h, "0 "):
			if r.Charges > 0 { // else it is no achievement
				class = " good"
			}
		case promised:
			class = " bad"
		}
		n, what, _ := strings.Cut(h, " ")
		x := float64(edge + i*cell)
		fmt.Fprintf(p, `<text x="%s" y="%d" class="big%s" style="font-size:%spx">%s</text>`+"\n",
			coordinate(x), baseline, class, coordinate(size), xmlText(n))
		p.text(x, baseline+24, "prose muted", what, proseSize, cell-10)
	}
	y := float64(baseline + 54)
	for _, l := range pack(summary(r), " · ", proseSize, content) {
		p.text(edge, y, "prose muted", l, proseSize, content)
		y += lead
	}
	if why := r.failures(); len(why) > 0 {
		for _, l := range pack(append([]string{"FAILED"}, why...), " · ", proseSize*1.08, content) {
			p.text(edge, y, "prose strong bad", l, proseSize*1.08, content)
			y += lead
		}
	}
	p.rule(y - 5)
	return y + 25
}

// summary is what stands below the headline, in pieces that are not broken.
func summary(r Result) []string {
	s := []string{
		count(r.Operations, "operation", "operations"), number(r.Charges) + " charges in the provider's ledger",
	}
	if r.Captures+r.Cancellations+r.Refunds > 0 {
		s = append(s, count(r.Captures, "capture", "captures"), count(r.Cancellations, "cancellation", "cancellations"), count(r.Refunds, "refund", "refunds"))
	}
	s = append(s, number(r.Acknowledged)+" acknowledged", number(r.Unresolved)+" unresolved")
	if r.Parked > 0 {
		s = append(s, number(r.Parked)+" parked for a person")
	}
	if r.Undecided > 0 {
		s = append(s, number(r.Undecided)+" undecided")
	}
	if len(r.Oracles) > 0 {
		s = append(s, count(len(r.Oracles), "oracle", "oracles"))
	}
	s = append(s, count(len(r.Violations), "violation", "violations"))
	if len(r.Mutants) > 0 {
		s = append(s, fmt.Sprintf("%s of %s mutants caught", number(caught(r.Mutants)), number(len(r.Mutants))))
	}
	return s
}

// bars are the faults by kind, each with a bar behind its name. A bar's length is the
// root of its number: the rare ones are seen, and more is still longer.
func (p *picture) bars(r Result, y float64) float64 {
	sides := r.columns()
	widths, counts := shares(sides)
	most := 1
	for _, s := range append(slices.Clone(sides[0]), sides[1]...) {
		for _, w := range s.rows {
			most = max(most, w.count)
		}
	}
	unit := (min(widths[0], widths[1]) - counts) / math.Sqrt(float64(most))

	p.text(edge, y, "strong", "Faults by kind", rowSize*1.08, faultsWidth/2)
	p.text(edge+faultsWidth, y, "small muted end", "bar: square root of the count", smallSize, faultsWidth/2)
	y += titleGap
	lowest := y
	x := float64(edge)
	for i, side := range sides {
		at := y
		for j, s := range side {
			at = p.section(s, frame{x: x, width: widths[i], counts: counts, unit: unit}, at+gapBefore(side, j)*pitch)
		}
		lowest = max(lowest, at)
		x += widths[i] + gutter
	}
	return lowest
}

// shares are the widths of the two columns, each as its names need it, and of the
// numbers at their right.
func shares(sides [2][]section) ([2]float64, float64) {
	var needs [2]float64
	counts := 0.0
	for i, side := range sides {
		for _, s := range side {
			counts = max(counts, textWidth(number(s.total), smallSize)*1.08)
			for _, w := range s.titled() {
				n := textWidth(number(w.count), smallSize)
				counts = max(counts, n)
				needs[i] = max(needs[i], math.Ceil(textWidth(plain(w.name)+w.note(), rowSize)+n+2*inset+1))
			}
		}
	}
	counts = math.Ceil(counts) + 6
	const both = faultsWidth - gutter
	left := needs[0] + (both-needs[0]-needs[1])/2
	if needs[0]+needs[1] > both {
		left = both * needs[0] / (needs[0] + needs[1])
	}
	left = math.Round(min(max(left, 0.42*both), 0.58*both))
	return [2]float64{left, both - left}, counts
}

// frame is where a section is drawn.
type frame struct{ x, width, counts, unit float64 }

// titled are the rows of a section; a single one has the section's name before it.
func (s section) titled() []row {
	if len(s.rows) != 1 {
		return s.rows
	}
	only := s.rows[0]
	only.name = s.name + ": " + only.name
	return []row{only}
}

// section is a group of faults. It returns where the next one begins.
func (p *picture) section(s section, f frame, y float64) float64 {
	color := colorOf(s.name)
	right := f.x + f.width
	if len(s.rows) > 1 {
		fmt.Fprintf(p, `<rect class="%s" x="%s" y="%s" width="9" height="9" rx="2"/>`+"\n", color, coordinate(f.x), coordinate(y-9))
		p.text(f.x+16, y, "strong", s.name, rowSize*1.08, f.width-f.counts-16)
		p.text(right, y, "small strong end", number(s.total), smallSize*1.08, f.counts)
		y += pitch
	}
	for _, w := range s.titled() {
		class := "muted"
		if w.count > 0 {
			class = ""
			fmt.Fprintf(p, `<rect class="bar %s" x="%s" y="%s" width="%s" height="%d" rx="2"/>`+"\n", color,
				coordinate(f.x), coordinate(y-11.5), coordinate(max(2, f.unit*math.Sqrt(float64(w.count)))), barHeight)
		}
		n := textWidth(number(w.count), smallSize)
		room := f.width - n - 2*inset
		name := fit(w.name, rowSize, room-textWidth(w.note(), rowSize)) // what it says of its kinds is never cut off
		note := ""
		if w.note() != "" {
			note = ` <tspan class="muted">` + xmlText(w.note()) + "</tspan>"
		}
		fmt.Fprintf(p, `<text x="%s" y="%s" class="%s">%s%s</text>`+"\n",
			coordinate(f.x+inset), coordinate(y), class, xmlText(name), note)
		p.text(right, y, "small muted end", number(w.count), smallSize, n+1)
		y += pitch
	}
	return y
}

// matrix is the crash points: a dot is filled if a process was killed there. Its rows
// are those of the faults, as long as there is room.
func (p *picture) matrix(r Result, y float64) float64 {
	const right = svgWidth - edge
	p.text(pointsLeft, y, "strong", "Killed at", rowSize*1.08, onceLeft-pointsLeft-dot-6)
	p.text(onceLeft-dot, y, "small muted", "once", smallSize, twiceLeft-onceLeft)
	p.text(twiceLeft-dot, y, "small muted", "twice", smallSize, right-twiceLeft+dot)
	y += titleGap
	step := min(pitch, max(minPitch, maxRows*pitch/float64(max(1, len(r.Points)))))
	for _, c := range r.Points {
		class := "small"
		if c.Once+c.Twice == 0 {
			class = "small muted"
		}
		p.text(pointsLeft, y, class, c.Name, smallSize, onceLeft-pointsLeft-dot-6)
		p.dot(onceLeft, y, c.Once, twiceLeft-onceLeft-2*dot-6)
		p.dot(twiceLeft, y, c.Twice, right-twiceLeft-dot-5)
		y += step
	}
	if len(r.Points) == 0 {
		p.text(pointsLeft, y, "muted", "no crash points", rowSize, right-pointsLeft)
		y += pitch
	}
	return y
}

// dot is one place of the matrix, with its number beside it.
func (p *picture) dot(x, y float64, n int, room float64) {
	class := "process"
	if n == 0 {
		class = "hollow"
	}
	fmt.Fprintf(p, `<circle class="%s" cx="%s" cy="%s" r="%s"/>`+"\n", class, coordinate(x), coordinate(y-4), coordinate(dot-0.5))
	p.text(x+dot+5, y, "small muted", brief(n), smallSize, room)
}

// foot is what somebody needs to run the campaign again, and how long things took.
// It returns the picture's lowest line.
func (p *picture) foot(r Result, y float64) int {
	y += 4
	p.rule(y)
	y += 25
	lowest := y
	for i, f := range footFacts(r) {
		x, at := float64(edge+i*cell), y
		p.text(x, at, "small muted", f.name, smallSize, cell-10)
		for part := range strings.SplitSeq(f.value, "\n") {
			at += pitch + 1
			p.text(x, at, "", part, rowSize, cell-10)
		}
		lowest = max(lowest, at)
	}
	return int(math.Ceil(lowest))
}

// footFacts are the cells of the last lines; a value may have more than one.
func footFacts(r Result) []fact {
	recovery := "none measured"
	if c := r.Recovery; c.Count > 0 {
		recovery = fmt.Sprintf("p50 %s, p99 %s, max %s", human(c.P50), human(c.P99), human(c.Max))
	}
	all := []fact{
		{"seeds", r.seeds()}, {"commit", r.commit()}, {"from fault to end", recovery},
		{"took", human(r.Took) + ", " + human(r.Summed) + " summed"},
	}
	for i, f := range all {
		all[i].value = strings.Join(pack(strings.Split(f.value, ", "), ", ", rowSize, cell-10), "\n")
	}
	return all
}

func (p *picture) rule(y float64) {
	fmt.Fprintf(p, `<line class="rule" x1="%d" y1="%s" x2="%d" y2="%s"/>`+"\n", edge, coordinate(y), svgWidth-edge, coordinate(y))
}

// colorOf is a group's class. What the campaign may add later is grey.
func colorOf(name string) string {
	name, _, _ = strings.Cut(name, ",")
	for _, known := range groupOrder {
		if name == known {
			return known
		}
	}
	return "other"
}

// brief is a number for little room.
func brief(n int) string {
	switch {
	case n < 1000:
		return number(n)
	case n < 10_000:
		return fmt.Sprintf("%d.%dk", n/1000, n/100%10)
	case n < 1_000_000:
		return number(n/1000) + "k"
	default:
		return number(n/1_000_000) + "M"
	}
}

// pack puts pieces on as few lines as the room allows.
func pack(pieces []string, between string, size, room float64) []string {
	var lines []string
	for _, piece := range pieces {
		if n := len(lines); n > 0 && textWidth(lines[n-1]+between+piece, size) <= room {
			lines[n-1] += between + piece
			continue
		}
		lines = append(lines, piece)
	}
	return lines
}

// fit shortens a text to the room there is.
func fit(s string, size, room float64) string {
	s = plain(s)
	if textWidth(s, size) <= room {
		return s
	}
	used := textWidth("…", size)
	for i, c := range s {
		if used += textWidth(string(c), size); used > room {
			s = s[:i]
			break
		}
	}
	return strings.TrimRight(s, " ") + "…"
}

// textWidth is how wide a text is at most. The reader's font is not known; these
// are the widths of DejaVu Sans, rounded up, and no usual font is wider.
func textWidth(s string, size float64) float64 {
	em := 0.0
	for _, c := range s {
		switch {
		case strings.ContainsRune("ijlI", c):
			em += 0.3
		case strings.ContainsRune(" .,:;'|!·", c):
			em += 0.34
		case strings.ContainsRune("ftr()[]/-J\"", c):
			em += 0.41
		case strings.ContainsRune("mMwWOQ@%&#+=<>~…", c):
			em += 1
		case c >= 'A' && c <= 'Z':
			em += 0.74
		case c < 0x250 || c == '–':
			em += 0.64
		default:
			em++
		}
	}
	return em * size
}

// coordinate writes a number with one decimal at most.
func coordinate(f float64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0")
}

// xmlText is a text as XML has it.
func xmlText(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(plain(s))) // a Builder takes everything
	return b.String()
}
