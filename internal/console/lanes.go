package console

import (
	"cmp"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/oncepay/oncepay/internal/transactions"
)

// picture is one life as a swim-lane picture, and as the list that says the same in words.
// Time runs downwards, a row a moment; rows are as high as they must be to be read, and
// longer gaps say how long they were.
type picture struct {
	Title  string
	Wide   drawing
	Narrow drawing // for a telephone: nothing in it gets smaller, its words stand above the lanes
	Items  []item
}

// drawing is a picture with a place for everything, in units of its own that are CSS pixels
// where there is room. It is drawn with attributes and classes only: the pages' policy lets
// no style in.
type drawing struct {
	Name          string // a class
	Width, Height int
	Lanes         []laneHead
	Gaps          []gap
	Bars          []bar
	Rows          []row
}

type laneHead struct {
	Name, Icon  string // Icon is an SVG path
	X, Top, End int
	TextX       int
	Anchor      string
}

// gap is the time that passed between two rows, where that is worth a word.
type gap struct {
	X, Y, Width int
	Text        string
	Anchor      string
}

// bar is a lease: from when until when somebody held the transaction.
type bar struct {
	X, Y, Width, Height int
	End                 ending
	Title               string
}

type row struct {
	Href, Label string
	Tone        tone
	Top, Height int
	Texts       []label
	Arrows      []arrow
	Marks       []mark
}

type label struct {
	X, Y   int
	Anchor string // start, middle or end
	Class  string
	Text   string
}

type arrow struct {
	X1, X2, Y int
	Tone      tone
	Back      bool
	Head      string // an SVG path: the point, or the cross where it broke off
	Broken    bool
}

type mark struct {
	X, Y  int
	Path  string // an SVG path around 0,0
	Shape string // a class
	Tone  tone
}

// shape is how a drawing is laid out.
type shape struct {
	name   string
	width  int
	x      [lanes]int
	head   int // height of the lanes' names
	row    int // height of a row with one line of arrows
	line   int // how much a second line adds
	first  int // from the top of a row to its first line of arrows
	gap    int // what is kept free for the words of a gap
	bar    int // how wide a lease is
	glyph  int // how wide a character is, in tenths; generously
	words  bool
	margin int
}

var (
	wide = shape{
		name: "wide", width: 920, x: [lanes]int{200, 416, 632, 848}, head: 58, row: 40, line: 20, first: 24, gap: 26, bar: 12, glyph: 68, margin: 16,
	}
	narrow = shape{
		name: "narrow", width: 336, x: [lanes]int{30, 122, 214, 306}, head: 50, row: 42, line: 14, first: 28, gap: 22, bar: 10, glyph: 64, words: true, margin: 4,
	}
)

// laneNames and laneIcons: a browser, a server, a cylinder, a bank; 16 wide, around 0,0.
var (
	laneNames = [lanes]string{"Client", "API", "Database", "Provider"}
	laneIcons = [lanes]string{
		"M-8-6h16v12h-16zM-8-2h16",
		"M-7-7h14v6h-14zM-7 1h14v6h-14zM-4-4h1M-4 4h1",
		"M-7-5c0-4 14-4 14 0v10c0 4-14 4-14 0zM-7-5c0 4 14 4 14 0M-7 0c0 4 14 4 14 0",
		"M-8-2l8-5 8 5zM-5 0v5M0 0v5M5 0v5M-8 7h16",
	}
)

// shapes are the marks by their names, each around 0,0. They differ in form and not in
// colour alone.
var shapes = map[string]string{
	"dot":     "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",
	"square":  "M-6-6h12v12h-12z",
	"diamond": "M0-8l8 8l-8 8l-8-8z",
	"break":   "M-13 0l5-7l5 14l6-14l5 14l5-7",
	"parked":  "M-9-9h18v18h-18zM-3 6v-12h4a3.500 3.500 0 0 1 0 7h-4",
	"person":  "M-4-5a4 4 0 1 0 8 0a4 4 0 1 0-8 0zM-8 9c0-11 16-11 16 0z",
	"more":    "M-6-4h12M-6 0h12M-6 4h12",
	"clock":   "M-7 0a7 7 0 1 0 14 0a7 7 0 1 0-14 0zM0-4v4l3 2",
}

