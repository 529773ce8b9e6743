//! Regions that are started and stopped.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use consensus_core::{NodeConfig, RegionNetworkConfig, Role, Timing};
use consensus_etcd::{InitialCluster, MemberFolder, RegionsConfig, Server, ServerConfig};
use consensus_proto::{
    etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, kv_client::KvClient},
    regions::{
        ChangeRequest, StatusRequest, StatusResponse, change_request::Change, regions_client::RegionsClient,
    },
};
use consensus_regions::{Local, Phase, topology::Topology};
use consensus_store::StoredItems;
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{Status, transport::Channel};

/// For what has to happen on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

pub(crate) async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !look().await {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited)
        .await
        .unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"));
}

struct Member {
    server: Server,
    clients: SocketAddr,
    serving: JoinHandle<()>,
}

pub(crate) struct Region {
    pub(crate) number: u32,
    pub(crate) listen: SocketAddr,
    members: Vec<Member>,
}

/// Some regions, with the addresses that they will have.
pub(crate) struct World {
    folder: tempfile::TempDir,
    listens: BTreeMap<u32, SocketAddr>,
    peers: BTreeMap<u32, Vec<SocketAddr>>,
    regions: BTreeMap<u32, Region>,
    pub(crate) founders: Vec<u32>,
    /// Two that do not know where the other is.
    pub(crate) apart: Option<(u32, u32)>,
    pub(crate) topology: Topology,
}

fn free_addresses(count: u16) -> Vec<SocketAddr> {
    ports::free(count).into_iter().map(|port| (Ipv4Addr::LOCALHOST, port).into()).collect()
}

impl World {
    pub(crate) fn new(count: u32) -> Self {
        let listens = (1..).zip(free_addresses(count as u16)).collect();
        Self {
            folder: tempfile::tempdir().unwrap(),
            listens,
            peers: BTreeMap::new(),
            regions: BTreeMap::new(),
            founders: (1..=count).collect(),
            apart: None,
            topology: Topology::Mesh,
        }
    }

    pub(crate) fn listen(&self, number: u32) -> SocketAddr {
        self.listens[&number]
    }

    pub(crate) fn region(&self, number: u32) -> &Region {
        &self.regions[&number]
    }

    /// Starts a region of so many members, or starts it again.
    pub(crate) async fn start(&mut self, number: u32, members: usize, joins: bool) {
        let peers = self.peers.entry(number).or_insert_with(|| free_addresses(members as u16)).clone();
        let list: Vec<_> = peers.iter().enumerate().map(|(n, addr)| format!("m{n}=http://{addr}")).collect();
        let initial = InitialCluster::parse(&list.join(","), &format!("region{number}")).unwrap();
        let mut region = Region { number, listen: self.listens[&number], members: Vec::new() };
        for (n, at) in peers.iter().enumerate() {
            // One address a region is known to the others: its other members listen where nobody looks, until they are told to.
            let listen = if n == 0 { region.listen } else { self.listen_of(number, n) };
            let regions = self.config(number, listen, joins);
            region.members.push(self.member(number, n, *at, &initial, regions).await);
        }
        region.leader().await;
        self.regions.insert(number, region);
    }

    fn listen_of(&mut self, number: u32, member: usize) -> SocketAddr {
        let key = number * 1000 + member as u32;
        *self.listens.entry(key).or_insert_with(|| free_addresses(1)[0])
    }

    fn config(&self, number: u32, listen: SocketAddr, joins: bool) -> RegionsConfig {
        let founders = self.founders.iter().map(|number| (*number, format!("r{number}"))).collect();
        let network = RegionNetworkConfig {
            region: number,
            name: format!("r{number}"),
            listen,
            tls: None,
            allow_plaintext: false,
        };
        let mut config = RegionsConfig::new(network, founders);
        config.joins = joins;
        let is_apart =
            |other| self.apart.is_some_and(|(a, b)| (number, other) == (a, b) || (number, other) == (b, a));
        for (key, address) in &self.listens {
            let other = if *key >= 1000 { key / 1000 } else { *key };
            if other != number && !is_apart(other) {
                config.peers.entry(other).or_default().push(format!("http://{address}"));
            }
        }
        config.replicator.topology = self.topology.clone();
        config.replicator.interval_ms = 200;
        config.replicator.anti_entropy_interval_ms = 500;
        config
    }

