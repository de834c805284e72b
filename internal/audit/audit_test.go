package audit

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// book is a log on a database of its own, which a test may tamper with.
type book struct {
	t   *testing.T
	url string
	Log
}

func newBook(t *testing.T) *book {
	t.Helper()
	url := pgtest.URL(t)
	db, err := postgres.Open(t.Context(), url, pgtest.Options(url, postgres.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return &book{t, url, Log{db}}
}

// fill appends n entries, in one database transaction.
func (b *book) fill(n int) {
	b.t.Helper()
	ctx := By(b.t.Context(), ada)
	err := b.DB.InTx(ctx, func(tx postgres.Tx) error {
		for i := range n {
			e := Entry{Action: "key.created", AccountID: account, Target: fmt.Sprintf("key/%d", i+1), Details: map[string]string{"mode": "test"}}
			if err := Append(ctx, tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *book) verify(o VerifyOptions) Report {
	b.t.Helper()
	r, err := b.Verify(b.t.Context(), o)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// wantWhole fails the test unless the chain has n entries, all as they were written.
func (b *book) wantWhole(n int64) Report {
	b.t.Helper()
	r := b.verify(VerifyOptions{})
	if r.Broken != nil || r.Entries != n || r.Head.Seq != n {
		b.t.Fatalf("verified %+v, broken at %+v, want %d entries and no break", r, r.Broken, n)
	}
	return r
}

func (b *book) page(f Filter, before int64, limit int) Page {
	b.t.Helper()
	p, err := b.Page(b.t.Context(), f, before, limit)
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

var (
	account = uuid.MustParse("0198a1b2-0000-7000-8000-0000000000ff")
	ada     = Actor{Kind: KindOperator, ID: "0198a1b2-0000-7000-8000-000000000001", Name: "ada", Address: "192.0.2.7", RequestID: "req-1"}
)

func TestEntryIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	before := time.Now().Add(-time.Minute)
	details := map[string]string{"name": "Größe <b>&", "reason": "two\nlines \"quoted\""}
	if err := b.Append(By(t.Context(), ada), Entry{Action: "merchant.created", AccountID: account, Target: "merchant/1", Details: details}); err != nil {
		t.Fatal(err)
	}
	if err := b.Append(t.Context(), Entry{Action: "set-up.printed", Target: "installation"}); err != nil {
		t.Fatal(err)
	}
	p := b.page(Filter{}, 0, 0)
	if len(p.Records) != 2 || p.Next != 0 || p.Partial {
		t.Fatalf("the page is %+v, want two entries and nothing behind", p)
	}
	system, entry := p.Records[0], p.Records[1]
	if entry.Seq != 1 || entry.Actor != ada || entry.Action != "merchant.created" || entry.AccountID != account || entry.Target != "merchant/1" ||
		!maps.Equal(entry.Details, details) || entry.At.Before(before) || entry.At.Location() != time.UTC {
		t.Errorf("the entry is %+v", entry)
	}
	if system.Seq != 2 || system.Actor != (Actor{Kind: KindSystem, Name: "system"}) || system.AccountID != uuid.Nil || len(system.Details) != 0 {
		t.Errorf("an entry whose actor nobody named is %+v", system)
	}
	r := b.wantWhole(2)
	if !bytes.Equal(r.Head.Hash, system.Hash) {
		t.Error("the head has another hash than the last entry")
	}
}

// The encoding is a promise to whoever checks it with a program of their own. The sum was
// computed with Python's hashlib.
func TestHashIsTheOneThatIsDescribed(t *testing.T) {
	t.Parallel()
	previous := make([]byte, 32)
	previous[31] = 7
	r := row{
		Seq: 42, At: "1795389725123456", ActorKind: string(ada.Kind), ActorID: ada.ID, Actor: ada.Name, Address: ada.Address, RequestID: ada.RequestID,
		Action: "merchant.created", AccountID: uuid.NullUUID{UUID: account, Valid: true}, Target: "merchant/é",
		Details: `{"name":"Größe, 5:hello,"}`, PreviousHash: previous,
	}
	if got := hex.EncodeToString(r.sum()); got != "f33e4f23221c11b3bdfa86aeb14d4441dfa626c61c9f62a9a5a304bc414d084e" {
		t.Errorf("the hash is %s", got)
	}
}

func TestEntryIsThereOnlyWithWhatItTellsOf(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.fill(1)
	refused := errors.New("refused")
	err := b.DB.InTx(t.Context(), func(tx postgres.Tx) error {
		return errors.Join(Append(t.Context(), tx, Entry{Action: "key.revoked", Target: "key/1"}), refused)
	})
	if !errors.Is(err, refused) {
		t.Fatal(err)
	}
	b.fill(1)
	b.wantWhole(2)
}

func TestEntryWithoutActionOrTargetIsRefused(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	for _, e := range []Entry{{Target: "key/1"}, {Action: "key.revoked"}} {
		if err := b.Append(t.Context(), e); err == nil {
			t.Errorf("%+v was taken", e)
		}
	}
	if err := b.Append(By(t.Context(), Actor{Name: "who"}), Entry{Action: "key.revoked", Target: "key/1"}); postgres.Constraint(errors.Unwrap(err)) == "" {
		t.Errorf("an actor of no kind was taken: %v", err)
	}
	b.wantWhole(0)
}

func TestManyWritersLeaveNoGap(t *testing.T) {
	t.Parallel()
	const writers, each = 20, 50
	b := newBook(t)
	undone := errors.New("undone")
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			ctx := By(t.Context(), Actor{Kind: KindToken, Name: fmt.Sprintf("writer-%d", w)})
			for i := range each {
				err := b.DB.InTx(ctx, func(tx postgres.Tx) error {
					if err := Append(ctx, tx, Entry{Action: "key.created", Target: fmt.Sprintf("key/%d", i)}); err != nil {
						return err
					}
					if i%5 == w%5 {
						return undone
					}
					return nil
				})
				if err != nil && !errors.Is(err, undone) {
					t.Errorf("writer %d: %v", w, err)
				}
			}
		})
	}
	all.Wait()
	b.wantWhole(writers * each * 4 / 5)
	if n := pgtest.Exec(t, b.url, `SELECT FROM audit_entries e JOIN audit_entries p ON p.seq = e.seq - 1 WHERE p.at > e.at`); n != 0 {
		t.Errorf("%d entries are dated before the one before them", n)
	}
}

func TestWriterKilledInItsTransactionLeavesNoGap(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.fill(2)
	killed := b.DB.InTx(t.Context(), func(tx postgres.Tx) error {
		var pid int
		if err := errors.Join(Append(t.Context(), tx, Entry{Action: "key.created", Target: "key/killed"}),
			tx.Raw(`SELECT pg_backend_pid()`).Row().Scan(&pid)); err != nil {
			return err
		}
		next := make(chan error, 1)
		go func() { next <- b.Append(t.Context(), Entry{Action: "key.created", Target: "key/next"}) }()
		b.awaitLock("audit.lock_head")
		pgtest.Exec(t, b.url, `SELECT pg_terminate_backend($1, 10000)`, pid)
		return <-next // it holds the head now, so this transaction cannot have it
	})
	if killed == nil {
		t.Fatal("the killed transaction was committed")
	}
	b.wantWhole(3)
	if p := b.page(Filter{}, 0, 1); p.Records[0].Target != "key/next" {
		t.Errorf("the last entry is of %s", p.Records[0].Target)
	}
}

// awaitLock returns when a statement waits for somebody else's lock.
func (b *book) awaitLock(statement string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	for pgtest.Exec(b.t, b.url, `SELECT FROM pg_stat_activity
		WHERE datname = current_database() AND wait_event_type = 'Lock' AND starts_with(query, '/* ' || $1::text || ' */')`, statement) == 0 {
		select {
		case <-ctx.Done():
			b.t.Fatalf("%s waits for nobody", statement)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// A clock that was set back, or a standby whose clock is behind, dates no entry before the
// one before it.
func TestTimeStandsStillWhereTheClockRunsBackwards(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.fill(1)
	b.tamper(`UPDATE audit_entries SET at = at + interval '1 hour'`)
	b.fill(2)
	p := b.page(Filter{}, 0, 0)
	if first := p.Records[2].At; !p.Records[1].At.Equal(first) || !p.Records[0].At.Equal(first) {
		t.Errorf("behind an entry of %s come %s and %s", first, p.Records[1].At, p.Records[0].At)
	}
}

func TestDetailsAreBounded(t *testing.T) {
	t.Parallel()
	for name, details := range map[string]map[string]string{
		"nothing":         nil,
		"a megabyte":      {"name": strings.Repeat("x", 1<<20)},
		"many long ones":  many(40, strings.Repeat("ä\x01", 3000)),
		"what is no text": {"name": "a\x00b\xff\x1b[31m", "\x00": "c"},
	} {
		text, err := EncodeDetails(details)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		again, _ := EncodeDetails(maps.Clone(details))
		var read map[string]string
		if json.Unmarshal([]byte(text), &read) != nil || len(read) != len(details) || len(text) > maxDetails || again != text || !utf8.ValidString(text) ||
			strings.Contains(text, `\u00`) {
			t.Errorf("%s: %d bytes, %.80s", name, len(text), text)
		}
	}
	if _, err := EncodeDetails(many(2000, "x")); err == nil {
		t.Error("details with 2000 names were taken")
	}
	text, _ := EncodeDetails(map[string]string{"b": "2", "a": strings.Repeat("é", maxValue+1)})
	if want := `{"a":"` + strings.Repeat("é", maxValue-1) + `…","b":"2"}`; text != want {
		t.Errorf("a long value became %.40s… (%d bytes)", text, len(text))
	}
}

func many(n int, value string) map[string]string {
	details := map[string]string{}
	for i := range n {
		details[fmt.Sprintf("detail_%04d", i)] = value
	}
	return details
}

func TestWhatNobodyCanStoreIsReplaced(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	odd := "a\x00b\xff" + strings.Repeat("ü", 1000)
	if err := b.Append(By(t.Context(), Actor{Kind: KindNobody, ID: odd, Name: odd, Address: odd, RequestID: odd}), Entry{Action: odd, Target: odd}); err != nil {
		t.Fatal(err)
	}
	b.wantWhole(1)
	if name := b.page(Filter{}, 0, 0).Records[0].Actor.Name; utf8.RuneCountInString(name) != maxText || !strings.HasPrefix(name, "a\uFFFDb\uFFFDüü") {
		t.Errorf("the name is %.20q", name)
	}
}

func TestWitnessTellsOfTheEndOnce(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	var out bytes.Buffer
	w := NewWitness(b.Log, slog.New(slog.NewTextHandler(&out, nil)))
	told := func() string {
		t.Helper()
		out.Reset()
		if n, err := w.RunOnce(t.Context()); n != 0 || err != nil {
			t.Fatal(n, err)
		}
		return out.String()
	}
	if line := told(); line != "" {
		t.Errorf("of an empty log it says %q", line)
	}
	b.fill(3)
	a, err := b.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if line := told(); !strings.Contains(line, "audit_seq=3 audit_hash="+hex.EncodeToString(a.Hash)) {
		t.Errorf("of three entries it says %q", line)
	}
	if line := told(); line != "" {
		t.Errorf("and again it says %q", line)
	}
}

func TestPageGoesOnWhereTheLastOneEnded(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	b.fill(250)
	var seen []int64
	for before, pages := int64(0), 0; ; pages++ {
		p := b.page(Filter{}, before, 1000)
		for _, r := range p.Records {
			seen = append(seen, r.Seq)
		}
		if before = p.Next; before == 0 {
			if pages != 2 || p.Partial {
				t.Errorf("page %d is the last", pages)
			}
			break
		}
	}
	for i, seq := range seen {
		if seq != int64(250-i) {
			t.Fatalf("entry %d is the %d.", seq, i)
		}
	}
	if len(seen) != 250 {
		t.Errorf("%d entries, want 250", len(seen))
	}
	if p := b.page(Filter{}, 0, 250); len(p.Records) != MaxPage || p.Next != 151 {
		t.Errorf("a page has %d entries and ends before %d", len(p.Records), p.Next)
	}
}

// entries writes many without their hashes: for what only reads. Half of them are of one
// operator, who signed in again and again.
const entries = `INSERT INTO audit_entries (seq, at, actor_kind, actor_id, actor, address, request_id, action, account_id, target, details, previous_hash, hash)
SELECT i, now(), 'operator', '', 'operator-' || CASE WHEN i % 2 = 0 THEN 0 ELSE i % 50 END, '192.0.2.1', '', CASE WHEN i % 20000 = 7 THEN 'operator.disabled' ELSE 'operator.signed_in' END,
       CASE WHEN i % 30000 = 11 THEN $1::uuid END, 'operator/' || CASE WHEN i % 2 = 0 THEN 0 ELSE i % 1000 END, '{}', decode(repeat('00', 32), 'hex'), sha256(i::text::bytea)
FROM generate_series(1, $2::integer) i`

func TestPageOfEachFilterFindsAllThatMatches(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	pgtest.Exec(t, b.url, entries, account, 100_000)
	for _, c := range []struct {
		f       Filter
		matches int
		partial bool // some page ends before it is full
	}{
		{Filter{Target: "operator/7"}, 100, false},
		{Filter{Target: "operator/0", Action: "operator.disabled"}, 0, true},
		{Filter{Actor: "operator-7"}, 2000, false},
		{Filter{Action: "operator.disabled"}, 5, true},
		{Filter{AccountID: account}, 4, true},
		{Filter{AccountID: account, Action: "operator.disabled"}, 0, true},
		{Filter{Target: "operator/7", Actor: "operator-7"}, 100, false},
		{Filter{Target: "operator/7", Actor: "operator-8"}, 0, false},
		{Filter{Target: "operator/7", Action: "operator.disabled"}, 5, false},
		{Filter{Actor: "operator-7", Action: "operator.disabled"}, 5, true},
		{Filter{Actor: "operator-11", AccountID: account}, 4, true},
		{Filter{Actor: "operator-0", AccountID: account}, 0, true},
		{Filter{Target: "operator/7", Actor: "operator-7", Action: "operator.disabled", AccountID: account}, 0, false},
		{Filter{Target: "operator/none"}, 0, false},
	} {
		found, partial := 0, false
		last := int64(1 << 62)
		for before := int64(0); ; {
			p := b.page(c.f, before, 40)
			for _, r := range p.Records {
				if r.Seq >= last || c.f.Target != "" && r.Target != c.f.Target || c.f.Actor != "" && r.Actor.Name != c.f.Actor ||
					c.f.Action != "" && r.Action != c.f.Action || c.f.AccountID != uuid.Nil && r.AccountID != c.f.AccountID {
					t.Fatalf("%+v: found %+v behind %d", c.f, r, last)
				}
				last = r.Seq
			}
			found += len(p.Records)
			if p.Partial && (p.Next == 0 || len(p.Records) >= 40) || !p.Partial && p.Next != 0 && len(p.Records) != 40 {
				t.Fatalf("%+v: a page with %d entries is partial %t and goes on before %d", c.f, len(p.Records), p.Partial, p.Next)
			}
			partial = partial || p.Partial
			if before = p.Next; before == 0 {
				break
			}
		}
		if found != c.matches || partial != c.partial {
			t.Errorf("%+v: %d found, some page partial %t, want %d and %t", c.f, found, partial, c.matches, c.partial)
		}
	}
}

// With 100,000 entries no statement reads the table, whichever plan PostgreSQL makes.
func TestNoStatementReadsTheTable(t *testing.T) {
	t.Parallel()
	b := newBook(t)
	pgtest.Exec(t, b.url, entries, account, 100_000)
	pgtest.Exec(t, b.url, `ANALYZE audit_entries`)
	conn, err := pgx.Connect(t.Context(), pgtest.Direct(b.url))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) }) // the test is over
	none := "'', '', NULL, ''"
	for i, c := range []struct {
		sql, args string
		atMost    float64
	}{
		{sqlPage, "50000, 101, " + none + ", 101", 101},
		{sqlPage, "50000, 2000, '', 'operator.disabled', NULL, '', 101", maxWalk},
		{sqlPage, "50000, 2000, '', '', '" + account.String() + "', '', 101", maxWalk},
		{sqlPageOfTarget, "50000, 101, '', '', NULL, 'operator/7', 101", 101},
		{sqlPageOfTarget, "50000, 2000, 'operator-7', 'operator.disabled', NULL, 'operator/7', 101", maxWalk},
		{sqlPageOfTarget, "50000, 101, '', '', NULL, 'operator/0', 101", 101},
		{sqlPageOfTarget, "50000, 2000, '', 'operator.disabled', NULL, 'operator/0', 101", maxWalk},
		{sqlPageOfTarget, "50000, 101, '', '', NULL, 'operator/none', 101", 0},
		{sqlPageOfActor, "50000, 101, 'operator-0', '', NULL, '', 101", 101},
		{sqlPageOfActor, "50000, 2000, 'operator-0', 'operator.disabled', NULL, '', 101", maxWalk},
		{sqlPageOfActor, "90000, 101, 'operator-7', '', NULL, '', 101", 101},
		{sqlPageOfActor, "90000, 2000, 'operator-7', 'operator.disabled', '" + account.String() + "', '', 101", maxWalk},
		{sqlBatch, "50000, 51000, 1001", batchSize},
		{sqlEnds, "", 2},
		{sqlNow, "50000", 1},
	} {
		if _, err := conn.Exec(t.Context(), fmt.Sprintf(`PREPARE s%d AS %s`, i, c.sql)); err != nil {
			t.Fatal(err)
		}
		for _, mode := range []string{"force_generic_plan", "force_custom_plan"} {
			execute := fmt.Sprintf(`EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE s%d(%s)`, i, c.args)
			if c.args == "" {
				execute = fmt.Sprintf(`EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE s%d`, i)
			}
			if _, err := conn.Exec(t.Context(), `SET plan_cache_mode = `+mode); err != nil {
				t.Fatal(err)
			}
			var plans []struct{ Plan node }
			if err := conn.QueryRow(t.Context(), execute).Scan(&plans); err != nil {
				t.Fatal(err)
			}
			scans, rows := plans[0].Plan.reads()
			if len(scans) == 0 && c.sql != sqlEnds || rows > c.atMost {
				t.Errorf("%.30s (%s): reads %g rows by %v, want %g at most", c.sql, mode, rows, scans, c.atMost)
			}
			for _, kind := range scans {
				if kind == "Seq Scan" {
					t.Errorf("%.30s (%s): reads the entries with a %s", c.sql, mode, kind)
				}
			}
		}
	}
}

// node is a step of a plan.
type node struct {
	Type    string  `json:"Node Type"`
	Table   string  `json:"Relation Name"`
	Rows    float64 `json:"Actual Rows"`
	Loops   float64 `json:"Actual Loops"`
	Removed float64 `json:"Rows Removed by Filter"`
	Plans   []node  `json:"Plans"`
}

// reads is how the entries are read, and how many of them.
func (n node) reads() (scans []string, rows float64) {
	if n.Table == "audit_entries" {
		scans, rows = []string{n.Type}, (n.Rows+n.Removed)*max(n.Loops, 1)
	}
	for _, p := range n.Plans {
		s, r := p.reads()
		scans, rows = append(scans, s...), rows+r
	}
	return scans, rows
}
