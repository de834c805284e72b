package console

import (
	"fmt"
	"strings"
	"time"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/transactions"
)

const (
	// foldFrom is how often something must be repeated to be told as one: three rows are
	// read at a glance, two hundred are not.
	foldFrom = 4
	// longestPattern is how many moments may repeat together: a take-over, an inquiry and a
	// void.
	longestPattern = 3
)

// alike finds the shortest pattern at the head of the moments that is repeated, and how
// often it is.
func alike(moments []transactions.Moment) (period, repeats int) {
	for period = 1; period <= longestPattern && period*foldFrom <= len(moments); period++ {
		repeats = 1
		for (repeats+1)*period <= len(moments) && repeated(moments, period, repeats) {
			repeats++
		}
		if repeats >= foldFrom && foldable(moments[:period]) {
			return period, repeats
		}
	}
	return 1, 1
}

// repeated says whether the pattern is there once more.
func repeated(moments []transactions.Moment, period, repeats int) bool {
	for j := range period {
		if likeness(moments[j]) != likeness(moments[repeats*period+j]) {
			return false
		}
	}
	return true
}

// foldable keeps apart what has to be seen one by one: an event, a decision, and a take-over
// from somebody who vanished.
func foldable(pattern []transactions.Moment) bool {
	taken, asked := false, false
	for _, m := range pattern {
		switch m.Kind {
		case "event", "parked", "resolution", "observation":
			return false
		case "takeover":
			taken = true
		default:
			asked = asked || called(m.Kind)
		}
		if m.Verdict == string(idem.New) || m.Verdict == string(idem.Resumed) {
			return false
		}
	}
	return !taken || pattern[0].Kind == "takeover" && asked
}

// likeness is what two moments have in common that are told as one.
func likeness(m transactions.Moment) string {
	body := ""
	if m.BodyDiffers != nil && *m.BodyDiffers {
		body = "differs in " + strings.Join(m.Differs, ",")
	}
	return strings.Join([]string{m.Kind, m.Verdict, m.By, m.Outcome, m.Provider, body}, "\x00")
}

// fold tells many moments as one. first is the number of the first of them.
func (s *story) fold(first int, moments []transactions.Moment, period int) {
	times := len(moments) / period
	anchor := s.anchorOf(first)
	sc := scene{anchor: anchor, time: momentTime(moments[0]), tone: quiet}
	var said []string
	folded := make([]item, 0, len(moments))
	for i, m := range moments {
		one := s.sceneOf(m)
		one.anchor, one.time = s.anchorOf(first+i), momentTime(m)
		folded = append(folded, itemOf(one, m))
		if i < period {
			m.DurationMS = nil // each took its own time
			alone := s.sceneOf(m)
			sc.strokes = append(sc.strokes, alone.strokes...)
			said = append(said, lowered(alone.text))
		}
		if one.tone != quiet {
			sc.tone = one.tone
		}
	}
	if len(sc.strokes) > 2 { // a take-over's and the exchange's: the exchange's say more
		sc.strokes = sc.strokes[len(sc.strokes)-2:]
	}
	last := folded[len(folded)-1].At
	sc.text = fmt.Sprintf("%d times more%s: %s", times, within(last.Sub(sc.time)), strings.Join(said, ", then "))
	sc.brief = fmt.Sprintf("%d times more%s", times, within(last.Sub(sc.time)))
	sc.spots = []spot{{laneAPI, "more", fmt.Sprintf("%d times more", times), sc.tone}}
	folded[0].Anchor = anchor + "a" // the whole fold is the picture's first of them
	if moments[0].Kind == "takeover" {
		s.leave() // whoever came before, and whoever is in the fold, wrote down what it tried
	}
	s.scenes = append(s.scenes, sc)
	s.items = append(s.items, item{Anchor: anchor, At: sc.time, Tone: sc.tone, Text: sc.text, Folded: folded})
}

func within(d time.Duration) string {
	if d < time.Millisecond {
		return ""
	}
	return " within " + duration(d)
}

// lowered is a sentence as part of another one.
func lowered(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}

// duration is a span as people say it, in its two largest units.
func duration(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return milliseconds(d.Milliseconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
