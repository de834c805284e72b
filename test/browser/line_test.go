package browser

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// line is the wire between a browser and the API. It can be cut, with all that is on its way.
type line struct {
	url string

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]bool
}

// newLine leads to a base URL. It ends with the test.
func newLine(t *testing.T, base string) *line {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &line{url: "http://" + listener.Addr().String(), conns: map[net.Conn]bool{}}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return // closed
			}
			work.Go(func() { l.carry(near, strings.TrimPrefix(base, "http://")) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		l.cut()
		work.Wait()
	})
	return l
}

// carry hands everything on between two ends, until one of them is closed.
func (l *line) carry(near net.Conn, to string) {
	far, err := net.Dial("tcp", to)
	if err != nil || !l.hold(near, far) {
		_ = near.Close()
		if err == nil {
			_ = far.Close()
		}
		return
	}
	var work sync.WaitGroup
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		work.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // until it breaks: that is what it is for
			_ = way[0].Close()
			_ = way[1].Close()
		})
	}
	work.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, near)
	delete(l.conns, far)
}

func (l *line) hold(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		l.conns[c] = true
	}
	return !l.down
}

// cut breaks all connections, and lets none through until mend.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for c := range l.conns {
		_ = c.Close()
	}
}

func (l *line) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}
