// Package pspproxy stands between the API and its provider, and is the network
// and the provider's bad days: it loses requests before or after they were
// booked, answers nonsense, delivers late, refuses connections, and closes the
// reused ones.
//
//	API ──► request ──► [before booking] ──► provider books ──► [after booking] ──► API
//
// What it does to a request, the campaign decides when the request has arrived.
package pspproxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Kind is what a request asks of the provider.
type Kind string

// The kinds of requests.
const (
	Charge    Kind = "charge"
	Operation Kind = "operation" // a capture, a cancellation or a refund
	Inquiry   Kind = "inquiry"
	Void      Kind = "void"
	Other     Kind = "other"
)

// moves says whether a request of that kind moves money.
func (k Kind) moves() bool { return k == Charge || k == Operation }

// Request is what the proxy understands of a request. It never keeps a body.
type Request struct {
	Proxy     string // whose provider this is
	Kind      Kind
	Account   string
	Order     string
	Reference string
	Reused    bool // its connection has carried a request before
}

// Fault is what happens to a request.
type Fault string

// The faults. Before and after are before and after the provider has done what it
// was asked to.
const (
	None           Fault = ""
	TimeoutBefore  Fault = "time-out before booking"
	TimeoutAfter   Fault = "time-out after booking"
	Late           Fault = "delivered late" // after the asker has given up
	ErrorBefore    Fault = "5xx before booking"
	ErrorAfter     Fault = "5xx after booking"
	ResetBefore    Fault = "reset before booking"
	ResetAfter     Fault = "reset after booking"
	CloseAfter     Fault = "closed after booking"
	ReusedClosed   Fault = "reused connection closed after booking"
	Garbage        Fault = "garbage after booking"
	OtherReference Fault = "answer about another reference"
	Trickle        Fault = "slow trickle"
	Slow           Fault = "slow, in time"
	Unprocessed    Fault = "says it processed nothing" // and tells the truth
)

// Faults are all of them but None.
var Faults = []Fault{
	TimeoutBefore, TimeoutAfter, Late, ErrorBefore, ErrorAfter, ResetBefore, ResetAfter, CloseAfter, ReusedClosed, Garbage,
	OtherReference, Trickle, Slow, Unprocessed,
}

// Act is what is to be done to a request.
type Act struct {
	Fault Fault
	// Delay is how long Late and Slow wait before the provider gets it.
	Delay time.Duration
	// Refuse closes the door when the fault has happened, as a provider does that
	// goes down; Accept opens it again.
	Refuse bool
	// Variant chooses among kinds of garbage.
	Variant int
}

const (
	// holdLimit bounds how long a request without an answer holds its connection: the
	// asker gives up long before.
	holdLimit = 30 * time.Second
	// forwardLimit bounds one exchange with the provider on the same machine.
	forwardLimit = 20 * time.Second
	// trickleEvery is the pause between two bytes of a slow trickle.
	trickleEvery = 150 * time.Millisecond
	maxBody      = 1 << 20
)

// Proxy is one instance's way to its provider.
type Proxy struct {
	// Name is whose it is; it is in each Request.
	name   string
	target string
	judge  func(Request) Act
	// brokenOff is told when the asker closes its connection on a charge or an operation
	// that was under way, and how long after it came.
	brokenOff func(Request, time.Duration)
	client    *http.Client
	addr      string

	mu       sync.Mutex
	listener net.Listener
	conns    map[*conn]struct{}
	closed   bool
	wg       sync.WaitGroup
}

