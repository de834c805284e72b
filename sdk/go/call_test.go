package oncepay

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestTheSameRequestIsSentUntilThereIsAnAnswer(t *testing.T) {
	t.Parallel()
	turns := []turn{
		breaks, halves, says(201, `{"id":"`), says(201, `{}`), says(200, "<html>a captive portal</html>"), says(204, ""),
		refuses(409, CodeRequestInProcess), refuses(429, CodeRateLimited), refuses(500, CodeInternalError),
		refuses(502, CodeProviderError), says(502, "a gateway's page"), refuses(503, CodeServiceUnavailable), refuses(504, CodeRequestTimeout),
		says(201, paid, "Idempotent-Replayed", "true", "Idempotency-Body-Mismatch", "true", "X-Request-Id", "r-9"),
	}
	m := misbehave(t, turns...)
	many := quick
	many.Attempts = len(turns)
	var watched []Attempt
	op := NewOperation()
	p, err := m.client(t, WithRetries(many), WithObserver(func(a Attempt) { watched = append(watched, a) })).CreatePayment(t.Context(), op, params(t))
	if err != nil {
		t.Fatal(err)
	}
	if p.ID != paymentID || p.Status != "SUCCEEDED" || p.Amount.Value.String() != "45.67" || len(p.Transactions) != 1 || p.Transactions[0].ID != transactionID {
		t.Errorf("the payment is %+v", p)
	}
	if !p.Replayed || !p.BodyIgnored || p.RequestID != "r-9" || p.Attempts != len(turns) || string(p.Raw) != paid {
		t.Errorf("it came with %+v", p.Meta)
	}
	requests := m.requests()
	if len(requests) != len(turns) {
		t.Fatalf("%d requests", len(requests))
	}
	for i, r := range requests {
		if r.nonce != op.Nonce() || r.body != requests[0].body || r.method != "POST" || r.target != "/v1/payments" {
			t.Errorf("request %d is another one: %+v", i+1, r)
		}
	}
	if len(watched) != len(turns) {
		t.Fatalf("%d attempts were watched", len(watched))
	}
	for i, a := range watched {
		last := i == len(turns)-1
		if a.Number != i+1 || a.Nonce != op.Nonce() || a.Decision.Retry == last || (a.Err == nil) != last || (a.Pause == 0) != last || a.Decision.Reason == "" {
			t.Errorf("attempt %d: %+v", i+1, a)
		}
	}
}

func TestARefusalIsToldAtOnceAndWhole(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		code   Code
	}{
		{400, CodeInvalidAmount},
		{400, CodeCheckoutSessionNotFound},
		{401, CodeInvalidCredentials},
		{401, CodeTokenInUse},
		{403, CodeAuthorizationRequired},
		{404, CodeNotFound},
		{422, CodeIdempotencyKeyReused},
	} {
		m := misbehave(t, refuses(c.status, c.code, "X-Request-Id", "r-1"))
		_, err := m.client(t).CreatePayment(t.Context(), NewOperation(), params(t))
		var e *Error
		if !errors.As(err, &e) || e.Status != c.status || e.Code != c.code || e.RequestID != "r-1" || e.DocURL != "/docs/errors/"+string(c.code) || len(e.Messages) != 1 {
			t.Errorf("%s: %+v (%v)", c.code, e, err)
		}
		if errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("%s: the outcome is said to be unknown", c.code)
		}
		if f := failure(t, err); len(m.requests()) != 1 || f.Attempts != 1 || f.Decision.Retry || f.Decision.Reason == "" {
			t.Errorf("%s: %d requests, %+v", c.code, len(m.requests()), f)
		}
	}
}

// TestWhatIsOpenStaysSo: a refusal settles nothing of an operation that may have happened.
// The key may have been revoked since, or the card forgotten by whoever comes back.
func TestWhatIsOpenStaysSo(t *testing.T) {
	t.Parallel()
	restored := func() *Operation {
		op, err := OperationWithNonce("stored-1")
		if err != nil {
			t.Fatal(err)
		}
		return op
	}
	for name, c := range map[string]struct {
		op    *Operation
		turns []turn
	}{
		"a refusal after a time-out":                {NewOperation(), []turn{refuses(504, CodeRequestTimeout), refuses(401, CodeInvalidCredentials)}},
		"a refusal of other parameters":             {NewOperation(), []turn{breaks, refuses(400, CodeMissingParameters)}},
		"a refusal of an earlier process's":         {restored(), []turn{refuses(400, CodeMissingParameters)}},
		"too many requests of an earlier process's": {restored(), []turn{refuses(429, CodeRateLimited)}},
	} {
		m := misbehave(t, c.turns...)
		if _, err := m.client(t).CreatePayment(t.Context(), c.op, params(t)); !errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("%s: %v", name, err)
		}
		_, err := m.client(t).CreatePayment(t.Context(), c.op, PaymentParams{PaymentMethod: params(t).PaymentMethod, CustomerPayer: func() {}})
		if !errors.Is(err, ErrOutcomeUnknown) || failure(t, err).Attempts != 0 {
			t.Errorf("%s, and then something that cannot be sent: %v", name, err)
		}
	}
	m := misbehave(t, breaks, refuses(401, CodeInvalidCredentials), says(201, paid), refuses(401, CodeInvalidCredentials))
	op := NewOperation()
	for i, unknown := range []bool{true, false, false} {
		if _, err := m.client(t).CreatePayment(t.Context(), op, params(t)); errors.Is(err, ErrOutcomeUnknown) != unknown {
			t.Errorf("call %d: %v", i+1, err)
		}
	}
}

