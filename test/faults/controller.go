package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/oncepay/oncepay/internal/faultpoint"
)

// The controller answers the processes that ask, at each fault point, what is to
// happen to them. What it answers was decided before: a step for the n-th time
// that a nonce reaches a point.

// step is what happens when a point is reached. The zero step: go on.
type step struct {
	die  bool
	on   string        // only there, if it names an instance
	stop time.Duration // frozen for so long
	slow time.Duration // this goroutine alone stands still for so long
	hold *trap         // held until the trap lets go
	do   func(q faultpoint.Question)
	name string // of the fault, for the report; killing and freezing have theirs
}

// trap holds whoever reaches it.
type trap struct {
	reached chan struct{} // closed when somebody stands in it
	verdict chan string
	once    sync.Once
	who     string // the instance that stands in it; read after reached
}

func newTrap() *trap { return &trap{reached: make(chan struct{}), verdict: make(chan string, 1)} }

// wait returns once somebody stands in the trap.
func (t *trap) wait(ctx context.Context) error {
	select {
	case <-t.reached:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// by is the instance of whoever stands in the trap.
func (t *trap) by() string {
	<-t.reached
	return t.who
}

// release lets whoever stands in the trap, or comes to it later, go on.
func (t *trap) release() { t.say(faultpoint.Go) }

func (t *trap) say(verdict string) { t.once.Do(func() { t.verdict <- verdict }) }

// place is a point, as one nonce reaches it. An empty nonce is any for which nothing
// else is planned.
type place struct {
	point faultpoint.Point
	nonce string
}

// tally counts what happened at one point.
type tally struct{ reached, once, twice, frozen int }

type controller struct {
	socket   string
	listener net.Listener
	told     func(nonce, fault string) // of every fault that happens
	died     func(instance string)     // or stood still

	mu     sync.Mutex
	plans  map[place][]step
	tally  map[faultpoint.Point]*tally
	again  map[faultpoint.Point]bool // killed there once, and the next one is to be, too
	twice  map[faultpoint.Point]int  // how many kills there are still to be followed by another
	calm   bool
	traps  map[*trap]struct{}
	ending chan struct{}
	wg     sync.WaitGroup
}

func startController(ctx context.Context, dir string) (*controller, error) {
	c := &controller{
		socket: filepath.Join(dir, "s"), plans: map[place][]step{}, tally: map[faultpoint.Point]*tally{}, again: map[faultpoint.Point]bool{},
		twice: map[faultpoint.Point]int{}, traps: map[*trap]struct{}{}, ending: make(chan struct{}),
		told: func(string, string) {}, died: func(string) {},
	}
	for _, p := range faultpoint.Points {
		c.tally[p] = &tally{}
	}
	var err error
	if c.listener, err = (&net.ListenConfig{}).Listen(ctx, "unix", c.socket); err != nil {
		return nil, fmt.Errorf("listen for fault points: %w", err)
	}
	c.wg.Go(c.accept)
	return c, nil
}

func (c *controller) close() {
	close(c.ending)
	_ = c.listener.Close()
	c.wg.Wait()
}

// at adds what happens when the nonce reaches the point: the first step the first
// time, and so on.
func (c *controller) at(nonce string, p faultpoint.Point, steps ...step) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.plans[place{p, nonce}] = append(c.plans[place{p, nonce}], steps...)
}

// trap holds the nonce the next time that it reaches the point.
func (c *controller) trap(nonce string, p faultpoint.Point) *trap {
	t := newTrap()
	c.at(nonce, p, step{hold: t})
	return t
}

// killTwice lets the next planned kill at the point be followed by another: of
// whoever reaches it next.
func (c *controller) killTwice(p faultpoint.Point) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.twice[p]++
}

// heal ends all faults: no plan counts any more, and traps let go.
func (c *controller) heal() {
	c.mu.Lock()
	c.calm = true
	traps := c.traps
	c.traps = map[*trap]struct{}{}
	c.mu.Unlock()
	for t := range traps {
		t.release()
	}
}

// tallies are what happened at each point so far.
func (c *controller) tallies() map[faultpoint.Point]tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[faultpoint.Point]tally{}
	for p, t := range c.tally {
		out[p] = *t
	}
	return out
}

func (c *controller) accept() {
	for {
		conn, err := c.listener.Accept()
		if err != nil {
			return // closed
		}
		c.wg.Go(func() { c.serve(conn) })
	}
}

func (c *controller) serve(conn net.Conn) {
	defer conn.Close()
	var q faultpoint.Question
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil || json.Unmarshal(line, &q) != nil {
		return
	}
	s := c.take(q)
	if s.do != nil {
		s.do(q)
	}
	if s.name != "" {
		c.told(q.Nonce, s.name)
	}
	verdict := faultpoint.Go
	switch {
	case s.die:
		verdict = faultpoint.Die
		c.told(q.Nonce, killedAtPoint)
		c.died(q.Instance)
	case s.stop > 0:
		// Not by its own hand: on a busy machine who stops himself gets a little further
		// first, and whoever is to sleep before the last look at the clock sleeps behind it.
		// Whoever asks stands still until the answer comes.
		c.told(q.Nonce, "process: frozen at a fault point")
		c.died(q.Instance)
		_ = syscall.Kill(q.PID, syscall.SIGSTOP) // it may have been killed meanwhile
		c.thaw(q.PID, s.stop)
	case s.slow > 0:
		c.told(q.Nonce, "process: a request stands still")
		select {
		case <-time.After(s.slow):
		case <-c.ending:
		}
	case s.hold != nil:
		s.hold.who = q.Instance
		close(s.hold.reached)
		select {
		case verdict = <-s.hold.verdict:
		case <-c.ending:
		}
		c.died(q.Instance) // its send may have run out of time meanwhile
	}
	fmt.Fprintln(conn, verdict)
}

// thaw continues a process that was told to stop.
func (c *controller) thaw(pid int, after time.Duration) {
	select {
	case <-time.After(after):
	case <-c.ending:
	}
	_ = syscall.Kill(pid, syscall.SIGCONT) // it may have been killed meanwhile
}

// take removes and counts the step for this reach.
func (c *controller) take(q faultpoint.Question) step {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tally[q.Point]
	if t == nil {
		t = &tally{}
		c.tally[q.Point] = t
	}
	t.reached++
	if c.calm {
		return step{}
	}
	if c.again[q.Point] {
		delete(c.again, q.Point)
		t.twice++
		return step{die: true}
	}
	s, planned := c.next(place{q.Point, q.Nonce}, q.Instance)
	if !planned && q.Nonce != "" {
		s, _ = c.next(place{q.Point, ""}, q.Instance)
	}
	switch {
	case s.die:
		t.once++
		if c.twice[q.Point] > 0 {
			c.twice[q.Point]--
			c.again[q.Point] = true
		}
	case s.stop > 0:
		t.frozen++
	case s.hold != nil:
		c.traps[s.hold] = struct{}{}
	}
	return s
}

// next takes the next step at a place, if there is one for that instance.
func (c *controller) next(at place, instance string) (step, bool) {
	plan := c.plans[at]
	if len(plan) == 0 || plan[0].on != "" && plan[0].on != instance {
		return step{}, false
	}
	if len(plan) == 1 {
		delete(c.plans, at)
	} else {
		c.plans[at] = plan[1:]
	}
	return plan[0], true
}
