// Package conformance holds the client against the built binary: what it says of an
// operation is what the provider's own ledger has of it.
package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/apitest"
	"github.com/oncepay/oncepay/internal/pgtest"
	oncepay "github.com/oncepay/oncepay/sdk/go"
	"github.com/oncepay/oncepay/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Run(m, pgtest.Run)) }

// way leads to the API, wherever it is now, and holds each exchange against openapi.yaml.
type way struct {
	t    *testing.T
	to   atomic.Pointer[url.URL]
	http *http.Transport
}

func (w *way) RoundTrip(r *http.Request) (*http.Response, error) {
	asked, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	to := r.Clone(r.Context())
	to.URL.Scheme, to.URL.Host, to.Body = w.to.Load().Scheme, w.to.Load().Host, io.NopCloser(bytes.NewReader(asked))
	res, err := w.http.RoundTrip(to)
	if err != nil {
		return nil, err
	}
	told, cut := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if cut != nil { // the client is to meet it where it would have
		res.Body = io.NopCloser(io.MultiReader(bytes.NewReader(told), broken{cut}))
	} else {
		res.Body = io.NopCloser(bytes.NewReader(told))
		apitest.Check(w.t, to, asked, &http.Response{StatusCode: res.StatusCode, Header: res.Header}, told)
	}
	return res, nil
}

// broken is the end of an answer that was cut short.
type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

func (w *way) leadTo(base string) {
	w.t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		w.t.Fatal(err)
	}
	w.to.Store(u)
}

// shop is a merchant's backend at a running dev.
type shop struct {
	*oncepay.Client
	t   *testing.T
	dev *harness.Dev
	way *way
}

func openShop(t *testing.T, args ...string) *shop {
	t.Helper()
	s := &shop{t: t, dev: harness.StartDev(t, harness.Folder(t), args...), way: &way{t: t, http: &http.Transport{}}}
	t.Cleanup(s.way.http.CloseIdleConnections)
	s.way.leadTo(s.dev.Info.BaseURL)
	s.Client = s.with(s.dev.Info.PrivateSecretKey)
	return s
}

// with is a client that uses that secret.
func (s *shop) with(secret string) *oncepay.Client {
	s.t.Helper()
	c, err := oncepay.New(s.dev.Info.BaseURL, s.dev.Info.PublicAPIKey, secret, oncepay.WithAccount(s.dev.Info.AccountID),
		oncepay.WithHTTPClient(&http.Client{Transport: s.way}), oncepay.WithRetries(oncepay.Retries{Attempts: 1000, Total: harness.Patience}))
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *shop) booked(order string, want ...string) {
	s.t.Helper()
	if got := s.dev.Info.Ledger().Booked(s.t, order); !slices.Equal(got, want) {
		s.t.Errorf("the ledger has %v of %s, want %v", got, order, want)
	}
}

func usd(value string) oncepay.Amount {
	return oncepay.Amount{Currency: "USD", Value: decimal.RequireFromString(value)}
}

// wanted is a payment with a card under an order that nobody else has.
func wanted(description string) oncepay.PaymentParams {
	return oncepay.PaymentParams{
		MerchantOrderID: harness.Unguessable("order"), Description: description, Country: "US", Amount: usd("45.67"),
		PaymentMethod: oncepay.PaymentMethod{Card: &oncepay.Card{
			Number: harness.CardThatPays, SecurityCode: "123", HolderName: "John Doe", ExpirationMonth: 11, ExpirationYear: 28,
		}},
	}
}

func TestOneOperationIsOneChargeWhateverTheProviderDoes(t *testing.T) {
	t.Parallel()
	s := openShop(t, "--provider-timeout", "2s", "--settle", "1s")
	for _, description := range []string{
		"Two concert tickets", "sandbox:charge-then-timeout", "sandbox:timeout", "sandbox:charge-then-500", "sandbox:500",
		"sandbox:charge-then-reset", "sandbox:unavailable", "sandbox:slow=1s",
	} {
		t.Run(description, func(t *testing.T) {
			t.Parallel()
			op, want := oncepay.NewOperation(), wanted(description)
			first, err := s.CreatePayment(t.Context(), op, want)
			if err != nil || first.Status != "SUCCEEDED" || !first.Amount.Value.Equal(want.Amount.Value) || first.IdempotencyKey != op.Nonce() {
				t.Fatalf("%+v, %v", first, err)
			}
			t.Logf("%d attempts", first.Attempts)
			stored, err := oncepay.OperationWithNonce(op.Nonce())
			if err != nil {
				t.Fatal(err)
			}
			again, err := s.CreatePayment(t.Context(), stored, want)
			if err != nil || !again.Replayed || again.BodyIgnored || !bytes.Equal(again.Raw, first.Raw) {
				t.Errorf("not a replay: %+v, %v", again, err)
			}
			lives, err := s.LookupNonce(t.Context(), op.Nonce())
			if err != nil || len(lives.Lives) == 0 || lives.Lives[0].Charges != 1 || lives.Lives[0].PaymentID != first.ID {
				t.Errorf("the nonce says %+v, %v", lives, err)
			}
			s.booked(want.MerchantOrderID, "PURCHASE 45.67")
		})
	}
}

