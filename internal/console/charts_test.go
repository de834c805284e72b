package console

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/telemetry"
)

// drawnAt is when the sample series end.
var drawnAt = time.Date(2026, 11, 22, 13, 7, 0, 0, time.UTC)

// seriesOf has a point for each counts, the last of which ends at drawnAt.
func seriesOf(step time.Duration, counts ...telemetry.Counts) telemetry.Series {
	s := telemetry.Series{Step: step, Running: telemetry.Point{Begin: drawnAt}}
	begin := drawnAt.Add(-time.Duration(len(counts)) * step)
	for i, c := range counts {
		s.Points = append(s.Points, telemetry.Point{Begin: begin.Add(time.Duration(i) * step), Covered: step, Counts: c})
	}
	return s
}

// asked is a step with so many requests, all of them in one bucket.
func asked(n int64, bucket int) telemetry.Counts {
	c := telemetry.Counts{Requests: n, Began: n}
	c.Durations[bucket] = n
	return c
}

func mixed(requests, failures, began, replayed, conflicts int64) telemetry.Counts {
	c := telemetry.Counts{Requests: requests, Failures: failures, Began: began, Replayed: replayed, Conflicts: conflicts}
	c.Durations[0], c.Durations[4], c.Durations[8] = requests/2, requests/3, requests-requests/2-requests/3
	return c
}

// oddSeries are those that a picture could trip over.
func oddSeries() map[string]telemetry.Series {
	const huge = math.MaxInt64 / 64
	partial := seriesOf(10*time.Minute, asked(5, 2), asked(7, 3))
	partial.Points[1].Covered = time.Minute
	uncovered := seriesOf(time.Minute, asked(5, 2), asked(7, 3))
	uncovered.Points[1].Covered = 0
	return map[string]telemetry.Series{
		"one step":              seriesOf(time.Minute, asked(3, 4)),
		"one of three":          seriesOf(time.Minute, telemetry.Counts{}, asked(3, 4), telemetry.Counts{}),
		"a gap":                 seriesOf(time.Minute, asked(3, 4), asked(9, 2), telemetry.Counts{}, telemetry.Counts{}, asked(2, 8), asked(1, 0)),
		"one request a week":    seriesOf(time.Hour, append(make([]telemetry.Counts, 167), asked(1, 6))...),
		"huge":                  seriesOf(time.Minute, asked(huge, 13), asked(huge-1, 0), mixed(huge, huge, huge/2, huge/4, huge/4)),
		"all beyond the bounds": seriesOf(time.Minute, asked(5, 13), asked(6, 13)),
		"all at once":           seriesOf(time.Minute, asked(100, 0), asked(100, 0)),
		"only failures":         seriesOf(time.Minute, mixed(10, 10, 0, 0, 0), mixed(20, 20, 0, 0, 0)),
		"only replays":          seriesOf(time.Minute, mixed(10, 0, 0, 10, 0), mixed(20, 0, 0, 20, 0)),
		"only conflicts":        seriesOf(time.Minute, mixed(10, 0, 0, 0, 10)),
		"only look-ups":         seriesOf(time.Minute, mixed(10, 0, 0, 0, 0)),
		"a last step not over":  partial,
		"nothing of it over":    uncovered,
		"a day":                 seriesOf(10*time.Minute, manySteps(144)...),
		"as many as there are":  seriesOf(time.Minute, manySteps(telemetry.MaxSteps+1)...),
	}
}

func manySteps(n int) []telemetry.Counts {
	all := make([]telemetry.Counts, n)
	for i := range all {
		k := int64(200 + 150*math.Sin(float64(i)/9) + float64(i*7919%83))
		all[i] = mixed(k, k/90, k*8/10, k/20+int64(i%7), int64(i%5))
	}
	return all
}

var number = regexp.MustCompile(`-?[0-9.]+`)

