package conformance

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/oncepay/oncepay/internal/pgtest"
	"github.com/oncepay/oncepay/internal/pgtest/pgproxy"
	"github.com/oncepay/oncepay/test/harness"
)

// probe asks one listener of an instance. The probes take no credentials, and these
// have none that anybody knows.
func probe(ctx context.Context, url, path string) harness.Answer {
	return harness.NewClient(url, harness.Keys{}).Get(ctx, path)
}

// unready says whether both listeners say so, for this reason.
func unready(ctx context.Context, api *harness.API, reason string) bool {
	for _, url := range []string{api.URL, api.Operator.URL} {
		a := probe(ctx, url, "/readyz")
		if a.Err != nil || a.Status != http.StatusServiceUnavailable || !bytes.Contains(a.Body, []byte(`"reason":"`+reason+`"`)) {
			return false
		}
	}
	return true
}

func mustLive(t *testing.T, api *harness.API) {
	t.Helper()
	for _, url := range []string{api.URL, api.Operator.URL} {
		mustBe(t, probe(within(t, harness.Patience), url, "/livez"), http.StatusOK)
	}
}

func TestReadinessGoesAndComesWithTheDatabase(t *testing.T) {
	t.Parallel()
	proxy := pgproxy.New(t, pgtest.URL(t))
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	api, client := instance(t, proxy.URL(), sandbox.URL)
	ctx := within(t, harness.Patience)
	ready := func() bool {
		return probe(ctx, api.URL, "/readyz").Status == http.StatusOK && probe(ctx, api.Operator.URL, "/readyz").Status == http.StatusOK
	}
	if !ready() {
		t.Error("not ready from the start")
	}
	proxy.Down()
	harness.Eventually(t, harness.Patience, "both listeners say that the database is away", func() bool { return unready(ctx, api, "database") })
	mustLive(t, api)
	proxy.Up()
	harness.Eventually(t, harness.Patience, "both listeners are ready again", ready)
	pay(t, client, harness.NewPayment("paid after the database was away"))
}

