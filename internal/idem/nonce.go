// Package idem knows what an idempotency key is: how a nonce is written, what a
// policy does with it, how two requests are compared, what each request with a
// nonce met, and when a life's record may go. It knows no transactions.
package idem

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"
	"github.com/google/uuid"

	"github.com/oncepay/oncepay/internal/apierr"
)

const (
	// Header is where merchants put the nonce.
	Header = "X-Idempotency-Key"
	// AliasHeader is the name that the standard draft gives it.
	AliasHeader = "Idempotency-Key"
	// ExpirationHeader is where a client says for how long its nonce's answer is kept,
	// in seconds, under a policy that lets it.
	ExpirationHeader = "X-Idempotency-Expiration"

	// MaxNonceLength is in bytes, which are characters, because only visible ASCII
	// is allowed. The contract's number.
	MaxNonceLength = 64
	// maxLongNonce is the same where clients were promised more: by novu, and by what
	// we publish of ietf.
	maxLongNonce = 255

	// maxKept is the longest nonce that is kept as it is, in bytes: an index cannot hold
	// one of any length.
	maxKept = 255
	// keptBeginning is how much of a longer one is kept beside its digest, so that a
	// person recognises it.
	keptBeginning = 64
	// unlike stands in what is kept for a nonce that is not kept as it is. No nonce has
	// it: it is no ASCII.
	unlike = "…"
)

// Titles of what can be wrong with a nonce, as the standard draft words them.
const (
	TitleMissing   = "Idempotency-Key is missing"
	TitleMalformed = "Idempotency-Key is malformed"
	TitleReused    = "Idempotency-Key is already used"
	TitleInFlight  = "A request is outstanding for this Idempotency-Key"
)

// Key is what a request says of its nonce.
type Key struct {
	// Nonce identifies the life: see KeyOf. That of a request without a nonce is one
	// that no request can ever repeat.
	Nonce string
	// Sent is the header's value as it came; "": the request has no nonce, or none that
	// counts, and runs unprotected.
	Sent string
	// Retention is how long the answer is kept, if this request begins the life.
	Retention time.Duration
}

// Protected says whether the request can be repeated.
func (k Key) Protected() bool { return k.Sent != "" }

// KeyOf is what is kept of a nonce: itself, or, of one that is too long to be kept, its
// beginning and its SHA-256.
func KeyOf(nonce string) string {
	if len(nonce) <= maxKept {
		return nonce
	}
	sum := sha256.Sum256([]byte(nonce))
	return nonce[:keptBeginning] + unlike + hex.EncodeToString(sum[:])
}

// unrepeatable is a nonce for a request without one: no client can send it.
func unrepeatable() string { return unlike + uuid.Must(uuid.NewV7()).String() }

// WasSent says whether what is kept as a nonce was one that a client sent.
func WasSent(kept string) bool { return !strings.HasPrefix(kept, unlike) }

// Key reads the nonce of a request to a route that takes one. Where the policy does not
// count it, it is as if there were none. It fails with MISSING_PARAMETERS or
// INVALID_PARAMETERS.
func (p Policy) Key(h http.Header, r Route, live bool) (Key, error) {
	none := Key{Nonce: unrepeatable(), Retention: p.Retention}
	if !p.Covers(r, live) {
		return none, nil
	}
	var nonce, sent, from string
	for _, name := range p.Headers {
		also, raw, err := p.nonceIn(h, name)
		switch {
		case err != nil:
			return Key{}, err
		case raw == "":
		case sent != "" && also != nonce:
			return Key{}, apierr.New(apierr.InvalidParameters, from+" and "+name+" must be equal when both are sent").AboutKey(TitleMalformed)
		default:
			nonce, sent, from = also, raw, name
		}
	}
	switch {
	case sent != "":
	case p.Required && r.MovesMoney:
		return Key{}, apierr.New(apierr.MissingParameters, p.Headers[0]+" is required").AboutKey(TitleMissing)
	case sends(h, p.Headers...):
		// A client that sends one, however empty, wants to be protected.
		return Key{}, apierr.New(apierr.InvalidParameters, p.Headers[0]+" must not be empty").AboutKey(TitleMalformed)
	case sends(h, Header, AliasHeader):
		// So does one that has not heard of its merchant's new policy. Unprotected, its
		// retry would pay again.
		return Key{}, apierr.New(apierr.InvalidParameters, p.Headers[0]+" is the header that is read; no other may be sent in its place").AboutKey(TitleMalformed)
	default:
		return none, nil
	}
	retention, err := p.retention(h)
	if err != nil {
		return Key{}, err
	}
	return Key{Nonce: KeyOf(nonce), Sent: sent, Retention: retention}, nil
}