func TestWhatCouldNotBeSentDidNothing(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := "http://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	few := quick
	few.Attempts = 3
	c, err := New(address, publicKey, "secret", WithRetries(few))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.CreatePayment(t.Context(), NewOperation(), params(t))
	if f := failure(t, err); errors.Is(err, ErrOutcomeUnknown) || f.Attempts != 3 || !strings.Contains(f.Decision.Reason, "nothing was sent") {
		t.Errorf("nobody listens: %v", err)
	}
	if strings.Contains(err.Error(), "/v1/payments") {
		t.Errorf("the error quotes the URL: %v", err)
	}
	stored, err := OperationWithNonce("stored-1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err = c.CreatePayment(t.Context(), stored, params(t)); !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("nobody listens, and an earlier process may have paid: %v", err)
	}
}

// TestAnotherTransportProvesNothing: it may have sent a request before it failed to dial.
func TestAnotherTransportProvesNothing(t *testing.T) {
	t.Parallel()
	dial := &net.OpError{Op: "dial", Err: errors.New("refused")}
	c, err := New("http://api.invalid", publicKey, "secret", WithRetries(quick), WithHTTPClient(&http.Client{Transport: tripper(func(*http.Request) (*http.Response, error) {
		return nil, dial
	})}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreatePayment(t.Context(), NewOperation(), params(t)); !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, dial) {
		t.Error(err)
	}
}

func TestACallerWhoEndsTheCallIsToldThatNobodyKnows(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	m := misbehave(t, func(w http.ResponseWriter, r *http.Request) { cancel(); hangs(w, r) })
	_, err := m.client(t).CreatePayment(ctx, NewOperation(), params(t))
	if !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, context.Canceled) || len(m.requests()) != 1 {
		t.Errorf("in the middle: %v", err)
	}
	_, err = m.client(t).CreatePayment(ctx, NewOperation(), params(t))
	if errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, context.Canceled) || len(m.requests()) != 1 {
		t.Errorf("before: %v", err)
	}
}

func TestAServerThatHangsIsLeftForTheNextAttempt(t *testing.T) {
	t.Parallel()
	m := misbehave(t, hangs, says(201, paid))
	impatient := quick
	impatient.AttemptTimeout = 50 * time.Millisecond
	p, err := m.client(t, WithRetries(impatient)).CreatePayment(t.Context(), NewOperation(), params(t))
	if err != nil || p.Attempts < 2 {
		t.Errorf("%+v, %v", p, err)
	}
}

// tripper is a transport made of a function.
type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestTheAPISaysWhenToComeBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var at []time.Duration
		answers := []http.Header{{"Retry-After": {"3"}}, {}, {"Retry-After": {"7"}}, {"Retry-After": {"3600"}}}
		c, err := New("http://api.invalid", publicKey, "secret", WithHTTPClient(&http.Client{Transport: tripper(func(*http.Request) (*http.Response, error) {
			at = append(at, time.Since(began))
			return &http.Response{StatusCode: 503, Header: answers[len(at)-1], Body: http.NoBody}, nil
		})}))
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.CreatePayment(t.Context(), NewOperation(), params(t))
		if len(at) != 4 || at[0] != 0 {
			t.Fatalf("requests at %v", at)
		}
		for i, least := range []time.Duration{3 * time.Second, 250 * time.Millisecond, 7 * time.Second} {
			if pause := at[i+1] - at[i]; pause < least || pause > least+defaultRetries.FirstPause {
				t.Errorf("pause %d is %s, want about %s", i+1, pause, least)
			}
		}
		var e *Error
		if !errors.As(err, &e) || e.RetryAfter != time.Hour || !errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("%v", err)
		}
		if now := time.Since(began); now != at[3] {
			t.Errorf("it waited in vain until %s", now)
		}
	})
}

