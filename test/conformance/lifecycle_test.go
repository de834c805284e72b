package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/test/harness"
)

// The whole life of a payment, on the built binary and over HTTP: every operation, and
// every fault that the sandbox has for one. Whether money moved once is read in the
// sandbox's ledger.

// paid is a payment to act on.
type paid struct {
	payment, transaction string
	order                string
}

// sold is a purchase, held an authorization, of that amount in USD.
func sold(t *testing.T, c *harness.Client, value string) paid {
	t.Helper()
	return begun(t, c, value, c.Pay)
}

func held(t *testing.T, c *harness.Client, value string) paid {
	t.Helper()
	return begun(t, c, value, c.Authorize)
}

func begun(t *testing.T, c *harness.Client, value string, ask func(context.Context, harness.Payment) harness.Answer) paid {
	t.Helper()
	p := harness.NewPayment("An order that is in order")
	p.Value = value
	a := ask(within(t, harness.Patience), p)
	mustBe(t, a, http.StatusCreated)
	shown, tx, err := a.Told()
	if err != nil {
		t.Fatal(err)
	}
	return paid{shown.ID, tx.ID, p.OrderID}
}

// deed is one to be done with the payment, under a nonce that nobody else has.
func (p paid) deed(route, transaction, value string) harness.Deed {
	return harness.Deed{Nonce: harness.Unguessable("nonce"), Route: route, Payment: p.payment, Transaction: transaction, Value: value}
}

// mustDo does a deed and wants it to work at once. It returns the transaction's id.
func mustDo(t *testing.T, c *harness.Client, d harness.Deed, settled string) string {
	t.Helper()
	a := c.Do(within(t, harness.Patience), d)
	status := http.StatusOK
	if d.Route == harness.CancelOrRefund {
		status = http.StatusCreated
	}
	mustBe(t, a, status)
	p, tx, err := a.Told()
	if err != nil || p.Settled() != settled || tx.Status != "SUCCEEDED" {
		t.Fatalf("%s of %q: told %s, transaction %s (%v); want %s", d.Route, d.Value, p.Settled(), tx.Status, err, settled)
	}
	mustShow(t, c, d.Payment, settled)
	again := c.Do(within(t, harness.Patience), d)
	if !again.Same(a) || !again.Replayed() {
		t.Fatalf("%s: not a replay of the first answer:\n first %s\n now   %s", d.Route, a, again)
	}
	return tx.ID
}

// mustRefuse does a deed and wants it refused.
func mustRefuse(t *testing.T, c *harness.Client, d harness.Deed, status int, code string) {
	t.Helper()
	a := c.Do(within(t, harness.Patience), d)
	mustBe(t, a, status)
	if a.Code() != code {
		t.Errorf("%s: refused as %s, not as %s", d.Route, a.Code(), code)
	}
}

