package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/oncepay/oncepay/internal/httpapi"
	"github.com/oncepay/oncepay/internal/providers"
)

const (
	// scope names who made a span.
	scope = "github.com/oncepay/oncepay"
	// lastSpans bounds what a stop does for the traces: a collector that is away must
	// not hold up a restart.
	lastSpans = 3 * time.Second
	// complaintEvery keeps a collector that is away from filling the log.
	complaintEvery = time.Minute
)

// traces makes the spans. A nil *traces makes none, at no cost.
type traces struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
}

// newTraces returns nil unless the environment asks for traces. Endpoint, headers,
// sampling and batches are read from the usual variables by the SDK itself.
func newTraces(ctx context.Context, o Options) (*traces, error) {
	on, complaint := tracesWanted(os.Getenv)
	if complaint != "" {
		o.Log.WarnContext(ctx, "traces are off", "reason", complaint)
	}
	if !on {
		return nil, nil
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	about, err := resource.New(ctx, resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", "oncepay"), attribute.String("service.version", o.Version)),
		resource.WithFromEnv()) // and so the environment's word is the last
	if err != nil {
		return nil, fmt.Errorf("traces: OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return tracesTo(sdktrace.WithBatcher(&complaining{SpanExporter: exporter, log: o.Log}), sdktrace.WithResource(about)), nil
}

func tracesTo(o ...sdktrace.TracerProviderOption) *traces {
	p := sdktrace.NewTracerProvider(o...)
	return &traces{provider: p, tracer: p.Tracer(scope)}
}

// tracesWanted reads the variables that say whether. What we cannot do is told and
// left out: a setting for a whole fleet must not keep payments from being served.
func tracesWanted(getenv func(string) string) (on bool, complaint string) {
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") {
		return false, ""
	}
	switch exporters := strings.Split(getenv("OTEL_TRACES_EXPORTER"), ","); {
	case slices.Contains(exporters, "otlp"):
	case slices.Contains(exporters, "none"):
		return false, ""
	case exporters[0] != "":
		return false, "OTEL_TRACES_EXPORTER must be otlp or none"
	case getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "":
		return false, ""
	}
	protocol := getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
	if protocol == "" {
		protocol = getenv("OTEL_EXPORTER_OTLP_PROTOCOL")
	}
	if protocol != "" && protocol != "http/protobuf" {
		return false, "OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf"
	}
	return true, ""
}

// stop hands over what is left.
func (t *traces) stop(ctx context.Context) {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lastSpans)
	defer cancel()
	_ = t.provider.Shutdown(ctx) // the exporter has complained already
}

// untraced are paths that machines ask for all the time.
var untraced = map[string]bool{httpapi.MetricsPath: true, httpapi.LivezPath: true, httpapi.ReadyzPath: true}

// request begins the span of a request. It takes over who began the trace, and
// nothing else of what the client says about it: tracestate and baggage may hold
// anything.
func (t *traces) request(r *http.Request, l Listener) (context.Context, func(httpapi.Seen)) {
	ctx := r.Context()
	if t == nil || untraced[r.URL.Path] {
		return ctx, func(httpapi.Seen) {}
	}
	caller := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(r.Header)))
	ctx = trace.ContextWithRemoteSpanContext(ctx, caller.WithTraceState(trace.TraceState{}))
	ctx, span := t.tracer.Start(ctx, "request", trace.WithSpanKind(trace.SpanKindServer))
	return ctx, func(s httpapi.Seen) {
		span.SetName(strings.TrimSpace(s.Method + " " + s.Route))
		span.SetAttributes(
			attribute.String("oncepay.listener", string(l)),
			attribute.String("http.request.method", s.Method),
			attribute.String("http.route", s.Route),
			attribute.Int("http.response.status_code", s.Status),
			attribute.String("oncepay.request_id", s.RequestID))
		for key, value := range map[attribute.Key]string{
			"oncepay.idem_verdict": s.Line.Verdict, "oncepay.transaction_id": s.Line.TransactionID, "oncepay.error_code": string(s.Code),
		} {
			if value != "" {
				span.SetAttributes(key.String(value))
			}
		}
		if s.Status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, "")
		}
		span.End()
	}
}

// exchange begins the span of an exchange with a provider. Nothing of it goes out:
// whom a provider tells what it is asked for is not ours to know.
func (t *traces) exchange(ctx context.Context, provider, kind string) (context.Context, func(providers.Outcome)) {
	if t == nil {
		return ctx, func(providers.Outcome) {}
	}
	ctx, span := t.tracer.Start(ctx, "provider "+kind, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("oncepay.provider", provider), attribute.String("oncepay.exchange", kind)))
	return ctx, func(o providers.Outcome) {
		span.SetAttributes(attribute.String("oncepay.outcome", string(o)))
		if o == providers.Unclear {
			span.SetStatus(codes.Error, "")
		}
		span.End()
	}
}

// complaining is an exporter that says in the log, and now and then only, that it
// does not get rid of its spans. OpenTelemetry's own way is one handler for the
// whole process, which prints.
type complaining struct {
	sdktrace.SpanExporter
	log *slog.Logger

	mu   sync.Mutex
	said time.Time
}

// ExportSpans never fails: there is nobody whom it would help.
func (c *complaining) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := c.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.said) >= complaintEvery {
		c.said = time.Now()
		c.log.WarnContext(ctx, "traces could not be handed over", "spans", len(spans), "error", cause(err))
	}
	return nil
}

// refusal is the status in the exporter's error, which it has as text only.
var refusal = regexp.MustCompile(`: (\d{3} [A-Za-z ]+) \(body:`)

// cause says why, and leaves out the collector's address, whose path may be a
// credential, and what the collector itself had to say.
func cause(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Error()
	}
	if m := refusal.FindStringSubmatch(err.Error()); m != nil {
		return "the collector answered " + m[1]
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return "the collector did not answer in time"
	}
	return "the collector did not take them"
}
