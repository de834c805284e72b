package sandbox

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// maxNap bounds how long an agenda looks at nothing but its own clock: a machine that
// slept, or whose clock was set, is noticed as late as that.
const maxNap = 10 * time.Second

// agenda does things when they are due, a bounded number of them at once. What is on
// it is lost with the process; the ledger knows what to put on it again.
type agenda[T any] struct {
	do    func(context.Context, T)
	slots chan struct{} // as many as may be done at once

	mu    sync.Mutex
	queue appointments[T]
	wake  chan struct{}
	doing sync.WaitGroup
}

func newAgenda[T any](atOnce int, do func(context.Context, T)) *agenda[T] {
	return &agenda[T]{do: do, slots: make(chan struct{}, atOnce), wake: make(chan struct{}, 1)}
}

// add puts something on the agenda.
func (a *agenda[T]) add(due time.Time, what T) {
	a.mu.Lock()
	heap.Push(&a.queue, appointment[T]{due, what})
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default: // it has been woken already, and will see this one too
	}
}

// run does what is due until ctx ends, and then waits for what is being done.
func (a *agenda[T]) run(ctx context.Context) {
	defer a.doing.Wait()
	for ctx.Err() == nil {
		a.runDue(ctx, time.Now())
		nap := time.NewTimer(a.untilNext(time.Now()))
		select {
		case <-ctx.Done():
		case <-a.wake:
		case <-nap.C:
		}
		nap.Stop()
	}
}

// runDue begins all that is due by then.
func (a *agenda[T]) runDue(ctx context.Context, by time.Time) {
	for {
		what, ok := a.next(by)
		if !ok {
			return
		}
		select {
		case <-ctx.Done():
			return
		case a.slots <- struct{}{}:
		}
		a.doing.Go(func() {
			defer func() { <-a.slots }()
			a.do(ctx, what)
		})
	}
}

func (a *agenda[T]) next(by time.Time) (what T, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.queue) == 0 || a.queue[0].due.After(by) {
		return what, false
	}
	first, _ := heap.Pop(&a.queue).(appointment[T])
	return first.what, true
}

func (a *agenda[T]) untilNext(now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.queue) == 0 {
		return maxNap
	}
	return min(maxNap, a.queue[0].due.Sub(now))
}

type appointment[T any] struct {
	due  time.Time
	what T
}

// appointments is a heap, the earliest first.
type appointments[T any] []appointment[T]

// Len is for package heap, as are the others.
func (q *appointments[T]) Len() int { return len(*q) }

// Less says which is earlier.
func (q *appointments[T]) Less(i, j int) bool { return (*q)[i].due.Before((*q)[j].due) }

// Swap swaps two.
func (q *appointments[T]) Swap(i, j int) { (*q)[i], (*q)[j] = (*q)[j], (*q)[i] }

// Push puts one at the end.
func (q *appointments[T]) Push(x any) {
	if a, ok := x.(appointment[T]); ok {
		*q = append(*q, a)
	}
}

// Pop takes one from the end.
func (q *appointments[T]) Pop() any {
	last := len(*q) - 1
	a := (*q)[last]
	(*q)[last] = appointment[T]{} // so that it is not kept
	*q = (*q)[:last]
	return a
}
