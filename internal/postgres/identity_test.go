package postgres_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/postgres"
)

func TestTheFirstInstanceNotesWhichDatabaseThisIsAndOthersOnlyCompare(t *testing.T) {
	t.Parallel()
	dbURL := pgtest.Direct(pgtest.URL(t))
	db := open(t, dbURL, postgres.Options{})
	n, err := db.Identity(t.Context())
	if err != nil || n.Was != (postgres.Identity{}) || n.Differs() {
		t.Fatalf("before anybody noted it: %+v (%v)", n, err)
	}
	if system, number, ok := strings.Cut(n.Now.System, "/"); !ok || system == "" || number == "" || n.Now.Timeline < 1 {
		t.Errorf("the identity is %+v", n.Now)
	}

	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			n, err := db.NoteIdentity(t.Context())
			if err != nil || n.Was != n.Now || n.Differs() || time.Since(n.At) > time.Hour {
				t.Errorf("noted by eight at once: %+v (%v)", n, err)
			}
		})
	}
	wg.Wait()
}

func TestAnotherIdentityIsToldUntilItIsAccepted(t *testing.T) {
	t.Parallel()
	dbURL := pgtest.Direct(pgtest.URL(t))
	db := open(t, dbURL, postgres.Options{})
	if _, err := db.NoteIdentity(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, change := range []string{
		`UPDATE database_identity SET timeline = timeline + 1`,
		`UPDATE database_identity SET timeline = timeline - 1`,
		`UPDATE database_identity SET system_identifier = system_identifier || '0'`,
	} {
		pgtest.Exec(t, dbURL, change+`, noted_at = '2020-02-02Z'`)
		n, err := db.NoteIdentity(t.Context())
		if err != nil || !n.Differs() || n.At.Year() != 2020 {
			t.Errorf("%s: %+v (%v)", change, n, err)
		}
		n, err = db.AcceptIdentity(t.Context())
		if err != nil || n.Differs() || n.Was != n.Now || n.At.Year() == 2020 {
			t.Errorf("%s, accepted: %+v (%v)", change, n, err)
		}
	}
}

func TestWhatARoleLacksIsToldByTableAndPrivilege(t *testing.T) {
	t.Parallel()
	direct := pgtest.Direct(pgtest.URL(t))
	db := open(t, pgtest.ThroughPgBouncer(t, direct), postgres.Options{PgBouncer: true})
	want := func(list ...string) {
		t.Helper()
		got, err := db.Lacking(t.Context())
		if err != nil || strings.Join(got, ", ") != strings.Join(list, ", ") {
			t.Errorf("lacking %q (%v), want %q", got, err, list)
		}
	}
	want()
	pgtest.Exec(t, direct, `REVOKE INSERT, UPDATE ON transactions FROM `+pgtest.AppRole+`; REVOKE DELETE ON instances FROM `+pgtest.AppRole)
	want("DELETE on instances", "INSERT on transactions", "UPDATE on transactions")
	if left, err := postgres.Grant(t.Context(), direct, pgtest.AppRole); err != nil || len(left) > 0 {
		t.Fatal(left, err)
	}
	want()
}

func TestTablesThatWereChangedByHandAreToldApart(t *testing.T) {
	t.Parallel()
	direct := pgtest.Direct(pgtest.URL(t))
	db := open(t, direct, postgres.Options{})
	want := func(list ...string) {
		t.Helper()
		got, err := db.Unfit(t.Context())
		if err != nil || strings.Join(got, ", ") != strings.Join(list, ", ") {
			t.Errorf("unfit %q (%v), want %q", got, err, list)
		}
	}
	want()
	pgtest.Exec(t, direct, `CREATE TABLE somebody_elses (a integer)`) // and none of our business
	want()
	pgtest.Exec(t, direct, `ALTER TABLE arrivals DROP CONSTRAINT arrivals_pkey; ALTER TABLE provider_calls SET UNLOGGED; DROP TABLE resolutions;
		UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'transactions_nonce'::regclass`)
	want("arrivals has no primary key", "provider_calls is unlogged, and a crash empties it", "resolutions is missing",
		"the index transactions_nonce is not valid")
}
