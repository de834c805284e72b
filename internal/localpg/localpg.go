// Package localpg runs a private PostgreSQL: one cluster in one folder, reached
// only through a UNIX socket that nobody else can open, and gone as soon as the
// process that started it is gone.
//
//	Dir is missing or empty ── initdb beside it, then rename ─┐
//	Dir is a cluster ────────── end what a dead owner left ───┴─ postgres ── ready ── gone
//	Dir is anything else ────── refuse
//
// Three promises hold everywhere in it. A data directory is never deleted,
// overwritten or left half made: whatever does not fit is told and left alone.
// No process is signalled and no folder removed on a guess: it is first proven to
// be ours. And PostgreSQL's log holds no statement, parameter or row.
package localpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// superuser is the role that initdb makes and the URL names: the one that
	// PostgreSQL's tools, and their users, expect.
	superuser = "postgres"

	// maintenanceDB exists in every cluster.
	maintenanceDB = "postgres"

	// runPrefix begins the name of the folder with the socket. It is also how a
	// postmaster that we started is told from somebody else's.
	runPrefix = "oncepay-pg-"

	// maxSocketPath is what macOS takes: 104 bytes with the closing zero. Linux
	// takes four more.
	maxSocketPath = 103

	// pollEvery is short beside the quarter of a second that a start takes.
	pollEvery = 20 * time.Millisecond

	// leftoverLimit bounds the wait for children that outlive a killed postmaster.
	// They notice within milliseconds, unless they are frozen or in the middle of a long
	// statement.
	leftoverLimit = 30 * time.Second

	// abandonLimit bounds the orderly stop of a server whose start failed: nobody
	// has used it, so there is little to be orderly about.
	abandonLimit = 5 * time.Second
)

// ErrInUse is wrapped by the error of a Start on a folder whose server another
// process, or another Start in this one, is running.
var ErrInUse = errors.New("the PostgreSQL folder is in use")

// Options say what to run. The zero value is a server that leaves nothing behind.
type Options struct {
	// Dir is the cluster's folder, made if it is missing. Dir.log appears beside
	// it, and Dir.lock while the server runs. An empty Dir asks for a throwaway
	// cluster in a temporary folder.
	Dir string
	// TempDir is where temporary folders are made: the one with the socket, and a
	// throwaway cluster's. Empty, or too long a path for a socket, means the
	// system's.
	TempDir string
	// Database is created if it is missing. Empty means "postgres".
	Database string
	// Settings are PostgreSQL's, and win over ours. Those that decide where the
	// server is reached and where its data lies are refused.
	Settings map[string]string
	// Log receives what postgres and initdb write; a writer that blocks holds up
	// PostgreSQL. Nil means the file Dir.log, or nowhere if Dir is empty.
	Log io.Writer
	// BinDir holds postgres and initdb. Empty means to search as FindBinaries
	// does, preferring the version that made the cluster.
	BinDir string
}

// Server is a running PostgreSQL.
type Server struct {
	url      string
	process  *process
	stopping atomic.Bool
	done     chan struct{}
	err      error // why it ended by itself; written before done is closed
	tidyErr  error // what could not be tidied up; written before done is closed
}

// Start returns once the server accepts connections. The context bounds the start
// only: the server lives until Stop, or until this process ends in whatever way.
// Recovery after a crash is waited for as long as the context allows, because a
// limit of ours could cut it short at every attempt.
func Start(ctx context.Context, o Options) (*Server, error) {
	return start(ctx, o, identities)
}

func start(ctx context.Context, o Options, fitting func(*cluster) []identity) (_ *Server, err error) {
	if err := checkSettings(o.Settings); err != nil {
		return nil, err
	}
	var tidy cleanup
	defer func() {
		if err != nil {
			err = errors.Join(err, tidy.run())
		}
	}()
	run, err := newScratch(runParent(o.TempDir), runPrefix)
	if err != nil {
		return nil, fmt.Errorf("make the folder for PostgreSQL's socket: %w", err)
	}
	tidy.add(run.remove)

	dir := o.Dir
	if dir == "" {
		dir = filepath.Join(run.dir, "data")
	}
	c, err := openCluster(dir)
	if err != nil {
		return nil, err
	}
	tidy.add(c.unlock)

	out := &output{to: o.Log}
	if o.Log == nil && o.Dir != "" {
		f, err := openLog(c.dir + ".log")
		if err != nil {
			return nil, err
		}
		tidy.add(f.Close)
		out.to = f
	}
	bin, err := chooseBinaries(ctx, o.BinDir, c)
	if err != nil {
		return nil, err
	}
	who, err := chooseIdentity(ctx, bin, fitting(c), filepath.Dir(c.dir), run.dir)
	if err != nil {
		return nil, err
	}
	if err := c.prepare(ctx, bin, who, out); err != nil {
		return nil, err
	}
	socket := filepath.Join(run.dir, socketFolder)
	if err := who.mkdir(socket); err != nil {
		return nil, fmt.Errorf("make the folder for PostgreSQL's socket: %w", err)
	}
	p, err := launch(ctx, socket, func() *exec.Cmd {
		cmd := who.command(context.WithoutCancel(ctx), filepath.Join(bin, "postgres"), arguments(c.dir, socket, o.Settings)...)
		cmd.Dir = c.dir
		cmd.ExtraFiles = []*os.File{run.lock} // keeps sweeps off the folder if the server outlives us
		return cmd
	}, out)
	if err != nil {
		return nil, err
	}
	if err := createDatabase(ctx, socket, o.Database); err != nil {
		p.abandon(ctx)
		return nil, err
	}
	s := &Server{url: databaseURL(socket, o.Database), process: p, done: make(chan struct{})}
	go s.attend(tidy)
	return s, nil
}

