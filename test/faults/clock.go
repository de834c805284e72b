package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/oncepay/oncepay/test/wallclock"
)

// An instance's wall clock is off for as long as the round lasts; that counts once.
const (
	instanceAhead  = "clock: an instance is 25 h ahead"
	instanceBehind = "clock: an instance is 25 h behind"

	// clockOff is longer than an answer is kept.
	clockOff = 25 * time.Hour
)

// wrongClocks are by how much the wall clocks of the instances are ahead in the round of
// a seed: in two rounds of three all are off, and where there are two, one each way.
func wrongClocks(seed int64, instances int) map[string]time.Duration {
	if seed%3 == 0 {
		return nil
	}
	ahead := clockOff
	if seed%3 == 2 {
		ahead = -clockOff
	}
	clocks := map[string]time.Duration{}
	for n := range instances {
		clocks[fmt.Sprintf("%s%d", instancePrefix, n+1)] = ahead
		ahead = -ahead
	}
	return clocks
}

// clockEnv tells the instances by how much they are ahead.
func clockEnv(clocks map[string]time.Duration) map[string][]string {
	env := map[string][]string{}
	for name, ahead := range clocks {
		env[name] = []string{wallclock.Variable + "=" + ahead.String()}
	}
	return env
}

// noteClocks counts the instances whose clock is off. It fails if their own answers do
// not say that it is, because then nothing would be tried.
func (s *stage) noteClocks(ctx context.Context) error {
	clocks := wrongClocks(s.seed, len(s.instances))
	for _, i := range s.instances {
		ahead, ok := clocks[i.name]
		if !ok {
			continue
		}
		a := s.client(i, 0).Get(ctx, "/v1/idempotency-keys/none")
		at, err := http.ParseTime(a.Header.Get("Date"))
		if err != nil || (time.Until(at)-ahead).Abs() > time.Hour {
			return fmt.Errorf("the clock of %s is not %s ahead: it answers %s, dated %q", i.name, ahead, a, a.Header.Get("Date"))
		}
		kind := instanceAhead
		if ahead < 0 {
			kind = instanceBehind
		}
		s.faults.note("", kind)
	}
	return nil
}
