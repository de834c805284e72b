package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oncepay/oncepay/test/faults/mutants"
	"github.com/oncepay/oncepay/test/faults/record"
	"github.com/oncepay/oncepay/test/faults/report"
)

// prey says which scene each mutant fails in.
var prey = map[string]string{
	"call-inside-transaction":      "killed after the send",
	"release-on-any-attempt":       "refused while the first is on its way",
	"release-before-proof-moment":  "asked too early",
	"no-fence":                     "the first holder wakes and releases",
	"process-clock":                "a clock that is ahead",
	"nonce-as-reference":           "the nonce lives again",
	"select-then-insert":           "fifty at once",
	"finish-unconditional":         "the first holder wakes after the outcome",
	"purge-unresolved":             "expired while unresolved",
	"request-context":              "the client hangs up",
	"transport-resends":            "a reused connection closes",
	"event-outside":                "killed after the outcome was saved",
	"fence-alone":                  "a slow reader takes over what has ended",
	"expiry-from-claim":            "expired while unresolved",
	"delete-by-key":                "a slow reader ends the next life",
	"proof-ignores-may-send-until": "a resend after the claim's proof",
	"holder-not-compared":          "a take-over that never was",
	"warning-not-heard":            claimSentOn.name,
	"read-back-unlocked":           claimReadBack.name,
	"reservation-leaked":           "a refund that reaches nobody",
	"refund-not-reserved":          "two refunds that are too much together",
	"callback-unchecked":           "called back twice",
	"payment-not-locked":           "a capture that begins while another one ends",
	"answered-not-recovered":       keptErrorScene,
	"session-not-claimed":          twoTabsAtOnce.name,
	"session-freed-when-unclear":   unclearThenNew.name,
	"session-not-given-back":       nobodyThenNew.name,
	"session-version-ignored":      changedAtBegin.name,
	"token-not-consumed":           oneTokenForTwo.name,
}

// mutantClock is how far ahead the second instance's clock is, for the mutant that
// believes it.
const mutantClock = "ONCEPAY_MUTANT_CLOCK=30s"

// sceneLimit bounds one scene with its healing and its judgement.
const sceneLimit = 2 * time.Minute

// hunt plays every scene with the product, which must come through all of them, and
// then each mutant's with the mutant, which must not: it is caught when an oracle
// complains.
func (c *campaign) hunt(ctx context.Context, g *ground, result *report.Result) error {
	product, err := c.build(ctx, g.dir)
	if err != nil {
		return err
	}
	var (
		wg    sync.WaitGroup
		errs  []error
		slots = make(chan struct{}, max(1, c.Parallel))
	)
	each := func(what string, work func() error) {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := work(); err != nil {
				c.mu.Lock()
				defer c.mu.Unlock()
				errs = append(errs, fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	seed := c.Seed
	for _, m := range mutants.All() {
		if c.Only != "" && c.Only != m.Name {
			continue
		}
		binary, err := mutants.Build(ctx, c.root, g.dir, m) // one after the other: each takes all processors
		if err != nil {
			errs = append(errs, err)
			continue
		}
		seed++
		each(m.Name, func() error {
			return c.huntOne(ctx, g, set{seed: seed, binary: binary, withhold: m.Withhold, setup: m.Setup}, m, result)
		})
	}
	for _, sc := range scenes {
		if c.Only != "" && prey[c.Only] != sc.name {
			continue
		}
		seed++
		each(sc.name, func() error {
			return c.control(ctx, g, set{seed: seed, binary: product, withhold: sc.withhold}, sc, result)
		})
	}
	wg.Wait()
	if len(result.Mutants) == 0 && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("there is no mutant called %q", c.Only))
	}
	return errors.Join(errs...)
}

// control plays a scene with the product.
func (c *campaign) control(ctx context.Context, g *ground, o set, sc scene, result *report.Result) error {
	out, played, err := performOn(ctx, g, o, sc)
	if err != nil || played != nil {
		return errors.Join(err, played)
	}
	c.say("the product comes through %q with %d violations", sc.name, len(out.violations))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range out.violations {
		v.Detail = fmt.Sprintf("in the scene %q: %s", sc.name, v.Detail)
		result.Violations = append(result.Violations, v)
	}
	return nil
}

const (
	// huntTries bounds how often a scene is played with a mutant that it does not catch. A
	// scene needs its parts to come in time, and a machine that is busy with others may keep
	// one beyond its lease; a defect that is there shows in the next try.
	huntTries = 3
	// huntStride keeps the tries' seeds apart from other mutants'.
	huntStride = 1000
)

// judge says whether, and by what, a mutant was caught.
func judge(r *report.Mutant, violations []record.Violation) {
	var names []string
	for _, v := range violations {
		if v.Oracle == "clean-log" { // a complaint in a log is no money that moved twice
			continue
		}
		if r.Detail == "" {
			r.Detail = v.Detail
		}
		if !slices.Contains(names, v.Oracle) {
			names = append(names, v.Oracle)
		}
	}
	r.Caught, r.Oracle = len(names) > 0, strings.Join(names, ", ")
}

// huntOne plays a mutant's scene with the mutant.
func (c *campaign) huntOne(ctx context.Context, g *ground, o set, m mutants.Mutant, result *report.Result) error {
	r := report.Mutant{Name: m.Name, Defect: m.Defect, Scenario: prey[m.Name]}
	sc, ok := sceneNamed(r.Scenario)
	if !ok {
		return errors.New("no scene to hunt it with")
	}
	began := time.Now()
	for try := 1; try <= huntTries && !r.Caught; try++ {
		o.seed += int64(try-1) * huntStride
		out, played, err := performOn(ctx, g, o, sc)
		if err != nil {
			return err
		}
		judge(&r, out.violations)
		switch {
		case r.Caught:
			c.say("%s: caught by %s", m.Name, r.Oracle)
		case try < huntTries:
			c.say("%s: not caught in %q (%v), which is played again", m.Name, sc.name, played)
		default:
			c.say("%s: NOT CAUGHT in %q (%v)", m.Name, sc.name, played)
		}
	}
	r.Took = time.Since(began)
	c.mu.Lock()
	defer c.mu.Unlock()
	result.Mutants = append(result.Mutants, r)
	return nil
}

// performOn plays one scene on a stage of its own, heals and judges. played is why
// the scene could not be played as it is written; a mutant may spoil it.
func performOn(ctx context.Context, g *ground, o set, sc scene) (out outcome, played, err error) {
	ctx, cancel := context.WithTimeout(ctx, sceneLimit)
	defer cancel()
	o.policy, _ = record.PolicyNamed(policies[sc.name])
	o.instances, o.env, o.progress = 2, map[string][]string{instancePrefix + "2": {mutantClock}}, func(string, ...any) {}
	if sc.needsStandby() {
		o.mortal, o.standby = true, synchronous
	}
	s, err := newStage(ctx, g, o)
	if err != nil {
		return out, nil, err
	}
	played = s.perform(ctx, 0, sc)
	s.heal()
	s.awaitSettled(ctx)
	out, err = s.judgement(ctx, nil)
	return out, played, errors.Join(err, s.close(context.WithoutCancel(ctx)))
}
