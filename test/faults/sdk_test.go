package main

import (
	"errors"
	"fmt"
	"testing"

	oncepay "github.com/oncepay/oncepay/sdk/go"
	"github.com/oncepay/oncepay/test/faults/record"
)

// TestAClientThatSaysWhatItWasNotToldIsCaught, and one that keeps its word is not.
func TestAClientThatSaysWhatItWasNotToldIsCaught(t *testing.T) {
	t.Parallel()
	told := record.Op{Kind: record.Pay, Status: 201, Body: []byte(`{"id":"1"}`), Replayed: true}
	unclear := record.Op{Kind: record.Pay, Status: 504}
	unknown := fmt.Errorf("a call: %w", oncepay.ErrOutcomeUnknown)
	for name, c := range map[string]struct {
		last     record.Op
		raw      string
		replayed bool
		err      error
		caught   bool
	}{
		"the truth":                      {told, `{"id":"1"}`, true, nil, false},
		"another payment":                {told, `{"id":"2"}`, true, nil, true},
		"no replay":                      {told, `{"id":"1"}`, false, nil, true},
		"an answer to nothing":           {unclear, `{"id":"1"}`, false, nil, true},
		"nothing of its answer":          {told, "", false, unknown, true},
		"that it does not know":          {unclear, "", false, unknown, false},
		"that nothing happened":          {unclear, "", false, errors.New("refused"), true},
		"that it heard nothing":          {record.Op{Kind: record.Pay, Failed: true}, "", false, unknown, false},
		"an answer, and heard nothing":   {record.Op{Kind: record.Pay, Failed: true}, `{"id":"1"}`, false, nil, true},
		"nothing happened, heard nobody": {record.Op{Kind: record.Pay, Failed: true}, "", false, errors.New("refused"), true},
	} {
		s := &stage{set: set{progress: t.Logf}}
		s.checkCall(t.Context(), &sdkWay{s: s, o: &order{nonce: "n"}, last: c.last}, []byte(c.raw), c.replayed, c.err)
		if caught := len(s.judgeSDK()) > 0; caught != c.caught {
			t.Errorf("%s: caught: %t", name, caught)
		}
	}
}

// TestEveryRoundOfTheDefaultPolicyHasTheGoClient, and no other round.
func TestEveryRoundOfTheDefaultPolicyHasTheGoClient(t *testing.T) {
	t.Parallel()
	for _, policy := range record.Policies {
		s := &stage{set: set{seed: 1, policy: policy}}
		payments, actions := 0, 0
		for _, o := range s.drawOrders(80) {
			if o.bySDK {
				payments++
			}
			for _, group := range o.after {
				for _, a := range group {
					if a.bySDK {
						actions++
					}
				}
			}
		}
		if first := policy.Name == record.Policies[0].Name; first != (payments >= 20) || first != (actions > 0) || !first && payments > 0 {
			t.Errorf("%s: %d payments and %d actions", policy.Name, payments, actions)
		}
		t.Logf("%s: %d payments and %d actions", policy.Name, payments, actions)
	}
}
