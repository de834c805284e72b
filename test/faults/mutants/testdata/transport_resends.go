// Package resends asks the adapter of a build whether the transport below it sends
// a charge again. It is compiled into that build by an overlay.
package resends

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/providers"
	"github.com/oncepay/oncepay/internal/providers/sandbox"
)

// provider declines the first charge, so that its connection is used again, and
// closes it on the second without a word. What comes after that is counted.
type provider struct {
	net.Listener
	charges atomic.Int64
	deaf    bool // nobody listens any more once it has closed
}

func (p *provider) serve() {
	for {
		c, err := p.Accept()
		if err != nil {
			return
		}
		go p.talk(c)
	}
}

func (p *provider) talk(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		if p.charges.Add(1) == 2 {
			if p.deaf {
				_ = p.Close()
			}
			return // booked
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 75\r\n\r\n"+
			`{"reference":"r","status":"declined","response_code":"INSUFFICIENT_FUNDS"} `)
	}
}

func charge(t *testing.T, deaf bool) (second providers.Outcome, charges int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{Listener: l, deaf: deaf}
	defer p.Close()
	go p.serve()
	a, err := sandbox.NewAdapter("http://"+l.Addr().String(), sandbox.AdapterOptions{Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	c := providers.Charge{Order: providers.Order{Reference: "r"}}
	may := func() bool { return true }
	if first := a.Charge(context.Background(), c, may); first.Outcome != providers.Declined {
		t.Fatalf("the first charge is %+v, want it declined", first)
	}
	return a.Charge(context.Background(), c, may).Outcome, p.charges.Load()
}

func TestTransportResends(t *testing.T) {
	if outcome, n := charge(t, false); n != 3 || outcome != providers.Declined {
		t.Errorf("the second charge was sent %d times, and is %s; want it twice, and the second copy's answer", n-1, outcome)
	}
	if outcome, n := charge(t, true); n != 2 || outcome != providers.NotReached {
		t.Errorf("of %d charges the second is %s; want it booked, and called never sent", n, outcome)
	}
}
