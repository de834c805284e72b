package sandbox

import (
	"net/http"
	"unicode/utf8"

	"github.com/oncepay/oncepay/internal/providers"
)

type operationRequest struct {
	order
	Target      string `json:"target"`
	Amount      string `json:"amount"`
	Currency    string `json:"currency"`
	Description string `json:"description"`
	CallbackURL string `json:"callback_url,omitempty"`
}

// operation is one kind of operation.
type operation struct {
	path string
	kind providers.OperationKind
	name string // in the ledger
}

var operations = []operation{
	{"/sandbox/v1/captures", providers.Capture, typeCapture},
	{"/sandbox/v1/cancels", providers.Cancel, typeCancel},
	{"/sandbox/v1/refunds", providers.Refund, typeRefund},
}

// postOperation is the handler of one kind of operation.
func (s *Server) postOperation(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q operationRequest
		if !s.read(w, r, &q) {
			return
		}
		s.perform(w, r, q.order, q.problem(), name, func(h *hold) (answer, error) { return s.operate(h, name, &q) })
	}
}

// operate decides about an operation whose reference is unknown.
func (s *Server) operate(h *hold, name string, q *operationRequest) (answer, error) {
	f, faulty, problem := parseFault(q.Description)
	if f.verdict == thenChallenge {
		problem = "a challenge is for charges only"
	}
	if problem != "" {
		return refused(q.Reference, "description: "+problem), nil
	}
	b := booking{order: q.MerchantOrderID, kind: name, amount: q.Amount, currency: q.Currency, target: q.Target, callbackURL: q.CallbackURL}
	if h.firstSend(q.MerchantOrderID, name) && faulty {
		return s.misbehave(h, b, f)
	}
	b.responseCode = truth("", q.Description)
	st, err := h.settle(b)
	return about(q.Reference, st), err
}

func (q *operationRequest) problem() string {
	if p := q.order.problem(); p != "" {
		return p
	}
	if p := q.orderProblem(); p != "" {
		return p
	}
	switch {
	case !validID(q.Target):
		return "target: must be 1 to 64 visible ASCII characters"
	case !positive(q.Amount):
		return "amount: must be a positive decimal string with at most 4 places, at most 9999999999.9999"
	case !currencyForm.MatchString(q.Currency):
		return "currency: must be three capital letters"
	case utf8.RuneCountInString(q.Description) > maxTextLength:
		return "description: must be at most 255 characters"
	}
	return callbackProblem(q.CallbackURL)
}
