package console

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/transactions"
)

// tone is how good a thing is. It is a class of the stylesheet, and never the only sign:
// what has a tone also has a word.
type tone string

const (
	good    tone = "good"
	bad     tone = "bad"
	waiting tone = "waiting"
	quiet   tone = "quiet"
)

// lane is one of those who take part, from left to right.
type lane int

const (
	laneClient lane = iota
	laneAPI
	laneDatabase
	laneProvider
	lanes // how many there are
)

// stroke is a message from one lane to another.
type stroke struct {
	from, to lane
	label    string
	tone     tone
	broken   bool // it, or the answer to it, is not known to have arrived
}

// spot is something that happened in one lane.
type spot struct {
	at    lane
	shape string // a key of shapes
	label string
	tone  tone
}

// scene is what one row of the picture shows.
type scene struct {
	anchor  string // of its item in the list; "": it has none
	time    time.Time
	text    string // for the list, and for readers that see no picture
	brief   string // for narrow screens; "": the text is brief
	tone    tone
	strokes []stroke
	spots   []spot
}

// ending is how somebody's hold on a transaction ended.
type ending string

const (
	finished ending = "finished" // with an outcome
	left     ending = "left"     // without one, but properly: the next may begin at once
	gone     ending = "gone"     // without a word
	held     ending = "held"     // not yet
)

// hold is the lease of one holder, from one scene to another.
type hold struct {
	from, to int
	by       string
	end      ending
	called   int // the scene of its last exchange with the provider; 0: none
	until    time.Time
}

// fact is a line of what is known of one moment.
type fact struct{ Name, Value string }

// item is a moment, or several that are alike, in the list below the picture.
type item struct {
	Anchor  string
	At      time.Time
	Tone    tone
	Text    string
	Facts   []fact
	Differs []string // the members of the body that differed from the first
	Folded  []item   // those that are alike; then the item itself has no facts
	Open    bool     // on paper nothing can be opened
}

// exchangesKept is for how long requests and exchanges are told of: see docs/operate/nonces.md.
// What is missing from an older life shows nothing.
const exchangesKept = 90 * 24 * time.Hour

// perSource is how much of each source a timeline has at most: see package transactions.
const perSource = 200

// story is one life as scenes and items.
type story struct {
	life   transactions.Life
	prefix string // of the anchors, so that several lives fit on one page
	now    time.Time
	end    int // the moment that settled it; -1: nothing has

	scenes []scene
	items  []item
	holds  []hold
	open   *hold // the holder at this point of the story
	calls  int
}

// tell makes the story of a life.
func tell(life transactions.Life, prefix string, now time.Time) *story {
	moments := life.Timeline
	s := &story{life: life, prefix: prefix, now: now, end: settledAt(life)}
	for _, m := range moments {
		if called(m.Kind) {
			s.calls++
		}
	}
	s.begin(moments)
	for i := 0; i < len(moments); {
		period, repeats := alike(moments[i:])
		if repeats < foldFrom {
			s.add(i, moments[i])
			i++
			continue
		}
		for j := range period {
			s.add(i+j, moments[i+j])
		}
		s.fold(i+period, moments[i+period:i+period*repeats], period)
		i += period * repeats
	}
	s.finish()
	return s
}

// settledAt is the moment that settled a life: its last event, if it is settled at all.
func settledAt(life transactions.Life) int {
	if life.Transaction.Status.Terminal() {
		for i, m := range slices.Backward(life.Timeline) {
			if m.Kind == "event" {
				return i
			}
		}
	}
	return -1
}

// begin shows the claim of a life whose first request is not on the timeline: what a request
// met is written after it was answered, so a crash takes it along.
func (s *story) begin(moments []transactions.Moment) {
	for _, m := range moments {
		if m.Kind == "request" && m.Verdict == string(idem.New) {
			return
		}
	}
	text := "The nonce was claimed; the request itself is not on the timeline"
	s.scenes = append(s.scenes, scene{
		anchor: s.prefix + "claim", time: s.claimedAt(), text: text, brief: "The nonce was claimed", tone: quiet,
		strokes: []stroke{{from: laneAPI, to: laneDatabase, label: "claims the nonce", tone: quiet}},
		spots:   []spot{{laneDatabase, "square", "", quiet}},
	})
	s.items = append(s.items, item{
		Anchor: s.prefix + "claim", At: s.claimedAt(), Tone: quiet, Text: text,
		Facts: []fact{
			{"Why", "What a request met is written down after its answer. If the process dies before, that line is lost; and it is kept for 90 days."},
			{"Time", "From the transaction's id, by the clock of the process that made it"},
		},
	})
	s.take("request")
}

