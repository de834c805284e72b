package providertest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/providers"
)

// fake is a provider in memory whose traits can be switched off, and that can be
// told to lie. The suite has to pass the honest ones and to catch the liars.
type fake struct {
	traits providers.Traits
	lie    string
	off    bool // nobody listens
	*ledger
}

// ledger is what outlives a fake.
type ledger struct {
	requests atomic.Int64
	mu       sync.Mutex
	booked   map[string]int
	answers  map[string]providers.Result
	voided   map[string]bool
	met      map[string]bool // references whose first send has been
}

func newLedger() *ledger {
	return &ledger{booked: map[string]int{}, answers: map[string]providers.Result{}, voided: map[string]bool{}, met: map[string]bool{}}
}

func (f *fake) Name() string             { return "FAKE" }
func (f *fake) Traits() providers.Traits { return f.traits }

var unclear = providers.Result{Outcome: providers.Unclear}

func (f *fake) Charge(ctx context.Context, c providers.Charge, may providers.MaySend) providers.Result {
	if f.off || ctx.Err() != nil || !may() && f.lie != "ignores MaySend" {
		return providers.Result{Outcome: providers.NotReached}
	}
	f.requests.Add(1)
	ctx, cancel := context.WithTimeout(ctx, f.traits.Timeout)
	defer cancel()
	f.mu.Lock()
	r, behaviour := f.decide(c)
	f.mu.Unlock()
	if f.lie == "prints the card" {
		r.Detail = fmt.Sprintf("charged %s", c.Card.Number)
	}
	switch behaviour {
	case BookAndHang, HangUnbooked:
		<-ctx.Done()
		r = providers.Result{Outcome: providers.Unclear, TimedOut: true}
		if f.lie == "calls a timeout a no" {
			r = providers.Result{Outcome: providers.NotReached}
		}
	case BookAndFail, FailUnbooked, BookAndBreakOff:
		r = unclear
		if f.lie == "calls an error a no" {
			r = providers.Result{Outcome: providers.NotReached}
		}
	case Approve, Decline, Refuse, GuaranteeNothing, Tokenise:
	}
	return r
}

func (f *fake) decide(c providers.Charge) (providers.Result, Behaviour) {
	if f.voided[c.Reference] {
		return providers.Result{Outcome: providers.Refused}, Approve
	}
	if r, known := f.answers[c.Reference]; known && f.traits.Idempotent && f.lie != "books twice" {
		return r, Approve
	}
	behaviour := Behaviour(c.Description)
	if f.met[c.MerchantOrderID] {
		behaviour = Approve
	}
	f.met[c.MerchantOrderID] = true
	switch behaviour {
	case Decline:
		r := providers.Result{Outcome: providers.Declined, ResponseCode: "DO_NOT_HONOR"}
		f.answers[c.Reference] = r
		return r, Approve
	case Refuse:
		return providers.Result{Outcome: providers.Refused}, Approve
	case GuaranteeNothing:
		return providers.Result{Outcome: providers.NotReached}, Approve
	case HangUnbooked, FailUnbooked:
		return unclear, behaviour
	case Approve, BookAndHang, BookAndFail, BookAndBreakOff, Tokenise:
	}
	f.booked[c.Reference]++
	r := providers.Result{Outcome: providers.Approved, ResponseCode: "SUCCEEDED",
		ProviderReference: fmt.Sprintf("%s#%d", c.Reference, f.booked[c.Reference])}
	f.answers[c.Reference] = r
	return r, behaviour
}

func (f *fake) Inquire(ctx context.Context, o providers.Order) providers.Result {
	if f.off || ctx.Err() != nil || !f.traits.Queryable && f.lie != "can be asked after all" {
		return unclear
	}
	f.requests.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if r, known := f.answers[o.Reference]; known {
		return r
	}
	return providers.Result{Outcome: providers.NotFound}
}

func (f *fake) Void(_ context.Context, o providers.Order, may providers.MaySend) providers.Result {
	switch {
	case f.off, !f.traits.CanVoid:
		return unclear
	case !may():
		return providers.Result{Outcome: providers.NotReached}
	}
	f.requests.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if r, known := f.answers[o.Reference]; known {
		return r
	}
	f.voided[o.Reference] = f.lie != "forgets a void"
	return providers.Result{Outcome: providers.Voided}
}

