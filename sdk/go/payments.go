package oncepay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"
)

// PaymentParams are what CreatePayment asks for. The API's reference says what each member
// may be.
type PaymentParams struct {
	AccountID         string // "" is the client's (WithAccount)
	MerchantOrderID   string
	MerchantReference string
	Description       string
	Country           string // ISO 3166-1 alpha-2
	Amount            Amount
	// Workflow may be left out: it is SDK_CHECKOUT with a checkout session, else DIRECT.
	Workflow string
	// CheckoutSession is the session that the payment is for.
	CheckoutSession string
	PaymentMethod   PaymentMethod
	// CustomerPayer and AdditionalData are encoded as JSON objects. They are kept and given
	// back, and not looked into: no cards in them.
	CustomerPayer, AdditionalData any
	CallbackURL                   string
	Metadata                      []Metadatum
}

// PaymentMethod is what is paid with: one of VaultedToken, Token and Card.
type PaymentMethod struct {
	Type           string // "" is CARD
	Token          string // a one-time token
	VaultedToken   string // a card that the customer keeps with the merchant
	VaultOnSuccess bool   // keep the token's card, if it pays
	Card           *Card
	// AuthorizeOnly reserves the amount, to be captured later.
	AuthorizeOnly bool
	// Verify asks whether the card could be charged. The amount has to be 0.
	Verify         bool
	Installments   int // 0 is 1
	SoftDescriptor string
}

// Metadatum is a pair of the merchant's own.
type Metadatum struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Payment is a payment, as the answer shows it that it came with. Meta.Raw has the rest of
// its members.
type Payment struct {
	Meta `json:"-"`

	ID                string        `json:"id"`
	AccountID         string        `json:"account_id"`
	Status            string        `json:"status"`     // such as SUCCEEDED, PENDING, DECLINED
	SubStatus         string        `json:"sub_status"` // such as APPROVED, AUTHORIZED
	MerchantOrderID   string        `json:"merchant_order_id"`
	MerchantReference string        `json:"merchant_reference"`
	Description       string        `json:"description"`
	Country           string        `json:"country"`
	Amount            PaymentAmount `json:"amount"`
	Workflow          string        `json:"workflow"`
	Checkout          struct {
		Session string `json:"session"`
		// SDKActionRequired says that the payer has to pass a challenge, at
		// PaymentMethod.Detail.Card.RedirectURL.
		SDKActionRequired bool `json:"sdk_action_required"`
	} `json:"checkout"`
	PaymentMethod PaidWith    `json:"payment_method"`
	Metadata      []Metadatum `json:"metadata"`
	// Transactions are the newest first. After a call that created or refunded the payment
	// it is the one transaction which that call made.
	Transactions   Transactions `json:"transactions"`
	IdempotencyKey string       `json:"idempotency_key"` // the nonce that it was created with
	CreatedAt      time.Time    `json:"created_at"`
	UpdatedAt      time.Time    `json:"updated_at"`
	// Version grows with each change: of two answers, the higher one is the later.
	Version int64 `json:"version"`
}

// PaymentAmount is what was asked for, and what has become of it. All are in major units.
type PaymentAmount struct {
	Currency string          `json:"currency"`
	Value    decimal.Decimal `json:"value"`
	Captured decimal.Decimal `json:"captured"` // by captures; a purchase has none
	Refunded decimal.Decimal `json:"refunded"`
}

// PaidWith is what a payment was made with.
type PaidWith struct {
	Type         string `json:"type"`
	Token        string `json:"token"`
	VaultedToken string `json:"vaulted_token"`
	Detail       struct {
		Card struct {
			AuthorizationCode string   `json:"authorization_code"`
			RedirectURL       string   `json:"redirect_url"` // where the payer has to go now; "" for nowhere
			CardData          CardData `json:"card_data"`
		} `json:"card"`
	} `json:"payment_method_detail"`
}

// CardData is what is kept of a card.
type CardData struct {
	HolderName      string `json:"holder_name"`
	IIN             string `json:"iin"` // the first digits
	LFD             string `json:"lfd"` // the last four
	Brand           string `json:"brand"`
	Fingerprint     string `json:"fingerprint"`
	ExpirationMonth int    `json:"expiration_month"`
	ExpirationYear  int    `json:"expiration_year"` // two digits
}

