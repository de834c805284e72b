package doctor

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/providers"
)

const (
	// staleAfter is later than a lease, the settling time and a few rounds of
	// recovery: by then, something is wrong.
	staleAfter = 5 * time.Minute
	// parkedLong is when a customer who waits for a decision begins to call.
	parkedLong = 24 * time.Hour
	// expiringSoon leaves a merchant a weekend.
	expiringSoon = 3 * 24 * time.Hour
	// unusedLong is when nobody will miss a key.
	unusedLong = 90 * 24 * time.Hour
)

// modes are those that are served, in a fixed order.
func (f *facts) modes() []string { return slices.Sorted(maps.Keys(f.set.Providers)) }

func providerAnswers(f *facts) verdict {
	var says []string
	for _, mode := range f.modes() {
		a := f.answers[mode]
		switch {
		case a.mute:
			says = append(says, fmt.Sprintf("%s mode's provider cannot be asked about a reference", mode))
		case a.result.Outcome == providers.NotFound:
			says = append(says, fmt.Sprintf("%s mode's provider answers in %s", mode, a.took.Round(time.Millisecond)))
		case a.result.Outcome == providers.Unclear:
			return bad(fmt.Sprintf("%s mode's provider does not answer an inquiry: %s", mode, a.result.Detail),
				"Look at --provider-url, and whether the provider can be reached from here; its status page may know more.")
		default:
			return bad(fmt.Sprintf("%s mode's provider calls a reference %s that nobody has ever used", mode, a.result.Outcome),
				"Take no payments with it, and ask whoever runs it: what is answered so cannot be settled.")
		}
	}
	return fine(strings.Join(says, "; "))
}

func providerTransport(f *facts) verdict {
	u, err := url.Parse(f.set.ProviderURL)
	if err == nil && u.Scheme == "http" && !httpapi.Loopback(u.Hostname()) {
		return warn("--provider-url is http on another machine: card numbers travel in the clear", "Use https, or keep it on loopback or a network of your own.")
	}
	return fine("nothing travels to the provider in the clear beyond this machine")
}

const nextKeys = "payments keys create --account-id ID --mode %s"

func haveMerchants(f *facts) verdict {
	if f.keys.got.merchants == 0 {
		return warn("there is no merchant, so nobody can pay", "payments merchants create NAME")
	}
	return fine(counted(f.keys.got.merchants, "merchant", "merchants"))
}

func keysUsable(f *facts) verdict {
	if f.keys.got.merchants == 0 {
		return fine("there is no merchant to have keys")
	}
	for _, mode := range f.modes() {
		if f.keys.got.of(mode).Usable == 0 {
			return warn(fmt.Sprintf("%s mode is served, and no key for it is usable: all are revoked or over, or their merchants are disabled", mode),
				fmt.Sprintf(nextKeys, mode))
		}
	}
	return fine("each mode that is served has usable keys")
}

func keysLive(f *facts) verdict {
	n := f.keys.got.of(merchants.Live).Usable
	if _, served := f.set.Providers[merchants.Live]; n > 0 && !served {
		return warn(counted(n, "usable key is", "usable keys are")+" for live mode, which has no provider: every payment with it is refused",
			"Revoke it until there is one: payments keys revoke KEY_ID --account-id ID")
	}
	return fine("there are no live keys that lead nowhere")
}

func keysExpiring(f *facts) verdict {
	if n := f.keys.got.all().Expiring; n > 0 {
		return warn(counted(n, "key ends", "keys end")+" within three days, and is still in use or has no successor",
			"See which with `payments keys list --account-id ID`; tell the merchant to change over, or make a new key.")
	}
	return fine("no key that is needed ends within three days")
}

func keysUnused(f *facts) verdict {
	if n := f.keys.got.all().Unused; n > 0 {
		return warn(counted(n, "usable key has", "usable keys have")+" not been used for 90 days: whoever finds it can",
			"See which with `payments keys list --account-id ID`; then payments keys revoke KEY_ID --account-id ID")
	}
	return fine("no usable key has been unused for 90 days")
}

func workUnresolved(f *facts) verdict {
	if n := f.work.got.Stale; n > 0 {
		return warn(counted(n, "payment has", "payments have")+" been unresolved for more than "+plain(staleAfter),
			"See that an instance is running and that its provider answers; then `payments lookup NONCE` tells what was tried. docs/operate/nonces.md")
	}
	return fine("nothing has been unresolved for more than " + plain(staleAfter))
}

func workParked(f *facts) verdict {
	w := f.work.got
	waited := time.Duration(w.ParkedSeconds) * time.Second
	says := counted(w.Parked, "payment waits", "payments wait") + " for a person's decision, the longest for " + plain(waited.Round(time.Minute))
	const next = "`payments lookup NONCE` tells what was tried, `payments resolve TRANSACTION` decides. docs/operate/nonces.md"
	switch {
	case w.Parked == 0:
		return fine("nothing waits for a person")
	case waited > parkedLong:
		return bad(says, next)
	}
	return warn(says, next)
}
