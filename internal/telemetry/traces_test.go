package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/oncepay/oncepay/internal/apierr"
	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/providers"
)

// traced is a Telemetry whose spans are kept.
func traced(t *testing.T) (*Telemetry, *tracetest.InMemoryExporter) {
	t.Helper()
	kept := tracetest.NewInMemoryExporter()
	x := &Telemetry{metrics: newMetrics("v"), traces: tracesTo(sdktrace.WithSyncer(kept))}
	t.Cleanup(func() { x.Stop(context.WithoutCancel(t.Context())) })
	return x, kept
}

// attributes are a span's, as text.
func attributes(s tracetest.SpanStub) map[string]string {
	all := map[string]string{}
	for _, a := range s.Attributes {
		all[string(a.Key)] = a.Value.String()
	}
	return all
}

func mustHave(t *testing.T, s tracetest.SpanStub, name string, want map[string]string) {
	t.Helper()
	got := attributes(s)
	if s.Name != name || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the span is %q with %v, not %q with %v", s.Name, got, name, want)
	}
}

func TestARequestIsASpanOfTheCallersTrace(t *testing.T) {
	t.Parallel()
	x, kept := traced(t)
	r := httptest.NewRequest(http.MethodPost, "/v1/payments?q=4111111111111111", nil)
	r.Header.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	r.Header.Set("tracestate", "vendor=4111111111111111")
	r.Header.Set("baggage", "card=4111111111111111")
	ctx, end := x.Requests(Public)(r)
	if !trace.SpanContextFromContext(ctx).IsValid() {
		t.Error("what the request causes has no span to hang on")
	}
	end(httpapi.Seen{
		RequestID: "r-1", Method: "POST", Route: "/v1/payments", Status: 201,
		Line: httpapi.Line{AccountID: "a-1", Verdict: "new", TransactionID: "t-1", Provider: "PSP"},
	})
	spans := kept.GetSpans()
	if len(spans) != 1 {
		t.Fatalf("%d spans", len(spans))
	}
	s := spans[0]
	mustHave(t, s, "POST /v1/payments", map[string]string{
		"oncepay.listener": "public", "http.request.method": "POST", "http.route": "/v1/payments", "http.response.status_code": "201",
		"oncepay.request_id": "r-1", "oncepay.idem_verdict": "new", "oncepay.transaction_id": "t-1",
	})
	if s.SpanContext.TraceID().String() != "0af7651916cd43dd8448eb211c80319c" || s.Parent.SpanID().String() != "b7ad6b7169203331" {
		t.Errorf("it belongs to trace %s, parent %s", s.SpanContext.TraceID(), s.Parent.SpanID())
	}
	if s.SpanContext.TraceState().Len() != 0 || strings.Contains(fmt.Sprintf("%+v", s), "4111111111111111") {
		t.Error("it took over more than who began the trace")
	}
	if s.SpanKind != trace.SpanKindServer || s.Status.Code != codes.Unset {
		t.Errorf("kind %s, status %v", s.SpanKind, s.Status)
	}
}

func TestOnlyOurOwnFailuresAreErrorsOfASpan(t *testing.T) {
	t.Parallel()
	x, kept := traced(t)
	for status, code := range map[int]apierr.Code{400: apierr.InvalidRequest, 409: apierr.RequestInProcess, 503: apierr.ServiceUnavailable} {
		kept.Reset()
		answered(x.Requests(Admin), httpapi.Seen{Method: "GET", Route: "/x", Status: status, Code: code})
		s := kept.GetSpans()[0]
		if failed := s.Status.Code == codes.Error; failed != (status >= 500) || s.Status.Description != "" {
			t.Errorf("%d is %v", status, s.Status)
		}
		if attributes(s)["oncepay.error_code"] != string(code) {
			t.Errorf("%d without its code: %v", status, attributes(s))
		}
	}
}

func TestProbesAndScrapesMakeNoSpans(t *testing.T) {
	t.Parallel()
	x, kept := traced(t)
	for _, path := range []string{"/metrics", "/livez", "/readyz"} {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		ctx, end := x.Requests(Admin)(r)
		if ctx != r.Context() {
			t.Errorf("%s has a context of its own", path)
		}
		end(httpapi.Seen{Method: "GET", Route: path, Status: 200})
	}
	if n := len(kept.GetSpans()); n != 0 {
		t.Errorf("%d spans", n)
	}
}

func TestAnExchangeIsASpanBelowItsRequest(t *testing.T) {
	t.Parallel()
	x, kept := traced(t)
	ctx, endRequest := x.Requests(Public)(httptest.NewRequest(http.MethodPost, "/v1/payments", nil))
	_, end := x.Exchanges()(ctx, "PSP", "send")
	end(providers.Unclear, time.Second)
	endRequest(httpapi.Seen{Method: "POST", Route: "/v1/payments", Status: 502})
	spans := kept.GetSpans()
	mustHave(t, spans[0], "provider send", map[string]string{
		"oncepay.provider": "PSP", "oncepay.exchange": "send", "oncepay.outcome": "unclear",
	})
	if spans[0].Parent.SpanID() != spans[1].SpanContext.SpanID() || spans[0].Status.Code != codes.Error {
		t.Error("it does not hang below the request, or is no error")
	}
}

