package providers

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// patience bounds what must happen soon anyway. It is reached only by a bug.
const patience = 20 * time.Second

// scripted is a provider on a bare TCP socket: serve is handed each request with
// its connection, so a test decides what happens to the bytes.
type scripted struct {
	listener net.Listener
	requests atomic.Int64 // whole requests read, on any connection
	bytes    atomic.Int64 // bytes read, on any connection
	wg       sync.WaitGroup
}

// newScripted serves until the test ends. serve returns false to close the
// connection.
func newScripted(t *testing.T, serve func(n int64, r *http.Request, c net.Conn) bool) *scripted {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &scripted{listener: l}
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.handle(c, serve) })
		}
	})
	t.Cleanup(func() { _ = l.Close() }) // the connections end with the client's, see newWire
	return p
}

func (p *scripted) handle(c net.Conn, serve func(int64, *http.Request, net.Conn) bool) {
	defer func() { _ = c.Close() }()
	in := bufio.NewReader(readCounter{c, &p.bytes})
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if !serve(p.requests.Add(1), r, c) {
			return
		}
	}
}

func (p *scripted) url() string { return "http://" + p.listener.Addr().String() + "/charges" }

type readCounter struct {
	io.Reader
	n *atomic.Int64
}

func (r readCounter) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.n.Add(int64(n))
	return n, err
}

func ok(c net.Conn) bool {
	_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
	return err == nil
}

// closing tells when a connection was closed on our side.
type closing struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *closing) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.closed) }) // told once it is true: a write in between would still leave
	return err
}

func (c *closing) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// newWire makes a client whose dialled connections the test can look at.
func newWire(t *testing.T) (*Wire, func() []*closing) {
	t.Helper()
	w := NewWire(nil)
	dial := w.dialer
	var mu sync.Mutex
	var all []*closing
	w.dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		cc := &closing{Conn: c, closed: make(chan struct{})}
		mu.Lock()
		all = append(all, cc)
		mu.Unlock()
		return cc, nil
	}
	t.Cleanup(w.CloseIdle)
	return w, func() []*closing {
		mu.Lock()
		defer mu.Unlock()
		return append([]*closing(nil), all...)
	}
}

func post(t *testing.T, w *Wire, url string, may MaySend) Exchange {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return w.Send(ctx, Request{Method: http.MethodPost, URL: url, Body: []byte(`{"reference":"r"}`)}, may)
}

// warm makes one whole exchange, so that the next send reuses its connection.
func warm(t *testing.T, w *Wire, url string) {
	t.Helper()
	if x := post(t, w, url, nil); x.Err != nil || x.Status != http.StatusOK || string(x.Body) != "{}" {
		t.Fatalf("warming up: %+v", x)
	}
}

func wantOutcome(t *testing.T, x Exchange, want Outcome, kind error) {
	t.Helper()
	if !errors.Is(x.Err, kind) {
		t.Errorf("error is %v, want %v", x.Err, kind)
	}
	if r := x.Failed(); r.Outcome != want {
		t.Errorf("outcome is %s (wrote %v, %v), want %s", r.Outcome, x.Wrote, x.Err, want)
	}
}

// H71. Go's transport would send this again if it could. With the listener gone
// it would then report "connection refused" for a charge that was booked; with
// the listener there, the provider would be asked twice.
func TestH71BookedOnAReusedConnectionThatThenClosesIsOneSendAndUnclear(t *testing.T) {
	for name, r := range map[string]Request{
		"POST":                   {Method: http.MethodPost, Body: []byte("{}")},
		"POST Idempotency-Key":   {Method: http.MethodPost, Body: []byte("{}"), Header: http.Header{"Idempotency-Key": {"k"}}},
		"POST X-Idempotency-Key": {Method: http.MethodPost, Body: []byte("{}"), Header: http.Header{"X-Idempotency-Key": {"k"}}},
		"GET":                    {Method: http.MethodGet},
	} {
		for _, listening := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, still listening %v", name, listening), func(t *testing.T) {
				var p *scripted
				p = newScripted(t, func(n int64, _ *http.Request, c net.Conn) bool {
					switch {
					case n != 2:
						return ok(c)
					case !listening:
						_ = p.listener.Close()
					}
					return false // booked, and not a byte of an answer
				})
				w, dialled := newWire(t)
				warm(t, w, p.url())

				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				asked := 0
				r.URL = p.url()
				x := w.Send(ctx, r, func() bool { asked++; return true })

				wantOutcome(t, x, Unclear, ErrBroken)
				if x.TimedOut {
					t.Error("a broken connection is not a timeout")
				}
				if got := p.requests.Load(); got != 2 {
					t.Errorf("the provider saw %d requests, want the warm-up and one send", got)
				}
				if !dialled()[0].isClosed() || asked != 1 {
					t.Errorf("MaySend asked %d times, want once; the first connection closed: %v", asked, dialled()[0].isClosed())
				}
			})
		}
	}
}

