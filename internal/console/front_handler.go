package console

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/oncepay/oncepay/internal/telemetry"
	"github.com/oncepay/oncepay/internal/transactions"
)

// frontLines is how many payments the overview names: what is seen at a glance.
const frontLines = 5

// frontRange is how far back the charts of the overview go.
type frontRange struct {
	Key, Name, Title string
	span, step       time.Duration
	every            string // how often the page asks again
}

// frontRanges are in the order in which they are offered; the first is the usual one. A
// longer one changes more slowly, and costs more to add up.
var frontRanges = []frontRange{
	{"1h", "1 hour", "The last hour", time.Hour, time.Minute, "10s"},
	{"24h", "24 hours", "The last 24 hours", 24 * time.Hour, 10 * time.Minute, "30s"},
	{"7d", "7 days", "The last seven days", 7 * 24 * time.Hour, time.Hour, "60s"},
}

// rangeLink leads to the overview of another range.
type rangeLink struct {
	Name, Path string
	Current    bool
}

// tile is one figure that is seen from afar.
type tile struct {
	Name, Value, Note string
	Path              string // where there is more; "": nowhere
	Bad               bool   // somebody must look
}

// front is what the overview shows.
type front struct {
	Range, Title, Every string
	Now                 time.Time // by the database's clock
	Ranges              []rangeLink
	Tiles               []tile
	Charts              []chart
	Figures             []figure
	Waiting             []transactions.Unsettled
	Newest              []transactions.PaymentLine
}

func (h *Handler) mountFront(e *echo.Echo) {
	e.GET("/", h.showFront)
	e.GET("/front", h.refreshFront)
}

// showFront is GET /.
func (h *Handler) showFront(c echo.Context) error {
	f, err := h.front(c.Request().Context(), c.QueryParam("range"))
	if err != nil {
		return err
	}
	return h.show(c, http.StatusOK, "front", page{Title: "Overview", Section: "/", Data: f})
}

// refreshFront is GET /front, the part of the overview that changes. Whoever opens it by
// hand is shown the whole.
func (h *Handler) refreshFront(c echo.Context) error {
	if !fromScript(c) {
		return c.Redirect(http.StatusSeeOther, "/?"+url.Values{"range": {c.QueryParam("range")}}.Encode())
	}
	f, err := h.front(c.Request().Context(), c.QueryParam("range"))
	if err != nil {
		return err
	}
	return h.showPart(c, "front", "live", page{Title: "Overview", Section: "/", Data: f})
}

// front reads what the overview shows. A range that there is not is the usual one.
func (h *Handler) front(ctx context.Context, key string) (front, error) {
	chosen := frontRanges[0]
	f := front{}
	for _, r := range frontRanges {
		if r.Key == key {
			chosen = r
		}
	}
	for _, r := range frontRanges {
		f.Ranges = append(f.Ranges, rangeLink{r.Name, "/?range=" + r.Key, r.Key == chosen.Key})
	}
	f.Range, f.Title, f.Every = chosen.Key, chosen.Title, chosen.every
	hour, err := h.o.Minutes.Read(ctx, time.Hour, time.Minute)
	if err != nil {
		return f, err
	}
	shown := hour
	if chosen.span != time.Hour {
		if shown, err = h.o.Minutes.Read(ctx, chosen.span, chosen.step); err != nil {
			return f, err
		}
	}
	backlog, err := h.o.Payments.Backlog(ctx)
	if err != nil {
		return f, err
	}
	waiting, err := h.o.Payments.Unsettled(ctx, transactions.UnsettledFilter{}, uuid.Nil, frontLines)
	if err != nil {
		return f, err
	}
	newest, err := h.o.Payments.Payments(ctx, transactions.PaymentFilter{}, uuid.Nil, frontLines)
	if err != nil {
		return f, err
	}
	f.Now = hour.ReadAt
	f.Tiles, f.Charts, f.Figures = tilesOf(hour.Total(), backlog), chartsOf(shown), figures(shown)
	f.Waiting, f.Newest = waiting.Transactions, newest.Payments
	return f, nil
}

// tilesOf are the figures of the last hour, and what waits now.
func tilesOf(hour telemetry.Counts, now transactions.Backlog) []tile {
	requests := tile{Name: "Requests", Value: grouped(hour.Requests), Note: "none answered with 5xx"}
	if hour.Failures > 0 {
		requests.Note = grouped(hour.Failures) + " answered with 5xx"
	}
	slow := tile{Name: "p95", Value: writeEstimate(hour.Quantile(.95)), Note: "nobody has waited"}
	if half := hour.Quantile(.5); half.Known {
		slow.Note = "half within " + writeEstimate(half)
	}
	unresolved := tile{Name: "Unresolved", Value: grouped(int64(now.Unresolved)), Note: "nothing is unknown", Path: "/unsettled"}
	if now.Unresolved > 0 {
		unresolved.Note = "the oldest for " + ago(time.Duration(now.OldestSeconds)*time.Second)
	}
	parked := tile{Name: "Parked", Value: grouped(int64(now.Parked)), Note: "nobody has to decide", Path: "/unsettled?parked=true"}
	if now.Parked > 0 {
		parked.Bad, parked.Note = true, counted(now.Parked, "waits", "wait")+" for a person"
	}
	return []tile{
		requests,
		{Name: "Begun", Value: grouped(hour.Began), Note: "with a new nonce, or taken over"},
		slow,
		{Name: "Replayed", Value: share(hour.Replayed, hour.Nonces()).say(writeShare), Note: grouped(hour.Replayed) + " of " + grouped(hour.Nonces()) + " with a nonce"},
		{Name: "Conflicts", Value: grouped(hour.Conflicts), Note: "nonce in process, or another body"},
		unresolved, parked,
	}
}

// counted is the word for one, or for more.
func counted(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}
