package transactions

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
)

// The cases about time: how long a life lasts, whose clock says so, and what
// happens when lives end while somebody looks.

// dbClock is the database's clock in a test's hand. Every statement of ours asks
// clock_timestamp(); in such a database that name finds a function of the test
// first. Only differences between two clocks can be seen from inside a process, so
// a database an hour ahead is a process an hour behind.
type dbClock struct{ w *world }

const sqlClock = `
CREATE SCHEMA test_clock;
CREATE TABLE test_clock.setting (stands timestamptz, ahead interval NOT NULL DEFAULT interval '0');
INSERT INTO test_clock.setting DEFAULT VALUES;
CREATE FUNCTION test_clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    'SELECT coalesce(stands, pg_catalog.clock_timestamp() + ahead) FROM test_clock.setting';
DO 'BEGIN EXECUTE format(''ALTER DATABASE %I SET search_path = test_clock, pg_catalog, public'', current_database()); END'`

// takeClock gives the world's first instance a database whose clock the test sets.
// It runs as before until then. The clock is a setting of the sessions, so that they
// must be our own: none of PgBouncer's, which were there before.
func (w *world) takeClock() dbClock {
	w.t.Helper()
	w.url = pgtest.Direct(w.url)
	pgtest.Exec(w.t, w.url, sqlClock)
	w.reopen(postgres.Options{})
	return dbClock{w}
}

// reopen connects anew, so that the database's settings count, and restarts the
// first instance.
func (w *world) reopen(o postgres.Options) {
	w.t.Helper()
	db, err := postgres.Open(w.t.Context(), w.url, pgtest.Options(w.url, o))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(db.Close)
	w.db, w.instance = db, w.newInstance(db)
}

// set stops the clock at that time. The instances go on beating.
func (c dbClock) set(at time.Time) {
	c.w.t.Helper()
	c.w.sql(`UPDATE test_clock.setting SET stands = $1`, at)
	c.w.steady()
}

// ahead lets the clock run, that much ahead of the real one.
func (c dbClock) ahead(by time.Duration) {
	c.w.t.Helper()
	c.w.sql(`UPDATE test_clock.setting SET stands = NULL, ahead = $1::bigint * interval '1 microsecond'`, by.Microseconds())
	c.w.steady()
}

// at is the one time that a query returns.
func (w *world) at(query string, args ...any) time.Time {
	w.t.Helper()
	var at time.Time
	if err := w.db.Conn(w.t.Context()).Raw(query, args...).Row().Scan(&at); err != nil {
		w.t.Fatal(err)
	}
	return at
}

func (w *world) expiry(nonce string) time.Time {
	w.t.Helper()
	return w.at(`SELECT expires_at FROM idempotency_keys WHERE key_id = $1`, nonce)
}

// purge is one round of the purge, and how many rows went.
func (w *world) purge() int {
	w.t.Helper()
	n, err := idem.Purge{DB: w.db, Retention: idem.DefaultRetention}.RunOnce(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// wantNewLife fails the test unless r began another life than before.
func (w *world) wantNewLife(before, r response) {
	w.t.Helper()
	w.want(r, http.StatusCreated)
	w.wantNoReplay(r)
	if r.get("id") == before.get("id") || r.get("transactions", "id") == before.get("transactions", "id") {
		w.t.Fatalf("the payment is the one of the life before: %s", r)
	}
}

// noon is an arbitrary moment for clocks that stand still.
var noon = time.Date(2026, time.May, 20, 12, 0, 0, 0, time.UTC)

const tick = time.Microsecond // the database's smallest step

func TestY25KeyEndsExactly24HoursAfterItsAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	clock := w.takeClock()
	body := w.body("order-1", nil)
	clock.set(noon)
	arrived, letGo := w.holdNext(approve)
	answer := w.background("nonce-1", body)
	receive(t, arrived, "the provider's first send")
	answered := noon.Add(20 * time.Second)
	clock.set(answered)
	letGo()
	first := receive(t, answer, "the first answer")
	w.want(first, http.StatusCreated)

	for _, after := range []time.Duration{time.Second, 23*time.Hour + 59*time.Minute + 59*time.Second, 24*time.Hour - tick} {
		clock.set(answered.Add(after))
		w.wantReplay(first, w.create("nonce-1", body), false)
	}
	clock.set(answered.Add(24 * time.Hour))
	second := w.create("nonce-1", body)
	w.wantNewLife(first, second)
	w.wantReplay(second, w.create("nonce-1", body), false)
	clock.set(answered.Add(48*time.Hour + time.Minute)) // and not only at that moment
	w.wantNewLife(second, w.create("nonce-1", body))
	w.wantCharges("order-1", 3)
	w.wantSends(3, 3)
}

func TestY26ReplaysDoNotMakeAKeyLastLonger(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	clock := w.takeClock()
	clock.set(noon)
	first := w.create("nonce-1", w.body("order-1", nil))
	w.want(first, http.StatusCreated)
	end := w.expiry("nonce-1")
	if !end.Equal(noon.Add(24 * time.Hour)) {
		t.Fatalf("the key ends at %s, want a day after %s", end, noon)
	}
	for hour := range 24 {
		clock.set(noon.Add(time.Duration(hour) * time.Hour))
		w.wantReplay(first, w.create("nonce-1", w.body("order-1", nil)), false)
		w.wantReplay(first, w.create("nonce-1", w.body("order-1", map[string]any{"description": "Another"})), true)
		w.wantReplay(first, w.create("nonce-1", []byte(`{}`)), true)
	}
	if got := w.expiry("nonce-1"); !got.Equal(end) {
		t.Errorf("after the replays the key ends at %s, want %s", got, end)
	}
	clock.set(end)
	w.wantNewLife(first, w.create("nonce-1", w.body("order-1", nil)))
}

// An expired key whose body is broken has no answer to repeat any more.
func TestY26ExpiredKeyIsNotReplayedToAnInvalidBody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	w.shift("nonce-1", 24*time.Hour)
	r := w.create("nonce-1", []byte(`[]`))
	w.wantError(r, http.StatusBadRequest, "INVALID_REQUEST", "$ must be an object")
}

