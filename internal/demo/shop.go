// Package demo is a shop for rehearsals: a merchant's page and a merchant's backend, as
// small as they can be, in front of the API that they run beside.
//
// It knows no more than any merchant does. Its browser side embeds the SDK; its server side
// calls the API over HTTP, with the merchant's secret key, and has no database: what was
// ordered and whether it is paid is asked of the API each time. So it shows the two rules
// that a shop must keep. The browser says which product and how many, and never how much;
// and what the browser says of the payment is a hint, that the backend looks up.
//
// Whoever rehearses may choose how the bank will misbehave. It is for `payments dev` only:
// it has no customers to protect, and makes a session for anybody who asks.
package demo

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	oncepay "github.com/oncepay/oncepay/sdk/go"
)

const (
	// maxQuantity keeps an order one that a person would make.
	maxQuantity = 9
	// patience is how long a page of the shop waits for the API, retries included: less than
	// what a request of this listener may take.
	patience = 25 * time.Second
	// orderPrefix tells the orders of rehearsals from others in the same ledger.
	orderPrefix = "DEMO-"
	// quantityKey is where a session remembers how many were ordered.
	quantityKey = "quantity"
)

// Options are what a Shop needs.
type Options struct {
	// API is where the shop's backend calls, as scheme://host[:port]. It is asked for when
	// the first page is, because the listener has to be open to know it. It must not depend
	// on a request: whoever sends that could have the secret key sent to them.
	API func() string
	// AccountID, PublicKey and SecretKey are the merchant's, in test mode.
	AccountID, PublicKey, SecretKey string
	// Integrity is the SDK's hash, for the script element that loads it.
	Integrity string
	// Bank is the URL of the provider, whose page asks payers to confirm: the shop's page
	// has to allow it in a frame.
	Bank string
	// HTTP is what to call the API with; nil: the SDK's own.
	HTTP *http.Client
}

// shop is the merchant's backend.
type shop struct {
	options Options
	client  func() (*oncepay.Client, error)
}

func newShop(o Options) *shop {
	return &shop{options: o, client: sync.OnceValues(func() (*oncepay.Client, error) {
		options := []oncepay.Option{oncepay.WithAccount(o.AccountID), oncepay.WithRetries(oncepay.Retries{Total: patience})}
		if o.HTTP != nil {
			options = append(options, oncepay.WithHTTPClient(o.HTTP))
		}
		return oncepay.New(o.API(), o.PublicKey, o.SecretKey, options...)
	})}
}

// trouble is a way for the bank to misbehave, chosen by whoever rehearses.
type trouble struct {
	key string // in the form, and of its text
	// description is what the sandbox knows it by; "" is none.
	description string
}

// troubles are offered in this order; the first is the one that nobody has to choose.
var troubles = []trouble{
	{"none", ""},
	{"slow", "sandbox:slow=3s"},
	{"silent", "sandbox:charge-then-timeout"},
	{"challenge", "sandbox:challenge"},
	{"pending", "sandbox:pending-then-approve=5s"},
}

// The workflows, as the form calls them.
const (
	browserPays = "browser"
	backendPays = "backend"
)

// basket is what a browser may say of an order.
type basket struct {
	// cart is drawn with the product's page. It makes one session of a form that is sent
	// twice.
	cart     uuid.UUID
	quantity int
	trouble  trouble
	payer    string
	language *language
}

var errBasket = errors.New("the form is not one of the shop's")

// readBasket reads the form of the product's page.
func readBasket(value func(name string) string) (basket, error) {
	b := basket{payer: value("payer"), language: languages[value("lang")]}
	var errs [2]error
	b.cart, errs[0] = uuid.Parse(value("cart"))
	b.quantity, errs[1] = strconv.Atoi(value("quantity"))
	i := slices.IndexFunc(troubles, func(t trouble) bool { return t.key == value("trouble") })
	if errors.Join(errs[:]...) != nil || b.quantity < 1 || b.quantity > maxQuantity || i < 0 ||
		b.payer != browserPays && b.payer != backendPays || b.language == nil {
		return basket{}, errBasket
	}
	b.trouble = troubles[i]
	return b, nil
}

