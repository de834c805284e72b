package sandbox

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shopspring/decimal"
)

// anOperation is a valid operation as JSON, changed by pairs of names and values.
func anOperation(reference, target, amount string, change ...any) map[string]any {
	o := map[string]any{"reference": reference, "account_id": "acc", "mode": "test", "merchant_order_id": "o1",
		"target": target, "amount": amount, "currency": "USD"}
	for i := 0; i < len(change); i += 2 {
		if change[i+1] == nil {
			delete(o, change[i].(string))
			continue
		}
		o[change[i].(string)] = change[i+1]
	}
	return o
}

func (s *site) capture(reference, target, amount string, change ...any) (int, reply) {
	s.t.Helper()
	return s.post("/sandbox/v1/captures", anOperation(reference, target, amount, change...))
}

func (s *site) cancel(reference, target, amount string, change ...any) (int, reply) {
	s.t.Helper()
	return s.post("/sandbox/v1/cancels", anOperation(reference, target, amount, change...))
}

func (s *site) refund(reference, target, amount string, change ...any) (int, reply) {
	s.t.Helper()
	return s.post("/sandbox/v1/refunds", anOperation(reference, target, amount, change...))
}

func (s *site) void(reference string) (int, reply) {
	s.t.Helper()
	return s.post("/sandbox/v1/voids", map[string]string{"reference": reference, "account_id": "acc", "mode": "test", "merchant_order_id": "o1"})
}

// sum is what the ledger holds of a type, and in how many entries.
func (s *site) sum(kind string) (string, int) {
	total, n := decimal.Zero, 0
	entries, _ := s.ledger.Entries(Query{Limit: 1 << 20})
	for _, e := range entries {
		if e.Type == kind {
			total = total.Add(decimal.RequireFromString(e.Amount))
			n++
		}
	}
	return total.String(), n
}

func TestAnAuthorizationIsCapturedInPartsAndNeverBeyond(t *testing.T) {
	dir := t.TempDir()
	s := newSite(t, dir)
	s.charge("reference", "a", "capture", false, "amount", "100")
	code, first := s.capture("c1", "a", "60.5")
	s.want("a part", code, first, http.StatusOK, statusApproved, succeeded)
	if first.Type != typeCapture || first.Amount != "60.5" || first.Currency != "USD" || first.ID == "" || first.AuthorizationCode == "" {
		t.Errorf("%+v", first)
	}
	code, re := s.capture("c2", "a", "39.5001")
	s.want("too much", code, re, http.StatusOK, statusDeclined, codeAmount)
	code, re = s.capture("c3", "a", "39.5")
	s.want("the rest", code, re, http.StatusOK, statusApproved, succeeded)
	code, re = s.capture("c4", "a", "0.0001")
	s.want("no more", code, re, http.StatusOK, statusDeclined, codeAmount)
	code, re = s.cancel("x1", "a", "100")
	s.want("a cancel after a capture", code, re, http.StatusOK, statusDeclined, codeStatus)
	code, re = s.refund("r1", "a", "1")
	s.want("a refund of the authorization", code, re, http.StatusOK, statusDeclined, codeStatus)
	code, re = s.refund("r2", "c1", "60.5")
	s.want("a refund of a capture", code, re, http.StatusOK, statusApproved, succeeded)
	code, re = s.refund("r3", "c1", "0.5")
	s.want("a refund of what is refunded", code, re, http.StatusOK, statusDeclined, codeAmount)

	s.end()
	s = newSite(t, dir)
	if code, re := s.capture("c1", "a", "1"); code != http.StatusOK || fmt.Sprint(re) != fmt.Sprint(first) {
		t.Errorf("the same reference later: %+v, first %+v", re, first)
	}
	if re := s.inquire("c1"); fmt.Sprint(re) != fmt.Sprint(first) {
		t.Errorf("the inquiry says %+v, the capture said %+v", re, first)
	}
	if re := s.inquire("c2"); re.Status != statusDeclined || re.Type != typeCapture || re.Amount != "39.5001" {
		t.Errorf("%+v", re)
	}
	code, re = s.capture("c5", "a", "0.0001")
	s.want("no more after a restart", code, re, http.StatusOK, statusDeclined, codeAmount)
	code, re = s.refund("r4", "c3", "39.5")
	s.want("a refund after a restart", code, re, http.StatusOK, statusApproved, succeeded)
	if sum, n := s.sum(typeCapture); sum != "100" || n != 2 {
		t.Errorf("%s captured in %d", sum, n)
	}
	if sum, n := s.sum(typeRefund); sum != "100" || n != 2 {
		t.Errorf("%s refunded in %d", sum, n)
	}
}