func TestY27PurgeLeavesWhatIsNotResolvedYet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	clock := w.takeClock()
	clock.set(noon)
	w.want(w.create("finished", w.body("order-2", nil)), http.StatusCreated)
	lost := w.lostAnswer("nonce-1", "order-1")
	for _, days := range []int{1, 2, 30} {
		clock.set(noon.AddDate(0, 0, days).Add(time.Hour))
		w.purge()
		if n := w.count(`SELECT count(*) FROM idempotency_keys WHERE key_id = 'nonce-1' AND transaction_id = $1`, lost.ID); n != 1 {
			t.Fatalf("after %d days the purge took the key of an unresolved transaction", days)
		}
	}
	if n := w.count(`SELECT count(*) FROM idempotency_keys WHERE key_id = 'finished'`); n != 0 {
		t.Error("the purge left a finished life")
	}
	retry := w.create("nonce-1", w.body("order-1", nil))
	w.want(retry, http.StatusCreated)
	if got := retry.get("transactions", "id"); got != lost.ID.String() {
		t.Fatalf("the retry answered with transaction %v, want the first one, %s", got, lost.ID)
	}
	w.wantCharges("order-1", 1)
	w.wantSends(2, 2) // one an order: the retry only asked
	w.wantReplay(retry, w.create("nonce-1", w.body("order-1", nil)), false)
}

func TestY29LookUpFindsLivesThatWerePurged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	clock := w.takeClock()
	clock.set(noon)
	first := w.create("nonce-1", w.body("order-1", nil))
	w.want(first, http.StatusCreated)
	clock.set(noon.Add(25 * time.Hour))
	if n := w.purge(); n != 1 {
		t.Fatalf("the purge took %d rows, want the one key", n)
	}
	if n := w.count(`SELECT count(*) FROM idempotency_keys`); n != 0 {
		t.Fatalf("%d keys are left", n)
	}
	life := w.onlyLife("nonce-1")
	if life.KeyState != KeyExpired || life.Transaction.ID != first.get("transactions", "id") || life.Charges != 1 {
		t.Errorf("after the purge the look-up tells %s, transaction %s, %d charges", life.KeyState, life.Transaction.ID, life.Charges)
	}
	w.wantVerdicts(life, idem.New)
	w.want(w.get("/v1/idempotency-keys/nonce-1"), http.StatusOK)

	second := w.create("nonce-1", w.body("order-1", nil))
	w.wantNewLife(first, second)
	lives := w.lives("nonce-1")
	if len(lives) != 2 || lives[0].Transaction.ID != second.get("transactions", "id") || lives[1].Transaction.ID != first.get("transactions", "id") {
		t.Fatalf("the lives are not the second and then the first: %+v", lives)
	}
	if lives[0].KeyState != KeyAnswered || lives[1].KeyState != KeyExpired {
		t.Errorf("the lives' keys are %s and %s, want answered and expired", lives[0].KeyState, lives[1].KeyState)
	}
	w.wantVerdicts(lives[0], idem.New)
	w.wantVerdicts(lives[1], idem.New)
}

