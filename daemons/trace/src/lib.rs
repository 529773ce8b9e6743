//! Traces that go through several programs.
//!
//! A request carries where it belongs in a header, [`TRACEPARENT`] (W3C Trace Context): who is asked makes its spans children of
//! that by [`follow`], and who asks says it by [`traceparent`]. What becomes of spans is [`Exporter`]'s: it sends them by OTLP
//! where the environment names a collector. Without, all of this costs next to nothing and does nothing.
//!
//! Deliberately not here: which spans there are, what subscribers they have beside this, and `tracestate`, in which other
//! systems keep what is theirs.

mod context;
mod export;
mod queue;

pub use context::{TRACEPARENT, follow, request_span, traceparent};
pub use export::{Exporter, ExporterError, FLUSH_MAX, describe_metrics};
