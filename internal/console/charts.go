package console

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/oncepay/oncepay/internal/telemetry"
)

// A chart is drawn in two systems. Lines are in a plot of chartWidth by chartHeight that is
// stretched to whatever room there is, and keep their strength. Words are beside it, at
// percents of the width, and keep their size, so that a chart can be read on a telephone.
const (
	chartWidth  = 1000
	chartTop    = 8   // px above the plot: half a word at its upper rule
	chartHeight = 150 // px
	chartFoot   = 24  // px below it, for the times
	chartDash   = 5   // half the length of what a value between two gaps is drawn as
	chartSide   = 52  // px beside it, for the values: "1,500" and "100 ms"

	// maxTicks is how many times fit below a chart; on a telephone every other is shown.
	maxTicks = 8
)

// chart is a picture of one series of figures, with what it says in words.
type chart struct {
	ID    string
	Title string
	Hint  string // how it is to be read
	Says  string // for whoever does not see it
	Empty string // said in its place where there is nothing to draw
	Lines []chartLine
	Rules []chartRule
	Ticks []chartTick
	Spots []chartSpot
}

// Box is what the template needs of the constants.
func (chart) Box() (b struct{ Width, Top, Height, Whole, Words, Side, Values int }) {
	b.Width, b.Top, b.Height, b.Side, b.Values = chartWidth, chartTop, chartHeight, chartSide, chartSide-8
	b.Whole, b.Words = chartTop+chartHeight+chartFoot, chartTop+chartHeight+chartFoot-6
	return b
}

// chartLine is one line. Its class gives it a colour and a pattern, so that it can be told
// from the others without colours.
type chartLine struct {
	Name, Class  string
	Latest       string // what it came to last
	Stroke, Area string // paths in the plot; no area: ""
}

// chartRule is a horizontal line at a round value.
type chartRule struct {
	Y     int // in the plot
	WordY int // of its word's foot, below the top of the whole chart
	Word  string
}

// chartTick is a time.
type chartTick struct {
	X      string // percent of the width
	Anchor string
	Word   string
	Minor  bool // left out where there is little room
}

// chartSpot is where a pointer is told the figures of one step.
type chartSpot struct{ X, Width, Words string }

// sample is a value at a step; one that is not known leaves a gap.
type sample struct {
	value float64
	known bool
	words string // as it is told; "": as the chart writes numbers
}

// scale turns a value into a height above the plot's foot, 0 to 1.
type scale struct {
	of    func(float64) float64
	rules []float64
	write func(float64) string
}

// graph is what a chart is made of.
type graph struct {
	id, title, hint, empty string
	area                   bool // below the first line
	scale                  func(least, most float64) scale
	lines                  []graphLine
}

type graphLine struct {
	name, class string
	samples     []sample
}

// chartsOf draws the figures of a series.
func chartsOf(s telemetry.Series) []chart {
	n := len(s.Points)
	rate, failed, replayed, conflicts := make([]sample, n), make([]sample, n), make([]sample, n), make([]sample, n)
	p50, p95, p99 := make([]sample, n), make([]sample, n), make([]sample, n)
	var asked, failures int64
	for i, p := range s.Points {
		rate[i], failed[i] = aMinute(p.Requests, p.Covered), aMinute(p.Failures, p.Covered)
		replayed[i], conflicts[i] = share(p.Replayed, p.Nonces()), share(p.Conflicts, p.Nonces())
		p50[i], p95[i], p99[i] = latency(p.Quantile(.5)), latency(p.Quantile(.95)), latency(p.Quantile(.99))
		asked, failures = asked+p.Requests, failures+p.Failures
	}
	requests := graph{
		id: "rate", title: "Requests a minute", hint: "What merchants and their customers asked, probes left out.", empty: "Nobody has asked anything in this time.",
		area: true, scale: fromZero(writeNumber), lines: []graphLine{{"all", "first", rate}},
	}
	if failures > 0 {
		requests.lines = append(requests.lines, graphLine{"answered with 5xx", "alarm", failed})
	}
	if asked == 0 {
		requests.lines = nil
	}
	return []chart{
		requests.draw(s),
		graph{
			id: "latency", title: "How long they took", hint: "Estimated, the provider's time included. Each rule is ten times the one below.", empty: "Nobody has waited for anything in this time.",
			scale: decades, lines: []graphLine{{"p50", "first", p50}, {"p95", "second", p95}, {"p99", "third", p99}},
		}.draw(s),
		graph{
			id: "nonces", title: "Repeated nonces", hint: "Of all requests with a nonce: told the first answer again, or refused because of it.", empty: "No request had a nonce in this time.",
			area: true, scale: percents, lines: []graphLine{{"replayed", "first", replayed}, {"conflicts", "third", conflicts}},
		}.draw(s),
	}
}

