package sandbox

import (
	"slices"
	"strings"
	"time"

	"github.com/oncepay/oncepay/internal/providers"
)

const (
	// faultPrefix begins a description that chooses a fault.
	faultPrefix = "sandbox:"
	// maxSlow bounds `sandbox:slow`: longer than any provider timeout anyone sets,
	// so a longer one could not show anything new.
	maxSlow = time.Minute

	succeeded = "SUCCEEDED"
)

// cardPrefixes are the published test cards without their last four digits:
// Visa, Mastercard, Amex (15 digits), Diners, UATP.
var cardPrefixes = []string{"450799000000", "525244000000", "37000000000", "364716600000", "113900000000"}

// cardCodes is what the last four digits of a test card stand for.
var cardCodes = map[string]string{
	"0002": succeeded,
	"0010": "INSUFFICIENT_FUNDS",
	"0028": "DECLINED_BY_BANK",
	"0036": "DO_NOT_HONOR",
	"0044": "INVALID_SECURITY_CODE",
	"0051": "INVALID_CARD_DATA",
	"0069": "REPORTED_STOLEN",
	"0077": "ERROR",
}

// cardCode is the response code that a card number stands for, or "" for a card
// that is no test card.
func cardCode(number string) string {
	if len(number) < 4 {
		return ""
	}
	prefix, last := number[:len(number)-4], number[len(number)-4:]
	if !slices.Contains(cardPrefixes, prefix) {
		return ""
	}
	return cardCodes[last]
}

// truth is the response code of a charge that no fault disturbs: what its card
// stands for, else what its description names, else success.
func truth(cardCode, description string) string {
	if cardCode != "" {
		return cardCode
	}
	if _, known := providers.ClassOf(description); known {
		return description
	}
	return succeeded
}

// fault is one way to misbehave on an order's first send.
type fault struct {
	word  string        // what the ledger remembers it as
	books bool          // the charge is booked, whatever its card
	then  manner        // and then answered like this
	slow  time.Duration // and not before this time has passed
}

// manner is how a request is answered.
type manner int

const (
	truthfully  manner = iota
	never              // holds the connection until the client gives up
	with500            // says only that something went wrong
	halfway            // closes the connection in the middle of the answer
	unprocessed        // guarantees that nothing was processed
	refusing           // says that the request is invalid
)

var faults = []fault{
	{word: "charge-then-timeout", books: true, then: never},
	{word: "timeout", then: never},
	{word: "charge-then-500", books: true, then: with500},
	{word: "500", then: with500},
	{word: "charge-then-reset", books: true, then: halfway},
	{word: "unavailable", then: unprocessed},
	{word: "reject", then: refusing},
}

// later are the words of the contract that the sandbox does not act on yet. It
// refuses them: taking one for an ordinary description would be a success that
// nobody asked for.
var later = []string{"pending-then-approve", "pending-then-decline", "pending-then-approve-twice", "challenge"}

// parseFault reads a description. asked is false if it chooses no fault. A
// problem says what is wrong with the choice, without quoting it.
func parseFault(description string) (f fault, asked bool, problem string) {
	word, asked := strings.CutPrefix(description, faultPrefix)
	if !asked {
		return fault{}, false, ""
	}
	for _, f := range faults {
		if f.word == word {
			return f, true, ""
		}
	}
	name, value, hasValue := strings.Cut(word, "=")
	switch {
	case name == "slow" && hasValue:
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 || d > maxSlow {
			return fault{}, true, "sandbox:slow needs a duration above 0 and up to 60s, as in sandbox:slow=3s"
		}
		return fault{word: "slow", books: true, then: truthfully, slow: d}, true, ""
	case slices.Contains(later, name):
		return fault{}, true, "this sandbox: behaviour is not available yet"
	}
	words := make([]string, len(faults))
	for i, f := range faults {
		words[i] = f.word
	}
	return fault{}, true, "after sandbox: must come one of " + strings.Join(words, ", ") + ", slow=3s"
}
