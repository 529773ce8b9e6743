//! What waits for the collector: bounded, and every span that is lost is counted.
//!
//! The SDK's batches are used as they are. Before them stands a count that never lets them overflow, because they would drop
//! spans without telling whom it concerns; behind them stands what says how each export went.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use opentelemetry::Context;
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor},
};
use tokio::runtime::Handle;

/// For one export, whatever the environment says: a collector that takes everything and answers nothing.
const EXPORT_MAX: Duration = Duration::from_secs(10);

/// Counts spans that are lost.
fn lost(reason: &'static str, count: usize) {
    metrics::counter!("otlp_spans_lost_total", "reason" => reason).increment(count as u64);
}

/// Spans that wait.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    count: Arc<AtomicUsize>,
    max: usize,
}

impl Waiting {
    pub(crate) fn new(max: usize) -> Self {
        Self { count: Arc::default(), max }
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// Whether there is room for one more.
    fn enter(&self) -> bool {
        let enter = |count| (count < self.max).then_some(count + 1);
        self.count.fetch_update(Relaxed, Relaxed, enter).is_ok()
    }

    fn leave(&self, count: usize) {
        self.count.fetch_sub(count, Relaxed);
    }
}

/// Lets spans into a queue for as long as there is room. Never waits.
#[derive(Debug)]
pub(crate) struct Bounded {
    pub(crate) queue: BatchSpanProcessor,
    pub(crate) waiting: Waiting,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.queue.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        match self.waiting.enter() {
            true => self.queue.on_end(span),
            false => lost("queue_full", 1),
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.queue.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.queue.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.queue.set_resource(resource);
    }
}

/// Sends batches, on a runtime of its own: the queue's thread has none.
#[derive(Debug)]
pub(crate) struct Counted<E> {
    exporter: Arc<E>,
    runtime: Handle,
    waiting: Waiting,
    /// The last export failed: said once, until one succeeds.
    failing: AtomicBool,
}

impl<E> Counted<E> {
    pub(crate) fn new(exporter: E, runtime: Handle, waiting: Waiting) -> Self {
        Self { exporter: Arc::new(exporter), runtime, waiting, failing: AtomicBool::new(false) }
    }

    fn tell(&self, count: usize, result: &OTelSdkResult) {
        match result {
            Ok(()) => {
                metrics::counter!("otlp_spans_exported_total").increment(count as u64);
                if self.failing.swap(false, Relaxed) {
                    tracing::info!("the collector takes spans again");
                }
            }
            Err(error) => {
                lost("export", count);
                if !self.failing.swap(true, Relaxed) {
                    tracing::warn!(%error, "the collector takes no spans; they are lost, and nothing else is");
                }
            }
        }
    }
}

impl<E: SpanExporter + 'static> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (count, exporter) = (batch.len(), Arc::clone(&self.exporter));
        self.waiting.leave(count);
        let exporting = self.runtime.spawn(async move {
            let late = |_| Err(OTelSdkError::Timeout(EXPORT_MAX));
            tokio::time::timeout(EXPORT_MAX, exporter.export(batch)).await.unwrap_or_else(late)
        });
        let failed = |error: tokio::task::JoinError| Err(OTelSdkError::InternalFailure(error.to_string()));
        let result = exporting.await.unwrap_or_else(failed);
        self.tell(count, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Nobody else has it before the first export.
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_bounded() {
        let waiting = Waiting::new(3);
        assert_eq!((0..5).filter(|_| waiting.enter()).count(), 3);
        waiting.leave(2);
        assert_eq!((0..5).filter(|_| waiting.enter()).count(), 2);
        assert_eq!(waiting.count(), 3);
    }
}