func aMinute(n int64, covered time.Duration) sample {
	if covered <= 0 {
		return sample{}
	}
	return sample{value: float64(n) / covered.Minutes(), known: true}
}

func share(n, of int64) sample {
	if of <= 0 {
		return sample{}
	}
	return sample{value: float64(n) / float64(of), known: true}
}

func latency(e telemetry.Estimate) sample {
	return sample{value: e.At.Seconds(), known: e.Known, words: writeEstimate(e)}
}

// draw makes the chart of a graph over the steps of s.
func (g graph) draw(s telemetry.Series) chart {
	c := chart{ID: g.id, Title: g.title, Hint: g.hint, Empty: g.empty}
	least, most, some := extremes(g.lines)
	if !some {
		c.Says = g.title + ": " + g.empty
		return c
	}
	c.Empty = ""
	scale := g.scale(least, most)
	for _, r := range scale.rules {
		y := heightAt(scale, r)
		c.Rules = append(c.Rules, chartRule{Y: int(math.Round(y)), WordY: chartTop + int(math.Round(y)) + 4, Word: scale.write(r)})
	}
	for i, l := range g.lines {
		drawn := chartLine{Name: l.name, Class: l.class, Latest: latest(l.samples, scale.write)}
		drawn.Stroke, drawn.Area = paths(l.samples, scale)
		if !g.area || i > 0 {
			drawn.Area = ""
		}
		c.Lines = append(c.Lines, drawn)
	}
	c.Ticks, c.Spots = ticks(s), g.spots(s, scale.write)
	c.Says = g.says(s, scale.write)
	return c
}

// extremes are those of all values that are known.
func extremes(lines []graphLine) (least, most float64, some bool) {
	least, most = math.Inf(1), math.Inf(-1)
	for _, l := range lines {
		for _, v := range l.samples {
			if v.known {
				least, most, some = min(least, v.value), max(most, v.value), true
			}
		}
	}
	return least, most, some
}

// heightAt is where a value is in the plot, whose y grows downwards.
func heightAt(s scale, v float64) float64 {
	return chartHeight * (1 - min(1, max(0, s.of(v))))
}

// paths are the line through all known values, broken where there are none, and the area
// below it. A value between two gaps is a short dash.
func paths(samples []sample, s scale) (stroke, area string) {
	var line, below strings.Builder
	width := chartWidth / float64(len(samples))
	for from := 0; from < len(samples); from++ {
		to := from
		for to < len(samples) && samples[to].known {
			to++
		}
		if to == from {
			continue
		}
		var corners []string
		for i := from; i < to; i++ {
			corners = append(corners, coordinates((float64(i)+.5)*width, heightAt(s, samples[i].value)))
		}
		if len(corners) == 1 {
			x, y := (float64(from)+.5)*width, heightAt(s, samples[from].value)
			corners = []string{coordinates(max(0, x-chartDash), y), coordinates(min(chartWidth, x+chartDash), y)}
		}
		line.WriteString("M" + strings.Join(corners, "L"))
		below.WriteString("M" + coordinates((float64(from)+.5)*width, chartHeight) + "L" + strings.Join(corners, "L"))
		below.WriteString("L" + coordinates((float64(to)-.5)*width, chartHeight) + "Z")
		from = to
	}
	return line.String(), below.String()
}