func sends(h http.Header, names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return len(h.Values(name)) > 0 })
}

// retention is how long a client wants its answer to be kept.
func (p Policy) retention(h http.Header) (time.Duration, error) {
	lines := h.Values(ExpirationHeader)
	if !p.ClientRetention || len(lines) == 0 {
		return p.Retention, nil
	}
	said := strings.Trim(lines[0], " \t")
	if len(lines) > 1 || said == "" || strings.Trim(said, "0123456789") != "" || strings.Trim(said, "0") == "" {
		return 0, apierr.New(apierr.InvalidParameters, ExpirationHeader+" must be a whole number of seconds, at least 1, and be sent once")
	}
	const most = int(MaxRetention / time.Second)
	seconds, err := strconv.Atoi(said)
	if err != nil || seconds > most { // digits alone, so it can only be too large
		seconds = most
	}
	return time.Duration(seconds) * time.Second, nil
}

// nonceIn reads one header: the nonce, and how it was sent.
func (p Policy) nonceIn(h http.Header, name string) (nonce, sent string, err error) {
	lines := h.Values(name)
	if len(lines) == 0 {
		return "", "", nil
	}
	malformed := func(rule string) error {
		return apierr.New(apierr.InvalidParameters, name+" "+rule).AboutKey(TitleMalformed)
	}
	if len(lines) > 1 {
		return "", "", malformed("must be sent once")
	}
	if sent = strings.Trim(lines[0], " \t"); sent == "" {
		return "", "", nil
	}
	nonce, format := sent, p.Format
	if format == QuotedOrBare {
		format = Visible
		if sent[0] == '"' {
			format = Quoted
		}
	}
	if format == Quoted {
		var ok bool
		if nonce, ok = unquoted(sent); !ok {
			return "", "", malformed(`must be a string of RFC 9651, such as "8e03978e-40d5-43dd-bc93-6894a57f9324", with its quotes`)
		}
	}
	if p.MaxLength > 0 && len(nonce) > p.MaxLength {
		return "", "", malformed(fmt.Sprintf("must have at most %d characters", p.MaxLength))
	}
	if rule := format.brokenBy(nonce); rule != "" {
		return "", "", malformed(rule)
	}
	return nonce, sent, nil
}

// unquoted reads a string of RFC 9651. Its parameters mean nothing here and are ignored,
// as that RFC wants it.
func unquoted(sent string) (string, bool) {
	item, err := httpsfv.UnmarshalItem([]string{sent})
	if err != nil {
		return "", false
	}
	s, ok := item.Value.(string)
	return s, ok
}

// brokenBy is the rule that a nonce breaks; "": none.
func (f Format) brokenBy(nonce string) string {
	if nonce == "" {
		return "must not be empty"
	}
	least, most := byte(0x20), byte(0x7e)
	rule := "must have only printable ASCII characters"
	if f == Visible {
		least, rule = 0x21, "must have only visible ASCII characters without a comma"
	}
	for i := range len(nonce) {
		// Of Visible, a comma could be two headers that some proxy has joined.
		if c := nonce[i]; c < least || c > most || f == Visible && c == ',' {
			return rule
		}
	}
	return ""
}

// ValidNonce says whether a nonce that did not come in a header could have, under some
// policy.
func ValidNonce(nonce string) bool { return Printable.brokenBy(nonce) == "" }
