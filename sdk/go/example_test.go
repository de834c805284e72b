package oncepay_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/shopspring/decimal"

	oncepay "github.com/oncepay/oncepay/sdk/go"
)

func Example() {
	ctx := context.Background()
	client, err := oncepay.New(baseURL, publicAPIKey, privateSecretKey, oncepay.WithAccount(accountID))
	if err != nil {
		panic(err) // a URL or a key that cannot be one
	}

	op := oncepay.NewOperation()
	store("order-1001", op.Nonce()) // before anything is sent

	payment, err := client.CreatePayment(ctx, op, oncepay.PaymentParams{
		MerchantOrderID: "order-1001",
		Description:     "Two concert tickets",
		Country:         "US",
		Amount:          oncepay.Amount{Currency: "USD", Value: decimal.RequireFromString("45.67")},
		CheckoutSession: session,                             // made by CreateCheckoutSession
		PaymentMethod:   oncepay.PaymentMethod{Token: token}, // made in the browser
	})
	var refused *oncepay.Error
	switch {
	case err == nil && payment.Status == "SUCCEEDED":
		fmt.Println("paid", payment.Amount.Value, payment.Amount.Currency)
	case err == nil: // DECLINED and PENDING are answers, too
		fmt.Println(payment.Status, payment.Transactions[0].ResponseCode)
	case errors.Is(err, oncepay.ErrOutcomeUnknown): // later, in a job: this operation again, never another one
		later("order-1001")
	case errors.As(err, &refused): // nothing was charged
		fmt.Println(refused.Code, refused.Messages)
	default:
		fmt.Println(err)
	}
	// Output: paid 45.67 USD
}

func ExampleOperationWithNonce() {
	ctx := context.Background()
	client, err := oncepay.New(baseURL, publicAPIKey, privateSecretKey, oncepay.WithAccount(accountID))
	if err != nil {
		panic(err)
	}

	// The process that began this has ended, and nobody knows how far it came.
	nonce := stored("order-1001")
	found, err := client.LookupNonce(ctx, nonce)
	switch {
	case err != nil:
		fmt.Println(err)
	case len(found.Lives) == 0:
		fmt.Println("it never arrived: OperationWithNonce, and CreatePayment as before")
	case found.Lives[0].KeyState == "answered":
		fmt.Println(found.Lives[0].Verdict)
	default:
		fmt.Println("not decided yet, or free again: ask later, or try it again with OperationWithNonce")
	}
	// Output: Charged once: 45.67 USD on 2026-11-22 20:00:00 UTC.
}

// What the examples call: a server with two answers.
var (
	baseURL          = pretend()
	publicAPIKey     = "sandbox_example"
	privateSecretKey = "example"
	accountID        = "01a20101-28f4-7b37-85b4-b9a7b7aea93a"
	session          = "01a20101-28f4-7b37-85b4-b9a7b7aea93b"
	token            = "01a20101-28f4-7b37-85b4-b9a7b7aea93c"
)

func store(string, string) {}
func stored(string) string { return "example-1" }
func later(string)         {}
func pretend() string {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, `{"nonce":"example-1","lives":[{"key_state":"answered","charges":1,"verdict":"Charged once: 45.67 USD on 2026-11-22 20:00:00 UTC."}]}`)
			return
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"id":"01a20101-28f4-7b37-85b4-b9a7b7aea93d","status":"SUCCEEDED","amount":{"currency":"USD","value":45.67},"transactions":{}}`)
	})).URL // it ends with the tests
}

// TestThePageShowsTheExamples as they are run here.
func TestThePageShowsTheExamples(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/reference/sdk-go.md")
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Example", "ExampleOperationWithNonce"} {
		_, after, _ := strings.Cut(string(own), "\nfunc "+name+"() {\n")
		body, _, found := strings.Cut(after, "\t// Output:")
		if !found || !strings.Contains(string(page), "```go\n"+strings.ReplaceAll("\n"+body, "\n\t", "\n")[1:]+"```\n") {
			t.Errorf("the page does not show %s as it is:\n%s", name, strings.ReplaceAll("\n"+body, "\n\t", "\n")[1:])
		}
	}
}
