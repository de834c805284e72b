package transactions

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/idem"
	"github.com/oncepay/oncepay/internal/merchants"
	"github.com/oncepay/oncepay/internal/providers"
)

// The page on idempotency says by tables what each policy does. Here they are played,
// line by line, against service, database and provider: what the page says and what a
// client sees are compared word for word.

const (
	idempotencyPage   = "../../docs/concepts/idempotency.md"
	specificationPage = "../../docs/reference/idempotency-key.md"
	stripePage        = "../../docs/concepts/coming-from-stripe.md"
)

// truth is one line of a policy's table.
type truth struct{ first, second, answer, headers, booked string }

var truthHead = truth{"first request", "second request", "the second is answered", "with the headers", "the provider books"}

func (l truth) String() string {
	return "| " + strings.Join([]string{l.first, l.second, l.answer, l.headers, l.booked}, " | ") + " |"
}

// truthLines are the pairs that each table has, in this order, so that two tables can be
// laid side by side.
var truthLines = [][2]string{
	{"no key", "no key"},
	{"paid", "the same"},
	{"paid", "another body"},
	{"paid", "an invalid body"},
	{"paid", "another operation"},
	{"paid", "no key"},
	{"paid", "the other header"},
	{"paid", "the other spelling"},
	{"paid in test mode", "the same"},
	{"declined", "the same"},
	{"declined", "another body"},
	{"invalid", "the same"},
	{"invalid", "another body"},
	{"refused", "the same"},
	{"refused", "another body"},
	{"refused", "an invalid body"},
	{"refused", "another operation"},
	{"not reached", "the same"},
	{"not reached", "another body"},
	{"in flight", "the same"},
	{"in flight", "another body"},
	{"in flight", "an invalid body"},
	{"in flight", "another operation"},
	{"unclear", "the same"},
	{"unclear", "another body"},
	{"unclear", "an invalid body"},
	{"unclear", "another operation"},
	{"unclear, nothing booked", "the same"},
	{"unclear, nothing booked", "another body"},
	{"unclear, settled since", "the same"},
	{"cut off", "the same"},
	{"cut off", "another body"},
	{"cut off", "another operation"},
	{"parked", "the same"},
	{"parked", "another body"},
	{"expired", "the same"},
	{"expired", "another body"},
	{"paid, to be kept for 60 s", "the same, 61 s later"},
	{"refunded", "the same"},
	{"refunded", "another body"},
}

// trial is one line being played: a nonce and an order of its own, and what the first
// request did.
type trial struct {
	*world
	policy        idem.Policy
	pair          merchants.KeyPair
	nonce, order  string
	path          string
	wanted, other []byte // the first request's body, and another valid one
	earlier       sale   // a payment that can be refunded
	first         response
	sent          string // the last Idempotency-Key that was sent
	begun         string // the transaction that the first request began, if it did
	end           func() // lets a first request that is still under way come to its end
}

// firsts are what can become of a first request.
var firsts = map[string]func(x *trial){
	"no key":            func(x *trial) { x.first = x.repeat(nil) },
	"paid":              func(x *trial) { x.first = x.repeat(x.key()) },
	"paid in test mode": func(x *trial) { x.pair = x.test; x.first = x.repeat(x.key()) },
	"declined":          func(x *trial) { x.begin(decline) },
	"invalid": func(x *trial) {
		x.wanted = x.invalid()
		x.first = x.repeat(x.key())
	},
	"refused":                 func(x *trial) { x.begin(refuse) },
	"not reached":             func(x *trial) { x.begin(notReached) },
	"in flight":               func(x *trial) { x.hold() },
	"unclear":                 func(x *trial) { x.begin(chargeThenTimeout) },
	"unclear, nothing booked": func(x *trial) { x.begin(timeout) },
	"unclear, settled since": func(x *trial) {
		x.begin(chargeThenTimeout)
		x.settleBehind()
	},
	"cut off": func(x *trial) { x.cutOff() },
	"parked": func(x *trial) {
		x.cutOff()
		x.park(x.nonce)
	},
	"expired": func(x *trial) {
		x.first = x.repeat(x.key())
		x.shift(x.nonce, x.policy.Retention+time.Second)
	},
	"paid, to be kept for 60 s": func(x *trial) { x.first = x.repeat(append(x.key(), idem.ExpirationHeader, "60")) },
	"refunded": func(x *trial) {
		x.path = x.earlier.refund("10").path()
		x.wanted, x.other = x.refundBody("10"), x.refundBody("5")
		x.first = x.repeat(x.key())
	},
}

