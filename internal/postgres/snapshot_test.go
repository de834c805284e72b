package postgres_test

import (
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
)

func TestSnapshotSeesOneMomentAndCanOnlyRead(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	db := open(t, url, postgres.Options{})
	const insert = `INSERT INTO instances (id) VALUES (gen_random_uuid())`
	count := func(tx postgres.Tx) (n int) {
		t.Helper()
		if err := tx.Raw(`/* test.count */ SELECT count(*) FROM instances`).Row().Scan(&n); err != nil {
			t.Error(err)
		}
		return n
	}
	err := db.Snapshot(t.Context(), time.Minute, func(tx postgres.Tx) error {
		before := count(tx)
		pgtest.Exec(t, url, insert)
		if now := count(tx); now != before {
			t.Errorf("the second statement sees %d rows, the first saw %d", now, before)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := count(db.Conn(t.Context())); n != 1 {
		t.Errorf("afterwards there are %d rows, want 1", n)
	}
	err = db.Snapshot(t.Context(), time.Minute, func(tx postgres.Tx) error { return tx.Exec(`/* test.insert */ ` + insert).Error })
	if got := postgres.Describe(err); got != `SQLSTATE 25006 constraint=""` {
		t.Errorf("a write became %q", got)
	}
}

// The limit is the transaction's alone: it neither outlives it, nor is it the session's.
func TestSnapshotBoundsEachStatement(t *testing.T) {
	t.Parallel()
	db := open(t, migrated(t), postgres.Options{MaxConns: 1})
	setting := func(tx postgres.Tx) (s string) {
		t.Helper()
		if err := tx.Raw(`/* test.setting */ SHOW statement_timeout`).Row().Scan(&s); err != nil {
			t.Error(err)
		}
		return s
	}
	usual := setting(db.Conn(t.Context()))
	err := db.Snapshot(t.Context(), 90*time.Second, func(tx postgres.Tx) error {
		if got := setting(tx); got != "90s" {
			t.Errorf("inside, a statement may take %s, want 90s", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := setting(db.Conn(t.Context())); got != usual || got == "90s" {
		t.Errorf("afterwards a statement may take %s, before %s", got, usual)
	}
	err = db.Snapshot(t.Context(), 50*time.Millisecond, func(tx postgres.Tx) error { return tx.Exec(`/* test.sleep */ SELECT pg_sleep(60)`).Error })
	if got := postgres.Describe(err); got != `SQLSTATE 57014 constraint=""` {
		t.Errorf("a statement beyond the limit became %q", got)
	}
}
