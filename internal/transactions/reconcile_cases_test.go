package transactions

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/admin"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/postgres"
	"github.com/oncepay/oncepay/internal/providers"
	"github.com/oncepay/oncepay/internal/providers/sandbox"
)

// longAgo is more than any lag in these tests.
const longAgo = 110 * time.Second

// paid makes a payment that is old enough to be compared, and lists it as it was booked;
// change may alter the listing.
func (r *reconciling) paid(nonce string, change func(*providers.Booking)) Transaction {
	r.t.Helper()
	r.want(r.create(nonce, r.body("order-"+nonce, nil)), 201)
	r.shift(nonce, longAgo)
	tx := r.transaction(nonce)
	if change != nil {
		b := r.booking(tx)
		change(&b)
		r.list(b)
	}
	return tx
}

func asBooked(*providers.Booking) {}

// booking is how a transaction is listed: a moment after it began.
func (r *reconciling) booking(tx Transaction) providers.Booking {
	return providers.Booking{
		Order:  providers.Order{Reference: tx.ID.String(), AccountID: tx.AccountID.String(), Mode: tx.Mode, MerchantOrderID: "order-" + tx.Nonce},
		Amount: tx.Amount, Currency: tx.Currency, BookedAt: tx.CreatedAt.Add(time.Millisecond),
	}
}

// list adds to the provider's books.
func (r *reconciling) list(bs ...providers.Booking) {
	r.books.mu.Lock()
	defer r.books.mu.Unlock()
	r.books.books = append(r.books.books, bs...)
	slices.SortStableFunc(r.books.books, func(a, b providers.Booking) int { return a.BookedAt.Compare(b.BookedAt) })
}

// past is a moment before everything in a test.
func past() time.Time { return time.Now().Add(-10 * time.Minute).UTC() }

// walk compares everything, step by step, and adds it up.
func (r *reconciling) walk() (all Counts, steps int, differences []Difference) {
	r.t.Helper()
	w := wish{Since: past()}
	for {
		told, err := r.Step(r.t.Context(), w)
		if err != nil {
			r.t.Fatal(err)
		}
		all, differences, steps = all.Plus(told.Counts), append(differences, told.Differences...), steps+1
		if told.Next == nil {
			return all, steps, differences
		}
		if steps > 200 {
			r.t.Fatal("it goes on for ever")
		}
		w = wish{After: *told.Next}
	}
}

