package transactions

import (
	"encoding/json"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/money"
)

// Limits of the contract, in characters unless said otherwise.
const (
	maxSoftDescriptor = 15 // what card networks print on a statement
	maxInstallments   = 99
)

// Workflows of the contract. Only a direct one needs no checkout session.
const (
	workflowDirect      = "DIRECT"
	workflowSDKCheckout = "SDK_CHECKOUT"
	// WorkflowSeamless is that of a session which the browser pays itself.
	WorkflowSeamless = "SDK_SEAMLESS"
)

// categoryCard is the one payment method type there is so far.
const categoryCard = "CARD"

// Request is a valid request to create a payment. Card is in memory only; all
// else may be kept.
type Request struct {
	AccountID         string
	MerchantOrderID   string
	MerchantReference string
	Description       string
	Country           string
	Currency          string
	Amount            decimal.Decimal
	Workflow          string
	CallbackURL       string
	Capture           bool
	Verify            bool
	Installments      int
	SoftDescriptor    string
	Handed            HandedCard
	CustomerPayer     json.RawMessage
	AdditionalData    json.RawMessage
	Metadata          json.RawMessage
	StoredCredentials json.RawMessage
	// MerchantCustomerID is who pays, by the merchant's own id: what an operator searches by.
	// It describes and is never checked: "" where it is none.
	MerchantCustomerID string

	// Session is the checkout that the payment belongs to; Token and Vaulted are what it
	// is made with in place of a card: handed in once, or kept. uuid.Nil: none.
	Session, Token, Vaulted uuid.UUID
	// VaultOnSuccess keeps the card for the customer if the payment succeeds.
	VaultOnSuccess bool
	Customer       uuid.UUID // uuid.Nil: nobody in particular
	// ReturnURL is where the payer comes back to after a challenge; "": CallbackURL.
	ReturnURL string

	Source source // what of all that was found, once somebody has looked
}

// merchantCustomerID is a merchant's own id of a customer, if it could be one.
func merchantCustomerID(at jsontree.Value) string {
	if id, ok := at.Text(); ok && utf8.RuneCountInString(id) <= fields.MaxText && !strings.ContainsRune(id, 0) {
		return id
	}
	return ""
}

// tokenised reports whether a token stands for the card.
func (r Request) tokenised() bool { return r.Token != uuid.Nil || r.Vaulted != uuid.Nil }

// Type is the transaction that the request asks for.
func (r Request) Type() Type {
	switch {
	case r.Verify:
		return Verify
	case r.Capture:
		return Purchase
	}
	return Authorize
}

// rules are those that depend on who is asking.
type rules struct {
	account uuid.UUID
	CardRules
}

// checker reads what only payments and what acts on them have.
type checker struct{ fields.Checker }

// parseRequest reads a body. What moves money is checked hard; what describes is
// checked for type and size alone. It reports everything that is wrong, at most 20
// rules.
func parseRequest(body jsontree.Value, rules rules) (Request, error) {
	if body.Kind() != jsontree.Object {
		return Request{}, apierr.New(apierr.InvalidRequest, "$ must be an object")
	}
	v := &checker{}
	r := Request{
		AccountID:          rules.account.String(),
		MerchantOrderID:    v.RequiredText(body.Get("merchant_order_id"), fields.MinText, fields.MaxText),
		MerchantReference:  v.Text(body.Get("merchant_reference"), fields.MinText, fields.MaxText),
		Description:        v.RequiredText(body.Get("description"), fields.MinText, fields.MaxText),
		CallbackURL:        v.URL(body.Get("callback_url")),
		CustomerPayer:      v.Descriptive(body.Get("customer_payer")),
		MerchantCustomerID: merchantCustomerID(body.Get("customer_payer").Get("merchant_customer_id")),
		AdditionalData:     v.Descriptive(body.Get("additional_data")),
	}
	v.Account(body.Get("account_id"), rules.account)
	r.Country = v.Country(body.Get("country"))
	check := money.Check
	if verify, _ := body.Get("payment_method").Get("detail").Get("card").Get("verify").Bool(); verify {
		check = nothing
	}
	r.Amount, r.Currency = v.Money(body.Get("amount"), check)
	v.workflow(&r, body)
	v.paymentMethod(&r, body.Get("payment_method"), rules)
	r.Customer = customerOf(body.Get("customer_payer"))
	if r.VaultOnSuccess && r.Session == uuid.Nil && r.Customer == uuid.Nil && !r.tokenised() {
		v.Fail(apierr.MissingParameters, body.Get("customer_payer").Get("id"), "is required where payment_method.vault_on_success is true")
	}
	r.Metadata = v.Metadata(body.Get("metadata"))
	v.Unavailable(body.Get("split_marketplace"), jsontree.Array)
	v.Unavailable(body.Get("subscription"), jsontree.Object)
	v.Unavailable(body.Get("amount").Get("currency_conversion"), jsontree.Object)
	if at := v.Object(body.Get("fraud_screening")).Get("stand_alone"); v.Boolean(at, false) {
		v.Invalid(at, "must be false: stand-alone screening is not available yet")
	}
	return r, v.Err()
}

