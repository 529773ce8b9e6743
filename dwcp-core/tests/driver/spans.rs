//! Every event of the driver lies inside the span of its connection, link or handshake.
//!
//! Each test has one thread, on which the endpoints' tasks run, too; so it has a subscriber of its own.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, Once},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id},
    subscriber::DefaultGuard,
};
use tracing_subscriber::{
    Layer, layer,
    layer::SubscriberExt as _,
    registry::{LookupSpan, SpanRef},
};

use crate::{
    links::{DEADLINE, links_up},
    proxy::{Cut, Proxy},
    support::{config, connect, listen},
};

/// The driver's events as lines: `span{field=value ..} > span{..}: message field=value ..`.
#[derive(Clone, Debug, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

/// `field=value` of a span or an event.
#[derive(Default)]
struct Fields {
    message: String,
    fields: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            let space = if self.fields.is_empty() { "" } else { " " };
            write!(self.fields, "{space}{}={value:?}", field.name()).unwrap();
        }
    }
}

fn is_driver(target: &str) -> bool {
    target.starts_with("dwcp_core")
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: layer::Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let span = context.span(id).unwrap();
        let shown = format!("{}{{{}}}", span.name(), fields.fields);
        span.extensions_mut().insert(shown);
    }

    fn on_event(&self, event: &Event<'_>, context: layer::Context<'_, S>) {
        if !is_driver(event.metadata().target()) {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let shown = |span: SpanRef<'_, S>| span.extensions().get::<String>().cloned().unwrap_or_default();
        let scope: Vec<_> =
            context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()).map(shown).collect();
        let line = format!("{}: {} {}", scope.join(" > "), fields.message, fields.fields);
        self.0.lock().unwrap().push(line);
    }
}

impl Lines {
    /// What this thread's driver says from here on, until the guard goes.
    fn of_this_thread() -> (Self, DefaultGuard) {
        // Whether anybody listens to an event is asked once for the whole process, and with a single subscriber only of
        // the thread that meets the event first. A second one that takes everything keeps the other tests' threads,
        // which have none, from answering "nobody".
        static EVERYWHERE: Once = Once::new();
        EVERYWHERE
            .call_once(|| tracing::subscriber::set_global_default(tracing_subscriber::registry()).unwrap());
        let lines = Self::default();
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines.clone()));
        (lines, guard)
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// The first line that contains all of these, once there is one.
    async fn line(&self, parts: &[&str]) -> String {
        let found = async {
            loop {
                let line = self.all().into_iter().find(|line| parts.iter().all(|part| line.contains(part)));
                match line {
                    Some(line) => return line,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let result = tokio::time::timeout(DEADLINE, found).await;
        result.unwrap_or_else(|_| panic!("no line has {parts:?}:\n{}", self.all().join("\n")))
    }
}

#[tokio::test]
async fn events_lie_in_the_span_of_their_connection_and_link() {
    let (lines, _guard) = Lines::of_this_thread();
    let (server, addr) = listen(config("here", 2)).await;
    let proxy = Proxy::start(addr).await;
    let (a, b) = connect(&server, proxy.addr, config("there", 2)).await;

    let up = lines.line(&[r#"connection{role="client" peer="here""#, " > link{id=1}: link up"]).await;
    let id = up.split_once(" id=").unwrap().1.split_once('}').unwrap().0;
    assert_eq!(id.len(), 32, "{up}");
    assert!(up.contains(&format!("addr={}", proxy.addr)), "{up}");
    lines.line(&[r#"connection{role="server" peer="there""#, id, " > link{id=1}: link up"]).await;

    assert!(proxy.cut_one(0, Cut::Reset));
    lines.line(&[r#"connection{role="client""#, id, "link lost"]).await;
    proxy.refuse(true);
    proxy.cut_all(Cut::Reset);
    lines.line(&[r#"connection{role="client""#, id, "a link could not be made"]).await;
    proxy.refuse(false);
    links_up(&a, 2).await;
    a.close(3, "enough");
    lines.line(&[r#"connection{role="client""#, id, "connection ended", "closed by this side"]).await;
    lines.line(&[r#"connection{role="server""#, id, "connection ended", "enough"]).await;
    b.closed().await;

    // Nothing of the driver lies outside.
    let all = lines.all();
    let outside: Vec<_> = all.iter().filter(|line| line.starts_with(':')).collect();
    assert!(outside.is_empty(), "{outside:#?}");
}

#[tokio::test]
async fn a_handshake_has_a_span_below_the_accepting_one() {
    let (lines, _guard) = Lines::of_this_thread();
    let (_server, addr) = listen(config("here", 1)).await;
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let from = format!("addr={}", socket.local_addr().unwrap());
    socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let _ = socket.read(&mut [0]).await;
    let accept = format!("accept{{addr={addr}}} > handshake{{role=\"server\"");
    lines.line(&[&accept, &from, "broke the protocol"]).await;
}
