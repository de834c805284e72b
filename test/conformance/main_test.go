// Package conformance shows, on the built binary, what Oncepay promises to those
// who run it and to those who call it. Each test starts real processes and speaks
// real HTTP to them; whether money moved once is judged by the provider's own
// ledger, never by our answers alone.
//
// Where a test has to know a moment inside ("the payment has begun and is not
// answered"), it looks it up in the database, so that it can wait for the moment
// instead of guessing it.
package conformance

import (
	"context"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Run(m, pgtest.Run)) }

// within bounds what a test waits for.
func within(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// connect opens one connection to a database, for looking.
func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pgtest.Direct(url))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

// number is the one number that a query returns.
func number(t *testing.T, conn *pgx.Conn, sql string, args ...any) int {
	t.Helper()
	var n int
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// emptyDatabase is a database in which nothing was ever migrated.
func emptyDatabase(t *testing.T) string {
	t.Helper()
	url := pgtest.Direct(pgtest.URL(t)) // as the one who migrates
	pgtest.Exec(t, url, `DROP SCHEMA public CASCADE; CREATE SCHEMA public`)
	return url
}

// mustBe checks an answer's status.
func mustBe(t *testing.T, a harness.Answer, status int) {
	t.Helper()
	if a.Err != nil || a.Status != status {
		t.Fatalf("not %d: %s", status, a)
	}
}

// pay pays and wants it to work at once.
func pay(t *testing.T, c *harness.Client, p harness.Payment) harness.Answer {
	t.Helper()
	a := c.Pay(within(t, harness.Patience), p)
	mustBe(t, a, http.StatusCreated)
	return a
}

// mustReplay checks that the nonce answers as it did first, byte for byte.
func mustReplay(t *testing.T, c *harness.Client, p harness.Payment, first harness.Answer) {
	t.Helper()
	a := c.Pay(within(t, harness.Patience), p)
	if a.Err != nil || !a.Same(first) || !a.Replayed() {
		t.Errorf("%s: not a replay of the first answer:\n first %s\n now   %s (replayed: %t)", p.Description, first, a, a.Replayed())
	}
}

// lives are a nonce's, the newest first.
func lives(t *testing.T, c *harness.Client, nonce string) []harness.Life {
	t.Helper()
	found, err := c.Lives(within(t, harness.Patience), nonce)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// instance starts one instance of a new installation with a merchant on it.
func instance(t *testing.T, databaseURL, providerURL string, args ...string) (*harness.API, *harness.Client) {
	t.Helper()
	api := harness.NewInstallation(databaseURL, providerURL).Serve(t, args...)
	return api, harness.NewClient(api.URL, merchant(t, api))
}

func merchant(t *testing.T, api *harness.API) harness.Keys {
	t.Helper()
	keys, err := api.Operator.NewMerchant(within(t, harness.Patience), t.Name())
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// spread tells the least, the middle and the greatest of some durations.
func spread(t *testing.T, what string, all []time.Duration) {
	t.Helper()
	if len(all) == 0 {
		t.Fatalf("%s: nothing was measured", what)
	}
	slices.Sort(all)
	ms := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
	t.Logf("%s, %d times: least %s, median %s, greatest %s", what, len(all), ms(all[0]), ms(all[len(all)/2]), ms(all[len(all)-1]))
}