// Start listens on a free port of the loopback interface.
func Start(ctx context.Context, name, target string, judge func(Request) Act, brokenOff func(Request, time.Duration)) (*Proxy, error) {
	p := &Proxy{name: name, target: strings.TrimRight(target, "/"), judge: judge, brokenOff: brokenOff, addr: "127.0.0.1:0", conns: map[*conn]struct{}{}}
	p.client = &http.Client{Timeout: forwardLimit, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	if err := p.Accept(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// URL is the provider's, through the proxy.
func (p *Proxy) URL() string { return "http://" + p.addr }

// Accept takes connections (again).
func (p *Proxy) Accept(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil || p.closed {
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.addr)
	if err != nil {
		return fmt.Errorf("pspproxy: %w", err)
	}
	p.listener, p.addr = l, l.Addr().String()
	p.wg.Go(func() { p.accept(l) })
	return nil
}

// Refuse takes no more connections, and closes those that carry no request: as
// when a provider's process has gone. Requests under way go on.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	for c := range p.conns {
		if !c.busy {
			_ = c.Close()
		}
	}
}

// Close ends everything.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
	p.client.CloseIdleConnections()
}

// conn is one connection of the API's.
type conn struct {
	net.Conn
	busy bool // guarded by Proxy.mu
}

func (p *Proxy) accept(l net.Listener) {
	for {
		raw, err := l.Accept()
		if err != nil {
			return // closed
		}
		c := &conn{Conn: raw}
		p.mu.Lock()
		if p.closed || p.listener != l {
			p.mu.Unlock()
			_ = raw.Close()
			continue
		}
		p.conns[c] = struct{}{}
		p.mu.Unlock()
		p.wg.Go(func() { p.serve(c) })
	}
}

func (p *Proxy) setBusy(c *conn, busy bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.busy = busy
	if !busy && p.listener == nil { // the door was closed meanwhile
		_ = c.Close()
	}
}

// serve is one connection, request by request.
func (p *Proxy) serve(c *conn) {
	defer func() {
		_ = c.Close()
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
	}()
	in := bufio.NewReader(c)
	for n := 0; ; n++ {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		p.setBusy(c, true)
		body, err := io.ReadAll(io.LimitReader(req.Body, maxBody))
		if err != nil {
			return
		}
		r := understand(req, body)
		r.Proxy, r.Reused = p.name, n > 0
		if !p.handle(c, in, req, body, r) {
			return
		}
		p.setBusy(c, false)
	}
}

// operations are where the sandbox takes what is done with a charge.
var operations = []string{"/sandbox/v1/captures", "/sandbox/v1/cancels", "/sandbox/v1/refunds"}

func understand(req *http.Request, body []byte) Request {
	r := Request{Kind: Other}
	switch {
	case req.Method == http.MethodPost && req.URL.Path == "/sandbox/v1/charges":
		r.Kind = Charge
	case req.Method == http.MethodGet && req.URL.Path == "/sandbox/v1/charges":
		r.Kind = Inquiry
	case slices.Contains(operations, req.URL.Path):
		r.Kind = Operation
	case req.URL.Path == "/sandbox/v1/voids":
		r.Kind = Void
	}
	var fields struct {
		Account   string `json:"account_id"`
		Order     string `json:"merchant_order_id"`
		Reference string `json:"reference"`
	}
	if r.Kind == Inquiry {
		q := req.URL.Query()
		r.Account, r.Reference = q.Get("account_id"), q.Get("reference")
		return r
	}
	_ = json.Unmarshal(body, &fields) // then it is about nothing we know
	r.Account, r.Order, r.Reference = fields.Account, fields.Order, fields.Reference
	return r
}

// answer is the provider's, as far as it is passed on.
type answer struct {
	status int
	body   []byte
}

// handle does to one request what the judge says. It reports whether the
// connection goes on.
func (p *Proxy) handle(c *conn, in *bufio.Reader, req *http.Request, body []byte, r Request) bool {
	arrived := time.Now()
	act := p.judge(r)
	gone := make(chan struct{})
	// Whatever comes now is the end: nobody pipelines. The reader is free again once it
	// has seen something.
	p.wg.Go(func() {
		defer close(gone)
		_, _ = in.Peek(1)
	})
	before := p.before(c, act, req, body, gone)
	if before != nil {
		return before(arrived)
	}
	a, err := p.forward(req, body)
	select {
	case <-gone:
		if r.Kind.moves() && p.brokenOff != nil {
			p.brokenOff(r, time.Since(arrived))
		}
		return false
	default:
	}
	if err != nil {
		return false
	}
	if act.Refuse {
		p.Refuse()
	}
	if !p.after(c, act, a, r, gone) {
		return false
	}
	p.setBusy(c, false)
	<-gone // the next request has come, or the end of the connection
	return in.Buffered() > 0
}

