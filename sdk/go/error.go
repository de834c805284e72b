package oncepay

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Code is the machine-readable name of an error, to branch on. Expect others, too: an
// installation may be newer than this client.
type Code string

// The codes of the API.
const (
	CodeAuthorizationRequired    Code = "AUTHORIZATION_REQUIRED"
	CodeChargebackInProcess      Code = "CHARGEBACK_IN_PROCESS"
	CodeCheckoutSessionNotFound  Code = "CHECKOUT_SESSION_NOT_FOUND"
	CodeCountryNotSupported      Code = "COUNTRY_NOT_SUPPORTED"
	CodeCurrencyNotAllowed       Code = "CURRENCY_NOT_ALLOWED"
	CodeCustomerIDDuplicated     Code = "CUSTOMER_ID_DUPLICATED"
	CodeCustomerNotFound         Code = "CUSTOMER_NOT_FOUND"
	CodeIdempotencyKeyReused     Code = "IDEMPOTENCY_KEY_REUSED"
	CodeInternalError            Code = "INTERNAL_ERROR"
	CodeInvalidAccountID         Code = "INVALID_ACCOUNT_ID"
	CodeInvalidAmount            Code = "INVALID_AMOUNT"
	CodeInvalidCredentials       Code = "INVALID_CREDENTIALS"
	CodeInvalidCustomerForToken  Code = "INVALID_CUSTOMER_FOR_TOKEN"
	CodeInvalidParameters        Code = "INVALID_PARAMETERS"
	CodeInvalidRequest           Code = "INVALID_REQUEST"
	CodeInvalidState             Code = "INVALID_STATE"
	CodeInvalidStatus            Code = "INVALID_STATUS"
	CodeInvalidToken             Code = "INVALID_TOKEN"
	CodeInvalidTransaction       Code = "INVALID_TRANSACTION"
	CodeInvalidTransactionType   Code = "INVALID_TRANSACTION_TYPE"
	CodeMissingParameters        Code = "MISSING_PARAMETERS"
	CodeNotFound                 Code = "NOT_FOUND"
	CodePaymentMethodNotFound    Code = "PAYMENT_METHOD_NOT_FOUND"
	CodePaymentNotFound          Code = "PAYMENT_NOT_FOUND"
	CodeProviderError            Code = "PROVIDER_ERROR"
	CodeProviderUnavailable      Code = "PROVIDER_UNAVAILABLE"
	CodeRateLimited              Code = "RATE_LIMITED"
	CodeRequestInProcess         Code = "REQUEST_IN_PROCESS"
	CodeRequestTimeout           Code = "REQUEST_TIMEOUT"
	CodeRequestTooLarge          Code = "REQUEST_TOO_LARGE"
	CodeServiceUnavailable       Code = "SERVICE_UNAVAILABLE"
	CodeTokenInUse               Code = "TOKEN_IN_USE"
	CodeTransactionNotFound      Code = "TRANSACTION_NOT_FOUND"
	CodeUnavailablePaymentMethod Code = "UNAVAILABLE_PAYMENT_METHOD"
	CodeUnknownIPAddress         Code = "UNKNOWN_IP_ADDRESS"
	CodeUnsupportedMediaType     Code = "UNSUPPORTED_MEDIA_TYPE"
	CodeUnsupportedMethod        Code = "UNSUPPORTED_METHOD"
)

// ErrOutcomeUnknown is found (errors.Is) in the error of a call if its operation may have
// happened. The same operation may be tried again, now or later, with the same parameters,
// and money still moves once. Another operation may not: it could pay a second time.
var ErrOutcomeUnknown = errors.New("the outcome is unknown: try the same operation again, not another one")

// Error is what the API, or whoever answered in its place, said instead of doing it.
type Error struct {
	// Status is HTTP's.
	Status int
	// Code is empty where it was not the API that answered.
	Code Code
	// Messages name a place, by its JSON path, and a rule; never what was sent.
	Messages []string
	// RequestID finds the request in the API's logs.
	RequestID string
	// DocURL is the page that explains the code, relative to the API.
	DocURL string
	// RetryAfter is when the API asks to come back; 0 where it says nothing.
	RetryAfter time.Duration
}

// Error is for people.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d", e.Status)
	if e.Code != "" {
		b.WriteString(" " + string(e.Code))
	}
	if len(e.Messages) > 0 {
		b.WriteString(": " + strings.Join(e.Messages, "; "))
	}
	if e.RequestID != "" {
		b.WriteString(" (request " + e.RequestID + ")")
	}
	return b.String()
}

// readError reads the API's envelope. A body in any other form, such as a proxy's page,
// leaves the code empty and is not quoted.
func readError(status int, body []byte, requestID string, after time.Duration) *Error {
	var wire struct {
		Code      Code     `json:"code"`
		Messages  []string `json:"messages"`
		RequestID string   `json:"request_id"`
		DocURL    string   `json:"doc_url"`
	}
	e := &Error{Status: status, RequestID: requestID, RetryAfter: after}
	if json.Unmarshal(body, &wire) != nil {
		return e
	}
	e.Code, e.Messages, e.DocURL = wire.Code, wire.Messages, wire.DocURL
	if wire.RequestID != "" {
		e.RequestID = wire.RequestID
	}
	return e
}

// CallError is why a call ended without what was asked for. It holds (errors.Is,
// errors.As) the last attempt's error, which is an *Error if something was answered, and
// ErrOutcomeUnknown if that is so.
type CallError struct {
	Call     string // what was asked for, such as "create payment"
	Nonce    string // empty where there is none
	Attempts int    // 0: nothing was sent
	// Decision says why it was not tried once more.
	Decision Decision
	// Err is the last attempt's.
	Err     error
	unknown bool
}

// Error is for people.
func (e *CallError) Error() string {
	text := fmt.Sprintf("oncepay: %s: %v; after %d attempts: %s", e.Call, e.Err, e.Attempts, e.Decision.Reason)
	if e.unknown {
		text += "; " + ErrOutcomeUnknown.Error()
	}
	return text
}

// Unwrap lets errors.Is and errors.As see what it holds.
func (e *CallError) Unwrap() []error {
	if e.unknown {
		return []error{ErrOutcomeUnknown, e.Err}
	}
	return []error{e.Err}
}