    async fn member(
        &self,
        number: u32,
        n: usize,
        at: SocketAddr,
        initial: &InitialCluster,
        regions: RegionsConfig,
    ) -> Member {
        let name = format!("m{n}");
        let folder = self.folder.path().join(format!("r{number}/{name}"));
        let log = folder.join("log");
        let identity = initial.identity(&MemberFolder::new(&folder, &log), &name, false, None, false).await;
        let identity = identity.unwrap();
        let mut node = NodeConfig::new(identity.cluster, identity.id, log, at);
        node.start = identity.start;
        node.timing =
            Timing { heartbeat: Duration::from_millis(50), election_timeout: Duration::from_millis(500) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let clients = listener.local_addr().unwrap();
        let mut config = ServerConfig::new(node, folder.join("data"), name);
        config.client_urls = vec![format!("http://{clients}")];
        config.reserve_bytes = 1 << 20;
        config.regions = Some(regions);
        // The last handle to a disk, or to a socket, may be with a task that is just ending.
        let mut attempt = 0;
        let server = loop {
            match Server::start(config.clone()).await {
                Ok(server) => break server,
                Err(error) if attempt == 100 => panic!("it does not start: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
            attempt += 1;
        };
        let served = server.clone();
        let serving =
            tokio::spawn(async move { served.serve(listener, std::future::pending()).await.unwrap() });
        Member { server, clients, serving }
    }

    pub(crate) async fn stop_region(&mut self, number: u32) {
        for member in self.regions.remove(&number).unwrap().members {
            member.server.stop().await;
            // A client that still waits for something may keep its connection.
            let _ = tokio::time::timeout(Duration::from_secs(5), member.serving).await;
        }
    }

    pub(crate) async fn restart(&mut self, number: u32) {
        let members = self.regions[&number].members.len();
        self.stop_region(number).await;
        self.start(number, members, false).await;
    }

    /// Threads that still use RocksDB while the process ends would abort it.
    pub(crate) async fn stop(mut self) {
        for number in self.regions.keys().copied().collect::<Vec<_>>() {
            self.stop_region(number).await;
        }
    }
}

impl Region {
    pub(crate) fn servers(&self) -> impl Iterator<Item = &Server> {
        self.members.iter().map(|member| &member.server)
    }

    pub(crate) async fn leader(&self) -> &Server {
        let leads = |server: &&Server| server.node().status().role == Role::Leader;
        until("a leader", async || self.servers().any(|server| leads(&server))).await;
        self.servers().find(leads).unwrap_or(&self.members[0].server)
    }

    async fn channel(&self) -> Channel {
        let url = format!("http://{}", self.members[0].clients);
        Channel::from_shared(url).unwrap().connect().await.unwrap()
    }

    async fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel().await)
    }

    pub(crate) async fn regions(&self) -> RegionsClient<Channel> {
        RegionsClient::new(self.channel().await)
    }

    pub(crate) async fn try_put(&self, key: &str, value: &str) -> Result<(), Status> {
        let request =
            PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
        self.kv().await.put(request).await.map(drop)
    }

    pub(crate) async fn put(&self, key: &str, value: &str) {
        // It may not be a region yet, and then the change is as good.
        self.try_put(key, value).await.unwrap();
    }

    pub(crate) async fn delete(&self, key: &str) {
        let request = DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
        self.kv().await.delete_range(request).await.unwrap();
    }

    pub(crate) async fn change(&self, key: &str, change: Change) {
        until("it is a region", async || self.phase().is_some()).await;
        let request = ChangeRequest { key: key.to_owned().into(), urgent: false, change: Some(change) };
        self.regions().await.change(request).await.unwrap();
    }

    pub(crate) async fn value(&self, key: &str) -> Option<String> {
        let request = RangeRequest { key: key.to_owned().into(), ..Default::default() };
        let found = self.kv().await.range(request).await.unwrap().into_inner();
        found.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
    }

    /// Everything under the prefix.
    pub(crate) async fn state(&self) -> BTreeMap<String, String> {
        let request =
            RangeRequest { key: "/global/".into(), range_end: "/global0".into(), ..Default::default() };
        let found = self.kv().await.range(request).await.unwrap().into_inner();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        found.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect()
    }

    pub(crate) async fn becomes(&self, key: &str, expected: Option<&str>) {
        let what = format!("{key} in region {} is {expected:?}", self.number);
        until(&what, async || self.value(key).await.as_deref() == expected).await;
    }

    pub(crate) async fn status(&self) -> StatusResponse {
        until("it is a region", async || self.phase().is_some()).await;
        self.regions().await.status(StatusRequest {}).await.unwrap().into_inner()
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(Local<'_, StoredItems<'_>>) -> T) -> T {
        self.members[0].server.reader().with_region(|_, local| look(local)).expect("it is a region")
    }

    pub(crate) fn phase(&self) -> Option<Phase> {
        self.members[0].server.reader().with_region(|_, local| local.replica.phase())
    }

    pub(crate) fn items(&self) -> u64 {
        Self::items_of(&self.members[0].server)
    }

    pub(crate) fn items_of(server: &Server) -> u64 {
        server.reader().region_items().unwrap()
    }
}