// shownOf is the payment as GET shows it.
func shownOf(t *testing.T, c *harness.Client, payment string) (p harness.Shown) {
	t.Helper()
	a := c.Get(within(t, harness.Patience), "/v1/payments/"+payment)
	mustBe(t, a, http.StatusOK)
	if err := json.Unmarshal(a.Body, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

func mustShow(t *testing.T, c *harness.Client, payment, settled string) {
	t.Helper()
	if got := shownOf(t, c, payment).Settled(); got != settled {
		t.Fatalf("GET shows %s, not %s", got, settled)
	}
}

// mustHaveBooked checks an order's entries in the ledger, oldest first.
func mustHaveBooked(t *testing.T, l harness.Ledger, order string, entries ...string) {
	t.Helper()
	if got := l.Booked(t, order); !slices.Equal(got, entries) {
		t.Errorf("the ledger has %q, not %q", got, entries)
	}
}

func TestAPaymentIsHeldCapturedRefundedAndCancelledAsTheLedgerSays(t *testing.T) {
	t.Parallel()
	dev := harness.StartDev(t, harness.Folder(t))
	client, ledger := harness.NewClient(dev.Info.BaseURL, dev.Info.Keys()), dev.Info.Ledger()
	for what, life := range map[string]func(t *testing.T){
		"captured in full, refunded in full": func(t *testing.T) {
			p := held(t, client, "100")
			mustShow(t, client, p.payment, "PENDING/AUTHORIZED captured 0 refunded 0")
			capture := mustDo(t, client, p.deed(harness.Capture, p.transaction, "100"), "SUCCEEDED/CAPTURED captured 100 refunded 0")
			mustRefuse(t, client, p.deed(harness.Cancel, p.transaction, ""), http.StatusBadRequest, "INVALID_STATUS")
			mustDo(t, client, p.deed(harness.Refund, capture, ""), "REFUNDED/REFUNDED captured 100 refunded 100")
			mustHaveBooked(t, ledger, p.order, "AUTHORIZE 100", "CAPTURE 100", "REFUND 100")
		},
		"captured in parts, refunded in parts": func(t *testing.T) {
			p := held(t, client, "100.5")
			one := mustDo(t, client, p.deed(harness.Capture, p.transaction, "60.25"), "SUCCEEDED/PARTIALLY_CAPTURED captured 60.25 refunded 0")
			mustRefuse(t, client, p.deed(harness.Capture, p.transaction, "40.26"), http.StatusBadRequest, "INVALID_AMOUNT")
			two := mustDo(t, client, p.deed(harness.Capture, p.transaction, "40.25"), "SUCCEEDED/CAPTURED captured 100.5 refunded 0")
			mustRefuse(t, client, p.deed(harness.Refund, p.transaction, "1"), http.StatusBadRequest, "INVALID_TRANSACTION_TYPE")
			mustRefuse(t, client, p.deed(harness.Refund, two, "40.26"), http.StatusBadRequest, "INVALID_AMOUNT")
			mustDo(t, client, p.deed(harness.Refund, one, "0.25"), "SUCCEEDED/PARTIALLY_REFUNDED captured 100.5 refunded 0.25")
			mustDo(t, client, p.deed(harness.CancelOrRefund, one, ""), "SUCCEEDED/PARTIALLY_REFUNDED captured 100.5 refunded 60.25")
			mustDo(t, client, p.deed(harness.CancelOrRefund, "", ""), "REFUNDED/REFUNDED captured 100.5 refunded 100.5")
			mustHaveBooked(t, ledger, p.order, "AUTHORIZE 100.5", "CAPTURE 60.25", "CAPTURE 40.25", "REFUND 0.25", "REFUND 60", "REFUND 40.25")
			if version := shownOf(t, client, p.payment).Version; version != 6 {
				t.Errorf("the version is %d after six transactions", version)
			}
		},
		"cancelled": func(t *testing.T) {
			p := held(t, client, "100")
			mustDo(t, client, p.deed(harness.Cancel, p.transaction, ""), "CANCELED/CANCELED captured 0 refunded 0")
			mustRefuse(t, client, p.deed(harness.Capture, p.transaction, "1"), http.StatusBadRequest, "INVALID_STATUS")
			mustHaveBooked(t, ledger, p.order, "AUTHORIZE 100", "CANCEL 100")
		},
		"cancelled, whichever it takes": func(t *testing.T) {
			p := held(t, client, "100")
			mustDo(t, client, p.deed(harness.CancelOrRefund, "", ""), "CANCELED/CANCELED captured 0 refunded 0")
			mustHaveBooked(t, ledger, p.order, "AUTHORIZE 100", "CANCEL 100")
		},
		"bought, refunded in parts": func(t *testing.T) {
			p := sold(t, client, "100")
			mustDo(t, client, p.deed(harness.Refund, p.transaction, "40"), "SUCCEEDED/PARTIALLY_REFUNDED captured 0 refunded 40")
			mustRefuse(t, client, p.deed(harness.Refund, p.transaction, "60.01"), http.StatusBadRequest, "INVALID_AMOUNT")
			mustDo(t, client, p.deed(harness.Refund, p.transaction, ""), "REFUNDED/REFUNDED captured 0 refunded 100")
			mustHaveBooked(t, ledger, p.order, "PURCHASE 100", "REFUND 40", "REFUND 60")
		},
		"verified": func(t *testing.T) {
			p := harness.NewPayment("An order that is in order")
			a := client.Verify(within(t, harness.Patience), p)
			mustBe(t, a, http.StatusCreated)
			shown, tx, err := a.Told()
			if err != nil || shown.Settled() != "VERIFIED/VERIFIED captured 0 refunded 0" || tx.Type != "VERIFY" {
				t.Fatalf("told %s", a)
			}
			mustHaveBooked(t, ledger, p.OrderID)
		},
		"under one nonce for two things": func(t *testing.T) { // Y31
			p := held(t, client, "100")
			capture := p.deed(harness.Capture, p.transaction, "60")
			one := mustDo(t, client, capture, "SUCCEEDED/PARTIALLY_CAPTURED captured 60 refunded 0")
			refund := p.deed(harness.Refund, one, "60")
			refund.Nonce = capture.Nonce
			mustRefuse(t, client, refund, http.StatusUnprocessableEntity, "IDEMPOTENCY_KEY_REUSED")
			mustHaveBooked(t, ledger, p.order, "AUTHORIZE 100", "CAPTURE 60")
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			life(t)
		})
	}
}

// deeds are one of each kind, each of a payment of its own, with how the payment stands
// when it has been done, and what the ledger has then.
func deeds(t *testing.T, c *harness.Client) map[string]doing {
	t.Helper()
	capture, cancel, refund := held(t, c, "100"), held(t, c, "100"), sold(t, c, "100")
	return map[string]doing{
		harness.Capture: {capture.deed(harness.Capture, capture.transaction, "60"), capture.order,
			"PENDING/AUTHORIZED captured 0 refunded 0", "PENDING/AUTHORIZED captured 0 refunded 0",
			"SUCCEEDED/PARTIALLY_CAPTURED captured 60 refunded 0", []string{"AUTHORIZE 100", "CAPTURE 60"}},
		harness.Cancel: {cancel.deed(harness.Cancel, cancel.transaction, ""), cancel.order,
			"PENDING/AUTHORIZED captured 0 refunded 0", "CANCELED/PENDING_PROVIDER_CONFIRMATION captured 0 refunded 0",
			"CANCELED/CANCELED captured 0 refunded 0", []string{"AUTHORIZE 100", "CANCEL 100"}},
		harness.Refund: {refund.deed(harness.Refund, refund.transaction, "60"), refund.order,
			"SUCCEEDED/APPROVED captured 0 refunded 0", "REFUNDED/PENDING_PROVIDER_CONFIRMATION captured 0 refunded 0",
			"SUCCEEDED/PARTIALLY_REFUNDED captured 0 refunded 60", []string{"PURCHASE 100", "REFUND 60"}},
	}
}

type doing struct {
	harness.Deed
	order                 string
	before, pending, done string
	booked                []string
}

func TestEachFaultOfTheSandboxAtEachOperationMovesMoneyOnce(t *testing.T) {
	t.Parallel()
	// Recovery is kept out of it: here the merchant's retry must do the work.
	dev := harness.StartDev(t, harness.Folder(t), "--provider-timeout", "1s", "--recovery-interval", "10m")
	client := harness.NewClient(dev.Info.BaseURL, dev.Info.Keys())
	ledger := dev.Info.Ledger()
	for _, f := range faults {
		for route, d := range deeds(t, client) {
			t.Run(f.description+" at a "+route, func(t *testing.T) {
				t.Parallel()
				status := f.status
				if status == http.StatusCreated {
					status = http.StatusOK
				}
				d.Description = f.description
				first := client.Do(within(t, harness.Patience), d.Deed)
				mustBe(t, first, status)
				if first.Code() != f.code {
					t.Errorf("the code is %s", first.Code())
				}
				mustHaveBooked(t, ledger, d.order, d.booked[:1+f.booked]...)
				if f.code != "" {
					mustShow(t, client, d.Payment, d.before)
					if state := lives(t, client, d.Nonce)[0].KeyState; state != map[bool]string{true: "released", false: "unresolved"}[f.released] {
						t.Errorf("the key is %s", state)
					}
				}
				if f.corrected != "" {
					d.Description = f.corrected
				}
				answer, err := client.DoUntilAnswered(within(t, harness.Patience), d.Deed)
				if err != nil {
					t.Fatal(err)
				}
				mustBe(t, answer, http.StatusOK)
				if answer.Replayed() != (f.code == "") {
					t.Errorf("replayed: %t", answer.Replayed())
				}
				again := client.Do(within(t, harness.Patience), d.Deed)
				if !again.Same(answer) || !again.Replayed() {
					t.Errorf("not a replay:\n first %s\n now   %s", answer, again)
				}
				mustShow(t, client, d.Payment, d.done)
				mustHaveBooked(t, ledger, d.order, d.booked...)
			})
		}
	}
}

func TestAnOperationWhoseFaultNobodyRetriesIsSettledByRecovery(t *testing.T) {
	t.Parallel()
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	_, client := instance(t, pgtest.URL(t), sandbox.URL,
		"--provider-timeout", "1s", "--settle", "1s", "--lease", "4s", "--recovery-interval", "200ms")
	for _, f := range faults {
		if f.code == "" || f.released {
			continue
		}
		for route, d := range deeds(t, client) {
			t.Run(f.description+" at a "+route, func(t *testing.T) {
				t.Parallel()
				d.Description = f.description
				mustBe(t, client.Do(within(t, harness.Patience), d.Deed), f.status)
				want := map[int]string{1: "answered", 0: "released"}[f.booked]
				harness.Eventually(t, harness.Patience, "recovery settles it", func() bool {
					return lives(t, client, d.Nonce)[0].KeyState == want
				})
				mustHaveBooked(t, sandbox.Ledger(), d.order, d.booked[:1+f.booked]...)
				if f.booked == 0 {
					mustShow(t, client, d.Payment, d.before) // given back
				}
				answer := client.Do(within(t, harness.Patience), d.Deed)
				mustBe(t, answer, http.StatusOK)
				if answer.Replayed() != (f.booked == 1) {
					t.Errorf("a late retry is replayed: %t", answer.Replayed())
				}
				mustShow(t, client, d.Payment, d.done)
				mustHaveBooked(t, sandbox.Ledger(), d.order, d.booked...)
			})
		}
	}
}

// What the sandbox decides later is told by its callback, once or twice, and changes the
// payment once. What was answered first is answered for ever.
func TestWhatIsDecidedLaterIsToldByACallbackAndCountsOnce(t *testing.T) {
	t.Parallel()
	// Recovery is kept out of it: here the callback must do the work.
	dev := harness.StartDev(t, harness.Folder(t), "--recovery-interval", "10m")
	client := harness.NewClient(dev.Info.BaseURL, dev.Info.Keys())
	ledger := dev.Info.Ledger()
	for _, later := range []struct {
		description string
		approved    bool
	}{
		{"sandbox:pending-then-approve=500ms", true}, {"sandbox:pending-then-decline=500ms", false},
		{"sandbox:pending-then-approve-twice=500ms", true},
	} {
		t.Run(later.description, func(t *testing.T) {
			t.Parallel()
			p := harness.NewPayment(later.description)
			first := client.Pay(within(t, harness.Patience), p)
			mustBe(t, first, http.StatusCreated)
			shown, _, err := first.Told()
			if err != nil || shown.Settled() != "PENDING/PENDING_PROVIDER_CONFIRMATION captured 0 refunded 0" {
				t.Fatalf("told %s (%v)", first, err)
			}
			want, booked := "SUCCEEDED/APPROVED captured 0 refunded 0", []string{"PURCHASE 45.67"}
			if !later.approved {
				want, booked = "DECLINED/DECLINED captured 0 refunded 0", nil
			}
			harness.Eventually(t, harness.Patience, "the callback settles it", func() bool { return shownOf(t, client, shown.ID).Settled() == want })
			mustReplay(t, client, p, first)
			mustHaveBooked(t, ledger, p.OrderID, booked...)
		})
		for route, d := range deeds(t, client) {
			t.Run(later.description+" at a "+route, func(t *testing.T) {
				t.Parallel()
				d.Description = later.description
				first := client.Do(within(t, harness.Patience), d.Deed)
				mustBe(t, first, http.StatusOK)
				_, tx, err := first.Told()
				if err != nil || tx.Status != "PENDING" || tx.ResponseCode != "PENDING_PROVIDER_CONFIRMATION" {
					t.Fatalf("told %s (%v)", first, err)
				}
				want, booked := d.done, d.booked
				if !later.approved {
					want, booked = d.before, d.booked[:1]
				}
				harness.Eventually(t, harness.Patience, "the callback settles it", func() bool {
					return shownOf(t, client, d.Payment).Settled() == want && lives(t, client, d.Nonce)[0].Transaction.Status != "PENDING"
				})
				version := shownOf(t, client, d.Payment).Version
				if strings.Contains(later.description, "twice") {
					harness.Eventually(t, harness.Patience, "the second copy has come", func() bool {
						return calledBack(dev.Stderr(), tx.ID) >= 2
					})
				}
				if now := shownOf(t, client, d.Payment); now.Version != version || now.Settled() != want {
					t.Errorf("the payment went on from version %d to %d: %s", version, now.Version, now.Settled())
				}
				again := client.Do(within(t, harness.Patience), d.Deed)
				if !again.Same(first) || !again.Replayed() {
					t.Errorf("not a replay:\n first %s\n now   %s", first, again)
				}
				mustHaveBooked(t, ledger, d.order, booked...)
			})
		}
	}
}

// calledBack is how many callbacks about a transaction were answered, by the log.
func calledBack(log, transaction string) (n int) {
	for line := range strings.Lines(log) {
		if strings.Contains(line, "/v1/callbacks/") && strings.Contains(line, transaction) {
			n++
		}
	}
	return n
}

func TestAChallengeIsDecidedOnThePageThatThePayerIsSentTo(t *testing.T) {
	t.Parallel()
	dev := harness.StartDev(t, harness.Folder(t))
	client := harness.NewClient(dev.Info.BaseURL, dev.Info.Keys())
	for code, c := range map[string]struct {
		settled string
		booked  []string
	}{
		"1234": {"SUCCEEDED/APPROVED captured 0 refunded 0", []string{"PURCHASE 45.67"}},
		"1111": {"DECLINED/DECLINED captured 0 refunded 0", nil},
	} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			p := harness.NewPayment("sandbox:challenge")
			first := client.Pay(within(t, harness.Patience), p)
			mustBe(t, first, http.StatusCreated)
			shown, _, err := first.Told()
			if err != nil || shown.Settled() != "PENDING/WAITING_ADDITIONAL_STEP captured 0 refunded 0" {
				t.Fatalf("told %s (%v)", first, err)
			}
			var redirect struct {
				Checkout struct {
					SDKActionRequired bool `json:"sdk_action_required"`
				} `json:"checkout"`
				Method struct {
					Detail struct {
						Card struct {
							RedirectURL string `json:"redirect_url"`
						} `json:"card"`
					} `json:"payment_method_detail"`
				} `json:"payment_method"`
			}
			if err := json.Unmarshal(first.Body, &redirect); err != nil || !redirect.Checkout.SDKActionRequired {
				t.Fatalf("told %s (%v)", first, err)
			}
			page := redirect.Method.Detail.Card.RedirectURL
			if body, err := browse(within(t, harness.Patience), page, nil); err != nil || !strings.Contains(body, "45.67") {
				t.Fatalf("the page is %q (%v)", body, err)
			}
			mustShow(t, client, shown.ID, "PENDING/WAITING_ADDITIONAL_STEP captured 0 refunded 0")
			if _, err := browse(within(t, harness.Patience), page, url.Values{"code": {code}}); err != nil {
				t.Fatal(err)
			}
			harness.Eventually(t, harness.Patience, "the callback settles it", func() bool { return shownOf(t, client, shown.ID).Settled() == c.settled })
			mustReplay(t, client, p, first)
			mustHaveBooked(t, dev.Info.Ledger(), p.OrderID, c.booked...)
		})
	}
}

