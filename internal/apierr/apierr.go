// Package apierr holds what a client may hear when a request fails: one closed
// set of codes, the HTTP status each one travels with, and messages that name
// a field and a rule but never the value that was sent (it may be a card
// number).
//
// An Error is an answer, not a surprise: code that does not know what happened
// returns an ordinary error, which the edge turns into INTERNAL_ERROR.
package apierr

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// Code is the stable, machine-readable name of an error. Clients branch on it.
type Code string

// The codes of the wire contract that exist so far.
const (
	InvalidRequest           Code = "INVALID_REQUEST"
	InvalidParameters        Code = "INVALID_PARAMETERS"
	MissingParameters        Code = "MISSING_PARAMETERS"
	InvalidAmount            Code = "INVALID_AMOUNT"
	InvalidAccountID         Code = "INVALID_ACCOUNT_ID"
	CountryNotSupported      Code = "COUNTRY_NOT_SUPPORTED"
	CurrencyNotAllowed       Code = "CURRENCY_NOT_ALLOWED"
	UnavailablePaymentMethod Code = "UNAVAILABLE_PAYMENT_METHOD"
	InvalidStatus            Code = "INVALID_STATUS"
	InvalidTransaction       Code = "INVALID_TRANSACTION"
	InvalidTransactionType   Code = "INVALID_TRANSACTION_TYPE"
	ChargebackInProcess      Code = "CHARGEBACK_IN_PROCESS"
	CustomerIDDuplicated     Code = "CUSTOMER_ID_DUPLICATED"
	PaymentNotFound          Code = "PAYMENT_NOT_FOUND"
	TransactionNotFound      Code = "TRANSACTION_NOT_FOUND"
	PaymentMethodNotFound    Code = "PAYMENT_METHOD_NOT_FOUND"
	CheckoutSessionNotFound  Code = "CHECKOUT_SESSION_NOT_FOUND"
	CustomerNotFound         Code = "CUSTOMER_NOT_FOUND"
	InvalidState             Code = "INVALID_STATE"
	InvalidCredentials       Code = "INVALID_CREDENTIALS"
	UnknownIPAddress         Code = "UNKNOWN_IP_ADDRESS"
	AuthorizationRequired    Code = "AUTHORIZATION_REQUIRED"
	InvalidToken             Code = "INVALID_TOKEN"
	TokenInUse               Code = "TOKEN_IN_USE"
	InvalidCustomerForToken  Code = "INVALID_CUSTOMER_FOR_TOKEN"
	NotFound                 Code = "NOT_FOUND"
	UnsupportedMethod        Code = "UNSUPPORTED_METHOD"
	RequestTimeout           Code = "REQUEST_TIMEOUT"
	RequestInProcess         Code = "REQUEST_IN_PROCESS"
	RequestTooLarge          Code = "REQUEST_TOO_LARGE"
	UnsupportedMediaType     Code = "UNSUPPORTED_MEDIA_TYPE"
	IdempotencyKeyReused     Code = "IDEMPOTENCY_KEY_REUSED"
	RateLimited              Code = "RATE_LIMITED"
	InternalError            Code = "INTERNAL_ERROR"
	ProviderError            Code = "PROVIDER_ERROR"
	ProviderUnavailable      Code = "PROVIDER_UNAVAILABLE"
	ServiceUnavailable       Code = "SERVICE_UNAVAILABLE"
)

// status is the one map from a code to HTTP. REQUEST_TIMEOUT is the exception:
// 504 when a provider did not answer, 408 when the client's upload was slow.
var status = map[Code]int{
	InvalidRequest:           http.StatusBadRequest,
	InvalidParameters:        http.StatusBadRequest,
	MissingParameters:        http.StatusBadRequest,
	InvalidAmount:            http.StatusBadRequest,
	InvalidAccountID:         http.StatusBadRequest,
	CountryNotSupported:      http.StatusBadRequest,
	CurrencyNotAllowed:       http.StatusBadRequest,
	UnavailablePaymentMethod: http.StatusBadRequest,
	InvalidStatus:            http.StatusBadRequest,
	InvalidTransaction:       http.StatusBadRequest,
	InvalidTransactionType:   http.StatusBadRequest,
	ChargebackInProcess:      http.StatusBadRequest,
	CustomerIDDuplicated:     http.StatusBadRequest,
	PaymentNotFound:          http.StatusBadRequest,
	TransactionNotFound:      http.StatusBadRequest,
	PaymentMethodNotFound:    http.StatusBadRequest,
	CheckoutSessionNotFound:  http.StatusBadRequest,
	CustomerNotFound:         http.StatusBadRequest,
	InvalidState:             http.StatusConflict,
	InvalidCredentials:       http.StatusUnauthorized,
	UnknownIPAddress:         http.StatusUnauthorized,
	AuthorizationRequired:    http.StatusForbidden,
	InvalidToken:             http.StatusUnauthorized,
	TokenInUse:               http.StatusUnauthorized,
	InvalidCustomerForToken:  http.StatusBadRequest,
	NotFound:                 http.StatusNotFound,
	UnsupportedMethod:        http.StatusMethodNotAllowed,
	RequestTimeout:           http.StatusGatewayTimeout,
	RequestInProcess:         http.StatusConflict,
	RequestTooLarge:          http.StatusRequestEntityTooLarge,
	UnsupportedMediaType:     http.StatusUnsupportedMediaType,
	IdempotencyKeyReused:     http.StatusUnprocessableEntity,
	RateLimited:              http.StatusTooManyRequests,
	InternalError:            http.StatusInternalServerError,
	ProviderError:            http.StatusBadGateway,
	ProviderUnavailable:      http.StatusServiceUnavailable,
	ServiceUnavailable:       http.StatusServiceUnavailable,
}

// Error is one answer that is not a success.
type Error struct {
	Status     int
	Code       Code
	Messages   []string
	RetryAfter int // seconds; 0 means that waiting does not help
	// KeyProblem is what the idempotency key has to do with it, in a few words; "":
	// nothing. It is the title of a Problem.
	KeyProblem string
}

// New makes the error of a code with its usual HTTP status.
func New(code Code, messages ...string) *Error {
	s, ok := status[code]
	if !ok {
		panic(fmt.Sprintf("apierr: code %s has no status", code)) // a programmer's mistake, caught by the first test that reaches it
	}
	return &Error{Status: s, Code: code, Messages: messages}
}

// Retry returns the same error with a Retry-After of that many seconds.
func (e *Error) Retry(seconds int) *Error {
	c := *e
	c.RetryAfter = seconds
	return &c
}

// WithStatus returns the same error under another HTTP status.
func (e *Error) WithStatus(status int) *Error {
	c := *e
	c.Status = status
	return &c
}

// AboutKey returns the same error as one of the idempotency key's.
func (e *Error) AboutKey(title string) *Error {
	c := *e
	c.KeyProblem = title
	return &c
}

func (e *Error) Error() string {
	return string(e.Code) + ": " + strings.Join(e.Messages, "; ")
}

// DocPath is where each listener serves the page of a code, and what doc_url says.
// It is relative to the server that was asked, because that server does not know by
// which name it was reached.
func DocPath(code Code) string { return "/docs/errors/" + string(code) }

// From finds the answer in err, if it holds one.
func From(err error) (*Error, bool) { return errors.AsType[*Error](err) }

// Codes are all codes, in the order of their names.
func Codes() []Code { return slices.Sorted(maps.Keys(status)) }