func TestAnAuthorizationIsCancelledWholeAndOnce(t *testing.T) {
	s := newSite(t, "")
	s.charge("reference", "a", "capture", false)
	code, re := s.cancel("x1", "a", "45")
	s.want("a part", code, re, http.StatusOK, statusDeclined, codeAmount)
	code, re = s.cancel("x2", "a", "45.6700")
	s.want("the whole", code, re, http.StatusOK, statusApproved, succeeded)
	for i, do := range []func(string, string, string, ...any) (int, reply){s.capture, s.cancel} {
		code, re = do(fmt.Sprint("after", i), "a", "45.67")
		s.want("after it", code, re, http.StatusOK, statusDeclined, codeStatus)
	}
	if sum, n := s.sum(typeCancel); sum != "45.67" || n != 1 {
		t.Errorf("%s cancelled in %d", sum, n)
	}
}

func TestAnOperationNeedsATargetThatAllowsIt(t *testing.T) {
	s := newSite(t, "")
	s.charge("reference", "purchase")
	s.charge("reference", "authorization", "capture", false)
	s.charge("reference", "declined", "capture", false, "description", "DO_NOT_HONOR")
	s.charge("reference", "pending", "merchant_order_id", "o2", "capture", false, "description", "sandbox:pending-then-approve=60s")
	s.charge("reference", "refused", "merchant_order_id", "o3", "capture", false, "description", "sandbox:reject")
	s.charge("reference", "elsewhere", "account_id", "acc2", "capture", false)
	s.charge("reference", "live", "mode", "live", "capture", false)
	s.charge("reference", "verified", "verify", true, "amount", "0")
	s.void("voided")
	for i, c := range []struct {
		do                     func(string, string, string, ...any) (int, reply)
		target, currency, code string
	}{
		{s.capture, "purchase", "USD", codeStatus},
		{s.cancel, "purchase", "USD", codeStatus},
		{s.refund, "authorization", "USD", codeStatus},
		{s.capture, "verified", "USD", codeStatus},
		{s.refund, "verified", "USD", codeStatus},
		{s.capture, "declined", "USD", codeStatus},
		{s.capture, "pending", "USD", codeStatus},
		{s.cancel, "pending", "USD", codeStatus},
		{s.capture, "refused", "USD", codeNotFound},
		{s.capture, "voided", "USD", codeNotFound},
		{s.capture, "elsewhere", "USD", codeNotFound},
		{s.capture, "live", "USD", codeNotFound},
		{s.refund, "nobody", "USD", codeNotFound},
		{s.refund, "itself13", "USD", codeNotFound},
		{s.capture, "authorization", "EUR", codeCurrency},
		{s.cancel, "authorization", "EUR", codeCurrency},
		{s.refund, "purchase", "EUR", codeCurrency},
		{s.refund, "purchase", "USD", succeeded},
		{s.capture, "authorization", "USD", succeeded},
	} {
		code, re := c.do(fmt.Sprint("itself", i), c.target, "45.67", "currency", c.currency)
		want := statusDeclined
		if c.code == succeeded {
			want = statusApproved
		}
		s.want(fmt.Sprint(i, " ", c.target), code, re, http.StatusOK, want, c.code)
	}
}

// A refund's description may name a response code, as a charge's may.
func TestDescriptionsDecideAboutOperations(t *testing.T) {
	s := newSite(t, "")
	s.charge()
	code, re := s.refund("f1", "r1", "5", "description", "INSUFFICIENT_FUNDS")
	s.want("a decline", code, re, http.StatusOK, statusDeclined, "INSUFFICIENT_FUNDS")
	code, re = s.refund("f2", "r1", "45.68", "description", "FRAUD_VERIFIED")
	s.want("what cannot be", code, re, http.StatusOK, statusDeclined, codeAmount)
	code, re = s.refund("f3", "r1", "45.67", "description", "Broken cup")
	s.want("a refund", code, re, http.StatusOK, statusApproved, succeeded)
}

