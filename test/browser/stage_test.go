package browser

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/test/harness"
)

// Test cards of the sandbox.
const (
	goodCard      = harness.CardThatPays
	poorCard      = harness.CardWithoutFunds
	challengeCard = "4000000000003220"
	// plainCard stands for nothing, so that the description decides.
	plainCard = "4111111111111111"
)

// stage is an installation with a merchant, a provider and its ledger.
type stage struct {
	t        *testing.T
	database string
	args     []string // of the program
	dev      *harness.Dev
	door     *harness.Door   // to a provider of its own; nil: the program has one in it
	api      *harness.Client // the merchant's backend
}

// newStage starts an installation whose merchant has registered these origins.
func newStage(t *testing.T, origins ...string) *stage {
	t.Helper()
	return newStageWith(t, nil, origins...)
}

// newStageWith has flags of its own.
func newStageWith(t *testing.T, args []string, origins ...string) *stage {
	t.Helper()
	chromium(t)
	s := &stage{t: t, args: args, database: pgtest.Direct(pgtest.URL(t))} // dev migrates, which the least role may not
	s.start(harness.Folder(t))
	s.api = harness.NewClient(s.dev.Info.BaseURL, s.dev.Info.Keys())
	if len(origins) > 0 {
		a := s.dev.Info.Operator().Do(t.Context(), http.MethodPatch, "/admin/v1/merchants/"+s.dev.Info.AccountID, map[string]any{"origins": origins})
		mustBe(t, a, http.StatusOK)
	}
	return s
}

// newHeldStage has a provider that is a process of its own, behind a door that can hold its
// answers: what happens between booking and answer happens there for as long as it takes.
func newHeldStage(t *testing.T, args ...string) *stage {
	t.Helper()
	chromium(t)
	door := harness.NewDoor(t, harness.StartSandbox(t, harness.Folder(t)).URL)
	s := newStageWith(t, append(args, "--provider-url", door.URL))
	s.door = door
	return s
}

func (s *stage) start(folder string, more ...string) {
	s.t.Helper()
	c := harness.DevCommand(folder, append(slices.Clone(s.args), more...)...)
	c.Env = append(c.Env, "DATABASE_URL="+s.database)
	s.dev = harness.AwaitDev(s.t, harness.Start(s.t, c), folder)
}

// killed ends the installation as a loss of power would.
func (s *stage) killed() {
	s.t.Helper()
	s.dev.Kill()
}

// restarted starts it again, where it was.
func (s *stage) restarted() {
	s.t.Helper()
	s.start(s.dev.DataDir, "--listen", strings.TrimPrefix(s.dev.Info.BaseURL, "http://"))
}

// mustBe checks an answer's status.
func mustBe(t *testing.T, a harness.Answer, status int) {
	t.Helper()
	if a.Err != nil || a.Status != status {
		t.Fatalf("not %d: %s", status, a)
	}
}

// session is one checkout of the merchant's.
type session struct {
	stage *stage
	id    string
	order string
	value string
}

// The amount of each session.
const (
	amount   = "45.67"
	currency = "USD"
)

// session makes a checkout that the browser pays itself. The description chooses the
// sandbox's fault.
func (s *stage) session(description string) session {
	s.t.Helper()
	return s.sessionOf(map[string]any{"payment_description": description, "workflow": "SDK_SEAMLESS"})
}

// sessionOf makes a checkout; more is added to its request, or replaces what is there.
func (s *stage) sessionOf(more map[string]any) session {
	s.t.Helper()
	made := session{stage: s, order: harness.Unguessable("order"), value: amount}
	body := map[string]any{
		"account_id": s.dev.Info.AccountID, "merchant_order_id": made.order, "payment_description": "Two cups", "country": "US",
		"amount": map[string]any{"currency": currency, "value": json.Number(amount)},
	}
	for name, value := range more {
		body[name] = value
	}
	a := s.api.Post(s.t.Context(), "/v1/checkout/sessions", http.Header{"X-Idempotency-Key": {harness.Unguessable("nonce")}}, body)
	mustBe(s.t, a, http.StatusOK)
	var wire struct {
		CheckoutSession string `json:"checkout_session"`
	}
	if err := json.Unmarshal(a.Body, &wire); err != nil || wire.CheckoutSession == "" {
		s.t.Fatalf("no session: %s", a)
	}
	made.id = wire.CheckoutSession
	return made
}

// page is where a session is paid.
func (c session) page() string { return c.stage.dev.Info.BaseURL + "/pay/" + c.id + "?lang=en" }

// in is the page in a language.
func (c session) in(language string) string {
	return strings.Replace(c.page(), "lang=en", "lang="+language, 1)
}

// over is the page, reached over a wire that may break.
func (c session) over(wire *line) string {
	return strings.Replace(c.page(), c.stage.dev.Info.BaseURL, wire.url, 1)
}

// booked are the ledger's entries of the session's order.
func (c session) booked() []harness.Entry {
	c.stage.t.Helper()
	entries, err := c.stage.dev.Info.Ledger().Of(c.stage.t.Context(), c.order)
	if err != nil {
		c.stage.t.Fatal(err)
	}
	return entries
}

// mustBePaidOnce checks that the ledger has one charge, of the session's amount.
func (c session) mustBePaidOnce() {
	c.stage.t.Helper()
	entries := c.booked()
	if len(entries) != 1 {
		c.stage.t.Fatalf("the ledger has %d bookings, not one: %v", len(entries), entries)
	}
	if e := entries[0]; e.Type != "PURCHASE" || e.Amount != c.value || e.Currency != currency {
		c.stage.t.Errorf("the ledger has %s of %s %s, not PURCHASE of %s %s", e.Type, e.Amount, e.Currency, c.value, currency)
	}
}

// mustNotBePaid checks that the ledger has nothing.
func (c session) mustNotBePaid() {
	c.stage.t.Helper()
	if entries := c.booked(); len(entries) != 0 {
		c.stage.t.Fatalf("the ledger has %v", entries)
	}
}

// standing is what the merchant's backend is told of the session's payment: "" for none.
func (c session) standing() string {
	c.stage.t.Helper()
	a := c.stage.api.Get(c.stage.t.Context(), "/v1/checkout/sessions/"+c.id+"/payment")
	if a.Status == http.StatusBadRequest && a.Code() == "PAYMENT_NOT_FOUND" {
		return ""
	}
	mustBe(c.stage.t, a, http.StatusOK)
	var p harness.Shown
	if err := json.Unmarshal(a.Body, &p); err != nil {
		c.stage.t.Fatal(err)
	}
	return p.Status
}

// endsPaid is how every story of one payment must end: the page says so, the ledger has one
// charge, and the merchant's backend hears the same.
func (c session) endsPaid(tabs ...*tab) {
	c.stage.t.Helper()
	for _, b := range tabs {
		b.reaches("success")
	}
	c.mustBePaidOnce()
	if got := c.standing(); got != "SUCCEEDED" {
		c.stage.t.Errorf("the merchant's backend is told %q", got)
	}
}

// attempts is how many payments the session has had, by our own database.
func (c session) attempts() int {
	c.stage.t.Helper()
	return c.stage.number(`SELECT count(*) FROM payments WHERE merchant_order_id = $1`, c.order)
}

// number is the one number that a query returns.
func (s *stage) number(sql string, args ...any) int {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.database)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(s.t.Context())) }()
	var n int
	if err := conn.QueryRow(s.t.Context(), sql, args...).Scan(&n); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	return n
}
