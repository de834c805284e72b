package oncepay

import (
	"context"
	"errors"
	"net/http"
	"net/url"
)

// NonceLives is what has become of a nonce, as LookupNonce found it.
type NonceLives struct {
	Meta `json:"-"`

	Nonce string `json:"nonce"`
	// Lives are the newest first, at most 20.
	Lives []Life `json:"lives"`
}

// Life is one life of a nonce: from the request that claimed it until its answer expired,
// or it was released. Meta.Raw of the look-up has its timeline.
type Life struct {
	Mode string `json:"mode"` // test or live
	// KeyState is open, unresolved, parked, answered, released or expired. The last two
	// say that the nonce is free.
	KeyState string `json:"key_state"`
	// AnswerStatus is the HTTP status that a retry gets; nil: there is no answer.
	AnswerStatus *int   `json:"answer_status"`
	PaymentID    string `json:"payment_id"`
	Transaction  struct {
		ID     string `json:"id"`
		Type   string `json:"type"`
		Status string `json:"status"`
	} `json:"transaction"`
	// Charges is how many charges, authorizations or captures it is known to have made.
	Charges int `json:"charges"`
	// Verdict is what happened, for people.
	Verdict string `json:"verdict"`
}

// LookupNonce asks what became of a nonce, without changing anything. No lives means that
// nothing has begun under it up to now, and no error. It does not prove that nothing will:
// a request may still be on its way. To make sure, try the operation again.
func (c *Client) LookupNonce(ctx context.Context, nonce string) (*NonceLives, error) {
	r := call{what: "look up nonce", method: http.MethodGet, path: "/v1/idempotency-keys", query: url.Values{"nonce": {nonce}}}
	if !isNonce(nonce) {
		r.wrong = ErrNonce
	}
	var found *NonceLives
	m, err := c.do(ctx, r, func(a answer) error {
		found = &NonceLives{}
		if err := decode(a.body, found); err != nil {
			return err
		}
		if found.Nonce != nonce || len(found.Lives) == 0 {
			return errAnswer
		}
		return nil
	})
	var e *Error
	if errors.As(err, &e) && e.Code == CodeNotFound {
		return &NonceLives{Nonce: nonce, Meta: Meta{RequestID: e.RequestID}}, nil
	}
	if err != nil {
		return nil, err
	}
	found.Meta = m
	return found, nil
}