func TestManyWhoPayWithOneOperationPayOnce(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	op, want := oncepay.NewOperation(), wanted("sandbox:slow=500ms")
	answers := make([]*oncepay.Payment, 20)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() {
			p, err := s.CreatePayment(t.Context(), op, want)
			if err != nil {
				t.Error(err)
			}
			answers[i] = p
		})
	}
	wg.Wait()
	for _, p := range answers {
		if p != nil && !bytes.Equal(p.Raw, answers[0].Raw) {
			t.Error("two were told different things")
		}
	}
	s.booked(want.MerchantOrderID, "PURCHASE 45.67")
}

// TestAnAPIThatIsKilledInTheMiddleHasChargedOnce, and the call that was under way tells it:
// the client finds the API where it is started again.
func TestAnAPIThatIsKilledInTheMiddleHasChargedOnce(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	op, want := oncepay.NewOperation(), wanted("sandbox:slow=2s")
	var (
		wg   sync.WaitGroup
		paid *oncepay.Payment
		err  error
	)
	wg.Go(func() { paid, err = s.CreatePayment(t.Context(), op, want) })
	harness.Eventually(t, harness.Patience, "the payment has begun", func() bool {
		lives, err := s.LookupNonce(t.Context(), op.Nonce())
		return err == nil && len(lives.Lives) == 1
	})
	s.dev.Kill()
	s.dev = harness.StartDev(t, s.dev.DataDir)
	s.way.leadTo(s.dev.Info.BaseURL)
	wg.Wait()
	if err != nil || paid.Status != "SUCCEEDED" || paid.Attempts < 2 {
		t.Fatalf("%+v, %v", paid, err)
	}
	s.booked(want.MerchantOrderID, "PURCHASE 45.67")
}

func TestTheWholeLifeOfAPayment(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	ctx, want := t.Context(), wanted("A chair and its cushion")
	want.PaymentMethod.AuthorizeOnly = true
	held, err := s.CreatePayment(ctx, oncepay.NewOperation(), want)
	if err != nil || held.Status != "PENDING" || held.SubStatus != "AUTHORIZED" {
		t.Fatalf("%+v, %v", held, err)
	}
	op := oncepay.NewOperation()
	took, err := s.Capture(ctx, op, held.ID, held.Transactions[0].ID, oncepay.CaptureParams{MerchantReference: "chair", Reason: "PRODUCT_CONFIRMED", Amount: usd("30.10")})
	if err != nil || took.Type != "CAPTURE" || took.Status != "SUCCEEDED" || took.Payment.Amount.Captured.String() != "30.1" {
		t.Fatalf("%+v, %v", took, err)
	}
	_, err = s.Refund(ctx, op, held.ID, took.ID, oncepay.RefundParams{MerchantReference: "chair"})
	mustRefuse(t, err, http.StatusUnprocessableEntity, oncepay.CodeIdempotencyKeyReused)
	part := usd("10.05")
	back, err := s.Refund(ctx, oncepay.NewOperation(), held.ID, took.ID, oncepay.RefundParams{MerchantReference: "chair", Amount: &part})
	if err != nil || len(back.Transactions) != 1 || back.Transactions[0].Type != "REFUND" || back.Amount.Refunded.String() != "10.05" {
		t.Fatalf("%+v, %v", back, err)
	}
	rest, err := s.CancelOrRefund(ctx, oncepay.NewOperation(), held.ID, oncepay.CancelOrRefundParams{Reason: "REQUESTED_BY_CUSTOMER", TransactionID: took.ID})
	if err != nil || rest.Type != "REFUND" || rest.Amount.String() != "20.05 USD" {
		t.Fatalf("%+v, %v", rest, err)
	}
	now, err := s.GetPayment(ctx, held.ID)
	if err != nil || len(now.Transactions) != 4 || now.Version <= held.Version || !now.Amount.Refunded.Equal(decimal.RequireFromString("30.10")) {
		t.Errorf("%+v, %v", now, err)
	}
	s.booked(want.MerchantOrderID, "AUTHORIZE 45.67", "CAPTURE 30.1", "REFUND 10.05", "REFUND 20.05")

	other := want
	other.Description = "The same order once more"
	second, err := s.CreatePayment(ctx, oncepay.NewOperation(), other)
	if err != nil {
		t.Fatal(err)
	}
	gone, err := s.Cancel(ctx, oncepay.NewOperation(), second.ID, second.Transactions[0].ID, oncepay.CancelParams{MerchantReference: "cushion"})
	if err != nil || gone.Type != "CANCEL" || gone.Payment.Status != "CANCELED" {
		t.Errorf("%+v, %v", gone, err)
	}
	all, err := s.PaymentsByOrder(ctx, want.MerchantOrderID)
	if err != nil || len(all) != 2 || all[0].ID != second.ID || all[1].ID != held.ID {
		t.Errorf("%+v, %v", all, err)
	}
}

