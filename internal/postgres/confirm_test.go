package postgres_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
)

// Whoever ends the wait for a standby that is away gets a success for an answer, beside
// which PostgreSQL only warns. Not parallel: the standby is everybody's.
func TestCommitThatNoStandbyHasIsNotConfirmed(t *testing.T) { //nolint:paralleltest // see above
	url := migrated(t)
	db := open(t, pgtest.Synchronous(url), postgres.Options{})
	insert := func(ctx context.Context) error {
		return db.Confirmed(ctx, func(tx postgres.Tx) error {
			return tx.Exec(`/* test.insert */ INSERT INTO instances (id) VALUES (gen_random_uuid())`).Error
		})
	}
	lock := func(ctx context.Context) error {
		return db.Confirmed(ctx, func(tx postgres.Tx) error {
			var ids []string
			return tx.Raw(`/* test.lock */ SELECT id FROM instances FOR NO KEY UPDATE`).Scan(&ids).Error
		})
	}
	if err := errors.Join(insert(t.Context()), lock(t.Context())); err != nil {
		t.Fatal(err)
	}

	back := pgtest.StandbyAway(t, url)
	for name, f := range map[string]func(context.Context) error{"test.insert": insert, "test.lock": lock} {
		done := make(chan error, 1)
		go func() { done <- f(t.Context()) }()
		pgtest.Exec(t, url, `SELECT pg_cancel_backend($1)`, pgtest.AwaitWaiting(t, url, name))
		err := <-done
		if !errors.Is(err, postgres.ErrUnconfirmed) || !postgres.IsOutcomeUnknown(err) || !postgres.IsTransient(err) {
			t.Errorf("%s, whose wait was cancelled: %v", name, err)
		}
		// The same session, and nothing of it is left.
		if err := db.Confirmed(t.Context(), func(tx postgres.Tx) error { return tx.Exec(`/* test.read */ SELECT 1`).Error }); err != nil {
			t.Errorf("a read after it: %v", err)
		}
	}
	if n := pgtest.Exec(t, url, `SELECT 1 FROM instances`); n != 2 {
		t.Errorf("%d rows are visible, want both", n)
	}

	done := make(chan error, 1)
	go func() { done <- lock(t.Context()) }()
	pgtest.AwaitWaiting(t, url, "test.lock")
	back()
	if err := <-done; err != nil {
		t.Errorf("with the standby back: %v", err)
	}
}

// A database transaction of several statements is confirmed by its commit. Not parallel:
// the standby is everybody's.
func TestTransactionThatNoStandbyHasIsNotConfirmed(t *testing.T) { //nolint:paralleltest // see above
	url := migrated(t)
	db := open(t, pgtest.Synchronous(url), postgres.Options{})
	insert := func() error {
		return db.ConfirmedTx(t.Context(), func(tx postgres.Tx) error {
			for range 2 {
				if err := tx.Exec(`/* test.insert */ INSERT INTO instances (id) VALUES (gen_random_uuid())`).Error; err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := insert(); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused by the caller")
	if err := db.ConfirmedTx(t.Context(), func(tx postgres.Tx) error {
		return errors.Join(tx.Exec(`/* test.insert */ INSERT INTO instances (id) VALUES (gen_random_uuid())`).Error, refused)
	}); !errors.Is(err, refused) {
		t.Errorf("a transaction that was given up: %v", err)
	}
	if n := pgtest.Exec(t, url, `SELECT 1 FROM instances`); n != 2 {
		t.Fatalf("%d rows are visible, want the first two", n)
	}

	back := pgtest.StandbyAway(t, url)
	done := make(chan error, 1)
	go func() { done <- insert() }()
	endCommit(t, url)
	if err := <-done; !errors.Is(err, postgres.ErrUnconfirmed) || !postgres.IsOutcomeUnknown(err) || !postgres.IsTransient(err) {
		t.Errorf("a transaction whose wait was cancelled: %v", err)
	}
	// The same session, and nothing of it is left; what reads only waits for nobody.
	if err := db.ConfirmedTx(t.Context(), func(tx postgres.Tx) error { return tx.Exec(`/* test.read */ SELECT 1`).Error }); err != nil {
		t.Errorf("a read after it: %v", err)
	}
	if n := pgtest.Exec(t, url, `SELECT 1 FROM instances`); n != 4 {
		t.Errorf("%d rows are visible, want all four", n)
	}
	back()
	if err := insert(); err != nil {
		t.Errorf("with the standby back: %v", err)
	}
}

// endCommit ends the wait of a commit for the standby. It is the end of a transaction of
// several statements, and has no name of ours.
func endCommit(t *testing.T, url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for pgtest.Exec(t, url, `SELECT pg_cancel_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND wait_event = 'SyncRep' AND query = 'commit'`) == 0 {
		select {
		case <-ctx.Done():
			t.Fatal("no commit waits for the standby")
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// A server that went away costs each statement under way its answer, and no more.
func TestServerThatWentAwayIsFoundOutOnce(t *testing.T) {
	t.Parallel()
	const conns = 5
	url := migrated(t)
	db := open(t, url, postgres.Options{MaxConns: conns})
	var together, all sync.WaitGroup
	together.Add(conns)
	for range conns { // each holds its connection until all have one
		all.Go(func() {
			err := db.InTx(t.Context(), func(postgres.Tx) error {
				together.Done()
				together.Wait()
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if idle := db.PoolStats().Idle; idle != conns {
		t.Fatalf("%d connections are at rest, want %d", idle, conns)
	}
	pgtest.Exec(t, url, `SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	failed := 0
	for range 2 * conns {
		if err := db.Conn(t.Context()).Exec(`SELECT 1`).Error; err != nil {
			failed++
			if !postgres.IsTransient(err) {
				t.Errorf("%v: is not told as transient", err)
			}
		}
	}
	if failed > 1 {
		t.Errorf("%d statements failed, want 1 at most", failed)
	}
}

func TestTransientIsWhatMayWorkInAMoment(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]bool{
		"40001": true, "40P01": true, "55P03": true, "53300": true, "53100": true, "57P01": true, "08006": true,
		"23505": false, "23514": false, "42P01": false, "42501": false, "22001": false,
	} {
		if got := postgres.IsTransient(&pgconn.PgError{Code: code}); got != want {
			t.Errorf("%s: %v, want %v", code, got, want)
		}
	}
	if !postgres.IsTransient(driver.ErrBadConn) { // what database/sql says of several dead connections
		t.Error("dead connections are not transient")
	}
	if postgres.IsTransient(nil) || postgres.IsTransient(errors.New("something else")) {
		t.Error("taken for transient")
	}
}
