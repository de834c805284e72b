package httpapi

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
)

// probed is an edge with probes, and a database that a test can take away.
type probed struct {
	*edge
	probes *Probes
	clock  *clock
	away   atomic.Bool
	pings  atomic.Int64
}

func newProbed(t *testing.T) *probed {
	t.Helper()
	p := &probed{clock: newClock()}
	l := &logs{}
	p.probes = NewProbes(func(ctx context.Context) error {
		p.pings.Add(1)
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("a ping without a deadline")
		}
		if p.away.Load() {
			return errors.New("geheim")
		}
		return nil
	}, slog.New(slog.NewJSONHandler(l, nil)))
	p.probes.now = p.clock.now
	p.edge = newLimitedEdge(t, Options{Probes: p.probes}, func(e *echo.Echo) {
		e.GET("/", func(c echo.Context) error { return JSON(c, http.StatusOK, []byte("{}")) })
	})
	p.logs = l
	return p
}

const isOK = `{"status":"ok"}` + "\n"

func unreadyFor(reason string) string { return `{"status":"error","reason":"` + reason + `"}` + "\n" }

// wantReady checks what /readyz says, and that /livez does not care.
func (p *probed) wantReady(status int, body string) {
	p.t.Helper()
	a := p.call(http.MethodGet, ReadyzPath, nil)
	if a.status != status || string(a.body) != body || a.header.Get("Content-Type") != "application/json" || a.header.Get("Cache-Control") != "no-store" {
		p.t.Errorf("readyz: got %d %s, want %d %s", a.status, a.body, status, body)
	}
	if a := p.call(http.MethodGet, LivezPath, nil); a.status != http.StatusOK || string(a.body) != isOK {
		p.t.Errorf("livez: got %d %s", a.status, a.body)
	}
}

func TestReadyMeansLoadedAndReachableAndNotStopping(t *testing.T) {
	t.Parallel()
	p := newProbed(t)
	p.wantReady(503, unreadyFor("starting"))
	if p.pings.Load() != 0 {
		t.Error("the database is asked before there is anything to be ready for")
	}
	p.probes.Serve()
	p.wantReady(200, isOK)

	p.away.Store(true)
	p.wantReady(200, isOK) // for as long as the last answer counts
	p.clock.pass(pingEvery)
	p.wantReady(503, unreadyFor("database"))
	p.away.Store(false)
	p.wantReady(503, unreadyFor("database"))
	p.clock.pass(pingEvery)
	p.wantReady(200, isOK)

	p.probes.Stop()
	p.wantReady(503, unreadyFor("stopping"))
	p.probes.Serve() // who has begun to stop does not come back
	p.wantReady(503, unreadyFor("stopping"))
	if got := p.pings.Load(); got != 3 {
		t.Errorf("%d pings, want 3", got)
	}
}

func TestProbesCostTheDatabaseOneRoundTripASecond(t *testing.T) {
	t.Parallel()
	p := newProbed(t)
	p.probes.Serve()
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { p.call(http.MethodGet, ReadyzPath, nil) })
	}
	all.Wait()
	if got := p.pings.Load(); got != 1 {
		t.Errorf("%d pings for 50 probes within a second, want 1", got)
	}
}

// A prober who hangs up has said nothing about the database.
func TestAProberWhoHangsUpDoesNotMakeItUnready(t *testing.T) {
	t.Parallel()
	p := NewProbes(func(ctx context.Context) error { return ctx.Err() }, slog.New(slog.DiscardHandler))
	p.Serve()
	gone, hangUp := context.WithCancel(t.Context())
	hangUp()
	if reason := p.unready(gone); reason != "" {
		t.Errorf("unready for %q", reason)
	}
}

// A stop that begins while the database is being asked is told, not the database's
// answer.
func TestAStopDuringThePingCounts(t *testing.T) {
	t.Parallel()
	var p *Probes
	p = NewProbes(func(context.Context) error { p.Stop(); return nil }, slog.New(slog.DiscardHandler))
	p.Serve()
	if reason := p.unready(t.Context()); reason != reasonStopping {
		t.Errorf("unready for %q", reason)
	}
}

// Probes come every second from several sides, and would bury everything else.
func TestProbesLeaveNoLinesButChangesDo(t *testing.T) {
	t.Parallel()
	p := newProbed(t)
	p.probes.Serve()
	for _, away := range []bool{false, true, true, false, false} {
		p.away.Store(away)
		p.clock.pass(pingEvery)
		p.call(http.MethodGet, ReadyzPath, nil)
		p.call(http.MethodGet, LivezPath, nil)
	}
	log := p.logs.String()
	if strings.Contains(log, `"msg":"request"`) || strings.Contains(log, "geheim") {
		t.Errorf("the log has %s", log)
	}
	if strings.Count(log, "\n") != 2 || !strings.Contains(log, `"level":"WARN","msg":"not ready","reason":"database"`) || !strings.Contains(log, `"msg":"ready again"`) {
		t.Errorf("the log tells of the changes as %s", log)
	}
}

// Before the stop a connection is kept; from then on each answer asks the client to
// come back on another, also the answer to a request that came before.
func TestAnswersDuringAStopCloseTheirConnection(t *testing.T) {
	t.Parallel()
	probes := NewProbes(func(context.Context) error { return nil }, slog.New(slog.DiscardHandler))
	probes.Serve()
	arrived, release := make(chan struct{}), make(chan struct{})
	x := newLimitedEdge(t, Options{Probes: probes}, func(e *echo.Echo) {
		e.GET("/", func(c echo.Context) error { return JSON(c, http.StatusOK, []byte("{}")) })
		e.GET("/slow", func(c echo.Context) error {
			arrived <- struct{}{}
			<-release
			return JSON(c, http.StatusOK, []byte("{}"))
		})
	})
	idle, busy := x.dial(), x.dial()
	ask := func(c io.Writer, path string) {
		t.Helper()
		if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	ask(idle, "/")
	fromIdle, fromBusy := bufio.NewReader(idle), bufio.NewReader(busy)
	if _, closes := next(t, fromIdle); closes {
		t.Fatal("a connection is not kept before the stop")
	}
	ask(busy, "/slow")
	<-arrived
	probes.Stop()
	close(release)
	if status, closes := next(t, fromBusy); !closes || status != http.StatusOK {
		t.Errorf("a request that came before the stop: %d, closes: %t", status, closes)
	}
	ask(idle, "/")
	if status, closes := next(t, fromIdle); !closes || status != http.StatusOK {
		t.Errorf("a request on a kept connection during the stop: %d, closes: %t", status, closes)
	}
	for _, r := range []*bufio.Reader{fromIdle, fromBusy} {
		if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("the connection is not closed: %v", err)
		}
	}
}

// next reads an answer, and leaves the connection as it is.
func next(t *testing.T, r *bufio.Reader) (status int, closes bool) {
	t.Helper()
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Close
}

func TestPingsAreBoundedAndRare(t *testing.T) {
	t.Parallel()
	if pingTimeout < time.Second || pingTimeout > 2*time.Second || pingEvery < time.Second {
		t.Errorf("a ping takes at most %s, every %s", pingTimeout, pingEvery)
	}
}
