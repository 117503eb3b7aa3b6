// Package otelx holds the one tracing helper that fosite v0.49.0 imports.
package otelx

import "go.opentelemetry.io/otel/trace"

// End finishes span. The error stays out of the span: its text may carry what
// a client sent.
func End(span trace.Span, _ *error) { span.End() }
