package pgproxy_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/pgtest/pgproxy"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	insert = `/* proxy.insert */ INSERT INTO notes (note) VALUES ($1::text)`
	read   = `/* proxy.read */ SELECT count(*) FROM notes`
)

// begin is a database with a table for notes, a proxy in front of it, and one
// connection through the proxy and one beside it.
func begin(t *testing.T) (proxy *pgproxy.Proxy, through, beside *pgx.Conn) {
	t.Helper()
	url := pgtest.Direct(pgtest.URL(t))
	pgtest.Exec(t, url, `CREATE TABLE notes (note text NOT NULL)`)
	proxy = pgproxy.New(t, url)
	return proxy, connect(t, proxy.URL()), connect(t, url)
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func notes(t *testing.T, conn *pgx.Conn) (n int) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), read).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// wantNotes waits until there are that many.
func wantNotes(t *testing.T, conn *pgx.Conn, n int) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for notes(t, conn) != n {
		if time.Now().After(deadline) {
			t.Fatalf("%d notes, want %d", notes(t, conn), n)
		}
	}
}

// write executes the insert in the background.
func write(t *testing.T, conn *pgx.Conn) <-chan error {
	written := make(chan error, 1)
	go func() {
		_, err := conn.Exec(t.Context(), insert, "a note")
		written <- err
	}()
	return written
}

func TestRoundTripsAreCountedByTheStatementsInThem(t *testing.T) {
	t.Parallel()
	proxy, conn, _ := begin(t)
	names := func() (names []string) {
		t.Helper()
		for _, r := range proxy.Rounds() {
			if !r.Done {
				t.Errorf("%v has no answer", r.Statements)
			}
			names = append(names, r.Statements...)
			for _, p := range r.Prepared {
				names = append(names, "prepare "+p)
			}
		}
		proxy.Reset()
		return names
	}
	for _, step := range []struct {
		what string
		do   func() error
		want []string
	}{
		{"a first statement is prepared", func() error { _, err := conn.Exec(t.Context(), insert, "first"); return err },
			[]string{"prepare proxy.insert", "proxy.insert"}},
		{"a second use costs one", func() error { _, err := conn.Exec(t.Context(), insert, "second"); return err },
			[]string{"proxy.insert"}},
		{"a simple query", func() error { return conn.Ping(t.Context()) }, []string{"-- ping"}},
		{"an explicit transaction", func() error {
			return pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
				_, err := tx.Exec(t.Context(), insert, "third")
				return err
			})
		}, []string{"begin", "proxy.insert", "commit"}},
		{"a pipeline is one round trip", func() error {
			b := &pgx.Batch{}
			b.Queue(insert, "fourth")
			b.Queue(insert, "fifth")
			return conn.SendBatch(t.Context(), b).Close()
		}, []string{"proxy.insert", "proxy.insert"}},
	} {
		before := len(proxy.Rounds())
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		if before != 0 {
			t.Fatal("Reset left something")
		}
		rounds := proxy.Rounds()
		if got := names(); !slices.Equal(got, step.want) {
			t.Errorf("%s: %q, want %q", step.what, got, step.want)
		}
		if step.what == "a pipeline is one round trip" && len(rounds) != 1 {
			t.Errorf("%d round trips", len(rounds))
		}
		if step.what == "an explicit transaction" && (!rounds[0].InTransaction || rounds[2].InTransaction) {
			t.Errorf("where the transaction was open is not told: %+v", rounds)
		}
	}
}

func TestAnErrorIsToldByItsSQLState(t *testing.T) {
	t.Parallel()
	proxy, conn, _ := begin(t)
	proxy.Reset()
	_, err := conn.Exec(t.Context(), `/* proxy.wrong */ SELECT 1/0`)
	if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "22012" {
		t.Fatalf("the error did not come through: %v", err)
	}
	rounds := proxy.Rounds()
	if last := rounds[len(rounds)-1]; last.SQLState != "22012" || last.InTransaction || !last.Done {
		t.Errorf("%+v", last)
	}
}

func TestCutWhenAskedTheServerNeverSeesTheStatement(t *testing.T) {
	t.Parallel()
	proxy, through, beside := begin(t)
	cut := proxy.Cut("proxy.insert", pgproxy.Asked)
	if err := <-write(t, through); err == nil {
		t.Error("the client was told that all went well")
	}
	cut.Wait(t)
	wantNotes(t, beside, 0)
	if err := <-write(t, connect(t, proxy.URL())); err != nil {
		t.Errorf("a trap is for one statement: %v", err)
	}
	wantNotes(t, beside, 1)
}

func TestCutWhenAnsweredTheServerHasCommitted(t *testing.T) {
	t.Parallel()
	proxy, through, beside := begin(t)
	cut := proxy.Cut("proxy.insert", pgproxy.Answered)
	if err := <-write(t, through); err == nil {
		t.Error("the client was told that all went well")
	}
	cut.Wait(t)
	if n := notes(t, beside); n != 1 {
		t.Errorf("%d notes: the cut came before the commit", n)
	}
}

func TestATrapHoldsAStatementOnEitherSideOfItsCommit(t *testing.T) {
	t.Parallel()
	for point, committed := range map[pgproxy.Point]int{pgproxy.Asked: 0, pgproxy.Answered: 1} {
		proxy, through, beside := begin(t)
		trap := proxy.Trap("proxy.insert", point)
		written := write(t, through)
		trap.Wait(t)
		if n := notes(t, beside); n != committed {
			t.Errorf("point %d: %d notes, want %d", point, n, committed)
		}
		select {
		case err := <-written:
			t.Errorf("point %d: the client did not have to wait: %v", point, err)
		default:
		}
		trap.Pass()
		if err := <-written; err != nil {
			t.Errorf("point %d: %v", point, err)
		}
		wantNotes(t, beside, 1)
	}
}

