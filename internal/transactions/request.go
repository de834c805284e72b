package transactions

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/iso"
	"github.com/oncepay/oncepay/internal/jsontree"
	"github.com/oncepay/oncepay/internal/money"
	"github.com/oncepay/oncepay/internal/providers"
)

// Limits of the contract, in characters unless said otherwise.
const (
	minText              = 3   // merchant_order_id, description, references
	maxText              = 255 // the same
	maxCallbackURL       = 526
	maxSoftDescriptor    = 15 // what card networks print on a statement
	maxMetadata          = 120
	maxMetadataKey       = 48
	maxMetadataValue     = 512
	maxHolderName        = 255
	maxInstallments      = 99
	minCardDigits        = 12 // ISO/IEC 7812 allows fewer, no network issues them
	maxCardDigits        = 19
	minSecurityCode      = 3
	maxSecurityCode      = 4
	maxExpirationYear    = 99
	maxMessages          = 20       // so that an answer to nonsense stays short
	maxDescriptiveMember = 64 << 10 // bytes, of customer_payer and additional_data each
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
	accountID       string
	luhn            bool // in live mode; published test cards fail it
	rawCards        bool // whether card numbers may come through us at all
	cardFingerprint func(number string) string
	cardByOther     func(number string) string // nil: the installation has one secret
}

// validator collects what is wrong with a body: places and rules, never values.
type validator struct {
	code     apierr.Code
	messages []string
}

// fail notes one broken rule. The first one's code is the answer's.
func (v *validator) fail(code apierr.Code, at jsontree.Value, rule string) {
	if v.code == "" {
		v.code = code
	}
	if len(v.messages) < maxMessages {
		v.messages = append(v.messages, at.Path()+" "+rule)
	}
}

func (v *validator) invalid(at jsontree.Value, rule string) {
	v.fail(apierr.InvalidParameters, at, rule)
}

// required says whether a member is there, and notes it if not.
func (v *validator) required(at jsontree.Value) bool {
	if !at.Given() {
		v.fail(apierr.MissingParameters, at, "is required")
		return false
	}
	return true
}

// text reads an optional string of lo to hi characters without control
// characters.
func (v *validator) text(at jsontree.Value, lo, hi int) string {
	if !at.Given() {
		return ""
	}
	s, ok := at.Text()
	if !ok {
		v.invalid(at, "must be a string")
		return ""
	}
	if n := utf8.RuneCountInString(s); n < lo || n > hi {
		v.invalid(at, fmt.Sprintf("must have %d to %d characters", lo, hi))
	} else if strings.ContainsFunc(s, unicode.IsControl) {
		v.invalid(at, "must not contain control characters")
	}
	return s
}

func (v *validator) requiredText(at jsontree.Value, lo, hi int) string {
	if !v.required(at) {
		return ""
	}
	return v.text(at, lo, hi)
}

// integer reads an optional whole number from lo to hi, or returns other.
func (v *validator) integer(at jsontree.Value, lo, hi, other int) int {
	if !at.Given() {
		return other
	}
	s, isNumber := at.Number()
	n, err := strconv.Atoi(s)
	if !isNumber || err != nil || n < lo || n > hi {
		v.invalid(at, fmt.Sprintf("must be a whole number from %d to %d", lo, hi))
		return other
	}
	return n
}

func (v *validator) boolean(at jsontree.Value, other bool) bool {
	if !at.Given() {
		return other
	}
	b, ok := at.Bool()
	if !ok {
		v.invalid(at, "must be true or false")
		return other
	}
	return b
}

// object notes a member that is there and no object.
func (v *validator) object(at jsontree.Value) jsontree.Value {
	if at.Given() && at.Kind() != jsontree.Object {
		v.invalid(at, "must be an object")
	}
	return at
}

// descriptive reads an object that we keep and give back without reading it.
func (v *validator) descriptive(at jsontree.Value) json.RawMessage {
	if !at.Given() {
		return nil
	}
	data := v.object(at).JSON()
	if len(data) > maxDescriptiveMember {
		v.invalid(at, "must have at most 65536 bytes")
	}
	return data
}

// unavailable refuses an instruction about money that we would have to ignore. An
// empty one of its kind says nothing.
func (v *validator) unavailable(at jsontree.Value, kind jsontree.Kind) {
	if at.Given() && (at.Kind() != kind || at.Len() > 0) {
		v.invalid(at, "is not available yet and must be left out")
	}
}

