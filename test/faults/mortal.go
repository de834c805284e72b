package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/localpg"
	"github.com/oncepay/oncepay/internal/pgtest"
)

// The ends of a PostgreSQL, as the report calls them.
const (
	serverKilled      = "database: PostgreSQL killed"
	serverKilledAfter = "database: PostgreSQL killed right after an answer"
	serverStopped     = "database: PostgreSQL stopped, immediate"
	serverRestarted   = "database: PostgreSQL restarted"
)

// mortalSettings leave localpg's durable ones alone (fsync, full_page_writes and
// synchronous_commit are on): what was committed has to be there again. The data may
// lie in memory all the same: the end of every process takes nothing from the kernel,
// where a file in memory is as safe as one on a disk. A loss of power is not tried.
// There are connections for two instances and for those who look on, and few more, so
// that it takes little to use them up; and the log of writes leaves a small disk some
// room. Shared memory lies with the data: else a server that is killed leaves a part of
// it behind on the machine.
var mortalSettings = map[string]string{"max_connections": "64", "max_wal_size": "128MB", "min_wal_size": "32MB", "dynamic_shared_memory_type": "mmap"}

// forgetfulSettings acknowledge a commit before it is written: kill -9 then loses what
// the server still had in its own memory. With them, the campaign has to fail.
var forgetfulSettings = map[string]string{"synchronous_commit": "off", "wal_writer_delay": "10s"}

const (
	// riseLimit bounds a start with its recovery, which replays seconds of work.
	riseLimit = 60 * time.Second
	// downAtMost is the longest pause before a server that ended is started again.
	downAtMost = time.Second
)

// mortal is the PostgreSQL of one stage, which may end at any time and is started
// again on the same data, or replaced by its standby. Each start has a socket in
// another folder; a symbolic link leads to the one of the moment, so that its address
// stays.
type mortal struct {
	dir      string
	settings map[string]string
	pair     *pair // its standby, or nil
	ownDisk  bool  // dir is a file system of its own

	mu      sync.Mutex // held from an end to the next start
	data    string     // the folder of the cluster that is served
	folders int        // that there were
	server  *localpg.Server
	watcher *pgx.Conn // open since the start, because kill has no time to connect
	calm    bool
	failure error
}

// startMortal makes a cluster and starts it; forgetful, it is none to trust. It has no
// standby yet.
func startMortal(ctx context.Context, o set) (_ *mortal, err error) {
	m := &mortal{settings: maps.Clone(mortalSettings)}
	if o.forgetful {
		maps.Copy(m.settings, forgetfulSettings)
	}
	if o.standby != alone {
		maps.Copy(m.settings, pairSettings)
	}
	if m.dir, err = os.MkdirTemp(pgtest.TempDir(), "oncepay-faults-pg-"); err != nil {
		return nil, err
	}
	if err = m.takeDisk(o.ownDisk); err == nil {
		err = os.Chmod(m.dir, 0o711) // PostgreSQL may run as somebody else, who passes through
	}
	if err == nil {
		m.data = m.newFolder()
		err = m.rise(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

func (m *mortal) link() string { return filepath.Join(m.dir, "socket") }

// newFolder is where the next cluster lies.
func (m *mortal) newFolder() string {
	m.folders++
	return filepath.Join(m.dir, fmt.Sprintf("data-%d", m.folders))
}

// url leads to the server of the moment, whichever that is.
func (m *mortal) url() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, q, err := address(m.server)
	if err != nil {
		panic("localpg gave a URL that cannot be read")
	}
	q.Set("host", m.link())
	u.RawQuery = q.Encode()
	return u.String()
}

func address(s *localpg.Server) (*url.URL, url.Values, error) {
	u, err := url.Parse(s.URL())
	if err != nil {
		return nil, nil, err
	}
	return u, u.Query(), nil
}

// rise starts the server, which recovers if it has to. It wants mu held, or nobody
// else there yet.
func (m *mortal) rise(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, riseLimit)
	defer cancel()
	if m.server, err = localpg.Start(ctx, localpg.Options{Dir: m.data, TempDir: pgtest.TempDir(), Settings: m.settings}); err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	return m.lead(ctx)
}

// lead makes the address lead to the server. It wants mu held.
func (m *mortal) lead(ctx context.Context) error {
	_, q, err := address(m.server)
	if err != nil {
		return err
	}
	next := m.link() + ".next"
	if err := errors.Join(os.Symlink(q.Get("host"), next), os.Rename(next, m.link())); err != nil {
		return err
	}
	m.watcher, err = pgx.Connect(ctx, m.server.URL())
	return err
}

// fall ends the server in one way, leaves it down for a while and starts it again.
// It reports whether it did: after heal, nothing falls any more.
func (m *mortal) fall(ctx context.Context, way func(context.Context) error, down time.Duration) bool {
	return m.replace(ctx, way, down, m.rise)
}

// replace ends the server in one way, and after a while brings one back in another.
func (m *mortal) replace(ctx context.Context, way func(context.Context) error, down time.Duration, back func(context.Context) error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.calm || m.failure != nil || ctx.Err() != nil {
		return false
	}
	ctx = context.WithoutCancel(ctx) // what was ended is started again, whatever ends meanwhile
	err := way(ctx)
	rest(ctx, min(down, downAtMost))
	_ = m.watcher.Close(ctx) // it has ended with the server
	m.failure = errors.Join(err, back(ctx))
	return true
}

// heal ends all faults; it waits for a server that is down.
func (m *mortal) heal() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calm = true
	if m.pair != nil {
		m.pair.line.release()
	}
}

