//! The tasks that drive a connection. Each runs inside a span, and one that panics ends the connection: whoever waits
//! on it hears of that instead of waiting for a task that is gone.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use dwcp_proto::CloseCode;
use tracing::{Instrument, Span};

use crate::shared::Shared;

/// Runs a task of the connection until its end.
pub(crate) fn spawn(
    shared: &Arc<Shared>,
    name: &'static str,
    span: Span,
    task: impl Future<Output = ()> + Send + 'static,
) {
    let guard = PanicGuard::new(shared, name);
    let guarded = async move {
        let guard = guard; // outermost: what the task holds is released before it
        #[cfg(test)]
        let task = tests::may_panic(&guard.shared, name, task);
        task.await;
        drop(guard);
    };
    tokio::spawn(guarded.instrument(span));
}

/// Ends the connection with an internal error if it is dropped by a panic.
#[derive(Debug)]
pub(crate) struct PanicGuard {
    shared: Arc<Shared>,
    task: &'static str,
}

impl PanicGuard {
    pub(crate) fn new(shared: &Arc<Shared>, task: &'static str) -> Self {
        Self { shared: Arc::clone(shared), task }
    }
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            end_after_panic(&self.shared, self.task);
        }
    }
}

/// Who panicked, if it was no task.
const CALL: &str = "call";

/// The same for what a caller's thread does inside the connection. A caller who panics himself, and drops handles
/// meanwhile, ends nothing.
#[derive(Debug)]
pub(crate) struct CallGuard<'a> {
    shared: &'a Shared,
    caller_panics: bool,
}

impl<'a> CallGuard<'a> {
    pub(crate) fn new(shared: &'a Shared) -> Self {
        Self { shared, caller_panics: thread::panicking() }
    }
}

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        if thread::panicking() && !self.caller_panics {
            end_after_panic(self.shared, CALL);
        }
    }
}

fn end_after_panic(shared: &Shared, task: &'static str) {
    tracing::error!(parent: &shared.span, task, "a task panicked: this is a bug");
    let end = || {
        shared.with(|state, _| {
            // A task is named, rather than what it called.
            if state.panicked.is_none_or(|earlier| earlier == CALL) {
                state.panicked = Some(task);
            }
            state.core.close(CloseCode::INTERNAL, "");
        });
    };
    // A second panic, while the first is on its way, would end the process.
    if catch_unwind(AssertUnwindSafe(end)).is_err() {
        tracing::error!(parent: &shared.span, "the connection could not be closed after a panic");
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, time::Duration};

    use super::*;
    use crate::{Connection, ConnectionError, Endpoint, EndpointConfig, ReadError};

    /// Lets a task panic at its next turn, if the test has asked for that.
    pub(super) async fn may_panic(shared: &Shared, name: &'static str, task: impl Future<Output = ()>) {
        let mut task = pin!(task);
        poll_fn(|context| {
            let asked = *shared.panic_in.lock().unwrap() == Some(name);
            assert!(!asked, "the test wants the {name} to panic");
            task.as_mut().poll(context)
        })
        .await;
    }

    async fn pair() -> (Connection, Connection) {
        let mut config = EndpointConfig::new("server");
        // A client whose only link has panicked cannot tell why.
        config.transport.resume_timeout = Duration::from_secs(1);
        let server = Endpoint::listen("127.0.0.1:0".parse().unwrap(), config).await.unwrap();
        let client = Endpoint::client(EndpointConfig::new("client")).unwrap();
        let addr = server.local_addr().unwrap();
        let (connected, accepted) = tokio::join!(client.connect(addr, "server"), server.accept());
        (connected.unwrap(), accepted.unwrap())
    }

    #[tokio::test]
    async fn a_panic_in_any_task_ends_the_connection() {
        for task in ["reader", "writer", "timer", "monitor", "dialer"] {
            let (a, b) = pair().await;
            let (mut send, mut recv) = a.open_stream().await.unwrap();
            send.write_all(b"x").await.unwrap();
            let reading = tokio::spawn(async move { recv.read_chunk().await });
            let (_answer, _incoming) = b.accept_stream().await.unwrap();

            let shared = a.shared();
            *shared.panic_in.lock().unwrap() = Some(task);
            // Everybody gets a turn; the reader gets one by what the other side sends.
            shared.lock().links.iter().for_each(|link| link.kick());
            shared.timer.notify_one();
            shared.links_changed.notify_one();
            b.messages().send(crate::Priority::Normal, "wake up".into()).await.unwrap();

            let ended = tokio::time::timeout(Duration::from_secs(60), a.closed()).await;
            let expected = ConnectionError::Internal { task };
            assert_eq!(ended.expect("the connection ends"), expected);
            assert_eq!(reading.await.unwrap(), Err(ReadError::Connection(expected.clone())));
            assert_eq!(a.open_stream().await.map(drop), Err(expected));
            shared.wait_links_closed().await;
            // The peer hears why, unless the link that would tell it was the one in trouble.
            let at_peer = tokio::time::timeout(Duration::from_secs(60), b.closed()).await;
            let at_peer = at_peer.expect("the peer's side ends, too");
            assert!(
                matches!(&at_peer, ConnectionError::ClosedByPeer(reason) if reason.code == CloseCode::INTERNAL),
                "{task}: {at_peer:?}"
            );
        }
    }

    /// A call of the application may be the one that writes to the socket.
    #[tokio::test]
    async fn a_panic_in_a_call_ends_the_connection() {
        for (place, links) in [("fill", 1), ("fill", 2), ("write", 1), ("write", 2)] {
            let (a, b) = pair().await;
            while a.shared().link_count() < links {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let (mut send, _recv) = a.open_stream().await.unwrap();
            let shared = Arc::clone(a.shared());
            let writing = tokio::spawn(async move {
                // There is one thread, and nothing runs between this and the write.
                *shared.panic_in.lock().unwrap() = Some(place);
                send.write_all(b"x").await
            });
            assert!(writing.await.unwrap_err().is_panic(), "{place}");

            let ended = tokio::time::timeout(Duration::from_secs(60), a.closed()).await;
            assert_eq!(
                ended.expect("the connection ends"),
                ConnectionError::Internal { task: "call" },
                "{place}"
            );
            let at_peer = tokio::time::timeout(Duration::from_secs(60), b.closed()).await;
            at_peer.expect("the peer's side ends, too");
        }
    }

    #[tokio::test]
    async fn a_caller_who_panics_himself_ends_nothing() {
        let (a, b) = pair().await;
        let (send, recv) = a.open_stream().await.unwrap();
        let panicking = tokio::spawn(async move {
            let _handles = (send, recv);
            panic!("the application has a bug");
        });
        assert!(panicking.await.unwrap_err().is_panic());
        let (mut send, _recv) = a.open_stream().await.unwrap();
        send.write_all(b"x").await.unwrap();
        assert!(!a.shared().is_closed() && !b.shared().is_closed());
    }

    #[tokio::test]
    async fn a_task_that_ends_or_is_dropped_changes_nothing() {
        let (a, _b) = pair().await;
        let shared = a.shared();
        drop(PanicGuard::new(shared, "finished"));
        let waiting = tokio::spawn({
            let guard = PanicGuard::new(shared, "cancelled");
            async move {
                std::future::pending::<()>().await;
                drop(guard);
            }
        });
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        assert!(!shared.is_closed());
    }
}
