//! Reads of the store: short ones at once, on the task's own thread; long ones where they are in nobody's way, a few at a time.

use consensus_proto::etcdserverpb::{RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use consensus_rocks::RocksDisk;
use consensus_store::{Reader, StoreError};
use tonic::Status;

use crate::{server::Server, status};

/// Long reads at a time. More would only share the same processors and disk.
pub(crate) const LONG_READS_AT_ONCE: usize = 4;

impl Server {
    /// Reads a range.
    pub(crate) async fn read_range(&self, request: &RangeRequest) -> Result<RangeResponse, Status> {
        let short = self.shared.reader.short_range(request);
        match short.map_err(|error| status::store(&error))? {
            Some(response) => Ok(response),
            None => {
                let request = request.clone();
                self.read_long(move |reader| reader.range(&request)).await
            }
        }
    }

    /// Reads what a transaction that changes nothing asks for.
    pub(crate) async fn read_txn(&self, request: &TxnRequest) -> Result<TxnResponse, Status> {
        let short = self.shared.reader.short_txn(request);
        match short.map_err(|error| status::store(&error))? {
            Some(response) => Ok(response),
            None => {
                let request = request.clone();
                self.read_long(move |reader| reader.txn(&request)).await
            }
        }
    }

    /// Reads what takes long, when it is its turn.
    pub(crate) async fn read_long<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader<RocksDisk>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Status> {
        let reader = self.shared.reader.clone();
        let read = self.shared.long_reads.take(self.shared.request_timeout, move || read(&reader)).await?;
        read.map_err(|error| status::store(&error))
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, pin::pin, sync::mpsc};

    use consensus_core::NodeConfig;
    use consensus_proto::etcdserverpb::{PutRequest, RequestOp, kv_server::Kv as _, request_op};
    use tonic::Request;

    use super::*;
    use crate::{InitialCluster, MemberFolder, ServerConfig};

    const PUTS: usize = 100;
    const TXNS: usize = 30;

    async fn member(folder: &Path) -> Server {
        let initial = InitialCluster::parse("m=http://127.0.0.1:1", "test").unwrap();
        let files = MemberFolder::new(folder, folder.join("log"));
        let identity = initial.identity(&files, "m", false, None, false).await.unwrap();
        let mut node =
            NodeConfig::new(identity.cluster, identity.id, folder.join("log"), ([127, 0, 0, 1], 0).into());
        node.start = identity.start;
        let mut config = ServerConfig::new(node, folder.join("data"), "m");
        config.reserve_bytes = 1 << 20;
        let server = Server::start(config).await.unwrap();
        server.published().await;
        server
    }

    fn op(request: request_op::Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    async fn fill(server: &Server) {
        for txn in 0..TXNS {
            let put = |n| PutRequest { key: format!("key{txn:02}/{n:02}").into(), ..Default::default() };
            let success = (0..PUTS).map(|n| op(request_op::Request::RequestPut(put(n)))).collect();
            server.txn(Request::new(TxnRequest { success, ..Default::default() })).await.unwrap();
        }
    }

    fn range(key: &str, range_end: &str) -> RangeRequest {
        RangeRequest {
            key: key.to_owned().into(),
            range_end: range_end.to_owned().into(),
            ..Default::default()
        }
    }

    /// One thread of the runtime: whoever keeps it, keeps it from all.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn who_reads_little_does_not_wait_for_those_who_read_much() {
        let folder = tempfile::tempdir().unwrap();
        let server = member(folder.path()).await;
        fill(&server).await;
        let read = async |request| server.range(Request::new(request)).await.unwrap().into_inner();
        assert_eq!(read(range("key", "l")).await.count, (TXNS * PUTS) as i64);

        // Long reads that end when they are told to.
        let (begun, mut has_begun) = tokio::sync::mpsc::channel(LONG_READS_AT_ONCE);
        let (release, held): (Vec<_>, Vec<_>) =
            (0..LONG_READS_AT_ONCE).map(|_| mpsc::channel::<()>()).unzip();
        for held in held {
            let (server, begun) = (server.clone(), begun.clone());
            let read = move |_: &Reader<_>| {
                begun.blocking_send(()).unwrap();
                Ok(held.recv().is_err())
            };
            tokio::spawn(async move { server.read_long(read).await });
        }
        for _ in 0..LONG_READS_AT_ONCE {
            has_begun.recv().await.unwrap();
        }

        let mut large = pin!(read(range("key", "l")));
        for (small, count) in [(range("key07/42", ""), 1), (range("key07/", "key070"), PUTS as i64)] {
            tokio::select! {
                biased;
                response = &mut large => panic!("{} keys without a turn", response.count),
                response = read(small) => assert_eq!(response.count, count),
            }
        }
        drop(release);
        assert_eq!(large.await.kvs.len(), TXNS * PUTS);
        server.stop().await;
    }
}