// What the process's clock can reach, and what it cannot. Lease, may_send_until
// and expires_at are written by statements that read the database's clock and add
// a duration, and compared by statements that read it again: no time of the
// process is a parameter of theirs. The process contributes only differences of its
// own clock (how long ago it asked, how long the provider took), and those are
// monotonic. A wall clock that jumps in the middle of one request makes that
// request refuse to send, which is safe, and is tested with the holders that sleep.
//
// One thing does come from the process's wall clock: the version 7 ids. The next
// test shows where that shows.
func TestH18TheProcesssClockDecidesNeitherLeaseNorRetention(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]time.Duration{"a process an hour behind": time.Hour, "a process an hour ahead": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			clock := w.takeClock()
			clock.ahead(ahead)
			body := w.body("order-1", nil)
			arrived, letGo := w.holdNext(approve)
			answer := w.background("nonce-1", body)
			receive(t, arrived, "the provider's first send") // so it was allowed to send

			claimed := w.transaction("nonce-1")
			if off := claimed.CreatedAt.Sub(time.Now().Add(ahead)).Abs(); off > time.Minute {
				t.Fatalf("the claim is dated %s away from the database's clock", off)
			}
			if got := claimed.LeaseUntil.Sub(claimed.CreatedAt); got != testLease {
				t.Errorf("the lease lasts %s, want %s", got, testLease)
			}
			if got, want := claimed.MaySendUntil.Sub(claimed.CreatedAt), w.service.terms(w.psp).sendWindow(); got != want {
				t.Errorf("it may be sent for %s, want %s", got, want)
			}
			if got := w.expiry("nonce-1").Sub(claimed.CreatedAt); got != idem.DefaultRetention {
				t.Errorf("the key is kept for %s, want %s", got, idem.DefaultRetention)
			}
			w.wantInProcess(w.create("nonce-1", body))
			w.onlyLife("nonce-1") // writes what waits
			if n := w.count(`SELECT count(*) FROM arrivals WHERE at BETWEEN clock_timestamp() - interval '1 minute' AND clock_timestamp()`); n != 2 {
				t.Errorf("%d arrivals are dated by the database's clock, want 2", n)
			}

			// The lease ends when the database says so, to the microsecond.
			clock.set(claimed.LeaseUntil.Add(-tick))
			w.wantInProcess(w.create("nonce-1", body))
			clock.set(*claimed.LeaseUntil)
			second := w.create("nonce-1", body)
			w.want(second, http.StatusCreated)
			letGo()
			first := receive(t, answer, "the answer of the first, fenced-out request")
			if first.status != second.status || string(first.body) != string(second.body) {
				t.Errorf("the first holder was told another answer:\n%s\n%s", first, second)
			}
			w.wantCharges("order-1", 1)
			w.wantSends(2, 1)
			if got, err := time.Parse(time.RFC3339, fmt.Sprint(second.get("created_at"))); err != nil || !got.Equal(claimed.CreatedAt) {
				t.Errorf("created_at on the wire is %v (%v), want %s", got, err, claimed.CreatedAt)
			}

			// And so does the key.
			end := claimed.LeaseUntil.Add(idem.DefaultRetention) // it was answered when the lease ended
			clock.set(end.Add(-tick))
			w.wantReplay(second, w.create("nonce-1", body), false)
			clock.set(end)
			w.wantNewLife(second, w.create("nonce-1", body))
		})
	}
}

// Two instances whose clocks differ by as little as the pause between a refused
// payment and its retry: the later life has the smaller id. The database's clock
// knows better which one is newer.
func TestH18LivesAreToldNewestFirstWhateverAProcesssClockSays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.psp.next(refuse)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusBadRequest)
	older := w.transaction("nonce-1")
	// The retry, as an instance whose clock is an hour behind would have begun it.
	if r := w.create("nonce-1", w.body("order-1", nil)); r.status != http.StatusCreated {
		t.Fatalf("the retry got %s", r)
	}
	newer := w.transaction("nonce-1")
	behind := newer.ID
	early := older.CreatedAt.Add(-time.Hour).UnixMilli()
	for i := range 6 {
		behind[i] = byte(early >> (8 * (5 - i)))
	}
	w.renameTransaction(newer.ID, behind)

	lives := w.lives("nonce-1")
	if len(lives) != 2 || lives[0].Transaction.ID != behind.String() {
		t.Errorf("the newest life, begun %s after the other by the database's clock, is not told first",
			newer.CreatedAt.Sub(older.CreatedAt))
	}
}

// renameTransaction gives a transaction another id, everywhere.
func (w *world) renameTransaction(from, to uuid.UUID) {
	w.t.Helper()
	pgtest.Exec(w.t, w.url, fmt.Sprintf(`
		ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_transaction_fkey;
		UPDATE transactions SET id = '%[2]s' WHERE id = '%[1]s';
		UPDATE idempotency_keys SET transaction_id = '%[2]s' WHERE transaction_id = '%[1]s';
		UPDATE events SET transaction_id = '%[2]s' WHERE transaction_id = '%[1]s';
		UPDATE provider_calls SET transaction_id = '%[2]s' WHERE transaction_id = '%[1]s';
		UPDATE arrivals SET transaction_id = '%[2]s' WHERE transaction_id = '%[1]s'`, from, to))
}

