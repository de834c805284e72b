package telemetry

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
)

// clerk is one instance that counts, and writes to a database.
type clerk struct {
	t   *testing.T
	x   *Telemetry
	now *Minutes
}

func newClerk(t *testing.T, db *postgres.DB) *clerk {
	t.Helper()
	x := &Telemetry{metrics: newMetrics("v")}
	return &clerk{t, x, x.Minutes(db)}
}

// meets has the instance answer requests like this.
func (c *clerk) meets(times, status int, v idem.Verdict, took time.Duration) {
	c.t.Helper()
	for range times {
		answered(c.x.Requests(Public), httpapi.Seen{Method: "POST", Route: "/v1/payments", Status: status, Line: httpapi.Line{Verdict: string(v)}, Duration: took})
	}
}

func (c *clerk) writes() {
	c.t.Helper()
	if n, err := c.now.RunOnce(c.t.Context()); err != nil || n != 0 {
		c.t.Fatalf("%d rows were purged, %v", n, err)
	}
}

// ago makes what has been written some minutes older, as if they had passed.
func (c *clerk) ago(db *postgres.DB, minutes int) {
	c.t.Helper()
	r := db.Conn(c.t.Context()).Exec(`UPDATE request_minutes SET minute = minute - $1::bigint * interval '1 minute'`, minutes)
	if r.Error != nil {
		c.t.Fatal(r.Error)
	}
	c.now.minute = c.now.minute.Add(-time.Duration(minutes) * time.Minute)
}

