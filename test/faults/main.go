// Payments-faults is the fault campaign: it runs the product, breaks everything
// around it, and judges what became of each payment by the provider's own ledger.
//
//	seed ──► orders, faults, choreographies ──► real processes ──► healing ──► oracles
//
// A round is one seed on a stage of its own: PostgreSQL, a provider in a process of
// its own, one or two instances of the API built with the tag faultpoints, and a
// proxy on each way between them. `make prove` runs it.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// options are the command line.
type options struct {
	Duration  time.Duration `default:"3m" help:"How long to begin new rounds (default ${default}); a round takes about a minute."`
	Seed      int64         `default:"1" help:"The first round's seed; each round has the next one. The same seed draws the same orders and faults."`
	Rounds    int           `help:"How many rounds at most; 0 means as many as the duration lets begin."`
	Parallel  int           `default:"4" help:"Rounds, or scenes, that run side by side (default ${default})."`
	Orders    int           `default:"80" help:"Orders of a round beyond those that each round has (default ${default})."`
	AtLeast   int           `help:"Fail if a kind of fault came up less often than this, or a crash point killed nobody, or nobody twice in a row; for that, go on for up to twice the duration."`
	Policy    string        `default:"all" enum:"all,yuno,novu,fyno,ietf" help:"The merchants' idempotency policy: yuno, novu, fyno, ietf, or all, a round each by turns (default ${default})."`
	Mutants   bool          `help:"Hunt the mutants instead: each deliberate defect must be caught, and the product must come through the same scenes."`
	PgBouncer bool          `name:"pgbouncer" help:"Instances reach the database through PgBouncer in transaction mode, as a role that can do no more than it must."`
	Forgetful bool          `help:"A control, which has to fail: in every round PostgreSQL ends, and it runs with synchronous_commit off, so that it forgets what it has acknowledged."`
	Async     bool          `help:"A control, which has to fail: in every round PostgreSQL fails over to an asynchronous standby, which has not received the last of what was acknowledged."`
	Only      string        `help:"With --mutants: only the one of this name."`
	JSON      bool          `name:"json" help:"The result as JSON, in the last line of the output; all else goes to the error output."`
	SVG       string        `help:"Write the picture to this file."`
	Markdown  string        `help:"Write the tables of docs/reference/reliability.md to this file."`
	Logs      string        `help:"Keep the log of every round's faults in this folder."`
}

const (
	exitProven  = 0
	exitRefuted = 1
	exitBroken  = 2 // the campaign itself could not run
)

func main() {
	ownMounts()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, out, progress io.Writer) int {
	var o options
	parser, err := kong.New(&o, kong.Name("payments-faults"), kong.Writers(out, progress),
		kong.Description("Breaks everything around the payments API and judges by the provider's ledger."))
	if err != nil {
		panic(err) // the tags above
	}
	if _, err := parser.Parse(args); err != nil {
		fmt.Fprintf(progress, "payments-faults: %v\n", err)
		return exitBroken
	}
	c := &campaign{options: o, out: out, progress: progress, began: time.Now()}
	failed, err := c.run(ctx)
	switch {
	case err != nil:
		fmt.Fprintf(progress, "payments-faults: %v\n", err)
		return exitBroken
	case failed:
		return exitRefuted
	}
	return exitProven
}
