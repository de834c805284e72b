package providers

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxAnswerBytes bounds a provider's answer. A charge's answer is a few
	// kilobytes; one thousand times that is a fault, and must not fill our memory.
	maxAnswerBytes = 1 << 20
	// maxAnswerHeaderBytes bounds an answer's headers, for the same reason.
	maxAnswerHeaderBytes = 64 << 10
	// dialTimeout bounds connecting, and again the TLS handshake. The transport
	// dials in the background, detached from the send that asked, so a send's own
	// deadline would not end it.
	dialTimeout = 10 * time.Second
	// maxConnections bounds the open connections to one provider, below the usual
	// limit of 1024 file descriptors. A send that waits for one too long has not
	// been written, and says so.
	maxConnections = 512
	// maxIdleConnections keeps what a burst opened, so that the next one pays no
	// handshakes (net/http would keep two).
	maxIdleConnections = 128
	// idleTimeout is shorter than the keep-alive time of common servers (60 s and
	// more), so it is mostly we who close: a connection that the provider closes
	// just as we write turns a clear answer into an unclear one.
	idleTimeout = 30 * time.Second
)

// Why an exchange has no answer. These, and a dial error's own text, are all
// that Exchange.Err ever says: the transport's messages quote what came from
// the other side, which may echo a card number.
var (
	// ErrTooLate: MaySend said no, so nothing was written.
	ErrTooLate = errors.New("the time to send had passed")
	// ErrNoConnection: there was no connection to write to.
	ErrNoConnection = errors.New("no connection to the provider")
	// ErrNoAnswer: the context ended before the whole answer was there.
	ErrNoAnswer = errors.New("no answer in time")
	// ErrBroken: the connection ended, or spoke no HTTP, before the whole answer
	// was there.
	ErrBroken = errors.New("the connection broke before the answer was complete")
	// ErrTooLarge: the answer was larger than 1 MiB.
	ErrTooLarge = errors.New("the answer was too large")
	// ErrRequest: the adapter built a request that cannot be sent. A programmer's
	// mistake, and nothing was written.
	ErrRequest = errors.New("the request cannot be sent")

	errSecondAttempt = errors.New("a send may not be written to a second connection")
	errUnasked       = errors.New("the provider spoke before it was asked")
	errUnattached    = errors.New("no send is using this connection")
)

// Wire is the HTTP client of every adapter. One Send is one attempt on the wire.
//
// Go's transport alone cannot promise that. When a reused connection breaks, it
// quietly sends the request again if it believes that to be harmless: always for
// a GET, and for a POST that carries an Idempotency-Key and a body it can read
// twice. If the first copy was booked, and the second finds the listener gone,
// the caller sees "connection refused" for a charge that happened. So
//
//   - a body is readable only once, and redirects are never followed;
//
//   - every connection is a conn, which lets a send write to one connection only,
//     asks MaySend before its first byte, and knows whether any byte went out;
//
//   - HTTP/2 is off: it has resend rules of its own, and mixes the bytes of many
//     sends on one connection, so that none can be told apart;
//
//   - proxies named by the environment are ignored: whom a card number travels
//     through is decided in the configuration, not by a variable meant for curl.
//
//     Send ─ dial or reuse ─ MaySend? ─ first byte ───────────── whole answer
//     └────── Wrote = false ─────┴──── Wrote = true ────────┘
//
// An answer is believed only if it came after the first byte went out. An
// adapter must still check that it names the reference that was sent.
//
// A Wire is safe for concurrent use.
type Wire struct {
	transport *http.Transport
	dialer    func(ctx context.Context, network, addr string) (net.Conn, error)
	tls       *tls.Config
}

// NewWire makes a client with connections of its own. tlsConfig may be nil; it
// is copied.
func NewWire(tlsConfig *tls.Config) *Wire {
	w := &Wire{tls: &tls.Config{}} // #nosec G402 -- MinVersion is set below, for either origin
	if tlsConfig != nil {
		w.tls = tlsConfig.Clone()
	}
	if w.tls.MinVersion < tls.VersionTLS12 {
		w.tls.MinVersion = tls.VersionTLS12
	}
	w.tls.NextProtos = []string{"http/1.1"}
	w.dialer = (&net.Dialer{Timeout: dialTimeout}).DialContext

	var http1 http.Protocols
	http1.SetHTTP1(true)
	w.transport = &http.Transport{
		Proxy:                  nil, // see Wire
		DialContext:            w.dial,
		DialTLSContext:         w.dialTLS,
		Protocols:              &http1,
		DisableCompression:     true, // the limit on an answer is on what came over the wire
		MaxConnsPerHost:        maxConnections,
		MaxIdleConns:           maxIdleConnections,
		MaxIdleConnsPerHost:    maxIdleConnections,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxAnswerHeaderBytes,
	}
	return w
}

