package transactions

import (
	"encoding/json"
	"errors"
	"strconv"

	"github.com/google/uuid"
	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/fields"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/money"
	"github.com/oncepay/oncepay/internal/providers"
)

// Limits of the contract, in characters unless said otherwise.
const (
	maxSoftDescriptor = 15 // what card networks print on a statement
	maxHolderName     = 255
	maxInstallments   = 99
	minCardDigits     = 12 // ISO/IEC 7812 allows fewer, no network issues them
	maxCardDigits     = 19
	minSecurityCode   = 3
	maxSecurityCode   = 4
	maxExpirationYear = 99
)

// Workflows of the contract. Only a direct one needs no checkout session.
const (
	workflowDirect      = "DIRECT"
	workflowSDKCheckout = "SDK_CHECKOUT"
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
	Card              providers.Card
	CardFingerprint   string
	cardByOther       string // the same under the installation's other secret; compared, never kept
	CustomerPayer     json.RawMessage
	AdditionalData    json.RawMessage
	Metadata          json.RawMessage
	StoredCredentials json.RawMessage
}

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

// Rules that depend on who is asking.
type rules struct {
	account         uuid.UUID
	luhn            bool // in live mode; published test cards fail it
	rawCards        bool // whether card numbers may come through us at all
	cardFingerprint func(number string) string
	cardByOther     func(number string) string // nil: the installation has one secret
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
		AccountID:         rules.account.String(),
		MerchantOrderID:   v.RequiredText(body.Get("merchant_order_id"), fields.MinText, fields.MaxText),
		MerchantReference: v.Text(body.Get("merchant_reference"), fields.MinText, fields.MaxText),
		Description:       v.RequiredText(body.Get("description"), fields.MinText, fields.MaxText),
		CallbackURL:       v.URL(body.Get("callback_url")),
		CustomerPayer:     v.Descriptive(body.Get("customer_payer")),
		AdditionalData:    v.Descriptive(body.Get("additional_data")),
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
	r.Metadata = v.Metadata(body.Get("metadata"))
	v.Unavailable(body.Get("split_marketplace"), jsontree.Array)
	v.Unavailable(body.Get("subscription"), jsontree.Object)
	v.Unavailable(body.Get("amount").Get("currency_conversion"), jsontree.Object)
	if at := v.Object(body.Get("fraud_screening")).Get("stand_alone"); v.Boolean(at, false) {
		v.Invalid(at, "must be false: stand-alone screening is not available yet")
	}
	return r, v.Err()
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
	case workflowSDKCheckout, "CHECKOUT", "SDK_SEAMLESS":
		if sessionID == "" {
			v.Fail(apierr.MissingParameters, session, "is required by this workflow")
			return
		}
		v.Fail(apierr.CheckoutSessionNotFound, session, "must be a checkout session of this account")
	case "REDIRECT":
		v.Fail(apierr.UnavailablePaymentMethod, at, "must not be REDIRECT: no redirect method is available")
	default:
		v.Invalid(at, "must be DIRECT, SDK_CHECKOUT, CHECKOUT, SDK_SEAMLESS or REDIRECT")
	}
}

func (v *checker) paymentMethod(r *Request, at jsontree.Value, rules rules) {
	if !v.Required(at) {
		return
	}
	v.Object(at)
	for _, name := range []string{"vaulted_token", "token"} {
		if t := at.Get(name); v.Text(t, 0, fields.MaxText) != "" {
			v.Fail(apierr.InvalidToken, t, "must be a token of this account")
			return
		}
	}
	typ := at.Get("type")
	if !v.Required(typ) {
		return
	}
	if s, _ := typ.Text(); s != categoryCard {
		v.Fail(apierr.UnavailablePaymentMethod, typ, "must be CARD: no other payment method is available")
		return
	}
	if vault := at.Get("vault_on_success"); v.Boolean(vault, false) {
		v.Invalid(vault, "must be false: vaulting is not available yet")
	}
	v.card(r, v.Object(at.Get("detail")).Get("card"), rules)
}

func (v *checker) card(r *Request, at jsontree.Value, rules rules) {
	if !v.Required(at) {
		return
	}
	v.Object(at)
	r.Capture = v.Boolean(at.Get("capture"), true)
	r.Installments = v.Integer(at.Get("installments"), 1, maxInstallments, 1)
	r.SoftDescriptor = v.Text(at.Get("soft_descriptor"), 0, maxSoftDescriptor)
	r.StoredCredentials = v.Descriptive(at.Get("stored_credentials"))
	r.Verify = v.Boolean(at.Get("verify"), false)
	v.Unavailable(at.Get("delayed_capture_settings"), jsontree.Object)
	v.Unavailable(at.Get("delayed_cancel_settings"), jsontree.Object)

	data := at.Get("card_data")
	if !v.Required(data) {
		return
	}
	v.Object(data)
	r.Card.HolderName = v.Text(data.Get("holder_name"), 1, maxHolderName)
	if number := data.Get("number"); v.Required(number) {
		if !rules.rawCards {
			v.Invalid(number, "must not be sent in live mode: this installation takes no raw card numbers")
			return
		}
		r.Card.Number = v.Digits(number, minCardDigits, maxCardDigits)
		if r.Card.Number != "" && rules.luhn && !luhn(r.Card.Number) {
			v.Invalid(number, "must be a valid card number")
		}
		if r.Card.Number != "" {
			r.CardFingerprint = rules.cardFingerprint(r.Card.Number)
			if rules.cardByOther != nil {
				r.cardByOther = rules.cardByOther(r.Card.Number)
			}
		}
	}
	if code := data.Get("security_code"); code.Given() {
		r.Card.SecurityCode = v.Digits(code, minSecurityCode, maxSecurityCode)
	}
	if month := data.Get("expiration_month"); v.Required(month) {
		r.Card.ExpirationMonth = v.Integer(month, 1, 12, 0)
	}
	if year := data.Get("expiration_year"); v.Required(year) {
		r.Card.ExpirationYear = v.year(year)
	}
}

