package transactions

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/money"
	"github.com/oncepay/oncepay/internal/providers"
)

// The wire shapes of a payment. Field by field the contract's; null and empty
// values included, because clients read them. What nothing fills in yet (routing,
// receipts, the issuer's data) is there as null or empty. testdata/shapes lists every
// path with its type, and what is left out on purpose.

// maxShownTransactions is how many of a payment's transactions one answer shows: its
// first, and the newest. Each shows the card once more, and with it stored credentials
// of up to 64 KiB.
const maxShownTransactions = 100

// view is what a reader wants to see beside the payment itself.
type view struct {
	history, raw bool
	browser      bool // the payer's: without what is between merchant and provider
}

type wirePayment struct {
	ID                string            `json:"id"`
	AccountID         string            `json:"account_id"`
	AccountCode       string            `json:"account_code"` // the account's id once more
	Description       string            `json:"description"`
	Country           string            `json:"country"`
	Status            string            `json:"status"`
	SubStatus         string            `json:"sub_status"`
	MerchantOrderID   string            `json:"merchant_order_id"`
	MerchantReference *string           `json:"merchant_reference"`
	CreatedAt         string            `json:"created_at"`
	UpdatedAt         string            `json:"updated_at"`
	Amount            wireAmount        `json:"amount"`
	Checkout          wireCheckout      `json:"checkout"`
	PaymentMethod     wirePaymentMethod `json:"payment_method"`
	CustomerPayer     json.RawMessage   `json:"customer_payer"`
	AdditionalData    json.RawMessage   `json:"additional_data"`
	Transactions      any               `json:"transactions"` // an object where one call made it, else an array
	History           []wireTransaction `json:"transactions_history"`
	Taxes             *struct{}         `json:"taxes"`
	Split             []struct{}        `json:"split"`
	SplitMarketplace  []struct{}        `json:"split_marketplace"`
	CallbackURL       string            `json:"callback_url"`
	Workflow          string            `json:"workflow"`
	Metadata          json.RawMessage   `json:"metadata"`
	FraudScreening    *struct{}         `json:"fraud_screening"`
	PaymentLinkID     string            `json:"payment_link_id"`
	PaymentLinkCode   string            `json:"payment_link_code"`
	RoutingRules      wireRoutingRules  `json:"routing_rules"`
	SubscriptionCode  *string           `json:"subscription_code"`
	SDKActionRequired bool              `json:"sdk_action_required"`
	SimplifiedMode    bool              `json:"simplified_mode"`
	IdempotencyKey    string            `json:"idempotency_key"`
	Version           int64             `json:"version"`
}

type wireRoutingRules struct {
	SmartRouting bool          `json:"smart_routing"`
	Monitors     bool          `json:"monitors"`
	Condition    wireCondition `json:"condition"`
}

type wireCondition struct {
	ID          *int    `json:"id"`
	Name        *string `json:"name"`
	Description *string `json:"description"`
}

type wireAmount struct {
	Captured           json.RawMessage `json:"captured"`
	Currency           string          `json:"currency"`
	CurrencyConversion *struct{}       `json:"currency_conversion"`
	Refunded           json.RawMessage `json:"refunded"`
	Value              json.RawMessage `json:"value"`
}

type wireCheckout struct {
	Session           string `json:"session"`
	SDKActionRequired bool   `json:"sdk_action_required"`
}

type wirePaymentMethod struct {
	VaultedToken            string      `json:"vaulted_token"`
	Type                    string      `json:"type"`
	VaultOnSuccess          bool        `json:"vault_on_success"`
	Token                   string      `json:"token"`
	ParentPaymentMethodType *string     `json:"parent_payment_method_type"`
	PaymentMethodDetail     *wireDetail `json:"payment_method_detail,omitempty"` // in a payment
	Detail                  *wireDetail `json:"detail,omitempty"`                // in a transaction
}

type wireDetail struct {
	Card wireCard `json:"card"`
}

type wireCard struct {
	Verify                   bool            `json:"verify"`
	Capture                  bool            `json:"capture"`
	Installments             int             `json:"installments"`
	InstallmentsPlanID       *string         `json:"installments_plan_id"`
	FirstInstallmentDeferral int             `json:"first_installment_deferral"`
	InstallmentsType         string          `json:"installments_type"`
	InstallmentAmount        *struct{}       `json:"installment_amount"`
	SoftDescriptor           string          `json:"soft_descriptor"`
	AuthorizationCode        string          `json:"authorization_code"`
	RetrievalReferenceNumber string          `json:"retrieval_reference_number"`
	AcquirerReferenceNumber  string          `json:"acquirer_reference_number"`
	Voucher                  *struct{}       `json:"voucher"`
	RedirectURL              *string         `json:"redirect_url"` // where the payer has to go now
	CardData                 wireCardData    `json:"card_data"`
	StoredCredentials        json.RawMessage `json:"stored_credentials"`
}

