package pgproxy

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	// maxMessage bounds one message. PostgreSQL's own limit is 1 GiB; no test says
	// that much.
	maxMessage = 64 << 20

	// maxName is how much of a statement without a name is taken for one.
	maxName = 60

	// headerLength is the length field that every message has; a type byte stands
	// before it in all but a connection's first.
	headerLength = 4
)

// The codes of first messages that start no session. See "Message Formats" in
// PostgreSQL's documentation.
const (
	codeCancel = 80877102
	codeSSL    = 80877103
	codeGSS    = 80877104
)

// link is one connection of a client and the one to PostgreSQL that stands for it.
// One goroutine carries questions, another answers.
type link struct {
	proxy          *Proxy
	client, server net.Conn
	fromClient     *bufio.Reader
	fromServer     *bufio.Reader
	closed         chan struct{}
	closeOnce      sync.Once

	// Only pumpQuestions knows these: names by prepared statement, and by portal.
	statements, portals map[string]string

	mu       sync.Mutex
	waiting  []*question // asked and not answered yet, the oldest first
	unheard  int         // what the client asked, its session included, and has not heard the answer to
	stranded bool        // the client is gone, and what it asked may still go on
}

// question is a round trip that waits for its answer.
type question struct {
	round *Round
	trap  *Trap // at Answered, or nil
}

func newLink(p *Proxy, client, server net.Conn) *link {
	return &link{
		proxy: p, client: client, server: server, fromClient: bufio.NewReader(client), fromServer: bufio.NewReader(server),
		closed: make(chan struct{}), statements: map[string]string{}, portals: map[string]string{}, unheard: 1,
	}
}

func (l *link) close() {
	l.closeOnce.Do(func() {
		close(l.closed)
		_ = l.client.Close()
		_ = l.server.Close()
	})
}

func (l *link) strand() {
	l.proxy.mu.Lock()
	l.proxy.stranded = true
	l.proxy.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stranded = true
	_ = l.client.Close()
}

// heard notes that so many answers have arrived.
func (l *link) heard(answers int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unheard -= answers
}

// isBusy says whether the client waits for an answer.
func (l *link) isBusy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unheard > 0
}

func (l *link) isStranded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stranded
}

// start carries the first message, which has no type. Encryption is declined: the
// proxy could not read along.
func (l *link) start() error {
	for {
		raw, err := readRest(l.fromClient, nil)
		if err != nil {
			return err
		}
		code := uint32(0)
		if len(raw) >= 2*headerLength {
			code = binary.BigEndian.Uint32(raw[headerLength:])
		}
		switch code {
		case codeSSL, codeGSS:
			if _, err := l.client.Write([]byte{'N'}); err != nil {
				return err
			}
		case codeCancel:
			l.heard(1) // it has no answer
			if l.proxy.hasStranded() {
				return io.EOF // whose client has given up: the same network is as slow for this
			}
			if err := l.write(l.server, raw); err != nil {
				return err
			}
			return io.EOF // that was all
		default:
			return l.send(raw)
		}
	}
}

// send writes what a client said to the server.
func (l *link) send(raw []byte) error {
	l.proxy.mu.Lock()
	if w := l.proxy.copyTo; w != nil {
		_, _ = w.Write(raw) // a buffer of the test's
	}
	l.proxy.mu.Unlock()
	return l.write(l.server, raw)
}

// write is the network: it carries what was said to one side, as well as it can just
// now.
func (l *link) write(to net.Conn, message []byte) error {
	l.proxy.mu.Lock()
	held, pause, sliced := l.proxy.held, l.proxy.pause, l.proxy.sliced
	l.proxy.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-l.closed:
			return net.ErrClosed
		}
	}
	if pause > 0 {
		select {
		case <-time.After(pause):
		case <-l.closed:
			return net.ErrClosed
		}
	}
	size := len(message)
	if sliced {
		size = 1
	}
	for len(message) > 0 {
		n, err := to.Write(message[:min(size, len(message))])
		if err != nil {
			return err
		}
		message = message[n:]
	}
	return nil
}

// pumpQuestions carries what the client says. What belongs to one round trip goes
// together, so that a trap holds all of it.
func (l *link) pumpQuestions() {
	var (
		raw   []byte
		round Round
	)
	for {
		kind, message, err := readMessage(l.fromClient)
		if err != nil {
			l.lose()
			return
		}
		raw = append(raw, message...)
		ends := l.note(&round, kind, message[1+headerLength:])
		if ends {
			if !l.ask(round, raw) {
				l.close()
				return
			}
			round = Round{}
		} else if !waitsForEnd(kind) || kind == 'H' {
			ends = true // nothing to hold: a password, a goodbye, data of a COPY
		}
		if !ends {
			continue
		}
		if err := l.send(raw); err != nil {
			l.close()
			return
		}
		raw = nil
	}
}

