package oncepay

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"
)

// The workflows of a checkout session.
const (
	// WorkflowCheckout: the browser makes a one-time token, and the backend pays with it.
	WorkflowCheckout = "SDK_CHECKOUT"
	// WorkflowSeamless: the browser pays, what the session says.
	WorkflowSeamless = "SDK_SEAMLESS"
)

// CheckoutSessionParams are what CreateCheckoutSession asks for.
type CheckoutSessionParams struct {
	AccountID          string `json:"account_id,omitempty"` // "" is the client's (WithAccount)
	MerchantOrderID    string `json:"merchant_order_id,omitempty"`
	PaymentDescription string `json:"payment_description,omitempty"`
	Country            string `json:"country,omitempty"` // ISO 3166-1 alpha-2
	Amount             Amount `json:"amount"`
	// Workflow is WorkflowCheckout if it is left out.
	Workflow    string      `json:"workflow,omitempty"`
	CustomerID  string      `json:"customer_id,omitempty"`
	CallbackURL string      `json:"callback_url,omitempty"` // where the payer goes afterwards
	Metadata    []Metadatum `json:"metadata,omitempty"`
}

// CheckoutSession is what is to be paid, for a browser. It has one payment at most that is
// under way, pending or successful, whatever nonces are used, and ends after 5 hours.
type CheckoutSession struct {
	Meta

	ID                 string
	MerchantOrderID    string
	PaymentDescription string
	Country            string
	Amount             Amount
	Workflow           string
	CustomerID         string
	CallbackURL        string
	Metadata           []Metadatum
	// Used says that it has a payment. It is told by GetCheckoutSession only.
	Used                 bool
	CreatedAt, ExpiresAt time.Time
}

// CreateCheckoutSession makes a session. It moves no money; with the operation's nonce a
// retry gets the same session.
func (c *Client) CreateCheckoutSession(ctx context.Context, op *Operation, p CheckoutSessionParams) (*CheckoutSession, error) {
	p.AccountID = c.accountOr(p.AccountID)
	return c.session(ctx, call{what: "create checkout session", method: http.MethodPost, path: "/v1/checkout/sessions", op: op, body: p})
}

// GetCheckoutSession reads a session. One that there is not, or not any more, is an *Error
// with CodeCheckoutSessionNotFound.
func (c *Client) GetCheckoutSession(ctx context.Context, id string) (*CheckoutSession, error) {
	return c.session(ctx, call{
		what: "get checkout session", method: http.MethodGet, path: "/v1/checkout/sessions/" + url.PathEscape(id), wrong: notID(id),
	})
}

// GetCheckoutPayment reads the payment of a session: the one that holds it, else the
// latest. None yet is an *Error with CodePaymentNotFound.
func (c *Client) GetCheckoutPayment(ctx context.Context, sessionID string) (*Payment, error) {
	return c.payment(ctx, call{
		what: "get checkout payment", method: http.MethodGet, path: "/v1/checkout/sessions/" + url.PathEscape(sessionID) + "/payment", wrong: notID(sessionID),
	})
}

// session calls what answers with a session.
func (c *Client) session(ctx context.Context, r call) (*CheckoutSession, error) {
	var s *CheckoutSession
	m, err := c.do(ctx, r, func(a answer) error {
		s = &CheckoutSession{}
		return decode(a.body, s)
	})
	if err != nil {
		return nil, err
	}
	s.Meta = m
	return s, nil
}

// UnmarshalJSON reads a session. Its id is called checkout_session where it is made, and id
// where it is read.
func (s *CheckoutSession) UnmarshalJSON(text []byte) error {
	var wire struct {
		CheckoutSession    string      `json:"checkout_session"`
		ID                 string      `json:"id"`
		MerchantOrderID    string      `json:"merchant_order_id"`
		PaymentDescription string      `json:"payment_description"`
		Country            string      `json:"country"`
		Amount             Amount      `json:"amount"`
		Workflow           string      `json:"workflow"`
		CustomerID         string      `json:"customer_id"`
		CallbackURL        string      `json:"callback_url"`
		Metadata           []Metadatum `json:"metadata"`
		Used               bool        `json:"used"`
		CreatedAt          time.Time   `json:"created_at"`
		ExpiresAt          time.Time   `json:"expires_at"`
	}
	if err := json.Unmarshal(text, &wire); err != nil {
		return err
	}
	if wire.ID == "" {
		wire.ID = wire.CheckoutSession
	}
	if err := notID(wire.ID); err != nil {
		return err
	}
	*s = CheckoutSession{
		ID: wire.ID, MerchantOrderID: wire.MerchantOrderID, PaymentDescription: wire.PaymentDescription, Country: wire.Country,
		Amount: wire.Amount, Workflow: wire.Workflow, CustomerID: wire.CustomerID, CallbackURL: wire.CallbackURL,
		Metadata: wire.Metadata, Used: wire.Used, CreatedAt: wire.CreatedAt, ExpiresAt: wire.ExpiresAt,
	}
	return nil
}
