package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/oncepay/oncepay/internal/faultpoint"
	"github.com/oncepay/oncepay/internal/pgtest/pgbouncer"
	"github.com/oncepay/oncepay/internal/pgtest/pgproxy"
	"github.com/oncepay/oncepay/test/faults/pspproxy"
	"github.com/oncepay/oncepay/test/harness"
)

const (
	// readyLimit bounds the start of a process on a busy machine.
	readyLimit = 60 * time.Second
	// pollEvery is how often a file of a process's output is read again.
	pollEvery = 10 * time.Millisecond
	// restartPause is what a supervisor waits before it starts somebody again who did
	// not even become ready.
	restartPause = 100 * time.Millisecond
	// maxUnready is more often than anybody is killed, or finds no database, while it
	// starts.
	maxUnready = 200
)

// daemon is a process that is started again as soon as it has died, as a
// supervisor does.
type daemon struct {
	name    string
	command harness.Command
	binary  string
	dir     string
	ready   func(stdout string) bool // and takes over what it says

	mu       sync.Mutex
	cmd      *exec.Cmd
	runs     int
	unready  int           // runs since the last one that became ready
	ended    chan struct{} // of the current run
	stopping bool
	hits     []time.Time // when it was killed or frozen
	failure  error
	wg       sync.WaitGroup
}

// start starts the process and returns once it is ready.
func (d *daemon) start(ctx context.Context) error {
	if err := d.run(ctx); err != nil {
		return err
	}
	d.wg.Go(func() { d.supervise(ctx) })
	return nil
}

// run starts the process once, and waits until it is ready or has ended again.
func (d *daemon) run(ctx context.Context) error {
	d.mu.Lock()
	if d.stopping {
		d.mu.Unlock()
		return errors.New("stopping")
	}
	d.runs++
	d.unready++
	base := filepath.Join(d.dir, fmt.Sprintf("%s.%d", d.name, d.runs))
	cmd := exec.Command(d.binary, d.command.Args...) //nolint:noctx // ended by stop, and with this process
	out, err := os.Create(base + ".out")
	if err != nil {
		d.mu.Unlock()
		return err
	}
	defer out.Close()
	log, err := os.Create(base + ".log")
	if err != nil {
		d.mu.Unlock()
		return err
	}
	defer log.Close()
	cmd.Dir, cmd.Stdout, cmd.Stderr = d.dir, out, log
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + d.dir, "HOME=" + d.dir, "LC_ALL=C"}, d.command.Env...)
	if err := harness.StartTied(cmd); err != nil {
		d.mu.Unlock()
		return fmt.Errorf("start %s: %w", d.name, err)
	}
	ended := make(chan struct{})
	d.cmd, d.ended = cmd, ended
	d.mu.Unlock()
	d.wg.Go(func() {
		_ = cmd.Wait() // how it ended, the supervisor need not know
		close(ended)
	})
	return d.awaitReady(ctx, base, ended)
}

func (d *daemon) awaitReady(ctx context.Context, base string, ended <-chan struct{}) error {
	limit := time.After(readyLimit)
	for {
		out, err := os.ReadFile(base + ".out")
		if err == nil && d.ready(string(out)) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.unready = 0
			return nil
		}
		select {
		case <-ended:
			return nil // the supervisor starts it again
		case <-ctx.Done():
			return ctx.Err()
		case <-limit:
			return fmt.Errorf("%s was not ready within %s", d.name, readyLimit)
		case <-time.After(pollEvery):
		}
	}
}

// supervise starts the process again whenever it has ended.
func (d *daemon) supervise(ctx context.Context) {
	for {
		d.mu.Lock()
		ended := d.ended
		d.mu.Unlock()
		select {
		case <-ended:
		case <-ctx.Done():
			return
		}
		d.mu.Lock()
		stopping, unready := d.stopping, d.unready
		d.mu.Unlock()
		if stopping || ctx.Err() != nil {
			return
		}
		// Whoever never becomes ready is broken and not unlucky.
		if unready > maxUnready {
			d.fail(fmt.Errorf("%s ended %d times in a row before it was ready", d.name, unready))
			return
		}
		if unready > 0 {
			rest(ctx, restartPause)
		}
		if err := d.run(ctx); err != nil {
			d.fail(err)
			return
		}
	}
}

func (d *daemon) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.stopping {
		d.failure = errors.Join(d.failure, err)
	}
}

// problem is why the process could not be kept running, or nil.
func (d *daemon) problem() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failure
}

// signal sends a signal to the current process.
func (d *daemon) signal(sig syscall.Signal) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd != nil && d.cmd.Process != nil {
		_ = d.cmd.Process.Signal(sig) // it may have just ended
	}
}

// hit notes that the process is being killed or frozen.
func (d *daemon) hit() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hits = append(d.hits, time.Now())
}

// disturbed says whether the process was killed or frozen shortly before now.
func (d *daemon) disturbed(within time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.hits) > 0 && time.Since(d.hits[len(d.hits)-1]) < within
}

// stop ends the process for good.
func (d *daemon) stop() {
	d.mu.Lock()
	d.stopping = true
	cmd := d.cmd
	d.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Kill()
	}
	d.wg.Wait()
}

// logs is everything that the process wrote to its log, over all its runs.
func (d *daemon) logs() string {
	files, _ := filepath.Glob(filepath.Join(d.dir, d.name+".*.log"))
	var all strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err == nil {
			all.Write(text)
		}
	}
	return all.String()
}

// instance is one process of the API, with ways of its own to the provider and to
// the database.
type instance struct {
	daemon
	psp     *pspproxy.Proxy
	db      *pgproxy.Proxy
	bouncer *pgbouncer.Server // before db, or nil

	url   string // guarded by daemon.mu
	admin string
}

// addresses are where the instance listens now; "" while it starts.
func (i *instance) addresses() (url, admin string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.url, i.admin
}

func (i *instance) isReady(out string) bool {
	url, ok1 := harness.Told(out, "API")
	admin, ok2 := harness.Told(out, "Operator")
	if !ok1 || !ok2 {
		return false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.url, i.admin = url, admin
	return true
}

// kill ends the process as a loss of power would.
func (i *instance) kill() {
	i.hit()
	i.signal(syscall.SIGKILL)
}

// freeze stops the process for a while.
func (i *instance) freeze(ctx context.Context, d time.Duration) {
	i.hit()
	i.mu.Lock()
	process := i.cmd.Process
	i.mu.Unlock()
	_ = process.Signal(syscall.SIGSTOP)
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	i.hit()
	_ = process.Signal(syscall.SIGCONT)
}

// faultEnv is what makes a process ask at its fault points.
func faultEnv(socket, name, withhold string) []string {
	return []string{faultpoint.EnvSocket + "=" + socket, faultpoint.EnvInstance + "=" + name, faultpoint.EnvWithhold + "=" + withhold}
}