func (v *validator) err() error {
	if v.code == "" {
		return nil
	}
	return apierr.New(v.code, v.messages...)
}

// parseRequest reads a body. What moves money is checked hard; what describes is
// checked for type and size alone. It reports everything that is wrong, at most 20
// rules.
func parseRequest(body jsontree.Value, rules rules) (Request, error) {
	if body.Kind() != jsontree.Object {
		return Request{}, apierr.New(apierr.InvalidRequest, "$ must be an object")
	}
	v := &validator{}
	r := Request{
		MerchantOrderID:   v.requiredText(body.Get("merchant_order_id"), minText, maxText),
		MerchantReference: v.text(body.Get("merchant_reference"), minText, maxText),
		Description:       v.requiredText(body.Get("description"), minText, maxText),
		CallbackURL:       v.text(body.Get("callback_url"), minText, maxCallbackURL),
		CustomerPayer:     v.descriptive(body.Get("customer_payer")),
		AdditionalData:    v.descriptive(body.Get("additional_data")),
	}
	if at := body.Get("account_id"); v.required(at) {
		r.AccountID, _ = at.Text()
		if !strings.EqualFold(r.AccountID, rules.accountID) {
			v.fail(apierr.InvalidAccountID, at, "must be the account of the API key")
		}
		r.AccountID = rules.accountID
	}
	if at := body.Get("country"); v.required(at) {
		r.Country, _ = at.Text()
		if !iso.Country(r.Country) {
			v.fail(apierr.CountryNotSupported, at, "must be an ISO 3166-1 alpha-2 country code in capitals")
		}
	}
	check := money.Check
	if verify, _ := body.Get("payment_method").Get("detail").Get("card").Get("verify").Bool(); verify {
		check = nothing
	}
	r.Amount, r.Currency = v.money(body.Get("amount"), check)
	v.workflow(&r, body)
	v.paymentMethod(&r, body.Get("payment_method"), rules)
	r.Metadata = v.metadata(body.Get("metadata"))
	v.unavailable(body.Get("split_marketplace"), jsontree.Array)
	v.unavailable(body.Get("subscription"), jsontree.Object)
	v.unavailable(body.Get("amount").Get("currency_conversion"), jsontree.Object)
	if at := v.object(body.Get("fraud_screening")).Get("stand_alone"); v.boolean(at, false) {
		v.invalid(at, "must be false: stand-alone screening is not available yet")
	}
	return r, v.err()
}

// money reads a required amount with its currency. check says whether that much may be
// asked for.
func (v *validator) money(at jsontree.Value, check func(amount decimal.Decimal, currency string) error) (amount decimal.Decimal, currency string) {
	if !v.required(at) {
		return amount, ""
	}
	v.object(at)
	if c := at.Get("currency"); v.required(c) {
		currency, _ = c.Text()
		if _, known := money.MinorUnits(currency); !known {
			v.fail(apierr.CurrencyNotAllowed, c, money.ErrCurrency.Error())
			currency = ""
		}
	}
	value := at.Get("value")
	if !v.required(value) {
		return amount, currency
	}
	raw, ok := value.Number()
	if !ok {
		raw, ok = value.Text()
	}
	if !ok {
		v.fail(apierr.InvalidAmount, value, "must be a number, or a string that holds one")
		return amount, currency
	}
	amount, err := money.Parse(raw)
	if err == nil && currency != "" {
		err = check(amount, currency)
	}
	if err != nil {
		v.fail(apierr.InvalidAmount, value, err.Error())
		return decimal.Decimal{}, currency
	}
	return amount, currency
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

func (v *validator) workflow(r *Request, body jsontree.Value) {
	at, session := body.Get("workflow"), body.Get("checkout").Get("session")
	v.object(body.Get("checkout"))
	sessionID := v.text(session, 0, maxText)
	r.Workflow = v.text(at, 1, maxText)
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
			v.fail(apierr.MissingParameters, session, "is required by this workflow")
			return
		}
		v.fail(apierr.CheckoutSessionNotFound, session, "must be a checkout session of this account")
	case "REDIRECT":
		v.fail(apierr.UnavailablePaymentMethod, at, "must not be REDIRECT: no redirect method is available")
	default:
		v.invalid(at, "must be DIRECT, SDK_CHECKOUT, CHECKOUT, SDK_SEAMLESS or REDIRECT")
	}
}

