package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oncepay/oncepay/internal/faultpoint"
	"github.com/oncepay/oncepay/internal/pgtest/pgproxy"
	"github.com/oncepay/oncepay/test/faults/mutants"
	"github.com/oncepay/oncepay/test/faults/oracle"
	"github.com/oncepay/oncepay/test/faults/pspproxy"
	"github.com/oncepay/oncepay/test/faults/record"
	"github.com/oncepay/oncepay/test/faults/report"
	"github.com/oncepay/oncepay/test/harness"
)

// campaign is one run of the program.
type campaign struct {
	options
	out, progress io.Writer
	began         time.Time
	root          string // of the module
	noDisk        string // why no PostgreSQL can have a disk of its own, or empty

	mu       sync.Mutex // of progress, and of what follows
	outcomes []outcome
}

// say tells how it goes.
func (c *campaign) say(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.progress, "%7.1fs  %s\n", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...))
}

// run reports whether a promise was broken. An error means that nothing is known.
func (c *campaign) run(ctx context.Context) (failed bool, err error) {
	if c.root, err = harness.ModuleRoot(); err != nil {
		return false, fmt.Errorf("run it in a checkout, because it builds the product: %w", err)
	}
	dir, err := os.MkdirTemp("", "oncepay-faults-")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o711); err != nil { // PostgreSQL may run as somebody else
		return false, err
	}
	c.noDisk = noDisk(dir)
	g, err := newGround(ctx, dir, c.PgBouncer)
	if err != nil {
		return false, fmt.Errorf("start PostgreSQL: %w", err)
	}
	defer func() { err = errors.Join(err, g.close()) }()
	result := report.Result{
		Commit: commit(ctx, c.root), Command: "payments-faults " + strings.Join(os.Args[1:], " "), Seed: c.Seed,
		Kinds: kinds(), Excused: c.excused(), Oracles: append(oracle.Names(), ownOracles...),
	}
	if c.Mutants {
		err = c.hunt(ctx, g, &result)
	} else {
		err = c.prove(ctx, g, &result)
	}
	result.Took = time.Since(c.began)
	if err != nil {
		return false, err
	}
	if err := c.tell(result); err != nil {
		return false, err
	}
	few := c.tooFew(result)
	for _, f := range few {
		c.say("TOO FEW %s", f)
	}
	return result.Failed() || len(few) > 0, nil
}

// tooFew says what happened less often than was asked for.
func (c *campaign) tooFew(r report.Result) []string {
	if c.AtLeast == 0 || c.Mutants {
		return nil
	}
	var few []string
	excused := c.excused()
	excused[diskFullPanic] = "it is for PostgreSQL to say how often"
	for _, k := range kinds() {
		if n := r.Faults[k]; n < c.AtLeast && excused[k] == "" {
			few = append(few, fmt.Sprintf("%s: %d times", k, n))
		}
	}
	for _, p := range r.Points {
		if p.Once == 0 || p.Twice == 0 {
			few = append(few, fmt.Sprintf("crash point %s: %d times once, %d times twice", p.Name, p.Once, p.Twice))
		}
	}
	return few
}

// excused are the kinds that cannot come up here, with the reason.
func (c *campaign) excused() map[string]string {
	if c.noDisk == "" {
		return map[string]string{}
	}
	return map[string]string{diskFull: c.noDisk, diskFullPanic: c.noDisk}
}

// ownOracles are those that ask the running API, and not its database.
var ownOracles = []string{"answered", "acknowledged-found", lookUpTrue, "invariants", "forgery-refused", "clean-log", "kept-running", "as-documented", clientTrue}

// tell writes the result wherever it was asked for.
func (c *campaign) tell(r report.Result) error {
	text := c.out
	if c.JSON {
		text = c.progress
	}
	if c.Mutants {
		report.MutantsText(text, r.Mutants)
	} else {
		report.Text(text, r)
	}
	if c.Markdown != "" {
		if err := toFile(c.Markdown, func(w io.Writer) error { report.Markdown(w, r); return nil }); err != nil {
			return err
		}
	}
	if c.SVG != "" {
		if err := toFile(c.SVG, func(w io.Writer) error { return report.SVG(w, r) }); err != nil {
			return err
		}
	}
	if c.JSON {
		return report.JSON(c.out, r)
	}
	return nil
}

func toFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// prove runs rounds until the duration is over.
func (c *campaign) prove(ctx context.Context, g *ground, result *report.Result) error {
	binary, err := c.build(ctx, g.dir)
	if err != nil {
		return err
	}
	rounds, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg    sync.WaitGroup
		next  = c.Seed
		errs  error
		begun = time.Now()
	)
	for range max(1, c.Parallel) {
		wg.Go(func() {
			for {
				c.mu.Lock()
				seed, n := next, int(next-c.Seed)
				over := rounds.Err() != nil || c.Rounds > 0 && n >= c.Rounds || n > 0 && c.enough(time.Since(begun))
				next++
				c.mu.Unlock()
				if over {
					return
				}
				if err := c.oneRound(rounds, g, binary, seed); err != nil {
					c.mu.Lock()
					if rounds.Err() == nil { // else it only shows that another round failed
						errs = errors.Join(errs, err)
					}
					c.mu.Unlock()
					cancel()
				}
			}
		})
	}
	wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sum(result)
	for _, text := range harness.BrokenExchanges() { // of whichever round
		result.Violations = append(result.Violations, record.Violation{Oracle: "as-documented", Seed: c.Seed, Detail: text})
	}
	return errors.Join(errs, ctx.Err())
}