// seconds are what can come after it.
var seconds = map[string]func(x *trial) response{
	"the same":          func(x *trial) response { return x.repeat(x.key()) },
	"another body":      func(x *trial) response { return x.ask(x.path, x.other, x.key()) },
	"an invalid body":   func(x *trial) response { return x.ask(x.path, x.invalid(), x.key()) },
	"another operation": func(x *trial) response { return x.ask(x.earlier.refund("10").path(), x.refundBody("10"), x.key()) },
	"no key":            func(x *trial) response { return x.repeat(nil) },
	"the other header": func(x *trial) response {
		other := idem.Header
		if x.policy.Headers[0] == other {
			other = idem.AliasHeader
		}
		return x.repeat([]string{other, x.written()})
	},
	"the other spelling": func(x *trial) response {
		spelt := x.nonce
		if x.policy.Format != idem.Quoted {
			spelt = strconv.Quote(x.nonce)
		}
		return x.repeat([]string{x.policy.Headers[0], spelt})
	},
	"the same, 61 s later": func(x *trial) response {
		x.shift(x.nonce, 61*time.Second)
		return x.repeat(x.key())
	},
}

// written is the nonce as the policy has it written.
func (x *trial) written() string {
	if x.policy.Format == idem.Quoted {
		return strconv.Quote(x.nonce)
	}
	return x.nonce
}

func (x *trial) key() []string { return []string{x.policy.Headers[0], x.written()} }

// repeat sends the first request, with these headers for its key.
func (x *trial) repeat(headers []string) response { return x.ask(x.path, x.wanted, headers) }

func (x *trial) ask(path string, body []byte, headers []string) response {
	x.t.Helper()
	x.sent = ""
	if i := slices.Index(headers, idem.AliasHeader); i >= 0 {
		x.sent = headers[i+1]
	}
	return x.call(http.MethodPost, x.public.URL+path, body, append(keys(x.pair), headers...)...)
}

func (x *trial) invalid() []byte {
	return x.body(x.order, map[string]any{"amount": json.Number("-1")})
}

func (x *trial) refundBody(amount string) []byte {
	x.t.Helper()
	b, err := json.Marshal(x.earlier.refund(amount).body)
	if err != nil {
		x.t.Fatal(err)
	}
	return b
}

// begin sends the first request to a provider that behaves so.
func (x *trial) begin(does behaviour) {
	x.psp.next(does)
	x.first = x.repeat(x.key())
}

// hold leaves the first request waiting for its provider until end.
func (x *trial) hold() {
	arrived, letGo := x.holdNext(approve)
	answers := atOnce(1, func(int) (response, error) {
		return request(x.t.Context(), http.MethodPost, x.public.URL+x.path, x.wanted, append(keys(x.pair), x.key()...)...)
	})
	receive(x.t, arrived, "the first request's send")
	x.end = func() {
		letGo()
		x.want(receive(x.t, answers, "the first answer"), http.StatusCreated)
	}
}

// cutOff leaves what a process leaves behind that dies when the provider has booked:
// a claim, and no answer. Then its lease is over.
func (x *trial) cutOff() {
	x.psp.next(func(_ context.Context, p *psp, c providers.Charge) providers.Result {
		p.book(c)
		panic("here the process dies")
	})
	x.want(x.repeat(x.key()), http.StatusInternalServerError)
	x.shift(x.nonce, testLease)
}

// settleBehind lets recovery find out what became of the nonce.
func (x *trial) settleBehind() {
	x.t.Helper()
	x.dueAgain(x.nonce)
	x.recoverOn(x.instance)
}

