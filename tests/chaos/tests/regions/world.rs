//! The processes, the links between them, and clients beside each.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use consensus_proto::{
    etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, kv_client::KvClient},
    regions::{
        ChangeRequest, StatusRequest, StatusResponse, change_request::Change, regions_client::RegionsClient,
    },
};
use dwcp_lab::{
    Scenario,
    link::Link,
    namespace::Namespace,
    pump::Pump,
    sweep::{self, MARK_VARIABLE, Mark},
    tun::Tun,
    unavailable,
};
use tonic::transport::Channel;

pub(crate) const REGIONS: usize = 3;
/// The links, with their round trips in milliseconds.
const LINKS: [(usize, usize, f64); 3] = [(0, 1, 80.0), (0, 2, 150.0), (1, 2, 300.0)];
/// Only what hangs reaches it.
const PATIENCE: Duration = Duration::from_secs(180);
const RATE_MBIT: f64 = 50.0;
const CLIENTS: &str = "http://127.0.0.1:2379";

pub(crate) struct World {
    // In this order: pumps hold the devices, which live in the namespaces.
    pumps: BTreeMap<(usize, usize), Pump>,
    namespaces: Vec<Namespace>,
    regions: Vec<Option<Child>>,
    program: PathBuf,
    interval: Duration,
    mark: Mark,
    began: Instant,
}

impl Drop for World {
    fn drop(&mut self) {
        for region in self.regions.iter_mut().flatten() {
            // Both fail only if it has ended already.
            let _ = region.kill();
            let _ = region.wait();
        }
        sweep::sweep_lab(&self.mark);
    }
}

/// The daemon that the same build has made; this package cannot depend on it.
fn program() -> Option<PathBuf> {
    if let Some(reason) = unavailable() {
        eprintln!("SKIP: {reason}");
        return None;
    }
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("novacron-consensus");
    if !program.is_file() {
        eprintln!("SKIP: {} is not built (cargo build --release --workspace --bins)", program.display());
        return None;
    }
    Some(program)
}

/// The address of a region on its link with another (198.18.0.0/15, RFC 2544).
fn address(region: usize, other: usize) -> Ipv4Addr {
    let (low, high) = (region.min(other), region.max(other));
    Ipv4Addr::new(198, 18, (10 * low + high) as u8, 1 + u8::from(region > other))
}

fn name(region: usize) -> String {
    format!("r{region}")
}

impl World {
    /// `None`: this machine cannot have one, and it is said why.
    pub(crate) fn start(interval: Duration) -> Option<Self> {
        let program = program()?;
        sweep::sweep_dead();
        let namespaces: Vec<_> = (0..REGIONS).map(|_| Namespace::create().unwrap()).collect();
        let end = |region: usize, other: usize| {
            let (device, namespace) = (format!("to{other}"), &namespaces[region]);
            let tun = namespace.enter(|| Tun::create(&device)).unwrap();
            namespace
                .ip(&[
                    &format!("link set {device} mtu 1500 txqueuelen 10000 up"),
                    &format!("address add {}/24 dev {device}", address(region, other)),
                ])
                .unwrap();
            tun
        };
        let pump = |(a, b, rtt_ms): (usize, usize, f64)| {
            let [there, back] = Scenario::clean("regions", RATE_MBIT, rtt_ms).directions().unwrap();
            ((a, b), Pump::start(end(a, b), end(b, a), Link::new(there), Link::new(back)))
        };
        let pumps = LINKS.into_iter().map(pump).collect();
        let regions = (0..REGIONS).map(|_| None).collect();
        let (mark, began) = (Mark::unique(), Instant::now());
        std::fs::create_dir_all(mark.scratch()).unwrap();
        let mut world = Self { pumps, namespaces, regions, program, interval, mark, began };
        (0..REGIONS).for_each(|region| world.restart(region));
        Some(world)
    }

    fn folder(&self) -> PathBuf {
        self.mark.scratch()
    }

    fn log(&self, region: usize) -> PathBuf {
        self.folder().join(format!("{}.log", name(region)))
    }

