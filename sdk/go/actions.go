package oncepay

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// CaptureParams are what Capture asks for.
type CaptureParams struct {
	MerchantReference string
	Description       string
	Reason            string // PRODUCT_CONFIRMED or REQUESTED_BY_CUSTOMER
	Amount            Amount
	AdditionalData    any // encoded as a JSON object
}

// CancelParams are what Cancel asks for.
type CancelParams struct {
	MerchantReference string
	Description       string
	Reason            string // "", DUPLICATE, FRAUDULENT or REQUESTED_BY_CUSTOMER
	AdditionalData    any    // encoded as a JSON object
}

// RefundParams are what Refund asks for.
type RefundParams struct {
	MerchantReference string
	Description       string
	Reason            string  // as CancelParams.Reason, or REVERSE
	Amount            *Amount // nil is all that is left
	AdditionalData    any     // encoded as a JSON object
}

// CancelOrRefundParams are what CancelOrRefund asks for.
type CancelOrRefundParams struct {
	// TransactionID is the transaction that is to be undone; "" leaves it to the API.
	TransactionID     string
	MerchantReference string
	Description       string
	Reason            string  // DUPLICATE, FRAUDULENT, REQUESTED_BY_CUSTOMER or REVERSE
	Amount            *Amount // nil is all that is left
	AdditionalData    any     // encoded as a JSON object
}

// Action is a capture, a cancellation, or what a CancelOrRefund was, with the payment as it
// was then. Meta.Raw has the rest of its members.
type Action struct {
	Meta `json:"-"`

	ID                string        `json:"id"`
	Type              string        `json:"type"`   // CAPTURE, CANCEL or REFUND
	Status            string        `json:"status"` // such as SUCCEEDED, PENDING, DECLINED
	Amount            Amount        `json:"amount"`
	MerchantReference string        `json:"merchant_reference"`
	Description       string        `json:"description"`
	ResponseCode      string        `json:"response_code"`
	ResponseMessage   string        `json:"response_message"`
	Payment           ActionPayment `json:"payment"`
	IdempotencyKey    string        `json:"idempotency_key"`
	CreatedAt         time.Time     `json:"created_at"`
}

// ActionPayment is the payment that was acted on.
type ActionPayment struct {
	ID              string        `json:"id"`
	Status          string        `json:"status"`
	SubStatus       string        `json:"sub_status"`
	MerchantOrderID string        `json:"merchant_order_id"`
	Amount          PaymentAmount `json:"amount"`
	Version         int64         `json:"version"`
}

// wireAction is the request of an action.
type wireAction struct {
	MerchantReference string  `json:"merchant_reference,omitempty"`
	Description       string  `json:"description,omitempty"`
	Reason            string  `json:"reason,omitempty"`
	Amount            *Amount `json:"amount,omitempty"`
	AdditionalData    any     `json:"additional_data,omitempty"`
}

// Capture takes an amount of what the transaction, an AUTHORIZE, has reserved.
func (c *Client) Capture(ctx context.Context, op *Operation, paymentID, transactionID string, p CaptureParams) (*Action, error) {
	return c.action(ctx, actionCall("capture", op, paymentID, transactionID, wireAction{
		p.MerchantReference, p.Description, p.Reason, &p.Amount, p.AdditionalData,
	}))
}

// Cancel gives up the transaction, an AUTHORIZE of which nothing was captured.
func (c *Client) Cancel(ctx context.Context, op *Operation, paymentID, transactionID string, p CancelParams) (*Action, error) {
	return c.action(ctx, actionCall("cancel", op, paymentID, transactionID, wireAction{
		p.MerchantReference, p.Description, p.Reason, nil, p.AdditionalData,
	}))
}

// Refund gives back what the transaction, a PURCHASE or a CAPTURE, has taken, or a part of
// it. The payment's only transaction is the refund.
func (c *Client) Refund(ctx context.Context, op *Operation, paymentID, transactionID string, p RefundParams) (*Payment, error) {
	return c.payment(ctx, actionCall("refund", op, paymentID, transactionID, wireAction(p)))
}

// CancelOrRefund cancels where nothing has been captured yet, and refunds otherwise. The
// action's Type says which it was.
func (c *Client) CancelOrRefund(ctx context.Context, op *Operation, paymentID string, p CancelOrRefundParams) (*Action, error) {
	return c.action(ctx, actionCall("cancel-or-refund", op, paymentID, p.TransactionID, wireAction{
		p.MerchantReference, p.Description, p.Reason, p.Amount, p.AdditionalData,
	}))
}

// actionCall asks for route of a payment's transaction, or of a payment as a whole.
func actionCall(route string, op *Operation, paymentID, transactionID string, body wireAction) call {
	r := call{what: route, method: http.MethodPost, op: op, body: body, wrong: notID(paymentID)}
	r.path = "/v1/payments/" + url.PathEscape(paymentID)
	if transactionID != "" || route != "cancel-or-refund" {
		r.path += "/transactions/" + url.PathEscape(transactionID)
		r.wrong = notID(paymentID, transactionID)
	}
	r.path += "/" + route
	return r
}

// action calls what answers with an action.
func (c *Client) action(ctx context.Context, r call) (*Action, error) {
	var done *Action
	m, err := c.do(ctx, r, func(a answer) error {
		done = &Action{}
		if err := decode(a.body, done); err != nil {
			return err
		}
		return done.check()
	})
	if err != nil {
		return nil, err
	}
	done.Meta = m
	return done, nil
}

// check refuses what is JSON, and no action.
func (a *Action) check() error {
	p := a.Payment
	if notID(a.ID, p.ID) != nil || a.Status == "" || !writable(p.Amount.Value) || !writable(p.Amount.Captured) || !writable(p.Amount.Refunded) {
		return errAnswer
	}
	return nil
}
