package idem

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/pgtest/pgproxy"
	"github.com/oncepay/oncepay/internal/postgres"
)

// soon bounds what must happen at once anyway: only a bug reaches it.
const soon = 20 * time.Second

// bench is a database with a recorder of arrivals on it.
type bench struct {
	t        *testing.T
	url      string
	db       *postgres.DB
	arrivals *Arrivals
	logs     *bytes.Buffer
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, url: pgtest.URL(t), logs: &bytes.Buffer{}}
	var err error
	if b.db, err = postgres.Open(t.Context(), b.url, pgtest.Options(b.url, postgres.Options{})); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.db.Close)
	b.arrivals = NewArrivals(b.db, slog.New(slog.NewJSONHandler(b.logs, nil)))
	return b
}

func (b *bench) count(query string, args ...any) int {
	b.t.Helper()
	var n int
	if err := b.db.Conn(b.t.Context()).Raw(query, args...).Row().Scan(&n); err != nil {
		b.t.Fatal(err)
	}
	return n
}

// flush writes what waits, and fails the test unless it was that many.
func (b *bench) flush(want int) {
	b.t.Helper()
	n, err := b.arrivals.Flush(b.t.Context())
	if err != nil || n != want {
		b.t.Fatalf("%d arrivals were written (%v), want %d", n, err, want)
	}
}

// refuse lets the database take no arrivals until the function that it returns is
// called.
func (b *bench) refuse() (restore func()) {
	b.t.Helper()
	pgtest.Exec(b.t, b.url, `ALTER TABLE arrivals RENAME TO away`)
	return func() { pgtest.Exec(b.t, b.url, `ALTER TABLE away RENAME TO arrivals`) }
}

func arrival(nonce string) Arrival {
	return Arrival{AccountID: uuid.MustParse("0198c2f3-7777-7777-8888-999999999999"), Mode: "test", Nonce: nonce, Verdict: New, RequestID: "request-" + nonce, At: time.Now()}
}

func TestArrivalsAreWrittenAsTheyWereMet(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	account, tx := uuid.New(), uuid.New()
	b.arrivals.Record(Arrival{
		AccountID: account, Mode: "live", Nonce: `'; --%\"`, Verdict: Replayed, TransactionID: uuid.NullUUID{UUID: tx, Valid: true},
		RequestID: "request-1", BodyDiffers: true, Differs: []string{"amount", "currency"}, At: time.Now().Add(-90 * time.Minute),
	})
	b.arrivals.Record(Arrival{AccountID: account, Mode: "test", Nonce: "nonce-2", Verdict: Rejected, RequestID: "request-2", At: time.Now()})
	if n := b.count(`SELECT count(*) FROM arrivals`); n != 0 {
		t.Fatalf("%d arrivals were written before anybody asked", n)
	}
	b.flush(2)
	// Dated by the database's clock: what an arrival brings is its age.
	if n := b.count(`SELECT count(*) FROM arrivals WHERE account_id = $1 AND mode = 'live' AND nonce = $2 AND verdict = 'replayed' AND transaction_id = $3
		AND request_id = 'request-1' AND body_differs AND differs = 'amount,currency'
		AND at BETWEEN clock_timestamp() - interval '91 minutes' AND clock_timestamp() - interval '90 minutes'`, account, `'; --%\"`, tx); n != 1 {
		t.Error("the first arrival is not there as it was recorded")
	}
	if n := b.count(`SELECT count(*) FROM arrivals WHERE nonce = 'nonce-2' AND verdict = 'rejected' AND transaction_id IS NULL AND NOT body_differs AND differs = ''
		AND at BETWEEN clock_timestamp() - interval '1 minute' AND clock_timestamp()`); n != 1 {
		t.Error("the second arrival is not there as it was recorded")
	}
	b.flush(0)
}

func TestEveryVerdictCanBeWritten(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	verdicts := []Verdict{New, Replayed, InProcess, Mismatch, Resumed, Rejected}
	for _, v := range verdicts {
		a := arrival("nonce-1")
		a.Verdict = v
		b.arrivals.Record(a)
	}
	b.flush(len(verdicts))
	if n := b.count(`SELECT count(DISTINCT verdict) FROM arrivals`); n != len(verdicts) {
		t.Errorf("%d verdicts were kept, want %d", n, len(verdicts))
	}
}

