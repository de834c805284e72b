package transactions

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"regexp"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
)

// fault is what becomes of one statement instead of its answer.
type fault struct {
	// state is the SQLSTATE that the client is told; "" says nothing and cuts.
	state string
	// worked says that PostgreSQL has done the statement, and committed it. Only an error
	// that ends the connection can follow a commit.
	worked bool
	// arrives is how many bytes still arrive of what a cut breaks off: of the statement,
	// or where it worked, of its answer.
	arrives int
}

// ends says whether the connection is over: the server has gone down (class 57P), or
// somebody between has lost it (class 08).
func (f fault) ends() bool { return f.state != "40P01" && f.state != "40001" }

// statementFaults are the errors that nothing of ours can rule out.
var statementFaults = map[string]fault{
	"deadlock":                  {state: "40P01"},
	"serialization failure":     {state: "40001"},
	"shutdown before":           {state: "57P01"},
	"shutdown after the commit": {state: "57P01", worked: true},
	"connection failure before": {state: "08006"},
	"connection failure after":  {state: "08006", worked: true},
	"cut before":                {},
	"cut after the commit":      {worked: true},
}

// faultyWire is a way to PostgreSQL on which the nth execution of a statement since the
// last arm gets a fault for its answer. Statements go by their name comments. It knows
// one question at a time on a connection, each ended by a Sync, as pgx asks them.
type faultyWire struct {
	listener        net.Listener
	network, server string
	wg              sync.WaitGroup

	mu    sync.Mutex
	seen  []string // executed since the last arm, in order
	traps []wireTrap
	whole int // bytes of what was last broken off, those that arrived included
}

type wireTrap struct {
	statement string
	left      int // executions until the one that fails; 1: the next
	fault     fault
}

// onFaultyWire starts another instance whose database is at the other end of one.
func (w *world) onFaultyWire(change ...func(*Options)) (instance, *postgres.DB, *faultyWire) {
	w.t.Helper()
	cfg, err := pgconn.ParseConfig(pgtest.Direct(w.url)) // the wire itself is what this is about
	if err != nil {
		w.t.Fatal(err)
	}
	f := &faultyWire{}
	f.network, f.server = pgconn.NetworkAddress(cfg.Host, cfg.Port)
	if f.listener, err = (&net.ListenConfig{}).Listen(w.t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = f.listener.Close()
		f.wg.Wait()
	})
	f.wg.Go(f.accept)
	u := url.URL{Scheme: "postgres", User: url.UserPassword(cfg.User, cfg.Password), Host: f.listener.Addr().String(), Path: "/" + cfg.Database, RawQuery: "sslmode=disable"}
	db, err := postgres.Open(w.t.Context(), u.String(), postgres.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(db.Close)
	i := w.newInstanceWith(db, func(o *Options) {
		for _, f := range change {
			f(o)
		}
	})
	w.steady()
	return i, db, f
}

// arm forgets what was executed, and sets traps.
func (f *faultyWire) arm(traps ...wireTrap) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen, f.traps = nil, traps
}

// also sets one more trap, for the next execution of a statement.
func (f *faultyWire) also(statement string, with fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.traps = append(f.traps, wireTrap{statement, 1, with})
}

// executed are the statements since the last arm, and how many traps are left.
func (f *faultyWire) executed() (statements []string, waiting int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.seen...), len(f.traps)
}

// meets notes an execution and says whether it fails.
func (f *faultyWire) meets(statement string) (fault, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, statement)
	for n := range f.traps {
		trap := &f.traps[n]
		if trap.statement != statement {
			continue
		}
		if trap.left--; trap.left == 0 {
			fails := trap.fault
			f.traps = append(f.traps[:n:n], f.traps[n+1:]...)
			return fails, true
		}
	}
	return fault{}, false
}

func (f *faultyWire) accept() {
	for {
		client, err := f.listener.Accept()
		if err != nil {
			return // closed
		}
		f.wg.Go(func() { f.serve(client) })
	}
}