// problem is why the server could not be ended and started as it was to be, or nil.
func (m *mortal) problem() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failure
}

// kill ends every process of the server by kill -9. The postmaster is stopped first:
// while it reaps nobody, the numbers of its children stay theirs.
func (m *mortal) kill(ctx context.Context) error {
	postmaster, err := m.postmaster()
	if err != nil {
		return err
	}
	if err := postmaster.Signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("stop the postmaster: %w", err)
	}
	// A child that is just being born, and is in no list yet, ends when it finds the
	// postmaster gone.
	rows, _ := m.watcher.Query(ctx, `SELECT pid FROM pg_stat_activity`)
	children, err := pgx.CollectRows(rows, pgx.RowTo[int])
	for _, pid := range children {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may be on its way out by itself
	}
	if err2 := postmaster.Kill(); err2 != nil {
		return fmt.Errorf("kill the postmaster: %w", err2)
	}
	<-m.server.Done()
	if err != nil {
		return fmt.Errorf("list the server's processes: %w", err)
	}
	return nil
}

// postmaster is the process that postmaster.pid names, which is alive as long as its
// server has not told its end.
func (m *mortal) postmaster() (*os.Process, error) {
	text, err := os.ReadFile(filepath.Join(m.data, "postmaster.pid"))
	if err != nil {
		return nil, fmt.Errorf("find the postmaster: %w", err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 1 {
		return nil, errors.New("find the postmaster: postmaster.pid has no process number")
	}
	return os.FindProcess(pid)
}

// stopAtOnce is an immediate shutdown: nothing is written down, and the next start
// recovers.
func (m *mortal) stopAtOnce(ctx context.Context) error {
	ended, cancel := context.WithCancel(ctx)
	cancel()
	return m.server.Stop(ended)
}

// stopInOrder is a fast shutdown: sessions are cut, and everything is written down. It
// waits for a standby to have it, too, so it ends at once after all where that is away.
func (m *mortal) stopInOrder(ctx context.Context) error {
	if m.pair != nil {
		limited, cancel := context.WithTimeout(ctx, awayAtMost)
		defer cancel()
		ctx = limited
	}
	return m.server.Stop(ctx)
}

// close ends the server for good and removes its data.
func (m *mortal) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var err error
	if m.pair != nil {
		err = m.pair.close()
	}
	if m.watcher != nil {
		_ = m.watcher.Close(context.Background()) // the server goes next
	}
	if m.server != nil {
		err = errors.Join(err, m.stopAtOnce(context.Background()))
	}
	return errors.Join(err, m.leaveDisk(), os.RemoveAll(m.dir))
}