// corners are the points that a path goes through. The paths of charts have M, L and Z.
func corners(t *testing.T, path string) (points [][2]float64) {
	t.Helper()
	if rest := regexp.MustCompile(`[ML]-?[0-9.]+ -?[0-9.]+|Z`).ReplaceAllString(path, ""); rest != "" {
		t.Errorf("a path has %q", rest)
	}
	for _, pair := range regexp.MustCompile(`[ML](\S+? [0-9.-]+)`).FindAllStringSubmatch(path, -1) {
		var xy [2]float64
		for i, n := range number.FindAllString(pair[1], -1) {
			v, err := strconv.ParseFloat(n, 64)
			if err != nil {
				t.Fatal(err)
			}
			xy[i] = v
		}
		points = append(points, xy)
	}
	return points
}

func TestEverythingThatIsDrawnIsInsideItsBox(t *testing.T) {
	t.Parallel()
	for name, s := range oddSeries() {
		charts := chartsOf(s)
		if len(charts) != 3 {
			t.Fatalf("%s: %d charts", name, len(charts))
		}
		for _, c := range charts {
			for _, l := range c.Lines {
				for _, p := range append(corners(t, l.Stroke), corners(t, l.Area)...) {
					if p[0] < 0 || p[0] > chartWidth || p[1] < 0 || p[1] > chartHeight {
						t.Errorf("%s: %s of %s goes to %v", name, l.Name, c.ID, p)
					}
				}
				if l.Latest == "" {
					t.Errorf("%s: %s of %s does not say what it came to", name, l.Name, c.ID)
				}
			}
			if len(c.Rules) > 7 || c.Empty == "" && len(c.Rules) < 2 {
				t.Errorf("%s: %s has %d rules", name, c.ID, len(c.Rules))
			}
			for _, r := range c.Rules {
				if r.Y < 0 || r.Y > chartHeight || r.WordY < 10 || r.Word == "" {
					t.Errorf("%s: %s has the rule %+v", name, c.ID, r)
				}
			}
			for _, k := range c.Ticks {
				if x, err := strconv.ParseFloat(k.X, 64); err != nil || x < 0 || x > 100 {
					t.Errorf("%s: %s has the time %+v", name, c.ID, k)
				}
			}
			if len(c.Ticks) > maxTicks+1 {
				t.Errorf("%s: %s has %d times", name, c.ID, len(c.Ticks))
			}
			if c.Says == "" || (c.Empty == "") != (len(c.Lines) > 0) {
				t.Errorf("%s: %s says %q, has %d lines, and is empty because %q", name, c.ID, c.Says, len(c.Lines), c.Empty)
			}
			for _, text := range []string{c.Says, strings.Join(c.words(), " ")} {
				if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") || strings.Contains(text, "e+") {
					t.Errorf("%s: %s says %q", name, c.ID, text)
				}
			}
		}
	}
}

// words are all that stands beside the lines.
func (c chart) words() []string {
	var all []string
	for _, r := range c.Rules {
		all = append(all, r.Word)
	}
	for _, l := range c.Lines {
		all = append(all, l.Stroke, l.Area, l.Latest)
	}
	for _, s := range c.Spots {
		all = append(all, s.Words)
	}
	return all
}

func TestNothingIsSaidInWords(t *testing.T) {
	t.Parallel()
	for _, s := range []telemetry.Series{{Step: time.Minute, Running: telemetry.Point{Begin: drawnAt}}, seriesOf(time.Minute, make([]telemetry.Counts, 60)...)} {
		for _, c := range chartsOf(s) {
			if c.Empty == "" || len(c.Lines)+len(c.Rules)+len(c.Ticks)+len(c.Spots) != 0 {
				t.Errorf("with %d steps without requests, %s draws %d lines and says %q", len(s.Points), c.ID, len(c.Lines), c.Empty)
			}
		}
		if f := figures(s); len(f) != 0 {
			t.Errorf("there are figures: %v", f)
		}
	}
}