// price is what the basket costs: the shop's own price, times how many.
func (b basket) price() oncepay.Amount {
	return oncepay.Amount{Currency: b.language.currency, Value: b.language.price.Mul(decimal.NewFromInt(int64(b.quantity)))}
}

// nonce is the operation's: the same basket is the same operation, and another is not.
func (b basket) nonce() string {
	return strings.Join([]string{b.cart.String(), strconv.Itoa(b.quantity), b.trouble.key, b.payer, b.language.tag}, ".")
}

// order makes a checkout session for a basket, and returns its id.
func (s *shop) order(ctx context.Context, b basket, back string) (string, error) {
	client, err := s.client()
	if err != nil {
		return "", err
	}
	op, err := oncepay.OperationWithNonce(b.nonce())
	if err != nil {
		return "", err
	}
	p := oncepay.CheckoutSessionParams{
		MerchantOrderID: orderPrefix + strings.ToUpper(b.cart.String()[:8]), PaymentDescription: b.language.Product,
		Country: b.language.country, Amount: b.price(), Workflow: oncepay.WorkflowSeamless, CallbackURL: back,
		Metadata: []oncepay.Metadatum{{Key: quantityKey, Value: strconv.Itoa(b.quantity)}},
	}
	if b.trouble.description != "" {
		p.PaymentDescription = b.trouble.description
	}
	if b.payer == backendPays {
		p.Workflow = oncepay.WorkflowCheckout
	}
	session, err := client.CreateCheckoutSession(ctx, op, p)
	if err != nil {
		return "", err
	}
	return session.ID, nil
}

// outcome is what the shop makes of a payment.
type outcome string

// The outcomes.
const (
	paid    outcome = "paid"
	waiting outcome = "waiting" // nobody knows yet, and nothing is to be sent
	failed  outcome = "failed"  // another try is possible
	unpaid  outcome = "unpaid"  // nothing was tried
	over    outcome = "over"    // it was paid, and is not any more; or can never be
)

// purchase is an order as the API knows it.
type purchase struct {
	session  *oncepay.CheckoutSession
	quantity string
	outcome  outcome
}

// purchase asks what was ordered and what became of it. It is the one way in which the shop
// learns that it has been paid.
func (s *shop) purchase(ctx context.Context, id string) (purchase, error) {
	client, err := s.client()
	if err != nil {
		return purchase{}, err
	}
	session, err := client.GetCheckoutSession(ctx, id)
	if err != nil {
		return purchase{}, err
	}
	p := purchase{session: session, quantity: "1", outcome: unpaid}
	for _, m := range session.Metadata {
		if m.Key == quantityKey {
			p.quantity = m.Value
		}
	}
	payment, err := client.GetCheckoutPayment(ctx, id)
	if said, is := errors.AsType[*oncepay.Error](err); is && said.Code == oncepay.CodePaymentNotFound {
		return p, nil
	}
	if err != nil {
		return purchase{}, err
	}
	p.outcome = outcomeOf(payment.Status)
	return p, nil
}

// outcomeOf reads a payment's status. One that this shop does not know is one to wait on.
func outcomeOf(status string) outcome {
	switch status {
	case "SUCCEEDED":
		return paid
	case "DECLINED", "REJECTED", "ERROR":
		return failed
	case "CANCELED", "EXPIRED", "REFUNDED", "CHARGEBACK", "IN_DISPUTE":
		return over
	}
	return waiting
}

// pay pays an order with a one-time token, in place of the browser. What is paid is what the
// session says; the nonce is the browser's, which keeps it for the attempt. back is where the
// bank sends the payer, in the frame: to the payment's page.
func (s *shop) pay(ctx context.Context, id, token, nonce, back string) error {
	p, err := s.purchase(ctx, id)
	if err != nil {
		return err
	}
	client, err := s.client()
	if err != nil {
		return err
	}
	op, err := oncepay.OperationWithNonce(nonce)
	if err != nil {
		return err
	}
	_, err = client.CreatePayment(ctx, op, oncepay.PaymentParams{
		MerchantOrderID: p.session.MerchantOrderID, Description: p.session.PaymentDescription, Country: p.session.Country,
		Amount: p.session.Amount, CheckoutSession: id, PaymentMethod: oncepay.PaymentMethod{Token: token},
		CallbackURL: back,
	})
	return err
}