// A day is 86,400 seconds, also where the wall shows 23 or 25 hours: the intervals
// in our statements are microseconds, never days. The connection is switched to
// the zone by hand, because Open asks for UTC whatever the database is set to.
func TestH19DayIs86400SecondsInEveryTimeZone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		zone  string
		claim time.Time
	}{
		"a day of 23 hours": {"Europe/Berlin", time.Date(2026, time.March, 28, 20, 30, 0, 0, time.UTC)},
		"a day of 25 hours": {"Europe/Berlin", time.Date(2026, time.October, 24, 20, 30, 0, 0, time.UTC)},
		"across the ocean":  {"America/New_York", time.Date(2026, time.March, 8, 0, 0, 0, 0, time.UTC)},
		"half an hour":      {"Australia/Lord_Howe", time.Date(2026, time.April, 4, 8, 0, 0, 0, time.UTC)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			clock := w.takeClock()
			pgtest.Exec(t, w.url, fmt.Sprintf(`DO 'BEGIN EXECUTE format(''ALTER DATABASE %%I SET timezone = %%L'', current_database(), ''%s''); END'`, c.zone))
			w.reopen(postgres.Options{MaxConns: 1})
			var zone string
			zoneOf := func() string {
				if err := w.db.Conn(t.Context()).Raw(`SELECT current_setting('timezone')`).Row().Scan(&zone); err != nil {
					t.Fatal(err)
				}
				return zone
			}
			if zoneOf() != "UTC" {
				t.Fatalf("a connection of ours is in zone %s, want UTC", zone)
			}
			w.sql(`SET timezone = '` + c.zone + `'`)

			clock.set(c.claim)
			body := w.body("order-1", nil)
			first := w.create("nonce-1", body)
			w.want(first, http.StatusCreated)
			w.want(w.create("nonce-2", body), http.StatusCreated)
			w.want(w.create("nonce-3", body), http.StatusCreated)
			if got := w.expiry("nonce-1").Sub(c.claim); got != 86_400*time.Second {
				t.Errorf("the key is kept for %s, want 86400 s", got)
			}
			clock.set(c.claim.Add(86_400*time.Second - tick))
			w.wantReplay(first, w.create("nonce-1", body), false)
			if n := w.purge(); n != 0 {
				t.Errorf("a microsecond early the purge took %d rows", n)
			}
			clock.set(c.claim.Add(86_400 * time.Second))
			w.wantNewLife(first, w.create("nonce-1", body))
			if n := w.purge(); n != 2 {
				t.Errorf("the purge took %d rows, want the two keys that are over", n)
			}
			if zoneOf() != c.zone {
				t.Fatalf("the statements ran in zone %s, want %s", zone, c.zone)
			}
		})
	}
}

func TestH21Of200SimultaneousRequestsWithAnExpiredKeyOneIsNew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.create("nonce-1", w.body("order-1", nil))
	w.want(first, http.StatusCreated)
	w.shift("nonce-1", 24*time.Hour)
	w.wantOneOf(200, "nonce-1", "order-1")
	w.wantSends(2, 2)
	lives := w.lives("nonce-1")
	if len(lives) != 2 || lives[0].KeyState != KeyAnswered || lives[1].KeyState != KeyExpired {
		t.Fatalf("the lives are not one answered and one expired: %+v", lives)
	}
	if n := w.count(`SELECT count(*) FROM idempotency_keys WHERE key_id = 'nonce-1' AND response_status = 201`); n != 1 {
		t.Errorf("%d answered records of the nonce, want 1", n)
	}
}

// interloper lets somebody else act just before a named statement goes out, and so
// puts a race into the order a test wants.
type interloper struct {
	mu   sync.Mutex
	acts map[string][]func()
}

// before makes act happen before the next statement of that name. Several acts of
// one name happen at one statement each.
func (i *interloper) before(statement string, act func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.acts[statement] = append(i.acts[statement], act)
}

// TraceQueryStart is called with every statement before it is sent.
func (i *interloper) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	name, _, _ := strings.Cut(strings.TrimPrefix(d.SQL, "/* "), " */")
	i.mu.Lock()
	acts := i.acts[name]
	if len(acts) > 0 {
		i.acts[name] = acts[1:]
	}
	i.mu.Unlock()
	if len(acts) > 0 {
		acts[0]()
	}
	return ctx
}

// TraceQueryEnd is of no interest.
func (i *interloper) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// interrupted starts an instance whose statements can be preceded.
func (w *world) interrupted() (instance, *interloper) {
	w.t.Helper()
	i := &interloper{acts: map[string][]func(){}}
	db, err := postgres.Open(w.t.Context(), w.url, pgtest.Options(w.url, postgres.Options{Tracer: i}))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(db.Close)
	started := w.newInstance(db)
	w.steady()
	return started, i
}

// wantAllHappened fails the test if an act is still to come: then the race was not
// the one that the test describes.
func (i *interloper) wantAllHappened(t *testing.T) {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	for name, acts := range i.acts {
		if len(acts) > 0 {
			t.Errorf("%d acts before %s did not happen", len(acts), name)
		}
	}
}