// wireCardData is what is kept of a card, with what only an issuer could tell.
type wireCardData struct {
	KeptCard
	IssuerName   *string          `json:"issuer_name"`
	IssuerCode   *string          `json:"issuer_code"`
	CountryCode  *string          `json:"country_code"`
	Category     *string          `json:"category"`
	Type         *string          `json:"type"`
	ThreeDSecure wireThreeDSecure `json:"three_d_secure"`
}

// wireThreeDSecure is what an authentication could tell. The provider does them, and
// tells us how they ended.
type wireThreeDSecure struct {
	Token                        *string `json:"token"`
	CollectURL                   *string `json:"collect_url"`
	SetupReferenceID             *string `json:"setup_reference_id"`
	SetupID                      *string `json:"three_d_secure_setup_id"`
	DeveloperID                  *string `json:"developer_id"`
	SolutionID                   *string `json:"solution_id"`
	Code                         *string `json:"code"`
	Version                      *string `json:"version"`
	ElectronicCommerceIndicator  *string `json:"electronic_commerce_indicator"`
	Cryptogram                   *string `json:"cryptogram"`
	TransactionID                *string `json:"transaction_id"`
	DirectoryServerTransactionID *string `json:"directory_server_transaction_id"`
	PaRESStatus                  *string `json:"pares_status"`
	ACSID                        *string `json:"acs_id"`
	DSID                         *string `json:"ds_id"`
}

type wireTransaction struct {
	ID              string            `json:"id"`
	Type            Type              `json:"type"`
	Status          Status            `json:"status"`
	Category        string            `json:"category"`
	Amount          json.RawMessage   `json:"amount"`
	ProviderID      string            `json:"provider_id"`
	PaymentMethod   wirePaymentMethod `json:"payment_method"`
	ResponseCode    *string           `json:"response_code"`
	ResponseMessage *string           `json:"response_message"`
	wireAdvice
	ChallengeRequired *bool              `json:"three_d_secure_action_required"`
	Reason            *string            `json:"reason"`
	Description       string             `json:"description"`
	MerchantReference *string            `json:"merchant_reference"`
	ProviderData      wireProviderData   `json:"provider_data"`
	ConnectionData    wireConnectionData `json:"connection_data"`
	CreatedAt         string             `json:"created_at"`
	UpdatedAt         string             `json:"updated_at"`
}

// wireAdvice is what a card network advises after a decline.
type wireAdvice struct {
	AdviceCode    *string `json:"merchant_advice_code"`
	AdviceMessage *string `json:"merchant_advice_code_message"`
}

type wireProviderData struct {
	ID                      string          `json:"id"`
	TransactionID           string          `json:"transaction_id"`
	AccountID               string          `json:"account_id"`
	Status                  string          `json:"status"`
	SubStatus               string          `json:"sub_status"`
	StatusDetail            string          `json:"status_detail"`
	ResponseMessage         *string         `json:"response_message"`
	ResponseCode            *string         `json:"response_code"`
	RawResponse             json.RawMessage `json:"raw_response"`
	ThirdPartyTransactionID string          `json:"third_party_transaction_id"`
	ThirdPartyAccountID     *string         `json:"third_party_account_id"`
	ISO8583ResponseCode     *string         `json:"iso8583_response_code"`
	ISO8583ResponseMessage  *string         `json:"iso8583_response_message"`
	wireAdvice
}

type wireConnectionData struct {
	ID   *string `json:"id"`
	Name *string `json:"name"`
}

var errStoredShape = errors.New("a stored request or card cannot be read") // the cause may quote it

// presentOutcome is the answer to the call that made t, which is how p came to be as it
// is: the payment with t as its `transactions`, an object; or t with the payment in it.
func presentOutcome(p Payment, t Transaction) (body []byte, status int, err error) {
	var kept keptAction
	if t.TargetID.Valid && json.Unmarshal([]byte(t.Request), &kept) != nil {
		return nil, 0, errStoredShape
	}
	switch kept.Route {
	case RouteCapture, RouteCancel:
		body, err = presentAction(p, t, kept)
		return body, http.StatusOK, err
	case RouteCancelOrRefund:
		body, err = presentAction(p, t, kept)
		return body, http.StatusCreated, err
	case RouteRefund:
		status = http.StatusOK
	default:
		status = http.StatusCreated
	}
	w, one, err := present(p, []Transaction{t}, view{browser: paidByBrowser(p)})
	if err != nil {
		return nil, 0, err
	}
	w.Transactions = one[0]
	if kept.Route == "" { // the call that created the payment made all of its history
		w.History = one
	}
	body, err = encode(w)
	return body, status, err
}