// TestTruthTablesAreTrue plays every line of the page.
func TestTruthTablesAreTrue(t *testing.T) {
	t.Parallel()
	page := readPage(t, idempotencyPage)
	answered := wordsOf(t, page, "first request", slices.Collect(maps.Keys(firsts)))
	wordsOf(t, page, "second request", slices.Collect(maps.Keys(seconds)))
	tables := truthTables(t, page)
	for _, name := range presets().Names() {
		lines := tables[name]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.steady()
			pair := w.become(name)
			for i, line := range lines {
				x := &trial{
					world: w, policy: presets().Of(name), pair: pair, nonce: fmt.Sprintf("nonce-%02d", i), order: fmt.Sprintf("order-%02d", i),
					path: "/v1/payments", end: func() {},
				}
				if got := x.play(line, answered[line.first]); got != line {
					t.Errorf("the page says\n%s\nand what happens is\n%s", line, got)
				}
			}
		})
	}
}

// become makes the world's merchant one with that policy, with keys for both modes, and
// returns those of live mode.
func (w *world) become(policy string) merchants.KeyPair {
	w.t.Helper()
	m, test, err := w.auth.Create(w.t.Context(), "A merchant with "+policy, policy)
	if err != nil {
		w.t.Fatal(err)
	}
	live, err := w.auth.CreateKey(w.t.Context(), m.AccountID, merchants.Live)
	if err != nil {
		w.t.Fatal(err)
	}
	w.account, w.test, w.live = m.AccountID, test, live
	return live
}

// play is what really happens in a line.
func (x *trial) play(line truth, answered string) truth {
	x.t.Helper()
	x.wanted = x.body(x.order, nil)
	x.other = x.body(x.order, map[string]any{"description": "Another payment"})
	if line.first == "refunded" || line.second == "another operation" {
		x.earlier = x.earlierSale()
	}
	firsts[line.first](x)
	if status := strconv.Itoa(x.first.status); x.first.body != nil && !strings.Contains(answered, status) {
		x.t.Errorf("%s: the page says that the first request is answered with %s, and it is %s", line.first, answered, x.first)
	}
	if x.transactionsOf(x.nonce) > 0 {
		x.begun = x.transaction(x.nonce).ID.String()
	}
	second := seconds[line.second](x)
	got := truth{line.first, line.second, x.answer(second), x.headers(second), ""}
	x.end()
	got.booked = x.booked()
	return got
}

// earlierSale is a payment with a nonce of its own.
func (x *trial) earlierSale() sale {
	x.t.Helper()
	of := *x
	of.nonce, of.wanted = "sale-"+x.nonce, x.body("sale-"+x.order, map[string]any{"amount": json.Number("100")})
	r := of.repeat(of.key())
	x.want(r, http.StatusCreated)
	return sale{textAt(r, "id"), textAt(r, "transactions", "id")}
}

// answer says what the second request was told, in the page's words.
func (x *trial) answer(r response) string {
	replayed := x.policy.ReplayHeader == "" || r.header.Get(x.policy.ReplayHeader) != ""
	switch {
	case r.status == x.first.status && bytes.Equal(r.body, x.first.body) && replayed:
		return fmt.Sprintf("%d, the first answer", r.status)
	case r.status < http.StatusBadRequest && textAt(r, "transactions", "id") == x.begun:
		return fmt.Sprintf("%d, the first payment", r.status)
	case r.status < http.StatusBadRequest:
		return fmt.Sprintf("%d, executed", r.status)
	}
	member := map[apierr.Style]string{apierr.Envelope: "code", apierr.Nest: "error", apierr.Problem: "title"}[x.policy.Errors]
	return fmt.Sprintf("%d `%v`", r.status, r.get(member))
}

// headers are those of the answer that have to do with nonces.
func (x *trial) headers(r response) string {
	var told []string
	for _, name := range []string{"Idempotent-Replayed", "Idempotency-Replay", "Idempotency-Body-Mismatch", "Idempotency-Key", "Retry-After"} {
		value := r.header.Get(name)
		switch seconds, err := strconv.Atoi(value); {
		case value == "":
		case value == "true", name == idem.AliasHeader && value == x.sent:
			told = append(told, "`"+name+"`")
		case err == nil && seconds != retryInProcess && seconds != retryParked:
			told = append(told, "`"+name+": n`")
		default:
			told = append(told, "`"+name+": "+value+"`")
		}
	}
	if told == nil {
		return "–"
	}
	return strings.Join(told, ", ")
}

