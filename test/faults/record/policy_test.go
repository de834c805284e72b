package record

import (
	"net/http"
	"slices"
	"testing"
)

func TestPoliciesSpeakAsTheirClientsDo(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct{ header, sent, replay string }{
		"yuno": {"X-Idempotency-Key", "n-1", "Idempotent-Replayed"},
		"novu": {"Idempotency-Key", "n-1", "Idempotency-Replay"},
		"fyno": {"Idempotency-Key", "n-1", ""},
		"ietf": {"Idempotency-Key", `"n-1"`, "Idempotent-Replayed"},
	} {
		p, ok := PolicyNamed(name)
		if !ok {
			t.Fatalf("there is no policy %s", name)
		}
		h := p.Key("n-1")
		if len(h) != 1 || !slices.Equal(h.Values(want.header), []string{want.sent}) {
			t.Errorf("%s sends %v", name, h)
		}
		for _, other := range []string{"Idempotent-Replayed", "Idempotency-Replay"} {
			told := http.Header{}
			told.Set(other, "true")
			if p.Replays(told) != (other == want.replay) {
				t.Errorf("%s takes %s for a replay: %t", name, other, p.Replays(told))
			}
		}
	}
	if _, ok := PolicyNamed(""); ok || Policies[0].Name != "yuno" {
		t.Error("the default is not yuno, or has another name as well")
	}
}
