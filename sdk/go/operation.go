package oncepay

import (
	"errors"
	"strings"
	"sync/atomic"

	"github.com/google/uuid"
)

// maxNonce is the API's limit on a nonce, in characters.
const maxNonce = 64

// ErrNonce is returned for a nonce that the API would not take.
var ErrNonce = errors.New("oncepay: a nonce must be 1 to 64 visible ASCII characters without a comma")

// Operation is one thing that is to happen at most once: one payment, one capture, one
// refund. It has one nonce, with which every request for it is sent. Use it for one thing
// only, with the same parameters each time, and make another for the next thing.
//
// The API keeps a nonce for 24 hours after its answer, and for as long as its outcome is
// open. Who comes back later asks LookupNonce first: then the nonce is free, and using it
// pays again.
//
// An Operation is safe for concurrent use.
type Operation struct {
	nonce string
	// open says that something may have come of it which nobody was told.
	open atomic.Bool
}

// NewOperation has a new, random nonce.
func NewOperation() *Operation { return &Operation{nonce: uuid.NewString()} }

// OperationWithNonce is the operation that was stored under this nonce, perhaps by a
// process which has ended since. What became of it is taken to be unknown until the API
// answers. It fails with ErrNonce.
func OperationWithNonce(nonce string) (*Operation, error) {
	if !isNonce(nonce) {
		return nil, ErrNonce
	}
	op := &Operation{nonce: nonce}
	op.open.Store(true)
	return op, nil
}

func isNonce(s string) bool {
	return s != "" && len(s) <= maxNonce && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == ',' })
}

// Nonce is what to store before the first call.
func (o *Operation) Nonce() string { return o.nonce }