func TestACallEndsRatherThanSleepIntoItsDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		c, err := New("http://api.invalid", publicKey, "secret", WithHTTPClient(&http.Client{Transport: tripper(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 409, Header: http.Header{"Retry-After": {"1"}}, Body: http.NoBody}, nil
		})}), WithRetries(Retries{Attempts: 1000, LongestPause: 200 * time.Millisecond}))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err = c.CreatePayment(ctx, NewOperation(), params(t))
		if took := time.Since(began); took < 8*time.Second || took >= 10*time.Second || !errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("after %s: %v", took, err)
		}
		began = time.Now()
		_, err = c.CreatePayment(t.Context(), NewOperation(), params(t))
		if took := time.Since(began); took < time.Minute || took > defaultRetries.Total || !strings.Contains(failure(t, err).Decision.Reason, "time of this call") {
			t.Errorf("after %s: %v", took, err)
		}
		ctx, stop := context.WithCancel(t.Context())
		time.AfterFunc(500*time.Millisecond, stop)
		began = time.Now()
		_, err = c.CreatePayment(ctx, NewOperation(), params(t))
		if took := time.Since(began); took != 500*time.Millisecond || !errors.Is(err, context.Canceled) || !errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("after %s, in the middle of a pause: %v", took, err)
		}
	})
}

// TestKeysStayWhereTheyBelong: Go hands headers of any name on to where it is redirected.
func TestKeysStayWhereTheyBelong(t *testing.T) {
	t.Parallel()
	elsewhere := misbehave(t, says(201, paid))
	m := misbehave(t, says(307, "", "Location", elsewhere.URL+"/v1/payments"))
	_, err := m.client(t, WithHTTPClient(&http.Client{})).CreatePayment(t.Context(), NewOperation(), params(t))
	var e *Error
	if !errors.As(err, &e) || e.Status != 307 || !errors.Is(err, ErrOutcomeUnknown) || len(m.requests()) != 1 {
		t.Errorf("%v", err)
	}
	if n := len(elsewhere.requests()); n != 0 {
		t.Errorf("%d requests went elsewhere", n)
	}
}

// TestWhatTheTransportSendsAgainHasTheSameNonce: Go's repeats a request with such a header
// by itself, on another connection, if the one that it had kept turns out to be broken.
func TestWhatTheTransportSendsAgainHasTheSameNonce(t *testing.T) {
	t.Parallel()
	m := misbehave(t, says(201, paid), breaks, says(201, paid))
	c := m.client(t)
	for range 2 {
		op := NewOperation()
		p, err := c.CreatePayment(t.Context(), op, params(t))
		if err != nil {
			t.Fatal(err)
		}
		requests := m.requests()
		if last := requests[len(requests)-1]; last.nonce != op.Nonce() {
			t.Errorf("sent with %q", last.nonce)
		}
		if len(requests) > 1 && (p.Attempts != 1 || len(requests) != 3 || requests[1].nonce != op.Nonce()) {
			t.Errorf("%d attempts made %d requests", p.Attempts, len(requests))
		}
	}
}

func TestReadingIsTriedAgainAndNeverOpen(t *testing.T) {
	t.Parallel()
	m := misbehave(t, breaks, refuses(503, CodeServiceUnavailable), says(200, strings.Replace(paid, `{"id":"`+transactionID, `[{"id":"`+transactionID, 1)))
	if _, err := m.client(t).GetPayment(t.Context(), paymentID); failure(t, err).Attempts != quick.Attempts || errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("what is no JSON: %v", err)
	}
	array := strings.NewReplacer(`"transactions":{`, `"transactions":[{`, `},"version"`, `}],"version"`).Replace(paid)
	m = misbehave(t, breaks, refuses(503, CodeServiceUnavailable), says(200, array))
	p, err := m.client(t).GetPayment(t.Context(), paymentID)
	if err != nil || p.ID != paymentID || len(p.Transactions) != 1 || p.Attempts != 3 {
		t.Fatalf("%+v, %v", p, err)
	}
	if r := m.requests()[0]; r.method != "GET" || r.target != "/v1/payments/"+paymentID || r.nonce != "" || r.body != "" {
		t.Errorf("asked with %+v", r)
	}
}

func TestAnAnswerWithoutAnEndIsNotRead(t *testing.T) {
	t.Parallel()
	m := misbehave(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(201)
		for block := []byte(strings.Repeat(" ", 1<<20)); ; {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	once := quick
	once.Attempts = 1
	if _, err := m.client(t, WithRetries(once)).CreatePayment(t.Context(), NewOperation(), params(t)); !errors.Is(err, ErrOutcomeUnknown) {
		t.Error(err)
	}
}