func TestH22LifePurgedBetweenClaimAndReadIsFollowedByANewOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.create("nonce-1", w.body("order-1", nil))
	w.want(first, http.StatusCreated)
	w.shift("nonce-1", 24*time.Hour)
	slow, race := w.interrupted()
	race.before("transactions.read_key", func() {
		if n := w.purge(); n != 1 {
			t.Errorf("the purge took %d rows, want 1", n)
		}
	})
	w.wantNewLife(first, w.createOn(slow, w.test, "nonce-1", w.body("order-1", nil)))
	race.wantAllHappened(t)
	w.wantCharges("order-1", 2)
	if n := w.count(`SELECT count(*) FROM idempotency_keys`); n != 1 {
		t.Errorf("%d records of the nonce, want 1", n)
	}
}

func TestH22LifeReleasedBetweenClaimAndReadIsFollowedByANewOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	arrived, letGo := w.holdNext(refuse)
	body := w.body("order-1", nil)
	refused := w.background("nonce-1", body)
	receive(t, arrived, "the first send")
	slow, race := w.interrupted()
	race.before("transactions.read_key", func() {
		letGo()
		if r := <-refused; r.status != http.StatusBadRequest {
			t.Errorf("the first request got %s", r)
		}
	})
	r := w.createOn(slow, w.test, "nonce-1", body)
	w.want(r, http.StatusCreated)
	w.wantNoReplay(r)
	race.wantAllHappened(t)
	w.wantCharges("order-1", 1)
	w.wantSends(2, 2)
	if n := w.transactionsOf("nonce-1"); n != 2 {
		t.Errorf("%d transactions, want the released one and the new one", n)
	}
}

func TestH22LifeAnsweredBetweenClaimAndReadIsReplayed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	arrived, letGo := w.holdNext(approve)
	body := w.body("order-1", nil)
	answer := w.background("nonce-1", body)
	receive(t, arrived, "the first send")
	slow, race := w.interrupted()
	var first response
	race.before("transactions.read_key", func() {
		letGo()
		first = <-answer
	})
	again := w.createOn(slow, w.test, "nonce-1", body)
	w.want(first, http.StatusCreated)
	w.wantReplay(first, again, false)
	race.wantAllHappened(t)
	w.wantCharges("order-1", 1)
}

// Two requests find the same life over. The slower one must not end the life that
// the quicker one has begun since: it ends lives by transaction, not by key.
func TestH22LifeBegunBetweenReadAndEndIsReplayed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.create("nonce-1", w.body("order-1", nil))
	w.want(first, http.StatusCreated)
	w.shift("nonce-1", 24*time.Hour)
	slow, race := w.interrupted()
	var quicker response
	race.before("transactions.end_life", func() {
		quicker, _ = w.post(w.instance, w.test, "nonce-1", w.body("order-1", nil))
	})
	r := w.createOn(slow, w.test, "nonce-1", w.body("order-1", nil))
	w.wantNewLife(first, quicker)
	w.wantReplay(quicker, r, false)
	race.wantAllHappened(t)
	w.wantCharges("order-1", 2)
	w.wantSends(2, 2)
}

func TestH22NonceThatChangesAtEveryLookIsInProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	slow, race := w.interrupted()
	body := w.body("order-1", nil)
	var (
		letGo  func()
		holder <-chan response
	)
	for range maxLooks {
		race.before("transactions.begin", func() { // somebody has the nonce …
			var arrived <-chan struct{}
			arrived, letGo = w.holdNext(refuse)
			holder = w.background("nonce-1", body)
			select {
			case <-arrived:
			case <-time.After(soon):
				t.Error("the other request's send did not arrive")
			}
		})
		race.before("transactions.read_key", func() { // … and gives it back
			letGo()
			<-holder
		})
	}
	r := w.createOn(slow, w.test, "nonce-1", body)
	w.wantInProcess(r)
	race.wantAllHappened(t)
	w.wantCharges("order-1", 0)
	w.wantSends(maxLooks, maxLooks) // all of them the others'
	retry := w.createOn(slow, w.test, "nonce-1", body)
	w.want(retry, http.StatusCreated)
}

// patient is a session for one that must wait longer than requests do; its own, because
// it is set so.
func (w *world) patient() *postgres.DB {
	w.t.Helper()
	db, err := postgres.Open(w.t.Context(), pgtest.Direct(w.url), postgres.Options{MaxConns: 1})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(db.Close)
	if err := db.Conn(w.t.Context()).Exec(`SET lock_timeout = '1min'; SET statement_timeout = '1min'`).Error; err != nil {
		w.t.Fatal(err)
	}
	return db
}