// customerOf is the customer that a payer is said to be. Shops put ids of their own there,
// too; those mean nobody here.
func customerOf(payer jsontree.Value) uuid.UUID {
	s, _ := payer.Get("id").Text()
	id, ours := fields.ParseID(s)
	if !ours {
		return uuid.Nil
	}
	return id
}

// errVerifiesNothing is the rule for the amount of a verification.
var errVerifiesNothing = errors.New("must be 0 where payment_method.detail.card.verify is true")

// nothing checks the amount of a verification.
func nothing(amount decimal.Decimal, _ string) error {
	if !amount.IsZero() {
		return errVerifiesNothing
	}
	return nil
}

func (v *checker) workflow(r *Request, body jsontree.Value) {
	at, session := body.Get("workflow"), body.Get("checkout").Get("session")
	v.Object(body.Get("checkout"))
	sessionID := v.Text(session, 0, fields.MaxText)
	r.Workflow = v.Text(at, 1, fields.MaxText)
	if !at.Given() {
		r.Workflow = workflowDirect
		if sessionID != "" {
			r.Workflow = workflowSDKCheckout
		}
	}
	switch r.Workflow {
	case workflowDirect:
	case workflowSDKCheckout, "CHECKOUT":
		if sessionID == "" {
			v.Fail(apierr.MissingParameters, session, "is required by this workflow")
		}
	case WorkflowSeamless:
		v.Invalid(at, "must not be SDK_SEAMLESS: the browser pays such a session itself")
	case "REDIRECT":
		v.Fail(apierr.UnavailablePaymentMethod, at, "must not be REDIRECT: no redirect method is available")
	default:
		v.Invalid(at, "must be DIRECT, SDK_CHECKOUT, CHECKOUT, SDK_SEAMLESS or REDIRECT")
	}
	if sessionID == "" {
		return
	}
	var ours bool
	if r.Session, ours = fields.ParseID(sessionID); !ours {
		v.Fail(apierr.CheckoutSessionNotFound, session, notASession)
	}
}

func (v *checker) paymentMethod(r *Request, at jsontree.Value, rules rules) {
	if !v.Required(at) {
		return
	}
	v.Object(at)
	r.Token, r.Vaulted = v.token(at.Get("token")), v.token(at.Get("vaulted_token"))
	if r.Vaulted != uuid.Nil { // which wins if both are sent
		r.Token = uuid.Nil
	}
	if typ := at.Get("type"); typ.Given() || !r.tokenised() && v.Required(typ) {
		if s, _ := typ.Text(); s != categoryCard {
			v.Fail(apierr.UnavailablePaymentMethod, typ, "must be CARD: no other payment method is available")
			return
		}
	}
	r.VaultOnSuccess = v.Boolean(at.Get("vault_on_success"), false) && r.Vaulted == uuid.Nil
	card := v.Object(at.Get("detail")).Get("card")
	if !r.tokenised() && !v.Required(card) {
		return
	}
	v.card(r, card, rules)
}

// token reads an optional token; uuid.Nil where there is none.
func (v *checker) token(at jsontree.Value) uuid.UUID {
	s := v.Text(at, 0, fields.MaxText)
	if s == "" {
		return uuid.Nil
	}
	id, ours := fields.ParseID(s)
	if !ours {
		v.Fail(apierr.InvalidToken, at, notAToken)
	}
	return id
}

func (v *checker) card(r *Request, at jsontree.Value, rules rules) {
	v.Object(at)
	r.Capture = v.Boolean(at.Get("capture"), true)
	r.Installments = v.Integer(at.Get("installments"), 1, maxInstallments, 1)
	r.SoftDescriptor = v.Text(at.Get("soft_descriptor"), 0, maxSoftDescriptor)
	r.StoredCredentials = v.Descriptive(at.Get("stored_credentials"))
	r.Verify = v.Boolean(at.Get("verify"), false)
	v.Unavailable(at.Get("delayed_capture_settings"), jsontree.Object)
	v.Unavailable(at.Get("delayed_cancel_settings"), jsontree.Object)

	if r.tokenised() { // a number beside a token is nobody's
		return
	}
	if data := at.Get("card_data"); v.Required(data) {
		r.Handed = rules.ReadCard(&v.Checker, data)
	}
}

