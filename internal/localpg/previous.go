package localpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// previousLimit is how long a server of an earlier run gets to write down what it
// has, before it is told to stop at once; and then how long it gets for that.
const previousLimit = 10 * time.Second

// verdict is what we know about the process that postmaster.pid names.
type verdict int

const (
	gone    verdict = iota // dead, or provably something else that got its number
	running                // a postgres on this cluster
	unknown                // we may not look
)

// postmaster is what postmaster.pid says.
type postmaster struct {
	pid  int
	ours bool // its socket lies in a folder of ours
}

// readPostmaster returns nil if there is no postmaster.pid.
func (c *cluster) readPostmaster() (*postmaster, error) {
	text, err := os.ReadFile(c.pidFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for an earlier server: %w", err)
	}
	// The lines: process id, data directory, start time, port, socket folder, …
	// They are written one after the other while the server starts.
	lines := strings.Split(string(text), "\n")
	pid, _ := strconv.Atoi(strings.TrimSpace(lines[0]))
	if pid < 0 {
		pid = -pid // a single-user server marks itself so
	}
	p := &postmaster{pid: pid}
	if len(lines) > 4 {
		p.ours = strings.HasPrefix(filepath.Base(filepath.Dir(lines[4])), runPrefix)
	}
	return p, nil
}

func (c *cluster) pidFile() string { return filepath.Join(c.dir, "postmaster.pid") }

// endPrevious returns when no earlier server runs on the cluster. We hold the
// folder's lock, so one of ours has lost the process that started it: it is ending
// already, or is asked to, and after the limit told to. One that somebody else
// started is only waited for.
func (c *cluster) endPrevious(ctx context.Context, limit time.Duration) error {
	for began := time.Now(); ; {
		p, err := c.readPostmaster()
		if p == nil || err != nil {
			return err
		}
		waited := time.Since(began)
		request := syscall.SIGINT
		if waited > limit {
			request = syscall.SIGQUIT
		}
		// A postmaster that is going down ignores what it was told before.
		switch c.examine(ctx, p, request) {
		case gone:
			return c.removeStale(p)
		case unknown:
			return nil // postgres may know more, and else refuses with its own words
		case running:
		}
		if waited > 2*limit || (!p.ours && waited > limit) {
			return fmt.Errorf("%w: another PostgreSQL (process %d) runs on %s. Stop it with: pg_ctl -D '%s' stop", ErrInUse, p.pid, c.dir, c.dir)
		}
		if err := pause(ctx, pollEvery); err != nil {
			return fmt.Errorf("wait for the earlier server on %s to end: %w", c.dir, err)
		}
	}
}

// examine finds out whether the process still serves the cluster, and if so, and
// if it is ours, sends it the signal.
func (c *cluster) examine(ctx context.Context, p *postmaster, request syscall.Signal) verdict {
	if p.pid <= 0 || p.pid == os.Getpid() {
		return gone
	}
	// The handle is taken before the look, so that it stands for the process that
	// was looked at even if the number changes hands meanwhile.
	process, err := os.FindProcess(p.pid)
	if err != nil {
		return gone
	}
	defer func() { _ = process.Release() }()
	// On another user's process this fails too, but with neither of these.
	if err := process.Signal(syscall.Signal(0)); errors.Is(err, os.ErrProcessDone) || errors.Is(err, syscall.ESRCH) {
		return gone
	}
	v := inspect(ctx, p.pid, c.dir)
	if v == running && p.ours {
		_ = process.Signal(request) // it may end at this very moment
	}
	return v
}

// removeStale removes a postmaster.pid whose process is gone. PostgreSQL would do
// so itself, but not when an unrelated process of ours has got the number, as
// happens in containers and after a reboot. The file is not what protects the
// data: a server also refuses to start while another is attached to the shared
// memory that it finds by the folder's inode.
func (c *cluster) removeStale(seen *postmaster) error {
	now, err := c.readPostmaster()
	if now == nil || err != nil || now.pid != seen.pid {
		return err
	}
	if err := os.Remove(c.pidFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the stale postmaster.pid: %w", err)
	}
	return nil
}