    pub(crate) fn restart(&mut self, region: usize) {
        let log = std::fs::File::options().create(true).append(true).open(self.log(region)).unwrap();
        let numbered: Vec<_> = (0..REGIONS).map(|other| format!("{}={}", other + 1, name(other))).collect();
        let others = (0..REGIONS).filter(|other| *other != region);
        let peers: Vec<_> =
            others.map(|other| format!("{}=http://{}:9091", name(other), address(other, region))).collect();
        let mut command = Command::new(&self.program);
        command
            .args(["--name", "m", "--region", &name(region)])
            .args(["--listen-client-urls", CLIENTS, "--listen-peer-urls", "http://127.0.0.1:9090"])
            .args(["--replication-regions", &numbered.join(","), "--replication-peers", &peers.join(",")])
            .args(["--replication-listen", "0.0.0.0:9091", "--allow-plaintext"])
            .args(["--replication-interval", &format!("{}ms", self.interval.as_millis())])
            .arg("--data-dir")
            .arg(self.folder().join(name(region)))
            .env(MARK_VARIABLE, self.mark.to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.namespaces[region].confine(&mut command);
        self.regions[region] = Some(command.spawn().unwrap());
        self.until("the region answers", || self.is_region(region));
    }

    pub(crate) fn kill(&mut self, region: usize) {
        let mut child = self.regions[region].take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Whether nothing passes between two regions.
    pub(crate) fn cut(&self, a: usize, b: usize, is_cut: bool) {
        self.pumps[&(a, b)].set_up(!is_cut);
    }

    pub(crate) fn check_patience(&self) {
        if self.began.elapsed() > PATIENCE {
            for region in 0..REGIONS {
                eprintln!("-- region {region}\n{}", end_of(&self.log(region)));
            }
            panic!("not over after {PATIENCE:?}");
        }
    }

    pub(crate) fn until(&self, what: &str, mut look: impl FnMut() -> bool) {
        while !look() {
            if self.began.elapsed() > PATIENCE {
                eprintln!("waited for: {what}");
            }
            self.check_patience();
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn until_equal(&self, keys: usize) {
        self.until("all regions are equal", || {
            let first = self.state(0);
            first.len() == keys && (1..REGIONS).all(|region| self.state(region) == first)
        });
    }

    /// The state of all regions, once it is the same.
    pub(crate) fn until_equal_state(&self) -> BTreeMap<String, String> {
        let mut state = BTreeMap::new();
        self.until("all regions are equal, and know the same changes", || {
            state = self.state(0);
            let known = |region| {
                let status = self.status(region);
                status.regions.iter().map(|region| region.known).collect::<Vec<_>>()
            };
            let first = known(0);
            (1..REGIONS).all(|region| self.state(region) == state && known(region) == first)
        });
        state
    }

    /// Runs a client beside a region.
    fn beside<T: Send>(&self, region: usize, work: impl AsyncFnOnce(Channel) -> T + Send) -> Option<T> {
        self.namespaces[region].enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let channel = Channel::from_static(CLIENTS).connect().await.ok()?;
                Some(work(channel).await)
            })
        })
    }

    fn ask<T: Send>(&self, region: usize, work: impl AsyncFnOnce(Channel) -> T + Send) -> T {
        self.beside(region, work).expect("the region answers")
    }

    fn is_region(&self, region: usize) -> bool {
        let asked = self.beside(region, async |channel| {
            RegionsClient::new(channel).status(StatusRequest {}).await.is_ok()
        });
        asked == Some(true)
    }

    pub(crate) fn put(&self, region: usize, key: &str, value: &str) {
        let request =
            PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
        self.ask(region, async |channel| KvClient::new(channel).put(request).await.map(drop)).unwrap();
    }

    pub(crate) fn delete(&self, region: usize, key: &str) {
        let request = DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
        self.ask(region, async |channel| KvClient::new(channel).delete_range(request).await.map(drop))
            .unwrap();
    }

    pub(crate) fn change(&self, region: usize, key: &str, change: Change) {
        let request = ChangeRequest { key: key.to_owned().into(), urgent: false, change: Some(change) };
        self.ask(region, async |channel| RegionsClient::new(channel).change(request).await.map(drop))
            .unwrap();
    }

    pub(crate) fn status(&self, region: usize) -> StatusResponse {
        let answer =
            self.ask(region, async |channel| RegionsClient::new(channel).status(StatusRequest {}).await);
        answer.unwrap().into_inner()
    }

    /// Everything under the prefix.
    pub(crate) fn state(&self, region: usize) -> BTreeMap<String, String> {
        let request =
            RangeRequest { key: "/global/".into(), range_end: "/global0".into(), ..Default::default() };
        let found = self.ask(region, async |channel| KvClient::new(channel).range(request).await);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        found.unwrap().into_inner().kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect()
    }
}

fn end_of(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