// layOut makes the picture of a life. prefix is before the names of its items, which are
// where the picture's marks lead to; now is when it is looked at.
func layOut(life transactions.Life, prefix string, now time.Time) picture {
	s := tell(life, prefix, now)
	title := fmt.Sprintf("What happened, in %d steps, from the first request to the last thing known", len(s.scenes))
	return picture{Title: title, Wide: s.draw(wide), Narrow: s.draw(narrow), Items: s.items}
}

// draw gives everything its place.
func (s *story) draw(sh shape) drawing {
	d := drawing{Name: sh.name, Width: sh.width}
	y, at := sh.head, make([]int, len(s.scenes)) // at: the line of each scene that leases are tied to
	for i, sc := range s.scenes {
		if i > 0 {
			if text := later(s.scenes[i-1].time, sc.time); text != "" {
				d.Gaps = append(d.Gaps, sh.gapAt(y, text))
				y += sh.gap
			}
		}
		r := sh.rowOf(sc, y, i == 0 || !sameDay(s.scenes[i-1].time, sc.time))
		at[i] = y + sh.first
		d.Rows = append(d.Rows, r)
		y += r.Height
	}
	for _, h := range s.holds {
		d.Bars = append(d.Bars, sh.barOf(h, at))
	}
	d.Height = y + sh.margin
	for l := range lanes {
		head := laneHead{Name: laneNames[l], Icon: laneIcons[l], X: sh.x[l], Top: sh.head - 8, End: d.Height - sh.margin/2, TextX: sh.x[l], Anchor: "middle"}
		d.Lanes = append(d.Lanes, head)
	}
	return d
}

func (sh shape) gapAt(y int, text string) gap {
	g := gap{X: sh.x[laneClient] - 30, Y: y + sh.gap/2 + 4, Width: sh.width, Text: text, Anchor: "end"}
	if sh.words {
		g.X, g.Anchor = sh.margin, "start"
	}
	return g
}

func (sh shape) barOf(h hold, at []int) bar {
	b := bar{X: sh.x[laneDatabase] - sh.bar/2, Y: at[h.from], Width: sh.bar, Height: max(at[h.to]-at[h.from], sh.bar), End: h.end}
	b.Title = "Held by " + holder(h.by) + ", " + map[ending]string{
		finished: "until it ended", left: "until it was left without an outcome", gone: "until nothing was heard of it any more", held: "until now",
	}[h.end]
	return b
}

func holder(by string) string {
	if by == "request" {
		return "a request"
	}
	return taker(by)
}

// rowOf draws one scene at y.
func (sh shape) rowOf(sc scene, y int, day bool) row {
	r := row{Label: sc.text, Tone: sc.tone, Top: y, Height: sh.row}
	if sc.anchor != "" {
		r.Href = "#" + sc.anchor
	}
	if !sc.time.IsZero() {
		r.Label = sc.time.Format("2006-01-02 15:04:05.000") + " UTC: " + sc.text
	}
	sh.when(&r, sc, day)
	line := y + sh.first
	for i, st := range sc.strokes {
		// Strokes that share a part of their way are below each other.
		if i > 0 && overlap(sc.strokes[0], st) {
			line = y + sh.first + sh.line
			r.Height = sh.row + sh.line
		}
		sh.stroke(&r, st, line)
	}
	for _, sp := range sc.spots {
		sh.spot(&r, sp, y+sh.first, sc)
	}
	return r
}

// when writes a row's time, and on narrow screens its words.
func (sh shape) when(r *row, sc scene, day bool) {
	clock := "now"
	if !sc.time.IsZero() && sc.anchor != "" {
		clock = sc.time.Format("15:04:05.000")
	}
	if !sh.words {
		x := sh.x[laneClient] - 30
		r.Texts = append(r.Texts, label{x, r.Top + sh.first + 4, "end", "time", clock})
		if day && sc.anchor != "" && !sc.time.IsZero() {
			r.Texts = append(r.Texts, label{x, r.Top + sh.first - 11, "end", "day", sc.time.Format("2006-01-02")})
		}
		return
	}
	if sc.anchor == "" {
		r.Texts = append(r.Texts, label{sh.margin, r.Top + 13, "start", "say " + string(sc.tone), sh.fit(cmp.Or(sc.brief, sc.text), sh.width-2*sh.margin)})
		return
	}
	short := sc.time.Format("15:04:05")
	r.Texts = append(r.Texts,
		label{sh.margin, r.Top + 13, "start", "time", short},
		label{sh.margin + 62, r.Top + 13, "start", "say " + string(sc.tone), sh.fit(cmp.Or(sc.brief, sc.text), sh.width-2*sh.margin-62)})
}