// mustRefuse wants to have been refused, with that code, and to know that nothing happened.
func mustRefuse(t *testing.T, err error, status int, code oncepay.Code) {
	t.Helper()
	var e *oncepay.Error
	if !errors.As(err, &e) || e.Status != status || e.Code != code || len(e.Messages) == 0 || e.RequestID == "" || e.DocURL != "/docs/errors/"+string(code) {
		t.Errorf("%v, want %d %s", err, status, code)
	}
	if errors.Is(err, oncepay.ErrOutcomeUnknown) {
		t.Errorf("the outcome is said to be unknown: %v", err)
	}
}

func TestWhatIsRefusedChargesNothingAndSaysWhy(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	pay := func(ctx context.Context, c *oncepay.Client, p oncepay.PaymentParams) error {
		_, err := c.CreatePayment(ctx, oncepay.NewOperation(), p)
		return err
	}
	tooExact, noOrder, noSession := wanted("campaign"), wanted("campaign"), wanted("campaign")
	tooExact.Amount, noOrder.MerchantOrderID = usd("1.234"), ""
	noSession.CheckoutSession, noSession.PaymentMethod = "01a20108-7ae1-7cec-a786-4091ce7be8f2", oncepay.PaymentMethod{Token: "01a20108-7ae1-7cec-a786-4091ce7be8f3"}
	refusedByProvider := wanted("sandbox:reject")
	mustRefuse(t, pay(t.Context(), s.with("not-the-secret"), wanted("campaign")), http.StatusUnauthorized, oncepay.CodeInvalidCredentials)
	mustRefuse(t, pay(t.Context(), s.Client, tooExact), http.StatusBadRequest, oncepay.CodeInvalidAmount)
	mustRefuse(t, pay(t.Context(), s.Client, noOrder), http.StatusBadRequest, oncepay.CodeMissingParameters)
	mustRefuse(t, pay(t.Context(), s.Client, noSession), http.StatusBadRequest, oncepay.CodeCheckoutSessionNotFound)
	mustRefuse(t, pay(t.Context(), s.Client, refusedByProvider), http.StatusBadRequest, oncepay.CodeInvalidRequest)
	_, err := s.GetPayment(t.Context(), "01a20108-7ae1-7cec-a786-4091ce7be8f2")
	mustRefuse(t, err, http.StatusBadRequest, oncepay.CodePaymentNotFound)
	if found, err := s.LookupNonce(t.Context(), "nobody's"); err != nil || len(found.Lives) != 0 {
		t.Errorf("%+v, %v", found, err)
	}
	s.booked(refusedByProvider.MerchantOrderID)

	poor := wanted("A decline is an answer")
	poor.PaymentMethod.Card.Number = harness.CardWithoutFunds
	p, err := s.CreatePayment(t.Context(), oncepay.NewOperation(), poor)
	if err != nil || p.Status != "DECLINED" || p.Transactions[0].ResponseCode != "INSUFFICIENT_FUNDS" {
		t.Errorf("%+v, %v", p, err)
	}
	s.booked(poor.MerchantOrderID)
}