// lose ends the link because the client is gone; unless it was stranded, when the
// answer to what it asked last ends it.
func (l *link) lose() {
	l.mu.Lock()
	goesOn := l.stranded && len(l.waiting) > 0
	l.mu.Unlock()
	if !goesOn {
		l.close()
	}
}

// waitsForEnd is true of the messages that PostgreSQL answers only after a Sync.
func waitsForEnd(kind byte) bool { return strings.IndexByte("PBDECH", kind) >= 0 }

// note reads a message for what it says about its round trip, and reports whether
// it ends it.
func (l *link) note(r *Round, kind byte, body []byte) (ends bool) {
	switch kind {
	case 'Q':
		var m pgproto3.Query
		if m.Decode(body) == nil {
			r.Statements = append(r.Statements, nameOf(m.String))
		}
		return true
	case 'P':
		var m pgproto3.Parse
		if m.Decode(body) == nil {
			l.statements[m.Name] = nameOf(m.Query)
			r.Prepared = append(r.Prepared, nameOf(m.Query))
		}
	case 'B':
		var m pgproto3.Bind
		if m.Decode(body) == nil {
			l.portals[m.DestinationPortal] = l.statements[m.PreparedStatement]
		}
	case 'E':
		var m pgproto3.Execute
		if m.Decode(body) == nil {
			name := l.portals[m.Portal]
			r.Statements = append(r.Statements, name)
			r.Prepared = slices.DeleteFunc(r.Prepared, func(s string) bool { return s == name })
		}
	case 'S':
		return true
	}
	return false
}

// ask opens a round trip, and holds it where a trap is set. It reports whether to
// go on.
func (l *link) ask(r Round, raw []byte) bool {
	q := &question{round: &r}
	l.proxy.mu.Lock()
	l.proxy.rounds = append(l.proxy.rounds, q.round)
	l.proxy.mu.Unlock()
	if trap := l.proxy.take(q.round, Asked); trap != nil && !trap.spring(l) {
		_ = l.send(trap.spared(raw)) // the connection ends next
		return false
	}
	q.trap = l.proxy.take(q.round, Answered)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(l.waiting, q)
	l.unheard++
	return true
}

// pumpAnswers carries what PostgreSQL says, and keeps back what a trap holds.
func (l *link) pumpAnswers() {
	defer l.close()
	var (
		out   []byte
		state string
		ready int // answers in out
	)
	for {
		kind, message, err := readMessage(l.fromServer)
		if err != nil {
			return
		}
		out = append(out, message...)
		q := l.oldest()
		held := q != nil && q.trap != nil
		switch kind {
		case 'E':
			state = stateOf(message[1+headerLength:])
		case 'Z':
			ready++
			if q != nil && !l.answered(q, state, message[len(message)-1]) {
				if q.trap != nil {
					_ = l.write(l.client, q.trap.spared(out)) // the connection ends next
				}
				return
			}
			state, held = "", false
		}
		if held || l.fromServer.Buffered() > 0 {
			continue
		}
		if err := l.write(l.client, out); err != nil && !l.isStranded() {
			return
		}
		l.heard(ready)
		out, ready = out[:0], 0
	}
}

// oldest is the question that PostgreSQL is answering, or nil while a session
// begins.
func (l *link) oldest() *question {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		return nil
	}
	return l.waiting[0]
}

// answered closes a round trip, and holds it where a trap is set. It reports
// whether to go on.
func (l *link) answered(q *question, state string, status byte) bool {
	l.proxy.mu.Lock()
	q.round.SQLState, q.round.InTransaction, q.round.Done = state, status != 'I', true
	l.proxy.mu.Unlock()
	l.mu.Lock()
	l.waiting = l.waiting[1:]
	stranded := l.stranded
	l.mu.Unlock()
	if stranded {
		return false // nobody is there to hear it
	}
	return q.trap == nil || q.trap.spring(l)
}

// readMessage reads one message: its type, and all of its bytes.
func readMessage(r *bufio.Reader) (kind byte, message []byte, err error) {
	kind, err = r.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	message, err = readRest(r, []byte{kind})
	return kind, message, err
}

// readRest reads the length and what it counts, and appends both to message.
func readRest(r *bufio.Reader, message []byte) ([]byte, error) {
	var header [headerLength]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(header[:])
	if n < headerLength || n > maxMessage {
		return nil, errTooLong
	}
	message = append(message, header[:]...)
	body := make([]byte, n-headerLength)
	_, err := io.ReadFull(r, body)
	return append(message, body...), err
}

func stateOf(body []byte) string {
	var m pgproto3.ErrorResponse
	if m.Decode(body) != nil {
		return ""
	}
	return m.Code
}

var comment = regexp.MustCompile(`^\s*/\*\s*(\S+)\s*\*/`)

// nameOf is what a statement is called: by its comment, else by its own words.
func nameOf(sql string) string {
	if m := comment.FindStringSubmatch(sql); m != nil {
		return m[1]
	}
	words := []rune(strings.Join(strings.Fields(sql), " "))
	return string(words[:min(len(words), maxName)])
}
