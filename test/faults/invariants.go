package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/oncepay/oncepay/test/faults/record"
	"github.com/oncepay/oncepay/test/harness"
)

// The product can recompute every sum and rule over its whole database itself. It is
// asked for that while things break, and when all is over.

// invariantsEvery is the pause between two questions in a round.
const invariantsEvery = 5 * time.Second

// found is what an instance says of its invariants.
type found struct {
	OK     bool `json:"ok"`
	Checks []struct {
		Name       string `json:"name"`
		OK         bool   `json:"ok"`
		Violations *int64 `json:"violations"` // nil: the check was not finished
	} `json:"checks"`
}

func (s *stage) askInvariants(ctx context.Context, i *instance) (f found, err error) {
	_, admin := i.addresses()
	if admin == "" {
		return f, errStarting
	}
	a := harness.Operator{URL: admin, Token: s.token}.Do(ctx, http.MethodGet, "/admin/v1/invariants", nil)
	if a.Err != nil || a.Status != http.StatusOK {
		return f, fmt.Errorf("ask for the invariants: %s", a)
	}
	return f, json.Unmarshal(a.Body, &f)
}

// watchInvariants asks now and then until ctx ends; what was asked is waited for. Who
// cannot answer just then, or cannot finish a check, breaks no promise.
func (s *stage) watchInvariants(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		rest(ctx, invariantsEvery)
		if ctx.Err() != nil {
			return
		}
		f, err := s.askInvariants(context.WithoutCancel(ctx), s.instances[n%len(s.instances)])
		if err != nil {
			continue
		}
		for _, c := range f.Checks {
			if c.Violations != nil && *c.Violations > 0 {
				s.early = append(s.early, s.violation("invariants", "%s had %d violations while faults went on", c.Name, *c.Violations))
			}
		}
	}
}

// judgeInvariants asks once more when all is over: every check is finished now, and finds
// nothing.
func (s *stage) judgeInvariants(ctx context.Context) []record.Violation {
	var f found
	err := patiently(ctx, func(ctx context.Context) (err error) {
		f, err = s.askInvariants(ctx, s.instances[0])
		return err
	})
	wrong := s.early
	if err != nil {
		return append(wrong, s.violation("invariants", "%v", err))
	}
	for _, c := range f.Checks {
		switch {
		case c.Violations == nil:
			wrong = append(wrong, s.violation("invariants", "%s was not finished", c.Name))
		case !c.OK || *c.Violations > 0:
			wrong = append(wrong, s.violation("invariants", "%s has %d violations", c.Name, *c.Violations))
		}
	}
	if len(wrong) == 0 && (!f.OK || len(f.Checks) == 0) {
		wrong = append(wrong, s.violation("invariants", "not ok, and no check says why"))
	}
	return wrong
}
