//! Members in one process, with real disks and sockets, for tests that use them through gRPC.

// Each file of tests uses a part of it.
#![allow(dead_code)]

use std::{net::SocketAddr, path::Path, time::Duration};

use consensus_core::{NodeConfig, Role, Timing};
use consensus_etcd::{InitialCluster, Server, ServerConfig, ServerError};
use consensus_proto::etcdserverpb::{PutRequest, RangeRequest, kv_client::KvClient};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::transport::Channel;

pub(crate) struct Member {
    pub(crate) server: Server,
    pub(crate) clients: SocketAddr,
    pub(crate) serving: JoinHandle<()>,
}

pub(crate) struct Cluster {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) initial: InitialCluster,
    pub(crate) peers: Vec<SocketAddr>,
    pub(crate) members: Vec<Option<Member>>,
    /// What differs from the defaults.
    configure: fn(&mut ServerConfig),
}

/// Threads that still use RocksDB while the process ends would abort it.
impl Drop for Cluster {
    fn drop(&mut self) {
        let members: Vec<_> = self.members.drain(..).flatten().collect();
        let stop = async {
            for member in members {
                member.server.stop().await;
                // A client that still waits for something may keep its connection.
                let _ = tokio::time::timeout(Duration::from_secs(5), member.serving).await;
            }
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(stop));
    }
}

/// Ports that were free a moment ago.
pub(crate) async fn free_ports(count: usize) -> Vec<SocketAddr> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    held.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

impl Cluster {
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_with(count, |_| ()).await
    }

    pub(crate) async fn start_with(count: usize, configure: fn(&mut ServerConfig)) -> Self {
        let peers = free_ports(count).await;
        let list: Vec<_> = peers.iter().enumerate().map(|(n, addr)| format!("m{n}=http://{addr}")).collect();
        let initial = InitialCluster::parse(&list.join(","), "test").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Self { folder, initial, peers, members: Vec::new(), configure };
        for n in 0..count {
            let member = cluster.member(n).await;
            cluster.members.push(Some(member));
        }
        cluster.leader().await;
        cluster
    }

    pub(crate) async fn member(&self, n: usize) -> Member {
        self.try_member(n).await.unwrap()
    }

    pub(crate) async fn try_member(&self, n: usize) -> Result<Member, ServerError> {
        let name = format!("m{n}");
        let folder: &Path = self.folder.path();
        let id = self.initial.member_id(&name).unwrap();
        let log = folder.join(&name).join("log");
        std::fs::create_dir_all(folder.join(&name)).unwrap();
        let mut node = NodeConfig::new(self.initial.cluster_id(), id, log, self.peers[n]);
        node.bootstrap = Some(self.initial.membership());
        node.timing =
            Timing { heartbeat: Duration::from_millis(50), election_timeout: Duration::from_millis(500) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let clients = listener.local_addr().unwrap();
        let mut config = ServerConfig::new(node, folder.join(&name).join("data"), name);
        config.client_urls = vec![format!("http://{clients}")];
        (self.configure)(&mut config);
        let server = Server::start(config).await?;
        let served = server.clone();
        let serving =
            tokio::spawn(async move { served.serve(listener, std::future::pending()).await.unwrap() });
        Ok(Member { server, clients, serving })
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = (usize, &Member)> {
        self.members.iter().enumerate().filter_map(|(n, member)| Some((n, member.as_ref()?)))
    }

    pub(crate) async fn leader(&self) -> usize {
        for _ in 0..2000 {
            if let Some((n, _)) =
                self.running().find(|(_, member)| member.server.node().status().role == Role::Leader)
            {
                return n;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no leader within 20 s");
    }

    pub(crate) async fn channel(&self, n: usize) -> Channel {
        let url = format!("http://{}", self.members[n].as_ref().unwrap().clients);
        Channel::from_shared(url).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn kv(&self, n: usize) -> KvClient<Channel> {
        KvClient::new(self.channel(n).await)
    }

    pub(crate) async fn stop(&mut self, n: usize) {
        let member = self.members[n].take().unwrap();
        member.server.stop().await;
        // Served to the end: the connections' tasks hold the server, and with it the disks.
        member.serving.await.unwrap();
    }

    pub(crate) async fn restart(&mut self, n: usize) {
        // The last handle to a disk, or to a socket, may be with a task that is just ending.
        for attempt in 0.. {
            match self.try_member(n).await {
                Ok(member) => {
                    self.members[n] = Some(member);
                    return;
                }
                Err(error) if attempt < 100 => {
                    eprintln!("attempt {attempt}: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => panic!("it does not start again: {error}"),
            }
        }
    }
}

pub(crate) fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

pub(crate) fn get(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), ..Default::default() }
}

pub(crate) async fn value(kv: &mut KvClient<Channel>, key: &str) -> Option<String> {
    let found = kv.range(get(key)).await.unwrap().into_inner();
    found.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
}