func TestAStatementIsItsNameAndTheStateOfItsError(t *testing.T) {
	t.Parallel()
	x, kept := traced(t)
	ctx, end := x.Requests(Public)(httptest.NewRequest(http.MethodGet, "/v1/payments", nil))
	tracer := x.Statements()
	run := func(sql string, err error) {
		tracer.TraceQueryEnd(tracer.TraceQueryStart(ctx, nil, pgx.TraceQueryStartData{SQL: sql, Args: []any{"4111111111111111"}}), nil,
			pgx.TraceQueryEndData{Err: err})
	}
	run("/* transactions.begin */ INSERT … '4111111111111111'", &pgconn.PgError{
		Code: "23505", Message: "4111111111111111", Detail: "Key (nonce)=(4111111111111111)", ConstraintName: "keys_pkey",
	})
	run("  /* idem.purge_keys */ DELETE …", errors.New("dial tcp 4111111111111111"))
	run("begin isolation level read committed", nil)
	run("SELECT '4111111111111111'", nil)
	spans := kept.GetSpans()
	mustHave(t, spans[0], "db transactions.begin", map[string]string{
		"db.system.name": "postgresql", "db.query.summary": "transactions.begin", "db.response.status_code": "23505",
	})
	for i, name := range []string{"transactions.begin", "idem.purge_keys", "begin", "other"} {
		if got := attributes(spans[i])["db.query.summary"]; got != name {
			t.Errorf("statement %d is %q", i, got)
		}
		if failed := spans[i].Status.Code == codes.Error; failed != (i < 2) {
			t.Errorf("statement %d: %v", i, spans[i].Status)
		}
	}
	if text := fmt.Sprintf("%+v", spans); strings.Contains(text, "4111111111111111") {
		t.Error("the spans quote a value")
	}
	end(httpapi.Seen{})
}

// Every loop asks something each second. A trace of that would be all there is.
func TestAStatementOfNobodysIsNoSpan(t *testing.T) {
	t.Parallel()
	x, kept := traced(t)
	tracer := x.Statements()
	ctx := tracer.TraceQueryStart(t.Context(), nil, pgx.TraceQueryStartData{SQL: "/* transactions.beat */ …"})
	tracer.TraceQueryEnd(ctx, nil, pgx.TraceQueryEndData{})
	if ctx != t.Context() || len(kept.GetSpans()) != 0 {
		t.Error("it has a span")
	}
}

func TestWithoutTracesNothingIsMade(t *testing.T) {
	t.Parallel()
	x := &Telemetry{metrics: newMetrics("v")}
	r := httptest.NewRequest(http.MethodPost, "/v1/payments", nil)
	r.Header.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if ctx, _ := x.Requests(Public)(r); ctx != r.Context() {
		t.Error("the request has another context")
	}
	if x.Statements() != nil {
		t.Error("statements are looked at")
	}
	x.Stop(t.Context())
}

func TestTracesAreOnlyOnIfTheEnvironmentAsksForThem(t *testing.T) {
	t.Parallel()
	const endpoint, exporter, off = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED"
	for _, c := range []struct {
		env       map[string]string
		on        bool
		complains string
	}{
		{nil, false, ""},
		{map[string]string{endpoint: "http://c:4318"}, true, ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, true, ""},
		{map[string]string{exporter: "otlp"}, true, ""},
		{map[string]string{exporter: "none", endpoint: "http://c:4318"}, false, ""},
		{map[string]string{exporter: "console,otlp"}, true, ""},
		{map[string]string{exporter: "console", endpoint: "http://c:4318"}, false, exporter},
		{map[string]string{endpoint: "http://c:4318", off: "true"}, false, ""},
		{map[string]string{endpoint: "http://c:4318", off: "TRUE"}, false, ""},
		{map[string]string{endpoint: "http://c:4318", off: "false"}, true, ""},
		{map[string]string{endpoint: "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, false, "OTEL_EXPORTER_OTLP_PROTOCOL"},
		{map[string]string{endpoint: "http://c:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, true, ""},
	} {
		on, complaint := tracesWanted(func(name string) string { return c.env[name] })
		if on != c.on || (complaint != "") != (c.complains != "") || !strings.Contains(complaint, c.complains) {
			t.Errorf("%v: %t, %q", c.env, on, complaint)
		}
	}
}

// refusing is a collector that takes nothing.
type refusing struct{ err error }

func (r refusing) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return r.err }

func (refusing) Shutdown(context.Context) error { return nil }

func TestACollectorThatIsAwayIsToldOnceAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		c := &complaining{SpanExporter: refusing{errors.New("down")}, log: slog.New(slog.NewJSONHandler(&log, nil))}
		for range 10 {
			if err := c.ExportSpans(t.Context(), nil); err != nil {
				t.Errorf("it fails: %v", err)
			}
			time.Sleep(complaintEvery / 5) //nolint:forbidigo // the bubble's clock: no time goes by
		}
		if n := strings.Count(log.String(), "traces could not be handed over"); n != 2 {
			t.Errorf("%d lines in two minutes:\n%s", n, log.String())
		}
	})
}

func TestACollectorsAddressAndWordsAreNotLogged(t *testing.T) {
	t.Parallel()
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf(`Post "http://c/secret-path": %w`, refused), "dial tcp: connection refused"},
		{errors.Join(nil, fmt.Errorf("failed to send to http://c/secret-path: 401 Unauthorized (%w)", errors.New("body: secret"))), "the collector answered 401 Unauthorized"},
		{fmt.Errorf("http://c/secret-path: %w", context.DeadlineExceeded), "the collector did not answer in time"},
		{errors.New("http://c/secret-path"), "the collector did not take them"},
	} {
		if got := cause(c.err); got != c.want {
			t.Errorf("%v is told as %q", c.err, got)
		}
	}
}

// spanNames are the kept spans' names, sorted.
func spanNames(spans tracetest.SpanStubs) []string {
	var all []string
	for _, s := range spans {
		all = append(all, s.Name)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