func TestReusedConnectionIsGoneAndTheDialIsRefusedIsNotReached(t *testing.T) {
	var p *scripted
	p = newScripted(t, func(_ int64, _ *http.Request, c net.Conn) bool {
		_ = p.listener.Close()
		ok(c)
		return false
	})
	w, dialled := newWire(t)
	warm(t, w, p.url())
	<-dialled()[0].closed // the transport has seen the end of it

	asked := 0
	x := post(t, w, p.url(), func() bool { asked++; return true })
	wantOutcome(t, x, NotReached, ErrNoConnection)
	if !strings.Contains(x.Err.Error(), "refused") {
		t.Errorf("%q does not tell why", x.Err)
	}
	if asked != 0 || p.requests.Load() != 1 {
		t.Errorf("MaySend asked %d times, %d requests seen", asked, p.requests.Load())
	}
}

func TestReusedConnectionThatDiesBeforeItsFirstByteIsNotReached(t *testing.T) {
	p := newScripted(t, func(_ int64, _ *http.Request, c net.Conn) bool { return ok(c) })
	w, dialled := newWire(t)
	warm(t, w, p.url())
	x := post(t, w, p.url(), func() bool {
		_ = dialled()[0].Close() // after the transport chose it, before it writes
		return true
	})
	wantOutcome(t, x, NotReached, ErrNoConnection)
	if p.requests.Load() != 1 {
		t.Errorf("%d requests seen, want the warm-up only", p.requests.Load())
	}
}

func TestMaySendRefusingWritesNothing(t *testing.T) {
	for _, reused := range []bool{false, true} {
		t.Run(fmt.Sprintf("reused=%v", reused), func(t *testing.T) {
			p := newScripted(t, func(_ int64, _ *http.Request, c net.Conn) bool { return ok(c) })
			w, dialled := newWire(t)
			if reused {
				warm(t, w, p.url())
			}
			before := p.bytes.Load()
			asked := 0
			x := post(t, w, p.url(), func() bool { asked++; return false })
			wantOutcome(t, x, NotReached, ErrTooLate)
			if asked != 1 {
				t.Errorf("MaySend asked %d times", asked)
			}
			// The connection is closed, and the server has read it to its end.
			<-dialled()[0].closed
			_ = p.listener.Close()
			p.wg.Wait()
			if got := p.bytes.Load(); got != before {
				t.Errorf("%d bytes on the wire", got-before)
			}
		})
	}
}

// A refusal must not make the transport try, and close, every idle connection.
func TestMaySendRefusingABodilessSendClosesOneConnectionOnly(t *testing.T) {
	const n = 4
	var together sync.WaitGroup
	together.Add(n)
	p := newScripted(t, func(_ int64, _ *http.Request, c net.Conn) bool {
		together.Done()
		together.Wait() // so that each warm-up needs a connection of its own
		return ok(c)
	})
	w, dialled := newWire(t)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { warm(t, w, p.url()) })
	}
	wg.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	x := w.Send(ctx, Request{Method: http.MethodGet, URL: p.url()}, func() bool { return false })
	wantOutcome(t, x, NotReached, ErrTooLate)
	closed := 0
	for _, c := range dialled() {
		if c.isClosed() {
			closed++
		}
	}
	if closed != 1 || len(dialled()) != n {
		t.Errorf("%d of %d connections closed, want 1 of %d", closed, len(dialled()), n)
	}
}

func TestConnectionsAreReused(t *testing.T) {
	p := newScripted(t, func(_ int64, _ *http.Request, c net.Conn) bool { return ok(c) })
	w, dialled := newWire(t)
	for range 5 {
		warm(t, w, p.url())
	}
	if n := len(dialled()); n != 1 {
		t.Errorf("%d connections for 5 sends", n)
	}
}

func TestRedirectsAreAnswersNotInstructions(t *testing.T) {
	p := newScripted(t, func(_ int64, r *http.Request, c net.Conn) bool {
		_, err := io.WriteString(c, "HTTP/1.1 307 Temporary Redirect\r\nLocation: "+r.URL.Path+"\r\nContent-Length: 0\r\n\r\n")
		return err == nil
	})
	w, _ := newWire(t)
	if x := post(t, w, p.url(), nil); x.Err != nil || x.Status != http.StatusTemporaryRedirect || !x.Wrote {
		t.Errorf("%+v", x)
	}
	if p.requests.Load() != 1 {
		t.Errorf("%d requests", p.requests.Load())
	}
}

func TestProxiesOfTheEnvironmentAreIgnored(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	if NewWire(nil).transport.Proxy != nil {
		t.Error("the client has a proxy")
	}
}

