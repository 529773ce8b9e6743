//! The context of a trace, as text and as the parent of a span.

use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{SpanContext, TraceContextExt as _},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The header, of HTTP and in gRPC's metadata.
pub const TRACEPARENT: &str = "traceparent";

/// Of the span that this is called in, for a request that is sent from there. `None`: no spans are exported, or not this one.
pub fn traceparent() -> Option<String> {
    let context = Span::current().context();
    let span = context.span().span_context().clone();
    span.is_valid()
        .then(|| format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), u8::from(span.is_sampled())))
}

/// Makes a span that has not been entered yet a child of what the header says. Nonsense leaves it what it is.
pub fn follow(span: &Span, traceparent: &str) {
    if span.is_disabled() || !parsed(traceparent).is_some_and(|parent| parent.is_valid()) {
        return;
    }
    let parent = context(traceparent);
    // Refused where no spans are exported.
    let _ = span.set_parent(parent);
}

/// What a client's request of this method is in the trace that it belongs to, or begins.
pub fn request_span(method: &str, traceparent: Option<&str>) -> Span {
    let span = tracing::info_span!("request", otel.name = method, otel.kind = "server");
    if let Some(traceparent) = traceparent {
        follow(&span, traceparent);
    }
    span
}

/// One header.
struct One<'a>(&'a str);

impl Extractor for One<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

fn context(traceparent: &str) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &One(traceparent))
}

fn parsed(traceparent: &str) -> Option<SpanContext> {
    let context = context(traceparent);
    context.has_active_span().then(|| context.span().span_context().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn only_what_the_standard_allows_is_followed() {
        let parent = parsed(GOOD).expect("it is the standard's example");
        assert_eq!(parent.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(parent.is_sampled() && parent.is_remote());
        let zeros = "0".repeat(32);
        for bad in [
            "",
            "00",
            "00-x-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            &format!("00-{zeros}-00f067aa0ba902b7-01"),
            &"0".repeat(100_000),
        ] {
            assert!(parsed(bad).is_none_or(|context| !context.is_valid()), "{bad}");
        }
    }

    #[test]
    fn without_an_exporter_nothing_is_said_and_nothing_breaks() {
        let span = tracing::info_span!("alone");
        follow(&span, GOOD);
        assert_eq!(span.in_scope(traceparent), None);
    }
}
