package conformance

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/test/harness"
)

// The sandbox's faults, and what the contract says about each. Those that end in a
// pending payment or a challenge are in lifecycle_test.go.
var faults = []struct {
	description string
	status      int
	code        string // of the refusal; empty for a payment
	booked      int    // by the provider, whatever the caller was told
	released    bool   // the nonce was given back: the next request begins anew
	corrected   string // what the retry says instead, where a correction is due
}{
	{description: "sandbox:charge-then-timeout", status: 504, code: "REQUEST_TIMEOUT", booked: 1},
	{description: "sandbox:timeout", status: 504, code: "REQUEST_TIMEOUT"},
	{description: "sandbox:charge-then-500", status: 502, code: "PROVIDER_ERROR", booked: 1},
	{description: "sandbox:500", status: 502, code: "PROVIDER_ERROR"},
	{description: "sandbox:charge-then-reset", status: 502, code: "PROVIDER_ERROR", booked: 1},
	{description: "sandbox:unavailable", status: 503, code: "PROVIDER_UNAVAILABLE", released: true},
	{description: "sandbox:reject", status: 400, code: "INVALID_REQUEST", released: true, corrected: "An order that is in order"},
	{description: "sandbox:slow=600ms", status: 201, booked: 1},
}

func TestEachFaultOfTheSandboxIsToldAsTheContractSaysAndARetryChargesOnce(t *testing.T) {
	t.Parallel()
	// Recovery is kept out of it: here the merchant's retry must do the work.
	dev := harness.StartDev(t, harness.Folder(t), "--provider-timeout", "1s", "--recovery-interval", "10m")
	client := harness.NewClient(dev.Info.BaseURL, dev.Info.Keys())
	ledger := dev.Info.Ledger()
	for _, f := range faults {
		t.Run(f.description, func(t *testing.T) {
			t.Parallel()
			payment := harness.NewPayment(f.description)
			first := client.Pay(within(t, harness.Patience), payment)
			mustBe(t, first, f.status)
			if first.Code() != f.code {
				t.Errorf("the code is %s", first.Code())
			}
			ledger.MustHave(t, payment, f.booked)
			if f.code == "" {
				mustReplay(t, client, payment, first)
				ledger.MustHave(t, payment, 1)
				return
			}
			mustShowAsUnsettled(t, client, payment, f.released)

			if f.corrected != "" {
				payment.Description = f.corrected
			}
			answer, err := client.PayUntilAnswered(within(t, harness.Patience), payment)
			if err != nil {
				t.Fatal(err)
			}
			if answer.Replayed() {
				t.Error("the error was kept as the nonce's answer") // Y23: a 502 is never replayed
			}
			mustReplay(t, client, payment, answer)
			ledger.MustHave(t, payment, 1)
			mustHaveLived(t, client, payment, f.released)
		})
	}
}

// mustShowAsUnsettled checks what the API shows of a payment after an answer that
// was none: pending while the outcome is not known, and failed if it is known that
// nothing happened.
func mustShowAsUnsettled(t *testing.T, c *harness.Client, p harness.Payment, released bool) {
	t.Helper()
	a := c.Get(within(t, harness.Patience), "/v1/payments?merchant_order_id="+p.OrderID)
	mustBe(t, a, http.StatusOK)
	var shown []struct {
		Status    string `json:"status"`
		SubStatus string `json:"sub_status"`
	}
	if err := json.Unmarshal(a.Body, &shown); err != nil || len(shown) != 1 {
		t.Fatalf("%s (%v)", a, err)
	}
	life := lives(t, c, p.Nonce)[0]
	switch {
	case released && (life.KeyState != "released" || shown[0].Status != "ERROR" && shown[0].Status != "REJECTED"):
	case !released && (life.KeyState != "unresolved" || shown[0].Status != "PENDING" || shown[0].SubStatus != "PENDING_PROVIDER_CONFIRMATION"):
	default:
		return
	}
	t.Errorf("%s: the key is %s and the payment %s", p.Description, life.KeyState, a)
}

// mustHaveLived checks a nonce that was paid in the end: in its first life, or in
// its second if the first was released.
func mustHaveLived(t *testing.T, c *harness.Client, p harness.Payment, released bool) {
	t.Helper()
	all := lives(t, c, p.Nonce)
	want := 1
	if released {
		want = 2
	}
	if len(all) != want {
		t.Fatalf("%s: %d lives", p.Description, len(all))
	}
	for i, l := range all {
		charges := 0
		if i == 0 {
			charges = 1
		}
		if l.Charges != charges || l.Count("event") != 1 {
			t.Errorf("%s: life %d from the end has %d charges and %d events: %s", p.Description, i, l.Charges, l.Count("event"), l.Verdict)
		}
	}
}

// Y22, and its counterpart: what nobody retries is settled by recovery. A charge
// that was booked becomes the payment; one that never was is given back, but not
// before it is certain that it never will be.
func TestAFaultThatNobodyRetriesIsSettledByRecovery(t *testing.T) {
	t.Parallel()
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	_, client := instance(t, pgtest.URL(t), sandbox.URL,
		"--provider-timeout", "1s", "--settle", "1s", "--lease", "4s", "--recovery-interval", "200ms")
	for _, f := range faults {
		if f.code == "" || f.released {
			continue
		}
		t.Run(f.description, func(t *testing.T) {
			t.Parallel()
			payment := harness.NewPayment(f.description)
			mustBe(t, client.Pay(within(t, harness.Patience), payment), f.status)
			want := map[int]string{1: "answered", 0: "released"}[f.booked]
			harness.Eventually(t, harness.Patience, "recovery settles it", func() bool {
				return lives(t, client, payment.Nonce)[0].KeyState == want
			})
			sandbox.Ledger().MustHave(t, payment, f.booked)
			life := lives(t, client, payment.Nonce)[0]
			if life.Count("event") != 1 || life.Count("send") != 1 || life.Charges != f.booked {
				t.Errorf("%+v", life)
			}
			answer := pay(t, client, payment)
			if answer.Replayed() != (f.booked == 1) {
				t.Errorf("a late retry is replayed: %t", answer.Replayed())
			}
			sandbox.Ledger().MustHave(t, payment, 1)
		})
	}
}

// The provider itself dies while it decides, and comes back with its ledger.
func TestAProviderThatWasKilledAndCameBackIsAskedAgain(t *testing.T) {
	t.Parallel()
	folder := harness.Folder(t)
	sandbox := harness.StartSandbox(t, folder)
	door := harness.NewDoor(t, sandbox.URL)
	_, client := instance(t, pgtest.URL(t), door.URL)
	booked := harness.NewPayment("paid before the kill")
	answer := pay(t, client, booked)

	undecided := harness.NewPayment("sandbox:slow=2s")
	heard := make(chan harness.Answer, 1)
	ctx := within(t, harness.Patience)
	go func() { heard <- client.Pay(ctx, undecided) }()
	harness.Eventually(t, harness.Patience, "the charge is on its way", func() bool { return door.Charges(undecided.OrderID) == 1 })
	sandbox.Kill()
	mustBe(t, <-heard, http.StatusBadGateway)

	sandbox = harness.StartSandbox(t, folder)
	door.LeadTo(t, sandbox.URL)
	retried, err := client.PayUntilAnswered(within(t, harness.Patience), undecided)
	if err != nil {
		t.Fatal(err)
	}
	mustReplay(t, client, undecided, retried)
	mustReplay(t, client, booked, answer)
	sandbox.Ledger().MustHave(t, undecided, 1)
	sandbox.Ledger().MustHave(t, booked, 1)
}