// browse opens a page as a payer's browser does, or sends its form.
func browse(ctx context.Context, page string, form url.Values) (body string, err error) {
	method := http.MethodGet
	if form != nil {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, page, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err = errors.Join(err, res.Body.Close()); err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("the page answered %d", res.StatusCode)
	}
	return string(b), err
}

// A dispute is opened and decided at the provider, which says so by itself.
func TestADisputeIsReceivedReviewedAndWonOrLost(t *testing.T) {
	t.Parallel()
	dev := harness.StartDev(t, harness.Folder(t))
	client := harness.NewClient(dev.Info.BaseURL, dev.Info.Keys())
	for end, settled := range map[string]string{
		"won": "SUCCEEDED/APPROVED captured 0 refunded 0", "lost": "CHARGEBACK/LOST captured 0 refunded 0",
	} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			p := sold(t, client, "100")
			becomes := func(settled string) {
				harness.Eventually(t, harness.Patience, "the callback says "+settled, func() bool {
					return shownOf(t, client, p.payment).Settled() == settled
				})
			}
			dispute := dev.Info.Dispute(t, p.transaction, "", "received")
			becomes("IN_DISPUTE/RECEIVED captured 0 refunded 0")
			mustRefuse(t, client, p.deed(harness.Refund, p.transaction, "1"), http.StatusBadRequest, "CHARGEBACK_IN_PROCESS")
			dev.Info.Dispute(t, p.transaction, dispute, "pending_review")
			becomes("IN_DISPUTE/PENDING_REVIEW captured 0 refunded 0")
			dev.Info.Dispute(t, p.transaction, dispute, end)
			becomes(settled)
			mustHaveBooked(t, dev.Info.Ledger(), p.order, "PURCHASE 100")
			if end == "won" {
				mustDo(t, client, p.deed(harness.Refund, p.transaction, ""), "REFUNDED/REFUNDED captured 0 refunded 100")
				return
			}
			mustRefuse(t, client, p.deed(harness.Refund, p.transaction, ""), http.StatusBadRequest, "INVALID_STATUS")
		})
	}
}