func TestALineBreaksWhereNothingIsKnown(t *testing.T) {
	t.Parallel()
	s := oddSeries()["a gap"]
	charts := chartsOf(s)
	if got := strings.Count(charts[0].Lines[0].Stroke, "M"); got != 1 {
		t.Errorf("requests are known to be none, and their line has %d parts", got)
	}
	if got := strings.Count(charts[1].Lines[0].Stroke, "M"); got != 2 {
		t.Errorf("how long nothing took is not known, and the line has %d parts", got)
	}
	alone := corners(t, chartsOf(oddSeries()["one of three"])[1].Lines[0].Stroke)
	if len(alone) != 2 || alone[0][1] != alone[1][1] || alone[1][0] <= alone[0][0] {
		t.Errorf("a value between two gaps is drawn from %v", alone)
	}
}

func TestHigherValuesAreHigherUp(t *testing.T) {
	t.Parallel()
	s := seriesOf(time.Minute, asked(1, 0), asked(10, 4), asked(100, 8), asked(1000, 13))
	for _, c := range chartsOf(s)[:2] {
		points := corners(t, c.Lines[0].Stroke)
		for i := 1; i < len(points); i++ {
			if points[i][1] >= points[i-1][1] || points[i][0] <= points[i-1][0] {
				t.Errorf("%s goes from %v to %v", c.ID, points[i-1], points[i])
			}
		}
	}
}

func TestRatesAreOfTheMinutesThatAreOver(t *testing.T) {
	t.Parallel()
	c := chartsOf(oddSeries()["a last step not over"])[0]
	if c.Lines[0].Latest != "7" {
		t.Errorf("7 requests in the one minute that is over are %s a minute", c.Lines[0].Latest)
	}
	if got := aMinute(5, 0); got.known {
		t.Error("a rate is known of no time at all")
	}
}

func TestSharesAreOfRequestsWithANonce(t *testing.T) {
	t.Parallel()
	c := chartsOf(seriesOf(time.Minute, mixed(1000, 0, 60, 30, 10)))[2]
	if c.Lines[0].Latest != "30 %" || c.Lines[1].Latest != "10 %" {
		t.Errorf("replayed %s, conflicts %s", c.Lines[0].Latest, c.Lines[1].Latest)
	}
}

func TestFailuresHaveALineOnlyIfThereAreAny(t *testing.T) {
	t.Parallel()
	if c := chartsOf(seriesOf(time.Minute, mixed(10, 0, 10, 0, 0)))[0]; len(c.Lines) != 1 {
		t.Errorf("%d lines without failures", len(c.Lines))
	}
	if c := chartsOf(seriesOf(time.Minute, mixed(10, 1, 10, 0, 0)))[0]; len(c.Lines) != 2 || c.Lines[1].Class != "alarm" || c.Lines[1].Latest != "1" {
		t.Errorf("with a failure there are %+v", c.Lines)
	}
}

func TestTimesAreRoundAndNameTheDayAtMidnight(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		steps int
		step  time.Duration
		want  string
	}{
		{60, time.Minute, "12:10 12:20 12:30 12:40 12:50 13:00"},
		{145, 10 * time.Minute, "15:00 18:00 21:00 22 Nov 03:00 06:00 09:00 12:00"},
		{168, time.Hour, "16 Nov 17 Nov 18 Nov 19 Nov 20 Nov 21 Nov 22 Nov"},
		{1, time.Minute, "13:06 13:07"},
	} {
		var words []string
		for _, k := range ticks(seriesOf(c.step, make([]telemetry.Counts, c.steps)...)) {
			words = append(words, k.Word)
		}
		if got := strings.Join(words, " "); got != c.want {
			t.Errorf("%d steps of %s: %s", c.steps, c.step, got)
		}
	}
}