// A storm of duplicates is more than one statement takes.
func TestMoreThanABatchIsWrittenInOneFlush(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const n = 2*arrivalsBatch + 1
	for i := range n {
		b.arrivals.Record(arrival(fmt.Sprintf("nonce-%d", i)))
	}
	b.flush(n)
	if got := b.count(`SELECT count(DISTINCT nonce) FROM arrivals`); got != n {
		t.Errorf("%d arrivals are there, want %d", got, n)
	}
}

func TestWhatTheDatabaseRefusesIsPutBackInOrder(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const n = arrivalsBatch + 7
	for i := range n {
		b.arrivals.Record(arrival(fmt.Sprintf("%06d", i)))
	}
	restore := b.refuse()
	for range 3 {
		if written, err := b.arrivals.Flush(t.Context()); err == nil || written != 0 {
			t.Fatalf("%d arrivals were written into a table that is not there (%v)", written, err)
		}
	}
	b.arrivals.Record(arrival("last"))
	for i, a := range b.arrivals.waiting {
		if want := fmt.Sprintf("%06d", i); i < n && a.Nonce != want {
			t.Fatalf("arrival %d in the queue is %s", i, a.Nonce)
		}
	}
	restore()
	b.flush(n + 1)
	if got := b.count(`SELECT count(DISTINCT nonce) FROM arrivals`); got != n+1 {
		t.Errorf("%d arrivals are there, want %d, each once", got, n+1)
	}
}

// A database that is away must not cost the process its memory: what does not fit
// any more is dropped, counted, and told of once.
func TestMemoryIsBoundedWhileTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	restore := b.refuse()
	const more = 1_000
	for i := range arrivalsWaiting + more {
		b.arrivals.Record(arrival(fmt.Sprintf("%06d", i)))
		if i%5_000 == 0 {
			_, _ = b.arrivals.Flush(t.Context()) // the loop goes on trying
		}
	}
	if got := len(b.arrivals.waiting); got != arrivalsWaiting {
		t.Errorf("%d arrivals wait, want at most %d", got, arrivalsWaiting)
	}
	// A batch that is under way is room for others, and comes back: that much more.
	batch, dropped := b.arrivals.next()
	if dropped != more {
		t.Errorf("%d arrivals were dropped, want %d", dropped, more)
	}
	for range 2 * arrivalsBatch {
		b.arrivals.Record(arrival("while a batch was under way"))
	}
	b.arrivals.putBack(batch)
	if got := len(b.arrivals.waiting); got > arrivalsWaiting+arrivalsBatch {
		t.Errorf("%d arrivals wait, want at most %d and a batch", got, arrivalsWaiting)
	}
	for range more {
		b.arrivals.Record(arrival("too late"))
	}
	restore()
	b.flush(arrivalsWaiting + arrivalsBatch)
	if n := b.count(`SELECT count(*) FROM arrivals WHERE nonce = '000000'`); n != 1 {
		t.Error("the oldest was dropped rather than the newest")
	}
	b.flush(0)
	var told []int
	for line := range bytes.Lines(b.logs.Bytes()) {
		var l struct {
			Level string `json:"level"`
			Count int    `json:"count"`
		}
		if err := json.Unmarshal(line, &l); err != nil || l.Level != "WARN" {
			t.Fatalf("a log line is %s (%v)", line, err)
		}
		told = append(told, l.Count)
	}
	total := 0
	for _, n := range told {
		total += n
	}
	if want := arrivalsBatch + more; total != want {
		t.Errorf("the log tells of %v dropped arrivals, %d together, want %d", told, total, want)
	}
}

