package sandbox

import (
	"net/http"
	"strings"
	"unicode/utf8"
)

type cardFields struct {
	Number          string `json:"number"`
	SecurityCode    string `json:"security_code"`
	HolderName      string `json:"holder_name"`
	ExpirationMonth int    `json:"expiration_month"`
	ExpirationYear  int    `json:"expiration_year"`
}

type chargeRequest struct {
	order
	Amount      string      `json:"amount"`
	Currency    string      `json:"currency"`
	Country     string      `json:"country"`
	Description string      `json:"description"`
	Capture     *bool       `json:"capture"`
	Verify      bool        `json:"verify,omitempty"`
	ReturnURL   string      `json:"return_url,omitempty"`
	CallbackURL string      `json:"callback_url,omitempty"`
	Card        *cardFields `json:"card,omitempty"`
	Token       string      `json:"token,omitempty"`
}

func (s *Server) postCharge(w http.ResponseWriter, r *http.Request) {
	var q chargeRequest
	if !s.read(w, r, &q) {
		return
	}
	s.perform(w, r, q.order, q.problem(), typePurchase, func(h *hold) (answer, error) { return s.charge(h, &q) })
}

// charge decides about a charge whose reference is unknown.
func (s *Server) charge(h *hold, q *chargeRequest) (answer, error) {
	f, faulty, problem := parseFault(q.Description)
	if problem != "" {
		return refused(q.Reference, "description: "+problem), nil
	}
	code, problem := s.cardCode(q)
	if problem != "" {
		return refused(q.Reference, problem), nil
	}
	b := q.booking()
	if h.firstSend(q.MerchantOrderID, b.kind) && faulty {
		return s.misbehave(h, b, f)
	}
	if code == codeChallenge {
		st, err := s.pend(h, b, challengeFault)
		return about(q.Reference, st), err
	}
	b.responseCode = truth(code, q.Description)
	st, err := h.settle(b)
	return about(q.Reference, st), err
}

// cardCode is the response code of the charge's card, which may stand behind a
// token.
func (s *Server) cardCode(q *chargeRequest) (code, problem string) {
	if q.Card != nil {
		return cardCode(q.Card.Number), ""
	}
	code, ok := s.ledger.token(q.Token)
	if !ok {
		return "", "token: is not known"
	}
	return code, ""
}

// kind is the charge's type in the ledger.
func (q *chargeRequest) kind() string {
	switch {
	case q.Verify:
		return typeVerify
	case *q.Capture:
		return typePurchase
	}
	return typeAuthorize
}

// booking is what the charge wants booked.
func (q *chargeRequest) booking() booking {
	return booking{order: q.MerchantOrderID, kind: q.kind(), amount: q.Amount, currency: q.Currency,
		callbackURL: q.CallbackURL, returnURL: q.ReturnURL}
}

func (q *chargeRequest) problem() string {
	if p := q.order.problem(); p != "" {
		return p
	}
	if p := q.orderProblem(); p != "" {
		return p
	}
	switch {
	case q.Verify && (!amountForm.MatchString(q.Amount) || positive(q.Amount)):
		return "amount: must be zero for a verification"
	case !q.Verify && !positive(q.Amount):
		return "amount: must be a positive decimal string with at most 4 places, at most 9999999999.9999"
	case !currencyForm.MatchString(q.Currency):
		return "currency: must be three capital letters"
	case !countryForm.MatchString(q.Country):
		return "country: must be two capital letters"
	case !validText(q.Description):
		return "description: must be 1 to 255 characters"
	case q.Capture == nil:
		return "capture: must be true or false"
	case utf8.RuneCountInString(q.ReturnURL) > maxURLLength:
		return "return_url: must be at most 526 characters"
	case (q.Card == nil) == (q.Token == ""):
		return "card: either a card or a token must be given"
	}
	if p := callbackProblem(q.CallbackURL); p != "" || q.Card == nil {
		return p
	}
	return q.Card.problem()
}

func (c *cardFields) problem() string {
	switch {
	case !numberForm.MatchString(c.Number):
		return "card.number: must be 12 to 19 digits"
	case !codeForm.MatchString(c.SecurityCode):
		return "card.security_code: must be 3 or 4 digits, or empty"
	case utf8.RuneCountInString(c.HolderName) > maxTextLength:
		return "card.holder_name: must be at most 255 characters"
	case c.ExpirationMonth < 1 || c.ExpirationMonth > 12:
		return "card.expiration_month: must be 1 to 12"
	case c.ExpirationYear < 2000 || c.ExpirationYear > 2099:
		return "card.expiration_year: must be a year of four digits"
	}
	return ""
}

func callbackProblem(address string) string {
	if address != "" && !validCallbackURL(address) {
		return "callback_url: must be an absolute http(s) URL of at most 526 visible ASCII characters, without a user"
	}
	return ""
}

// positive says whether an amount is one, and above zero.
func positive(amount string) bool {
	return amountForm.MatchString(amount) && strings.Trim(amount, "0.") != ""
}