func TestScalesEndAtRoundNumbers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		make        func(least, most float64) scale
		least, most float64
		want        string
	}{
		{fromZero(writeNumber), 0, 0, "0, 1"},
		{fromZero(writeNumber), 0, 1, "0, 0.5, 1"},
		{fromZero(writeNumber), 0, 7, "0, 5, 10"},
		{fromZero(writeNumber), 0, 0.02, "0, 0.01, 0.02"},
		{fromZero(writeNumber), 0, 1234, "0, 500, 1,000, 1,500"},
		{fromZero(writeNumber), 0, 4e6, "0, 2 M, 4 M"},
		{percents, 0, 0, "0 %, 2 %, 4 %, 6 %"},
		{percents, 0, 1, "0 %, 50 %, 100 %"},
		{percents, 0, 0.31, "0 %, 20 %, 40 %"},
		{decades, .0025, .0025, "1 ms, 10 ms"},
		{decades, .004, .9, "1 ms, 10 ms, 100 ms, 1 s"},
		{decades, .02, 60, "10 ms, 100 ms, 1 s, 10 s, 100 s"},
		{decades, 60, 60, "10 s, 100 s"},
		{decades, 0, 1e9, "1 ms, 10 ms, 100 ms, 1 s, 10 s, 100 s"},
	} {
		s := c.make(c.least, c.most)
		var words []string
		for _, r := range s.rules {
			words = append(words, s.write(r))
		}
		if got := strings.Join(words, ", "); got != c.want {
			t.Errorf("from %g to %g: %s, not %s", c.least, c.most, got, c.want)
		}
	}
}

func TestNumbersAreShort(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{
		0: "0", .016666: "0.02", .5: "0.5", 9.5: "9.5", 12.34: "12.3", 100: "100", 1234: "1,234", 99999: "99,999", 250e3: "250 k", 4.2e6: "4.2 M", 9e9: "9 G",
	} {
		if got := writeNumber(v); got != want {
			t.Errorf("%g is %s, not %s", v, got, want)
		}
	}
	for v, want := range map[float64]string{0: "0 %", .0004: "<0.1 %", .001: "0.1 %", .0725: "7.2 %", 1: "100 %"} {
		if got := writeShare(v); got != want {
			t.Errorf("%g is %s, not %s", v, got, want)
		}
	}
	for v, want := range map[float64]string{.0025: "2.5 ms", .0375: "38 ms", .9: "900 ms", 1.25: "1.2 s", 30: "30 s"} {
		if got := writeSeconds(v); got != want {
			t.Errorf("%g is %s, not %s", v, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234", -123: "-123"} {
		if got := grouped(n); got != want {
			t.Errorf("%d is %s, not %s", n, got, want)
		}
	}
}

func TestFiguresAreThoseOfTheCharts(t *testing.T) {
	t.Parallel()
	rows := figures(seriesOf(10*time.Minute, asked(50, 13), telemetry.Counts{}, mixed(1200, 3, 900, 40, 2)))
	if len(rows) != 2 {
		t.Fatalf("%d rows", len(rows))
	}
	if want := (figure{"22 Nov 12:57 to 13:07", "120", "3", "5 ms", "1.9 s", "2.3 s", "900", "40", "2"}); rows[0].When != want.When || rows[0].Rate != want.Rate ||
		rows[0].Failures != want.Failures || rows[0].Began != want.Began || rows[0].Replayed != want.Replayed || rows[0].Conflicts != want.Conflicts || rows[0].P50 != want.P50 {
		t.Errorf("the newest is %+v", rows[0])
	}
	if rows[1].P50 != ">60 s" || rows[1].Rate != "5" {
		t.Errorf("the oldest is %+v", rows[1])
	}
}

// The policy of the pages forbids styles and scripts in attributes, and a picture that is no
// XML is drawn differently by each browser.
func TestAPictureIsPlainMarkup(t *testing.T) {
	t.Parallel()
	for name, s := range oddSeries() {
		for _, c := range chartsOf(s) {
			out, err := render("front", "chart", c)
			if err != nil {
				t.Fatal(err)
			}
			if attribute := regexp.MustCompile(`(?i)\s(style|on[a-z]+)=|<script|javascript:`).Find(out); attribute != nil {
				t.Errorf("%s: %s has %s", name, c.ID, attribute)
			}
			tokens := xml.NewDecoder(strings.NewReader(string(out)))
			for {
				if _, err = tokens.Token(); err != nil {
					break
				}
			}
			if !errors.Is(err, io.EOF) {
				t.Errorf("%s: %s: %v", name, c.ID, err)
			}
		}
	}
}