// enough says whether no further round need begin after that time. It wants mu held.
func (c *campaign) enough(elapsed time.Duration) bool {
	if elapsed < c.Duration || c.AtLeast == 0 {
		return elapsed >= c.Duration
	}
	var sofar report.Result
	c.sum(&sofar)
	few := c.tooFew(sofar)
	if elapsed >= 2*c.Duration || len(few) == 0 {
		return true
	}
	fmt.Fprintf(c.progress, "%7.1fs  going on, for want of %s\n", time.Since(c.began).Seconds(), strings.Join(few, "; "))
	return false
}

// everyPolicy deals the policies to the rounds.
const everyPolicy = "all"

// policyOf is the policy of a seed's round. Each four rounds have all of them, and in the
// long run each has every stage that there is.
func (c *campaign) policyOf(seed int64) record.Policy {
	if p, one := record.PolicyNamed(c.Policy); one {
		return p
	}
	n := uint64(seed - 1) // seeds begin with 1
	return record.Policies[(n+n/4+n/8)%uint64(len(record.Policies))]
}

// oneRound plays one seed. What the stage is like depends on the seed alone.
func (c *campaign) oneRound(ctx context.Context, g *ground, binary string, seed int64) error {
	o := set{seed: seed, policy: c.policyOf(seed), binary: binary, instances: 2, progress: func(format string, args ...any) {
		c.say("seed %d: %s", seed, fmt.Sprintf(format, args...))
	}}
	o.wild = seed%2 == 1
	o.forgetful = c.Forgetful
	o.serializable = seed%4 < 2 // where processes die, and where they sleep
	// Seldom where one sleeps: with nobody else there, little happens meanwhile.
	if seed%8 == 3 || seed%16 == 14 {
		o.instances = 1
	}
	switch seed % 8 {
	case 5, 4:
		o.withhold = "can_void"
	case 7:
		o.withhold = "can_void,idempotent"
	}
	switch seed % 8 {
	case 3, 4, 5, 7: // not where voids come up, which need half a minute's quiet
		o.mortal = true
	default:
		o.mortal = c.Forgetful
	}
	switch {
	case c.Async:
		o.mortal, o.standby = true, asynchronous
	case !c.Forgetful && (seed%8 == 4 || seed%8 == 7): // where nobody can void what a forgotten holder sends
		o.standby = synchronous
	}
	o.ownDisk = o.mortal && o.standby == alone && c.noDisk == ""
	o.env = clockEnv(wrongClocks(seed, o.instances))
	out, err := round(ctx, g, o, c.Orders)
	if err != nil {
		return err
	}
	f := out.figures
	c.say("seed %d, %s: %d operations, %d nonces, %d replays, %d errors kept (%d of them charged), %d charges, %d captures, %d cancellations, %d refunds, %d callbacks, %d of %d sessions paid under %d nonces; %d double, %d lost, %d leaked, %d violations, %.0fs",
		seed, out.policy, out.operations, f.Nonces, f.Replays, f.KeptErrors, f.KeptCharged, f.Charges, f.Captures, f.Cancellations, f.Refunds, f.Callbacks, f.SessionsPaid, f.Sessions, f.SessionNonces,
		f.DoubleCharges+f.DoubleCaptures+f.DoubleRefunds, f.Lost, f.Leaked, len(out.violations), out.took.Seconds())
	if n := out.figures.Shown; n > 0 {
		c.say("seed %d: %d replays, told by a primary that was lost, are told otherwise since", seed, n)
	}
	for _, v := range out.violations[:min(len(out.violations), 10)] {
		c.say("seed %d: VIOLATION %s: %s", seed, v.Oracle, v.Detail)
	}
	if err := c.keepLog(seed, out); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outcomes = append(c.outcomes, out)
	return nil
}

