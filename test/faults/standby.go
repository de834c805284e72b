package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/localpg"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/test/faults/record"
	"github.com/oncepay/oncepay/test/harness"
)

// The faults of a PostgreSQL with a standby, as the report calls them.
const (
	serverFailedOver       = "database: failed over to its synchronous standby"
	serverFailedOverBehind = "database: failed over while the standby was behind"
	serverFailedOverAsync  = "database: failed over to an asynchronous standby"
	standbyAway            = "database: synchronous standby away"
	waitsCancelled         = "database: commits cancelled that wait for the standby"
)

// standbyKind says whether a stage's PostgreSQL has a standby, and how closely that
// follows.
type standbyKind int

const (
	alone        standbyKind = iota
	synchronous              // each commit waits for it
	asynchronous             // none does
)

// state is the standby's sync_state in pg_stat_replication.
func (k standbyKind) state() string {
	if k == synchronous {
		return "sync"
	}
	return "async"
}

const (
	// standbyName is the standby's application_name. It is named, not "*": a base backup,
	// which receives the log as well, would count as a standby.
	standbyName = "standby"

	// asyncDelay is how late the log arrives at an asynchronous standby: a network
	// between two regions, at a bad time. What is on its way when the primary dies is lost.
	asyncDelay = 200 * time.Millisecond

	// awayAtMost is longer than a provider's time-out, and shorter than the lease.
	awayAtMost = lease / 3

	// cancelEvery is how often somebody who cancels the waiting commits comes back.
	cancelEvery = 100 * time.Millisecond
)

// pairSettings let a standby come back at once after its primary was started again, and
// find there what it has missed.
var pairSettings = map[string]string{"wal_retrieve_retry_interval": "100ms", "wal_keep_size": "256MB"}

// pair is what a mortal with a standby has besides.
//
// With a synchronous one the primary's setting never changes: from a failover until the
// next standby is there, everybody waits. A setting that is emptied meanwhile would
// let commits through that the next failover forgets.
type pair struct {
	kind    standbyKind
	line    *line
	url     string          // of the database, whichever server it is
	standby *localpg.Server // guarded by mortal.mu, and so is its folder
	data    string
}

// pairUp gives the server a standby, before anybody else uses it.
func (m *mortal) pairUp(ctx context.Context, kind standbyKind) (err error) {
	url := m.url()
	m.mu.Lock()
	defer m.mu.Unlock()
	delay := time.Duration(0)
	if kind == asynchronous {
		delay = asyncDelay
	}
	l, err := startLine(ctx, filepath.Join(m.link(), ".s.PGSQL.5432"), delay)
	if err != nil {
		return err
	}
	m.pair = &pair{kind: kind, line: l, url: url}
	if kind == synchronous { // the copy has it, too
		if _, err := m.watcher.Exec(ctx, `ALTER SYSTEM SET synchronous_standby_names = '`+standbyName+`'`); err != nil {
			return fmt.Errorf("ask for a synchronous standby: %w", err)
		}
	}
	return m.attach(ctx)
}

// attach makes a standby of the server, and returns once it follows. It wants mu held.
func (m *mortal) attach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, riseLimit)
	defer cancel()
	p := m.pair
	p.data = m.newFolder()
	if err := m.copyTo(ctx, p.data); err != nil {
		return fmt.Errorf("copy the primary: %w", err)
	}
	if err := os.WriteFile(filepath.Join(p.data, "standby.signal"), nil, 0o600); err != nil {
		return err
	}
	settings := maps.Clone(m.settings)
	settings["primary_conninfo"] = p.line.conninfo()
	var err error
	if p.standby, err = localpg.Start(ctx, localpg.Options{Dir: p.data, TempDir: pgtest.TempDir(), Settings: settings}); err != nil {
		return fmt.Errorf("start the standby: %w", err)
	}
	if _, err := m.watcher.Exec(ctx, `SELECT pg_reload_conf()`); err != nil {
		return err
	}
	return m.awaitStandby(ctx)
}