// CloseIdle closes the connections that no send is using.
func (w *Wire) CloseIdle() { w.transport.CloseIdleConnections() }

// Request is what to send. Header may be nil; it is not changed.
type Request struct {
	Method string
	URL    string
	Header http.Header
	Body   []byte
}

// Exchange is what one attempt came to. Either Err is nil, and Status, Header
// and Body are the provider's whole answer; or there is no answer, and Wrote
// says whether the provider may have seen any of the request.
type Exchange struct {
	Status int
	Header http.Header
	Body   []byte
	// Wrote is false only if it is proven that no byte of this send was written,
	// and that none will be.
	Wrote    bool
	TimedOut bool // the context ended it
	Err      error
}

// Failed is the Result of a charge whose exchange has an Err. Only a send of
// which nothing was written is NotReached.
func (x Exchange) Failed() Result {
	r := Result{Outcome: Unclear, TimedOut: x.TimedOut}
	if x.Err != nil {
		r.Detail = x.Err.Error()
	}
	if !x.Wrote && x.Err != nil {
		r.Outcome, r.TimedOut = NotReached, false
	}
	return r
}

// Send makes one attempt. ctx must have a deadline, which bounds everything up
// to the last byte of the answer. may is asked once, just before the first byte;
// nil means yes.
//
// When Send returns with Wrote false, nothing of the request is on the wire and
// nothing will be: a write that is still under way somewhere is refused.
func (w *Wire) Send(ctx context.Context, r Request, may MaySend) Exchange {
	if _, ok := ctx.Deadline(); !ok {
		return Exchange{Err: fmt.Errorf("%w: its context has no deadline", ErrRequest)}
	}
	sendCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &send{may: may, stop: cancel}
	req, err := r.build(httptrace.WithClientTrace(sendCtx, &httptrace.ClientTrace{GotConn: s.gotConn}))
	if err != nil {
		return Exchange{Err: err}
	}
	x := w.exchange(req)
	x.Wrote = s.seal()
	if x.Err == nil {
		return x
	}
	switch {
	case errors.Is(s.refusal(), ErrTooLate):
		x.Err = ErrTooLate
	case ctx.Err() != nil && x.Wrote:
		x.Err, x.TimedOut = ErrNoAnswer, true
	case ctx.Err() != nil:
		x.Err, x.TimedOut = fmt.Errorf("%w in time", ErrNoConnection), true
	case !x.Wrote:
		x.Err = explain(ErrNoConnection, x.Err)
	case !errors.Is(x.Err, ErrTooLarge):
		x.Err = explain(ErrBroken, x.Err)
	}
	return x
}

// exchange is the round trip and the reading of the answer. It calls the
// transport itself, not an http.Client: that would follow redirects, and wrap
// errors in texts that quote the URL.
func (w *Wire) exchange(req *http.Request) Exchange {
	res, err := w.transport.RoundTrip(req)
	if err != nil {
		return Exchange{Err: err}
	}
	defer func() { _ = res.Body.Close() }() // what was not read closes the connection
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswerBytes+1))
	switch {
	case err != nil:
		return Exchange{Err: err}
	case len(body) > maxAnswerBytes:
		return Exchange{Err: ErrTooLarge}
	}
	return Exchange{Status: res.StatusCode, Header: res.Header, Body: body}
}

func (r Request) build(ctx context.Context) (*http.Request, error) {
	var body io.Reader
	if len(r.Body) > 0 {
		body = onceReader{bytes.NewReader(r.Body)}
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, r.URL, body)
	if err != nil {
		return nil, fmt.Errorf("%w: its method or URL is malformed", ErrRequest)
	}
	if r.Header != nil {
		req.Header = r.Header.Clone()
	}
	if body == nil && (req.Header.Get("Idempotency-Key") != "" || req.Header.Get("X-Idempotency-Key") != "") {
		// These names tell Go's transport that it may send again on its own. With a
		// body that reads once it cannot; without a body it would try, and the send
		// would end as unclear each time a reused connection breaks.
		return nil, fmt.Errorf("%w: an idempotency header needs a body", ErrRequest)
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "oncepay")
	}
	req.ContentLength = int64(len(r.Body))
	return req, nil
}

