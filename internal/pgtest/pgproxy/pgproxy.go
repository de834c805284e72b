// Package pgproxy stands between a client and PostgreSQL and understands what
// they say to each other. A test can count round trips with it, hold one at a
// chosen point, or cut the connection there: what a network does, but on purpose,
// and at the one moment in a thousand that matters.
//
//	client ──► Asked ──► PostgreSQL executes and commits ──► Answered ──► client
//
// A round trip is what a client says until it has to wait, and PostgreSQL's whole
// answer. Statements go by the comment that each of ours begins with: the one
// written as /* transactions.begin */ INSERT … is called transactions.begin.
//
//	proxy := pgproxy.New(t, pgtest.URL(t))
//	db, err := postgres.Open(ctx, proxy.URL(), postgres.Options{})
//	…
//	lost := proxy.Cut("transactions.begin", pgproxy.Answered)
//	// The next begin is committed, and whoever asked for it never hears so.
package pgproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// dialLimit bounds the way to a server on the same machine.
	dialLimit = 10 * time.Second

	// waitLimit is how long Wait believes that a trap will still be sprung. It only
	// matters to a test that is about to fail.
	waitLimit = 30 * time.Second
)

// Point is a moment in a round trip.
type Point int

// The two points at which a round trip can be held or cut.
const (
	// Asked: the client has asked, and PostgreSQL has seen nothing of it.
	Asked Point = iota
	// Answered: PostgreSQL has done it, and has committed if the statement was a
	// transaction of its own; the client has heard nothing of it.
	Answered
)

// Round is one round trip.
type Round struct {
	// Statements were executed, in this order, by their names.
	Statements []string
	// Prepared were only parsed. The first use of a statement on a connection costs
	// a round trip more, with nothing else in it.
	Prepared []string
	// InTransaction says that a database transaction was open afterwards. Where it
	// was not, what the round did is committed, or there is a SQLState.
	InTransaction bool
	// SQLState of the error that ended it, or "".
	SQLState string
	// Done is false while PostgreSQL has not answered yet.
	Done bool
}

// Proxy is an address in front of one database. It is safe for concurrent use.
type Proxy struct {
	listener        net.Listener
	network, server string
	url             string
	done            chan struct{}
	wg              sync.WaitGroup

	mu     sync.Mutex
	rounds []*Round
	traps  []*Trap
	links  map[*link]struct{}
	down   bool
	copyTo io.Writer
	held   chan struct{} // closed by Release; nil: nothing is held
	pause  time.Duration
	sliced bool
	// stranded says that some statement was. Its client, once it has given up, asks for the
	// statement to be cancelled; that must not come before the statement, or there is
	// nothing that could arrive late. No such request is let through from then on.
	stranded bool
}

func (p *Proxy) hasStranded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stranded
}

// New starts a proxy in front of the database at databaseURL, until the test ends.
func New(t testing.TB, databaseURL string) *Proxy {
	t.Helper()
	p, err := Start(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// Start starts a proxy in front of the database at databaseURL, until Close.
func Start(ctx context.Context, databaseURL string) (*Proxy, error) {
	cfg, err := pgconn.ParseConfig(databaseURL)
	if err != nil {
		return nil, errors.New("pgproxy: the database URL cannot be read") // not quoted: it may have a password
	}
	p := &Proxy{done: make(chan struct{}), links: map[*link]struct{}{}}
	p.network, p.server = pgconn.NetworkAddress(cfg.Host, cfg.Port)
	if p.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("pgproxy: %w", err)
	}
	u := url.URL{Scheme: "postgres", User: url.User(cfg.User), Host: p.listener.Addr().String(), Path: "/" + cfg.Database, RawQuery: "sslmode=disable"}
	if cfg.Password != "" {
		u.User = url.UserPassword(cfg.User, cfg.Password)
	}
	p.url = u.String()
	p.wg.Go(p.accept)
	return p, nil
}

// URL is the database's URL through the proxy.
func (p *Proxy) URL() string { return p.url }

// Rounds are the round trips since the start or the last Reset, in the order in
// which clients asked. What connecting takes is not among them.
func (p *Proxy) Rounds() []Round {
	p.mu.Lock()
	defer p.mu.Unlock()
	rounds := make([]Round, len(p.rounds))
	for i, r := range p.rounds {
		rounds[i] = *r
		rounds[i].Statements = slices.Clone(r.Statements)
		rounds[i].Prepared = slices.Clone(r.Prepared)
	}
	return rounds
}

// Reset forgets the round trips so far.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rounds = nil
}

// Copy writes everything that clients say from now on to w as well, as it goes
// over the wire: statements and parameters, and passwords if there are any.
func (p *Proxy) Copy(w io.Writer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.copyTo = w
}

// Down makes the database unreachable: connections are cut, and new ones refused,
// until Up. PostgreSQL finishes what it has been asked.
func (p *Proxy) Down() {
	p.mu.Lock()
	p.down = true
	links := p.allLinks()
	p.mu.Unlock()
	for _, l := range links {
		l.close()
	}
}

// Up ends a Down.
func (p *Proxy) Up() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}

// Hold is a black hole: what either side says goes nowhere, while all connections
// stay open and new ones are taken, until Release. Then it arrives, however late, as
// from a network that was slow to deliver; also what a client said that has given up.
func (p *Proxy) Hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held == nil {
		p.held = make(chan struct{})
	}
}

// Release ends a Hold.
func (p *Proxy) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held != nil {
		close(p.held)
		p.held = nil
	}
}

