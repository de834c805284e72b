package harness

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
)

// Door stands between an instance and its provider. It counts the charges that
// come through, and holds the answers to those it was asked to hold.
type Door struct {
	URL string

	target atomic.Pointer[url.URL]

	mu      sync.Mutex
	charges map[string]int         // by order
	holds   map[string]*heldAnswer // by order
}

type heldAnswer struct {
	booked, release chan struct{}
	once            sync.Once // a second charge of the order is for the test to find
}

// NewDoor opens a door to the provider at target. It closes with the test.
func NewDoor(t testing.TB, target string) *Door {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", anyPort)
	if err != nil {
		t.Fatal(err)
	}
	d := &Door{URL: "http://" + listener.Addr().String(), charges: map[string]int{}, holds: map[string]*heldAnswer{}}
	d.LeadTo(t, target)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(d.target.Load()) },
		// A connection of its own for each request: then none is ever sent twice.
		Transport:    &http.Transport{DisableKeepAlives: true},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := &http.Server{ReadHeaderTimeout: exchangeLimit, Handler: d.through(proxy)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener) // until Close
	}()
	t.Cleanup(func() {
		d.releaseAll()
		_ = server.Close()
		<-ended
	})
	return d
}

// LeadTo makes the door lead to a provider that has moved.
func (d *Door) LeadTo(t testing.TB, target string) {
	t.Helper()
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	d.target.Store(to)
}

// through counts a charge, has it answered, and holds that answer if somebody
// asked for it.
func (d *Door) through(provider http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/sandbox/v1/charges" {
			provider.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(io.LimitReader(r.Body, answerBytes))
		var charge struct {
			MerchantOrderID string `json:"merchant_order_id"`
		}
		if err != nil || json.Unmarshal(body, &charge) != nil {
			panic(http.ErrAbortHandler)
		}
		d.mu.Lock()
		d.charges[charge.MerchantOrderID]++
		held := d.holds[charge.MerchantOrderID]
		d.mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		if held == nil {
			provider.ServeHTTP(w, r)
			return
		}
		answer := &answerLater{header: http.Header{}}
		provider.ServeHTTP(answer, r)
		held.once.Do(func() { close(held.booked) })
		<-held.release
		for name, values := range answer.header {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.status)
		_, _ = w.Write(answer.body.Bytes()) // the instance may have given up
	})
}

// Charges is how many charges of an order came through.
func (d *Door) Charges(order string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.charges[order]
}

// HoldAnswer makes the door keep the answer to the order's one charge. booked is
// closed when the provider has decided; release lets the answer out.
func (d *Door) HoldAnswer(order string) (booked <-chan struct{}, release func()) {
	h := &heldAnswer{booked: make(chan struct{}), release: make(chan struct{})}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.holds[order] = h
	return h.booked, sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.holds[order] == h {
			delete(d.holds, order)
			close(h.release)
		}
	})
}

func (d *Door) releaseAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for order, h := range d.holds {
		delete(d.holds, order)
		close(h.release)
	}
}

// answerLater keeps an answer until it may go out.
type answerLater struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header is the answer's, to be filled in.
func (a *answerLater) Header() http.Header { return a.header }

// WriteHeader keeps the status.
func (a *answerLater) WriteHeader(status int) { a.status = status }

func (a *answerLater) Write(b []byte) (int, error) { return a.body.Write(b) }
