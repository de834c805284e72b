package transactions

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/oncepay/oncepay/internal/providers"
)

type keyWatched struct{}

// TestTheWatcherSeesEveryExchange, whoever had it: the send of a request, and what
// recovery asks.
func TestTheWatcherSeesEveryExchange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var seen []string
	i := w.newInstanceWith(w.db, func(o *Options) {
		o.Watch = func(ctx context.Context, provider, kind string) (context.Context, func(providers.Outcome, time.Duration)) {
			begun := time.Now()
			return context.WithValue(ctx, keyWatched{}, kind), func(outcome providers.Outcome, took time.Duration) {
				if took < 0 || took > time.Since(begun) {
					t.Errorf("%s took %s", kind, took)
				}
				seen = append(seen, provider+" "+kind+" "+string(outcome))
			}
		}
	})
	w.steady()
	w.psp.next(func(ctx context.Context, p *psp, c providers.Charge) providers.Result {
		if ctx.Value(keyWatched{}) != "send" {
			t.Error("the exchange does not go on with the watcher's context")
		}
		return timeout(ctx, p, c)
	})
	w.want(w.createOn(i, w.test, "nonce-1", w.body("order-1", nil)), http.StatusGatewayTimeout)
	w.shift("nonce-1", untilProof)
	w.dueAgain("nonce-1")
	if n := w.recoverOn(i); n != 1 {
		t.Fatalf("recovery took %d", n)
	}
	if want := []string{"TEST_PSP send unclear", "TEST_PSP inquire not_found", "TEST_PSP void voided"}; !slices.Equal(seen, want) {
		t.Errorf("it saw %q, not %q", seen, want)
	}
}