// A database may answer, and not say which keys are valid: then nobody is let in, and a
// balancer has to know.
func TestReadinessGoesAndComesWithTheKeys(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	api, client := instance(t, url, sandbox.URL)
	ctx := within(t, harness.Patience)
	pay(t, client, harness.NewPayment("paid before"))
	conn, err := pgx.Connect(ctx, pgtest.Direct(url))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(ctx)) })
	if _, err := conn.Exec(ctx, `BEGIN; LOCK TABLE api_keys`); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, harness.Patience, "both listeners say that the database is of no use", func() bool { return unready(ctx, api, "database") })
	mustLive(t, api)
	if _, err := conn.Exec(ctx, `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, harness.Patience, "both listeners are ready again", func() bool {
		return probe(ctx, api.URL, "/readyz").Status == http.StatusOK && probe(ctx, api.Operator.URL, "/readyz").Status == http.StatusOK
	})
	pay(t, client, harness.NewPayment("paid after"))
}

// While it drains, a stopping instance says that it is not ready, works on whatever
// still comes, and keeps no connection; then it ends.
func TestAStopIsUnreadyFirstAndRefusesLast(t *testing.T) {
	t.Parallel()
	const drain = 2 * time.Second
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	api, client := instance(t, pgtest.URL(t), sandbox.URL, "--drain-delay", drain.String())
	ctx := within(t, harness.Patience)
	before := harness.NewPayment("paid before the stop")
	if a := pay(t, client, before); a.Closes {
		t.Error("a connection is not kept before the stop")
	}
	told := time.Now()
	api.Signal(syscall.SIGTERM)
	harness.Eventually(t, harness.Patience, "both listeners say that it is stopping", func() bool { return unready(ctx, api, "stopping") })
	mustLive(t, api)
	during := harness.NewPayment("paid during the stop") // on the connection of the payment before
	if a := pay(t, client, during); !a.Closes {
		t.Error("a connection is kept during the stop")
	}
	if code := api.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(told); took < drain {
		t.Errorf("it ended after %s, before its drain delay was over", took)
	}
	if a := probe(ctx, api.URL, "/livez"); !refused(a.Err) {
		t.Errorf("afterwards: %s", a)
	}
	sandbox.Ledger().MustHave(t, before, 1)
	sandbox.Ledger().MustHave(t, during, 1)
}

func TestASecondSignalEndsTheProcessAtOnceWithACodeOfItsOwn(t *testing.T) {
	t.Parallel()
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	api, _ := instance(t, pgtest.URL(t), sandbox.URL, "--drain-delay", "10m")
	ctx := within(t, harness.Patience)
	api.Signal(syscall.SIGTERM)
	harness.Eventually(t, harness.Patience, "it is stopping", func() bool { return unready(ctx, api, "stopping") })
	api.Signal(syscall.SIGTERM)
	if code := api.Wait(); code != 5 {
		t.Errorf("exit code %d, not 5", code)
	}
}

func TestOneRequestTooManyIsToldToComeBack(t *testing.T) {
	t.Parallel()
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	api, client := instance(t, pgtest.URL(t), sandbox.URL, "--max-in-flight", "1", "--provider-timeout", "30s")
	ctx := within(t, harness.Patience)
	slow, other := harness.NewPayment("sandbox:slow=3s"), harness.NewPayment("sent while the one place is taken")
	answered := make(chan harness.Answer, 1)
	go func() {
		a, _ := client.PayUntilAnswered(ctx, slow) // the probing below may have the place at first
		answered <- a
	}()
	var full harness.Answer
	harness.Eventually(t, harness.Patience, "the one place is taken", func() bool {
		full = client.As(harness.Keys{}).Get(ctx, "/v1/payments?merchant_order_id=x") // nobody's credentials: 401 while there is room
		return full.Status == http.StatusServiceUnavailable
	})
	if full.Code() != "SERVICE_UNAVAILABLE" || full.Header.Get("Retry-After") != "1" {
		t.Errorf("%s, Retry-After %q", full, full.Header.Get("Retry-After"))
	}
	mustLive(t, api)
	mustBe(t, probe(ctx, api.URL, "/readyz"), http.StatusOK)
	if a, err := client.PayUntilAnswered(ctx, other); err != nil || a.Status != http.StatusCreated {
		t.Errorf("%s (%v)", a, err)
	}
	mustBe(t, <-answered, http.StatusCreated)
	sandbox.Ledger().MustHave(t, slow, 1)
	sandbox.Ledger().MustHave(t, other, 1)
}

// refused says whether nothing was sent, for there was no connection to send it on.
func refused(err error) bool {
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "dial"
}

// Two instances behind a balancer are replaced fifty times, in turn, while merchants
// pay through it. No request that an instance accepted is lost, and each order is
// charged once.
//
// Not in parallel with other tests: it is about requests that come at every moment of
// a stop, and the drain delay must be long for the balancer, not for the test.
func TestFiftyRollingRestartsLoseNoRequest(t *testing.T) {
	const (
		restarts  = 50
		merchants = 8
	)
	ctx := within(t, 4*harness.Patience)
	sandbox := harness.StartSandbox(t, harness.Folder(t))
	f := newFleet(ctx, t, harness.NewInstallation(pgtest.URL(t), sandbox.URL))
	slots := [2]*backend{f.admit(underTest), f.admit(underTest)}
	endLoad := f.pay(ctx, merchants)
	begun := time.Now()
	var leaving *backend // the one before last: it drains while the next one starts
	for i := range restarts {
		fresh := f.admit(underTest)
		if leaving != nil {
			f.awaitEnd(leaving)
		}
		leaving = slots[i%2]
		slots[i%2] = fresh
		leaving.api.Signal(syscall.SIGTERM)
	}
	f.awaitEnd(leaving)
	took := time.Since(begun)
	endLoad()

	f.load.mustHaveLostNothing(t, sandbox.Ledger())
	paid, crossed := f.load.count(), f.load.crossed.Load()
	if paid < restarts*merchants || crossed == 0 {
		t.Errorf("too little happened: %d payments, %d of them across a stop", paid, crossed)
	}
	t.Logf("%d restarts in %s: %d payments, %d of them answered by an instance that was stopping, %d sent elsewhere because the connection was refused",
		restarts, took.Round(time.Millisecond), paid, crossed, f.load.refused.Load())
}
