package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/oncepay/oncepay/internal/transactions"
	"github.com/oncepay/oncepay/test/faults/record"
)

// The provider's ledger has no nonces: it tells two actions apart by their amounts.
func TestNoTwoActionsOfAnOrderAndATypeAskForTheSameAmount(t *testing.T) {
	t.Parallel()
	for seed := range int64(8) {
		s := &stage{set: set{seed: seed, wild: seed%2 == 1}}
		nonces, actions := map[string]bool{}, 0
		for _, o := range s.drawOrders(80) {
			asked := map[string]bool{}
			for _, a := range slices.Concat(o.after...) {
				actions++
				if nonces[a.nonce] || !isAction(a.nonce) || isAction(o.nonce) {
					t.Errorf("seed %d: the nonce %q is no action's, or there twice", seed, a.nonce)
				}
				nonces[a.nonce] = true
				types := []transactions.Route{a.deed.route}
				if a.deed.route == cancelOrRefund {
					types = []transactions.Route{cancel, refund}
				}
				for _, typ := range types {
					key := string(typ) + a.deed.value
					if a.deed.value != "" && asked[key] {
						t.Errorf("seed %d, %s: %s of %s twice", seed, a.about, typ, a.deed.value)
					}
					asked[key] = true
				}
				if a.deed.of != o || a.id != o.id || a.merchant != o.merchant {
					t.Errorf("seed %d: %s is about another payment than that of its order", seed, a.about)
				}
			}
		}
		if actions < 60 {
			t.Errorf("seed %d drew %d actions", seed, actions)
		}
	}
}

func TestNothingIsDoneWithPaymentsWhereItMightStayUndecided(t *testing.T) {
	t.Parallel()
	s := &stage{set: set{seed: 7, wild: true, withhold: "can_void,idempotent"}}
	for _, o := range s.drawOrders(80) {
		if len(o.after) > 0 {
			t.Errorf("%s: %d actions", o.about, len(o.after))
		}
	}
}

func TestOutcomeIsReadInEachShape(t *testing.T) {
	t.Parallel()
	const card = `{"detail":{"card":{"redirect_url":"http://bank/1"}}}`
	for body, want := range map[string]outcomeOf{
		`{"id":"p","status":"PENDING","transactions":{"id":"t","status":"PENDING","payment_method":` + card + `}}`: {"p", "t", "PENDING", "http://bank/1"},
		`{"id":"t","status":"SUCCEEDED","payment":{"id":"p","status":"SUCCEEDED"}}`:                                {"p", "t", "SUCCEEDED", ""},
		`{"id":`: {},
	} {
		if got := readOutcome([]byte(body)); got != want {
			t.Errorf("%s is read as %+v", body, got)
		}
	}
}

func TestRefusalByThePaymentIsForGoodAndOneByTheProviderIsNot(t *testing.T) {
	t.Parallel()
	for op, want := range map[*record.Op]bool{
		{Kind: record.Act, Status: 400, Code: "INVALID_AMOUNT"}:         true,
		{Kind: record.Act, Status: 404, Code: "TRANSACTION_NOT_FOUND"}:  true,
		{Kind: record.Act, Status: 400, Code: "INVALID_REQUEST"}:        false,
		{Kind: record.Act, Status: 409, Code: "REQUEST_IN_PROCESS"}:     false,
		{Kind: record.Pay, Status: 400, Code: "INVALID_REQUEST"}:        false,
		{Kind: record.Act, Status: 503, Code: "PROVIDER_UNAVAILABLE"}:   false,
		{Kind: record.Act, Status: 422, Code: "IDEMPOTENCY_KEY_REUSED"}: false,
	} {
		if new(stage).refusedForGood(*op) != want {
			t.Errorf("%+v is for good: %t", op, !want)
		}
	}
	keeps := &stage{set: set{policy: record.Policy{KeepsErrors: true}}}
	if !keeps.refusedForGood(record.Op{Kind: record.Act, Status: 400}) {
		t.Error("an action's refusal is not for good where it is kept")
	}
}

// received are the callbacks that an instance got, by their bodies.
type received struct {
	mu  sync.Mutex
	all []string
}

func (r *received) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, _ := io.ReadAll(q.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, q.Header.Get("Sandbox-Signature")+" "+string(body))
	if q.Header.Get("Sandbox-Signature") == "" || strings.Contains(string(body), "declined") {
		w.WriteHeader(http.StatusUnauthorized)
	}
}

func TestPostmanDoesToACallbackWhatBefallsIt(t *testing.T) {
	t.Parallel()
	const said = `{"reference":"r","status":"approved"}`
	for fault, want := range map[string]struct {
		told      int
		delivered []string
	}{
		"":              {200, []string{"v1=x " + said}},
		callbackLost:    {502, nil},
		callbackUnheard: {502, []string{"v1=x " + said}},
		callbackTwice:   {200, []string{"v1=x " + said, "v1=x " + said}},
		callbackForged:  {200, []string{" " + said, "v1=x " + said, `v1=x {"reference":"r","status":"declined"}`}},
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			got := &received{}
			server := httptest.NewServer(got)
			defer server.Close()
			s := &stage{scripts: newScripts(), faults: newFaults(), instances: []*instance{{url: server.URL}, {url: server.URL}}}
			o := &order{nonce: "n"}
			if fault != "" {
				o.callbacks = []string{fault}
			}
			s.scripts.byReference["r"] = o
			p, err := startPostman(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			told := callBack(t.Context(), t, p, said)
			p.close()
			slices.Sort(got.all)
			if told != want.told || !slices.Equal(got.all, want.delivered) || len(p.taken()) > 0 {
				t.Errorf("told %d, delivered %q, believed %q", told, got.all, p.taken())
			}
			if n := s.faults.counts[fault]; fault != "" && n != 1 {
				t.Errorf("counted %d times", n)
			}
		})
	}
}

// callBack sends a callback as the sandbox does, and returns what it is told.
func callBack(ctx context.Context, t *testing.T, p *postman, body string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url(), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Sandbox-Signature", "v1=x")
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}
