package telemetry

import (
	"context"
	"errors"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// statements makes a span of each statement that somebody's span waits for; what
// the loops ask every second is nobody's. It passes on the statement's name, never
// its text or its parameters, and the state of an error, never its message: that
// one quotes values.
type statements struct{ tracer trace.Tracer }

type keyStatement struct{}

// TraceQueryStart begins the span.
func (s statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return ctx
	}
	name := statementName(d.SQL)
	ctx, span := s.tracer.Start(ctx, "db "+name, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("db.system.name", "postgresql"), attribute.String("db.query.summary", name)))
	return context.WithValue(ctx, keyStatement{}, span)
}

// TraceQueryEnd ends it.
func (s statements) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryEndData) {
	span, ok := ctx.Value(keyStatement{}).(trace.Span)
	if !ok {
		return
	}
	if d.Err != nil {
		span.SetStatus(codes.Error, "")
		if pg, ok := errors.AsType[*pgconn.PgError](d.Err); ok {
			span.SetAttributes(attribute.String("db.response.status_code", pg.Code))
		}
	}
	span.End()
}

// nameComment is how each statement of ours begins.
var nameComment = regexp.MustCompile(`^\s*/\* ([a-z]+\.[a-z_]+) \*/`)

// statementName is the name of a statement, or its verb where it has no name and
// the verb says it all.
func statementName(sql string) string {
	if m := nameComment.FindStringSubmatch(sql); m != nil {
		return m[1]
	}
	verb, _, _ := strings.Cut(strings.TrimSpace(sql), " ")
	switch verb = strings.ToLower(verb); verb {
	case "begin", "commit", "rollback":
		return verb
	}
	return other
}
