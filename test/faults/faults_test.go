package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/oncepay/oncepay/internal/faultpoint"
	"github.com/oncepay/oncepay/test/faults/mutants"
	"github.com/oncepay/oncepay/test/faults/record"
	"github.com/oncepay/oncepay/test/harness"
)

// described is what of an order depends on the seed.
func described(orders []*order) []string {
	var list []string
	for _, o := range orders {
		text := fmt.Sprintf("%s %s %+v %s %v %v %v %v", o.nonce, o.about, o.manner, o.story, o.charges, o.inquiries, o.voids, o.twice)
		for _, p := range o.steps {
			text += fmt.Sprintf(" %s:%t,%s,%s,%s", p.at, p.step.die, p.step.stop, p.step.slow, p.step.name)
		}
		list = append(list, text)
	}
	return list
}

func TestSeedDrawsTheSameOrdersAndFaults(t *testing.T) {
	draw := func(seed int64) []string {
		s := &stage{set: set{seed: seed, wild: seed%2 == 1}}
		return described(s.drawOrders(50))
	}
	for seed := int64(1); seed < 5; seed++ {
		if !reflect.DeepEqual(draw(seed), draw(seed)) {
			t.Errorf("seed %d drew other orders the second time", seed)
		}
		if reflect.DeepEqual(draw(seed), draw(seed+2)) {
			t.Errorf("seeds %d and %d drew the same", seed, seed+2)
		}
	}
}

func TestEveryPointIsKilledAtInOneOfTwoRounds(t *testing.T) {
	for _, policy := range record.Policies {
		kills := map[faultpoint.Point]int{}
		for _, wild := range []bool{true, false} {
			s := &stage{set: set{seed: 1, policy: policy, wild: wild}}
			for _, o := range s.drawOrders(0) {
				for _, p := range o.steps {
					if p.step.die {
						kills[p.at]++
					}
				}
			}
		}
		for _, p := range faultpoint.Points {
			if kills[p] < 2 {
				t.Errorf("%s, under %s: %d kills are planned, not one alone and one to be followed by another", p, policy.Name, kills[p])
			}
		}
	}
}

func TestPoliciesAreDealtToAllRounds(t *testing.T) {
	c := &campaign{options: options{Policy: everyPolicy}}
	type stages struct {
		policy string
		kind   int64 // what the stage is like repeats with eight seeds
	}
	dealt := map[stages]int{}
	for seed := int64(1); seed <= 128; seed++ {
		dealt[stages{c.policyOf(seed).Name, seed % 8}]++
	}
	for _, p := range record.Policies {
		for kind := range int64(8) {
			if n := dealt[stages{p.Name, kind}]; n != 4 {
				t.Errorf("of 16 rounds like seed %d, %d are under %s", kind, n, p.Name)
			}
		}
	}
	for first := int64(1); first < 100; first += 4 {
		seen := map[string]bool{}
		for seed := first; seed < first+4; seed++ {
			seen[c.policyOf(seed).Name] = true
		}
		if len(seen) != len(record.Policies) {
			t.Errorf("seeds %d to %d have the policies %v", first, first+3, seen)
		}
	}
	c.Policy = "ietf"
	if got := c.policyOf(1).Name; got != "ietf" {
		t.Errorf("where ietf was asked for, it is %s", got)
	}
}

func TestNothingIsDoneWithPaymentsWhoseActionsAreUnprotected(t *testing.T) {
	for _, policy := range record.Policies {
		for seed := int64(1); seed <= 2; seed++ {
			s := &stage{set: set{seed: seed, policy: policy, wild: seed%2 == 1}}
			n := 0
			for _, o := range s.drawOrders(50) {
				n += len(o.after)
			}
			if (n > 0) == policy.CreatesOnly {
				t.Errorf("under %s, %d groups of actions are drawn", policy.Name, n)
			}
		}
	}
}

func TestEveryMutantHasItsSceneAndEverySceneItsMutant(t *testing.T) {
	hunted := map[string]bool{}
	for _, m := range mutants.All() {
		sc, ok := sceneNamed(prey[m.Name])
		if !ok {
			t.Errorf("mutant %s has no scene", m.Name)
		}
		if sc.withhold != m.Withhold {
			t.Errorf("mutant %s has a provider without %q, and its control one without %q", m.Name, m.Withhold, sc.withhold)
		}
		hunted[sc.name] = true
	}
	if len(prey) != len(mutants.All()) {
		t.Errorf("%d mutants have scenes, and there are %d", len(prey), len(mutants.All()))
	}
	for _, sc := range scenes {
		if !hunted[sc.name] {
			t.Errorf("no mutant fails in the scene %q", sc.name)
		}
	}
}