func TestAReferenceIsForOneKindOfThing(t *testing.T) {
	dir := t.TempDir()
	s := newSite(t, dir)
	s.charge("reference", "p")
	s.charge("reference", "a", "capture", false)
	s.charge("reference", "a2", "capture", false)
	s.charge("reference", "no", "description", "DO_NOT_HONOR")
	s.capture("c", "a", "1")
	s.capture("too-much", "a", "999")
	s.capture("met", "a2", "1", "merchant_order_id", "o9", "description", "sandbox:500")
	for range 2 {
		for reference, own := range map[string]string{"p": "", "a": "", "no": "", "c": typeCapture, "too-much": typeCapture, "met": typeCapture} {
			for kind, do := range map[string]func() (int, reply){
				"":          func() (int, reply) { return s.charge("reference", reference) },
				typeCapture: func() (int, reply) { return s.capture(reference, "a", "1") },
				typeCancel:  func() (int, reply) { return s.cancel(reference, "a2", "45.67") },
				typeRefund:  func() (int, reply) { return s.refund(reference, "p", "1") },
			} {
				code, re := do()
				if kind == own {
					if code != http.StatusOK {
						t.Errorf("%s: %d %+v", reference, code, re)
					}
				} else if code != http.StatusBadRequest || re.Status != statusRefused || !strings.HasPrefix(re.Messages[0], "reference: ") {
					t.Errorf("%s, sent as %s: %d %+v", reference, kind, code, re)
				}
			}
		}
		s.end()
		s = newSite(t, dir)
	}
	for _, kind := range []string{typeCancel, typeRefund} {
		if _, n := s.sum(kind); n != 0 {
			t.Errorf("%d of %s", n, kind)
		}
	}
}

// Each operation has first sends of its own, apart from its order's charge.
func TestFaultsDisturbTheFirstSendOfEachKindOfOperation(t *testing.T) {
	for word, c := range map[string]struct {
		code  int // 0: no (whole) answer
		books int
	}{
		"charge-then-500": {500, 1}, "500": {500, 0}, "charge-then-reset": {0, 1}, "unavailable": {503, 0}, "reject": {400, 0}, "slow=1ms": {200, 1},
	} {
		t.Run(word, func(t *testing.T) {
			dir := t.TempDir()
			s := newSite(t, dir)
			s.charge()
			q := anOperation("f1", "r1", "20", "description", "sandbox:"+word)
			code, _, err := s.do(t.Context(), http.MethodPost, "/sandbox/v1/refunds", q)
			if (err != nil) != (c.code == 0) || err == nil && code != c.code {
				t.Errorf("%d %v", code, err)
			}
			s.end()
			s = newSite(t, dir)
			if _, n := s.sum(typeRefund); n != c.books {
				t.Errorf("%d refunds, want %d", n, c.books)
			}
			code2, re := s.post("/sandbox/v1/refunds", q)
			if word == "reject" {
				s.want("the same reference", code2, re, http.StatusBadRequest, statusRefused, "")
			} else {
				s.want("the same reference", code2, re, http.StatusOK, statusApproved, succeeded)
			}
			code2, re = s.refund("f2", "r1", "20", "description", "sandbox:"+word)
			s.want("a second refund of the order", code2, re, http.StatusOK, statusApproved, succeeded)
		})
	}
	t.Run("what books never books beyond", func(t *testing.T) {
		s := newSite(t, "")
		s.charge()
		code, _, err := s.do(t.Context(), http.MethodPost, "/sandbox/v1/refunds", anOperation("f1", "r1", "46", "description", "sandbox:charge-then-500"))
		if err != nil || code != http.StatusInternalServerError {
			t.Errorf("%d %v", code, err)
		}
		if re := s.inquire("f1"); re.Status != statusDeclined || re.ResponseCode != codeAmount {
			t.Errorf("%+v", re)
		}
	})
	t.Run("no challenge", func(t *testing.T) {
		s := newSite(t, "")
		s.charge()
		code, re := s.refund("f1", "r1", "1", "description", "sandbox:challenge")
		s.want("a challenge", code, re, http.StatusBadRequest, statusRefused, "")
		code, re = s.refund("f1", "r1", "1", "description", "sandbox:reject")
		s.want("the first send is still to come", code, re, http.StatusBadRequest, statusRefused, "")
	})
}

