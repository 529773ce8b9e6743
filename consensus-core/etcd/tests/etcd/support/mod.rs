//! Members in one process, with real disks and sockets.

// Each test file uses a part of it.
#![allow(dead_code)]

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use consensus_core::{NodeConfig, Role, Timing};
use consensus_etcd::{InitialCluster, MemberFolder, Server, ServerConfig};
use consensus_proto::etcdserverpb::{PutRequest, RangeRequest, kv_client::KvClient};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::transport::Channel;

pub(crate) struct Member {
    pub(crate) server: Server,
    pub(crate) clients: SocketAddr,
    serving: JoinHandle<()>,
}

pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    pub(crate) initial: InitialCluster,
    peers: Vec<SocketAddr>,
    pub(crate) members: Vec<Option<Member>>,
    /// What differs from the defaults, of members that start from now on.
    pub(crate) configure: fn(&mut ServerConfig),
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
pub(crate) fn free_addresses(count: u16) -> Vec<SocketAddr> {
    ports::free(count).into_iter().map(|port| (Ipv4Addr::LOCALHOST, port).into()).collect()
}

impl Cluster {
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_with(count, |_| ()).await
    }

    pub(crate) async fn start_with(count: usize, configure: fn(&mut ServerConfig)) -> Self {
        let mut cluster = Self::prepare(count).await;
        cluster.configure = configure;
        cluster.start_all().await;
        cluster
    }

    /// Members that do not run yet.
    pub(crate) async fn prepare(count: usize) -> Self {
        let peers = free_addresses(count as u16);
        let list: Vec<_> = peers.iter().enumerate().map(|(n, addr)| format!("m{n}=http://{addr}")).collect();
        let initial = InitialCluster::parse(&list.join(","), "test").unwrap();
        let folder = tempfile::tempdir().unwrap();
        Self { folder, initial, peers, members: Vec::new(), configure: |_| () }
    }

    pub(crate) async fn start_all(&mut self) {
        for n in 0..self.peers.len() {
            let member = self.member(n).await;
            self.members.push(Some(member));
        }
        self.leader().await;
    }

    async fn member(&self, n: usize) -> Member {
        self.try_member(n).await.unwrap()
    }

    async fn try_member(&self, n: usize) -> Result<Member, String> {
        let name = format!("m{n}");
        self.try_start(&name, &self.initial, self.peers[n], false).await
    }

    /// A member that was added, at this address.
    pub(crate) async fn join(&mut self, name: &str, at: SocketAddr) -> Result<usize, String> {
        let known = self.peers.iter().enumerate().map(|(n, addr)| format!("m{n}=http://{addr}"));
        let list: Vec<_> = known.chain([format!("{name}=http://{at}")]).collect();
        let initial = InitialCluster::parse(&list.join(","), "test").unwrap();
        let member = self.try_start(name, &initial, at, true).await?;
        self.members.push(Some(member));
        self.peers.push(at);
        Ok(self.members.len() - 1)
    }

    async fn try_start(
        &self,
        name: &str,
        initial: &InitialCluster,
        at: SocketAddr,
        joins: bool,
    ) -> Result<Member, String> {
        let folder = self.folder.path().join(name);
        let log = folder.join("log");
        let identity = initial.identity(&MemberFolder::new(&folder, &log), name, joins, None, false).await;
        let identity = identity.map_err(|error| error.to_string())?;
        let mut node = NodeConfig::new(identity.cluster, identity.id, log, at);
        node.start = identity.start;
        node.timing =
            Timing { heartbeat: Duration::from_millis(50), election_timeout: Duration::from_millis(500) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let clients = listener.local_addr().unwrap();
        let mut config = ServerConfig::new(node, folder.join("data"), name);
        config.client_urls = vec![format!("http://{clients}")];
        config.reserve_bytes = 1 << 20;
        (self.configure)(&mut config);
        let server = Server::start(config).await.map_err(|error| error.to_string())?;
        let served = server.clone();
        let serving =
            tokio::spawn(async move { served.serve(listener, std::future::pending()).await.unwrap() });
        Ok(Member { server, clients, serving })
    }

    /// Where a member's data is.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
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