// paidByBrowser reports whether it was the payer's browser that asked for a payment.
func paidByBrowser(p Payment) bool {
	var kept struct{ Workflow string }
	return json.Unmarshal([]byte(p.Request), &kept) == nil && kept.Workflow == WorkflowSeamless
}

// presentPayment is a payment with its transactions, an array, newest first.
func presentPayment(p Payment, ts []Transaction, v view) (wirePayment, error) {
	w, all, err := present(p, ts, v)
	w.Transactions = all
	if v.history {
		w.History = all
	}
	return w, err
}

func encode(w any) ([]byte, error) {
	b, err := json.Marshal(w)
	if err != nil {
		return nil, errStoredShape
	}
	return append(b, '\n'), nil
}

// present is p without its transactions, and those.
func present(p Payment, ts []Transaction, v view) (wirePayment, []wireTransaction, error) {
	var kept keptRequest
	if json.Unmarshal([]byte(p.Request), &kept) != nil {
		return wirePayment{}, nil, errStoredShape
	}
	all := make([]wireTransaction, 0, len(ts))
	challenged := p.state() == PaymentChallenged
	if v.browser {
		kept.StoredCredentials = nil
	}
	credentials := presentCredentials(kept.StoredCredentials)
	var first wireCard
	for i, t := range ts {
		card, err := presentCard(kept, t, credentials)
		if err != nil {
			return wirePayment{}, nil, err
		}
		if v.browser {
			card.CardData.Fingerprint = ""
		}
		if i == len(ts)-1 { // the transaction that created the payment
			first = card
		}
		one, err := presentTransaction(kept, t, card, v)
		if err != nil {
			return wirePayment{}, nil, err
		}
		all = append(all, one)
	}
	nonce := nonceOf(ts)
	if v.browser {
		if kept.Workflow != WorkflowSeamless { // then it is the merchant's, not the browser's own
			nonce = ""
		}
		kept.CustomerPayer, kept.AdditionalData, kept.Metadata, kept.MerchantReference = nil, nil, nil, ""
	}
	return wirePayment{
		ID: p.ID.String(), AccountID: p.AccountID.String(), AccountCode: p.AccountID.String(), Description: kept.Description, Country: kept.Country,
		Status: p.Status, SubStatus: p.SubStatus, MerchantOrderID: p.MerchantOrderID, MerchantReference: orNull(kept.MerchantReference),
		CreatedAt: httpapi.Timestamp(p.CreatedAt), UpdatedAt: httpapi.Timestamp(p.UpdatedAt),
		Amount:         presentAmount(p),
		Checkout:       wireCheckout{Session: kept.Session, SDKActionRequired: challenged},
		PaymentMethod:  presentMethod(kept, ts, wirePaymentMethod{PaymentMethodDetail: &wireDetail{first}}),
		CustomerPayer:  or(kept.CustomerPayer, "{}"),
		AdditionalData: or(kept.AdditionalData, "null"),
		History:        []wireTransaction{},
		Split:          []struct{}{},
		CallbackURL:    kept.CallbackURL,
		Workflow:       kept.Workflow,
		Metadata:       or(kept.Metadata, "[]"),
		IdempotencyKey: nonce,
		Version:        p.Version,

		PaymentLinkID:     kept.LinkID,
		PaymentLinkCode:   kept.LinkCode,
		SDKActionRequired: challenged,
		SplitMarketplace:  []struct{}{},
	}, all, nil
}

// presentMethod completes m with what the payment was made with. The last of ts is the
// transaction that created it, as far as the reader sees it.
func presentMethod(kept keptRequest, ts []Transaction, m wirePaymentMethod) wirePaymentMethod {
	m.Type, m.Token, m.VaultedToken, m.VaultOnSuccess = categoryCard, kept.Token, kept.VaultedToken, kept.VaultOnSuccess
	if kept.NewCard != "" && len(ts) > 0 && ts[len(ts)-1].Status == Succeeded {
		m.VaultedToken = kept.NewCard
	}
	return m
}

func presentAmount(p Payment) wireAmount {
	return wireAmount{
		Captured: money.JSONNumber(p.Captured), Currency: p.Currency, Refunded: money.JSONNumber(p.Refunded), Value: money.JSONNumber(p.Amount),
	}
}