// Whoever comes at once, with the same reference or another: what the ledger holds
// never exceeds what there was.
func TestConcurrentOperationsNeverExceedTheirTarget(t *testing.T) {
	for _, durable := range []bool{false, true} {
		t.Run(fmt.Sprintf("durable=%v", durable), func(t *testing.T) {
			dir := ""
			if durable {
				dir = t.TempDir()
			}
			s := newSite(t, dir)
			s.charge("amount", "100")
			var wg sync.WaitGroup
			var mu sync.Mutex
			answers := map[string]map[string]bool{}
			for i := range 200 {
				wg.Go(func() {
					reference := fmt.Sprint("f", i/2) // two of each
					_, re := s.refund(reference, "r1", "3", "merchant_order_id", reference)
					mu.Lock()
					defer mu.Unlock()
					if answers[reference] == nil {
						answers[reference] = map[string]bool{}
					}
					answers[reference][fmt.Sprint(re)] = true
				})
			}
			wg.Wait()
			for reference, a := range answers {
				if len(a) != 1 {
					t.Errorf("%s was answered in %d ways", reference, len(a))
				}
			}
			if sum, n := s.sum(typeRefund); sum != "99" || n != 33 {
				t.Errorf("%s refunded in %d", sum, n)
			}
			if len(s.ledger.holds.of)+len(s.ledger.roots.of) != 0 {
				t.Error("holds left behind")
			}
		})
	}
}

func TestACaptureAndACancelNeverBothWin(t *testing.T) {
	s := newSite(t, "")
	for i := range 100 {
		id := fmt.Sprint(i)
		s.charge("reference", "a"+id, "merchant_order_id", id, "capture", false)
		outcomes := make([]status, 2)
		var wg sync.WaitGroup
		wg.Go(func() { _, re := s.capture("c"+id, "a"+id, "10"); outcomes[0] = re.Status })
		wg.Go(func() { _, re := s.cancel("x"+id, "a"+id, "45.67"); outcomes[1] = re.Status })
		wg.Wait()
		if (outcomes[0] == statusApproved) == (outcomes[1] == statusApproved) {
			t.Fatalf("%s: %v", id, outcomes)
		}
	}
}

