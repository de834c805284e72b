package main

import (
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/test/faults/record"
	"github.com/oncepay/oncepay/test/harness"
)

// describedShops are what of the checkouts depends on the seed.
func describedShops(seed int64, policy record.Policy) []string {
	s := &stage{set: set{seed: seed, policy: policy, wild: seed%2 == 1}}
	var list []string
	for _, o := range s.drawOrders(0) {
		if sh := o.shop; sh != nil {
			list = append(list, strings.Join([]string{o.nonce, o.about, o.says, sh.changed, sh.after.String()}, " "))
		}
	}
	return list
}

func TestSeedDrawsTheSameCheckoutsEachTime(t *testing.T) {
	for seed := int64(1); seed < 5; seed++ {
		first := describedShops(seed, record.Policies[0])
		if len(first) < 20 {
			t.Errorf("seed %d has %d checkouts", seed, len(first))
		}
		if !reflect.DeepEqual(first, describedShops(seed, record.Policies[0])) {
			t.Errorf("seed %d drew other checkouts the second time", seed)
		}
	}
}

// A browser's nonce has to be one that nobody can guess, and no two tries may share one.
func TestEveryTryOfEveryTabHasANonceOfItsOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, order := range []string{"o-1-0001", "o-1-0002"} {
		for tab := range 3 {
			for try := range triesPerTab {
				nonce := shopNonce(1, order, tab, try)
				if id, err := uuid.Parse(nonce); err != nil || id.String() != nonce || seen[nonce] {
					t.Errorf("%s is no UUID (%v), or there twice", nonce, err)
				}
				seen[nonce] = true
			}
		}
	}
	if shopNonce(1, "o-1-0001", 0, 0) == shopNonce(2, "o-1-0001", 0, 0) {
		t.Error("two seeds have the same nonces")
	}
}

func TestRequestIsSentAgainWhereItsOutcomeIsUnclear(t *testing.T) {
	for status, want := range map[int]bool{
		http.StatusCreated: false, http.StatusOK: false, http.StatusBadRequest: false, http.StatusUnauthorized: false,
		http.StatusUnprocessableEntity: false, http.StatusConflict: true, http.StatusTooManyRequests: true, http.StatusBadGateway: true,
		http.StatusServiceUnavailable: true, http.StatusGatewayTimeout: true,
	} {
		if got := unclear(harness.Answer{Status: status}); got != want {
			t.Errorf("%d is unclear: %t", status, got)
		}
	}
	if !unclear(harness.Answer{Err: errStarting}) {
		t.Error("no answer is an answer")
	}
}
