package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// patience bounds what must happen soon anyway. It is reached only by a bug.
const patience = 30 * time.Second

func mustOpen(t testing.TB, dir string) *Ledger {
	t.Helper()
	l, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func mustHold(t testing.TB, l *Ledger, reference string) *hold {
	t.Helper()
	h, err := l.hold(context.WithoutCancel(t.Context()), refKey{"acc", "test", reference})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// book books one reference of an order of the same name.
func book(l *Ledger, reference string) (standing, error) {
	h, err := l.hold(context.Background(), refKey{"acc", "test", reference})
	if err != nil {
		return standing{}, err
	}
	defer h.release()
	return h.book(booking{order: reference, kind: typePurchase, amount: "45.67", currency: "USD", responseCode: succeeded})
}

func mustBook(t testing.TB, l *Ledger, reference string) standing {
	t.Helper()
	st, err := book(l, reference)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func references(l *Ledger) []string {
	entries, _ := l.Entries(Query{Limit: 1 << 20})
	list := make([]string, len(entries))
	for i, e := range entries {
		list[i] = e.Reference
	}
	return list
}

func TestTheLedgerRemembersEverythingAfterAReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "for it")
	l := mustOpen(t, dir)
	want := map[string]standing{"booked": mustBook(t, l, "booked")}
	for reference, decide := range map[string]func(*hold) (standing, error){
		"declined": func(h *hold) (standing, error) {
			return h.decline(booking{order: "o", kind: typePurchase, amount: "1", currency: "USD", responseCode: "DO_NOT_HONOR"})
		},
		"refused": func(h *hold) (standing, error) { return h.refuse(booking{order: "o", fault: "reject"}) },
		"voided":  func(h *hold) (standing, error) { return h.void("") },
		"refused, then voided": func(h *hold) (standing, error) {
			if _, err := h.refuse(booking{order: "o", fault: "reject"}); err != nil {
				return standing{}, err
			}
			return h.void("o")
		},
	} {
		h := mustHold(t, l, reference)
		st, err := decide(h)
		if err != nil {
			t.Fatal(err)
		}
		want[reference] = st
		h.release()
	}
	h := mustHold(t, l, "lost")
	if !h.firstSend("met a fault", typePurchase) {
		t.Error("not the first send")
	}
	if err := h.meet(booking{order: "met a fault", fault: "timeout"}); err != nil {
		t.Fatal(err)
	}
	h.release()
	token, err := l.issueToken("EXPIRED_CARD")
	if err != nil {
		t.Fatal(err)
	}
	before, _ := l.Entries(Query{Limit: 10})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := book(l, "late"); !errors.Is(err, ErrClosed) {
		t.Errorf("booked in a closed ledger: %v", err)
	}

	l = mustOpen(t, dir)
	after, _ := l.Entries(Query{Limit: 10})
	if fmt.Sprint(before) != fmt.Sprint(after) || len(after) != 1 {
		t.Errorf("entries are %+v, were %+v", after, before)
	}
	for reference, w := range want {
		if st, err := l.standing(refKey{"acc", "test", reference}); err != nil || st != w {
			t.Errorf("%s is %+v (%v), was %+v", reference, st, err, w)
		}
	}
	h = mustHold(t, l, "another")
	for order, first := range map[string]bool{"booked": false, "o": false, "met a fault": false, "new": true} {
		if got := h.firstSend(order, typePurchase); got != first {
			t.Errorf("first send for %s: %v", order, got)
		}
	}
	if code, ok := l.token(token); code != "EXPIRED_CARD" || !ok {
		t.Errorf("the token stands for %q, %v", code, ok)
	}
}

func TestEntriesArePagedNewestFirst(t *testing.T) {
	l := mustOpen(t, "")
	for i := range 7 {
		mustBook(t, l, fmt.Sprint(i))
	}
	var got []string
	for q := (Query{Limit: 3}); ; {
		entries, next := l.Entries(q)
		for _, e := range entries {
			got = append(got, e.Reference)
		}
		got = append(got, "|")
		if q.Before = next; next == 0 {
			break
		}
	}
	if s := strings.Join(got, ""); s != "654|321|0|" {
		t.Errorf("pages are %s", s)
	}
	for _, q := range []Query{{Reference: "4", Limit: 5}, {MerchantOrderID: "4", Limit: 5}, {Reference: "4", MerchantOrderID: "4", Limit: 5}} {
		if entries, next := l.Entries(q); len(entries) != 1 || entries[0].Reference != "4" || next != 0 {
			t.Errorf("%+v: %+v, next %d", q, entries, next)
		}
	}
	for _, q := range []Query{{Reference: "9", Limit: 5}, {Reference: "4", MerchantOrderID: "5", Limit: 5}, {Limit: 5, Before: 1}} {
		if entries, next := l.Entries(q); len(entries) != 0 || next != 0 {
			t.Errorf("%+v: %+v, next %d", q, entries, next)
		}
	}
	if entries, next := l.Entries(Query{Limit: 2, Before: 3}); len(entries) != 2 || next != 0 {
		t.Errorf("the last full page has %d entries, next %d", len(entries), next)
	}
}

// Whatever the byte at which a write was torn: the lines before it are there,
// and the ledger can be written to.
func TestATornLastLineIsCutOff(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir)
	mustBook(t, l, "first")
	mustBook(t, l, "second")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, fileName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for size := range whole {
		if err := os.WriteFile(path, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(dir)
		if err != nil {
			t.Fatalf("cut to %d bytes: %v", size, err)
		}
		if got, want := len(references(l)), max(0, bytes.Count(whole[:size], []byte("\n"))-1); got != want {
			t.Fatalf("cut to %d bytes: %d bookings, want %d", size, got, want)
		}
		if _, err := book(l, "third"); err != nil {
			t.Fatalf("cut to %d bytes: %v", size, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l, err = Open(dir)
		if err != nil {
			t.Fatalf("cut to %d bytes, and written to: %v", size, err)
		}
		if refs := references(l); refs[0] != "third" {
			t.Fatalf("cut to %d bytes, and written to: %v", size, refs)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnUnreadableLedgerIsAnErrorThatNamesTheLineAndChangesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	l := mustOpen(t, dir)
	mustBook(t, l, "a")
	mustBook(t, l, "b")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(strings.TrimSuffix(string(b), "\n"), "\n")
	head, one, two := lines[0], lines[1], lines[2]+"\n"
	for name, c := range map[string]struct {
		content string
		line    int
	}{
		"not a ledger":           {"4507990000000002\n" + one, 1},
		"not even lines":         {"PK\x03\x04", 1},
		"no header":              {one + two, 1},
		"of another version":     {strings.Replace(head, "1", "2", 1) + one, 1},
		"garbage, then a line":   {head + "garbage\n" + two, 2},
		"complete garbage, last": {head + one + "garbage\n", 3},
		"torn, then a line":      {head + one[:30] + "\n" + two, 2},
		"an empty line":          {head + "\n" + two, 2},
		"an unknown kind":        {head + strings.Replace(one, `"booking"`, `"refund"`, 1), 2},
		"an unknown name":        {head + strings.Replace(one, `"id"`, `"idd"`, 1), 2},
		"another case":           {head + strings.Replace(one, `"id"`, `"Id"`, 1), 2},
		"a name twice":           {head + strings.Replace(one, `"id"`, `"mode":"live","id"`, 1), 2},
		"no amount":              {head + strings.Replace(one, `"amount":"45.67",`, "", 1), 2},
		"an exponent":            {head + strings.Replace(one, "45.67", "1e9", 1), 2},
		"a class that books not": {head + strings.Replace(one, "SUCCEEDED", "DO_NOT_HONOR", 1), 2},
		"booked twice":           {head + one + two + one, 4},
		"longer than a line":     {head + one + strings.Repeat("x", maxLineBytes+1), 3},
		"broken UTF-8":           {head + strings.Replace(one, `"acc"`, "\"a\xff\"", 1), 2},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := Open(dir)
			if err == nil {
				_ = l.Close()
				t.Fatal("opened")
			}
			if s := err.Error(); !strings.Contains(s, fmt.Sprintf("%s, line %d:", path, c.line)) || strings.Contains(s, "4507") {
				t.Errorf("%q does not name line %d, or quotes it", s, c.line)
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != c.content {
				t.Errorf("the file was changed (%v)", err)
			}
		})
	}
}

func TestALedgerHasOneProcess(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir)
	mustBook(t, l, "a")
	if second, err := Open(dir); err == nil {
		_ = second.Close()
		t.Fatal("opened twice")
	} else if !strings.Contains(err.Error(), "another process") {
		t.Errorf("%q does not say why", err)
	}
	mustBook(t, l, "b")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if refs := references(mustOpen(t, dir)); len(refs) != 2 {
		t.Errorf("the second Open damaged the ledger: %v", refs)
	}
}

// A booking is visible only once it is on the disk. Otherwise an inquiry could
// tell of it, and a crash then take it back.
func TestNothingIsVisibleBeforeItIsOnTheDisk(t *testing.T) {
	l := mustOpen(t, t.TempDir())
	syncing, finish := make(chan struct{}), make(chan struct{})
	l.journal.sync = func() error { close(syncing); <-finish; return nil }
	done := make(chan error, 1)
	go func() { _, err := book(l, "a"); done <- err }()
	<-syncing
	if st, err := l.standing(refKey{"acc", "test", "a"}); err != nil || st.status != statusUnknown {
		t.Errorf("%+v is visible, %v", st, err)
	}
	if refs := references(l); len(refs) != 0 {
		t.Errorf("%v are visible", refs)
	}
	select {
	case err := <-done:
		t.Errorf("acknowledged before the fsync: %v", err)
	default:
	}
	close(finish)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if st, _ := l.standing(refKey{"acc", "test", "a"}); st.status != statusApproved {
		t.Errorf("%+v", st)
	}
}

// The longest things that the server lets in fit a line, and can be read again.
func TestTheLongestRecordFitsALine(t *testing.T) {
	dir := t.TempDir()
	s := newSite(t, dir)
	long := func(n int) string { return strings.Repeat("<", n) }
	order := strings.Repeat("\x01", maxTextLength)
	q := charge("reference", long(64), "account_id", long(64), "merchant_order_id", order, "amount", "9999999999.9999",
		"description", "sandbox:challenge", "callback_url", "http://h/?"+strings.Repeat("&", maxURLLength-10), "return_url", strings.Repeat("\x01", maxURLLength))
	if code, re := s.post("/sandbox/v1/charges", q); code != http.StatusOK || re.Status != statusPending {
		t.Fatalf("%d %+v", code, re)
	}
	s.end()
	info, err := os.Stat(filepath.Join(dir, fileName))
	if err != nil || info.Size() > maxLineBytes*3/4 {
		t.Errorf("the journal has %d bytes, %v", info.Size(), err)
	}
	l := mustOpen(t, dir)
	if len(l.undecided) != 1 {
		t.Error("it was not read again")
	}
}

// While the disk is busy with one record, the others gather for the next fsync.
func TestWaitingRecordsShareAnFsync(t *testing.T) {
	const n = 50
	l := mustOpen(t, t.TempDir())
	first, finish := make(chan struct{}), make(chan struct{})
	syncs := 0
	l.journal.sync = func() error {
		if syncs++; syncs == 1 {
			close(first)
			<-finish
		}
		return nil
	}
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = book(l, "first") })
	<-first
	for i := range n {
		wg.Go(func() { _, _ = book(l, fmt.Sprint(i)) })
	}
	for waiting := 0; waiting < n; {
		l.journal.mu.Lock()
		waiting = len(l.journal.queue)
		l.journal.mu.Unlock()
		runtime.Gosched()
	}
	close(finish)
	wg.Wait()
	if syncs != 2 || len(references(l)) != n+1 {
		t.Errorf("%d fsyncs for %d bookings", syncs, len(references(l)))
	}
}

func TestAfterAFailedWriteTheLedgerAnswersNothing(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir)
	mustBook(t, l, "a")
	full := errors.New("no space left on device")
	l.journal.sync = func() error { return full }
	for range 2 { // the second one is not even tried
		if _, err := book(l, "b"); !errors.Is(err, full) {
			t.Errorf("booked: %v", err)
		}
		l.journal.sync = l.journal.file.Sync
	}
	if _, err := l.standing(refKey{"acc", "test", "a"}); !errors.Is(err, full) {
		t.Errorf("still answers: %v", err)
	}
	if err := l.Err(); !errors.Is(err, full) || !strings.Contains(err.Error(), fileName) {
		t.Errorf("Err is %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// What was written before the failing fsync is there; a new process reads it.
	if refs := references(mustOpen(t, dir)); fmt.Sprint(refs) != "[b a]" {
		t.Errorf("reopened with %v", refs)
	}
}

func TestAHoldIsForOneAtATime(t *testing.T) {
	l := mustOpen(t, "")
	h := mustHold(t, l, "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.hold(ctx, h.key); !errors.Is(err, context.Canceled) {
		t.Errorf("held twice: %v", err)
	}
	mustHold(t, l, "b").release() // another reference is free
	h.release()
	mustHold(t, l, "a").release()
	if len(l.holds.of) != 0 {
		t.Errorf("%d holds left behind", len(l.holds.of))
	}
}

// Two first sends of one order at the same moment: the second one is not the
// first, although nothing about the first is on the disk yet.
func TestAnOrderHasOneFirstSend(t *testing.T) {
	l := mustOpen(t, "")
	a, b := mustHold(t, l, "a"), mustHold(t, l, "b")
	if first, second := a.firstSend("o", typePurchase), b.firstSend("o", typeAuthorize); !first || second {
		t.Errorf("the first send: %v, the second: %v", first, second)
	}
}

func TestRecordsHaveNoRoomForACard(t *testing.T) {
	b, err := json.Marshal(record{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"card", "number", "holder", "security", "expir"} {
		if bytes.Contains(b, []byte(name)) {
			t.Errorf("a record has a field like %q", name)
		}
	}
}

const killEnv = "ONCEPAY_SANDBOX_LEDGER_CHILD"

// TestChildBooksUntilItIsKilled is the other half of the test below, in a
// process of its own. It acknowledges each booking on its standard output.
func TestChildBooksUntilItIsKilled(t *testing.T) {
	dir := os.Getenv(killEnv)
	if dir == "" {
		return
	}
	l, err := Open(dir)
	if err != nil {
		fmt.Println("!", err)
		os.Exit(1)
	}
	var out sync.Mutex
	var wg sync.WaitGroup
	for worker := range 8 { // so that records share writes
		wg.Go(func() {
			for i := 0; ; i++ {
				reference := fmt.Sprintf("%d-%d-%d", os.Getpid(), worker, i)
				if _, err := book(l, reference); err != nil {
					fmt.Println("!", err)
					os.Exit(1)
				}
				out.Lock()
				_, _ = os.Stdout.WriteString("+" + reference + "\n")
				out.Unlock()
			}
		})
	}
	wg.Wait()
}

func TestEveryAcknowledgedBookingSurvivesAKill(t *testing.T) {
	dir := t.TempDir()
	var acknowledged []string
	for round := range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestChildBooksUntilItIsKilled$") // #nosec G204 -- this test binary
		cmd.Env = append(os.Environ(), killEnv+"="+dir)
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(stdout)
		for n := 0; lines.Scan(); n++ {
			reference, ok := strings.CutPrefix(lines.Text(), "+")
			if !ok {
				t.Fatalf("the child says %q", lines.Text())
			}
			acknowledged = append(acknowledged, reference)
			if n == 50+37*round { // at another place each time
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			} // and what it said before it died counts too
		}
		_ = cmd.Wait() // killed
		cancel()

		l, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		booked := map[string]int{}
		for _, reference := range references(l) {
			booked[reference]++
		}
		for _, reference := range acknowledged {
			if booked[reference] != 1 {
				t.Errorf("round %d: %s was acknowledged, and is booked %d times", round, reference, booked[reference])
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d acknowledged bookings", len(acknowledged))
}

// A line is read as what it says, or not at all.
func FuzzParseRecord(f *testing.F) {
	for _, r := range []record{
		{Kind: kindBooking, AccountID: "a", Mode: "test", Reference: "r", MerchantOrderID: "o", Type: typePurchase, Amount: "45.67",
			Currency: "USD", ID: "i", ResponseCode: succeeded, AuthorizationCode: "1"},
		{Kind: kindDecline, AccountID: "a", Mode: "live", Reference: "r", MerchantOrderID: "ö", ID: "i", ResponseCode: "ERROR"},
		{Kind: kindVoid, AccountID: "a", Mode: "test", Reference: "r"},
		{Kind: kindFault, AccountID: "a", Mode: "test", MerchantOrderID: "o", Fault: "500"},
		{Kind: kindToken, Token: "t"},
		{Kind: kindPending, AccountID: "a", Mode: "test", Reference: "r", MerchantOrderID: "o", Type: typeRefund, Target: "t", Amount: "1",
			Currency: "USD", ID: "i", Then: thenApprove, Due: time.Unix(1_800_000_060, 0).UTC(), CallbackURL: "http://h", Message: "m", Copies: 2},
		{Kind: kindPending, AccountID: "a", Mode: "test", Reference: "r", MerchantOrderID: "o", Type: typeVerify, Amount: "0",
			Currency: "USD", ID: "i", Then: thenChallenge, Challenge: "c", ReturnURL: "<&>"},
		{Kind: kindDispute, AccountID: "a", Mode: "test", Reference: "r", MerchantOrderID: "o", Dispute: "d", Stage: "lost", Amount: "1", Currency: "USD"},
		{Kind: kindAcknowledged, Message: "m", Copy: 1},
	} {
		r.At = time.Unix(1_800_000_000, 1000).UTC()
		line, err := r.line()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(line[:len(line)-1])
	}
	f.Add([]byte(`{"kind":"token","at":"2026-11-21T10:00:00Z","token":"t"} {}`))
	f.Add([]byte(`[[[[[[[[[[[[[[[[`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRecord(data)
		if err != nil {
			return
		}
		line, err := r.line()
		if err != nil {
			if len(data) < maxLineBytes/8 { // escaping can make a line that much longer
				t.Fatalf("read, and cannot be written: %v", err)
			}
			return
		}
		if bytes.Count(line, []byte("\n")) != 1 {
			t.Fatal("more than one line")
		}
		again, err := parseRecord(line[:len(line)-1])
		if err != nil || !again.At.Equal(r.At) {
			t.Fatalf("not read again: %v", err)
		}
		again.At = r.At
		if !again.Due.Equal(r.Due) {
			t.Fatal("another due time")
		}
		again.Due = r.Due
		if again != r {
			t.Fatalf("%+v became %+v", r, again)
		}
	})
}

func BenchmarkBook(b *testing.B) {
	for _, durable := range []bool{false, true} {
		for _, clients := range []int{1, 64} {
			b.Run(fmt.Sprintf("durable=%v,clients=%d", durable, clients), func(b *testing.B) {
				dir := ""
				if durable {
					dir = b.TempDir()
				}
				l := mustOpen(b, dir)
				defer func() { _ = l.Close() }()
				var n atomic.Int64
				var wg sync.WaitGroup
				b.ResetTimer()
				for range clients {
					wg.Go(func() {
						for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
							if _, err := book(l, strconv.FormatInt(i, 10)); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
			})
		}
	}
}

func BenchmarkReplay(b *testing.B) {
	dir := b.TempDir()
	l := mustOpen(b, dir)
	l.journal.sync = func() error { return nil }
	const n = 20_000
	for i := range n {
		mustBook(b, l, fmt.Sprintf("0199c0de-0000-7000-8000-%012d", i))
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		l := mustOpen(b, dir)
		_ = l.Close()
	}
	b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "records/s")
}