// awaitStandby returns once the standby has all that is visible on the primary now. It
// wants mu held.
func (m *mortal) awaitStandby(ctx context.Context) error {
	var now string
	if err := m.watcher.QueryRow(ctx, `SELECT pg_current_wal_flush_lsn()::text`).Scan(&now); err != nil {
		return err
	}
	for {
		var follows bool
		err := m.watcher.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_replication
			WHERE application_name = $1 AND state = 'streaming' AND sync_state = $2 AND flush_lsn >= $3::text::pg_lsn)`,
			standbyName, m.pair.kind.state(), now).Scan(&follows)
		if err != nil || follows {
			return err
		}
		rest(ctx, pollEvery)
	}
}

// copyTo copies the server's data with the pg_basebackup that it came with.
func (m *mortal) copyTo(ctx context.Context, folder string) error {
	var bin string
	if err := m.watcher.QueryRow(ctx, `SELECT setting FROM pg_config WHERE name = 'BINDIR'`).Scan(&bin); err != nil {
		return err
	}
	_, q, err := address(m.server)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "pg_basebackup"), "--pgdata", folder, "--wal-method", "stream",
		"--checkpoint", "fast", "--no-sync", "--host", q.Get("host"), "--port", q.Get("port"), "--username", q.Get("user"))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	log, err := os.Create(folder + ".copy.log")
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := harness.StartTied(cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%w: %s", err, lastLine(string(text)))
	}
	return nil
}

// leaveBehind keeps the log from the standby, which has all that came before. It
// reports whether it does, as fall does.
func (m *mortal) leaveBehind(ctx context.Context) (left bool) {
	m.undisturbed(func() {
		if ctx.Err() != nil {
			return
		}
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), riseLimit)
		defer cancel()
		if m.failure = m.awaitStandby(limited); m.failure == nil {
			m.pair.line.hold()
			left = true
		}
	})
	return left
}

// failOver ends the primary for good, promotes the standby after a while, and gives it
// one of its own. It reports whether it did, as fall does. A synchronous standby is
// attached until the end, unless it is to be behind.
func (m *mortal) failOver(ctx context.Context, down time.Duration, behind bool) bool {
	return m.replace(ctx, func(ctx context.Context) (err error) {
		if m.pair.kind == synchronous && !behind {
			limited, cancel := context.WithTimeout(ctx, riseLimit)
			defer cancel()
			err = m.awaitStandby(limited)
		}
		err = errors.Join(err, m.kill(ctx))
		m.pair.line.cut() // with what was sent and not received
		return err
	}, down, m.promote)
}

func (m *mortal) promote(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, riseLimit)
	defer cancel()
	p, lost := m.pair, m.data
	conn, err := pgx.Connect(limited, p.standby.URL())
	if err != nil {
		return fmt.Errorf("reach the standby: %w", err)
	}
	var done bool
	err = conn.QueryRow(limited, `SELECT pg_promote(true, 30)`).Scan(&done)
	if err = errors.Join(err, conn.Close(limited)); err != nil || !done {
		return fmt.Errorf("promote the standby (%t): %w", done, err)
	}
	m.server, m.data, p.standby = p.standby, p.data, nil
	if err := errors.Join(m.lead(limited), os.RemoveAll(lost)); err != nil {
		return err
	}
	p.line.mend()
	return m.attach(ctx)
}

func (p *pair) close() error {
	p.line.close()
	if p.standby == nil {
		return nil
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel() // nothing is worth an orderly shutdown
	return p.standby.Stop(ended)
}

// The ways to end a wait for the standby. After either, the commit has taken place on
// the primary alone.
const (
	byCancel    = "pg_cancel_backend"    // the client is told of success, and in a warning that the standby may not have it
	byTerminate = "pg_terminate_backend" // the client loses its connection
)

// endWaits ends all waits for the standby in one way, as somebody does who sees
// statements hang. It returns how many there were.
func (p *pair) endWaits(ctx context.Context, way string) (n int, err error) {
	conn, err := pgx.Connect(ctx, p.url)
	if err != nil {
		return 0, err
	}
	err = conn.QueryRow(ctx, `SELECT count(`+way+`(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`).Scan(&n)
	return n, errors.Join(err, conn.Close(ctx))
}

// standbys breaks what is between a primary and its standby, in one way after the
// other, until ctx ends.
func (s *stage) standbys(ctx context.Context) {
	rng := rand.New(rand.NewPCG(uint64(s.seed), 0x57a9d))
	if s.standby == asynchronous {
		for ctx.Err() == nil {
			rest(ctx, time.Second+upTo(rng, time.Second))
			s.failOver(ctx, serverFailedOverAsync, upTo(rng, downAtMost))
		}
		return
	}
	way := inTurn(s.seed, []string{"", byCancel, byTerminate})
	for turn := 0; ctx.Err() == nil; turn++ {
		rest(ctx, time.Second/2+upTo(rng, time.Second))
		if turn%5 == 0 || turn%5 == 2 {
			s.failOver(ctx, serverFailedOver, upTo(rng, downAtMost))
			continue
		}
		s.leaveBehind(ctx)
		s.wait(ctx, way(), rng)
		if turn%5 != 4 { // else it comes back
			s.failOver(ctx, serverFailedOverBehind, upTo(rng, downAtMost))
		}
		s.ground.mortal.pair.line.release()
	}
}

// leaveBehind keeps the standby away from now on.
func (s *stage) leaveBehind(ctx context.Context) {
	s.behind = s.rec.Now()
	if s.ground.mortal.leaveBehind(ctx) {
		s.faults.note("", standbyAway)
	}
}

// failOver fails over, which is called that. It reports whether it did.
func (s *stage) failOver(ctx context.Context, name string, down time.Duration) bool {
	behind := name == serverFailedOverBehind
	if !s.ground.mortal.failOver(ctx, down, behind) {
		return false
	}
	s.faults.note("", name)
	if behind {
		s.doubts = append(s.doubts, doubt{s.behind, s.rec.Now()})
	}
	return true
}

// doubt is a time in which a primary showed what its standby had not, before it was
// lost with that.
type doubt struct{ from, to time.Duration }

// doubted says of each operation whether it may have been told such a thing.
func (s *stage) doubted(ops []record.Op) []record.Op {
	for i := range ops {
		ops[i].Doubtful = slices.ContainsFunc(s.doubts, func(d doubt) bool { return ops[i].Start < d.to && ops[i].End > d.from })
	}
	return ops
}

// wait lets the standby be away for a while. The commits that wait for it meanwhile are
// ended in that way, if it is not empty.
func (s *stage) wait(ctx context.Context, way string, rng *rand.Rand) {
	p := s.ground.mortal.pair
	ctx, cancel := context.WithTimeout(ctx, awayAtMost/4+upTo(rng, awayAtMost*3/4))
	defer cancel()
	if way == "" {
		<-ctx.Done()
		return
	}
	for ctx.Err() == nil {
		rest(ctx, cancelEvery)
		n, err := p.endWaits(ctx, way) // PostgreSQL may be down
		if err == nil && n > 0 {
			s.faults.note("", waitsCancelled)
		}
	}
}

// line is the network from a primary to its standby. It carries bytes: nobody has to
// understand them to lose them.
type line struct {
	listener net.Listener
	primary  string        // its socket
	delay    time.Duration // of what the primary says
	wg       sync.WaitGroup

	mu    sync.Mutex
	calls map[*call]struct{}
	held  chan struct{} // closed by release; nil: nothing is held
	down  bool
}

// call is one connection on it.
type call struct {
	standby, primary net.Conn
	over             chan struct{}
	once             sync.Once
}

func (c *call) end() {
	c.once.Do(func() {
		close(c.over)
		_ = c.standby.Close()
		_ = c.primary.Close()
	})
}

func startLine(ctx context.Context, primary string, delay time.Duration) (*line, error) {
	l := &line{primary: primary, delay: delay, calls: map[*call]struct{}{}}
	var err error
	if l.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("listen for a standby: %w", err)
	}
	l.wg.Go(l.accept)
	return l, nil
}

// conninfo is how a standby finds its primary through the line.
func (l *line) conninfo() string {
	host, port, err := net.SplitHostPort(l.listener.Addr().String())
	if err != nil {
		panic("a listener's address cannot be read")
	}
	return fmt.Sprintf("host=%s port=%s user=postgres sslmode=disable gssencmode=disable application_name=%s", host, port, standbyName)
}

// hold keeps what the primary says from the standby, until release. Then it arrives.
func (l *line) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = make(chan struct{})
	}
}

func (l *line) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held != nil {
		close(l.held)
		l.held = nil
	}
}

// cut ends all connections, with what is on its way, and takes no more until mend.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for c := range l.calls {
		c.end()
	}
}

func (l *line) mend() {
	l.release()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}

// close is for the end: nothing is connected any more.
func (l *line) close() {
	_ = l.listener.Close()
	l.cut()
	l.wg.Wait()
}

func (l *line) accept() {
	for {
		standby, err := l.listener.Accept()
		if err != nil {
			return // closed
		}
		l.wg.Go(func() { l.serve(standby) })
	}
}

func (l *line) serve(standby net.Conn) {
	primary, err := (&net.Dialer{}).DialContext(context.Background(), "unix", l.primary) // at once, or not at all
	if err != nil {
		_ = standby.Close() // the primary is down
		return
	}
	c := &call{standby: standby, primary: primary, over: make(chan struct{})}
	defer c.end()
	l.mu.Lock()
	down := l.down
	if !down {
		l.calls[c] = struct{}{}
	}
	l.mu.Unlock()
	if down {
		return
	}
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.calls, c)
	}()
	l.wg.Go(func() {
		_, _ = io.Copy(primary, standby) // until either hangs up
		c.end()
	})
	l.deliver(c)
}

// parcel is some of what the primary has said, and when it may arrive.
type parcel struct {
	bytes []byte
	due   time.Time
}

// deliver carries what the primary says, late, and as long as nothing is held.
func (l *line) deliver(c *call) {
	parcels := make(chan parcel, 1<<10)
	l.wg.Go(func() {
		defer close(parcels)
		for {
			bytes := make([]byte, 32<<10)
			n, err := c.primary.Read(bytes)
			if n > 0 {
				select {
				case parcels <- parcel{bytes[:n], time.Now().Add(l.delay)}:
				case <-c.over:
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	for p := range parcels {
		if !l.passes(c, p.due) {
			return
		}
		if _, err := c.standby.Write(p.bytes); err != nil {
			return
		}
	}
}

// passes waits until something may arrive, and says whether it still can.
func (l *line) passes(c *call, due time.Time) bool {
	select {
	case <-time.After(time.Until(due)):
	case <-c.over:
		return false
	}
	l.mu.Lock()
	held := l.held
	l.mu.Unlock()
	if held == nil {
		return true
	}
	select {
	case <-held:
		return true
	case <-c.over:
		return false
	}
}
