package console

import (
	"cmp"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/oncepay/oncepay/internal/apierr"
)

// refusal is why a form was refused that whoever sent it can mend, or understand: by other
// values, or because of what something is by now.
type refusal struct {
	Status int
	Words  string
}

// refused finds a refusal in an error. What it does not find belongs on the page of errors.
func refused(err error) (refusal, bool) {
	e, told := apierr.From(err)
	if !told || e.Status != http.StatusBadRequest && e.Status != http.StatusConflict {
		return refusal{}, false
	}
	words := make([]string, len(e.Messages))
	for i, m := range e.Messages {
		words[i] = inWords(m)
	}
	return refusal{e.Status, strings.Join(words, "; ")}, true
}

// fieldNames are what the forms call the fields of the API's bodies.
var fieldNames = map[string]string{
	"name": "the name", "idempotency_policy": "the policy", "origins": "the origins", "mode": "the mode", "allowed_networks": "the networks",
	"overlap_seconds": "the overlap", "role": "the role", "scope": "the scope", "lifetime_days": "the days",
}

// bodyPath is a place in a body, as messages name it: $.origins[3].
var bodyPath = regexp.MustCompile(`\$\.([a-z_]+)(?:\[(\d+)\])?`)

// inWords is a message to whoever filled in a form: it names fields as the form does. A list
// is a text field with an entry a line.
func inWords(message string) string {
	message = strings.TrimSuffix(message, ", or null") // a form says so by an empty field
	return bodyPath.ReplaceAllStringFunc(message, func(path string) string {
		parts := bodyPath.FindStringSubmatch(path)
		name := cmp.Or(fieldNames[parts[1]], parts[1])
		if i, err := strconv.Atoi(parts[2]); err == nil {
			return fmt.Sprintf("entry %d of %s", i+1, name)
		}
		return name
	})
}

// linesOf are the lines of a text field, but for empty ones, without the blanks around them.
func linesOf(text string) []string {
	lines := []string{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// countdown says how long it is until something ends, in its two largest units, so that
// nobody takes a key that ends in 100 minutes for one that ends in 2 hours.
func countdown(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Second:
		return "less than a second"
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < day:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("1 day %d h", d%day/time.Hour)
	}
	return fmt.Sprintf("%d days %d h", d/day, d%day/time.Hour)
}

// notices are what a page says after something was done, by the word in ?done=. A link can
// make a page say one of these sentences, and no other.
var notices = map[string]string{
	"merchant-unchanged":   "Nothing was different, so nothing was changed.",
	"merchant-updated":     "The merchant was changed. It holds on every instance within 5 seconds.",
	"merchant-disabled":    "The merchant is disabled. Within 5 seconds no instance takes any of its keys.",
	"merchant-enabled":     "The merchant is enabled. Within 5 seconds every instance takes its keys again.",
	"key-revoked":          "The key is revoked. Within 5 seconds no instance takes it any more.",
	"key-restricted":       "The key's networks were changed. It holds on every instance within 5 seconds.",
	"operator-role":        "The role was changed. It holds at once, and they have to sign in again.",
	"operator-disabled":    "The operator is disabled, and signed out everywhere.",
	"operator-enabled":     "The operator may sign in again.",
	"operator-signed-out":  "They are signed out in all browsers.",
	"invitation-withdrawn": "The link was withdrawn. Nobody can use it any more.",
	"token-revoked":        "The token is revoked. It is refused from now on.",
}