// Transaction is one operation of a payment against a provider.
type Transaction struct {
	ID                string          `json:"id"`
	Type              string          `json:"type"`   // such as PURCHASE, CAPTURE, REFUND
	Status            string          `json:"status"` // such as SUCCEEDED, DECLINED
	Amount            decimal.Decimal `json:"amount"` // major units
	ResponseCode      string          `json:"response_code"`
	ResponseMessage   string          `json:"response_message"`
	MerchantReference string          `json:"merchant_reference"`
	ProviderID        string          `json:"provider_id"`
	CreatedAt         time.Time       `json:"created_at"`
}

// Transactions are an array on the wire, or the only one by itself.
type Transactions []Transaction

// UnmarshalJSON reads both.
func (t *Transactions) UnmarshalJSON(text []byte) error {
	if bytes.HasPrefix(text, []byte("{")) {
		var one Transaction
		if err := json.Unmarshal(text, &one); err != nil {
			return err
		}
		*t = Transactions{one}
		return nil
	}
	return json.Unmarshal(text, (*[]Transaction)(t))
}

const (
	// pageSize is the API's largest.
	pageSize = 100
	// maxPages bounds how many payments of one order are read: more than 10 000 are a
	// mistake, and not an order.
	maxPages = 100
)

// CreatePayment pays, reserves or verifies. A payment that was declined, or is pending, is
// no error: see its Status.
func (c *Client) CreatePayment(ctx context.Context, op *Operation, p PaymentParams) (*Payment, error) {
	return c.payment(ctx, call{what: "create payment", method: http.MethodPost, path: "/v1/payments", op: op, body: c.wirePayment(p)})
}

// GetPayment reads a payment as it is now. One that there is not is an *Error with
// CodePaymentNotFound.
func (c *Client) GetPayment(ctx context.Context, id string) (*Payment, error) {
	return c.payment(ctx, call{what: "get payment", method: http.MethodGet, path: "/v1/payments/" + url.PathEscape(id), wrong: notID(id)})
}

