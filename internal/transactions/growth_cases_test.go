package transactions

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/idem"
)

// What is purged is purged for its room, and the next payments take that room.

const (
	// perCycle is how many nonces begin in a cycle: a hundred pages of keys, and ten of
	// their primary key.
	perCycle = 400

	// cycles: from the second on, a purge runs beside the payments. What it empties of an
	// index is taken again two cycles later, when nobody can be on the way there any more.
	cycles = 4

	// cycleAge is how far the clock leaps from one cycle to the next: longer than
	// anything is kept that is purged at all.
	cycleAge = 91 * 24 * time.Hour

	// fewPages is how much more a table or an index may have after the last cycle than
	// at any time before it, because it is chance what a purge has reached already when a
	// payment looks for room.
	fewPages = 5
)

// begins pays for that many nonces, one after the other, each of which the provider calls
// back about, and purges beside them until nothing is left that can go.
//
// Not several at once: PostgreSQL extends a table by twenty pages for each connection
// that waits to extend it, and each connection fills a page of its own. With eight of
// them the same 400 rows had from 10 to 66 pages, which says nothing about a purge.
func (w *world) begins(cycle int) {
	w.t.Helper()
	var commands []Command
	for n := range perCycle {
		name := fmt.Sprintf("%d-%d", cycle, n)
		commands = append(commands, w.command(w.instance, "nonce-"+name, w.body("order-"+name, nil)))
	}
	var paying, purging sync.WaitGroup
	paying.Go(func() {
		for _, cmd := range commands {
			a, err := w.service.Execute(w.t.Context(), cmd)
			if err != nil || a.Status != http.StatusCreated {
				w.t.Errorf("%s: %d, %v", cmd.Nonce, a.Status, err)
				return
			}
			m, err := json.Marshal(said{
				ID: "message-" + cmd.Nonce, AccountID: cmd.AccountID.String(), Mode: cmd.Mode, Reference: a.TransactionID.String(), Outcome: "approved",
			})
			if err != nil {
				w.t.Error(err)
				return
			}
			heard, _, err := w.service.Callback(w.t.Context(), w.psp.Name(), http.Header{signatureHeader: {goodSignature}}, m)
			if err != nil || heard != HeardKnown {
				w.t.Errorf("%s: the callback is %q, %v", cmd.Nonce, heard, err)
			}
		}
	})
	paid := make(chan struct{})
	purging.Go(func() {
		purge := idem.Purge{DB: w.db, Retention: idem.DefaultRetention}
		for over := false; ; {
			n, err := purge.RunOnce(w.t.Context())
			if err != nil {
				w.t.Error(err)
				return
			}
			if over && n == 0 {
				return
			}
			select {
			case <-paid:
				over = true
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	paying.Wait()
	if _, err := w.arrivals.Flush(w.t.Context()); err != nil {
		w.t.Error(err)
	}
	close(paid)
	purging.Wait()
}

// relation is a table, one of its indexes, or what lies beside it because it is too
// long for it.
type relation struct{ Table, Name string }

// pages is how many pages each has.
func (w *world) pages() map[relation]int {
	w.t.Helper()
	var rows []struct {
		Table, Name string
		Pages       int
	}
	if err := w.owner().Conn(w.t.Context()).Raw(`
		SELECT t.relname AS table, c.relname AS name, pg_relation_size(c.oid) / current_setting('block_size')::bigint AS pages
		FROM pg_class t JOIN pg_class c ON c.oid = t.oid OR c.oid = t.reltoastrelid
		     OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid IN (t.oid, t.reltoastrelid))
		WHERE t.relnamespace = 'public'::regnamespace AND t.relkind = 'r'`).Scan(&rows).Error; err != nil {
		w.t.Fatal(err)
	}
	pages := map[relation]int{}
	for _, r := range rows {
		pages[relation{r.Table, r.Name}] = r.Pages
	}
	return pages
}

func TestH66RoomOfWhatIsPurgedBesideNewPaymentsIsUsedAgain(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, serverOfItsOwn(t, ""), "growing") // elsewhere, other tests' transactions would keep pages from being used again
	clock := w.takeClock()
	w.sql(`ALTER TABLE callbacks ALTER received_at SET DEFAULT test_clock.clock_timestamp()`) // a default is no statement: it has the real one
	most := map[relation]int{}
	for cycle := range cycles {
		clock.ahead(time.Duration(cycle) * cycleAge)
		w.begins(cycle)
		w.sql(`VACUUM`)
		pages := w.pages()
		if pages[relation{"idempotency_keys", "idempotency_keys"}] < perCycle/5 || t.Failed() {
			t.Fatalf("cycle %d: %v", cycle, pages)
		}
		for r, n := range pages {
			switch r.Table {
			case "payments", "transactions", "events": // these are kept
			default:
				if cycle == cycles-1 && n > most[r]+fewPages {
					t.Errorf("%s of %s has %d pages, and had %d at most before", r.Name, r.Table, n, most[r])
				}
			}
			most[r] = max(most[r], n)
		}
		for table, kept := range map[string]int{"idempotency_keys": perCycle, "arrivals": perCycle, "provider_calls": perCycle, "callbacks": perCycle, "transactions": (cycle + 1) * perCycle} {
			if n := w.count(`SELECT count(*) FROM ` + table); n != kept {
				t.Errorf("cycle %d: %s has %d rows, want %d", cycle, table, n, kept)
			}
		}
	}
}
