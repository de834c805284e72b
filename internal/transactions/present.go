package transactions

import (
	"encoding/json"
	"errors"

	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/money"
	"github.com/oncepay/oncepay/internal/providers"
)

// The wire shapes of a payment. Field by field the contract's; null and empty
// values included, because clients read them. What nothing fills in yet (history,
// routing, raw answers, the issuer's data) is there as null or empty.

type wirePayment struct {
	ID                string            `json:"id"`
	AccountID         string            `json:"account_id"`
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
	History           []struct{}        `json:"transactions_history"`
	Taxes             *struct{}         `json:"taxes"`
	Split             []struct{}        `json:"split"`
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
	SmartRouting bool      `json:"smart_routing"`
	Monitors     bool      `json:"monitors"`
	Condition    *struct{} `json:"condition"`
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
	FirstInstallmentDeferral int             `json:"first_installment_deferral"`
	InstallmentsType         string          `json:"installments_type"`
	InstallmentAmount        *struct{}       `json:"installment_amount"`
	SoftDescriptor           string          `json:"soft_descriptor"`
	AuthorizationCode        string          `json:"authorization_code"`
	RetrievalReferenceNumber string          `json:"retrieval_reference_number"`
	AcquirerReferenceNumber  string          `json:"acquirer_reference_number"`
	Voucher                  *struct{}       `json:"voucher"`
	CardData                 wireCardData    `json:"card_data"`
	StoredCredentials        json.RawMessage `json:"stored_credentials"`
}

// wireCardData is what is kept of a card, with what only an issuer could tell.
type wireCardData struct {
	keptCard
	IssuerName   *string          `json:"issuer_name"`
	IssuerCode   *string          `json:"issuer_code"`
	CountryCode  *string          `json:"country_code"`
	Category     *string          `json:"category"`
	Type         *string          `json:"type"`
	ThreeDSecure wireThreeDSecure `json:"three_d_secure"`
}

type wireThreeDSecure struct {
	Version                      *string `json:"version"`
	ElectronicCommerceIndicator  *string `json:"electronic_commerce_indicator"`
	Cryptogram                   *string `json:"cryptogram"`
	TransactionID                *string `json:"transaction_id"`
	DirectoryServerTransactionID *string `json:"directory_server_transaction_id"`
	PaRESStatus                  *string `json:"pares_status"`
	ACSID                        *string `json:"acs_id"`
}

type wireTransaction struct {
	ID                string             `json:"id"`
	Type              Type               `json:"type"`
	Status            Status             `json:"status"`
	Category          string             `json:"category"`
	Amount            json.RawMessage    `json:"amount"`
	ProviderID        string             `json:"provider_id"`
	PaymentMethod     wirePaymentMethod  `json:"payment_method"`
	ResponseCode      *string            `json:"response_code"`
	ResponseMessage   *string            `json:"response_message"`
	Reason            *string            `json:"reason"`
	Description       string             `json:"description"`
	MerchantReference *string            `json:"merchant_reference"`
	ProviderData      wireProviderData   `json:"provider_data"`
	ConnectionData    wireConnectionData `json:"connection_data"`
	CreatedAt         string             `json:"created_at"`
	UpdatedAt         string             `json:"updated_at"`
}

type wireProviderData struct {
	ID                      string    `json:"id"`
	TransactionID           string    `json:"transaction_id"`
	AccountID               string    `json:"account_id"`
	Status                  string    `json:"status"`
	SubStatus               string    `json:"sub_status"`
	StatusDetail            string    `json:"status_detail"`
	ResponseMessage         *string   `json:"response_message"`
	ResponseCode            *string   `json:"response_code"`
	RawResponse             *struct{} `json:"raw_response"`
	ThirdPartyTransactionID string    `json:"third_party_transaction_id"`
	ISO8583ResponseCode     *string   `json:"iso8583_response_code"`
	ISO8583ResponseMessage  *string   `json:"iso8583_response_message"`
}

type wireConnectionData struct {
	ID   *string `json:"id"`
	Name *string `json:"name"`
}

var errStoredShape = errors.New("a stored request or card cannot be read") // the cause may quote it