func coordinates(x, y float64) string {
	return strconv.FormatFloat(x, 'f', 1, 64) + " " + strconv.FormatFloat(y, 'f', 1, 64)
}

// latest is the last value that is known.
func latest(samples []sample, write func(float64) string) string {
	for i := len(samples) - 1; i >= 0; i-- {
		if samples[i].known {
			return samples[i].say(write)
		}
	}
	return "none"
}

func (v sample) say(write func(float64) string) string {
	switch {
	case !v.known:
		return "–"
	case v.words != "":
		return v.words
	}
	return write(v.value)
}

// says is the chart in words: where each line begins, ends and is highest.
func (g graph) says(s telemetry.Series, write func(float64) string) string {
	first, last := s.Points[0], s.Points[len(s.Points)-1]
	var b strings.Builder
	fmt.Fprintf(&b, "%s, from %s to %s UTC.", g.title, formatMoment(first.Begin), formatMoment(last.Begin.Add(last.Covered)))
	for _, l := range g.lines {
		top := sample{}
		for _, v := range l.samples {
			if v.known && (!top.known || v.value > top.value) {
				top = v
			}
		}
		fmt.Fprintf(&b, " %s: %s at most, %s last.", l.name, top.say(write), latest(l.samples, write))
	}
	return b.String()
}

// spots tell the figures of each step.
func (g graph) spots(s telemetry.Series, write func(float64) string) []chartSpot {
	width := chartWidth / float64(len(s.Points))
	all := make([]chartSpot, 0, len(s.Points))
	for i, p := range s.Points {
		words := []string{formatStep(p) + " UTC"}
		for _, l := range g.lines {
			words = append(words, l.name+" "+l.samples[i].say(write))
		}
		all = append(all, chartSpot{
			X: strconv.FormatFloat(float64(i)*width, 'f', 2, 64), Width: strconv.FormatFloat(width, 'f', 2, 64), Words: strings.Join(words, "\n"),
		})
	}
	return all
}

// tickSteps are the distances of times that people like.
var tickSteps = []time.Duration{
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour,
	24 * time.Hour, 48 * time.Hour, 96 * time.Hour, 192 * time.Hour,
}

// ticks are round times between a series' beginning and its end.
func ticks(s telemetry.Series) []chartTick {
	begin, span := s.Points[0].Begin, s.Step*time.Duration(len(s.Points))
	every := tickSteps[len(tickSteps)-1]
	for _, step := range tickSteps {
		if span < (maxTicks+1)*step { // a series may begin a step earlier than it was asked to
			every = step
			break
		}
	}
	var all []chartTick
	at := begin.Truncate(every)
	if at.Before(begin) {
		at = at.Add(every)
	}
	for ; !at.After(begin.Add(span)); at = at.Add(every) {
		percent := 100 * float64(at.Sub(begin)) / float64(span)
		t := chartTick{X: strconv.FormatFloat(percent, 'f', 2, 64), Anchor: "middle", Word: at.Format("15:04"), Minor: at.Unix()/int64(every/time.Second)%2 != 0}
		if at.Equal(at.Truncate(24 * time.Hour)) {
			t.Word = at.Format("2 Jan")
		}
		switch {
		case percent < 3:
			t.Anchor = "start"
		case percent > 97:
			t.Anchor = "end"
		}
		all = append(all, t)
	}
	return all
}

// fromZero is a linear scale from zero to the round number above the highest value.
func fromZero(write func(float64) string) func(least, most float64) scale {
	return func(_, most float64) scale {
		step := niceStep(most / 3)
		top := step * math.Max(1, math.Ceil(most/step-1e-9))
		s := scale{of: func(v float64) float64 { return v / top }, write: write}
		for i := 0; step*float64(i) <= top*(1+1e-9); i++ {
			s.rules = append(s.rules, step*float64(i))
		}
		return s
	}
}

// percents are shares. The scale never shows less than five in a hundred, so that a single
// repeat is no mountain.
func percents(_, most float64) scale {
	return fromZero(writeShare)(0, min(1, max(most, .05)))
}