// waits says whether a statement of that name waits for a lock.
func (w *world) waits(statement string) func() bool {
	return func() bool {
		return w.count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND starts_with(query, $1)`,
			"/* "+statement+" */") > 0
	}
}

// backgroundPurge is one round of the purge beside the test.
func (w *world) backgroundPurge() <-chan int {
	db := w.patient()
	taken := make(chan int, 1)
	go func() {
		n, err := idem.Purge{DB: db, Retention: idem.DefaultRetention}.RunOnce(w.t.Context())
		if err != nil {
			n = -1
		}
		taken <- n
	}()
	return taken
}

// The purge has chosen a life that is over, and finds another life under the same
// nonce when its turn comes. That one must stay.
func TestH23PurgeTakesNoLifeThatBeganMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	w.want(w.create("nonce-2", w.body("order-2", nil)), http.StatusCreated)
	next := w.transaction("nonce-2").ID
	w.shift("nonce-1", 25*time.Hour)

	conn, err := pgx.Connect(t.Context(), pgtest.Direct(w.url))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	for name, reuse := range map[string][]string{
		"the life was ended and another begun": {
			`DELETE FROM idempotency_keys WHERE key_id = 'nonce-1'`,
			`INSERT INTO idempotency_keys (account_id, mode, key_id, operation, fingerprint, transaction_id, created_at, expires_at)
			 SELECT account_id, mode, 'nonce-1', operation, fingerprint, transaction_id, created_at, expires_at
			 FROM idempotency_keys WHERE transaction_id = '` + next.String() + `'`,
		},
		"the life was prolonged": {`UPDATE idempotency_keys SET expires_at = expires_at + interval '25 hours' WHERE key_id = 'nonce-1'`},
	} {
		if _, err := conn.Exec(t.Context(), `BEGIN`); err != nil {
			t.Fatal(err)
		}
		for _, sql := range reuse {
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		taken := w.backgroundPurge()
		w.until(name+": the purge waits for the row", w.waits("idem.purge_keys"))
		if _, err := conn.Exec(t.Context(), `COMMIT`); err != nil {
			t.Fatal(err)
		}
		if n := receive(t, taken, "the purge"); n != 0 {
			t.Errorf("%s: the purge took %d rows, want none", name, n)
		}
		if n := w.count(`SELECT count(*) FROM idempotency_keys WHERE key_id = 'nonce-1' AND expires_at > clock_timestamp()`); n != 1 {
			t.Errorf("%s: the life that began meanwhile is gone", name)
		}
		w.sql(`UPDATE idempotency_keys SET created_at = clock_timestamp() - interval '25 hours', expires_at = clock_timestamp() - interval '1 hour' WHERE key_id = 'nonce-1'`)
	}
}

// The other way round: a request reuses a nonce while the purge is removing its old
// record, and has to wait for it.
func TestH23RequestDuringThePurgeBeginsANewLife(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ when, blocked string }{
		"the purge has locked the record":  {"BEFORE", "transactions.end_life"},
		"the purge has deleted the record": {"AFTER", "transactions.begin"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			first := w.create("nonce-1", w.body("order-1", nil))
			w.want(first, http.StatusCreated)
			w.shift("nonce-1", 25*time.Hour)
			result := "NULL"
			if c.when == "BEFORE" {
				result = "OLD"
			}
			pgtest.Exec(t, w.url, `CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN `+result+`; END';
				CREATE TRIGGER gate `+c.when+` DELETE ON idempotency_keys FOR EACH ROW EXECUTE FUNCTION gate()`)
			conn, err := pgx.Connect(t.Context(), pgtest.Direct(w.url))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
			if _, err := conn.Exec(t.Context(), `SELECT pg_advisory_lock(1)`); err != nil {
				t.Fatal(err)
			}
			taken := w.backgroundPurge()
			w.until("the purge is half-way", w.waits("idem.purge_keys"))
			answer := w.background("nonce-1", w.body("order-1", nil))
			w.until("the request waits for the purge", w.waits(c.blocked))
			if _, err := conn.Exec(t.Context(), `SELECT pg_advisory_unlock(1)`); err != nil {
				t.Fatal(err)
			}
			if n := receive(t, taken, "the purge"); n != 1 {
				t.Errorf("the purge took %d rows, want 1", n)
			}
			second := receive(t, answer, "the request")
			w.wantNewLife(first, second)
			if n := w.count(`SELECT count(*) FROM idempotency_keys WHERE key_id = 'nonce-1' AND response_status = 201`); n != 1 {
				t.Fatal("the new life's record is lost")
			}
			w.wantReplay(second, w.create("nonce-1", w.body("order-1", nil)), false)
			w.wantCharges("order-1", 2)
		})
	}
}

// Whoever holds the rows that a request needs holds them for milliseconds. If not,
// the request gives up after lock_timeout, and is told to come back wherever it
// waited: that is an answer, not a surprise, and log and timeline call it by the
// same word.
func TestH23RequestThatWaitedTooLongForALockIsInProcess(t *testing.T) {
	t.Parallel()
	for name, scene := range map[string]struct {
		before func(w *world)
		holds  string
	}{
		"behind an uncommitted duplicate": {
			func(w *world) { w.want(w.create("nonce-2", w.body("order-2", nil)), http.StatusCreated) },
			`INSERT INTO idempotency_keys (account_id, mode, key_id, operation, fingerprint, transaction_id, created_at, expires_at)
			 SELECT account_id, mode, 'nonce-1', operation, fingerprint, transaction_id, created_at, expires_at FROM idempotency_keys`,
		},
		"behind a purge of its expired record": {
			func(w *world) {
				w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
				w.shift("nonce-1", 25*time.Hour)
			},
			`SELECT 1 FROM idempotency_keys FOR UPDATE`,
		},
		"behind somebody else who takes it over": {
			func(w *world) { w.lostAnswer("nonce-1", "order-1") },
			`SELECT 1 FROM transactions FOR UPDATE`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			scene.before(w)
			before := w.footprint()
			conn, err := pgx.Connect(t.Context(), pgtest.Direct(w.url))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
			if _, err := conn.Exec(t.Context(), `BEGIN; `+scene.holds); err != nil {
				t.Fatal(err)
			}
			r, err := request(t.Context(), http.MethodPost, w.public.URL+"/v1/payments", w.body("order-1", nil),
				append(keys(w.test), idem.Header, "nonce-1", httpapi.HeaderRequestID, "the-one")...)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Exec(t.Context(), `ROLLBACK`); err != nil {
				t.Fatal(err)
			}
			w.wantInProcess(r)
			w.wantUntouched(before, "arrivals")
			if n := w.count(`SELECT count(*) FROM arrivals WHERE request_id = 'the-one' AND verdict = 'in_process'`); n != 1 {
				t.Errorf("the timeline has %d requests in process, want 1", n)
			}
			w.public.Close() // so that every line is written
			for line := range strings.Lines(w.logs.String()) {
				if strings.Contains(line, `"request_id":"the-one"`) && !strings.Contains(line, `"idem_verdict":"in_process"`) {
					t.Errorf("the log's line is %s", line)
				}
			}
			w.instance = w.newInstance(w.db)
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated) // and when it comes back, all is well
		})
	}
}

// Purge and reuse as they happen to meet, round after round.
func TestH23PurgeAndReuseSideBySideLoseNothing(t *testing.T) {
	t.Parallel()
	const rounds, requests, purges = 25, 4, 3
	w := newWorld(t)
	w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
	for round := 1; round <= rounds; round++ {
		w.sql(`UPDATE idempotency_keys SET created_at = clock_timestamp() - interval '25 hours', expires_at = clock_timestamp() - interval '1 hour'`)
		var wg sync.WaitGroup
		for range purges {
			wg.Go(func() {
				if _, err := (idem.Purge{DB: w.db, Retention: idem.DefaultRetention}).RunOnce(t.Context()); err != nil {
					t.Errorf("round %d: the purge failed: %v", round, err)
				}
			})
		}
		answers := atOnce(requests, func(int) (response, error) { return w.post(w.instance, w.test, "nonce-1", w.body("order-1", nil)) })
		body := ""
		for range requests {
			r := receive(t, answers, "an answer")
			switch {
			case r.status == http.StatusConflict:
			case r.status == http.StatusCreated && (body == "" || body == string(r.body)):
				body = string(r.body)
			default:
				t.Fatalf("round %d: got %s after an answer %q", round, r, body)
			}
		}
		wg.Wait()
		if w.psp.charges("order-1") != round+1 || w.transactionsOf("nonce-1") != round+1 {
			t.Fatalf("round %d: %d charges and %d transactions, want %d", round, w.psp.charges("order-1"), w.transactionsOf("nonce-1"), round+1)
		}
		if n := w.count(`SELECT count(*) FROM idempotency_keys WHERE transaction_id = $1 AND response_status = 201`, w.transaction("nonce-1").ID); n != 1 {
			t.Fatalf("round %d: the new life's record is lost", round)
		}
	}
}

// A lost answer that is settled long after the key would have ended. The merchant's
// next retry must still hear of it, and has a day for that.
func TestH76LateAnswerIsKeptForADayOfItsOwn(t *testing.T) {
	t.Parallel()
	for name, settle := range map[string]func(w *world, lost Transaction){
		"by recovery": func(w *world, _ Transaction) {
			if n, err := w.service.Recover(w.t.Context()); n != 1 || err != nil {
				w.t.Fatalf("recovery took %d transactions (%v), want 1", n, err)
			}
		},
		"by the merchant's retry": func(w *world, _ Transaction) {
			r := w.create("nonce-1", w.body("order-1", nil))
			w.want(r, http.StatusCreated)
			w.wantNoReplay(r)
		},
		"by a person": func(w *world, lost Transaction) {
			tx, err := w.service.Resolve(w.t.Context(), lost.ID, Decision{Succeeded: true, ProviderReference: "on the statement", Reason: "seen there"})
			if err != nil || tx.Status != Succeeded {
				w.t.Fatalf("resolved to %s (%v), want SUCCEEDED", tx.Status, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			clock := w.takeClock()
			clock.set(noon)
			lost := w.lostAnswer("nonce-1", "order-1")
			settled := noon.Add(30 * time.Hour)
			clock.set(settled)
			w.purge()
			settle(w, lost)

			body := w.body("order-1", nil)
			first := w.create("nonce-1", body)
			w.want(first, http.StatusCreated)
			if first.header.Get(headerReplayed) != "true" {
				t.Errorf("the late answer was not kept: the retry got another one")
			}
			if first.get("status") != "SUCCEEDED" || first.get("transactions", "id") != lost.ID.String() {
				t.Errorf("the retry was told %s", first)
			}
			clock.set(settled.Add(24*time.Hour - tick))
			w.purge()
			w.wantReplay(first, w.create("nonce-1", body), false)
			w.wantCharges("order-1", 1)
			w.wantSends(1, 1)
			clock.set(settled.Add(24 * time.Hour))
			w.wantNewLife(first, w.create("nonce-1", body))
			w.wantCharges("order-1", 2)
		})
	}
}

// dump is the rows of the tables that a finish writes.
func (w *world) dump() []string {
	w.t.Helper()
	var all []string
	for _, table := range []string{"idempotency_keys", "transactions", "payments", "events", "resolutions", "provider_calls"} {
		var rows []string
		if err := w.db.Conn(w.t.Context()).Raw(`SELECT r::text FROM ` + table + ` r ORDER BY 1`).Scan(&rows).Error; err != nil {
			w.t.Fatal(err)
		}
		all = append(append(all, table), rows...)
	}
	return append(all, "the end")
}

func TestH80FinishThatMatchesNothingDeletesNoKey(t *testing.T) {
	t.Parallel()
	held := func(w *world) Transaction { // somebody is at work on it
		arrived, _ := w.holdNext(approve)
		w.background("nonce-1", w.body("order-1", nil))
		receive(w.t, arrived, "the send")
		return w.transaction("nonce-1")
	}
	for name, zombie := range map[string]func(w *world) Transaction{
		"under an older fence": func(w *world) Transaction {
			tx := w.lostAnswer("nonce-1", "order-1")
			w.sql(`UPDATE transactions SET fence = 2`)
			return tx
		},
		"under a fence to come": func(w *world) Transaction {
			tx := held(w)
			tx.Fence++
			return tx
		},
		"as another holder": func(w *world) Transaction {
			tx := held(w)
			tx.LeaseHolder = uuid.New()
			return tx
		},
		"as another merchant": func(w *world) Transaction {
			tx := held(w)
			tx.AccountID = uuid.New()
			return tx
		},
		"after its own answer": func(w *world) Transaction {
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
			tx := w.transaction("nonce-1")
			tx.Status = Created // as its holder remembers it
			return tx
		},
		"after its release, and another life has been answered": func(w *world) Transaction {
			w.psp.next(refuse)
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusBadRequest)
			tx := w.transaction("nonce-1")
			tx.Status = Created
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusCreated)
			return tx
		},
		"after its release, and another life is in process": func(w *world) Transaction {
			w.psp.next(refuse)
			w.want(w.create("nonce-1", w.body("order-1", nil)), http.StatusBadRequest)
			tx := w.transaction("nonce-1")
			tx.Status = Created
			held(w)
			return tx
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			tx := zombie(w)
			before := w.dump()
			if n := w.count(`SELECT count(*) FROM idempotency_keys WHERE key_id = 'nonce-1'`); n != 1 {
				t.Fatalf("%d records of the nonce before, want 1", n)
			}
			calls := []call{{Seq: 1, Kind: "send", Provider: "TEST_PSP", Outcome: "not_reached", StartedAt: time.Now()}}
			for _, e := range []ending{
				{status: Errored, released: true, cause: "proved"},
				{status: Rejected, released: true, cause: "refused"},
				{status: Succeeded, cause: "provider", tell: telling(http.StatusCreated)},
				{status: Errored, cause: "not_reached", tell: telling(http.StatusServiceUnavailable)},
				{status: Errored, released: true, cause: "resolved", resolution: resolution{"failed", "by mistake", "request"}},
			} {
				e.at, e.calls = time.Now(), calls
				seen := Payment{Status: Unconfirmed.Status, SubStatus: Unconfirmed.Sub} // as it was when tx was claimed
				if matched, _, err := w.service.store.finish(t.Context(), tx, seen, e); err != nil || matched {
					t.Errorf("a finish as %s (%s) matched: %t, %v", e.status, e.cause, matched, err)
				}
			}
			l := leaving{park: true, attempt: 1, resendRefused: true, answer: &answer{http.StatusBadGateway, []byte("{}")}, calls: calls}
			if matched, err := w.service.store.leave(t.Context(), tx, l); err != nil || matched {
				t.Errorf("a leave matched: %t, %v", matched, err)
			}
			for i, line := range w.dump() {
				if i >= len(before) || line != before[i] {
					t.Fatalf("something changed; the first row that is new: %s", line)
				}
			}
		})
	}
}

// telling makes an answer with that status of whatever became of a transaction.
func telling(status int) func(Payment, Transaction) (*answer, error) {
	return func(Payment, Transaction) (*answer, error) { return &answer{status, []byte("{}")}, nil }
}
