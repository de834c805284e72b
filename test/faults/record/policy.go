package record

import "net/http"

// Policy is what a merchant's clients know of an idempotency policy: how they speak, and
// what they may rely on. It is said here once more, by what is published of each, and not
// taken from the product, so that a slip there is seen.
type Policy struct {
	Name string
	// Header is where the nonce stands; Quoted says that it is a string of RFC 9651.
	Header string
	Quoted bool
	// Live says that nonces count in live mode alone, and CreatesOnly that they count
	// where a payment is made, and not where something is done with one.
	Live, CreatesOnly bool
	// KeepsErrors says that an error is the nonce's answer, once execution began.
	KeepsErrors bool
	// OneBody says that another body is refused. Else it gets the first one's answer.
	OneBody bool
	// ReplayHeader says "true" with what was told before; "": nothing does.
	ReplayHeader string
}

// Policies are all of them, the default first.
var Policies = []Policy{
	{Name: "yuno", Header: "X-Idempotency-Key", ReplayHeader: "Idempotent-Replayed"},
	{Name: "novu", Header: "Idempotency-Key", KeepsErrors: true, OneBody: true, ReplayHeader: "Idempotency-Replay"},
	{Name: "fyno", Header: "Idempotency-Key", Live: true, CreatesOnly: true, KeepsErrors: true},
	{Name: "ietf", Header: "Idempotency-Key", Quoted: true, KeepsErrors: true, OneBody: true, ReplayHeader: "Idempotent-Replayed"},
}

// PolicyNamed finds a policy.
func PolicyNamed(name string) (Policy, bool) {
	for _, p := range Policies {
		if p.Name == name {
			return p, true
		}
	}
	return Policy{}, false
}

// Key is the header with which a client sends a nonce.
func (p Policy) Key(nonce string) http.Header {
	if p.Quoted {
		nonce = `"` + nonce + `"`
	}
	h := http.Header{}
	h.Set(p.Header, nonce)
	return h
}

// Replays says whether an answer says that it was told before.
func (p Policy) Replays(h http.Header) bool {
	return p.ReplayHeader != "" && h.Get(p.ReplayHeader) == "true"
}

// For is the policy that holds for o: browsers keep to the default one, whatever their
// merchant's backend knows.
func (p Policy) For(o Op) Policy {
	if o.Browser {
		return Policies[0]
	}
	return p
}

// Keeps says whether o was told an error that is its nonce's answer from then on. One
// that was told before is; and so is one that says nothing of coming back, of a kind of
// which it would otherwise say so. What concerns the request and not its execution never
// is: another body, another one in flight, credentials, too many. Nor is the refusal of
// an action, which a payment's state may not allow, or of a payment whose session or token
// may be taken, unless it is told again.
func (p Policy) Keeps(o Op) bool {
	if !p.KeepsErrors || !o.Moves() || o.Failed {
		return false
	}
	switch o.Status {
	case http.StatusBadRequest:
		return o.Replayed || o.Kind == Pay && !o.ComeBack && o.Session == "" && o.Token == ""
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return o.Replayed || !o.ComeBack
	case http.StatusUnauthorized, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusTooManyRequests:
		return false
	}
	return o.Status >= http.StatusBadRequest && o.Replayed
}

// Answers says whether o was told its nonce's answer, whatever that is.
func (p Policy) Answers(o Op) bool { return o.Told() || p.Keeps(o) }