func (v *validator) paymentMethod(r *Request, at jsontree.Value, rules rules) {
	if !v.required(at) {
		return
	}
	v.object(at)
	for _, name := range []string{"vaulted_token", "token"} {
		if t := at.Get(name); v.text(t, 0, maxText) != "" {
			v.fail(apierr.InvalidToken, t, "must be a token of this account")
			return
		}
	}
	typ := at.Get("type")
	if !v.required(typ) {
		return
	}
	if s, _ := typ.Text(); s != categoryCard {
		v.fail(apierr.UnavailablePaymentMethod, typ, "must be CARD: no other payment method is available")
		return
	}
	if vault := at.Get("vault_on_success"); v.boolean(vault, false) {
		v.invalid(vault, "must be false: vaulting is not available yet")
	}
	v.card(r, v.object(at.Get("detail")).Get("card"), rules)
}

func (v *validator) card(r *Request, at jsontree.Value, rules rules) {
	if !v.required(at) {
		return
	}
	v.object(at)
	r.Capture = v.boolean(at.Get("capture"), true)
	r.Installments = v.integer(at.Get("installments"), 1, maxInstallments, 1)
	r.SoftDescriptor = v.text(at.Get("soft_descriptor"), 0, maxSoftDescriptor)
	r.StoredCredentials = v.descriptive(at.Get("stored_credentials"))
	r.Verify = v.boolean(at.Get("verify"), false)
	v.unavailable(at.Get("delayed_capture_settings"), jsontree.Object)
	v.unavailable(at.Get("delayed_cancel_settings"), jsontree.Object)

	data := at.Get("card_data")
	if !v.required(data) {
		return
	}
	v.object(data)
	r.Card.HolderName = v.text(data.Get("holder_name"), 1, maxHolderName)
	if number := data.Get("number"); v.required(number) {
		if !rules.rawCards {
			v.invalid(number, "must not be sent in live mode: this installation takes no raw card numbers")
			return
		}
		r.Card.Number = v.digits(number, minCardDigits, maxCardDigits)
		if r.Card.Number != "" && rules.luhn && !luhn(r.Card.Number) {
			v.invalid(number, "must be a valid card number")
		}
		if r.Card.Number != "" {
			r.CardFingerprint = rules.cardFingerprint(r.Card.Number)
			if rules.cardByOther != nil {
				r.cardByOther = rules.cardByOther(r.Card.Number)
			}
		}
	}
	if code := data.Get("security_code"); code.Given() {
		r.Card.SecurityCode = v.digits(code, minSecurityCode, maxSecurityCode)
	}
	if month := data.Get("expiration_month"); v.required(month) {
		r.Card.ExpirationMonth = v.integer(month, 1, 12, 0)
	}
	if year := data.Get("expiration_year"); v.required(year) {
		r.Card.ExpirationYear = v.year(year)
	}
}

// year reads two digits (28) or four (2028).
func (v *validator) year(at jsontree.Value) int {
	s, isNumber := at.Number()
	n, err := strconv.Atoi(s)
	switch {
	case isNumber && err == nil && n >= 0 && n <= maxExpirationYear:
		return 2000 + n
	case isNumber && err == nil && n >= 2000 && n <= 2000+maxExpirationYear:
		return n
	}
	v.invalid(at, "must be a year of two or four digits")
	return 0
}

// digits reads a string of lo to hi digits.
func (v *validator) digits(at jsontree.Value, lo, hi int) string {
	s, ok := at.Text()
	if !ok || len(s) < lo || len(s) > hi || strings.Trim(s, "0123456789") != "" {
		v.invalid(at, fmt.Sprintf("must be a string of %d to %d digits", lo, hi))
		return ""
	}
	return s
}

func (v *validator) metadata(at jsontree.Value) json.RawMessage {
	if !at.Given() {
		return nil
	}
	if at.Kind() != jsontree.Array || at.Len() > maxMetadata {
		v.invalid(at, "must be an array of at most 120 pairs of key and value")
		return nil
	}
	for pair := range at.Elements() {
		v.object(pair)
		v.requiredText(pair.Get("key"), 1, maxMetadataKey)
		v.requiredText(pair.Get("value"), 1, maxMetadataValue)
	}
	return metadataMembers.Pick(at).JSON()
}

// metadataMembers are what is kept of each pair.
var metadataMembers = jsontree.NewPaths("$[*].key", "$[*].value")

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
