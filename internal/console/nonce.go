package console

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/transactions"
)

// nonceView is the page of a nonce.
type nonceView struct {
	Nonce string
	Lives []lifeView
	Ask   string // how its merchant asks, as a command
	// Later says that these are not the newest lives; Next leads to those before them, "":
	// there are none.
	Later bool
	Next  string
	next  string // the id of the last life on this page, if there are more
	// PrintPath leads to the page as a file for a dispute. On that one, Print is true, and
	// says when it was made.
	PrintPath string
	Print     bool
	MadeAt    time.Time
}

// Path is where the page is.
func (v nonceView) Path() string { return noncePath(v.Nonce) }

// nonceLink is the page of a nonce with a query.
func nonceLink(nonce string, query url.Values) string {
	path, mark := noncePath(nonce), "?"
	if strings.Contains(path, mark) {
		mark = "&"
	}
	return path + mark + query.Encode()
}

// lifeView is one life on the page.
type lifeView struct {
	transactions.Life
	Prefix   string
	Merchant string
	// Nth is which of its merchant's lives in this mode it is, and Of how many there are, both
	// of those on this page, the oldest first.
	Nth, Of int
	Tone    tone
	Word    string // what the tone says
	Answer  string
	Picture picture
	// Send is the request once more, as a command; "": it cannot be told, or would be a new one.
	Send string
}

// PaymentPath is the payment's page.
func (l lifeView) PaymentPath() string { return "/payments/" + url.PathEscape(l.PaymentID) }

// Standing says whether the nonce is taken, and what a retry gets.
func (l lifeView) Standing() string {
	switch l.KeyState {
	case transactions.KeyOpen:
		return "Taken. A retry is told to wait."
	case transactions.KeyUnresolved:
		return "Taken. A retry finds out, or is told to wait."
	case transactions.KeyParked:
		return "Taken, until a person decides."
	case transactions.KeyAnswered:
		return "Taken. A retry gets the first answer again."
	case transactions.KeyReleased:
		return "Free: given back. A request with it is a new one."
	case transactions.KeyExpired:
		return "Free: its time is over. A request with it is a new one."
	}
	return ""
}

// taken says whether a request with the nonce would still meet this life.
func taken(state transactions.KeyState) bool {
	return state != transactions.KeyReleased && state != transactions.KeyExpired
}

// judge says how a life ended: the word, and the colour that goes with it. Only what is
// settled is green or red. An answer that says something else than what became of the payment
// is no success, whatever that was: somebody has to tell the merchant.
func judge(life transactions.Life) (tone, string) {
	status := life.Transaction.Status
	switch {
	case life.KeyState == transactions.KeyParked:
		return bad, "A person must look"
	case status == transactions.Succeeded && life.AnswerStatus != nil && *life.AnswerStatus >= 400:
		return waiting, "Done once, but answered with an error"
	case status == transactions.Succeeded:
		return good, "Done once"
	case status == transactions.Declined, status == transactions.Rejected:
		return bad, "Declined"
	case status == transactions.Expired:
		return bad, "Expired"
	case status.Terminal():
		return bad, "Not done"
	case life.KeyState == transactions.KeyOpen:
		return waiting, "In process"
	case status == transactions.Pending:
		return waiting, "Not decided yet"
	}
	return waiting, "Not known yet"
}

// viewNonce makes the page of what is known of a nonce. merchant names an account, and send is
// the request of a life once more; "": there is none.
func viewNonce(found transactions.Lives, base string, now time.Time, merchant, send func(l transactions.Life) string) nonceView {
	v := nonceView{Nonce: found.Nonce, next: found.Next, PrintPath: nonceLink(found.Nonce, url.Values{"print": {"1"}})}
	if base != "" && idem.ValidNonce(found.Nonce) { // of one that is too long, only what is kept may be known
		v.Ask = askCurl(base, found.Nonce)
	}
	if found.Next != "" {
		v.Next = nonceLink(found.Nonce, url.Values{"after": {found.Next}})
	}
	for i, life := range found.Lives {
		prefix := fmt.Sprintf("m-%d-", i+1)
		l := lifeView{
			Life: life, Prefix: prefix, Merchant: cmp.Or(merchant(life), life.AccountID), Answer: answerText(life.AnswerStatus),
			Picture: layOut(life, prefix, now),
		}
		l.Tone, l.Word = judge(life)
		if taken(life.KeyState) {
			l.Send = send(life)
		}
		v.Lives = append(v.Lives, l)
	}
	numberLives(v.Lives)
	return v
}

// numberLives counts the lives, the newest first, each merchant's and mode's for itself: what one
// does with a nonce has nothing to do with another's.
func numberLives(lives []lifeView) {
	type whose struct{ account, mode string }
	of := map[whose]int{}
	for i := range slices.Backward(lives) {
		w := whose{lives[i].AccountID, lives[i].Mode}
		of[w]++
		lives[i].Nth = of[w]
	}
	for i, l := range lives {
		lives[i].Of = of[whose{l.AccountID, l.Mode}]
	}
}

// opened are the items with all their facts in sight.
func opened(items []item) []item {
	for i := range items {
		items[i].Open, items[i].Folded = true, opened(items[i].Folded)
	}
	return items
}

// onPaper is the page that is printed, now.
func (v nonceView) onPaper(now time.Time) nonceView {
	v.Print, v.MadeAt = true, now.UTC()
	for _, l := range v.Lives {
		opened(l.Picture.Items)
	}
	if v.next != "" {
		v.Next = nonceLink(v.Nonce, url.Values{"after": {v.next}, "print": {"1"}})
	}
	return v
}

// from is the page that goes on after the life of that id.
func (v nonceView) from(after uuid.UUID) nonceView {
	if after != uuid.Nil {
		v.Later = true
		v.PrintPath = nonceLink(v.Nonce, url.Values{"after": {after.String()}, "print": {"1"}})
	}
	return v
}
