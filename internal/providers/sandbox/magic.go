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
	// maxSlow bounds `sandbox:slow` and the waits of what is pending: longer than any
	// provider timeout anyone sets, so a longer one could not show anything new.
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

// wholeCards are published test cards that stand for something as a whole: the short
// set of the SDK's quickstart, and the card of the browser challenge. The quickstart's
// 4111 1111 1111 1111 is not among them: it succeeds like any card, and so leaves it to
// the description to name another outcome.
var wholeCards = map[string]string{
	"4000000000000002": "DECLINED_BY_BANK",
	"4000000000003220": codeChallenge,
	"4916994064252017": codeChallenge,
}

// cardCode is the response code that a card number stands for, or "" for a card
// that is no test card.
func cardCode(number string) string {
	if code, ok := wholeCards[number]; ok {
		return code
	}
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

	verdict verdict       // if it is pending first: how that ends
	wait    time.Duration // and when
	copies  int           // and how often that is told
}

// challengeFault makes the payer answer a challenge.
var challengeFault = fault{word: "challenge", verdict: thenChallenge, copies: 1}

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
	challengeFault,
}

// waits are the faults that have a duration, of which the word says only the rest.
var waits = []fault{
	{word: "slow", books: true, then: truthfully},
	{word: "pending-then-approve", verdict: thenApprove, copies: 1},
	{word: "pending-then-decline", verdict: thenDecline, copies: 1},
	{word: "pending-then-approve-twice", verdict: thenApprove, copies: 2},
}

// parseFault reads a description. asked is false if it chooses no fault. A
// problem says what is wrong with the choice, without quoting it.
func parseFault(description string) (f fault, asked bool, problem string) {
	word, asked := strings.CutPrefix(description, faultPrefix)
	if !asked {
		return fault{}, false, ""
	}
	words := make([]string, 0, len(faults)+len(waits))
	for _, f := range faults {
		if f.word == word {
			return f, true, ""
		}
		words = append(words, f.word)
	}
	name, value, hasValue := strings.Cut(word, "=")
	for _, f := range waits {
		if f.word == name && hasValue {
			return f.after(value)
		}
		words = append(words, f.word+"=3s")
	}
	return fault{}, true, "after sandbox: must come one of " + strings.Join(words, ", ")
}

// after is the fault with its duration.
func (f fault) after(value string) (_ fault, asked bool, problem string) {
	d, err := time.ParseDuration(value)
	if err != nil || d <= 0 || d > maxSlow {
		return fault{}, true, "sandbox:" + f.word + " needs a duration above 0 and up to 60s, as in sandbox:" + f.word + "=3s"
	}
	if f.verdict == "" {
		f.slow = d
	} else {
		f.wait = d
	}
	return f, true, ""
}
