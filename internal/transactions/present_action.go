package transactions

import (
	"encoding/json"

	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/money"
)

// The wire shape of a capture, a cancellation, or what a cancel-or-refund came to: the
// transaction, with the payment as it is now nested in it.

type wireAction struct {
	ID                string           `json:"id"`
	Type              Type             `json:"type"`
	Status            Status           `json:"status"`
	Category          string           `json:"category"`
	Amount            wireAmount       `json:"amount"`
	MerchantReference *string          `json:"merchant_reference"`
	Description       string           `json:"description"`
	Reason            *string          `json:"reason"`
	CreatedAt         string           `json:"created_at"`
	UpdatedAt         string           `json:"updated_at"`
	ProviderData      wireProviderData `json:"provider_data"`
	ResponseCode      *string          `json:"response_code"`
	ResponseMessage   *string          `json:"response_message"`
	wireAdvice
	Payment         wireNested `json:"payment"`
	CustomerPayer   *struct{}  `json:"customer_payer"`
	SimplifiedMode  bool       `json:"simplified_mode"`
	Receipt         bool       `json:"receipt"`
	ReceiptURL      *string    `json:"receipt_url"`
	ReceiptLanguage *string    `json:"receipt_language"`
	IdempotencyKey  string     `json:"idempotency_key"`
}

// wireNested is a payment within one of its transactions.
type wireNested struct {
	ID               string          `json:"id"`
	AccountID        string          `json:"account_id"`
	Description      string          `json:"description"`
	Country          string          `json:"country"`
	Status           string          `json:"status"`
	SubStatus        string          `json:"sub_status"`
	MerchantOrderID  string          `json:"merchant_order_id"`
	CreatedAt        string          `json:"created_at"`
	UpdatedAt        string          `json:"updated_at"`
	Amount           wireAmount      `json:"amount"`
	AdditionalData   json.RawMessage `json:"additional_data"` // the action's own, else the payment's
	SplitMarketplace []struct{}      `json:"split_marketplace"`
	Version          int64           `json:"version"`
}

// presentAction is t with p in it.
func presentAction(p Payment, t Transaction, a keptAction) ([]byte, error) {
	var kept keptRequest
	if json.Unmarshal([]byte(p.Request), &kept) != nil {
		return nil, errStoredShape
	}
	return encode(wireAction{
		ID: t.ID.String(), Type: t.Type, Status: t.Status, Category: categoryCard,
		Amount: wireAmount{
			Captured: money.JSONNumber(decimal.Zero), Currency: t.Currency, Refunded: money.JSONNumber(t.Refunded), Value: money.JSONNumber(t.Amount),
		},
		MerchantReference: orNull(a.MerchantReference), Description: a.Description, Reason: orNull(a.Reason),
		CreatedAt: httpapi.Timestamp(t.CreatedAt), UpdatedAt: httpapi.Timestamp(t.UpdatedAt),
		ProviderData: presentProviderData(t, false),
		ResponseCode: orNull(t.ResponseCode), ResponseMessage: orNull(responseMessage(t.ResponseCode)),
		Payment: wireNested{
			ID: p.ID.String(), AccountID: p.AccountID.String(), Description: kept.Description, Country: kept.Country,
			Status: p.Status, SubStatus: p.SubStatus, MerchantOrderID: p.MerchantOrderID,
			CreatedAt: httpapi.Timestamp(p.CreatedAt), UpdatedAt: httpapi.Timestamp(p.UpdatedAt),
			Amount: presentAmount(p), AdditionalData: or(a.AdditionalData, string(or(kept.AdditionalData, "null"))),
			SplitMarketplace: []struct{}{}, Version: p.Version,
		},
		IdempotencyKey: t.sentNonce(),
	})
}