func TestTimeoutAfterTheFirstByteIsUnclearAndTimedOut(t *testing.T) {
	for name, partial := range map[string]string{
		"no answer":      "",
		"half an answer": "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			p := newScripted(t, func(_ int64, _ *http.Request, c net.Conn) bool {
				_, _ = io.WriteString(c, partial)
				cancel() // stands for the deadline; nothing waits for a clock
				return true
			})
			w, _ := newWire(t)
			x := w.Send(ctx, Request{Method: http.MethodPost, URL: p.url(), Body: []byte("{}")}, nil)
			wantOutcome(t, x, Unclear, ErrNoAnswer)
			if !x.Failed().TimedOut {
				t.Error("not TimedOut")
			}
		})
	}
}

func TestContextThatEndedBeforeTheSendIsNotReached(t *testing.T) {
	p := newScripted(t, func(_ int64, _ *http.Request, c net.Conn) bool { return ok(c) })
	w, _ := newWire(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	cancel()
	x := w.Send(ctx, Request{Method: http.MethodPost, URL: p.url(), Body: []byte("{}")}, nil)
	wantOutcome(t, x, NotReached, ErrNoConnection)
	if x.Failed().TimedOut || p.requests.Load() != 0 {
		t.Errorf("%+v, %d requests", x, p.requests.Load())
	}
}

func TestAnswersAreLimited(t *testing.T) {
	for name, tc := range map[string]struct {
		size int
		want error
	}{
		"exactly the limit": {maxAnswerBytes, nil},
		"one byte more":     {maxAnswerBytes + 1, ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			p := newScripted(t, func(_ int64, _ *http.Request, c net.Conn) bool {
				_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", tc.size, strings.Repeat("x", tc.size))
				return err == nil
			})
			w, _ := newWire(t)
			x := post(t, w, p.url(), nil)
			if !errors.Is(x.Err, tc.want) || !x.Wrote {
				t.Errorf("wrote %v, error %v, want %v", x.Wrote, x.Err, tc.want)
			}
			if tc.want == nil && len(x.Body) != tc.size {
				t.Errorf("%d bytes", len(x.Body))
			}
		})
	}
	t.Run("headers", func(t *testing.T) {
		p := newScripted(t, func(_ int64, _ *http.Request, c net.Conn) bool {
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX: %s\r\n\r\n", strings.Repeat("x", 2*maxAnswerHeaderBytes))
			return false
		})
		w, _ := newWire(t)
		wantOutcome(t, post(t, w, p.url(), nil), Unclear, ErrBroken)
	})
}

func TestTruncatedAndGarbledAnswersAreUnclear(t *testing.T) {
	for name, answer := range map[string]string{
		"truncated body":   "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
		"truncated chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
		"truncated header": "HTTP/1.1 200 OK\r\nContent-Le",
		"not HTTP":         "4507990000000002 is not HTTP\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			p := newScripted(t, func(_ int64, _ *http.Request, c net.Conn) bool {
				_, _ = io.WriteString(c, answer)
				return false
			})
			w, _ := newWire(t)
			x := post(t, w, p.url(), nil)
			wantOutcome(t, x, Unclear, ErrBroken)
			if strings.Contains(x.Err.Error(), "4507") {
				t.Errorf("%q quotes the provider", x.Err)
			}
		})
	}
}

// What a provider says while nobody asked is no answer, to nobody, and is not
// printed: net/http would log it, or take it for the next send's answer.
func TestUnaskedAnswersAreDropped(t *testing.T) {
	var logged bytes.Buffer
	before := log.Writer()
	log.SetOutput(&logged)
	t.Cleanup(func() { log.SetOutput(before) })

	speak := make(chan struct{})
	p := newScripted(t, func(n int64, _ *http.Request, c net.Conn) bool {
		if !ok(c) || n > 1 {
			return true
		}
		<-speak
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n\"stale\"")
		return true
	})
	w, dialled := newWire(t)
	warm(t, w, p.url())
	close(speak)
	<-dialled()[0].closed
	warm(t, w, p.url()) // on a fresh connection, and not "stale"
	if strings.Contains(logged.String(), "stale") {
		t.Errorf("logged: %s", logged.String())
	}
}

// The stale answer is there before the send's first byte, and the transport has
// already given the connection to the send.
func TestAnAnswerThatPrecedesItsQuestionIsNotBelieved(t *testing.T) {
	speak := make(chan struct{})
	p := newScripted(t, func(_ int64, _ *http.Request, c net.Conn) bool {
		if !ok(c) {
			return false
		}
		<-speak
		_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n\"stale\"")
		return err == nil
	})
	w, dialled := newWire(t)
	warm(t, w, p.url())
	x := post(t, w, p.url(), func() bool {
		close(speak)
		<-dialled()[0].closed
		return true
	})
	wantOutcome(t, x, NotReached, ErrNoConnection)
}