// PaymentsByOrder reads the payments of a merchant_order_id, the newest first. None is no
// error. Meta of each is that of its page.
func (c *Client) PaymentsByOrder(ctx context.Context, merchantOrderID string) ([]Payment, error) {
	var all []Payment
	query := url.Values{"merchant_order_id": {merchantOrderID}, "limit": {fmt.Sprint(pageSize)}}
	for range maxPages {
		page, next := []Payment(nil), ""
		m, err := c.do(ctx, call{what: "list payments", method: http.MethodGet, path: "/v1/payments", query: query}, func(a answer) error {
			page, next = nil, afterOf(a.header.Get("Link"))
			if err := decode(a.body, &page); err != nil {
				return err
			}
			for i := range page {
				if err := page[i].check(); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		for i := range page {
			page[i].Meta = m
		}
		all = append(all, page...)
		if next == "" {
			return all, nil
		}
		query.Set("after", next)
	}
	return all, fmt.Errorf("oncepay: list payments: there are more than %d", maxPages*pageSize)
}

// afterOf is where the next page begins, from a Link header; "" on the last page. Of the
// link only that is taken: the client decides itself where it goes.
func afterOf(link string) string {
	target, rest, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	if !ok || !strings.Contains(rest, `rel="next"`) {
		return ""
	}
	u, err := url.Parse(target)
	if err != nil {
		return ""
	}
	return u.Query().Get("after")
}

// payment calls what answers with a payment.
func (c *Client) payment(ctx context.Context, r call) (*Payment, error) {
	var p *Payment
	m, err := c.do(ctx, r, func(a answer) (err error) {
		p, err = decodePayment(a.body)
		return err
	})
	if err != nil {
		return nil, err
	}
	p.Meta = m
	return p, nil
}

func decodePayment(body []byte) (*Payment, error) {
	p := &Payment{}
	if err := decode(body, p); err != nil {
		return nil, err
	}
	return p, p.check()
}

// errAnswer is why a 2xx is no answer; it counts as none, and the nonce is asked again.
var errAnswer = errors.New("the answer cannot be read")

// decode reads JSON. Its error quotes nothing of it.
func decode(body []byte, into any) error {
	if json.Unmarshal(body, into) != nil {
		return errAnswer
	}
	return nil
}

// check refuses what is JSON, and no payment.
func (p *Payment) check() error {
	if notID(p.ID) != nil || p.Status == "" || !writable(p.Amount.Value) || !writable(p.Amount.Captured) || !writable(p.Amount.Refunded) {
		return errAnswer
	}
	return checkAll(p.Transactions)
}

func checkAll(list Transactions) error {
	for _, t := range list {
		if !writable(t.Amount) {
			return errAnswer
		}
	}
	return nil
}

// notID is nil for an id of the API. Anything else in a path would ask for another one.
func notID(ids ...string) error {
	for _, id := range ids {
		if len(id) != len(uuid.Nil.String()) || uuid.Validate(id) != nil {
			return errors.New("an id must be a UUID of 36 characters")
		}
	}
	return nil
}

// The request of a payment, as it is on the wire. What is empty is left out, so that the
// API says that it is missing.
type (
	wirePayment struct {
		AccountID         string        `json:"account_id,omitempty"`
		MerchantOrderID   string        `json:"merchant_order_id,omitempty"`
		MerchantReference string        `json:"merchant_reference,omitempty"`
		Description       string        `json:"description,omitempty"`
		Country           string        `json:"country,omitempty"`
		Amount            Amount        `json:"amount"`
		Workflow          string        `json:"workflow,omitempty"`
		Checkout          *wireCheckout `json:"checkout,omitempty"`
		PaymentMethod     wireMethod    `json:"payment_method"`
		CustomerPayer     any           `json:"customer_payer,omitempty"`
		AdditionalData    any           `json:"additional_data,omitempty"`
		CallbackURL       string        `json:"callback_url,omitempty"`
		Metadata          []Metadatum   `json:"metadata,omitempty"`
	}
	wireCheckout struct {
		Session string `json:"session"`
	}
	wireMethod struct {
		Type           string      `json:"type"`
		Token          string      `json:"token,omitempty"`
		VaultedToken   string      `json:"vaulted_token,omitempty"`
		VaultOnSuccess bool        `json:"vault_on_success,omitempty"`
		Detail         *wireDetail `json:"detail,omitempty"`
	}
	wireDetail struct {
		Card wireCardDetail `json:"card"`
	}
	wireCardDetail struct {
		Capture        *bool     `json:"capture,omitempty"`
		Verify         bool      `json:"verify,omitempty"`
		Installments   int       `json:"installments,omitempty"`
		SoftDescriptor string    `json:"soft_descriptor,omitempty"`
		CardData       *wireCard `json:"card_data,omitempty"`
	}
)

func (c *Client) wirePayment(p PaymentParams) wirePayment {
	w := wirePayment{
		AccountID: c.accountOr(p.AccountID), MerchantOrderID: p.MerchantOrderID, MerchantReference: p.MerchantReference,
		Description: p.Description, Country: p.Country, Amount: p.Amount, Workflow: p.Workflow, PaymentMethod: p.PaymentMethod.wire(),
		CustomerPayer: p.CustomerPayer, AdditionalData: p.AdditionalData, CallbackURL: p.CallbackURL, Metadata: p.Metadata,
	}
	if p.CheckoutSession != "" {
		w.Checkout = &wireCheckout{p.CheckoutSession}
	}
	return w
}

func (c *Client) accountOr(id string) string {
	if id == "" {
		return c.account
	}
	return id
}

func (m PaymentMethod) wire() wireMethod {
	w := wireMethod{Type: m.Type, Token: m.Token, VaultedToken: m.VaultedToken, VaultOnSuccess: m.VaultOnSuccess}
	if w.Type == "" {
		w.Type = "CARD"
	}
	d := wireCardDetail{Verify: m.Verify, Installments: m.Installments, SoftDescriptor: m.SoftDescriptor}
	if m.AuthorizeOnly {
		d.Capture = new(bool)
	}
	if m.Card != nil {
		card := wireCard(*m.Card)
		d.CardData = &card
	}
	if d != (wireCardDetail{}) {
		w.Detail = &wireDetail{d}
	}
	return w
}