// A batch whose COMMIT was not confirmed is put back, although it is there. The
// timeline counts replays, so its second writing must change nothing.
func TestArrivalsWhoseCommitWasNotConfirmedAreWrittenOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	proxy := pgproxy.New(t, b.url)
	db, err := postgres.Open(t.Context(), proxy.URL(), pgtest.Options(proxy.URL(), postgres.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	arrivals := NewArrivals(db, slog.New(slog.DiscardHandler))
	for i := range 3 {
		arrivals.Record(arrival(fmt.Sprint(i)))
	}
	proxy.Cut("idem.insert_arrivals", pgproxy.Answered)
	if _, err := arrivals.Flush(t.Context()); err == nil {
		t.Fatal("nobody noticed that the answer was lost")
	}
	if _, err := arrivals.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := b.count(`SELECT count(*) FROM arrivals`); n != 3 {
		t.Errorf("%d arrivals are there, want 3", n)
	}
}

// Recording is on the path of every request, and must not wait for the database.
func TestRecordingNeverWaitsForTheDatabase(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	conn, err := pgx.Connect(t.Context(), pgtest.Direct(b.url))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if _, err := conn.Exec(t.Context(), `BEGIN; LOCK TABLE arrivals IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	b.arrivals.Record(arrival("first"))
	flushed := make(chan error, 1)
	go func() {
		_, err := b.arrivals.Flush(context.WithoutCancel(t.Context()))
		flushed <- err
	}()
	deadline := time.After(soon)
	for b.count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == 0 {
		select {
		case <-deadline:
			t.Fatal("the flush does not wait for the lock")
		case <-time.After(2 * time.Millisecond):
		}
	}
	recorded := make(chan struct{})
	go func() {
		for i := range 1_000 {
			b.arrivals.Record(arrival(fmt.Sprint(i)))
		}
		close(recorded)
	}()
	select {
	case <-recorded:
	case <-time.After(soon):
		t.Fatal("recording waits for the flush")
	}
	if _, err := conn.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	if err := <-flushed; err != nil { // it waited too long for the lock: the batch is put back
		b.flush(1_001)
		return
	}
	if _, err := b.arrivals.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := b.count(`SELECT count(*) FROM arrivals`); n != 1_001 {
		t.Errorf("%d arrivals are there, want 1001", n)
	}
}

// A look-up flushes, too, beside the loop: nothing may be written twice or get lost,
// and whoever has flushed finds everything that was recorded before.
func TestFlushesSideBySideWriteEverythingOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const writers, each = 8, 200
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for j := range each {
				nonce := fmt.Sprintf("%d-%d", i, j)
				b.arrivals.Record(arrival(nonce))
				if j%50 != 49 {
					continue
				}
				if _, err := b.arrivals.Flush(t.Context()); err != nil {
					t.Error(err)
				}
				var found int
				if err := b.db.Conn(t.Context()).Raw(`SELECT count(*) FROM arrivals WHERE nonce = $1`, nonce).Row().Scan(&found); err != nil || found != 1 {
					t.Errorf("after a flush %d arrivals of %s are there (%v), want 1", found, nonce, err)
				}
			}
		})
	}
	wg.Wait()
	if n := b.count(`SELECT count(*) FROM arrivals`); n != writers*each {
		t.Errorf("%d arrivals are there, want %d", n, writers*each)
	}
}

// One transaction whose key is at that age and expires after that long, as SQL
// intervals.
func (b *bench) life(nonce, age, expiresIn string, unresolved bool) {
	b.t.Helper()
	status, lease := "SUCCEEDED", "NULL"
	if unresolved {
		status, lease = "CREATED", "clock_timestamp() - interval '1 hour'"
	}
	account, tx := "'0198c2f3-7777-7777-8888-999999999999'::uuid", "'"+uuid.NewString()+"'::uuid"
	pgtest.Exec(b.t, b.url, fmt.Sprintf(`
		INSERT INTO payments (account_id, id, mode, merchant_order_id, status, sub_status, currency, amount, request, created_at, updated_at)
		VALUES (%[1]s, %[2]s, 'test', 'order', 'PENDING', 'PENDING_PROVIDER_CONFIRMATION', 'USD', 1, '{}', clock_timestamp(), clock_timestamp());
		INSERT INTO transactions (account_id, id, payment_id, mode, type, status, currency, amount, provider, nonce, card, lease_holder, instance_id,
			lease_until, may_send_until, next_attempt_at, travel_us, created_at, updated_at)
		VALUES (%[1]s, %[2]s, %[2]s, 'test', 'PURCHASE', '%[3]s', 'USD', 1, 'p', '%[4]s', '{}', %[2]s, %[2]s, %[5]s, clock_timestamp(), clock_timestamp(), 0, clock_timestamp(), clock_timestamp());
		INSERT INTO idempotency_keys (account_id, mode, key_id, operation, fingerprint, transaction_id, created_at, expires_at)
		VALUES (%[1]s, 'test', '%[4]s', 'op', '', %[2]s, clock_timestamp() - interval '%[6]s', clock_timestamp() + interval '%[7]s')`,
		account, tx, status, nonce, lease, age, expiresIn))
}

func (b *bench) purge(retention time.Duration) int {
	b.t.Helper()
	n, err := Purge{DB: b.db, Retention: retention}.RunOnce(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

func TestPurgeTakesLivesThatAreOverAndNoOthers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.life("over", "24 hours", "-1 second", false)
	b.life("long-over", "1000 hours", "-976 hours", false)
	b.life("not-yet", "23 hours 59 minutes", "1 minute", false)
	b.life("answered-late", "30 hours", "18 hours", false)
	b.life("unresolved", "1000 hours", "-976 hours", true)
	if n := b.purge(DefaultRetention); n != 2 {
		t.Errorf("%d rows went, want 2", n)
	}
	for nonce, want := range map[string]int{"over": 0, "long-over": 0, "not-yet": 1, "answered-late": 1, "unresolved": 1} {
		if n := b.count(`SELECT count(*) FROM idempotency_keys WHERE key_id = $1`, nonce); n != want {
			t.Errorf("%d records of %s are left, want %d", n, nonce, want)
		}
	}
	if n := b.count(`SELECT count(*) FROM transactions`); n != 5 {
		t.Errorf("%d transactions are left, want all 5", n)
	}
	if n := b.purge(DefaultRetention); n != 0 {
		t.Errorf("a second round took %d rows", n)
	}
}

func TestPurgeTakesTheOldestFirstInBatches(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.life("seed", "25 hours", "-1 hour", false)
	const rows = purgeBatch + 20
	pgtest.Exec(t, b.url, `INSERT INTO idempotency_keys (account_id, mode, key_id, operation, fingerprint, transaction_id, created_at, expires_at)
		SELECT account_id, mode, 'key-' || n, operation, fingerprint, transaction_id, created_at - n * interval '1 minute', expires_at
		FROM idempotency_keys, generate_series(1, `+fmt.Sprint(rows-1)+`) n`)
	if n := b.purge(DefaultRetention); n != purgeBatch {
		t.Errorf("one round took %d rows, want %d", n, purgeBatch)
	}
	if n := b.count(`SELECT count(*) FROM idempotency_keys WHERE key_id = 'seed' OR substr(key_id, 5)::int < $1`, rows-purgeBatch); n != rows-purgeBatch {
		t.Errorf("%d of the youngest are left, want %d", n, rows-purgeBatch)
	}
	if n := b.purge(DefaultRetention); n != rows-purgeBatch {
		t.Errorf("the next round took %d rows, want %d", n, rows-purgeBatch)
	}
}

func TestPurgeGoesByTheShortestRetention(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.life("short", "2 hours", "-1 hour", false)
	if n := b.purge(3 * time.Hour); n != 0 {
		t.Errorf("%d rows went that are younger than any retention", n)
	}
	if n := b.purge(time.Hour); n != 1 {
		t.Errorf("%d rows went, want 1", n)
	}
}

func TestPurgeKeepsTheTimelineFor90Days(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for i, age := range []time.Duration{timelineRetention + time.Minute, timelineRetention - time.Minute, 0} {
		a := arrival(fmt.Sprint(i))
		a.At = time.Now().Add(-age)
		b.arrivals.Record(a)
		pgtest.Exec(t, b.url, `INSERT INTO provider_calls (account_id, transaction_id, fence, seq, kind, provider, outcome, started_at, duration_ms)
			VALUES ($1, $1, 1, $2::int, 'send', 'p', 'approved', clock_timestamp() - $3::bigint * interval '1 microsecond', 1)`, a.AccountID, i, age.Microseconds())
	}
	b.flush(3)
	if n := b.purge(DefaultRetention); n != 2 {
		t.Errorf("%d rows went, want the oldest of each table", n)
	}
	for _, sql := range []string{`SELECT count(*) FROM arrivals WHERE nonce <> '0'`, `SELECT count(*) FROM provider_calls WHERE seq <> 0`} {
		if n := b.count(sql); n != 2 {
			t.Errorf("%d rows are left by %s, want 2", n, sql)
		}
	}
}

func TestPurgeTellsWhatFailed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.life("over", "25 hours", "-1 hour", false)
	b.refuse()
	n, err := Purge{DB: b.db, Retention: DefaultRetention}.RunOnce(t.Context())
	if n != 1 || err == nil || !bytes.Contains([]byte(err.Error()), []byte("purge arrivals")) {
		t.Errorf("%d rows went, %v; want 1 and an error about arrivals", n, err)
	}
}
