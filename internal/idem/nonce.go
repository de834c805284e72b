// Package idem knows what an idempotency key is: how a nonce is written, what a
// policy does with it, how two requests are compared, what each request with a
// nonce met, and when a life's record may go. It knows no transactions.
package idem

import (
	"net/http"
	"strings"

	"github.com/oncepay/oncepay/internal/apierr"
)

const (
	// Header is where merchants put the nonce.
	Header = "X-Idempotency-Key"
	// AliasHeader is the name that the standard draft gives it.
	AliasHeader = "Idempotency-Key"

	// MaxNonceLength is in bytes, which are characters, because only visible ASCII
	// is allowed. The contract's number.
	MaxNonceLength = 64
)

// NonceFrom reads the request's nonce. A nonce is 1 to 64 visible ASCII
// characters without a comma, on exactly one header line. It fails with
// MISSING_PARAMETERS or INVALID_PARAMETERS.
func NonceFrom(h http.Header) (string, error) {
	nonce, err := nonceIn(h, Header)
	if err != nil {
		return "", err
	}
	alias, err := nonceIn(h, AliasHeader)
	if err != nil {
		return "", err
	}
	switch {
	case nonce == "" && alias == "":
		return "", apierr.New(apierr.MissingParameters, Header+" is required")
	case nonce == "":
		return alias, nil
	case alias != "" && alias != nonce:
		return "", apierr.New(apierr.InvalidParameters, Header+" and "+AliasHeader+" must be equal when both are sent")
	}
	return nonce, nil
}

func nonceIn(h http.Header, name string) (string, error) {
	lines := h.Values(name)
	if len(lines) == 0 {
		return "", nil
	}
	if len(lines) > 1 {
		return "", apierr.New(apierr.InvalidParameters, name+" must be sent once")
	}
	nonce := strings.Trim(lines[0], " \t")
	if nonce == "" {
		return "", nil
	}
	if rule := brokenRule(nonce); rule != "" {
		return "", apierr.New(apierr.InvalidParameters, name+" "+rule)
	}
	return nonce, nil
}

// ValidNonce says whether a nonce that did not come in a header could have.
func ValidNonce(nonce string) bool { return nonce != "" && brokenRule(nonce) == "" }

func brokenRule(nonce string) string {
	if len(nonce) > MaxNonceLength {
		return "must have at most 64 characters"
	}
	for i := range len(nonce) {
		// A comma could be two headers that some proxy has joined.
		if c := nonce[i]; c < 0x21 || c > 0x7e || c == ',' {
			return "must have only visible ASCII characters without a comma"
		}
	}
	return ""
}
