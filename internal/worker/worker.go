// Package worker runs the loops that a process has beside its requests.
package worker

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// Loop does one batch of work again and again. RunOnce returns how much it did;
// after a batch that did something the next one follows at once, otherwise, and
// after an error, after Every.
type Loop struct {
	Name    string
	Every   time.Duration
	RunOnce func(ctx context.Context) (int, error)
	// Describe turns an error into a line that may be logged. Nil: Error().
	Describe func(error) string
}

// Run runs the loop until ctx ends. A first, random wait keeps several instances
// from working in step.
func (l Loop) Run(ctx context.Context, log *slog.Logger) {
	wait := rand.N(l.Every)
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		n, err := l.RunOnce(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing: // once, not each time, while the database is away
			failing = true
			log.WarnContext(ctx, "a loop failed and goes on trying", "loop", l.Name, "error", l.describe(err))
		case err == nil && failing:
			failing = false
			log.InfoContext(ctx, "a loop works again", "loop", l.Name)
		}
		wait = l.Every
		if n > 0 && err == nil {
			wait = 0
		}
	}
}

func (l Loop) describe(err error) string {
	if l.Describe != nil {
		return l.Describe(err)
	}
	return err.Error()
}

// Group runs loops together.
type Group struct {
	wg   sync.WaitGroup
	stop context.CancelFunc
}

// Start starts the loops. They end when Stop is called or ctx ends.
func Start(ctx context.Context, log *slog.Logger, loops ...Loop) *Group {
	ctx, stop := context.WithCancel(ctx)
	g := &Group{stop: stop}
	for _, l := range loops {
		g.wg.Go(func() { l.Run(ctx, log) })
	}
	return g
}

// Stop returns when every loop has ended.
func (g *Group) Stop() {
	g.stop()
	g.wg.Wait()
}