// What is refused by the service is refused by the books as well: a journal that says
// otherwise was not written by this ledger.
func TestAJournalThatExceedsATargetDoesNotLoad(t *testing.T) {
	dir := t.TempDir()
	s := newSite(t, dir)
	s.charge("reference", "a", "capture", false)
	s.capture("c1", "a", "45")
	s.end()
	path := filepath.Join(dir, fileName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(whole), "\n")
	for name, line := range map[string]string{
		"captured beyond":     strings.Replace(lines[2], `"c1"`, `"c2"`, 1),
		"another currency":    strings.Replace(strings.Replace(strings.Replace(lines[2], `"c1"`, `"c2"`, 1), "USD", "EUR", 1), `"45"`, `"0.1"`, 1),
		"an unknown target":   strings.Replace(strings.Replace(lines[2], `"c1"`, `"c2"`, 1), `"target":"a"`, `"target":"b"`, 1),
		"no target":           strings.Replace(strings.Replace(lines[2], `"c1"`, `"c2"`, 1), `,"target":"a"`, "", 1),
		"a charge's target":   strings.Replace(strings.Replace(lines[2], `"c1"`, `"c2"`, 1), `"CAPTURE"`, `"PURCHASE"`, 1),
		"cancelled afterward": strings.Replace(strings.Replace(strings.Replace(lines[2], `"c1"`, `"c2"`, 1), `"CAPTURE"`, `"CANCEL"`, 1), `"45"`, `"45.67"`, 1),
	} {
		if err := os.WriteFile(path, []byte(string(whole)+line), 0o600); err != nil {
			t.Fatal(err)
		}
		if l, err := Open(dir); err == nil {
			_ = l.Close()
			t.Errorf("%s: loaded", name)
		} else if !strings.Contains(err.Error(), "line 4:") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.WriteFile(path, []byte(string(whole)+strings.Replace(strings.Replace(lines[2], `"c1"`, `"c2"`, 1), `"45"`, `"0.67"`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, dir)
}

// A journal as an older sandbox wrote it, before there were operations.
const oldJournal = header +
	`{"kind":"booking","at":"2026-11-20T10:00:00.000002Z","account_id":"acc","mode":"test","reference":"p","merchant_order_id":"o","type":"PURCHASE","amount":"45.67","currency":"USD","id":"sbx_1","response_code":"SUCCEEDED","authorization_code":"000001"}` + "\n" +
	`{"kind":"booking","at":"2026-11-20T10:00:00.000001Z","account_id":"acc","mode":"test","reference":"a","merchant_order_id":"o","type":"AUTHORIZE","amount":"10","currency":"USD","id":"sbx_2","response_code":"SUCCEEDED","authorization_code":"000002","fault":"charge-then-500"}` + "\n" +
	`{"kind":"decline","at":"2026-11-20T10:00:01Z","account_id":"acc","mode":"test","reference":"d","merchant_order_id":"o","id":"sbx_3","response_code":"DO_NOT_HONOR"}` + "\n" +
	`{"kind":"fault","at":"2026-11-20T10:00:01Z","account_id":"acc","mode":"test","reference":"f","merchant_order_id":"o2","fault":"timeout"}` + "\n" +
	`{"kind":"refusal","at":"2026-11-20T10:00:01Z","account_id":"acc","mode":"test","reference":"r","merchant_order_id":"o3","fault":"reject"}` + "\n" +
	`{"kind":"void","at":"2026-11-20T10:00:01Z","account_id":"acc","mode":"test","reference":"v","merchant_order_id":"o"}` + "\n" +
	`{"kind":"token","at":"2026-11-20T10:00:01Z","response_code":"EXPIRED_CARD","token":"t"}` + "\n"

func TestAnOldJournalStillLoads(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileName), []byte(oldJournal), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, dir)
	code, re := s.refund("f1", "p", "45.67", "merchant_order_id", "o")
	s.want("a refund of an old purchase", code, re, http.StatusOK, statusApproved, succeeded)
	code, re = s.capture("c1", "a", "10", "merchant_order_id", "o")
	s.want("a capture of an old authorization", code, re, http.StatusOK, statusApproved, succeeded)
	code, re = s.charge("reference", "d")
	s.want("an old decline", code, re, http.StatusOK, statusDeclined, "DO_NOT_HONOR")
	code, re = s.charge("reference", "f", "merchant_order_id", "o2", "description", "sandbox:reject")
	s.want("an old fault's order", code, re, http.StatusOK, statusApproved, succeeded)
	entries, next := s.ledger.Between(time.Time{}, time.Time{}, 0, 10)
	if len(entries) != 5 || next != 0 || entries[0].Reference != "p" || entries[1].CreatedAt.Before(entries[0].CreatedAt) {
		t.Errorf("%+v", entries)
	}
}

func TestInvalidOperationsAreRefusedByFieldAndRule(t *testing.T) {
	s := newSite(t, "")
	s.charge()
	for _, c := range []struct {
		field  string
		change []any
	}{
		{"reference: ", []any{"reference", "a b"}},
		{"account_id: ", []any{"account_id", nil}},
		{"mode: ", []any{"mode", "x"}},
		{"merchant_order_id: ", []any{"merchant_order_id", nil}},
		{"target: ", []any{"target", nil}},
		{"target: ", []any{"target", strings.Repeat("x", 65)}},
		{"amount: ", []any{"amount", "0"}},
		{"amount: ", []any{"amount", "1.23456"}},
		{"currency: ", []any{"currency", "usd"}},
		{"description: ", []any{"description", strings.Repeat("x", 256)}},
		{"description: ", []any{"description", "sandbox:nothing"}},
		{"callback_url: ", []any{"callback_url", "ftp://h"}},
		{"callback_url: ", []any{"callback_url", "/relative"}},
		{"callback_url: ", []any{"callback_url", "http://user:secret@h/"}},
		{"callback_url: ", []any{"callback_url", "http://h/" + strings.Repeat("x", maxURLLength)}},
		{"body: ", []any{"capture", true}},
		{"body: amount: must be of type string", []any{"amount", 1}},
	} {
		code, re := s.refund("f1", "r1", "1", c.change...)
		s.want(c.field, code, re, http.StatusBadRequest, statusRefused, "")
		if len(re.Messages) != 1 || !strings.HasPrefix(re.Messages[0], c.field) {
			t.Errorf("%s: %q", c.field, re.Messages)
		}
	}
	for _, c := range []struct {
		field  string
		change []any
	}{
		{"amount: must be zero", []any{"verify", true}},
		{"amount: must be zero", []any{"verify", true, "amount", "-0"}},
		{"return_url: ", []any{"return_url", strings.Repeat("x", maxURLLength+1)}},
		{"callback_url: ", []any{"callback_url", "javascript:alert(1)"}},
	} {
		code, re := s.charge(append(c.change, "reference", "r2")...)
		s.want(c.field, code, re, http.StatusBadRequest, statusRefused, "")
		if len(re.Messages) != 1 || !strings.HasPrefix(re.Messages[0], c.field) {
			t.Errorf("%s: %q", c.field, re.Messages)
		}
	}
	if refs := references(s.ledger); len(refs) != 1 {
		t.Errorf("%v", refs)
	}
}

func TestAVerificationMovesNothing(t *testing.T) {
	dir := t.TempDir()
	s := newSite(t, dir)
	code, re := s.charge("verify", true, "amount", "0", "reference", "v1")
	s.want("a good card", code, re, http.StatusOK, statusApproved, succeeded)
	if re.Type != typeVerify || re.Amount != "0" || re.AuthorizationCode == "" {
		t.Errorf("%+v", re)
	}
	code, no := s.charge("verify", true, "amount", "0.00", "reference", "v2", "description", "EXPIRED_CARD")
	s.want("a bad one", code, no, http.StatusOK, statusDeclined, "EXPIRED_CARD")
	s.end()
	s = newSite(t, dir)
	for reference, want := range map[string]reply{"v1": re, "v2": no} {
		if got := s.inquire(reference); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%+v, was %+v", got, want)
		}
	}
	if refs := references(s.ledger); len(refs) != 0 {
		t.Errorf("the ledger shows %v", refs)
	}
	if entries, _ := s.ledger.Between(time.Time{}, time.Time{}, 0, 10); len(entries) != 0 {
		t.Errorf("the bookings are %v", entries)
	}
}