// year reads two digits (28) or four (2028).
func (v *checker) year(at jsontree.Value) int {
	s, isNumber := at.Number()
	n, err := strconv.Atoi(s)
	switch {
	case isNumber && err == nil && n >= 0 && n <= maxExpirationYear:
		return 2000 + n
	case isNumber && err == nil && n >= 2000 && n <= 2000+maxExpirationYear:
		return n
	}
	v.Invalid(at, "must be a year of two or four digits")
	return 0
}

// luhn says whether the last digit checks the others (ISO/IEC 7812-1, annex B).
func luhn(number string) bool {
	sum := 0
	for i := range len(number) {
		d := int(number[len(number)-1-i] - '0')
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
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
}

func (r Request) keep() keptRequest {
	return keptRequest{
		MerchantOrderID: r.MerchantOrderID, MerchantReference: r.MerchantReference, Description: r.Description,
		Country: r.Country, Currency: r.Currency, Amount: r.Amount.String(), Workflow: r.Workflow, CallbackURL: r.CallbackURL,
		Capture: r.Capture, Verify: r.Verify, Installments: r.Installments, SoftDescriptor: r.SoftDescriptor, Card: r.CardFingerprint,
		CustomerPayer: r.CustomerPayer, AdditionalData: r.AdditionalData, Metadata: r.Metadata, StoredCredentials: r.StoredCredentials,
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
		return name == "card" && r.cardByOther != "" && was == `"`+r.cardByOther+`"`
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
}

// keptCard is what may be kept of a card.
type keptCard struct {
	HolderName         string `json:"holder_name"`
	IIN                string `json:"iin"`
	LFD                string `json:"lfd"`
	NumberLength       int    `json:"number_length"`
	SecurityCodeLength int    `json:"security_code_length"`
	Brand              string `json:"brand"`
	Fingerprint        string `json:"fingerprint"`
	ExpirationMonth    int    `json:"expiration_month"`
	ExpirationYear     int    `json:"expiration_year"` // two digits, as on the wire
}

// keptCard is the card as stored. The first eight digits are kept only of numbers
// that leave at least four hidden between them and the last four.
func (r Request) keptCard() (string, error) {
	n := r.Card.Number
	if len(n) < minCardDigits {
		return "", errors.New("a card number is too short to be kept in part")
	}
	iin := n[:6]
	if len(n) >= 16 {
		iin = n[:8]
	}
	b, err := json.Marshal(keptCard{
		HolderName: r.Card.HolderName, IIN: iin, LFD: n[len(n)-4:], NumberLength: len(n),
		SecurityCodeLength: len(r.Card.SecurityCode), Brand: brand(n), Fingerprint: r.CardFingerprint,
		ExpirationMonth: r.Card.ExpirationMonth, ExpirationYear: r.Card.ExpirationYear % 100,
	})
	if err != nil {
		return "", errors.New("encode the card to keep") // the cause may quote it
	}
	return string(b), nil
}

// brands are the networks by the ranges of the leading digits that they publish,
// the narrower before the wider.
var brands = []struct {
	digits   int
	from, to int
	name     string
}{
	{2, 34, 34, "AMEX"},
	{2, 37, 37, "AMEX"},
	{3, 300, 305, "DINERS"},
	{2, 36, 36, "DINERS"},
	{2, 38, 39, "DINERS"},
	{4, 3528, 3589, "JCB"},
	{2, 51, 55, "MASTERCARD"},
	{4, 2221, 2720, "MASTERCARD"},
	{4, 6011, 6011, "DISCOVER"},
	{3, 644, 649, "DISCOVER"},
	{2, 65, 65, "DISCOVER"},
	{2, 62, 62, "UNIONPAY"},
	{1, 4, 4, "VISA"},
	{1, 1, 1, "UATP"},
}

// brand is the network of a card number, or "" where we don't know it.
func brand(number string) string {
	for _, b := range brands {
		if n, err := strconv.Atoi(number[:b.digits]); err == nil && n >= b.from && n <= b.to {
			return b.name
		}
	}
	return ""
}