// serve is one connection.
func (f *faultyWire) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := (&net.Dialer{}).DialContext(context.Background(), f.network, f.server)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	l := &wireLink{client, server, bufio.NewReader(client), bufio.NewReader(server), map[string]string{}, map[string]string{}, 0}
	if l.start() != nil {
		return
	}
	for {
		question, statement, err := l.question()
		if err != nil {
			return
		}
		with, fails := fault{}, false
		if statement != "" {
			with, fails = f.meets(statement)
		}
		if !fails {
			if l.ask(question, client) != nil {
				return
			}
			continue
		}
		said, to := question, server
		if with.worked {
			var answer bytes.Buffer
			if l.ask(question, &answer) != nil {
				return
			}
			said, to = answer.Bytes(), client
		}
		if with.state == "" {
			f.breakOff(to, said, with.arrives)
			return
		}
		if !l.fail(with, statement) {
			return
		}
	}
}

// breakOff lets the first bytes of what is said arrive; the connection ends next.
func (f *faultyWire) breakOff(to io.Writer, said []byte, arrives int) {
	f.mu.Lock()
	f.whole = len(said)
	f.mu.Unlock()
	_, _ = to.Write(said[:min(arrives, len(said))])
}

// broken is how long that was which was last broken off.
func (f *faultyWire) broken() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.whole
}

// wireLink is a client's connection and the one to PostgreSQL that stands for it.
type wireLink struct {
	client, server         net.Conn
	fromClient, fromServer *bufio.Reader
	statements, portals    map[string]string // names by prepared statement, and by portal
	status                 byte              // of the session: 'I' outside of a transaction, 'T' in one, 'E' in a failed one
}

// start carries what is said until a session is open.
func (l *wireLink) start() error {
	first, err := readFrame(l.fromClient, nil)
	if err != nil {
		return err
	}
	if _, err = l.server.Write(first); err != nil {
		return err
	}
	const cancel = 80877102 // a first message that opens no session: it asks to stop another's statement
	if len(first) >= 8 && binary.BigEndian.Uint32(first[4:]) == cancel {
		return io.EOF
	}
	for {
		message, err := readTyped(l.fromServer)
		if err != nil {
			return err
		}
		if message[0] == 'Z' {
			l.status = message[5]
		}
		if _, err := l.client.Write(message); err != nil || message[0] == 'Z' {
			return err
		}
		if message[0] != 'R' {
			continue
		}
		switch binary.BigEndian.Uint32(message[5:]) { // what kind of password it wants
		case 3, 5, 10, 11:
			answer, err := readTyped(l.fromClient)
			if err != nil {
				return err
			}
			if _, err := l.server.Write(answer); err != nil {
				return err
			}
		}
	}
}

// question reads what the client says until it waits, and the name of the statement
// that it has executed; "" where it only prepares one.
func (l *wireLink) question() (all []byte, statement string, err error) {
	for {
		message, err := readTyped(l.fromClient)
		if err != nil {
			return nil, "", err
		}
		all = append(all, message...)
		body := message[5:]
		switch message[0] {
		case 'Q':
			var m pgproto3.Query
			err = m.Decode(body)
			return all, statementName(m.String), err
		case 'P':
			var m pgproto3.Parse
			err = m.Decode(body)
			l.statements[m.Name] = statementName(m.Query)
		case 'B':
			var m pgproto3.Bind
			err = m.Decode(body)
			l.portals[m.DestinationPortal] = l.statements[m.PreparedStatement]
		case 'E':
			var m pgproto3.Execute
			err = m.Decode(body)
			statement = l.portals[m.Portal]
		case 'S':
			return all, statement, nil
		case 'X':
			return nil, "", io.EOF
		}
		if err != nil {
			return nil, "", err
		}
	}
}

// ask lets PostgreSQL answer, and hands its answer on.
func (l *wireLink) ask(question []byte, to io.Writer) error {
	if _, err := l.server.Write(question); err != nil {
		return err
	}
	for {
		message, err := readTyped(l.fromServer)
		if err != nil {
			return err
		}
		if message[0] == 'Z' {
			l.status = message[5]
		}
		if _, err := to.Write(message); err != nil || message[0] == 'Z' {
			return err
		}
	}
}

// breakTransaction lets an error have on PostgreSQL's side what it has by the client's
// account: a failed statement leaves its transaction to be rolled back, a failed commit
// has done that.
func (l *wireLink) breakTransaction(statement string) error {
	if l.status != 'T' {
		return nil
	}
	query := "SELECT 1 / 0"
	if statement == commit {
		query = "ROLLBACK"
	}
	question, err := (&pgproto3.Query{String: query}).Encode(nil)
	if err != nil {
		return err
	}
	return l.ask(question, io.Discard)
}

