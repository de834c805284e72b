// Command payments is Oncepay: the payments API, its operator's listener, the
// sandbox provider and the tools around them, in one binary.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// Exit codes. Scripts may rely on them.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitUnavailable = 4
	exitForced      = 5
)

// exitError is an error with an exit code of its own.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string { return e.err.Error() }
func (e exitError) Unwrap() error { return e.err }

func usage(format string, args ...any) error {
	return exitError{exitUsage, fmt.Errorf(format, args...)}
}

func notFound(format string, args ...any) error {
	return exitError{exitNotFound, fmt.Errorf(format, args...)}
}

func unavailableError(format string, args ...any) error {
	return exitError{exitUnavailable, fmt.Errorf(format, args...)}
}

// streams are where a command writes: results on out, everything else on err.
type streams struct{ out, err io.Writer }

// cli is the command line. Each flag is also a variable, PAYMENTS_ and its name.
type cli struct {
	Dev        devCmd        `cmd:"" help:"Run everything on this machine: PostgreSQL, a sandbox merchant, the sandbox provider, the API."`
	Serve      serveCmd      `cmd:"" help:"Run the API against your own database and provider."`
	Migrate    migrateCmd    `cmd:"" help:"Bring the database schema up to date, or tell where it stands."`
	Sandbox    sandboxCmd    `cmd:"" help:"Run the sandbox provider as its own process."`
	Lookup     lookupCmd     `cmd:"" help:"Tell what became of a nonce."`
	Resolve    resolveCmd    `cmd:"" help:"Decide what became of a transaction that nobody could settle."`
	Invariants invariantsCmd `cmd:"" help:"Recompute every sum and rule over the whole database; fails if one does not hold."`
	Reconcile  reconcileCmd  `cmd:"" help:"Compare our books with the providers', and name every difference; fails if there is one."`
	Merchants  merchantsCmd  `cmd:"" help:"Make, list, show, change and disable merchants."`
	Keys       keysCmd       `cmd:"" help:"Make, list, rotate and revoke a merchant's API keys."`
	Operators  operatorsCmd  `cmd:"" help:"Invite, list, change and disable those who may sign in to the console."`
	Tokens     tokensCmd     `cmd:"" help:"Make, list and revoke tokens for programs that call the operator's API."`
	Audit      auditCmd      `cmd:"" help:"List what operators did, and prove that nobody has altered it."`
	Doctor     doctorCmd     `cmd:"" help:"Find what is wrong with machine, configuration, database, provider and keys."`
	Version    versionCmd    `cmd:"" help:"Print the version."`
}

func main() {
	ctx, stop := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		stop()
		<-signals
		fmt.Fprintln(os.Stderr, "payments: ended at once, by a second signal; what was under way is resumed by whoever runs next")
		os.Exit(exitForced)
	}()
	os.Exit(run(ctx, os.Args[1:], streams{os.Stdout, os.Stderr}))
}

// run is main without the process around it.
func run(ctx context.Context, args []string, s streams) int {
	var c cli
	exited := -1
	parser, err := kong.New(&c,
		kong.Name("payments"),
		kong.Description("The payments API you can pull the plug on: one nonce moves money at most once."),
		kong.DefaultEnvars("PAYMENTS"),
		kong.Writers(s.out, s.err),
		kong.Exit(func(code int) { exited = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(s),
	)
	if err != nil {
		fmt.Fprintln(s.err, "payments:", err)
		return exitFailed
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if exited >= 0 { // --help
		return exited
	}
	if err != nil {
		fmt.Fprintf(s.err, "payments: %s\nRun `payments --help` to see how it is used.\n", err)
		return exitUsage
	}
	if err := command.Run(); err != nil {
		fmt.Fprintln(s.err, "payments:", err)
		if e, ok := errors.AsType[exitError](err); ok {
			return e.code
		}
		return exitFailed
	}
	return exitOK
}