// claimedAt is when the transaction's id was drawn.
func (s *story) claimedAt() time.Time {
	id, err := uuid.Parse(s.life.Transaction.ID)
	if err != nil || id.Version() != 7 {
		return time.Time{}
	}
	seconds, nanos := id.Time().UnixTime()
	return time.Unix(seconds, nanos).UTC()
}

// called says whether a moment is an exchange with the provider.
func called(kind string) bool {
	switch kind {
	case "send", "inquire", "void", "reverse":
		return true
	}
	return false
}

// momentTime is when it was; zero if that cannot be read.
func momentTime(m transactions.Moment) time.Time {
	t, err := time.Parse(time.RFC3339Nano, m.At)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// anchorOf is where the item of the i-th moment is.
func (s *story) anchorOf(i int) string { return s.prefix + strconv.Itoa(i+1) }

// add tells one moment.
func (s *story) add(i int, m transactions.Moment) {
	sc := s.sceneOf(m)
	if i == s.end {
		s.settle(&sc, m)
	}
	sc.anchor, sc.time = s.anchorOf(i), momentTime(m)
	s.before(m, sc)
	s.scenes = append(s.scenes, sc)
	s.items = append(s.items, itemOf(sc, m))
	s.after(m)
}

// before shows that the holder before vanished, where somebody takes over from one of whom
// nothing is known: whoever leaves properly writes down what it tried.
func (s *story) before(m transactions.Moment, sc scene) {
	if m.Kind != "takeover" || s.open == nil {
		return
	}
	h := s.open
	if h.called > 0 && !h.until.After(sc.time) {
		s.close(left, h.called)
		return
	}
	if !s.complete() {
		s.close(left, len(s.scenes)-1)
		return
	}
	text := "Nothing was heard of the holder any more: it crashed, froze or was cut off"
	label, brief := "holder gone", "Nothing was heard of the holder any more"
	if h.called > 0 {
		text = "The holder was still waiting for the provider when its time was over"
		label, brief = "holder overdue", "The holder's time was over"
	}
	s.scenes = append(s.scenes, scene{
		anchor: sc.anchor, time: sc.time, text: text, brief: brief, tone: bad,
		spots: []spot{{laneAPI, "break", label, bad}},
	})
	s.close(gone, len(s.scenes)-1)
}

// complete says whether what is not on the timeline did not happen.
func (s *story) complete() bool {
	return s.now.Sub(s.claimedAt()) < exchangesKept && (!s.life.Truncated || s.calls < perSource)
}

// after keeps the books on who holds the transaction.
func (s *story) after(m transactions.Moment) {
	last := len(s.scenes) - 1
	switch {
	case m.Kind == "request" && m.Verdict == string(idem.New):
		s.take("request")
	case m.Kind == "takeover":
		s.take(m.By)
	case called(m.Kind) && s.open != nil:
		s.open.called, s.open.until = last, momentTime(m).Add(took(m))
	case m.Kind == "event":
		s.close(finished, last)
	case m.Kind == "parked":
		s.close(left, last)
	}
}

func took(m transactions.Moment) time.Duration {
	if m.DurationMS == nil {
		return 0
	}
	return time.Duration(*m.DurationMS) * time.Millisecond
}

func (s *story) take(by string) { s.open = &hold{from: len(s.scenes) - 1, by: by, end: held} }

func (s *story) close(how ending, at int) {
	if s.open == nil {
		return
	}
	s.open.end, s.open.to = how, at
	s.holds = append(s.holds, *s.open)
	s.open = nil
}

// finish shows how things are now, where they have not ended.
func (s *story) finish() {
	switch s.life.KeyState {
	case transactions.KeyOpen:
		if s.open != nil {
			s.closing("Now: somebody is working on it", "at work")
			s.close(held, len(s.scenes)-1)
		}
	case transactions.KeyUnresolved:
		label := "not known yet"
		if s.life.Transaction.Status == transactions.Pending {
			label = "not decided yet"
		}
		s.leave()
		s.closing("Now: "+label+"; it is being asked about", label)
	case transactions.KeyParked:
		s.leave()
		s.closing("Now: parked, a person must look", "a person must look")
	case transactions.KeyAnswered, transactions.KeyReleased, transactions.KeyExpired:
	}
	s.leave()
}

// leave ends a hold of which nothing more is told.
func (s *story) leave() {
	if s.open == nil {
		return
	}
	how, at := left, s.open.called
	if at == 0 {
		how, at = gone, len(s.scenes)-1
	}
	s.close(how, at)
}

func (s *story) closing(text, label string) {
	s.scenes = append(s.scenes, scene{time: s.now.UTC(), text: text, tone: waiting, spots: []spot{{laneDatabase, "clock", label, waiting}}})
}

// sceneOf says what a moment looks like.
func (s *story) sceneOf(m transactions.Moment) scene {
	switch m.Kind {
	case "request":
		return s.arrival(m)
	case "send", "inquire", "void", "reverse":
		return exchange(m)
	case "callback":
		text := "The provider called back: " + words(m.Outcome)
		if m.Reason != "" {
			text += ", " + words(m.Reason)
		}
		t := outcomeTone(m.Outcome)
		if m.Reason == string(transactions.HeardContradicts) {
			t = bad
		}
		return scene{text: text, brief: strings.Replace(text, "The provider called back", "Callback", 1), tone: t, strokes: []stroke{{from: laneProvider, to: laneAPI, label: "callback: " + words(m.Outcome), tone: t}}}
	case "takeover":
		return scene{
			text: "Taken over by " + taker(m.By), tone: quiet, strokes: []stroke{{from: laneAPI, to: laneDatabase, label: "takes over", tone: quiet}},
			spots: []spot{{laneDatabase, "diamond", "by " + taker(m.By), quiet}},
		}
	case "observation":
		t := outcomeTone(m.Outcome)
		return scene{
			text: "One who had been taken over found out: " + words(m.Outcome), brief: "Found out late: " + words(m.Outcome), tone: t, strokes: []stroke{{from: laneAPI, to: laneDatabase, label: "found out late", tone: t}},
			spots: []spot{{laneDatabase, "dot", words(m.Outcome), t}},
		}
	case "event":
		return s.change(m)
	case "checkout":
		return scene{text: "It belongs to a checkout session", tone: quiet, spots: []spot{{laneClient, "dot", "checkout session", quiet}}}
	case "parked":
		return scene{text: "Parked: automatic attempts have ended, a person must look", brief: "Parked: a person must look", tone: bad, spots: []spot{{laneDatabase, "parked", "parked", bad}}}
	case "resolution":
		t := good
		if m.Outcome != "succeeded" {
			t = bad
		}
		return scene{
			text: "A person decided: " + words(m.Outcome), tone: t, spots: []spot{{laneAPI, "person", "", t}},
			strokes: []stroke{{from: laneAPI, to: laneDatabase, label: "decided: " + words(m.Outcome), tone: t}},
		}
	}
	return scene{text: words(m.Kind), tone: quiet, spots: []spot{{laneDatabase, "dot", words(m.Kind), quiet}}}
}

// arrival is a request with the nonce and what it was told.
func (s *story) arrival(m transactions.Moment) scene {
	asked := stroke{from: laneClient, to: laneAPI, label: "request", tone: quiet}
	told := func(label string, t tone) []stroke {
		return []stroke{asked, {from: laneAPI, to: laneClient, label: label, tone: t}}
	}
	differs := ""
	if m.BodyDiffers != nil && *m.BodyDiffers {
		differs = " with another body"
		if len(m.Differs) > 0 {
			differs += " (" + strings.Join(m.Differs, ", ") + ")"
		}
		asked.label, asked.tone = "another body", waiting
	}
	switch idem.Verdict(m.Verdict) {
	case idem.New:
		return scene{
			text: "A request claims the nonce", tone: quiet, strokes: []stroke{asked, {from: laneAPI, to: laneDatabase, label: "claims the nonce", tone: quiet}},
			spots: []spot{{laneDatabase, "square", "", quiet}},
		}
	case idem.Replayed:
		answer := "the first answer"
		if s.life.AnswerStatus != nil {
			answer = fmt.Sprintf("%d, replayed", *s.life.AnswerStatus)
		}
		return scene{text: "A retry" + differs + " got the first answer again: replayed", brief: "Replayed" + differs, tone: good, strokes: told(answer, good)}
	case idem.InProcess:
		return scene{text: "A duplicate" + differs + " was told to wait: 409, in process", brief: "In process, 409" + differs, tone: waiting, strokes: told("409 in process", waiting)}
	case idem.Mismatch:
		return scene{text: "Refused: the nonce names something else, 422 mismatch", brief: "Mismatch, 422: it names something else", tone: bad, strokes: told("422 mismatch", bad)}
	case idem.Rejected:
		return scene{text: "Refused: not a valid request", tone: bad, strokes: told("rejected", bad)}
	case idem.Resumed:
		asked.label = "request, resumes"
		return scene{text: "A retry" + differs + " resumes what was left open", tone: quiet, strokes: []stroke{asked}}
	}
	return scene{text: "A request: " + words(m.Verdict), tone: quiet, strokes: []stroke{asked}}
}

// exchange is what the provider was asked, and how that went.
func exchange(m transactions.Moment) scene {
	verb := map[string]string{"send": "sends", "inquire": "asks", "void": "voids", "reverse": "reverses"}[m.Kind]
	long := map[string]string{"send": "Sent to the provider", "inquire": "The provider was asked what became of it", "void": "The provider was asked to refuse it from now on", "reverse": "The provider was asked to undo it"}[m.Kind]
	t, lasted := outcomeTone(m.Outcome), ""
	if m.DurationMS != nil {
		lasted = milliseconds(*m.DurationMS)
		verb += ", " + lasted
		lasted = " after " + lasted
	}
	short := map[string]string{"send": "Sent", "inquire": "Asked", "void": "To be voided", "reverse": "To be reversed"}[m.Kind]
	sc := scene{text: long + ": " + words(m.Outcome) + lasted, brief: short + ": " + words(m.Outcome) + lasted, tone: t}
	out := stroke{from: laneAPI, to: laneProvider, label: verb, tone: quiet}
	switch m.Outcome {
	case "not_reached":
		out.broken, out.tone = true, t
		sc.strokes = []stroke{out}
		sc.spots = []spot{{laneProvider, "none", words(m.Outcome), t}}
	case "unclear":
		sc.strokes = []stroke{out, {from: laneProvider, to: laneAPI, label: words(m.Outcome), tone: t, broken: true}}
	default:
		sc.strokes = []stroke{out, {from: laneProvider, to: laneAPI, label: words(m.Outcome), tone: t}}
	}
	return sc
}

// change is an event. Where a request holds the transaction, it is its answer, too. It tells
// what the payment is since then, which says nothing of how this life went: a payment stays
// paid when a refund is declined, and waits for its capture when it was authorized. Until one
// settles the life, nothing is decided.
func (s *story) change(m transactions.Moment) scene {
	status, _, _ := strings.Cut(m.Outcome, "/")
	sc := scene{
		text: "The payment is now " + m.Outcome + because(m.By), brief: "Payment now " + m.Outcome, tone: waiting,
		strokes: []stroke{{from: laneAPI, to: laneDatabase, label: "writes it down", tone: waiting}},
		spots:   []spot{{laneDatabase, "square", status, waiting}},
	}
	if s.open != nil && s.open.by == "request" {
		label := "answer"
		if s.life.AnswerStatus != nil {
			label = fmt.Sprintf("answer: %d", *s.life.AnswerStatus)
		}
		sc.strokes = append(sc.strokes, stroke{from: laneAPI, to: laneClient, label: label, tone: waiting})
	}
	return sc
}

// settle makes an event the one that settled the life, with the life's own judgement: it is
// the transaction's status that was written down.
func (s *story) settle(sc *scene, m transactions.Moment) {
	status := string(s.life.Transaction.Status)
	sc.text, sc.brief = "Settled as "+status+because(m.By)+". The payment is now "+m.Outcome, "Settled as "+status
	sc.tone, _ = judge(s.life)
	for i := range sc.strokes {
		sc.strokes[i].tone = sc.tone
	}
	for i := range sc.spots {
		sc.spots[i].tone, sc.spots[i].label = sc.tone, status
	}
}

func because(cause string) string {
	switch cause {
	case "provider":
		return ", as the provider said"
	case "proved":
		return ": proven that nothing was booked"
	case "refused":
		return ": the provider refused it as invalid"
	case "not_reached":
		return ": the provider was never reached"
	case "expired":
		return ": not decided in time"
	case "resolved":
		return ", as a person decided"
	case "":
		return ""
	}
	return " (" + words(cause) + ")"
}

// taker is who takes over.
func taker(by string) string {
	switch by {
	case "request":
		return "the merchant's retry"
	case "callback":
		return "a callback"
	case "person":
		return "a person"
	}
	return words(cmp.Or(by, "somebody"))
}

// outcomeTone is how good an exchange's outcome is.
func outcomeTone(outcome string) tone {
	switch outcome {
	case "approved", "won":
		return good
	case "declined", "refused", "lost":
		return bad
	case "unclear", "pending", "not_found", "not_reached":
		return waiting
	}
	return quiet
}

// words are a name of the API's as people write it.
func words(name string) string { return strings.ReplaceAll(name, "_", " ") }

func milliseconds(ms int64) string {
	if ms < 1000 {
		return strconv.FormatInt(ms, 10) + " ms"
	}
	return strconv.FormatInt(ms/1000, 10) + "." + strconv.FormatInt(ms%1000/100, 10) + " s"
}

// itemOf is a moment with all that is known of it.
func itemOf(sc scene, m transactions.Moment) item {
	it := item{Anchor: sc.anchor, At: sc.time, Tone: sc.tone, Text: sc.text, Differs: m.Differs}
	for _, f := range []fact{
		{"Kind", m.Kind}, {"Verdict", m.Verdict}, {"What it means", meaning(m)}, {"Request id", m.RequestID}, {"Provider", m.Provider},
		{"Reference", m.Reference}, {"Outcome", m.Outcome}, {"By", m.By}, {"Reason", m.Reason},
	} {
		if f.Value != "" {
			it.Facts = append(it.Facts, f)
		}
	}
	if m.DurationMS != nil {
		it.Facts = append(it.Facts, fact{"Duration", strconv.FormatInt(*m.DurationMS, 10) + " ms"})
	}
	if m.BodyDiffers != nil {
		body := "the same as the first one's"
		if *m.BodyDiffers {
			body = "differs from the first one's"
			if len(m.Differs) == 0 {
				body += "; in which members is not known"
			}
		}
		it.Facts = append(it.Facts, fact{"Body", body})
	}
	return it
}

// meaning explains a word of the timeline to somebody who meets it for the first time.
func meaning(m transactions.Moment) string {
	if m.Kind == "request" {
		return map[idem.Verdict]string{
			idem.New:       "The first request with this nonce. All that follows is its work.",
			idem.Replayed:  "It got the stored answer, byte for byte. Nothing was sent to the provider.",
			idem.InProcess: "Somebody was at work on the first request. It was told to come back; nothing was sent.",
			idem.Mismatch:  "The nonce belongs to another operation. Nothing was sent.",
			idem.Resumed:   "It took over what an earlier request had left open.",
			idem.Rejected:  "It was refused before anything began.",
		}[idem.Verdict(m.Verdict)]
	}
	if m.Kind == "observation" {
		return "Whoever had been taken over came back and could not write the outcome any more. What it learnt is kept, and whoever comes next reads it."
	}
	if m.Kind == "callback" {
		return map[string]string{
			string(transactions.HeardApplied): "It moved the dispute on.", string(transactions.HeardKept): "It is kept, and whoever works on the transaction reads it.",
			string(transactions.HeardKnown): "It said nothing new.", string(transactions.HeardContradicts): "It contradicts what is known here: a person must look.",
		}[m.Reason]
	}
	if !called(m.Kind) {
		return ""
	}
	return map[string]string{
		"approved": "Booked under the transaction's id.", "declined": "A final no: nothing is booked, or will be.",
		"pending": "The provider has accepted it; the result comes later.", "refused": "The provider found it invalid. It had no effect.",
		"not_reached": "Certainly not charged: it never reached the provider.",
		"unclear":     "Anything may have happened, or may still happen. It must be asked about.",
		"not_found":   "The provider does not know the reference now.", "voided": "It never was, and never will be, charged.",
	}[m.Outcome]
}

// answerText is what the key answers, in words.
func answerText(status *int) string {
	if status == nil {
		return "none"
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", *status, http.StatusText(*status)))
}
