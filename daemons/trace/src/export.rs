//! Spans on their way to a collector by OTLP over gRPC, where the environment names one.
//!
//! Read here: whether there is one (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, `OTEL_SDK_DISABLED`,
//! `OTEL_TRACES_EXPORTER=none`), `OTEL_EXPORTER_OTLP_PROTOCOL`, of which there is only `grpc`, and `OTEL_SERVICE_NAME`. The SDK reads
//! `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER` with its `_ARG`, `OTEL_BSP_*`, `OTEL_SPAN_*`, and of the exporter timeout and
//! headers. Not honoured: `OTEL_EXPORTER_OTLP_CERTIFICATE` and client keys (the system's authorities count), compression,
//! `OTEL_PROPAGATORS` (only `tracecontext`).

use std::time::Duration;

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    resource::{EnvResourceDetector, TelemetryResourceDetector},
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider},
};
use tokio::runtime::Runtime;
use tracing::{Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use crate::queue::{Bounded, Counted, Waiting};

/// Spans that wait for the collector; further ones are lost, and counted. `OTEL_BSP_MAX_QUEUE_SIZE` is another number.
const WAITING_MAX: usize = 2048;
/// At the end, for spans that wait. A collector that does not answer keeps no program from ending.
pub const FLUSH_MAX: Duration = Duration::from_secs(2);
/// Whose spans these are: those of libraries say how gRPC works, and there would be spans of exporting spans.
const OURS: [&str; 3] = ["novacron", "dwcp", "consensus"];

/// Why spans are not exported although the environment wants it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExporterError {
    /// It wants another protocol.
    #[error("OTEL_EXPORTER_OTLP_PROTOCOL: {wanted:?} is not spoken here, only grpc is")]
    Protocol {
        /// Which.
        wanted: String,
    },
    /// No thread to do it on.
    #[error("no thread for the exporter: {0}")]
    Runtime(#[from] std::io::Error),
    /// What the environment says makes no sense.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Exports spans, from threads of its own: nobody who makes spans waits for the collector.
#[derive(Debug)]
pub struct Exporter {
    program: &'static str,
    provider: SdkTracerProvider,
    waiting: Waiting,
    runtime: Runtime,
}

/// Tells the recorder what the metrics mean.
pub fn describe_metrics() {
    metrics::describe_counter!("otlp_spans_exported_total", "Spans that the collector has taken.");
    metrics::describe_counter!(
        "otlp_spans_lost_total",
        "Spans that it has not: too many waited, or an export failed."
    );
}

impl Exporter {
    /// Connects when there are spans. `program` and `instance` are `service.name` and `service.instance.id`, as far as the
    /// environment does not say otherwise. `None`: it names no collector.
    ///
    /// # Errors
    /// It asks for what cannot be done.
    pub fn from_environment(program: &'static str, instance: &str) -> Result<Option<Self>, ExporterError> {
        Self::asked(program, instance, |name| std::env::var(name).ok())
    }

    fn asked(
        program: &'static str,
        instance: &str,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ExporterError> {
        let says = |name: &str| environment(name).filter(|value| !value.is_empty());
        let is_off = says("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || says("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        let endpoint = says("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or(says("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let Some(endpoint) = endpoint.filter(|_| !is_off) else { return Ok(None) };
        let protocol = says("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or(says("OTEL_EXPORTER_OTLP_PROTOCOL"));
        if let Some(wanted) = protocol.filter(|wanted| wanted != "grpc") {
            return Err(ExporterError::Protocol { wanted });
        }
        let waiting_max = says("OTEL_BSP_MAX_QUEUE_SIZE").and_then(|value| value.parse().ok());
        let service = says("OTEL_SERVICE_NAME").unwrap_or_else(|| program.to_owned());
        let waiting = Waiting::new(waiting_max.filter(|max| *max > 0).unwrap_or(WAITING_MAX));
        Self::start(program, endpoint, resource(program, service, instance), waiting).map(Some)
    }

    fn start(
        program: &'static str,
        endpoint: String,
        resource: Resource,
        waiting: Waiting,
    ) -> Result<Self, ExporterError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("otlp")
            .enable_all()
            .build()?;
        let exporter = {
            let _inside = runtime.enter();
            SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?
        };
        let counted = Counted::new(exporter, runtime.handle().clone(), waiting.clone());
        let batches = BatchConfigBuilder::default().with_max_queue_size(waiting.max()).build();
        let queue = BatchSpanProcessor::builder(counted).with_batch_config(batches).build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_span_processor(Bounded { queue, waiting: waiting.clone() })
            .build();
        Ok(Self { program, provider, waiting, runtime })
    }

    /// What brings spans here, beside the other layers of a subscriber.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        let ours = filter_fn(|metadata| {
            metadata.level() <= &Level::INFO
                && OURS.iter().any(|crates| metadata.target().starts_with(crates))
        });
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer(self.program))
            .with_location(false)
            .with_threads(false)
            .with_filter(ours.with_max_level_hint(LevelFilter::INFO))
    }

    /// Hands over what waits, for [`FLUSH_MAX`] at most. For the end of a program, when nothing makes spans any more.
    pub fn finish(self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH_MAX) {
            tracing::warn!(%error, waiting = self.waiting.count(), "the last spans have not reached the collector");
        }
        self.runtime.shutdown_background();
    }
}