// keptRequest is what is kept of a request, to be given back and compared with.
// It names each field, so that nothing is kept by accident.
type keptRequest struct {
	MerchantOrderID   string          `json:"merchant_order_id"`
	MerchantReference string          `json:"merchant_reference,omitempty"`
	Description       string          `json:"description"`
	Country           string          `json:"country"`
	Currency          string          `json:"currency"`
	Amount            string          `json:"amount"`
	Workflow          string          `json:"workflow"`
	CallbackURL       string          `json:"callback_url,omitempty"`
	Capture           bool            `json:"capture"`
	Verify            bool            `json:"verify,omitempty"`
	Installments      int             `json:"installments"`
	SoftDescriptor    string          `json:"soft_descriptor,omitempty"`
	Card              string          `json:"card"` // its keyed fingerprint
	CustomerPayer     json.RawMessage `json:"customer_payer,omitempty"`
	AdditionalData    json.RawMessage `json:"additional_data,omitempty"`
	Metadata          json.RawMessage `json:"metadata,omitempty"`
	StoredCredentials json.RawMessage `json:"stored_credentials,omitempty"`
	Session           string          `json:"checkout_session,omitempty"`
	Token             string          `json:"token,omitempty"`
	VaultedToken      string          `json:"vaulted_token,omitempty"`
	VaultOnSuccess    bool            `json:"vault_on_success,omitempty"`
	NewCard           string          `json:"new_card,omitempty"` // the vaulted token that it decides about
	LinkID            string          `json:"payment_link_id,omitempty"`
	LinkCode          string          `json:"payment_link_code,omitempty"`
}

func (r Request) keep() keptRequest {
	return keptRequest{
		MerchantOrderID: r.MerchantOrderID, MerchantReference: r.MerchantReference, Description: r.Description,
		Country: r.Country, Currency: r.Currency, Amount: r.Amount.String(), Workflow: r.Workflow, CallbackURL: r.CallbackURL,
		Capture: r.Capture, Verify: r.Verify, Installments: r.Installments, SoftDescriptor: r.SoftDescriptor, Card: r.fingerprint(),
		CustomerPayer: r.CustomerPayer, AdditionalData: r.AdditionalData, Metadata: r.Metadata, StoredCredentials: r.StoredCredentials,
		Session: textOf(r.Session), Token: textOf(r.Token), VaultedToken: textOf(r.Vaulted), VaultOnSuccess: r.VaultOnSuccess, NewCard: textOf(r.Source.NewCard),
		LinkID: textOf(r.Source.Session.LinkID), LinkCode: r.Source.Session.LinkCode,
	}
}

// kept is the request as stored: JSON text without card data.
func (r Request) kept() (string, error) {
	b, err := json.Marshal(r.keep())
	if err != nil {
		return "", errors.New("encode the request to keep") // the cause may quote it
	}
	return string(b), nil
}

// differs names the kept fields in which r is not the first request.
func (r Request) differs(first string) []string {
	mine, err := r.kept()
	if err != nil {
		return nil
	}
	return differing(first, mine, keptNames, func(name, was string) bool { // the same card, kept under the other secret
		return name == "card" && r.Handed.byOther != "" && was == `"`+r.Handed.byOther+`"`
	})
}

// differing are those of the names whose values differ in two JSON objects, and do not
// mean the same.
func differing(first, second string, names []string, same func(name, was string) bool) []string {
	var a, b map[string]json.RawMessage
	if json.Unmarshal([]byte(first), &a) != nil || json.Unmarshal([]byte(second), &b) != nil {
		return nil
	}
	var differ []string
	for _, name := range names {
		if string(a[name]) != string(b[name]) && !same(name, string(a[name])) {
			differ = append(differ, name)
		}
	}
	return differ
}

// keptNames are the names of keptRequest, in the order in which a person would
// want to hear of them.
var keptNames = []string{
	"amount", "currency", "card", "capture", "verify", "merchant_order_id", "merchant_reference", "description", "country",
	"workflow", "callback_url", "installments", "soft_descriptor", "customer_payer", "additional_data", "metadata", "stored_credentials",
	"checkout_session", "token", "vaulted_token", "vault_on_success",
}
