package conformance

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/oncepay/oncepay/test/harness"
)

// Not in parallel with other tests: all requests must have arrived before the
// provider answers, three seconds later.
func TestY14OfTwoHundredIdenticalRequestsOnePaysAndTheOthersAreToldSoAtOnce(t *testing.T) {
	const requests = 200
	dev := harness.StartDev(t, harness.Folder(t))
	client := harness.NewClient(dev.Info.BaseURL, dev.Info.Keys())
	payment := harness.NewPayment("sandbox:slow=3s")
	ctx := within(t, harness.Patience)

	storm := func() []harness.Answer {
		answers := make([]harness.Answer, requests)
		var all sync.WaitGroup
		begin := make(chan struct{})
		for i := range answers {
			all.Go(func() {
				<-begin
				answers[i] = client.Pay(ctx, payment)
			})
		}
		close(begin)
		all.Wait()
		return answers
	}

	begun := time.Now()
	var paid, told []harness.Answer
	for _, a := range storm() {
		switch {
		case a.Err != nil:
			t.Fatal(a.Err)
		case a.Status == http.StatusCreated:
			paid = append(paid, a)
		case a.Status == http.StatusConflict && a.Code() == "REQUEST_IN_PROCESS" && a.Header.Get("Retry-After") == "1":
			told = append(told, a)
		default:
			t.Errorf("unexpected: %s", a)
		}
	}
	if len(paid) != 1 || len(told) != requests-1 {
		t.Fatalf("%d × 201, %d × 409", len(paid), len(told))
	}
	var last time.Time
	for _, a := range told {
		if a.At.After(last) {
			last = a.At
		}
	}
	if !last.Before(paid[0].At) {
		t.Error("a duplicate waited for the provider")
	}
	t.Logf("the last 409 came after %s, the 201 after %s", last.Sub(begun).Round(time.Millisecond), paid[0].At.Sub(begun).Round(time.Millisecond))
	dev.Info.Ledger().MustHave(t, payment, 1)

	for _, a := range storm() {
		if a.Err != nil || !a.Same(paid[0]) || !a.Replayed() {
			t.Errorf("not a replay: %s", a)
		}
	}
	dev.Info.Ledger().MustHave(t, payment, 1)
	life := lives(t, client, payment.Nonce)[0]
	if life.Charges != 1 || life.Count("event") != 1 || life.Count("send") != 1 {
		t.Errorf("%d charges, %d events, %d sends", life.Charges, life.Count("event"), life.Count("send"))
	}
}