// before does the faults of a request that the provider never gets, or gets late;
// nil means that it gets it now.
func (p *Proxy) before(c *conn, act Act, req *http.Request, body []byte, gone <-chan struct{}) func(time.Time) bool {
	end := func(time.Time) bool { return false }
	switch act.Fault {
	case TimeoutBefore:
		hold(gone)
		return end
	case Late:
		p.wg.Go(func() {
			<-time.After(act.Delay)
			_, _ = p.forward(req, body)
		})
		hold(gone)
		return end
	case ErrorBefore:
		write(c, answer{http.StatusBadGateway, []byte(`{"error":"upstream"}`)})
		return end
	case ResetBefore:
		reset(c)
		return end
	case Unprocessed:
		write(c, answer{http.StatusServiceUnavailable, []byte(`{"processed":false}`)})
		return end
	case Slow:
		select {
		case <-time.After(act.Delay):
		case <-gone: // the asker has left; what is on its way arrives all the same
		}
	case None, TimeoutAfter, ErrorAfter, ResetAfter, CloseAfter, ReusedClosed, Garbage, OtherReference, Trickle:
	}
	return nil
}

// after does the faults of a request that the provider has seen.
func (p *Proxy) after(c *conn, act Act, a answer, r Request, gone <-chan struct{}) bool {
	switch act.Fault {
	case TimeoutAfter:
		hold(gone)
	case ErrorAfter:
		write(c, answer{http.StatusInternalServerError, []byte(`{"error":"after"}`)})
	case ResetAfter:
		reset(c)
	case CloseAfter, ReusedClosed:
	case Garbage:
		garbage(c, act.Variant)
	case OtherReference:
		write(c, answer{a.status, bytes.ReplaceAll(a.body, []byte(r.Reference), []byte("00000000-0000-7000-8000-000000000000"))})
	case Trickle:
		trickle(c, a, gone)
	default:
		return write(c, a)
	}
	return false
}

func hold(gone <-chan struct{}) {
	select {
	case <-gone:
	case <-time.After(holdLimit):
	}
}

// forward asks the provider itself. It is never repeated: the request has no
// GetBody and no idempotency header.
func (p *Proxy) forward(req *http.Request, body []byte) (answer, error) {
	u, err := url.Parse(p.target + req.URL.RequestURI())
	if err != nil {
		return answer{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), forwardLimit)
	defer cancel()
	out, err := http.NewRequestWithContext(ctx, req.Method, u.String(), bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	out.GetBody = nil
	out.Header.Set("Content-Type", req.Header.Get("Content-Type"))
	res, err := p.client.Do(out)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	return answer{res.StatusCode, b}, err
}

func write(w io.Writer, a answer) bool {
	_, err := fmt.Fprintf(w, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		a.status, http.StatusText(a.status), len(a.body), a.body)
	return err == nil
}

// reset ends the connection with a RST: what the other side has not read is lost.
func reset(c *conn) {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
}

func garbage(w io.Writer, variant int) {
	switch variant % 4 {
	case 0:
		_, _ = io.WriteString(w, "\x16\x03\x01\x02 this is no HTTP\r\n\r\n")
	case 1:
		write(w, answer{http.StatusOK, []byte(`<html>Payment approved!</html>`)})
	case 2:
		write(w, answer{http.StatusOK, []byte(`{"reference":"`)})
	case 3: // a body that ends too soon
		_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"status\":\"app")
	}
}

func trickle(c *conn, a answer, gone <-chan struct{}) {
	var whole bytes.Buffer
	write(&whole, a)
	limit := time.After(holdLimit)
	for _, b := range whole.Bytes() {
		select {
		case <-gone:
			return
		case <-limit:
			return
		case <-time.After(trickleEvery):
		}
		if _, err := c.Write([]byte{b}); err != nil {
			return
		}
	}
}