// attend waits for the end, whoever brings it about, and tidies up before it
// tells: who has seen Done may start again on the same folder.
func (s *Server) attend(tidy cleanup) {
	<-s.process.done
	if !s.stopping.Load() {
		s.err = s.process.failure("PostgreSQL ended by itself")
	}
	s.tidyErr = tidy.run()
	close(s.done)
}

// URL is a postgres:// URL for pgx, libpq and their tools. It goes through the
// socket and needs no password: the socket's folder admits only its owner.
func (s *Server) URL() string { return s.url }

// Done is closed when PostgreSQL has ended, by Stop or by itself, and the folder
// is free again.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err says why PostgreSQL ended by itself. It is nil while it runs and after a
// Stop.
func (s *Server) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// Stop ends the server and returns when it is gone: sessions are cut and
// everything is written down. Once the context has ended, or after half a minute,
// it stops at once, which loses no commit either but makes the next start recover. Its error is about
// files that could not be tidied up. It may be called again, and from several
// goroutines.
func (s *Server) Stop(ctx context.Context) error {
	s.stopping.Store(true)
	s.process.stop(ctx)
	<-s.done
	return s.tidyErr
}

// launch starts postgres and sees it through to readiness. A postmaster that was
// killed may leave children that hold the cluster a moment longer, and postgres
// rightly refuses to start beside them. That one refusal is waited out.
func launch(ctx context.Context, socket string, command func() *exec.Cmd, out *output) (*process, error) {
	for deadline := time.Now().Add(leftoverLimit); ; {
		out.begin()
		p, err := startProcess(command(), out)
		if err != nil {
			return nil, fmt.Errorf("start postgres: %w", err)
		}
		if err = p.awaitReady(ctx, socket); err == nil {
			return p, nil
		}
		p.abandon(ctx)
		if !out.saysClusterIsHeld() || time.Now().After(deadline) {
			return nil, err
		}
		if err := pause(ctx, pollEvery); err != nil {
			return nil, err
		}
	}
}

// awaitReady polls until the server takes a connection, dies, or refuses for a
// reason that waiting does not change.
func (p *process) awaitReady(ctx context.Context, socket string) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := ping(ctx, socket)
		if err == nil {
			return nil
		}
		if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code != "57P03" { // cannot_connect_now: starting or recovering
			return fmt.Errorf("PostgreSQL runs but does not let us in: %w", err)
		}
		select {
		case <-p.done:
			return p.failure("PostgreSQL did not start")
		case <-ctx.Done():
			return fmt.Errorf("wait for PostgreSQL to accept connections: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

func ping(ctx context.Context, socket string) error {
	conn, err := pgx.Connect(ctx, databaseURL(socket, maintenanceDB))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

func createDatabase(ctx context.Context, socket, name string) (err error) {
	if name == "" || name == maintenanceDB {
		return nil
	}
	conn, err := pgx.Connect(ctx, databaseURL(socket, maintenanceDB))
	if err != nil {
		return fmt.Errorf("connect to create database %q: %w", name, err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	var exists bool
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, name).Scan(&exists); err != nil {
		return fmt.Errorf("look for database %q: %w", name, err)
	}
	if exists {
		return nil
	}
	if _, err := conn.Exec(ctx, `CREATE DATABASE `+pgx.Identifier{name}.Sanitize()); err != nil {
		return fmt.Errorf("create database %q: %w", name, err)
	}
	return nil
}

// databaseURL names the port although it is the usual one, and says that there is
// no TLS, so that PG… variables in somebody's environment change nothing.
func databaseURL(socket, database string) string {
	if database == "" {
		database = maintenanceDB
	}
	u := url.URL{
		Scheme: "postgres",
		Path:   "/" + database,
		RawQuery: url.Values{
			"host":    {socket},
			"port":    {port},
			"user":    {superuser},
			"sslmode": {"disable"},
		}.Encode(),
	}
	return u.String()
}

// runParent is where the socket's folder is made. It cannot be the data directory,
// which may be too deep for a socket; so may, rarely, be the others.
func runParent(preferred string) string {
	const longestRandom = "4294967295" // os.MkdirTemp appends a uint32
	below := filepath.Join("/", runPrefix+longestRandom, socketFolder, ".s.PGSQL."+port)
	for _, dir := range []string{preferred, os.TempDir()} {
		// Where a socket is named, PostgreSQL and libpq read lists.
		if filepath.IsAbs(dir) && len(dir)+len(below) <= maxSocketPath && !strings.ContainsAny(dir, `,"`) {
			return dir
		}
	}
	return "/tmp"
}

// pause waits that long, or until the context ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// cleanup is what is to be undone, latest first.
type cleanup []func() error

func (c *cleanup) add(f func() error) { *c = append(*c, f) }

func (c *cleanup) run() error {
	var errs []error
	for _, f := range slices.Backward(*c) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}