// Busy is how many connections are waiting just now: for an answer of PostgreSQL's, or
// for their session to begin. As many as a pool may have, and the pool is exhausted.
func (p *Proxy) Busy() int {
	p.mu.Lock()
	links := p.allLinks()
	p.mu.Unlock()
	busy := 0
	for _, l := range links {
		if l.isBusy() {
			busy++
		}
	}
	return busy
}

// Slow delays whatever either side says from now on by that much. 0 ends it.
func (p *Proxy) Slow(pause time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pause = pause
}

// Slice delivers whatever either side says from now on one byte at a time, or no
// longer.
func (p *Proxy) Slice(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sliced = on
}

// Trap waits for the next execution of a statement and holds it there, until the
// test says how it goes on. Several traps for one statement take one execution
// each, in the order in which they were set.
func (p *Proxy) Trap(statement string, at Point) *Trap {
	trap := &Trap{statement: statement, at: at, sprung: make(chan struct{}), verdict: make(chan bool, 1)}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.traps = append(p.traps, trap)
	return trap
}

// Cut is a Trap that cuts the connection at once.
func (p *Proxy) Cut(statement string, at Point) *Trap {
	trap := p.Trap(statement, at)
	trap.Cut()
	return trap
}

// CutWithin is a Cut in the middle of what is said: the first bytes of it still
// arrive, of the statement at Asked, of its answer at Answered. Where it has no more
// than that many, they are counted round, so that the last is never among them.
func (p *Proxy) CutWithin(statement string, at Point, bytes int) *Trap {
	trap := &Trap{statement: statement, at: at, bytes: bytes, sprung: make(chan struct{}), verdict: make(chan bool, 1)}
	trap.Cut()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.traps = append(p.traps, trap)
	return trap
}

// Trap is one execution of a statement that is to be held, is held, or was.
type Trap struct {
	statement string
	at        Point
	bytes     int // that still arrive when it is cut
	sprung    chan struct{}
	verdict   chan bool // true: cut

	mu     sync.Mutex
	caught *link
}

// Sprung is closed once the statement is held.
func (t *Trap) Sprung() <-chan struct{} { return t.sprung }

// Wait returns once the statement is held, or was. It fails the test if that never
// happens.
func (t *Trap) Wait(tb testing.TB) {
	tb.Helper()
	select {
	case <-t.sprung:
	case <-time.After(waitLimit):
		tb.Fatalf("pgproxy: nobody executed %s within %s", t.statement, waitLimit)
	}
}

// Pass lets the round trip go on as if nothing had happened. Said before the
// statement comes, it makes the trap a mere witness. Only the first Pass or Cut of
// a trap counts.
func (t *Trap) Pass() { t.decide(false) }

// Cut ends the connection. At Asked, PostgreSQL never sees the statement; at
// Answered, the client never learns what it did.
func (t *Trap) Cut() { t.decide(true) }

func (t *Trap) decide(cut bool) {
	select {
	case t.verdict <- cut:
	default: // decided already
	}
}

// Strand ends the connection for the client alone, while the statement is held at
// Asked. After a Pass, PostgreSQL still gets it: later than anybody expects, as
// from a network that was slow to deliver.
func (t *Trap) Strand() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.caught == nil || t.at != Asked {
		panic("pgproxy: only a statement that is held at Asked can be stranded")
	}
	t.caught.strand()
}

// spring holds l until the test has decided. It reports whether to go on.
func (t *Trap) spring(l *link) bool {
	t.mu.Lock()
	t.caught = l
	t.mu.Unlock()
	close(t.sprung)
	select {
	case cut := <-t.verdict:
		return !cut
	case <-l.closed:
		return false
	}
}

// spared is how much of a message arrives that is cut.
func (t *Trap) spared(message []byte) []byte {
	if len(message) == 0 {
		return nil
	}
	return message[:t.bytes%len(message)]
}

// take removes and returns the first trap that a round runs into at that point.
func (p *Proxy) take(r *Round, at Point) *Trap {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, t := range p.traps {
		if t.at == at && slices.Contains(r.Statements, t.statement) {
			p.traps = slices.Delete(p.traps, i, i+1)
			return t
		}
	}
	return nil
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.wg.Go(func() { p.serve(client) })
	}
}

// serve is one connection, from its first byte to its last.
func (p *Proxy) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	if p.isDown() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialLimit)
	defer cancel()
	server, err := (&net.Dialer{}).DialContext(ctx, p.network, p.server)
	if err != nil {
		return
	}
	l := newLink(p, client, server)
	if !p.add(l) {
		l.close()
		return
	}
	defer p.remove(l)
	if err := l.start(); err != nil {
		l.close()
		return
	}
	var pumps sync.WaitGroup
	pumps.Go(l.pumpAnswers)
	l.pumpQuestions()
	pumps.Wait()
	l.close()
}

func (p *Proxy) isDown() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.down
}

// add reports whether l may live: the proxy may have gone down, or been closed,
// while it connected.
func (p *Proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.done:
		return false
	default:
	}
	if p.down {
		return false
	}
	p.links[l] = struct{}{}
	return true
}

func (p *Proxy) remove(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

// allLinks wants mu held.
func (p *Proxy) allLinks() []*link {
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	return links
}

// Close cuts all connections and takes no more.
func (p *Proxy) Close() {
	_ = p.listener.Close()
	p.mu.Lock()
	close(p.done)
	links := p.allLinks()
	p.mu.Unlock()
	for _, l := range links {
		l.close()
	}
	p.wg.Wait()
}

var errTooLong = errors.New("pgproxy: a message is longer than any of PostgreSQL's")