func TestEachFindingOfAWindow(t *testing.T) {
	t.Parallel()
	r := newReconciling(t)
	r.paid("matched", asBooked)
	dearer := r.paid("dearer", func(b *providers.Booking) { b.Amount = b.Amount.Add(decimal.RequireFromString("0.01")) })
	foreign := r.paid("foreign", func(b *providers.Booking) { b.Currency = "EUR" })
	twice := r.paid("twice", asBooked)
	r.list(r.booking(twice)) // a second time under the same reference
	r.paid("not-listed", nil)
	lost := r.paid("lost", nil)
	r.psp.mu.Lock()
	r.psp.bookings = slices.DeleteFunc(r.psp.bookings, func(c providers.Charge) bool { return c.Reference == lost.ID.String() })
	r.psp.mu.Unlock()
	stranger := r.booking(lost)
	stranger.Order.Reference, stranger.BookedAt = "somebody-else's", time.Now().Add(-longAgo)
	r.list(stranger)
	otherMode := r.paid("other-mode", func(b *providers.Booking) { b.Order.Mode = merchants.Live })
	r.psp.next(chargeThenTimeout)
	r.want(r.create("open", r.body("order-open", nil)), 504)
	r.shift("open", longAgo)
	open := r.transaction("open")
	r.list(r.booking(open))
	r.released("late", nil)
	r.shift("late", longAgo)
	late := r.transaction("late")
	r.arrive(late)
	r.list(r.booking(late))
	reversal := r.booking(late)
	reversal.Order.Reference = reversalOf(late.ID)
	r.list(reversal)

	counts, _, differences := r.walk()
	// matched: matched, not listed, other mode (asked about), and the reversal
	if want := (Counts{Matched: 4, MissingHere: 3, MissingThere: 1, AmountDiffers: 3, Open: 1}); counts != want {
		t.Errorf("got %+v, want %+v", counts, want)
	}
	got := map[string]Finding{}
	for _, d := range differences {
		got[d.Reference] = d.Finding
	}
	want := map[string]Finding{
		dearer.ID.String(): FoundAmountDiffers, foreign.ID.String(): FoundAmountDiffers, twice.ID.String(): FoundAmountDiffers,
		lost.ID.String(): FoundMissingThere, "somebody-else's": FoundMissingHere, otherMode.ID.String(): FoundMissingHere,
		open.ID.String(): FoundOpen, late.ID.String(): FoundMissingHere,
	}
	for reference, f := range want {
		if got[reference] != f {
			t.Errorf("%s is %q, want %s", reference, got[reference], f)
		}
	}
	if n := r.count(`SELECT count(*) FROM differences`); n != len(want) || len(got) != len(want) {
		t.Errorf("%d are kept, %d told, want %d", n, len(got), len(want))
	}
	if n := r.count(`SELECT count(*) FROM differences WHERE currency = 'USD/EUR' AND provider_amount = 45.67`); n != 1 {
		t.Errorf("%d say that the currency differs", n)
	}
	if n := r.count(`SELECT count(*) FROM differences WHERE provider_amount = 91.34`); n != 1 {
		t.Errorf("%d say that it was booked twice", n)
	}
	// The late one is counted by the look that reverses it, which is due now.
	if r.heard(FoundMissingHere, NotReversed) != 2 || r.heard(FoundMatched, NotReversed) != 4 || r.heard(FoundOpen, NotReversed) != 1 {
		t.Errorf("counted %v", r.told)
	}
	if _, err := r.watched(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := r.reversals(late); n != 1 || r.action(late) != "reversed" || r.heard(FoundMissingHere, Reversed) != 1 {
		t.Errorf("the late charge was reversed %d times, %q", n, r.action(late))
	}
	for _, tx := range []Transaction{dearer, foreign, twice, lost, open, otherMode} {
		if n := r.reversals(tx); n != 0 {
			t.Errorf("%s was reversed", tx.Nonce)
		}
	}
	if again, _, _ := r.walk(); again.MissingHere != 2 {
		t.Errorf("once it is reversed: %+v", again)
	}
	if n := r.count(`SELECT count(*) FROM differences`); n != len(want) {
		t.Errorf("seen twice, they are %d", n)
	}
}

func TestOnlyWhatCannotBeOnItsWayIsCompared(t *testing.T) {
	t.Parallel()
	r := newReconciling(t)
	r.want(r.create("young", r.body("order-young", nil)), 201)
	young := r.transaction("young")
	r.list(r.booking(young))
	r.paid("old", asBooked)
	if counts, _, _ := r.walk(); counts != (Counts{Matched: 1}) {
		t.Errorf("got %+v", counts)
	}
	lag := r.lag(r.books)
	if latest := time.Now().Add(-lag); r.books.to.After(latest) || lag < testLease+r.psp.Traits().Timeout+r.psp.Traits().Settle {
		t.Errorf("up to %s was compared, the lag is %s", r.books.to, lag)
	}
	if _, err := r.Step(t.Context(), wish{Ago: lag}); err == nil || !strings.Contains(err.Error(), "$.since must be before $.until, and at least 1m36s ago") {
		t.Errorf("what is too young: %v", err)
	}
}

func TestAStepIsBoundedAndTheNextGoesOn(t *testing.T) {
	t.Parallel()
	r := newReconciling(t)
	r.books.pageSize = 1
	const all = maxListPages + 5
	for i := range all {
		b := providers.Booking{Order: providers.Order{Reference: fmt.Sprint("unknown-", i), AccountID: "nobody", Mode: "test"}, Amount: decimal.New(1, 0), Currency: "USD",
			BookedAt: past().Add(time.Minute + time.Duration(i/2)*time.Second)} // two at each moment
		r.list(b)
	}
	counts, steps, differences := r.walk()
	if counts != (Counts{MissingHere: all}) || len(differences) != all || steps < 2 {
		t.Errorf("%+v in %d steps", counts, steps)
	}
	for _, d := range differences {
		if d.AccountID != "nobody" || d.OurStatus != "" || d.OurAmount.Valid || !d.ProviderAmount.Valid {
			t.Errorf("%+v", d)
		}
	}
}

func TestMoreAtOneMomentThanAStepTakesIsTaken(t *testing.T) {
	t.Parallel()
	r := newReconciling(t)
	r.books.pageSize = 1
	at := past()
	for i := range maxListPages + 5 {
		r.list(providers.Booking{Order: providers.Order{Reference: fmt.Sprint("unknown-", i)}, Amount: decimal.New(1, 0), Currency: "USD", BookedAt: at})
	}
	done, err := r.compare(t.Context(), r.books, span{at, at.Add(time.Minute)})
	if err != nil || done.counts[FoundMissingHere] != maxListPages+5 {
		t.Errorf("%v %v", done.counts, err)
	}
}

// The loop's place is kept in the database, and moves only behind what was compared.
func TestAnInterruptedWindowIsTakenUpAgain(t *testing.T) {
	t.Parallel()
	r := newReconciling(t)
	if behind, err := r.advance(t.Context(), r.books); err != nil || behind {
		t.Fatal(behind, err) // it begins now
	}
	begin := past()
	back := func() { // the turn comes again
		r.sql(`UPDATE reconciliation_progress SET changed_at = changed_at - interval '1 hour' WHERE $1`, true)
	}
	r.sql(`UPDATE reconciliation_progress SET until = $1`, begin)
	back()
	r.paid("a-nonce", asBooked)
	r.books.refuse = providers.ErrList
	if _, err := r.advance(t.Context(), r.books); err == nil {
		t.Fatal("nobody noticed")
	}
	if n := r.count(`SELECT count(*) FROM reconciliation_progress WHERE until = $1`, begin); n != 1 {
		t.Fatal("it moved on without having seen anything")
	}
	r.books.refuse = nil
	if _, err := r.advance(t.Context(), r.books); err != nil || r.heard(FoundMatched, NotReversed) != 0 {
		t.Fatalf("it was nobody's turn: %v %v", err, r.told)
	}
	back()
	if behind, err := r.advance(t.Context(), r.books); err != nil || behind || r.heard(FoundMatched, NotReversed) != 1 {
		t.Fatalf("it was not taken up: %t %v %v", behind, err, r.told)
	}
	back()
	if _, err := r.advance(t.Context(), r.books); err != nil || r.heard(FoundMatched, NotReversed) != 1 {
		t.Errorf("it was compared twice: %v %v", err, r.told)
	}
}

func TestTwoInstancesShareTheWindows(t *testing.T) {
	t.Parallel()
	r := newReconciling(t)
	if _, err := r.advance(t.Context(), r.books); err != nil {
		t.Fatal(err)
	}
	begin := time.Now().Add(-3*maxWindow - maxWindow/2).UTC()
	for i := range 3 {
		r.list(providers.Booking{Order: providers.Order{Reference: fmt.Sprint("unknown-", i), AccountID: "nobody"}, Amount: decimal.New(1, 0), Currency: "USD",
			BookedAt: begin.Add(time.Minute + time.Duration(i)*maxWindow)})
	}
	r.sql(`UPDATE reconciliation_progress SET until = $1, changed_at = $1`, begin)
	second := NewReconciler(r.listing().service, r.hear)
	var wg sync.WaitGroup
	for _, who := range []*Reconciler{r.Reconciler, second, r.Reconciler, second} {
		wg.Go(func() {
			for range 10 {
				if _, err := who.RunOnce(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := r.heard(FoundMissingHere, NotReversed); n != 3 {
		t.Errorf("three bookings were found %d times", n)
	}
	if n := r.count(`SELECT count(*) FROM reconciliation_progress WHERE until > $1`, begin.Add(3*maxWindow)); n != 1 {
		t.Error("they did not come to the end")
	}
}

// A provider that shows no books is asked about each of ours.
func TestWithoutBooksEachOfOursIsAskedAbout(t *testing.T) {
	t.Parallel()
	r := newReconciling(t)
	r.instance = r.newInstance(r.db)
	r.Reconciler = NewReconciler(r.world.service, r.hear)
	const all = maxAsked + 5
	r.paid("first", nil)
	r.sql(`INSERT INTO transactions (account_id, id, payment_id, mode, type, status, currency, amount, provider, nonce, card,
	           lease_holder, instance_id, may_send_until, next_attempt_at, travel_us, created_at, updated_at)
	       SELECT account_id, (substring(id::text FOR 24) || lpad(i::text, 12, '0'))::uuid, payment_id, mode, type, status, currency, amount, provider, 'many', card,
	           lease_holder, instance_id, may_send_until, next_attempt_at, travel_us, created_at + i * interval '1 millisecond', updated_at
	       FROM transactions, generate_series(1, $1) AS i WHERE nonce = 'first'`, all-1)
	declined := r.paid("declined-and-booked", nil)
	r.sql(`UPDATE transactions SET status = 'DECLINED' WHERE id = $1`, declined.ID)
	before := r.books.asks()
	counts, steps, _ := r.walk()
	if counts != (Counts{Matched: 1, MissingThere: all - 1, MissingHere: 1}) || steps < 2 {
		t.Errorf("%+v in %d steps", counts, steps)
	}
	if n := r.books.asks() - before; n != all+1 {
		t.Errorf("%d inquiries about %d", n, all+1)
	}
	if r.books.lists != 0 {
		t.Error("it was asked for books")
	}
}

func TestWhatTheProviderWouldNotTellIsAskedAgain(t *testing.T) {
	t.Parallel()
	r := newReconciling(t)
	tx := r.paid("a-nonce", nil)
	r.psp.asked(func() (providers.Result, bool) { return providers.Result{Outcome: providers.Unclear}, true })
	if counts, _, differences := r.walk(); counts != (Counts{Open: 1}) || len(differences) != 0 {
		t.Fatalf("%+v", counts)
	}
	if n := r.count(`SELECT count(*) FROM watches WHERE transaction_id = $1`, tx.ID); n != 1 {
		t.Fatal("nobody will ask again")
	}
	if _, err := r.watched(t.Context()); err != nil || r.heard(FoundMatched, NotReversed) != 1 {
		t.Errorf("%v %v", err, r.told)
	}
}

// Without inquiries nobody can know what became of a reversal, so none is sent. A person
// is told at once.
func TestALateChargeAtAProviderThatCannotBeAskedIsReported(t *testing.T) {
	t.Parallel()
	r := newReconciling(t)
	r.released("late", nil)
	r.shift("late", longAgo)
	late := r.transaction("late")
	r.arrive(late)
	r.list(r.booking(late))
	unlisted := r.paid("unlisted", nil)
	r.psp.mu.Lock()
	r.psp.traits.Queryable = false
	r.psp.mu.Unlock()
	if counts, _, _ := r.walk(); counts != (Counts{MissingHere: 1, Open: 1}) {
		t.Errorf("%+v", counts)
	}
	r.round()
	if n := r.reversals(late); n != 0 || r.heard(FoundMissingHere, NotReversed) != 1 || r.watchedNow() != 0 {
		t.Errorf("%d reversals, %v, %d watched", n, r.told, r.watchedNow())
	}
	if n := r.reversals(unlisted); n != 0 {
		t.Error("what we stand by was reversed")
	}
}

// What cannot be compared is said, and does not hold up what can.
func TestWishesThatMeanNothingAreRefused(t *testing.T) {
	t.Parallel()
	r := newReconciling(t)
	sound, err := r.Step(t.Context(), wish{Since: time.Now().Add(-3 * maxWindow)})
	if err != nil || sound.Next == nil {
		t.Fatal(sound, err)
	}
	for name, w := range map[string]wish{
		"an unknown provider":      {Since: past(), Provider: "NOBODY"},
		"an end before the start":  {Since: past(), Until: past().Add(-time.Hour)},
		"a cursor of nobody's":     {After: "bm9ib2R5"},
		"a cursor that was cut":    {After: (*sound.Next)[:20]},
		"a cursor without a start": {After: stretch{Provider: "TEST_PSP", Until: time.Now()}.cursor()},
	} {
		if _, err := r.Step(t.Context(), w); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	r.books.refuse = providers.ErrList
	if _, err := r.Step(t.Context(), wish{Since: past()}); err == nil || !strings.Contains(err.Error(), "PROVIDER_UNAVAILABLE") {
		t.Errorf("a provider that hides its books: %v", err)
	}
	r.books.refuse = nil
	r.psp.mu.Lock()
	r.psp.traits.Queryable = false
	r.psp.mu.Unlock()
	deaf := NewReconciler(r.newInstance(r.db).service, nil)
	if _, err := deaf.Step(t.Context(), wish{Since: past(), Provider: "TEST_PSP"}); err == nil || !strings.Contains(err.Error(), "INVALID_STATE") {
		t.Errorf("a provider that can be asked nothing: %v", err)
	}
	if _, err := deaf.RunOnce(t.Context()); err != nil {
		t.Error(err)
	}
}

// operators serves the two routes as cmd does, held against the API document.
func (r *reconciling) operators() *httptest.Server {
	r.t.Helper()
	log := slog.New(slog.DiscardHandler)
	e := httpapi.New(httpapi.Options{Log: log, Transient: postgres.IsTransient, Describe: postgres.Describe})
	metrics := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "") })
	admin.Mount(e, admin.Options{Token: operatorToken, Metrics: metrics, API: []admin.Mounter{NewReconciliationHandler(r.Reconciler)}})
	return serve(r.t, e)
}

func TestOperatorsCompareAndReadOverTheWire(t *testing.T) {
	t.Parallel()
	r := newReconciling(t)
	tx := r.paid("dearer", func(b *providers.Booking) { b.Amount = decimal.RequireFromString("45.68") })
	url := r.operators().URL
	token := []string{"Authorization", "Bearer " + operatorToken}
	answer := r.call(http.MethodPost, url+"/admin/v1/reconciliations", []byte(`{"since":"10m"}`), token...)
	r.want(answer, 200)
	var told Reconciliation
	if err := json.Unmarshal(answer.body, &told); err != nil || told.Counts != (Counts{AmountDiffers: 1}) || told.Next != nil || told.Provider != "TEST_PSP" {
		t.Errorf("%s %v", answer, err)
	}
	for _, part := range []string{`"our_amount":45.67`, `"provider_amount":45.68`, `"our_status":"SUCCEEDED"`, `"provider_status":"approved"`, `"reference":"` + tx.ID.String()} {
		if !strings.Contains(string(answer.body), part) {
			t.Errorf("without %s: %s", part, answer)
		}
	}
	for body, code := range map[string]string{
		`{}`: "MISSING_PARAMETERS", `{"since":"yesterday"}`: "INVALID_PARAMETERS", `{"since":5}`: "INVALID_PARAMETERS", `{"since":"-1h"}`: "INVALID_PARAMETERS",
		`{"since":"1h","until":"soon"}`: "INVALID_PARAMETERS", `{"since":"1s"}`: "INVALID_PARAMETERS", `{"after":"nothing"}`: "INVALID_PARAMETERS",
		`{"since":"1h","provider":"NOBODY"}`: "INVALID_PARAMETERS", `[]`: "INVALID_REQUEST", `{"since":"0001-01-01T00:00:00Z"}`: "INVALID_PARAMETERS",
	} {
		r.want(r.call(http.MethodPost, url+"/admin/v1/reconciliations", []byte(body), token...), 400, code)
	}
	for i := range 4 {
		r.sql(`INSERT INTO differences (provider, account_id, reference, finding) VALUES ('P"<&', 'somebody', $1, 'missing_here')`, fmt.Sprintf("reference/%d %s", i, uuid.NewString()))
	}
	var seen []string
	next := "/admin/v1/differences?limit=2"
	for next != "" {
		page := r.call(http.MethodGet, url+next, nil, token...)
		r.want(page, 200)
		var ds []map[string]any
		if err := json.Unmarshal(page.body, &ds); err != nil {
			t.Fatal(err)
		}
		for _, d := range ds {
			seen = append(seen, fmt.Sprint(d["reference"]))
		}
		next, _, _ = strings.Cut(strings.TrimPrefix(page.header.Get("Link"), "<"), ">")
	}
	if len(seen) != 5 || seen[4] != tx.ID.String() {
		t.Errorf("the pages have %q", seen)
	}
	for _, query := range []string{"limit=0", "limit=101", "limit=x", "after=x", "after=bm9ib2R5", "after=WyIiLCIiLCIiLCIiLCIiXQ"} {
		r.want(r.call(http.MethodGet, url+"/admin/v1/differences?"+query, nil, token...), 400, "INVALID_PARAMETERS")
	}
}

// The sandbox over HTTP, whose ledger is the judge.
func TestTheSandboxsLedgerShowsOneReversal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ledger, err := sandbox.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	server := sandbox.NewServer(ledger, sandbox.Options{})
	edge := httptest.NewServer(server)
	t.Cleanup(func() {
		edge.Close()
		server.Close()
		if err := ledger.Close(); err != nil {
			t.Error(err)
		}
	})
	adapter, err := sandbox.NewAdapter(edge.URL, sandbox.AdapterOptions{Timeout: 2 * time.Second, Settle: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(adapter.Close)
	w.instance = w.newInstanceWith(w.db, func(o *Options) {
		o.Providers = providers.NewRegistry(map[string]providers.Provider{merchants.Test: adapter})
	})
	w.want(w.create("a-nonce", w.body("an-order", map[string]any{"description": "sandbox:reject"})), 400)
	w.want(w.create("another-nonce", w.body("another-order", nil)), 201)
	gone := w.transaction("a-nonce")
	// What had been refused was asleep twice, and the second one arrives under another mood.
	late := uuid.Must(uuid.NewV7())
	w.sql(`INSERT INTO transactions (account_id, id, payment_id, mode, type, status, currency, amount, provider, nonce, card, released,
	           lease_holder, instance_id, may_send_until, next_attempt_at, travel_us, created_at, updated_at)
	       SELECT account_id, $2, payment_id, mode, type, 'ERROR', currency, amount, provider, 'late-nonce', card, true,
	           lease_holder, instance_id, may_send_until, next_attempt_at, travel_us, created_at, updated_at FROM transactions WHERE id = $1`, gone.ID, late)
	tx := w.transaction("late-nonce")
	charged := adapter.Charge(t.Context(), providers.Charge{
		Order:  providers.Order{Reference: late.String(), AccountID: tx.AccountID.String(), Mode: tx.Mode, MerchantOrderID: "late-order"},
		Amount: tx.Amount, Currency: tx.Currency, Country: "US", Description: "A late charge", Capture: true,
		Card: providers.Card{Number: "4111111111111111", HolderName: "John Doe", ExpirationMonth: 11, ExpirationYear: 2028, SecurityCode: "123"},
	}, func() bool { return true })
	if charged.Outcome != providers.Approved {
		t.Fatalf("the late charge was %s", charged.Outcome)
	}
	r := NewReconciler(w.service, nil)
	if err := w.service.store.watchSoon(t.Context(), tx.AccountID, tx.ID); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		w.sql(`UPDATE watches SET next_look_at = clock_timestamp() - interval '1 second' WHERE $1`, true)
		if _, err := r.watched(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	entries, _ := ledger.Entries(sandbox.Query{Limit: 100})
	booked := map[string]int{}
	for _, e := range entries {
		booked[e.Type+" "+e.Reference]++
	}
	other := w.transaction("another-nonce")
	want := map[string]int{"PURCHASE " + late.String(): 1, "REFUND " + reversalOf(late): 1, "PURCHASE " + other.ID.String(): 1}
	if fmt.Sprint(booked) != fmt.Sprint(want) {
		t.Errorf("the ledger has %v, want %v", booked, want)
	}
	if n := w.count(`SELECT count(*) FROM differences WHERE action = 'reversed'`); n != 1 {
		t.Errorf("%d differences are reversed", n)
	}
}
