package apierr

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// wire is an error as a client reads it.
type wire struct {
	Code      string   `json:"code"`
	Messages  []string `json:"messages"`
	RequestID string   `json:"request_id"`
	DocURL    string   `json:"doc_url"`
}

func read(t *testing.T, body []byte) wire {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	var w wire
	if err := d.Decode(&w); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return w
}

// TestEveryCodeHasABodyThatSaysSomething, also without a message of its own.
func TestEveryCodeHasABodyThatSaysSomething(t *testing.T) {
	t.Parallel()
	for _, c := range Codes() {
		for _, e := range []*Error{New(c), New(c, "$.a is required", "$.b is required")} {
			body := e.Body("request-1")
			if !bytes.HasSuffix(body, []byte("}\n")) {
				t.Errorf("%s: the body ends with %q", c, body[len(body)-2:])
			}
			w := read(t, body)
			if w.Code != string(c) || w.RequestID != "request-1" {
				t.Errorf("%s: the body is %s", c, body)
			}
			if len(w.Messages) == 0 || slices.Contains(w.Messages, "") {
				t.Errorf("%s says nothing: %s", c, body)
			}
			if w.DocURL != "/docs/errors/"+string(c) {
				t.Errorf("%s leads to %s", c, w.DocURL)
			}
		}
	}
}

func TestBodyWithoutAMessageSaysTheCodeInWords(t *testing.T) {
	t.Parallel()
	if w := read(t, New(PaymentNotFound).Body("r")); !slices.Equal(w.Messages, []string{"payment not found"}) {
		t.Errorf("it says %q", w.Messages)
	}
}

// TestMessagesAreEscapedNotChanged: a path of a body may hold whatever its client
// wrote.
func TestMessagesAreEscapedNotChanged(t *testing.T) {
	t.Parallel()
	const message = "a \"quote\", a \\, a <tag>, a line\nand é"
	w := read(t, New(InvalidParameters, message).Body(`r"1`))
	if w.Messages[0] != message || w.RequestID != `r"1` {
		t.Errorf("it says %q for request %q", w.Messages, w.RequestID)
	}
}

// TestStatusesAreThoseOfTheContract: clients that branch on the status rely on it.
func TestStatusesAreThoseOfTheContract(t *testing.T) {
	t.Parallel()
	want := map[int][]Code{
		http.StatusBadRequest: {
			ChargebackInProcess, CheckoutSessionNotFound, CountryNotSupported, CurrencyNotAllowed, CustomerIDDuplicated, CustomerNotFound, InvalidAccountID, InvalidAmount,
			InvalidCustomerForToken, InvalidParameters, InvalidRequest, InvalidStatus, InvalidTransaction, InvalidTransactionType, MissingParameters,
			PaymentMethodNotFound, PaymentNotFound, TransactionNotFound, UnavailablePaymentMethod,
		},
		http.StatusUnauthorized:          {InvalidCredentials, InvalidToken, TokenInUse, UnknownIPAddress},
		http.StatusForbidden:             {AuthorizationRequired},
		http.StatusNotFound:              {NotFound},
		http.StatusMethodNotAllowed:      {UnsupportedMethod},
		http.StatusConflict:              {InvalidState, RequestInProcess},
		http.StatusRequestEntityTooLarge: {RequestTooLarge},
		http.StatusUnsupportedMediaType:  {UnsupportedMediaType},
		http.StatusUnprocessableEntity:   {IdempotencyKeyReused},
		http.StatusTooManyRequests:       {RateLimited},
		http.StatusInternalServerError:   {InternalError},
		http.StatusBadGateway:            {ProviderError},
		http.StatusServiceUnavailable:    {ProviderUnavailable, ServiceUnavailable},
		http.StatusGatewayTimeout:        {RequestTimeout},
	}
	got := map[int][]Code{}
	for _, c := range Codes() {
		got[New(c).Status] = append(got[New(c).Status], c)
	}
	for s, codes := range want {
		if !slices.Equal(got[s], codes) {
			t.Errorf("%d: %v, want %v", s, got[s], codes)
		}
	}
	if len(got) != len(want) {
		t.Errorf("there are %d statuses, want %d: %v", len(got), len(want), got)
	}
}

func TestCodesAreSortedAndUpperCase(t *testing.T) {
	t.Parallel()
	codes := Codes()
	if len(codes) != len(status) || !slices.IsSorted(codes) {
		t.Errorf("Codes() = %v", codes)
	}
	for _, c := range codes {
		if strings.Trim(string(c), "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") != "" {
			t.Errorf("%q is not in capitals", c)
		}
	}
}

func TestCodeWithoutAStatusIsAProgrammersMistake(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("New took a code that there is not")
		}
	}()
	_ = New("NO_SUCH_CODE")
}

// TestChangesMakeCopies: an error that is kept in a variable must not change
// because one request got a Retry-After.
func TestChangesMakeCopies(t *testing.T) {
	t.Parallel()
	e := New(RequestTimeout, "slow")
	retry, other := e.Retry(7), e.WithStatus(http.StatusRequestTimeout)
	if e.RetryAfter != 0 || e.Status != http.StatusGatewayTimeout {
		t.Errorf("the original became %+v", e)
	}
	if retry.RetryAfter != 7 || retry.Status != e.Status || retry.Code != e.Code {
		t.Errorf("Retry made %+v", retry)
	}
	if other.Status != http.StatusRequestTimeout || other.RetryAfter != 0 || other.Code != e.Code {
		t.Errorf("WithStatus made %+v", other)
	}
}

func TestFromFindsTheAnswerBelowOtherErrors(t *testing.T) {
	t.Parallel()
	e := New(PaymentNotFound, "m")
	for name, err := range map[string]error{
		"itself": e, "wrapped": fmt.Errorf("read: %w", e), "with a cause": fmt.Errorf("%w (%w)", e, io.EOF), "joined": errors.Join(io.EOF, e),
	} {
		if got, ok := From(err); !ok || got != e {
			t.Errorf("%s: From = %v, %t", name, got, ok)
		}
	}
	for _, err := range []error{nil, io.EOF} {
		if got, ok := From(err); ok {
			t.Errorf("From(%v) = %v", err, got)
		}
	}
}

// TestErrorReadsAsCodeAndMessages is what a log shows.
func TestErrorReadsAsCodeAndMessages(t *testing.T) {
	t.Parallel()
	if got, want := New(InvalidParameters, "$.a must be b", "$.c is required").Error(), "INVALID_PARAMETERS: $.a must be b; $.c is required"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
}