// fail tells the client of an error, and says whether the connection goes on.
func (l *wireLink) fail(with fault, statement string) bool {
	m := &pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: with.state, Message: "made by a test"}
	if with.ends() {
		m.Severity, m.SeverityUnlocalized = "FATAL", "FATAL"
	}
	out, err := m.Encode(nil)
	if err != nil {
		return false
	}
	if !with.ends() {
		if err := l.breakTransaction(statement); err != nil {
			return false
		}
		if out, err = (&pgproto3.ReadyForQuery{TxStatus: l.status}).Encode(out); err != nil {
			return false
		}
	}
	_, err = l.client.Write(out)
	return err == nil && !with.ends()
}

func readTyped(r *bufio.Reader) ([]byte, error) {
	kind, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	return readFrame(r, []byte{kind})
}

// readFrame reads a length and what it counts.
func readFrame(r *bufio.Reader, message []byte) ([]byte, error) {
	const most = 16 << 20
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n < 4 || n > most {
		return nil, io.ErrUnexpectedEOF
	}
	body := make([]byte, n-4)
	_, err := io.ReadFull(r, body)
	return append(append(message, length[:]...), body...), err
}

var nameComment = regexp.MustCompile(`^\s*/\* ([a-z]+\.[a-z_]+) \*/`)

// commit is what the end of a database transaction of several statements is called.
const commit = "commit"

// statementName is the name that a statement of ours begins with, or "".
func statementName(sql string) string {
	if sql == commit {
		return commit
	}
	if m := nameComment.FindStringSubmatch(sql); m != nil {
		return m[1]
	}
	return ""
}

// TestFaultyWireFailsTheStatementItIsToldTo: if it did not, nothing would have been tried.
func TestFaultyWireFailsTheStatementItIsToldTo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, db, wire := w.onFaultyWire()
	const counted = `/* test.insert */ INSERT INTO counted VALUES ($1::bigint)` // with a parameter, as all of ours that write
	w.sql(`CREATE TABLE counted (n bigint)`)
	rows := 0
	for name, with := range statementFaults {
		wire.arm(wireTrap{"test.insert", 2, with})
		for try := range 3 {
			err := db.Conn(t.Context()).Exec(counted, try).Error
			if failed := err != nil; failed != (try == 1) {
				t.Errorf("%s: the error of try %d is %v", name, try, err)
			}
			if err == nil || with.worked {
				rows++
			}
			if pg := postgres.Describe(err); try == 1 && with.state != "" && pg != `SQLSTATE `+with.state+` constraint=""` {
				t.Errorf("%s: told %s", name, pg)
			}
		}
		if n := w.count(`SELECT count(*) FROM counted`); n != rows {
			t.Errorf("%s: %d rows, want %d", name, n, rows)
		}
		if seen, left := wire.executed(); len(seen) != 3 || left != 0 {
			t.Errorf("%s: saw %q, and %d traps are left", name, seen, left)
		}
	}
}

// TestFaultyWireFailsACommit: a database transaction of several statements takes place as
// a whole, or not at all, wherever it fails; and what is told of it is so.
func TestFaultyWireFailsACommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, db, wire := w.onFaultyWire()
	const counted = `/* test.insert */ INSERT INTO counted VALUES ($1::bigint)`
	w.sql(`CREATE TABLE counted (n bigint)`)
	rows := 0
	for name, with := range statementFaults {
		for _, statement := range []string{"test.insert", commit} {
			wire.arm(wireTrap{statement, 1, with})
			for try := range 2 {
				err := db.InTx(t.Context(), func(tx postgres.Tx) error { return tx.Exec(counted, try).Error })
				if failed := err != nil; failed != (try == 0) {
					t.Errorf("%s at %s: the error of try %d is %v", name, statement, try, err)
				}
				if err == nil || with.worked && statement == commit {
					rows++
				}
			}
			if n := w.count(`SELECT count(*) FROM counted`); n != rows {
				t.Fatalf("%s at %s: %d rows, want %d", name, statement, n, rows)
			}
			if _, left := wire.executed(); left != 0 {
				t.Errorf("%s: %d traps are left", name, left)
			}
		}
	}
}