// keepLog keeps what happened, if asked to, or if something was wrong.
func (c *campaign) keepLog(seed int64, out outcome) error {
	dir := c.Logs
	if dir == "" && len(out.violations) > 0 {
		dir = os.TempDir()
	}
	if dir == "" {
		return nil
	}
	path := filepath.Join(dir, fmt.Sprintf("oncepay-faults-seed-%d.log", seed))
	c.say("seed %d: its faults are in %s", seed, path)
	lines := slices.Clone(out.log)
	for _, v := range out.violations {
		lines = append(lines, fmt.Sprintf("VIOLATION %s: %s", v.Oracle, v.Detail))
	}
	return errors.Join(os.MkdirAll(dir, 0o750), os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
}

// sum adds the rounds so far up. It wants mu held.
func (c *campaign) sum(r *report.Result) {
	slices.SortFunc(c.outcomes, func(a, b outcome) int { return int(a.seed - b.seed) })
	r.Faults, r.Policies = map[string]int{}, c.underEach()
	points := map[faultpoint.Point]tally{}
	var recovered []time.Duration
	for _, o := range c.outcomes {
		r.Seeds = append(r.Seeds, o.seed)
		r.Summed += o.took
		r.Operations += o.operations
		r.Nonces += o.figures.Nonces
		r.Charges += o.figures.Charges
		r.Captures += o.figures.Captures
		r.Cancellations += o.figures.Cancellations
		r.Refunds += o.figures.Refunds
		r.Callbacks += o.figures.Callbacks
		r.DoubleCaptures += o.figures.DoubleCaptures
		r.DoubleRefunds += o.figures.DoubleRefunds
		r.Leaked += o.figures.Leaked
		r.Acknowledged += o.figures.Acknowledged
		r.DoubleCharges += o.figures.DoubleCharges
		r.Lost += o.figures.Lost
		r.Unresolved += o.figures.Unresolved
		r.Parked += o.figures.Parked
		r.Undecided += o.figures.Undecided
		r.Violations = append(r.Violations, o.violations...)
		recovered = append(recovered, o.recovered...)
		for k, n := range o.faults {
			r.Faults[k] += n
		}
		for p, t := range o.points {
			sum := points[p]
			points[p] = tally{sum.reached + t.reached, sum.once + t.once, sum.twice + t.twice, sum.frozen + t.frozen}
		}
	}
	r.Recovery = report.Recoveries(recovered)
	for k := range r.Faults { // one that kinds does not know is told all the same
		if !slices.Contains(r.Kinds, k) {
			r.Kinds = append(r.Kinds, k)
		}
	}
	for _, p := range faultpoint.Points {
		t := points[p]
		r.Points = append(r.Points, report.Point{Name: string(p), Reached: t.reached, Once: t.once, Twice: t.twice, Frozen: t.frozen})
	}
}

// underEach is what the rounds so far came to, by their policies. It wants mu held.
func (c *campaign) underEach() []report.Policy {
	var all []report.Policy
	for _, p := range record.Policies {
		sum := report.Policy{Name: p.Name}
		for _, o := range c.outcomes {
			if o.policy != p.Name {
				continue
			}
			sum.Rounds++
			sum.Nonces += o.figures.Nonces
			sum.Charges += o.figures.Charges
			sum.Replays += o.figures.Replays
			sum.KeptErrors += o.figures.KeptErrors
			sum.KeptCharged += o.figures.KeptCharged
			sum.Violations += len(o.violations)
		}
		if sum.Rounds > 0 {
			all = append(all, sum)
		}
	}
	return all
}

// kinds are all faults that there are.
func kinds() []string {
	all := map[string]bool{}
	for _, f := range pspproxy.Faults {
		for _, k := range []pspproxy.Kind{pspproxy.Charge, pspproxy.Operation, pspproxy.Inquiry, pspproxy.Void} {
			all[faultName(k, f)] = true
		}
	}
	for n := range attemptsTried {
		all[refusedName(n+1)] = true
	}
	for _, statement := range statementsLost {
		all["database: statement "+statement+" lost"] = true
		all["database: answer to "+statement+" lost"] = true
	}
	for _, c := range statementsBroken {
		all[cutWithinName(c.name, pgproxy.Asked)] = true
		all[cutWithinName(c.name, pgproxy.Answered)] = true
	}
	for _, name := range callbackFaults {
		all[name] = true
	}
	for _, name := range []string{
		killedAtPoint, killedAtPointActing, "process: frozen at a fault point", "process: killed at random", "process: a request stands still",
		"process: frozen, shorter than the lease", "process: frozen, longer than the lease", "database: all connections cut",
		poolExhausted, slotsExhausted, diskFull, diskFullPanic, serializableDefault,
		networkSilent, networkSlow, networkSliced, lockTable, lockRows, serverKilled, serverKilledAfter, serverStopped, serverRestarted,
		serverFailedOver, serverFailedOverBehind, standbyAway, waitsCancelled,
		"provider: connection refused, for a while", "provider: killed and restarted", "client: hung up", "client: storm",
		"client: another body", "person: a decision", "time: a nonce aged by " + ageBy, "time: a session aged by " + expireBy, instanceAhead, instanceBehind,
	} {
		all[name] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// build builds the product with its fault points, and no defect.
func (c *campaign) build(ctx context.Context, dir string) (string, error) {
	c.say("building the product with its fault points")
	return mutants.Build(ctx, c.root, dir, mutants.Product())
}

func commit(ctx context.Context, root string) string {
	cmd := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty")
	cmd.Dir = root
	text, err := cmd.Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}