// TestASessionIsPaidWithATokenOfTheBrowsers, once, and read back.
func TestASessionIsPaidWithATokenOfTheBrowsers(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	ctx, op, want := t.Context(), oncepay.NewOperation(), wanted("A session's payment")
	asked := oncepay.CheckoutSessionParams{
		MerchantOrderID: want.MerchantOrderID, PaymentDescription: want.Description, Country: want.Country, Amount: want.Amount,
		Metadata: []oncepay.Metadatum{{Key: "basket", Value: "7"}},
	}
	made, err := s.CreateCheckoutSession(ctx, op, asked)
	if err != nil || made.Workflow != oncepay.WorkflowCheckout || made.Amount.String() != "45.67 USD" || made.ExpiresAt.Sub(made.CreatedAt) != 5*time.Hour {
		t.Fatalf("%+v, %v", made, err)
	}
	if again, err := s.CreateCheckoutSession(ctx, op, asked); err != nil || again.ID != made.ID || !again.Replayed {
		t.Errorf("another session: %+v, %v", again, err)
	}
	_, err = s.GetCheckoutPayment(ctx, made.ID)
	mustRefuse(t, err, http.StatusBadRequest, oncepay.CodePaymentNotFound)
	spare := s.token(made.ID)
	want.CheckoutSession, want.PaymentMethod = made.ID, oncepay.PaymentMethod{Token: s.token(made.ID)}
	pays := oncepay.NewOperation()
	p, err := s.CreatePayment(ctx, pays, want)
	if err != nil || p.Status != "SUCCEEDED" || p.Checkout.Session != made.ID || p.PaymentMethod.Detail.Card.CardData.LFD != "0002" {
		t.Fatalf("%+v, %v", p, err)
	}
	read, err := s.GetCheckoutSession(ctx, made.ID)
	if err != nil || !read.Used || read.ID != made.ID || len(read.Metadata) != 1 {
		t.Errorf("%+v, %v", read, err)
	}
	if paid, err := s.GetCheckoutPayment(ctx, made.ID); err != nil || paid.ID != p.ID {
		t.Errorf("%+v, %v", paid, err)
	}
	if again, err := s.CreatePayment(ctx, pays, want); err != nil || !again.Replayed || again.ID != p.ID {
		t.Errorf("not a replay: %+v, %v", again, err)
	}
	want.PaymentMethod.Token = spare
	_, err = s.CreatePayment(ctx, oncepay.NewOperation(), want)
	mustRefuse(t, err, http.StatusBadRequest, oncepay.CodeCheckoutSessionNotFound)
	s.booked(want.MerchantOrderID, "PURCHASE 45.67")
}

// token makes a one-time token as a browser does, which has no secret.
func (s *shop) token(session string) string {
	s.t.Helper()
	const card = `{"payment_method":{"type":"CARD","card":{"number":"` + harness.CardThatPays + `","expiration_month":11,"expiration_year":28,"security_code":"123","holder_name":"John Doe"}}}`
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.dev.Info.BaseURL+"/v1/checkout/sessions/"+session+"/token", strings.NewReader(card))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("public-api-key", s.dev.Info.PublicAPIKey)
	req.Header.Set("Content-Type", "application/json")
	res, err := s.way.RoundTrip(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	var told struct {
		Token string `json:"token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&told); err != nil || res.StatusCode != http.StatusCreated || told.Token == "" {
		s.t.Fatalf("no token: %d, %v", res.StatusCode, err)
	}
	return told.Token
}

// TestACallThatHasNoTimeLeftSaysThatNobodyKnows, and the same operation finds out later.
func TestACallThatHasNoTimeLeftSaysThatNobodyKnows(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	op, want := oncepay.NewOperation(), wanted("sandbox:slow=2s")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { _, err = s.CreatePayment(ctx, op, want) })
	harness.Eventually(t, harness.Patience, "the payment has begun", func() bool {
		lives, err := s.LookupNonce(t.Context(), op.Nonce())
		return err == nil && len(lives.Lives) == 1
	})
	cancel()
	wg.Wait()
	if !errors.Is(err, oncepay.ErrOutcomeUnknown) || !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	p, err := s.CreatePayment(t.Context(), op, want)
	if err != nil || p.Status != "SUCCEEDED" {
		t.Fatalf("%+v, %v", p, err)
	}
	s.booked(want.MerchantOrderID, "PURCHASE 45.67")
	if text := fmt.Sprintf("%v %+v", err, want.PaymentMethod); bytes.Contains([]byte(text), []byte(harness.CardThatPays)) {
		t.Error("a card is to be seen")
	}
}

// TestTheClientHasANameForEveryCode of the API.
func TestTheClientHasANameForEveryCode(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "../error.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.ValueSpec); ok && len(s.Values) == 1 {
			if l, ok := s.Values[0].(*ast.BasicLit); ok {
				named[strings.Trim(l.Value, `"`)] = true
			}
		}
		return true
	})
	for _, c := range apierr.Codes() {
		if !named[string(c)] {
			t.Errorf("it has none for %s", c)
		}
	}
}
