package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
)

// Where whoever starts and stops processes, or sends them requests, looks.
const (
	LivezPath  = "/livez"
	ReadyzPath = "/readyz"
)

// MetricsPath is where scrapers look by default. This room serves nothing there.
const MetricsPath = "/metrics"

const (
	// pingTimeout is how long the database may take to count as there. Statements
	// take milliseconds; a pool that makes one wait this long is no place for more.
	pingTimeout = 2 * time.Second
	// pingEvery is how long an answer of the database counts, so that probes, however
	// many, cost it one round trip a second.
	pingEvery = time.Second
)

// The reasons for not being ready. There are no others.
const (
	reasonStarting = "starting" // the merchants' keys are not loaded yet
	reasonStopping = "stopping" // it was told to end, and finishes what it has
	reasonDatabase = "database" // the database does not answer, or not what is needed
)

// phase is where a process is in its life; it only grows.
type phase int32

const (
	starting phase = iota
	serving
	stopping
)

// Probes tell whether the process lives, and whether it should be sent requests.
// They need no credentials, and name nothing that is anybody's.
type Probes struct {
	ping  func(context.Context) error
	log   *slog.Logger
	now   func() time.Time
	phase atomic.Int32

	mu      sync.Mutex
	pinged  time.Time // zero: never
	answers bool
}

// NewProbes are those of a process that is starting. ping asks whether the database
// answers what requests need.
func NewProbes(ping func(context.Context) error, log *slog.Logger) *Probes {
	return &Probes{ping: ping, log: log, now: time.Now}
}

// Serve says that everything is there that requests need.
func (p *Probes) Serve() { p.phase.CompareAndSwap(int32(starting), int32(serving)) }

// Stop says that the process is going to end: it is not ready any more, and asks its
// clients with each answer to come back on another connection.
func (p *Probes) Stop() { p.phase.Store(int32(stopping)) }

// stopping says whether Stop was called. Without probes nobody ever stops.
func (p *Probes) stopping() bool { return p != nil && phase(p.phase.Load()) == stopping }

func (p *Probes) mount(e *echo.Echo) {
	e.GET(LivezPath, p.livez)
	e.GET(ReadyzPath, p.readyz)
}

// isProbe goes by the route that was found, not by what the URL says.
func isProbe(c echo.Context) bool { return c.Path() == LivezPath || c.Path() == ReadyzPath }

// livez answers as long as anything does: who restarts a process because its
// database is away has two problems.
func (p *Probes) livez(c echo.Context) error {
	return JSON(c, http.StatusOK, []byte(`{"status":"ok"}`+"\n"))
}

func (p *Probes) readyz(c echo.Context) error {
	reason := p.unready(c.Request().Context())
	if reason == "" {
		return JSON(c, http.StatusOK, []byte(`{"status":"ok"}`+"\n"))
	}
	return JSON(c, http.StatusServiceUnavailable, []byte(`{"status":"error","reason":"`+reason+`"}`+"\n"))
}

// unready is the reason for not being ready, or "".
func (p *Probes) unready(ctx context.Context) string {
	answers := true
	if phase(p.phase.Load()) == serving {
		answers = p.databaseAnswers(ctx)
	}
	switch phase(p.phase.Load()) { // looked at after the database, which may have taken seconds
	case starting:
		return reasonStarting
	case stopping:
		return reasonStopping
	case serving:
	}
	if !answers {
		return reasonDatabase
	}
	return ""
}

// databaseAnswers asks the database, or remembers. Those who come while it is being
// asked wait for the same answer. It tells the log when that has changed: the probes
// themselves leave no line.
func (p *Probes) databaseAnswers(ctx context.Context) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.pinged.IsZero() && p.now().Sub(p.pinged) < pingEvery {
		return p.answers
	}
	// Not the prober's own patience: the answer is everybody's.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pingTimeout)
	defer cancel()
	answers := p.ping(ctx) == nil
	switch {
	case !answers && (p.answers || p.pinged.IsZero()):
		p.log.WarnContext(ctx, "not ready", "reason", reasonDatabase)
	case answers && !p.answers && !p.pinged.IsZero():
		p.log.InfoContext(ctx, "ready again")
	}
	p.answers, p.pinged = answers, p.now()
	return answers
}