// booked counts at the provider, once everything has come to its end, and holds our own
// books against it.
func (x *trial) booked() string {
	x.t.Helper()
	x.shift(x.nonce, untilProof)
	x.settleBehind()
	charges, refunds := x.psp.charges(x.order), 0
	if x.earlier.transaction != "" {
		refunds, _ = x.psp.operated(providers.Refund, x.earlier.transaction)
	}
	if n := x.count(`SELECT count(*) FROM transactions t JOIN payments p ON p.account_id = t.account_id AND p.id = t.payment_id
		WHERE p.merchant_order_id = $1 AND t.type = 'PURCHASE' AND t.status = 'SUCCEEDED'`, x.order); n != charges {
		x.t.Errorf("%s: the provider has booked %d charges, and we know of %d", x.nonce, charges, n)
	}
	var told []string
	for _, c := range []struct {
		n    int
		what string
	}{{charges, "charge"}, {refunds, "refund"}} {
		switch {
		case c.n == 1:
			told = append(told, "1 "+c.what)
		case c.n > 1:
			told = append(told, fmt.Sprintf("%d %ss", c.n, c.what))
		}
	}
	if told == nil {
		return "nothing"
	}
	return strings.Join(told, ", ")
}

func readPage(t *testing.T, name string) string {
	t.Helper()
	page, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// tableOf are the lines below a head of a table, as cells. Only one table may have it
// within the text.
func tableOf(t *testing.T, text, head string) [][]string {
	t.Helper()
	_, below, found := strings.Cut(text, "\n"+head+"\n")
	if !found || strings.Contains(below, "\n"+head+"\n") {
		t.Fatalf("there is no table, or more than one, that begins %s", head)
	}
	var lines [][]string
	for line := range strings.SplitSeq(below, "\n") {
		if !strings.HasPrefix(line, "|") {
			break
		}
		cells := strings.Split(strings.TrimSuffix(strings.TrimPrefix(line, "| "), " |"), " | ")
		if len(lines) > 0 && len(cells) != strings.Count(head, "|")-1 {
			t.Fatalf("this line has not as many cells as its head: %s", line)
		}
		lines = append(lines, cells)
	}
	return lines[1:] // but the rule below the head
}

// wordsOf reads the table in which the page explains the words of a column, and fails
// the test unless they are the words known here. It returns the last cell of each.
func wordsOf(t *testing.T, page, column string, known []string) map[string]string {
	t.Helper()
	head := map[string]string{"first request": "| first request | what became of it | answered |", "second request": "| second request | what it brings |"}[column]
	explained := map[string]string{}
	for _, cells := range tableOf(t, page, head) {
		explained[cells[0]] = cells[len(cells)-1]
	}
	words := slices.Sorted(maps.Keys(explained))
	if slices.Sort(known); !slices.Equal(words, known) {
		t.Fatalf("the page explains the words\n%q, and those of the column %s are\n%q", words, column, known)
	}
	return explained
}

var policyHeading = regexp.MustCompile("(?m)^### `([a-z]+)`$")

// truthTables are the page's, by policy. Each policy must have one, with every line.
func truthTables(t *testing.T, page string) map[string][]truth {
	t.Helper()
	tables := map[string][]truth{}
	var names []string
	at := policyHeading.FindAllStringSubmatchIndex(page, -1)
	for i, m := range at {
		name, text := page[m[2]:m[3]], page[m[1]:]
		if i+1 < len(at) {
			text = page[m[1]:at[i+1][0]]
		}
		names = append(names, name)
		for _, c := range tableOf(t, text, truthHead.String()) {
			tables[name] = append(tables[name], truth{c[0], c[1], c[2], c[3], c[4]})
		}
		var pairs [][2]string
		for _, line := range tables[name] {
			pairs = append(pairs, [2]string{line.first, line.second})
		}
		if !slices.Equal(pairs, truthLines) {
			t.Fatalf("the table of %s has the lines\n%q, want\n%q", name, pairs, truthLines)
		}
	}
	if !slices.Equal(names, presets().Names()) {
		t.Fatalf("there are tables of %q, want %q", names, presets().Names())
	}
	return tables
}

// knobs are the settings of a policy in a reader's words, in the order of the page.
var knobs = []struct {
	name  string
	words func(p idem.Policy) string
}{
	{"the key's header", func(p idem.Policy) string { return "`" + strings.Join(p.Headers, "` or `") + "`" }},
	{"how it is written", func(p idem.Policy) string {
		return map[idem.Format]string{
			idem.Visible: "visible ASCII without a comma", idem.Printable: "printable ASCII", idem.Quoted: "printable ASCII as a string of RFC 9651, in quotes",
		}[p.Format]
	}},
	{"its length in characters", func(p idem.Policy) string {
		if p.MaxLength == 0 {
			return "1 or more"
		}
		return fmt.Sprintf("1 to %d", p.MaxLength)
	}},
	{"without a key", func(p idem.Policy) string { return either(p.Required, "400", "runs, unprotected") }},
	{"keys count for", func(p idem.Policy) string {
		return either(p.CreatesOnly, "what creates a payment", "all that moves money") + either(p.LiveOnly, ", in live mode", "")
	}},
	{"another body gets", func(p idem.Policy) string { return either(p.IgnoreRetryBody, "the first answer", "422") }},
	{"another body, while the first is in flight", func(p idem.Policy) string { return either(p.MismatchFirst, "422", "409") }},
	{"a 409 in flight has `Retry-After`", func(p idem.Policy) string { return either(p.RetryAfter, "yes", "no") }},
	{"kept as the key's answer", func(p idem.Policy) string {
		return either(p.KeepErrors, "everything, once execution began", "2xx alone")
	}},
	{"a replay has", func(p idem.Policy) string { return saying(p.ReplayHeader) }},
	{"the first answer to another body has", func(p idem.Policy) string { return saying(p.MismatchHeader) }},
	{"the key is given back", func(p idem.Policy) string { return either(p.Echo, "yes", "no") }},
	{"kept for", func(p idem.Policy) string {
		return inHours(p.Retention) + either(p.ClientRetention, fmt.Sprintf(", or as `%s` says: at most %d days", idem.ExpirationHeader, idem.MaxRetention/(24*time.Hour)), "")
	}},
	{"errors", func(p idem.Policy) string {
		return map[apierr.Style]string{
			apierr.Envelope: "`code`, `messages`, `request_id`, `doc_url`", apierr.Nest: "`message`, `error`, `statusCode`", apierr.Problem: "`application/problem+json`",
		}[p.Errors]
	}},
}

func either(holds bool, yes, no string) string {
	if holds {
		return yes
	}
	return no
}

func saying(header string) string { return either(header != "", "`"+header+": true`", "nothing") }

// inHours writes a time as the pages do.
func inHours(d time.Duration) string {
	told := fmt.Sprintf("%d h", d/time.Hour)
	if d %= time.Hour; d > 0 {
		told += fmt.Sprintf(" %d min", d/time.Minute)
	}
	return told
}

// TestKnobsOnThePagesAreThoseOfTheCode: the concept has all of them; of those that the
// published specification repeats, none says anything else.
func TestKnobsOnThePagesAreThoseOfTheCode(t *testing.T) {
	t.Parallel()
	head := "| |"
	for _, name := range presets().Names() {
		head += " `" + name + "` |"
	}
	want, all := map[string][]string{}, []string{}
	for _, k := range knobs {
		cells := []string{k.name}
		for _, name := range presets().Names() {
			cells = append(cells, k.words(presets().Of(name)))
		}
		want[k.name], all = cells, append(all, k.name)
	}
	for _, page := range []string{idempotencyPage, specificationPage} {
		var told []string
		for _, cells := range tableOf(t, readPage(t, page), head) {
			told = append(told, cells[0])
			if !slices.Equal(cells, want[cells[0]]) {
				t.Errorf("%s says\n%q, want\n%q", page, cells, want[cells[0]])
			}
		}
		if page == idempotencyPage && !slices.Equal(told, all) {
			t.Errorf("%s has the knobs\n%q, want\n%q", page, told, all)
		}
	}
}

// TestProseOfThePagesIsTrue holds what the pages say in sentences, numbers and quotations
// above all, against the code.
func TestProseOfThePagesIsTrue(t *testing.T) {
	t.Parallel()
	longest := 1
	for idem.KeyOf(strings.Repeat("a", longest+1)) == strings.Repeat("a", longest+1) {
		longest++
	}
	kept := strings.Index(idem.KeyOf(strings.Repeat("a", longest+1)), "…")
	days := idem.MaxRetention / (24 * time.Hour)
	told := &run{policy: presets().Of("ietf"), by: byRequest, tx: Transaction{Nonce: "nonce-1"}}
	if keeps := "this one keeps its answer"; !strings.HasSuffix(told.again(), keeps) || !strings.HasSuffix(told.findOut(), keeps) {
		t.Errorf("what is kept is told with %q and %q", told.again(), told.findOut())
	}
	if longer := presets().Of("novu").Retention - idem.DefaultRetention; longer != time.Minute {
		t.Errorf("novu keeps answers for %s longer", longer)
	}
	verdict := lifeRow{
		ResponseStatus: new(http.StatusGatewayTimeout),
		Transaction: Transaction{
			Type: Purchase, Status: Succeeded, Currency: "USD", Amount: decimal.RequireFromString("45.67"), UpdatedAt: time.Date(2026, 11, 22, 2, 15, 23, 0, time.UTC),
		},
	}.verdict(nil, false)
	for page, sentences := range map[string][]string{
		idempotencyPage: {
			fmt.Sprintf("1 to %d visible ASCII characters without a comma", idem.MaxNonceLength),
			fmt.Sprintf("answer expires: %d hours after", idem.DefaultRetention/time.Hour),
			fmt.Sprintf("For `--retention` (%d hours), under `novu` a minute longer", idem.DefaultRetention/time.Hour),
			fmt.Sprintf("at least 1, and more than %d days is %[1]d days", days),
			fmt.Sprintf("Of a key with more than %d characters we keep the first %d, an ellipsis and its SHA-256", longest, kept),
			fmt.Sprintf("the headers of a request may have %d KiB together", httpapi.MaxHeader>>10),
			`"` + verdict + `"`, `"` + retrySame + `"`, `"this one keeps its answer"`,
		},
		specificationPage: {`"` + retrySame + `"`, `"this one keeps its answer"`, "Idempotent-Replayed: true"},
		stripePage:        {fmt.Sprintf("%d under `yuno`", idem.MaxNonceLength), fmt.Sprintf("%d hours, and again from the answer", idem.DefaultRetention/time.Hour)},
	} {
		text := strings.Join(strings.Fields(readPage(t, page)), " ")
		for _, sentence := range sentences {
			if !strings.Contains(text, sentence) {
				t.Errorf("%s does not say: %s", page, sentence)
			}
		}
	}
}

// TestErrorsOfTheSpecificationAreThoseOfKeys: all that can be wrong with a key, as ietf
// tells it.
func TestErrorsOfTheSpecificationAreThoseOfKeys(t *testing.T) {
	t.Parallel()
	want := [][3]string{}
	for _, e := range []struct {
		title string
		code  apierr.Code
	}{
		{idem.TitleMissing, apierr.MissingParameters}, {idem.TitleMalformed, apierr.InvalidParameters},
		{idem.TitleInFlight, apierr.RequestInProcess}, {idem.TitleReused, apierr.IdempotencyKeyReused},
	} {
		want = append(want, [3]string{
			strconv.Itoa(apierr.New(e.code).Status), e.title, fmt.Sprintf("[`%s`](../errors.md#%s)", e.code, strings.ToLower(string(e.code))),
		})
	}
	var told [][3]string
	for _, cells := range tableOf(t, readPage(t, specificationPage), "| status | title | code | what to do |") {
		told = append(told, [3]string{cells[0], cells[1], cells[2]})
	}
	if !slices.Equal(told, want) {
		t.Errorf("the specification has the errors\n%q, want\n%q", told, want)
	}
}