func presentCard(kept keptRequest, t Transaction, credentials json.RawMessage) (wireCard, error) {
	var card KeptCard
	if json.Unmarshal([]byte(t.Card), &card) != nil {
		return wireCard{}, errStoredShape
	}
	return wireCard{
		Verify: kept.Verify, Capture: kept.Capture, RedirectURL: orNull(t.redirect()), Installments: kept.Installments, SoftDescriptor: kept.SoftDescriptor,
		AuthorizationCode: t.AuthorizationCode, CardData: wireCardData{KeptCard: card}, StoredCredentials: credentials,
	}, nil
}

// credentialMembers are what the contract names of stored credentials.
var credentialMembers = []string{"reason", "usage", "subscription_agreement_id", "network_transaction_id"}

// presentCredentials is what was sent of stored credentials, an object or nothing, and
// null for whatever else the contract names.
func presentCredentials(sent json.RawMessage) json.RawMessage {
	members := map[string]json.RawMessage{}
	if json.Unmarshal(or(sent, "{}"), &members) != nil || members == nil {
		members, sent = map[string]json.RawMessage{}, nil
	}
	all := bytes.TrimSuffix(or(sent, "{}"), []byte("}"))
	all = all[:len(all):len(all)] // what was read is not ours to change
	for _, name := range credentialMembers {
		if _, known := members[name]; known {
			continue
		}
		if len(all) > 1 {
			all = append(all, ',')
		}
		all = append(all, `"`+name+`":null`...)
	}
	return append(all, '}')
}

func presentTransaction(kept keptRequest, t Transaction, card wireCard, v view) (wireTransaction, error) {
	told := keptAction{Description: kept.Description, MerchantReference: kept.MerchantReference}
	if t.Type.acts() { // whoever asked for it said so themselves
		told = keptAction{}
		if json.Unmarshal([]byte(t.Request), &told) != nil {
			return wireTransaction{}, errStoredShape
		}
	}
	w := wireTransaction{
		ID: t.ID.String(), Type: t.Type, Status: t.Status, Category: categoryCard, Amount: money.JSONNumber(t.Amount), ProviderID: t.Provider,
		PaymentMethod: presentMethod(kept, []Transaction{t}, wirePaymentMethod{Detail: &wireDetail{card}}),
		ResponseCode:  orNull(t.ResponseCode), ResponseMessage: orNull(responseMessage(t.ResponseCode)),
		Reason: orNull(told.Reason), Description: told.Description, MerchantReference: orNull(told.MerchantReference),
		ProviderData: presentProviderData(t, v.raw),
		CreatedAt:    httpapi.Timestamp(t.CreatedAt), UpdatedAt: httpapi.Timestamp(t.UpdatedAt),
	}
	if card.RedirectURL != nil {
		w.ChallengeRequired = new(true)
	}
	if v.browser {
		w.MerchantReference, w.ProviderData = nil, wireProviderData{Status: string(t.Status)}
	}
	return w, nil
}

// redirect is where the payer has to go, or "".
func (t Transaction) redirect() string {
	if t.Status != Pending {
		return ""
	}
	return t.RedirectURL
}

// presentProviderData is what the provider calls t, with its own answer if raw says so.
func presentProviderData(t Transaction, raw bool) wireProviderData {
	d := wireProviderData{ID: t.Provider, TransactionID: t.ProviderReference, Status: string(t.Status)}
	if raw && t.RawResponse != "" {
		d.RawResponse = json.RawMessage(t.RawResponse)
	}
	return d
}

// ownMessages are for the response codes that we give ourselves: what a provider has
// accepted, let run out, or told of a dispute.
var ownMessages = map[string]string{
	challengeCode:    "The payer has to pass a challenge",
	waitingCode:      "The provider has not decided yet",
	expiredCode:      "The time to decide about it ran out",
	"RECEIVED":       "A dispute was received",
	"PENDING_REVIEW": "The dispute is being reviewed",
	"REVIEW_WON":     "The dispute was won",
	"REVIEW_LOST":    "The dispute was lost",
}

func responseMessage(code string) string {
	if code == "" {
		return ""
	}
	if own, known := ownMessages[code]; known {
		return own
	}
	return providers.Message(code)
}

// nonceOf is the nonce that created the payment.
func nonceOf(ts []Transaction) string {
	if len(ts) == 0 {
		return ""
	}
	return ts[len(ts)-1].sentNonce()
}

func or(raw json.RawMessage, other string) json.RawMessage {
	if len(raw) == 0 {
		return json.RawMessage(other)
	}
	return raw
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