// reach asks as a process does at a fault point.
func reach(t *testing.T, c *controller, q faultpoint.Question) string {
	t.Helper()
	conn, err := net.Dial("unix", c.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(q); err != nil {
		t.Fatal(err)
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(answer)
}

func newController(t *testing.T) *controller {
	t.Helper()
	dir, err := os.MkdirTemp("", "faults-") //nolint:usetesting // a test's own folder may have too long a name for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c, err := startController(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

func TestControllerAnswersByTheNoncesPlan(t *testing.T) {
	c := newController(t)
	c.at("a", faultpoint.SendAfter, step{}, die())
	c.at("b", faultpoint.SendAfter, step{die: true, on: "api-2"})
	ask := func(nonce, instance string) string {
		return reach(t, c, faultpoint.Question{Point: faultpoint.SendAfter, Nonce: nonce, Instance: instance})
	}
	var got []string
	for _, q := range [][2]string{{"a", "api-1"}, {"a", "api-1"}, {"a", "api-1"}, {"b", "api-1"}, {"b", "api-2"}, {"c", "api-1"}} {
		got = append(got, ask(q[0], q[1]))
	}
	want := []string{faultpoint.Go, faultpoint.Die, faultpoint.Go, faultpoint.Go, faultpoint.Die, faultpoint.Go}
	if !slices.Equal(got, want) {
		t.Errorf("answered %v, not %v", got, want)
	}
	if n := c.tallies()[faultpoint.SendAfter]; n != (tally{reached: 6, once: 2}) {
		t.Errorf("counted %+v", n)
	}
}

func TestKillIsFollowedByAnotherAtTheSamePoint(t *testing.T) {
	c := newController(t)
	c.at("a", faultpoint.FinishAfter, die())
	c.killTwice(faultpoint.FinishAfter)
	var got []string
	for _, nonce := range []string{"a", "z", "z"} {
		got = append(got, reach(t, c, faultpoint.Question{Point: faultpoint.FinishAfter, Nonce: nonce}))
	}
	if !slices.Equal(got, []string{faultpoint.Die, faultpoint.Die, faultpoint.Go}) {
		t.Errorf("answered %v", got)
	}
	if n := c.tallies()[faultpoint.FinishAfter]; n != (tally{reached: 3, once: 1, twice: 1}) {
		t.Errorf("counted %+v", n)
	}
}

func TestTrapHoldsUntilReleasedAndHealingReleasesAll(t *testing.T) {
	c := newController(t)
	held := c.trap("a", faultpoint.SendWire)
	answers := make(chan string)
	go func() {
		answers <- reach(t, c, faultpoint.Question{Point: faultpoint.SendWire, Nonce: "a", Instance: "api-2"})
	}()
	if held.by() != "api-2" {
		t.Errorf("it holds %q", held.by())
	}
	c.at("b", faultpoint.SendWire, die())
	c.heal()
	if a := <-answers; a != faultpoint.Go {
		t.Errorf("released with %q", a)
	}
	if a := reach(t, c, faultpoint.Question{Point: faultpoint.SendWire, Nonce: "b"}); a != faultpoint.Go {
		t.Errorf("after healing, told to %s", a)
	}
}

func TestProductHoldsNoFaultPoint(t *testing.T) {
	root, err := harness.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		tags string
		has  bool
	}{{"", false}, {"faultpoints", true}} {
		binary := filepath.Join(t.TempDir(), "payments")
		cmd := exec.CommandContext(t.Context(), "go", "build", "-tags", c.tags, "-buildvcs=false", "-o", binary, "./cmd/payments")
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, text)
		}
		data, err := os.ReadFile(binary)
		if err != nil {
			t.Fatal(err)
		}
		if has := bytes.Contains(data, []byte(faultpoint.EnvSocket)) || bytes.Contains(data, []byte("faultpoint.Reach")); has != c.has {
			t.Errorf("built with the tags %q: it holds fault points is %t, not %t", c.tags, has, c.has)
		}
	}
}
