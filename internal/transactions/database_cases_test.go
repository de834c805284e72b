package transactions

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
)

// The cases about a database that is slow or set up otherwise. That it is free while
// a provider is called, and written to by no replay, is in wire_cost_test.go.

func TestH60BeginThatIsStuckUncommittedKeepsNobodyWaitingForLong(t *testing.T) {
	t.Parallel()
	const others = 10
	w := newWorld(t)
	// A begin that has inserted everything, and does not come to its commit.
	w.sql(`CREATE FUNCTION stuck() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(60); RETURN NULL; END'`)
	w.sql(`CREATE TRIGGER stuck AFTER INSERT ON transactions FOR EACH ROW EXECUTE FUNCTION stuck()`)
	gate, err := pgx.Connect(t.Context(), pgtest.Direct(w.url))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = gate.Close(context.WithoutCancel(t.Context())) }()
	if _, err := gate.Exec(t.Context(), `SELECT pg_advisory_lock(60)`); err != nil {
		t.Fatal(err)
	}
	holder := w.newInstance(w.patient())
	w.steady()
	body := w.body("order-1", nil)
	answer := w.sendTo(holder, "nonce-1", body)
	w.until("the begin that is stuck", w.waits("transactions.begin"))

	told := atOnce(others, func(int) (response, error) { return w.post(w.instance, w.test, "nonce-1", body) })
	for range others {
		w.wantInProcess(receive(t, told, "the answer of another"))
	}
	if !w.waits("transactions.begin")() {
		t.Fatal("the begin was not stuck for as long as the others waited")
	}
	if n := w.count(`SELECT count(*) FROM idempotency_keys`); n != 0 {
		t.Fatalf("%d keys are committed", n)
	}
	if _, err := gate.Exec(t.Context(), `SELECT pg_advisory_unlock(60)`); err != nil {
		t.Fatal(err)
	}
	first := receive(t, answer, "the answer of the stuck one")
	w.wantCreated(first)
	w.wantReplay(first, w.create("nonce-1", body), false)
	w.wantCharges("order-1", 1)
	w.wantSends(1, 1)
}

// The same, but the stuck one never commits: its connection breaks.
func TestH60NonceOfABeginThatNeverCommitsIsFreeAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.wantCreated(w.create("template", w.body("order-0", nil)))
	gate, err := pgx.Connect(t.Context(), pgtest.Direct(w.url))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gate.Exec(t.Context(), `BEGIN; INSERT INTO idempotency_keys (account_id, mode, key_id, operation, fingerprint, transaction_id, created_at, expires_at)
		SELECT account_id, mode, 'nonce-1', operation, fingerprint, transaction_id, created_at, expires_at FROM idempotency_keys`); err != nil {
		t.Fatal(err)
	}
	body := w.body("order-1", nil)
	w.wantInProcess(w.create("nonce-1", body))
	if err := gate.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.wantCreated(w.create("nonce-1", body))
	w.wantCharges("order-1", 1)
}

func TestH63IsolationThatTheRolePrefersChangesNothing(t *testing.T) {
	t.Parallel()
	const requests = 40
	for _, level := range []string{"repeatable read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.url = pgtest.Direct(w.url) // behind PgBouncer such a role is refused
			w.reopen(postgres.Options{})
			w.sql(`DO $$ BEGIN EXECUTE format('ALTER ROLE %I IN DATABASE %I SET default_transaction_isolation = ''` + level + `''', current_user, current_database()); END $$`)
			db, err := postgres.Open(t.Context(), w.url, pgtest.Options(w.url, postgres.Options{}))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(db.Close)
			i := w.newInstance(db)
			w.steady()

			plain, err := pgx.Connect(t.Context(), pgtest.Direct(w.url))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = plain.Close(context.WithoutCancel(t.Context())) }()
			var others, ours string
			if err := plain.QueryRow(t.Context(), `SHOW transaction_isolation`).Scan(&others); err != nil || others != level {
				t.Fatalf("a connection of somebody else has %q (%v): the scene is not set", others, err)
			}
			if err := db.Conn(t.Context()).Raw(`SHOW transaction_isolation`).Row().Scan(&ours); err != nil || ours != "read committed" {
				t.Fatalf("ours has %q (%v)", ours, err)
			}

			arrived, letGo := w.holdNext(approve)
			body := w.body("order-1", nil)
			holder := w.sendTo(i, "nonce-1", body)
			receive(t, arrived, "the send")
			told := atOnce(requests, func(int) (response, error) { return w.post(i, w.test, "nonce-1", body) })
			for range requests {
				w.wantInProcess(receive(t, told, "a duplicate's answer"))
			}
			letGo()
			first := receive(t, holder, "the answer")
			w.wantCreated(first)
			again := atOnce(requests, func(n int) (response, error) { return w.post(i, w.test, fmt.Sprint("nonce-", n+1), body) })
			for range requests { // the first nonce is replayed, the others are new
				w.want(receive(t, again, "an answer"), http.StatusCreated)
			}
			w.wantCharges("order-1", requests)

			w.shift("nonce-1", 24*time.Hour) // its life is over: of all who come, one begins another
			lives := atOnce(requests, func(int) (response, error) { return w.post(i, w.test, "nonce-1", body) })
			begun := 0
			for range requests {
				if r := receive(t, lives, "an answer"); r.status == http.StatusCreated && r.header.Get(headerReplayed) == "" {
					begun++
				} else if r.status != http.StatusCreated && r.status != http.StatusConflict {
					t.Errorf("got %s", r)
				}
			}
			if begun != 1 {
				t.Errorf("%d new lives, want 1", begun)
			}
			w.wantCharges("order-1", requests+1)
		})
	}
}