func (f *fake) Tokenise(_ context.Context, c providers.Card) (providers.Token, error) {
	if f.off || len(c.Number) > 19 {
		return providers.Token{}, providers.ErrTokenise
	}
	return providers.Token{Value: "t"}, nil
}

func fixture(lie string, tr providers.Traits) func(t *testing.T) Fixture {
	return func(*testing.T) Fixture {
		f := &fake{traits: tr, lie: lie, ledger: newLedger()}
		return Fixture{
			Provider: f,
			Arrange:  func(_ *testing.T, c *providers.Charge, want Behaviour) { c.Description = string(want) },
			Bookings: func(_ *testing.T, o providers.Order) int {
				f.mu.Lock()
				defer f.mu.Unlock()
				return f.booked[o.Reference]
			},
			Requests: func() int { return int(f.requests.Load()) },
			Reopen: func(*testing.T) providers.Provider {
				if lie == "forgets everything" {
					f.ledger = newLedger()
				}
				return &fake{traits: tr, lie: lie, ledger: f.ledger}
			},
			Unreachable: func(*testing.T) providers.Provider { return &fake{traits: tr, off: true, ledger: f.ledger} },
		}
	}
}

// all is every trait, with a timeout that the tests of it wait for.
var all = providers.Traits{Idempotent: true, Queryable: true, CanVoid: true, Timeout: 50 * time.Millisecond}

func TestHonestProvidersPassWhateverTheyDeclare(t *testing.T) {
	for i := range 8 {
		tr := all
		tr.Idempotent, tr.Queryable, tr.CanVoid = i&1 > 0, i&2 > 0, i&4 > 0
		t.Run(fmt.Sprintf("idempotent=%v,queryable=%v,canvoid=%v", tr.Idempotent, tr.Queryable, tr.CanVoid), func(t *testing.T) {
			t.Parallel()
			Run(t, fixture("", tr))
		})
	}
}

const liarEnv = "ONCEPAY_PROVIDERTEST_LIAR"

// TestLiar is not for its own sake: TestLiarsAreCaught runs it in a process of
// its own, where it must fail.
func TestLiar(t *testing.T) {
	lie := os.Getenv(liarEnv)
	if lie == "" {
		return
	}
	tr := all
	tr.Queryable = lie != "can be asked after all"
	tr.Idempotent = lie != "recognises references after all"
	f := fixture(lie, tr)
	if !tr.Idempotent { // behaves as if it were, and does not declare it
		f = func(t *testing.T) Fixture {
			x := fixture(lie, all)(t)
			x.Provider = undeclared{x.Provider}
			return x
		}
	}
	Run(t, f)
}

type undeclared struct{ providers.Provider }

func (u undeclared) Traits() providers.Traits {
	tr := u.Provider.Traits()
	tr.Idempotent = false
	return tr
}

func TestLiarsAreCaught(t *testing.T) {
	for lie, caughtBy := range map[string]string{
		"books twice":                     "SameReferenceTwice",
		"ignores MaySend":                 "MaySendFalseSendsNothing",
		"prints the card":                 "ApprovedIsBookedOnceAndCanBeInquired",
		"calls a timeout a no":            "BookedButNeverAnswered",
		"calls an error a no":             "BookedButAnsweredWithAnError",
		"can be asked after all":          "UnknownReferenceIsNotFound",
		"forgets a void":                  "VoidBeforeTheCharge",
		"forgets everything":              "RemembersAfterARestart",
		"recognises references after all": "SameReferenceTwice",
	} {
		t.Run(lie, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLiar$", "-test.timeout=60s") // #nosec G204 -- this test binary
			cmd.Env = append(os.Environ(), liarEnv+"="+lie)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestLiar/"+caughtBy) {
				t.Errorf("not caught by %s: %v\n%s", caughtBy, err, out)
			}
			if strings.Contains(string(out), canaryNumber) {
				t.Error("the suite itself prints the card")
			}
		})
	}
}