// overlap says whether two strokes share a part of their way.
func overlap(a, b stroke) bool {
	return min(a.from, a.to) < max(b.from, b.to) && min(b.from, b.to) < max(a.from, a.to)
}

// stroke draws a message and says what it is.
func (sh shape) stroke(r *row, st stroke, y int) {
	from, to := sh.x[st.from], sh.x[st.to]
	way := 1
	if to < from {
		way = -1
	}
	a := arrow{X1: from + 8*way, X2: to - 8*way, Y: y, Tone: st.tone, Back: way < 0, Broken: st.broken}
	switch {
	case st.broken:
		// It is broken off half-way between the provider and the lane before it.
		a.X2 = (sh.x[laneDatabase]+sh.x[laneProvider])/2 + way*6
		a.Head = fmt.Sprintf("M%d %dl10 10m0-10l-10 10", a.X2-5+way*8, y-5)
	default:
		a.Head = fmt.Sprintf("M%d %dl%d-5v10z", a.X2+2*way, y, -9*way)
	}
	r.Arrows = append(r.Arrows, a)
	if sh.words || st.label == "" {
		return
	}
	// What goes to the provider is labelled before the database's lane, what comes from it
	// behind: leases are in between.
	left, right := min(from, to), max(from, to)
	switch {
	case st.broken && way < 0: // beside its cross
		left = a.X2 + sh.bar
	case right-left > sh.x[laneAPI]-sh.x[laneClient]:
		if way > 0 {
			right = sh.x[laneDatabase]
		} else {
			left = sh.x[laneDatabase]
		}
	}
	r.Texts = append(r.Texts, label{(left + right) / 2, y - 6, "middle", "arrow " + string(st.tone), sh.fit(st.label, right-left-2*sh.bar)})
}

// spot draws a mark and, right of it, what it is.
func (sh shape) spot(r *row, sp spot, y int, sc scene) {
	if path, ok := shapes[sp.shape]; ok {
		r.Marks = append(r.Marks, mark{X: sh.x[sp.at], Y: y, Path: path, Shape: sp.shape, Tone: sp.tone})
	}
	if sh.words || sp.label == "" {
		return
	}
	const beside = 18
	room := sh.width - sh.margin - sh.x[sp.at] - beside
	if sp.at < laneProvider {
		room = min(room, sh.x[sp.at+1]-sh.x[sp.at]-2*beside)
	}
	l := label{sh.x[sp.at] + beside, y + 4, "start", "mark " + string(sp.tone), ""}
	for _, st := range sc.strokes { // right of it is a message: below that
		if min(st.from, st.to) <= sp.at && sp.at < max(st.from, st.to) {
			l.Y = y + 16
		}
	}
	if sp.at == laneProvider {
		l = label{sh.x[sp.at] - beside, y + 4, "end", "mark " + string(sp.tone), ""}
		room = sh.x[laneProvider] - (sh.x[laneDatabase]+sh.x[laneProvider])/2 - 2*beside
	}
	l.Text = sh.fit(sp.label, room)
	r.Texts = append(r.Texts, l)
}

// fit shortens a text to a width. The list has it in full.
func (sh shape) fit(text string, width int) string {
	most := max(width*10/sh.glyph, 1)
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:most-1]) + "…"
}

// later says how long nothing happened, if that was a second or more.
func later(before, after time.Time) string {
	if before.IsZero() || after.IsZero() || after.Sub(before) < time.Second {
		return ""
	}
	return duration(after.Sub(before)) + " later"
}

func sameDay(a, b time.Time) bool { return a.YearDay() == b.YearDay() && a.Year() == b.Year() }