// onceReader hides the type of its reader: from a *bytes.Reader, net/http would
// make a GetBody, and with it send the request again.
type onceReader struct{ io.Reader }

// explain adds the operating system's reason to kind, and nothing that may quote
// the provider.
func explain(kind, err error) error {
	var op *net.OpError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &op):
		return fmt.Errorf("%w: %s", kind, op.Error())
	case errors.As(err, &cert):
		return fmt.Errorf("%w: its certificate was not accepted", kind)
	case errors.Is(err, errUnasked):
		return fmt.Errorf("%w: %s", kind, errUnasked.Error())
	}
	return kind
}

// send is the life of one Send, as its connection sees it. Its connection's
// write loop runs in a goroutine of the transport, and may outlive it.
type send struct {
	may  MaySend
	stop context.CancelCauseFunc

	mu      sync.Mutex
	asked   bool  // MaySend was asked, or is being asked
	on      *conn // the one connection that may be written to
	refused error // why nothing (more) may be written
	began   bool  // the first write was begun
	writing bool  // a write is under way
	wrote   bool  // a byte was written, or may have been
	sealed  bool  // Send has returned, or is about to
}

// gotConn is told which connection the transport chose, before it is used.
func (s *send) gotConn(info httptrace.GotConnInfo) {
	if c, ok := info.Conn.(*conn); ok {
		c.user.Store(s)
		return
	}
	// Not one of ours, so nobody counts: claim nothing.
	s.mu.Lock()
	s.wrote = true
	s.mu.Unlock()
}

// begin is asked before each write to c. The first one asks MaySend, without
// the lock: the connection is read meanwhile.
func (s *send) begin(c *conn) error {
	s.mu.Lock()
	ask := !s.asked
	s.asked = true
	if ask {
		s.on = c
	}
	s.mu.Unlock()
	may := !ask || s.may == nil || s.may()

	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.refused != nil:
		return s.refused
	case !may:
		return s.refuse(ErrTooLate)
	case s.on != c:
		return s.refuse(errSecondAttempt)
	case s.sealed:
		return s.refuse(ErrNoAnswer)
	}
	s.writing, s.began = true, true
	return nil
}

// refuse ends the send for good. Without stop, the transport would go on with
// the next idle connection, and close them one after the other.
func (s *send) refuse(why error) error {
	s.refused = why
	s.stop(why)
	return why
}

// end is told after each write whether any of it left.
func (s *send) end(left bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = false
	s.wrote = s.wrote || left
}

// begun says whether c may carry the answer of this send.
func (s *send) begun(c *conn) bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.on == c && s.began && !s.sealed
}

func (s *send) refusal() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

// seal ends the writing, and says whether anything was written. A write that is
// under way counts as written: nobody knows yet.
func (s *send) seal() (wrote bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed = true
	return s.wrote || s.writing
}

// conn is one connection to a provider. Above TLS it sees a send's own bytes
// only, no handshake and no alert; wire, below TLS, counts what really left.
// The transport hands it from send to send, never to two at once.
type conn struct {
	net.Conn
	wire *countingConn
	user atomic.Pointer[send]
}

func (c *conn) Write(p []byte) (int, error) {
	s := c.user.Load()
	if s == nil {
		return 0, errUnattached
	}
	if err := s.begin(c); err != nil {
		return 0, err
	}
	before := c.wire.written.Load()
	n, err := c.Conn.Write(p)
	s.end(c.wire.written.Load() != before)
	return n, err
}

// Read drops what comes while no send is waiting for it. It cannot be an answer;
// the transport would print it to the standard log, or, if it comes just when
// the next send takes the connection, take it for the answer of that one.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && !c.user.Load().begun(c) {
		clear(p[:n])
		return 0, errUnasked
	}
	return n, err
}

// countingConn counts the bytes that the operating system took over.
type countingConn struct {
	net.Conn
	written atomic.Int64
}

func (c *countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n))
	return n, err
}

func (w *Wire) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	raw, err := w.dialer(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	counted := &countingConn{Conn: raw}
	return &conn{Conn: counted, wire: counted}, nil
}

// dialTLS makes the handshake itself, so that the transport's connection is a
// conn for https too.
func (w *Wire) dialTLS(ctx context.Context, network, addr string) (net.Conn, error) {
	raw, err := w.dialer(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	config := w.tls
	if config.ServerName == "" {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			_ = raw.Close()
			return nil, err
		}
		config = config.Clone()
		config.ServerName = host
	}
	counted := &countingConn{Conn: raw}
	secured := tls.Client(counted, config)
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return &conn{Conn: secured, wire: counted}, nil
}
