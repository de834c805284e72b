package sandbox

import (
	"context"
	"sync"
	"testing"
	"time"
)

func TestAnAgendaKeepsItsOrderAndItsTime(t *testing.T) {
	var mu sync.Mutex
	var done []int
	a := newAgenda(1, func(_ context.Context, n int) {
		mu.Lock()
		defer mu.Unlock()
		done = append(done, n)
	})
	start := time.Now()
	for _, n := range []int{3, 1, 2, 9} {
		a.add(start.Add(time.Duration(n)*time.Hour), n)
	}
	a.runDue(t.Context(), start)
	a.runDue(t.Context(), start.Add(3*time.Hour))
	a.doing.Wait()
	if len(done) != 3 || done[0] != 1 || done[1] != 2 || done[2] != 3 {
		t.Errorf("done %v", done)
	}
	if d := a.untilNext(start); d != maxNap {
		t.Errorf("it naps for %s", d)
	}
	if d := a.untilNext(start.Add(9*time.Hour - time.Second)); d != time.Second {
		t.Errorf("it naps for %s", d)
	}
}

func TestAnAgendaEndsWithItsContextAndWaitsForWhatItDoes(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	begun, ended := make(chan struct{}), false
	a := newAgenda(1, func(ctx context.Context, _ int) {
		close(begun)
		<-ctx.Done()
		ended = true
	})
	ran := make(chan struct{})
	go func() { a.run(ctx); close(ran) }()
	a.add(time.Now(), 1)
	a.add(time.Now(), 2) // has no slot, and is left
	<-begun
	cancel()
	<-ran
	if !ended {
		t.Error("it did not wait")
	}
}