func TestTrapsForOneStatementTakeOneExecutionEach(t *testing.T) {
	t.Parallel()
	proxy, through, _ := begin(t)
	seen, cut := proxy.Trap("proxy.insert", pgproxy.Answered), proxy.Cut("proxy.insert", pgproxy.Answered)
	seen.Pass()
	if err := <-write(t, through); err != nil {
		t.Fatal(err)
	}
	seen.Wait(t)
	select {
	case <-cut.Sprung():
		t.Error("one execution sprang two traps")
	default:
	}
	if err := <-write(t, through); err == nil {
		t.Error("the second trap did nothing")
	}
}

func TestAStrandedStatementArrivesAfterItsClientHasGivenUp(t *testing.T) {
	t.Parallel()
	proxy, through, beside := begin(t)
	trap := proxy.Trap("proxy.insert", pgproxy.Asked)
	written := write(t, through)
	trap.Wait(t)
	trap.Strand()
	if err := <-written; err == nil {
		t.Error("the client was told that all went well")
	}
	if n := notes(t, beside); n != 0 {
		t.Errorf("%d notes before the statement arrived", n)
	}
	trap.Pass()
	wantNotes(t, beside, 1)
}

func TestDownCutsAndRefusesUntilUp(t *testing.T) {
	t.Parallel()
	proxy, through, beside := begin(t)
	held := proxy.Trap("proxy.insert", pgproxy.Asked)
	written := write(t, through)
	held.Wait(t)
	proxy.Down()
	if err := <-written; err == nil {
		t.Error("a connection outlived the database")
	}
	if conn, err := pgx.Connect(t.Context(), proxy.URL()); err == nil {
		_ = conn.Close(t.Context())
		t.Error("a new connection was let in")
	}
	proxy.Up()
	if err := <-write(t, connect(t, proxy.URL())); err != nil {
		t.Error(err)
	}
	wantNotes(t, beside, 1)
}

func TestBrokenOffWithinAStatementNothingIsDoneAndWithinAnAnswerEverything(t *testing.T) {
	t.Parallel()
	proxy, _, beside := begin(t)
	for at, committed := range map[pgproxy.Point]int{pgproxy.Asked: 0, pgproxy.Answered: 1} {
		before := notes(t, beside)
		for _, length := range []int{1, 7, 40, 1_000_003} {
			cut := proxy.CutWithin("proxy.insert", at, length)
			through := connect(t, proxy.URL())
			if err := <-write(t, through); err == nil {
				t.Errorf("point %d, %d bytes: the client was told that all went well", at, length)
			}
			cut.Wait(t)
			before += committed
			wantNotes(t, beside, before)
		}
	}
}

func TestASlowOrSlicedNetworkDeliversEverything(t *testing.T) {
	t.Parallel()
	proxy, through, beside := begin(t)
	proxy.Slice(true)
	proxy.Slow(time.Millisecond)
	if err := <-write(t, through); err != nil {
		t.Error(err)
	}
	if err := <-write(t, connect(t, proxy.URL())); err != nil {
		t.Error(err)
	}
	proxy.Slow(0)
	proxy.Slice(false)
	wantNotes(t, beside, 2)
}

func TestASilentNetworkDeliversLate(t *testing.T) {
	t.Parallel()
	proxy, through, beside := begin(t)
	if err := <-write(t, through); err != nil { // prepares it
		t.Fatal(err)
	}
	proxy.Hold()
	written := write(t, through)
	select {
	case err := <-written:
		t.Errorf("the client did not have to wait: %v", err)
	case <-time.After(50 * time.Millisecond): // enough for it, if it came through
	}
	if n := notes(t, beside); n != 1 {
		t.Errorf("%d notes while nothing is delivered", n)
	}
	proxy.Release()
	if err := <-written; err != nil {
		t.Error(err)
	}
	wantNotes(t, beside, 2)
}

func TestBusyCountsTheConnectionsOnWhichSomebodyWaits(t *testing.T) {
	t.Parallel()
	proxy, through, _ := begin(t)
	connect(t, proxy.URL()) // rests
	want := func(n int) {
		t.Helper()
		limit := time.After(20 * time.Second)
		for proxy.Busy() != n {
			select {
			case <-time.After(time.Millisecond):
			case <-limit:
				t.Fatalf("%d connections are busy, not %d", proxy.Busy(), n)
			}
		}
	}
	want(0)
	proxy.Hold()
	written := write(t, through)
	began := make(chan error, 1)
	go func() {
		conn, err := pgx.Connect(t.Context(), proxy.URL())
		if err == nil {
			err = conn.Close(t.Context())
		}
		began <- err
	}()
	want(2) // one asks for an answer, one for its session
	proxy.Release()
	if err := errors.Join(<-written, <-began); err != nil {
		t.Error(err)
	}
	want(0)
}

func TestEverythingThatClientsSayCanBeRead(t *testing.T) {
	t.Parallel()
	proxy, through, _ := begin(t)
	var said bytes.Buffer
	proxy.Copy(&said)
	if _, err := through.Exec(t.Context(), insert, "a parameter to be found"); err != nil {
		t.Fatal(err)
	}
	proxy.Copy(nil)
	for _, want := range []string{insert, "a parameter to be found"} {
		if !bytes.Contains(said.Bytes(), []byte(want)) {
			t.Errorf("%q was not copied", want)
		}
	}
}

func TestAClientThatPrefersEncryptionIsToldThatThereIsNone(t *testing.T) {
	t.Parallel()
	proxy, _, _ := begin(t)
	cfg, err := pgx.ParseConfig(proxy.URL()[:len(proxy.URL())-len("disable")] + "prefer")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
