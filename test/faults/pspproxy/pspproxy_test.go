package pspproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// soon bounds what takes milliseconds; only a failing test waits that long.
const soon = 20 * time.Second

// bank is a provider that counts the charges that reach it.
func bank(t *testing.T) (url string, booked *atomic.Int64) {
	t.Helper()
	booked = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			booked.Add(1)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"reference":"ref-1","status":"approved"}`)
	}))
	t.Cleanup(s.Close)
	return s.URL, booked
}

// in is a proxy that does one act to every charge, and a client with one connection.
func in(t *testing.T, target string, act Act) (*Proxy, *http.Client, chan Request) {
	t.Helper()
	broken := make(chan Request, 10)
	p, err := Start(t.Context(), "api", target, func(r Request) Act {
		if r.Kind == Charge {
			return act
		}
		return Act{}
	}, func(r Request, _ time.Duration) { broken <- r })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	transport := &http.Transport{MaxConnsPerHost: 1}
	t.Cleanup(transport.CloseIdleConnections)
	return p, &http.Client{Transport: transport, Timeout: soon}, broken
}

const chargePath = "/sandbox/v1/charges"

func charge(ctx context.Context, c *http.Client, p *Proxy) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL()+chargePath,
		io.NopCloser(strings.NewReader(`{"reference":"ref-1","account_id":"a","merchant_order_id":"o"}`)))
	if err != nil {
		return 0, "", err
	}
	res, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

func ask(t *testing.T, c *http.Client, p *Proxy) {
	t.Helper()
	res, err := c.Get(p.URL() + chargePath + "?account_id=a&reference=ref-1")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("asked, and answered %d, %v", res.StatusCode, err)
	}
}

func TestEachFaultBooksAndAnswersAsItIsCalled(t *testing.T) {
	for _, c := range []struct {
		fault  Fault
		books  int64
		status int // 0: no answer
		says   string
	}{
		{None, 1, 200, "approved"},
		{Slow, 1, 200, "approved"},
		{ErrorBefore, 0, 502, ""},
		{ErrorAfter, 1, 500, ""},
		{ResetBefore, 0, 0, ""},
		{ResetAfter, 1, 0, ""},
		{CloseAfter, 1, 0, ""},
		{ReusedClosed, 1, 0, ""},
		{Unprocessed, 0, 503, `{"processed":false}`},
		{OtherReference, 1, 200, "00000000-"},
	} {
		t.Run(string(c.fault), func(t *testing.T) {
			t.Parallel()
			target, booked := bank(t)
			p, client, _ := in(t, target, Act{Fault: c.fault, Delay: time.Millisecond})
			status, body, err := charge(t.Context(), client, p)
			if status != c.status || !strings.Contains(body, c.says) || (err != nil) != (c.status == 0) {
				t.Errorf("answered %d %s, %v", status, body, err)
			}
			if n := booked.Load(); n != c.books {
				t.Errorf("booked %d times, not %d", n, c.books)
			}
		})
	}
}

func TestGarbageIsBookedAndNoAnswer(t *testing.T) {
	for variant := range 4 {
		target, booked := bank(t)
		p, client, _ := in(t, target, Act{Fault: Garbage, Variant: variant})
		_, body, err := charge(t.Context(), client, p)
		if err == nil && strings.Contains(body, `"status":"approved"`) || booked.Load() != 1 {
			t.Errorf("variant %d: answered %q, %v; booked %d times", variant, body, err, booked.Load())
		}
	}
}

func TestSilenceEndsWithTheAsker(t *testing.T) {
	for _, c := range []struct {
		fault Fault
		books int64
	}{{TimeoutBefore, 0}, {TimeoutAfter, 1}, {Trickle, 1}, {Late, 1}} {
		t.Run(string(c.fault), func(t *testing.T) {
			t.Parallel()
			target, booked := bank(t)
			p, client, _ := in(t, target, Act{Fault: c.fault, Delay: 200 * time.Millisecond})
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if _, _, err := charge(ctx, client, p); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("ended with %v", err)
			}
			p.Close() // waits for what is still on its way
			if n := booked.Load(); n != c.books {
				t.Errorf("booked %d times, not %d", n, c.books)
			}
		})
	}
}

func TestReusedConnectionIsToldFromANewOne(t *testing.T) {
	target, _ := bank(t)
	seen := make(chan bool, 2)
	p, err := Start(t.Context(), "api", target, func(r Request) Act { seen <- r.Reused; return Act{} }, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}, Timeout: soon}
	for want := range 2 {
		if _, _, err := charge(t.Context(), client, p); err != nil {
			t.Fatal(err)
		}
		if reused := <-seen; reused != (want == 1) {
			t.Errorf("request %d: reused is %t", want, reused)
		}
	}
}

func TestAskerThatLeavesAChargeIsTold(t *testing.T) {
	target, booked := bank(t)
	p, client, broken := in(t, target, Act{Fault: Slow, Delay: soon})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := charge(ctx, client, p); err == nil {
		t.Fatal("the charge was answered")
	}
	select {
	case r := <-broken:
		if r.Order != "o" || booked.Load() != 1 {
			t.Errorf("told of %+v, booked %d times", r, booked.Load())
		}
	case <-time.After(soon):
		t.Error("nobody was told")
	}
}

func TestAnsweredChargeIsNotBrokenOff(t *testing.T) {
	target, _ := bank(t)
	p, client, broken := in(t, target, Act{})
	if _, _, err := charge(t.Context(), client, p); err != nil {
		t.Fatal(err)
	}
	client.CloseIdleConnections()
	p.Close()
	if len(broken) > 0 {
		t.Errorf("told of %+v", <-broken)
	}
}

func TestShutDoorRefusesAndOpensAgain(t *testing.T) {
	target, _ := bank(t)
	p, client, _ := in(t, target, Act{Fault: CloseAfter, Refuse: true})
	ask(t, client, p)
	if _, _, err := charge(t.Context(), client, p); err == nil {
		t.Fatal("the charge was answered")
	}
	if conn, err := net.Dial("tcp", strings.TrimPrefix(p.URL(), "http://")); err == nil {
		_ = conn.Close()
		t.Error("the door is open")
	}
	if err := p.Accept(t.Context()); err != nil {
		t.Fatal(err)
	}
	ask(t, client, p)
}

func TestRequestIsOfTheKindThatItsPathSays(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]Kind{
		"/sandbox/v1/charges": Charge, "/sandbox/v1/captures": Operation, "/sandbox/v1/cancels": Operation, "/sandbox/v1/refunds": Operation,
		"/sandbox/v1/voids": Void, "/sandbox/v1/tokens": Other,
	} {
		r := understand(httptest.NewRequest(http.MethodPost, path, nil), []byte(`{"account_id":"a","merchant_order_id":"o","reference":"r"}`))
		if r.Kind != want || r.Account != "a" || r.Order != "o" || r.Reference != "r" {
			t.Errorf("%s is understood as %+v", path, r)
		}
	}
}