/// What every span says of its program; the environment says more, or otherwise.
fn resource(program: &'static str, service: String, instance: &str) -> Resource {
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", program),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance.to_owned()),
        ])
        .with_detectors(&[Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())])
        .with_attribute(KeyValue::new("service.name", service))
        .build()
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};

    use collector::Collector;
    use novacron_admin::Metrics;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::{follow, traceparent};

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn exporter(program: &'static str, says: &[(&str, &str)]) -> Result<Option<Exporter>, ExporterError> {
        Exporter::asked(program, "one", |name| {
            says.iter().find(|(said, _)| *said == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn to(endpoint: &str, more: &[(&str, &str)]) -> Exporter {
        let says = [&[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)], more].concat();
        exporter("novacron-test", &says).expect("it can be done").expect("there is a collector")
    }

    #[test]
    fn a_request_through_two_programs_is_one_trace() {
        let collector = Collector::start();
        let first = to(&collector.endpoint(), &[]);
        let second = to(&collector.endpoint(), &[("OTEL_SERVICE_NAME", "another")]);
        let sent =
            tracing::subscriber::with_default(tracing_subscriber::registry().with(first.layer()), || {
                let span = tracing::info_span!("asked", path = "/x");
                follow(&span, PARENT);
                span.in_scope(|| tracing::info_span!("asks").in_scope(traceparent)).expect("it is exported")
            });
        tracing::subscriber::with_default(tracing_subscriber::registry().with(second.layer()), || {
            let span = tracing::info_span!("answers");
            follow(&span, &sent);
            span.in_scope(|| tracing::debug_span!("a detail").in_scope(|| {}));
            tracing::info_span!(target: "h2", "how gRPC works").in_scope(|| {});
        });
        [first, second].into_iter().for_each(Exporter::finish);
        let spans = collector.spans();
        assert_eq!(spans.len(), 3, "{spans:#?}");
        let named = |name: &str| spans.iter().find(|span| span.name == name).expect(name);
        let (asked, asks, answers) = (named("asked"), named("asks"), named("answers"));
        assert!(spans.iter().all(|span| span.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"), "{spans:#?}");
        assert_eq!(asked.parent_id, "00f067aa0ba902b7");
        assert_eq!((&asks.parent_id, &answers.parent_id), (&asked.span_id, &asks.span_id));
        assert_eq!(asked.attributes["path"], "/x");
        assert_eq!(asked.resource["service.name"], "novacron-test");
        assert_eq!(asked.resource["service.instance.id"], "one");
        assert_eq!(answers.resource["service.name"], "another");
    }

    #[test]
    fn who_is_not_sampled_is_not_exported_and_says_so_to_the_next() {
        let collector = Collector::start();
        let exporter = to(&collector.endpoint(), &[]);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(exporter.layer()), || {
            let span = tracing::info_span!("asked");
            follow(&span, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
            let sent = span.in_scope(traceparent).expect("it goes on");
            assert!(
                sent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && sent.ends_with("-00"),
                "{sent}"
            );
        });
        exporter.finish();
        assert!(collector.spans().is_empty());
    }

    /// Makes spans that nobody takes, and returns.
    fn flood(address: SocketAddr, count: usize) {
        let exporter = to(&format!("http://{address}"), &[("OTEL_BSP_MAX_QUEUE_SIZE", "100")]);
        let subscriber = tracing_subscriber::registry().with(exporter.layer());
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..count {
                tracing::info_span!("nobody takes it").in_scope(|| {});
                assert!(exporter.waiting.count() <= 100);
            }
        });
        exporter.finish();
    }

    fn lost(text: &str) -> u64 {
        let counts = text.lines().filter(|line| line.starts_with("otlp_spans_lost_total{"));
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// One that refuses, and one that takes connections and never says anything.
    #[test]
    fn dead_collectors_keep_nobody_waiting_and_what_is_lost_is_counted() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let _inside = runtime.enter();
        // The only recorder of these tests, and the only one of them that loses spans.
        let metrics = Metrics::install(describe_metrics).expect("a recorder");
        let refusing = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        flood(refusing, 10_000);
        assert_eq!(lost(&metrics.renderer()()), 10_000);
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        flood(silent.local_addr().expect("an address"), 10_000);
        assert!(
            lost(&metrics.renderer()()) >= 10_000 + 9_000,
            "those that found no room are counted at once"
        );
    }

    #[test]
    fn the_environment_decides_whether_and_how() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
        for says in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
            &[endpoint, ("OTEL_SDK_DISABLED", "TRUE")],
            &[endpoint, ("OTEL_TRACES_EXPORTER", "none")],
        ] {
            assert!(exporter("p", says).expect("nothing is asked for").is_none(), "{says:?}");
        }
        let refused = exporter("p", &[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")]);
        assert!(refused.expect_err("it is not spoken").to_string().contains("http/json"));
        assert!(exporter("p", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "no place")]).is_err());
    }
}