// niceStep is the least of 1, 2 and 5 times a power of ten that is not below v.
func niceStep(v float64) float64 {
	if v <= 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, n := range []float64{1, 2, 5} {
		if n*power >= v*(1-1e-9) {
			return n * power
		}
	}
	return 10 * power
}

// Latencies are shown from a millisecond to a hundred seconds: below, buckets tell nothing,
// and above is only "longer than a minute".
const leastDecade, mostDecade = -3, 2

// decades is a logarithmic scale of seconds, in whole powers of ten: a replay takes
// milliseconds and a provider seconds, and both are to be seen.
func decades(least, most float64) scale {
	low, high := leastDecade, mostDecade
	for low < mostDecade-1 && math.Pow10(low+1) <= least {
		low++
	}
	for high > low+1 && math.Pow10(high-1) >= most {
		high--
	}
	s := scale{write: writeSeconds, of: func(v float64) float64 {
		if v <= 0 {
			return 0
		}
		return (math.Log10(v) - float64(low)) / float64(high-low)
	}}
	for d := low; d <= high; d++ {
		s.rules = append(s.rules, math.Pow10(d))
	}
	return s
}

// writeNumber writes a number that is not negative, to three digits where it is small.
func writeNumber(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 10:
		return trimmed(v, 2)
	case v < 100:
		return trimmed(v, 1)
	case v < 1e5:
		return grouped(int64(math.Round(v)))
	case v < 1e6:
		return trimmed(v/1e3, 0) + " k"
	case v < 1e9:
		return trimmed(v/1e6, 1) + " M"
	}
	return trimmed(v/1e9, 1) + " G"
}

// trimmed is v with so many decimals, and without zeros at the end.
func trimmed(v float64, decimals int) string {
	s := strconv.FormatFloat(v, 'f', decimals, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// grouped writes a number with a comma between thousands.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func writeShare(v float64) string {
	if v > 0 && v < .001 {
		return "<0.1 %"
	}
	return trimmed(100*v, 1) + " %"
}

func writeSeconds(v float64) string {
	switch {
	case v < .01:
		return trimmed(1000*v, 1) + " ms"
	case v < 1:
		return trimmed(1000*v, 0) + " ms"
	case v < 10:
		return trimmed(v, 1) + " s"
	}
	return trimmed(v, 0) + " s"
}

// writeEstimate writes a quantile of latencies.
func writeEstimate(e telemetry.Estimate) string {
	switch {
	case !e.Known:
		return "–"
	case e.Beyond:
		return ">" + writeSeconds(e.At.Seconds())
	}
	return writeSeconds(e.At.Seconds())
}

// formatMoment is a time to the minute, in UTC.
func formatMoment(t time.Time) string { return t.UTC().Format("2 Jan 15:04") }

// formatStep says which time a step covers.
func formatStep(p telemetry.Point) string {
	if p.Covered <= time.Minute {
		return formatMoment(p.Begin)
	}
	end := p.Begin.Add(p.Covered).UTC()
	return formatMoment(p.Begin) + " to " + end.Format("15:04")
}

// figure is one row of the table that says what the charts show.
type figure struct {
	When, Rate, Failures, P50, P95, P99, Began, Replayed, Conflicts string
}

// figures are all steps in which something was asked, the newest first.
func figures(s telemetry.Series) []figure {
	var all []figure
	for i := len(s.Points) - 1; i >= 0; i-- {
		p := s.Points[i]
		if p.Requests == 0 {
			continue
		}
		all = append(all, figure{
			When: formatStep(p), Rate: aMinute(p.Requests, p.Covered).say(writeNumber), Failures: grouped(p.Failures),
			P50: writeEstimate(p.Quantile(.5)), P95: writeEstimate(p.Quantile(.95)), P99: writeEstimate(p.Quantile(.99)),
			Began: grouped(p.Began), Replayed: grouped(p.Replayed), Conflicts: grouped(p.Conflicts),
		})
	}
	return all
}