func mustRead(t *testing.T, m *Minutes, span, step time.Duration) Series {
	t.Helper()
	s, err := m.Read(t.Context(), span, step)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func numberOfRows(t *testing.T, db *postgres.DB) int {
	t.Helper()
	var n int
	if err := db.Conn(t.Context()).Raw(`SELECT count(*) FROM request_minutes`).Scan(&n).Error; err != nil {
		t.Fatal(err)
	}
	return n
}

// countedIn leaves out how long things took.
func countedIn(c Counts) Counts {
	c.Durations = [buckets]int64{}
	return c
}

func TestBucketsAreThoseOfTheMetric(t *testing.T) {
	t.Parallel()
	if len(requestBuckets)+1 != buckets {
		t.Fatalf("%d bounds make %d buckets; the constant and sqlReadMinutes say %d", len(requestBuckets), len(requestBuckets)+1, buckets)
	}
	if last := requestBuckets[len(requestBuckets)-1]; last != Longest.Seconds() {
		t.Errorf("Longest is %s, and the last bound %g s", Longest, last)
	}
	for _, c := range []struct {
		took time.Duration
		want int
	}{
		{0, 0}, {5 * time.Millisecond, 0}, {5*time.Millisecond + 1, 1}, {10 * time.Millisecond, 1}, {60 * time.Second, 12}, {60*time.Second + 1, 13}, {time.Hour, 13},
	} {
		if got := bucketOf(c.took.Seconds()); got != c.want {
			t.Errorf("%s is in bucket %d, not %d", c.took, got, c.want)
		}
	}
}

func TestWhatIsCountedIsWhatMerchantsAsked(t *testing.T) {
	t.Parallel()
	x := &Telemetry{metrics: newMetrics("v")}
	for _, v := range []idem.Verdict{idem.New, idem.Resumed, idem.Replayed, idem.InProcess, idem.Mismatch, idem.Rejected, ""} {
		answered(x.Requests(Public), httpapi.Seen{Method: "POST", Route: "/v1/payments", Status: 201, Line: httpapi.Line{Verdict: string(v)}})
	}
	answered(x.Requests(Public), httpapi.Seen{Method: "POST", Route: "/v1/payments", Status: 201, Line: httpapi.Line{Verdict: string(idem.New), Unprotected: true}})
	answered(x.Requests(Public), httpapi.Seen{Method: "POST", Route: "/v1/payments", Status: 502})
	answered(x.Requests(Public), httpapi.Seen{Method: "GET", Route: "", Status: 404})
	answered(x.Requests(Public), httpapi.Seen{Method: "GET", Route: httpapi.LivezPath, Status: 200})
	answered(x.Requests(Public), httpapi.Seen{Method: "GET", Route: httpapi.ReadyzPath, Status: 503})
	answered(x.Requests(Admin), httpapi.Seen{Method: "GET", Route: "/metrics", Status: 500})
	want := Counts{Requests: 10, Failures: 1, Began: 2, Replayed: 1, Conflicts: 2}
	if got := countedIn(x.metrics.tally.counts()); got != want {
		t.Errorf("it has counted %+v, not %+v", got, want)
	}
}

func TestTwoInstancesAreAddedUp(t *testing.T) {
	t.Parallel()
	db := pgtest.Open(t)
	one, other := newClerk(t, db), newClerk(t, db)
	one.meets(3, 201, idem.New, 20*time.Millisecond)
	one.writes()
	one.meets(2, 201, idem.Replayed, time.Millisecond)
	one.meets(1, 503, "", 2*time.Minute)
	other.meets(4, 409, idem.InProcess, 3*time.Millisecond)
	one.writes()
	other.writes()
	one.writes() // with nothing new
	want := Counts{Requests: 10, Failures: 1, Began: 3, Replayed: 2, Conflicts: 4}
	s := mustRead(t, one.now, time.Hour, time.Minute)
	if got := countedIn(s.Total()); got != want {
		t.Errorf("together they have %+v, not %+v", got, want)
	}
	if d := s.Total().Durations; d[0] != 6 || d[2] != 3 || d[13] != 1 {
		t.Errorf("the durations are %v", d)
	}
}

// Rows are in the database's minutes, so a test that would wait for one moves them.
func TestEachMinuteHasItsOwnFigures(t *testing.T) {
	t.Parallel()
	db := pgtest.Open(t)
	c := newClerk(t, db)
	c.meets(5, 201, idem.New, time.Millisecond)
	c.writes()
	c.ago(db, 7)
	c.meets(2, 201, idem.Replayed, time.Millisecond)
	c.writes()
	c.ago(db, 3) // the first row is ten minutes old now, the second three
	s := mustRead(t, c.now, time.Hour, time.Minute)
	if len(s.Points) != 60 {
		t.Fatalf("an hour has %d minutes", len(s.Points))
	}
	for i, p := range s.Points {
		want := Counts{}
		switch at := s.Running.Begin.Sub(p.Begin); { // a minute may turn over in the middle of this test
		case p.Began > 0 && at >= 10*time.Minute && at <= 12*time.Minute:
			want = Counts{Requests: 5, Began: 5}
		case p.Replayed > 0 && at >= 3*time.Minute && at <= 5*time.Minute:
			want = Counts{Requests: 2, Replayed: 2}
		}
		if countedIn(p.Counts) != want {
			t.Errorf("the minute %s has %+v, not %+v", p.Begin, countedIn(p.Counts), want)
		}
		if p.Covered != time.Minute || i > 0 && p.Begin.Sub(s.Points[i-1].Begin) != time.Minute {
			t.Errorf("the minute %s covers %s", p.Begin, p.Covered)
		}
	}
	if got := countedIn(s.Total()); got != (Counts{Requests: 7, Began: 5, Replayed: 2}) {
		t.Errorf("the total is %+v", got)
	}
}

func TestStepsBeginAtRoundTimesAndTheLastSaysHowMuchItCovers(t *testing.T) {
	t.Parallel()
	c := newClerk(t, pgtest.Open(t))
	const step = 10 * time.Minute
	s := mustRead(t, c.now, 24*time.Hour, step)
	if n := len(s.Points); n < 144 || n > 145 {
		t.Fatalf("a day has %d steps of ten minutes", n)
	}
	for i, p := range s.Points {
		if !p.Begin.Equal(p.Begin.Truncate(step)) || p.Begin.Location() != time.UTC {
			t.Errorf("a step begins at %s", p.Begin)
		}
		if last := i == len(s.Points)-1; !last && p.Covered != step || last && p.Covered != s.Running.Begin.Sub(p.Begin) {
			t.Errorf("the step %s covers %s", p.Begin, p.Covered)
		}
	}
	if s.Points[0].Begin.After(s.Running.Begin.Add(-24 * time.Hour)) {
		t.Error("it begins too late")
	}
	for _, wrong := range [][2]time.Duration{
		{time.Hour, 0}, {time.Hour, -time.Minute}, {time.Hour, 90 * time.Second}, {time.Hour, time.Second}, {time.Minute, time.Hour},
		{90 * time.Second, time.Minute}, {(MaxSteps + 1) * time.Minute, time.Minute},
	} {
		if _, err := c.now.Read(t.Context(), wrong[0], wrong[1]); err == nil {
			t.Errorf("%s in steps of %s is read", wrong[0], wrong[1])
		}
	}
}

func TestAWriteThatFailedIsMadeUpForByTheNext(t *testing.T) {
	t.Parallel()
	db := pgtest.Open(t)
	c := newClerk(t, db)
	c.meets(3, 201, idem.New, time.Millisecond)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.now.RunOnce(gone); err == nil {
		t.Fatal("it wrote to a database that is away")
	}
	c.meets(2, 201, idem.New, time.Millisecond)
	c.writes()
	if got := mustRead(t, c.now, time.Hour, time.Minute).Total().Began; got != 5 {
		t.Errorf("%d of 5 have arrived", got)
	}
}

// A connection that breaks while the answer is awaited leaves open whether the row is
// there. To add to it once more would count twice; this write says what the row is.
func TestAWriteOfWhichNobodyKnowsWhetherItArrivedCountsOnce(t *testing.T) {
	t.Parallel()
	for _, arrived := range []bool{true, false} {
		db := pgtest.Open(t)
		c := newClerk(t, db)
		c.meets(3, 201, idem.New, time.Millisecond)
		if arrived {
			c.writes()
		} else {
			c.now.minute = time.Now().UTC().Truncate(time.Minute)
			c.now.tried = c.now.counts()
		}
		c.now.unsure = true // as the error would have left it
		c.ago(db, 2)        // and the minute is over when it is asked again
		c.meets(4, 201, idem.New, time.Millisecond)
		c.writes()
		s := mustRead(t, c.now, time.Hour, time.Minute)
		if got := s.Total().Began; got != 7 {
			t.Errorf("arrived %v: %d of 7 are counted", arrived, got)
		}
		if n := numberOfRows(t, db); n != 2 || c.now.unsure {
			t.Errorf("arrived %v: there are %d rows for two minutes", arrived, n)
		}
	}
}

func TestAWriteThatWasHeldUpDoesNotUndoALaterOne(t *testing.T) {
	t.Parallel()
	db := pgtest.Open(t)
	c := newClerk(t, db)
	c.meets(1, 201, idem.New, time.Millisecond)
	c.writes()
	early := c.now.counts()
	c.meets(1, 201, idem.New, time.Millisecond)
	c.writes()
	if err := c.now.store.save(t.Context(), c.now.minute, c.now.writer, early.less(c.now.begun)); err != nil {
		t.Fatal(err)
	}
	if got := mustRead(t, c.now, time.Hour, time.Minute).Total().Began; got != 2 {
		t.Errorf("%d of 2 are left", got)
	}
}

// A fail-over, or an operator, may set the clock back into minutes that are written.
func TestAClockThatGoesBackLosesNothing(t *testing.T) {
	t.Parallel()
	db := pgtest.Open(t)
	c := newClerk(t, db)
	at := time.Now().UTC().Truncate(time.Minute).Add(-10 * time.Minute)
	for _, minute := range []time.Time{at, at.Add(time.Minute), at} {
		c.meets(2, 201, idem.New, time.Millisecond)
		if err := c.now.write(t.Context(), minute); err != nil {
			t.Fatal(err)
		}
	}
	if got := mustRead(t, c.now, time.Hour, time.Minute).Total().Began; got != 6 {
		t.Errorf("%d of 6 are counted", got)
	}
}

func TestAnIdleInstanceWritesNothing(t *testing.T) {
	t.Parallel()
	db := pgtest.Open(t)
	c := newClerk(t, db)
	c.writes()
	if n := numberOfRows(t, db); n != 0 {
		t.Errorf("it has written %d rows", n)
	}
	if s := mustRead(t, c.now, time.Hour, time.Minute); len(s.Points) != 60 || s.Total() != (Counts{}) {
		t.Errorf("nothing is %d minutes with %+v", len(s.Points), s.Total())
	}
}

func TestFiguresStayForThirtyDays(t *testing.T) {
	t.Parallel()
	db := pgtest.Open(t)
	insert := func(from, to int) {
		t.Helper()
		if err := db.Conn(t.Context()).Exec(`INSERT INTO request_minutes
			SELECT date_trunc('minute', clock_timestamp()) - m * interval '1 minute', gen_random_uuid(), 1, 0, 1, 0, 0, array_fill(0::bigint, ARRAY[14])
			FROM generate_series($1::integer, $2::integer) m`, from, to).Error; err != nil {
			t.Fatal(err)
		}
	}
	const month = 30 * 24 * 60
	insert(0, 9)
	insert(month-10, month-1)
	insert(month+2, month+2+minutesBatch)
	c := newClerk(t, db)
	if n, err := c.now.RunOnce(t.Context()); err != nil || n != minutesBatch {
		t.Fatalf("the first batch was %d rows, %v", n, err)
	}
	if n, err := c.now.RunOnce(t.Context()); err != nil || n != 1 && n != 2 { // two, if a minute has turned over
		t.Fatalf("the second batch was %d rows, %v", n, err)
	}
	if n := numberOfRows(t, db); n != 20 && n != 19 {
		t.Errorf("%d rows are left of 20", n)
	}
}

func TestFiguresOfAReleaseWithOtherBoundsHaveNoDurations(t *testing.T) {
	t.Parallel()
	db := pgtest.Open(t)
	if err := db.Conn(t.Context()).Exec(`INSERT INTO request_minutes VALUES
		(date_trunc('minute', clock_timestamp()) - interval '5 minutes', gen_random_uuid(), $1::bigint, 0, 7, 0, 0, '{3,4}')`, 7).Error; err != nil {
		t.Fatal(err)
	}
	got := mustRead(t, newClerk(t, db).now, time.Hour, time.Minute).Total()
	if got != (Counts{Requests: 7, Began: 7}) {
		t.Errorf("it reads %+v", got)
	}
}

func TestQuantilesAreEstimatedAsPrometheusDoes(t *testing.T) {
	t.Parallel()
	at := func(pairs ...int64) Counts {
		var c Counts
		for i := 0; i < len(pairs); i += 2 {
			c.Durations[pairs[i]] = pairs[i+1]
		}
		return c
	}
	ms := func(n float64) Estimate {
		return Estimate{Known: true, At: time.Duration(n * float64(time.Millisecond))}
	}
	beyond := Estimate{Known: true, Beyond: true, At: Longest}
	for _, c := range []struct {
		what   string
		counts Counts
		q      float64
		want   Estimate
	}{
		{"nothing", Counts{}, .5, Estimate{}},
		{"one bucket, in its middle", at(0, 10), .5, ms(2.5)},
		{"one bucket, at its end", at(0, 10), 1, ms(5)},
		{"a bucket further up", at(3, 4), .5, ms(37.5)},
		{"one request", at(7, 1), .99, ms(995)},
		{"half here, half there", at(0, 5, 4, 5), .5, ms(5)},
		{"just beyond the half", at(0, 5, 4, 5), .6, ms(60)},
		{"nineteen quick ones and a slow one", at(1, 19, 10, 1), .95, ms(10)},
		{"and the slow one", at(1, 19, 10, 1), .99, ms(9000)},
		{"all beyond", at(13, 3), .5, beyond},
		{"the last beyond", at(0, 99, 13, 1), .999, beyond},
		{"the last bound", at(12, 1), 1, ms(60000)},
	} {
		if got := c.counts.Quantile(c.q); got.Known != c.want.Known || got.Beyond != c.want.Beyond || (got.At-c.want.At).Abs() > time.Microsecond {
			t.Errorf("%s: %+v, not %+v", c.what, got, c.want)
		}
	}
}

// A chart of a week is seven days of rows, however many there are.
func TestReadingAWeekReadsTheKeyAndNotTheTable(t *testing.T) {
	t.Parallel()
	db := pgtest.Open(t)
	const instances = 4
	insert := `INSERT INTO request_minutes
		SELECT date_trunc('minute', clock_timestamp()) - m * interval '1 minute', gen_random_uuid(), 14, 0, 1, 0, 0, array_fill(1::bigint, ARRAY[14])
		FROM generate_series(1, 30 * 24 * 60) m, generate_series(1, $1::integer)`
	if err := db.Conn(t.Context()).Exec(insert, instances).Error; err != nil {
		t.Fatal(err)
	}
	if err := db.Conn(t.Context()).Exec(`ANALYZE request_minutes`).Error; err != nil {
		t.Fatal(err)
	}
	var plan []string
	if err := db.Conn(t.Context()).Raw(`EXPLAIN `+sqlReadMinutes, (7 * 24 * time.Hour).Microseconds(), time.Hour.Microseconds()).Scan(&plan).Error; err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(plan, "\n"); strings.Contains(text, "Seq Scan") || !strings.Contains(text, "request_minutes_pkey") {
		t.Error(text)
	}
	s := mustRead(t, newClerk(t, db).now, 7*24*time.Hour, time.Hour)
	if len(s.Points) < 168 || s.Points[100].Requests != instances*60*14 {
		t.Errorf("%d steps, with %+v", len(s.Points), s.Points[100].Counts)
	}
}
