// Payments-bench measures the API against the database below it. A payment is two
// statements; pgbench runs the same two, prepared, on the same server, and what the
// product reaches of that is the ratio. It is what can be compared between machines,
// payments a second cannot.
//
//	           ┌── a round ──────────────────────────────────┐
//	setup ──►  │ creates ◄─ side by side ─► pgbench (floor)  │ ──► medians
//	           │ replays, 409s, mixed                        │
//	           └─────────────────────────────────────────────┘
//
// The generator is this process, the API one of its own, started from the same file:
// it is put together from the product's rooms as cmd/payments does it, with a provider
// that answers at once. `make bench` runs it.
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

// commandLine is what there is to type.
type commandLine struct {
	Bench benchCmd `cmd:"" default:"withargs" help:"Measure. It is what runs without a command."`
	API   apiCmd   `cmd:"" name:"api" hidden:"" help:"The API that is measured; started by the command above."`
}

// benchCmd are the flags of a measurement.
type benchCmd struct {
	Connections []int         `default:"1,8,64,256" help:"Connections of the closed loop, one measurement each: every connection has one request under way, always (default ${default})."`
	Stored      []int         `default:"0,1000000" help:"Payments with their nonces that are stored before, one series each (default ${default})."`
	Duration    time.Duration `default:"5s" help:"How long each load runs in each round; 1s to 20s, whole seconds (default ${default})."`
	Rounds      int           `default:"3" help:"Rounds; each figure is the median of theirs (default ${default})."`
	JSON        bool          `name:"json" help:"One line of JSON for each measurement, and no table."`
	Profile     string        `help:"Keep profiles of the API under creates in this folder, of each measurement's first round, for go tool pprof. They cost time: such figures are not for a table." placeholder:"DIR"`
	Markdown    string        `help:"Write the table to this file, as in docs/reference/benchmarks.md."`
}

const (
	maxConnections = 512 // below what the API works on at a time, 1024: nobody is to be told 503
	maxStored      = 10_000_000
	maxRounds      = 100
	// maxDuration is shorter than a provider may take: the 409s are those of a payment
	// that is with its provider all the time.
	maxDuration = 20 * time.Second
)

func (c benchCmd) check() error {
	for _, n := range c.Connections {
		if n < 1 || n > maxConnections {
			return fmt.Errorf("--connections must be numbers from 1 to %d", maxConnections)
		}
	}
	for _, n := range c.Stored {
		if n < 0 || n > maxStored {
			return fmt.Errorf("--stored must be numbers from 0 to %d", maxStored)
		}
	}
	if c.Duration < time.Second || c.Duration > maxDuration || c.Duration%time.Second != 0 {
		return fmt.Errorf("--duration must be 1s to %s, in whole seconds", maxDuration)
	}
	if c.Rounds < 1 || c.Rounds > maxRounds {
		return fmt.Errorf("--rounds must be from 1 to %d", maxRounds)
	}
	return nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "payments-bench: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, in io.Reader, out, progress io.Writer) error {
	var c commandLine
	parser, err := kong.New(&c, kong.Name("payments-bench"), kong.Writers(out, progress),
		kong.Description("Measures the payments API against pgbench on the same PostgreSQL."))
	if err != nil {
		panic(err) // the tags above
	}
	k, err := parser.Parse(args)
	if err != nil {
		return err
	}
	if k.Command() == "api" {
		return c.API.run(ctx, in, out)
	}
	return c.Bench.run(ctx, out, progress)
}
