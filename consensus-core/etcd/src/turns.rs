//! Work that would keep a thread of the runtime from others: it is done on threads that may block, so much at a time.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tonic::Status;

/// Turns of one kind of work.
#[derive(Debug)]
pub(crate) struct Turns(Arc<Semaphore>);

impl Turns {
    pub(crate) fn new(at_once: usize) -> Self {
        Self(Arc::new(Semaphore::new(at_once)))
    }

    /// Has work done when it is its turn, which is waited for at most for `patience`. Work that has begun keeps its turn to its
    /// end, whether or not anybody still wants to know.
    pub(crate) async fn take<T: Send + 'static>(
        &self,
        patience: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        let turn = Arc::clone(&self.0).acquire_owned();
        let Ok(Ok(turn)) = tokio::time::timeout(patience, turn).await else {
            return Err(Status::resource_exhausted("etcdserver: too many requests"));
        };
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.map_err(|error| Status::internal(format!("etcdserver: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn work_keeps_its_turn_to_its_end_and_no_thread_of_the_runtime() {
        let turns = Arc::new(Turns::new(1));
        let (release, held) = mpsc::channel::<()>();
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let first = Arc::clone(&turns);
        let first = tokio::spawn(async move {
            let work = move || {
                begun.send(()).unwrap();
                let _ = held.recv();
            };
            first.take(Duration::MAX, work).await
        });
        // On the only thread of this runtime, which the work would otherwise have.
        has_begun.await.unwrap();
        // Nobody wants to know any more.
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        let refused = turns.take(Duration::ZERO, || ()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        drop(release);
        assert_eq!(turns.take(Duration::MAX, || 7).await.unwrap(), 7);
    }
}