// A crowd at one payment, with two processes to serve it, one of which is killed in the
// middle, with a refund at the provider.
func TestRefundsFromManySidesStayWithinThePaymentAlthoughAProcessDies(t *testing.T) {
	t.Parallel()
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	installation := harness.NewInstallation(pgtest.URL(t), sandbox.URL)
	flags := []string{"--provider-timeout", "4s", "--settle", "1s", "--lease", "8s", "--recovery-interval", "200ms"}
	dying, staying := installation.Serve(t, flags...), installation.Serve(t, flags...)
	client := harness.NewClient(staying.URL, merchant(t, staying))
	atDying := client.As(client.Keys())
	atDying.MoveTo(dying.URL)
	p := sold(t, client, "100")
	harness.Eventually(t, harness.Patience, "both processes know the merchant", func() bool {
		return atDying.Get(within(t, harness.Patience), "/v1/payments/"+p.payment).Status == http.StatusOK
	})
	look := connect(t, installation.DatabaseURL)

	const many, fit = 60, 14 // 14 × 7 ≤ 100 < 15 × 7
	ctx := within(t, 2*harness.Patience)
	answers, asked := make([]harness.Answer, many), make(chan struct{}, many)
	var wg sync.WaitGroup
	refund := func(i int, d harness.Deed, at *harness.Client) {
		wg.Go(func() {
			a := at.Do(ctx, d)
			asked <- struct{}{}
			if a.Err != nil || a.Status == http.StatusConflict || a.Status >= http.StatusInternalServerError {
				var err error
				if a, err = client.DoUntilAnswered(ctx, d); err != nil {
					t.Error(err)
				}
			}
			answers[i] = a
		})
	}
	slow := p.deed(harness.Refund, p.transaction, "7")
	slow.Description = "sandbox:slow=3s"
	refund(0, slow, atDying)
	harness.Eventually(t, harness.Patience, "the slow one has begun", func() bool {
		return number(t, look, `SELECT count(*) FROM transactions WHERE type = 'REFUND' AND lease_until IS NOT NULL`) == 1
	})
	for i := 1; i < many; i++ {
		refund(i, p.deed(harness.Refund, p.transaction, "7"), []*harness.Client{client, atDying}[i%2])
	}
	for range 5 {
		<-asked
	}
	dying.Kill()
	wg.Wait()
	told := map[string]int{}
	for _, a := range answers {
		told[fmt.Sprint(a.Status, a.Code())]++
	}
	if told["200"] != fit || told["400INVALID_AMOUNT"] != many-fit {
		t.Errorf("told: %v", told)
	}
	if answers[0].Status != http.StatusOK {
		t.Errorf("what was at the provider when its process died was answered %s", answers[0])
	}
	if booked := sandbox.Ledger().Booked(t, p.order); len(booked) != 1+fit {
		t.Errorf("the ledger has %q", booked)
	}
	mustShow(t, client, p.payment, "SUCCEEDED/PARTIALLY_REFUNDED captured 0 refunded 98")
	if n := number(t, look, `SELECT (SELECT count(*) FROM payments WHERE refund_pending <> 0) + (SELECT count(*) FROM transactions
		WHERE refund_pending <> 0 OR lease_until IS NOT NULL)`); n != 0 {
		t.Errorf("%d rows still reserve something, or are unresolved", n)
	}
}

func TestACaptureAndACancellationAtOnceAreNeverBoth(t *testing.T) {
	t.Parallel()
	dev := harness.StartDev(t, harness.Folder(t))
	client := harness.NewClient(dev.Info.BaseURL, dev.Info.Keys())
	won := map[string]int{}
	for range 100 {
		p := held(t, client, "100")
		both := []harness.Deed{p.deed(harness.Capture, p.transaction, "100"), p.deed(harness.Cancel, p.transaction, "")}
		told := make([]harness.Answer, len(both))
		var wg sync.WaitGroup
		for i, d := range both {
			wg.Go(func() {
				var err error
				if told[i], err = client.DoUntilAnswered(within(t, harness.Patience), d); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		want := "CAPTURE 100"
		if told[1].Status == http.StatusOK {
			want = "CANCEL 100"
		}
		if told[0].Status+told[1].Status != http.StatusOK+http.StatusBadRequest {
			t.Fatalf("told %s and %s", told[0], told[1])
		}
		mustHaveBooked(t, dev.Info.Ledger(), p.order, "AUTHORIZE 100", want)
		won[want]++
	}
	t.Logf("%v", won)
}