// However money is asked for and given back, and wherever the process ends in between:
// what the ledger holds adds up.
func TestSumsHoldUnderRandomOperationsAndRestarts(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	dir := t.TempDir()
	for round := range 3 {
		s := newSite(t, dir)
		var wg sync.WaitGroup
		for worker := range 4 {
			seed := random.Uint64()
			wg.Go(func() {
				r := rand.New(rand.NewPCG(seed, 1))
				captures := []string{"c"}
				for i := range 60 {
					id := fmt.Sprintf("%d-%d-%d", round, worker, i)
					target := fmt.Sprint(r.IntN(6))
					amount := fmt.Sprintf("%d.%02d", 1+r.IntN(30), r.IntN(100))
					description := []string{"", "", "sandbox:pending-then-approve=1ms", "sandbox:pending-then-decline=1ms", "sandbox:500", "DO_NOT_HONOR"}[r.IntN(6)]
					change := []any{"merchant_order_id", id, "description", description}
					var code int
					switch r.IntN(5) {
					case 0:
						code, _ = s.charge("reference", "a"+target, "merchant_order_id", "a"+target, "capture", false, "amount", "100")
					case 1:
						code, _ = s.capture("c"+id, "a"+target, amount, change...)
						captures = append(captures, "c"+id)
					case 2:
						code, _ = s.refund("f"+id, captures[r.IntN(len(captures))], amount, change...)
					case 3:
						code, _ = s.cancel("x"+id, "a"+target, "100", append(change, "description", "sandbox:pending-then-decline=1ms")...)
					case 4:
						code, _ = s.void(captures[r.IntN(len(captures))])
					}
					if code != http.StatusOK && code != http.StatusInternalServerError && code != http.StatusBadRequest {
						t.Errorf("%d", code)
					}
				}
			})
		}
		wg.Wait()
		s.end()
	}
	s := newSite(t, dir)
	until(t, "all that was pending is decided", func() bool { return len(s.ledger.due()) == 0 })
	targets := map[string]string{}
	for _, line := range strings.Split(readFile(t, filepath.Join(dir, fileName)), "\n")[1:] {
		if r, err := parseRecord([]byte(line)); err == nil && r.Kind == kindBooking {
			targets[r.Reference] = r.Target
		}
	}
	left := map[string]decimal.Decimal{}
	entries, _ := s.ledger.Between(time.Time{}, time.Time{}, 0, 1<<20)
	kinds := map[string]int{}
	for _, e := range entries {
		amount := decimal.RequireFromString(e.Amount)
		kinds[e.Type]++
		left[e.Reference] = amount
		if target := targets[e.Reference]; target != "" {
			if left[target] = left[target].Sub(amount); left[target].IsNegative() {
				t.Errorf("%s was exceeded by %s", target, e.Reference)
			}
		}
	}
	if kinds[typeAuthorize] == 0 || kinds[typeCapture] == 0 || kinds[typeRefund] == 0 {
		t.Errorf("too little happened: %v", kinds)
	}
	for key, sums := range s.ledger.sums {
		if st := s.ledger.standings[key]; st.kind == typeAuthorize {
			if want := decimal.RequireFromString(st.amount).Sub(left[key.reference]); !sums.used.Equal(want) && !sums.cancelled {
				t.Errorf("%s: %s is reserved or used, and %s is booked", key.reference, sums.used, want)
			}
		}
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
