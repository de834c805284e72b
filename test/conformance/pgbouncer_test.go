package conformance

import (
	"net/http"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/test/harness"
)

// As an installation is set up that has a PgBouncer and a role for each purpose. What
// is shown of one life here, `make test-pgbouncer` shows of every test.
func TestH64PaymentsLiveThroughPgBouncerAsTheLeastRole(t *testing.T) {
	t.Parallel()
	direct := emptyDatabase(t)
	cfg, err := pgx.ParseConfig(direct)
	if err != nil {
		t.Fatal(err)
	}
	pooled := pgtest.PgBouncer(t).URL(cfg.Database, pgtest.AppRole)
	migrate := []string{"migrate", "up", "--grant-to", pgtest.AppRole}
	harness.Call(t, harness.Command{Args: migrate, Env: []string{"DATABASE_URL=" + pooled}}).Must(t, 1, "a pooler", "MIGRATE_DATABASE_URL")
	harness.Call(t, harness.Command{Args: migrate, Env: []string{"DATABASE_URL=" + pooled, "MIGRATE_DATABASE_URL=" + direct}}).Must(t, 0, "up to date")

	sandbox := harness.StartSandbox(t, harness.Folder(t))
	installation := harness.NewInstallation(pooled, sandbox.URL)
	first := installation.Serve(t, "--provider-timeout", "1s", "--settle", "2s", "--lease", "6s", "--recovery-interval", "100ms")
	client := harness.NewClient(first.URL, merchant(t, first))

	paid := harness.NewPayment("paid through PgBouncer")
	answer := pay(t, client, paid)
	var duplicates sync.WaitGroup
	for range 30 {
		duplicates.Go(func() {
			if a := client.Pay(within(t, harness.Patience), paid); a.Err != nil || !a.Same(answer) || !a.Replayed() {
				t.Errorf("not a replay: %s", a)
			}
		})
	}
	duplicates.Wait()

	// One is declined; one is charged, and its answer lost: recovery settles it.
	declined := harness.NewPayment("declined through PgBouncer")
	declined.Card = harness.CardWithoutFunds
	mustBe(t, client.Pay(within(t, harness.Patience), declined), http.StatusCreated)
	unclear := harness.NewPayment("sandbox:charge-then-timeout")
	mustBe(t, client.Pay(within(t, harness.Patience), unclear), http.StatusGatewayTimeout)
	settled, err := client.PayUntilAnswered(within(t, harness.Patience), unclear)
	if err != nil {
		t.Fatal(err)
	}
	mustBe(t, settled, http.StatusCreated)

	// Another instance goes on where the first is killed.
	first.Kill()
	second := installation.Serve(t)
	client.MoveTo(second.URL)
	mustReplay(t, client, paid, answer)
	mustReplay(t, client, unclear, settled)
	for payment, bookings := range map[harness.Payment]int{paid: 1, declined: 0, unclear: 1} {
		sandbox.Ledger().MustHave(t, payment, bookings)
		if found := lives(t, client, payment.Nonce); len(found) != 1 {
			t.Errorf("%s has %d lives", payment.Description, len(found))
		}
	}
	if n := number(t, connect(t, direct), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'oncepay' AND usename <> $1`, pgtest.AppRole); n != 0 {
		t.Errorf("%d sessions of the product have another role", n)
	}
}