func TestWhatCannotBeSentIsSaidBeforeAnythingIsWritten(t *testing.T) {
	p := newScripted(t, func(_ int64, _ *http.Request, c net.Conn) bool { return ok(c) })
	w, _ := newWire(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for name, x := range map[string]Exchange{
		"no deadline": w.Send(context.Background(), Request{Method: "POST", URL: p.url()}, nil),
		"bad URL":     w.Send(ctx, Request{Method: "POST", URL: "http://[::1/secret"}, nil),
		"bad method":  w.Send(ctx, Request{Method: "PO ST", URL: p.url()}, nil),
		"idempotency header without a body": w.Send(ctx, Request{Method: "POST", URL: p.url(),
			Header: http.Header{"Idempotency-Key": {"k"}}}, nil),
	} {
		wantOutcome(t, x, NotReached, ErrRequest)
		if strings.Contains(x.Err.Error(), "secret") {
			t.Errorf("%s: %q quotes the URL", name, x.Err)
		}
	}
	if p.requests.Load() != 0 {
		t.Errorf("%d requests", p.requests.Load())
	}
}

// Whatever the moment at which a send is cancelled: if the provider saw one byte
// of it, the send says that it wrote; and it saw it once.
func TestCancelledAtAnyMomentASendNeverDeniesWhatItWrote(t *testing.T) {
	const senders, sends = 16, 60
	var mu sync.Mutex
	seen := map[string]int{}
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen[r.Header.Get("X-Send")]++
		mu.Unlock()
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		if rand.IntN(8) == 0 {
			panic(http.ErrAbortHandler) // closes a connection that is likely a reused one
		}
		_, _ = io.WriteString(rw, "{}")
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	w, _ := newWire(t)

	wrote := make([]map[string]bool, senders)
	var wg sync.WaitGroup
	for i := range senders {
		wrote[i] = map[string]bool{}
		wg.Go(func() {
			for j := range sends {
				id := strconv.Itoa(i) + "-" + strconv.Itoa(j)
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				if rand.IntN(2) == 0 {
					go func() { // at a moment the scheduler picks
						for range rand.IntN(200) {
							_ = time.Now()
						}
						cancel()
					}()
				}
				x := w.Send(ctx, Request{Method: http.MethodPost, URL: srv.URL, Header: http.Header{"X-Send": {id}},
					Body: bytes.Repeat([]byte("x"), rand.IntN(64<<10)+1)}, func() bool { return rand.IntN(10) > 0 })
				wrote[i][id] = x.Wrote
				if x.Err == nil && !x.Wrote {
					t.Errorf("%s was answered, but not written", id)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	w.CloseIdle()
	srv.Close() // waits for the handlers
	counts := map[string]int{}
	for i := range senders {
		for id, said := range wrote[i] {
			switch n := seen[id]; {
			case n > 1:
				t.Errorf("%s was sent %d times", id, n)
			case n == 1 && !said:
				t.Errorf("%s reached the provider, and denies it", id)
			}
			counts[fmt.Sprintf("wrote=%v seen=%d", said, seen[id])]++
		}
	}
	t.Log(counts)
}

func TestWireOverTLS(t *testing.T) {
	var requests atomic.Int64
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 {
			t.Errorf("spoke %s", r.Proto)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		if requests.Add(1) == 3 {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(rw, "{}")
	}))
	srv.EnableHTTP2 = true // offered, and not taken
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	w := NewWire(&tls.Config{RootCAs: roots}) // #nosec G402 -- NewWire sets the minimum
	defer w.CloseIdle()

	warm(t, w, srv.URL)
	wantOutcome(t, post(t, w, srv.URL, func() bool { return false }), NotReached, ErrTooLate)
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests after a refusal", n)
	}
	warm(t, w, srv.URL)
	wantOutcome(t, post(t, w, srv.URL, nil), Unclear, ErrBroken)
	if n := requests.Load(); n != 3 {
		t.Errorf("%d requests, want 3", n)
	}
	stranger := NewWire(nil)
	defer stranger.CloseIdle()
	wantOutcome(t, post(t, stranger, srv.URL, nil), NotReached, ErrNoConnection)
}

func BenchmarkSend(b *testing.B) {
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(rw, "{}")
	}))
	defer srv.Close()
	w := NewWire(nil)
	defer w.CloseIdle()
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	may := func() bool { return true }
	b.ReportAllocs()
	for b.Loop() {
		if x := w.Send(ctx, Request{Method: http.MethodPost, URL: srv.URL, Body: []byte(`{}`)}, may); x.Err != nil {
			b.Fatal(x.Err)
		}
	}
}