// presentCreated is the answer to the call that made this transaction:
// `transactions` is that one, an object.
func presentCreated(p Payment, t Transaction) ([]byte, error) {
	w, one, err := present(p, []Transaction{t})
	if err != nil {
		return nil, err
	}
	w.Transactions = one[0]
	return encode(w)
}

// presentPayment is a payment with its transactions, an array, newest first.
func presentPayment(p Payment, ts []Transaction) (wirePayment, error) {
	w, all, err := present(p, ts)
	w.Transactions = all
	return w, err
}

func encode(w any) ([]byte, error) {
	b, err := json.Marshal(w)
	if err != nil {
		return nil, errStoredShape
	}
	return append(b, '\n'), nil
}

func present(p Payment, ts []Transaction) (wirePayment, []wireTransaction, error) {
	var kept keptRequest
	if json.Unmarshal([]byte(p.Request), &kept) != nil {
		return wirePayment{}, nil, errStoredShape
	}
	all := make([]wireTransaction, 0, len(ts))
	var first wireCard
	for i, t := range ts {
		card, err := presentCard(kept, t)
		if err != nil {
			return wirePayment{}, nil, err
		}
		if i == len(ts)-1 { // the transaction that created the payment
			first = card
		}
		all = append(all, presentTransaction(kept, t, card))
	}
	return wirePayment{
		ID: p.ID.String(), AccountID: p.AccountID.String(), Description: kept.Description, Country: kept.Country,
		Status: p.Status, SubStatus: p.SubStatus, MerchantOrderID: p.MerchantOrderID, MerchantReference: orNull(kept.MerchantReference),
		CreatedAt: httpapi.Timestamp(p.CreatedAt), UpdatedAt: httpapi.Timestamp(p.UpdatedAt),
		Amount: wireAmount{
			Captured: money.JSONNumber(p.Captured), Currency: p.Currency, Refunded: money.JSONNumber(p.Refunded), Value: money.JSONNumber(p.Amount),
		},
		PaymentMethod:  wirePaymentMethod{Type: categoryCard, PaymentMethodDetail: &wireDetail{first}},
		CustomerPayer:  or(kept.CustomerPayer, "{}"),
		AdditionalData: or(kept.AdditionalData, "null"),
		History:        []struct{}{},
		Split:          []struct{}{},
		CallbackURL:    kept.CallbackURL,
		Workflow:       kept.Workflow,
		Metadata:       or(kept.Metadata, "[]"),
		IdempotencyKey: nonceOf(ts),
		Version:        p.Version,
	}, all, nil
}

func presentCard(kept keptRequest, t Transaction) (wireCard, error) {
	var card keptCard
	if json.Unmarshal([]byte(t.Card), &card) != nil {
		return wireCard{}, errStoredShape
	}
	return wireCard{
		Capture: t.Type == Purchase, Installments: kept.Installments, SoftDescriptor: kept.SoftDescriptor,
		AuthorizationCode: t.AuthorizationCode, CardData: wireCardData{keptCard: card}, StoredCredentials: or(kept.StoredCredentials, "null"),
	}, nil
}

func presentTransaction(kept keptRequest, t Transaction, card wireCard) wireTransaction {
	return wireTransaction{
		ID: t.ID.String(), Type: t.Type, Status: t.Status, Category: categoryCard, Amount: money.JSONNumber(t.Amount), ProviderID: t.Provider,
		PaymentMethod: wirePaymentMethod{Type: categoryCard, Detail: &wireDetail{card}},
		ResponseCode:  orNull(t.ResponseCode), ResponseMessage: orNull(responseMessage(t.ResponseCode)),
		Description: kept.Description, MerchantReference: orNull(kept.MerchantReference),
		ProviderData: wireProviderData{ID: t.Provider, TransactionID: t.ProviderReference, Status: string(t.Status)},
		CreatedAt:    httpapi.Timestamp(t.CreatedAt), UpdatedAt: httpapi.Timestamp(t.UpdatedAt),
	}
}

func responseMessage(code string) string {
	if code == "" {
		return ""
	}
	return providers.Message(code)
}

// nonceOf is the nonce that created the payment.
func nonceOf(ts []Transaction) string {
	if len(ts) == 0 {
		return ""
	}
	return ts[len(ts)-1].Nonce
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
